//! Whatever a certified peer seals, and whatever comes to a socket or out of the TUN: nothing panics, and only what policy lists gets through.

#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use thicket_core::aead::{Aead, Portable};
use thicket_core::keyed::{Direction, HopKey};
use thicket_core::wire::*;
use thicket_core::*;

const OWN: core::net::IpAddr = core::net::IpAddr::V4(core::net::Ipv4Addr::new(198, 18, 0, 2));
const PEER: core::net::IpAddr = core::net::IpAddr::V4(core::net::Ipv4Addr::new(198, 18, 0, 9));
const LABEL: u32 = 2000;
const SECRET: [u8; 32] = [51; 32];
const KEY: [u8; 32] = [61; 32];

fn far() -> Remote {
    Remote::new(0, ([192, 0, 2, 1], 7117).into())
}

fn service(protocol: u8, port: u16, rtsp: bool) -> Service {
    Service {
        protocol,
        port,
        v6: false,
        target: ([192, 168, 1, 20], port).into(),
        account: u32::from(port),
        rtsp: rtsp.then_some([192, 168, 1, 1].into()),
    }
}

/// A gateway with one link, one session and one path; the far end's keys are ours to use.
struct Gateway {
    core: Core<Portable>,
    now: Instant,
    counter: u64,
}

impl Gateway {
    fn new() -> Self {
        let core = Core::new(CoreConfig {
            node_key: [7; 32],
            listening: true,
            tun: TunFeatures {
                checksum: true,
                tso: true,
                uso: true,
            },
            seed: [9; 32],
        });
        let mut gateway = Self {
            core,
            now: Instant::from_micros(1_000_000),
            counter: 0,
        };
        let hop = |label| Hop {
            link: LinkId(1),
            label: Label(label),
            generation: Generation(1),
        };
        gateway.order(Command::LinkInstall(LinkKeys {
            link: LinkId(1),
            generation: Generation(1),
            remote: far(),
            initiator: true,
            receive_index: 11,
            send_index: 21,
            send_key: [1; 32],
            receive_key: [2; 32],
            hop_secret: SECRET,
            confirmed: true,
        }));
        let session = SessionId(6);
        let pair = Pair {
            v4: Some((OWN, PEER)),
            v6: None,
        };
        gateway.order(Command::SessionOpen { session, pair });
        gateway.order(Command::SessionPolicy {
            session,
            policy: Policy {
                inbound: vec![
                    service(protocol::TCP, 80, false),
                    service(protocol::TCP, 554, true),
                    service(protocol::UDP, 5000, false),
                ],
                outbound: false,
                echo: true,
                rtsp_ports: vec![],
            },
        });
        gateway.order(Command::PathInstall(PathKeys {
            path: PathId(1),
            session,
            ingress: hop(LABEL),
            egress: hop(LABEL + 1),
            send_key: [62; 32],
            receive_key: KEY,
            confirmed: true,
        }));
        gateway
    }

    fn order(&mut self, command: Command) {
        self.core.command(self.now, command, &mut TxBatch::default());
    }

    /// Seals `inner` as the far end would.
    fn sealed(&mut self, inner: &[u8]) -> Vec<u8> {
        let hop = HopKey::derive(&SECRET, LABEL, Direction::FromResponder);
        let counter = self.counter;
        self.counter += 1;
        let mut body = inner.to_vec();
        let tag = Portable::seal(&Portable::key(&KEY), counter, &[], &mut body);
        let mut packet = vec![0; DATA_HEADER];
        DataHeader {
            label: LABEL,
            counter,
            hop_tag: hop.tag(LABEL, counter, &tag),
        }
        .write(&mut packet);
        packet.extend_from_slice(&body);
        packet.extend_from_slice(&tag);
        packet
    }

    /// What comes out of the TUN for one datagram.
    fn take(&mut self, datagram: &mut [u8]) -> Vec<Vec<u8>> {
        let mut rx = RxBatch::default();
        let segment = datagram.len().max(1);
        self.core.handle_datagrams(self.now, far(), datagram, segment, &mut rx);
        while self.core.poll_event().is_some() {}
        while self.core.poll_media().is_some() {}
        self.now = self.now + Duration::from_millis(1);
        rx.tun
            .writes
            .iter()
            .map(|write| {
                let mut packet = rx.tun.heads[write.head.clone()].to_vec();
                for piece in &rx.tun.pieces[write.pieces.clone()] {
                    packet.extend_from_slice(&datagram[piece.clone()]);
                }
                packet.split_off(VNET_HEADER)
            })
            .collect()
    }
}

/// Only what policy lists, under the session's own addresses.
fn allowed(packet: &[u8]) -> bool {
    let Some(ip) = IpPacket::parse(packet) else {
        return false;
    };
    if (ip.source, ip.destination) != (PEER, OWN) {
        return false;
    }
    let port = u16::from_be_bytes([packet[ip.transport_at + 2], packet[ip.transport_at + 3]]);
    match ip.transport {
        Transport::Tcp { .. } => port == 80 || port == 554,
        Transport::Udp => port == 5000,
        Transport::Icmp => packet[ip.transport_at] == 8,
        Transport::Fragment { .. } => false,
    }
}

/// A plausible inner packet: a kind, then bytes of which some are meant well.
fn inner() -> impl Strategy<Value = Vec<u8>> {
    let port = prop::sample::select(vec![80u16, 554, 5000, 22, 53, 0]);
    (
        0u8..8,
        any::<u8>(),
        0u8..4,
        port,
        prop::collection::vec(any::<u8>(), 0..200),
        any::<bool>(),
    )
        .prop_map(|(kind, class, hops, port, mut body, shaped)| {
            if shaped && body.len() >= 20 {
                body[2..4].copy_from_slice(&port.to_be_bytes());
                body[12] = (body[12] & 0x0f) | 0x50;
            }
            let mut inner = vec![kind, class, hops, 0];
            inner.extend_from_slice(&body);
            inner
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_a_peer_seals_reaches_listed_services_only(packets in prop::collection::vec(inner(), 1..40)) {
        let mut gateway = Gateway::new();
        for inner in packets {
            let mut datagram = gateway.sealed(&inner);
            for packet in gateway.take(&mut datagram) {
                prop_assert!(allowed(&packet), "{inner:?} became {packet:?}");
            }
        }
    }

    #[test]
    fn random_datagrams_deliver_nothing(
        first in prop::sample::select(vec![1u32, 2, 3, 4, 11, LABEL, LABEL + 1, 300]),
        mut body in prop::collection::vec(any::<u8>(), 0..1_500),
        segment in 1usize..1_500,
    ) {
        let mut gateway = Gateway::new();
        let word = first.to_be_bytes();
        for (place, byte) in body.iter_mut().zip(word) {
            *place = byte;
        }
        let mut rx = RxBatch::default();
        gateway.core.handle_datagrams(gateway.now, far(), &mut body, segment, &mut rx);
        prop_assert!(rx.tun.writes.is_empty());
        prop_assert!(rx.relays.is_empty());
    }

    #[test]
    fn mutated_packets_deliver_nothing(inner in inner(), at in any::<prop::sample::Index>(), change in 1u8..) {
        let mut gateway = Gateway::new();
        let mut datagram = gateway.sealed(&inner);
        let at = at.index(datagram.len());
        datagram[at] ^= change;
        prop_assert!(gateway.take(&mut datagram).is_empty());
    }

    #[test]
    fn what_the_host_sends_never_panics(
        mut packet in prop::collection::vec(any::<u8>(), 0..300),
        shape in 0u8..6,
        vnet in any::<[u8; VNET_HEADER]>(),
    ) {
        let mut gateway = Gateway::new();
        // Headers meant well, so that what lies behind them is read: TCP, UDP, echo, an ICMP error about a packet of ours.
        if packet.len() >= 60 && shape < 4 {
            let length = (packet.len() as u16).to_be_bytes();
            let protocol = [protocol::TCP, protocol::UDP, protocol::ICMP, protocol::ICMP][usize::from(shape)];
            packet[..20].copy_from_slice(&[0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0, 198, 18, 0, 2, 198, 18, 0, 9]);
            if shape >= 2 {
                packet[20] = if shape == 2 { 8 } else { 3 };
                packet[28] = 0x45;
                packet[40..48].copy_from_slice(&[198, 18, 0, 9, 198, 18, 0, 2]);
            }
        }
        let mut tun = TunBatch::default();
        gateway.core.handle_tun(gateway.now, VnetHeader::parse(&vnet), &packet, &mut TxBatch::default(), &mut tun);
        gateway.core.handle_timeout(gateway.now + Duration::from_secs(5), &mut TxBatch::default());
    }
}

/// The others would prove nothing if nothing ever came through.
#[test]
fn a_listed_datagram_gets_through() {
    let mut gateway = Gateway::new();
    let mut datagram = gateway.sealed(&[2, 0, 64, 0, 0x30, 0x39, 0x13, 0x88, b'h', b'i']);
    let packets = gateway.take(&mut datagram);
    assert_eq!(packets.len(), 1);
    assert!(allowed(&packets[0]) && packets[0].ends_with(b"hi"));
}
