//! ICMP of both families (RFC 792, RFC 4443): read what the host sends, write what it must be told.

use crate::buffers::TunBatch;
use crate::flows::{Flow, tcp_flags};
use crate::wire::*;
use core::net::IpAddr;

/// Longest ICMP error that we write: IPv6's minimum MTU is never reached.
const QUOTE: usize = 48;

/// A message from the host, without its family.
pub enum Message<'a> {
    /// Request or reply.
    Echo {
        reply: bool,
        id: u16,
        sequence: u16,
        data: &'a [u8],
    },
    /// About a packet that we wrote to the TUN.
    Error {
        class: ErrorClass,
        mtu: u16,
        embedded: Embedded,
    },
}

/// The packet that an error is about: enough to find its flow.
pub struct Embedded {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// TCP, UDP, or ICMP (of either family) with the echo's id as the destination port.
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
    /// TCP: its sequence number.
    pub seq: u32,
}

/// Reads an ICMP message; `None` for kinds that aren't carried.
pub fn parse(v4: bool, bytes: &[u8]) -> Option<Message<'_>> {
    let (&[kind, code, _, _, r0, r1, r2, r3], data) = bytes.split_first_chunk::<8>()?;
    let (id, sequence) = (u16::from_be_bytes([r0, r1]), u16::from_be_bytes([r2, r3]));
    let echo = |reply| {
        Some(Message::Echo {
            reply,
            id,
            sequence,
            data,
        })
    };
    // IPv6's MTU is 32 bits wide, and its header is 20 bytes longer; the wire speaks of IPv4's.
    let mtu6 = ((u32::from(id) << 16) | u32::from(sequence))
        .saturating_sub(20)
        .min(0xffff) as u16;
    let error = |class, mtu| {
        Some(Message::Error {
            class,
            mtu,
            embedded: embedded(data)?,
        })
    };
    match (v4, kind, code) {
        (true, 8, 0) | (false, 128, 0) => echo(false),
        (true, 0, 0) | (false, 129, 0) => echo(true),
        (true, 3, 3) | (false, 1, 4) => error(ErrorClass::PortUnreachable, 0),
        (true, 3, 4) => error(ErrorClass::TooBig, sequence),
        (false, 2, 0) => error(ErrorClass::TooBig, mtu6),
        (true, 3, 9 | 10 | 13) | (false, 1, 1 | 5 | 6) => error(ErrorClass::Denied, 0),
        (true, 3, _) | (false, 1, _) => error(ErrorClass::HostUnreachable, 0),
        (true, 11, 0) | (false, 3, 0) => error(ErrorClass::HopLimit, 0),
        _ => None,
    }
}

/// Only the first bytes of the packet are quoted, so lengths in it can't be checked against what is there.
fn embedded(quote: &[u8]) -> Option<Embedded> {
    let (source, destination, protocol, at): (IpAddr, IpAddr, u8, usize) = match quote.first()? >> 4 {
        4 => {
            let h: &[u8; 20] = quote.first_chunk()?;
            let (s, d): ([u8; 4], [u8; 4]) = (*h[12..].first_chunk()?, *h[16..].first_chunk()?);
            (s.into(), d.into(), h[9], usize::from(h[0] & 15) * 4)
        }
        6 => {
            let h: &[u8; 40] = quote.first_chunk()?;
            let (s, d): ([u8; 16], [u8; 16]) = (*h[8..].first_chunk()?, *h[24..].first_chunk()?);
            (s.into(), d.into(), h[6], 40)
        }
        _ => return None,
    };
    let ports: &[u8; 8] = quote.get(at..)?.first_chunk()?;
    let half = |i: usize| u16::from_be_bytes([ports[i], ports[i + 1]]);
    let (protocol, source_port, destination_port) = match protocol {
        protocol::TCP | protocol::UDP => (protocol, half(0), half(2)),
        protocol::ICMP | protocol::ICMP6 => (protocol::ICMP, 0, half(4)),
        _ => return None,
    };
    Some(Embedded {
        source,
        destination,
        protocol,
        source_port,
        destination_port,
        seq: u32::from_be_bytes([ports[4], ports[5], ports[6], ports[7]]),
    })
}

/// Checksums and lengths of a packet that the core makes itself are always complete.
fn whole(tun: &mut TunBatch, source: IpAddr, destination: IpAddr, number: u8, transport: &mut [u8]) {
    let at = match number {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => 2,
    };
    if let Some(field) = transport.get_mut(at..at + 2) {
        field.fill(0);
    }
    let pseudo = if number == protocol::ICMP {
        0
    } else {
        pseudo_header_sum(source, destination, number, transport.len())
    };
    let sum = checksum(sum_bytes(pseudo, transport));
    if let Some(field) = transport.get_mut(at..at + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    let mut packet = [0; 40 + 128];
    let repr = IpRepr {
        source,
        destination,
        protocol: number,
        traffic_class: 0,
        hop_limit: 64,
        identification: None,
    };
    let header = repr.write(&mut packet, transport.len());
    if let Some(body) = packet.get_mut(header..header + transport.len()) {
        body.copy_from_slice(transport);
        tun.push_whole(&[&VnetHeader::default().bytes(), &packet[..header + transport.len()]]);
    }
}

fn error_message(v4: bool, class: ErrorClass, mtu: u16, quote: &[u8], out: &mut [u8; 8 + 40 + QUOTE]) -> usize {
    let (kind, code) = match (v4, class) {
        (true, ErrorClass::PortUnreachable) => (3, 3),
        (true, ErrorClass::HostUnreachable) => (3, 1),
        (true, ErrorClass::TooBig) => (3, 4),
        (true, ErrorClass::Denied) => (3, 13),
        (true, ErrorClass::HopLimit) => (11, 0),
        (false, ErrorClass::PortUnreachable) => (1, 4),
        (false, ErrorClass::HostUnreachable) => (1, 3),
        (false, ErrorClass::TooBig) => (2, 0),
        (false, ErrorClass::Denied) => (1, 1),
        (false, ErrorClass::HopLimit) => (3, 0),
    };
    *out = [0; 8 + 40 + QUOTE];
    out[0] = kind;
    out[1] = code;
    if class == ErrorClass::TooBig {
        out[6..8].copy_from_slice(&mtu.to_be_bytes());
    }
    let len = quote.len().min(40 + QUOTE);
    out[8..8 + len].copy_from_slice(&quote[..len]);
    8 + len
}

/// Tells the local sender of `packet` that it is too long.
pub fn too_big(tun: &mut TunBatch, ip: &IpPacket, packet: &[u8], mtu: usize) {
    let mut out = [0; 8 + 40 + QUOTE];
    let v4 = ip.source.is_ipv4();
    let len = error_message(v4, ErrorClass::TooBig, mtu.min(0xffff) as u16, packet, &mut out);
    whole(
        tun,
        ip.destination,
        ip.source,
        if v4 { protocol::ICMP } else { protocol::ICMP6 },
        &mut out[..len],
    );
}

/// Tells a local program what became of its flow: a reset where TCP was refused, else an ICMP error with the flow's own headers.
pub fn tell(tun: &mut TunBatch, flow: &Flow, class: ErrorClass, value: u16) {
    let (own, peer) = (flow.local.own, flow.local.peer);
    if flow.local.protocol == protocol::TCP && class == ErrorClass::Denied {
        return reset(tun, flow);
    }
    let mut quoted = [0u8; 40 + 8];
    let v4 = own.is_ipv4();
    let number = match (flow.local.protocol, v4) {
        (protocol::ICMP, false) => protocol::ICMP6,
        (number, _) => number,
    };
    let repr = IpRepr {
        source: own,
        destination: peer,
        protocol: number,
        traffic_class: 0,
        hop_limit: 64,
        identification: None,
    };
    let at = repr.write(&mut quoted, 8);
    if flow.local.protocol == protocol::ICMP {
        quoted[at] = if v4 { 8 } else { 128 };
        quoted[at + 4..at + 6].copy_from_slice(&flow.local.local_port.to_be_bytes());
    } else {
        quoted[at..at + 2].copy_from_slice(&flow.local.local_port.to_be_bytes());
        quoted[at + 2..at + 4].copy_from_slice(&flow.local.remote_port.to_be_bytes());
        // The host believes an error about TCP only if the sequence number is one that it has under way.
        quoted[at + 4..at + 8].copy_from_slice(&flow.next_seq.wrapping_sub(1).to_be_bytes());
    }
    // No host need believe less than its family's minimum.
    let mtu = if v4 {
        value.max(576)
    } else {
        value.saturating_add(20).max(1280)
    };
    let mut out = [0; 8 + 40 + QUOTE];
    let len = error_message(v4, class, mtu, &quoted[..at + 8], &mut out);
    whole(
        tun,
        peer,
        own,
        if v4 { protocol::ICMP } else { protocol::ICMP6 },
        &mut out[..len],
    );
}

/// A reset from the peer, acceptable in SYN-SENT (it acknowledges the SYN) and later (it is the next expected byte).
pub fn reset(tun: &mut TunBatch, flow: &Flow) {
    let mut tcp = [0u8; 20];
    tcp[..2].copy_from_slice(&flow.local.remote_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&flow.local.local_port.to_be_bytes());
    tcp[4..8].copy_from_slice(&flow.acked.to_be_bytes());
    tcp[8..12].copy_from_slice(&flow.next_seq.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = tcp_flags::RST | tcp_flags::ACK;
    whole(tun, flow.local.peer, flow.local.own, protocol::TCP, &mut tcp);
}
