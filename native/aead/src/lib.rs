//! ChaCha20-Poly1305 (RFC 8439) over trains of packets under one key, one lane per packet, with AVX-512 and IFMA or with AVX2; ring does everything
//! else, and everything where the processor has neither. In WebAssembly the lanes are blocks (`blocks`), and RustCrypto stands for ring. Whoever calls can't
//! tell the results apart.
//!
//! Why a train wins: a packet of 1,400 bytes is 22 blocks of key stream and the Poly1305 key a 23rd, so one call per packet leaves lanes idle and pays
//! for set-up and tail; one lane per packet has neither.
//!
//! This crate holds the only `unsafe` outside the addon's system calls. What fences it:
//! - implementations run where [`choose`] found their instructions, and only after a self-test against ring;
//! - one packet in many is worked again by ring and compared; the first difference makes ring do everything from then on, and [`trouble`] says so;
//! - limb bounds stand in the source, and tests reach them; every lane is tested with Wycheproof's vectors and against ring;
//! - no branch and no index depends on a secret; a test reads the compiled code for it;
//! - what a forged packet decrypts to is wiped before anyone sees it.

// Other processors have no lanes: ring does everything there, and nothing uses what lanes share; WebAssembly's use some of it.
#![cfg_attr(not(any(test, target_arch = "x86_64")), allow(dead_code, unused_variables))]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(any(test, target_arch = "wasm32"))]
mod blocks;
mod group;
mod guard;
mod kernel;
mod key;
#[cfg(target_arch = "x86_64")]
mod poly1305;
mod single;
#[cfg(test)]
mod tests;
mod train;

use core::ops::Range;
pub use guard::{Choice, choose, trouble};
pub use kernel::Kernel;
pub use key::Key;

/// Length of a tag, bytes.
pub const TAG: usize = 16;

/// One packet of a train that is to be opened.
pub trait Packet {
    /// Where in the train's buffer its ciphertext and, behind it, its tag lie.
    fn range(&self) -> Range<usize>;
    /// Its nonce.
    fn nonce(&self) -> [u8; 12];
    /// Told whether the tag held: then the plaintext stands in all but the last 16 bytes; else the bytes mean nothing.
    fn set_opened(&mut self, opened: bool);
}

/// Seals a train in place: packets of `stride` bytes (the last may be shorter), each `clear` bytes that stay as they are, then plaintext, then room for
/// the tag. `nonce` gives each packet's, by its number in the train.
pub fn seal_train(key: &Key, train: &mut [u8], stride: usize, clear: usize, nonce: impl Fn(usize) -> [u8; 12]) {
    train::seal(guard::kernel(), guard::to_compare, key, train, stride, clear, nonce);
}

/// Opens a train in place, each packet for itself: one that is forged says nothing about its neighbours.
pub fn open_train(key: &Key, train: &mut [u8], packets: &mut [impl Packet]) {
    train::open(guard::kernel(), guard::to_compare, key, train, packets);
}
