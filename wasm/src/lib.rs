//! The WASM shell over `thicket-core`: JavaScript lends datagrams, packets and the time, and takes what the core made of them. Like the N-API
//! addon it adds no protocol of its own.

mod aead;
mod bare;
mod convert;
mod crypto;
mod plane;

use wasm_bindgen::prelude::wasm_bindgen;

/// The crate's version; the loader refuses another than the program's.
#[wasm_bindgen]
#[must_use]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
