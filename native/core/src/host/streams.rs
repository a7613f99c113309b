//! The table of streams: who is who, what is told of them, when each needs attention.

use super::api::*;
use super::tcp::{Header, Tcp};
use super::{Control, Flow, Host};
use crate::time::{Duration, Instant};
use smoltcp::socket::tcp::State;

/// A stream that the shell closed has so long to say goodbye (as Linux's tcp_fin_timeout).
const GOODBYE: Duration = Duration::from_secs(60);
/// How often what is over is looked through.
const TIDY: Duration = Duration::from_secs(2);
/// What has nothing to send isn't asked again at once.
const AGAIN: Duration = Duration::from_millis(1);

pub enum Body {
    /// The SYN of a caller who isn't answered yet.
    Held(Header),
    Open(Box<Tcp>),
    /// What is left to read, and how much of it was.
    Over(Vec<u8>, usize),
}

pub struct Stream {
    pub flow: Flow,
    pub body: Body,
    /// Bytes charged for what comes in and what goes out.
    pub charge: (usize, usize),
    /// It stands in [`Host::ready`].
    pub queued: bool,
    /// When it stands in [`Host::timers`].
    armed: Option<Instant>,
    /// Something other than the connection ends it then.
    pub until: Option<Instant>,
    told_readable: bool,
    told_finished: bool,
    /// A write came short, or there was no room.
    pub wants_room: bool,
    /// Read since the far end was told of room.
    freed: usize,
    /// The shell doesn't want to hear of it again.
    pub orphan: bool,
}

impl Stream {
    pub fn new(flow: Flow, body: Body, until: Option<Instant>) -> Self {
        Self {
            flow,
            body,
            charge: (0, 0),
            queued: false,
            armed: None,
            until,
            told_readable: false,
            told_finished: false,
            wants_room: false,
            freed: 0,
            orphan: false,
        }
    }

    pub fn tcp(&self) -> Option<&Tcp> {
        match &self.body {
            Body::Open(tcp) => Some(tcp),
            _ => None,
        }
    }

    pub fn tcp_mut(&mut self) -> Option<&mut Tcp> {
        match &mut self.body {
            Body::Open(tcp) => Some(tcp),
            _ => None,
        }
    }

    pub fn is_held(&self) -> bool {
        matches!(self.body, Body::Held(_))
    }

    /// Bytes to read.
    pub fn ready(&self) -> usize {
        match &self.body {
            Body::Held(_) => 0,
            Body::Open(tcp) => tcp.ready(),
            Body::Over(rest, read) => rest.len() - read,
        }
    }

    /// Bytes that wait in its buffers.
    pub fn buffered(&self) -> usize {
        self.ready() + self.tcp().map_or(0, |tcp| tcp.socket().send_queue())
    }

    /// How much may be written: little isn't worth a call.
    pub fn room(&self) -> usize {
        self.tcp().map_or(0, |tcp| {
            let worth = tcp.socket().send_capacity() / 4;
            Some(tcp.room()).filter(|room| *room >= worth).unwrap_or(0)
        })
    }
}

impl Host {
    pub(super) fn find(&mut self, flow: &Flow) -> Option<u32> {
        if let Some((last, id)) = &self.last
            && last == flow
        {
            return Some(*id);
        }
        let id = *self.flows.get(flow)?;
        self.last = Some((*flow, id));
        Some(id)
    }

    pub(super) fn add(&mut self, stream: Stream) -> u32 {
        while self.streams.contains_key(&self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.flows.insert(stream.flow, id);
        self.streams.insert(id, Box::new(stream));
        self.arm(id);
        id
    }

    /// It may have something to send.
    pub(super) fn queue(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !core::mem::replace(&mut stream.queued, true)
        {
            self.ready.push_back(id);
        }
    }

    /// Sees to it that it gets attention in time. What is armed too early already stays so, and is armed again then.
    pub(super) fn arm(&mut self, id: u32) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        // What is due now has just been asked.
        let due = stream
            .tcp_mut()
            .and_then(|tcp| tcp.due(now))
            .map(|due| due.max(now + AGAIN));
        let Some(due) = [due, stream.until].into_iter().flatten().min() else {
            return;
        };
        if stream.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        if let Some(armed) = stream.armed.replace(due) {
            self.timers.remove(&(armed, id));
        }
        self.timers.insert((due, id));
    }

    /// Tells what became of a stream, and what must be done about it. `reason`: what it means should it be over.
    pub(super) fn settle(&mut self, id: u32, reason: Closed) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let (orphan, ready) = (stream.orphan, stream.ready());
        let Body::Open(tcp) = &mut stream.body else {
            return;
        };
        if orphan && ready > 0 {
            // It talks to nobody.
            return self.abort(StreamId(id));
        }
        let (opens, finished, state) = (tcp.opens(), tcp.is_finished(), tcp.state());
        let (sent_out, opening) = (tcp.is_sent_out(), tcp.is_opening());
        if opens && !orphan {
            self.events.push_back(HostEvent::Connected(StreamId(id)));
        }
        if ready > 0 && !core::mem::replace(&mut stream.told_readable, true) {
            self.events.push_back(HostEvent::Readable(StreamId(id)));
        }
        if finished && !orphan && !core::mem::replace(&mut stream.told_finished, true) {
            self.events.push_back(HostEvent::Finished(StreamId(id)));
        }
        if stream.wants_room && stream.room() > 0 {
            stream.wants_room = false;
            self.events.push_back(HostEvent::Writable(StreamId(id)));
        }
        if orphan && sent_out && stream.until.is_none() {
            stream.until = Some(now + GOODBYE);
        }
        match state {
            State::TimeWait => self.end(id, Closed::Done),
            State::Closed if opening && reason == Closed::Reset => self.end(id, Closed::Refused),
            // A caller's reset makes smoltcp listen again.
            State::Closed | State::Listen => self.end(id, reason),
            _ => {}
        }
    }

    /// The connection is over; the shell is told, and may still read.
    pub(super) fn end(&mut self, id: u32, reason: Closed) {
        let (now, mut out) = (self.now, core::mem::take(&mut self.scratch));
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let (flow, held, orphan) = (stream.flow, stream.is_held(), stream.orphan);
        let body = core::mem::replace(&mut stream.body, Body::Over(Vec::new(), 0));
        let mut word = None;
        if let Body::Open(mut tcp) = body {
            if tcp.state() == State::TimeWait {
                word = tcp.last_word(now, &mut out);
            }
            let mut rest = vec![0; if orphan { 0 } else { tcp.ready() }];
            let read = tcp.socket_mut().recv_slice(&mut rest).unwrap_or(0);
            rest.truncate(read);
            stream.body = Body::Over(rest, 0);
        }
        stream.until = None;
        let left = stream.ready();
        self.outgoing.charge(&mut stream.charge.1, 0);
        self.incoming.charge(&mut stream.charge.0, left);
        if !orphan {
            let stream = StreamId(id);
            self.events.push_back(HostEvent::Closed { stream, reason });
        }
        if held {
            self.not_held(&flow);
        }
        self.forget_flow(&flow);
        if let Some(word) = word {
            self.control(Control::Segment(flow, word));
            self.waits.add(now, flow, word);
            self.tidy_at.get_or_insert(now + TIDY);
        }
        if left == 0 {
            self.remove(id);
        }
        self.scratch = out;
    }

    fn forget_flow(&mut self, flow: &Flow) {
        self.last = None;
        self.flows.remove(flow);
    }

    pub(super) fn not_held(&mut self, flow: &Flow) {
        self.held -= 1;
        if let Some(count) = self.callers.get_mut(&flow.peer.ip()) {
            *count -= 1;
            if *count == 0 {
                self.callers.remove(&flow.peer.ip());
            }
        }
    }

    /// Nothing of it is left.
    pub(super) fn remove(&mut self, id: u32) -> Option<Box<Stream>> {
        let mut stream = self.streams.remove(&id)?;
        if let Some(armed) = stream.armed {
            self.timers.remove(&(armed, id));
        }
        if !matches!(stream.body, Body::Over(..)) {
            if stream.is_held() {
                self.not_held(&stream.flow);
            }
            self.forget_flow(&stream.flow);
        }
        self.incoming.charge(&mut stream.charge.0, 0);
        self.outgoing.charge(&mut stream.charge.1, 0);
        Some(stream)
    }

    /// Bytes were read. What is left was read: the next byte is news again. A stream that is over goes with its last.
    pub(super) fn was_read(&mut self, id: u32, bytes: usize) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let left = stream.ready();
        if left == 0 {
            stream.told_readable = false;
            if stream.tcp().is_none() {
                self.remove(id);
                return;
            }
        }
        // The far end needn't hear of every little room.
        stream.freed += bytes;
        let capacity = stream.tcp().map_or(0, |tcp| tcp.socket().recv_capacity());
        if left == 0 || stream.freed >= capacity / 8 {
            stream.freed = 0;
            self.queue(id);
        }
    }

    /// When [`Host::handle_timeout`] should be called next; [`Instant::MAX`] for never.
    pub fn poll_timeout(&self) -> Instant {
        if self.told_late {
            return Instant::default();
        }
        let first = self.timers.first().map(|(at, _)| *at);
        [first, self.tidy_at]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Instant::MAX)
    }

    /// Does what time brings: repeats, probes, gives up. [`Host::poll_packet`] has what comes of it.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.told_late = false;
        while let Some(&(at, id)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            stream.armed = None;
            if stream.until.is_some_and(|until| until <= now) {
                stream.until = None;
                self.end(id, Closed::TimedOut);
                continue;
            }
            self.queue(id);
            self.arm_until(id);
        }
        if self.tidy_at.is_some_and(|at| at <= now) {
            self.waits.expire(now);
            self.tidy_at = (self.waits.len() > 0).then(|| now + TIDY);
        }
    }

    /// A held stream has nothing to send, so nobody arms it again.
    fn arm_until(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(|stream| stream.is_held()) {
            self.arm(id);
        }
    }
}
