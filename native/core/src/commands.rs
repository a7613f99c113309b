//! The control logic's orders, carried out. One that names what is gone changes nothing and is counted.

use crate::aead::{Aead, ReceiveKey, SendKey};
use crate::api::*;
use crate::buffers::{Share, TxBatch};
use crate::core::Core;
use crate::flows::Watch;
use crate::keyed::{Direction, HopKey};
use crate::path_size::{BASE, PathSize};
use crate::replay::ReplayWindow;
use crate::stats::DropReason;
use crate::tables::*;
use crate::time::Instant;
use crate::wire::*;
use std::sync::Arc;

/// Longest control frame, plaintext.
pub(crate) const FRAME_MAX: usize = HANDSHAKE_LEN - LINK_OVERHEAD;
/// Longest control packet of a session: it goes over every path, whatever its size.
const CONTROL_MAX: usize = BASE - DATA_OVERHEAD - INNER_HEADER;

impl<A: Aead> Core<A> {
    /// Takes one order. What it makes to send goes to `tx`.
    pub fn command(&mut self, now: Instant, command: Command, tx: &mut TxBatch) {
        tx.share = Share::CONTROL;
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
                self.flows.cut_if(|flow| (flow.local.own, flow.local.peer) == addresses);
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
            self.flows.cut_if(|flow| (flow.local.own, flow.local.peer) == addresses);
        }
        Some(())
    }

    /// Replaces what the far end may reach; flows that it may no longer have are cut.
    fn session_policy(&mut self, id: SessionId, policy: Policy) -> Option<()> {
        let before = core::mem::take(&mut self.sessions.get_mut(&id.0)?.policy.inbound);
        let places: Vec<_> = policy.inbound.iter().map(|s| self.account_place(s.account)).collect();
        self.flows.cut_if(|flow| {
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
        let v6 = self.links.get(&keys.egress.link.0)?.remote.address.is_ipv6();
        self.add_label(now, keys.ingress, hop, Action::Deliver(keys.path))?;
        let slot = Slot {
            send: Arc::new(SendKey::<A>(A::key(&keys.send_key))),
            receive: Arc::new(ReceiveKey::<A>(A::key(&keys.receive_key))),
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
            size: PathSize::new(v6),
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
            send: Arc::new(SendKey::<A>(A::key(send_key))),
            receive: Arc::new(ReceiveKey::<A>(A::key(receive_key))),
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
        self.flows.cut_if(|flow| flow.wire.session == id);
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
        if bytes.is_empty() || bytes.len() > CONTROL_MAX {
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
