//! Memory of all streams' buffers of one direction, shared out when streams open.
//!
//! So much is kept back that every stream that may exist gets the least that is a window. What is above that is a pool, of which each new buffer
//! gets a share of what is free: few get much, many get little, and whoever comes next finds some.

/// The shared part. Each buffer keeps its own charge, in bytes, and changes it only here.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    floor: usize,
    pool: usize,
    taken: usize,
    charged: usize,
}

/// A smaller buffer would be no window, a larger one carries nothing faster on the paths that we know.
const LEAST: usize = 8 << 10;
const MOST: usize = 1 << 20;
/// So many more buffers are reckoned with than there are.
const TO_COME: usize = 32;

impl Budget {
    /// `bytes` for at most `buffers` buffers; also says for how many it is enough.
    pub fn new(bytes: usize, buffers: usize) -> (Self, usize) {
        let floor = (bytes / 2 / buffers.max(1)).clamp(LEAST, 64 << 10);
        let buffers = buffers.min(bytes / 2 / floor).max(1);
        let budget = Self {
            floor,
            pool: bytes.saturating_sub(floor * buffers),
            taken: 0,
            charged: 0,
        };
        (budget, buffers)
    }

    /// What a new buffer is to get, beside `others`.
    pub fn size(&self, others: usize) -> usize {
        let share = (self.pool - self.taken) / (others + TO_COME);
        (self.floor + share).min(MOST) & !1_023
    }

    /// Bytes charged in all.
    pub fn charged(&self) -> usize {
        self.charged
    }

    /// Changes a buffer's charge.
    pub fn charge(&mut self, charge: &mut usize, to: usize) {
        let above = |charge: usize| charge.saturating_sub(self.floor);
        self.taken = (self.taken + above(to)).saturating_sub(above(*charge)).min(self.pool);
        self.charged = (self.charged + to).saturating_sub(*charge);
        *charge = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_get_much_and_all_together_never_more_than_there_is() {
        for (bytes, wanted) in [(32 << 20, 16_384), (32 << 20, 600), (1 << 20, 64), (1 << 16, 1)] {
            let (mut budget, most) = Budget::new(bytes, wanted);
            assert!(most >= 1 && most <= wanted);
            let mut charges = vec![0; most];
            for (others, charge) in charges.iter_mut().enumerate() {
                let size = budget.size(others);
                assert!(size >= LEAST);
                budget.charge(charge, size);
            }
            assert!(charges.is_sorted_by(|a, b| a >= b) && budget.charged() <= bytes);
            charges.iter_mut().for_each(|charge| budget.charge(charge, 0));
            assert_eq!((budget.charged(), budget.taken), (0, 0));
        }
        assert!(Budget::new(32 << 20, 16_384).0.size(0) >= 256 << 10);
    }
}
