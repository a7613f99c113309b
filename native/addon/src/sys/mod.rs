//! System calls: the only place with `unsafe`. Everything here returns `io::Result` and owns its descriptors.

mod address;
mod connect;
mod control;
pub mod device;
mod poll;
mod tun;
mod udp;

pub use connect::{descriptors, finds_connected};
pub use poll::{EventFd, Poll, READY, Ready};
pub use tun::{Tun, TunOffload};
pub use udp::{Outgoing, ReceiveBuffers, Received, Room, TooLong, Udp};

use std::io;

/// A system call's result: −1 becomes the last error.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The same for calls that return a length.
fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
