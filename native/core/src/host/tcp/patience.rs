//! How long to wait for an acknowledgement before something goes again (RFC 6298, with Linux's bounds). smoltcp's own patience is a second at least,
//! and doubles until a fresh packet has been measured, which on a bad line may take minutes.

use crate::time::{Duration, Instant};

/// While no round trip was measured, and then.
const UNKNOWN: u64 = 1_000_000;
const LEAST: u64 = 200_000;
const MOST: u64 = 60_000_000;

#[derive(Default)]
pub struct Patience {
    /// Smoothed round trip and its variation, microseconds. `None`: nothing was measured.
    round: Option<(u64, u64)>,
    /// The packet that is being measured: its end, and when it went.
    sample: Option<(u32, Instant)>,
    doubled: u32,
    due: Option<Instant>,
}

impl Patience {
    fn wait(&self) -> Duration {
        let wait = self
            .round
            .map_or(UNKNOWN, |(round, variation)| round + (4 * variation).max(LEAST));
        Duration::from_micros((wait << self.doubled).min(MOST))
    }

    /// Something went out, up to `end`.
    pub fn on_sent(&mut self, now: Instant, end: u32, again: bool) {
        if again {
            self.sample = None;
        } else if self.sample.is_none() {
            self.sample = Some((end, now));
        }
        if self.due.is_none() {
            self.due = Some(now + self.wait());
        }
    }

    /// All before `ack` has arrived; `left`: there is more under way. A round trip, if one was measured.
    pub fn on_progress(&mut self, now: Instant, ack: u32, left: bool) -> Option<u64> {
        let mut measured = None;
        if let Some((end, at)) = self.sample
            && ack.wrapping_sub(end) as i32 >= 0
        {
            self.sample = None;
            let took = now.since(at).as_micros();
            measured = Some(took);
            self.round = Some(match self.round {
                None => (took, took / 2),
                Some((round, variation)) => ((7 * round + took) / 8, (3 * variation + round.abs_diff(took)) / 4),
            });
        }
        self.doubled = 0;
        self.due = left.then(|| now + self.wait());
        measured
    }

    /// Smoothed round trip, microseconds.
    pub fn round(&self) -> Option<u64> {
        self.round.map(|(round, _)| round)
    }

    /// When it is over.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is over; the next time it lasts longer.
    pub fn is_over(&mut self, now: Instant) -> bool {
        let over = self.due.is_some_and(|due| due <= now);
        if over {
            self.sample = None;
            self.doubled = (self.doubled + 1).min(9);
            self.due = Some(now + self.wait());
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_the_round_trip_and_doubles_until_something_arrives() {
        let at = |millis: u64| Instant::from_micros(millis * 1_000);
        let mut patience = Patience::default();
        patience.on_sent(at(0), 10, false);
        assert_eq!(patience.due(), Some(at(1_000)), "nothing was measured");
        patience.on_progress(at(40), 10, false);
        patience.on_sent(at(50), 20, false);
        assert_eq!(patience.due(), Some(at(290)));
        assert!(!patience.is_over(at(289)) && patience.is_over(at(290)));
        assert_eq!(patience.due(), Some(at(290 + 480)));
        patience.on_sent(at(290), 20, true);
        // What went twice measures nothing.
        patience.on_progress(at(800), 20, true);
        assert_eq!(patience.due(), Some(at(800 + 240)));
        patience.on_progress(at(801), 30, false);
        assert_eq!(patience.due(), None);
    }
}
