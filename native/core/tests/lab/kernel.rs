//! The far side of a TUN.

use super::packets::{ACK, FIN, PSH};
use thicket_core::wire::{
    IpPacket, Transport, VnetHeader, checksum, fold, gso, pseudo_header_sum, sum_bytes, vnet_flags,
};

/// What the kernel makes of a packet written to a TUN: cut, every checksum computed. Panics where it would refuse the packet or change it.
pub fn cut(vnet: VnetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let ip = IpPacket::parse(packet).unwrap();
    assert_eq!(ip.end, packet.len());
    let (head, udp) = match ip.transport {
        Transport::Tcp { header } => (ip.transport_at + header, false),
        _ => (ip.transport_at + 8, true),
    };
    let csum_at = ip.transport_at + if udp { 6 } else { 16 };
    if vnet.flags & vnet_flags::NEEDS_CSUM != 0 {
        assert_eq!(usize::from(vnet.csum_start), ip.transport_at);
        assert_eq!(usize::from(vnet.csum_start + vnet.csum_offset), csum_at);
        let pseudo = pseudo_header_sum(ip.source, ip.destination, ip.protocol(), packet.len() - ip.transport_at);
        assert_eq!(packet[csum_at..csum_at + 2], fold(pseudo).to_be_bytes());
    }
    let size = usize::from(vnet.gso_size);
    let payload = &packet[head..];
    if vnet.gso_type == gso::NONE {
        return vec![if vnet.flags & vnet_flags::NEEDS_CSUM != 0 {
            complete(packet.to_vec(), ip.transport_at, csum_at)
        } else {
            packet.to_vec()
        }];
    }
    let kind = match (udp, ip.source.is_ipv4()) {
        (true, _) => gso::UDP_L4,
        (false, true) => gso::TCPV4,
        (false, false) => gso::TCPV6,
    };
    assert_eq!(vnet.gso_type, kind);
    assert_ne!(
        vnet.flags & vnet_flags::NEEDS_CSUM,
        0,
        "a super-packet's checksums are the kernel's"
    );
    assert_eq!(usize::from(vnet.header_len), head);
    assert!(size > 0 && payload.len() > size, "one segment is no super-packet");
    let count = payload.len().div_ceil(size);
    // UDP_MAX_SEGMENTS of the kernels that know USO least.
    assert!(count <= 64);
    let flags = if udp { ACK } else { packet[ip.transport_at + 13] };
    assert_eq!(flags & !(PSH | FIN), ACK, "no other flag survives cutting");
    let mut out = Vec::new();
    for (index, piece) in payload.chunks(size).enumerate() {
        let mut one = [&packet[..head], piece].concat();
        let total = one.len();
        if ip.source.is_ipv4() {
            one[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            let id = u16::from_be_bytes([one[4], one[5]]).wrapping_add(index as u16);
            one[4..6].copy_from_slice(&id.to_be_bytes());
            one[10..12].fill(0);
            let sum = checksum(sum_bytes(0, &one[..20]));
            one[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            one[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
        }
        let transport = &mut one[ip.transport_at..];
        if udp {
            let len = transport.len() as u16;
            transport[4..6].copy_from_slice(&len.to_be_bytes());
        } else {
            let seq = u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
            transport[4..8].copy_from_slice(&seq.wrapping_add((index * size) as u32).to_be_bytes());
            if index + 1 < count {
                transport[13] &= !(PSH | FIN);
            }
        }
        out.push(complete(one, ip.transport_at, csum_at));
    }
    out
}

fn complete(mut packet: Vec<u8>, transport_at: usize, csum_at: usize) -> Vec<u8> {
    let ip = IpPacket::parse(&packet).unwrap();
    packet[csum_at..csum_at + 2].fill(0);
    let pseudo = pseudo_header_sum(ip.source, ip.destination, ip.protocol(), packet.len() - transport_at);
    let sum = match (checksum(sum_bytes(pseudo, &packet[transport_at..])), ip.transport) {
        (0, Transport::Udp) => 0xffff,
        (sum, _) => sum,
    };
    packet[csum_at..csum_at + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// IPv4's identification isn't compared where "don't fragment" makes it meaningless.
pub fn comparable(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}
