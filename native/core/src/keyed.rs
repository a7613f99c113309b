//! Keyed hashes: hop keys, hop tags, mac1, cookies.

use blake2::digest::{Digest, FixedOutput, KeyInit, Update, consts::U16, consts::U32};
use blake2::{Blake2b, Blake2bMac};
use core::hash::Hasher;
use siphasher::sip::SipHasher24;
use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

/// Direction of packets on a link: from the node that shook hands first, or towards it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the link's initiator (the child) to its responder.
    FromInitiator,
    /// From the link's responder (the parent) to its initiator.
    FromResponder,
}

/// BLAKE2b with 32 bytes of output over several pieces, unkeyed.
pub fn blake2b_256(pieces: &[&[u8]]) -> [u8; 32] {
    let mut hash = Blake2b::<U32>::new();
    for piece in pieces {
        Digest::update(&mut hash, piece);
    }
    hash.finalize().into()
}

/// BLAKE2b with 16 bytes of output, keyed by 1 to 64 bytes.
pub fn blake2b_128_keyed(key: &[u8], pieces: &[&[u8]]) -> [u8; 16] {
    // A key longer than 64 bytes is refused by the type; callers have 16 or 32.
    let Ok(mut mac) = <Blake2bMac<U16> as KeyInit>::new_from_slice(key) else {
        return [0; 16];
    };
    for piece in pieces {
        Update::update(&mut mac, piece);
    }
    mac.finalize_fixed().into()
}

/// What one hop's packets of one label are tagged with. Dies with the label.
#[derive(Clone, ZeroizeOnDrop)]
pub struct HopKey([u8; 16]);

impl HopKey {
    /// Derived from the secret of the link keys under which the label was announced.
    pub fn derive(hop_secret: &[u8; 32], label: u32, direction: Direction) -> Self {
        let direction = [match direction {
            Direction::FromInitiator => 0,
            Direction::FromResponder => 1,
        }];
        Self(blake2b_128_keyed(
            hop_secret,
            &[b"thicket hop", &label.to_be_bytes(), &direction],
        ))
    }

    /// From its 16 bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// SipHash-2-4 over label, counter field and AEAD tag.
    pub fn tag(&self, label: u32, counter: u64, aead_tag: &[u8; 16]) -> [u8; 8] {
        let mut sip = SipHasher24::new_with_key(&self.0);
        let mut input = [0; 28];
        input[..4].copy_from_slice(&label.to_be_bytes());
        input[4..12].copy_from_slice(&counter.to_be_bytes());
        input[12..].copy_from_slice(aead_tag);
        sip.write(&input);
        sip.finish().to_le_bytes()
    }

    /// Constant-time comparison with the tag that came.
    pub fn verify(&self, label: u32, counter: u64, aead_tag: &[u8; 16], tag: &[u8]) -> bool {
        self.tag(label, counter, aead_tag).ct_eq(tag).into()
    }
}

/// Key of mac1 in messages to the node with this public key. No secret: mac1 keeps noise out, nothing more.
pub fn mac1_key(node_key: &[u8; 32]) -> [u8; 32] {
    blake2b_256(&[b"thicket mac1", node_key])
}

/// Key under which a node seals the cookies that it hands out.
pub fn cookie_key(node_key: &[u8; 32]) -> [u8; 32] {
    blake2b_256(&[b"thicket cookie", node_key])
}

/// Whether two equally long byte strings are the same, in constant time.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}
