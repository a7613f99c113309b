//! ChaCha20-Poly1305 (RFC 8439) over trains of packets, behind one trait: whole trains go in, so that an implementation may work on many
//! packets at once.

use crate::wire::TAG;

/// The nonce of everything Thicket seals: four zero bytes, then the packet's 64-bit counter field, little-endian (Noise, section 5.1).
pub fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// One packet of a train that is to be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// Where its ciphertext begins in the train's buffer.
    pub start: usize,
    /// Where its tag ends.
    pub end: usize,
    /// Its counter field, as it came.
    pub counter: u64,
    /// Set by [`Aead::open_train`]: the tag held, and the plaintext stands in all but the last 16 bytes.
    pub opened: bool,
}

/// An AEAD implementation. Results are RFC 8439's, whatever the implementation.
pub trait Aead: 'static {
    /// A key made ready; wiped when dropped.
    type Key: Send + Sync;

    /// Makes a key ready.
    fn key(bytes: &[u8; 32]) -> Self::Key;

    /// Seals `data` in place under a nonce of its own and returns the tag.
    fn seal_with(key: &Self::Key, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> [u8; TAG];

    /// Opens `data` (ciphertext, then tag) in place: true, and the plaintext stands in all but the last 16 bytes; or false, and `data`'s
    /// content means nothing.
    #[must_use]
    fn open_with(key: &Self::Key, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> bool;

    /// [`Aead::seal_with`] under a counter's nonce.
    fn seal(key: &Self::Key, counter: u64, aad: &[u8], data: &mut [u8]) -> [u8; TAG] {
        Self::seal_with(key, &nonce(counter), aad, data)
    }

    /// [`Aead::open_with`] under a counter's nonce.
    #[must_use]
    fn open(key: &Self::Key, counter: u64, aad: &[u8], data: &mut [u8]) -> bool {
        Self::open_with(key, &nonce(counter), aad, data)
    }

    /// Seals a train: packets of `stride` bytes (the last may be shorter), each `clear` bytes that stay as they are, then plaintext, then
    /// room for the tag; counters rise by one from `first`.
    fn seal_train(key: &Self::Key, first: u64, train: &mut [u8], stride: usize, clear: usize) {
        for (index, packet) in train.chunks_mut(stride).enumerate() {
            let Some(body) = packet.get_mut(clear..) else { return };
            let Some(end) = body.len().checked_sub(TAG) else { return };
            let (data, tag) = body.split_at_mut(end);
            tag.copy_from_slice(&Self::seal(key, first.wrapping_add(index as u64), &[], data));
        }
    }

    /// Opens a train in place, each packet for itself: one that is forged says nothing about its neighbours.
    fn open_train(key: &Self::Key, train: &mut [u8], packets: &mut [Sealed]) {
        for packet in packets {
            let data = train.get_mut(packet.start..packet.end);
            packet.opened = data.is_some_and(|data| Self::open(key, packet.counter, &[], data));
        }
    }

    /// A line for the log, once, when the implementation found itself wrong and gave way to another.
    fn trouble() -> Option<&'static str> {
        None
    }
}

/// A key that seals trains, of whichever implementation: what is to be sealed later keeps its key alive.
pub(crate) trait TrainKey: Send + Sync {
    /// [`Aead::seal_train`].
    fn seal_train(&self, first: u64, train: &mut [u8], stride: usize, clear: usize);
}

/// A key to send under.
pub(crate) struct SendKey<A: Aead>(pub A::Key);

impl<A: Aead> TrainKey for SendKey<A> {
    fn seal_train(&self, first: u64, train: &mut [u8], stride: usize, clear: usize) {
        A::seal_train(&self.0, first, train, stride, clear);
    }
}

/// The same for trains to open.
pub(crate) trait OpenKey: Send + Sync {
    /// [`Aead::open_train`].
    fn open_train(&self, train: &mut [u8], packets: &mut [Sealed]);
}

/// A key to receive under.
pub(crate) struct ReceiveKey<A: Aead>(pub A::Key);

impl<A: Aead> OpenKey for ReceiveKey<A> {
    fn open_train(&self, train: &mut [u8], packets: &mut [Sealed]) {
        A::open_train(&self.0, train, packets);
    }
}

/// RustCrypto's implementation: portable, for WASM and wherever ring is not.
pub struct Portable;

impl Aead for Portable {
    type Key = chacha20poly1305::ChaCha20Poly1305;

    fn key(bytes: &[u8; 32]) -> Self::Key {
        use chacha20poly1305::KeyInit;
        Self::Key::new(bytes.into())
    }

    fn seal_with(key: &Self::Key, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> [u8; TAG] {
        use chacha20poly1305::AeadInPlace;
        // Fails only beyond 256 GiB, which no datagram has; an all-zero tag would merely be refused by the far end.
        key.encrypt_in_place_detached(nonce.into(), aad, data)
            .map_or([0; TAG], Into::into)
    }

    fn open_with(key: &Self::Key, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> bool {
        use chacha20poly1305::AeadInPlace;
        let Some(end) = data.len().checked_sub(TAG) else {
            return false;
        };
        let (data, tag) = data.split_at_mut(end);
        let tag: &[u8] = tag;
        key.decrypt_in_place_detached(nonce.into(), aad, data, tag.into())
            .is_ok()
    }
}

/// ring's implementation (assembly): what native builds use for single packets, and for trains where there is no [`Simd`].
#[cfg(feature = "ring")]
pub struct Ring;

#[cfg(feature = "ring")]
impl Aead for Ring {
    /// `None` can't happen (the key has the right length) and seals nothing that anyone could open.
    type Key = Option<ring::aead::LessSafeKey>;

    fn key(bytes: &[u8; 32]) -> Self::Key {
        ring::aead::UnboundKey::new(&ring::aead::CHACHA20_POLY1305, bytes)
            .ok()
            .map(ring::aead::LessSafeKey::new)
    }

    fn seal_with(key: &Self::Key, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> [u8; TAG] {
        use ring::aead::{Aad, Nonce};
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let sealed = key
            .as_ref()
            .and_then(|key| key.seal_in_place_separate_tag(nonce, Aad::from(aad), data).ok());
        let mut out = [0; TAG];
        match sealed {
            Some(tag) => out.copy_from_slice(tag.as_ref()),
            None => data.fill(0),
        }
        out
    }

    fn open_with(key: &Self::Key, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> bool {
        use ring::aead::{Aad, Nonce};
        let nonce = Nonce::assume_unique_for_key(*nonce);
        key.as_ref()
            .is_some_and(|key| key.open_in_place(nonce, Aad::from(aad), data).is_ok())
    }
}

/// Lanes of our own for trains (AVX-512 with IFMA, or AVX2, as the processor has them), ring for everything else.
#[cfg(feature = "lanes")]
pub struct Simd;

#[cfg(feature = "lanes")]
impl Simd {
    /// Chooses for the whole process: the fastest lanes that the processor has and that pass their self-test, or ring alone. Returns the name of what it
    /// is.
    pub fn choose(ring: bool) -> &'static str {
        use thicket_aead::{Choice, choose};
        choose(if ring { Choice::Single } else { Choice::Auto }).name()
    }

    /// Names of all that this processor can run, the fastest first; ring is the last.
    pub fn names() -> impl Iterator<Item = &'static str> {
        thicket_aead::Kernel::available().map(thicket_aead::Kernel::name)
    }

    /// Chooses one by its name for the whole process, for tests and benches. Returns the name of what it is then: ring, where that one fails its
    /// self-test; `None`, and nothing chosen, where there is no such.
    pub fn choose_exactly(name: &str) -> Option<&'static str> {
        use thicket_aead::{Choice, Kernel, choose};
        let kernel = Kernel::available().find(|kernel| kernel.name() == name)?;
        Some(choose(Choice::Exactly(kernel)).name())
    }
}

#[cfg(feature = "lanes")]
impl Aead for Simd {
    type Key = thicket_aead::Key;

    fn key(bytes: &[u8; 32]) -> Self::Key {
        thicket_aead::Key::new(bytes)
    }

    fn seal_with(key: &Self::Key, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> [u8; TAG] {
        key.seal(nonce, aad, data)
    }

    fn open_with(key: &Self::Key, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> bool {
        key.open(nonce, aad, data)
    }

    fn seal_train(key: &Self::Key, first: u64, train: &mut [u8], stride: usize, clear: usize) {
        thicket_aead::seal_train(key, train, stride, clear, |index| {
            nonce(first.wrapping_add(index as u64))
        });
    }

    fn open_train(key: &Self::Key, train: &mut [u8], packets: &mut [Sealed]) {
        thicket_aead::open_train(key, train, packets);
    }

    fn trouble() -> Option<&'static str> {
        thicket_aead::trouble()
    }
}

#[cfg(feature = "lanes")]
impl thicket_aead::Packet for Sealed {
    fn range(&self) -> core::ops::Range<usize> {
        self.start..self.end
    }

    fn nonce(&self) -> [u8; 12] {
        nonce(self.counter)
    }

    fn set_opened(&mut self, opened: bool) {
        self.opened = opened;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four packets, and forty: the last is shorter, the second forged.
    fn train_equals_single_packets<A: Aead>() {
        for packets in [4, 40] {
            train_of::<A>(packets);
        }
    }

    fn train_of<A: Aead>(count: usize) {
        let key = A::key(&[7; 32]);
        let mut train: Vec<u8> = (0..300 * count as u32 - 200).map(|i| i as u8).collect();
        let mut single = train.clone();
        A::seal_train(&key, 41, &mut train, 300, 20);
        for (index, packet) in single.chunks_mut(300).enumerate() {
            let end = packet.len() - TAG;
            let tag = A::seal(&key, 41 + index as u64, &[], &mut packet[20..end]);
            packet[end..].copy_from_slice(&tag);
        }
        assert_eq!(train, single);
        train[400] ^= 1;
        let mut packets: Vec<Sealed> = (0..count)
            .map(|i| Sealed {
                start: i * 300 + 20,
                end: train.len().min(i * 300 + 300),
                counter: 41 + i as u64,
                opened: false,
            })
            .collect();
        A::open_train(&key, &mut train, &mut packets);
        assert!(packets.iter().enumerate().all(|(i, p)| p.opened == (i != 1)));
        assert!((0..264).all(|i| train[620 + i] == ((620 + i) as u32) as u8));
    }

    #[test]
    fn a_train_is_sealed_as_its_packets_would_be() {
        train_equals_single_packets::<Portable>();
        #[cfg(feature = "ring")]
        train_equals_single_packets::<Ring>();
        #[cfg(feature = "lanes")]
        train_equals_single_packets::<Simd>();
    }
}
