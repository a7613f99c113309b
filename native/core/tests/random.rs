//! Whatever a certified peer seals, and whatever comes to a socket or out of the TUN: nothing panics, and only what policy lists gets through.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use core::net::IpAddr;
use lab::orders::{self, ALL, PATH, config, hop, ip, link_keys, offers, remote, service, turned};
use lab::{Node, written};
use proptest::prelude::*;
use thicket_core::aead::{Aead, Portable};
use thicket_core::keyed::{Direction, HopKey};
use thicket_core::wire::*;
use thicket_core::*;

/// The gateway's host knows the far end by this address, and itself.
fn peer_own() -> (IpAddr, IpAddr) {
    (ip(9), ip(2))
}

/// Where its packets come from.
const FAR: usize = 0;
const SESSION: u32 = 6;
/// The gateway receives under this one, and sends under the next.
const LABEL: u32 = 2000;

/// A gateway with one link, one session and one path; the far end's keys are ours to use.
struct Gateway {
    core: Node,
    now: Instant,
    counter: u64,
}

impl Gateway {
    fn new() -> Self {
        let mut core = Node::new(config(7, true, ALL));
        let now = Instant::from_micros(1_000_000);
        let (peer, own) = peer_own();
        let rtsp = Service {
            rtsp: Some([192, 168, 1, 1].into()),
            ..service(protocol::TCP, 554)
        };
        let policy = Policy {
            echo: true,
            ..offers(vec![service(protocol::TCP, 80), rtsp, service(protocol::UDP, 5000)])
        };
        for command in [
            orders::link(1, remote(FAR), true),
            orders::open(SESSION, own, peer),
            orders::policy(SESSION, policy),
            orders::path(1, SESSION, hop(1, LABEL), hop(1, LABEL + 1), turned(PATH)),
        ] {
            core.command(now, command, &mut TxBatch::default());
        }
        Self { core, now, counter: 0 }
    }

    /// Seals `inner` as the far end would.
    fn sealed(&mut self, inner: &[u8]) -> Vec<u8> {
        let secret = link_keys(1, remote(FAR), true).hop_secret;
        let hop = HopKey::derive(&secret, LABEL, Direction::FromResponder);
        let counter = self.counter;
        self.counter += 1;
        let mut body = inner.to_vec();
        let tag = Portable::seal(&Portable::key(&PATH.0), counter, &[], &mut body);
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
        self.core
            .handle_datagrams(self.now, remote(FAR), datagram, segment, &mut rx);
        while self.core.poll_event().is_some() {}
        while self.core.poll_media().is_some() {}
        self.now = self.now + Duration::from_millis(1);
        written(&rx.tun, datagram)
            .into_iter()
            .map(|(_, packet)| packet)
            .collect()
    }
}

/// Only what policy lists, under the session's own addresses.
fn allowed(packet: &[u8]) -> bool {
    let Some(ip) = IpPacket::parse(packet) else {
        return false;
    };
    if (ip.source, ip.destination) != peer_own() {
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
        gateway.core.handle_datagrams(gateway.now, remote(FAR), &mut body, segment, &mut rx);
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
