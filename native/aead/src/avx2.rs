//! Eight packets at once with AVX2: the key stream in 32-bit lanes, one packet per lane, and between its rounds Poly1305 in whole registers, one packet
//! per double round. The multiplier and the vector units are different parts of the processor, and neither waits for the other.

use crate::group::{Direction, Group, LANES, Lane, Scratch, Tag, wipe};
use crate::poly1305::Poly1305;
use core::arch::x86_64::*;

/// Packets in a full group.
pub(crate) const WIDTH: usize = 8;
const _: () = assert!(WIDTH <= LANES);

/// Proof that this processor has what this module needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        let has = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("bmi2");
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

/// Something on the stack that wants 64-byte alignment: then the compiler aligns the frame, and with it the registers that it spills, a third of
/// which would straddle cache lines otherwise; that doubles the time of a block.
#[inline(always)]
fn align_frame() {
    let aligned = Scratch::new();
    // SAFETY: an empty instruction, which does nothing.
    unsafe { core::arch::asm!("/* {0} */", in(reg) &aligned, options(nostack, preserves_flags)) };
}

/// The sixteen words of ChaCha20's state, each of eight packets.
type State = [__m256i; 16];

#[target_feature(enable = "avx2,bmi2")]
fn work<const OPEN: bool>(key: &[u32; 8], aad: &[u8], group: &mut Group<'_>) -> [Tag; LANES] {
    let len = group.len();
    let live = group.live().min(WIDTH);
    let (whole, rest) = (len / 64, len % 64);
    let mut scratch = Scratch::new();
    let lanes = group.lanes(&mut scratch);
    let Some(lanes) = lanes.first_chunk::<WIDTH>() else {
        return [[0; 16]; LANES];
    };
    let mut start = initial(key, group.nonces());
    let mut poly = begin(block(&start, 0));
    for poly in &mut poly {
        poly.padded(aad);
    }
    for index in 0..whole {
        let counter = index as i32 + 1;
        let stream = if OPEN {
            // What is about to be opened.
            block_and_absorb(&start, counter, lanes, index * 64, &mut poly)
        } else if index == 0 {
            block(&start, counter)
        } else {
            // What was just sealed.
            block_and_absorb(&start, counter, lanes, index * 64 - 64, &mut poly)
        };
        xor(stream, lanes, index * 64);
    }
    let end = whole * 64;
    let mut tags = [[0; 16]; LANES];
    let mut last = [[0; 64]; WIDTH];
    if rest > 0 {
        let counter = whole as i32 + 1;
        let stream = if OPEN || whole == 0 {
            block(&start, counter)
        } else {
            block_and_absorb(&start, counter, lanes, end - 64, &mut poly)
        };
        store(stream, &mut last);
    }
    for (n, (lane, tag)) in lanes.iter().zip(&mut tags).enumerate().take(live) {
        let poly = &mut poly[n];
        if !OPEN && rest == 0 && whole > 0 {
            // SAFETY: `Lane::at` promises 64 bytes at the last whole block.
            absorb(poly, unsafe { lane.at(end - 64).cast::<[u64; 8]>().read_unaligned() });
        }
        if rest > 0 {
            // With the whole block before it, if there is one.
            let before = end.min(64);
            // SAFETY: `Lane::at` promises all of a packet from there on, and nothing else refers to it now.
            let data = unsafe { core::slice::from_raw_parts_mut(lane.at(end - before), before + rest) };
            xor_and_absorb_rest::<OPEN>(data, rest, &last[n], poly);
        }
        *tag = poly.tag(aad.len() as u64, len as u64);
    }
    // SAFETY: these are plain numbers.
    unsafe {
        wipe(&mut start);
        wipe(&mut poly);
        wipe(&mut last);
        wipe(&mut scratch);
    }
    tags
}

#[target_feature(enable = "avx2,bmi2")]
fn initial(key: &[u32; 8], nonces: &[[u32; LANES]; 3]) -> State {
    let mut state = [_mm256_setzero_si256(); 16];
    for (word, constant) in state
        .iter_mut()
        .zip([0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574])
    {
        *word = _mm256_set1_epi32(constant);
    }
    for (word, key) in state[4..].iter_mut().zip(key) {
        *word = _mm256_set1_epi32(key.cast_signed());
    }
    for (word, nonce) in state[13..].iter_mut().zip(nonces) {
        // SAFETY: there are sixteen words; eight of them are 32 bytes.
        *word = unsafe { _mm256_loadu_si256(nonce.as_ptr().cast()) };
    }
    state
}

/// Read by its address alone.
#[repr(align(32))]
struct Bytes(#[expect(dead_code)] [u8; 32]);

/// Byte orders that rotate every 32-bit word left by 16, and by 8.
static BY_16: Bytes = byte_order(16);
static BY_8: Bytes = byte_order(8);

const fn byte_order(bits: usize) -> Bytes {
    let mut order = [0; 32];
    let mut n = 0;
    while n < 32 {
        order[n] = (n % 16 / 4 * 4 + (n + 4 - bits / 8) % 4) as u8;
        n += 1;
    }
    Bytes(order)
}

/// Rotates by a byte order. One instruction, spelled out: LLVM would rather have two shuffles before an exclusive or than one behind it.
macro_rules! turn {
    ($v:expr, $order:ident) => {{
        let v: __m256i = $v;
        let turned: __m256i;
        // SAFETY: reads 32 bytes of a static.
        unsafe {
            core::arch::asm!(
                "vpshufb {turned}, {v}, ymmword ptr [rip + {order}]",
                turned = lateout(ymm_reg) turned,
                v = in(ymm_reg) v,
                order = sym $order,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        turned
    }};
}

macro_rules! rotate {
    ($v:expr, $n:literal) => {{
        let v = $v;
        _mm256_or_si256(_mm256_slli_epi32::<$n>(v), _mm256_srli_epi32::<{ 32 - $n }>(v))
    }};
}

/// Two quarter rounds side by side: as many as there are registers for.
macro_rules! quarter_rounds {
    ($v:ident, $([$a:literal, $b:literal, $c:literal, $d:literal]),*) => {
        $($v[$a] = _mm256_add_epi32($v[$a], $v[$b]);)*
        $($v[$d] = turn!(_mm256_xor_si256($v[$d], $v[$a]), BY_16);)*
        $($v[$c] = _mm256_add_epi32($v[$c], $v[$d]);)*
        $($v[$b] = rotate!(_mm256_xor_si256($v[$b], $v[$c]), 12);)*
        $($v[$a] = _mm256_add_epi32($v[$a], $v[$b]);)*
        $($v[$d] = turn!(_mm256_xor_si256($v[$d], $v[$a]), BY_8);)*
        $($v[$c] = _mm256_add_epi32($v[$c], $v[$d]);)*
        $($v[$b] = rotate!(_mm256_xor_si256($v[$b], $v[$c]), 7);)*
    };
}

/// A double round, with something else to do after each quarter of it.
macro_rules! double_round {
    ($v:ident; $($one:expr)?; $($two:expr)?; $($three:expr)?; $($four:expr)?) => {
        quarter_rounds!($v, [0, 4, 8, 12], [1, 5, 9, 13]);
        $($one;)?
        quarter_rounds!($v, [2, 6, 10, 14], [3, 7, 11, 15]);
        $($two;)?
        quarter_rounds!($v, [0, 5, 10, 15], [1, 6, 11, 12]);
        $($three;)?
        quarter_rounds!($v, [2, 7, 8, 13], [3, 4, 9, 14]);
        $($four;)?
    };
}

#[target_feature(enable = "avx2,bmi2")]
#[inline]
fn add_start(v: &mut State, start: &State, counter: i32) {
    for (word, start) in v.iter_mut().zip(start) {
        *word = _mm256_add_epi32(*word, *start);
    }
    v[12] = _mm256_add_epi32(v[12], _mm256_set1_epi32(counter));
}

/// One block of key stream of every packet.
#[target_feature(enable = "avx2,bmi2")]
fn block(start: &State, counter: i32) -> State {
    align_frame();
    let mut v = *start;
    v[12] = _mm256_set1_epi32(counter);
    for _ in 0..10 {
        double_round!(v; ; ; ; );
    }
    add_start(&mut v, start, counter);
    v
}

/// Ties a place in the rounds to a place in Poly1305, or the compiler would put one behind the other: an empty instruction that seems to change both.
macro_rules! fasten {
    ($poly:ident, $v:expr) => {
        let [h0, h1, h2] = $poly.h_mut();
        // SAFETY: does nothing.
        unsafe {
            core::arch::asm!(
                "/* {0} {1} {2} {3} */",
                inout(reg) *h0,
                inout(reg) *h1,
                inout(reg) *h2,
                inout(ymm_reg) $v,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
    };
}

/// [`block`], and between its rounds 64 bytes of every packet from `offset` on are absorbed.
#[target_feature(enable = "avx2,bmi2")]
fn block_and_absorb(
    start: &State,
    counter: i32,
    lanes: &[Lane; WIDTH],
    offset: usize,
    poly: &mut [Poly1305; WIDTH],
) -> State {
    align_frame();
    let mut v = *start;
    v[12] = _mm256_set1_epi32(counter);
    for (lanes, poly) in lanes.as_chunks::<2>().0.iter().zip(poly.as_chunks_mut::<2>().0) {
        let text = lanes.map(|lane| lane.at(offset).cast::<[u64; 2]>());
        let [mut a, mut b] = *poly;
        macro_rules! absorb {
            ($poly:ident, $packet:literal, $n:literal, $v:expr) => {{
                // SAFETY: `Lane::at` promises 64 bytes at whole blocks.
                let [low, high] = unsafe { text[$packet].wrapping_add($n).read_unaligned() };
                $poly.block(low, high);
                fasten!($poly, $v);
            }};
        }
        // Two packets in turn: a block waits for the one before it, and the other packet's doesn't.
        double_round!(v; absorb!(a, 0, 0, v[4]); absorb!(b, 1, 0, v[6]); absorb!(a, 0, 1, v[4]); absorb!(b, 1, 1, v[6]));
        double_round!(v; absorb!(a, 0, 2, v[4]); absorb!(b, 1, 2, v[6]); absorb!(a, 0, 3, v[4]); absorb!(b, 1, 3, v[6]));
        *poly = [a, b];
    }
    for _ in 8..10 {
        double_round!(v; ; ; ; );
    }
    add_start(&mut v, start, counter);
    v
}

#[inline(always)]
fn absorb(poly: &mut Poly1305, words: [u64; 8]) {
    for [low, high] in words.as_chunks().0 {
        poly.block(*low, *high);
    }
}

/// From eight words of eight packets to eight packets' 32 bytes.
#[target_feature(enable = "avx2,bmi2")]
#[inline]
fn transpose(v: &[__m256i; 8]) -> [__m256i; 8] {
    let lo = |a, b| _mm256_unpacklo_epi32(a, b);
    let hi = |a, b| _mm256_unpackhi_epi32(a, b);
    let (a0, a1, a2, a3) = (lo(v[0], v[1]), hi(v[0], v[1]), lo(v[2], v[3]), hi(v[2], v[3]));
    let (a4, a5, a6, a7) = (lo(v[4], v[5]), hi(v[4], v[5]), lo(v[6], v[7]), hi(v[6], v[7]));
    let lo = |a, b| _mm256_unpacklo_epi64(a, b);
    let hi = |a, b| _mm256_unpackhi_epi64(a, b);
    let (b0, b1, b2, b3) = (lo(a0, a2), hi(a0, a2), lo(a1, a3), hi(a1, a3));
    let (b4, b5, b6, b7) = (lo(a4, a6), hi(a4, a6), lo(a5, a7), hi(a5, a7));
    let lo = |a, b| _mm256_permute2x128_si256::<0x20>(a, b);
    let hi = |a, b| _mm256_permute2x128_si256::<0x31>(a, b);
    [
        lo(b0, b4),
        lo(b1, b5),
        lo(b2, b6),
        lo(b3, b7),
        hi(b0, b4),
        hi(b1, b5),
        hi(b2, b6),
        hi(b3, b7),
    ]
}

#[target_feature(enable = "avx2,bmi2")]
#[inline]
fn by_packet(stream: &State) -> [[__m256i; 8]; 2] {
    let (halves, _) = stream.as_chunks::<8>();
    [transpose(&halves[0]), transpose(&halves[1])]
}

/// Applies one block of key stream to every packet.
#[target_feature(enable = "avx2,bmi2")]
#[inline]
fn xor(stream: State, lanes: &[Lane; WIDTH], offset: usize) {
    for (half, stream) in by_packet(&stream).into_iter().enumerate() {
        for (lane, stream) in lanes.iter().zip(stream) {
            let at = lane.at(offset).wrapping_add(half * 32).cast();
            // SAFETY: `Lane::at` promises 64 bytes at whole blocks.
            unsafe { _mm256_storeu_si256(at, _mm256_xor_si256(_mm256_loadu_si256(at), stream)) };
        }
    }
}

/// Applies key stream to the last `rest` bytes of `data`, less than 64, and absorbs what is, or was, their ciphertext. In whole words, and nothing is
/// read back that was just written in other pieces: the processor would wait for that.
#[inline(always)]
fn xor_and_absorb_rest<const OPEN: bool>(data: &mut [u8], rest: usize, stream: &[u8; 64], poly: &mut Poly1305) {
    let ragged = rest % 16;
    // The bytes of a block that isn't whole: by the last sixteen that there are.
    let before = match data.last_chunk() {
        _ if ragged == 0 => 0,
        Some(last) => u128::from_le_bytes(*last) >> (128 - 8 * ragged),
        None => word(data),
    };
    let at = data.len() - rest;
    let (blocks, place) = data[at..].as_chunks_mut::<16>();
    let mut stream = stream.as_chunks().0.iter().map(|stream| u128::from_le_bytes(*stream));
    for (block, stream) in blocks.iter_mut().zip(&mut stream) {
        let before = u128::from_le_bytes(*block);
        let after = before ^ stream;
        *block = after.to_le_bytes();
        poly.word(if OPEN { before } else { after });
    }
    if ragged > 0 {
        let after = (before ^ stream.next().unwrap_or(0)) & ((1 << (8 * ragged)) - 1);
        put_word(place, after);
        poly.word(if OPEN { before } else { after });
    }
}

/// Less than 16 bytes as a number.
fn word(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u128::from(byte))
}

/// The lowest bytes of a number, less than 16 of them.
#[inline(always)]
fn put_word(place: &mut [u8], mut word: u128) {
    let mut at = 0;
    for size in [8, 4, 2, 1] {
        if place.len() & size != 0 {
            if let Some(here) = place.get_mut(at..at + size) {
                here.copy_from_slice(&word.to_le_bytes()[..size]);
            }
            at += size;
            word >>= 8 * size;
        }
    }
}

/// Writes one block of key stream, packet after packet.
#[target_feature(enable = "avx2,bmi2")]
fn store(stream: State, out: &mut [[u8; 64]; WIDTH]) {
    for (half, stream) in by_packet(&stream).into_iter().enumerate() {
        for (out, stream) in out.iter_mut().zip(stream) {
            // SAFETY: 32 bytes at 0 or 32 of 64.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().wrapping_add(half * 32).cast(), stream) };
        }
    }
}

/// Starts from block 0 of the key stream: its first 32 bytes are r and s.
#[target_feature(enable = "avx2,bmi2")]
fn begin(first: State) -> [Poly1305; WIDTH] {
    let mut poly = [Poly1305::default(); WIDTH];
    for (poly, key) in poly.iter_mut().zip(by_packet(&first)[0]) {
        // SAFETY: both are 32 bytes of plain numbers.
        *poly = Poly1305::new(unsafe { core::mem::transmute::<__m256i, [u64; 4]>(key) });
    }
    poly
}
