//! Viewer – relay – gateway without a network: what one sends lies where the next reads it, so that nothing but the core works. For figures
//! that count the core alone: instructions (../instructions.rs) and allocations (tests/alloc.rs).

// Each program takes what it needs of it.
#![allow(dead_code)]

use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use thicket_core::aead::Aead;
use thicket_core::wire::{IpRepr, VNET_HEADER, VnetHeader, gso, protocol};
use thicket_core::{
    Command, Core, CoreConfig, Duration, Generation, Hop, Instant, Label, LinkId, LinkKeys, Pair, PathId, PathKeys,
    Policy, Remote, RxBatch, Service, SessionId, TunBatch, TunFeatures, TxBatch,
};

/// How far packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The viewer cuts and seals them.
    Seal,
    /// The relay passes them on.
    Relay,
    /// The gateway opens, checks and merges them, ready for its TUN.
    Open,
}

/// What a program hands to the viewer's TUN at once.
pub struct Load {
    vnet: VnetHeader,
    packet: Vec<u8>,
    /// Datagrams that it becomes.
    pub datagrams: usize,
}

const PORT: u16 = 5201;
const OWN: u8 = 1;
const PEER: u8 = 9;

impl Load {
    /// A TCP super-packet of so many full segments.
    pub fn bulk(segments: usize) -> Self {
        const SEGMENT: usize = 1_380;
        let payload = vec![0xa5; segments * SEGMENT];
        let mut packet = ip_header(protocol::TCP, 20 + payload.len());
        let csum_start = packet.len() as u16;
        packet.extend_from_slice(&ports());
        packet.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, 0x10, 1, 0, 0, 0, 0, 0]);
        packet.extend_from_slice(&payload);
        let vnet = VnetHeader {
            flags: 1,
            gso_type: gso::TCPV4,
            header_len: csum_start + 20,
            gso_size: SEGMENT as u16,
            csum_start,
            csum_offset: 16,
        };
        Self {
            vnet,
            packet,
            datagrams: segments,
        }
    }

    /// One UDP datagram with so many bytes of payload.
    pub fn datagram(len: usize) -> Self {
        let mut packet = ip_header(protocol::UDP, 8 + len);
        let csum_start = packet.len() as u16;
        packet.extend_from_slice(&ports());
        packet.extend_from_slice(&(8 + len as u16).to_be_bytes());
        packet.extend_from_slice(&[0, 0]);
        packet.resize(packet.len() + len, 0xa5);
        let vnet = VnetHeader {
            flags: 1,
            csum_start,
            csum_offset: 6,
            ..VnetHeader::default()
        };
        Self {
            vnet,
            packet,
            datagrams: 1,
        }
    }
}

/// Three nodes with one session between the outer two.
pub struct Chain<A: Aead> {
    viewer: Core<A>,
    relay: Core<A>,
    gateway: Core<A>,
    now: Instant,
    tx: TxBatch,
    tun: TunBatch,
    relayed: RxBatch,
    opened: RxBatch,
}

impl<A: Aead> Chain<A> {
    pub fn new() -> Self {
        let node = |number: u8| {
            let tun = TunFeatures {
                checksum: true,
                tso: true,
                uso: true,
            };
            Core::new(CoreConfig {
                node_key: [number; 32],
                listening: number == 1,
                tun,
                seed: [number + 9; 32],
            })
        };
        let mut chain = Self {
            viewer: node(0),
            relay: node(1),
            gateway: node(2),
            now: Instant::from_micros(1_000_000),
            tx: TxBatch::default(),
            tun: TunBatch::default(),
            relayed: RxBatch::default(),
            opened: RxBatch::default(),
        };
        let now = chain.now;
        let mut tx = TxBatch::default();
        for command in [
            link(1, remote(1), true),
            open(OWN, PEER),
            outbound(),
            path(1, 1_000, 1_001, true),
        ] {
            chain.viewer.command(now, command, &mut tx);
        }
        for command in [
            link(1, remote(0), false),
            link(2, remote(2), false),
            forward(hop(1, 1_001), hop(2, 2_000)),
            forward(hop(2, 2_001), hop(1, 1_000)),
        ] {
            chain.relay.command(now, command, &mut tx);
        }
        for command in [
            link(2, remote(1), true),
            open(77, 88),
            inbound(),
            path(2, 2_000, 2_001, false),
        ] {
            chain.gateway.command(now, command, &mut tx);
        }
        chain.probe();
        chain
    }

    /// Lets the viewer find out what the path carries, as its first long segments do.
    fn probe(&mut self) {
        self.pass(&Load::bulk(2), Stage::Open);
        for _ in 0..2 {
            self.relayed.clear();
            self.opened.clear();
            self.tx.clear();
            self.viewer.handle_timeout(self.now, &mut self.tx);
            let (trains, buffer) = self.tx.ready();
            for train in trains.iter() {
                let arrived = &mut buffer[train.range.clone()];
                self.relay
                    .handle_datagrams(self.now, remote(0), arrived, train.segment, &mut self.relayed);
                self.gateway
                    .handle_datagrams(self.now, remote(1), arrived, train.segment, &mut self.opened);
            }
            let (trains, buffer) = self.opened.tx.ready();
            for train in trains.iter() {
                let arrived = &mut buffer[train.range.clone()];
                self.relay
                    .handle_datagrams(self.now, remote(2), arrived, train.segment, &mut self.relayed);
                self.viewer
                    .handle_datagrams(self.now, remote(1), arrived, train.segment, &mut self.relayed);
            }
        }
        let sessions = self.viewer.stats(self.now).sessions;
        assert_eq!(sessions[0].path_mtu, Some(1_500));
    }

    /// Takes a load as far as `to`. Returns the bytes that the last stage made ready, headers included.
    pub fn pass(&mut self, load: &Load, to: Stage) -> usize {
        self.tx.clear();
        self.tun.clear();
        self.relayed.clear();
        self.opened.clear();
        self.viewer
            .handle_tun(self.now, load.vnet, &load.packet, &mut self.tx, &mut self.tun);
        let (trains, buffer) = self.tx.ready();
        let mut bytes = trains.iter().map(|train| train.range.len()).sum();
        if to >= Stage::Relay {
            bytes = 0;
            for train in trains.iter() {
                let begun = self.relayed.relays.len();
                let arrived = &mut buffer[train.range.clone()];
                self.relay
                    .handle_datagrams(self.now, remote(0), arrived, train.segment, &mut self.relayed);
                for onward in &self.relayed.relays[begun..] {
                    bytes += onward.range.len();
                    if to >= Stage::Open {
                        let arrived = &mut arrived[onward.range.clone()];
                        self.gateway
                            .handle_datagrams(self.now, remote(1), arrived, onward.segment, &mut self.opened);
                    }
                }
            }
        }
        if to >= Stage::Open {
            let heads: usize = self.opened.tun.writes.iter().map(|w| w.head.len() - VNET_HEADER).sum();
            let pieces: usize = self.opened.tun.pieces.iter().map(|piece| piece.len()).sum();
            bytes = heads + pieces;
        }
        bytes
    }

    /// Lets time go by.
    pub fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        for node in [&mut self.viewer, &mut self.relay, &mut self.gateway] {
            self.tx.clear();
            node.handle_timeout(self.now, &mut self.tx);
        }
    }

    /// Whatever was told to the control logic.
    pub fn events(&mut self) -> usize {
        [&mut self.viewer, &mut self.relay, &mut self.gateway]
            .into_iter()
            .map(|node| std::iter::from_fn(|| node.poll_event()).count())
            .sum()
    }
}

fn remote(node: u8) -> Remote {
    Remote::new(0, ([192, 0, 2, node + 1], 7117).into())
}

fn ip(last: u8) -> IpAddr {
    [198, 18, 0, last].into()
}

fn hop(link: u32, label: u32) -> Hop {
    Hop {
        link: LinkId(link),
        label: Label(label),
        generation: Generation(link),
    }
}

fn link(link: u32, remote: Remote, child: bool) -> Command {
    let (up, down) = ([link as u8; 32], [link as u8 + 100; 32]);
    Command::LinkInstall(LinkKeys {
        link: LinkId(link),
        generation: Generation(link),
        remote,
        initiator: child,
        receive_index: if child { 10 + link } else { 20 + link },
        send_index: if child { 20 + link } else { 10 + link },
        send_key: if child { up } else { down },
        receive_key: if child { down } else { up },
        hop_secret: [link as u8 + 50; 32],
        confirmed: true,
    })
}

fn forward(ingress: Hop, egress: Hop) -> Command {
    Command::LabelForward { ingress, egress }
}

const SESSION: SessionId = SessionId(5);

fn open(own: u8, peer: u8) -> Command {
    let pair = Pair {
        v4: Some((ip(own), ip(peer))),
        v6: None,
    };
    Command::SessionOpen { session: SESSION, pair }
}

fn outbound() -> Command {
    let policy = Policy {
        outbound: true,
        ..Policy::default()
    };
    Command::SessionPolicy {
        session: SESSION,
        policy,
    }
}

fn inbound() -> Command {
    let service = |protocol| Service {
        protocol,
        port: PORT,
        v6: false,
        target: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 20), PORT)),
        account: u32::from(protocol),
        rtsp: None,
    };
    let policy = Policy {
        inbound: vec![service(protocol::TCP), service(protocol::UDP)],
        ..Policy::default()
    };
    Command::SessionPolicy {
        session: SESSION,
        policy,
    }
}

fn path(link: u32, receives: u32, sends: u32, viewer: bool) -> Command {
    let (out, back) = ([61; 32], [62; 32]);
    let (send_key, receive_key) = if viewer { (out, back) } else { (back, out) };
    Command::PathInstall(PathKeys {
        path: PathId(1),
        session: SESSION,
        ingress: hop(link, receives),
        egress: hop(link, sends),
        send_key,
        receive_key,
        confirmed: true,
    })
}

fn ip_header(protocol: u8, payload: usize) -> Vec<u8> {
    let mut packet = vec![0; 60];
    let len = IpRepr {
        source: ip(OWN),
        destination: ip(PEER),
        protocol,
        traffic_class: 0,
        hop_limit: 64,
        identification: None,
    }
    .write(&mut packet, payload);
    packet.truncate(len);
    packet
}

fn ports() -> [u8; 4] {
    let ([s0, s1], [d0, d1]) = (40_000u16.to_be_bytes(), PORT.to_be_bytes());
    [s0, s1, d0, d1]
}
