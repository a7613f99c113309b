//! Trains cut into groups for the lanes; what doesn't fill enough of them goes one by one. One packet in many is worked again that way and compared.

use crate::group::{Direction, Group, LANES, Tag};
use crate::{Kernel, Key, Packet, TAG, guard};
use zeroize::{Zeroize, Zeroizing};

/// The longest packet that is compared: longer than any datagram of a link's, and short enough for the stack.
const COMPARED: usize = 2_048;

/// Which packet of a group of so many shall be compared.
pub(crate) type Compare = fn(usize) -> Option<usize>;

/// None: for the self-test.
pub(crate) const NEVER: Compare = |_| None;

/// See [`crate::seal_train`].
pub(crate) fn seal(
    kernel: Kernel,
    compare: Compare,
    key: &Key,
    train: &mut [u8],
    stride: usize,
    clear: usize,
    nonce: impl Fn(usize) -> [u8; 12],
) {
    let Some(len) = stride.checked_sub(clear).and_then(|body| body.checked_sub(TAG)) else {
        return;
    };
    let whole = train.len() / stride;
    let mut done = 0;
    while whole - done >= kernel.worthwhile(len) {
        let count = kernel.width().min(whole - done);
        let mut set = Set::default();
        for index in done..done + count {
            set.push(index * stride + clear, nonce(index));
        }
        if !set.seal(kernel, compare, key, train, len) {
            break;
        }
        done += count;
    }
    for (index, packet) in train.chunks_mut(stride).enumerate().skip(done) {
        let body = packet.get_mut(clear..);
        let Some((data, tag)) = body.and_then(<[u8]>::split_last_chunk_mut::<TAG>) else {
            return;
        };
        *tag = seal_one(kernel, key, &nonce(index), &[], data);
    }
}

/// See [`crate::open_train`].
pub(crate) fn open(kernel: Kernel, compare: Compare, key: &Key, train: &mut [u8], mut packets: &mut [impl Packet]) {
    while let Some(first) = packets.first() {
        let len = first.range().len();
        let equal = |packet: &&_| Packet::range(*packet).len() == len;
        let count = packets.iter().take(kernel.width()).take_while(equal).count();
        let (group, rest) = packets.split_at_mut(count);
        packets = rest;
        if len >= TAG && count >= kernel.worthwhile(len - TAG) {
            let mut set = Set::default();
            for packet in group.iter() {
                set.push(packet.range().start, packet.nonce());
            }
            if let Some(opened) = set.open(kernel, compare, key, train, len - TAG) {
                for (packet, opened) in group.iter_mut().zip(opened) {
                    packet.set_opened(opened);
                }
                continue;
            }
        }
        for packet in group {
            let data = train.get_mut(packet.range());
            let opened = data.is_some_and(|data| open_one(kernel, key, &packet.nonce(), &[], data));
            packet.set_opened(opened);
        }
    }
}

/// Seals one packet's `data` in place and returns its tag.
pub(crate) fn seal_one(kernel: Kernel, key: &Key, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> Tag {
    match run_one(kernel, key, nonce, aad, data, Direction::Seal) {
        Some(tag) => tag,
        None => key.single().seal(nonce, aad, data),
    }
}

/// Opens one packet in place, ciphertext and tag; wiped if it doesn't hold.
pub(crate) fn open_one(kernel: Kernel, key: &Key, nonce: &[u8; 12], aad: &[u8], packet: &mut [u8]) -> bool {
    let Some((data, claimed)) = packet.split_last_chunk_mut::<TAG>() else {
        return false;
    };
    match run_one(kernel, key, nonce, aad, data, Direction::Open) {
        None => key.single().open(nonce, aad, packet),
        Some(tag) => {
            let opened = holds(claimed, &tag);
            if !opened {
                data.zeroize();
            }
            opened
        }
    }
}

/// Where lanes are worth their while for a single packet.
fn run_one(
    kernel: Kernel,
    key: &Key,
    nonce: &[u8; 12],
    aad: &[u8],
    data: &mut [u8],
    direction: Direction,
) -> Option<Tag> {
    let len = data.len();
    if kernel.worthwhile(len) > 1 {
        return None;
    }
    let mut group = Group::new(data, &[0], len, &[*nonce])?;
    let [tag, ..] = kernel.run(key.words(), aad, &mut group, direction)?;
    Some(tag)
}

/// All bits before the one decision, which everybody may see.
fn holds(claimed: &[u8], tag: &Tag) -> bool {
    let differ = claimed.iter().zip(tag).fold(0, |all, (a, b)| all | (a ^ b));
    core::hint::black_box(differ) == 0
}

/// Packets of one length that go through the lanes together.
#[derive(Default)]
struct Set {
    starts: [usize; LANES],
    nonces: [[u8; 12]; LANES],
    count: usize,
}

impl Set {
    fn push(&mut self, start: usize, nonce: [u8; 12]) {
        self.starts[self.count] = start;
        self.nonces[self.count] = nonce;
        self.count += 1;
    }

    /// False, and nothing done, when this can't be the lanes' work.
    fn seal(&self, kernel: Kernel, compare: Compare, key: &Key, train: &mut [u8], len: usize) -> bool {
        match compare(self.count).filter(|_| len <= COMPARED) {
            None => self.seal_all(kernel, key, train, len),
            Some(index) => self.seal_and_compare(kernel, key, train, len, index),
        }
    }

    fn seal_all(&self, kernel: Kernel, key: &Key, train: &mut [u8], len: usize) -> bool {
        let Some(tags) = self.run(kernel, key, train, len, Direction::Seal) else {
            return false;
        };
        for (&start, tag) in self.starts().iter().zip(tags) {
            put(train, start + len, &tag);
        }
        true
    }

    #[cold]
    fn seal_and_compare(&self, kernel: Kernel, key: &Key, train: &mut [u8], len: usize, index: usize) -> bool {
        let start = self.starts[index];
        let mut copy = Zeroizing::new([0; COMPARED + TAG]);
        let Some(plain) = train.get(start..start + len) else {
            return false;
        };
        copy[..len].copy_from_slice(plain);
        if !self.seal_all(kernel, key, train, len) {
            return false;
        }
        let tag = key.single().seal(&self.nonces[index], &[], &mut copy[..len]);
        copy[len..len + TAG].copy_from_slice(&tag);
        if train.get(start..start + len + TAG) != copy.get(..len + TAG) {
            guard::distrust();
            // Nobody knows what the others hold: they go out as packets that no one can open.
            self.wipe(train, len + TAG);
            put(train, start, &copy[..len + TAG]);
        }
        true
    }

    /// Which packets held; the others are wiped. `None`, and nothing done, when this can't be the lanes' work.
    fn open(&self, kernel: Kernel, compare: Compare, key: &Key, train: &mut [u8], len: usize) -> Option<[bool; LANES]> {
        // The tags must lie within the buffer too.
        let outside = |&start: &usize| train.get(start..start + len + TAG).is_none();
        if self.starts().iter().any(outside) {
            return None;
        }
        match compare(self.count).filter(|_| len <= COMPARED) {
            None => self.open_all(kernel, key, train, len),
            Some(index) => self.open_and_compare(kernel, key, train, len, index),
        }
    }

    fn open_all(&self, kernel: Kernel, key: &Key, train: &mut [u8], len: usize) -> Option<[bool; LANES]> {
        let tags = self.run(kernel, key, train, len, Direction::Open)?;
        let mut opened = [false; LANES];
        for ((opened, &start), tag) in opened.iter_mut().zip(self.starts()).zip(tags) {
            let Some(packet) = train.get_mut(start..start + len + TAG) else {
                continue;
            };
            let (data, claimed) = packet.split_at_mut(len);
            *opened = holds(claimed, &tag);
            if !*opened {
                data.zeroize();
            }
        }
        Some(opened)
    }

    #[cold]
    fn open_and_compare(
        &self,
        kernel: Kernel,
        key: &Key,
        train: &mut [u8],
        len: usize,
        index: usize,
    ) -> Option<[bool; LANES]> {
        let start = self.starts[index];
        let mut copy = Zeroizing::new([0; COMPARED + TAG]);
        copy[..len + TAG].copy_from_slice(train.get(start..start + len + TAG)?);
        let mut opened = self.open_all(kernel, key, train, len)?;
        let holds = key.single().open(&self.nonces[index], &[], &mut copy[..len + TAG]);
        let agree = holds == opened[index] && (!holds || train.get(start..start + len) == copy.get(..len));
        if !agree {
            guard::distrust();
            self.wipe(train, len);
            opened = [false; LANES];
            opened[index] = holds;
            if holds {
                put(train, start, &copy[..len]);
            }
        }
        Some(opened)
    }

    fn wipe(&self, train: &mut [u8], len: usize) {
        for &start in self.starts() {
            if let Some(packet) = train.get_mut(start..start + len) {
                packet.zeroize();
            }
        }
    }

    fn starts(&self) -> &[usize] {
        &self.starts[..self.count]
    }

    fn run(
        &self,
        kernel: Kernel,
        key: &Key,
        train: &mut [u8],
        len: usize,
        direction: Direction,
    ) -> Option<[Tag; LANES]> {
        let mut group = Group::new(train, self.starts(), len, &self.nonces[..self.count])?;
        kernel.run(key.words(), &[], &mut group, direction)
    }
}

fn put(train: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = train.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}
