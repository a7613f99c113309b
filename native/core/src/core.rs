//! The state of one worker, its events and counters.

use crate::aead::Aead;
use crate::api::*;
use crate::assemble::{Fragments, Parts};
use crate::buffers::TxBatch;
use crate::flows::Flows;
use crate::gate::Gate;
use crate::hash::{IdMap, KeyedMap, KeyedState};
use crate::keyed::blake2b_256;
use crate::labels::Labels;
use crate::rtsp::Rtsp;
use crate::stats::*;
use crate::tables::*;
use crate::time::{Duration, Instant};
use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;

/// Events that may wait for the control logic.
const EVENTS: usize = 8_192;
/// Of these, so many may be handshakes from strangers, and so many of one link or one session: nobody's flood costs the others theirs.
const HANDSHAKES_WAITING: u32 = 512;
const LINK_WAITING: u32 = 1_024;
const SESSION_WAITING: u32 = 128;
/// A label without a valid packet for so long is freed.
const LABEL_IDLE: Duration = Duration::from_secs(600);
/// A label that never carried one, for so long.
const LABEL_HALF_OPEN: Duration = Duration::from_secs(20);
/// How often the tables are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// A wanted session is asked for so often per pair.
const NEEDED_EVERY: Duration = Duration::from_millis(500);
/// Pairs remembered for that.
const NEEDED: usize = 256;

/// What a [`Core`] must know to begin.
#[derive(Clone)]
pub struct CoreConfig {
    /// Our public key.
    pub node_key: [u8; 32],
    /// Whether strangers may shake hands with us.
    pub listening: bool,
    /// What the TUN takes; see [`TunFeatures`].
    pub tun: TunFeatures,
    /// 32 secret random bytes: all the randomness that the core ever gets.
    pub seed: [u8; 32],
}

/// What may be written to the TUN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunFeatures {
    /// Packets with unfinished checksums (`NEEDS_CSUM`).
    pub checksum: bool,
    /// TCP super-packets; only with `checksum`.
    pub tso: bool,
    /// UDP super-packets; only with `checksum`.
    pub uso: bool,
}

/// One worker's state. Sans-IO: the shell runs this loop:
///
/// 1. [`Core::command`] for every order of the control logic;
/// 2. [`Core::handle_tun`] for every packet read from the TUN, sending what [`TxBatch::ready`](crate::TxBatch::ready) gives before it fills;
/// 3. [`Core::handle_datagrams`] for every buffer received (or its three steps, of which the dear one needs no core), then sending relays, writing TUN packets and sending answers before that
///    buffer is used again;
/// 4. [`Core::handle_media`] for what media sockets received, sending what it makes;
/// 5. [`Core::handle_timeout`] when [`Core::poll_timeout`] has come, sending what it makes;
/// 6. [`Core::poll_media`] until there is none, answering with [`Core::media_reserved`];
/// 7. [`Core::poll_event`] until there is none.
///
/// The one invariant: nothing is delivered, forwarded or answered unless a command allowed it.
pub struct Core<A: Aead> {
    pub(crate) config: CoreConfig,
    pub(crate) gate: Gate,
    pub(crate) links: IdMap<u32, Link<A>>,
    pub(crate) indexes: IdMap<u32, (LinkId, Generation)>,
    pub(crate) addresses: KeyedMap<SocketAddr, LinkId>,
    pub(crate) labels: Labels,
    pub(crate) paths: IdMap<u32, Path>,
    pub(crate) sessions: IdMap<u32, Session>,
    pub(crate) pairs: KeyedMap<(IpAddr, IpAddr), SessionId>,
    pub(crate) flows: Flows,
    pub(crate) fragments: Fragments,
    pub(crate) parts: Parts,
    pub(crate) rtsp: Rtsp,
    /// Paths whose size is being looked for, and when there is something to do about it.
    pub(crate) probing: Vec<PathId>,
    pub(crate) probes_due: Instant,
    pub(crate) accounts: Vec<ServiceStats>,
    pub(crate) ledger: Ledger,
    /// Packets and bytes forwarded for others.
    pub(crate) relayed: (u64, u64),
    pub(crate) drops: Drops,
    /// Reused: a packet under construction.
    pub(crate) scratch: Vec<u8>,
    /// How often a link's address changed, or a link came or went.
    pub(crate) moves: u64,
    needed: VecDeque<(Instant, IpAddr, IpAddr)>,
    events: VecDeque<Event>,
    handshakes_waiting: u32,
    swept: Instant,
}

impl<A: Aead> Core<A> {
    /// An empty node.
    pub fn new(config: CoreConfig) -> Self {
        let secret = |purpose: &[u8]| blake2b_256(&[&config.seed, purpose]);
        let state = KeyedState::new(*secret(b"tables").first_chunk().unwrap_or(&[0; 16]));
        Self {
            gate: Gate::new(&config.node_key, secret(b"gate")),
            links: IdMap::default(),
            indexes: IdMap::default(),
            addresses: KeyedMap::with_hasher(state),
            labels: Labels::default(),
            paths: IdMap::default(),
            sessions: IdMap::default(),
            pairs: KeyedMap::with_hasher(state),
            flows: Flows::new(state),
            fragments: Fragments::new(state),
            parts: Parts::new(state),
            rtsp: Rtsp::default(),
            probing: Vec::new(),
            probes_due: Instant::MAX,
            accounts: Vec::new(),
            ledger: Ledger::default(),
            relayed: (0, 0),
            drops: Drops::default(),
            scratch: Vec::with_capacity(2_048),
            moves: 0,
            needed: VecDeque::with_capacity(NEEDED),
            events: VecDeque::with_capacity(64),
            handshakes_waiting: 0,
            swept: Instant::default(),
            config,
        }
    }

    /// What the TUN turned out to take.
    pub fn set_tun(&mut self, features: TunFeatures) {
        self.config.tun = features;
    }

    /// The oldest event that the control logic hasn't seen.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Some((waiting, _)) = self.waiting(&event) {
            *waiting = waiting.saturating_sub(1);
        }
        Some(event)
    }

    /// Changes whenever [`Core::neighbours`] may have changed.
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// Links whose far end has proved its keys, and where each one's datagrams go; for shells that keep a socket per link. In no order.
    pub fn neighbours(&self) -> impl Iterator<Item = Neighbour> + '_ {
        let confirmed = self.links.values().filter(|link| link.is_confirmed());
        confirmed.map(|link| Neighbour {
            link: link.id,
            remote: link.remote,
        })
    }

    /// Counts packets that the shell could not send.
    pub fn count_unsent(&mut self, packets: u64) {
        self.drops.add(DropReason::QueueFull, packets);
    }

    /// Puts a line into the node's log, in order with the events: for what the shell has to say, and whatever it drives. Not for what
    /// strangers can cause again and again.
    pub fn log(&mut self, level: LogLevel, message: impl Into<String>) {
        let message = message.into();
        self.emit(Event::Log { level, message });
    }

    /// When [`Core::handle_timeout`] should be called next.
    pub fn poll_timeout(&self) -> Instant {
        self.probes_due.min(self.swept + SWEEP)
    }

    /// Probes paths' sizes and frees what is too old. What it makes to send goes to `tx`.
    pub fn handle_timeout(&mut self, now: Instant, tx: &mut TxBatch) {
        if now >= self.probes_due {
            self.probe(now, tx);
        }
        if now < self.swept + SWEEP {
            return;
        }
        self.swept = now;
        if let Some(message) = A::trouble() {
            self.log(LogLevel::Error, message);
        }
        let late = self.fragments.expire(now) + self.parts.expire(now);
        self.drops.add(DropReason::Unassembled, late as u64);
        self.flows.expire(now);
        self.rtsp_forget();
        self.rtsp_expire(now);
        let room = EVENTS.saturating_sub(self.events.len());
        let mut expired = Vec::new();
        self.labels.retain(|label, entry| {
            let limit = if entry.carried { LABEL_IDLE } else { LABEL_HALF_OPEN };
            let stays = matches!(entry.action, Action::Deliver(_)) || now.since(entry.valid) < limit;
            // What can't be told now goes with the next sweep: the control logic keeps books of its own.
            if stays || expired.len() >= room {
                return true;
            }
            expired.push((entry.link, Label(label)));
            false
        });
        expired.sort_unstable();
        for (link, label) in expired {
            self.emit(Event::LabelExpired { link, label });
        }
    }

    /// Tells the control logic; its queue is bounded, and nobody gets more than a share of it.
    pub(crate) fn emit(&mut self, event: Event) {
        let full = self.events.len() >= EVENTS;
        let spent = match self.waiting(&event) {
            Some((waiting, limit)) if !full && *waiting < limit => {
                *waiting += 1;
                false
            }
            Some(_) => true,
            None => full,
        };
        if spent {
            self.drops.count(DropReason::EventOverflow);
        } else {
            self.events.push_back(event);
        }
    }

    /// Whose share of the queue an event takes, and how large that is. `None`: of a kind whose rate is limited where it arises.
    fn waiting(&mut self, event: &Event) -> Option<(&mut u32, u32)> {
        match event {
            Event::Handshake { .. } => Some((&mut self.handshakes_waiting, HANDSHAKES_WAITING)),
            Event::LinkFrame { link, .. } => self.links.get_mut(&link.0).map(|l| (&mut l.waiting, LINK_WAITING)),
            Event::SessionControl { session, .. } | Event::FlowDenied { session, .. } => self
                .sessions
                .get_mut(&session.0)
                .map(|s| (&mut s.waiting, SESSION_WAITING)),
            _ => None,
        }
    }

    /// A program wants to reach a pool address whose session isn't there; asked for at most every so often.
    pub(crate) fn need(&mut self, now: Instant, own: IpAddr, peer: IpAddr) {
        while self
            .needed
            .front()
            .is_some_and(|(at, ..)| now.since(*at) >= NEEDED_EVERY)
        {
            self.needed.pop_front();
        }
        if self.needed.len() < NEEDED && !self.needed.iter().any(|(_, o, p)| (*o, *p) == (own, peer)) {
            self.needed.push_back((now, own, peer));
            self.emit(Event::SessionNeeded { own, peer });
        }
    }

    /// The place of a service's counters.
    pub(crate) fn account_place(&mut self, account: u32) -> Option<u32> {
        let place = self
            .accounts
            .iter()
            .position(|a| a.account == account)
            .unwrap_or_else(|| {
                self.accounts.push(ServiceStats {
                    account,
                    ..ServiceStats::default()
                });
                self.accounts.len() - 1
            });
        u32::try_from(place).ok()
    }

    /// Notes a service's bytes, and the node's.
    pub(crate) fn account(&mut self, place: Option<u32>, payload: usize, overhead: usize) {
        self.ledger.payload += payload as u64;
        self.ledger.overhead += overhead as u64;
        if let Some(entry) = place.and_then(|place| self.accounts.get_mut(place as usize)) {
            entry.payload_bytes += payload as u64;
            entry.overhead_bytes += overhead as u64;
        }
    }

    /// Counters at this moment.
    pub fn stats(&self, now: Instant) -> Stats {
        let mut links: Vec<_> = self
            .links
            .values()
            .map(|l| LinkStats {
                link: l.id,
                traffic: l.traffic,
                idle_ms: now.since(l.heard).as_millis(),
            })
            .collect();
        links.sort_by_key(|l| l.link);
        let mut sessions: Vec<_> = self
            .sessions
            .values()
            .map(|s| SessionStats {
                session: s.id,
                traffic: s.traffic,
                flows: self.flows.count_of(s.id),
                idle_ms: s.heard.map(|at| now.since(at).as_millis()),
                sent_ms: s.sent.map(|at| now.since(at).as_millis()),
                path_mtu: self.path_mtu(s),
            })
            .collect();
        sessions.sort_by_key(|s| s.session);
        let mut services = self.accounts.clone();
        services.sort_by_key(|s| s.account);
        Stats {
            links,
            sessions,
            services,
            relay_packets: self.relayed.0,
            relay_bytes: self.relayed.1,
            relay_labels: self.labels.forwarded() as u64,
            media: self.rtsp.open(),
            ledger: self.ledger,
            sealed: Fullness::default(),
            opened: Fullness::default(),
            drops: DropReason::ALL
                .iter()
                .map(|&reason| (reason.name(), self.drops.get(reason)))
                .collect(),
        }
    }
}
