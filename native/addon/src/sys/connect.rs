//! Sockets for one neighbour: bound where a listening socket is, then connected, so that the kernel keeps what comes from there apart.

use super::address::to_storage;
use super::check;
use super::udp::{Room, Udp};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;

impl Udp {
    /// Opens a socket with this one's port that receives from `peer` alone, and sends to it from `local` (where the host routes, if that is
    /// `None`). What others send in the moment before it is connected waits in it, too; who reads it must look whom it is from.
    pub fn branch(&self, local: Option<IpAddr>, peer: SocketAddr, room: Room) -> io::Result<Self> {
        let own = match local {
            Some(ip) => ip,
            None if !self.local.ip().is_unspecified() => self.local.ip(),
            None if peer.is_ipv6() => Ipv6Addr::UNSPECIFIED.into(),
            None => Ipv4Addr::UNSPECIFIED.into(),
        };
        let own = match (own, peer) {
            (IpAddr::V6(ip), SocketAddr::V6(peer)) => {
                let scope = if ip.is_unicast_link_local() { peer.scope_id() } else { 0 };
                SocketAddrV6::new(ip, self.local.port(), 0, scope).into()
            }
            _ => SocketAddr::new(own, self.local.port()),
        };
        let mut socket = Self::open(own, false, room)?;
        // Both must agree to share the port. The listening socket does so for this moment only: nobody else gets in.
        socket.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        self.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        let bound = socket.bind_to(own);
        self.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 0)?;
        bound?;
        if local.is_none() {
            socket.tell_local();
        }
        socket.connect(peer)?;
        Ok(socket)
    }

    /// Opens a socket that speaks with `peer` alone, from an address and a port that the host picks. Datagrams may leave as fragments: towards a
    /// device, its network is its owner's affair.
    pub fn towards(peer: SocketAddr, room: Room) -> io::Result<Self> {
        let any = match peer {
            SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        };
        let mut socket = Self::open(any, false, room)?;
        socket.set_fragmenting(true)?;
        socket.connect(peer)?;
        Ok(socket)
    }

    /// Whether a packet to a connected socket's neighbour would leave from another of our addresses if it were connected now.
    pub fn is_misrouted(&self) -> bool {
        let Some(peer) = self.peer else { return false };
        let room = Room { receive: 0, send: 0 };
        let probe = || -> io::Result<IpAddr> {
            let any = match peer {
                SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
                SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
            };
            let mut probe = Self::open(any, false, room)?;
            probe.connect(peer)?;
            Ok(probe.local.ip())
        };
        // No way at all for the moment is no better one.
        probe().is_ok_and(|ip| ip != self.local.ip())
    }

    fn connect(&mut self, peer: SocketAddr) -> io::Result<()> {
        let (name, len) = to_storage(peer, false);
        // SAFETY: `name` is a valid address of `len` bytes.
        check(unsafe { libc::connect(self.fd.as_raw_fd(), (&raw const name).cast(), len) })?;
        self.local = self.local_address()?;
        self.peer = Some(peer);
        Ok(())
    }
}

/// Descriptors that this process may have open.
pub fn descriptors() -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for the call.
    let told = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    if told < 0 {
        0
    } else {
        usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
    }
}

/// Whether the kernel finds a connected UDP socket by both ends at once (Linux 6.13): else it looks through all of one port.
pub fn finds_connected() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6u32, 13u32)
}
