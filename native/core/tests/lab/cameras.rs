//! Two viewers – relay – gateway, and a scripted camera behind the gateway.

// Each program takes what it needs of it.
#![allow(dead_code)]

use super::orders::{self, ALL, config, forward, hop, ip, long_ip, turned};
use super::packets::{ACK, PSH, SYN, header, packet, segment};
use super::{Lab, Packet};
use core::net::IpAddr;
use thicket_core::wire::{IpPacket, Transport, protocol};
use thicket_core::{Duration, Policy, Service};

pub const ANN: usize = 0;
pub const BOB: usize = 1;
pub const RELAY: usize = 2;
pub const GATEWAY: usize = 3;

/// The gateway on the camera's network.
pub const LAN: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 168, 1, 1));

pub const RTSP: Service = Service {
    port: 554,
    rtsp: Some(LAN),
    account: 1,
    ..orders::service(protocol::TCP, 8554)
};

/// The gateway's link.
const FAR: u32 = 9;
/// A viewer's session.
const CALLS: u32 = 5;

/// The gateway's session with a viewer.
pub fn session_of(viewer: usize) -> u32 {
    6 + viewer as u32
}

/// The viewer's address as the gateway's host knows it.
pub fn known_as(viewer: usize) -> IpAddr {
    ip(88 + viewer as u8)
}

impl Lab {
    pub fn cameras() -> Self {
        let mut lab = Self::of((0..4).map(|number| config(number, number == RELAY, ALL)));
        lab.shell.lan = Some((GATEWAY, LAN));
        lab.link(FAR, GATEWAY, RELAY);
        for viewer in [ANN, BOB] {
            let link = 1 + viewer as u32;
            let label = 1_000 * link;
            lab.link(link, viewer, RELAY);
            lab.command(RELAY, forward(hop(link, label + 1), hop(FAR, label + 2)));
            lab.command(RELAY, forward(hop(FAR, label + 3), hop(link, label)));
            let (v4, v6) = ((ip(1), ip(9)), (long_ip(1), long_ip(9)));
            let session = session_of(viewer);
            lab.command(viewer, orders::open_both(CALLS, Some(v4), Some(v6)));
            lab.command(GATEWAY, orders::open(session, ip(77), known_as(viewer)));
            let keys = ([60 + viewer as u8; 32], [70 + viewer as u8; 32]);
            let (near, far) = (
                (hop(link, label), hop(link, label + 1)),
                (hop(FAR, label + 2), hop(FAR, label + 3)),
            );
            lab.command(viewer, orders::path(CALLS, CALLS, near.0, near.1, keys));
            lab.command(GATEWAY, orders::path(session, session, far.0, far.1, turned(keys)));
            lab.watches(viewer, vec![554]);
            lab.allows(viewer, vec![RTSP]);
        }
        lab
    }

    pub fn watches(&mut self, viewer: usize, rtsp_ports: Vec<u16>) {
        let policy = Policy {
            rtsp_ports,
            ..orders::calls()
        };
        self.policy(viewer, CALLS, policy);
    }

    pub fn allows(&mut self, viewer: usize, inbound: Vec<Service>) {
        self.policy(GATEWAY, session_of(viewer), orders::offers(inbound));
    }

    /// A packet of a node's host goes as far as it gets.
    pub fn hand_in(&mut self, node: usize, packet: Packet) {
        self.tun_in(node, packet);
        self.run();
    }

    /// A datagram of the camera's, to a socket of a pair.
    pub fn media(&mut self, id: u32, rtcp: bool, from: (IpAddr, u16), payload: &[u8]) {
        self.device_sends(GATEWAY, id, rtcp, from.into(), payload, payload.len());
    }

    /// Ports that are reserved at a node.
    pub fn open(&self, node: usize) -> u64 {
        self.nodes[node].stats(self.now).media
    }

    /// Time passes, with new keys as the control logic would make them.
    pub fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.slot = (self.slot + 1) % 4;
        for viewer in [ANN, BOB] {
            let keys = ([80 + viewer as u8; 32], [90 + viewer as u8; 32]);
            self.command(viewer, orders::rekey(CALLS, self.slot, keys, true));
            self.command(
                GATEWAY,
                orders::rekey(session_of(viewer), self.slot, turned(keys), true),
            );
        }
        self.later(Duration::from_secs(0));
    }

    /// What came out of a node's TUN since last asked: TCP and UDP apart.
    pub fn written(&mut self, node: usize) -> (Vec<Tcp>, Vec<Udp>) {
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        for (_, packet) in std::mem::take(&mut self.tun[node]) {
            let ip = IpPacket::parse(&packet).unwrap();
            let t = &packet[ip.transport_at..ip.end];
            let half = |at: usize| u16::from_be_bytes([t[at], t[at + 1]]);
            let word = |at: usize| u32::from_be_bytes(*t[at..].first_chunk().unwrap());
            match ip.transport {
                Transport::Tcp { header } => tcp.push(Tcp {
                    seq: word(4),
                    flags: t[13],
                    payload: t[header..].to_vec(),
                }),
                Transport::Udp => udp.push(Udp {
                    to: (ip.destination, half(2)),
                    from: (ip.source, half(0)),
                    payload: t[8..].to_vec(),
                }),
                _ => {}
            }
        }
        (tcp, udp)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Tcp {
    pub seq: u32,
    pub flags: u8,
    pub payload: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Udp {
    pub from: (IpAddr, u16),
    pub to: (IpAddr, u16),
    pub payload: Vec<u8>,
}

/// A program's RTSP connection through the lab.
#[derive(Clone)]
pub struct Player {
    pub viewer: usize,
    pub own: IpAddr,
    pub peer: IpAddr,
    pub port: u16,
    /// Its local port at the gateway.
    pub wire_port: u16,
    pub asked: u32,
    pub answered: u32,
}

impl Player {
    pub fn new(viewer: usize, port: u16) -> Self {
        Self {
            viewer,
            own: ip(1),
            peer: ip(9),
            port,
            wire_port: port,
            asked: 1_000,
            answered: 9_000,
        }
    }

    /// With its three-way handshake done.
    pub fn connect(lab: &mut Lab, viewer: usize, port: u16) -> Self {
        Self::new(viewer, port).shaken(lab)
    }

    pub fn shaken(mut self, lab: &mut Lab) -> Self {
        self.ask_with(lab, SYN, b"");
        self.asked += 1;
        self.answer_with(lab, SYN | ACK, b"");
        self.answered += 1;
        self.ask_with(lab, ACK, b"");
        lab.written(self.viewer);
        lab.written(GATEWAY);
        self
    }

    pub fn tcp(&self, asks: bool, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Packet {
        let (source, destination, from, to) = if asks {
            (self.own, self.peer, self.port, 554)
        } else {
            (ip(77), known_as(self.viewer), 554, self.wire_port)
        };
        packet(
            header(source, destination, protocol::TCP),
            &segment((from, to), seq, ack, flags, payload),
        )
    }

    pub fn ask_with(&self, lab: &mut Lab, flags: u8, payload: &[u8]) {
        lab.hand_in(self.viewer, self.tcp(true, self.asked, self.answered, flags, payload));
    }

    pub fn answer_with(&self, lab: &mut Lab, flags: u8, payload: &[u8]) {
        lab.hand_in(GATEWAY, self.tcp(false, self.answered, self.asked, flags, payload));
    }

    /// Says something, and tells what the camera got.
    pub fn ask(&mut self, lab: &mut Lab, words: &str) -> String {
        self.ask_with(lab, ACK | PSH, words.as_bytes());
        let got = Self::joined(lab.written(GATEWAY).0, self.asked);
        self.asked += words.len() as u32;
        got
    }

    /// The camera says something; what the program got.
    pub fn answer(&mut self, lab: &mut Lab, words: &str) -> String {
        self.answer_with(lab, ACK | PSH, words.as_bytes());
        let got = Self::joined(lab.written(self.viewer).0, self.answered);
        self.answered += words.len() as u32;
        got
    }

    pub fn joined(segments: Vec<Tcp>, from: u32) -> String {
        let mut bytes = Vec::new();
        for segment in segments.into_iter().filter(|s| !s.payload.is_empty()) {
            assert_eq!(segment.seq, from + bytes.len() as u32, "in order");
            bytes.extend(segment.payload);
        }
        String::from_utf8(bytes).unwrap()
    }

    pub fn setup(&mut self, lab: &mut Lab, ports: &str) -> String {
        self.ask(lab, &setup(ports))
    }

    /// The camera agrees, its own ports being `server`.
    pub fn agree(&mut self, lab: &mut Lab, ports: &str, server: &str) -> String {
        self.answer(lab, &agreed(ports, server))
    }
}

pub fn setup(ports: &str) -> String {
    format!(
        "SETUP rtsp://camera.home.thicket:554/live/stream=0 RTSP/1.0\r\nTransport: RTP/AVP/UDP;unicast;client_port={ports}\r\nCSeq: 3\r\n\r\n"
    )
}

pub fn agreed(ports: &str, server: &str) -> String {
    format!(
        "RTSP/1.0 200 OK\r\nCSeq: 3\r\nTransport: RTP/AVP;unicast;source=192.168.1.20;client_port={ports};server_port={server};mode=\"PLAY\"\r\nSession: x\r\n\r\n"
    )
}

/// A connection with media set up from 6100–6101 to 40000–40001.
pub fn playing(lab: &mut Lab, viewer: usize, port: u16) -> (Player, u32) {
    let mut player = Player::connect(lab, viewer, port);
    player.setup(lab, "6100-6101");
    let &(id, ours) = lab.shell.sockets.last().unwrap();
    player.agree(lab, &format!("{ours}-{}", ours + 1), "40000-40001");
    (player, id)
}
