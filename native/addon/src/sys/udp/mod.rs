//! UDP sockets with segmentation offload both ways (udp(7), `UDP_SEGMENT`, `UDP_GRO`) and many messages per call: how they are opened and set.

mod receive;
mod send;

pub use receive::{ReceiveBuffers, Received};
pub use send::{Outgoing, TooLong};

use super::address::{from_storage, to_storage};
use super::check;
use super::control::{SOL_UDP, UDP_GRO, UDP_SEGMENT};
use std::io;
use std::mem::{size_of, zeroed};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Instant;

/// Bytes that may wait in a socket, in and out. Asked for; the kernel gives what it may without CAP_NET_ADMIN, and counts its own overhead in.
#[derive(Clone, Copy)]
pub struct Room {
    /// Until they are read.
    pub receive: u32,
    /// Until the device has sent them.
    pub send: u32,
}

/// A bound socket; see [`Udp::branch`] for one that is connected, too.
pub struct Udp {
    pub(super) fd: OwnedFd,
    pub(super) v6: bool,
    pub(super) local: SocketAddr,
    /// The one neighbour that a connected socket is for.
    pub(super) peer: Option<SocketAddr>,
    /// The way that it was connected by leads nowhere any more.
    broken: bool,
    /// Its host said that nobody listens there.
    refused: bool,
    gso: bool,
    gro: bool,
    single: Vec<(SocketAddr, Instant)>,
    too_long: Vec<TooLong>,
}

impl Udp {
    /// Binds; with `dual`, an IPv6 wildcard socket takes IPv4 too.
    pub fn bind(address: SocketAddr, dual: bool, room: Room) -> io::Result<Self> {
        let mut socket = Self::open(address, dual, room)?;
        socket.bind_to(address)?;
        Ok(socket)
    }

    /// Not bound yet.
    pub(super) fn open(address: SocketAddr, dual: bool, room: Room) -> io::Result<Self> {
        let family = if address.is_ipv6() {
            libc::AF_INET6
        } else {
            libc::AF_INET
        };
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: socket takes no pointers; the descriptor it returns is ours alone.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::socket(family, kind, 0))?) };
        let mut socket = Self {
            fd,
            v6: address.is_ipv6(),
            local: address,
            peer: None,
            broken: false,
            refused: false,
            gso: true,
            gro: true,
            single: Vec::new(),
            too_long: Vec::new(),
        };
        socket.set_fragmenting(false)?;
        if socket.v6 {
            socket.set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, libc::c_int::from(!dual))?;
        }
        socket.set_room(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, room.receive)?;
        socket.set_send_room(room.send)?;
        // Both are optional: older kernels send and receive one by one.
        socket.gro = socket.set(SOL_UDP, UDP_GRO, 1).is_ok();
        socket.gso = socket.set(SOL_UDP, UDP_SEGMENT, 0).is_ok();
        Ok(socket)
    }

    /// The same socket once more, for another thread to send through.
    pub fn duplicate(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            single: Vec::new(),
            too_long: Vec::new(),
            ..*self
        })
    }

    pub(super) fn bind_to(&mut self, address: SocketAddr) -> io::Result<()> {
        let (name, len) = to_storage(address, false);
        // SAFETY: `name` is a valid address of `len` bytes.
        check(unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const name).cast(), len) })?;
        self.local = self.local_address()?;
        Ok(())
    }

    /// So many bytes, the kernel's overhead included, may wait for the device.
    pub fn set_send_room(&self, bytes: u32) -> io::Result<()> {
        self.set_room(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, bytes)
    }

    fn set_room(&self, forced: libc::c_int, polite: libc::c_int, bytes: u32) -> io::Result<()> {
        // The kernel doubles what it is told, to have room for its overhead.
        let half = libc::c_int::try_from(bytes / 2).unwrap_or(libc::c_int::MAX);
        self.set(libc::SOL_SOCKET, forced, half)
            .or_else(|_| self.set(libc::SOL_SOCKET, polite, half))
    }

    /// Bytes that wait for the device.
    pub fn unsent(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: SIOCOUTQ writes one int.
        let told = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        if told < 0 {
            0
        } else {
            usize::try_from(bytes).unwrap_or(0)
        }
    }

    /// Whether a connected socket should be given up.
    pub const fn is_broken(&self) -> bool {
        self.broken
    }

    /// From now on [`Received::local`] says which of our addresses datagrams come to, if the socket is bound to all of them.
    pub fn tell_local(&self) {
        if !self.local.ip().is_unspecified() {
            return;
        }
        // Where a kernel can't, answers leave as routed.
        let _ = if self.v6 {
            self.set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
        } else {
            self.set(libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
        };
    }

    /// Whether datagrams may leave as IP fragments; not unless asked for. Otherwise they are as long as the first link takes, whatever ICMP says
    /// about the rest of the way (anybody can forge that; the sessions' own probes find out).
    pub fn set_fragmenting(&self, allowed: bool) -> io::Result<()> {
        let (v4, v6) = if allowed {
            (libc::IP_PMTUDISC_WANT, libc::IPV6_PMTUDISC_WANT)
        } else {
            (libc::IP_PMTUDISC_PROBE, libc::IPV6_PMTUDISC_PROBE)
        };
        if self.v6 {
            self.set(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, v6)?;
        }
        // An IPv6 socket's too: for IPv4 through it.
        self.set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, v4)
    }

    pub(super) fn set(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the option's value is an int.
        check(unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, name, (&raw const value).cast(), len) }).map(drop)
    }

    fn get(&self, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
        let (mut value, mut len) = (0, size_of::<libc::c_int>() as libc::socklen_t);
        let fd = self.fd.as_raw_fd();
        // SAFETY: the option's value is an int, and both pointers are valid for the call.
        check(unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &mut len) })?;
        Ok(value)
    }

    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        // SAFETY: zeroes are a valid sockaddr_storage; the call writes at most `len` bytes into it.
        let (mut name, mut len) = (
            unsafe { zeroed::<libc::sockaddr_storage>() },
            size_of::<libc::sockaddr_storage>() as libc::socklen_t,
        );
        // SAFETY: both pointers are valid for the call.
        check(unsafe { libc::getsockname(self.fd.as_raw_fd(), (&raw mut name).cast(), &mut len) })?;
        from_storage(&name).ok_or_else(|| io::Error::other("the socket has no IP address"))
    }

    /// What it got of what was asked for, for the log.
    pub fn describe(&self) -> String {
        let buffer = |name| self.get(libc::SOL_SOCKET, name).unwrap_or(0) >> 10;
        let (receive, send) = (buffer(libc::SO_RCVBUF), buffer(libc::SO_SNDBUF));
        let trains = |offloaded| if offloaded { "in trains" } else { "one by one" };
        let (sent, received) = (trains(self.gso), trains(self.gro));
        format!("buffers of {receive} KiB in and {send} KiB out, received {received}, sent {sent}")
    }

    /// Where it is bound.
    pub fn local(&self) -> SocketAddr {
        self.local
    }
}

impl AsRawFd for Udp {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
