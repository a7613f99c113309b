//! Receiving: many buffers per call, each with datagrams that the kernel merged.

use super::Udp;
use crate::sys::address::from_storage;
use crate::sys::check_len;
use crate::sys::control::{self, Control};
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

/// Longest datagram, or train of them, that one receive can bring.
const RECEIVE: usize = 65_536;
/// Messages per receive call.
const MESSAGES: usize = 8;

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
        // The kernel's own call, as in `send_some`; no time limit.
        // SAFETY: every header points at memory of `b`, which outlives the call and isn't touched meanwhile.
        let count = unsafe {
            libc::syscall(
                libc::SYS_recvmmsg,
                self.fd.as_raw_fd(),
                b.messages.as_mut_ptr(),
                MESSAGES as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut::<libc::timespec>(),
            )
        };
        let count = match check_len(count as libc::ssize_t) {
            Ok(count) => count,
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
}
