//! Orders about links: keys, addresses, control frames.

use crate::aead::Aead;
use crate::api::*;
use crate::buffers::TxBatch;
use crate::commands::FRAME_MAX;
use crate::core::Core;
use crate::replay::ReplayWindow;
use crate::stats::{DropReason, Traffic};
use crate::tables::*;
use crate::time::Instant;
use crate::wire::*;
use zeroize::Zeroizing;

impl<A: Aead> Core<A> {
    pub(crate) fn link_install(&mut self, now: Instant, keys: LinkKeys) -> Option<()> {
        if self.indexes.contains_key(&keys.receive_index) {
            return None;
        }
        let link = self.links.entry(keys.link.0).or_insert_with(|| Link {
            id: keys.link,
            remote: keys.remote,
            initiator: keys.initiator,
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
        // New keys alone move no live link.
        let live = link.is_confirmed();
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
            since: now,
            confirmed: keys.confirmed,
        });
        if keys.confirmed {
            link.current = keys.generation;
            if !live {
                let remote = link.source(keys.remote);
                self.move_to(keys.link, remote);
            }
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
        self.moves += 1;
        self.addresses.insert(remote.address, id);
        Some(())
    }

    pub(crate) fn link_move(&mut self, id: LinkId, remote: Remote) -> Option<()> {
        self.links.get_mut(&id.0)?.roamed = None;
        self.move_to(id, remote)
    }

    /// Forgets one generation's keys; the confirmed current one's only with the link.
    pub(crate) fn link_retire(&mut self, id: LinkId, generation: Generation) -> Option<()> {
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

    pub(crate) fn link_remove(&mut self, id: LinkId) -> Option<()> {
        let link = self.links.remove(&id.0)?;
        self.moves += 1;
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
    /// hasn't proved to hold seal nothing, and neither do keys past their life.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn link_send(
        &mut self,
        now: Instant,
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
        if !keys.is_alive(now) {
            self.drops.count(DropReason::NoKey);
            return Some(());
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aead::Portable;
    use crate::core::{CoreConfig, TunFeatures};
    use proptest::prelude::*;

    fn core() -> Core<Portable> {
        Core::new(CoreConfig {
            node_key: [1; 32],
            listening: true,
            tun: TunFeatures::default(),
            seed: [2; 32],
        })
    }

    fn remote(port: u16) -> Remote {
        Remote::new(0, ([192, 0, 2, 1], port).into())
    }

    fn keys(link: u32, generation: u32, port: u16, confirmed: bool) -> LinkKeys {
        LinkKeys {
            link: LinkId(link),
            generation: Generation(generation),
            remote: remote(port),
            initiator: false,
            receive_index: 1_000 * link + generation,
            send_index: 1,
            send_key: [3; 32],
            receive_key: [4; 32],
            hop_secret: [5; 32],
            confirmed,
        }
    }

    proptest! {
        #[test]
        fn a_link_has_one_address_however_often_it_moves(steps in prop::collection::vec((0u32..6, 0u16..40, 0u8..5), 0..200)) {
            let mut core = core();
            let now = Instant::from_micros(1);
            for (generation, (link, port, what)) in (1..).zip(steps) {
                let _ = match what {
                    0 => core.link_install(now, keys(link, generation, port, true)),
                    1 => core.link_install(now, keys(link, generation, port, false)),
                    2 => core.link_remove(LinkId(link)),
                    _ => core.link_move(LinkId(link), remote(port)),
                };
                prop_assert!(core.addresses.len() <= core.links.len());
                prop_assert_eq!(core.indexes.len(), core.links.values().map(|l| l.generations.len()).sum::<usize>());
                for (address, id) in &core.addresses {
                    prop_assert_eq!(core.links.get(&id.0).map(|l| l.remote.address), Some(*address));
                }
            }
        }
    }
}
