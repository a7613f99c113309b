//! One direction of a watched TCP connection: its segments in order, what has been passed on and what is held back. Sequence numbers never change, so
//! the two ends go on acknowledging each other; bytes sent again leave as they left the first time, and as zeros once they are acknowledged: whoever
//! has them looks at them no more, and nobody gets by a false acknowledgement what was rewritten before.

use super::lan;
use super::parse::{Edit, End, Parser, Reader};
use std::collections::VecDeque;

/// Bytes behind a gap that are kept until it is filled: of a stream that is rewritten (all of them leave at once), and of one that is only read.
const LATER: usize = 64 * 1_024;
const LATER_READ: usize = 256 * 1_024;
/// Rewritten bytes that may wait for their acknowledgement.
const PATCHES: usize = 64 * 1_024;
/// Bytes of a client's that may wait for the camera's acknowledgement: as they were read, they are sent again.
const COPIES: usize = 64 * 1_024;
/// So many times may bytes come again that we hold: their sender waits for us, and we for the rest of the line.
const STUCK: u8 = 4;

/// A stretch of bytes as they were passed on.
struct Patch {
    seq: u32,
    bytes: Vec<u8>,
}

/// What becomes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Goes on as it is.
    Pass,
    /// The bytes put out go instead, at `seq`; with FIN if `fin` says so, with the segment's own PSH if nothing is held back.
    Send { seq: u32, fin: bool, whole: bool },
    /// Comes again.
    Drop,
    /// Not RTSP, or none that may pass.
    Fail,
}

/// What is done with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Only read.
    Read,
    /// Rewritten and held back.
    Rewrite,
    /// The same, and its sender may send other bytes under the same numbers: what was read first counts.
    Guard,
}

/// See the module.
pub struct Stream {
    parser: Parser,
    care: Care,
    /// Sequence numbers: of the first byte; of the first that the receiver hasn't acknowledged; of the first that wasn't passed on; of the
    /// first that hasn't come.
    first: Option<u32>,
    acked: u32,
    done: u32,
    next: u32,
    /// Met in its middle, by its sender's word alone: the receiver may lack bytes before.
    unsure: bool,
    /// The bytes from `done` to `next`, the first `judged` of them rewritten already.
    held: Vec<u8>,
    judged: usize,
    later: Vec<(u32, Vec<u8>)>,
    later_bytes: usize,
    patches: VecDeque<Patch>,
    patch_bytes: usize,
    /// The bytes from `acked` to `done`, where the sender isn't trusted.
    copies: VecDeque<u8>,
    fin: Option<u32>,
    waits: bool,
    stuck: u8,
}

/// How far `a` lies ahead of `b`.
pub fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

impl Stream {
    pub fn new(care: Care) -> Self {
        Self {
            parser: Parser::default(),
            care,
            first: None,
            acked: 0,
            done: 0,
            next: 0,
            unsure: false,
            held: Vec::new(),
            judged: 0,
            later: Vec::new(),
            later_bytes: 0,
            patches: VecDeque::new(),
            patch_bytes: 0,
            copies: VecDeque::new(),
            fin: None,
            waits: false,
            stuck: 0,
        }
    }

    /// The SYN's successor is the first byte.
    pub fn begin(&mut self, first: u32) {
        *self = Self::new(self.care);
        (self.first, self.acked, self.done, self.next) = (Some(first), first, first, first);
    }

    /// Met in its middle: nobody knows what begins where. `sure`: its receiver has everything before.
    pub fn meet(&mut self, at: u32, sure: bool) {
        self.begin(at);
        self.parser = Parser::loose(true);
        self.unsure = !sure;
    }

    /// Its messages can't be told apart any more: what is held back is read again, without them.
    pub fn lose(&mut self) {
        self.parser = Parser::loose(false);
        (self.waits, self.stuck) = (false, 0);
    }

    fn rewrites(&self) -> bool {
        self.care != Care::Read
    }

    /// Where it began, if that is known.
    pub fn first(&self) -> Option<u32> {
        self.first
    }

    /// The first byte that the receiver hasn't got from us.
    pub fn done(&self) -> Option<u32> {
        self.first.map(|_| self.done)
    }

    /// A line waits for [`Stream::resume`].
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// The receiver has everything before `ack`, or says so.
    pub fn acknowledged(&mut self, ack: u32) {
        let (fresh, ahead) = (distance(ack, self.acked), distance(ack, self.done));
        if self.parser.is_loose() && (ahead > 0 || (self.unsure && fresh < 0)) {
            // It knows more than we do.
            if ahead.unsigned_abs() < 1 << 30 {
                self.meet(ack, true);
            }
            return;
        }
        if fresh < 0 || ahead > 0 {
            return;
        }
        self.unsure = false;
        self.copies.drain(..self.copies.len().min(fresh as usize));
        self.acked = ack;
        while let Some(patch) = self.patches.front() {
            if distance(ack, patch.seq.wrapping_add(patch.bytes.len() as u32)) < 0 {
                break;
            }
            self.patch_bytes -= patch.bytes.len();
            self.patches.pop_front();
        }
    }

    /// Takes a segment; what goes instead of it is put into `out`.
    pub fn take(&mut self, seq: u32, payload: &[u8], fin: bool, reader: &mut impl Reader, out: &mut Vec<u8>) -> Taken {
        out.clear();
        if self.unsure && !payload.is_empty() && self.first.is_some_and(|first| distance(seq, first) < 0) {
            // It sends again what lies before: so the receiver lacks that.
            self.meet(seq, false);
        }
        let end = seq.wrapping_add(payload.len() as u32);
        let ahead = distance(seq, self.next);
        if fin && ahead.unsigned_abs() < 1 << 30 {
            self.fin.get_or_insert(end);
        }
        if ahead == 1 && payload.is_empty() && self.fin == Some(self.done) && self.held.is_empty() {
            // Behind its FIN, which takes a number of its own, a side only acknowledges.
            return Taken::Pass;
        }
        if ahead > 0 {
            return self.keep(seq, payload);
        }
        let known = ahead.unsigned_abs() as usize;
        let fresh = payload.get(known..).unwrap_or(&[]);
        let mut used = 0;
        let full = self.copies.len() + self.held.len() + fresh.len() > COPIES;
        if (self.waits && self.held.len() + fresh.len() > LATER) || (self.care == Care::Guard && full) {
            return Taken::Drop;
        }
        if !fresh.is_empty() {
            self.stuck = 0;
            if self.held.is_empty() {
                let reading = self.parser.read(self.next, fresh, reader);
                self.waits = reading.end == End::Wait;
                if reading.end == End::Fail {
                    self.held.extend_from_slice(fresh);
                    self.next = end;
                    return Taken::Fail;
                }
                let untouched = reading.edits.is_empty() && reading.used == fresh.len();
                if untouched && known == 0 && self.later.is_empty() {
                    (self.done, self.next) = (end, end);
                    if self.care == Care::Guard {
                        self.copies.extend(fresh);
                    }
                    return Taken::Pass;
                }
                used = reading.used;
                self.held.extend_from_slice(fresh);
                self.judged = 0;
                if !self.apply(reading.edits) {
                    return Taken::Fail;
                }
            } else {
                self.held.extend_from_slice(fresh);
            }
            self.judged += used;
            self.next = end;
            self.follow();
        } else if self.rewrites() && !self.waits && !payload.is_empty() && distance(seq, self.done) >= 0 {
            self.stuck += 1;
            if self.stuck >= STUCK && !self.let_go() {
                return Taken::Fail;
            }
        }
        if !self.judge(reader) {
            return Taken::Fail;
        }
        self.put(seq, payload, fin, out)
    }

    /// The line that waited can be judged now; what goes on is put into `out`.
    pub fn resume(&mut self, reader: &mut impl Reader, out: &mut Vec<u8>) -> Taken {
        out.clear();
        self.waits = false;
        if !self.judge(reader) {
            return Taken::Fail;
        }
        self.put(self.done, &[], false, out)
    }

    /// Bytes before `done` as they leave when they are sent again: as they left before, as zeros where the receiver has them. Whether that is
    /// another thing than what came.
    fn again(&self, seq: u32, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let end = seq.wrapping_add(payload.len() as u32);
        out.clear();
        out.extend_from_slice(payload);
        let had = usize::try_from(distance(self.acked, seq)).unwrap_or(0).min(out.len());
        if let Some(had) = out.get_mut(..had) {
            had.fill(0);
        }
        if self.care == Care::Guard {
            let skipped = usize::try_from(distance(seq, self.acked)).unwrap_or(0);
            for (place, &byte) in out.iter_mut().skip(had).zip(self.copies.iter().skip(skipped)) {
                *place = byte;
            }
            return out != payload;
        }
        let mut touched = had > 0;
        for patch in &self.patches {
            let behind = patch.seq.wrapping_add(patch.bytes.len() as u32);
            if distance(patch.seq, end) >= 0 || distance(behind, seq) <= 0 {
                continue;
            }
            touched = true;
            for (i, &byte) in patch.bytes.iter().enumerate() {
                let at = usize::try_from(distance(patch.seq.wrapping_add(i as u32), seq));
                if let Some(place) = at.ok().filter(|&at| at >= had).and_then(|at| out.get_mut(at)) {
                    *place = byte;
                }
            }
        }
        touched
    }

    /// Nothing follows what looked like the beginning of something, in a stream without messages: it goes, as if it had been that.
    fn let_go(&mut self) -> bool {
        let Some(open) = self.held.get(self.judged..).filter(|_| self.parser.is_loose()) else {
            return false;
        };
        let mut bytes = open.to_vec();
        lan::zero(&mut bytes);
        let fits = self.apply(vec![Edit { at: 0, bytes }]);
        (self.judged, self.stuck) = (self.held.len(), 0);
        fits
    }

    fn keep(&mut self, seq: u32, payload: &[u8]) -> Taken {
        let most = if self.rewrites() { LATER } else { LATER_READ };
        let near = (distance(seq, self.next) as usize) < (1 << 24);
        let nothing = Taken::Send {
            seq: self.done,
            fin: false,
            whole: false,
        };
        if self.later.iter().any(|(s, p)| *s == seq && p.len() >= payload.len()) {
            return if self.rewrites() { nothing } else { Taken::Pass };
        }
        if payload.is_empty() || !near || self.later_bytes + payload.len() > most {
            return if payload.is_empty() && !self.rewrites() {
                Taken::Pass
            } else if payload.is_empty() {
                nothing
            } else {
                Taken::Drop
            };
        }
        self.later_bytes += payload.len();
        self.later.push((seq, payload.to_vec()));
        if self.rewrites() { nothing } else { Taken::Pass }
    }

    /// Takes what came early and is next now.
    fn follow(&mut self) {
        while let Some(at) = self.later.iter().position(|(seq, _)| distance(*seq, self.next) <= 0) {
            let (seq, payload) = self.later.swap_remove(at);
            self.later_bytes -= payload.len();
            let known = distance(self.next, seq) as usize;
            if let Some(fresh) = payload.get(known..) {
                self.held.extend_from_slice(fresh);
                self.next = self.next.wrapping_add(fresh.len() as u32);
            }
        }
    }

    /// Judges what is held, as far as that goes; false when nothing of it may pass.
    fn judge(&mut self, reader: &mut impl Reader) -> bool {
        if !self.waits && self.judged < self.held.len() {
            let base = self.done.wrapping_add(self.judged as u32);
            let reading = self
                .parser
                .read(base, self.held.get(self.judged..).unwrap_or(&[]), reader);
            self.waits = reading.end == End::Wait;
            if reading.end == End::Fail || !self.apply(reading.edits) {
                return false;
            }
            self.judged += reading.used;
            // The sender has no more to say: what looks like the beginning of something isn't.
            if self.fin == Some(self.next) && !self.waits && self.judged < self.held.len() {
                let Ok((bytes, _)) = reader.scan(self.held.get(self.judged..).unwrap_or(&[]), true) else {
                    return false;
                };
                let edits = bytes.map(|bytes| Edit { at: 0, bytes });
                if !self.apply(edits.into_iter().collect()) {
                    return false;
                }
                self.judged = self.held.len();
            }
        }
        true
    }

    /// Rewrites held bytes, from the first that hadn't been judged on.
    fn apply(&mut self, edits: Vec<Edit>) -> bool {
        for edit in edits {
            let at = self.judged + edit.at;
            let Some(place) = self.held.get_mut(at..at + edit.bytes.len()) else {
                return false;
            };
            place.copy_from_slice(&edit.bytes);
            self.patch_bytes += edit.bytes.len();
            self.patches.push_back(Patch {
                seq: self.done.wrapping_add(at as u32),
                bytes: edit.bytes,
            });
        }
        self.patch_bytes <= PATCHES
    }

    /// What leaves for a segment that came: bytes that left before, as they left, and those behind them that may leave now.
    fn put(&mut self, seq: u32, payload: &[u8], fin: bool, out: &mut Vec<u8>) -> Taken {
        let mut ready = self.judged;
        if self.waits {
            // A request goes in one piece where it came in one: some cameras read no further than their first segment.
            let message = distance(self.parser.message, self.done);
            ready = ready.min(usize::try_from(message).unwrap_or(ready));
        }
        if !self.rewrites() {
            self.held.drain(..ready);
            self.judged -= ready;
            self.done = self.done.wrapping_add(ready as u32);
            return Taken::Pass;
        }
        let before = usize::try_from(distance(self.done, seq))
            .unwrap_or(0)
            .min(payload.len());
        let touched = before > 0 && self.again(seq, payload.get(..before).unwrap_or(&[]), out);
        if before == payload.len() && ready == 0 && !touched {
            let ends = self.fin == Some(self.done) && self.held.is_empty();
            if !fin || ends {
                return Taken::Pass;
            }
        }
        let start = if before > 0 { seq } else { self.done };
        // Between what was sent again and what is new there is no gap: a segment ends before `done`, or reaches it.
        if before == 0 || start.wrapping_add(before as u32) == self.done {
            let leaving = self.held.drain(..ready);
            if self.care == Care::Guard {
                self.copies.extend(leaving.as_slice());
            }
            out.extend(leaving);
            self.judged -= ready;
            self.done = self.done.wrapping_add(ready as u32);
        }
        Taken::Send {
            seq: start,
            fin: self.fin == Some(self.done) && self.held.is_empty(),
            whole: self.held.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests;
