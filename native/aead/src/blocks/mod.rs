//! Packets as one row of blocks, of which as many as there are lanes are worked on at once, whichever packets they belong to: block 0 of a packet gives
//! its one-time key, the others its key stream. For WebAssembly, whose vectors hold four words; Poly1305 stays in plain numbers.
//!
//! What a step's blocks have sealed, or will open, is absorbed in the next one. Lengths alone decide what is done.

mod chacha20;
mod lanes;
mod poly1305;

use crate::group::{Direction, Group, LANES, Tag};
use chacha20::{Pending, Rows};
use core::sync::atomic::{Ordering, compiler_fence};
use lanes::{Lanes, MOST};
pub(crate) use poly1305::Poly1305;

/// Bytes that a step of four blocks covers.
const STEP: usize = 64 * MOST;

/// A block of a packet.
#[derive(Clone, Copy)]
struct Block {
    packet: usize,
    /// 0: the one-time key's; from 1 on: the data's from `(counter - 1) * 64` on.
    counter: usize,
}

/// The blocks that are worked on at once.
#[derive(Clone, Copy)]
enum Step {
    /// Whole blocks of data of one packet, from a byte of it on: what long packets are made of.
    Whole { packet: usize, at: usize },
    /// Any blocks.
    Any([Option<Block>; MOST]),
}

/// All blocks of a group, packet after packet.
struct Blocks {
    next: Block,
    live: usize,
    len: usize,
    /// The last block of each packet.
    last: usize,
}

impl Blocks {
    fn new(group: &Group<'_>) -> Self {
        Self {
            next: Block { packet: 0, counter: 0 },
            live: group.live(),
            len: group.len(),
            last: group.len().div_ceil(64),
        }
    }

    /// The next ones, as many as there are lanes.
    #[inline(always)]
    fn step(&mut self, lanes: usize) -> Option<Step> {
        let Block { packet, counter } = self.next;
        if packet == self.live {
            return None;
        }
        if lanes == MOST && counter > 0 && (counter - 1) * 64 + STEP <= self.len {
            self.next.counter += MOST;
            if self.next.counter > self.last {
                self.next = Block {
                    packet: packet + 1,
                    counter: 0,
                };
            }
            return Some(Step::Whole {
                packet,
                at: (counter - 1) * 64,
            });
        }
        let mut blocks = [None; MOST];
        for place in blocks.iter_mut().take(lanes) {
            *place = self.block();
        }
        Some(Step::Any(blocks))
    }

    fn block(&mut self) -> Option<Block> {
        let next = self.next;
        if next.packet == self.live {
            return None;
        }
        self.next.counter += 1;
        if self.next.counter > self.last {
            self.next = Block {
                packet: next.packet + 1,
                counter: 0,
            };
        }
        Some(next)
    }
}

/// [`run`], four blocks at a time.
#[cfg(any(test, all(target_arch = "wasm32", target_feature = "simd128")))]
pub(crate) fn four(key: &[u32; 8], aad: &[u8], group: &mut Group<'_>, direction: Direction) -> [Tag; LANES] {
    run::<lanes::Four>(key, aad, group, direction)
}

/// [`run`], block after block.
#[cfg(any(test, all(target_arch = "wasm32", not(target_feature = "simd128"))))]
pub(crate) fn one(key: &[u32; 8], aad: &[u8], group: &mut Group<'_>, direction: Direction) -> [Tag; LANES] {
    run::<u32>(key, aad, group, direction)
}

/// Packets that two steps may touch: so many of one block each.
const OPEN: usize = 2 * MOST;
/// With more bytes than this, what is left of a packet gives Poly1305 as many blocks as a whole one of ChaCha20's.
const ALMOST: usize = 48;
/// Who absorbs what is nobody's.
const NOBODY: usize = OPEN;
/// What nobody absorbs.
const NOTHING: &[u8; 64] = &[0; 64];

/// What a run leaves behind.
#[repr(C, align(16))]
struct Secrets {
    poly: [Poly1305; OPEN + 1],
    /// Key stream of this step and of the one before it.
    streams: [[[u8; 64]; MOST]; 2],
}

impl Secrets {
    fn wipe(&mut self) {
        let words: *mut u64 = core::ptr::from_mut(self).cast();
        for word in 0..size_of::<Self>() / size_of::<u64>() {
            // SAFETY: these are plain numbers, aligned for words and a whole number of them, borrowed exclusively. Word by word, since a volatile write of
            // all at once becomes one byte by byte.
            unsafe { core::ptr::write_volatile(words.wrapping_add(word), 0) };
        }
        compiler_fence(Ordering::SeqCst);
    }
}

/// Seals or opens every packet of a group in place; the tags of what is (now, or was before) ciphertext.
fn run<L: Lanes>(key: &[u32; 8], aad: &[u8], group: &mut Group<'_>, direction: Direction) -> [Tag; LANES] {
    let len = group.len();
    let mut row = Blocks::new(group);
    let last = row.last;
    let mut secrets = Secrets {
        poly: [Poly1305::default(); OPEN + 1],
        streams: [[[0; 64]; MOST]; 2],
    };
    let Secrets { poly, streams, .. } = &mut secrets;
    let mut tags = [[0; 16]; LANES];
    let mut lengths = |poly: &mut [Poly1305; OPEN + 1], packet: usize| {
        tags[packet] = poly[packet % OPEN].tag(aad.len() as u64, len as u64);
    };
    let [mut stream, mut stream_before] = streams.each_mut();
    let mut before = Step::Any([None; MOST]);
    let mut ends = [[0; 64]; MOST];
    loop {
        let now = row.step(L::WIDTH);
        let pending = pending(group, before, &mut ends);
        if let Some(now) = now {
            chacha20::blocks::<L, { OPEN + 1 }>(key, &rows(group, last, now), &pending, poly, stream);
        } else {
            for (text, owner) in pending {
                poly[owner].blocks(text.as_chunks().0);
            }
        }
        match before {
            Step::Whole { packet, at } => {
                if direction == Direction::Open {
                    apply_all::<L>(group.packet_mut(packet), at, stream_before);
                }
                if at + STEP == len {
                    lengths(poly, packet);
                }
            }
            Step::Any(blocks) => {
                for (block, stream) in blocks.into_iter().zip(&*stream_before) {
                    let Some(Block { packet, counter }) = block else { break };
                    if let Some(whole) = counter.checked_sub(1) {
                        let text = group.packet_mut(packet).get_mut(whole * 64..).unwrap_or_default();
                        if text.len() <= ALMOST {
                            poly[packet % OPEN].padded(text);
                        }
                        if direction == Direction::Open {
                            apply::<L>(text, stream);
                        }
                    }
                    if counter == last {
                        lengths(poly, packet);
                    }
                }
            }
        }
        match now {
            None => break,
            Some(Step::Whole { packet, at }) => {
                if direction == Direction::Seal {
                    apply_all::<L>(group.packet_mut(packet), at, stream);
                }
            }
            Some(Step::Any(blocks)) => {
                for (block, stream) in blocks.into_iter().zip(&*stream) {
                    let Some(Block { packet, counter }) = block else { break };
                    if let Some(whole) = counter.checked_sub(1) {
                        if direction == Direction::Seal {
                            apply::<L>(
                                group.packet_mut(packet).get_mut(whole * 64..).unwrap_or_default(),
                                stream,
                            );
                        }
                    } else {
                        let poly = &mut poly[packet % OPEN];
                        *poly = Poly1305::new(stream.first_chunk().unwrap_or(&[0; 32]));
                        poly.padded(aad);
                    }
                }
            }
        }
        before = now.unwrap_or(before);
        core::mem::swap(&mut stream, &mut stream_before);
    }
    secrets.wipe();
    tags
}

/// What of a step's data is absorbed between the rounds: whole blocks, and ends of packets that fill one but for their padding.
#[inline(always)]
fn pending<'a>(group: &'a Group<'_>, step: Step, ends: &'a mut [[u8; 64]; MOST]) -> Pending<'a> {
    match step {
        Step::Whole { packet, at } => {
            let text: &[[u8; 64]] = group.packet(packet).get(at..).unwrap_or_default().as_chunks().0;
            core::array::from_fn(|lane| (text.get(lane).unwrap_or(NOTHING), packet % OPEN))
        }
        Step::Any(blocks) => {
            let mut pending = [(NOTHING, NOBODY); MOST];
            for ((pending, block), end) in pending.iter_mut().zip(blocks).zip(ends) {
                let Some(Block { packet, counter }) = block else { break };
                let Some(whole) = counter.checked_sub(1) else { continue };
                let text = group.packet(packet).get(whole * 64..).unwrap_or_default();
                if let Some(text) = text.first_chunk() {
                    *pending = (text, packet % OPEN);
                } else if text.len() > ALMOST {
                    *end = [0; 64];
                    let (words, rest) = text.as_chunks();
                    let to: &mut [[u8; 8]] = end.as_chunks_mut().0;
                    to.iter_mut().zip(words).for_each(|(to, from)| *to = *from);
                    if let Some(to) = to.get_mut(words.len()) {
                        to.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                    }
                    *pending = (end, packet % OPEN);
                }
            }
            pending
        }
    }
}

/// Counters and nonces of a step.
#[inline(always)]
fn rows<L: Lanes>(group: &Group<'_>, last: usize, step: Step) -> Rows<L> {
    let nonces = group.nonces();
    match step {
        Step::Whole { packet, at } => {
            let counter = L::splat((at / 64 + 1) as u32).add(L::each([0, 1, 2, 3]));
            let [a, b, c] = nonces.each_ref().map(|nonce| L::splat(nonce[packet % LANES]));
            [counter, a, b, c]
        }
        Step::Any(blocks) => {
            let mut lane = 0;
            // What no packet needs gets the first packet's next block, which nobody sees.
            let blocks = blocks.map(|block| {
                lane += 1;
                block.unwrap_or(Block {
                    packet: 0,
                    counter: last + lane,
                })
            });
            let [a, b, c] = nonces
                .each_ref()
                .map(|nonce| L::each(blocks.map(|block| nonce[block.packet % LANES])));
            [L::each(blocks.map(|block| block.counter as u32)), a, b, c]
        }
    }
}

/// Applies a step's key stream to the bytes from `at` on.
#[inline(always)]
fn apply_all<L: Lanes>(data: &mut [u8], at: usize, stream: &[[u8; 64]; MOST]) {
    let blocks: &mut [[u8; 64]] = data.get_mut(at..).unwrap_or_default().as_chunks_mut().0;
    for (data, stream) in blocks.iter_mut().zip(stream) {
        L::apply(data, stream);
    }
}

/// Applies key stream to the first bytes of `data`, 64 of them if there are so many.
#[inline(always)]
fn apply<L: Lanes>(data: &mut [u8], stream: &[u8; 64]) {
    if let Some(data) = data.first_chunk_mut() {
        L::apply(data, stream);
        return;
    }
    let (words, rest) = data.as_chunks_mut();
    let (stream_words, _) = stream.as_chunks();
    for (data, stream) in words.iter_mut().zip(stream_words) {
        *data = (u64::from_le_bytes(*data) ^ u64::from_le_bytes(*stream)).to_le_bytes();
    }
    let done = words.len() * 8;
    for (data, stream) in rest.iter_mut().zip(&stream[done % 64..]) {
        *data ^= stream;
    }
}
