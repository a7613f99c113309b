//! What a node knows of links, labels, paths and sessions.

use crate::aead::Aead;
use crate::api::{Generation, Hop, Label, LinkId, Pair, PathId, Policy, Remote, SessionId};
use crate::keyed::HopKey;
use crate::replay::ReplayWindow;
use crate::stats::Traffic;
use crate::time::{Duration, Instant};
use crate::wire::{counter_of, join_counter};
use zeroize::Zeroizing;

/// Keys that have not been replaced for so long seal and open nothing (WireGuard's REJECT_AFTER_TIME).
pub const KEY_LIFE: Duration = Duration::from_secs(180);
/// After so many packets under one key the control logic is asked for another.
pub const REKEY_AFTER: u64 = 1 << 60;
/// Counters at most on one path: what 62 bits hold.
const COUNTER_LIMIT: u64 = (1 << 62) - 1;

/// One set of keys of a link.
pub struct LinkGeneration<A: Aead> {
    pub generation: Generation,
    pub receive_index: u32,
    pub send_index: u32,
    pub send: A::Key,
    pub receive: A::Key,
    pub hop_secret: Zeroizing<[u8; 32]>,
    pub counter: u64,
    pub window: ReplayWindow,
    pub confirmed: bool,
}

/// An adjacent node.
pub struct Link<A: Aead> {
    pub id: LinkId,
    pub initiator: bool,
    pub remote: Remote,
    pub generations: Vec<LinkGeneration<A>>,
    pub current: Generation,
    pub traffic: Traffic,
    pub heard: Instant,
    pub roamed: Option<Instant>,
    /// Unknown labels reported in the running second.
    pub reported: (Instant, u32),
}

impl<A: Aead> Link<A> {
    pub fn generation(&mut self, generation: Generation) -> Option<&mut LinkGeneration<A>> {
        self.generations.iter_mut().find(|g| g.generation == generation)
    }
}

/// What happens to packets with a label.
pub enum Action {
    /// A relay's: swap and send on.
    Forward { link: LinkId, label: Label, hop: HopKey },
    /// An end's: open.
    Deliver(PathId),
}

/// One label that we announced.
pub struct LabelEntry {
    pub link: LinkId,
    pub hop: HopKey,
    pub window: ReplayWindow,
    pub action: Action,
    pub valid: Instant,
    /// Relays: half-open until the first valid packet.
    pub carried: bool,
}

/// Keys in one of a path's four slots.
pub struct Slot<A: Aead> {
    pub send: A::Key,
    pub receive: A::Key,
    pub since: Instant,
    /// The far end has shown that it holds these keys.
    pub confirmed: bool,
}

/// One set-up path: a label pair, keys, a counter and a replay window of its own.
pub struct Path<A: Aead> {
    pub session: SessionId,
    pub ingress: Label,
    pub egress: Hop,
    pub egress_key: HopKey,
    pub slots: [Option<Slot<A>>; 4],
    pub send_slot: usize,
    pub counter: u64,
    pub slot_start: u64,
    pub asked_rekey: bool,
    pub window: ReplayWindow,
    pub confirmed: bool,
}

/// Why nothing may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotSend {
    /// No keys, or keys past their life.
    NoKey,
    /// All counters used.
    Exhausted,
}

impl<A: Aead> Path<A> {
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
        let next = self
            .counter
            .checked_add(packets)
            .filter(|&next| next < COUNTER_LIMIT)
            .ok_or(CannotSend::Exhausted)?;
        let first = join_counter(self.send_slot, counter_of(self.counter));
        self.counter = next;
        Ok(first)
    }

    /// Whether this key has sealed so much that it should be replaced; true once.
    pub fn wants_rekey(&mut self) -> bool {
        let wants = !self.asked_rekey && self.counter - self.slot_start >= REKEY_AFTER;
        self.asked_rekey |= wants;
        wants
    }

    /// Sends under `slot` from now on.
    pub fn switch_to(&mut self, slot: usize) {
        self.send_slot = slot;
        self.slot_start = self.counter;
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
    /// Refusals that we answered in the running second.
    pub refused: (Instant, u32),
}

impl Session {
    pub fn new(id: SessionId) -> Self {
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
            refused: (Instant::default(), 0),
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
