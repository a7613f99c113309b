//! Every implementation against ring, Wycheproof and a bignum; where they may read and write; what they do with forgeries; and their time.

mod constant_time;
mod differential;
mod distrust;
pub(crate) mod poly1305;
mod wycheproof;

use crate::group::{Direction, Group, LANES, Tag};
use crate::kernel::Kind;
use crate::{Kernel, Key, Packet};
use core::ops::Range;

/// All but ring: this processor's, and WebAssembly's in plain numbers.
pub(crate) fn lanes() -> impl Iterator<Item = Kernel> {
    Kernel::available()
        .filter(|kernel| kernel.width() > 1)
        .chain([Kind::Four, Kind::One].map(Kernel))
}

/// A packet that is to be opened.
#[derive(Clone)]
pub(crate) struct Sealed {
    pub range: Range<usize>,
    pub nonce: [u8; 12],
    pub opened: bool,
}

impl Packet for Sealed {
    fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    fn nonce(&self) -> [u8; 12] {
        self.nonce
    }

    fn set_opened(&mut self, opened: bool) {
        self.opened = opened;
    }
}

/// One group through one implementation.
pub(crate) fn run(
    kernel: Kernel,
    key: &Key,
    aad: &[u8],
    buffer: &mut [u8],
    starts: &[usize],
    len: usize,
    nonces: &[[u8; 12]],
    direction: Direction,
) -> [Tag; LANES] {
    let mut group = Group::new(buffer, starts, len, nonces).unwrap();
    kernel.run(key.words(), aad, &mut group, direction).unwrap()
}

/// Numbers that look random and are the same in every run (splitmix64).
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.word() % limit as u64) as usize
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.word().to_le_bytes()[..chunk.len()]);
        }
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}
