//! Sending: many messages per call, each a datagram or a train that the kernel cuts.

use super::Udp;
use crate::sys::address::to_storage;
use crate::sys::check_len;
use crate::sys::control::Control;
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Messages per send call.
const SEND_MESSAGES: usize = 64;
/// Where trains can't go (a small MTU on the way, a device without checksums) they go as single datagrams for so long, then it is tried again.
const SINGLE_FOR: Duration = Duration::from_secs(10);
/// So many such destinations are remembered.
const SINGLE: usize = 16;
/// Destinations remembered whose datagrams were too long for the first link.
const TOO_LONG: usize = 16;

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

impl Udp {
    /// What was too long since this was last asked.
    pub fn take_too_long(&mut self) -> Option<TooLong> {
        self.too_long.pop()
    }

    /// Whether a connected socket's neighbour refused datagrams (ICMP port unreachable) since this was last asked, as far as sending was told.
    pub fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }

    fn note_too_long(&mut self, to: SocketAddr, len: usize, datagrams: usize) {
        if let Some(known) = self.too_long.iter_mut().find(|known| known.to == to) {
            known.len = known.len.min(len);
            known.datagrams += datagrams;
        } else if self.too_long.len() < TOO_LONG {
            self.too_long.push(TooLong { to, len, datagrams });
        }
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
                Err(error) if !told => {
                    self.refused |= error.raw_os_error() == Some(libc::ECONNREFUSED);
                    told = true;
                }
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
        // The kernel's own call: musl's function of that name makes one for each message, since its headers' padding may hold anything. Ours is zero.
        // SAFETY: the first `count` headers are made ready, and point at memory that outlives the call: locals of this function and the borrowed trains.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_sendmmsg,
                self.fd.as_raw_fd(),
                messages.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        check_len(sent as libc::ssize_t)
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
