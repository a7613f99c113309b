//! ChaCha20-Poly1305 as the core seals with it: `simd128` where this module is built with it, else one block after another.

use crate::convert::{invalid, key};
use thicket_core::aead::{Aead, Sealed};
use thicket_core::wire::{DATA_HEADER, TAG};
use wasm_bindgen::prelude::{JsError, JsValue, wasm_bindgen};
use zeroize::Zeroizing;

pub(crate) use thicket_core::aead::Simd as Sealer;

/// Names of what this module can seal with, the fastest first; `RustCrypto`, by which the others are checked, is always the last.
#[wasm_bindgen(js_name = aeadKernels)]
#[must_use]
pub fn aead_kernels() -> Vec<String> {
    Sealer::names().map(str::to_owned).collect()
}

/// Has one of them seal in this whole module, data planes in it included; `auto`: the fastest. Returns the name of what it is then: `RustCrypto` where the
/// one that was wanted fails its self-test.
#[wasm_bindgen(js_name = chooseAead)]
pub fn choose_aead(name: &str) -> Result<String, JsError> {
    let chosen = match name {
        "auto" => Some(Sealer::choose(false)),
        name => Sealer::choose_exactly(name),
    };
    chosen
        .map(str::to_owned)
        .ok_or_else(|| invalid(&format!("AEAD {name}: this module has no such, see aeadKernels()")))
}

/// A key made ready.
#[wasm_bindgen]
pub struct AeadKey {
    key: <Sealer as Aead>::Key,
    /// Of the train that is opened; only its room outlives the call.
    packets: Vec<Sealed>,
}

#[wasm_bindgen]
impl AeadKey {
    /// From 32 bytes.
    #[wasm_bindgen(constructor)]
    pub fn new(bytes: &[u8]) -> Result<AeadKey, JsError> {
        Ok(Self {
            key: Sealer::key(&Zeroizing::new(key(bytes)?)),
            packets: Vec::new(),
        })
    }

    /// Ciphertext and tag, under a nonce of 12 bytes.
    pub fn seal(&self, nonce: &[u8], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, JsError> {
        let nonce = nonce_of(nonce)?;
        let mut sealed = Vec::with_capacity(plaintext.len() + TAG);
        sealed.extend_from_slice(plaintext);
        let tag = Sealer::seal_with(&self.key, nonce, aad, &mut sealed);
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// The plaintext; `undefined` when the tag doesn't hold.
    pub fn open(&self, nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Option<Vec<u8>>, JsError> {
        let nonce = nonce_of(nonce)?;
        let mut data = sealed.to_vec();
        if !Sealer::open_with(&self.key, nonce, aad, &mut data) {
            return Ok(None);
        }
        data.truncate(data.len() - TAG);
        Ok(Some(data))
    }

    /// Seals a train of data packets in place as the core does: `stride` bytes each (the last may be shorter), the clear header, plaintext, room for the tag;
    /// counter fields rise by one from `first`. The train is copied in and out: see [`Train`].
    #[wasm_bindgen(js_name = sealTrain)]
    pub fn seal_train(&self, first: u64, train: &mut [u8], stride: usize) {
        if stride > 0 {
            Sealer::seal_train(&self.key, first, train, stride, DATA_HEADER);
        }
    }

    /// Opens such a train in place; how many of its packets held.
    #[wasm_bindgen(js_name = openTrain)]
    pub fn open_train(&mut self, first: u64, train: &mut [u8], stride: usize) -> usize {
        let len = train.len();
        self.packets.clear();
        let packets = (0u64..).zip((0..len).step_by(stride.max(1)));
        self.packets.extend(packets.map(|(n, at)| Sealed {
            start: at + DATA_HEADER,
            end: len.min(at + stride),
            counter: first.wrapping_add(n),
            opened: false,
        }));
        Sealer::open_train(&self.key, train, &mut self.packets);
        self.packets.iter().filter(|packet| packet.opened).count()
    }
}

/// A train that lies in the module's own memory, where the core's do: nothing is copied.
#[wasm_bindgen]
pub struct Train(Vec<u8>);

#[wasm_bindgen]
impl Train {
    /// Of so many bytes, all zero.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self(vec![0; len])
    }

    /// Its first byte's place in [`Train::memory`].
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn at(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// The `WebAssembly.Memory` that it lies in. A view of its buffer holds until the memory grows.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn memory(&self) -> JsValue {
        wasm_bindgen::memory()
    }

    /// [`AeadKey::seal_train`].
    pub fn seal(&mut self, key: &AeadKey, first: u64, stride: usize) {
        key.seal_train(first, &mut self.0, stride);
    }

    /// [`AeadKey::open_train`].
    pub fn open(&mut self, key: &mut AeadKey, first: u64, stride: usize) -> usize {
        key.open_train(first, &mut self.0, stride)
    }
}

fn nonce_of(bytes: &[u8]) -> Result<&[u8; 12], JsError> {
    bytes.try_into().map_err(|_| invalid("nonce: 12 bytes are wanted"))
}
