//! What a node knows of links, labels, paths and sessions.

use crate::aead::{Aead, OpenKey, TrainKey};
use crate::api::{Generation, Hop, Label, LinkId, Pair, PathId, Policy, Remote, SessionId};
use crate::keyed::HopKey;
use crate::path_size::PathSize;
use crate::replay::ReplayWindow;
use crate::stats::Traffic;
use crate::time::{Duration, Instant};
use crate::wire::join_counter;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Keys that have not been replaced for so long seal and open nothing (WireGuard's REJECT_AFTER_TIME).
pub const KEY_LIFE: Duration = Duration::from_secs(180);
/// After so many packets under one key the control logic is asked for another.
pub const REKEY_AFTER: u64 = 1 << 60;
/// Counters at most under one key space: what 62 bits hold.
const COUNTER_LIMIT: u64 = (1 << 62) - 1;

/// The next counter to seal under. Atomic and shared, so that several workers may one day send under one key; never wraps, never goes back.
#[derive(Clone, Default)]
pub struct SendCounter(Arc<AtomicU64>);

impl SendCounter {
    /// Takes `packets` consecutive counters and returns the first; `None` when they would pass the limit, and then none is taken.
    pub fn take(&self, packets: u64) -> Option<u64> {
        let next = |counter: u64| counter.checked_add(packets).filter(|&next| next <= COUNTER_LIMIT);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()
    }

    /// The counter that the next packet will have.
    pub fn peek(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One set of keys of a link.
pub struct LinkGeneration<A: Aead> {
    pub generation: Generation,
    /// We shook hands first: fixes directions in hop keys.
    pub initiator: bool,
    pub receive_index: u32,
    pub send_index: u32,
    pub send: A::Key,
    pub receive: A::Key,
    pub hop_secret: Zeroizing<[u8; 32]>,
    pub counter: SendCounter,
    pub window: ReplayWindow,
    pub since: Instant,
    pub confirmed: bool,
}

impl<A: Aead> LinkGeneration<A> {
    /// Whether these keys may still seal and open. (Hop secrets live on with the labels that they were announced under.)
    pub fn is_alive(&self, now: Instant) -> bool {
        now.since(self.since) <= KEY_LIFE
    }
}

/// An adjacent node.
pub struct Link<A: Aead> {
    pub id: LinkId,
    pub remote: Remote,
    /// We shook hands first.
    pub initiator: bool,
    pub generations: Vec<LinkGeneration<A>>,
    pub current: Generation,
    pub traffic: Traffic,
    pub heard: Instant,
    pub roamed: Option<Instant>,
    /// Unknown labels reported in the running second.
    pub reported: (Instant, u32),
    /// Events that wait for the control logic.
    pub waiting: u32,
}

impl<A: Aead> Link<A> {
    pub fn generation(&mut self, generation: Generation) -> Option<&mut LinkGeneration<A>> {
        self.generations.iter_mut().find(|g| g.generation == generation)
    }

    /// Whether the keys that we send under are known to be the far end's too.
    pub fn is_confirmed(&self) -> bool {
        self.generations
            .iter()
            .any(|g| g.generation == self.current && g.confirmed)
    }

    /// Where a packet of the link came from. Which of our addresses it came to counts only where we were called: whoever calls may change
    /// its own address, and its packets then leave as the host routes them.
    pub fn source(&self, from: Remote) -> Remote {
        let local = from.local.filter(|_| !self.initiator);
        Remote { local, ..from }
    }

    /// A valid packet came from elsewhere: whether that is to be told now.
    pub fn roams(&mut self, now: Instant, from: Remote) -> bool {
        /// A neighbour's new address is told to the control logic at most so often.
        const EVERY: Duration = Duration::from_millis(500);
        let told = self.roamed.is_some_and(|at| now.since(at) < EVERY);
        if self.remote == from || told {
            return false;
        }
        self.roamed = Some(now);
        true
    }
}

/// A relay's entry: swap label and hop tag, and send on.
pub struct Forward {
    pub link: LinkId,
    pub label: Label,
    pub hop: HopKey,
    /// Made with the first valid packet: half-open labels cost little.
    pub window: Option<Box<ReplayWindow>>,
}

/// What happens to packets with a label.
pub enum Action {
    Forward(Forward),
    /// An end's: open. The path has the replay window.
    Deliver(PathId),
}

/// One label that we announced.
pub struct LabelEntry {
    pub link: LinkId,
    pub hop: HopKey,
    pub action: Action,
    pub valid: Instant,
    /// Relays: half-open until the first valid packet.
    pub carried: bool,
}

impl LabelEntry {
    /// Whether it is a relay's.
    pub fn is_forward(&self) -> bool {
        matches!(self.action, Action::Forward(_))
    }
}

/// Keys in one of a path's four slots.
pub struct Slot {
    pub send: Arc<dyn TrainKey>,
    pub receive: Arc<dyn OpenKey>,
    pub since: Instant,
    /// The far end has shown that it holds these keys.
    pub confirmed: bool,
}

/// One set-up path: a label pair, keys, a counter and a replay window of its own.
pub struct Path {
    pub session: SessionId,
    pub ingress: Label,
    pub egress: Hop,
    pub egress_key: HopKey,
    pub slots: [Option<Slot>; 4],
    pub send_slot: usize,
    pub counter: SendCounter,
    pub slot_start: u64,
    pub asked_rekey: bool,
    pub window: ReplayWindow,
    pub confirmed: bool,
    pub size: PathSize,
}

/// Why nothing may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotSend {
    /// No keys, or keys past their life.
    NoKey,
    /// All counters used.
    Exhausted,
}

impl Path {
    /// Takes `packets` consecutive counters; the first, as the counter field to send.
    pub fn take_counters(&mut self, now: Instant, packets: u64) -> Result<u64, CannotSend> {
        let slot = self
            .slots
            .get(self.send_slot)
            .and_then(Option::as_ref)
            .ok_or(CannotSend::NoKey)?;
        if now.since(slot.since) > KEY_LIFE {
            return Err(CannotSend::NoKey);
        }
        let first = self.counter.take(packets).ok_or(CannotSend::Exhausted)?;
        Ok(join_counter(self.send_slot, first))
    }

    /// Whether this key has sealed so much that it should be replaced; true once.
    pub fn wants_rekey(&mut self) -> bool {
        let wants = !self.asked_rekey && self.counter.peek().saturating_sub(self.slot_start) >= REKEY_AFTER;
        self.asked_rekey |= wants;
        wants
    }

    /// Sends under `slot` from now on.
    pub fn switch_to(&mut self, slot: usize) {
        self.send_slot = slot;
        self.slot_start = self.counter.peek();
        self.asked_rekey = false;
    }
}

/// A pair of keys, ours and theirs.
pub struct Session {
    pub id: SessionId,
    pub pairs: Vec<Pair>,
    pub policy: Policy,
    /// The newest confirmed path: what we send over.
    pub path: Option<PathId>,
    pub paths: Vec<PathId>,
    pub traffic: Traffic,
    pub heard: Option<Instant>,
    pub sent: Option<Instant>,
    pub part_id: u16,
    pub opened: Instant,
    /// Segments of unknown connections shown to the host in the running second.
    pub resumed: (Instant, u32),
    /// Refusals and reports that we sealed in the running second.
    pub reported: (Instant, u32),
    /// Events that wait for the control logic.
    pub waiting: u32,
}

impl Session {
    pub fn new(now: Instant, id: SessionId) -> Self {
        Self {
            id,
            pairs: Vec::new(),
            policy: Policy::default(),
            path: None,
            paths: Vec::new(),
            traffic: Traffic::default(),
            heard: None,
            sent: None,
            part_id: 0,
            opened: now,
            resumed: (now, 0),
            reported: (now, 0),
            waiting: 0,
        }
    }
}

/// Counts to `limit` a second; false beyond.
pub fn within_rate(state: &mut (Instant, u32), now: Instant, limit: u32) -> bool {
    if now.since(state.0) >= Duration::from_secs(1) {
        *state = (now, 0);
    }
    state.1 = state.1.saturating_add(1);
    state.1 <= limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_taken_once_and_stop_hard_at_the_limit() {
        let counter = SendCounter::default();
        assert_eq!((counter.take(64), counter.take(1)), (Some(0), Some(64)));
        counter.0.store(COUNTER_LIMIT - 10, Ordering::Relaxed);
        assert_eq!(counter.take(11), None);
        assert_eq!(counter.take(10), Some(COUNTER_LIMIT - 10));
        assert_eq!(counter.take(1), None);
    }
}
