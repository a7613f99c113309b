//! Streams and datagrams that JavaScript holds, under its own numbers. Nothing of theirs waits here but what one write brought: JavaScript gets as
//! many bytes as it asked for, and its next write comes when the host has all of the last.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use thicket_core::{Closed, Host, Instant, SessionId, StreamId};

/// Bytes told at once.
const CHUNK: usize = 64 << 10;

/// How a stream ended: `StreamEnd` of ts/dataplane/userspace.ts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Of(Closed),
    /// No buffers or ports were left.
    Full,
}

impl End {
    /// Its name there.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Of(Closed::Done) => "done",
            Self::Of(Closed::Refused) => "refused",
            Self::Of(Closed::Reset) => "reset",
            Self::Of(Closed::TimedOut) => "timedOut",
            Self::Of(Closed::Unreachable) => "unreachable",
            Self::Full => "full",
        }
    }
}

/// What JavaScript is told: `HostEvent` of ts/dataplane/userspace.ts, stream by stream and in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Connected(u32),
    /// As many bytes as were asked for, or fewer.
    Data(u32, Vec<u8>),
    /// The host has all of the last write.
    Written(u32),
    /// The far end's last byte has been told.
    Finished(u32),
    /// Nothing else follows, and the number is free.
    Closed(u32, End),
    /// A caller's stream to a service that is this program's own.
    Incoming {
        stream: u32,
        session: SessionId,
        account: u32,
        peer: SocketAddr,
    },
    Datagram {
        port: u32,
        peer: SocketAddr,
        bytes: Vec<u8>,
    },
}

struct Held {
    stream: StreamId,
    /// The far end has answered.
    open: bool,
    /// Bytes that may still be told.
    granted: usize,
    /// The last write, and how much of it the host has.
    write: (Vec<u8>, usize),
    /// FIN goes behind the last write.
    finish: bool,
    /// The far end's FIN came; it was told.
    finished: (bool, bool),
    /// It is over, but not all was told yet.
    over: Option<Closed>,
}

/// A stream that somebody else goes on with, and what was heard of it: whether the far end has answered, and finished; whether it is over.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    pub stream: StreamId,
    pub open: bool,
    pub finished: bool,
    pub over: Option<Closed>,
}

/// All that JavaScript holds.
#[derive(Default)]
pub struct Streams {
    held: HashMap<u32, Held>,
    by_stream: HashMap<StreamId, u32>,
    next: u32,
    told: Vec<Told>,
}

impl Streams {
    /// What is to be told.
    pub fn take_told(&mut self, into: &mut Vec<Told>) {
        into.append(&mut self.told);
    }

    /// Puts something else between what is told of streams.
    pub fn tell(&mut self, told: Told) {
        self.told.push(told);
    }

    /// Calls a peer from one of our addresses.
    pub fn dial(&mut self, now: Instant, number: u32, own: IpAddr, peer: SocketAddr, host: &mut Host) {
        match host.connect(now, own, peer) {
            Ok(stream) => self.hold(number, stream, false),
            Err(_) => self.tell(Told::Closed(number, End::Full)),
        }
    }

    /// A caller's stream, which was accepted.
    pub fn incoming(&mut self, stream: StreamId, session: SessionId, account: u32, peer: SocketAddr) {
        // Even numbers are ours.
        while self.held.contains_key(&self.next) {
            self.next = self.next.wrapping_add(2);
        }
        let number = self.next;
        self.next = number.wrapping_add(2);
        self.hold(number, stream, true);
        self.tell(Told::Incoming {
            stream: number,
            session,
            account,
            peer,
        });
    }

    fn hold(&mut self, number: u32, stream: StreamId, open: bool) {
        let held = Held {
            stream,
            open,
            granted: 0,
            write: (Vec::new(), 0),
            finish: false,
            finished: (false, false),
            over: None,
        };
        self.held.insert(number, held);
        self.by_stream.insert(stream, number);
    }

    /// Bytes for the far end; [`Told::Written`] follows when the host has them.
    pub fn write(&mut self, number: u32, bytes: Vec<u8>, host: &mut Host) {
        let Some(held) = self.held.get_mut(&number) else { return };
        if bytes.is_empty() {
            self.told.push(Told::Written(number));
        }
        held.write = (bytes, 0);
        held.push(number, host, &mut self.told);
    }

    /// So many more bytes may be told.
    pub fn read(&mut self, number: u32, bytes: usize, host: &mut Host) {
        let Some(held) = self.held.get_mut(&number) else { return };
        held.granted = held.granted.saturating_add(bytes);
        self.pull(number, host);
    }

    /// FIN, after all that was written.
    pub fn finish(&mut self, number: u32, host: &mut Host) {
        let Some(held) = self.held.get_mut(&number) else { return };
        held.finish = true;
        held.push(number, host, &mut self.told);
    }

    /// RST, and no more events of it. Whether there was such a stream.
    pub fn abort(&mut self, number: u32, host: &mut Host) -> bool {
        let Some(given) = self.give(number) else { return false };
        host.abort(given.stream);
        true
    }

    /// Somebody else goes on with it.
    pub fn give(&mut self, number: u32) -> Option<Given> {
        let held = self.held.remove(&number)?;
        self.by_stream.remove(&held.stream);
        Some(Given {
            stream: held.stream,
            open: held.open,
            finished: held.finished.0,
            over: held.over,
        })
    }

    /// The host's word: the peer answered.
    pub fn connected(&mut self, stream: StreamId, host: &mut Host) {
        let Some(&number) = self.by_stream.get(&stream) else {
            return;
        };
        if let Some(held) = self.held.get_mut(&number).filter(|held| !held.open) {
            held.open = true;
            self.tell(Told::Connected(number));
        }
        self.writable(stream, host);
    }

    /// The host's word: bytes.
    pub fn readable(&mut self, stream: StreamId, host: &mut Host) {
        if let Some(&number) = self.by_stream.get(&stream) {
            self.pull(number, host);
        }
    }

    /// The host's word: room.
    pub fn writable(&mut self, stream: StreamId, host: &mut Host) {
        let Some(&number) = self.by_stream.get(&stream) else {
            return;
        };
        if let Some(held) = self.held.get_mut(&number) {
            held.push(number, host, &mut self.told);
        }
    }

    /// The host's word: the far end has finished.
    pub fn finished(&mut self, stream: StreamId, host: &mut Host) {
        let Some(&number) = self.by_stream.get(&stream) else {
            return;
        };
        if let Some(held) = self.held.get_mut(&number) {
            held.finished.0 = true;
        }
        self.pull(number, host);
    }

    /// The host's word: it is over, but for what came before.
    pub fn closed(&mut self, stream: StreamId, reason: Closed, host: &mut Host) {
        let Some(&number) = self.by_stream.get(&stream) else {
            return;
        };
        if let Some(held) = self.held.get_mut(&number) {
            held.over = Some(reason);
        }
        self.pull(number, host);
    }

    /// Tells what came, as far as JavaScript wants it, and the end behind it.
    fn pull(&mut self, number: u32, host: &mut Host) {
        let Some(held) = self.held.get_mut(&number) else { return };
        let mut empty = false;
        while held.granted > 0 && !empty {
            let mut bytes = vec![0; held.granted.min(CHUNK)];
            let count = host.read(held.stream, &mut bytes);
            empty = count < bytes.len();
            bytes.truncate(count);
            held.granted -= count;
            if count > 0 {
                self.told.push(Told::Data(number, bytes));
            }
        }
        if !empty && !host.readable(held.stream).is_empty() {
            return;
        }
        if held.finished.0 && !held.finished.1 {
            held.finished.1 = true;
            self.told.push(Told::Finished(number));
        }
        if let Some(end) = held.over {
            self.told.push(Told::Closed(number, End::Of(end)));
            self.give(number);
        }
    }
}

impl Held {
    /// Gives the host what it hasn't of the last write, and the end behind it.
    fn push(&mut self, number: u32, host: &mut Host, told: &mut Vec<Told>) {
        let (bytes, done) = &mut self.write;
        if !bytes.is_empty() {
            *done += host.write(self.stream, bytes.get(*done..).unwrap_or(&[]));
            if *done < bytes.len() {
                return;
            }
            self.write = Default::default();
            told.push(Told::Written(number));
        }
        if std::mem::take(&mut self.finish) {
            host.finish(self.stream);
        }
    }
}
