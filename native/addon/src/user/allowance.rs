//! A bound on datagrams that are on their way between threads: whoever takes them gives their room back, and what finds none is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What each costs besides its bytes.
const EACH: usize = 512;

/// So many bytes may be on their way.
#[derive(Clone, Debug)]
pub struct Allowance {
    taken: Arc<AtomicUsize>,
    most: usize,
}

/// What one datagram took; given back when dropped.
#[derive(Debug)]
pub struct Taken {
    of: Arc<AtomicUsize>,
    bytes: usize,
}

impl Allowance {
    /// All of it is free.
    pub fn new(most: usize) -> Self {
        Self {
            taken: Arc::default(),
            most,
        }
    }

    /// For a datagram of so many bytes; `None`: too much is on its way.
    pub fn take(&self, bytes: usize) -> Option<Taken> {
        let bytes = bytes + EACH;
        let fits = |taken: usize| Some(taken + bytes).filter(|&sum| sum <= self.most);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .ok()?;
        Some(Taken {
            of: self.taken.clone(),
            bytes,
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_comes_back_and_more_is_never_given() {
        let allowance = Allowance::new(3 * (EACH + 1_000));
        let mut taken: Vec<_> = (0..4).map(|_| allowance.take(1_000)).collect();
        assert_eq!(taken.iter().flatten().count(), 3);
        taken.truncate(2);
        assert!(allowance.take(1_001).is_none());
        assert!(allowance.take(1_000).is_some());
    }
}
