//! Ordinary sockets towards devices and local programs, for user-space mode: what std's don't offer.

use super::address::to_storage;
use super::{check, check_len};
use std::io;
use std::mem::size_of;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Idle seconds until a device is asked whether it is still there, seconds between questions, and how many of them may go unanswered.
const KEEP_ALIVE: (libc::c_int, libc::c_int, libc::c_int) = (120, 30, 4);

/// The kernel takes more for a reader only while less than this waits to be sent: else megabytes would for each who is slow.
const UNSENT: libc::c_int = 128 << 10;

/// What no window is too small for.
const PIECE: usize = 16 << 10;

/// Begins a connection and doesn't wait for it: the socket can be written to once it stands, or once [`TcpStream::take_error`] says why not.
/// Small writes leave at once, and a peer that vanishes is noticed.
pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket takes no pointers; the descriptor it returns is ours alone.
    let socket = TcpStream::from(unsafe { OwnedFd::from_raw_fd(check(libc::socket(family, kind, 0))?) });
    ease(&socket)?;
    let (name, len) = to_storage(to, false);
    // SAFETY: `name` is a valid address of `len` bytes.
    match check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const name).cast(), len) }) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// Sends some of `bytes`, as much as goes as one: a local program's kernel takes no segment that is longer than its window, and loopback's are 64 KiB.
/// One that has not read for long would else be asked for room now and then only, up to two minutes apart, when it reads again.
pub fn send(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let piece = bytes.get(..PIECE).unwrap_or(bytes);
    let flags = libc::MSG_EOR | libc::MSG_NOSIGNAL;
    // SAFETY: the buffer is valid for its length.
    check_len(unsafe { libc::send(socket.as_raw_fd(), piece.as_ptr().cast(), piece.len(), flags) })
}

/// A second descriptor of a stream socket that somebody else has; whatever happens to the first, this one stays.
///
/// Errors: `EBADF` or `ENOTSOCK` when `fd` is none, `EINVAL` when it isn't a stream.
pub fn adopt(fd: RawFd) -> io::Result<TcpStream> {
    // SAFETY: fcntl with F_DUPFD_CLOEXEC takes no pointers, and a number that is no descriptor is an error; the new one is ours alone.
    let own = unsafe { OwnedFd::from_raw_fd(check(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3))?) };
    let (mut kind, mut len) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the option's value is an int, and both pointers are valid for the call.
    check(unsafe {
        libc::getsockopt(
            own.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            (&raw mut kind).cast::<libc::c_void>(),
            &mut len,
        )
    })?;
    if kind != libc::SOCK_STREAM {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let socket = TcpStream::from(own);
    socket.set_nonblocking(true)?;
    // A Unix socket has none of these, and needs none.
    let _ = ease(&socket);
    Ok(socket)
}

fn ease(socket: &TcpStream) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)?;
    set(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, &UNSENT)?;
    let (idle, every, times) = KEEP_ALIVE;
    set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, &idle)?;
    set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, &every)?;
    set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, &times)?;
    set(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1)
}

/// Closes with a reset: whoever reads at the far end learns that something went wrong, and nothing lingers here.
pub fn reset(socket: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // Where it fails, the socket is gone already.
    let _ = set(&socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
}

fn set<T>(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is valid for its length; the kernel checks that the option is so long.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len) }).map(drop)
}

/// A socket for echo requests to one device and their answers (icmp(7), "ping sockets"): ICMP messages without IP header, whose identifier the
/// kernel picks.
///
/// Errors: `EACCES` where `net.ipv4.ping_group_range` doesn't let this process.
pub fn echoes(to: SocketAddr) -> io::Result<UdpSocket> {
    let (family, protocol) = match to {
        SocketAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP),
        SocketAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
    };
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket takes no pointers; the descriptor it returns is ours alone.
    let socket = unsafe { OwnedFd::from_raw_fd(check(libc::socket(family, kind, protocol))?) };
    let socket = UdpSocket::from(socket);
    socket.connect(to)?;
    Ok(socket)
}
