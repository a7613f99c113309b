//! The worker: one thread that owns a [`Core`], the TUN and the sockets, and runs every packet to completion. Nothing is shared with it but a queue of
//! commands and a wake-up; nothing per packet allocates, locks, or enters JavaScript.

use crate::aead::Sealer;
use crate::media::Media;
use crate::sys::{EventFd, Outgoing, Patience, Poll, ReceiveBuffers, Received, TooLong, Tun, Udp};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant as Clock};
use thicket_core::wire::{VNET_HEADER, VnetHeader};
use thicket_core::{
    Command, Core, CoreConfig, Event, Instant, LogLevel, MediaRequest, Remote, RxBatch, Stats, Train, TunBatch, TxBatch,
};

/// Packets taken from the TUN, and receive calls made, per round: neither side starves the other.
const TUN_BATCH: usize = 64;
const RECEIVE_CALLS: usize = 4;
/// Longest packet that the TUN hands over, its virtio header included.
const TUN_READ: usize = 65_535 + VNET_HEADER;
/// Commands taken between packets.
const COMMANDS: usize = 256;
/// How long full socket buffers may hold a round up, all together: a burst passes meanwhile; what a slower line can't take is dropped, as a router
/// would, and the TUN isn't read further.
const SEND_PATIENCE: Duration = Duration::from_micros(500);
/// Pieces of one packet, its head included.
const PIECES: usize = 80;

const WAKE: u64 = u64::MAX;
const TUN: u64 = u64::MAX - 1;

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
    sockets: Vec<Udp>,
    media: Media,
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
    patience: Patience,
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
        for (index, socket) in sockets.iter().enumerate() {
            poll.add(socket.as_raw_fd(), index as u64)?;
        }
        if let Some(tun) = &tun {
            poll.add(tun.as_raw_fd(), TUN)?;
            config.tun = tun.features();
        }
        let mut core = Core::new(config);
        core.log(LogLevel::Debug, format!("trains of packets are sealed with {sealer}"));
        for (index, socket) in sockets.iter().enumerate() {
            core.log(LogLevel::Debug, format!("UDP socket {index}: {}", socket.describe()));
        }
        Ok(Self {
            core,
            tun,
            sockets,
            media: Media::new(),
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
            patience: Patience::new(SEND_PATIENCE),
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
        let mut tokens = Vec::with_capacity(64);
        loop {
            let now = self.now();
            let timeout = self.core.poll_timeout().since(now).as_millis().min(1_000) as i32 + 1;
            if let Err(error) = self.poll.wait(timeout, &mut tokens) {
                return self.events.fatal(format!("epoll failed: {error}"));
            }
            self.wake.clear();
            self.patience = Patience::new(SEND_PATIENCE);
            self.take_orders();
            self.serve_media();
            for &token in &tokens {
                let result = match token {
                    WAKE => Ok(()),
                    TUN => self.read_tun(),
                    token if Media::is_media(token) => self.read_media(token),
                    socket => self.read_socket(socket as usize),
                };
                if let Err(error) = result {
                    return self.events.fatal(error);
                }
                self.serve_media();
            }
            if self.stopped {
                return;
            }
            let now = self.now();
            self.tell_too_long(now);
            self.core.handle_timeout(now);
            self.serve_media();
            self.tell();
        }
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
            if self.stopped || self.patience.is_spent() {
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

    fn read_socket(&mut self, index: usize) -> Result<(), String> {
        for _ in 0..RECEIVE_CALLS {
            let Some(socket) = self.sockets.get(index) else {
                return Ok(());
            };
            if let Err(error) = socket.receive(&mut self.receive, &mut self.received) {
                // Reports about earlier sends (ECONNREFUSED and the like) come this way; a dead descriptor would come back for ever.
                if error.raw_os_error() == Some(libc::EBADF) {
                    return Err(format!("a socket died: {error}"));
                }
                return Ok(());
            }
            let count = self.received.len();
            let now = self.now();
            for i in 0..count {
                let Some(Received {
                    buffer,
                    len,
                    segment,
                    from,
                    local,
                }) = self.received.get(i)
                else {
                    break;
                };
                let remote = Remote {
                    socket: index as u16,
                    address: *from,
                    local: *local,
                };
                let bytes = self.receive.buffer(*buffer, *len);
                self.core.handle_datagrams(now, remote, bytes, *segment, &mut self.rx);
                send_trains(&mut self.sockets, &self.rx.relays, bytes, &mut self.patience);
                if let Some(tun) = &self.tun {
                    write_tun(tun, &self.rx.tun, bytes);
                }
                send_batch(&mut self.sockets, &mut self.rx.tx, &mut self.patience);
                self.media.send(&self.rx.media, &mut self.patience);
                self.rx.clear();
                self.hear();
            }
            if count == 0 || self.stopped {
                break;
            }
        }
        Ok(())
    }

    /// Datagrams that no first link took in this round.
    fn tell_too_long(&mut self, now: Instant) {
        for socket in &mut self.sockets {
            while let Some(TooLong { to, len, datagrams }) = socket.take_too_long() {
                self.core.too_long(now, to, len, datagrams);
            }
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
                    send_batch(&mut self.sockets, &mut self.tx, &mut self.patience);
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
                    send_batch(&mut self.sockets, &mut self.rx.tx, &mut self.patience);
                    self.rx.clear();
                }
                MediaRequest::Release { id } => self.media.release(id),
            }
        }
    }

    fn send_made(&mut self) {
        if !self.tx.is_empty() {
            send_batch(&mut self.sockets, &mut self.tx, &mut self.patience);
            self.tx.clear();
        }
    }
}

/// Seals and sends what the core made.
fn send_batch(sockets: &mut [Udp], tx: &mut TxBatch, patience: &mut Patience) {
    if !tx.is_empty() {
        let (trains, bytes) = tx.ready();
        send_trains(sockets, trains, bytes, patience);
    }
}

/// Sends trains, runs of the same socket in one call.
fn send_trains(sockets: &mut [Udp], trains: &[Train], bytes: &[u8], patience: &mut Patience) {
    for run in trains.chunk_by(|a, b| a.remote.socket == b.remote.socket) {
        let Some(socket) = run.first().and_then(|t| sockets.get_mut(usize::from(t.remote.socket))) else {
            continue;
        };
        // What a full buffer refuses is lost as any datagram may be; the far end's transport notices.
        let outgoing = run.iter().map(|t| Outgoing {
            to: t.remote.address,
            local: t.remote.local,
            segment: t.segment,
            bytes: bytes.get(t.range.clone()).unwrap_or(&[]),
        });
        let _ = socket.send(outgoing, patience);
    }
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
