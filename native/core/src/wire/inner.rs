//! Inner formats: what stands under the seal of a data packet.

/// Kind, traffic class, hop limit, zero.
pub const INNER_HEADER: usize = 4;
/// Inner header, id, index, count.
pub const PART_HEADER: usize = INNER_HEADER + 4;

/// What an inner packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A TCP segment.
    Tcp = 1,
    /// A UDP datagram.
    Udp = 2,
    /// An echo request or reply.
    Echo = 3,
    /// A report about a packet that went the other way.
    Error = 4,
    /// A slice of an inner packet that was too long for one datagram.
    Part = 5,
    /// Bytes for the control logic.
    Control = 6,
    /// About the path's size.
    Size = 7,
}

/// The first four bytes of every inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerHeader {
    /// What follows.
    pub kind: Kind,
    /// DSCP and ECN, as in the IP header.
    pub traffic_class: u8,
    /// IPv4's time to live, IPv6's hop limit.
    pub hop_limit: u8,
}

impl InnerHeader {
    /// Reads header and body; `None` for an unknown kind, a non-zero fourth byte, or too little.
    pub fn parse(inner: &[u8]) -> Option<(Self, &[u8])> {
        let (&[kind, traffic_class, hop_limit, zero], body) = inner.split_first_chunk()?;
        let kind = match kind {
            1 => Kind::Tcp,
            2 => Kind::Udp,
            3 => Kind::Echo,
            4 => Kind::Error,
            5 => Kind::Part,
            6 => Kind::Control,
            7 => Kind::Size,
            _ => return None,
        };
        (zero == 0).then_some((
            Self {
                kind,
                traffic_class,
                hop_limit,
            },
            body,
        ))
    }

    /// The four bytes.
    pub fn bytes(&self) -> [u8; INNER_HEADER] {
        [self.kind as u8, self.traffic_class, self.hop_limit, 0]
    }
}

/// Why a packet was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ErrorClass {
    /// Nothing listens on that port.
    PortUnreachable = 1,
    /// The device doesn't answer.
    HostUnreachable = 2,
    /// Too long for a link behind the gateway; the field carries its MTU.
    TooBig = 3,
    /// The far end's policy has no such service for this caller.
    Denied = 4,
    /// Hop limit used up.
    HopLimit = 5,
}

/// Body of an error packet: enough to find the flow in the receiver's own table, nothing of the packet itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorReport {
    /// What happened.
    pub class: ErrorClass,
    /// IP protocol number of the packet that caused it.
    pub protocol: u8,
    /// MTU for [`ErrorClass::TooBig`], else a reason code.
    pub value: u16,
    /// Source port of the packet that caused it, as its sender sent it.
    pub source_port: u16,
    /// Destination port of that packet.
    pub destination_port: u16,
}

impl ErrorReport {
    /// Bytes of the body.
    pub const LEN: usize = 8;

    /// Reads a body of exactly eight bytes.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let &[class, protocol, v0, v1, s0, s1, d0, d1] = <&[u8; 8]>::try_from(body).ok()?;
        let class = match class {
            1 => ErrorClass::PortUnreachable,
            2 => ErrorClass::HostUnreachable,
            3 => ErrorClass::TooBig,
            4 => ErrorClass::Denied,
            5 => ErrorClass::HopLimit,
            _ => return None,
        };
        Some(Self {
            class,
            protocol,
            value: u16::from_be_bytes([v0, v1]),
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
        })
    }

    /// The body.
    pub fn bytes(&self) -> [u8; Self::LEN] {
        let (v, s, d) = (
            self.value.to_be_bytes(),
            self.source_port.to_be_bytes(),
            self.destination_port.to_be_bytes(),
        );
        [self.class as u8, self.protocol, v[0], v[1], s[0], s[1], d[0], d[1]]
    }
}

/// What a message about sizes says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SizeKind {
    /// Answer, if this came.
    Probe = 0,
    /// That probe came.
    Answer = 1,
    /// Datagrams of this length came.
    Report = 2,
}

/// Body of a message about sizes, padding aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// What it says.
    pub kind: SizeKind,
    /// A probe's and its answer's.
    pub id: u16,
    /// Of a datagram, all headers inside UDP's included.
    pub len: u16,
}

impl Size {
    /// A datagram with nothing else: bytes.
    pub const LEN: usize = super::DATA_OVERHEAD + INNER_HEADER + 6;

    /// Reads a body; `None` for an unknown kind, a non-zero second byte, or bytes behind all but a probe.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let (&[kind, zero, i0, i1, l0, l1], rest) = body.split_first_chunk()?;
        let kind = match kind {
            0 => SizeKind::Probe,
            1 if rest.is_empty() => SizeKind::Answer,
            2 if rest.is_empty() => SizeKind::Report,
            _ => return None,
        };
        (zero == 0).then_some(Self {
            kind,
            id: u16::from_be_bytes([i0, i1]),
            len: u16::from_be_bytes([l0, l1]),
        })
    }

    /// The body.
    pub fn bytes(&self) -> [u8; 6] {
        let (i, l) = (self.id.to_be_bytes(), self.len.to_be_bytes());
        [self.kind as u8, 0, i[0], i[1], l[0], l[1]]
    }
}

/// Header of a part's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHeader {
    /// Tells the parts of one packet from another's.
    pub id: u16,
    /// From 0.
    pub index: u8,
    /// 2 to 4.
    pub count: u8,
}

impl PartHeader {
    /// Reads header and slice; `None` unless index < count and 2 ≤ count ≤ 4 and the slice isn't empty.
    pub fn parse(body: &[u8]) -> Option<(Self, &[u8])> {
        let (&[i0, i1, index, count], slice) = body.split_first_chunk()?;
        let legal = (2..=4).contains(&count) && index < count && !slice.is_empty();
        legal.then_some((
            Self {
                id: u16::from_be_bytes([i0, i1]),
                index,
                count,
            },
            slice,
        ))
    }

    /// The four bytes.
    pub fn bytes(&self) -> [u8; 4] {
        let id = self.id.to_be_bytes();
        [id[0], id[1], self.index, self.count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_reads_back(kind in 1u8..=6, traffic_class: u8, hop_limit: u8, rest: [u8; 12]) {
            let mut inner = vec![kind, traffic_class, hop_limit, 0];
            inner.extend_from_slice(&rest);
            let (header, body) = InnerHeader::parse(&inner).unwrap();
            prop_assert_eq!(&header.bytes()[..], &inner[..4]);
            prop_assert_eq!(body, &rest[..]);
            if let Some(report) = ErrorReport::parse(&rest[..8]) { prop_assert_eq!(&report.bytes()[..], &rest[..8]); }
            if let Some((part, slice)) = PartHeader::parse(&rest) {
                prop_assert_eq!(&part.bytes()[..], &rest[..4]);
                prop_assert_eq!(slice, &rest[4..]);
            }
        }

        #[test]
        fn any_bytes_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = InnerHeader::parse(&bytes);
            let _ = ErrorReport::parse(&bytes);
            let _ = PartHeader::parse(&bytes);
        }
    }
}
