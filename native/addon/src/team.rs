//! What the workers of a node have in common: the core, behind a lock that is held for a batch of packets at a time, and never while they are sealed,
//! opened, read or written.

use crate::aead::Sealer;
use crate::media::Media;
use crate::sys::{EventFd, Tun};
use crate::user::User;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant as Clock;
use thicket_core::{Core, Fullness, Instant, Stats};

/// Workers at most.
pub const MOST: usize = 32;

/// The core, and what is told about all workers.
pub struct State {
    pub core: Core<Sealer>,
    /// Trains that each worker has sealed and opened.
    pub trains: Vec<(Fullness, Fullness)>,
    /// When the first worker will look after the core's timers.
    pub due: Instant,
}

impl State {
    /// Counters now.
    pub fn stats(&self, now: Instant) -> Stats {
        let mut counters = self.core.stats(now);
        for &(sealed, opened) in &self.trains {
            counters.sealed = counters.sealed.plus(sealed);
            counters.opened = counters.opened.plus(opened);
        }
        counters
    }
}

/// Shared by all workers.
pub struct Team {
    state: Mutex<State>,
    media: Mutex<Media>,
    user: Option<Mutex<User>>,
    /// Somebody gave the user-space host packets since the first worker looked.
    roused: AtomicBool,
    /// The TUN's queues, one for each worker where the kernel has several; any worker may write to any.
    pub tun: Vec<Tun>,
    /// Wakes each worker.
    pub wakes: Vec<Arc<EventFd>>,
    stopped: AtomicBool,
    started: Clock,
}

impl Team {
    /// Of as many workers as there are wake-ups.
    pub fn new(core: Core<Sealer>, tun: Vec<Tun>, user: Option<User>, wakes: Vec<Arc<EventFd>>) -> Self {
        Self {
            state: Mutex::new(State {
                core,
                trains: vec![Default::default(); wakes.len()],
                due: Instant::default(),
            }),
            media: Mutex::new(Media::new()),
            user: user.map(Mutex::new),
            roused: AtomicBool::new(false),
            tun,
            wakes,
            stopped: AtomicBool::new(false),
            started: Clock::now(),
        }
    }

    /// The core, for as short as can be. A worker that failed while it had it has stopped all others.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sockets towards devices. Not while holding the core.
    pub fn media(&self) -> MutexGuard<'_, Media> {
        self.media.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user-space host, where it stands in place of the kernel's. Not while holding the core.
    pub fn user(&self) -> Option<MutexGuard<'_, User>> {
        let user = self.user.as_ref()?;
        Some(user.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the user-space host was given packets since this was last asked.
    pub fn take_roused(&self) -> bool {
        self.roused.swap(false, Ordering::Relaxed)
    }

    /// Has the first worker look after the user-space host.
    pub fn rouse(&self, worker: usize) {
        if !self.roused.swap(true, Ordering::Relaxed)
            && worker != 0
            && let Some(first) = self.wakes.first()
        {
            first.wake();
        }
    }

    /// Time since a second before the start, so that "long ago" is representable.
    pub fn now(&self) -> Instant {
        Instant::from_micros(1_000_000 + self.started.elapsed().as_micros() as u64)
    }

    /// Ends all workers.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.wake_all();
    }

    /// Whether they shall end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Has everybody look again.
    pub fn wake_all(&self) {
        self.wakes.iter().for_each(|wake| wake.wake());
    }

    /// Whose work a neighbour's packets are.
    pub fn worker_of(&self, link: u32) -> usize {
        link as usize % self.wakes.len()
    }

    /// The queue that a packet is written to; the kernel then brings the other direction of its flow by the same. `flow`: a number that is the flow's own.
    pub fn queue(&self, which: Queue, flow: impl FnOnce() -> u32) -> Option<&Tun> {
        let count = self.tun.len();
        let place = match which {
            _ if count < 2 => 0,
            Queue::Of(worker) => worker,
            Queue::Any => flow() as usize % count,
            Queue::AnyButFirst => 1 + flow() as usize % (count - 1),
        };
        self.tun.get(place)
    }
}

/// Whose queue of the TUN.
#[derive(Clone, Copy, Debug)]
pub enum Queue {
    /// This worker's.
    Of(usize),
    /// Flows spread over all.
    Any,
    /// The same but for the first worker, which has enough to do with the one neighbour that it reads.
    AnyButFirst,
}
