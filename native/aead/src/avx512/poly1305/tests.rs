//! Poly1305 in lanes against a bignum, and limbs at their bounds.

use super::*;
use crate::avx512::{Avx512, WIDTH};
use crate::tests::poly1305::{Case, cases};
use num_bigint::BigUint;

/// Tags of messages of one length, each under its own key, absorbed as `work` does.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
fn tags(cases: &[&Case; WIDTH]) -> [Tag; LANES] {
    // SAFETY: both are 64 bytes of plain numbers.
    let vector = |words: [u64; 8]| unsafe { core::mem::transmute::<[u64; 8], __m512i>(words) };
    let mut poly = [0, 8].map(|first| {
        let keys = [0, 1, 2, 3].map(|word| vector(core::array::from_fn(|n| cases[first + n].key[word])));
        half(keys)
    });
    extend(&mut poly, &cases[0].aad);
    let text = &cases[0].text;
    let mut pending = 0;
    for block in 0..text.len().div_ceil(16) {
        if pending == BLOCKS {
            for half in &mut poly {
                let text = half.text;
                absorb(half, &text);
            }
            pending = 0;
        }
        for (half, cases) in poly.iter_mut().zip(cases.as_chunks::<8>().0) {
            let words = |word: usize| {
                vector(core::array::from_fn(|n| {
                    let mut bytes = [0; 16];
                    let chunk = cases[n].text.chunks(16).nth(block).unwrap();
                    bytes[..chunk.len()].copy_from_slice(chunk);
                    (u128::from_le_bytes(bytes) >> (64 * word)) as u64
                }))
            };
            half.text[pending] = [words(0), words(1)];
        }
        pending += 1;
    }
    finish(&mut poly, pending, cases[0].aad.len() as u64, text.len() as u64)
}

#[test]
fn the_lanes_agree_with_a_bignum() {
    if Avx512::detect().is_none() {
        return;
    }
    let mut by_shape = std::collections::BTreeMap::<_, Vec<Case>>::new();
    for case in cases() {
        by_shape
            .entry((case.aad.clone(), case.text.len()))
            .or_default()
            .push(case);
    }
    for group in by_shape.values() {
        // Each case comes to each lane.
        for first in 0..group.len().max(WIDTH) {
            let sixteen: [&Case; WIDTH] = core::array::from_fn(|n| &group[(first + n) % group.len()]);
            // SAFETY: detected above.
            let tags = unsafe { tags(&sixteen) };
            for (lane, (case, tag)) in sixteen.iter().zip(tags).enumerate() {
                assert_eq!(
                    tag,
                    case.tag(),
                    "lane {lane}: {:x?}, {} bytes",
                    case.key,
                    case.text.len()
                );
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
fn product_sum(a: [u64; 3], r: [u64; 3], terms: usize) -> [u64; 3] {
    let by = power(r.map(|limb| splat(limb.cast_signed())));
    let a = a.map(|limb| splat(limb.cast_signed()));
    let mut sums = first_product(a, &by);
    for _ in 1..terms {
        multiply(&mut sums, a, &by);
    }
    carry(sums).map(|limb| _mm512_reduce_max_epu64(limb))
}

#[test]
fn limbs_at_their_bounds_overflow_nothing_and_come_back_within_them() {
    if Avx512::detect().is_none() {
        return;
    }
    let number = |v: [u64; 3]| BigUint::from(v[0]) + (BigUint::from(v[1]) << 44u32) + (BigUint::from(v[2]) << 88u32);
    let p = (BigUint::from(1u8) << 130u32) - 5u8;
    // What `carry` may leave, and that with a message added.
    let reduced = [(1 << 44) - 1, (1 << 44) + (1 << 13) - 1, (1 << 42) - 1];
    let summed = [(1 << 45) - 2, (1 << 45) + (1 << 13) - 2, (1 << 43) - 1];
    for a in [reduced, summed] {
        for zeros in 0..8 {
            let mask = |v: [u64; 3]| core::array::from_fn(|n| if zeros >> n & 1 == 0 { v[n] } else { 0 });
            let (a, r) = (mask(a), mask(reduced));
            for terms in 1..=BLOCKS {
                // SAFETY: detected above.
                let got = unsafe { product_sum(a, r, terms) };
                assert_eq!(number(got) % &p, number(a) * number(r) * terms % &p);
                assert!(
                    got[0] < 1 << 44 && got[1] < (1 << 44) + (1 << 13) && got[2] < 1 << 42,
                    "{got:x?}"
                );
            }
        }
    }
}
