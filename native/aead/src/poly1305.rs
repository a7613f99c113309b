//! Poly1305 of one packet, in whole registers: what the AVX2 lanes absorb between their rounds.
//!
//! # Bounds
//! `h = h0 + h1·2^64 + h2·2^128`; `r0, r1 < 2^60` (clamped), and 4 divides `r1`, so that `r1·2^130` is `5/4·r1·2^128 · 4 = s1·2^128·4`: a product of weight
//! 2^128 with `r1` may be taken as one of weight 1 with `s1 = r1 + r1/4 < 2^61`.
//!
//! | what | bound |
//! | --- | --- |
//! | `h2` between blocks | 4 (0 to 4) |
//! | `h2` with the message's bit 2^128 and the carry of the addition | 6 |
//! | `d0 = h0·r0 + h1·s1` | 2^124 + 2^125 |
//! | `d1 = h0·r1 + h1·r0 + h2·s1 + carry` | 2^125 + 2^64 + 2^62 |
//! | `d2 = h2·r0 + carry` | 2^63 + 2^62, a word |
//! | `5 · (d2 >> 2)`, as `(d2 & !3) + (d2 >> 2)` | 2^63 + 2^62 + 2^61, a word |
//! | `h2 = (d2 & 3) + carry` | 3 + 1 |

use crate::group::Tag;

/// One packet's state.
#[derive(Clone, Copy, Default)]
pub(crate) struct Poly1305 {
    h: [u64; 3],
    r: [u64; 2],
    s: [u64; 2],
}

impl Poly1305 {
    /// From a one-time key: r, to be clamped, and s.
    #[inline(always)]
    pub(crate) fn new([r0, r1, s0, s1]: [u64; 4]) -> Self {
        Self {
            h: [0; 3],
            r: [r0 & 0x0fff_fffc_0fff_ffff, r1 & 0x0fff_fffc_0fff_fffc],
            s: [s0, s1],
        }
    }

    /// The sum so far.
    #[inline(always)]
    pub(crate) fn h_mut(&mut self) -> &mut [u64; 3] {
        &mut self.h
    }

    /// Absorbs one block of 16 bytes, as two words.
    #[inline(always)]
    pub(crate) fn block(&mut self, low: u64, high: u64) {
        let ([h0, h1, h2], [r0, r1]) = (self.h, self.r);
        let s1 = r1 + (r1 >> 2);
        let (h0, carry) = h0.overflowing_add(low);
        let (h1, carry) = add_carry(h1, high, carry);
        let h2 = h2 + 1 + u64::from(carry);
        let d0 = wide(h0, r0) + wide(h1, s1);
        let d1 = wide(h0, r1) + wide(h1, r0) + u128::from(h2 * s1) + (d0 >> 64);
        let d2 = h2 * r0 + (d1 >> 64) as u64;
        let (h0, carry) = (d0 as u64).overflowing_add((d2 & !3) + (d2 >> 2));
        let (h1, carry) = (d1 as u64).overflowing_add(u64::from(carry));
        self.h = [h0, h1, (d2 & 3) + u64::from(carry)];
    }

    /// Absorbs bytes; the last block is padded with zeros.
    pub(crate) fn padded(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(16) {
            let mut block = [0; 16];
            block[..chunk.len()].copy_from_slice(chunk);
            self.word(u128::from_le_bytes(block));
        }
    }

    /// Absorbs one block of 16 bytes, as a number.
    #[inline(always)]
    pub(crate) fn word(&mut self, word: u128) {
        self.block(word as u64, (word >> 64) as u64);
    }

    /// `(h mod 2^130 - 5) + s mod 2^128`, after the lengths.
    pub(crate) fn tag(mut self, aad: u64, len: u64) -> Tag {
        self.block(aad, len);
        let [h0, h1, h2] = self.h;
        // h + 5 - 2^130 is what h is mod 2^130 - 5, unless that is negative; h < 2^131, so once is enough.
        let (w0, carry) = h0.overflowing_add(5);
        let (w1, carry) = h1.overflowing_add(u64::from(carry));
        let w2 = h2 + u64::from(carry);
        let reduce = 0u64.wrapping_sub(w2 >> 2 & 1);
        let pick = |h: u64, w: u64| h ^ (reduce & (h ^ w));
        let (low, carry) = pick(h0, w0).overflowing_add(self.s[0]);
        let high = pick(h1, w1).wrapping_add(self.s[1]).wrapping_add(u64::from(carry));
        (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
    }
}

#[inline(always)]
fn wide(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

#[inline(always)]
fn add_carry(a: u64, b: u64, carry: bool) -> (u64, bool) {
    let (sum, one) = a.overflowing_add(b);
    let (sum, two) = sum.overflowing_add(u64::from(carry));
    (sum, one | two)
}
