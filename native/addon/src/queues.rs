//! What waits for a way out that is slower than what comes: a short queue for each who shares it, served in turn by bytes (deficit round
//! robin), and the longest loses first.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

/// Queues with a name of their own; more who share one line at once are put together.
const QUEUES: usize = 64;
/// Bytes that each sends per turn.
const TURN: usize = 8 << 10;
/// Sizes of the buffers that are lent, and how many are kept for later.
const SMALL: usize = 2_048;
const LARGE: usize = 65_536;
const SMALL_KEPT: usize = 256;
const LARGE_KEPT: usize = 16;

/// A datagram or a train of them that waits.
pub struct Parcel {
    /// Whose.
    pub share: u32,
    /// Where to, and from which of our addresses.
    pub to: SocketAddr,
    pub local: Option<IpAddr>,
    /// Size of each datagram.
    pub segment: usize,
    pub bytes: Vec<u8>,
}

impl Parcel {
    /// Datagrams in it.
    pub fn packets(&self) -> u64 {
        self.bytes.len().div_ceil(self.segment.max(1)) as u64
    }
}

/// Buffers for what waits, reused: so much and no more, over all lines of a worker.
pub struct Memory {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    lent: usize,
    most: usize,
}

impl Memory {
    /// Of at most `most` bytes.
    pub const fn new(most: usize) -> Self {
        Self {
            small: Vec::new(),
            large: Vec::new(),
            lent: 0,
            most,
        }
    }

    /// A copy of `bytes`; `None` when too much is lent.
    pub fn copy(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let size = if bytes.len() <= SMALL { SMALL } else { LARGE };
        if bytes.len() > LARGE || self.lent + size > self.most {
            return None;
        }
        self.lent += size;
        let kept = if size == SMALL {
            &mut self.small
        } else {
            &mut self.large
        };
        let mut buffer = kept.pop().unwrap_or_else(|| Vec::with_capacity(size));
        buffer.extend_from_slice(bytes);
        Some(buffer)
    }

    /// What [`Memory::copy`] lent.
    pub fn give_back(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        let (kept, most, size) = if buffer.capacity() < LARGE {
            (&mut self.small, SMALL_KEPT, SMALL)
        } else {
            (&mut self.large, LARGE_KEPT, LARGE)
        };
        self.lent = self.lent.saturating_sub(size);
        if kept.len() < most {
            kept.push(buffer);
        }
    }
}

#[derive(Default)]
struct Queue {
    share: u32,
    parcels: VecDeque<Parcel>,
    bytes: usize,
    deficit: usize,
}

/// All that waits for one line.
pub struct Queues {
    queues: Vec<Queue>,
    /// Those with something in them, in the order of their turns.
    turns: VecDeque<usize>,
    bytes: usize,
}

impl Queues {
    /// Empty.
    pub fn new() -> Self {
        Self {
            queues: Vec::new(),
            turns: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Puts a parcel behind the others of its share. Keep to a limit with [`Queues::shed`].
    pub fn push(&mut self, parcel: Parcel) {
        let at = self.place(parcel.share);
        let Some(queue) = self.queues.get_mut(at) else { return };
        if queue.parcels.is_empty() {
            queue.deficit = 0;
            self.turns.push_back(at);
        }
        queue.bytes += parcel.bytes.len();
        self.bytes += parcel.bytes.len();
        queue.parcels.push_back(parcel);
    }

    /// While more than `limit` bytes wait, takes the oldest of whoever has most waiting; one parcel per call.
    pub fn shed(&mut self, limit: usize) -> Option<Parcel> {
        if self.bytes <= limit {
            return None;
        }
        let longest = self
            .turns
            .iter()
            .copied()
            .max_by_key(|&at| self.queues.get(at).map(|q| q.bytes))?;
        self.take(longest)
    }

    /// The next parcel by turns.
    pub fn pop(&mut self) -> Option<Parcel> {
        loop {
            let at = *self.turns.front()?;
            let queue = self.queues.get_mut(at)?;
            let next = queue.parcels.front()?.bytes.len();
            if queue.deficit >= next {
                queue.deficit -= next;
                return self.take(at);
            }
            queue.deficit += TURN;
            self.turns.rotate_left(1);
        }
    }

    fn take(&mut self, at: usize) -> Option<Parcel> {
        let queue = self.queues.get_mut(at)?;
        let parcel = queue.parcels.pop_front()?;
        queue.bytes -= parcel.bytes.len();
        self.bytes -= parcel.bytes.len();
        if queue.parcels.is_empty() {
            self.turns.retain(|&turn| turn != at);
        }
        Some(parcel)
    }

    /// Where a share's queue is: its own, a free one, or one that it must share.
    fn place(&mut self, share: u32) -> usize {
        let own = self
            .turns
            .iter()
            .copied()
            .find(|&at| self.queues.get(at).is_some_and(|q| q.share == share));
        if let Some(at) = own {
            return at;
        }
        let free = self.queues.iter().position(|q| q.parcels.is_empty());
        let at = match free {
            Some(at) => at,
            None if self.queues.len() < QUEUES => {
                self.queues.push(Queue::default());
                self.queues.len() - 1
            }
            None => return share as usize % QUEUES,
        };
        if let Some(queue) = self.queues.get_mut(at) {
            queue.share = share;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn parcel(share: u32, len: usize, number: u8) -> Parcel {
        Parcel {
            share,
            to: ([192, 0, 2, 1], 1).into(),
            local: None,
            segment: 1_000,
            bytes: vec![number; len],
        }
    }

    /// xorshift: the same numbers in every run.
    fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        }
    }

    #[test]
    fn whoever_has_more_waiting_gets_no_more_of_the_line() {
        let mut queues = Queues::new();
        // One with trains, one with small packets, one with both.
        for n in 0..100 {
            queues.push(parcel(1, 60_000, n));
        }
        for n in 0..2_000 {
            queues.push(parcel(2, 200, n as u8));
        }
        for n in 0..100 {
            queues.push(parcel(3, if n % 2 == 0 { 60_000 } else { 200 }, n));
        }
        let mut sent = HashMap::new();
        while sent.get(&2).is_none_or(|&bytes| bytes < 400_000) {
            let parcel = queues.pop().unwrap();
            *sent.entry(parcel.share).or_insert(0) += parcel.bytes.len();
        }
        for share in [1, 3] {
            let bytes = sent[&share];
            assert!(bytes.abs_diff(400_000) <= 60_000 + TURN, "{share}: {bytes}");
        }
    }

    #[test]
    fn each_keeps_its_order_and_nothing_is_lost_or_doubled() {
        let mut random = numbers(7);
        for _ in 0..200 {
            let mut queues = Queues::new();
            let (mut waiting, mut in_order) = (HashMap::<u32, VecDeque<(u8, usize)>>::new(), 0u64);
            for step in 0..300u64 {
                match random(3) {
                    0 | 1 => {
                        // At most as many shares as there are queues: each has its own.
                        let (share, len) = (random(QUEUES as u64) as u32, 1 + random(65_000) as usize);
                        queues.push(parcel(share, len, step as u8));
                        waiting.entry(share).or_default().push_back((step as u8, len));
                    }
                    _ => {
                        let limit = random(2_000_000) as usize;
                        let longest = waiting.values().map(|w| w.iter().map(|p| p.1).sum::<usize>()).max();
                        let shed = queues.bytes > limit && step % 2 == 0;
                        let out = if shed { queues.shed(limit) } else { queues.pop() };
                        let Some(out) = out else {
                            assert!(waiting.values().all(VecDeque::is_empty));
                            continue;
                        };
                        let own = waiting.get_mut(&out.share).unwrap();
                        if shed {
                            let bytes = own.iter().map(|p| p.1).sum::<usize>();
                            assert_eq!(Some(bytes), longest, "from the longest");
                        }
                        assert_eq!(own.pop_front(), Some((out.bytes[0], out.bytes.len())));
                        in_order += 1;
                    }
                }
                let bytes = waiting.values().flatten().map(|p| p.1).sum::<usize>();
                assert_eq!((queues.bytes, queues.turns.is_empty()), (bytes, bytes == 0));
            }
            assert!(in_order > 0);
        }
    }

    #[test]
    fn however_many_share_a_line_there_are_so_many_queues() {
        let mut queues = Queues::new();
        for share in 0..10_000 {
            queues.push(parcel(share, 100, 0));
            while queues.shed(500_000).is_some() {}
        }
        assert_eq!((queues.queues.len(), queues.bytes), (QUEUES, 500_000));
        assert_eq!(std::iter::from_fn(|| queues.pop()).count(), 5_000);
        assert!(queues.turns.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_used_again() {
        let mut memory = Memory::new(2 * LARGE + SMALL);
        let lent: Vec<_> = [SMALL + 1, LARGE, SMALL, 1]
            .iter()
            .map(|&len| memory.copy(&vec![1; len]))
            .collect();
        assert_eq!(
            lent.iter().map(Option::is_some).collect::<Vec<_>>(),
            [true, true, true, false]
        );
        let places: Vec<_> = lent.iter().flatten().map(|b| b.as_ptr()).collect();
        lent.into_iter().flatten().for_each(|buffer| memory.give_back(buffer));
        let again = memory.copy(&[2; 10]).unwrap();
        assert_eq!((&again[..], again.as_ptr()), (&[2; 10][..], places[2]));
        assert!(memory.copy(&vec![0; LARGE + 1]).is_none());
    }
}
