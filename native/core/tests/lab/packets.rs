//! Packets as a host hands them to its TUN.

use core::net::IpAddr;
use thicket_core::wire::{IpRepr, VnetHeader, protocol, vnet_flags};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

/// Without marks, "don't fragment".
pub fn header(source: IpAddr, destination: IpAddr, protocol: u8) -> IpRepr {
    IpRepr {
        source,
        destination,
        protocol,
        traffic_class: 0,
        hop_limit: 64,
        identification: None,
    }
}

/// A packet whose checksums are its own matter.
pub fn bare(packet: &[u8]) -> (VnetHeader, Vec<u8>) {
    (VnetHeader::default(), packet.to_vec())
}

/// Header and what follows it, as they stand.
pub fn join(header: IpRepr, transport: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 60];
    let at = header.write(&mut packet, transport.len());
    packet.truncate(at);
    packet.extend_from_slice(transport);
    packet
}

/// The same where the transport's checksum is only begun: the kernel leaves the rest to whoever sends the packet.
pub fn packet(header: IpRepr, transport: &[u8]) -> (VnetHeader, Vec<u8>) {
    let csum_offset = if header.protocol == protocol::TCP { 16 } else { 6 };
    let packet = join(header, transport);
    let vnet = VnetHeader {
        flags: vnet_flags::NEEDS_CSUM,
        csum_start: (packet.len() - transport.len()) as u16,
        csum_offset,
        ..VnetHeader::default()
    };
    (vnet, packet)
}

/// A TCP segment without options. Ports: source, destination.
pub fn segment(ports: (u16, u16), seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    segment.extend_from_slice(&seq.to_be_bytes());
    segment.extend_from_slice(&ack.to_be_bytes());
    segment.extend_from_slice(&[5 << 4, flags, 1, 2, 0, 0, 0, 0]);
    segment.extend_from_slice(payload);
    segment
}

/// A UDP datagram.
pub fn datagram(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut datagram = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    datagram.extend_from_slice(&(8 + payload.len() as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    datagram
}

/// A TCP packet of a connection whose program asked for expedited forwarding.
pub fn tcp(
    source: IpAddr,
    destination: IpAddr,
    ports: (u16, u16),
    seq: u32,
    flags: u8,
    payload: &[u8],
) -> (VnetHeader, Vec<u8>) {
    let header = IpRepr {
        traffic_class: 0xb8,
        ..header(source, destination, protocol::TCP)
    };
    packet(header, &segment(ports, seq, 9, flags, payload))
}

/// A UDP packet, without "don't fragment".
pub fn udp(source: IpAddr, destination: IpAddr, ports: (u16, u16), payload: &[u8]) -> (VnetHeader, Vec<u8>) {
    let header = IpRepr {
        identification: Some(1),
        ..header(source, destination, protocol::UDP)
    };
    packet(header, &datagram(ports, payload))
}
