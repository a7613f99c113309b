//! The WASM shell over `thicket-core`.

use wasm_bindgen::prelude::wasm_bindgen;

/// The crate's version; the loader refuses another than the program's.
#[wasm_bindgen]
#[must_use]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
