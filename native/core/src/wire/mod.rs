//! Every format on the wire, with byte offsets. All integers are big-endian unless said otherwise.
//!
//! The first word of a datagram tells what it is: below 256 a message type, else a label.
//!
//! | type | message | length |
//! | --- | --- | --- |
//! | 1 | link handshake 1: type u32, sender index u32, Noise message 1,192 B, mac1 16 B, mac2 16 B | 1,232 |
//! | 2 | link handshake 2: type u32, sender index u32, receiver index u32, Noise message 1,188 B, mac1, mac2 | 1,232 |
//! | 3 | cookie: type u32, receiver index u32, nonce 24 B, XChaCha20-Poly1305 of a 16-byte cookie | 64 |
//! | 4 | link frame, below | ≥ 33 |
//!
//! ```text
//! link frame:  0 type u32 = 4 | 4 receiver's link index u32 | 8 counter u64 | 16 ciphertext … | AEAD tag 16
//!              additional data: bytes 0..8
//! data packet: 0 label u32 | 4 counter u64 (bits 63–62: key slot) | 12 hop tag 8 | 20 ciphertext … | AEAD tag 16
//!              no additional data: label and hop tag change at every hop
//! inside data: 0 kind u8 | 1 traffic class u8 (DSCP, ECN) | 2 hop limit u8 | 3 zero u8 | 4 body …
//! ```
//!
//! | kind | body |
//! | --- | --- |
//! | 1 TCP | the TCP header without its checksum (18 bytes and options), payload |
//! | 2 UDP | source port u16, destination port u16, payload |
//! | 3 echo | 0 request / 1 reply u8, zero u8, id u16, sequence u16, data |
//! | 4 error | class u8, protocol u8, MTU or reason u16, source port u16, destination port u16 of the packet that caused it |
//! | 5 part | id u16, index u8, count u8 (2–4), a slice of a whole inner packet, kind included |
//! | 6 control | bytes for the control logic |
//! | 7 size | 0 probe / 1 answer / 2 report u8, zero u8, id u16, length u16; a probe is padded with zeroes |
//!
//! A size message's length is that of a datagram: a probe's own; the probe's that is answered, with its id; of the longest that came (id 0). A
//! part's slice is at most [`PART_SLICE`] bytes; only UDP datagrams and echoes go in parts. The MTU in an error is that of IPv4: whoever
//! speaks IPv6 takes 20 off before sending it and adds them on receiving it.
//!
//! The AEAD nonce is four zero bytes and the counter field, little-endian; the hop tag is SipHash-2-4 over label, counter field and AEAD tag.

mod inner;
mod ip;
mod outer;

pub use inner::{ErrorClass, ErrorReport, INNER_HEADER, InnerHeader, Kind, PART_HEADER, PartHeader, Size, SizeKind};
pub use ip::{
    IpPacket, IpRepr, Transport, VNET_HEADER, VnetHeader, checksum, fold, gso, pseudo_header_sum, sum_bytes, vnet_flags,
};
pub use outer::{
    COOKIE_LEN, DATA_HEADER, DATA_OVERHEAD, DataHeader, HANDSHAKE_LEN, LINK_HEADER, LINK_OVERHEAD, MAC_LEN, Outer,
    counter_of, join_counter, slot_of,
};

/// Length of an AEAD tag, bytes.
pub const TAG: usize = 16;
/// Largest UDP payload that we send, where the path carries it: what 1,500 bytes leave below the headers of IPv4 and UDP.
pub const DATAGRAM: usize = 1_472;
/// Largest inner packet (inner header and body) in one datagram.
pub const INNER_MAX: usize = DATAGRAM - DATA_OVERHEAD;
/// Longest slice of a part, bytes.
pub const PART_SLICE: usize = INNER_MAX - PART_HEADER;
/// Parts at most.
pub const PARTS_MAX: usize = 4;
/// IP protocol numbers that we carry.
pub mod protocol {
    /// ICMP over IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP over IPv6.
    pub const ICMP6: u8 = 58;
}
