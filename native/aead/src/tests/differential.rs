//! Against ring: trains of 1 to 48 packets, every length, forgeries, odd addresses, and pages that end the process when they are touched.

use super::{Random, Sealed, lanes, run};
use crate::group::Direction;
use crate::train::{self, Compare, NEVER};
use crate::{Kernel, Key, TAG};

/// Memory that ends where a page begins that may not be touched, and begins where one ends.
struct Fenced {
    base: *mut libc::c_void,
    pages: usize,
    room: usize,
}

const PAGE: usize = 4_096;

impl Fenced {
    fn new(room: usize) -> Self {
        let inner = room.div_ceil(PAGE);
        let pages = inner + 2;
        // SAFETY: a new mapping of our own; then its inner pages, no others, may be read and written.
        let base = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let base = libc::mmap(core::ptr::null_mut(), pages * PAGE, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(base, libc::MAP_FAILED);
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            assert_eq!(libc::mprotect(base.byte_add(PAGE), inner * PAGE, rights), 0);
            base
        };
        Self {
            base,
            pages,
            room: inner * PAGE,
        }
    }

    fn all(&mut self) -> &mut [u8] {
        // SAFETY: the inner pages, which are ours and zeroed or written.
        unsafe { core::slice::from_raw_parts_mut(self.base.byte_add(PAGE).cast(), self.room) }
    }

    /// `len` bytes, the fence right behind them or right before.
    fn end(&mut self, len: usize) -> &mut [u8] {
        let room = self.room;
        &mut self.all()[room - len..]
    }

    fn start(&mut self, len: usize) -> &mut [u8] {
        &mut self.all()[..len]
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing refers to any more.
        unsafe { libc::munmap(self.base, self.pages * PAGE) };
    }
}

/// Seals a train, compares it with ring's, forges some packets and opens it again.
fn there_and_back(kernel: Kernel, random: &mut Random, train: &mut [u8], stride: usize, clear: usize) {
    // Comparing changes nothing as long as all is well.
    let compare: Compare = if random.below(4) == 0 {
        |count| Some(count / 2)
    } else {
        NEVER
    };
    let key = Key::new(&random.bytes());
    let base: [u8; 12] = random.bytes();
    let nonce = |n: usize| {
        let mut nonce = base;
        nonce[4] ^= n as u8;
        nonce
    };
    random.fill(train);
    let plain = train.to_vec();
    let mut expected = plain.clone();
    train::seal(kernel, compare, &key, train, stride, clear, nonce);
    train::seal(Kernel::SINGLE, NEVER, &key, &mut expected, stride, clear, nonce);
    assert!(train == expected, "{kernel}: {} bytes by {stride}", train.len());

    let mut packets = Vec::new();
    let mut genuine = Vec::new();
    let length = train.len();
    for (n, packet) in train.chunks_mut(stride).enumerate() {
        if packet.len() < clear + TAG {
            break;
        }
        genuine.push(random.below(8) != 0);
        if !genuine[n] {
            let at = clear + random.below(packet.len() - clear);
            packet[at] ^= 1 << random.below(8);
        }
        packets.push(Sealed {
            range: n * stride + clear..length.min((n + 1) * stride),
            nonce: nonce(n),
            opened: random.below(2) == 0,
        });
    }
    let sealed = train.to_vec();
    train::open(kernel, compare, &key, train, &mut packets);
    for ((packet, genuine), range) in packets.iter().zip(genuine).zip(packets.iter().map(|p| p.range.clone())) {
        assert_eq!(packet.opened, genuine, "{kernel}: {range:?}");
        let data = range.start..range.end - TAG;
        if genuine {
            assert!(train[data.clone()] == plain[data.clone()], "{kernel}: {range:?}");
        } else {
            // Neither its plaintext nor anything of it: ring leaves the ciphertext or zeros, the lanes zeros.
            let left = &train[data.clone()];
            assert!(
                left.iter().all(|&byte| byte == 0) || left == &sealed[data.clone()],
                "{kernel}: {range:?}"
            );
        }
    }
    // What stays clear was not touched.
    for (n, (packet, plain)) in train.chunks(stride).zip(plain.chunks(stride)).enumerate() {
        let clear = clear.min(packet.len());
        assert!(packet[..clear] == plain[..clear], "{kernel}: packet {n}");
    }
}

#[test]
fn trains_of_every_length_are_sealed_and_opened_as_ring_does() {
    let mut random = Random(1);
    let mut memory = Fenced::new(48 * (16_384 + 64));
    for kernel in lanes() {
        let lengths = (0..=1_500).chain([1_501, 2_047, 2_048, 2_049, 4_095, 9_000, 16_383, 16_384]);
        for len in lengths {
            let packets = 1 + random.below(if len > 1_500 { 20 } else { 48 });
            let clear = random.below(37);
            let stride = len + clear + TAG;
            // The last packet is whole, or shorter, or too short for a tag even.
            let total = packets * stride - if random.below(2) == 0 { 0 } else { random.below(stride) };
            let train = if random.below(2) == 0 {
                memory.end(total)
            } else {
                memory.start(total)
            };
            there_and_back(kernel, &mut random, train, stride, clear);
        }
    }
}

#[test]
fn trains_of_every_number_of_packets_are_sealed_and_opened_as_ring_does() {
    let mut random = Random(2);
    let mut memory = Fenced::new(48 * 700);
    for kernel in lanes() {
        for packets in 1..=48 {
            for len in [0, 1, 31, 64, 150, 500, 640] {
                let stride = len + 20 + TAG;
                there_and_back(kernel, &mut random, memory.end(packets * stride), stride, 20);
            }
        }
    }
}

#[test]
fn no_byte_beyond_a_packet_is_touched_in_any_lane() {
    // Every lane in turn holds the packet that ends at the fence, and the one that begins there; tags lie elsewhere, so a single byte more is a crash.
    let mut random = Random(3);
    let mut memory = Fenced::new(16 * 1_600);
    for kernel in lanes() {
        let width = kernel.width();
        for len in (0..300).chain([1_399, 1_400, 1_500]) {
            let lane = len % width;
            let key = Key::new(&random.bytes());
            let nonces: Vec<[u8; 12]> = (0..width).map(|_| random.bytes()).collect();
            for at_end in [true, false] {
                let buffer = if at_end {
                    memory.end(width * len)
                } else {
                    memory.start(width * len)
                };
                random.fill(buffer);
                let mut expected = buffer.to_vec();
                let mut starts: Vec<_> = (0..width).map(|n| n * len).collect();
                starts.rotate_left(lane);
                let tags = run(kernel, &key, &[], buffer, &starts, len, &nonces, Direction::Seal);
                for ((&start, nonce), tag) in starts.iter().zip(&nonces).zip(tags) {
                    assert_eq!(
                        key.seal(nonce, &[], &mut expected[start..start + len]),
                        tag,
                        "{kernel}: {len}"
                    );
                }
                assert!(buffer == expected, "{kernel}: {len}");
            }
        }
    }
}

#[test]
fn packets_of_unequal_lengths_are_opened_in_any_order() {
    let mut random = Random(4);
    for kernel in lanes() {
        for _ in 0..200 {
            let key = Key::new(&random.bytes());
            let mut train = Vec::new();
            let mut packets = Vec::new();
            let mut plain = Vec::new();
            let mut len = 100;
            for _ in 0..random.below(48) {
                if random.below(6) == 0 {
                    len = random.below(200);
                }
                let nonce: [u8; 12] = random.bytes();
                let start = train.len() + random.below(9);
                train.resize(start + len + TAG, 0);
                let data = &mut train[start..start + len];
                random.fill(data);
                plain.push(data.to_vec());
                let tag = key.seal(&nonce, &[], data);
                train[start + len..].copy_from_slice(&tag);
                packets.push((random.word(), start..start + len + TAG, nonce, plain.len() - 1));
            }
            packets.sort_by_key(|packet| packet.0 % 7);
            let mut sealed: Vec<_> = packets
                .iter()
                .map(|(_, range, nonce, _)| Sealed {
                    range: range.clone(),
                    nonce: *nonce,
                    opened: false,
                })
                .collect();
            // Two that can't be: outside the buffer, and too short for a tag.
            for range in [train.len()..train.len() + 40, 0..TAG - 1] {
                sealed.push(Sealed {
                    range,
                    nonce: [0; 12],
                    opened: true,
                });
            }
            train::open(kernel, NEVER, &key, &mut train, &mut sealed);
            for (packet, (_, range, _, n)) in sealed.iter().zip(&packets) {
                assert!(packet.opened, "{kernel}: {range:?}");
                assert!(train[range.start..range.end - TAG] == plain[*n], "{kernel}: {range:?}");
            }
            assert!(sealed[packets.len()..].iter().all(|packet| !packet.opened));
        }
    }
}

#[test]
fn groups_with_packets_outside_the_buffer_are_refused() {
    use crate::group::{Group, LANES};
    let mut buffer = [0; 100];
    let nonces = [[0; 12]; LANES + 1];
    assert!(Group::new(&mut buffer, &[0, 50], 50, &nonces[..2]).is_some());
    assert!(Group::new(&mut buffer, &[0, 51], 50, &nonces[..2]).is_none());
    assert!(Group::new(&mut buffer, &[0, usize::MAX], 50, &nonces[..2]).is_none());
    assert!(Group::new(&mut buffer, &[0], 101, &nonces[..1]).is_none());
    assert!(Group::new(&mut buffer, &[], 1, &[]).is_none());
    assert!(Group::new(&mut buffer, &[0, 1], 1, &nonces[..1]).is_none());
    assert!(Group::new(&mut buffer, &[0; LANES + 1], 1, &nonces).is_none());
}
