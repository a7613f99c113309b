//! Connections between streams of the user-space host and ordinary sockets: of devices at a gateway, of local programs at a viewer. Nothing is kept
//! here: bytes leave a socket only when the host has room for them, and leave the host only as far as the socket takes them.

use super::pipe::{After, Phase, Pipe};
use super::slab::{Key, Slab};
use super::streams::{End, Given};
use crate::sys::{Poll, device};
use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use thicket_core::{Closed, Host, StreamId};

/// All connections.
pub struct Pipes {
    all: Slab<Pipe>,
    by_stream: HashMap<StreamId, Key>,
    /// Those that JavaScript gave away, by its numbers; and those of them that are over.
    given: HashMap<u32, Key>,
    ended: Vec<(u32, End)>,
    /// Those with something to do, in the order of their turns.
    queue: VecDeque<Key>,
    /// Sockets at most, and how often that wasn't enough.
    most: usize,
    refused: u64,
    buffer: Vec<u8>,
}

impl Pipes {
    /// None yet; at most so many.
    pub fn new(most: usize) -> Self {
        Self {
            all: Slab::new(),
            by_stream: HashMap::new(),
            given: HashMap::new(),
            ended: Vec::new(),
            queue: VecDeque::new(),
            most,
            refused: 0,
            buffer: vec![0; 64 << 10],
        }
    }

    /// Whether some have something to do at once.
    pub fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Connections that there was no socket for, so far.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// Those of JavaScript's that are over, since the last call.
    pub fn ended(&mut self) -> impl Iterator<Item = (u32, End)> + '_ {
        self.ended.drain(..)
    }

    /// Calls the device that a stream is for; the stream is answered when the device has.
    pub fn call(&mut self, stream: StreamId, target: SocketAddr, host: &mut Host, poll: &Poll) {
        let called = if self.all.len() < self.most {
            device::connect(target)
        } else {
            Err(std::io::ErrorKind::QuotaExceeded.into())
        };
        let added = called.and_then(|socket| self.add(Pipe::new(stream, socket, Phase::Calling), poll));
        if let Err(error) = added {
            self.turn_away(stream, &error, host);
        }
    }

    /// Carries between a stream of JavaScript's, which may still be opening, and a local program's socket, after what was read off that before. A
    /// stream that fails resets the socket, and the other way round.
    pub fn splice(
        &mut self,
        number: u32,
        given: Option<Given>,
        socket: TcpStream,
        early: Vec<u8>,
        host: &mut Host,
        poll: &Poll,
    ) {
        let Some(given) = given else {
            device::reset(socket);
            return self.ended.push((number, End::Of(Closed::Reset)));
        };
        let pipe = Pipe::given(given, number, socket, early);
        let full = self.all.len() >= self.most;
        match if full { None } else { self.add(pipe, poll).ok() } {
            Some(key) => {
                self.given.insert(number, key);
                self.enqueue(key);
            }
            None => {
                self.refused += 1;
                host.abort(given.stream);
                self.ended.push((number, End::Full));
            }
        }
    }

    /// What can't be watched is reset.
    fn add(&mut self, pipe: Pipe, poll: &Poll) -> std::io::Result<Key> {
        let (stream, fd) = (pipe.stream, pipe.socket.as_raw_fd());
        let key = self.all.insert(pipe);
        if let Err(error) = poll.add_edges(fd, key.number()) {
            if let Some(pipe) = self.all.remove(key) {
                device::reset(pipe.socket);
            }
            return Err(error);
        }
        self.by_stream.insert(stream, key);
        Ok(key)
    }

    /// Tells the caller what the device, or the way to it, said: a refusal looks as the device's own would.
    fn turn_away(&mut self, stream: StreamId, error: &std::io::Error, host: &mut Host) {
        match error.raw_os_error() {
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ETIMEDOUT | libc::EHOSTDOWN | libc::ENETDOWN) => {
                host.unreachable(stream);
            }
            code => {
                let wanting = [
                    libc::EMFILE,
                    libc::ENFILE,
                    libc::ENOBUFS,
                    libc::ENOMEM,
                    libc::EADDRNOTAVAIL,
                ];
                self.refused += u64::from(code.is_none_or(|code| wanting.contains(&code)));
                host.refuse(stream);
            }
        }
    }

    /// The poll's word about a socket.
    pub fn ready(&mut self, key: Key, input: bool, room: bool, host: &mut Host, poll: &Poll) {
        let Some(pipe) = self.all.get_mut(key) else { return };
        match pipe.ready(input, room, host) {
            Ok(true) => {
                if pipe.answered() {
                    host.accept(pipe.stream);
                }
                self.enqueue(key);
            }
            Ok(false) => {}
            Err(error) if pipe.phase == Phase::Calling => {
                let stream = pipe.stream;
                self.forget(key, Closed::Refused, poll);
                self.turn_away(stream, &error, host);
            }
            Err(_) => {
                host.abort(pipe.stream);
                self.reset(key, Closed::Reset, poll);
            }
        }
    }

    /// The host's word about a stream: `change` notes it. Whether the stream is one of these.
    pub fn stirs(&mut self, stream: StreamId, change: impl FnOnce(&mut Pipe)) -> bool {
        let Some(&key) = self.by_stream.get(&stream) else {
            return false;
        };
        if let Some(pipe) = self.all.get_mut(key) {
            change(pipe);
        }
        self.enqueue(key);
        true
    }

    /// JavaScript has no more use for one that it gave away.
    pub fn abort(&mut self, number: u32, host: &mut Host, poll: &Poll) {
        let Some(key) = self.given.remove(&number) else { return };
        if let Some(pipe) = self.all.get_mut(key) {
            pipe.number = None;
            host.abort(pipe.stream);
            self.reset(key, Closed::Reset, poll);
        }
    }

    fn enqueue(&mut self, key: Key) {
        if let Some(pipe) = self.all.get_mut(key).filter(|pipe| !pipe.queued) {
            pipe.queued = true;
            self.queue.push_back(key);
        }
    }

    fn forget(&mut self, key: Key, reason: Closed, poll: &Poll) -> Option<TcpStream> {
        let pipe = self.all.remove(key)?;
        self.by_stream.remove(&pipe.stream);
        if let Some(number) = pipe.number {
            self.given.remove(&number);
            self.ended.push((number, End::Of(reason)));
        }
        // A local program's socket may still be JavaScript's, too.
        poll.remove(pipe.socket.as_raw_fd());
        Some(pipe.socket)
    }

    fn reset(&mut self, key: Key, reason: Closed, poll: &Poll) {
        if let Some(socket) = self.forget(key, reason, poll) {
            device::reset(socket);
        }
    }

    /// Gives each that has something to do one turn.
    pub fn turn(&mut self, host: &mut Host, poll: &Poll) {
        for _ in 0..self.queue.len() {
            let Some(key) = self.queue.pop_front() else { return };
            let Some(pipe) = self.all.get_mut(key) else { continue };
            pipe.queued = false;
            match pipe.turn(host, &mut self.buffer) {
                After::Rest => {}
                After::More => self.enqueue(key),
                After::Done => drop(self.forget(key, Closed::Done, poll)),
                After::Over(reason) => self.reset(key, reason, poll),
                After::Broken => {
                    host.abort(pipe.stream);
                    self.reset(key, Closed::Reset, poll);
                }
            }
        }
    }
}
