//! One connection between a stream of the user-space host and a socket.

use super::streams::Given;
use crate::sys::device;
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use thicket_core::{Closed, Host, StreamId};

/// What it moves, each way, before the others have their turn.
const TURN: usize = 128 << 10;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The device hasn't answered; the caller waits.
    Calling,
    /// The far end hasn't answered; what the local program says waits in its socket.
    Dialing,
    /// It stands.
    Open,
}

/// What is left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing until something happens.
    Rest,
    /// More than its turn took.
    More,
    /// Both ends have said their last.
    Done,
    /// The stream ended otherwise.
    Over(Closed),
    /// The socket failed.
    Broken,
}

/// A connection.
pub struct Pipe {
    pub stream: StreamId,
    pub socket: TcpStream,
    pub phase: Phase,
    /// JavaScript's number, where it gave the stream away.
    pub number: Option<u32>,
    /// In the queue of those with something to do.
    pub queued: bool,
    /// What was read off the socket before it came here, and how much of it the host has.
    early: (Vec<u8>, usize),
    /// What the poll told, until the socket would block.
    input: bool,
    room: bool,
    /// The stream will bring no more; it is over.
    finished: bool,
    over: Option<Closed>,
    /// The socket's end was told to the stream, and the stream's to the socket.
    ended: bool,
    shut: bool,
    answered: bool,
}

impl Pipe {
    /// Of a socket that is new to the poll.
    pub fn new(stream: StreamId, socket: TcpStream, phase: Phase) -> Self {
        Self {
            stream,
            socket,
            phase,
            number: None,
            queued: false,
            early: Default::default(),
            input: false,
            room: false,
            finished: false,
            over: None,
            ended: false,
            shut: false,
            answered: false,
        }
    }

    /// Of a stream that JavaScript gave away, under this number and with what it had read off the socket.
    pub fn given(given: Given, number: u32, socket: TcpStream, early: Vec<u8>) -> Self {
        let phase = if given.open { Phase::Open } else { Phase::Dialing };
        Self {
            number: Some(number),
            early: (early, 0),
            finished: given.finished,
            over: given.over,
            ..Self::new(given.stream, socket, phase)
        }
    }

    /// The poll's word. Whether there is something to do; an error: the socket is no more.
    pub fn ready(&mut self, input: bool, room: bool, host: &mut Host) -> Result<bool> {
        self.input |= input;
        self.room |= room;
        let calling = self.phase == Phase::Calling;
        // A reset waits neither for a slow reader nor for somebody who reads no more.
        let unread = self.phase == Phase::Dialing || self.ended || host.room(self.stream) == 0;
        if (calling || input && unread)
            && let Some(error) = self.socket.take_error()?
        {
            return Err(error);
        }
        if calling {
            if self.socket.peer_addr().is_err() {
                return Ok(false);
            }
            self.phase = Phase::Open;
            self.answered = true;
        }
        Ok(true)
    }

    /// Whether the device has just answered.
    pub fn answered(&mut self) -> bool {
        std::mem::take(&mut self.answered)
    }

    /// The far end answered.
    pub fn connected(&mut self) {
        self.phase = Phase::Open;
    }

    /// The stream will bring no more.
    pub fn finished(&mut self) {
        self.finished = true;
    }

    /// The stream is over, but for what came before.
    pub fn closed(&mut self, reason: Closed) {
        self.over = Some(reason);
    }

    /// Moves what can be moved.
    pub fn turn(&mut self, host: &mut Host, buffer: &mut [u8]) -> After {
        if self.phase != Phase::Open {
            return self.over.map_or(After::Rest, After::Over);
        }
        let Ok(sent) = self.send(host) else {
            return After::Broken;
        };
        if let Some(reason) = self.over {
            return match reason {
                _ if !host.readable(self.stream).is_empty() => {
                    if sent {
                        After::More
                    } else {
                        After::Rest
                    }
                }
                Closed::Done => After::Done,
                reason => After::Over(reason),
            };
        }
        let Ok(received) = self.receive(host, buffer) else {
            return After::Broken;
        };
        match (self.ended && self.shut, sent || received) {
            (true, _) => After::Done,
            (false, true) => After::More,
            (false, false) => After::Rest,
        }
    }

    /// From the host to the socket; whether there may be more to do.
    fn send(&mut self, host: &mut Host) -> Result<bool> {
        let mut moved = 0;
        while self.room && !self.shut {
            let bytes = host.readable(self.stream);
            if bytes.is_empty() {
                if self.finished {
                    self.shut = true;
                    // A socket that has gone says so when it is read.
                    let _ = self.socket.shutdown(Shutdown::Write);
                }
                return Ok(false);
            }
            if moved >= TURN {
                return Ok(true);
            }
            let sent = match self.number {
                Some(_) => device::send(&self.socket, bytes),
                None => self.socket.write(bytes),
            };
            match sent {
                Ok(count) => {
                    host.consume(self.stream, count);
                    moved += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.room = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// From the socket to the host; whether there may be more to do.
    fn receive(&mut self, host: &mut Host, buffer: &mut [u8]) -> Result<bool> {
        let (early, done) = &mut self.early;
        if let Some(rest) = early.get(*done..).filter(|rest| !rest.is_empty()) {
            *done += host.write(self.stream, rest);
            if *done < early.len() {
                return Ok(false);
            }
            self.early = Default::default();
        }
        let mut moved = 0;
        while self.input && !self.ended {
            let room = host.room(self.stream).min(buffer.len());
            if room == 0 {
                return Ok(false);
            }
            if moved >= TURN {
                return Ok(true);
            }
            let Some(place) = buffer.get_mut(..room) else {
                return Ok(false);
            };
            match self.socket.read(place) {
                Ok(0) => {
                    self.ended = true;
                    host.finish(self.stream);
                }
                Ok(count) => {
                    host.write(self.stream, place.get(..count).unwrap_or(&[]));
                    moved += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.input = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}
