//! Acknowledgements as smoltcp should see them. It counts them, not what they acknowledge, and takes several segments for one: so one of much is
//! shown as several, of repeated ones some aren't shown, and one that fills only the first of several holes asks for the next.

use super::segment::Header;
use crate::flows::tcp_flags as flag;

/// Repeats of an acknowledgement that mean a loss (RFC 5681).
const REPEATS: u32 = 3;

/// What of our side is under way.
pub struct Acks {
    /// Segments that smoltcp takes for one.
    pub factor: usize,
    /// First byte that isn't acknowledged, and the one behind the last that was sent. `None`: nothing was sent.
    span: Option<(u32, u32)>,
    window: u16,
    repeats: u32,
    /// A loss is being repaired until all before this is acknowledged (RFC 6582); the first that is missing is to go again.
    until: Option<u32>,
    asked: bool,
    /// Everything goes again, so repeats mean nothing until all before this is acknowledged.
    quiet: Option<u32>,
}

impl Default for Acks {
    fn default() -> Self {
        Self {
            factor: 1,
            span: None,
            window: 0,
            repeats: 0,
            until: None,
            asked: false,
            quiet: None,
        }
    }
}

/// What to show before a segment, and after it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    from: u32,
    step: u32,
    total: u32,
    /// So often its acknowledgement again.
    pub again: u32,
}

impl Plan {
    /// Acknowledgements to show, the last being its own.
    pub fn shown(&self) -> impl Iterator<Item = u32> + use<> {
        let (from, step, total) = (self.from, self.step.max(1), self.total);
        (1..=total.div_ceil(step)).map(move |count| from.wrapping_add((step * count).min(total)))
    }
}

impl Acks {
    /// Behind the last byte that was sent.
    pub fn next(&self) -> Option<u32> {
        self.span.map(|(_, next)| next)
    }

    /// The first that isn't acknowledged.
    pub fn first(&self) -> Option<u32> {
        self.span.map(|(first, _)| first)
    }

    /// Whether something is under way.
    pub fn is_waiting(&self) -> bool {
        self.span.is_some_and(|(first, next)| first != next)
    }

    /// What is missing is to go again: what the far end acknowledged last, and its window. `None`: nothing is missing, or it has no room.
    pub fn hurry(&mut self) -> Option<(u32, u16)> {
        let (first, next) = self.span.filter(|(first, next)| first != next && self.window > 0)?;
        self.until = Some(next);
        self.asked = true;
        self.quiet = None;
        Some((first, self.window))
    }

    /// Whether a packet that began with `seq` may be under way.
    pub fn is_under_way(&self, seq: u32) -> bool {
        self.span
            .is_some_and(|(first, next)| seq.wrapping_sub(first) < next.wrapping_sub(first))
    }

    /// Notes what was sent, and whether its last number is FIN's or SYN's; whether it was sent before.
    pub fn on_sent(&mut self, seq: u32, end: u32, control: bool) -> bool {
        let Some((first, next)) = &mut self.span else {
            self.span = Some((seq, end));
            return false;
        };
        if end.wrapping_sub(*next) as i32 > 0 {
            // What only asks for room may be refused.
            if self.window > 0 || control || end != seq.wrapping_add(1) {
                *next = end;
            }
            return false;
        }
        if end == seq || seq.wrapping_sub(*first) as i32 > 0 && self.quiet.is_none() {
            return false;
        }
        if seq == *first && !core::mem::take(&mut self.asked) {
            // Its timer ran out.
            self.quiet = Some(*next);
            self.until = None;
        }
        seq.wrapping_sub(*first) as i32 >= 0
    }

    /// What to do about a segment that comes; `None`: smoltcp needn't see it.
    pub fn plan(&mut self, header: &Header, payload: usize, together: usize, queued: usize) -> Option<Plan> {
        let mut plan = Plan::default();
        let same_window = core::mem::replace(&mut self.window, header.window) == header.window;
        let Some((first, next)) = self.span.as_mut().filter(|_| header.has(flag::ACK)) else {
            return Some(plan);
        };
        let acked = header.ack.wrapping_sub(*first);
        // SYN or FIN take a number.
        if acked as usize > queued + 1 {
            return Some(plan);
        }
        if acked == 0 {
            if *next == *first || payload > 0 || header.flags != flag::ACK || !same_window || header.window == 0 {
                return Some(plan);
            }
            self.repeats = self.repeats.saturating_add(1);
            // A FIN isn't repeated for that, but would be forgotten.
            if self.quiet.is_some() || queued == 0 {
                return None;
            }
            if self.repeats == REPEATS && self.until.is_none() {
                self.until = Some(*next);
                self.asked = true;
            }
            // Each lets a whole one of smoltcp's segments go.
            let shown = self.repeats <= REPEATS || (self.repeats as usize).is_multiple_of(self.factor);
            return shown.then_some(plan);
        }
        self.repeats = 0;
        plan.from = *first;
        plan.step = together.max(1) as u32;
        plan.total = acked;
        *first = header.ack;
        if next.wrapping_sub(header.ack) as i32 <= 0 {
            *next = header.ack;
        }
        let missing = |mark: &u32| mark.wrapping_sub(header.ack) as i32 > 0;
        self.quiet = self.quiet.filter(missing);
        self.until = self.until.filter(missing);
        if self.until.is_some() && queued > acked as usize {
            self.asked = true;
            plan.again = REPEATS;
        }
        Some(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(ack: u32, window: u16) -> Header {
        Header {
            ack,
            flags: flag::ACK,
            window,
            ..Header::default()
        }
    }

    /// 10,000 bytes from just below the numbers' end on.
    fn under_way() -> (Acks, u32) {
        let first = u32::MAX - 5_000;
        let mut acks = Acks {
            factor: 4,
            ..Acks::default()
        };
        acks.plan(&ack(0, 500), 0, 1, 0);
        acks.on_sent(first, first.wrapping_add(4_000), false);
        assert!(!acks.on_sent(first.wrapping_add(4_000), first.wrapping_add(10_000), false));
        (acks, first)
    }

    #[test]
    fn an_acknowledgement_of_much_is_shown_as_several() {
        let (mut acks, first) = under_way();
        let shown = |plan: Plan| plan.shown().map(|ack| ack.wrapping_sub(first)).collect::<Vec<_>>();
        let plan = acks
            .plan(&ack(first.wrapping_add(7_000), 500), 0, 3_000, 10_000)
            .unwrap();
        assert_eq!((plan.again, shown(plan)), (0, vec![3_000, 6_000, 7_000]));
        let nothing = acks
            .plan(&ack(first.wrapping_add(20_000), 500), 0, 3_000, 3_000)
            .unwrap();
        assert_eq!(
            (shown(nothing), acks.first()),
            (vec![], Some(first.wrapping_add(7_000)))
        );
        assert!(acks.is_under_way(first.wrapping_add(9_999)) && !acks.is_under_way(first.wrapping_add(6_999)));
    }

    #[test]
    fn of_many_repeats_those_are_shown_that_let_a_whole_segment_go() {
        let (mut acks, first) = under_way();
        let shown: Vec<u32> = (1..=12)
            .filter(|_| acks.plan(&ack(first, 500), 0, 4_000, 10_000).is_some())
            .collect();
        assert_eq!(shown, [1, 2, 3, 4, 8, 12]);
        // What fills one hole of two asks for the next; what fills both doesn't.
        assert!(
            !acks.on_sent(first.wrapping_add(10_000), first.wrapping_add(10_500), false)
                && acks.on_sent(first, first.wrapping_add(4_000), false)
        );
        assert_eq!(
            acks.plan(&ack(first.wrapping_add(4_000), 500), 0, 4_000, 10_500)
                .unwrap()
                .again,
            REPEATS
        );
        assert_eq!(
            acks.plan(&ack(first.wrapping_add(10_200), 500), 0, 4_000, 6_500)
                .unwrap()
                .again,
            0
        );
    }

    #[test]
    fn repeats_mean_nothing_while_everything_goes_again_or_only_the_end_is_missing() {
        let (mut acks, first) = under_way();
        assert!(
            acks.on_sent(first, first.wrapping_add(4_000), false),
            "nobody asked: its time was over"
        );
        assert!(acks.plan(&ack(first, 500), 0, 4_000, 10_000).is_none());
        assert!(
            acks.plan(&ack(first, 400), 0, 4_000, 10_000).is_some(),
            "another window is news"
        );
        assert!(
            acks.plan(&ack(first.wrapping_add(10_000), 400), 0, 4_000, 10_000)
                .is_some()
        );
        acks.on_sent(first.wrapping_add(10_000), first.wrapping_add(10_001), false);
        assert!(acks.plan(&ack(first.wrapping_add(10_000), 400), 0, 4_000, 0).is_none());
    }
}
