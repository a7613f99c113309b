//! Echo requests to an endpoint, carried on to its device where the system lets us ("ping sockets", icmp(7)); elsewhere nobody answers.

use super::slab::{Key, Slab};
use crate::sys::{Poll, device};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use thicket_core::{Duration, Echo, Host, Instant};

/// Askers at once.
const MOST: usize = 64;
/// One that asks nothing for so long is forgotten.
const IDLE: Duration = Duration::from_secs(30);
/// Longest answer, with its header.
const LONGEST: usize = 4_096;
/// Answers of one socket before the others have their turn.
const ANSWERS: usize = 16;

/// Our address, the caller's, and the caller's own number.
type Asker = (IpAddr, IpAddr, u16);

struct Asking {
    asker: Asker,
    socket: UdpSocket,
    last: Instant,
}

/// All askers.
pub struct Echoes {
    all: Slab<Asking>,
    by_asker: HashMap<Asker, Key>,
    message: Vec<u8>,
}

impl Echoes {
    /// None yet.
    pub fn new() -> Self {
        Self {
            all: Slab::new(),
            by_asker: HashMap::new(),
            message: Vec::new(),
        }
    }

    /// Asks the device, which `find` tells where the asker is new.
    pub fn ask(
        &mut self,
        now: Instant,
        echo: &Echo,
        find: impl FnOnce() -> Option<IpAddr>,
        poll: &Poll,
        token: impl FnOnce(Key) -> u64,
    ) {
        let asker = (echo.own, echo.peer, echo.id);
        let key = match self.by_asker.get(&asker) {
            Some(&key) => key,
            None => match find().and_then(|target| self.open(now, asker, target, poll, token)) {
                Some(key) => key,
                None => return,
            },
        };
        let Some(asking) = self.all.get_mut(key) else { return };
        asking.last = now;
        let [s0, s1] = echo.sequence.to_be_bytes();
        self.message.clear();
        let kind = if echo.own.is_ipv4() { 8 } else { 128 };
        // The kernel puts the checksum and an identifier of its own in.
        self.message.extend_from_slice(&[kind, 0, 0, 0, 0, 0, s0, s1]);
        self.message.extend_from_slice(&echo.data);
        // What can't be sent isn't answered.
        let _ = asking.socket.send(&self.message);
    }

    fn open(
        &mut self,
        now: Instant,
        asker: Asker,
        target: IpAddr,
        poll: &Poll,
        token: impl FnOnce(Key) -> u64,
    ) -> Option<Key> {
        if self.all.len() >= MOST {
            return None;
        }
        let socket = device::echoes(SocketAddr::new(target, 0)).ok()?;
        let fd = socket.as_raw_fd();
        let key = self.all.insert(Asking {
            asker,
            socket,
            last: now,
        });
        if poll.add(fd, token(key)).is_err() {
            self.all.remove(key);
            return None;
        }
        self.by_asker.insert(asker, key);
        Some(key)
    }

    /// A device's answers to its asker.
    pub fn ready(&mut self, key: Key, host: &mut Host) {
        let Some(asking) = self.all.get_mut(key) else { return };
        let (own, peer, id) = asking.asker;
        self.message.resize(LONGEST, 0);
        for _ in 0..ANSWERS {
            let Ok(len) = asking.socket.recv(&mut self.message) else {
                return;
            };
            let answer = self.message.get(..len);
            let Some((&[kind, _, _, _, _, _, s0, s1], data)) = answer.and_then(|m| m.split_first_chunk::<8>()) else {
                continue;
            };
            if kind == if own.is_ipv4() { 0 } else { 129 } {
                host.reply_echo(&Echo {
                    own,
                    peer,
                    id,
                    sequence: u16::from_be_bytes([s0, s1]),
                    data: data.to_vec(),
                });
            }
        }
    }

    /// Forgets who asks no more.
    pub fn expire(&mut self, now: Instant) {
        let idle: Vec<_> = self
            .by_asker
            .values()
            .copied()
            .filter(|&key| {
                self.all
                    .get_mut(key)
                    .is_none_or(|asking| now.since(asking.last) >= IDLE)
            })
            .collect();
        for key in idle {
            if let Some(asking) = self.all.remove(key) {
                self.by_asker.remove(&asking.asker);
            }
        }
    }
}
