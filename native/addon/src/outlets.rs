//! All sockets of a worker that lead to other nodes, and what waits for them.

use crate::link_sockets::LinkSockets;
use crate::outlet::Outlet;
use crate::queues::Memory;
use crate::sys::{Outgoing, Poll, TooLong, Udp};
use std::io;
use std::time::{Duration, Instant};
use thicket_core::{Remote, Train, TxBatch};

/// What may wait for all lines together.
const MEMORY: usize = 16 << 20;
/// How often sockets are looked after.
const SWEEP: Duration = Duration::from_secs(1);

/// Destinations told of per round whose datagrams were too long for the first link.
const TOO_LONG: usize = 64;

/// What became of packets that didn't leave.
#[derive(Default)]
struct Tally {
    /// Lost for want of room.
    lost: u64,
    too_long: Vec<TooLong>,
}

/// Sockets that listen, by their index, and those of links.
pub struct Outlets {
    pub listening: Vec<Outlet>,
    pub links: LinkSockets,
    memory: Memory,
    tally: Tally,
    /// The core's count of moves at the last look.
    moves: Option<u64>,
    swept: Instant,
}

impl Outlets {
    /// Tokens of listening sockets are their indexes. `deaf`: another worker reads these.
    pub fn new(sockets: Vec<Udp>, deaf: bool, links: LinkSockets, poll: &Poll) -> io::Result<Self> {
        let make = if deaf { Outlet::deaf } else { Outlet::new };
        let outlets = (0..).zip(sockets).map(|(index, socket)| make(socket, index, poll));
        Ok(Self {
            listening: outlets.collect::<io::Result<_>>()?,
            links,
            memory: Memory::new(MEMORY),
            tally: Tally::default(),
            moves: None,
            swept: Instant::now(),
        })
    }

    /// Seals and sends what the core made; clear it afterwards.
    pub fn send_made(&mut self, tx: &mut TxBatch, poll: &Poll) {
        if !tx.is_empty() {
            let (trains, bytes) = tx.ready();
            self.send(trains, bytes, poll);
        }
    }

    /// Sends trains, runs of the same destination in one call.
    pub fn send(&mut self, trains: &[Train], bytes: &[u8], poll: &Poll) {
        for run in trains.chunk_by(|a, b| a.remote.socket == b.remote.socket) {
            let mut rest = run;
            while let Some(remote) = rest.first().map(|train| train.remote) {
                // Neighbours without a socket of their own go together.
                let alone = !self.links.is_empty();
                let count = rest.iter().take_while(|train| !alone || train.remote == remote).count();
                let outlet = match self.links.outlet(remote) {
                    Some(outlet) if !outlet.socket().is_broken() => Some(outlet),
                    _ => self.listening.get_mut(usize::from(remote.socket)),
                };
                let (now, later) = rest.split_at(count);
                if let Some(outlet) = outlet {
                    let all = now.iter().map(|train| outgoing(train, bytes));
                    let lost = outlet.send(all, poll, &mut self.memory);
                    self.tally.note(outlet, lost);
                }
                rest = later;
            }
        }
    }

    /// A socket of a link can be written to again.
    pub fn drain_link(&mut self, place: usize, poll: &Poll) {
        if let Some((_, outlet)) = self.links.at(place) {
            let lost = outlet.drain(poll, &mut self.memory);
            self.tally.note(outlet, lost);
        }
    }

    /// A listening socket can be written to again.
    pub fn drain(&mut self, index: usize, poll: &Poll) {
        if let Some(outlet) = self.listening.get_mut(index) {
            let lost = outlet.drain(poll, &mut self.memory);
            self.tally.note(outlet, lost);
        }
    }

    /// Follows the links to where they are.
    pub fn follow(&mut self, moves: u64, wanted: impl Iterator<Item = Remote>, poll: &Poll) {
        let now = Instant::now();
        if now - self.swept >= SWEEP {
            self.swept = now;
            let (lost, missing) = self.links.sweep(now, &mut self.memory);
            self.tally.lost += lost;
            if missing {
                self.moves = None;
            }
        }
        if self.moves != Some(moves) {
            self.moves = Some(moves);
            self.links.follow(now, wanted, &self.listening, poll);
        }
    }

    /// Packets lost for want of room since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.tally.lost)
    }

    /// Datagrams that no first link took since the last call.
    pub fn take_too_long(&mut self) -> Option<TooLong> {
        self.tally.too_long.pop()
    }
}

impl Tally {
    fn note(&mut self, outlet: &mut Outlet, lost: u64) {
        self.lost += lost;
        while let Some(told) = outlet.take_too_long() {
            if self.too_long.len() < TOO_LONG {
                self.too_long.push(told);
            }
        }
    }
}

fn outgoing<'a>(train: &Train, bytes: &'a [u8]) -> Outgoing<'a> {
    Outgoing {
        to: train.remote.address,
        local: train.remote.local,
        segment: train.segment,
        bytes: bytes.get(train.range.clone()).unwrap_or(&[]),
        share: train.share.0,
    }
}
