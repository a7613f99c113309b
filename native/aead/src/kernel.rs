//! The implementations that there are, and where each is worth its while.

#[cfg(any(test, target_arch = "wasm32"))]
use crate::blocks;
use crate::group::{Direction, Group, LANES, Tag};
use crate::single::Single;
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
    /// Packets one by one, by ring or, in WebAssembly, by RustCrypto.
    Single,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// Four blocks at a time: WebAssembly's vectors, in tests plain numbers.
    #[cfg(any(test, all(target_arch = "wasm32", target_feature = "simd128")))]
    Four,
    /// Block after block.
    #[cfg(any(test, all(target_arch = "wasm32", not(target_feature = "simd128"))))]
    One,
    /// Gets everything wrong.
    #[cfg(test)]
    Faulty,
}

impl Kernel {
    pub(crate) const SINGLE: Self = Self(Kind::Single);

    /// All that this processor can run, the fastest first; what works one by one is always the last.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let lanes = [Avx512::detect().map(Kind::Avx512), Avx2::detect().map(Kind::Avx2)]
            .into_iter()
            .flatten();
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        let lanes = core::iter::once(Kind::Four);
        #[cfg(all(target_arch = "wasm32", not(target_feature = "simd128")))]
        let lanes = core::iter::once(Kind::One);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "wasm32")))]
        let lanes = core::iter::empty();
        lanes.chain([Kind::Single]).map(Self)
    }

    /// What it is called in settings and tables.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Single => Single::NAME,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => "AVX-512",
            #[cfg(any(test, all(target_arch = "wasm32", target_feature = "simd128")))]
            Kind::Four => "simd128",
            #[cfg(any(test, all(target_arch = "wasm32", not(target_feature = "simd128"))))]
            Kind::One => "scalar",
            #[cfg(test)]
            Kind::Faulty => "faulty",
        }
    }

    /// Tells it apart in a byte.
    pub(crate) fn code(self) -> u8 {
        match self.0 {
            Kind::Single => 0,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => 1,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => 2,
            #[cfg(any(test, all(target_arch = "wasm32", target_feature = "simd128")))]
            Kind::Four => 4,
            #[cfg(any(test, all(target_arch = "wasm32", not(target_feature = "simd128"))))]
            Kind::One => 5,
            #[cfg(test)]
            Kind::Faulty => 3,
        }
    }

    /// Packets in a full group.
    pub(crate) fn width(self) -> usize {
        match self.0 {
            Kind::Single => 1,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => avx2::WIDTH,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => avx512::WIDTH,
            #[cfg(any(test, all(target_arch = "wasm32", target_feature = "simd128")))]
            Kind::Four => LANES,
            #[cfg(any(test, all(target_arch = "wasm32", not(target_feature = "simd128"))))]
            Kind::One => LANES,
            #[cfg(test)]
            Kind::Faulty => LANES,
        }
    }

    /// A group costs the same whether it is full or not; from so many packets of `len` bytes on it costs less than they would one by one, for which
    /// ring needs relatively more when they are short.
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
            Kind::Single => usize::MAX,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => by_length(4, 5, 6),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => by_length(5, 6, 8),
            #[cfg(any(test, all(target_arch = "wasm32", target_feature = "simd128")))]
            Kind::Four => 1,
            #[cfg(any(test, all(target_arch = "wasm32", not(target_feature = "simd128"))))]
            Kind::One => 1,
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
            Kind::Single => None,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(lanes) => Some(lanes.run(key, aad, group, direction)),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(lanes) => Some(lanes.run(key, aad, group, direction)),
            #[cfg(any(test, all(target_arch = "wasm32", target_feature = "simd128")))]
            Kind::Four => Some(blocks::four(key, aad, group, direction)),
            #[cfg(any(test, all(target_arch = "wasm32", not(target_feature = "simd128"))))]
            Kind::One => Some(blocks::one(key, aad, group, direction)),
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
