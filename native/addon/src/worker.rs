//! The worker: one thread that owns a [`Core`], the TUN and the sockets, and runs every packet to completion. Nothing is shared with it but a queue of
//! commands and a wake-up; nothing per packet allocates, locks, or enters JavaScript.

use crate::aead::Sealer;
use crate::link_sockets::LinkSockets;
use crate::media::Media;
use crate::outlets::Outlets;
use crate::rounds::{self, TUN, Turns, WAKE, Who};
use crate::sys::{EventFd, Poll, Ready, ReceiveBuffers, Received, TooLong, Tun, Udp};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::Instant as Clock;
use thicket_core::wire::{VNET_HEADER, VnetHeader};
use thicket_core::{
    Command, Core, CoreConfig, Event, Instant, LogLevel, MediaRequest, Remote, RxBatch, Stats, TunBatch, TxBatch,
};

/// Packets and bytes taken from the TUN, and receive calls made, per round: neither side starves the other.
const TUN_BATCH: usize = 64;
const TUN_BYTES: usize = 1 << 20;
const RECEIVE_CALLS: usize = 4;
/// Receive calls per round for strangers while others have something to do.
const STRANGERS_CALLS: usize = 1;
/// Longest packet that the TUN hands over, its virtio header included.
const TUN_READ: usize = 65_535 + VNET_HEADER;
/// Commands taken between packets.
const COMMANDS: usize = 256;
/// Pieces of one packet, its head included.
const PIECES: usize = 80;

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
pub trait Events: Send {
    /// A batch, in order.
    fn deliver(&self, events: Vec<Event>);
    /// The worker can't go on.
    fn fatal(&self, message: String);
}

/// All that the worker owns.
pub struct Worker<E: Events> {
    core: Core<Sealer>,
    tun: Option<Tun>,
    /// Strangers may call.
    listening: bool,
    outlets: Outlets,
    media: Media,
    turns: Turns,
    orders: Receiver<Order>,
    wake: Arc<EventFd>,
    events: E,
    poll: Poll,
    started: Clock,
    receive: ReceiveBuffers,
    received: Vec<Received>,
    tun_buffer: Vec<u8>,
    tx: TxBatch,
    rx: RxBatch,
    told: TunBatch,
    /// Somebody waits for counters.
    asked: Arc<AtomicBool>,
    stopped: bool,
}

impl<E: Events> Worker<E> {
    /// Puts the parts together; nothing runs yet.
    pub fn new(
        mut config: CoreConfig,
        sealer: &str,
        tun: Option<Tun>,
        sockets: Vec<Udp>,
        orders: Receiver<Order>,
        wake: Arc<EventFd>,
        asked: Arc<AtomicBool>,
        events: E,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.add(wake.as_raw_fd(), WAKE)?;
        if let Some(tun) = &tun {
            poll.add(tun.as_raw_fd(), TUN)?;
            config.tun = tun.features();
        }
        // Who calls only has one neighbour to hear, or a few.
        let listening = config.listening;
        let links = LinkSockets::new(listening);
        let mut core = Core::new(config);
        core.log(LogLevel::Debug, format!("trains of packets are sealed with {sealer}"));
        for (index, socket) in sockets.iter().enumerate() {
            core.log(LogLevel::Debug, format!("UDP socket {index}: {}", socket.describe()));
        }
        Ok(Self {
            core,
            tun,
            listening,
            outlets: Outlets::new(sockets, links, &poll)?,
            media: Media::new(),
            turns: Turns::default(),
            orders,
            wake,
            events,
            poll,
            started: Clock::now(),
            receive: ReceiveBuffers::new(),
            received: Vec::with_capacity(64),
            tun_buffer: vec![0; TUN_READ],
            tx: TxBatch::default(),
            rx: RxBatch::default(),
            told: TunBatch::default(),
            asked,
            stopped: false,
        })
    }

    fn now(&self) -> Instant {
        // From 1 s on, so that "long ago" is representable.
        Instant::from_micros(1_000_000 + self.started.elapsed().as_micros() as u64)
    }

    /// Runs until told to stop.
    pub fn run(mut self) {
        let mut ready = Vec::with_capacity(64);
        loop {
            let now = self.now();
            let timeout = self.core.poll_timeout().since(now).as_millis().min(1_000) as i32 + 1;
            if let Err(error) = self.poll.wait(timeout, &mut ready) {
                return self.events.fatal(format!("epoll failed: {error}"));
            }
            self.wake.clear();
            self.take_orders();
            self.serve_media();
            rounds::order(&mut ready);
            let busy = ready
                .iter()
                .any(|r| !matches!(Who::of(r.token), Who::Orders | Who::Listening(_)));
            for &one in &ready {
                if let Err(error) = self.serve(one, busy) {
                    return self.events.fatal(error);
                }
                self.serve_media();
            }
            if self.stopped {
                return;
            }
            let now = self.now();
            self.tell_too_long(now);
            self.core.handle_timeout(now, &mut self.tx);
            self.send_made();
            self.serve_media();
            self.follow();
            self.tell();
        }
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

    /// Sockets of links go where the links are, and what didn't get out is counted.
    fn follow(&mut self) {
        let wanted = self.core.neighbours().map(|neighbour| neighbour.remote);
        self.outlets.follow(self.core.moves(), wanted, &self.poll);
        self.core.count_unsent(self.outlets.take_lost());
    }

    /// Carries out what the control logic ordered. Who waits for counters gets them behind the orders before.
    fn take_orders(&mut self) {
        let now = self.now();
        let mut taken = 0;
        while !self.stopped && (taken < COMMANDS || self.asked.load(Ordering::Relaxed)) {
            taken += 1;
            match self.orders.try_recv() {
                Ok(Order::Command(command)) => {
                    self.core.command(now, *command, &mut self.tx);
                    if self.tx.is_full() {
                        self.send_made();
                    }
                }
                Ok(Order::Stats(reply)) => {
                    self.asked.store(false, Ordering::Relaxed);
                    let mut counters = self.core.stats(now);
                    counters.sealed = self.tx.sealed().plus(self.rx.tx.sealed());
                    counters.opened = self.rx.opened();
                    let _ = reply.send(counters);
                }
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => self.stopped = true,
                Err(TryRecvError::Empty) => {
                    self.send_made();
                    return;
                }
            }
        }
        self.send_made();
        // More may wait: come back at once, after the packets.
        self.wake.wake();
    }

    /// Between packets: JavaScript stands still while it waits for counters.
    fn hear(&mut self) {
        if self.asked.load(Ordering::Relaxed) {
            self.take_orders();
        }
    }

    fn tell(&mut self) {
        let Some(first) = self.core.poll_event() else { return };
        let mut events = vec![first];
        while let Some(event) = self.core.poll_event() {
            events.push(event);
        }
        self.events.deliver(events);
    }

    fn read_tun(&mut self) -> Result<(), String> {
        let now = self.now();
        let mut taken = 0;
        for _ in 0..TUN_BATCH {
            let Some(tun) = &self.tun else { return Ok(()) };
            let len = match tun.read(&mut self.tun_buffer) {
                Ok(len) => len,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => break,
                // Down for the moment (the device's flags changed): try again at the next readiness.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
                Err(error) => return Err(format!("the TUN died: {error}")),
            };
            let bytes = self.tun_buffer.get(..len).unwrap_or(&[]);
            let (vnet, packet) = if tun.has_vnet_header() {
                let Some((vnet, packet)) = bytes.split_first_chunk::<VNET_HEADER>() else {
                    continue;
                };
                (VnetHeader::parse(vnet), packet)
            } else {
                (VnetHeader::default(), bytes)
            };
            self.core.handle_tun(now, vnet, packet, &mut self.tx, &mut self.told);
            if self.tx.is_full() {
                self.send_made();
            }
            self.hear();
            taken += len;
            if self.stopped || taken >= TUN_BYTES {
                break;
            }
        }
        self.send_made();
        if !self.told.writes.is_empty() {
            if let Some(tun) = &self.tun {
                write_tun(tun, &self.told, &[]);
            }
            self.told.clear();
        }
        Ok(())
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
            if self.received.is_empty() || self.stopped {
                break;
            }
        }
        Ok(())
    }

    /// One neighbour's turn.
    fn read_link(&mut self, place: usize) -> Result<(), String> {
        let mut may = self.turns.next(place);
        while may && !self.stopped {
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
        let now = self.now();
        for i in 0..self.received.len() {
            let Some(received) = self.received.get(i) else { break };
            let remote = Remote {
                socket,
                address: received.from,
                local: received.local.or(local),
            };
            let segment = received.segment;
            let bytes = self.receive.buffer(received.buffer, received.len);
            self.core.handle_datagrams(now, remote, bytes, segment, &mut self.rx);
            self.outlets.send(&self.rx.relays, bytes, &self.poll);
            if let Some(tun) = &self.tun {
                write_tun(tun, &self.rx.tun, bytes);
            }
            self.media.send(&self.rx.media);
            self.rx.clear_received();
            // A flood of questions costs few calls.
            if self.rx.tx.is_full() {
                self.answer();
            }
            self.hear();
        }
        self.answer();
    }

    /// Datagrams that no first link took in this round.
    fn tell_too_long(&mut self, now: Instant) {
        while let Some(TooLong { to, len, datagrams }) = self.outlets.take_too_long() {
            self.core.too_long(now, to, len, datagrams);
        }
    }

    /// Media from a device.
    fn read_media(&mut self, token: u64) -> Result<(), String> {
        for _ in 0..RECEIVE_CALLS {
            let Some((id, rtcp, socket)) = self.media.ready(token) else {
                return Ok(());
            };
            // Reports about earlier sends come this way, and are nobody's here.
            let received = socket.receive(&mut self.receive, &mut self.received);
            if received.is_err() || self.received.is_empty() {
                break;
            }
            let now = self.now();
            for received in &self.received {
                let bytes = self.receive.buffer(received.buffer, received.len);
                let (from, segment) = (received.from, received.segment);
                self.core
                    .handle_media(now, id, rtcp, from, bytes, segment, &mut self.tx);
                if self.tx.is_full() {
                    self.outlets.send_made(&mut self.tx, &self.poll);
                    self.tx.clear();
                }
            }
            self.hear();
        }
        self.send_made();
        Ok(())
    }

    /// Opens and closes media sockets as the core wants them.
    fn serve_media(&mut self) {
        while let Some(request) = self.core.poll_media() {
            match request {
                MediaRequest::Reserve { id, lan, ports } => {
                    let reserved = self.media.reserve(&self.poll, id, lan, &ports).ok();
                    let now = self.now();
                    self.core.media_reserved(now, id, reserved, &mut self.rx);
                    if let Some(tun) = &self.tun {
                        write_tun(tun, &self.rx.tun, &[]);
                    }
                    self.outlets.send_made(&mut self.rx.tx, &self.poll);
                    self.rx.clear();
                }
                MediaRequest::Release { id } => self.media.release(id),
            }
        }
    }

    fn answer(&mut self) {
        self.outlets.send_made(&mut self.rx.tx, &self.poll);
        self.rx.clear();
    }

    fn send_made(&mut self) {
        if !self.tx.is_empty() {
            self.outlets.send_made(&mut self.tx, &self.poll);
            self.tx.clear();
        }
    }
}

/// Reports about earlier sends (ECONNREFUSED and the like) come from receiving; a dead descriptor would come back for ever.
fn survives(error: io::Error) -> Result<(), String> {
    if error.raw_os_error() == Some(libc::EBADF) {
        return Err(format!("a socket died: {error}"));
    }
    Ok(())
}

fn write_tun(tun: &Tun, batch: &TunBatch, buffer: &[u8]) {
    let mut pieces = [Tun::piece(&[]); PIECES];
    for write in &batch.writes {
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
