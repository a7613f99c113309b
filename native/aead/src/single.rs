//! Packets one by one, by an implementation of others: what every lane is held against. ring, or in WebAssembly RustCrypto's.

use crate::TAG;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use with_ring::Single;
#[cfg(target_arch = "wasm32")]
pub(crate) use with_rust_crypto::Single;

#[cfg(not(target_arch = "wasm32"))]
mod with_ring {
    use super::TAG;
    use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

    /// A key made ready. `None` can't happen (the key has the right length), and seals nothing that anyone could open.
    pub(crate) struct Single(Option<LessSafeKey>);

    impl Single {
        pub(crate) const NAME: &str = "ring";

        pub(crate) fn new(bytes: &[u8; 32]) -> Self {
            Self(UnboundKey::new(&CHACHA20_POLY1305, bytes).ok().map(LessSafeKey::new))
        }

        pub(crate) fn seal(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> [u8; TAG] {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let sealed = self
                .0
                .as_ref()
                .and_then(|key| key.seal_in_place_separate_tag(nonce, Aad::from(aad), data).ok());
            let mut out = [0; TAG];
            match sealed {
                Some(tag) => out.copy_from_slice(tag.as_ref()),
                None => data.fill(0),
            }
            out
        }

        pub(crate) fn open(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> bool {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            self.0
                .as_ref()
                .is_some_and(|key| key.open_in_place(nonce, Aad::from(aad), data).is_ok())
        }
    }
}

#[cfg(target_arch = "wasm32")]
mod with_rust_crypto {
    use super::TAG;
    use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit};

    /// A key made ready.
    pub(crate) struct Single(ChaCha20Poly1305);

    impl Single {
        pub(crate) const NAME: &str = "RustCrypto";

        pub(crate) fn new(bytes: &[u8; 32]) -> Self {
            Self(ChaCha20Poly1305::new(bytes.into()))
        }

        pub(crate) fn seal(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> [u8; TAG] {
            // Fails only beyond 256 GiB, which no datagram has; an all-zero tag would merely be refused by the far end.
            self.0
                .encrypt_in_place_detached(nonce.into(), aad, data)
                .map_or([0; TAG], Into::into)
        }

        pub(crate) fn open(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> bool {
            let Some((data, tag)) = data.split_last_chunk_mut::<TAG>() else {
                return false;
            };
            let tag: &[u8; TAG] = tag;
            self.0
                .decrypt_in_place_detached(nonce.into(), aad, data, tag.into())
                .is_ok()
        }
    }
}
