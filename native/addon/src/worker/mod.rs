//! A worker: a thread with a TUN queue and sockets of its own, that runs every packet to completion. Workers share the core (see [`Team`]); flows
//! from the host are spread over them by queue, neighbours by socket. Nothing per packet allocates, locks, or enters JavaScript.

mod devices;
mod orders;
mod receive;
mod tun;
mod user;

use crate::link_sockets::LinkSockets;
use crate::outlets::Outlets;
use crate::rounds::{self, TUN, Turns, USER, WAKE, Who};
use crate::sys::{EventFd, Poll, Ready, ReceiveBuffers, Received, TooLong, Tun, Udp};
use crate::team::{State, Team};
use crate::user::{Batch, User, UserConfig, UserOrder, UserStats};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant as Clock};
use thicket_core::{Command, Core, CoreConfig, Event, Fullness, LogLevel, RxBatch, Stats, TunBatch, TxBatch};
use tun::{TUN_BATCH, TUN_ENOUGH, TUN_READ};

/// Receive calls made per round: neither side starves the other.
const RECEIVE_CALLS: usize = 4;
/// Receive calls per round for strangers while others have something to do.
const STRANGERS_CALLS: usize = 1;
/// Longest packet that the TUN hands over, its virtio header included; and so many bytes of shorter ones are taken before the core has them.
/// A worker that has not slept for so long has too much to do, and leaves flows to the others for so long. A wait that took less was no sleep.
const BUSY: Duration = Duration::from_millis(5);
const SPREAD: Duration = Duration::from_secs(1);
const SLEEP: Duration = Duration::from_micros(20);

/// What other threads ask of the worker.
pub enum Order {
    /// For the core.
    Command(Box<Command>),
    /// For the user-space host.
    User(UserOrder),
    /// Counters, now.
    Stats(Sender<(Stats, Option<UserStats>)>),
    /// The end.
    Stop,
}

/// Where events go: the addon hands them to JavaScript.
pub trait Events: Clone + Send {
    /// A batch, in order.
    fn deliver(&self, events: Vec<Event>);
    /// The same of streams and datagrams, in user-space mode.
    fn user(&self, batch: Batch);
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
    /// User-space mode; instead of a TUN.
    pub user: Option<UserConfig>,
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
    /// What user-space mode has to tell, and whether something has happened to it.
    user_told: Batch,
    packet: Vec<u8>,
    stirred: bool,
    /// Policy has changed since it looked.
    review: bool,
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
            user,
            mut sockets,
            orders,
            asked,
            wakes,
            events,
        } = beginning;
        if let Some(tun) = tun.first() {
            config.tun = tun.features();
        }
        if user.is_some() {
            config.tun = User::FEATURES;
        }
        let user = user.map(User::new).transpose()?;
        let listening = config.listening;
        let mut core = Core::new(config);
        if user.is_some() {
            core.tell_cuts();
        }
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
        let team = Arc::new(Team::new(core, tun, user, wakes));
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
        if let Some(user) = team.user().filter(|_| first.is_some()) {
            poll.add(user.as_raw_fd(), USER)?;
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
            user_told: Batch::default(),
            packet: Vec::new(),
            stirred: false,
            review: false,
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
                self.turn_user();
            }
            rounds::order(&mut ready);
            let busy = ready
                .iter()
                .any(|r| !matches!(Who::of(r.token), Who::Orders | Who::Listening(_)));
            for &one in &ready {
                self.serve(one, busy)?;
                self.serve_media();
                self.turn_user();
            }
            if self.user_due() <= self.team.now() {
                self.stirred = true;
                self.turn_user();
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
        let user = self.user_due();
        if user <= now {
            return 0;
        }
        next.min(user).since(now).as_millis().min(1_000) as i32 + 1
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
            Who::User => {
                self.hear_user();
                Ok(())
            }
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
