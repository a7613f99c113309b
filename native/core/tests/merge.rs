//! What a gateway writes to its TUN as one super-packet, the kernel must be able to cut into exactly the packets that were sent: the rules of
//! its GRO (net/ipv4/tcp_offload.c, udp_offload.c) and of virtio headers (include/linux/virtio_net.h).

#![allow(clippy::unwrap_used)]

use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use proptest::prelude::*;
use thicket_core::aead::Portable;
use thicket_core::wire::*;
use thicket_core::*;

const NOW: Instant = Instant::from_micros(1_000_000);
const PORT: u16 = 554;
const ALL: TunFeatures = TunFeatures {
    checksum: true,
    tso: true,
    uso: true,
};
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

/// A packet that a viewer's program sends, TCP if `flags` says so.
#[derive(Clone, Debug)]
struct Sent {
    port: u16,
    flags: Option<u8>,
    seq: u32,
    ack: u32,
    window: u16,
    urgent: u16,
    options: Vec<u8>,
    traffic_class: u8,
    hop_limit: u8,
    len: usize,
}

fn udp(len: usize) -> Sent {
    Sent {
        flags: None,
        ..tcp(0, len)
    }
}

fn tcp(seq: u32, len: usize) -> Sent {
    Sent {
        port: 40_000,
        flags: Some(ACK),
        seq,
        ack: 7,
        window: 500,
        urgent: 0,
        options: Vec::new(),
        traffic_class: 0,
        hop_limit: 64,
        len,
    }
}

fn timestamps(value: u32) -> Vec<u8> {
    [&[1, 1, 8, 10][..], &value.to_be_bytes(), &[0, 0, 0, 9]].concat()
}

impl Sent {
    /// As the viewer's kernel hands it over: the checksum begun only.
    fn packet(&self) -> (VnetHeader, Vec<u8>) {
        let mut transport = [self.port.to_be_bytes(), PORT.to_be_bytes()].concat();
        let number = if let Some(flags) = self.flags {
            transport.extend(self.seq.to_be_bytes());
            transport.extend(self.ack.to_be_bytes());
            transport.extend([((20 + self.options.len()) as u8 / 4) << 4, flags]);
            transport.extend(self.window.to_be_bytes());
            transport.extend([0, 0]);
            transport.extend(self.urgent.to_be_bytes());
            transport.extend(&self.options);
            protocol::TCP
        } else {
            transport.extend((8 + self.len as u16).to_be_bytes());
            transport.extend([0, 0]);
            protocol::UDP
        };
        transport.extend((0..self.len).map(|i| (i as u32).wrapping_add(self.seq) as u8 ^ 0x5a));
        let mut packet = vec![0; 20];
        let repr = IpRepr {
            source: ip(1),
            destination: ip(9),
            protocol: number,
            traffic_class: self.traffic_class,
            hop_limit: self.hop_limit,
            identification: None,
        };
        repr.write(&mut packet, transport.len());
        packet.extend(transport);
        let vnet = VnetHeader {
            flags: vnet_flags::NEEDS_CSUM,
            csum_start: 20,
            csum_offset: if number == protocol::TCP { 16 } else { 6 },
            ..VnetHeader::default()
        };
        (vnet, packet)
    }
}

fn ip(last: u8) -> IpAddr {
    [198, 18, 0, last].into()
}

fn remote(node: u8) -> Remote {
    Remote::new(0, ([192, 0, 2, node + 1], 7117).into())
}

fn node(number: u8, tun: TunFeatures, v6: bool) -> Core<Portable> {
    let mut core = Core::new(CoreConfig {
        node_key: [number; 32],
        listening: number == 1,
        tun,
        seed: [number + 9; 32],
    });
    let viewer = number == 0;
    let (up, down) = ([1; 32], [2; 32]);
    let hop = |label: u32| Hop {
        link: LinkId(1),
        label: Label(label),
        generation: Generation(1),
    };
    let session = SessionId(5);
    let service = |protocol| Service {
        protocol,
        port: PORT,
        v6,
        target: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 20), PORT)),
        account: u32::from(protocol),
        rtsp: None,
    };
    let own_peer: (u8, u8) = if viewer { (1, 9) } else { (77, 88) };
    let long = |last: u8| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)]);
    let commands = [
        Command::LinkInstall(LinkKeys {
            link: LinkId(1),
            generation: Generation(1),
            remote: remote(1 - number),
            initiator: viewer,
            receive_index: if viewer { 11 } else { 21 },
            send_index: if viewer { 21 } else { 11 },
            send_key: if viewer { up } else { down },
            receive_key: if viewer { down } else { up },
            hop_secret: [51; 32],
            confirmed: true,
        }),
        Command::SessionOpen {
            session,
            pair: Pair {
                v4: Some((ip(own_peer.0), ip(own_peer.1))),
                v6: Some((long(own_peer.0), long(own_peer.1))),
            },
        },
        Command::SessionPolicy {
            session,
            policy: Policy {
                outbound: viewer,
                inbound: if viewer {
                    Vec::new()
                } else {
                    vec![service(protocol::TCP), service(protocol::UDP)]
                },
                ..Policy::default()
            },
        },
        Command::PathInstall(PathKeys {
            path: PathId(1),
            session,
            ingress: hop(if viewer { 1000 } else { 1001 }),
            egress: hop(if viewer { 1001 } else { 1000 }),
            send_key: if viewer { up } else { down },
            receive_key: if viewer { down } else { up },
            confirmed: true,
        }),
    ];
    for command in commands {
        core.command(NOW, command, &mut TxBatch::default());
    }
    core
}

/// What a gateway writes to its TUN when these packets come, in as few receive buffers as the kernel's GRO makes of them: equal datagrams, of
/// which the last alone may be shorter.
fn written(all: &[Sent], tun: TunFeatures, v6: bool) -> Vec<(VnetHeader, Vec<u8>)> {
    let (mut viewer, mut gateway) = (node(0, ALL, v6), node(1, tun, v6));
    let mut datagrams: Vec<Vec<u8>> = Vec::new();
    // A reset belongs to a connection: the viewer's host has these.
    for port in 40_000..40_004 {
        let (vnet, packet) = Sent { port, ..tcp(0, 0) }.packet();
        viewer.handle_tun(NOW, vnet, &packet, &mut TxBatch::default(), &mut TunBatch::default());
    }
    for sent in all {
        let (mut tx, mut told) = (TxBatch::default(), TunBatch::default());
        let (vnet, packet) = sent.packet();
        viewer.handle_tun(NOW, vnet, &packet, &mut tx, &mut told);
        let bytes = sent_bytes(&mut tx);
        assert!(!bytes.is_empty(), "the viewer sent nothing: {sent:?}");
        datagrams.push(bytes);
    }
    let mut out = Vec::new();
    let mut rx = RxBatch::default();
    let mut at = 0;
    while let Some(first) = datagrams.get(at) {
        let size = first.len();
        let equal = datagrams[at..].iter().take(64).take_while(|d| d.len() == size).count();
        let shorter = datagrams.get(at + equal).is_some_and(|d| equal < 64 && d.len() < size);
        let count = equal + usize::from(shorter);
        let mut buffer = datagrams[at..at + count].concat();
        gateway.handle_datagrams(NOW, remote(0), &mut buffer, size, &mut rx);
        for write in &rx.tun.writes {
            let mut bytes = rx.tun.heads[write.head.clone()].to_vec();
            for piece in &rx.tun.pieces[write.pieces.clone()] {
                bytes.extend(&buffer[piece.clone()]);
            }
            let (vnet, packet) = bytes.split_first_chunk::<VNET_HEADER>().unwrap();
            out.push((VnetHeader::parse(vnet), packet.to_vec()));
        }
        rx.clear();
        at += count;
    }
    out
}

fn sent_bytes(tx: &mut TxBatch) -> Vec<u8> {
    let (trains, buffer) = tx.ready();
    let mut bytes = Vec::new();
    for train in trains {
        bytes.extend(&buffer[train.range.clone()]);
    }
    bytes
}

/// What the kernel makes of a packet written to a TUN: cut, every checksum computed. Panics where it would refuse the packet or change it.
fn cut(vnet: VnetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
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
fn comparable(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

/// Sends these; says how many super-packets or packets came of them, having checked that they are the same packets.
fn merged(all: &[Sent]) -> usize {
    for v6 in [false, true] {
        agree(all, v6);
    }
    written(all, ALL, false).len()
}

fn agree(all: &[Sent], v6: bool) {
    let single: Vec<Vec<u8>> = written(all, TunFeatures::default(), v6)
        .into_iter()
        .map(|(vnet, packet)| {
            assert_eq!(vnet, VnetHeader::default());
            comparable(packet)
        })
        .collect();
    assert_eq!(single.len(), all.len());
    for (sent, packet) in all.iter().zip(&single) {
        let (_, original) = sent.packet();
        let ip = IpPacket::parse(packet).unwrap();
        assert_eq!(
            (ip.traffic_class, ip.hop_limit),
            (sent.traffic_class, sent.hop_limit - 1)
        );
        assert_eq!(packet.len() - ip.transport_at, original.len() - 20);
        // All but the checksum is as it was sent; what is written has a good one.
        let (at, csum) = (ip.transport_at, if sent.flags.is_some() { 16 } else { 6 });
        assert_eq!(packet[at..at + csum], original[20..20 + csum]);
        assert_eq!(packet[at + csum + 2..], original[22 + csum..]);
        let pseudo = pseudo_header_sum(ip.source, ip.destination, ip.protocol(), packet.len() - at);
        assert_eq!(checksum(sum_bytes(pseudo, &packet[at..])), 0);
    }
    for features in [
        ALL,
        TunFeatures { uso: false, ..ALL },
        TunFeatures {
            tso: false,
            uso: false,
            ..ALL
        },
    ] {
        let writes = written(all, features, v6);
        for (vnet, _) in &writes {
            assert!(features.uso || vnet.gso_type != gso::UDP_L4);
            assert!(features.tso || vnet.gso_type == gso::NONE);
        }
        let parts: Vec<_> = writes
            .iter()
            .flat_map(|(vnet, packet)| cut(*vnet, packet))
            .map(comparable)
            .collect();
        assert_eq!(parts, single);
    }
}

/// So many segments of 100 bytes, one behind the other.
fn row(count: u32) -> Vec<Sent> {
    (0..count).map(|n| tcp(n * 100, 100)).collect()
}

fn changed(place: usize, change: impl Fn(&mut Sent)) -> Vec<Sent> {
    let mut all = row(4);
    change(&mut all[place]);
    all
}

#[test]
fn consecutive_segments_become_one_also_over_the_end_of_sequence_numbers() {
    assert_eq!(merged(&row(4)), 1);
    let over: Vec<_> = (0..4)
        .map(|n| tcp((u32::MAX - 150).wrapping_add(n * 100), 100))
        .collect();
    assert_eq!(merged(&over), 1);
    assert_eq!(merged(&row(64)), 1);
    assert_eq!(merged(&row(65)), 2);
}

#[test]
fn a_shorter_segment_is_the_last() {
    assert_eq!(merged(&[tcp(0, 100), tcp(100, 100), tcp(200, 99)]), 1);
    assert_eq!(merged(&[tcp(0, 100), tcp(100, 99), tcp(199, 100), tcp(299, 100)]), 2);
    assert_eq!(merged(&[tcp(0, 99), tcp(99, 100)]), 2);
}

#[test]
fn push_and_fin_end_a_super_packet() {
    for flags in [ACK | PSH, ACK | FIN, ACK | PSH | FIN] {
        assert_eq!(merged(&changed(1, |s| s.flags = Some(flags))), 2);
        assert_eq!(merged(&changed(3, |s| s.flags = Some(flags))), 1);
        assert_eq!(merged(&changed(0, |s| s.flags = Some(flags))), 2);
    }
}

#[test]
fn segments_with_other_flags_stay_alone() {
    for flags in [
        SYN,
        SYN | ACK,
        RST,
        RST | ACK,
        ACK | URG,
        ACK | ECE,
        ACK | CWR,
        ACK | CWR | ECE,
        PSH,
        FIN,
        0,
    ] {
        assert_eq!(merged(&changed(1, |s| s.flags = Some(flags))), 3, "{flags:#x}");
        assert_eq!(merged(&changed(0, |s| s.flags = Some(flags))), 2, "{flags:#x}");
    }
}

#[test]
fn segments_that_differ_in_what_a_cut_copies_stay_apart() {
    let changes: [fn(&mut Sent); 9] = [
        |s| s.ack += 1,
        |s| s.window += 1,
        |s| s.urgent = 1,
        |s| s.options = timestamps(1),
        |s| s.traffic_class = 3,
        |s| s.traffic_class = 0x10,
        |s| s.hop_limit = 63,
        |s| s.seq += 1,
        |s| s.seq -= 100,
    ];
    for (number, change) in changes.iter().enumerate() {
        assert_eq!(merged(&changed(2, change)), 3, "change {number}");
    }
    let stamped = |values: [u32; 3]| -> Vec<Sent> {
        let stamp = |(n, &v): (usize, &u32)| Sent {
            options: timestamps(v),
            ..tcp(n as u32 * 100, 100)
        };
        values.iter().enumerate().map(stamp).collect()
    };
    assert_eq!(merged(&stamped([5, 5, 5])), 1);
    assert_eq!(merged(&stamped([5, 5, 6])), 2);
}

#[test]
fn segments_without_payload_stay_alone() {
    assert_eq!(merged(&[tcp(0, 0), tcp(0, 0), tcp(0, 0)]), 3);
    assert_eq!(merged(&[tcp(0, 100), tcp(100, 0)]), 2);
    assert_eq!(merged(&[tcp(0, 0), tcp(0, 100)]), 2);
}

#[test]
fn equal_datagrams_become_one_and_the_last_may_be_shorter() {
    assert_eq!(merged(&vec![udp(200); 64]), 1);
    assert_eq!(merged(&[udp(200), udp(200), udp(1)]), 1);
    assert_eq!(merged(&[udp(200), udp(1), udp(200), udp(200)]), 2);
    assert_eq!(merged(&vec![udp(1_150); 40]), 1);
    assert_eq!(merged(&[udp(1), udp(1), udp(1)]), 1);
}

#[test]
fn empty_datagrams_and_those_that_differ_stay_apart() {
    assert_eq!(merged(&[udp(0), udp(0), udp(0)]), 3);
    assert_eq!(merged(&[udp(5), udp(5), udp(0)]), 2);
    let other = |change: fn(&mut Sent)| {
        let mut all = vec![udp(200); 3];
        change(&mut all[1]);
        merged(&all)
    };
    assert_eq!(other(|s| s.traffic_class = 3), 3);
    assert_eq!(other(|s| s.hop_limit = 2), 3);
    assert_eq!(other(|s| s.port += 1), 3);
}

#[test]
fn a_datagram_whose_checksum_would_be_zero_says_so_otherwise() {
    let zero = |sent: &Sent| {
        let (_, packet) = sent.packet();
        let pseudo = pseudo_header_sum(ip(88), ip(77), protocol::UDP, packet.len() - 20);
        checksum(sum_bytes(pseudo, &packet[20..])) == 0
    };
    let all = (0..=255).flat_map(|seq| (1_000..2_000).map(move |port| Sent { seq, port, ..udp(3) }));
    let found = all.into_iter().find(zero).unwrap();
    for features in [ALL, TunFeatures::default()] {
        let (vnet, packet) = written(core::slice::from_ref(&found), features, false).remove(0);
        assert_eq!(cut(vnet, &packet)[0][26..28], [0xff, 0xff]);
    }
}

#[test]
fn nothing_overtakes_another_flow() {
    assert_eq!(merged(&[tcp(0, 100), udp(114), tcp(100, 100), udp(114)]), 4);
    let second = |seq| Sent {
        port: 40_001,
        ..tcp(seq, 100)
    };
    assert_eq!(merged(&[tcp(0, 100), second(0), tcp(100, 100), second(100)]), 4);
}

/// Mostly a row of equal segments, with something different now and then.
fn any_sent() -> impl Strategy<Value = Vec<Sent>> {
    let seldom = |usual: u32| prop_oneof![9 => Just(0u32), 1 => 0..usual];
    let one = (
        (
            prop_oneof![5 => Just(true), 1 => any::<bool>()],
            seldom(3),
            seldom(256),
            seldom(3),
        ),
        (seldom(3), seldom(3), seldom(2), seldom(3)),
        (
            prop_oneof![12 => Just(100usize), 1 => Just(99), 1 => Just(114), 1 => Just(0), 1 => 0usize..1_100],
            seldom(5),
        ),
    );
    (any::<u32>(), any::<bool>(), prop::collection::vec(one, 1..90)).prop_map(|(start, is_tcp, all)| {
        let mut next = start;
        let make = |((same, port, flags, ack), (window, options, tos, hop), (len, gap))| {
            let seq = next;
            next = u32::wrapping_add(next, len as u32).wrapping_add(gap);
            Sent {
                port: 40_000 + port as u16,
                flags: (same == is_tcp).then_some(ACK ^ flags as u8),
                seq,
                ack,
                window: window as u16,
                urgent: 0,
                options: if options > 0 { timestamps(options) } else { Vec::new() },
                traffic_class: tos as u8,
                hop_limit: 64 - hop as u8,
                len,
            }
        };
        all.into_iter().map(make).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_is_sent_is_what_the_kernel_cuts(all in any_sent(), v6: bool) {
        agree(&all, v6);
    }
}
