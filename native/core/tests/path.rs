//! Three nodes, viewer – relay – gateway, over simulated links with one virtual clock.

#![allow(clippy::unwrap_used, clippy::panic)]

use thicket_core::aead::{Aead, Portable};
use thicket_core::wire::*;
use thicket_core::*;

type Node = Core<Portable>;

const VIEWER: usize = 0;
const RELAY: usize = 1;
const GATEWAY: usize = 2;

struct Lab {
    nodes: Vec<Node>,
    now: Instant,
    /// Every datagram that went over a link: from, to, bytes.
    wire: Vec<(usize, usize, Vec<u8>)>,
    /// What came out of each node's TUN.
    tun: Vec<Vec<(VnetHeader, Vec<u8>)>>,
    events: Vec<Vec<Event>>,
}

fn address(node: usize) -> core::net::SocketAddr {
    ([192, 0, 2, node as u8 + 1], 7117).into()
}

fn remote(node: usize) -> Remote {
    Remote::new(0, address(node))
}

fn ip(last: u8) -> core::net::IpAddr {
    [198, 18, 0, last].into()
}

fn hop(link: u32, label: u32) -> Hop {
    Hop {
        link: LinkId(link),
        label: Label(label),
        generation: Generation(link),
    }
}

/// Link ids: 1 between viewer and relay, 2 between gateway and relay; the children are initiators.
fn link_keys(link: u32, to: usize, child: bool) -> Command {
    let (up, down) = ([link as u8; 32], [link as u8 + 100; 32]);
    Command::LinkInstall(LinkKeys {
        link: LinkId(link),
        generation: Generation(link),
        remote: remote(to),
        initiator: child,
        receive_index: if child { 10 + link } else { 20 + link },
        send_index: if child { 20 + link } else { 10 + link },
        send_key: if child { up } else { down },
        receive_key: if child { down } else { up },
        hop_secret: [link as u8 + 50; 32],
        confirmed: true,
    })
}

const TCP_554: Service = Service {
    protocol: protocol::TCP,
    port: 554,
    v6: false,
    target: core::net::SocketAddr::V4(core::net::SocketAddrV4::new(
        core::net::Ipv4Addr::new(192, 168, 1, 20),
        554,
    )),
    account: 1,
    rtsp: None,
};
const UDP_5000: Service = Service {
    protocol: protocol::UDP,
    port: 5000,
    account: 2,
    ..TCP_554
};

impl Lab {
    fn new() -> Self {
        let nodes = (0..3)
            .map(|i| {
                Node::new(CoreConfig {
                    node_key: [i as u8; 32],
                    listening: i == RELAY,
                    tun: TunFeatures {
                        checksum: true,
                        tso: true,
                        uso: true,
                    },
                    seed: [i as u8 + 9; 32],
                })
            })
            .collect();
        let mut lab = Self {
            nodes,
            now: Instant::from_micros(1_000_000),
            wire: Vec::new(),
            tun: vec![Vec::new(); 3],
            events: vec![Vec::new(); 3],
        };
        lab.command(VIEWER, link_keys(1, RELAY, true));
        lab.command(RELAY, link_keys(1, VIEWER, false));
        lab.command(GATEWAY, link_keys(2, RELAY, true));
        lab.command(RELAY, link_keys(2, GATEWAY, false));
        // Labels: 1000 at the viewer, 2000 at the gateway; 1001 and 2001 at the relay.
        lab.command(
            RELAY,
            Command::LabelForward {
                ingress: hop(1, 1001),
                egress: hop(2, 2000),
            },
        );
        lab.command(
            RELAY,
            Command::LabelForward {
                ingress: hop(2, 2001),
                egress: hop(1, 1000),
            },
        );
        let v6 = |own: &str, peer: &str| Some((own.parse().unwrap(), peer.parse().unwrap()));
        let viewer = Pair {
            v4: Some((ip(1), ip(9))),
            v6: v6("fd00::1", "fd00::9"),
        };
        let gateway = Pair {
            v4: Some((ip(77), ip(88))),
            v6: None,
        };
        lab.command(
            VIEWER,
            Command::SessionOpen {
                session: SessionId(5),
                pair: viewer,
            },
        );
        lab.command(
            GATEWAY,
            Command::SessionOpen {
                session: SessionId(6),
                pair: gateway,
            },
        );
        lab.policy(
            VIEWER,
            5,
            Policy {
                outbound: true,
                ..Policy::default()
            },
        );
        lab.policy(
            GATEWAY,
            6,
            Policy {
                inbound: vec![TCP_554, UDP_5000],
                echo: true,
                ..Policy::default()
            },
        );
        lab.path(1, true);
        lab
    }

    fn policy(&mut self, node: usize, session: u32, policy: Policy) {
        self.command(
            node,
            Command::SessionPolicy {
                session: SessionId(session),
                policy,
            },
        );
    }

    fn path(&mut self, path: u32, confirmed: bool) {
        let (out, back) = ([61; 32], [62; 32]);
        let keys = |session, ingress, egress, send_key, receive_key, confirmed| {
            Command::PathInstall(PathKeys {
                path: PathId(path),
                session: SessionId(session),
                ingress,
                egress,
                send_key,
                receive_key,
                confirmed,
            })
        };
        self.command(VIEWER, keys(5, hop(1, 1000), hop(1, 1001), out, back, true));
        self.command(GATEWAY, keys(6, hop(2, 2000), hop(2, 2001), back, out, confirmed));
    }

    fn command(&mut self, node: usize, command: Command) {
        let mut tx = TxBatch::default();
        self.nodes[node].command(self.now, command, &mut tx);
        self.send(node, &mut tx);
    }

    fn node_at(address: core::net::SocketAddr) -> usize {
        (0..3).find(|&n| self::address(n) == address).unwrap()
    }

    fn send(&mut self, from: usize, tx: &mut TxBatch) {
        let (trains, buffer) = tx.ready();
        for train in trains {
            for datagram in buffer[train.range.clone()].chunks(train.segment) {
                self.wire
                    .push((from, Self::node_at(train.remote.address), datagram.to_vec()));
            }
        }
    }

    fn tun_in(&mut self, node: usize, vnet: VnetHeader, packet: &[u8]) {
        let (mut tx, mut tun) = (TxBatch::default(), TunBatch::default());
        self.nodes[node].handle_tun(self.now, vnet, packet, &mut tx, &mut tun);
        self.send(node, &mut tx);
        self.take_tun(node, &tun, &[]);
        self.take_events(node);
    }

    fn take_tun(&mut self, node: usize, tun: &TunBatch, buffer: &[u8]) {
        for write in &tun.writes {
            let head = &tun.heads[write.head.clone()];
            let vnet = VnetHeader::parse(head.first_chunk().unwrap());
            let mut packet = head[VNET_HEADER..].to_vec();
            for piece in &tun.pieces[write.pieces.clone()] {
                packet.extend_from_slice(&buffer[piece.clone()]);
            }
            self.tun[node].push((vnet, packet));
        }
    }

    fn take_events(&mut self, node: usize) {
        while let Some(event) = self.nodes[node].poll_event() {
            self.events[node].push(event);
        }
    }

    /// Hands one datagram to a node, as the last hop would.
    fn receive(&mut self, from: usize, to: usize, buffer: &mut [u8], segment: usize) {
        let mut rx = RxBatch::default();
        self.nodes[to].handle_datagrams(self.now, remote(from), buffer, segment, &mut rx);
        for train in &rx.relays {
            for datagram in buffer[train.range.clone()].chunks(train.segment) {
                self.wire
                    .push((to, Self::node_at(train.remote.address), datagram.to_vec()));
            }
        }
        self.send(to, &mut rx.tx);
        self.take_tun(to, &rx.tun, buffer);
        self.take_events(to);
    }

    /// Carries everything until nothing moves; equal-sized neighbours go as one buffer, as GRO would have it. Returns all that went by.
    fn run(&mut self) -> Vec<(usize, usize, Vec<u8>)> {
        let mut seen = Vec::new();
        while !self.wire.is_empty() {
            let mut batch = std::mem::take(&mut self.wire).into_iter().peekable();
            while let Some((from, to, mut buffer)) = batch.next() {
                seen.push((from, to, buffer.clone()));
                let segment = buffer.len();
                while let Some((_, _, next)) = batch.next_if(|(f, t, d)| {
                    (*f, *t) == (from, to) && d.len() <= segment && buffer.len() % segment == 0 && buffer.len() < 50_000
                }) {
                    seen.push((from, to, next.clone()));
                    buffer.extend_from_slice(&next);
                }
                self.receive(from, to, &mut buffer, segment);
            }
        }
        seen
    }

    fn timeout(&mut self, node: usize) {
        let mut tx = TxBatch::default();
        self.nodes[node].handle_timeout(self.now, &mut tx);
        self.send(node, &mut tx);
        self.take_events(node);
    }

    /// Lets both ends send something long, so that the path's size is known.
    fn probed() -> Self {
        let mut lab = Self::new();
        let (vnet, there) = udp(ip(1), ip(9), (9999, 5000), &[0; 1_400]);
        lab.tun_in(VIEWER, vnet, &there);
        lab.run();
        let (vnet, back) = udp(ip(77), ip(88), (5000, 9999), &[0; 1_400]);
        lab.tun_in(GATEWAY, vnet, &back);
        lab.run();
        for node in [VIEWER, GATEWAY, VIEWER, GATEWAY] {
            lab.timeout(node);
            lab.run();
        }
        for node in [VIEWER, GATEWAY] {
            let sessions = lab.nodes[node].stats(lab.now).sessions;
            assert_eq!(sessions[0].path_mtu, Some(1_500));
            assert!(!std::mem::take(&mut lab.tun[node]).is_empty());
        }
        lab
    }

    fn drops(&self, node: usize, reason: DropReason) -> u64 {
        let stats = self.nodes[node].stats(self.now);
        stats.drops.iter().find(|(name, _)| *name == reason.name()).unwrap().1
    }
}

#[allow(clippy::too_many_arguments)]
fn header(
    out: &mut [u8],
    source: core::net::IpAddr,
    destination: core::net::IpAddr,
    protocol: u8,
    traffic_class: u8,
    hop_limit: u8,
    payload: usize,
    dont_fragment: bool,
) -> usize {
    let identification = (!dont_fragment).then_some(1);
    IpRepr {
        source,
        destination,
        protocol,
        traffic_class,
        hop_limit,
        identification,
    }
    .write(out, payload)
}

/// A whole TCP packet as a host would hand it to its TUN: checksum begun only.
fn tcp(
    source: core::net::IpAddr,
    destination: core::net::IpAddr,
    ports: (u16, u16),
    seq: u32,
    flags: u8,
    payload: &[u8],
) -> (VnetHeader, Vec<u8>) {
    let mut packet = vec![0; 60];
    let at = header(&mut packet, source, destination, 6, 0xb8, 64, 20 + payload.len(), true);
    packet.truncate(at);
    packet.extend_from_slice(&ports.0.to_be_bytes());
    packet.extend_from_slice(&ports.1.to_be_bytes());
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 9, 5 << 4, flags, 1, 2, 0, 0, 0, 0]);
    packet.extend_from_slice(payload);
    let vnet = VnetHeader {
        flags: 1,
        csum_start: at as u16,
        csum_offset: 16,
        ..VnetHeader::default()
    };
    (vnet, packet)
}

fn udp(
    source: core::net::IpAddr,
    destination: core::net::IpAddr,
    ports: (u16, u16),
    payload: &[u8],
) -> (VnetHeader, Vec<u8>) {
    let mut packet = vec![0; 60];
    let at = header(&mut packet, source, destination, 17, 0, 64, 8 + payload.len(), false);
    packet.truncate(at);
    packet.extend_from_slice(&ports.0.to_be_bytes());
    packet.extend_from_slice(&ports.1.to_be_bytes());
    packet.extend_from_slice(&(8 + payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(payload);
    (
        VnetHeader {
            flags: 1,
            csum_start: at as u16,
            csum_offset: 6,
            ..VnetHeader::default()
        },
        packet,
    )
}

#[test]
fn a_super_packet_arrives_as_one_with_new_addresses_and_the_answer_comes_back() {
    let mut lab = Lab::probed();
    let payload: Vec<u8> = (0..30_000u32).map(|i| (i * 7) as u8).collect();
    let (mut vnet, packet) = tcp(ip(1), ip(9), (4000, 554), 100, 0x18, &payload);
    vnet.gso_type = gso::TCPV4;
    vnet.gso_size = 1380;
    lab.tun_in(VIEWER, vnet, &packet);
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
    assert_eq!(got[33], 0x18);

    let (vnet, packet) = tcp(ip(77), ip(88), (554, 4000), 9, 0x18, b"answer");
    lab.tun_in(GATEWAY, vnet, &packet);
    lab.run();
    let (_, got) = &lab.tun[VIEWER][0];
    assert_eq!(&got[40..], b"answer");
    let parsed = IpPacket::parse(got).unwrap();
    assert_eq!((parsed.source, parsed.destination), (ip(9), ip(1)));
}

/// Packets that the viewer's host hands over in one round; what the gateway's host gets.
fn in_one_round(lab: &mut Lab, packets: &[(VnetHeader, Vec<u8>)]) -> Vec<Vec<u8>> {
    let (mut tx, mut tun) = (TxBatch::default(), TunBatch::default());
    for (vnet, packet) in packets {
        lab.nodes[VIEWER].handle_tun(lab.now, *vnet, packet, &mut tx, &mut tun);
    }
    lab.send(VIEWER, &mut tx);
    lab.run();
    lab.tun[GATEWAY].drain(..).map(|(_, packet)| packet).collect()
}

#[test]
fn of_acknowledgements_that_wait_together_the_last_is_sent_unless_one_says_more() {
    const ACK: u8 = 0x10;
    let mut lab = Lab::new();
    let acknowledgement = |ack: u8, seq: u32, flags: u8, payload: &[u8]| {
        let (vnet, mut packet) = tcp(ip(1), ip(9), (40_000, 554), seq, flags, payload);
        packet[31] = ack;
        (vnet, packet)
    };
    let acked = |packets: Vec<Vec<u8>>| packets.iter().map(|packet| packet[31]).collect::<Vec<_>>();
    in_one_round(&mut lab, &[acknowledgement(9, 1, 2, &[])]);
    let plain = |ack: u8| acknowledgement(ack, 2, ACK, &[]);
    assert_eq!(acked(in_one_round(&mut lab, &[plain(10), plain(20), plain(30)])), [30]);
    assert_eq!(
        acked(in_one_round(&mut lab, &[plain(40)])),
        [40],
        "one alone goes at once"
    );
    assert_eq!(
        acked(in_one_round(&mut lab, &[plain(50), plain(50), plain(50)])),
        [50, 50, 50],
        "repeated ones tell of a loss"
    );
    assert_eq!(acked(in_one_round(&mut lab, &[plain(60), plain(55)])), [60, 55]);
    let data = acknowledgement(70, 2, ACK, b"x");
    let behind = acknowledgement(75, 3, ACK, &[]);
    assert_eq!(acked(in_one_round(&mut lab, &[plain(65), data, behind])), [65, 70, 75]);
    let marked = acknowledgement(85, 3, ACK | 0x40, &[]);
    let after = acknowledgement(90, 3, ACK, &[]);
    assert_eq!(
        acked(in_one_round(&mut lab, &[marked, after])),
        [85, 90],
        "an echo of congestion is no plain one"
    );
}

#[test]
fn an_ipv6_program_reaches_an_ipv4_device_while_an_ipv4_one_uses_the_same_ports() {
    let mut lab = Lab::new();
    let (own6, peer6) = ("fd00::1".parse().unwrap(), "fd00::9".parse().unwrap());
    let (vnet, packet) = tcp(ip(1), ip(9), (4000, 554), 1, 0x02, b"");
    lab.tun_in(VIEWER, vnet, &packet);
    let (vnet, packet) = tcp(own6, peer6, (4000, 554), 1, 0x02, b"");
    lab.tun_in(VIEWER, vnet, &packet);
    lab.run();
    assert_eq!(lab.tun[GATEWAY].len(), 2);
    let second = lab.tun[GATEWAY][1].1.clone();
    assert_eq!(second[0] >> 4, 4);
    let port = u16::from_be_bytes([second[20], second[21]]);
    assert_ne!(port, 4000);
    let (vnet, packet) = tcp(ip(77), ip(88), (554, port), 9, 0x12, b"");
    lab.tun_in(GATEWAY, vnet, &packet);
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
    let mut lab = Lab::new();
    let (vnet, packet) = tcp(ip(1), ip(9), (4000, 22), 1, 0x02, b"");
    lab.tun_in(VIEWER, vnet, &packet);
    lab.run();
    assert!(lab.tun[GATEWAY].is_empty());
    assert_eq!(lab.drops(GATEWAY, DropReason::PortNotAllowed), 1);
    let (_, reset) = &lab.tun[VIEWER][0];
    assert_eq!(reset[33] & 4, 4, "the program sees a reset");
    assert_eq!(
        u32::from_be_bytes(*reset[28..].first_chunk().unwrap()),
        2,
        "which acknowledges its SYN"
    );
    assert!(
        lab.events[VIEWER]
            .iter()
            .any(|e| matches!(e, Event::FlowDenied { port: 22, .. }))
    );
    // New flows from the device's side are nobody's.
    let (vnet, packet) = tcp(ip(77), ip(88), (9999, 80), 1, 0x02, b"");
    lab.tun_in(GATEWAY, vnet, &packet);
    assert_eq!(lab.drops(GATEWAY, DropReason::OutboundNotAllowed), 1);
    assert!(lab.run().is_empty());
}

#[test]
fn a_connection_that_nobody_has_shows_itself_to_a_host_that_calls_and_is_counted_where_no_address_stands_for_the_caller()
 {
    let mut lab = Lab::new();
    let calls = Policy {
        outbound: true,
        ..Policy::default()
    };
    lab.policy(GATEWAY, 6, calls);
    let show = |lab: &mut Lab| {
        let (vnet, packet) = tcp(ip(1), ip(9), (4000, 8080), 1, 0x10, b"go on");
        lab.tun_in(VIEWER, vnet, &packet);
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
            session: SessionId(6),
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
    let mut lab = Lab::new();
    let (vnet, packet) = tcp(ip(1), ip(9), (4000, 554), 1, 0x18, b"x");
    lab.tun_in(VIEWER, vnet, &packet);
    lab.run();
    assert_eq!(lab.tun[GATEWAY].len(), 1);
    lab.policy(GATEWAY, 6, Policy::default());
    let (vnet, packet) = tcp(ip(1), ip(9), (4000, 554), 2, 0x18, b"x");
    lab.tun_in(VIEWER, vnet, &packet);
    let (vnet, back) = tcp(ip(77), ip(88), (554, 4000), 2, 0x18, b"x");
    lab.tun_in(GATEWAY, vnet, &back);
    lab.run();
    assert_eq!(lab.tun[GATEWAY].len(), 1);
    assert_eq!(lab.drops(GATEWAY, DropReason::PortNotAllowed), 1);
    assert_eq!(lab.drops(GATEWAY, DropReason::OutboundNotAllowed), 1);
}

#[test]
fn long_datagrams_go_in_parts_and_short_ones_merge() {
    let mut lab = Lab::probed();
    let long: Vec<u8> = (0..4_000u32).map(|i| i as u8).collect();
    let (vnet, packet) = udp(ip(1), ip(9), (4000, 5000), &long);
    lab.tun_in(VIEWER, vnet, &packet);
    let wire = lab.run();
    assert_eq!(wire.iter().filter(|(from, ..)| *from == VIEWER).count(), 3);
    assert!(wire.iter().all(|(_, _, d)| d.len() <= DATAGRAM));
    assert_eq!(&lab.tun[GATEWAY][0].1[28..], &long[..]);
    for i in 0..5u8 {
        let (vnet, packet) = udp(ip(1), ip(9), (4000, 5000), &[i; 300]);
        lab.tun_in(VIEWER, vnet, &packet);
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
    let mut lab = Lab::new();
    let payload: Vec<u8> = (0..1_000u32).map(|i| i as u8).collect();
    let (_, mut packet) = udp(ip(1), ip(9), (4000, 5000), &payload);
    let sum = checksum(sum_bytes(
        pseudo_header_sum(ip(1), ip(9), 17, packet.len() - 20),
        &packet[20..],
    ));
    packet[26..28].copy_from_slice(&sum.to_be_bytes());
    let fragment = |range: std::ops::Range<usize>, more: bool| {
        let mut f = vec![0; 20];
        header(&mut f, ip(1), ip(9), 17, 0, 64, range.len(), false);
        let field = (range.start as u16 / 8) | if more { 0x2000 } else { 0 };
        f[6..8].copy_from_slice(&field.to_be_bytes());
        f.extend_from_slice(&packet[20..][range]);
        f
    };
    let (first, second) = (fragment(0..800, true), fragment(800..1008, false));
    lab.tun_in(VIEWER, VnetHeader::default(), &second);
    lab.tun_in(VIEWER, VnetHeader::default(), &first);
    lab.run();
    assert_eq!(&lab.tun[GATEWAY][0].1[28..], &payload[..]);
    packet[26] ^= 1;
    lab.tun_in(VIEWER, VnetHeader::default(), &packet);
    assert_eq!(lab.drops(VIEWER, DropReason::BadChecksum), 1);
}

#[test]
fn an_echo_crosses_and_its_answer_only_to_who_asked() {
    let mut lab = Lab::new();
    let echo = |source, destination, kind: u8| {
        let mut p = vec![0; 20];
        header(&mut p, source, destination, 1, 0, 64, 12, false);
        let mut m = vec![kind, 0, 0, 0, 0, 7, 0, 1, 1, 2, 3, 4];
        let sum = checksum(sum_bytes(0, &m));
        m[2..4].copy_from_slice(&sum.to_be_bytes());
        p.extend(m);
        p
    };
    lab.tun_in(GATEWAY, VnetHeader::default(), &echo(ip(77), ip(88), 0));
    assert_eq!(lab.drops(GATEWAY, DropReason::NotAFlow), 1);
    lab.tun_in(VIEWER, VnetHeader::default(), &echo(ip(1), ip(9), 8));
    lab.run();
    assert_eq!(lab.tun[GATEWAY][0].1[20], 8);
    lab.tun_in(GATEWAY, VnetHeader::default(), &echo(ip(77), ip(88), 0));
    lab.run();
    let got = &lab.tun[VIEWER][0].1;
    assert_eq!((got[20], checksum(sum_bytes(0, &got[20..]))), (0, 0));
}

#[test]
fn every_flipped_bit_is_dropped_and_the_session_goes_on() {
    let mut lab = Lab::new();
    let (vnet, packet) = udp(ip(1), ip(9), (4000, 5000), b"0123456789");
    lab.tun_in(VIEWER, vnet, &packet);
    let (from, to, datagram) = lab.wire.pop().unwrap();
    for bit in 0..datagram.len() * 8 {
        let mut bad = datagram.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let len = bad.len();
        lab.receive(from, to, &mut bad, len);
        // The ciphertext isn't under the hop tag: the relay passes it on, the gateway refuses it. Its counter is used up by then.
        lab.run();
        assert!(lab.tun[GATEWAY].is_empty(), "bit {bit}");
    }
    let (vnet, packet) = udp(ip(1), ip(9), (4000, 5000), b"again");
    lab.tun_in(VIEWER, vnet, &packet);
    lab.run();
    assert_eq!(&lab.tun[GATEWAY][0].1[28..], b"again");
}

#[test]
fn replays_deliver_nothing_and_a_rekey_loses_nothing() {
    let mut lab = Lab::new();
    let mut all = Vec::new();
    for i in 0..8u8 {
        if i == 4 {
            let (a, b) = ([71; 32], [72; 32]);
            lab.command(
                GATEWAY,
                Command::PathRekey {
                    path: PathId(1),
                    slot: 1,
                    send_key: b,
                    receive_key: a,
                    confirmed: false,
                },
            );
            lab.command(
                VIEWER,
                Command::PathRekey {
                    path: PathId(1),
                    slot: 1,
                    send_key: a,
                    receive_key: b,
                    confirmed: true,
                },
            );
        }
        let (vnet, packet) = udp(ip(1), ip(9), (4000, 5000), &[i; 40 + 7]);
        lab.tun_in(VIEWER, vnet, &packet);
    }
    // Out of order over the change of keys.
    lab.wire.reverse();
    all.extend(lab.run());
    let delivered: usize = lab.tun[GATEWAY].iter().map(|(_, p)| (p.len() - 28) / 47).sum();
    assert_eq!(delivered, 8);
    assert!(
        lab.events[GATEWAY]
            .iter()
            .any(|e| matches!(e, Event::PathKeyConfirmed { slot: 1, .. }))
    );
    let before = lab.tun[GATEWAY].len();
    for (from, to, mut datagram) in all {
        let len = datagram.len();
        lab.receive(from, to, &mut datagram, len);
    }
    assert!(lab.wire.is_empty());
    assert_eq!(lab.tun[GATEWAY].len(), before);
}

#[test]
fn an_unconfirmed_path_sends_only_after_the_first_valid_packet() {
    let mut lab = Lab::new();
    let mut other = Lab::new();
    // A fresh gateway whose path nobody confirmed.
    lab.command(GATEWAY, Command::PathRemove { path: PathId(1) });
    lab.command(VIEWER, Command::PathRemove { path: PathId(1) });
    lab.path(2, false);
    let (vnet, packet) = tcp(ip(77), ip(88), (554, 4000), 1, 0x18, b"x");
    lab.tun_in(GATEWAY, vnet, &packet);
    assert_eq!(lab.drops(GATEWAY, DropReason::NoPath), 1);
    let (vnet, packet) = tcp(ip(1), ip(9), (4000, 554), 1, 0x18, b"x");
    lab.tun_in(VIEWER, vnet, &packet);
    lab.run();
    assert!(lab.events[GATEWAY].contains(&Event::PathConfirmed {
        session: SessionId(6),
        path: PathId(2)
    }));
    let (vnet, packet) = tcp(ip(77), ip(88), (554, 4000), 1, 0x18, b"x");
    lab.tun_in(GATEWAY, vnet, &packet);
    lab.run();
    assert_eq!(lab.tun[VIEWER].len(), 1);
    assert!(other.run().is_empty());
}

#[test]
fn a_link_frame_is_read_once_and_a_new_address_is_only_reported() {
    let mut lab = Lab::new();
    lab.command(
        VIEWER,
        Command::LinkSend {
            link: LinkId(1),
            generation: None,
            to: None,
            keep_alive: false,
            frame: b"\x01hello".to_vec(),
        },
    );
    let (_, _, frame) = lab.wire.pop().unwrap();
    for bit in 0..frame.len() * 8 {
        let mut bad = frame.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let len = bad.len();
        lab.receive(VIEWER, RELAY, &mut bad, len);
    }
    assert!(!lab.events[RELAY].iter().any(|e| matches!(e, Event::LinkFrame { .. })));
    let (mut first, mut again) = (frame.clone(), frame);
    let len = first.len();
    // From another source: read, and the address reported, not taken.
    lab.receive(GATEWAY, RELAY, &mut first, len);
    lab.receive(VIEWER, RELAY, &mut again, len);
    let frames = lab.events[RELAY]
        .iter()
        .filter(|e| matches!(e, Event::LinkFrame { .. }))
        .count();
    assert_eq!(frames, 1);
    assert!(lab.events[RELAY].iter().any(|e| matches!(e, Event::LinkRoamed { .. })));
    assert_eq!(lab.drops(RELAY, DropReason::Replayed), 1);
}

/// A frame of the viewer's under the keys of this generation, sealed here.
fn frame_of(lab: &mut Lab, generation: Option<u32>) -> Vec<u8> {
    lab.command(
        VIEWER,
        Command::LinkSend {
            link: LinkId(1),
            generation: generation.map(Generation),
            to: None,
            keep_alive: false,
            frame: b"\x01hello".to_vec(),
        },
    );
    lab.wire.pop().unwrap().2
}

/// New keys of the link between viewer and relay, as a fresh handshake makes them: the viewer's are confirmed, the relay's aren't.
fn shake_again(lab: &mut Lab, generation: u32) {
    for (node, to, child) in [(VIEWER, RELAY, true), (RELAY, VIEWER, false)] {
        let Command::LinkInstall(keys) = link_keys(1, to, child) else {
            unreachable!()
        };
        let keys = LinkKeys {
            generation: Generation(generation),
            receive_index: keys.receive_index + 100 * generation,
            send_index: keys.send_index + 100 * generation,
            confirmed: child,
            ..keys
        };
        lab.command(node, Command::LinkInstall(keys));
    }
}

/// Where the relay sends what goes to the viewer.
fn relays_to(lab: &mut Lab) -> Remote {
    let mut tx = TxBatch::default();
    let frame = Command::LinkSend {
        link: LinkId(1),
        generation: None,
        to: None,
        keep_alive: false,
        frame: b"\x01x".to_vec(),
    };
    lab.nodes[RELAY].command(lab.now, frame, &mut tx);
    tx.ready().0[0].remote
}

#[test]
fn new_keys_do_not_move_a_live_link_but_ask_for_a_probe_of_the_address_that_they_came_from() {
    let mut lab = Lab::new();
    shake_again(&mut lab, 7);
    let mut frame = frame_of(&mut lab, None);
    let len = frame.len();
    lab.receive(GATEWAY, RELAY, &mut frame, len);
    let from = remote(GATEWAY);
    let told: Vec<_> = lab.events[RELAY]
        .iter()
        .filter(|e| !matches!(e, Event::LinkFrame { .. }))
        .collect();
    let (link, generation) = (LinkId(1), Generation(7));
    assert_eq!(
        told,
        [
            &Event::LinkConfirmed { link, generation, from },
            &Event::LinkRoamed { link, from }
        ]
    );
    assert_eq!(relays_to(&mut lab), remote(VIEWER), "until the probe is answered");
    lab.command(RELAY, Command::LinkMove { link, remote: from });
    assert_eq!(relays_to(&mut lab), from);
}

#[test]
fn a_link_that_was_never_up_is_where_its_first_frame_came_from() {
    let mut lab = Lab::new();
    lab.command(RELAY, Command::LinkRemove { link: LinkId(1) });
    shake_again(&mut lab, 7);
    let mut frame = frame_of(&mut lab, None);
    let len = frame.len();
    lab.receive(GATEWAY, RELAY, &mut frame, len);
    assert_eq!(relays_to(&mut lab), remote(GATEWAY));
    assert!(!lab.events[RELAY].iter().any(|e| matches!(e, Event::LinkRoamed { .. })));
}

#[test]
fn a_parent_answers_from_the_address_that_its_child_called_and_a_child_as_its_host_routes() {
    let mut lab = Lab::new();
    let at = |node: usize, local: u8| Remote {
        local: Some([192, 0, 2, local].into()),
        ..remote(node)
    };
    let mut frame = frame_of(&mut lab, None);
    let mut rx = RxBatch::default();
    let (now, len) = (lab.now, frame.len());
    lab.nodes[RELAY].handle_datagrams(now, at(VIEWER, 33), &mut frame, len, &mut rx);
    lab.take_events(RELAY);
    let from = at(VIEWER, 33);
    assert!(lab.events[RELAY].contains(&Event::LinkRoamed { link: LinkId(1), from }));
    lab.command(
        RELAY,
        Command::LinkMove {
            link: LinkId(1),
            remote: from,
        },
    );
    assert_eq!(relays_to(&mut lab), from);
    // The same at the child, which may get another address of its own at any time.
    let mut tx = TxBatch::default();
    let frame = Command::LinkSend {
        link: LinkId(1),
        generation: None,
        to: None,
        keep_alive: false,
        frame: b"\x01x".to_vec(),
    };
    lab.nodes[RELAY].command(now, frame, &mut tx);
    let (trains, buffer) = tx.ready();
    let mut bytes = buffer[trains[0].range.clone()].to_vec();
    let len = bytes.len();
    lab.nodes[VIEWER].handle_datagrams(now, at(RELAY, 44), &mut bytes, len, &mut rx);
    lab.take_events(VIEWER);
    assert!(!lab.events[VIEWER].iter().any(|e| matches!(e, Event::LinkRoamed { .. })));
    assert!(
        lab.events[VIEWER]
            .iter()
            .any(|e| matches!(e, Event::LinkFrame { from, .. } if *from == remote(RELAY)))
    );
}

#[test]
fn link_keys_past_their_life_seal_and_open_nothing_while_labels_live_on() {
    let mut lab = Lab::new();
    let mut late = frame_of(&mut lab, None);
    let start = lab.now;
    lab.now = start + Duration::from_secs(180);
    let mut frame = frame_of(&mut lab, None);
    let len = frame.len();
    lab.receive(VIEWER, RELAY, &mut frame, len);
    assert!(lab.events[RELAY].iter().any(|e| matches!(e, Event::LinkFrame { .. })));
    lab.now = start + Duration::from_secs(181);
    lab.events[RELAY].clear();
    lab.receive(VIEWER, RELAY, &mut late, len);
    assert_eq!((lab.events[RELAY].len(), lab.drops(RELAY, DropReason::NoKey)), (0, 1));
    lab.command(
        VIEWER,
        Command::LinkSend {
            link: LinkId(1),
            generation: None,
            to: None,
            keep_alive: false,
            frame: b"\x01x".to_vec(),
        },
    );
    assert_eq!((lab.wire.len(), lab.drops(VIEWER, DropReason::NoKey)), (0, 1));
    // Hop keys die with their labels only: what the ends seal under keys of their own goes through.
    for (node, session_keys) in [(VIEWER, ([61; 32], [62; 32])), (GATEWAY, ([62; 32], [61; 32]))] {
        let rekey = Command::PathRekey {
            path: PathId(1),
            slot: 1,
            send_key: session_keys.0,
            receive_key: session_keys.1,
            confirmed: true,
        };
        lab.command(node, rekey);
    }
    let (vnet, packet) = tcp(ip(1), ip(9), (4000, 554), 1, 0x18, b"x");
    lab.tun_in(VIEWER, vnet, &packet);
    lab.run();
    assert_eq!(lab.tun[GATEWAY].len(), 1);
    // And new link keys serve the link again.
    shake_again(&mut lab, 7);
    let mut frame = frame_of(&mut lab, None);
    let len = frame.len();
    lab.receive(VIEWER, RELAY, &mut frame, len);
    assert!(
        lab.events[RELAY]
            .iter()
            .any(|e| matches!(e, Event::LinkConfirmed { .. }))
    );
}

#[test]
fn the_portable_aead_is_rfc_8439s() {
    // RFC 8439, 2.8.2, with our nonce form: the vector's nonce isn't of it, so the tag is checked against a second implementation in aead's tests.
    let key = Portable::key(&[1; 32]);
    let mut data = *b"plain";
    let tag = Portable::seal(&key, 7, b"aad", &mut data);
    let mut whole = [&data[..], &tag[..]].concat();
    assert!(Portable::open(&key, 7, b"aad", &mut whole));
    assert_eq!(&whole[..5], b"plain");
}

#[test]
fn a_relay_tells_which_labels_it_has_freed() {
    let mut lab = Lab::new();
    let (vnet, packet) = tcp(ip(1), ip(9), (4000, 554), 1, 0x18, b"x");
    lab.tun_in(VIEWER, vnet, &packet);
    lab.run();
    let freed = |lab: &mut Lab, after: u64| {
        lab.now = Instant::from_micros(1_000_000) + Duration::from_secs(after);
        for node in 0..3 {
            lab.timeout(node);
        }
        let told = |e: &Event| matches!(e, Event::LabelExpired { .. });
        lab.events
            .iter()
            .map(|of| of.iter().filter(|e| told(e)).count())
            .sum::<usize>()
    };
    // Nothing ever came back from the gateway; what leads to it has carried a packet; labels of the ends stay.
    assert_eq!(freed(&mut lab, 19), 0);
    assert_eq!(freed(&mut lab, 21), 1);
    assert_eq!(freed(&mut lab, 598), 1);
    assert_eq!(freed(&mut lab, 601), 2);
    assert!(lab.events[RELAY].contains(&Event::LabelExpired {
        link: LinkId(2),
        label: Label(2001)
    }));
}
