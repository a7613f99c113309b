//! A socket for each neighbour, beside those that listen: what one neighbour or a stranger sends fills no queue but its own.

use crate::outlet::{Outlet, SOCKET_FIRST};
use crate::queues::Memory;
use crate::sys::{Poll, Room, descriptors, finds_connected};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use thicket_core::Remote;

/// Sockets at most: a share of the descriptors that the process may have, and few where the kernel searches all of them for each packet.
const MOST: usize = 4_096;
const MOST_SEARCHED: usize = 64;
const DESCRIPTORS_SHARE: usize = 4;
/// What one neighbour may have waiting to be read.
const ROOM: Room = Room {
    receive: 4 << 20,
    send: SOCKET_FIRST,
};
/// A socket whose link has gone is read for so long: packets were under way.
const LINGER: Duration = Duration::from_secs(1);
/// Where no socket could be opened, the next attempt is so much later.
const AGAIN: Duration = Duration::from_secs(5);
/// Routes looked up per second, to see whether a neighbour that we called is reached another way by now.
const ROUTES: usize = 16;

/// Tokens in the poll: this bit, then the socket's place.
const TOKEN: u64 = 1 << 33;

struct LinkSocket {
    remote: Remote,
    outlet: Outlet,
    gone: Option<Instant>,
}

/// All of a worker's.
pub struct LinkSockets {
    places: Vec<Option<Box<LinkSocket>>>,
    by_remote: HashMap<Remote, usize>,
    /// The one used last: packets come in runs.
    last: Option<(Remote, usize)>,
    most: usize,
    failed: HashMap<Remote, Instant>,
    /// Links that had to do without one at the last look.
    without: usize,
    next_route: usize,
}

impl LinkSockets {
    /// None yet. Without `wanted`, never any.
    pub fn new(wanted: bool) -> Self {
        let most = if finds_connected() { MOST } else { MOST_SEARCHED };
        Self::up_to(if wanted {
            most.min(descriptors() / DESCRIPTORS_SHARE)
        } else {
            0
        })
    }

    /// None yet, and never more than so many: neighbours beyond go by the listening sockets.
    pub fn up_to(most: usize) -> Self {
        Self {
            places: Vec::new(),
            by_remote: HashMap::new(),
            last: None,
            most,
            failed: HashMap::new(),
            without: 0,
            next_route: 0,
        }
    }

    /// Whose token it is.
    pub fn place(token: u64) -> Option<usize> {
        (TOKEN..2 * TOKEN).contains(&token).then(|| (token - TOKEN) as usize)
    }

    /// Whether nobody has one.
    pub fn is_empty(&self) -> bool {
        self.by_remote.is_empty()
    }

    /// Whether all links have a socket of their own.
    pub fn serve_all(&self) -> bool {
        self.without == 0
    }

    /// Where a neighbour's packets go out, if it has a socket.
    pub fn outlet(&mut self, remote: Remote) -> Option<&mut Outlet> {
        let place = match self.last {
            Some((last, place)) if last == remote => place,
            _ => {
                let place = *self.by_remote.get(&remote)?;
                self.last = Some((remote, place));
                place
            }
        };
        self.at(place).map(|(_, outlet)| outlet)
    }

    /// The socket at a place, and whom it is for.
    pub fn at(&mut self, place: usize) -> Option<(Remote, &mut Outlet)> {
        let socket = self.places.get_mut(place)?.as_mut()?;
        Some((socket.remote, &mut socket.outlet))
    }

    /// Opens what is missing and lets go of what is no longer wanted.
    pub fn follow(&mut self, now: Instant, wanted: impl Iterator<Item = Remote>, listening: &[Outlet], poll: &Poll) {
        if self.most == 0 {
            self.without = wanted.count();
            return;
        }
        let wanted: HashSet<Remote> = wanted.collect();
        for socket in self.places.iter_mut().flatten() {
            if wanted.contains(&socket.remote) {
                socket.gone = None;
            } else {
                socket.gone.get_or_insert(now);
            }
        }
        self.without = 0;
        for remote in wanted {
            if !self.by_remote.contains_key(&remote) && self.open(now, remote, listening, poll).is_none() {
                self.without += 1;
            }
        }
    }

    fn open(&mut self, now: Instant, remote: Remote, listening: &[Outlet], poll: &Poll) -> Option<()> {
        let failed = self.failed.get(&remote).is_some_and(|&at| now - at < AGAIN);
        if failed || self.by_remote.len() >= self.most {
            return None;
        }
        let listening = listening.get(usize::from(remote.socket))?.socket();
        let place = self
            .places
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.places.len());
        let outlet = listening
            .branch(remote.local, remote.address, ROOM)
            .and_then(|socket| Outlet::new(socket, TOKEN | place as u64, poll));
        let Ok(outlet) = outlet else {
            self.failed.insert(remote, now);
            return None;
        };
        let socket = Some(Box::new(LinkSocket {
            remote,
            outlet,
            gone: None,
        }));
        match self.places.get_mut(place) {
            Some(free) => *free = socket,
            None => self.places.push(socket),
        }
        self.by_remote.insert(remote, place);
        Some(())
    }

    /// Once a second: closes what has gone, and what no longer leads to its neighbour. Returns packets lost, and whether to look for what is
    /// missing.
    pub fn sweep(&mut self, now: Instant, memory: &mut Memory) -> (u64, bool) {
        let before = self.failed.len();
        self.failed.retain(|_, &mut at| now - at < AGAIN);
        let (mut lost, mut missing) = (0, self.failed.len() < before);
        let (count, first) = (self.places.len(), self.next_route);
        for place in 0..count {
            let Some(socket) = self.places.get(place).and_then(Option::as_ref) else {
                continue;
            };
            let looked_up = (place + count - first % count) % count < ROUTES;
            let broken = socket.outlet.socket().is_broken();
            let misrouted = looked_up && socket.remote.local.is_none() && socket.outlet.socket().is_misrouted();
            if broken {
                self.failed.insert(socket.remote, now);
            }
            if broken || misrouted || socket.gone.is_some_and(|at| now - at >= LINGER) {
                lost += self.close(place, memory);
                missing = true;
            }
        }
        self.next_route = (first + ROUTES) % count.max(1);
        (lost, missing)
    }

    fn close(&mut self, place: usize, memory: &mut Memory) -> u64 {
        let Some(mut socket) = self.places.get_mut(place).and_then(Option::take) else {
            return 0;
        };
        self.last = None;
        self.by_remote.remove(&socket.remote);
        socket.outlet.give_up(memory)
    }
}
