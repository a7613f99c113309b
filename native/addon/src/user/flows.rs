//! UDP of callers to devices: a connected socket for each flow, so that a device's answers, and its host's refusals, find their caller.

use super::slab::{Key, Slab};
use crate::sys::{Outgoing, Poll, ReceiveBuffers, Received, Room, Udp};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use thicket_core::{Datagrams, Duration, Host, Instant, Lost};

/// Flows of one caller to one endpoint.
const PER_PAIR: usize = 256;
/// A flow ends when nothing has passed for so long; and once the device has answered, for so long (as the kernel's conntrack does it).
const UNANSWERED: Duration = Duration::from_secs(60);
const ANSWERED: Duration = Duration::from_secs(180);
/// Receive calls of one socket before the others have their turn.
const CALLS: usize = 4;
/// A camera's picture comes as a burst.
const ROOM: Room = Room {
    receive: 1 << 20,
    send: 1 << 20,
};

/// Our address and port, and the caller's.
type Ends = (SocketAddr, SocketAddr);

struct Flow {
    ends: Ends,
    socket: Udp,
    target: SocketAddr,
    answered: bool,
    last: Instant,
}

/// All flows.
pub struct Flows {
    all: Slab<Flow>,
    by_ends: HashMap<Ends, Key>,
    /// How many each pair of addresses has.
    of_pair: HashMap<(IpAddr, IpAddr), usize>,
    most: usize,
    received: Vec<Received>,
}

impl Flows {
    /// None yet; at most so many.
    pub fn new(most: usize) -> Self {
        Self {
            all: Slab::new(),
            by_ends: HashMap::new(),
            of_pair: HashMap::new(),
            most,
            received: Vec::new(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Sends a caller's datagrams to its device, which `find` tells where the flow is new. What isn't taken is lost, as any datagram may be.
    pub fn send(
        &mut self,
        now: Instant,
        datagrams: Datagrams,
        bytes: &[u8],
        find: impl FnOnce() -> Option<SocketAddr>,
        host: &mut Host,
        poll: &Poll,
        token: impl FnOnce(Key) -> u64,
    ) {
        let ends = (datagrams.own, datagrams.peer);
        let key = match self.by_ends.get(&ends) {
            Some(&key) => key,
            None => match find().and_then(|target| self.open(now, ends, target, poll, token)) {
                Some(key) => key,
                None => return,
            },
        };
        let Some(flow) = self.all.get_mut(key) else { return };
        flow.last = now;
        let out = Outgoing {
            to: flow.target,
            local: None,
            segment: datagrams.segment,
            bytes,
            share: 0,
        };
        flow.socket.send(std::iter::once(out), &mut |_| ());
        if flow.socket.take_refused() {
            host.lose_datagram(ends.0, ends.1, Lost::Refused);
        }
    }

    fn open(
        &mut self,
        now: Instant,
        ends: Ends,
        target: SocketAddr,
        poll: &Poll,
        token: impl FnOnce(Key) -> u64,
    ) -> Option<Key> {
        let pair = (ends.0.ip(), ends.1.ip());
        let count = self.of_pair.get(&pair).copied().unwrap_or(0);
        if count >= PER_PAIR || self.all.len() >= self.most {
            return None;
        }
        let socket = Udp::towards(target, ROOM).ok()?;
        let fd = socket.as_raw_fd();
        let key = self.all.insert(Flow {
            ends,
            socket,
            target,
            answered: false,
            last: now,
        });
        if poll.add(fd, token(key)).is_err() {
            self.all.remove(key);
            return None;
        }
        self.by_ends.insert(ends, key);
        self.of_pair.insert(pair, count + 1);
        Some(key)
    }

    /// A device's answers to its caller.
    pub fn ready(&mut self, now: Instant, key: Key, buffers: &mut ReceiveBuffers, host: &mut Host) {
        let Some(flow) = self.all.get_mut(key) else { return };
        for _ in 0..CALLS {
            match flow.socket.receive(buffers, &mut self.received) {
                Ok(()) if self.received.is_empty() => return,
                Ok(()) => {}
                // What an earlier datagram met.
                Err(error) => {
                    if error.raw_os_error() == Some(libc::ECONNREFUSED) {
                        host.lose_datagram(flow.ends.0, flow.ends.1, Lost::Refused);
                    }
                    continue;
                }
            }
            flow.answered = true;
            flow.last = now;
            for received in &self.received {
                // What came in the moment before the socket was connected may be anybody's.
                if received.from != flow.target {
                    continue;
                }
                let bytes = &*buffers.buffer(received.buffer, received.len);
                for datagram in datagrams(bytes, received.segment) {
                    host.send_datagram(flow.ends.0, flow.ends.1, datagram);
                }
            }
        }
    }

    /// Ends what has been idle for too long.
    pub fn expire(&mut self, now: Instant) {
        let keys: Vec<_> = self.all.keys().collect();
        for key in keys {
            let idle = self
                .all
                .get_mut(key)
                .is_some_and(|flow| now.since(flow.last) >= if flow.answered { ANSWERED } else { UNANSWERED });
            if idle {
                self.end(key);
            }
        }
    }

    /// Ends those that go elsewhere than `target` says.
    pub fn review(&mut self, target: impl Fn(SocketAddr, SocketAddr) -> Option<SocketAddr>) {
        let keys: Vec<_> = self.all.keys().collect();
        for key in keys {
            let flow = self.all.get_mut(key);
            if flow.is_some_and(|flow| target(flow.ends.0, flow.ends.1) != Some(flow.target)) {
                self.end(key);
            }
        }
    }

    fn end(&mut self, key: Key) {
        let Some(flow) = self.all.remove(key) else { return };
        self.by_ends.remove(&flow.ends);
        let pair = (flow.ends.0.ip(), flow.ends.1.ip());
        if let Some(count) = self.of_pair.get_mut(&pair) {
            *count -= 1;
            if *count == 0 {
                self.of_pair.remove(&pair);
            }
        }
    }
}

/// What came together, one by one; an empty datagram comes alone.
pub fn datagrams(bytes: &[u8], segment: usize) -> impl Iterator<Item = &[u8]> {
    let empty = bytes.is_empty().then_some(bytes);
    empty.into_iter().chain(bytes.chunks(segment.max(1)))
}
