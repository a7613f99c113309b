//! User-space mode: the core's TCP/IP host in place of the kernel's, and what its streams and datagrams are to this machine: connections to devices,
//! sockets of local programs, JavaScript's streams. See `HostOrders` in ts/dataplane/userspace.ts.

mod allowance;
mod echoes;
mod flows;
mod orders;
mod pipe;
mod pipes;
mod slab;
mod streams;

pub use allowance::{Allowance, Taken};
pub use orders::UserOrder;
pub use streams::{End, Told};

use crate::sys::{Poll, READY, Ready, ReceiveBuffers, descriptors};
use echoes::Echoes;
use flows::{Flows, datagrams};
use pipe::Pipe;
use pipes::Pipes;
use slab::Key;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use streams::Streams;
use thicket_core::wire::{VnetHeader, protocol};
use thicket_core::{Duration, Host, HostConfig, HostEvent, Instant, Service, SessionId, TunBatch, TunFeatures};

/// Longest packet that far ends are asked to send, as with a TUN; the core cuts what is too long for the path.
const MTU: u16 = 1_500;
/// Shares of the descriptors that this process may have, for connections and for flows; and how many of each there are at most.
const DESCRIPTORS_SHARE: usize = 3;
const STREAMS: usize = 16_384;
const FLOWS: usize = 4_096;
/// Of the buffers' budget each stream must be able to have so much.
const STREAM_LEAST: usize = 16 << 10;
/// Ports that JavaScript has open.
const PORTS: usize = 4_096;
/// Bytes of datagrams that JavaScript hasn't taken yet.
const DATAGRAMS_TOLD: usize = 2 << 20;
/// How often what has been idle is looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// Calls of the poll per turn; it tells of so many sockets at once.
const WAITS: usize = 16;

/// Kinds of sockets in the poll: these bits, then the key.
const KIND: u64 = 3 << 62;
const PIPE: u64 = 0;
const FLOW: u64 = 1 << 62;
const ECHO: u64 = 2 << 62;

/// What user-space mode begins with.
pub struct UserConfig {
    /// 32 random bytes from the system.
    pub seed: [u8; 32],
    /// Bytes for all streams' buffers.
    pub budget: usize,
}

/// What the core knows of services.
pub trait Services {
    /// The service that a session's far end (`peer`) may reach at `own`, by its protocol's number and port there.
    fn service(&self, own: IpAddr, peer: IpAddr, protocol: u8, port: u16) -> Option<(SessionId, Service)>;
    /// The device behind `own`, as that far end may reach it.
    fn device(&self, own: IpAddr, peer: IpAddr) -> Option<IpAddr>;
}

/// What JavaScript is to be told, in order.
#[derive(Default)]
pub struct Batch {
    pub told: Vec<Told>,
    /// Room for its datagrams, to be dropped once they were heard.
    pub taken: Vec<Taken>,
}

/// Figures: `UserSpaceStats` of ts/dataplane/userspace.ts.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct UserStats {
    pub streams: usize,
    pub datagrams: usize,
    pub buffered: usize,
    pub refused: u64,
}

/// The host and its sockets. The shell runs this loop:
///
/// 1. [`User::take`] for what the core delivers, [`User::cut`] for what it ended;
/// 2. [`User::order`] for every order;
/// 3. [`User::hear`] when the poll behind [`User::as_raw_fd`] has something; [`User::turn`] after all these, and when [`User::due`] has come;
/// 4. [`User::packet`] until there is none, each for the core;
/// 5. [`User::told`] for JavaScript.
pub struct User {
    host: Host,
    poll: Poll,
    ready: Vec<Ready>,
    pipes: Pipes,
    flows: Flows,
    echoes: Echoes,
    streams: Streams,
    /// JavaScript's ports: by its numbers, and by our addresses.
    ports: HashMap<u32, SocketAddr>,
    by_port: HashMap<SocketAddr, u32>,
    receive: ReceiveBuffers,
    /// Reused: a packet in one piece; datagrams that came.
    packet: Vec<u8>,
    /// Datagrams on their way to JavaScript.
    allowance: Allowance,
    taken: Vec<Taken>,
    swept: Instant,
}

impl User {
    /// What the core may deliver.
    pub const FEATURES: TunFeatures = Host::FEATURES;

    /// Nothing is open yet.
    pub fn new(config: UserConfig) -> io::Result<Self> {
        let most = descriptors() / DESCRIPTORS_SHARE;
        Ok(Self {
            host: Host::new(&HostConfig {
                seed: config.seed,
                mtu: MTU,
                budget: config.budget,
                streams: STREAMS.min(config.budget / STREAM_LEAST) as u32,
            }),
            poll: Poll::new()?,
            ready: Vec::with_capacity(READY),
            pipes: Pipes::new(STREAMS.min(most)),
            flows: Flows::new(FLOWS.min(most)),
            echoes: Echoes::new(),
            streams: Streams::default(),
            ports: HashMap::new(),
            by_port: HashMap::new(),
            receive: ReceiveBuffers::new(),
            packet: Vec::new(),
            allowance: Allowance::new(DATAGRAMS_TOLD),
            taken: Vec::new(),
            swept: Instant::default(),
        })
    }

    /// Takes what the core delivers; its payload lies in `buffer`.
    pub fn take(&mut self, now: Instant, batch: &TunBatch, buffer: &[u8]) {
        for write in &batch.writes {
            let Some((vnet, head)) = batch
                .heads
                .get(write.head.clone())
                .and_then(<[u8]>::split_first_chunk)
                .map(|(vnet, head)| (VnetHeader::parse(vnet), head))
            else {
                continue;
            };
            self.packet.clear();
            self.packet.extend_from_slice(head);
            for piece in batch.pieces.get(write.pieces.clone()).unwrap_or(&[]) {
                self.packet.extend_from_slice(buffer.get(piece.clone()).unwrap_or(&[]));
            }
            self.host.handle_packet(now, vnet, &self.packet);
        }
    }

    /// Policy has ended a connection: our end, and the far one.
    pub fn cut(&mut self, now: Instant, own: SocketAddr, peer: SocketAddr) {
        self.host.cut(now, own, peer);
    }

    /// Policy has changed: datagrams go on only where they still may.
    pub fn review(&mut self, services: &impl Services) {
        self.flows.review(|own, peer| target(services, own, peer));
    }

    /// Moves what can be moved, each connection as much as the others.
    pub fn turn(&mut self, now: Instant, services: &impl Services) {
        self.host.handle_timeout(now);
        self.serve_datagrams(now, services);
        while let Some(event) = self.host.poll_event() {
            self.serve_event(now, event, services);
        }
        self.pipes.turn(&mut self.host, &self.poll);
        if now >= self.swept + SWEEP {
            self.swept = now;
            self.flows.expire(now);
            self.echoes.expire(now);
        }
    }

    /// Asks the poll which sockets have something to tell.
    pub fn hear(&mut self, now: Instant) {
        let mut ready = std::mem::take(&mut self.ready);
        for _ in 0..WAITS {
            // It can't fail: the descriptor is ours.
            let _ = self.poll.wait(0, &mut ready);
            for &Ready { token, input, room } in &ready {
                let key = Key::of(token & !KIND);
                match token & KIND {
                    PIPE => self.pipes.ready(key, input, room, &mut self.host, &self.poll),
                    FLOW => self.flows.ready(now, key, &mut self.receive, &mut self.host),
                    _ => self.echoes.ready(key, &mut self.host),
                }
            }
            if ready.len() < READY {
                break;
            }
        }
        self.ready = ready;
    }

    fn serve_datagrams(&mut self, now: Instant, services: &impl Services) {
        while let Some(came) = self.host.poll_datagrams(&mut self.packet) {
            let (own, peer) = (came.own, came.peer);
            if let Some(&port) = self.by_port.get(&own) {
                for bytes in datagrams(&self.packet, came.segment) {
                    // Whoever doesn't listen loses some.
                    let Some(taken) = self.allowance.take(bytes.len()) else {
                        break;
                    };
                    self.taken.push(taken);
                    let bytes = bytes.to_vec();
                    self.streams.tell(Told::Datagram { port, peer, bytes });
                }
                continue;
            }
            let find = || target(services, own, peer);
            let token = |key: Key| FLOW | key.number();
            let bytes = &self.packet;
            self.flows
                .send(now, came, bytes, find, &mut self.host, &self.poll, token);
        }
    }

    fn serve_event(&mut self, now: Instant, event: HostEvent, services: &impl Services) {
        let Self {
            host,
            poll,
            pipes,
            streams,
            ..
        } = self;
        match event {
            HostEvent::Incoming { stream, own, peer } => {
                match services.service(own.ip(), peer.ip(), protocol::TCP, own.port()) {
                    Some((session, service)) if service.is_local() => {
                        if host.accept(stream) {
                            streams.incoming(stream, session, service.account, peer);
                        }
                    }
                    Some((_, service)) => pipes.call(stream, service.target, host, poll),
                    None => host.refuse(stream),
                }
            }
            HostEvent::Connected(stream) => {
                if !pipes.stirs(stream, Pipe::connected) {
                    streams.connected(stream, host);
                }
            }
            HostEvent::Readable(stream) => {
                if !pipes.stirs(stream, |_| ()) {
                    streams.readable(stream, host);
                }
            }
            HostEvent::Writable(stream) => {
                if !pipes.stirs(stream, |_| ()) {
                    streams.writable(stream, host);
                }
            }
            HostEvent::Finished(stream) => {
                if !pipes.stirs(stream, Pipe::finished) {
                    streams.finished(stream, host);
                }
            }
            HostEvent::Closed { stream, reason } => {
                if !pipes.stirs(stream, |pipe| pipe.closed(reason)) {
                    streams.closed(stream, reason, host);
                }
            }
            // Nobody here holds a program's UDP socket that could be told.
            HostEvent::DatagramLost { .. } => {}
            HostEvent::Echo(echo) => {
                let token = |key: Key| ECHO | key.number();
                let find = || services.device(echo.own, echo.peer);
                self.echoes.ask(now, &echo, find, poll, token);
            }
        }
    }

    /// The next packet that the host has for the core, alone in `out`.
    pub fn packet(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<VnetHeader> {
        self.host.poll_packet(now, out)
    }

    /// What JavaScript is to be told, in order.
    pub fn told(&mut self, into: &mut Batch) {
        for (number, end) in self.pipes.ended() {
            self.streams.tell(Told::Closed(number, end));
        }
        self.streams.take_told(&mut into.told);
        into.taken.append(&mut self.taken);
    }

    /// When there is something to do again, if nothing comes before.
    pub fn due(&self) -> Instant {
        if self.pipes.is_busy() {
            Instant::default()
        } else {
            self.host.poll_timeout()
        }
    }

    /// Figures now.
    pub fn stats(&self) -> UserStats {
        let stats = self.host.stats();
        UserStats {
            streams: stats.streams,
            datagrams: self.flows.len() + self.ports.len(),
            buffered: stats.buffered,
            refused: stats.overflown + self.pipes.refused(),
        }
    }
}

/// Where a caller's datagrams go.
fn target(services: &impl Services, own: SocketAddr, peer: SocketAddr) -> Option<SocketAddr> {
    let (_, service) = services.service(own.ip(), peer.ip(), protocol::UDP, own.port())?;
    Some(service.target).filter(|_| !service.is_local())
}

/// Readable while some socket has something to tell.
impl AsRawFd for User {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}
