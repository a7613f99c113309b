//! Datagrams from other nodes: received, sorted by the core, opened, and handed on.

use super::tun::write_tun;
use super::{Events, Worker};
use std::io;
use std::net::IpAddr;
use thicket_core::{Remote, RxBatch};

/// Bytes received that are handed to the core at once: what fits the cache beside what it becomes.
const RECEIVED_AT_ONCE: usize = 256 << 10;

impl<E: Events> Worker<E> {
    /// Datagrams of a socket that listens, in at most so many calls.
    pub(super) fn read_socket(&mut self, index: usize, calls: usize) -> Result<(), String> {
        for _ in 0..calls {
            let Some(outlet) = self.outlets.listening.get(index) else {
                return Ok(());
            };
            if let Err(error) = outlet.socket().receive(&mut self.receive, &mut self.received) {
                return survives(error);
            }
            self.take_received(index as u16, None);
            if self.received.is_empty() || self.team.is_stopped() {
                break;
            }
        }
        Ok(())
    }

    /// One neighbour's turn.
    pub(super) fn read_link(&mut self, place: usize) -> Result<(), String> {
        let mut may = self.turns.next(place);
        while may && !self.team.is_stopped() {
            let Some((remote, outlet)) = self.outlets.links.at(place) else {
                return Ok(());
            };
            if let Err(error) = outlet.socket().receive(&mut self.receive, &mut self.received) {
                return survives(error);
            }
            let (mut packets, mut bytes) = (0, 0);
            for received in &self.received {
                packets += received.len.div_ceil(received.segment.max(1));
                bytes += received.len;
            }
            self.take_received(remote.socket, remote.local);
            may = self.turns.took(place, packets, bytes) && packets > 0;
        }
        Ok(())
    }

    /// Hands what was received to the core, and on what that makes of it. `local`: to which of our addresses it came, where the socket doesn't say.
    fn take_received(&mut self, socket: u16, local: Option<IpAddr>) {
        let mut from = 0;
        while from < self.received.len() {
            let (mut to, mut bytes) = (from, 0);
            while let Some(received) = self.received.get(to).filter(|_| bytes < RECEIVED_AT_ONCE) {
                bytes += received.len;
                to += 1;
            }
            self.take_some(from..to, socket, local);
            self.hear();
            from = to;
        }
        self.answer();
    }

    /// The same for some buffers: the core sorts them, they are opened, the core judges what they hold.
    fn take_some(&mut self, which: std::ops::Range<usize>, socket: u16, local: Option<IpAddr>) {
        let now = self.team.now();
        let some = self.received.get(which).unwrap_or(&[]);
        if self.rx.len() < some.len() {
            self.rx.resize_with(some.len(), RxBatch::default);
        }
        let mut state = self.team.state();
        let mut sealed = false;
        for (received, rx) in some.iter().zip(&mut self.rx) {
            let remote = Remote {
                socket,
                address: received.from,
                local: received.local.or(local),
            };
            let bytes = self.receive.buffer(received.buffer, received.len);
            state.core.receive(now, remote, bytes, received.segment, rx);
            sealed |= rx.is_sealed();
        }
        drop(state);
        if sealed {
            for (received, rx) in some.iter().zip(&mut self.rx) {
                rx.open(self.receive.buffer(received.buffer, received.len));
            }
            let mut state = self.team.state();
            for (received, rx) in some.iter().zip(&mut self.rx) {
                state
                    .core
                    .deliver(now, self.receive.buffer(received.buffer, received.len), rx);
            }
            let wanted = self.first.is_none() && state.core.wants_media();
            drop(state);
            if let Some(first) = self.team.wakes.first().filter(|_| wanted) {
                first.wake();
            }
        }
        let queue = self.queue();
        for (received, rx) in some.iter().zip(&mut self.rx) {
            let bytes = self.receive.buffer(received.buffer, received.len);
            self.outlets.send(&rx.relays, bytes, &self.poll);
            write_tun(&self.team, self.number, queue, &rx.tun, bytes);
            if !rx.media.sends.is_empty() {
                self.team.media().send(&rx.media);
            }
            rx.clear_received();
            // A flood of questions costs few calls.
            if rx.tx.is_full() {
                self.outlets.send_made(&mut rx.tx, &self.poll);
                rx.clear();
            }
        }
    }
}

/// Reports about earlier sends (ECONNREFUSED and the like) come from receiving; a dead descriptor would come back for ever.
fn survives(error: io::Error) -> Result<(), String> {
    if error.raw_os_error() == Some(libc::EBADF) {
        return Err(format!("a socket died: {error}"));
    }
    Ok(())
}
