//! IP, TCP, UDP and ICMP as the TUN speaks them, and the virtio header before them.

use super::protocol;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of the virtio-net header (without num_buffers) before each packet on the TUN.
pub const VNET_HEADER: usize = 10;

/// `flags` of the virtio-net header.
pub mod vnet_flags {
    /// The checksum is only begun (pseudo-header sum): whoever sends the packet on completes it.
    pub const NEEDS_CSUM: u8 = 1;
    /// The checksum has been verified.
    pub const DATA_VALID: u8 = 2;
}

/// `gso_type` of the virtio-net header.
pub mod gso {
    /// A plain packet.
    pub const NONE: u8 = 0;
    /// TCP over IPv4, to be cut.
    pub const TCPV4: u8 = 1;
    /// TCP over IPv6, to be cut.
    pub const TCPV6: u8 = 4;
    /// UDP datagrams of equal size.
    pub const UDP_L4: u8 = 5;
    /// Bit: the first segment carries CWR.
    pub const ECN: u8 = 0x80;
}

/// The virtio-net header (struct virtio_net_hdr), host byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// [`vnet_flags`].
    pub flags: u8,
    /// [`gso`].
    pub gso_type: u8,
    /// Headers of IP and transport, bytes.
    pub header_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Where the checksum's range begins, from the IP header on.
    pub csum_start: u16,
    /// Where the checksum stands, from `csum_start` on.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Reads the ten bytes.
    pub fn parse(bytes: &[u8; VNET_HEADER]) -> Self {
        let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            header_len: half(2),
            gso_size: half(4),
            csum_start: half(6),
            csum_offset: half(8),
        }
    }

    /// The ten bytes.
    pub fn bytes(&self) -> [u8; VNET_HEADER] {
        let mut out = [0; VNET_HEADER];
        out[0] = self.flags;
        out[1] = self.gso_type;
        for (at, value) in [
            (2, self.header_len),
            (4, self.gso_size),
            (6, self.csum_start),
            (8, self.csum_offset),
        ] {
            out[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        out
    }
}

/// What stands behind the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with a header of so many bytes, options included.
    Tcp {
        /// 20 to 60.
        header: usize,
    },
    /// UDP.
    Udp,
    /// ICMP of the packet's own family.
    Icmp,
    /// A fragment of something; its offset and length have been checked to be inside 64 KiB.
    Fragment {
        /// Tells the fragments of one packet from another's.
        id: u32,
        /// In bytes.
        offset: usize,
        /// More follow.
        more: bool,
        /// Protocol of the whole.
        protocol: u8,
    },
}

/// A checked view of one IP packet: all lengths in it are inside the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// Where the transport header begins.
    pub transport_at: usize,
    /// Where the packet ends (padding behind it isn't part of it).
    pub end: usize,
    /// What it carries.
    pub transport: Transport,
    /// IPv4's "don't fragment"; always true for IPv6.
    pub dont_fragment: bool,
}

impl IpPacket {
    /// Reads headers; `None` for anything truncated, inconsistent, or of a protocol that we don't carry.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::parse4(bytes),
            6 => Self::parse6(bytes),
            _ => None,
        }
    }

    /// Protocol number of the transport.
    pub fn protocol(&self) -> u8 {
        match (self.transport, self.source) {
            (Transport::Tcp { .. }, _) => protocol::TCP,
            (Transport::Udp, _) => protocol::UDP,
            (Transport::Icmp, IpAddr::V4(_)) => protocol::ICMP,
            (Transport::Icmp, IpAddr::V6(_)) => protocol::ICMP6,
            (Transport::Fragment { protocol, .. }, _) => protocol,
        }
    }

    fn parse4(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; 20] = bytes.first_chunk()?;
        let header_len = usize::from(header[0] & 15) * 4;
        let end = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header_len < 20 || end < header_len || end > bytes.len() {
            return None;
        }
        let flags = u16::from_be_bytes([header[6], header[7]]);
        let (more, offset) = (flags & 0x2000 != 0, usize::from(flags & 0x1fff) * 8);
        let transport = if more || offset > 0 {
            let id = u32::from(u16::from_be_bytes([header[4], header[5]]));
            let protocol = header[9];
            fragment(id, offset, more, protocol, end - header_len)?
        } else {
            transport(header[9], protocol::ICMP, bytes.get(header_len..end)?)?
        };
        Some(Self {
            source: IpAddr::V4(Ipv4Addr::from(*header[12..].first_chunk::<4>()?)),
            destination: IpAddr::V4(Ipv4Addr::from(*header[16..].first_chunk::<4>()?)),
            traffic_class: header[1],
            hop_limit: header[8],
            transport_at: header_len,
            end,
            transport,
            dont_fragment: flags & 0x4000 != 0,
        })
    }

    fn parse6(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; 40] = bytes.first_chunk()?;
        let end = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
        if end > bytes.len() {
            return None;
        }
        let (mut next, mut at) = (header[6], 40);
        // Extension headers that hosts really put before a transport; anything else isn't ours to carry.
        let transport = loop {
            let rest = bytes.get(at..end)?;
            match next {
                0 | 60 => {
                    let (&following, &len) = (rest.first()?, rest.get(1)?);
                    next = following;
                    at += 8 + usize::from(len) * 8;
                }
                44 => {
                    let ext: &[u8; 8] = rest.first_chunk()?;
                    let field = u16::from_be_bytes([ext[2], ext[3]]);
                    let id = u32::from_be_bytes(*ext[4..].first_chunk()?);
                    at += 8;
                    break fragment(id, usize::from(field & 0xfff8), field & 1 != 0, ext[0], end - at)?;
                }
                _ => break transport(next, protocol::ICMP6, rest)?,
            }
        };
        Some(Self {
            source: IpAddr::V6(Ipv6Addr::from(*header[8..].first_chunk::<16>()?)),
            destination: IpAddr::V6(Ipv6Addr::from(*header[24..].first_chunk::<16>()?)),
            traffic_class: (header[0] << 4) | (header[1] >> 4),
            hop_limit: header[7],
            transport_at: at,
            end,
            transport,
            dont_fragment: true,
        })
    }
}

/// What an IP header that we write says. Both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpRepr {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// What follows.
    pub protocol: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// IPv4: `None` sets "don't fragment"; else the identification by which fragments are told from another packet's.
    pub identification: Option<u16>,
}

impl IpRepr {
    /// Writes a header for `payload` bytes of transport to the front of `out` and returns its length, 20 or 40; 0 when the families differ
    /// or `out` is too short.
    pub fn write(&self, out: &mut [u8], payload: usize) -> usize {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let Some(header) = out.first_chunk_mut::<20>() else {
                    return 0;
                };
                *header = [0; 20];
                header[0] = 0x45;
                header[1] = self.traffic_class;
                header[2..4].copy_from_slice(&((20 + payload) as u16).to_be_bytes());
                match self.identification {
                    Some(id) => header[4..6].copy_from_slice(&id.to_be_bytes()),
                    None => header[6] = 0x40,
                }
                header[8] = self.hop_limit;
                header[9] = self.protocol;
                header[12..16].copy_from_slice(&source.octets());
                header[16..].copy_from_slice(&destination.octets());
                let sum = checksum(sum_bytes(0, header));
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                20
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let Some(header) = out.first_chunk_mut::<40>() else {
                    return 0;
                };
                *header = [0; 40];
                header[0] = 0x60 | (self.traffic_class >> 4);
                header[1] = self.traffic_class << 4;
                header[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
                header[6] = self.protocol;
                header[7] = self.hop_limit;
                header[8..24].copy_from_slice(&source.octets());
                header[24..].copy_from_slice(&destination.octets());
                40
            }
            _ => 0,
        }
    }
}

fn transport(number: u8, icmp: u8, bytes: &[u8]) -> Option<Transport> {
    match number {
        protocol::TCP => {
            let header = usize::from(*bytes.get(12)? >> 4) * 4;
            ((20..=60).contains(&header) && header <= bytes.len()).then_some(Transport::Tcp { header })
        }
        protocol::UDP => {
            let length = usize::from(u16::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?]));
            // A super-packet of UDP carries one header whose length field covers all of it or is that of one datagram.
            (bytes.len() >= 8 && (8..=bytes.len()).contains(&length)).then_some(Transport::Udp)
        }
        number if number == icmp => (bytes.len() >= 8).then_some(Transport::Icmp),
        _ => None,
    }
}

fn fragment(id: u32, offset: usize, more: bool, protocol: u8, len: usize) -> Option<Transport> {
    let legal = offset + len <= 65_535 && len > 0 && (!more || len.is_multiple_of(8));
    legal.then_some(Transport::Fragment {
        id,
        offset,
        more,
        protocol,
    })
}

/// Adds 16-bit big-endian words to a running one's-complement sum (RFC 1071); an odd last byte is padded with zero.
pub fn sum_bytes(mut sum: u64, bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = word.first_chunk::<8>().map_or(0, |w| u64::from_be_bytes(*w));
        // Four 16-bit words at once: carries between lanes are folded at the end because 2^16 ≡ 1 (mod 2^16 − 1).
        sum += (word >> 32) + (word & 0xffff_ffff);
    }
    let mut halves = words.remainder().chunks_exact(2);
    for half in &mut halves {
        sum += u64::from(u16::from_be_bytes([half[0], half[1]]));
    }
    if let [last] = halves.remainder() {
        sum += u64::from(*last) << 8;
    }
    sum
}

/// Folds a running sum to 16 bits.
pub fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum field for a running sum.
pub fn checksum(sum: u64) -> u16 {
    !fold(sum)
}

/// Running sum of the pseudo-header (RFC 9293, RFC 8200).
pub fn pseudo_header_sum(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u64 {
    let sum = match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => sum_bytes(sum_bytes(0, &s.octets()), &d.octets()),
        (IpAddr::V6(s), IpAddr::V6(d)) => sum_bytes(sum_bytes(0, &s.octets()), &d.octets()),
        _ => 0,
    };
    sum + u64::from(protocol) + length as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_with_its_checksum_sums_to_zero() {
        let mut out = [0; 20];
        let repr = IpRepr {
            source: [198, 18, 0, 1].into(),
            destination: [198, 18, 0, 9].into(),
            protocol: 17,
            traffic_class: 0xb8,
            hop_limit: 64,
            identification: Some(7),
        };
        let len = repr.write(&mut out, 100);
        assert_eq!(len, 20);
        assert_eq!(checksum(sum_bytes(0, &out)), 0);
    }

    proptest! {
        #[test]
        fn a_written_header_reads_back(
            v6: bool, source: [u8; 16], destination: [u8; 16], traffic_class: u8, hop_limit: u8, identification: Option<u16>, payload in 8usize..1400,
        ) {
            let address = |bytes: [u8; 16]| -> IpAddr {
                if v6 { bytes.into() } else { [bytes[0], bytes[1], bytes[2], bytes[3]].into() }
            };
            let (source, destination) = (address(source), address(destination));
            let repr = IpRepr { source, destination, protocol: 17, traffic_class, hop_limit, identification };
            let mut packet = vec![0; 40 + payload];
            let at = repr.write(&mut packet, payload);
            packet.truncate(at + payload);
            packet[at + 4..at + 6].copy_from_slice(&(payload as u16).to_be_bytes());
            let read = IpPacket::parse(&packet).unwrap();
            prop_assert_eq!((read.source, read.destination, read.traffic_class, read.hop_limit), (source, destination, traffic_class, hop_limit));
            prop_assert_eq!((read.transport_at, read.end, read.transport), (at, packet.len(), Transport::Udp));
            prop_assert_eq!(read.dont_fragment, v6 || identification.is_none());
        }

        #[test]
        fn any_bytes_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), first in prop::sample::select(vec![0x45u8, 0x46, 0x60, 0x65])) {
            let _ = IpPacket::parse(&bytes);
            let mut bytes = bytes;
            if let Some(b) = bytes.first_mut() { *b = first; }
            if let Some(packet) = IpPacket::parse(&bytes) {
                prop_assert!(packet.transport_at <= packet.end && packet.end <= bytes.len());
            }
        }

        #[test]
        fn sums_do_not_depend_on_how_bytes_are_grouped(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let simple: u64 = bytes.chunks(2).map(|p| u64::from(u16::from_be_bytes([p[0], *p.get(1).unwrap_or(&0)]))).sum();
            prop_assert_eq!(fold(sum_bytes(0, &bytes)), fold(simple));
        }
    }
}
