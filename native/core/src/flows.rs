//! Flows: what was asked, so that only answers come back, and what each packet's headers become on the other side.
//!
//! A flow is known twice: to the host by addresses and ports (`LocalKey`), on the wire by session and ports (`WireKey`). The two differ when two
//! local flows would be one on the wire: an IPv4 and an IPv6 one to the same key, or two names of one key. The later then gets another wire port.

use crate::api::SessionId;
use crate::hash::{IdMap, KeyedMap, KeyedState};
use crate::time::{Duration, Instant};
use crate::wire::protocol;
use core::net::IpAddr;

/// Flows at most, in all and of one session.
const MOST: usize = 65_536;
const MOST_OF_SESSION: u32 = 16_384;
const UDP_IDLE: Duration = Duration::from_secs(180);
const ECHO_IDLE: Duration = Duration::from_secs(60);
const TCP_CLOSED: Duration = Duration::from_secs(60);
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

/// One flow.
#[derive(Clone, Debug)]
pub struct Flow {
    pub local: LocalKey,
    pub wire: WireKey,
    /// Opened by the far end.
    pub inbound: bool,
    pub account: Option<u32>,
    pub last: Instant,
    /// TCP: a reset, or a FIN from both sides.
    pub closing: u8,
    /// TCP: sequence number behind the last byte that our side sent, and what it acknowledged last; for resets that we make.
    pub next_seq: u32,
    pub acked: u32,
}

/// Index of a flow; good until the next removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowIndex(u32);

/// All flows of a node.
pub struct Flows {
    slab: Vec<Option<Flow>>,
    free: Vec<u32>,
    local: KeyedMap<LocalKey, u32>,
    wire: KeyedMap<WireKey, u32>,
    of_session: IdMap<u32, u32>,
}

impl Flows {
    pub fn new(state: KeyedState) -> Self {
        Self {
            slab: Vec::new(),
            free: Vec::new(),
            local: KeyedMap::with_hasher(state),
            wire: KeyedMap::with_hasher(state),
            of_session: IdMap::default(),
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
        if self.local.len() >= MOST || self.count_of(session) >= MOST_OF_SESSION {
            return None;
        }
        let mut wire = WireKey {
            session,
            protocol: local.protocol,
            wire_port: local.local_port,
            remote_port: local.remote_port,
        };
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
            closing: 0,
            next_seq: 0,
            acked: 0,
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

    /// Removes the flows for which `gone` says so.
    pub fn remove_if(&mut self, mut gone: impl FnMut(&Flow) -> bool) {
        for index in 0..self.slab.len() {
            let Some(place) = self.slab.get_mut(index) else { return };
            if !place.as_ref().is_some_and(&mut gone) {
                continue;
            }
            let Some(flow) = place.take() else { continue };
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
    }

    /// Removes what has been idle for too long.
    pub fn expire(&mut self, now: Instant) {
        self.remove_if(|flow| {
            let limit = match flow.local.protocol {
                protocol::TCP if flow.closing >= 2 => TCP_CLOSED,
                protocol::TCP => TCP_IDLE,
                protocol::UDP => UDP_IDLE,
                _ => ECHO_IDLE,
            };
            now.since(flow.last) > limit
        });
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
    /// Notes a segment's flags, so that a finished connection makes room soon.
    pub fn note_tcp(&mut self, now: Instant, flags: u8) {
        self.last = now;
        if flags & tcp_flags::RST != 0 {
            self.closing = 2;
        } else if flags & tcp_flags::SYN != 0 {
            self.closing = 0;
        } else if flags & tcp_flags::FIN != 0 {
            self.closing = (self.closing + 1).min(2);
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
}
