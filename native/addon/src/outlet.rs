//! A socket with what waits for it: nothing is held up by a line that is slower than the others, and what waits stays short.

use crate::queues::{Memory, Parcel, Queues};
use crate::sys::{Outgoing, Poll, TooLong, Udp};
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// What a line may have waiting here, and in its socket, as time at the speed that was measured; and the limits of that in bytes.
const WAIT: Duration = Duration::from_millis(10);
const WAIT_BYTES: (usize, usize) = (64 << 10, 2 << 20);
const SOCKET: Duration = Duration::from_millis(4);
const SOCKET_BYTES: (usize, usize) = (32 << 10, 2 << 20);
/// What a new socket gets.
pub const SOCKET_FIRST: u32 = 1 << 20;
/// How fast a line is taken to be (bytes a second) until that is measured, and how often it is.
const SPEED_FIRST: f64 = 50e6;
const MEASURE: Duration = Duration::from_millis(5);
/// A socket that ran empty while packets waited gets up to so many times as much, until it has not for so long.
const SLACK: f64 = 8.0;
const SLACK_FOR: Duration = Duration::from_secs(1);
/// Sent in one call out of the queues, at most.
const AT_ONCE: usize = 16;
const AT_ONCE_BYTES: usize = 64 << 10;

/// How fast the line takes packets while some wait for it.
struct Line {
    speed: f64,
    began: Option<Instant>,
    sent: usize,
    slack: f64,
    starved: Option<Instant>,
    room: f64,
}

impl Line {
    const fn new() -> Self {
        Self {
            speed: SPEED_FIRST,
            began: None,
            sent: 0,
            slack: 1.0,
            starved: None,
            room: SOCKET_FIRST as f64,
        }
    }

    fn waiting(&self) -> usize {
        ((self.speed * WAIT.as_secs_f64()) as usize).clamp(WAIT_BYTES.0, WAIT_BYTES.1)
    }

    /// Notes what the line took; how much room the socket should have, when that has changed much.
    fn took(&mut self, now: Instant, bytes: usize, ran_empty: bool) -> Option<u32> {
        self.sent += bytes;
        if ran_empty && self.starved.is_none_or(|at| now - at > SOCKET) {
            self.slack = SLACK.min(self.slack * 2.0);
            self.starved = Some(now);
        } else if self.slack > 1.0 && self.starved.is_none_or(|at| now - at > SLACK_FOR) {
            self.slack /= 2.0;
            self.starved = Some(now);
        }
        let elapsed = now - *self.began.get_or_insert(now);
        if elapsed >= MEASURE {
            let speed = self.sent as f64 / elapsed.as_secs_f64();
            self.speed = 0.7f64.mul_add(self.speed, 0.3 * speed);
            (self.began, self.sent) = (Some(now), 0);
        }
        let (least, most) = (SOCKET_BYTES.0 as f64, SOCKET_BYTES.1 as f64);
        let room = (self.speed * SOCKET.as_secs_f64() * self.slack).clamp(least, most);
        if (self.room * 0.7..self.room * 1.4).contains(&room) {
            return None;
        }
        self.room = room;
        Some(room as u32)
    }

    fn begins(&mut self, now: Instant) {
        (self.began, self.sent) = (Some(now), 0);
    }

    fn rests(&mut self) {
        (self.began, self.sent) = (None, 0);
    }
}

/// A socket, its token in the poll, and its queues.
pub struct Outlet {
    socket: Udp,
    token: u64,
    /// Made when they are first needed.
    queues: Option<Box<Queues>>,
    /// Another worker reads it, and keeps its room.
    deaf: bool,
    /// The socket takes no more: what comes must wait.
    blocked: bool,
    /// Next to go: out of the queues already. And a spare list for what is refused of these.
    next: VecDeque<Parcel>,
    spare: VecDeque<Parcel>,
    line: Line,
}

impl Outlet {
    /// Nothing waits yet; `poll` watches the socket for input.
    pub fn new(socket: Udp, token: u64, poll: &Poll) -> std::io::Result<Self> {
        poll.add(socket.as_raw_fd(), token)?;
        Ok(Self::of(socket, token, false))
    }

    /// For sending alone: somebody else has the same socket, and reads it.
    pub fn deaf(socket: Udp, token: u64, poll: &Poll) -> std::io::Result<Self> {
        poll.add_deaf(socket.as_raw_fd(), token)?;
        Ok(Self::of(socket, token, true))
    }

    fn of(socket: Udp, token: u64, deaf: bool) -> Self {
        Self {
            socket,
            token,
            queues: None,
            deaf,
            blocked: false,
            next: VecDeque::new(),
            spare: VecDeque::new(),
            line: Line::new(),
        }
    }

    /// For receiving.
    pub fn socket(&self) -> &Udp {
        &self.socket
    }

    /// Datagrams that the first link on their way didn't take.
    pub fn take_too_long(&mut self) -> Option<TooLong> {
        self.socket.take_too_long()
    }

    /// Sends, or makes wait what the line doesn't take now. Returns how many packets were lost for want of room.
    pub fn send<'a>(&mut self, all: impl Iterator<Item = Outgoing<'a>>, poll: &Poll, memory: &mut Memory) -> u64 {
        let Self {
            socket,
            queues,
            blocked,
            ..
        } = self;
        let mut lost = 0;
        let mut wait = |out| lost += keep(queues.get_or_insert_with(|| Box::new(Queues::new())), out, memory);
        if *blocked {
            all.for_each(wait);
            return lost + self.shed(memory);
        }
        socket.send(all, &mut |out| {
            *blocked = true;
            wait(out);
        });
        if !self.blocked {
            return 0;
        }
        self.line.begins(Instant::now());
        // It can't fail: the socket is watched already.
        let _ = poll.watch_room(self.socket.as_raw_fd(), self.token, true, !self.deaf);
        lost + self.shed(memory)
    }

    /// The socket has room again: sends what waits, in turns. Returns how many packets were lost for want of room.
    pub fn drain(&mut self, poll: &Poll, memory: &mut Memory) -> u64 {
        if !self.blocked {
            return 0;
        }
        let ran_empty = self.socket.unsent() == 0;
        let (mut lost, mut sent) = (0, 0);
        self.blocked = false;
        while !self.blocked && self.fill_next() {
            let mut refused = std::mem::take(&mut self.spare);
            self.socket
                .send(self.next.iter().map(outgoing), &mut |out| match parcel(out, memory) {
                    Some(parcel) => refused.push_back(parcel),
                    None => lost += packets(out),
                });
            self.blocked = !refused.is_empty();
            let kept = length(&refused);
            sent += length(&self.next).saturating_sub(kept);
            self.spare = std::mem::replace(&mut self.next, refused);
            self.spare.drain(..).for_each(|parcel| memory.give_back(parcel.bytes));
        }
        if let Some(room) = self.line.took(Instant::now(), sent, ran_empty)
            && !self.deaf
        {
            let _ = self.socket.set_send_room(room);
        }
        if self.blocked {
            return lost + self.shed(memory);
        }
        self.line.rests();
        let _ = poll.watch_room(self.socket.as_raw_fd(), self.token, false, !self.deaf);
        lost
    }

    /// Takes some out of the queues for the next call; whether there are any.
    fn fill_next(&mut self) -> bool {
        while self.next.len() < AT_ONCE && length(&self.next) < AT_ONCE_BYTES {
            let Some(parcel) = self.queues.as_mut().and_then(|queues| queues.pop()) else {
                break;
            };
            self.next.push_back(parcel);
        }
        !self.next.is_empty()
    }

    /// Gives up what waits.
    pub fn give_up(&mut self, memory: &mut Memory) -> u64 {
        let mut queues = self.queues.take();
        let waiting = std::iter::from_fn(|| queues.as_mut()?.pop());
        let mut lost = 0;
        for parcel in self.next.drain(..).chain(waiting) {
            lost += parcel.packets();
            memory.give_back(parcel.bytes);
        }
        lost
    }

    /// Keeps what waits short.
    fn shed(&mut self, memory: &mut Memory) -> u64 {
        let limit = self.line.waiting();
        let mut lost = 0;
        while let Some(parcel) = self.queues.as_mut().and_then(|queues| queues.shed(limit)) {
            lost += parcel.packets();
            memory.give_back(parcel.bytes);
        }
        lost
    }
}

fn keep(queues: &mut Queues, out: Outgoing, memory: &mut Memory) -> u64 {
    match parcel(out, memory) {
        Some(parcel) => {
            queues.push(parcel);
            0
        }
        None => packets(out),
    }
}

fn length(parcels: &VecDeque<Parcel>) -> usize {
    parcels.iter().map(|parcel| parcel.bytes.len()).sum()
}

fn packets(out: Outgoing) -> u64 {
    out.bytes.len().div_ceil(out.segment.max(1)) as u64
}

fn parcel(out: Outgoing, memory: &mut Memory) -> Option<Parcel> {
    Some(Parcel {
        share: out.share,
        to: out.to,
        local: out.local,
        segment: out.segment,
        bytes: memory.copy(out.bytes)?,
    })
}

fn outgoing(parcel: &Parcel) -> Outgoing<'_> {
    Outgoing {
        to: parcel.to,
        local: parcel.local,
        segment: parcel.segment,
        bytes: &parcel.bytes,
        share: parcel.share,
    }
}
