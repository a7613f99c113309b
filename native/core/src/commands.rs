//! The control logic's orders, carried out. One that names what is gone changes nothing and is counted.

use crate::aead::Aead;
use crate::api::*;
use crate::buffers::TxBatch;
use crate::core::Core;
use crate::flows::Watch;
use crate::keyed::{Direction, HopKey};
use crate::replay::ReplayWindow;
use crate::stats::DropReason;
use crate::tables::*;
use crate::time::Instant;
use crate::wire::*;

/// Longest control frame, plaintext.
pub(crate) const FRAME_MAX: usize = HANDSHAKE_LEN - LINK_OVERHEAD;

impl<A: Aead> Core<A> {
    /// Takes one order. What it makes to send goes to `tx`.
    pub fn command(&mut self, now: Instant, command: Command, tx: &mut TxBatch) {
        let done = match command {
            Command::SendHandshake { remote, bytes } => {
                self.gate.expect(now, remote.address);
                self.ledger.control += bytes.len() as u64;
                tx.push(remote, &bytes);
                Some(())
            }
            Command::LinkInstall(keys) => self.link_install(now, keys),
            Command::LinkSend {
                link,
                generation,
                to,
                keep_alive,
                frame,
            } => self.link_send(now, link, generation, to, keep_alive, &frame, tx),
            Command::LinkMove { link, remote } => self.link_move(link, remote),
            Command::LinkRetire { link, generation } => self.link_retire(link, generation),
            Command::LinkRemove { link } => self.link_remove(link),
            Command::LabelForward { ingress, egress } => self.label_forward(now, ingress, egress),
            Command::LabelRemove { label } => self.labels.remove(label.0),
            Command::SessionOpen { session, pair } => self.session_open(now, session, pair),
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
            Command::PathRetire { path, slot } => self.path_retire(path, slot),
            Command::PathRemove { path } => self.path_remove(path),
            Command::SessionSend { session, path, bytes } => self.session_send(now, session, path, &bytes, tx),
            Command::SessionRemove { session } => self.session_remove(session),
        };
        if done.is_none() {
            self.drops.count(DropReason::StaleCommand);
        }
        self.rtsp_forget();
    }

    fn link_install(&mut self, now: Instant, keys: LinkKeys) -> Option<()> {
        if self.indexes.contains_key(&keys.receive_index) {
            return None;
        }
        let link = self.links.entry(keys.link.0).or_insert_with(|| Link {
            id: keys.link,
            remote: keys.remote,
            generations: Vec::new(),
            current: keys.generation,
            traffic: Traffic::default(),
            heard: now,
            roamed: None,
            reported: (now, 0),
            waiting: 0,
        });
        // Strictly rising, so that an old set of keys can't come back.
        if link.generations.iter().any(|g| g.generation >= keys.generation) {
            return None;
        }
        link.generations.push(LinkGeneration {
            generation: keys.generation,
            initiator: keys.initiator,
            receive_index: keys.receive_index,
            send_index: keys.send_index,
            send: A::key(&keys.send_key),
            receive: A::key(&keys.receive_key),
            hop_secret: Zeroizing::new(keys.hop_secret),
            counter: SendCounter::default(),
            window: ReplayWindow::default(),
            confirmed: keys.confirmed,
        });
        if keys.confirmed {
            link.current = keys.generation;
            self.move_to(keys.link, keys.remote);
        }
        self.indexes.insert(keys.receive_index, (keys.link, keys.generation));
        Some(())
    }

    /// The link's datagrams go there from now on.
    pub(crate) fn move_to(&mut self, id: LinkId, remote: Remote) -> Option<()> {
        let link = self.links.get_mut(&id.0)?;
        if self.addresses.get(&link.remote.address) == Some(&id) {
            self.addresses.remove(&link.remote.address);
        }
        link.remote = remote;
        self.addresses.insert(remote.address, id);
        Some(())
    }

    fn link_move(&mut self, id: LinkId, remote: Remote) -> Option<()> {
        self.links.get_mut(&id.0)?.roamed = None;
        self.move_to(id, remote)
    }

    /// Forgets one generation's keys; the confirmed current one's only with the link.
    fn link_retire(&mut self, id: LinkId, generation: Generation) -> Option<()> {
        let link = self.links.get_mut(&id.0)?;
        let at = link.generations.iter().position(|g| g.generation == generation)?;
        if generation == link.current && link.is_confirmed() {
            return None;
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
            let onward = matches!(&entry.action, Action::Forward(forward) if forward.link == id);
            entry.link != id && !onward
        });
        Some(())
    }

    /// Seals one control frame; the far end's index, a fresh counter, and the link's address unless told another. Keys that the far end
    /// hasn't proved to hold seal nothing.
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
        let keys = link.generation(generation).filter(|keys| keys.confirmed)?;
        if frame.is_empty() || frame.len() > FRAME_MAX {
            self.drops.count(DropReason::TooLong);
            return Some(());
        }
        let Some(counter) = keys.counter.take(1) else {
            self.drops.count(DropReason::CounterExhausted);
            return Some(());
        };
        let len = LINK_OVERHEAD + frame.len();
        let Some(out) = tx.reserve(len) else {
            self.drops.count(DropReason::NoRoom);
            return Some(());
        };
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

    /// The key of a hop's tags, for packets that come in over its link or go out.
    fn hop_key(&mut self, hop: Hop, incoming: bool) -> Option<HopKey> {
        let keys = self.links.get_mut(&hop.link.0)?.generation(hop.generation)?;
        let direction = if keys.initiator == incoming {
            Direction::FromResponder
        } else {
            Direction::FromInitiator
        };
        Some(HopKey::derive(&keys.hop_secret, hop.label.0, direction))
    }

    fn label_forward(&mut self, now: Instant, ingress: Hop, egress: Hop) -> Option<()> {
        let hop = self.hop_key(ingress, true)?;
        let onward = self.hop_key(egress, false)?;
        let forward = Forward {
            link: egress.link,
            label: egress.label,
            hop: onward,
            window: None,
        };
        self.add_label(now, ingress, hop, Action::Forward(forward))
    }

    fn add_label(&mut self, now: Instant, ingress: Hop, hop: HopKey, action: Action) -> Option<()> {
        if ingress.label.0 < 256 {
            return None;
        }
        let entry = LabelEntry {
            link: ingress.link,
            hop,
            action,
            valid: now,
            carried: false,
        };
        self.labels.add(ingress.label.0, entry)
    }

    fn session_open(&mut self, now: Instant, id: SessionId, pair: Pair) -> Option<()> {
        let session = self.sessions.entry(id.0).or_insert_with(|| Session::new(now, id));
        if !session.pairs.contains(&pair) {
            session.pairs.push(pair);
        }
        for addresses in [pair.v4, pair.v6].into_iter().flatten() {
            // A name that moves to another key takes its addresses along; what went to the old key ends.
            if self.pairs.insert(addresses, id).is_some_and(|before| before != id) {
                self.flows
                    .remove_if(|flow| (flow.local.own, flow.local.peer) == addresses);
            }
        }
        Some(())
    }

    fn alias_remove(&mut self, id: SessionId, pair: Pair) -> Option<()> {
        self.sessions.get_mut(&id.0)?.pairs.retain(|p| *p != pair);
        for addresses in [pair.v4, pair.v6].into_iter().flatten() {
            let still = self
                .sessions
                .get(&id.0)?
                .pairs
                .iter()
                .any(|p| p.v4 == Some(addresses) || p.v6 == Some(addresses));
            if still || self.pairs.get(&addresses) != Some(&id) {
                continue;
            }
            self.pairs.remove(&addresses);
            self.flows
                .remove_if(|flow| (flow.local.own, flow.local.peer) == addresses);
        }
        Some(())
    }

    /// Replaces what the far end may reach; flows that it may no longer have are cut.
    fn session_policy(&mut self, id: SessionId, policy: Policy) -> Option<()> {
        let before = core::mem::take(&mut self.sessions.get_mut(&id.0)?.policy.inbound);
        let places: Vec<_> = policy.inbound.iter().map(|s| self.account_place(s.account)).collect();
        self.flows.remove_if(|flow| {
            if flow.wire.session != id {
                return false;
            }
            let allowed = match (flow.inbound, flow.local.protocol) {
                // It goes when the connection that agreed on it goes.
                (true, protocol::UDP) if matches!(flow.watch, Watch::Media(..)) => true,
                (true, protocol::TCP | protocol::UDP) => {
                    let of_flow = |s: &Service| {
                        (s.protocol, s.port, s.v6)
                            == (flow.local.protocol, flow.local.local_port, flow.local.own.is_ipv6())
                    };
                    // Whoever reads a connection knows its device by address.
                    let read = |s: &Service| s.rtsp.map(|lan| (lan, s.target));
                    let old = before.iter().find(|s| of_flow(s)).and_then(read);
                    let place = policy.inbound.iter().position(|s| of_flow(s) && read(s) == old);
                    flow.account = place.and_then(|place| places.get(place).copied().flatten());
                    place.is_some()
                }
                (true, _) => policy.echo,
                (false, _) => policy.outbound,
            };
            !allowed
        });
        let session = self.sessions.get_mut(&id.0)?;
        session.policy = policy;
        let ports = session.policy.rtsp_ports.clone();
        self.rtsp_forget();
        self.rtsp_policy(id, &ports);
        Some(())
    }

    fn path_install(&mut self, now: Instant, keys: PathKeys) -> Option<()> {
        if !self.sessions.contains_key(&keys.session.0) || self.paths.contains_key(&keys.path.0) {
            return None;
        }
        let hop = self.hop_key(keys.ingress, true)?;
        let egress_key = self.hop_key(keys.egress, false)?;
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
            counter: SendCounter::default(),
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
        // The keys in use can't be replaced where they stand: packets under way would be lost.
        if slot == path.send_slot {
            return None;
        }
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

    fn path_retire(&mut self, id: PathId, slot: u8) -> Option<()> {
        let path = self.paths.get_mut(&id.0)?;
        let slot = usize::from(slot & 3);
        if path.send_slot == slot {
            return None;
        }
        path.slots[slot].take().map(|_| ())
    }

    fn path_remove(&mut self, id: PathId) -> Option<()> {
        let path = self.paths.remove(&id.0)?;
        self.labels.remove(path.ingress.0);
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
                self.labels.remove(path.ingress.0);
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
        // Keys that the far end hasn't proved to hold seal nothing.
        self.paths
            .get(&path.0)
            .filter(|p| p.session == session && p.confirmed)?;
        if bytes.is_empty() || bytes.len() > FRAME_MAX {
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
}
