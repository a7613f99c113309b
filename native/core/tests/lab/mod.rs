//! Nodes over simulated links with one virtual clock. `relay` and `cameras` are topologies; tests of others give orders of their own.

// Each program takes what it needs of it.
#![allow(dead_code, clippy::unwrap_used)]

pub mod cameras;
pub mod kernel;
pub mod orders;
pub mod packets;
pub mod relay;
pub mod shell;

use orders::{address, remote};
use shell::Shell;
use thicket_core::aead::Portable;
use thicket_core::wire::{VNET_HEADER, VnetHeader};
use thicket_core::{
    Command, Core, CoreConfig, DropReason, Duration, Event, Instant, Policy, Remote, RxBatch, TunBatch, TxBatch,
};

pub type Node = Core<Portable>;

/// What a TUN gets at once.
pub type Packet = (VnetHeader, Vec<u8>);

/// A datagram on a link: from which node, to which, its bytes.
pub type Datagram = (usize, usize, Vec<u8>);

pub struct Lab {
    pub nodes: Vec<Node>,
    pub now: Instant,
    /// Datagrams under way.
    pub wire: Vec<Datagram>,
    /// What came out of each node's TUN.
    pub tun: Vec<Vec<Packet>>,
    /// What each node told its control logic.
    pub events: Vec<Vec<Event>>,
    pub shell: Shell,
    /// Of their paths' four, the one with the newest keys.
    pub slot: u8,
}

impl Lab {
    /// Nodes that know nothing of each other yet; they are at [`address`], in this order.
    pub fn of(nodes: impl IntoIterator<Item = CoreConfig>) -> Self {
        let nodes: Vec<_> = nodes.into_iter().map(Node::new).collect();
        Self {
            now: Instant::from_micros(1_000_000),
            wire: Vec::new(),
            tun: nodes.iter().map(|_| Vec::new()).collect(),
            events: nodes.iter().map(|_| Vec::new()).collect(),
            shell: Shell::default(),
            slot: 0,
            nodes,
        }
    }

    pub fn command(&mut self, node: usize, command: Command) {
        let mut tx = TxBatch::default();
        self.nodes[node].command(self.now, command, &mut tx);
        self.send(node, &mut tx);
        self.serve(node);
    }

    /// Links a child to its parent.
    pub fn link(&mut self, number: u32, child: usize, parent: usize) {
        self.command(child, orders::link(number, remote(parent), true));
        self.command(parent, orders::link(number, remote(child), false));
    }

    pub fn policy(&mut self, node: usize, session: u32, policy: Policy) {
        self.command(node, orders::policy(session, policy));
    }

    /// Puts what a node has made ready on its links.
    pub fn send(&mut self, from: usize, tx: &mut TxBatch) {
        let (trains, buffer) = tx.ready();
        for train in trains {
            let to = self.node_at(train.remote.address);
            for datagram in buffer[train.range.clone()].chunks(train.segment) {
                self.wire.push((from, to, datagram.to_vec()));
            }
        }
    }

    fn node_at(&self, at: core::net::SocketAddr) -> usize {
        (0..self.nodes.len()).find(|&node| address(node) == at).unwrap()
    }

    /// A packet from a node's host.
    pub fn tun_in(&mut self, node: usize, packet: Packet) {
        self.tun_in_together(node, &[packet]);
    }

    /// Packets that a host hands over in one round.
    pub fn tun_in_together(&mut self, node: usize, packets: &[Packet]) {
        let mut tx = TxBatch::default();
        for (vnet, packet) in packets {
            let mut tun = TunBatch::default();
            self.nodes[node].handle_tun(self.now, *vnet, packet, &mut tx, &mut tun);
            self.tun[node].extend(written(&tun, &[]));
        }
        self.send(node, &mut tx);
        self.serve(node);
    }

    /// Hands one datagram to a node, from wherever.
    pub fn receive(&mut self, from: Remote, to: usize, datagram: &[u8]) {
        self.receive_train(from, to, &mut datagram.to_vec(), datagram.len());
    }

    /// Hands datagrams of one length to a node, as the last hop would.
    fn receive_train(&mut self, from: Remote, to: usize, buffer: &mut [u8], segment: usize) {
        let mut rx = RxBatch::default();
        self.nodes[to].handle_datagrams(self.now, from, buffer, segment, &mut rx);
        for train in &rx.relays {
            let next = self.node_at(train.remote.address);
            for datagram in buffer[train.range.clone()].chunks(train.segment) {
                self.wire.push((to, next, datagram.to_vec()));
            }
        }
        self.take(to, &mut rx, buffer);
    }

    /// What a node wrote and wants sent.
    fn take(&mut self, node: usize, rx: &mut RxBatch, received: &[u8]) {
        self.send(node, &mut rx.tx);
        self.tun[node].extend(written(&rx.tun, received));
        self.shell.carry(&rx.media);
        self.serve(node);
    }

    /// Carries everything until nothing moves; equal-sized neighbours go as one buffer, as GRO would have it. Returns all that went by.
    pub fn run(&mut self) -> Vec<Datagram> {
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
                self.receive_train(remote(from), to, &mut buffer, segment);
            }
        }
        seen
    }

    pub fn timeout(&mut self, node: usize) {
        let mut tx = TxBatch::default();
        self.nodes[node].handle_timeout(self.now, &mut tx);
        self.send(node, &mut tx);
        self.serve(node);
    }

    /// Time passes at all nodes, at once.
    pub fn later(&mut self, time: Duration) {
        self.now = self.now + time;
        for node in 0..self.nodes.len() {
            self.timeout(node);
        }
    }

    /// How many such events a node has told of.
    pub fn told(&self, node: usize, which: impl Fn(&Event) -> bool) -> usize {
        self.events[node].iter().filter(|event| which(event)).count()
    }

    pub fn drops(&self, node: usize, reason: DropReason) -> u64 {
        let stats = self.nodes[node].stats(self.now);
        stats.drops.iter().find(|(name, _)| *name == reason.name()).unwrap().1
    }
}

/// What a node writes to its TUN, pieces of what it received joined.
pub fn written(tun: &TunBatch, received: &[u8]) -> Vec<Packet> {
    let join = |write: &thicket_core::TunWrite| {
        let mut bytes = tun.heads[write.head.clone()].to_vec();
        for piece in &tun.pieces[write.pieces.clone()] {
            bytes.extend_from_slice(&received[piece.clone()]);
        }
        let packet = bytes.split_off(VNET_HEADER);
        (VnetHeader::parse(bytes.first_chunk().unwrap()), packet)
    };
    tun.writes.iter().map(join).collect()
}
