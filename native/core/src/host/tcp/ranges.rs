//! Disjoint ranges of a stream's positions, in order.

/// What lies between two positions, the second excluded.
pub type Range = (u64, u64);

/// A short sorted list of ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default)]
pub struct Ranges(Vec<Range>);

impl Ranges {
    /// In order.
    pub fn all(&self) -> &[Range] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes in them at or above `from`.
    pub fn bytes_above(&self, from: u64) -> u64 {
        self.0
            .iter()
            .rev()
            .take_while(|(_, end)| *end > from)
            .map(|(start, end)| end - from.max(*start))
            .sum()
    }

    /// Adds one, joining what it touches. `false`: nothing changed, for it was there, or because there would be more than `most`.
    pub fn add(&mut self, start: u64, end: u64, most: usize) -> bool {
        if start >= end {
            return false;
        }
        let first = self.0.partition_point(|range| range.1 < start);
        let behind = self.0.partition_point(|range| range.0 <= end);
        match self.0.get(first..behind) {
            Some(&[(a, b)]) if a <= start && end <= b => false,
            Some(&[(a, _), .., (_, b)] | &[(a, b)]) => {
                self.0.splice(first..behind, [(a.min(start), b.max(end))]);
                true
            }
            _ if self.0.len() < most => {
                self.0.insert(first, (start, end));
                true
            }
            _ => false,
        }
    }

    /// Forgets what lies below `position`.
    pub fn forget_below(&mut self, position: u64) {
        let gone = self.0.partition_point(|range| range.1 <= position);
        self.0.drain(..gone);
        if let Some(first) = self.0.first_mut() {
            first.0 = first.0.max(position);
        }
    }

    /// The first range that none of them touches, from `position` on and below `limit`.
    pub fn gap(&self, mut position: u64, limit: u64) -> Option<Range> {
        for &(start, end) in &self.0 {
            if end <= position {
                continue;
            }
            if start > position {
                return (position < limit).then_some((position, start.min(limit)));
            }
            position = end;
        }
        (position < limit).then_some((position, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_are_what_a_set_of_positions_would_be(
            adds in prop::collection::vec((0u64..60, 0u64..12), 0..20), below in 0u64..80, from in 0u64..80, span in 0u64..30,
        ) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (start, len) in adds {
                let before = set.len();
                set.extend(start..start + len);
                prop_assert_eq!(ranges.add(start, start + len, usize::MAX), set.len() > before);
            }
            prop_assert!(ranges.all().windows(2).all(|pair| pair[0].1 < pair[1].0));
            prop_assert_eq!(ranges.bytes_above(from), set.range(from..).count() as u64);
            let limit = from + span;
            let gap = (from..limit).find(|p| !set.contains(p));
            prop_assert_eq!(ranges.gap(from, limit).map(|g| g.0), gap);
            if let Some((start, end)) = ranges.gap(from, limit) {
                prop_assert!((start..end).all(|p| !set.contains(&p)) && (end == limit || set.contains(&end)));
            }
            ranges.forget_below(below);
            set = set.split_off(&below);
            prop_assert_eq!(ranges.bytes_above(0), set.len() as u64);
        }
    }
}
