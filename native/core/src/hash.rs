//! Hashing for tables: by identity where keys are random already, by keyed SipHash where a stranger picks them.

use core::hash::{BuildHasher, Hasher};
use siphasher::sip::SipHasher13;
use std::collections::HashMap;

/// A table whose keys are random or handed out by ourselves (labels, handles, link indexes).
pub type IdMap<K, V> = HashMap<K, V, IdentityState>;
/// A table whose keys strangers influence (addresses, ports).
pub type KeyedMap<K, V> = HashMap<K, V, KeyedState>;

/// Builds [`IdentityHasher`]s.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdentityState;

/// Spreads a number's bits by one multiplication.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdentityHasher(u64);

impl BuildHasher for IdentityState {
    type Hasher = IdentityHasher;
    fn build_hasher(&self) -> IdentityHasher {
        IdentityHasher::default()
    }
}

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Builds SipHash-1-3 hashers with this node's secret, so that nobody can aim at one bucket.
#[derive(Clone, Copy)]
pub struct KeyedState {
    keys: (u64, u64),
}

impl KeyedState {
    /// With 16 secret random bytes.
    pub fn new(secret: [u8; 16]) -> Self {
        let value = u128::from_le_bytes(secret);
        Self {
            keys: (value as u64, (value >> 64) as u64),
        }
    }
}

impl BuildHasher for KeyedState {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.keys.0, self.keys.1)
    }
}
