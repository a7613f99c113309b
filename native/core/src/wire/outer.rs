//! Outer formats: what a datagram is before anything is opened.

use super::TAG;

/// Link handshake messages, both, bytes.
pub const HANDSHAKE_LEN: usize = 1_232;
/// Cookie replies, bytes.
pub const COOKIE_LEN: usize = 64;
/// mac1 and mac2, each, bytes.
pub const MAC_LEN: usize = 16;
/// Before a link frame's ciphertext.
pub const LINK_HEADER: usize = 16;
/// Bytes that a link frame adds to its plaintext.
pub const LINK_OVERHEAD: usize = LINK_HEADER + TAG;
/// Before a data packet's ciphertext.
pub const DATA_HEADER: usize = 20;
/// Bytes that a data packet adds to its plaintext.
pub const DATA_OVERHEAD: usize = DATA_HEADER + TAG;

const COUNTER_BITS: u32 = 62;

/// The low 62 bits of a counter field.
pub const fn counter_of(field: u64) -> u64 {
    field & ((1 << COUNTER_BITS) - 1)
}

/// The key slot, 0–3, in a counter field's two top bits.
pub const fn slot_of(field: u64) -> usize {
    (field >> COUNTER_BITS) as usize
}

/// A counter field from slot and counter.
pub const fn join_counter(slot: usize, counter: u64) -> u64 {
    ((slot as u64) << COUNTER_BITS) | counter_of(counter)
}

/// A data packet's clear header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// Names the entry at the node that receives it.
    pub label: u32,
    /// Slot and counter, as sent.
    pub counter: u64,
    /// SipHash-2-4 under the hop key.
    pub hop_tag: [u8; 8],
}

impl DataHeader {
    /// Writes the first 20 bytes.
    pub fn write(&self, out: &mut [u8]) {
        if let Some(out) = out.first_chunk_mut::<DATA_HEADER>() {
            out[..4].copy_from_slice(&self.label.to_be_bytes());
            out[4..12].copy_from_slice(&self.counter.to_be_bytes());
            out[12..].copy_from_slice(&self.hop_tag);
        }
    }
}

/// What a datagram is, by its first word and its length. Anything else is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// Message 1 of a link handshake.
    Initiation,
    /// Message 2 of a link handshake.
    Response,
    /// A cookie for message 1.
    Cookie,
    /// A sealed control frame of a link.
    LinkFrame {
        /// Chosen by the receiver.
        index: u32,
        /// Of the sender's link keys.
        counter: u64,
    },
    /// A sealed packet of a session.
    Data(DataHeader),
}

impl Outer {
    /// Tells by first word and exact length; `None` for anything else.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let word = u32::from_be_bytes(*datagram.first_chunk()?);
        match word {
            1 if datagram.len() == HANDSHAKE_LEN => Some(Self::Initiation),
            2 if datagram.len() == HANDSHAKE_LEN => Some(Self::Response),
            3 if datagram.len() == COOKIE_LEN => Some(Self::Cookie),
            4 if datagram.len() > LINK_OVERHEAD => {
                let header: &[u8; LINK_HEADER] = datagram.first_chunk()?;
                Some(Self::LinkFrame {
                    index: be32(header, 4),
                    counter: be64(header, 8),
                })
            }
            0..=255 => None,
            label if datagram.len() > DATA_OVERHEAD => {
                let header: &[u8; DATA_HEADER] = datagram.first_chunk()?;
                let mut hop_tag = [0; 8];
                hop_tag.copy_from_slice(&header[12..]);
                Some(Self::Data(DataHeader {
                    label,
                    counter: be64(header, 4),
                    hop_tag,
                }))
            }
            _ => None,
        }
    }
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u32::from_be_bytes(*b))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u64::from_be_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_data_header_reads_back(label in 256u32.., counter: u64, hop_tag: [u8; 8], body in 17usize..100) {
            let header = DataHeader { label, counter, hop_tag };
            let mut datagram = vec![0; DATA_HEADER + body];
            header.write(&mut datagram);
            prop_assert_eq!(Outer::parse(&datagram), Some(Outer::Data(header)));
            prop_assert_eq!(join_counter(slot_of(counter), counter_of(counter)), counter);
        }

        #[test]
        fn any_bytes_parse_or_are_refused(datagram in prop::collection::vec(any::<u8>(), 0..1600), word in 0u32..300) {
            let _ = Outer::parse(&datagram);
            let mut datagram = datagram;
            if let Some(first) = datagram.first_chunk_mut::<4>() { *first = word.to_be_bytes(); }
            let _ = Outer::parse(&datagram);
        }
    }
}
