//! Words of several blocks side by side, one block per lane.

/// One word of ChaCha20's state in every lane.
pub(crate) trait Lanes: Copy {
    /// Blocks side by side, at most [`MOST`].
    const WIDTH: usize;

    /// The same word in every lane.
    fn splat(word: u32) -> Self;
    /// A word of its own in every lane.
    fn each(words: [u32; MOST]) -> Self;
    /// Sums modulo 2^32.
    fn add(self, other: Self) -> Self;
    /// What rotating by whole bytes needs.
    type Orders: Copy;
    /// Makes it.
    fn orders() -> Self::Orders;
    /// `self ^ other`, rotated left by `BITS`, which is 7, 8, 12 or 16.
    fn xor_rotate<const BITS: u32>(self, other: Self, orders: Self::Orders) -> Self;
    /// Writes four words of every lane, little-endian, to `out` of the lane, from byte `at` on.
    fn store(words: [Self; 4], out: &mut [[u8; 64]; MOST], at: Quarter);
    /// `data ^= stream`.
    fn apply(data: &mut [u8; 64], stream: &[u8; 64]);
}

/// Four blocks side by side.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) type Four = core::arch::wasm32::v128;
#[cfg(all(test, not(target_arch = "wasm32")))]
pub(crate) type Four = [u32; 4];

/// The most lanes that an implementation has.
pub(crate) const MOST: usize = 4;

/// One of the four parts of a block.
#[derive(Clone, Copy)]
pub(crate) struct Quarter(usize);

impl Quarter {
    pub(crate) const FIRST: Self = Self(0);
    pub(crate) const SECOND: Self = Self(1);
    pub(crate) const THIRD: Self = Self(2);
    pub(crate) const FOURTH: Self = Self(3);
}

/// One block at a time, for WebAssembly without vectors.
impl Lanes for u32 {
    type Orders = ();
    const WIDTH: usize = 1;

    #[inline(always)]
    fn splat(word: u32) -> Self {
        word
    }

    #[inline(always)]
    fn each([word, ..]: [u32; MOST]) -> Self {
        word
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    #[inline(always)]
    fn orders() -> Self::Orders {}

    #[inline(always)]
    fn xor_rotate<const BITS: u32>(self, other: Self, (): ()) -> Self {
        (self ^ other).rotate_left(BITS)
    }

    #[inline(always)]
    fn store(words: [Self; 4], out: &mut [[u8; 64]; MOST], at: Quarter) {
        for (out, word) in out[0].as_chunks_mut().0[at.0 * 4..].iter_mut().zip(words) {
            *out = word.to_le_bytes();
        }
    }

    #[inline(always)]
    fn apply(data: &mut [u8; 64], stream: &[u8; 64]) {
        for (data, stream) in data.as_chunks_mut().0.iter_mut().zip(stream.as_chunks().0) {
            *data = (u64::from_le_bytes(*data) ^ u64::from_le_bytes(*stream)).to_le_bytes();
        }
    }
}

/// Four blocks in plain numbers, so that tests on any processor see what WebAssembly's vectors do.
#[cfg(test)]
impl Lanes for [u32; 4] {
    type Orders = ();
    const WIDTH: usize = 4;

    #[inline(always)]
    fn splat(word: u32) -> Self {
        [word; 4]
    }

    #[inline(always)]
    fn each(words: [u32; MOST]) -> Self {
        words
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        core::array::from_fn(|lane| self[lane].wrapping_add(other[lane]))
    }

    #[inline(always)]
    fn orders() -> Self::Orders {}

    #[inline(always)]
    fn xor_rotate<const BITS: u32>(self, other: Self, (): ()) -> Self {
        core::array::from_fn(|lane| (self[lane] ^ other[lane]).rotate_left(BITS))
    }

    #[inline(always)]
    fn store(words: [Self; 4], out: &mut [[u8; 64]; MOST], at: Quarter) {
        for (lane, out) in out.iter_mut().enumerate() {
            for (out, word) in out.as_chunks_mut().0[at.0 * 4..].iter_mut().zip(words) {
                *out = word[lane].to_le_bytes();
            }
        }
    }

    #[inline(always)]
    fn apply(data: &mut [u8; 64], stream: &[u8; 64]) {
        u32::apply(data, stream);
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128 {
    use super::{Lanes, MOST, Quarter};
    use core::arch::wasm32::*;

    /// Byte orders that rotate every 32-bit word left by 16, and by 8.
    const BY_16: v128 = i8x16(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    const BY_8: v128 = i8x16(3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14);

    impl Lanes for v128 {
        type Orders = [v128; 2];
        const WIDTH: usize = 4;

        #[inline(always)]
        fn splat(word: u32) -> Self {
            u32x4_splat(word)
        }

        #[inline(always)]
        fn each([a, b, c, d]: [u32; MOST]) -> Self {
            u32x4(a, b, c, d)
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            i32x4_add(self, other)
        }

        #[inline(always)]
        fn orders() -> Self::Orders {
            // Known to the compiler, they would become shuffles, for which V8 makes their constants anew each time.
            core::hint::black_box([BY_16, BY_8])
        }

        #[inline(always)]
        fn xor_rotate<const BITS: u32>(self, other: Self, [by_16, by_8]: Self::Orders) -> Self {
            let v = v128_xor(self, other);
            match BITS {
                16 => i8x16_swizzle(v, by_16),
                8 => i8x16_swizzle(v, by_8),
                _ => v128_or(i32x4_shl(v, BITS), u32x4_shr(v, 32 - BITS)),
            }
        }

        #[inline(always)]
        fn store([a, b, c, d]: [Self; 4], out: &mut [[u8; 64]; MOST], at: Quarter) {
            let (ab_low, ab_high) = (low(a, b), high(a, b));
            let (cd_low, cd_high) = (low(c, d), high(c, d));
            let lanes = [
                i64x2_shuffle::<0, 2>(ab_low, cd_low),
                i64x2_shuffle::<1, 3>(ab_low, cd_low),
                i64x2_shuffle::<0, 2>(ab_high, cd_high),
                i64x2_shuffle::<1, 3>(ab_high, cd_high),
            ];
            for (out, lane) in out.iter_mut().zip(lanes) {
                put(&mut out.as_chunks_mut().0[at.0], lane);
            }
        }

        #[inline(always)]
        fn apply(data: &mut [u8; 64], stream: &[u8; 64]) {
            for (data, stream) in data.as_chunks_mut().0.iter_mut().zip(stream.as_chunks().0) {
                put(data, v128_xor(get(data), get(stream)));
            }
        }
    }

    #[inline(always)]
    fn low(a: v128, b: v128) -> v128 {
        i32x4_shuffle::<0, 4, 1, 5>(a, b)
    }

    #[inline(always)]
    fn high(a: v128, b: v128) -> v128 {
        i32x4_shuffle::<2, 6, 3, 7>(a, b)
    }

    #[inline(always)]
    fn get(bytes: &[u8; 16]) -> v128 {
        // SAFETY: reads the sixteen bytes that are borrowed; it needs no alignment.
        unsafe { v128_load(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn put(bytes: &mut [u8; 16], v: v128) {
        // SAFETY: writes the sixteen bytes that are borrowed; it needs no alignment.
        unsafe { v128_store(bytes.as_mut_ptr().cast(), v) };
    }
}
