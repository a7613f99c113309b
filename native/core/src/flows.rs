//! Flows: what was asked, so that only answers come back, and what each packet's headers become on the other side.
//!
//! A flow is known twice: to the host by addresses and ports (`LocalKey`), on the wire by session and ports (`WireKey`). The two differ when two
//! local flows would be one on the wire: an IPv4 and an IPv6 one to the same key, or two names of one key. The later then gets another wire port.

use crate::api::SessionId;
use crate::buffers::Place;
use crate::hash::{IdMap, KeyedMap, KeyedState};
use crate::time::{Duration, Instant};
use crate::wire::protocol;
use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;

/// Flows at most, in all and of one session.
const MOST: usize = 65_536;
const MOST_OF_SESSION: u32 = 16_384;
/// How many places are looked at for one to give up when the table is full.
const SAMPLE: usize = 64;
const UDP_IDLE: Duration = Duration::from_secs(180);
const ECHO_IDLE: Duration = Duration::from_secs(60);
/// TCP after a reset or both FINs; before both sides have spoken; while it is open.
const TCP_CLOSED: Duration = Duration::from_secs(60);
const TCP_OPENING: Duration = Duration::from_secs(120);
const TCP_IDLE: Duration = Duration::from_secs(24 * 3600);

/// As the host knows a flow. For echoes the local port is the id and the remote port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalKey {
    pub own: IpAddr,
    pub peer: IpAddr,
    pub protocol: u8,
    pub local_port: u16,
    pub remote_port: u16,
}

/// As a flow is known on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WireKey {
    pub session: SessionId,
    pub protocol: u8,
    pub wire_port: u16,
    pub remote_port: u16,
}

/// Who looks at a flow's packets besides us: one comparison on the data path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watch {
    #[default]
    Nobody,
    /// The RTSP helper reads this TCP connection; its number there.
    Rtsp(u32),
    /// Media that an RTSP connection agreed on: at the gateway the number of its sockets, and whether these are RTCP's.
    Media(u32, bool),
    /// The same at the viewer, whose program has sockets of its own.
    Opened,
}

/// One flow.
#[derive(Clone, Debug)]
pub struct Flow {
    pub local: LocalKey,
    pub wire: WireKey,
    /// Opened by the far end.
    pub inbound: bool,
    /// Place of its service's counters.
    pub account: Option<u32>,
    pub last: Instant,
    /// Which sides have spoken, and which have sent a FIN: bits of [`side`].
    spoken: u8,
    finished: u8,
    /// Reset by either side, or refused by the far end.
    pub closed: bool,
    /// TCP: sequence number behind the last byte that our side sent, and what it acknowledged last; for resets that we make.
    pub next_seq: u32,
    pub acked: u32,
    /// An acknowledgement of our side's that is written but not sealed.
    pub waiting: Option<Place>,
    pub watch: Watch,
}

/// Sides of a flow.
pub mod side {
    /// The local host's.
    pub const OURS: u8 = 1;
    /// The far end's.
    pub const THEIRS: u8 = 2;
}

/// Index of a flow; good until the next removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowIndex(u32);

impl FlowIndex {
    /// Of no flow.
    pub const NONE: Self = Self(u32::MAX);
}

/// All flows of a node.
pub struct Flows {
    slab: Vec<Option<Flow>>,
    free: Vec<u32>,
    local: KeyedMap<LocalKey, u32>,
    wire: KeyedMap<WireKey, u32>,
    of_session: IdMap<u32, u32>,
    /// Where the search for a place to give up goes on.
    cursor: usize,
    /// RTSP connections whose flow was removed, for the helper to follow.
    pub unwatched: Vec<u32>,
    /// TCP flows that policy removed, if anybody wants to know: our end and the far one.
    pub cuts: Option<VecDeque<(SocketAddr, SocketAddr)>>,
}

impl Flows {
    pub fn new(state: KeyedState) -> Self {
        Self {
            slab: Vec::new(),
            free: Vec::new(),
            local: KeyedMap::with_hasher(state),
            wire: KeyedMap::with_hasher(state),
            of_session: IdMap::default(),
            cursor: 0,
            unwatched: Vec::new(),
            cuts: None,
        }
    }

    pub fn by_local(&self, key: &LocalKey) -> Option<FlowIndex> {
        self.local.get(key).map(|&index| FlowIndex(index))
    }

    pub fn by_wire(&self, key: &WireKey) -> Option<FlowIndex> {
        self.wire.get(key).map(|&index| FlowIndex(index))
    }

    pub fn get(&self, index: FlowIndex) -> Option<&Flow> {
        self.slab.get(index.0 as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, index: FlowIndex) -> Option<&mut Flow> {
        self.slab.get_mut(index.0 as usize)?.as_mut()
    }

    pub fn count_of(&self, session: SessionId) -> u32 {
        self.of_session.get(&session.0).copied().unwrap_or(0)
    }

    /// Adds a flow; `None` when the table, or the session's share, is full or no wire port is free.
    pub fn add(
        &mut self,
        now: Instant,
        local: LocalKey,
        session: SessionId,
        inbound: bool,
        account: Option<u32>,
    ) -> Option<FlowIndex> {
        let own_share = self.count_of(session) >= MOST_OF_SESSION;
        if (own_share || self.local.len() >= MOST) && !self.give_up_one(now, own_share.then_some(session)) {
            return None;
        }
        let mut wire = WireKey {
            session,
            protocol: local.protocol,
            wire_port: local.local_port,
            remote_port: local.remote_port,
        };
        if self.local.contains_key(&local) {
            return None;
        }
        if self.wire.contains_key(&wire) {
            if inbound {
                return None;
            }
            // Dynamic ports (RFC 6335), from a place of this flow's own so that the search is short.
            let start = local.local_port ^ 0x5a5a;
            wire.wire_port = (0..16_384u16)
                .map(|step| 49_152 + (start.wrapping_add(step) & 0x3fff))
                .find(|&port| {
                    !self.wire.contains_key(&WireKey {
                        wire_port: port,
                        ..wire
                    })
                })?;
        }
        let flow = Flow {
            local,
            wire,
            inbound,
            account,
            last: now,
            spoken: 0,
            finished: 0,
            closed: false,
            next_seq: 0,
            acked: 0,
            waiting: None,
            watch: Watch::Nobody,
        };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slab.push(None);
                u32::try_from(self.slab.len() - 1).ok()?
            }
        };
        *self.slab.get_mut(index as usize)? = Some(flow);
        self.local.insert(local, index);
        self.wire.insert(wire, index);
        *self.of_session.entry(session.0).or_insert(0) += 1;
        Some(FlowIndex(index))
    }

    /// Adds a flow whose ports are the same on the wire, and which somebody watches; `None` when these are taken.
    pub fn add_watched(
        &mut self,
        now: Instant,
        local: LocalKey,
        session: SessionId,
        inbound: bool,
        account: Option<u32>,
        watch: Watch,
    ) -> Option<WireKey> {
        let wire = WireKey {
            session,
            protocol: local.protocol,
            wire_port: local.local_port,
            remote_port: local.remote_port,
        };
        if self.wire.contains_key(&wire) {
            return None;
        }
        let index = self.add(now, local, session, inbound, account)?;
        self.get_mut(index)?.watch = watch;
        Some(wire)
    }

    /// Removes the flows for which `gone` says so; it may change those that stay.
    pub fn remove_if(&mut self, mut gone: impl FnMut(&mut Flow) -> bool) {
        for index in 0..self.slab.len() {
            if self.slab.get_mut(index).and_then(Option::as_mut).is_some_and(&mut gone) {
                self.remove(index);
            }
        }
    }

    /// The same because of policy: whoever follows the flows is told.
    pub fn cut_if(&mut self, mut gone: impl FnMut(&mut Flow) -> bool) {
        let mut cuts = self.cuts.take();
        self.remove_if(|flow| {
            let gone = gone(flow);
            let local = flow.local;
            if let Some(cuts) = cuts.as_mut().filter(|_| gone && local.protocol == protocol::TCP) {
                cuts.push_back((
                    SocketAddr::new(local.own, local.local_port),
                    SocketAddr::new(local.peer, local.remote_port),
                ));
            }
            gone
        });
        self.cuts = cuts;
    }

    /// Removes one flow.
    pub fn remove_wire(&mut self, key: &WireKey) {
        if let Some(&index) = self.wire.get(key) {
            self.remove(index as usize);
        }
    }

    fn remove(&mut self, index: usize) {
        let Some(flow) = self.slab.get_mut(index).and_then(Option::take) else {
            return;
        };
        if let Watch::Rtsp(watched) = flow.watch {
            self.unwatched.push(watched);
        }
        self.local.remove(&flow.local);
        self.wire.remove(&flow.wire);
        if let Some(count) = self.of_session.get_mut(&flow.wire.session.0) {
            *count -= 1;
            if *count == 0 {
                self.of_session.remove(&flow.wire.session.0);
            }
        }
        self.free.push(index as u32);
    }

    /// Makes room: of a sample of places (of one session, if it has used up its share) the flow that is most likely dead goes. An open TCP
    /// connection never does.
    fn give_up_one(&mut self, now: Instant, only: Option<SessionId>) -> bool {
        let mut best: Option<(Instant, usize)> = None;
        let places = self.slab.len();
        for _ in 0..SAMPLE.min(places) {
            self.cursor = (self.cursor + 1) % places;
            let Some(flow) = self.slab.get(self.cursor).and_then(Option::as_ref) else {
                continue;
            };
            let ours = only.is_none_or(|session| session == flow.wire.session);
            if ours && flow.idle_limit() != TCP_IDLE && best.is_none_or(|(last, _)| flow.last < last) {
                best = Some((flow.last, self.cursor));
            }
        }
        // What was busy this very second isn't dead.
        let gone = best.filter(|(last, _)| now.since(*last) >= Duration::from_secs(1));
        if let Some((_, index)) = gone {
            self.remove(index);
        }
        gone.is_some()
    }

    /// Removes what has been idle for too long.
    pub fn expire(&mut self, now: Instant) {
        self.remove_if(|flow| now.since(flow.last) > flow.idle_limit());
    }
}

/// TCP flag bits.
pub mod tcp_flags {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
    pub const CWR: u8 = 128;
}

impl Flow {
    /// Notes a segment and its flags, so that a finished connection makes room soon. `from` is a bit of [`side`].
    pub fn note_tcp(&mut self, now: Instant, flags: u8, from: u8) {
        self.last = now;
        if flags & tcp_flags::SYN != 0 && flags & tcp_flags::ACK == 0 {
            // The same ports again: a new connection.
            (self.spoken, self.finished, self.closed) = (0, 0, false);
        }
        self.spoken |= from;
        if flags & tcp_flags::FIN != 0 {
            self.finished |= from;
        }
        self.closed |= flags & tcp_flags::RST != 0;
    }

    fn idle_limit(&self) -> Duration {
        const BOTH: u8 = side::OURS | side::THEIRS;
        match self.local.protocol {
            protocol::TCP if self.closed || self.finished == BOTH => TCP_CLOSED,
            protocol::TCP if self.spoken != BOTH => TCP_OPENING,
            protocol::TCP => TCP_IDLE,
            // Media may pause; they end with the connection that agreed on them.
            protocol::UDP if self.watch != Watch::Nobody => TCP_IDLE,
            protocol::UDP => UDP_IDLE,
            _ => ECHO_IDLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_local_flows_that_would_be_one_on_the_wire_get_different_wire_ports() {
        let mut flows = Flows::new(KeyedState::new([3; 16]));
        let now = Instant::default();
        let v4 = LocalKey {
            own: [198, 18, 0, 1].into(),
            peer: [198, 18, 0, 9].into(),
            protocol: protocol::TCP,
            local_port: 5000,
            remote_port: 554,
        };
        let v6 = LocalKey {
            own: "fd00::1".parse().unwrap(),
            peer: "fd00::9".parse().unwrap(),
            ..v4
        };
        let a = flows.add(now, v4, SessionId(1), false, None).unwrap();
        let b = flows.add(now, v6, SessionId(1), false, None).unwrap();
        assert_eq!(flows.get(a).unwrap().wire.wire_port, 5000);
        let other = flows.get(b).unwrap().wire;
        assert_ne!(other.wire_port, 5000);
        assert_eq!(flows.by_wire(&other), Some(b));
        flows.remove_if(|flow| flow.local == v4);
        assert_eq!((flows.by_local(&v4), flows.count_of(SessionId(1))), (None, 1));
    }

    #[test]
    fn a_local_flow_is_never_two() {
        let mut flows = Flows::new(KeyedState::new([3; 16]));
        let now = Instant::default();
        let key = LocalKey {
            own: [198, 18, 0, 1].into(),
            peer: [198, 18, 0, 9].into(),
            protocol: protocol::TCP,
            local_port: 5000,
            remote_port: 554,
        };
        let first = flows.add(now, key, SessionId(1), false, None);
        assert!(first.is_some() && flows.add(now, key, SessionId(2), true, None).is_none());
        assert_eq!(flows.by_local(&key), first);
    }

    #[test]
    fn a_full_table_gives_up_what_is_dead_and_never_an_open_connection() {
        let mut flows = Flows::new(KeyedState::new([3; 16]));
        let (start, later) = (Instant::default(), Instant::from_micros(30_000_000));
        let key = |n: usize| LocalKey {
            own: core::net::Ipv4Addr::from(n as u32).into(),
            peer: [198, 18, 0, 9].into(),
            protocol: protocol::TCP,
            local_port: 1,
            remote_port: n as u16,
        };
        for n in 0..MOST {
            let index = flows
                .add(start, key(n), SessionId(n as u32 / 10_000), false, None)
                .unwrap();
            let flow = flows.get_mut(index).unwrap();
            flow.note_tcp(start, tcp_flags::SYN, side::OURS);
            if n % 2 == 0 {
                flow.note_tcp(start, tcp_flags::ACK, side::THEIRS);
            }
        }
        let fresh = key(MOST + 1);
        assert!(
            flows.add(start, fresh, SessionId(99), false, None).is_none(),
            "nothing is dead yet"
        );
        assert!(flows.add(later, fresh, SessionId(99), false, None).is_some());
        assert!((0..MOST).step_by(2).all(|n| flows.by_local(&key(n)).is_some()));
        flows.expire(Instant::from_micros(200_000_000));
        assert_eq!(flows.local.len(), MOST / 2);
    }
}
