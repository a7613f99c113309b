//! Packets between the core and the TUN.

use super::{Events, Worker};
use crate::sys::Tun;
use crate::team::{Queue, Team};
use std::io;
use thicket_core::TunBatch;
use thicket_core::wire::{VNET_HEADER, VnetHeader};

/// Packets and bytes taken from the TUN per round.
pub(super) const TUN_BATCH: usize = 64;
const TUN_BYTES: usize = 1 << 20;
/// Longest packet that the TUN hands over, its virtio header included; and so many bytes of shorter ones are taken before the core has them.
pub(super) const TUN_READ: usize = 65_535 + VNET_HEADER;
pub(super) const TUN_ENOUGH: usize = 32 << 10;
/// Pieces of one packet, its head included.
const PIECES: usize = 80;

impl<E: Events> Worker<E> {
    /// The host's turn: takes packets, and sends what the core makes of them.
    pub(super) fn read_tun(&mut self) -> Result<(), String> {
        let (mut packets, mut bytes) = (0, 0);
        let mut more = true;
        while more && packets < TUN_BATCH && bytes < TUN_BYTES && !self.team.is_stopped() {
            more = self.read_packets(TUN_BATCH - packets)?;
            packets += self.read.len();
            bytes += self.read.last().map_or(0, |last| last.end);
            self.take_packets();
            self.hear();
        }
        self.send_made();
        if !self.told.writes.is_empty() {
            write_tun(&self.team, self.number, self.queue(), &self.told, &[]);
            self.told.clear();
        }
        Ok(())
    }

    /// Reads what waits, one behind the other, at most so many; whether there may be more.
    fn read_packets(&mut self, most: usize) -> Result<bool, String> {
        self.read.clear();
        let Some(tun) = self.team.tun.get(self.number) else {
            return Ok(false);
        };
        let mut end = 0;
        while self.read.len() < most && end < TUN_ENOUGH {
            let room = self.tun_buffer.get_mut(end..end + TUN_READ).unwrap_or(&mut []);
            match tun.read(room) {
                Ok(len) => {
                    self.read.push(end..end + len);
                    end += len;
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    return Ok(false);
                }
                // Down for the moment (the device's flags changed): try again at the next readiness.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(false),
                Err(error) => return Err(format!("the TUN died: {error}")),
            }
        }
        Ok(true)
    }

    /// Hands what was read to the core, and sends what that makes of it.
    fn take_packets(&mut self) {
        let now = self.team.now();
        let mut rest = self.read.as_slice();
        while !rest.is_empty() {
            let mut state = self.team.state();
            while let Some((next, later)) = rest.split_first() {
                if self.tx.is_full() {
                    break;
                }
                rest = later;
                let bytes = self.tun_buffer.get(next.clone()).unwrap_or(&[]);
                let (vnet, packet) = if self.team.tun.first().is_some_and(Tun::has_vnet_header) {
                    let Some((vnet, packet)) = bytes.split_first_chunk::<VNET_HEADER>() else {
                        continue;
                    };
                    (VnetHeader::parse(vnet), packet)
                } else {
                    (VnetHeader::default(), bytes)
                };
                state.core.handle_tun(now, vnet, packet, &mut self.tx, &mut self.told);
            }
            drop(state);
            if self.tx.is_full() {
                self.outlets.send_made(&mut self.tx, &self.poll);
                self.tx.clear();
            }
        }
    }

    /// By which of the TUN's queues this worker's packets go.
    pub(super) fn queue(&self) -> Queue {
        match (self.spread, self.listening) {
            (false, _) => Queue::Of(self.number),
            (true, true) => Queue::Any,
            (true, false) => Queue::AnyButFirst,
        }
    }
}

/// Writes what the core delivered to the TUN, or hands it to the user-space host; its payload lies in `buffer`.
pub(super) fn write_tun(team: &Team, worker: usize, queue: Queue, batch: &TunBatch, buffer: &[u8]) {
    if batch.writes.is_empty() {
        return;
    }
    if let Some(mut user) = team.user() {
        user.take(team.now(), batch, buffer);
        return team.rouse(worker);
    }
    let mut pieces = [Tun::piece(&[]); PIECES];
    for write in &batch.writes {
        let Some(tun) = team.queue(queue, || batch.flow_of(write)) else {
            return;
        };
        let mut head = batch.heads.get(write.head.clone()).unwrap_or(&[]);
        if !tun.has_vnet_header() {
            head = head.get(VNET_HEADER..).unwrap_or(&[]);
        }
        let mut count = 0;
        let ranges = batch.pieces.get(write.pieces.clone()).unwrap_or(&[]);
        let parts = std::iter::once(head).chain(ranges.iter().map(|r| buffer.get(r.clone()).unwrap_or(&[])));
        for (place, part) in pieces.iter_mut().zip(parts) {
            *place = Tun::piece(part);
            count += 1;
        }
        // The TUN refuses what the host can't take (no memory, interface down): lost like any packet.
        let _ = tun.write(&pieces[..count]);
    }
}
