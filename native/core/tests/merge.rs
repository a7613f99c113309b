//! What a gateway writes to its TUN as one super-packet, the kernel must be able to cut into exactly the packets that were sent: the rules of
//! its GRO (net/ipv4/tcp_offload.c, udp_offload.c) and of virtio headers (include/linux/virtio_net.h).

#![allow(clippy::unwrap_used)]

mod lab;

use lab::kernel::{comparable, cut};
use lab::orders::{self, ALL, PATH, calls, config, hop, ip, link, long_ip, offers, remote, service, turned};
use lab::packets::*;
use lab::{Node, Packet};
use proptest::prelude::*;
use thicket_core::wire::*;
use thicket_core::*;

const NOW: Instant = Instant::from_micros(1_000_000);
const PORT: u16 = 554;

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

fn media(len: usize) -> Sent {
    Sent {
        flags: None,
        ..stream(0, len)
    }
}

fn stream(seq: u32, len: usize) -> Sent {
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
    fn packet(&self) -> Packet {
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
        let header = IpRepr {
            traffic_class: self.traffic_class,
            hop_limit: self.hop_limit,
            ..header(ip(1), ip(9), number)
        };
        packet(header, &transport)
    }
}

fn node(number: usize, tun: TunFeatures, v6: bool) -> Node {
    let mut core = Node::new(config(number, number == 1, tun));
    let viewer = number == 0;
    let (own, peer) = if viewer { (1, 9) } else { (77, 88) };
    let addresses = (Some((ip(own), ip(peer))), Some((long_ip(own), long_ip(peer))));
    let offered = |protocol| Service {
        v6,
        ..service(protocol, PORT)
    };
    let (policy, labels, keys) = if viewer {
        (calls(), (1000, 1001), PATH)
    } else {
        let services = vec![offered(protocol::TCP), offered(protocol::UDP)];
        (offers(services), (1001, 1000), turned(PATH))
    };
    for command in [
        link(1, remote(1 - number), viewer),
        orders::open_both(5, addresses.0, addresses.1),
        orders::policy(5, policy),
        orders::path(1, 5, hop(1, labels.0), hop(1, labels.1), keys),
    ] {
        core.command(NOW, command, &mut TxBatch::default());
    }
    core
}

/// What a gateway writes to its TUN when these packets come, in as few receive buffers as the kernel's GRO makes of them: equal datagrams, of
/// which the last alone may be shorter.
fn written(all: &[Sent], tun: TunFeatures, v6: bool) -> Vec<Packet> {
    let (mut viewer, mut gateway) = (node(0, ALL, v6), node(1, tun, v6));
    let mut datagrams: Vec<Vec<u8>> = Vec::new();
    // A reset belongs to a connection: the viewer's host has these.
    for port in 40_000..40_004 {
        let (vnet, packet) = Sent { port, ..stream(0, 0) }.packet();
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
        out.extend(lab::written(&rx.tun, &buffer));
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
    (0..count).map(|n| stream(n * 100, 100)).collect()
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
        .map(|n| stream((u32::MAX - 150).wrapping_add(n * 100), 100))
        .collect();
    assert_eq!(merged(&over), 1);
    assert_eq!(merged(&row(64)), 1);
    assert_eq!(merged(&row(65)), 2);
}

#[test]
fn a_shorter_segment_is_the_last() {
    assert_eq!(merged(&[stream(0, 100), stream(100, 100), stream(200, 99)]), 1);
    assert_eq!(
        merged(&[stream(0, 100), stream(100, 99), stream(199, 100), stream(299, 100)]),
        2
    );
    assert_eq!(merged(&[stream(0, 99), stream(99, 100)]), 2);
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
            ..stream(n as u32 * 100, 100)
        };
        values.iter().enumerate().map(stamp).collect()
    };
    assert_eq!(merged(&stamped([5, 5, 5])), 1);
    assert_eq!(merged(&stamped([5, 5, 6])), 2);
}

#[test]
fn segments_without_payload_stay_alone() {
    assert_eq!(merged(&[stream(0, 0), stream(0, 0), stream(0, 0)]), 3);
    assert_eq!(merged(&[stream(0, 100), stream(100, 0)]), 2);
    assert_eq!(merged(&[stream(0, 0), stream(0, 100)]), 2);
}

#[test]
fn equal_datagrams_become_one_and_the_last_may_be_shorter() {
    assert_eq!(merged(&vec![media(200); 64]), 1);
    assert_eq!(merged(&[media(200), media(200), media(1)]), 1);
    assert_eq!(merged(&[media(200), media(1), media(200), media(200)]), 2);
    assert_eq!(merged(&vec![media(1_150); 40]), 1);
    assert_eq!(merged(&[media(1), media(1), media(1)]), 1);
}

#[test]
fn empty_datagrams_and_those_that_differ_stay_apart() {
    assert_eq!(merged(&[media(0), media(0), media(0)]), 3);
    assert_eq!(merged(&[media(5), media(5), media(0)]), 2);
    let other = |change: fn(&mut Sent)| {
        let mut all = vec![media(200); 3];
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
    let all = (0..=255).flat_map(|seq| (1_000..2_000).map(move |port| Sent { seq, port, ..media(3) }));
    let found = all.into_iter().find(zero).unwrap();
    for features in [ALL, TunFeatures::default()] {
        let (vnet, packet) = written(core::slice::from_ref(&found), features, false).remove(0);
        assert_eq!(cut(vnet, &packet)[0][26..28], [0xff, 0xff]);
    }
}

#[test]
fn nothing_overtakes_another_flow() {
    assert_eq!(merged(&[stream(0, 100), media(114), stream(100, 100), media(114)]), 4);
    let second = |seq| Sent {
        port: 40_001,
        ..stream(seq, 100)
    };
    assert_eq!(merged(&[stream(0, 100), second(0), stream(100, 100), second(100)]), 4);
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
