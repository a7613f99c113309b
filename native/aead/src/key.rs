//! A key made ready for every implementation.

use crate::TAG;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// A ChaCha20-Poly1305 key. Packets one by one are ring's work.
pub struct Key {
    words: Zeroizing<[u32; 8]>,
    /// `None` can't happen (the key has the right length), and seals nothing that anyone could open.
    ring: Option<LessSafeKey>,
}

impl Key {
    /// Makes a key ready.
    pub fn new(bytes: &[u8; 32]) -> Self {
        let mut words = Zeroizing::new([0; 8]);
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self {
            words,
            ring: UnboundKey::new(&CHACHA20_POLY1305, bytes).ok().map(LessSafeKey::new),
        }
    }

    /// Seals `data` in place and returns the tag.
    pub fn seal(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> [u8; TAG] {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let sealed = self
            .ring
            .as_ref()
            .and_then(|key| key.seal_in_place_separate_tag(nonce, Aad::from(aad), data).ok());
        let mut out = [0; TAG];
        match sealed {
            Some(tag) => out.copy_from_slice(tag.as_ref()),
            None => data.fill(0),
        }
        out
    }

    /// Opens `data` (ciphertext, then tag) in place: true, and the plaintext stands in all but the last 16 bytes; or false, and `data`'s content
    /// means nothing.
    #[must_use]
    pub fn open(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> bool {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.ring
            .as_ref()
            .is_some_and(|key| key.open_in_place(nonce, Aad::from(aad), data).is_ok())
    }

    pub(crate) fn words(&self) -> &[u32; 8] {
        &self.words
    }
}
