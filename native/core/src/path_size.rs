//! What size of datagram a session's path carries.

use crate::aead::Aead;
use crate::core::Core;
use crate::stats::DropReason;
use crate::time::Instant;
use core::net::SocketAddr;

impl<A: Aead> Core<A> {
    /// The link to `to` didn't take so many datagrams, the shortest of `len` bytes: they are lost.
    pub fn too_long(&mut self, _now: Instant, _to: SocketAddr, _len: usize, datagrams: usize) {
        self.drops.add(DropReason::TooLongForLink, datagrams as u64);
    }
}
