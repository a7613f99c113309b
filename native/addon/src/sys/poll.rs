//! epoll and eventfd.

use super::{check, check_len};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A wake-up call from other threads.
pub struct EventFd(OwnedFd);

impl EventFd {
    /// Non-blocking.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers; the descriptor it returns is ours alone.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?) };
        Ok(Self(fd))
    }

    /// Wakes whoever polls it. Full counters wake as well.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the buffer is valid for its eight bytes.
        let _ = check_len(unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) });
    }

    /// Forgets wake-ups so far.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: the buffer is valid for its eight bytes.
        let _ = check_len(unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) });
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Descriptors told of at once.
pub const READY: usize = 64;

/// What can be done with a descriptor.
#[derive(Clone, Copy)]
pub struct Ready {
    /// As it was added.
    pub token: u64,
    /// Something waits, or went wrong.
    pub input: bool,
    /// It can be written to; told where it was asked for.
    pub room: bool,
}

/// Readiness of many descriptors, level-triggered, each with a token.
pub struct Poll {
    epoll: OwnedFd,
    ready: Vec<libc::epoll_event>,
}

impl Poll {
    /// Empty.
    pub fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1 takes no pointers; the descriptor it returns is ours alone.
        let epoll = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Self {
            epoll,
            ready: vec![libc::epoll_event { events: 0, u64: 0 }; READY],
        })
    }

    /// Watches `fd` for input under `token`.
    pub fn add(&self, fd: RawFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, libc::EPOLLIN)
    }

    /// The same for what somebody else reads: nothing is told until [`Poll::watch_room`] asks.
    pub fn add_deaf(&self, fd: RawFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, 0)
    }

    /// Tells once each time that `fd` gets input, room to write, or an end: who is told must go on until it would block.
    pub fn add_edges(&self, fd: RawFd, token: u64) -> io::Result<()> {
        const EDGES: libc::c_int = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        self.control(libc::EPOLL_CTL_ADD, fd, token, EDGES)
    }

    /// Forgets `fd`: needed where somebody else has the same socket, for else it is forgotten when it closes.
    pub fn remove(&self, fd: RawFd) {
        // It can only fail for what isn't watched.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
    }

    /// Whether to tell when `fd` can be written to again, and whether when it can be read.
    pub fn watch_room(&self, fd: RawFd, token: u64, watch: bool, input: bool) -> io::Result<()> {
        let events = if watch { libc::EPOLLOUT } else { 0 } | if input { libc::EPOLLIN } else { 0 };
        self.control(libc::EPOLL_CTL_MOD, fd, token, events)
    }

    fn control(&self, what: libc::c_int, fd: RawFd, token: u64, events: libc::c_int) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: token,
        };
        // SAFETY: `event` is valid for the call.
        check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), what, fd, &mut event) }).map(drop)
    }

    /// Waits for at most `timeout_ms` and says what is ready, at most [`READY`] at once; the kernel takes turns.
    pub fn wait(&mut self, timeout_ms: i32, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        // SAFETY: `ready` is valid for its length.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.ready.as_mut_ptr(),
                self.ready.len() as libc::c_int,
                timeout_ms,
            )
        };
        match check(count) {
            Ok(count) => {
                let room = libc::EPOLLOUT as u32;
                ready.extend(self.ready.iter().take(count as usize).map(|event| Ready {
                    token: event.u64,
                    input: event.events & !room != 0,
                    room: event.events & room != 0,
                }));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Readable while it has something to tell: one poll may watch another.
impl AsRawFd for Poll {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}
