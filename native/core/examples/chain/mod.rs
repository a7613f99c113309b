//! Viewer – relay – gateway without a network: what one sends lies where the next reads it, so that nothing but the core works. For figures
//! that count the core alone: instructions (../instructions.rs) and allocations (tests/alloc.rs).

// Each program takes what it needs of it.
#![allow(dead_code)]

#[path = "../../tests/lab/orders.rs"]
mod orders;
#[path = "../../tests/lab/packets.rs"]
mod packets;

use orders::{ALL, PATH, config, forward, hop, ip, link, open, path, remote, service, turned};
use packets::{ACK, datagram, header, packet, segment};
use thicket_core::aead::Aead;
use thicket_core::wire::{VNET_HEADER, VnetHeader, gso, protocol};
use thicket_core::{Core, Duration, Instant, RxBatch, TunBatch, TxBatch};

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

const PORTS: (u16, u16) = (40_000, 5201);
const OWN: u8 = 1;
const PEER: u8 = 9;
const SESSION: u32 = 5;

impl Load {
    /// A TCP super-packet of so many full segments.
    pub fn bulk(segments: usize) -> Self {
        const SEGMENT: usize = 1_380;
        let payload = vec![0xa5; segments * SEGMENT];
        let mut load = Self::of(protocol::TCP, &segment(PORTS, 1, 1, ACK, &payload));
        load.vnet = VnetHeader {
            gso_type: gso::TCPV4,
            header_len: load.vnet.csum_start + 20,
            gso_size: SEGMENT as u16,
            ..load.vnet
        };
        load.datagrams = segments;
        load
    }

    /// One UDP datagram with so many bytes of payload.
    pub fn datagram(len: usize) -> Self {
        Self::of(protocol::UDP, &datagram(PORTS, &vec![0xa5; len]))
    }

    fn of(protocol: u8, transport: &[u8]) -> Self {
        let (vnet, packet) = packet(header(ip(OWN), ip(PEER), protocol), transport);
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
        let node = |number| Core::new(config(number, number == 1, ALL));
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
            open(SESSION, ip(OWN), ip(PEER)),
            orders::policy(SESSION, orders::calls()),
            path(1, SESSION, hop(1, 1_000), hop(1, 1_001), PATH),
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
        let services = [protocol::TCP, protocol::UDP].map(|protocol| service(protocol, PORTS.1));
        for command in [
            link(2, remote(1), true),
            open(SESSION, ip(77), ip(88)),
            orders::policy(SESSION, orders::offers(services.to_vec())),
            path(1, SESSION, hop(2, 2_000), hop(2, 2_001), turned(PATH)),
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
