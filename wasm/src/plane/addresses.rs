//! Numbers for addresses, so that none crosses as text for each packet.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use thicket_core::Remote;

/// Anybody may send from anywhere: so many are known, then all are forgotten.
const MOST: usize = 16_384;

#[derive(Default)]
pub struct Addresses {
    numbers: BTreeMap<(u16, SocketAddr), u32>,
    remotes: Vec<Remote>,
    /// The last asked for: most packets follow others of the same.
    last: Option<(Remote, u32)>,
}

impl Addresses {
    /// Its number, if there is room for one more. Where something is sent there always is.
    pub fn number(&mut self, remote: Remote) -> Option<u32> {
        if let Some(&number) = self.numbers.get(&(remote.socket, remote.address)) {
            return Some(number);
        }
        (self.remotes.len() < MOST).then(|| self.add(remote))
    }

    /// The number of one that something is sent to: of neighbours and of those who asked, so these are few.
    pub fn number_to(&mut self, remote: Remote) -> u32 {
        match self.last {
            Some((last, number)) if last == remote => number,
            _ => {
                let known = self.numbers.get(&(remote.socket, remote.address)).copied();
                let number = known.unwrap_or_else(|| self.add(remote));
                self.last = Some((remote, number));
                number
            }
        }
    }

    pub fn get(&self, number: u32) -> Option<Remote> {
        self.remotes.get(number as usize).copied()
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn add(&mut self, remote: Remote) -> u32 {
        let number = self.remotes.len() as u32;
        self.remotes.push(remote);
        self.numbers.insert((remote.socket, remote.address), number);
        number
    }
}
