//! What the workers seal with, for test vectors and benches: nothing in Thicket uses it, and no key ever comes out of it.

use crate::aead::{self, Sealer};
use crate::convert::key;
use napi::bindgen_prelude::{BigInt, Either, Uint8ArraySlice};
use napi::{Env, Error, Result, Status};
use napi_derive::napi;
use thicket_core::aead::{Aead, Sealed};
use thicket_core::wire::{DATA_HEADER, TAG};

/// Names of what this processor can seal with, the fastest first; `ring` is always the last.
#[napi(catch_unwind)]
pub fn aead_kernels() -> Vec<String> {
    aead::names().map(str::to_owned).collect()
}

/// Has one of them seal in this whole process, data planes in it included; `auto`: the fastest. Returns the name of what it is then: `ring` where the one
/// that was wanted fails its self-test.
#[napi(catch_unwind)]
pub fn choose_aead(name: String) -> Result<String> {
    aead::choose_named(&name)
        .map(str::to_owned)
        .ok_or_else(|| invalid(&format!("AEAD {name}: this processor has no such, see aeadKernels()")))
}

/// A ChaCha20-Poly1305 key made ready.
#[napi]
pub struct AeadKey {
    key: <Sealer as Aead>::Key,
    /// Of the train that is opened; as in a worker, only its room outlives the call.
    packets: Vec<Sealed>,
}

#[napi]
impl AeadKey {
    /// From 32 bytes.
    #[napi(constructor, catch_unwind)]
    pub fn new(bytes: Uint8ArraySlice<'_>) -> Result<Self> {
        Ok(Self {
            key: Sealer::key(&key(&bytes)?),
            packets: Vec::new(),
        })
    }

    /// Ciphertext and tag of one packet, under a nonce of 12 bytes.
    #[napi(catch_unwind)]
    pub fn seal<'env>(
        &self,
        env: &'env Env,
        nonce: Uint8ArraySlice<'_>,
        aad: Uint8ArraySlice<'_>,
        plaintext: Uint8ArraySlice<'_>,
    ) -> Result<Uint8ArraySlice<'env>> {
        let nonce = nonce_of(&nonce)?;
        let mut sealed = Vec::with_capacity(plaintext.len() + TAG);
        sealed.extend_from_slice(&plaintext);
        let tag = Sealer::seal_with(&self.key, &nonce, &aad, &mut sealed);
        sealed.extend_from_slice(&tag);
        Uint8ArraySlice::copy_from(env, sealed)
    }

    /// The plaintext of one packet; `undefined` when the tag doesn't hold.
    #[napi(catch_unwind)]
    pub fn open<'env>(
        &self,
        env: &'env Env,
        nonce: Uint8ArraySlice<'_>,
        aad: Uint8ArraySlice<'_>,
        sealed: Uint8ArraySlice<'_>,
    ) -> Result<Either<Uint8ArraySlice<'env>, ()>> {
        let nonce = nonce_of(&nonce)?;
        let mut data = sealed.to_vec();
        if !Sealer::open_with(&self.key, &nonce, &aad, &mut data) {
            return Ok(Either::B(()));
        }
        data.truncate(data.len() - TAG);
        Uint8ArraySlice::copy_from(env, data).map(Either::A)
    }

    /// Seals a train of data packets in place as the workers do: `stride` bytes each (the last may be shorter), the clear header (20 bytes), plaintext, room
    /// for the tag (16 bytes); nonces are the workers', counters rise by one from `first`.
    #[napi(catch_unwind)]
    pub fn seal_train(&self, first: BigInt, mut train: Uint8ArraySlice<'_>, stride: u32) -> Result<()> {
        let (first, stride) = (counter(&first)?, length(stride)?);
        // SAFETY: JavaScript stands still during this call, and workers know nothing of its buffers; the caller shares them with no thread of its own.
        let train = unsafe { train.as_mut() };
        Sealer::seal_train(&self.key, first, train, stride, DATA_HEADER);
        Ok(())
    }

    /// Opens such a train in place; how many of its packets held.
    #[napi(catch_unwind)]
    pub fn open_train(&mut self, first: BigInt, mut train: Uint8ArraySlice<'_>, stride: u32) -> Result<u32> {
        let (first, stride) = (counter(&first)?, length(stride)?);
        // SAFETY: as in `seal_train`.
        let train = unsafe { train.as_mut() };
        let len = train.len();
        self.packets.clear();
        self.packets
            .extend((0..len).step_by(stride).zip(first..).map(|(at, counter)| Sealed {
                start: at + DATA_HEADER,
                end: len.min(at + stride),
                counter,
                opened: false,
            }));
        Sealer::open_train(&self.key, train, &mut self.packets);
        Ok(self.packets.iter().filter(|packet| packet.opened).count() as u32)
    }
}

fn nonce_of(bytes: &[u8]) -> Result<[u8; 12]> {
    bytes.try_into().map_err(|_| invalid("nonce: 12 bytes are wanted"))
}

fn counter(number: &BigInt) -> Result<u64> {
    match number.get_u64() {
        (_, value, true) => Ok(value),
        _ => Err(invalid("counter: 0 to 2^64 - 1 is wanted")),
    }
}

fn length(stride: u32) -> Result<usize> {
    match stride {
        0 => Err(invalid("stride: 1 byte or more is wanted")),
        bytes => Ok(bytes as usize),
    }
}

fn invalid(message: &str) -> Error {
    Error::new(Status::InvalidArg, message)
}
