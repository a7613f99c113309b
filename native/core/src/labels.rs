//! The labels that we announced, bounded so that nobody uses them all up.

use crate::api::LinkId;
use crate::hash::IdMap;
use crate::tables::{Action, LabelEntry};

/// Labels at most: some 200 bytes each, and 2 KiB more once it carries packets.
const MOST: usize = 1 << 18;

/// Between which two links a label leads, whichever way; one link twice where it ends here.
type Pair = (LinkId, LinkId);

/// The label table. A pair of links may have as many labels as are still free: a flood between two of them leaves half of the table to the
/// others, and a newcomer always finds some. (Not per link: what one neighbour sets up would count against the links that it leads to.)
pub struct Labels<const MOST_LABELS: usize = MOST> {
    entries: IdMap<u32, LabelEntry>,
    of_pair: IdMap<Pair, u32>,
    forwarded: usize,
}

impl<const MOST_LABELS: usize> Default for Labels<MOST_LABELS> {
    fn default() -> Self {
        Self {
            entries: IdMap::default(),
            of_pair: IdMap::default(),
            forwarded: 0,
        }
    }
}

impl<const MOST_LABELS: usize> Labels<MOST_LABELS> {
    pub fn get(&self, label: u32) -> Option<&LabelEntry> {
        self.entries.get(&label)
    }

    /// For what changes with packets; link and action stay.
    pub fn get_mut(&mut self, label: u32) -> Option<&mut LabelEntry> {
        self.entries.get_mut(&label)
    }

    /// Adds one; `None` when it is taken already, or its pair of links has its share.
    pub fn add(&mut self, label: u32, entry: LabelEntry) -> Option<()> {
        let pair = pair(&entry);
        let share = self.of_pair.get(&pair).map_or(0, |&count| count as usize);
        let free = MOST_LABELS.saturating_sub(self.entries.len());
        if share >= free || self.entries.contains_key(&label) {
            return None;
        }
        *self.of_pair.entry(pair).or_insert(0) += 1;
        self.forwarded += usize::from(entry.is_forward());
        self.entries.insert(label, entry);
        Some(())
    }

    pub fn remove(&mut self, label: u32) -> Option<()> {
        let gone = self.entries.remove(&label)?;
        self.forwarded -= usize::from(gone.is_forward());
        forget(&mut self.of_pair, pair(&gone));
        Some(())
    }

    /// Keeps those for which `stays` says so.
    pub fn retain(&mut self, mut stays: impl FnMut(u32, &LabelEntry) -> bool) {
        let (of_pair, forwarded) = (&mut self.of_pair, &mut self.forwarded);
        self.entries.retain(|&label, entry| {
            let stays = stays(label, entry);
            if !stays {
                *forwarded -= usize::from(entry.is_forward());
                forget(of_pair, pair(entry));
            }
            stays
        });
    }

    /// Labels whose packets are forwarded for others.
    pub fn forwarded(&self) -> usize {
        self.forwarded
    }
}

fn pair(entry: &LabelEntry) -> Pair {
    let other = match &entry.action {
        Action::Forward(forward) => forward.link,
        Action::Deliver(_) => entry.link,
    };
    (entry.link.min(other), entry.link.max(other))
}

fn forget(of_pair: &mut IdMap<Pair, u32>, pair: Pair) {
    if let Some(count) = of_pair.get_mut(&pair) {
        *count -= 1;
        if *count == 0 {
            of_pair.remove(&pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Label, PathId};
    use crate::keyed::HopKey;
    use crate::tables::Forward;
    use crate::time::Instant;

    fn entry(from: u32, to: u32) -> LabelEntry {
        let hop = HopKey::from_bytes([0; 16]);
        let forward = Forward {
            link: LinkId(to),
            label: Label(300),
            hop: hop.clone(),
            window: None,
        };
        LabelEntry {
            link: LinkId(from),
            hop,
            action: if from == to {
                Action::Deliver(PathId(1))
            } else {
                Action::Forward(forward)
            },
            valid: Instant::default(),
            carried: false,
        }
    }

    /// Adds labels between two links until there are no more for them; how many that were.
    fn flood(labels: &mut Labels<64>, next: &mut u32, from: u32, to: u32) -> usize {
        let mut count = 0;
        loop {
            *next += 1;
            // Both ways, as set-ups do.
            let (from, to) = if count % 2 == 0 { (from, to) } else { (to, from) };
            if labels.add(*next, entry(from, to)).is_none() {
                return count;
            }
            count += 1;
        }
    }

    #[test]
    fn a_flood_between_two_links_leaves_labels_for_all_others_and_for_each_of_the_two() {
        let (mut labels, mut next) = (Labels::<64>::default(), 256);
        assert_eq!(flood(&mut labels, &mut next, 1, 2), 32);
        assert_eq!(
            flood(&mut labels, &mut next, 3, 2),
            16,
            "the link that was flooded still serves others"
        );
        assert_eq!(flood(&mut labels, &mut next, 1, 1), 8);
        assert_eq!(flood(&mut labels, &mut next, 4, 5), 4);
        labels.retain(|_, entry| entry.link == LinkId(4) || entry.link == LinkId(5));
        assert_eq!(labels.of_pair.len(), 1, "what is gone counts no more");
        assert_eq!(flood(&mut labels, &mut next, 1, 2), 30);
        assert!(labels.add(next, entry(6, 7)).is_some());
        assert!(labels.add(next, entry(6, 7)).is_none(), "a label is one thing only");
        assert_eq!((labels.remove(next), labels.remove(next)), (Some(()), None));
        assert_eq!((labels.of_pair.len(), labels.forwarded()), (2, 34));
    }
}
