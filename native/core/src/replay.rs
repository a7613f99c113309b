//! Replay window after RFC 6479: a ring of 64-bit blocks, so that moving the window clears whole words instead of shifting bits.

/// Blocks in the ring. One is always partly ahead of the window, hence 8,192 counters in 129 blocks rounded to a power of two.
const BLOCKS: usize = 256;
/// Counters that may arrive late, in packets.
pub const WINDOW: u64 = 8_192;

/// Remembers which counters have been seen; each is accepted once, and none that is more than [`WINDOW`] behind the highest.
#[derive(Clone)]
pub struct ReplayWindow {
    /// One more than the highest counter accepted, 0 before the first.
    next: u64,
    ring: [u64; BLOCKS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self {
            next: 0,
            ring: [0; BLOCKS],
        }
    }
}

impl ReplayWindow {
    /// Whether `counter` would be accepted now. Cheap gate before the packet is authenticated.
    pub fn is_fresh(&self, counter: u64) -> bool {
        if counter >= self.next {
            return counter < u64::MAX;
        }
        if self.next - counter > WINDOW {
            return false;
        }
        let (block, bit) = Self::position(counter);
        self.ring[block] & bit == 0
    }

    /// Marks an authenticated packet's counter as seen; false when it already was, or lies behind the window.
    pub fn accept(&mut self, counter: u64) -> bool {
        if !self.is_fresh(counter) {
            return false;
        }
        if counter >= self.next {
            let first = if self.next == 0 { 0 } else { (self.next - 1) >> 6 };
            let last = counter >> 6;
            let cleared = (last - first).min(BLOCKS as u64);
            for step in 1..=cleared {
                self.ring[((first + step) as usize) & (BLOCKS - 1)] = 0;
            }
            self.next = counter + 1;
        }
        let (block, bit) = Self::position(counter);
        self.ring[block] |= bit;
        true
    }

    /// Whether `counter` is the highest yet.
    pub fn is_newest(&self, counter: u64) -> bool {
        counter >= self.next
    }

    fn position(counter: u64) -> (usize, u64) {
        (((counter >> 6) as usize) & (BLOCKS - 1), 1 << (counter & 63))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn each_counter_is_accepted_once_and_none_from_behind_the_window() {
        let mut window = ReplayWindow::default();
        assert!(window.accept(0));
        assert!(!window.accept(0));
        assert!(window.accept(WINDOW + 10));
        assert!(window.accept(11));
        assert!(!window.accept(10));
        assert!(!window.accept(11));
        assert!(!window.is_fresh(u64::MAX));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_seen_counters(steps in prop::collection::vec((0u64..20_000, any::<bool>()), 1..400)) {
            let mut window = ReplayWindow::default();
            let (mut seen, mut highest) = (HashSet::new(), None::<u64>);
            let mut base = 0u64;
            for (step, forward) in steps {
                let counter = if forward { base += step; base } else { base.saturating_sub(step) };
                let behind = highest.is_some_and(|h| h + 1 > counter && h + 1 - counter > WINDOW);
                let expected = !behind && !seen.contains(&counter);
                prop_assert_eq!(window.accept(counter), expected);
                seen.insert(counter);
                highest = Some(highest.map_or(counter, |h| h.max(counter)));
            }
        }
    }
}
