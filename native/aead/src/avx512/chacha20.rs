//! ChaCha20, one packet per 32-bit lane.

use super::poly1305::{BLOCKS, Poly, absorb_first, absorb_next, absorbed};
use crate::group::{LANES, Lane};
use core::arch::x86_64::*;

/// The sixteen words of ChaCha20's state, each of sixteen packets; or, transposed, sixteen packets' 64 bytes.
pub(super) type State = [__m512i; 16];
/// The state before any round, but for the block counter.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
pub(super) fn initial(key: &[u32; 8], nonces: &[[u32; LANES]; 3]) -> State {
    let mut state = [_mm512_setzero_si512(); 16];
    for (word, constant) in state
        .iter_mut()
        .zip([0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574])
    {
        *word = _mm512_set1_epi32(constant);
    }
    for (word, key) in state[4..].iter_mut().zip(key) {
        *word = _mm512_set1_epi32(key.cast_signed());
    }
    for (word, nonce) in state[13..].iter_mut().zip(nonces) {
        // SAFETY: sixteen words are 64 bytes.
        *word = unsafe { _mm512_loadu_si512(nonce.as_ptr().cast()) };
    }
    state
}

macro_rules! quarter_round {
    ($v:ident, $a:literal, $b:literal, $c:literal, $d:literal) => {
        $v[$a] = _mm512_add_epi32($v[$a], $v[$b]);
        $v[$d] = _mm512_rol_epi32::<16>(_mm512_xor_si512($v[$d], $v[$a]));
        $v[$c] = _mm512_add_epi32($v[$c], $v[$d]);
        $v[$b] = _mm512_rol_epi32::<12>(_mm512_xor_si512($v[$b], $v[$c]));
        $v[$a] = _mm512_add_epi32($v[$a], $v[$b]);
        $v[$d] = _mm512_rol_epi32::<8>(_mm512_xor_si512($v[$d], $v[$a]));
        $v[$c] = _mm512_add_epi32($v[$c], $v[$d]);
        $v[$b] = _mm512_rol_epi32::<7>(_mm512_xor_si512($v[$b], $v[$c]));
    };
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn double_round(v: &mut State) {
    quarter_round!(v, 0, 4, 8, 12);
    quarter_round!(v, 1, 5, 9, 13);
    quarter_round!(v, 2, 6, 10, 14);
    quarter_round!(v, 3, 7, 11, 15);
    quarter_round!(v, 0, 5, 10, 15);
    quarter_round!(v, 1, 6, 11, 12);
    quarter_round!(v, 2, 7, 8, 13);
    quarter_round!(v, 3, 4, 9, 14);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn add_start(v: &mut State, start: &State, counter: i32) {
    for (word, start) in v.iter_mut().zip(start) {
        *word = _mm512_add_epi32(*word, *start);
    }
    v[12] = _mm512_add_epi32(v[12], _mm512_set1_epi32(counter));
}

/// One block of key stream of every packet.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
pub(super) fn block(start: &State, counter: i32) -> State {
    let mut v = *start;
    v[12] = _mm512_set1_epi32(counter);
    for _ in 0..10 {
        double_round(&mut v);
    }
    add_start(&mut v, start, counter);
    v
}

/// [`block`], and between its rounds the four blocks of ciphertext that wait.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
pub(super) fn block_and_absorb(start: &State, counter: i32, poly: &mut Poly) -> State {
    let mut v = *start;
    v[12] = _mm512_set1_epi32(counter);
    for half in poly {
        double_round(&mut v);
        let mut sums = absorb_first(half);
        for n in 1..BLOCKS {
            double_round(&mut v);
            absorb_next(half, &mut sums, n);
        }
        double_round(&mut v);
        absorbed(half, sums);
    }
    add_start(&mut v, start, counter);
    v
}

/// From words of sixteen packets to sixteen packets' 64 bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn transpose(v: State) -> State {
    // Sixteen bytes of every fourth packet each: `part[group of four words][packet mod 4]`.
    let mut part = [[_mm512_setzero_si512(); 4]; 4];
    for (words, part) in v.as_chunks::<4>().0.iter().zip(&mut part) {
        let (a, b) = (
            _mm512_unpacklo_epi32(words[0], words[1]),
            _mm512_unpackhi_epi32(words[0], words[1]),
        );
        let (c, d) = (
            _mm512_unpacklo_epi32(words[2], words[3]),
            _mm512_unpackhi_epi32(words[2], words[3]),
        );
        *part = [
            _mm512_unpacklo_epi64(a, c),
            _mm512_unpackhi_epi64(a, c),
            _mm512_unpacklo_epi64(b, d),
            _mm512_unpackhi_epi64(b, d),
        ];
    }
    let mut packets = v;
    for n in 0..4 {
        let quarter = transpose_quarters([part[0][n], part[1][n], part[2][n], part[3][n]]);
        for (m, packet) in quarter.into_iter().enumerate() {
            packets[4 * m + n] = packet;
        }
    }
    packets
}

/// The 4 × 4 transpose of 128-bit quarters.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
fn transpose_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (even_ab, odd_ab) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
    let (even_cd, odd_cd) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
    [
        _mm512_shuffle_i32x4::<0x88>(even_ab, even_cd),
        _mm512_shuffle_i32x4::<0x88>(odd_ab, odd_cd),
        _mm512_shuffle_i32x4::<0xdd>(even_ab, even_cd),
        _mm512_shuffle_i32x4::<0xdd>(odd_ab, odd_cd),
    ]
}

/// Applies one block of key stream (by packet) to every packet, and leaves the ciphertext in `poly`, by 64-bit word. `present` has a bit for each byte
/// that there is; all of them with `FULL`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512ifma,avx512vbmi2")]
#[inline]
pub(super) fn xor<const OPEN: bool, const FULL: bool>(
    stream: State,
    lanes: &[Lane; LANES],
    offset: usize,
    present: u64,
    poly: &mut Poly,
) {
    let mut cipher = stream;
    for (text, lane) in cipher.iter_mut().zip(lanes) {
        let at = lane.at(offset).cast();
        // SAFETY: `Lane::at` promises 64 bytes from every whole block's offset, and as many as `present` has bits from the last one's;
        // masked loads and stores touch no other.
        unsafe {
            let before = if FULL {
                _mm512_loadu_epi8(at)
            } else {
                _mm512_maskz_loadu_epi8(present, at)
            };
            let after = _mm512_xor_si512(before, *text);
            if FULL {
                _mm512_storeu_epi8(at, after);
            } else {
                _mm512_mask_storeu_epi8(at, present, after);
            }
            *text = match (OPEN, FULL) {
                (true, _) => before,
                (false, true) => after,
                // Poly1305 pads with zeros.
                (false, false) => _mm512_maskz_mov_epi8(present, after),
            };
        }
    }
    for (half, packets) in poly.iter_mut().zip(cipher.as_chunks::<8>().0) {
        let mut low = [_mm512_setzero_si512(); 4];
        let mut high = low;
        for ((low, high), pair) in low.iter_mut().zip(&mut high).zip(packets.as_chunks::<2>().0) {
            *low = _mm512_unpacklo_epi64(pair[0], pair[1]);
            *high = _mm512_unpackhi_epi64(pair[0], pair[1]);
        }
        half.take(transpose_quarters(low), transpose_quarters(high));
    }
}
