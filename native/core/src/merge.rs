//! Merging on the way into the TUN: consecutive segments of one flow become one super-packet, whose pieces stay where they were opened. The rules are those
//! of the kernel's GRO as wireguard-go's and tailscale's `tun` packages describe them.

use crate::api::SessionId;
use crate::buffers::{TunBatch, TunWrite};
use crate::core::TunFeatures;
use crate::flows::{FlowIndex, LocalKey, tcp_flags};
use crate::outbound::clamp_mss;
use crate::wire::*;
use core::ops::Range;

/// Headers and payload of one merged packet stay below this.
const LONGEST: usize = 65_535;
const MOST_PIECES: usize = 64;

/// One opened segment: where its parts lie in the receive buffer.
pub struct Segment {
    pub kind: Kind,
    pub session: SessionId,
    pub traffic_class: u8,
    pub hop_limit: u8,
    /// TCP: header without checksum. UDP: ports.
    pub header: Range<usize>,
    pub payload: Range<usize>,
}

/// The packet under construction.
#[derive(Default)]
pub struct Merge {
    run: Option<Run>,
    /// Largest MSS that the host is told, where SYNs may come.
    mss: Option<u16>,
}

struct Run {
    kind: Kind,
    flow: FlowIndex,
    session: SessionId,
    local: LocalKey,
    traffic_class: u8,
    hop_limit: u8,
    /// The first segment's header as it came, without checksum.
    header: [u8; 58],
    header_len: usize,
    next_seq: u32,
    size: usize,
    total: usize,
    pieces: Range<usize>,
    flags: u8,
    /// Nothing may follow a short segment, or one with PSH or FIN.
    closed: bool,
}

impl Merge {
    /// For packets from the wire, over a path that carries TCP payloads of `mss` bytes.
    pub fn new(mss: u16) -> Self {
        Self {
            run: None,
            mss: Some(mss),
        }
    }

    /// The flow of the packet under construction, if `segment` has the same wire ports: saves the look-up.
    pub fn same_flow(&self, segment: &Segment, buffer: &[u8]) -> Option<FlowIndex> {
        let run = self.run.as_ref()?;
        let ports = buffer.get(segment.header.start..segment.header.start + 4)?;
        (run.kind == segment.kind && run.session == segment.session && run.header.get(..4)? == ports)
            .then_some(run.flow)
    }

    /// Appends a segment to the packet under construction, or finishes that and begins another.
    pub fn push(
        &mut self,
        segment: &Segment,
        flow: FlowIndex,
        local: LocalKey,
        buffer: &[u8],
        features: TunFeatures,
        tun: &mut TunBatch,
    ) {
        if self.append(segment, flow, buffer, features, tun) {
            return;
        }
        self.finish(buffer, features, tun);
        let Some(header) = buffer.get(segment.header.clone()) else {
            return;
        };
        let start = tun.pieces.len();
        if !segment.payload.is_empty() {
            tun.pieces.push(segment.payload.clone());
        }
        let mut copy = [0; 58];
        let header_len = header.len().min(58);
        copy[..header_len].copy_from_slice(&header[..header_len]);
        let (flags, closed) = match segment.kind {
            Kind::Tcp => {
                if copy[13] & tcp_flags::SYN != 0
                    && let Some(mss) = self.mss
                {
                    clamp_mss(&mut copy[18..header_len], mss);
                }
                (copy[13], copy[13] != tcp_flags::ACK)
            }
            _ => (0, false),
        };
        self.run = Some(Run {
            kind: segment.kind,
            flow,
            session: segment.session,
            local,
            traffic_class: segment.traffic_class,
            hop_limit: segment.hop_limit,
            header_len,
            next_seq: u32::from_be_bytes([copy[4], copy[5], copy[6], copy[7]])
                .wrapping_add(segment.payload.len() as u32),
            header: copy,
            size: segment.payload.len(),
            total: segment.payload.len(),
            pieces: start..tun.pieces.len(),
            flags,
            closed,
        });
    }

    fn append(
        &mut self,
        segment: &Segment,
        flow: FlowIndex,
        buffer: &[u8],
        features: TunFeatures,
        tun: &mut TunBatch,
    ) -> bool {
        let Some(run) = self.run.as_mut() else { return false };
        let len = segment.payload.len();
        let fits = !run.closed
            && run.flow == flow
            && run.kind == segment.kind
            && run.traffic_class == segment.traffic_class
            && run.hop_limit == segment.hop_limit
            && (1..=run.size).contains(&len)
            && run.total + len + 120 <= LONGEST
            && run.pieces.len() < MOST_PIECES
            && run.pieces.end == tun.pieces.len();
        let Some(header) = buffer.get(segment.header.clone()) else {
            return false;
        };
        let follows = match segment.kind {
            Kind::Tcp => {
                // Same acknowledgement, window, urgent pointer and options; next in sequence; nothing but ACK, PSH, FIN.
                let flags = header.get(13).copied().unwrap_or(0);
                let plain =
                    flags & !(tcp_flags::ACK | tcp_flags::PSH | tcp_flags::FIN) == 0 && flags & tcp_flags::ACK != 0;
                features.tso
                    && plain
                    && header.len() == run.header_len
                    && header.get(4..8) == Some(&run.next_seq.to_be_bytes())
                    && header.get(8..13) == run.header.get(8..13)
                    && header.get(14..) == run.header.get(14..run.header_len)
            }
            Kind::Udp => features.uso,
            _ => false,
        };
        if !fits || !follows {
            return false;
        }
        if segment.kind == Kind::Tcp {
            let flags = header[13];
            run.flags |= flags;
            run.closed = flags & !tcp_flags::ACK != 0;
            run.next_seq = run.next_seq.wrapping_add(len as u32);
        }
        run.closed |= len < run.size;
        run.total += len;
        tun.pieces.push(segment.payload.clone());
        run.pieces.end += 1;
        true
    }

    /// Writes the headers of the packet under construction.
    pub fn finish(&mut self, buffer: &[u8], features: TunFeatures, tun: &mut TunBatch) {
        let Some(run) = self.run.take() else { return };
        let (number, transport_len) = match run.kind {
            Kind::Tcp => (protocol::TCP, run.header_len + 2),
            _ => (protocol::UDP, 8),
        };
        let (source, destination) = (run.local.peer, run.local.own);
        let mut head = [0u8; VNET_HEADER + 40 + 60];
        let repr = IpRepr {
            source,
            destination,
            protocol: number,
            traffic_class: run.traffic_class,
            hop_limit: run.hop_limit,
            // TCP finds the path's size; a datagram may be longer than the LAN takes.
            identification: (run.kind != Kind::Tcp).then(|| tun.identify(run.pieces.len().max(1))),
        };
        let ip_len = repr.write(&mut head[VNET_HEADER..], transport_len + run.total);
        let end = VNET_HEADER + ip_len + transport_len;
        let transport = &mut head[VNET_HEADER + ip_len..end];
        transport[..2].copy_from_slice(&run.local.remote_port.to_be_bytes());
        transport[2..4].copy_from_slice(&run.local.local_port.to_be_bytes());
        let merged = run.pieces.len() > 1;
        let csum_at = if run.kind == Kind::Tcp {
            transport[4..16].copy_from_slice(&run.header[4..16]);
            transport[13] = run.flags;
            transport[18..].copy_from_slice(&run.header[16..run.header_len]);
            16
        } else {
            let length = 8 + run.total;
            transport[4..6].copy_from_slice(&(length as u16).to_be_bytes());
            6
        };
        let mut sum = pseudo_header_sum(source, destination, number, transport_len + run.total);
        let mut vnet = VnetHeader::default();
        if features.checksum {
            // The AEAD vouches for every byte: the kernel completes the checksum if the packet leaves the host at all.
            vnet.flags = vnet_flags::NEEDS_CSUM;
            vnet.csum_start = ip_len as u16;
            vnet.csum_offset = csum_at as u16;
            transport[csum_at..csum_at + 2].copy_from_slice(&fold(sum).to_be_bytes());
        } else {
            sum = sum_bytes(sum, transport);
            // Pieces of odd length shift the rest by a byte; merging is off without checksum offload, so there is one piece.
            for piece in tun.pieces.get(run.pieces.clone()).unwrap_or(&[]) {
                sum = sum_bytes(sum, buffer.get(piece.clone()).unwrap_or(&[]));
            }
            let value = match (checksum(sum), run.kind) {
                // Zero means "no checksum" in UDP (RFC 768).
                (0, Kind::Udp) => 0xffff,
                (value, _) => value,
            };
            transport[csum_at..csum_at + 2].copy_from_slice(&value.to_be_bytes());
        }
        if merged {
            vnet.gso_type = match (run.kind, source.is_ipv4()) {
                (Kind::Tcp, true) => gso::TCPV4,
                (Kind::Tcp, false) => gso::TCPV6,
                _ => gso::UDP_L4,
            };
            vnet.gso_size = run.size as u16;
            vnet.header_len = (ip_len + transport_len) as u16;
        }
        head[..VNET_HEADER].copy_from_slice(&vnet.bytes());
        let start = tun.heads.len();
        tun.heads.extend_from_slice(&head[..end]);
        tun.writes.push(TunWrite {
            head: start..tun.heads.len(),
            pieces: run.pieces,
        });
    }
}
