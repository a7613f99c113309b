//! A TCP/IP host without a kernel: what programs and devices are to a TUN, a [`Host`] is to the core where there is none. Sans-IO, like the core.

mod api;
mod budget;
mod calls;
mod datagrams;
mod egress;
mod ingress;
mod streams;
mod tcp;
mod waits;

pub use api::{Closed, Datagrams, Echo, HostConfig, HostError, HostEvent, HostStats, Lost, StreamId};

use crate::core::TunFeatures;
use crate::hash::{IdMap, KeyedMap, KeyedState};
use crate::keyed::blake2b_256;
use crate::time::Instant;
use budget::Budget;
use core::hash::BuildHasher;
use core::net::{IpAddr, SocketAddr};
use datagrams::Queue;
use std::collections::{BTreeSet, VecDeque};
use streams::Stream;
use tcp::{Header, Means};
use waits::Waits;

/// Both ends of a connection or of datagrams, as we see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flow {
    own: SocketAddr,
    peer: SocketAddr,
}

/// A packet that no stream sends.
enum Control {
    Segment(Flow, Header),
    Icmp {
        own: IpAddr,
        peer: IpAddr,
        message: Vec<u8>,
    },
}

/// Of these so many may wait.
const CONTROLS: usize = 1_024;

/// All connections and datagram flows of one node. The shell runs this loop beside the core's:
///
/// 1. once, [`Core::set_tun`](crate::Core::set_tun) with [`Host::FEATURES`] and [`Core::tell_cuts`](crate::Core::tell_cuts);
/// 2. [`Host::handle_packet`] for every packet that the core would write to the TUN, before the buffer that it lies in is used again;
/// 3. [`Host::handle_timeout`] when [`Host::poll_timeout`] has come;
/// 4. [`Host::cut`] for every [`Core::poll_cut`](crate::Core::poll_cut);
/// 5. [`Host::poll_event`] until there is none, and [`Host::poll_datagrams`] likewise: accepting, reading, writing as its sockets allow;
/// 6. [`Host::poll_packet`] until there is none, each packet going to [`Core::handle_tun`](crate::Core::handle_tun), whose answers (errors about
///    what can't be sent) come back through step 2. Whatever the steps before, and calls of the shell's own, make is sent here, so this step
///    comes after them all, and `poll_timeout` is asked after it.
///
/// The one invariant: buffers never hold more than the budget, whatever far ends send and however slowly they or the shell read.
pub struct Host {
    mtu: u16,
    state: KeyedState,
    incoming: Budget,
    outgoing: Budget,
    most_streams: usize,
    streams: IdMap<u32, Box<Stream>>,
    flows: KeyedMap<Flow, u32>,
    /// Where the last segment went: the next one mostly goes there too.
    last: Option<(Flow, u32)>,
    /// The last that we were told.
    now: Instant,
    scratch: Vec<u8>,
    opened: u64,
    next_id: u32,
    next_port: u16,
    held: usize,
    callers: KeyedMap<IpAddr, u32>,
    /// Streams that may have something to send, in turn.
    ready: VecDeque<u32>,
    timers: BTreeSet<(Instant, u32)>,
    tidy_at: Option<Instant>,
    events: VecDeque<HostEvent>,
    /// Something was told while packets were made: the shell is to look again.
    told_late: bool,
    echoes: usize,
    control: VecDeque<Control>,
    waits: Waits,
    datagrams_in: Queue,
    datagrams_out: Queue,
    /// Whose turn it is.
    datagrams_next: bool,
    datagram_ports: KeyedMap<SocketAddr, ()>,
    overflown: u64,
    resent: u64,
}

impl Host {
    /// What it takes: super-packets of both kinds, and no checksums.
    pub const FEATURES: TunFeatures = TunFeatures {
        checksum: true,
        tso: true,
        uso: true,
    };

    /// One without streams.
    pub fn new(config: &HostConfig) -> Self {
        let secret = blake2b_256(&[&config.seed, b"host"]);
        let state = KeyedState::new(*secret.first_chunk().unwrap_or(&[0; 16]));
        let (incoming, streams) = Budget::new(config.budget / 2, config.streams as usize);
        let (outgoing, _) = Budget::new(config.budget / 2, streams);
        Self {
            mtu: config.mtu,
            state,
            incoming,
            outgoing,
            most_streams: streams,
            streams: IdMap::default(),
            flows: KeyedMap::with_hasher(state),
            last: None,
            now: Instant::default(),
            scratch: Vec::new(),
            opened: 0,
            next_id: 1,
            next_port: u16::from_be_bytes(*secret.last_chunk().unwrap_or(&[0; 2])),
            held: 0,
            callers: KeyedMap::with_hasher(state),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            tidy_at: None,
            events: VecDeque::new(),
            told_late: false,
            echoes: 0,
            control: VecDeque::new(),
            waits: Waits::new(state),
            datagrams_in: Queue::default(),
            datagrams_out: Queue::default(),
            datagrams_next: false,
            datagram_ports: KeyedMap::with_hasher(state),
            overflown: 0,
            resent: 0,
        }
    }

    /// The oldest event that the shell hasn't seen. One of a stream that the shell has ended itself meanwhile means nothing any more.
    pub fn poll_event(&mut self) -> Option<HostEvent> {
        let event = self.events.pop_front()?;
        if matches!(event, HostEvent::Echo(_)) {
            self.echoes = self.echoes.saturating_sub(1);
        }
        Some(event)
    }

    /// Figures of this moment.
    pub fn stats(&self) -> HostStats {
        HostStats {
            streams: self.streams.len(),
            held: self.held,
            buffered: self.streams.values().map(|stream| stream.buffered()).sum(),
            committed: self.incoming.charged() + self.outgoing.charged(),
            waiting: self.waits.len(),
            overflown: self.overflown,
            resent: self.resent,
        }
    }

    /// Whoever reads no events gets no new streams.
    fn most_events(&self) -> usize {
        4 * self.most_streams + 1_024
    }

    fn control(&mut self, control: Control) {
        if self.control.len() < CONTROLS {
            self.control.push_back(control);
        } else {
            self.overflown += 1;
        }
    }

    /// What a new connection is made of.
    fn means(&mut self, flow: &Flow) -> Means {
        let headers = if flow.own.is_ipv4() { 40 } else { 60 };
        self.opened += 1;
        let others = self.streams.len();
        Means {
            room: (self.incoming.size(others), self.outgoing.size(others)),
            longest: usize::from(self.mtu.saturating_sub(headers).max(536)),
            // As RFC 6528, but nobody can tell one from the next.
            seed: self.state.hash_one((flow, self.now, self.opened)),
        }
    }
}
