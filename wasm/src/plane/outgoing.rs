//! What is to be sent, as JavaScript reads it: a table over the buffers that it lies in.

use super::addresses::Addresses;
use std::ops::Range;
use thicket_core::{Train, TxBatch};

/// Words of a line.
const WORDS: usize = 5;

/// Where a train lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the buffer that was received into, or in `kept`: from its beginning.
    Input(usize),
    Kept(usize),
    /// In this memory.
    Memory(usize),
}

struct Line {
    address: u32,
    place: Place,
    len: usize,
    segment: usize,
    share: u32,
}

#[derive(Default)]
pub struct Outgoing {
    lines: Vec<Line>,
    /// Copies of what found no room where it was made.
    kept: Vec<u8>,
    table: Vec<u32>,
}

impl Outgoing {
    /// Relayed ones, which lie where they were received: `base` bytes behind its beginning.
    pub fn relays(&mut self, trains: &[Train], base: usize, addresses: &mut Addresses) {
        for train in trains {
            self.push(train, Place::Input(base + train.range.start), addresses);
        }
    }

    /// What the core made; its buffer stays as it is until it was sent.
    pub fn trains(&mut self, tx: &mut TxBatch, addresses: &mut Addresses) {
        if tx.is_empty() {
            return;
        }
        let (trains, bytes) = tx.ready();
        let base = bytes.as_ptr() as usize;
        for train in trains {
            self.push(train, Place::Memory(base + train.range.start), addresses);
        }
    }

    /// The same, and makes room.
    pub fn keep(&mut self, tx: &mut TxBatch, addresses: &mut Addresses) {
        let (trains, bytes) = tx.ready();
        for train in trains {
            let at = self.kept.len();
            self.kept.extend_from_slice(slice(bytes, &train.range));
            self.push(train, Place::Kept(at), addresses);
        }
        tx.clear();
    }

    fn push(&mut self, train: &Train, place: Place, addresses: &mut Addresses) {
        self.lines.push(Line {
            address: addresses.number_to(train.remote),
            place,
            len: train.range.len(),
            segment: train.segment.max(1),
            share: train.share.0,
        });
    }

    /// Writes the table; its lines. `input`: where the buffer that was received into lies.
    pub fn write(&mut self, input: usize) -> usize {
        let kept = self.kept.as_ptr() as usize;
        self.table.clear();
        for line in &self.lines {
            let at = match line.place {
                Place::Input(at) => input + at,
                Place::Kept(at) => kept + at,
                Place::Memory(at) => at,
            };
            let words: [u32; WORDS] = [
                line.address,
                at as u32,
                line.len as u32,
                line.segment as u32,
                line.share,
            ];
            self.table.extend_from_slice(&words);
        }
        self.lines.len()
    }

    pub fn table(&self) -> usize {
        self.table.as_ptr() as usize
    }

    pub fn clear(&mut self) {
        self.lines.clear();
        self.kept.clear();
    }
}

fn slice<'a>(bytes: &'a [u8], range: &Range<usize>) -> &'a [u8] {
    bytes.get(range.clone()).unwrap_or(&[])
}
