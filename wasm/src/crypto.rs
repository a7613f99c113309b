//! The core's primitives one by one, the AEAD aside: for test vectors, for benchmarks, and for crafting packets that no well-behaved node would send.

use crate::aead::Sealer;
use crate::convert::{invalid, key};
use thicket_core::aead::Aead;
use thicket_core::keyed::{Direction, HopKey, blake2b_128_keyed, blake2b_256};
use thicket_core::wire::{DATA_HEADER, DATA_OVERHEAD, DataHeader, LINK_HEADER, LINK_OVERHEAD, join_counter};
use wasm_bindgen::prelude::{JsError, wasm_bindgen};
use zeroize::Zeroizing;

/// The counter field of a data packet: the key's slot (0–3) in its two top bits.
#[wasm_bindgen(js_name = counterField)]
#[must_use]
pub fn counter_field(slot: u8, counter: u64) -> u64 {
    join_counter(usize::from(slot & 3), counter)
}

/// What packets of one label are tagged with on one hop.
#[wasm_bindgen(js_name = HopKey)]
pub struct JsHopKey(HopKey);

#[wasm_bindgen(js_class = HopKey)]
impl JsHopKey {
    /// From its 16 bytes.
    #[wasm_bindgen(constructor)]
    pub fn new(bytes: &[u8]) -> Result<JsHopKey, JsError> {
        let bytes = bytes.try_into().map_err(|_| invalid("hop key: 16 bytes are wanted"))?;
        Ok(Self(HopKey::from_bytes(bytes)))
    }

    /// For packets with `label` on the link with this hop secret, from the link's initiator or towards it.
    pub fn derive(hop_secret: &[u8], label: u32, from_initiator: bool) -> Result<JsHopKey, JsError> {
        let direction = if from_initiator {
            Direction::FromInitiator
        } else {
            Direction::FromResponder
        };
        let secret = Zeroizing::new(key(hop_secret)?);
        Ok(Self(HopKey::derive(&secret, label, direction)))
    }

    /// SipHash-2-4 over label, counter field and AEAD tag (16 bytes).
    pub fn tag(&self, label: u32, field: u64, aead_tag: &[u8]) -> Result<Vec<u8>, JsError> {
        let tag = aead_tag
            .try_into()
            .map_err(|_| invalid("AEAD tag: 16 bytes are wanted"))?;
        Ok(self.0.tag(label, field, tag).to_vec())
    }
}

/// A whole data packet: `inner` (inner header and body, whatever they hold) sealed under `send_key`, label, counter field and hop tag before it.
#[wasm_bindgen(js_name = dataPacket)]
pub fn data_packet(send_key: &[u8], field: u64, label: u32, hop: &JsHopKey, inner: &[u8]) -> Result<Vec<u8>, JsError> {
    let mut packet = vec![0; DATA_HEADER];
    packet.reserve(DATA_OVERHEAD + inner.len());
    let mut sealed = inner.to_vec();
    let tag = Sealer::seal(&Sealer::key(&key(send_key)?), field, &[], &mut sealed);
    DataHeader {
        label,
        counter: field,
        hop_tag: hop.0.tag(label, field, &tag),
    }
    .write(&mut packet);
    packet.extend_from_slice(&sealed);
    packet.extend_from_slice(&tag);
    Ok(packet)
}

/// A whole link frame for the receiver's `index`.
#[wasm_bindgen(js_name = linkFrame)]
pub fn link_frame(send_key: &[u8], counter: u64, index: u32, frame: &[u8]) -> Result<Vec<u8>, JsError> {
    let mut packet = Vec::with_capacity(LINK_OVERHEAD + frame.len());
    packet.extend_from_slice(&4u32.to_be_bytes());
    packet.extend_from_slice(&index.to_be_bytes());
    packet.extend_from_slice(&counter.to_be_bytes());
    packet.extend_from_slice(frame);
    let (header, data) = packet.split_at_mut(LINK_HEADER);
    let tag = Sealer::seal(
        &Sealer::key(&key(send_key)?),
        counter,
        header.get(..8).unwrap_or(&[]),
        data,
    );
    packet.extend_from_slice(&tag);
    Ok(packet)
}

/// BLAKE2b with 32 bytes of output, unkeyed.
#[wasm_bindgen(js_name = blake2b256)]
#[must_use]
pub fn blake2b256(bytes: &[u8]) -> Vec<u8> {
    blake2b_256(&[bytes]).to_vec()
}

/// BLAKE2b with 16 bytes of output, keyed by 1 to 64 bytes.
#[wasm_bindgen(js_name = blake2b128)]
pub fn blake2b128(key: &[u8], bytes: &[u8]) -> Result<Vec<u8>, JsError> {
    if key.is_empty() || key.len() > 64 {
        return Err(invalid("key: 1 to 64 bytes are wanted"));
    }
    Ok(blake2b_128_keyed(key, &[bytes]).to_vec())
}
