//! UDP sockets with segmentation offload both ways (udp(7), `UDP_SEGMENT`, `UDP_GRO`) and many messages per call.

use super::check;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

const SOL_UDP: libc::c_int = 17;
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;
/// Asked for; the kernel gives what it may without CAP_NET_ADMIN.
const SOCKET_BUFFER: libc::c_int = 8 << 20;
/// Longest datagram, or train of them, that one receive can bring.
const RECEIVE: usize = 65_536;
/// Messages per receive call.
const MESSAGES: usize = 16;
/// Messages per send call.
const SEND_MESSAGES: usize = 64;
/// How long a full socket buffer may hold the worker up before what doesn't fit is dropped.
const SEND_PATIENCE: Duration = Duration::from_millis(2);

type Control = [u8; 64];

/// A bound, unconnected socket.
pub struct Udp {
    fd: OwnedFd,
    v6: bool,
    local: SocketAddr,
    gso: bool,
}

/// One received buffer: datagrams of `segment` bytes (the last may be shorter) from one source.
pub struct Received {
    /// Index of the buffer.
    pub buffer: usize,
    /// Bytes in it.
    pub len: usize,
    /// Size of each datagram.
    pub segment: usize,
    /// Where from.
    pub from: SocketAddr,
}

/// Memory for one receive call, reused.
pub struct ReceiveBuffers {
    buffers: Vec<Vec<u8>>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    iovecs: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
}

// SAFETY: the raw pointers in `iovecs` and `messages` are set before each system call and never followed outside it.
unsafe impl Send for ReceiveBuffers {}

impl ReceiveBuffers {
    /// 1 MiB.
    pub fn new() -> Self {
        // SAFETY: all of these are plain C structs for which zeroes are valid.
        let (name, message, iovec) = unsafe {
            (
                zeroed::<libc::sockaddr_storage>(),
                zeroed::<libc::mmsghdr>(),
                zeroed::<libc::iovec>(),
            )
        };
        Self {
            buffers: (0..MESSAGES).map(|_| vec![0; RECEIVE]).collect(),
            names: vec![name; MESSAGES],
            controls: vec![[0; 64]; MESSAGES],
            iovecs: vec![iovec; MESSAGES],
            messages: vec![message; MESSAGES],
        }
    }

    /// A buffer by its index in [`Received`].
    pub fn buffer(&mut self, index: usize, len: usize) -> &mut [u8] {
        self.buffers
            .get_mut(index)
            .and_then(|b| b.get_mut(..len))
            .unwrap_or(&mut [])
    }
}

impl Udp {
    /// Binds; with `dual`, an IPv6 wildcard socket takes IPv4 too.
    pub fn bind(address: SocketAddr, dual: bool) -> io::Result<Self> {
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
            gso: true,
        };
        if socket.v6 {
            socket.set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, libc::c_int::from(!dual))?;
        }
        for (forced, polite) in [
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
        ] {
            if socket.set(libc::SOL_SOCKET, forced, SOCKET_BUFFER).is_err() {
                socket.set(libc::SOL_SOCKET, polite, SOCKET_BUFFER)?;
            }
        }
        let (name, len) = to_storage(address, false);
        // SAFETY: `name` is a valid address of `len` bytes.
        check(unsafe { libc::bind(socket.fd.as_raw_fd(), (&raw const name).cast(), len) })?;
        socket.local = socket.local_address()?;
        // Both are optional: older kernels send and receive one by one.
        let _ = socket.set(SOL_UDP, UDP_GRO, 1);
        socket.gso = socket.set(SOL_UDP, UDP_SEGMENT, 0).is_ok();
        Ok(socket)
    }

    fn set(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
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

    fn local_address(&self) -> io::Result<SocketAddr> {
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
        let trains = if self.gso { "" } else { ", datagrams one by one" };
        format!("buffers of {receive} KiB in and {send} KiB out{trains}")
    }

    /// Where it is bound.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Receives what waits, at most a batch. Empty when nothing does.
    pub fn receive(&self, b: &mut ReceiveBuffers, out: &mut Vec<Received>) -> io::Result<()> {
        out.clear();
        for i in 0..MESSAGES {
            b.iovecs[i] = libc::iovec {
                iov_base: b.buffers[i].as_mut_ptr().cast(),
                iov_len: RECEIVE,
            };
            let header = &mut b.messages[i].msg_hdr;
            header.msg_name = (&raw mut b.names[i]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut b.iovecs[i];
            header.msg_iovlen = 1;
            header.msg_control = b.controls[i].as_mut_ptr().cast();
            header.msg_controllen = size_of::<Control>() as _;
            header.msg_flags = 0;
        }
        // SAFETY: every header points at memory of `b`, which outlives the call and isn't touched meanwhile.
        let count = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                b.messages.as_mut_ptr(),
                MESSAGES as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let count = match check(count) {
            Ok(count) => count as usize,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for i in 0..count {
            let len = b.messages[i].msg_len as usize;
            let Some(from) = from_storage(&b.names[i]) else {
                continue;
            };
            let segment = segment_size(&b.messages[i].msg_hdr)
                .filter(|&s| s > 0 && s < len)
                .unwrap_or(len);
            out.push(Received {
                buffer: i,
                len,
                segment,
                from,
            });
        }
        Ok(())
    }

    /// Sends trains, each one message; `bytes` holds them at their ranges. Returns how many bytes could not be sent.
    pub fn send<'a>(&mut self, trains: impl Iterator<Item = (SocketAddr, usize, &'a [u8])>) -> usize {
        let mut lost = 0;
        let mut batch: [Option<(SocketAddr, usize, &[u8])>; SEND_MESSAGES] = [None; SEND_MESSAGES];
        let mut filled = 0;
        for train in trains {
            batch[filled] = Some(train);
            filled += 1;
            if filled == SEND_MESSAGES {
                lost += self.send_batch(&batch[..filled]);
                filled = 0;
            }
        }
        lost + self.send_batch(&batch[..filled])
    }

    fn send_batch(&mut self, batch: &[Option<(SocketAddr, usize, &[u8])>]) -> usize {
        let mut lost = 0;
        let mut done = 0;
        while done < batch.len() {
            match self.send_some(&batch[done..]) {
                Ok(sent) => done += sent.max(1),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.writable() {
                        return lost
                            + batch[done..]
                                .iter()
                                .flatten()
                                .map(|(.., bytes)| bytes.len())
                                .sum::<usize>();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // The first of the batch failed. A device without segmentation (EIO) gets datagrams one by one from now on; an unreachable
                    // destination costs only its own.
                    let Some(Some((to, segment, bytes))) = batch.get(done).copied() else {
                        return lost;
                    };
                    if self.gso
                        && bytes.len() > segment
                        && matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
                    {
                        self.gso = false;
                    }
                    if bytes.len() > segment {
                        for datagram in bytes.chunks(segment) {
                            if self.send_some(&[Some((to, datagram.len(), datagram))]).is_err() {
                                lost += datagram.len();
                            }
                        }
                    } else {
                        lost += bytes.len();
                    }
                    done += 1;
                }
            }
        }
        lost
    }

    /// One system call; how many messages it took.
    fn send_some(&self, batch: &[Option<(SocketAddr, usize, &[u8])>]) -> io::Result<usize> {
        if batch.is_empty() {
            return Ok(0);
        }
        if !self.gso
            && let Some(Some((to, segment, bytes))) = batch.first()
            && bytes.len() > *segment
        {
            for datagram in bytes.chunks(*segment) {
                self.send_some(&[Some((*to, datagram.len(), datagram))])?;
            }
            return Ok(1);
        }
        // SAFETY: all of these are plain C structs for which zeroes are valid.
        let (mut names, mut iovecs, mut messages) = unsafe {
            (
                zeroed::<[libc::sockaddr_storage; SEND_MESSAGES]>(),
                zeroed::<[libc::iovec; SEND_MESSAGES]>(),
                zeroed::<[libc::mmsghdr; SEND_MESSAGES]>(),
            )
        };
        let mut controls = [[0u8; 32]; SEND_MESSAGES];
        let mut count = 0;
        for (i, train) in batch.iter().enumerate().take(SEND_MESSAGES) {
            let Some((to, segment, bytes)) = *train else { break };
            if !self.gso && bytes.len() > segment {
                break;
            }
            let (name, len) = to_storage(to, self.v6);
            names[i] = name;
            iovecs[i] = libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            };
            let header = &mut messages[i].msg_hdr;
            header.msg_name = (&raw mut names[i]).cast();
            header.msg_namelen = len;
            header.msg_iov = &raw mut iovecs[i];
            header.msg_iovlen = 1;
            if bytes.len() > segment {
                header.msg_control = controls[i].as_mut_ptr().cast();
                header.msg_controllen = write_segment_size(&mut controls[i], segment as u16) as _;
            }
            count += 1;
        }
        // SAFETY: every header points at memory that outlives the call: locals of this function and the borrowed trains.
        let sent = unsafe {
            libc::sendmmsg(
                self.fd.as_raw_fd(),
                messages.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        check(sent).map(|sent| sent as usize)
    }

    fn writable(&self) -> bool {
        let mut poll = libc::pollfd {
            fd: self.fd.as_raw_fd(),
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut poll, 1, SEND_PATIENCE.as_millis() as libc::c_int) > 0 }
    }
}

impl AsRawFd for Udp {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Writes a control message that asks for segmentation; its length.
fn write_segment_size(control: &mut [u8; 32], segment: u16) -> usize {
    let len = size_of::<libc::cmsghdr>() + size_of::<u16>();
    let header = libc::cmsghdr {
        cmsg_len: len as _,
        cmsg_level: SOL_UDP,
        cmsg_type: UDP_SEGMENT,
    };
    // SAFETY: cmsghdr is 16 bytes (12 on 32-bit) and the buffer has 32; unaligned writes are asked for.
    unsafe { control.as_mut_ptr().cast::<libc::cmsghdr>().write_unaligned(header) };
    control[size_of::<libc::cmsghdr>()..len].copy_from_slice(&segment.to_ne_bytes());
    size_of::<libc::cmsghdr>() + size_of::<usize>()
}

/// The segment size that the kernel merged by, if it merged.
fn segment_size(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel has filled `header`'s control buffer, whose length it has set; the CMSG macros stay inside it.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let m = message.read_unaligned();
            if m.cmsg_level == SOL_UDP && m.cmsg_type == UDP_GRO {
                return usize::try_from(libc::CMSG_DATA(message).cast::<libc::c_int>().read_unaligned()).ok();
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    None
}

fn to_storage(address: SocketAddr, mapped: bool) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: zeroes are a valid sockaddr_storage.
    let mut storage = unsafe { zeroed::<libc::sockaddr_storage>() };
    let address = match address {
        SocketAddr::V4(v4) if mapped => SocketAddr::V6(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0)),
        other => other,
    };
    let len = match address {
        SocketAddr::V4(v4) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is large enough and aligned for every address type.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(name) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(name) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, len as libc::socklen_t)
}

fn from_storage(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that a sockaddr_in stands there.
            let name = unsafe { (&raw const *storage).cast::<libc::sockaddr_in>().read() };
            let ip = IpAddr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(ip, u16::from_be(name.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that a sockaddr_in6 stands there.
            let name = unsafe { (&raw const *storage).cast::<libc::sockaddr_in6>().read() };
            let (ip, port) = (Ipv6Addr::from(name.sin6_addr.s6_addr), u16::from_be(name.sin6_port));
            Some(match ip.to_ipv4_mapped() {
                Some(v4) => SocketAddr::V4(SocketAddrV4::new(v4, port)),
                None => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, name.sin6_scope_id)),
            })
        }
        _ => None,
    }
}
