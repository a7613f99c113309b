//! A worker: a thread with a TUN queue and sockets of its own, that runs every packet to completion. Workers share the core (see [`Team`]); flows
//! from the host are spread over them by queue, neighbours by socket. Nothing per packet allocates, locks, or enters JavaScript.

use crate::aead::Sealer;
use crate::link_sockets::LinkSockets;
use crate::outlets::Outlets;
use crate::rounds::{self, TUN, Turns, WAKE, Who};
use crate::sys::{EventFd, Poll, Ready, ReceiveBuffers, Received, TooLong, Tun, Udp};
use crate::team::{Queue, State, Team};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant as Clock};
use thicket_core::wire::{VNET_HEADER, VnetHeader};
use thicket_core::{
    Command, Core, CoreConfig, Event, Fullness, LogLevel, MediaRequest, Remote, RxBatch, Stats, TunBatch, TxBatch,
};

/// Packets and bytes taken from the TUN, and receive calls made, per round: neither side starves the other.
const TUN_BATCH: usize = 64;
const TUN_BYTES: usize = 1 << 20;
const RECEIVE_CALLS: usize = 4;
/// Receive calls per round for strangers while others have something to do.
const STRANGERS_CALLS: usize = 1;
/// Longest packet that the TUN hands over, its virtio header included; and so many bytes of shorter ones are taken before the core has them.
const TUN_READ: usize = 65_535 + VNET_HEADER;
const TUN_ENOUGH: usize = 32 << 10;
/// Bytes received that are handed to the core at once: what fits the cache beside what it becomes.
const RECEIVED_AT_ONCE: usize = 256 << 10;
/// Commands taken between packets.
const COMMANDS: usize = 256;
/// Pieces of one packet, its head included.
const PIECES: usize = 80;
/// A worker that has not slept for so long has too much to do, and leaves flows to the others for so long. A wait that took less was no sleep.
const BUSY: Duration = Duration::from_millis(5);
const SPREAD: Duration = Duration::from_secs(1);
const SLEEP: Duration = Duration::from_micros(20);

/// What other threads ask of the worker.
pub enum Order {
    /// For the core.
    Command(Box<Command>),
    /// Counters, now.
    Stats(Sender<Stats>),
    /// The end.
    Stop,
}

/// Where events go: the addon hands them to JavaScript.
pub trait Events: Clone + Send {
    /// A batch, in order.
    fn deliver(&self, events: Vec<Event>);
    /// The worker can't go on.
    fn fatal(&self, message: String);
}

/// What a node's workers begin with.
pub struct Beginning<E: Events> {
    pub config: CoreConfig,
    /// What seals trains, for the log.
    pub sealer: &'static str,
    /// One, or one for each worker.
    pub tun: Vec<Tun>,
    pub sockets: Vec<Udp>,
    pub orders: Receiver<Order>,
    /// Somebody waits for counters.
    pub asked: Arc<AtomicBool>,
    /// One for each worker; orders come with the first.
    pub wakes: Vec<Arc<EventFd>>,
    pub events: E,
}

/// What only the first worker does: orders, timers, sockets towards devices.
struct First {
    orders: Receiver<Order>,
    asked: Arc<AtomicBool>,
}

/// All that a worker owns.
pub struct Worker<E: Events> {
    team: Arc<Team>,
    number: usize,
    first: Option<First>,
    /// Strangers may call.
    listening: bool,
    outlets: Outlets,
    turns: Turns,
    events: E,
    poll: Poll,
    receive: ReceiveBuffers,
    received: Vec<Received>,
    tun_buffer: Vec<u8>,
    /// Packets in it.
    read: Vec<std::ops::Range<usize>>,
    tx: TxBatch,
    /// One for each buffer that is received at once; the first is for other answers, too.
    rx: Vec<RxBatch>,
    told: TunBatch,
    /// The core's count of moves at the last look.
    moves: u64,
    /// When it last slept, and until when it leaves flows to others.
    slept: Clock,
    spread_until: Clock,
    /// Whether it does so in this round.
    spread: bool,
}

impl<E: Events> Worker<E> {
    /// Puts the parts together; nothing runs yet. A thread for each.
    pub fn team(beginning: Beginning<E>) -> io::Result<Vec<Self>> {
        let Beginning {
            mut config,
            sealer,
            tun,
            mut sockets,
            orders,
            asked,
            wakes,
            events,
        } = beginning;
        if let Some(tun) = tun.first() {
            config.tun = tun.features();
        }
        let listening = config.listening;
        let mut core = Core::new(config);
        core.log(LogLevel::Debug, format!("trains of packets are sealed with {sealer}"));
        for (index, socket) in sockets.iter().enumerate() {
            core.log(LogLevel::Debug, format!("UDP socket {index}: {}", socket.describe()));
        }
        let count = wakes.len();
        let (threads, queues) = (if count == 1 { "thread" } else { "threads" }, tun.len());
        core.log(
            LogLevel::Debug,
            format!("{count} {threads} for packets, {queues} of the interface's queues"),
        );
        let team = Arc::new(Team::new(core, tun, wakes));
        let mut first = Some(First { orders, asked });
        let mut workers = Vec::with_capacity(count);
        for number in 0..count {
            let own = if number + 1 < count {
                sockets.iter().map(Udp::duplicate).collect::<io::Result<_>>()?
            } else {
                std::mem::take(&mut sockets)
            };
            let (team, first) = (team.clone(), first.take());
            workers.push(Self::new(team, number, first, listening, own, events.clone())?);
        }
        Ok(workers)
    }

    fn new(
        team: Arc<Team>,
        number: usize,
        first: Option<First>,
        listening: bool,
        sockets: Vec<Udp>,
        events: E,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        if let Some(wake) = team.wakes.get(number) {
            poll.add(wake.as_raw_fd(), WAKE)?;
        }
        if let Some(tun) = team.tun.get(number) {
            poll.add(tun.as_raw_fd(), TUN)?;
        }
        // Who calls only has one neighbour to hear, or a few.
        let links = LinkSockets::new(listening);
        Ok(Self {
            outlets: Outlets::new(sockets, first.is_none(), links, &poll)?,
            team,
            number,
            first,
            listening,
            turns: Turns::default(),
            events,
            poll,
            receive: ReceiveBuffers::new(),
            received: Vec::with_capacity(64),
            tun_buffer: vec![0; TUN_ENOUGH + TUN_READ],
            read: Vec::with_capacity(TUN_BATCH),
            tx: TxBatch::default(),
            rx: vec![RxBatch::default()],
            told: TunBatch::default(),
            moves: 0,
            slept: Clock::now(),
            spread_until: Clock::now(),
            spread: false,
        })
    }

    /// Runs until told to stop. Whatever ends it ends the others.
    pub fn run(mut self) {
        let team = self.team.clone();
        let _end = End(&team);
        if let Err(error) = self.rounds() {
            self.events.fatal(error);
        }
    }

    fn rounds(&mut self) -> Result<(), String> {
        let mut ready = Vec::with_capacity(64);
        let mut timeout = 0;
        while !self.team.is_stopped() {
            let began = Clock::now();
            self.poll
                .wait(timeout, &mut ready)
                .map_err(|error| format!("epoll failed: {error}"))?;
            self.note_wait(began, Clock::now());
            if ready.iter().any(|one| one.token == WAKE)
                && let Some(wake) = self.team.wakes.get(self.number)
            {
                wake.clear();
                self.take_orders();
                self.serve_media();
            }
            rounds::order(&mut ready);
            let busy = ready
                .iter()
                .any(|r| !matches!(Who::of(r.token), Who::Orders | Who::Listening(_)));
            for &one in &ready {
                self.serve(one, busy)?;
                self.serve_media();
            }
            timeout = self.finish();
            self.serve_media();
        }
        Ok(())
    }

    /// Whether there is too much to do for one: then flows go to the others' queues. Else both directions of a flow are one worker's, which answers
    /// soonest: it is awake already.
    fn note_wait(&mut self, began: Clock, ended: Clock) {
        if ended - began >= SLEEP {
            self.slept = ended;
        } else if ended - self.slept >= BUSY {
            self.spread_until = ended + SPREAD;
        }
        self.spread = ended < self.spread_until;
    }

    /// The end of a round: timers, what is to be told, where sockets must go. Returns for how many milliseconds nothing is due.
    fn finish(&mut self) -> i32 {
        let now = self.team.now();
        let team = self.team.clone();
        let mut state = team.state();
        let State { core, trains, due } = &mut *state;
        // Datagrams that no first link took in this round.
        while let Some(TooLong { to, len, datagrams }) = self.outlets.take_too_long() {
            core.too_long(now, to, len, datagrams);
        }
        if self.first.is_some() {
            core.handle_timeout(now, &mut self.tx);
            *due = core.poll_timeout();
        }
        // Sockets of links go where the links are, and what didn't get out is counted.
        let mine = core.neighbours().filter(|n| team.worker_of(n.link.0) == self.number);
        let moves = core.moves();
        self.outlets.follow(moves, mine.map(|n| n.remote), &self.poll);
        core.count_unsent(self.outlets.take_lost());
        if let Some(own) = trains.get_mut(self.number) {
            *own = (self.sealed(), self.opened());
        }
        self.tell(core);
        let next = core.poll_timeout();
        let sooner = next < *due;
        drop(state);
        self.send_made();
        // The first sleeps until something else is due.
        if sooner && let Some(first) = self.team.wakes.first() {
            first.wake();
        }
        if std::mem::replace(&mut self.moves, moves) != moves {
            self.wake_others();
        }
        next.since(now).as_millis().min(1_000) as i32 + 1
    }

    fn sealed(&self) -> Fullness {
        let answers = self.rx.iter().map(|rx| rx.tx.sealed());
        answers.fold(self.tx.sealed(), Fullness::plus)
    }

    fn opened(&self) -> Fullness {
        self.rx
            .iter()
            .map(RxBatch::opened)
            .fold(Fullness::default(), Fullness::plus)
    }

    fn wake_others(&self) {
        let others = (0..).zip(&self.team.wakes).filter(|&(number, _)| number != self.number);
        others.for_each(|(_, wake)| wake.wake());
    }

    /// What is ready, to a measure. `busy`: not only strangers wait.
    fn serve(&mut self, Ready { token, input, room }: Ready, busy: bool) -> Result<(), String> {
        match Who::of(token) {
            Who::Orders => Ok(()),
            Who::Link(place) => {
                if room {
                    self.outlets.drain_link(place, &self.poll);
                }
                if input { self.read_link(place) } else { Ok(()) }
            }
            Who::Tun => self.read_tun(),
            Who::Media(token) => self.read_media(token),
            Who::Listening(index) => {
                if room {
                    self.outlets.drain(index, &self.poll);
                }
                let strangers = busy && self.listening && self.outlets.links.serve_all();
                let calls = if strangers { STRANGERS_CALLS } else { RECEIVE_CALLS };
                if input { self.read_socket(index, calls) } else { Ok(()) }
            }
        }
    }

    /// Carries out what the control logic ordered. Who waits for counters gets them behind the orders before.
    fn take_orders(&mut self) {
        let Some(First { orders, asked }) = &self.first else {
            return;
        };
        let now = self.team.now();
        let mut taken = 0;
        let mut state = self.team.state();
        loop {
            if taken >= COMMANDS && !asked.load(Ordering::Relaxed) {
                // More may wait: come back at once, after the packets.
                if let Some(wake) = self.team.wakes.get(self.number) {
                    wake.wake();
                }
                break;
            }
            taken += 1;
            match orders.try_recv() {
                Ok(Order::Command(command)) => {
                    state.core.command(now, *command, &mut self.tx);
                    if self.tx.is_full() {
                        drop(state);
                        self.outlets.send_made(&mut self.tx, &self.poll);
                        self.tx.clear();
                        state = self.team.state();
                    }
                }
                Ok(Order::Stats(reply)) => {
                    asked.store(false, Ordering::Relaxed);
                    let own = (self.sealed(), self.opened());
                    if let Some(known) = state.trains.get_mut(self.number) {
                        *known = own;
                    }
                    let _ = reply.send(state.stats(now));
                }
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => {
                    self.team.stop();
                    break;
                }
                Err(TryRecvError::Empty) => break,
            }
        }
        drop(state);
        self.send_made();
    }

    /// Between packets: JavaScript stands still while it waits for counters.
    fn hear(&mut self) {
        if self
            .first
            .as_ref()
            .is_some_and(|first| first.asked.load(Ordering::Relaxed))
        {
            self.take_orders();
        }
    }

    fn tell(&self, core: &mut Core<Sealer>) {
        let Some(first) = core.poll_event() else { return };
        let mut events = vec![first];
        while let Some(event) = core.poll_event() {
            events.push(event);
        }
        self.events.deliver(events);
    }

    fn read_tun(&mut self) -> Result<(), String> {
        let (mut packets, mut bytes) = (0, 0);
        let mut more = true;
        while more && packets < TUN_BATCH && bytes < TUN_BYTES && !self.team.is_stopped() {
            more = self.read_packets(TUN_BATCH - packets)?;
            packets += self.read.len();
            bytes += self.read.last().map_or(0, |last| last.end);
            self.take_packets();
            self.hear();
        }
        self.send_made();
        if !self.told.writes.is_empty() {
            write_tun(&self.team, self.queue(), &self.told, &[]);
            self.told.clear();
        }
        Ok(())
    }

    /// Reads what waits, one behind the other, at most so many; whether there may be more.
    fn read_packets(&mut self, most: usize) -> Result<bool, String> {
        self.read.clear();
        let Some(tun) = self.team.tun.get(self.number) else {
            return Ok(false);
        };
        let mut end = 0;
        while self.read.len() < most && end < TUN_ENOUGH {
            let room = self.tun_buffer.get_mut(end..end + TUN_READ).unwrap_or(&mut []);
            match tun.read(room) {
                Ok(len) => {
                    self.read.push(end..end + len);
                    end += len;
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    return Ok(false);
                }
                // Down for the moment (the device's flags changed): try again at the next readiness.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(false),
                Err(error) => return Err(format!("the TUN died: {error}")),
            }
        }
        Ok(true)
    }

    /// Hands what was read to the core, and sends what that makes of it.
    fn take_packets(&mut self) {
        let now = self.team.now();
        let mut rest = self.read.as_slice();
        while !rest.is_empty() {
            let mut state = self.team.state();
            while let Some((next, later)) = rest.split_first() {
                if self.tx.is_full() {
                    break;
                }
                rest = later;
                let bytes = self.tun_buffer.get(next.clone()).unwrap_or(&[]);
                let (vnet, packet) = if self.team.tun.first().is_some_and(Tun::has_vnet_header) {
                    let Some((vnet, packet)) = bytes.split_first_chunk::<VNET_HEADER>() else {
                        continue;
                    };
                    (VnetHeader::parse(vnet), packet)
                } else {
                    (VnetHeader::default(), bytes)
                };
                state.core.handle_tun(now, vnet, packet, &mut self.tx, &mut self.told);
            }
            drop(state);
            if self.tx.is_full() {
                self.outlets.send_made(&mut self.tx, &self.poll);
                self.tx.clear();
            }
        }
    }

    fn read_socket(&mut self, index: usize, calls: usize) -> Result<(), String> {
        for _ in 0..calls {
            let Some(outlet) = self.outlets.listening.get(index) else {
                return Ok(());
            };
            if let Err(error) = outlet.socket().receive(&mut self.receive, &mut self.received) {
                return survives(error);
            }
            self.take_received(index as u16, None);
            if self.received.is_empty() || self.team.is_stopped() {
                break;
            }
        }
        Ok(())
    }

    /// One neighbour's turn.
    fn read_link(&mut self, place: usize) -> Result<(), String> {
        let mut may = self.turns.next(place);
        while may && !self.team.is_stopped() {
            let Some((remote, outlet)) = self.outlets.links.at(place) else {
                return Ok(());
            };
            if let Err(error) = outlet.socket().receive(&mut self.receive, &mut self.received) {
                return survives(error);
            }
            let (mut packets, mut bytes) = (0, 0);
            for received in &self.received {
                packets += received.len.div_ceil(received.segment.max(1));
                bytes += received.len;
            }
            self.take_received(remote.socket, remote.local);
            may = self.turns.took(place, packets, bytes) && packets > 0;
        }
        Ok(())
    }

    /// Hands what was received to the core, and on what that makes of it. `local`: to which of our addresses it came, where the socket doesn't say.
    fn take_received(&mut self, socket: u16, local: Option<IpAddr>) {
        let mut from = 0;
        while from < self.received.len() {
            let (mut to, mut bytes) = (from, 0);
            while let Some(received) = self.received.get(to).filter(|_| bytes < RECEIVED_AT_ONCE) {
                bytes += received.len;
                to += 1;
            }
            self.take_some(from..to, socket, local);
            self.hear();
            from = to;
        }
        self.answer();
    }

    /// The same for some buffers: the core sorts them, they are opened, the core judges what they hold.
    fn take_some(&mut self, which: std::ops::Range<usize>, socket: u16, local: Option<IpAddr>) {
        let now = self.team.now();
        let some = self.received.get(which).unwrap_or(&[]);
        if self.rx.len() < some.len() {
            self.rx.resize_with(some.len(), RxBatch::default);
        }
        let mut state = self.team.state();
        let mut sealed = false;
        for (received, rx) in some.iter().zip(&mut self.rx) {
            let remote = Remote {
                socket,
                address: received.from,
                local: received.local.or(local),
            };
            let bytes = self.receive.buffer(received.buffer, received.len);
            state.core.receive(now, remote, bytes, received.segment, rx);
            sealed |= rx.is_sealed();
        }
        drop(state);
        if sealed {
            for (received, rx) in some.iter().zip(&mut self.rx) {
                rx.open(self.receive.buffer(received.buffer, received.len));
            }
            let mut state = self.team.state();
            for (received, rx) in some.iter().zip(&mut self.rx) {
                state
                    .core
                    .deliver(now, self.receive.buffer(received.buffer, received.len), rx);
            }
            let wanted = self.first.is_none() && state.core.wants_media();
            drop(state);
            if let Some(first) = self.team.wakes.first().filter(|_| wanted) {
                first.wake();
            }
        }
        let queue = self.queue();
        for (received, rx) in some.iter().zip(&mut self.rx) {
            let bytes = self.receive.buffer(received.buffer, received.len);
            self.outlets.send(&rx.relays, bytes, &self.poll);
            write_tun(&self.team, queue, &rx.tun, bytes);
            if !rx.media.sends.is_empty() {
                self.team.media().send(&rx.media);
            }
            rx.clear_received();
            // A flood of questions costs few calls.
            if rx.tx.is_full() {
                self.outlets.send_made(&mut rx.tx, &self.poll);
                rx.clear();
            }
        }
    }

    /// Media from a device.
    fn read_media(&mut self, token: u64) -> Result<(), String> {
        for _ in 0..RECEIVE_CALLS {
            let media = self.team.media();
            let Some((id, rtcp, socket)) = media.ready(token) else {
                return Ok(());
            };
            // Reports about earlier sends come this way, and are nobody's here.
            let received = socket.receive(&mut self.receive, &mut self.received);
            drop(media);
            if received.is_err() || self.received.is_empty() {
                break;
            }
            let now = self.team.now();
            let mut state = self.team.state();
            for received in &self.received {
                let bytes = self.receive.buffer(received.buffer, received.len);
                let (from, segment) = (received.from, received.segment);
                state
                    .core
                    .handle_media(now, id, rtcp, from, bytes, segment, &mut self.tx);
                if self.tx.is_full() {
                    drop(state);
                    self.outlets.send_made(&mut self.tx, &self.poll);
                    self.tx.clear();
                    state = self.team.state();
                }
            }
            drop(state);
            self.hear();
        }
        self.send_made();
        Ok(())
    }

    /// Opens and closes media sockets as the core wants them.
    fn serve_media(&mut self) {
        if self.first.is_none() {
            return;
        }
        loop {
            let request = self.team.state().core.poll_media();
            match request {
                Some(MediaRequest::Reserve { id, lan, ports }) => {
                    let reserved = self.team.media().reserve(&self.poll, id, lan, &ports).ok();
                    let now = self.team.now();
                    let queue = self.queue();
                    let Some(rx) = self.rx.first_mut() else { return };
                    self.team.state().core.media_reserved(now, id, reserved, rx);
                    write_tun(&self.team, queue, &rx.tun, &[]);
                    self.outlets.send_made(&mut rx.tx, &self.poll);
                    rx.clear();
                }
                Some(MediaRequest::Release { id }) => self.team.media().release(id),
                None => return,
            }
        }
    }

    fn queue(&self) -> Queue {
        match (self.spread, self.listening) {
            (false, _) => Queue::Of(self.number),
            (true, true) => Queue::Any,
            (true, false) => Queue::AnyButFirst,
        }
    }

    fn answer(&mut self) {
        for rx in &mut self.rx {
            self.outlets.send_made(&mut rx.tx, &self.poll);
            rx.clear();
        }
    }

    fn send_made(&mut self) {
        if !self.tx.is_empty() {
            self.outlets.send_made(&mut self.tx, &self.poll);
            self.tx.clear();
        }
    }
}

/// However a worker ends, by a panic too, the others end with it.
struct End<'a>(&'a Team);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Reports about earlier sends (ECONNREFUSED and the like) come from receiving; a dead descriptor would come back for ever.
fn survives(error: io::Error) -> Result<(), String> {
    if error.raw_os_error() == Some(libc::EBADF) {
        return Err(format!("a socket died: {error}"));
    }
    Ok(())
}

fn write_tun(team: &Team, queue: Queue, batch: &TunBatch, buffer: &[u8]) {
    if batch.writes.is_empty() {
        return;
    }
    let mut pieces = [Tun::piece(&[]); PIECES];
    for write in &batch.writes {
        let Some(tun) = team.queue(queue, || batch.flow_of(write)) else {
            return;
        };
        let mut head = batch.heads.get(write.head.clone()).unwrap_or(&[]);
        if !tun.has_vnet_header() {
            head = head.get(VNET_HEADER..).unwrap_or(&[]);
        }
        let mut count = 0;
        let ranges = batch.pieces.get(write.pieces.clone()).unwrap_or(&[]);
        let parts = std::iter::once(head).chain(ranges.iter().map(|r| buffer.get(r.clone()).unwrap_or(&[])));
        for (place, part) in pieces.iter_mut().zip(parts) {
            *place = Tun::piece(part);
            count += 1;
        }
        // The TUN refuses what the host can't take (no memory, interface down): lost like any packet.
        let _ = tun.write(&pieces[..count]);
    }
}
