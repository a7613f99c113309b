//! Poly1305 where a product has no upper half: WebAssembly multiplies 64-bit numbers and keeps 64 bits.
//!
//! # Bounds
//! `h = h0 + h1·2^32 + h2·2^64 + h3·2^96`, `r` likewise; clamped, so that `r0..r3 < 2^28`, and 4 divides `r1..r3`: a product of weight 2^128 with `ri` may
//! be taken as one of weight 1 with `si = ri + ri/4 < 1.25·2^28`. What goes beyond 2^130 stays in `h3` until the fold.
//!
//! | what | bound |
//! | --- | --- |
//! | `h0`; `h1`, `h2`; `h3` between blocks | 2.1·2^32; 2^32; 2^34 |
//! | with the message, and 2^128 as 2^32 in `h3` | 3.1·2^32; 2·2^32; 6·2^32 |
//! | `x0 = h0·r0 + h1·s3 + h2·s2 + h3·s1` | (3.1 + 2.5 + 2.5 + 7.5)·2^60 < 2^64 |
//! | `x1 = h0·r1 + h1·r0 + h2·s3 + h3·s2` and the carry | (3.1 + 2 + 2.5 + 7.5)·2^60 + 2^32 < 2^64 |
//! | `x2 = h0·r2 + h1·r1 + h2·r0 + h3·s3` and the carry | (3.1 + 2 + 2 + 7.5)·2^60 + 2^32 < 2^64 |
//! | `x3 = h0·r3 + h1·r2 + h2·r1 + h3·r0` and the carry | (3.1 + 2 + 2 + 6)·2^60 + 2^32 < 13.2·2^60 |
//! | `5·(x3 >> 34)`, which goes to `h0` | 5·13.2·2^26 < 1.04·2^32 |

use crate::group::Tag;

/// One packet's state.
#[derive(Clone, Copy, Default)]
pub(crate) struct Poly1305 {
    h: [u64; 4],
    r: [u64; 4],
    /// `r` and its quarter; the first is not used.
    s: [u64; 4],
    pad: [u32; 4],
}

impl Poly1305 {
    /// From a one-time key: r, to be clamped, and s.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let mut words = key.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
        let mut four = || core::array::from_fn(|_| words.next().unwrap_or(0));
        let r: [u32; 4] = four();
        let clamp = [0x0fff_ffff, 0x0fff_fffc, 0x0fff_fffc, 0x0fff_fffc];
        let r = core::array::from_fn(|n| u64::from(r[n] & clamp[n]));
        Self {
            h: [0; 4],
            r,
            s: r.map(|r| r + (r >> 2)),
            pad: four(),
        }
    }

    /// Absorbs whole blocks.
    #[inline(always)]
    pub(crate) fn blocks(&mut self, blocks: &[[u8; 16]]) {
        let mut h = self.h;
        let ([r0, r1, r2, r3], [_, s1, s2, s3]) = (self.r, self.s);
        for block in blocks {
            let word = |n: usize| {
                let [a, b, c, d] = block.as_chunks().0[n];
                u64::from(u32::from_le_bytes([a, b, c, d]))
            };
            let h0 = h[0] + word(0);
            let h1 = h[1] + word(1);
            let h2 = h[2] + word(2);
            let h3 = h[3] + (word(3) + (1 << 32));
            let x0 = h0 * r0 + h1 * s3 + h2 * s2 + h3 * s1;
            let x1 = h0 * r1 + h1 * r0 + h2 * s3 + h3 * s2 + (x0 >> 32);
            let x2 = h0 * r2 + h1 * r1 + h2 * r0 + h3 * s3 + (x1 >> 32);
            let x3 = h0 * r3 + h1 * r2 + h2 * r1 + h3 * r0 + (x2 >> 32);
            h = [(x0 & LOW) + (x3 >> 34) * 5, x1 & LOW, x2 & LOW, x3 & TOP];
        }
        self.h = h;
    }

    /// Absorbs bytes; the last block is padded with zeros.
    pub(crate) fn padded(&mut self, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks();
        self.blocks(blocks);
        if !rest.is_empty() {
            let mut block = [0; 16];
            // Not by a copy of so many bytes, which WebAssembly leaves to its engine: that costs more than the block itself.
            block.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            self.blocks(&[block]);
        }
    }

    /// `(h mod 2^130 - 5) + s mod 2^128`, after the lengths.
    pub(crate) fn tag(&mut self, aad: u64, len: u64) -> Tag {
        self.blocks(&[(u128::from(len) << 64 | u128::from(aad)).to_le_bytes()]);
        // Twice, for the first fold may carry once more; now all limbs have their widths.
        for _ in 0..2 {
            self.carry();
        }
        let [h0, h1, h2, h3] = self.h;
        // h + 5 - 2^130 is what h is mod 2^130 - 5, unless that is negative.
        let mut over = h0 + 5;
        for h in [h1, h2, h3] {
            over = (over >> 32) + h;
        }
        let mut sum = (over >> 34) * 5;
        let mut tag = [0; 16];
        for ((out, h), pad) in tag.as_chunks_mut().0.iter_mut().zip(self.h).zip(self.pad) {
            sum += h + u64::from(pad);
            *out = (sum as u32).to_le_bytes();
            sum >>= 32;
        }
        tag
    }

    fn carry(&mut self) {
        let mut carry = 0;
        for h in &mut self.h[..3] {
            *h += carry;
            carry = *h >> 32;
            *h &= LOW;
        }
        self.h[3] += carry;
        self.h[0] += (self.h[3] >> 34) * 5;
        self.h[3] &= TOP;
    }
}

/// The low limbs' bits.
const LOW: u64 = (1 << 32) - 1;
/// The highest limb's.
const TOP: u64 = (1 << 34) - 1;
