//! The state of one worker, and the orders it takes.

use crate::aead::Aead;
use crate::api::*;
use crate::assemble::{Fragments, Parts};
use crate::buffers::TxBatch;
use crate::flows::Flows;
use crate::gate::Gate;
use crate::hash::{IdMap, KeyedMap, KeyedState};
use crate::keyed::{HopKey, blake2b_256};
use crate::replay::ReplayWindow;
use crate::stats::*;
use crate::tables::*;
use crate::time::{Duration, Instant};
use crate::wire::*;
use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;
use zeroize::Zeroizing;

/// Events that may wait for the control logic.
const EVENTS: usize = 4_096;
/// Of these, so many may be handshakes from strangers.
const HANDSHAKE_EVENTS: usize = 512;
/// A label without a valid packet for so long is freed.
const LABEL_IDLE: Duration = Duration::from_secs(600);
/// A label that never carried one, for so long.
const LABEL_HALF_OPEN: Duration = Duration::from_secs(20);
/// How often the tables are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// Longest control frame, plaintext.
const FRAME_MAX: usize = HANDSHAKE_LEN - LINK_OVERHEAD;
/// A wanted session is asked for so often per pair.
const NEEDED_EVERY: Duration = Duration::from_millis(500);

/// What a [`Core`] must know to begin.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Our public key.
    pub node_key: [u8; 32],
    /// Whether strangers may shake hands with us.
    pub listening: bool,
    /// What the TUN takes; see [`TunFeatures`].
    pub tun: TunFeatures,
    /// 32 secret random bytes.
    pub seed: [u8; 32],
}

/// What may be written to the TUN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunFeatures {
    /// Packets with unfinished checksums (`NEEDS_CSUM`).
    pub checksum: bool,
    /// TCP super-packets.
    pub tso: bool,
    /// UDP super-packets.
    pub uso: bool,
}

/// One worker's state. Sans-IO: the shell runs this loop:
///
/// 1. [`Core::command`] for every order of the control logic;
/// 2. [`Core::handle_tun`] for every packet read from the TUN, sending [`TxBatch`]'s trains before it fills;
/// 3. [`Core::handle_datagrams`] for every buffer received, then sending relays, writing TUN packets and sending answers before that buffer is used again;
/// 4. [`Core::handle_timeout`] when [`Core::poll_timeout`] has come;
/// 5. [`Core::poll_event`] until there is none.
///
/// The one invariant: nothing is delivered, forwarded or answered unless a command allowed it.
pub struct Core<A: Aead> {
    pub(crate) config: CoreConfig,
    pub(crate) gate: Gate,
    pub(crate) links: IdMap<u32, Link<A>>,
    pub(crate) indexes: IdMap<u32, (LinkId, Generation)>,
    pub(crate) addresses: KeyedMap<SocketAddr, LinkId>,
    pub(crate) labels: IdMap<u32, LabelEntry>,
    pub(crate) paths: IdMap<u32, Path<A>>,
    pub(crate) sessions: IdMap<u32, Session>,
    pub(crate) pairs: KeyedMap<(IpAddr, IpAddr), SessionId>,
    pub(crate) flows: Flows,
    pub(crate) fragments: Fragments,
    pub(crate) parts: Parts,
    pub(crate) accounts: IdMap<u32, ServiceStats>,
    pub(crate) ledger: Ledger,
    pub(crate) relayed: (u64, u64),
    pub(crate) drops: Drops,
    pub(crate) needed: VecDeque<(Instant, IpAddr, IpAddr)>,
    pub(crate) scratch: Vec<u8>,
    events: VecDeque<Event>,
    handshakes_waiting: usize,
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
            labels: IdMap::default(),
            paths: IdMap::default(),
            sessions: IdMap::default(),
            pairs: KeyedMap::with_hasher(state),
            flows: Flows::new(state),
            fragments: Fragments::new(state),
            parts: Parts::new(state),
            accounts: IdMap::default(),
            ledger: Ledger::default(),
            relayed: (0, 0),
            drops: Drops::default(),
            needed: VecDeque::new(),
            scratch: Vec::with_capacity(2_048),
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
        if matches!(event, Event::Handshake { .. }) {
            self.handshakes_waiting -= 1;
        }
        Some(event)
    }

    /// When [`Core::handle_timeout`] should be called next.
    pub fn poll_timeout(&self) -> Instant {
        self.swept + SWEEP
    }

    /// Frees what is too old.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.poll_timeout() {
            return;
        }
        self.swept = now;
        let late = self.fragments.expire(now) + self.parts.expire(now);
        for _ in 0..late {
            self.drops.count(DropReason::Unassembled);
        }
        self.flows.expire(now);
        self.labels.retain(|_, entry| {
            let limit = if entry.carried { LABEL_IDLE } else { LABEL_HALF_OPEN };
            matches!(entry.action, Action::Deliver(_)) || now.since(entry.valid) < limit
        });
    }

    /// Takes one order. What it makes to send goes to `tx`.
    pub fn command(&mut self, now: Instant, command: Command, tx: &mut TxBatch) {
        let done = match command {
            Command::SendHandshake { remote, bytes } => {
                tx.push(remote, &bytes);
                self.ledger.control += bytes.len() as u64;
                Some(())
            }
            Command::LinkInstall(keys) => {
                self.link_install(now, keys);
                Some(())
            }
            Command::LinkSend {
                link,
                generation,
                to,
                keep_alive,
                frame,
            } => self.link_send(link, generation, to, keep_alive, &frame, tx),
            Command::LinkMove { link, remote } => self.links.get_mut(&link.0).map(|link| {
                self.addresses.remove(&link.remote.address);
                self.addresses.insert(remote.address, link.id);
                link.remote = remote;
            }),
            Command::LinkRetire { link, generation } => self.link_retire(link, generation),
            Command::LinkRemove { link } => self.link_remove(link),
            Command::LabelForward { ingress, egress } => self.label_forward(now, ingress, egress),
            Command::LabelRemove { label } => self.labels.remove(&label.0).map(|_| ()),
            Command::SessionOpen { session, pair } => {
                self.session_open(session, pair);
                Some(())
            }
            Command::SessionAliasRemove { session, pair } => self.alias_remove(session, pair),
            Command::SessionPolicy { session, policy } => self.session_policy(session, policy),
            Command::PathInstall(keys) => self.path_install(now, keys),
            Command::PathRekey {
                path,
                slot,
                send_key,
                receive_key,
                confirmed,
            } => self.path_rekey(now, path, slot, &send_key, &receive_key, confirmed),
            Command::PathRetire { path, slot } => self.paths.get_mut(&path.0).map(|path| {
                let slot = usize::from(slot & 3);
                if path.send_slot != slot {
                    path.slots[slot] = None;
                }
            }),
            Command::PathRemove { path } => self.path_remove(path),
            Command::SessionSend { session, path, bytes } => self.session_send(now, session, path, &bytes, tx),
            Command::SessionRemove { session } => self.session_remove(session),
        };
        if done.is_none() {
            self.drops.count(DropReason::StaleCommand);
        }
    }

    fn link_install(&mut self, now: Instant, keys: LinkKeys) {
        let link = self.links.entry(keys.link.0).or_insert_with(|| Link {
            id: keys.link,
            initiator: keys.initiator,
            remote: keys.remote,
            generations: Vec::new(),
            current: keys.generation,
            traffic: Traffic::default(),
            heard: now,
            roamed: None,
            reported: (now, 0),
        });
        link.generations.push(LinkGeneration {
            generation: keys.generation,
            receive_index: keys.receive_index,
            send_index: keys.send_index,
            send: A::key(&keys.send_key),
            receive: A::key(&keys.receive_key),
            hop_secret: Zeroizing::new(keys.hop_secret),
            counter: 0,
            window: ReplayWindow::default(),
            confirmed: keys.confirmed,
        });
        if keys.confirmed {
            self.addresses.remove(&link.remote.address);
            link.current = keys.generation;
            link.remote = keys.remote;
        }
        if keys.confirmed {
            self.addresses.insert(keys.remote.address, keys.link);
        }
        self.indexes.insert(keys.receive_index, (keys.link, keys.generation));
    }

    /// Forgets one generation's keys; the current one's only with the link, unless it never was confirmed.
    fn link_retire(&mut self, id: LinkId, generation: Generation) -> Option<()> {
        let link = self.links.get_mut(&id.0)?;
        let at = link.generations.iter().position(|g| g.generation == generation)?;
        if generation == link.current
            && link
                .generations
                .iter()
                .any(|g| g.generation == generation && g.confirmed)
        {
            return Some(());
        }
        let gone = link.generations.remove(at);
        self.indexes.remove(&gone.receive_index);
        if link.generations.is_empty() {
            return self.link_remove(id);
        }
        Some(())
    }

    fn link_remove(&mut self, id: LinkId) -> Option<()> {
        let link = self.links.remove(&id.0)?;
        if self.addresses.get(&link.remote.address) == Some(&id) {
            self.addresses.remove(&link.remote.address);
        }
        for generation in &link.generations {
            self.indexes.remove(&generation.receive_index);
        }
        self.labels.retain(|_, entry| {
            let onward = matches!(entry.action, Action::Forward { link, .. } if link == id);
            entry.link != id && !onward
        });
        Some(())
    }

    /// Seals one control frame; the far end's index, a fresh counter, and the link's address unless told another.
    fn link_send(
        &mut self,
        id: LinkId,
        generation: Option<Generation>,
        to: Option<Remote>,
        keep_alive: bool,
        frame: &[u8],
        tx: &mut TxBatch,
    ) -> Option<()> {
        let link = self.links.get_mut(&id.0)?;
        let remote = to.unwrap_or(link.remote);
        let generation = generation.unwrap_or(link.current);
        let keys = link.generation(generation)?;
        if frame.is_empty() || frame.len() > FRAME_MAX {
            self.drops.count(DropReason::TooLong);
            return Some(());
        }
        let counter = keys.counter;
        let Some(next) = counter.checked_add(1) else {
            self.drops.count(DropReason::CounterExhausted);
            return Some(());
        };
        keys.counter = next;
        let len = LINK_OVERHEAD + frame.len();
        let out = tx.reserve(len)?;
        let (header, body) = out.split_at_mut(LINK_HEADER);
        header[..4].copy_from_slice(&4u32.to_be_bytes());
        header[4..8].copy_from_slice(&keys.send_index.to_be_bytes());
        header[8..].copy_from_slice(&counter.to_be_bytes());
        let (data, tag) = body.split_at_mut(frame.len());
        data.copy_from_slice(frame);
        tag.copy_from_slice(&A::seal(&keys.send, counter, &header[..8], data));
        tx.commit(remote, len, len);
        link.traffic.tx_bytes += len as u64;
        link.traffic.tx_packets += 1;
        *(if keep_alive {
            &mut self.ledger.keep_alive
        } else {
            &mut self.ledger.control
        }) += len as u64;
        Some(())
    }

    fn hop_key(&mut self, hop: Hop, direction: fn(bool) -> crate::keyed::Direction) -> Option<HopKey> {
        let link = self.links.get_mut(&hop.link.0)?;
        let direction = direction(link.initiator);
        let secret = &link.generation(hop.generation)?.hop_secret;
        Some(HopKey::derive(secret, hop.label.0, direction))
    }

    fn label_forward(&mut self, now: Instant, ingress: Hop, egress: Hop) -> Option<()> {
        let hop = self.hop_key(ingress, incoming)?;
        let onward = self.hop_key(egress, outgoing)?;
        let action = Action::Forward {
            link: egress.link,
            label: egress.label,
            hop: onward,
        };
        self.add_label(now, ingress, hop, action)
    }

    fn add_label(&mut self, now: Instant, ingress: Hop, hop: HopKey, action: Action) -> Option<()> {
        if ingress.label.0 < 256 || self.labels.contains_key(&ingress.label.0) {
            return None;
        }
        let entry = LabelEntry {
            link: ingress.link,
            hop,
            window: ReplayWindow::default(),
            action,
            valid: now,
            carried: false,
        };
        self.labels.insert(ingress.label.0, entry);
        Some(())
    }

    fn session_open(&mut self, id: SessionId, pair: Pair) {
        let session = self.sessions.entry(id.0).or_insert_with(|| Session::new(id));
        if !session.pairs.contains(&pair) {
            session.pairs.push(pair);
        }
        for addresses in [pair.v4, pair.v6].into_iter().flatten() {
            self.pairs.insert(addresses, id);
        }
    }

    fn alias_remove(&mut self, id: SessionId, pair: Pair) -> Option<()> {
        let session = self.sessions.get_mut(&id.0)?;
        session.pairs.retain(|p| *p != pair);
        for addresses in [pair.v4, pair.v6].into_iter().flatten() {
            if self.pairs.get(&addresses) == Some(&id) {
                self.pairs.remove(&addresses);
            }
            self.flows
                .remove_if(|flow| (flow.local.own, flow.local.peer) == addresses);
        }
        Some(())
    }

    fn session_policy(&mut self, id: SessionId, policy: Policy) -> Option<()> {
        let session = self.sessions.get_mut(&id.0)?;
        session.policy = policy;
        let policy = &session.policy;
        self.flows.remove_if(|flow| {
            let allowed = match (flow.inbound, flow.local.protocol) {
                (true, protocol::TCP | protocol::UDP) => {
                    let port = flow.local.local_port;
                    policy
                        .inbound
                        .iter()
                        .any(|s| s.protocol == flow.local.protocol && s.port == port)
                }
                (true, _) => policy.echo,
                (false, _) => policy.outbound,
            };
            flow.wire.session == id && !allowed
        });
        Some(())
    }

    fn path_install(&mut self, now: Instant, keys: PathKeys) -> Option<()> {
        if !self.sessions.contains_key(&keys.session.0) {
            return None;
        }
        let hop = self.hop_key(keys.ingress, incoming)?;
        let egress_key = self.hop_key(keys.egress, outgoing)?;
        self.add_label(now, keys.ingress, hop, Action::Deliver(keys.path))?;
        let slot = Slot {
            send: A::key(&keys.send_key),
            receive: A::key(&keys.receive_key),
            since: now,
            confirmed: keys.confirmed,
        };
        let path = Path {
            session: keys.session,
            ingress: keys.ingress.label,
            egress: keys.egress,
            egress_key,
            slots: [Some(slot), None, None, None],
            send_slot: 0,
            counter: 0,
            slot_start: 0,
            asked_rekey: false,
            window: ReplayWindow::default(),
            confirmed: keys.confirmed,
        };
        self.paths.insert(keys.path.0, path);
        let session = self.sessions.get_mut(&keys.session.0)?;
        session.paths.push(keys.path);
        if keys.confirmed {
            session.path = Some(keys.path);
        }
        Some(())
    }

    fn path_rekey(
        &mut self,
        now: Instant,
        id: PathId,
        slot: u8,
        send_key: &[u8; 32],
        receive_key: &[u8; 32],
        confirmed: bool,
    ) -> Option<()> {
        let path = self.paths.get_mut(&id.0)?;
        let slot = usize::from(slot & 3);
        path.slots[slot] = Some(Slot {
            send: A::key(send_key),
            receive: A::key(receive_key),
            since: now,
            confirmed,
        });
        if confirmed {
            path.switch_to(slot);
        }
        Some(())
    }

    fn path_remove(&mut self, id: PathId) -> Option<()> {
        let path = self.paths.remove(&id.0)?;
        self.labels.remove(&path.ingress.0);
        if let Some(session) = self.sessions.get_mut(&path.session.0) {
            session.paths.retain(|p| *p != id);
            if session.path == Some(id) {
                // The newest confirmed one that is left.
                session.path = session
                    .paths
                    .iter()
                    .rev()
                    .find(|p| self.paths.get(&p.0).is_some_and(|p| p.confirmed))
                    .copied();
            }
        }
        Some(())
    }

    fn session_remove(&mut self, id: SessionId) -> Option<()> {
        let session = self.sessions.remove(&id.0)?;
        for path in session.paths {
            if let Some(path) = self.paths.remove(&path.0) {
                self.labels.remove(&path.ingress.0);
            }
        }
        for addresses in session.pairs.iter().flat_map(|pair| [pair.v4, pair.v6]).flatten() {
            if self.pairs.get(&addresses) == Some(&id) {
                self.pairs.remove(&addresses);
            }
        }
        self.flows.remove_if(|flow| flow.wire.session == id);
        Some(())
    }

    fn session_send(
        &mut self,
        now: Instant,
        session: SessionId,
        path: Option<PathId>,
        bytes: &[u8],
        tx: &mut TxBatch,
    ) -> Option<()> {
        let path = path.or(self.sessions.get(&session.0)?.path)?;
        if bytes.len() > FRAME_MAX {
            self.drops.count(DropReason::TooLong);
            return Some(());
        }
        let header = InnerHeader {
            kind: Kind::Control,
            traffic_class: 0,
            hop_limit: 64,
        }
        .bytes();
        self.seal_one(now, path, &[&header, bytes], tx);
        Some(())
    }

    /// Tells the control logic; its queue is bounded, and strangers get only a part of it.
    pub(crate) fn emit(&mut self, event: Event) {
        let handshake = matches!(event, Event::Handshake { .. });
        if self.events.len() >= EVENTS || (handshake && self.handshakes_waiting >= HANDSHAKE_EVENTS) {
            self.drops.count(DropReason::EventOverflow);
            return;
        }
        self.handshakes_waiting += usize::from(handshake);
        self.events.push_back(event);
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
        if self.needed.len() < 256 && !self.needed.iter().any(|(_, o, p)| (*o, *p) == (own, peer)) {
            self.needed.push_back((now, own, peer));
            self.emit(Event::SessionNeeded { own, peer });
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
            })
            .collect();
        sessions.sort_by_key(|s| s.session);
        let mut services: Vec<_> = self.accounts.values().copied().collect();
        services.sort_by_key(|s| s.account);
        Stats {
            links,
            sessions,
            services,
            relay_packets: self.relayed.0,
            relay_bytes: self.relayed.1,
            relay_labels: self
                .labels
                .values()
                .filter(|l| matches!(l.action, Action::Forward { .. }))
                .count() as u64,
            ledger: self.ledger,
            drops: DropReason::ALL
                .iter()
                .map(|&reason| (reason.name(), self.drops.get(reason)))
                .collect(),
        }
    }
}
