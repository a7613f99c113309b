//! UDP sockets with segmentation offload both ways (udp(7), `UDP_SEGMENT`, `UDP_GRO`) and many messages per call.

use super::address::{from_storage, to_storage};
use super::check;
use super::control::{self, Control, SOL_UDP, UDP_GRO, UDP_SEGMENT};
use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Longest datagram, or train of them, that one receive can bring.
const RECEIVE: usize = 65_536;
/// Messages per receive call.
const MESSAGES: usize = 8;
/// Messages per send call.
const SEND_MESSAGES: usize = 64;
/// Where trains can't go (a small MTU on the way, a device without checksums) they go as single datagrams for so long, then it is tried again.
const SINGLE_FOR: Duration = Duration::from_secs(10);
/// So many such destinations are remembered.
const SINGLE: usize = 16;

/// Destinations remembered whose datagrams were too long for the first link.
const TOO_LONG: usize = 16;

/// Bytes that may wait in a socket, in and out. Asked for; the kernel gives what it may without CAP_NET_ADMIN, and counts its own overhead in.
#[derive(Clone, Copy)]
pub struct Room {
    /// Until they are read.
    pub receive: u32,
    /// Until the device has sent them.
    pub send: u32,
}

/// One message: a datagram, or a train of equal ones of which only the last may be shorter.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// From which of our addresses; as routed, if it doesn't matter or that address is no longer ours.
    pub local: Option<IpAddr>,
    /// Size of each datagram.
    pub segment: usize,
    /// All of them.
    pub bytes: &'a [u8],
    /// Whose they are, for who makes them wait.
    pub share: u32,
}

impl<'a> Outgoing<'a> {
    fn is_train(&self) -> bool {
        self.bytes.len() > self.segment
    }

    /// The same as single datagrams.
    fn single(self) -> impl Iterator<Item = Outgoing<'a>> {
        self.bytes.chunks(self.segment.max(1)).map(move |bytes| Outgoing {
            segment: bytes.len(),
            bytes,
            ..self
        })
    }
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
    gso: bool,
    gro: bool,
    single: Vec<(SocketAddr, Instant)>,
    too_long: Vec<TooLong>,
}

/// Datagrams that the first link on their way doesn't take: no socket of ours fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Where to.
    pub to: SocketAddr,
    /// Bytes of the shortest of them.
    pub len: usize,
    /// How many.
    pub datagrams: usize,
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
    /// To which of our addresses, where the socket was told to say so.
    pub local: Option<IpAddr>,
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
    /// Half a MiB.
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
            controls: vec![Control::new(); MESSAGES],
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

    /// What was too long since this was last asked.
    pub fn take_too_long(&mut self) -> Option<TooLong> {
        self.too_long.pop()
    }

    fn note_too_long(&mut self, to: SocketAddr, len: usize, datagrams: usize) {
        if let Some(known) = self.too_long.iter_mut().find(|known| known.to == to) {
            known.len = known.len.min(len);
            known.datagrams += datagrams;
        } else if self.too_long.len() < TOO_LONG {
            self.too_long.push(TooLong { to, len, datagrams });
        }
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
            header.msg_control = b.controls[i].as_mut_ptr();
            header.msg_controllen = b.controls[i].room() as _;
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
            // SAFETY: the kernel has just filled this header's control buffer, which lives in `b`.
            let told = unsafe { control::read(&b.messages[i].msg_hdr) };
            out.push(Received {
                buffer: i,
                len,
                segment: told.segment.filter(|&s| s > 0 && s < len).unwrap_or(len),
                from,
                local: told.local,
            });
        }
        Ok(())
    }

    /// Sends what it is given, in order; what must wait for the device goes to `refused`, and from the first of these on all does. What can't be
    /// sent at all is lost, as any datagram may be.
    pub fn send<'a>(&mut self, all: impl Iterator<Item = Outgoing<'a>>, refused: &mut impl FnMut(Outgoing<'a>)) {
        let mut batch = Batch::new();
        for out in all {
            if out.is_train() && self.goes_single(out.to) {
                for out in out.single() {
                    self.add(out, &mut batch, refused);
                }
            } else {
                self.add(out, &mut batch, refused);
            }
        }
        self.send_batch(&mut batch, refused);
    }

    fn add<'a>(&mut self, out: Outgoing<'a>, batch: &mut Batch<'a>, refused: &mut impl FnMut(Outgoing<'a>)) {
        if batch.len == SEND_MESSAGES {
            self.send_batch(batch, refused);
        }
        batch.messages[batch.len] = Some(out);
        batch.len += 1;
    }

    /// Whether trains for this destination go as single datagrams.
    fn goes_single(&mut self, to: SocketAddr) -> bool {
        if !self.gso || self.single.is_empty() {
            return !self.gso;
        }
        let now = Instant::now();
        self.single.retain(|(_, until)| now < *until);
        self.single.iter().any(|(known, _)| *known == to)
    }

    fn note_single(&mut self, to: SocketAddr) {
        self.single.retain(|(known, _)| *known != to);
        if self.single.len() >= SINGLE {
            self.single.remove(0);
        }
        self.single.push((to, Instant::now() + SINGLE_FOR));
    }

    /// Sends the batch and empties it.
    fn send_batch<'a>(&mut self, batch: &mut Batch<'a>, refused: &mut impl FnMut(Outgoing<'a>)) {
        let mut done = 0;
        // A connected socket first tells what became of earlier packets, and hasn't tried to send this one then.
        let mut told = self.peer.is_none();
        while let Some(rest) = batch.all().get(done..).filter(|rest| !rest.is_empty()) {
            let sent = if batch.blocked {
                Err(io::ErrorKind::WouldBlock.into())
            } else {
                self.send_some(rest)
            };
            match sent {
                Ok(sent) => done += sent.max(1),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    rest.iter().flatten().for_each(|&out| refused(out));
                    done += rest.len();
                    batch.blocked = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if !told => told = true,
                Err(error) => {
                    // The first of the rest failed; it costs nobody but its own destination.
                    if let Some(&Some(out)) = rest.first() {
                        batch.blocked = self.send_otherwise(out, &error, refused);
                    }
                    done += 1;
                }
            }
        }
        batch.len = 0;
    }

    /// What couldn't be sent as it is may go otherwise: a train as single datagrams, an answer from whichever address the host picks. Whether it
    /// must wait.
    fn send_otherwise<'a>(
        &mut self,
        out: Outgoing<'a>,
        error: &io::Error,
        refused: &mut impl FnMut(Outgoing<'a>),
    ) -> bool {
        let code = error.raw_os_error();
        let mut batch = Batch::new();
        // A connected socket says this once for an ICMP message, which anybody may have sent; the first link says it again.
        if code == Some(libc::EMSGSIZE) && self.send_some(&[Some(out)]).is_ok() {
            return false;
        }
        if out.is_train() && matches!(code, Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)) {
            let sent = match self.send_some(&[out.single().next()]) {
                Ok(_) => out.segment,
                // Each by itself is too long for the first link: that is no reason to send what fits one by one.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    self.note_too_long(out.to, out.segment, out.bytes.len().div_ceil(out.segment.max(1)));
                    return false;
                }
                Err(_) => 0,
            };
            self.note_single(out.to);
            let rest = Outgoing {
                bytes: out.bytes.get(sent..).unwrap_or(&[]),
                ..out
            };
            for out in rest.single() {
                self.add(out, &mut batch, refused);
            }
            self.send_batch(&mut batch, refused);
            return batch.blocked;
        }
        if code == Some(libc::EMSGSIZE) {
            self.note_too_long(out.to, out.bytes.len(), 1);
        }
        // Not ours any more, or it leads nowhere: the neighbour sees where it comes from.
        let elsewhere = matches!(
            code,
            Some(libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENETUNREACH | libc::EHOSTUNREACH)
        );
        if self.peer.is_some() {
            self.broken |= elsewhere;
        } else if out.local.is_some() && elsewhere {
            self.add(Outgoing { local: None, ..out }, &mut batch, refused);
            self.send_batch(&mut batch, refused);
        }
        batch.blocked
    }

    /// One system call; how many messages it took.
    fn send_some(&self, batch: &[Option<Outgoing>]) -> io::Result<usize> {
        // Only as much is made ready as is sent: most calls send one message.
        let mut names = [const { MaybeUninit::<libc::sockaddr_storage>::uninit() }; SEND_MESSAGES];
        let mut iovecs = [const { MaybeUninit::<libc::iovec>::uninit() }; SEND_MESSAGES];
        let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; SEND_MESSAGES];
        let mut controls = [const { MaybeUninit::<Control>::uninit() }; SEND_MESSAGES];
        let mut count = 0;
        for (i, out) in batch.iter().enumerate().take(SEND_MESSAGES) {
            let Some(out) = *out else { break };
            let (name, len) = to_storage(out.to, self.v6);
            let iovec = iovecs[i].write(libc::iovec {
                iov_base: out.bytes.as_ptr().cast_mut().cast(),
                iov_len: out.bytes.len(),
            });
            // SAFETY: a plain C struct for which zeroes are valid.
            let message = messages[i].write(unsafe { zeroed() });
            let header = &mut message.msg_hdr;
            // A connected socket knows both ends of its way.
            if self.peer.is_none() {
                header.msg_name = std::ptr::from_mut(names[i].write(name)).cast();
                header.msg_namelen = len;
            }
            header.msg_iov = iovec;
            header.msg_iovlen = 1;
            let segment = out.is_train().then_some(out.segment as u16);
            let local = out.local.filter(|_| self.peer.is_none());
            let room = controls[i].write(Control::new());
            let control = room.write(segment, local, self.v6);
            if control > 0 {
                header.msg_control = room.as_mut_ptr();
                header.msg_controllen = control as _;
            }
            count += 1;
        }
        // SAFETY: the first `count` headers are made ready, and point at memory that outlives the call: locals of this function and the borrowed trains.
        let sent = unsafe {
            libc::sendmmsg(
                self.fd.as_raw_fd(),
                messages.as_mut_ptr().cast(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        check(sent).map(|sent| sent as usize)
    }
}

/// Messages for one call.
struct Batch<'a> {
    messages: [Option<Outgoing<'a>>; SEND_MESSAGES],
    len: usize,
    /// The socket takes no more.
    blocked: bool,
}

impl<'a> Batch<'a> {
    const fn new() -> Self {
        Self {
            messages: [None; SEND_MESSAGES],
            len: 0,
            blocked: false,
        }
    }

    fn all(&self) -> &[Option<Outgoing<'a>>] {
        self.messages.get(..self.len).unwrap_or(&[])
    }
}

impl AsRawFd for Udp {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
