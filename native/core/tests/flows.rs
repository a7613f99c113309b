//! What goes through a session: packets of flows that policy allows, whole, under the addresses that each host knows.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use lab::orders::{calls, ip, long_ip};
use lab::packets::*;
use lab::relay::*;
use lab::{Lab, Packet};
use thicket_core::wire::*;
use thicket_core::*;

#[test]
fn a_super_packet_arrives_as_one_with_new_addresses_and_the_answer_comes_back() {
    let mut lab = Lab::probed_relay();
    let payload: Vec<u8> = (0..30_000u32).map(|i| (i * 7) as u8).collect();
    let (mut vnet, packet) = tcp(ip(1), ip(9), (4000, 554), 100, PSH | ACK, &payload);
    vnet.gso_type = gso::TCPV4;
    vnet.gso_size = 1380;
    lab.tun_in(VIEWER, (vnet, packet));
    let wire = lab.run();
    assert!(wire.iter().all(|(_, _, d)| d.len() <= DATAGRAM));
    assert!(
        !wire
            .iter()
            .any(|(_, _, d)| d.windows(16).any(|w| w == &payload[64..80])),
        "payload must be sealed"
    );
    let [(vnet, got)] = &lab.tun[GATEWAY][..] else {
        panic!("{} packets", lab.tun[GATEWAY].len())
    };
    assert_eq!((vnet.gso_type, vnet.gso_size, vnet.flags), (gso::TCPV4, 1380, 1));
    let parsed = IpPacket::parse(got).unwrap();
    assert_eq!(
        (
            parsed.source,
            parsed.destination,
            parsed.traffic_class,
            parsed.hop_limit
        ),
        (ip(88), ip(77), 0xb8, 63)
    );
    assert_eq!(&got[40..], &payload[..]);
    assert_eq!(got[33], PSH | ACK);

    lab.tun_in(GATEWAY, tcp(ip(77), ip(88), (554, 4000), 9, PSH | ACK, b"answer"));
    lab.run();
    let (_, got) = &lab.tun[VIEWER][0];
    assert_eq!(&got[40..], b"answer");
    let parsed = IpPacket::parse(got).unwrap();
    assert_eq!((parsed.source, parsed.destination), (ip(9), ip(1)));
}

#[test]
fn of_acknowledgements_that_wait_together_the_last_is_sent_unless_one_says_more() {
    let mut lab = Lab::relay();
    let acknowledgement = |ack: u8, seq: u32, flags: u8, payload: &[u8]| {
        let (vnet, mut packet) = tcp(ip(1), ip(9), (40_000, 554), seq, flags, payload);
        packet[31] = ack;
        (vnet, packet)
    };
    // What the gateway's host gets of what the viewer's hands over in one round.
    let mut acked = |packets: &[Packet]| {
        lab.tun_in_together(VIEWER, packets);
        lab.run();
        lab.tun[GATEWAY]
            .drain(..)
            .map(|(_, packet)| packet[31])
            .collect::<Vec<_>>()
    };
    acked(&[acknowledgement(9, 1, SYN, &[])]);
    let plain = |ack: u8| acknowledgement(ack, 2, ACK, &[]);
    assert_eq!(acked(&[plain(10), plain(20), plain(30)]), [30]);
    assert_eq!(acked(&[plain(40)]), [40], "one alone goes at once");
    assert_eq!(
        acked(&[plain(50), plain(50), plain(50)]),
        [50, 50, 50],
        "repeated ones tell of a loss"
    );
    assert_eq!(acked(&[plain(60), plain(55)]), [60, 55]);
    let data = acknowledgement(70, 2, ACK, b"x");
    let behind = acknowledgement(75, 3, ACK, &[]);
    assert_eq!(acked(&[plain(65), data, behind]), [65, 70, 75]);
    let marked = acknowledgement(85, 3, ACK | ECE, &[]);
    let after = acknowledgement(90, 3, ACK, &[]);
    assert_eq!(
        acked(&[marked, after]),
        [85, 90],
        "an echo of congestion is no plain one"
    );
}

#[test]
fn an_ipv6_program_reaches_an_ipv4_device_while_an_ipv4_one_uses_the_same_ports() {
    let mut lab = Lab::relay();
    let (own6, peer6) = (long_ip(1), long_ip(9));
    lab.tun_in(VIEWER, tcp(ip(1), ip(9), (4000, 554), 1, SYN, b""));
    lab.tun_in(VIEWER, tcp(own6, peer6, (4000, 554), 1, SYN, b""));
    lab.run();
    assert_eq!(lab.tun[GATEWAY].len(), 2);
    let second = lab.tun[GATEWAY][1].1.clone();
    assert_eq!(second[0] >> 4, 4);
    let port = u16::from_be_bytes([second[20], second[21]]);
    assert_ne!(port, 4000);
    lab.tun_in(GATEWAY, tcp(ip(77), ip(88), (554, port), 9, SYN | ACK, b""));
    lab.run();
    let parsed = IpPacket::parse(&lab.tun[VIEWER][0].1).unwrap();
    assert_eq!((parsed.source, parsed.destination), (peer6, own6));
    assert_eq!(
        u16::from_be_bytes([lab.tun[VIEWER][0].1[42], lab.tun[VIEWER][0].1[43]]),
        4000
    );
}

#[test]
fn what_policy_does_not_list_is_dropped_counted_and_refused_to_the_caller() {
    let mut lab = Lab::relay();
    lab.tun_in(VIEWER, tcp(ip(1), ip(9), (4000, 22), 1, SYN, b""));
    lab.run();
    assert!(lab.tun[GATEWAY].is_empty());
    assert_eq!(lab.drops(GATEWAY, DropReason::PortNotAllowed), 1);
    let (_, reset) = &lab.tun[VIEWER][0];
    assert_eq!(reset[33] & RST, RST, "the program sees a reset");
    assert_eq!(
        u32::from_be_bytes(*reset[28..].first_chunk().unwrap()),
        2,
        "which acknowledges its SYN"
    );
    assert_eq!(lab.told(VIEWER, |e| matches!(e, Event::FlowDenied { port: 22, .. })), 1);
    // New flows from the device's side are nobody's.
    lab.tun_in(GATEWAY, tcp(ip(77), ip(88), (9999, 80), 1, SYN, b""));
    assert_eq!(lab.drops(GATEWAY, DropReason::OutboundNotAllowed), 1);
    assert!(lab.run().is_empty());
}

#[test]
fn a_connection_that_nobody_has_shows_itself_to_a_host_that_calls_and_is_counted_where_no_address_stands_for_the_caller()
 {
    let mut lab = Lab::relay();
    lab.policy(GATEWAY, CALLED, calls());
    let show = |lab: &mut Lab| {
        lab.tun_in(VIEWER, tcp(ip(1), ip(9), (4000, 8080), 1, ACK, b"go on"));
        lab.run();
    };
    show(&mut lab);
    assert_eq!(
        lab.tun[GATEWAY].len(),
        1,
        "the host tells whether it knows the connection"
    );
    lab.command(
        GATEWAY,
        Command::SessionAliasRemove {
            session: SessionId(CALLED),
            pair: Pair {
                v4: Some((ip(77), ip(88))),
                v6: None,
            },
        },
    );
    show(&mut lab);
    assert_eq!(lab.tun[GATEWAY].len(), 1);
    assert_eq!(lab.drops(GATEWAY, DropReason::NotAFlow), 1);
}

#[test]
fn a_policy_change_cuts_live_flows() {
    let mut lab = Lab::relay();
    lab.tun_in(VIEWER, tcp(ip(1), ip(9), (4000, 554), 1, PSH | ACK, b"x"));
    lab.run();
    assert_eq!(lab.tun[GATEWAY].len(), 1);
    lab.policy(GATEWAY, CALLED, Policy::default());
    lab.tun_in(VIEWER, tcp(ip(1), ip(9), (4000, 554), 2, PSH | ACK, b"x"));
    lab.tun_in(GATEWAY, tcp(ip(77), ip(88), (554, 4000), 2, PSH | ACK, b"x"));
    lab.run();
    assert_eq!(lab.tun[GATEWAY].len(), 1);
    assert_eq!(lab.drops(GATEWAY, DropReason::PortNotAllowed), 1);
    assert_eq!(lab.drops(GATEWAY, DropReason::OutboundNotAllowed), 1);
}

#[test]
fn long_datagrams_go_in_parts_and_short_ones_merge() {
    let mut lab = Lab::probed_relay();
    let long: Vec<u8> = (0..4_000u32).map(|i| i as u8).collect();
    lab.tun_in(VIEWER, udp(ip(1), ip(9), (4000, 5000), &long));
    let wire = lab.run();
    assert_eq!(wire.iter().filter(|(from, ..)| *from == VIEWER).count(), 3);
    assert!(wire.iter().all(|(_, _, d)| d.len() <= DATAGRAM));
    assert_eq!(&lab.tun[GATEWAY][0].1[28..], &long[..]);
    for i in 0..5u8 {
        lab.tun_in(VIEWER, udp(ip(1), ip(9), (4000, 5000), &[i; 300]));
    }
    lab.run();
    let (vnet, merged) = &lab.tun[GATEWAY][1];
    assert_eq!(
        (vnet.gso_type, vnet.gso_size, merged.len()),
        (gso::UDP_L4, 300, 28 + 1500)
    );
}

#[test]
fn fragments_are_whole_before_policy_and_wrong_checksums_stay_out() {
    let mut lab = Lab::relay();
    let payload: Vec<u8> = (0..1_000u32).map(|i| i as u8).collect();
    let (_, mut packet) = udp(ip(1), ip(9), (4000, 5000), &payload);
    let sum = checksum(sum_bytes(
        pseudo_header_sum(ip(1), ip(9), 17, packet.len() - 20),
        &packet[20..],
    ));
    packet[26..28].copy_from_slice(&sum.to_be_bytes());
    let fragment = |range: std::ops::Range<usize>, more: bool| {
        let header = IpRepr {
            identification: Some(1),
            ..header(ip(1), ip(9), protocol::UDP)
        };
        let mut f = join(header, &packet[20..][range.clone()]);
        let field = (range.start as u16 / 8) | if more { 0x2000 } else { 0 };
        f[6..8].copy_from_slice(&field.to_be_bytes());
        f
    };
    let (first, second) = (fragment(0..800, true), fragment(800..1008, false));
    lab.tun_in(VIEWER, bare(&second));
    lab.tun_in(VIEWER, bare(&first));
    lab.run();
    assert_eq!(&lab.tun[GATEWAY][0].1[28..], &payload[..]);
    packet[26] ^= 1;
    lab.tun_in(VIEWER, bare(&packet));
    assert_eq!(lab.drops(VIEWER, DropReason::BadChecksum), 1);
}

#[test]
fn an_echo_crosses_and_its_answer_only_to_who_asked() {
    let mut lab = Lab::relay();
    let echo = |source, destination, kind: u8| {
        let mut m = vec![kind, 0, 0, 0, 0, 7, 0, 1, 1, 2, 3, 4];
        let sum = checksum(sum_bytes(0, &m));
        m[2..4].copy_from_slice(&sum.to_be_bytes());
        bare(&join(header(source, destination, protocol::ICMP), &m))
    };
    lab.tun_in(GATEWAY, echo(ip(77), ip(88), 0));
    assert_eq!(lab.drops(GATEWAY, DropReason::NotAFlow), 1);
    lab.tun_in(VIEWER, echo(ip(1), ip(9), 8));
    lab.run();
    assert_eq!(lab.tun[GATEWAY][0].1[20], 8);
    lab.tun_in(GATEWAY, echo(ip(77), ip(88), 0));
    lab.run();
    let got = &lab.tun[VIEWER][0].1;
    assert_eq!((got[20], checksum(sum_bytes(0, &got[20..]))), (0, 0));
}
