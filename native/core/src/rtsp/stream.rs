//! One direction of a watched TCP connection: its segments in order, what has been passed on and what is held back. Sequence numbers never change, so
//! the two ends go on acknowledging each other; bytes sent again leave as they left the first time.

use super::parse::{End, Parser, Reader};
use std::collections::VecDeque;

/// Bytes behind a gap that are kept until it is filled: of a stream that is rewritten (all of them leave at once), and of one that is only read.
const LATER: usize = 64 * 1_024;
const LATER_READ: usize = 256 * 1_024;
/// Rewritten bytes that may wait for their acknowledgement.
const PATCHES: usize = 64 * 1_024;
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

/// See the module.
pub struct Stream {
    parser: Parser,
    /// Rewritten and held back, or only read.
    rewrites: bool,
    /// Sequence numbers: of the first byte; of the first that wasn't passed on; of the first that hasn't come.
    first: Option<u32>,
    done: u32,
    next: u32,
    /// The bytes from `done` to `next`, the first `judged` of them rewritten already.
    held: Vec<u8>,
    judged: usize,
    later: Vec<(u32, Vec<u8>)>,
    later_bytes: usize,
    patches: VecDeque<Patch>,
    patch_bytes: usize,
    fin: Option<u32>,
    waits: bool,
    stuck: u8,
}

/// How far `a` lies ahead of `b`.
pub fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

impl Stream {
    pub fn new(rewrites: bool) -> Self {
        Self {
            parser: Parser::default(),
            rewrites,
            first: None,
            done: 0,
            next: 0,
            held: Vec::new(),
            judged: 0,
            later: Vec::new(),
            later_bytes: 0,
            patches: VecDeque::new(),
            patch_bytes: 0,
            fin: None,
            waits: false,
            stuck: 0,
        }
    }

    /// The SYN's successor is the first byte.
    pub fn begin(&mut self, first: u32) {
        *self = Self::new(self.rewrites);
        (self.first, self.done, self.next) = (Some(first), first, first);
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

    /// The receiver has everything before `ack`.
    pub fn acknowledged(&mut self, ack: u32) {
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
        if self.waits && self.held.len() + fresh.len() > LATER {
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
        } else if self.rewrites && !self.waits && !payload.is_empty() && distance(seq, self.done) >= 0 {
            self.stuck += 1;
            if self.stuck >= STUCK {
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

    /// The bytes of a segment as they left before, if any of them were rewritten then.
    pub fn again(&self, seq: u32, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let end = seq.wrapping_add(payload.len() as u32);
        let mut touched = false;
        out.clear();
        out.extend_from_slice(payload);
        for patch in &self.patches {
            let behind = patch.seq.wrapping_add(patch.bytes.len() as u32);
            if distance(patch.seq, end) >= 0 || distance(behind, seq) <= 0 {
                continue;
            }
            touched = true;
            for (i, &byte) in patch.bytes.iter().enumerate() {
                let at = usize::try_from(distance(patch.seq.wrapping_add(i as u32), seq));
                if let Some(place) = at.ok().and_then(|at| out.get_mut(at)) {
                    *place = byte;
                }
            }
        }
        touched
    }

    /// Everything that is held, as it came: nobody reads this stream any more.
    pub fn surrender(&mut self, out: &mut Vec<u8>) -> Taken {
        out.clear();
        let seq = self.done;
        out.append(&mut self.held);
        (self.done, self.judged) = (self.next, 0);
        Taken::Send {
            seq,
            fin: self.fin == Some(self.done),
            whole: true,
        }
    }

    fn keep(&mut self, seq: u32, payload: &[u8]) -> Taken {
        let most = if self.rewrites { LATER } else { LATER_READ };
        let near = (distance(seq, self.next) as usize) < (1 << 24);
        let nothing = Taken::Send {
            seq: self.done,
            fin: false,
            whole: false,
        };
        if self.later.iter().any(|(s, p)| *s == seq && p.len() >= payload.len()) {
            return if self.rewrites { nothing } else { Taken::Pass };
        }
        if payload.is_empty() || !near || self.later_bytes + payload.len() > most {
            return if payload.is_empty() && !self.rewrites {
                Taken::Pass
            } else if payload.is_empty() {
                nothing
            } else {
                Taken::Drop
            };
        }
        self.later_bytes += payload.len();
        self.later.push((seq, payload.to_vec()));
        if self.rewrites { nothing } else { Taken::Pass }
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
                let (bytes, _) = reader.scan(self.held.get(self.judged..).unwrap_or(&[]), true);
                let edits = bytes.map(|bytes| super::parse::Edit { at: 0, bytes });
                if !self.apply(edits.into_iter().collect()) {
                    return false;
                }
                self.judged = self.held.len();
            }
        }
        true
    }

    /// Rewrites held bytes, from the first that hadn't been judged on.
    fn apply(&mut self, edits: Vec<super::parse::Edit>) -> bool {
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
        if !self.rewrites {
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
            out.extend(self.held.drain(..ready));
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
mod tests {
    use super::super::parse::Step;
    use super::*;

    /// Turns headers to upper case, and makes `hold:` wait until told.
    #[derive(Default)]
    struct Upper {
        open: bool,
        requests: usize,
    }

    impl Reader for Upper {
        fn first(&mut self, line: &[u8]) -> Step {
            self.requests += 1;
            if super::super::parse::first_line(line).is_some() {
                Step::Keep
            } else {
                Step::Fail
            }
        }
        fn header(&mut self, line: &[u8]) -> Step {
            match line {
                [b'h', b'o', b'l', b'd', ..] if !self.open => Step::Wait,
                _ => Step::Edit(line.to_ascii_uppercase()),
            }
        }
        fn head_ends(&mut self) -> Step {
            Step::Keep
        }
        fn description(&mut self, _: &[u8]) -> Step {
            Step::Keep
        }
        fn scans(&self) -> bool {
            false
        }
        fn scan(&self, _: &[u8], _: bool) -> (Option<Vec<u8>>, usize) {
            (None, 0)
        }
    }

    const TEXT: &[u8] = b"PLAY rtsp://h/ RTSP/1.0\r\na: x\r\ncontent-length: 3\r\n\r\nabc$\x01\0\x04data";
    const WANT: &[u8] = b"PLAY rtsp://h/ RTSP/1.0\r\nA: X\r\nCONTENT-LENGTH: 3\r\n\r\nabc$\x01\0\x04data";

    fn stream() -> Stream {
        let mut stream = Stream::new(true);
        stream.begin(u32::MAX - 10);
        stream
    }

    /// What a receiver has after a segment was taken.
    fn receive(got: &mut Vec<u8>, taken: Taken, seq: u32, payload: &[u8], out: &[u8]) {
        let (seq, bytes) = match taken {
            Taken::Pass => (seq, payload),
            Taken::Send { seq, .. } => (seq, out),
            other => unreachable!("{other:?}"),
        };
        let at = distance(seq, u32::MAX - 10) as usize;
        if bytes.is_empty() {
            return;
        }
        assert!(at <= got.len(), "nothing leaves before what comes before it");
        for (i, &byte) in bytes.iter().enumerate() {
            match got.get(at + i) {
                Some(&known) => assert_eq!(known, byte, "sent again, it is the same"),
                None => got.push(byte),
            }
        }
    }

    #[test]
    fn a_stream_in_any_pieces_leaves_as_the_same_bytes() {
        for size in 1..TEXT.len() {
            let (mut stream, mut reader, mut out, mut got) = (stream(), Upper::default(), Vec::new(), Vec::new());
            for (i, piece) in TEXT.chunks(size).enumerate() {
                let seq = (u32::MAX - 10).wrapping_add((i * size) as u32);
                for _ in 0..2 {
                    let taken = stream.take(seq, piece, false, &mut reader, &mut out);
                    receive(&mut got, taken, seq, piece, &out);
                }
            }
            assert_eq!(got, WANT, "pieces of {size}");
            assert_eq!(reader.requests, 1);
        }
    }

    #[test]
    fn what_comes_early_waits_for_what_is_missing() {
        let (mut stream, mut reader, mut out, mut got) = (stream(), Upper::default(), Vec::new(), Vec::new());
        for range in [40..TEXT.len(), 20..45, 0..25] {
            let seq = (u32::MAX - 10).wrapping_add(range.start as u32);
            let taken = stream.take(seq, &TEXT[range.clone()], false, &mut reader, &mut out);
            receive(&mut got, taken, seq, &TEXT[range], &out);
        }
        assert_eq!(got, WANT);
    }

    #[test]
    fn behind_its_fin_a_side_acknowledges_as_ever() {
        let start = u32::MAX - 10;
        let (mut stream, mut reader, mut out) = (stream(), Upper::default(), Vec::new());
        let fin = stream.take(start, b"", true, &mut reader, &mut out);
        assert_eq!(fin, Taken::Pass);
        for _ in 0..2 {
            let taken = stream.take(start.wrapping_add(1), b"", false, &mut reader, &mut out);
            assert_eq!(taken, Taken::Pass);
        }
    }

    #[test]
    fn a_line_that_waits_holds_its_whole_message_and_the_fin_behind_it() {
        let (mut stream, mut reader, mut out) = (stream(), Upper::default(), Vec::new());
        let text = b"A * RTSP/1.0\r\n\r\nB * RTSP/1.0\r\nx: 1\r\nhold: me\r\n\r\n";
        let start = u32::MAX - 10;
        let taken = stream.take(start, text, true, &mut reader, &mut out);
        assert_eq!(
            taken,
            Taken::Send {
                seq: start,
                fin: false,
                whole: false
            }
        );
        assert_eq!(out, &text[..16]);
        assert!(stream.waits());
        reader.open = true;
        let taken = stream.resume(&mut reader, &mut out);
        assert_eq!(
            taken,
            Taken::Send {
                seq: start.wrapping_add(16),
                fin: true,
                whole: true
            }
        );
        assert_eq!(out, text[16..].to_ascii_uppercase());
    }

    #[test]
    fn a_sender_that_waits_for_us_is_not_left_waiting_for_ever() {
        let (mut stream, mut reader, mut out) = (stream(), Upper::default(), Vec::new());
        let taken: Vec<_> = (0..6)
            .map(|_| stream.take(u32::MAX - 10, b"PLAY rt", false, &mut reader, &mut out))
            .collect();
        assert!(taken[..3].iter().all(|t| matches!(t, Taken::Send { .. })) && taken[5] == Taken::Fail);
    }
}
