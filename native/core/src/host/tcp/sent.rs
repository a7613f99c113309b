//! What of our side is under way, what of it is lost, and how much may be: RFC 6675 and RFC 9438, beside smoltcp, which knows one loss at a time.

use super::cubic::Cubic;
use super::ranges::Ranges;
use super::segment::Header;
use crate::flows::tcp_flags as flag;
use crate::time::Instant;

/// Repeats of an acknowledgement, or segments that arrived behind a hole, that mean a loss (RFC 5681).
const REPEATS: u32 = 3;
/// Ranges that are remembered.
const RANGES: usize = 128;

/// Positions count from the first byte on; a SYN and a FIN take one.
pub struct Sent {
    /// Longest payload of a packet, and of what smoltcp repeats at once.
    pub segment: usize,
    pub together: usize,
    /// How far the far end's windows are shifted.
    pub scale: u8,
    cubic: Cubic,
    begun: bool,
    /// The first number that isn't acknowledged, and its position; the position behind the last that was sent.
    first: u32,
    at: u64,
    next: u64,
    /// Behind the last that smoltcp takes for sent: what it repeats may go beyond what it was asked for.
    given: u64,
    /// What arrived behind a hole.
    arrived: Ranges,
    /// As the far end said it last.
    window: u16,
    repeats: u32,
    /// What hasn't arrived before the first of these is lost; and was sent again before the second.
    lost: u64,
    resent: u64,
    /// The loss is repaired when all before this has arrived; whether nothing at all came back.
    until: Option<u64>,
    silent: bool,
    /// One segment goes again however little may be under way.
    urgent: bool,
    /// What is to go again can't until more than this has arrived.
    blocked: Option<u64>,
}

impl Sent {
    pub fn new(segment: usize) -> Self {
        Self {
            segment,
            together: segment,
            scale: 0,
            cubic: Cubic::new(segment),
            begun: false,
            first: 0,
            at: 0,
            next: 0,
            given: 0,
            arrived: Ranges::default(),
            window: 0,
            repeats: 0,
            lost: 0,
            resent: 0,
            until: None,
            silent: false,
            urgent: false,
            blocked: None,
        }
    }

    /// The far end's longest segment became known, and how many of them smoltcp is to take for one.
    pub fn set_segment(&mut self, segment: usize, many: usize) {
        self.segment = segment;
        self.together = segment * many;
        self.cubic.set_mss(segment);
    }

    /// The first number that isn't acknowledged.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// The number behind the last that was sent.
    pub fn next(&self) -> Option<u32> {
        let flight = self.next - self.at;
        self.begun.then(|| self.first.wrapping_add(flight as u32))
    }

    /// Whether something is under way.
    pub fn is_waiting(&self) -> bool {
        self.at != self.next
    }

    /// Whether a packet that began with `seq` may be under way.
    pub fn is_under_way(&self, seq: u32) -> bool {
        self.begun && u64::from(seq.wrapping_sub(self.first)) < self.next - self.at
    }

    fn position(&self, seq: u32) -> u64 {
        self.at
            .saturating_add_signed(i64::from(seq.wrapping_sub(self.first) as i32))
    }

    /// Notes what goes out, and whether its last number is FIN's or SYN's; whether it went before.
    pub fn on_sent(&mut self, seq: u32, end: u32, control: bool) -> bool {
        if !self.begun {
            (self.begun, self.first) = (true, seq);
        }
        let (start, end) = (self.position(seq), self.position(end));
        let again = start < self.next && end > start;
        // What only asks for room may be refused.
        if end > self.next && (self.window > 0 || control || end > start + 1) {
            self.next = end;
        }
        again
    }

    /// Notes what smoltcp takes for sent.
    pub fn on_given(&mut self, end: u32) {
        self.given = self.given.max(self.position(end));
    }

    /// Whether smoltcp repeats what it wasn't asked for.
    pub fn is_unasked(&self, seq: u32, payload: usize) -> bool {
        let start = self.position(seq);
        // A lone byte before the next asks whether anybody is there.
        self.begun && payload > 0 && start >= self.at && start < self.next && self.is_waiting()
    }

    fn missing(&self, from: u64, to: u64) -> u64 {
        if to <= from {
            return 0;
        }
        to - from - (self.arrived.bytes_above(from) - self.arrived.bytes_above(to))
    }

    /// Bytes that are thought to be on the line.
    fn pipe(&self) -> u64 {
        self.missing(self.at, self.resent) + self.missing(self.lost, self.next)
    }

    fn spare(&self) -> u64 {
        (self.cubic.window() as u64).saturating_sub(self.pipe())
    }

    /// The window to show smoltcp: what the far end has room for, and no more new bytes than may be under way. Whole segments only, if there are others.
    pub fn shown(&self) -> u16 {
        if self.window == 0 {
            return 0;
        }
        let (flight, segment) = (self.next.max(self.given) - self.at, self.segment as u64);
        let spare = self.spare().saturating_sub(self.given.saturating_sub(self.next));
        let spare = if spare < segment && flight > 0 {
            0
        } else {
            spare.max(segment) / segment * segment
        };
        let unit = 1 << self.scale;
        let shown = ((flight + spare) / unit).max(flight.div_ceil(unit)).max(1);
        u64::from(self.window).min(shown) as u16
    }

    /// What came. `None`: it acknowledges nothing that makes sense; else how many bytes are new, and smoltcp needs to see them.
    pub fn on_ack(
        &mut self,
        now: Instant,
        header: &Header,
        payload: usize,
        queued: usize,
        round: Option<u64>,
    ) -> Option<u32> {
        if !self.begun || !header.has(flag::ACK) {
            return None;
        }
        let acked = header.ack.wrapping_sub(self.first);
        // SYN or FIN take a number.
        if acked as usize > queued + 1 {
            return None;
        }
        let same_window = core::mem::replace(&mut self.window, header.window) == header.window;
        let flight = self.next - self.at;
        for &(start, end) in header.options.blocks() {
            let (start, end) = (self.position(start), self.position(end));
            if start > self.at && end <= self.next {
                self.arrived.add(start, end, RANGES);
            }
        }
        if acked > 0 {
            self.on_progress(now, acked, flight, round);
        } else if flight > 0 && payload == 0 && header.flags == flag::ACK && same_window {
            self.repeats = self.repeats.saturating_add(1);
        }
        self.judge();
        Some(acked)
    }

    fn on_progress(&mut self, now: Instant, acked: u32, flight: u64, round: Option<u64>) {
        self.first = self.first.wrapping_add(acked);
        self.at += u64::from(acked);
        self.next = self.next.max(self.at);
        self.given = self.given.max(self.at);
        self.arrived.forget_below(self.at);
        self.repeats = 0;
        self.lost = self.lost.max(self.at);
        self.resent = self.resent.max(self.at);
        if self.until.is_some_and(|until| self.at >= until) {
            self.until = None;
        }
        let used_up = flight + self.together as u64 >= self.cubic.window() as u64;
        if let (None, Some(round)) = (self.until.filter(|_| !self.silent), round)
            && used_up
        {
            self.cubic.on_ack(now, acked as usize, round);
        }
        if self.until.is_none() {
            self.silent = false;
        } else if self.arrived.is_empty() && self.lost == self.at {
            // Whoever doesn't say what arrived: the next segment is lost, too (RFC 6582).
            self.lost = self.next.min(self.at + self.segment as u64);
        }
    }

    /// What is lost.
    fn judge(&mut self) {
        let enough = u64::from(REPEATS - 1) * self.segment as u64;
        let mut above = 0;
        let behind = self.arrived.all().iter().rev().find(|(start, end)| {
            above += end - start;
            above > enough
        });
        let lost = match behind {
            Some((start, _)) => *start,
            None if self.repeats >= REPEATS && self.until.is_none() => self.next.min(self.at + self.segment as u64),
            None => return,
        };
        self.lost = self.lost.max(lost);
        if self.until.is_none() && self.lost > self.at {
            self.until = Some(self.next);
            self.resent = self.at;
            self.urgent = true;
            self.cubic.on_loss();
        }
    }

    /// Nothing came back for too long: all that hasn't arrived is lost.
    pub fn on_silence(&mut self) {
        if self.window == 0 {
            return;
        }
        if !core::mem::replace(&mut self.silent, true) {
            self.cubic.on_timeout();
        }
        self.until = Some(self.next);
        self.blocked = None;
        (self.lost, self.resent) = (self.next, self.at);
        self.urgent = true;
    }

    /// What is to go again now, or never went, counted from the first that isn't acknowledged.
    pub fn again(&self) -> Option<(usize, usize)> {
        if self.blocked == Some(self.at) || self.window == 0 {
            return None;
        }
        let reach = self.at + self.together as u64 + 1;
        let lost = self
            .until
            .and_then(|_| self.arrived.gap(self.resent.max(self.at), self.lost.min(reach)));
        let (start, end) =
            lost.or_else(|| Some((self.next, self.given.min(reach))).filter(|(start, end)| start < end))?;
        let segment = self.segment as u64;
        let spare = if self.urgent || self.pipe() == 0 {
            self.spare().max(segment)
        } else {
            self.spare()
        };
        let spare = if self.urgent { segment } else { spare };
        let bytes = (end - start).min(spare);
        // Whole segments, or all that is missing there.
        let whole = if bytes == end - start {
            bytes
        } else {
            bytes / segment * segment
        };
        (whole > 0).then(|| ((start - self.at) as usize, (start - self.at + whole) as usize))
    }

    /// All that was to go before this, counted as [`Sent::again`] does, is on its way.
    pub fn on_resent(&mut self, end: usize) {
        self.urgent = false;
        self.blocked = None;
        self.resent = self.resent.max((self.at + end as u64).min(self.lost));
    }

    /// smoltcp can't give what is to go again.
    pub fn block(&mut self) {
        self.blocked = Some(self.at);
    }

    /// A round trip was measured.
    pub fn on_round(&mut self, round: u64) {
        self.cubic.on_sample(round);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_micros(1);

    fn ack(ack: u32) -> Header {
        Header {
            ack,
            flags: flag::ACK,
            window: 60_000,
            ..Header::default()
        }
    }

    /// Ten segments from just below the numbers' end on, behind a SYN.
    fn ten() -> (Sent, u32) {
        let isn = u32::MAX - 4_000;
        let first = isn.wrapping_add(1);
        let mut sent = Sent::new(1_000);
        sent.set_segment(1_000, 8);
        sent.on_sent(isn, first, true);
        assert_eq!(sent.on_ack(NOW, &ack(first), 0, 20_000, None), Some(1));
        assert!(!sent.on_sent(first, first.wrapping_add(10_000), false));
        (sent, first)
    }

    #[test]
    fn what_is_lost_goes_again_once_and_costs_a_part_of_the_window_once() {
        let (mut sent, first) = ten();
        let before = sent.cubic.window();
        let mut told = ack(first);
        told.options
            .push((first.wrapping_add(1_000), first.wrapping_add(3_000)));
        sent.on_ack(NOW, &told, 0, 20_000, None);
        assert_eq!(sent.again(), None, "it may only be late");
        told.options
            .push((first.wrapping_add(4_000), first.wrapping_add(6_000)));
        sent.on_ack(NOW, &told, 0, 20_000, None);
        assert_eq!(sent.again(), Some((0, 1_000)));
        assert!(sent.on_sent(first, first.wrapping_add(1_000), false));
        sent.on_resent(1_000);
        assert_eq!(sent.again(), None, "above the second hole too little arrived");
        let mut told = ack(first.wrapping_add(3_000));
        told.options
            .push((first.wrapping_add(4_000), first.wrapping_add(7_000)));
        sent.on_ack(NOW, &told, 0, 17_000, None);
        assert_eq!(sent.again(), Some((0, 1_000)));
        sent.on_resent(1_000);
        sent.on_ack(NOW, &ack(first.wrapping_add(10_000)), 0, 10_000, None);
        assert_eq!((sent.again(), sent.is_waiting()), (None, false));
        assert_eq!(sent.cubic.window(), before * 7 / 10);
    }

    #[test]
    fn after_silence_all_that_has_not_arrived_goes_again_by_and_by() {
        let (mut sent, first) = ten();
        let mut told = ack(first);
        told.options
            .push((first.wrapping_add(1_000), first.wrapping_add(3_000)));
        sent.on_ack(NOW, &told, 0, 20_000, None);
        sent.on_silence();
        assert_eq!(sent.again(), Some((0, 1_000)));
        sent.on_resent(1_000);
        assert_eq!(sent.again(), None, "one segment, until something comes back");
        sent.on_ack(NOW, &ack(first.wrapping_add(3_000)), 0, 17_000, Some(10_000));
        assert_eq!(sent.again(), Some((0, 4_000)), "as many more as arrived");
    }

    #[test]
    fn no_more_is_shown_than_may_be_under_way_and_never_less_than_is() {
        let (mut sent, first) = ten();
        assert_eq!(sent.shown(), 10_000);
        sent.on_ack(NOW, &ack(first.wrapping_add(4_000)), 0, 16_000, Some(10_000));
        assert!((10_000..20_000).contains(&sent.shown()), "{}", sent.shown());
        sent.on_silence();
        assert_eq!(sent.shown(), 7_000 / 1_000 * 1_000);
        let mut full = ack(first.wrapping_add(4_000));
        full.window = 0;
        sent.on_ack(NOW, &full, 0, 16_000, None);
        assert_eq!(sent.shown(), 0);
    }

    #[test]
    fn what_smoltcp_gives_beyond_what_was_asked_for_still_goes() {
        let (mut sent, first) = ten();
        assert!(sent.is_unasked(first, 8_000) && !sent.is_unasked(first.wrapping_add(10_000), 8_000));
        sent.on_ack(NOW, &ack(first.wrapping_add(5_000)), 0, 15_000, Some(10_000));
        sent.on_given(first.wrapping_add(13_000));
        assert_eq!(sent.again(), Some((5_000, 8_000)));
        assert!(!sent.on_sent(first.wrapping_add(10_000), first.wrapping_add(13_000), false));
        assert_eq!(sent.again(), None);
    }
}
