//! Sixteen packets at once with AVX-512 and IFMA.
//!
//! ChaCha20: one packet per 32-bit lane, so a pass computes the same block of sixteen packets; block 0 gives all one-time keys. Poly1305: one
//! packet per 64-bit lane, two vectors of eight, in radix 2^44. While a pass computes key stream, the multiplier absorbs the ciphertext of the pass
//! before: one Poly1305 block per double round.

mod chacha20;
mod poly1305;

use crate::group::{Direction, Group, LANES, Scratch, Tag, wipe};
use chacha20::{block, block_and_absorb, initial, transpose, xor};
use poly1305::{BLOCKS, begin, extend, finish};

/// Packets in a full group.
pub(crate) const WIDTH: usize = 16;
const _: () = assert!(WIDTH == LANES);

/// Proof that this processor has what this module needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        let has = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512ifma")
            && std::arch::is_x86_feature_detected!("avx512vbmi2");
        has.then_some(Self(()))
    }

    /// Seals or opens every packet of a group in place; the tags of what is (now, or was before) ciphertext.
    pub(crate) fn run(self, key: &[u32; 8], aad: &[u8], group: &mut Group<'_>, direction: Direction) -> [Tag; LANES] {
        // SAFETY: a value of this type exists only where `detect` found the features.
        unsafe {
            match direction {
                Direction::Seal => work::<false>(key, aad, group),
                Direction::Open => work::<true>(key, aad, group),
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
fn work<const OPEN: bool>(key: &[u32; 8], aad: &[u8], group: &mut Group<'_>) -> [Tag; LANES] {
    let len = group.len();
    let (whole, rest) = (len / 64, len % 64);
    let mut scratch = Scratch::new();
    let lanes = group.lanes(&mut scratch);
    let mut start = initial(key, group.nonces());
    let mut poly = begin(&block(&start, 0));
    extend(&mut poly, aad);
    let mut pending = 0;
    for index in 0..whole {
        let counter = index as i32 + 1;
        let stream = if pending == 0 {
            block(&start, counter)
        } else {
            block_and_absorb(&start, counter, &mut poly)
        };
        xor::<OPEN, true>(transpose(stream), &lanes, index * 64, u64::MAX, &mut poly);
        pending = BLOCKS;
    }
    if rest > 0 {
        let counter = whole as i32 + 1;
        let stream = if pending == 0 {
            block(&start, counter)
        } else {
            block_and_absorb(&start, counter, &mut poly)
        };
        xor::<OPEN, false>(transpose(stream), &lanes, whole * 64, (1 << rest) - 1, &mut poly);
        pending = rest.div_ceil(16);
    }
    let tags = finish(&mut poly, pending, aad.len() as u64, len as u64);
    // SAFETY: these are plain numbers.
    unsafe {
        wipe(&mut start);
        wipe(&mut poly);
        wipe(&mut scratch);
    }
    tags
}
