//! A key made ready for every implementation.

use crate::single::Single;
use crate::{TAG, guard, train};
use zeroize::Zeroizing;

/// A ChaCha20-Poly1305 key.
pub struct Key {
    words: Zeroizing<[u32; 8]>,
    single: Single,
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
            single: Single::new(bytes),
        }
    }

    /// Seals `data` in place and returns the tag.
    pub fn seal(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> [u8; TAG] {
        // Only WebAssembly's lanes gain by a single packet.
        if cfg!(target_arch = "wasm32") {
            return train::seal_one(guard::kernel(), self, nonce, aad, data);
        }
        self.single.seal(nonce, aad, data)
    }

    /// Opens `data` (ciphertext, then tag) in place: true, and the plaintext stands in all but the last 16 bytes; or false, and `data`'s content
    /// means nothing.
    #[must_use]
    pub fn open(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> bool {
        if cfg!(target_arch = "wasm32") {
            return train::open_one(guard::kernel(), self, nonce, aad, data);
        }
        self.single.open(nonce, aad, data)
    }

    pub(crate) fn words(&self) -> &[u32; 8] {
        &self.words
    }

    pub(crate) fn single(&self) -> &Single {
        &self.single
    }
}
