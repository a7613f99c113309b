//! Poly1305, one packet per 64-bit lane, in radix 2^44.
//!
//! # Bounds of limbs
//! A number is `v0 + v1·2^44 + v2·2^88`. `vpmadd52` reads the low 52 bits of each factor, so every factor must be below 2^52; it adds the low or the
//! high 52 bits of the product to a 64-bit sum.
//!
//! | what | bound |
//! | --- | --- |
//! | message limbs (with the bit 2^128) | 2^44, 2^44, 2^41 |
//! | what `carry` leaves, in `h` and in powers of r | 2^44, 2^44 + 2^13, 2^42 |
//! | `h` + message: first factors | 2^45, 2^45 + 2^13, 2^43; so 2^46 |
//! | second factors: limbs of a power; its limbs 1 and 2 times 20 | 2^45; 2^49, 2^47 |
//! | products in columns 0 and 1 | 2^46 · 2^49 = 2^95: low 2^52, high 2^43 |
//! | products in column 2, which has no factor times 20 | 2^46 · 2^45 = 2^91: low 2^52, high 2^39 |
//! | sums: three products a block, at most four blocks, 12 < 2^4 | low 2^56; high 2^47, in column 2 2^43 |
//! | columns 1 and 2: low, and of the column before high · 2^8 (2^52 = 2^44 · 2^8) and a carry | 2^56 + 2^55 + 2^13 < 2^57 |
//! | carry out of column 2, in units of 2^130: high · 2^10 and `column >> 42` | 2^53 + 2^15 < 2^54 |
//! | five times that, and `v0` | 2^57; so `>> 44` adds less than 2^13 to `v1` |
//!
//! The last line gives the second, so the bounds close: no factor reaches 2^52, no sum 2^64.

#[cfg(test)]
mod tests;

use super::chacha20::State;
use crate::group::{LANES, Tag};
use core::arch::x86_64::*;

/// Vectors of eight 64-bit lanes: packets 0 to 7, and 8 to 15.
const HALVES: usize = 2;
/// Poly1305 blocks in one ChaCha20 block.
pub(super) const BLOCKS: usize = 4;
const MASK44: i64 = (1 << 44) - 1;
const MASK42: i64 = (1 << 42) - 1;

type Limbs = [__m512i; 3];
/// The low and the high half of a 16-byte block, of eight packets.
type Block = [__m512i; 2];

/// A power of r: its limbs, and limbs 1 and 2 times 20 (2^132 is 4 · 2^130, which is 4 · 5).
#[derive(Clone, Copy)]
struct Power {
    r: Limbs,
    s1: __m512i,
    s2: __m512i,
}

/// Low and high parts of products, by column.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    low: Limbs,
    high: Limbs,
}

/// Poly1305 of eight packets.
#[derive(Clone, Copy)]
pub(super) struct Half {
    /// `powers[n]` is r^(n + 1).
    powers: [Power; BLOCKS],
    h: Limbs,
    s: Block,
    /// Ciphertext of the last pass, not absorbed yet.
    text: [Block; BLOCKS],
}

pub(super) type Poly = [Half; HALVES];

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn splat(value: i64) -> __m512i {
    _mm512_set1_epi64(value)
}

/// Starts from block 0 of the key stream: its first 32 bytes are r (clamped) and s.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
pub(super) fn begin(first: &State) -> Poly {
    let keys = |half: usize| {
        let mut keys = [_mm512_setzero_si512(); 4];
        for (n, key) in keys.iter_mut().enumerate() {
            let [low, high] = [first[2 * n], first[2 * n + 1]].map(|words| {
                let eight = if half == 0 {
                    _mm512_castsi512_si256(words)
                } else {
                    _mm512_extracti64x4_epi64::<1>(words)
                };
                _mm512_cvtepu32_epi64(eight)
            });
            *key = _mm512_or_si512(low, _mm512_slli_epi64::<32>(high));
        }
        keys
    };
    [half(keys(0)), half(keys(1))]
}

/// Eight packets' state from their one-time keys, as four 64-bit words.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
fn half([low, high, s_low, s_high]: [__m512i; 4]) -> Half {
    let zero = _mm512_setzero_si512();
    let low = _mm512_and_si512(low, splat(0x0fff_fffc_0fff_ffff));
    let high = _mm512_and_si512(high, splat(0x0fff_fffc_0fff_fffc));
    let r = split(low, high);
    let one = power(r);
    let mut powers = [one; BLOCKS];
    for n in 1..BLOCKS {
        powers[n] = power(carry(first_product(powers[n - 1].r, &one)));
    }
    Half {
        powers,
        h: [zero; 3],
        s: [s_low, s_high],
        text: [[zero; 2]; BLOCKS],
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn power(r: Limbs) -> Power {
    let [s1, s2] =
        [r[1], r[2]].map(|limb| _mm512_add_epi64(_mm512_slli_epi64::<4>(limb), _mm512_slli_epi64::<2>(limb)));
    Power { r, s1, s2 }
}

/// 128 bits as limbs.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn split(low: __m512i, high: __m512i) -> Limbs {
    let mask = splat(MASK44);
    [
        _mm512_and_si512(low, mask),
        _mm512_and_si512(_mm512_shrdi_epi64::<44>(low, high), mask),
        _mm512_srli_epi64::<24>(high),
    ]
}

/// A block of a message: 128 bits and a one on top.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn message([low, high]: Block) -> Limbs {
    let [m0, m1, m2] = split(low, high);
    [m0, m1, _mm512_or_si512(m2, splat(1 << 40))]
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn add_limbs(a: Limbs, b: Limbs) -> Limbs {
    [
        _mm512_add_epi64(a[0], b[0]),
        _mm512_add_epi64(a[1], b[1]),
        _mm512_add_epi64(a[2], b[2]),
    ]
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn first_product(a: Limbs, by: &Power) -> Sums {
    let zero = [_mm512_setzero_si512(); 3];
    let mut sums = Sums { low: zero, high: zero };
    multiply(&mut sums, a, by);
    sums
}

/// Adds `a · by`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn multiply(sums: &mut Sums, a: Limbs, by: &Power) {
    let &Power { r, s1, s2 } = by;
    let columns = [[r[0], s2, s1], [r[1], r[0], s2], [r[2], r[1], r[0]]];
    for (column, factors) in columns.into_iter().enumerate() {
        for (a, factor) in a.into_iter().zip(factors) {
            sums.low[column] = _mm512_madd52lo_epu64(sums.low[column], a, factor);
            sums.high[column] = _mm512_madd52hi_epu64(sums.high[column], a, factor);
        }
    }
}

/// Brings sums of products back to limbs; see the bounds at the top.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn carry(Sums { low, high }: Sums) -> Limbs {
    let (mask44, mask42) = (splat(MASK44), splat(MASK42));
    let v0 = _mm512_and_si512(low[0], mask44);
    let column1 = _mm512_add_epi64(
        _mm512_add_epi64(low[1], _mm512_slli_epi64::<8>(high[0])),
        _mm512_srli_epi64::<44>(low[0]),
    );
    let v1 = _mm512_and_si512(column1, mask44);
    let column2 = _mm512_add_epi64(
        _mm512_add_epi64(low[2], _mm512_slli_epi64::<8>(high[1])),
        _mm512_srli_epi64::<44>(column1),
    );
    let v2 = _mm512_and_si512(column2, mask42);
    let top = _mm512_add_epi64(_mm512_slli_epi64::<10>(high[2]), _mm512_srli_epi64::<42>(column2));
    let v0 = _mm512_add_epi64(v0, times_five(top));
    let v1 = _mm512_add_epi64(v1, _mm512_srli_epi64::<44>(v0));
    [_mm512_and_si512(v0, mask44), v1, v2]
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn times_five(value: __m512i) -> __m512i {
    _mm512_add_epi64(value, _mm512_slli_epi64::<2>(value))
}

impl Half {
    /// Takes the ciphertext of a pass, to be absorbed later.
    #[inline(always)]
    pub(super) fn take(&mut self, low: [__m512i; BLOCKS], high: [__m512i; BLOCKS]) {
        for (text, (low, high)) in self.text.iter_mut().zip(low.into_iter().zip(high)) {
            *text = [low, high];
        }
    }
}

/// Begins to absorb the four blocks that were taken: the first one.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn absorb_first(half: &Half) -> Sums {
    first_product(add_limbs(half.h, message(half.text[0])), &half.powers[BLOCKS - 1])
}

/// Goes on with another.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn absorb_next(half: &Half, sums: &mut Sums, n: usize) {
    multiply(sums, message(half.text[n]), &half.powers[BLOCKS - 1 - n]);
}

/// And ends.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn absorbed(half: &mut Half, sums: Sums) {
    half.h = carry(sums);
}

/// Absorbs associated data, the same for all packets, padded.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
pub(super) fn extend(poly: &mut Poly, aad: &[u8]) {
    for chunk in aad.chunks(16) {
        let mut bytes = [0; 16];
        bytes[..chunk.len()].copy_from_slice(chunk);
        let word = u128::from_le_bytes(bytes);
        let text = [splat(word as i64), splat((word >> 64) as i64)];
        for half in poly.iter_mut() {
            half.h = carry(first_product(add_limbs(half.h, message(text)), &half.powers[0]));
        }
    }
}

/// Absorbs up to four blocks at once.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn absorb(half: &mut Half, blocks: &[Block]) {
    let Some((first, others)) = blocks.split_first() else {
        return;
    };
    let mut sums = first_product(add_limbs(half.h, message(*first)), &half.powers[others.len()]);
    for (n, block) in others.iter().rev().enumerate() {
        multiply(&mut sums, message(*block), &half.powers[n]);
    }
    half.h = carry(sums);
}

/// Absorbs the first `pending` blocks that wait and the lengths, and makes the tags.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
pub(super) fn finish(poly: &mut Poly, pending: usize, aad: u64, len: u64) -> [Tag; LANES] {
    let lengths = [splat(aad.cast_signed()), splat(len.cast_signed())];
    let mut tags = [[0; 16]; LANES];
    for (half, tags) in poly.iter_mut().zip(tags.as_chunks_mut::<8>().0) {
        let mut blocks = [lengths; BLOCKS + 1];
        blocks[..pending].copy_from_slice(&half.text[..pending]);
        let (first, second) = blocks[..=pending].split_at(pending + 1 - (pending + 1).min(BLOCKS));
        for blocks in [first, second] {
            absorb(half, blocks);
        }
        let [low, high] = tag(half.h, half.s);
        let mut words = [[0u64; 8]; 2];
        // SAFETY: eight 64-bit words are 64 bytes.
        unsafe {
            _mm512_storeu_si512(words[0].as_mut_ptr().cast(), low);
            _mm512_storeu_si512(words[1].as_mut_ptr().cast(), high);
        }
        for (tag, (low, high)) in tags.iter_mut().zip(words[0].into_iter().zip(words[1])) {
            *tag = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
        }
    }
    tags
}

/// `(h mod 2^130 - 5) + s mod 2^128`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
fn tag([mut v0, mut v1, mut v2]: Limbs, s: Block) -> Block {
    let (mask44, mask42) = (splat(MASK44), splat(MASK42));
    // Twice around: after the first v0 < 2^44 and v1 <= 2^44, after the second all are within their bits.
    for _ in 0..2 {
        v2 = _mm512_add_epi64(v2, _mm512_srli_epi64::<44>(v1));
        v1 = _mm512_and_si512(v1, mask44);
        v0 = _mm512_add_epi64(v0, times_five(_mm512_srli_epi64::<42>(v2)));
        v2 = _mm512_and_si512(v2, mask42);
        v1 = _mm512_add_epi64(v1, _mm512_srli_epi64::<44>(v0));
        v0 = _mm512_and_si512(v0, mask44);
    }
    // h + 5 - 2^130, which is what h is mod 2^130 - 5 unless it is negative.
    let w0 = _mm512_add_epi64(v0, splat(5));
    let w1 = _mm512_add_epi64(v1, _mm512_srli_epi64::<44>(w0));
    let w2 = _mm512_add_epi64(v2, _mm512_srli_epi64::<44>(w1));
    let w2 = _mm512_sub_epi64(w2, splat(1 << 42));
    let (w0, w1) = (_mm512_and_si512(w0, mask44), _mm512_and_si512(w1, mask44));
    let negative = _mm512_srai_epi64::<63>(w2);
    // negative ? v : w, bit by bit.
    let pick = |v, w| _mm512_ternarylogic_epi64::<0xca>(negative, v, w);
    let (v0, v1, v2) = (pick(v0, w0), pick(v1, w1), pick(v2, w2));
    let low = _mm512_or_si512(v0, _mm512_slli_epi64::<44>(v1));
    let high = _mm512_or_si512(_mm512_srli_epi64::<20>(v1), _mm512_slli_epi64::<24>(v2));
    let sum = _mm512_add_epi64(low, s[0]);
    let carried = _mm512_cmplt_epu64_mask(sum, low);
    let high = _mm512_add_epi64(high, s[1]);
    [sum, _mm512_mask_add_epi64(high, carried, high, splat(1))]
}
