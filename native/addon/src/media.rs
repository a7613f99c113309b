//! Sockets for the media of RTSP connections: pairs of neighbouring ports on the LAN, asked for by the core.

use crate::sys::{Outgoing, Poll, Room, Udp};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use thicket_core::MediaBatch;

/// Pairs of ports tried for one reservation.
const TRIES: u64 = 64;

/// A camera's picture comes as a burst.
const ROOM: Room = Room {
    receive: 4 << 20,
    send: 1 << 20,
};

/// Tokens of media sockets in the poll: this bit, then the pair's place, then whether it is RTCP's socket.
const TOKEN: u64 = 1 << 32;

struct Pair {
    id: u32,
    /// RTP's socket, and RTCP's.
    sockets: [Udp; 2],
}

/// All pairs.
pub struct Media {
    pairs: Vec<Option<Pair>>,
    places: HashMap<u32, usize>,
    /// Where the search for free ports goes on: what was just released rests, for late packets of its last user are still under way.
    cursor: u64,
}

impl Media {
    /// None yet; the first ports can't be guessed.
    pub fn new() -> Self {
        Self {
            pairs: Vec::new(),
            places: HashMap::new(),
            cursor: RandomState::new().build_hasher().finish() >> 16,
        }
    }

    /// Binds a pair to an even port of the range and its neighbour.
    pub fn reserve(
        &mut self,
        poll: &Poll,
        id: u32,
        lan: IpAddr,
        ports: &RangeInclusive<u16>,
    ) -> io::Result<(u16, u16)> {
        let (first, last) = (ports.start().next_multiple_of(2), *ports.end());
        let count = u64::from(last.saturating_sub(first)) / 2 + 1;
        let mut failed = io::Error::from_raw_os_error(libc::EADDRINUSE);
        for _ in 0..TRIES {
            self.cursor = self.cursor.wrapping_add(1);
            let rtp = first + 2 * (self.cursor % count) as u16;
            let bind = |port| {
                let socket = Udp::bind(SocketAddr::new(lan, port), false, ROOM)?;
                // Towards a device: its network is its owner's affair.
                socket.set_fragmenting(true).map(|()| socket)
            };
            match bind(rtp).and_then(|socket| Ok([socket, bind(rtp + 1)?])) {
                Ok(sockets) => {
                    self.add(poll, id, sockets)?;
                    return Ok((rtp, rtp + 1));
                }
                Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => failed = error,
                Err(error) => return Err(error),
            }
        }
        Err(failed)
    }

    fn add(&mut self, poll: &Poll, id: u32, sockets: [Udp; 2]) -> io::Result<()> {
        let place = self.pairs.iter().position(Option::is_none).unwrap_or(self.pairs.len());
        for (rtcp, socket) in (0..).zip(&sockets) {
            poll.add(socket.as_raw_fd(), TOKEN | (place as u64) << 1 | rtcp)?;
        }
        let pair = Some(Pair { id, sockets });
        match self.pairs.get_mut(place) {
            Some(free) => *free = pair,
            None => self.pairs.push(pair),
        }
        self.places.insert(id, place);
        Ok(())
    }

    /// Closes a pair; the poll forgets it by itself.
    pub fn release(&mut self, id: u32) {
        if let Some(pair) = self.places.remove(&id).and_then(|place| self.pairs.get_mut(place)) {
            *pair = None;
        }
    }

    /// Whose socket is ready: the pair's number, whether it is RTCP's, and the socket. `None` for other tokens and closed pairs.
    pub fn ready(&self, token: u64) -> Option<(u32, bool, &Udp)> {
        let place = usize::try_from(token.checked_sub(TOKEN)? >> 1).ok()?;
        let rtcp = token & 1 == 1;
        let pair = self.pairs.get(place)?.as_ref()?;
        Some((pair.id, rtcp, &pair.sockets[usize::from(rtcp)]))
    }

    /// Whether a token is of a media socket at all.
    pub fn is_media(token: u64) -> bool {
        (TOKEN..2 * TOKEN).contains(&token)
    }

    /// Sends what the core has for devices.
    pub fn send(&mut self, batch: &MediaBatch) {
        for send in &batch.sends {
            let place = self.places.get(&send.id).copied();
            let Some(pair) = place.and_then(|place| self.pairs.get_mut(place)?.as_mut()) else {
                continue;
            };
            let bytes = batch.buffer.get(send.range.clone()).unwrap_or(&[]);
            // What isn't taken is lost, as any datagram may be.
            let out = Outgoing {
                to: send.to,
                local: None,
                segment: bytes.len(),
                bytes,
                share: 0,
            };
            pair.sockets[usize::from(send.rtcp)].send(std::iter::once(out), &mut |_| ());
        }
    }
}
