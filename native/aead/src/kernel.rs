//! The implementations that there are, and where each is worth its while.

use crate::group::{Direction, Group, LANES, Tag};
#[cfg(target_arch = "x86_64")]
use crate::{
    avx2::{self, Avx2},
    avx512::{self, Avx512},
};
use core::fmt;

/// An implementation that this processor can run.
#[derive(Clone, Copy, Debug)]
pub struct Kernel(pub(crate) Kind);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Packets one by one.
    Ring,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// Gets everything wrong.
    #[cfg(test)]
    Faulty,
}

impl Kernel {
    pub(crate) const RING: Self = Self(Kind::Ring);

    /// All that this processor can run, the fastest first; ring is always the last.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let lanes = [Avx512::detect().map(Kind::Avx512), Avx2::detect().map(Kind::Avx2)]
            .into_iter()
            .flatten();
        #[cfg(not(target_arch = "x86_64"))]
        let lanes = core::iter::empty();
        lanes.chain([Kind::Ring]).map(Self)
    }

    /// What it is called in settings and tables.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Ring => "ring",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => "AVX-512",
            #[cfg(test)]
            Kind::Faulty => "faulty",
        }
    }

    /// Tells it apart in a byte.
    pub(crate) fn code(self) -> u8 {
        match self.0 {
            Kind::Ring => 0,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => 1,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => 2,
            #[cfg(test)]
            Kind::Faulty => 3,
        }
    }

    /// Packets in a full group.
    pub(crate) fn width(self) -> usize {
        match self.0 {
            Kind::Ring => 1,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => avx2::WIDTH,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => avx512::WIDTH,
            #[cfg(test)]
            Kind::Faulty => LANES,
        }
    }

    /// A group costs the same whether it is full or not; from so many packets of `len` bytes on it costs less than they would through ring, which needs
    /// relatively more for short ones.
    pub(crate) fn worthwhile(self, len: usize) -> usize {
        #[cfg(target_arch = "x86_64")]
        let by_length = |short, middle, long| {
            if len <= 128 {
                short
            } else if len <= 512 {
                middle
            } else {
                long
            }
        };
        match self.0 {
            Kind::Ring => usize::MAX,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => by_length(4, 5, 6),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => by_length(5, 6, 8),
            #[cfg(test)]
            Kind::Faulty => 1,
        }
    }

    /// Seals or opens a group in place; the tags of what is (now, or was before) ciphertext. `None`, and nothing done, where there are no lanes.
    pub(crate) fn run(
        self,
        key: &[u32; 8],
        aad: &[u8],
        group: &mut Group<'_>,
        direction: Direction,
    ) -> Option<[Tag; LANES]> {
        match self.0 {
            Kind::Ring => None,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(lanes) => Some(lanes.run(key, aad, group, direction)),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(lanes) => Some(lanes.run(key, aad, group, direction)),
            #[cfg(test)]
            Kind::Faulty => Some([[0; 16]; LANES]),
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
