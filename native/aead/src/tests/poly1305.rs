//! Poly1305 with chosen r and s against a bignum: all ones, and sums around p = 2^130 - 5.

use super::Random;
use crate::{blocks, poly1305::Poly1305};
use num_bigint::BigUint;

/// A one-time key and a message.
pub(crate) struct Case {
    pub key: [u64; 4],
    pub aad: Vec<u8>,
    pub text: Vec<u8>,
}

impl Case {
    /// RFC 8439, section 2.5, over the AEAD's padded input of section 2.8.
    pub(crate) fn tag(&self) -> [u8; 16] {
        let p = (BigUint::from(1u8) << 130u32) - 5u8;
        let [r0, r1, s0, s1] = self.key.map(BigUint::from);
        let clamp = BigUint::parse_bytes(b"0ffffffc0ffffffc0ffffffc0fffffff", 16).unwrap();
        let r = (r0 | (r1 << 64u32)) & clamp;
        let mut h = BigUint::ZERO;
        let lengths = (self.text.len() as u128) << 64 | self.aad.len() as u128;
        for bytes in [&self.aad[..], &self.text, &lengths.to_le_bytes()] {
            for chunk in bytes.chunks(16) {
                let mut block = [0; 17];
                block[..chunk.len()].copy_from_slice(chunk);
                block[16] = 1;
                h = (h + BigUint::from_bytes_le(&block)) * &r % &p;
            }
        }
        let mut tag = (h + s0 + (s1 << 64u32)).to_bytes_le();
        tag.resize(16.max(tag.len()), 0);
        *tag.first_chunk().unwrap()
    }
}

/// Words whose bits are all ones, all zeros, or on an edge of a limb.
const EDGES: [u64; 10] = [
    0,
    1,
    u64::MAX,
    u64::MAX - 1,
    1 << 63,
    (1 << 44) - 1,
    !((1 << 44) - 1),
    (1 << 24) - 1,
    (1 << 20) - 1,
    0x0fff_fffc_0fff_fffc,
];

/// Cases that reach the ends of every limb, and sums next to p.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for r in EDGES {
        for s in [0, 1, u64::MAX] {
            for byte in [0, 0xff] {
                for len in [0, 1, 15, 16, 17, 48, 63, 64, 65, 128, 200, 256, 1_400] {
                    cases.push(Case {
                        key: [r, r, s, s],
                        aad: Vec::new(),
                        text: vec![byte; len],
                    });
                }
            }
        }
    }
    // r = 1 makes h a plain sum: blocks are chosen so that it ends next to p, 2p and 2^130, from both sides.
    let one: BigUint = BigUint::from(1u8);
    let p: BigUint = (&one << 130u32) - 5u8;
    for target in [
        &p - 6u8,
        &p - 1u8,
        p.clone(),
        &p + 1u8,
        &p + 4u8,
        &p + 5u8,
        &p * 2u8 - 1u8,
        &p * 2u8,
        &p * 2u8 + 1u8,
    ] {
        let before = cases.len();
        for blocks in 1..=9u32 {
            let lengths = BigUint::from(u128::from(blocks * 16) << 64);
            // Each block, and the lengths, bring 2^128.
            let Some(rest) = target
                .clone()
                .checked_sub_all(&lengths, &(BigUint::from(blocks + 1) << 128u32))
            else {
                continue;
            };
            let full: BigUint = (&one << 128u32) - 1u8;
            let mut text = Vec::new();
            let mut rest = rest;
            for _ in 0..blocks {
                let block = rest.clone().min(full.clone());
                rest -= &block;
                let mut bytes = block.to_bytes_le();
                bytes.resize(16, 0);
                text.extend(bytes);
            }
            if rest == BigUint::ZERO {
                for s in [0, u64::MAX] {
                    cases.push(Case {
                        key: [1, 0, s, s],
                        aad: Vec::new(),
                        text: text.clone(),
                    });
                }
            }
        }
        assert!(cases.len() > before, "no message makes this sum");
    }
    let mut random = Random(8);
    for n in 0..400 {
        let mut aad = vec![0; random.below(40)];
        let mut text = vec![0; n];
        random.fill(&mut aad);
        random.fill(&mut text);
        let mut word = || match random.below(3) {
            0 => EDGES[random.below(EDGES.len())],
            _ => random.word(),
        };
        cases.push(Case {
            key: [word(), word(), word(), word()],
            aad,
            text,
        });
    }
    cases
}

trait CheckedSub: Sized {
    fn checked_sub_all(self, a: &Self, b: &Self) -> Option<Self>;
}

impl CheckedSub for BigUint {
    fn checked_sub_all(self, a: &Self, b: &Self) -> Option<Self> {
        let sum = a + b;
        (self >= sum).then(|| self - sum)
    }
}

#[test]
fn whole_registers_agree_with_a_bignum() {
    for (n, case) in cases().iter().enumerate() {
        let mut poly = Poly1305::new(case.key);
        poly.padded(&case.aad);
        poly.padded(&case.text);
        let tag = poly.tag(case.aad.len() as u64, case.text.len() as u64);
        assert_eq!(tag, case.tag(), "case {n}: {:x?}, {} bytes", case.key, case.text.len());
    }
}

#[test]
fn words_of_32_bits_agree_with_a_bignum() {
    for (n, case) in cases().iter().enumerate() {
        let mut key = [0; 32];
        key.as_chunks_mut()
            .0
            .iter_mut()
            .zip(case.key)
            .for_each(|(bytes, word)| *bytes = word.to_le_bytes());
        let mut poly = blocks::Poly1305::new(&key);
        poly.padded(&case.aad);
        poly.padded(&case.text);
        let tag = poly.tag(case.aad.len() as u64, case.text.len() as u64);
        assert_eq!(tag, case.tag(), "case {n}: {:x?}, {} bytes", case.key, case.text.len());
    }
}
