//! Nodes as the addon runs them, without JavaScript: viewer – relay – gateway over loopback.

use crate::sys::{EventFd, Room, Tun, Udp};
use crate::user::{Batch, Told, UserConfig, UserOrder, UserStats};
use crate::worker::{Beginning, Events, Order, Worker};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use thicket_core::{Command, Event, Policy, Remote, Service, Stats, TunFeatures};

pub mod space;

#[path = "../../../core/tests/lab/orders.rs"]
mod orders;

use orders::{PATH, calls, forward, hop, ip, link, offers, turned};

pub const VIEWER: usize = 0;
pub const RELAY: usize = 1;
pub const GATEWAY: usize = 2;

/// How long anything that must happen may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Stands where JavaScript does.
#[derive(Clone)]
pub struct ToTest {
    events: Arc<AtomicU64>,
    user: Sender<Told>,
}

impl Events for ToTest {
    fn deliver(&self, events: Vec<Event>) {
        self.events.fetch_add(events.len() as u64, Ordering::Relaxed);
    }

    fn user(&self, batch: Batch) {
        for one in batch.told {
            let _ = self.user.send(one);
        }
    }

    fn fatal(&self, message: String) {
        panic!("{message}");
    }
}

/// What a node has besides its links.
#[derive(Default)]
pub struct Parts {
    pub tun: Vec<Tun>,
    pub user: Option<UserConfig>,
    pub threads: usize,
}

/// A node; stopped when dropped.
pub struct Node {
    orders: Sender<Order>,
    wake: Arc<EventFd>,
    asked: Arc<AtomicBool>,
    events: Arc<AtomicU64>,
    pub told: Mutex<Receiver<Told>>,
    threads: Vec<JoinHandle<()>>,
}

impl Node {
    /// `around` runs what a worker's thread does.
    pub fn start(
        number: usize,
        parts: Parts,
        socket: Udp,
        commands: Vec<Command>,
        around: fn(&mut dyn FnMut()),
    ) -> Self {
        let config = orders::config(number, number == RELAY, TunFeatures::default());
        let (orders, receiver) = channel();
        for command in commands {
            orders.send(Order::Command(Box::new(command))).unwrap();
        }
        let asked = Arc::new(AtomicBool::new(false));
        let wakes: Vec<_> = (0..parts.threads).map(|_| Arc::new(EventFd::new().unwrap())).collect();
        let wake = wakes[0].clone();
        let (user, told) = channel();
        let to_test = ToTest {
            events: Arc::new(AtomicU64::new(0)),
            user,
        };
        let events = to_test.events.clone();
        let workers = Worker::team(Beginning {
            config,
            sealer: crate::aead::choose(false),
            tun: parts.tun,
            user: parts.user,
            sockets: vec![socket],
            orders: receiver,
            asked: asked.clone(),
            wakes,
            events: to_test,
        });
        let threads = workers.unwrap().into_iter().map(|worker| {
            let mut worker = Some(worker);
            std::thread::spawn(move || around(&mut || worker.take().unwrap().run()))
        });
        let threads = threads.collect();
        wake.wake();
        Self {
            orders,
            wake,
            asked,
            events,
            told: Mutex::new(told),
            threads,
        }
    }

    /// Events told so far, of the core.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    pub fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
        self.wake.wake();
    }

    pub fn command(&self, command: Command) {
        self.order(Order::Command(Box::new(command)));
    }

    pub fn user(&self, order: UserOrder) {
        self.order(Order::User(order));
    }

    pub fn stats(&self) -> (Stats, Option<UserStats>) {
        let (reply, answer) = channel();
        self.asked.store(true, Ordering::Relaxed);
        self.order(Order::Stats(reply));
        answer.recv_timeout(PATIENCE).unwrap()
    }

    /// What user-space mode tells next.
    pub fn next(&self) -> Told {
        self.told.lock().unwrap().recv_timeout(PATIENCE).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        self.wake.wake();
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            // A failure that is under way is told already.
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

/// The viewer's own address and that of the gateway at the viewer; the endpoint's at the gateway and the viewer's there.
pub fn viewer_pair() -> (IpAddr, IpAddr) {
    (ip(1), ip(9))
}

pub fn gateway_pair() -> (IpAddr, IpAddr) {
    (ip(77), ip(88))
}

/// A service for accounting by its protocol.
pub fn service(protocol: u8, port: u16, target: SocketAddr) -> Service {
    Service {
        target,
        ..orders::service(protocol, port)
    }
}

/// What the gateway lets the viewer reach.
pub fn policy(inbound: Vec<Service>) -> Command {
    let policy = Policy {
        echo: !inbound.is_empty(),
        ..offers(inbound)
    };
    orders::policy(SESSION, policy)
}

const SESSION: u32 = 5;

/// What an end of the session is told: its link, its addresses and the far end's, its labels, and what is allowed.
fn end(
    relay: SocketAddr,
    number: u32,
    (own, peer): (IpAddr, IpAddr),
    labels: (u32, u32),
    allowed: Command,
) -> Vec<Command> {
    let keys = if number == 1 { PATH } else { turned(PATH) };
    vec![
        link(number, Remote::new(0, relay), true),
        orders::open(SESSION, own, peer),
        allowed,
        orders::path(1, SESSION, hop(number, labels.0), hop(number, labels.1), keys),
    ]
}

/// Viewer, relay and gateway, in this order, with the parts that each has.
pub fn path(parts: [Parts; 3], services: Vec<Service>, around: fn(&mut dyn FnMut())) -> Vec<Node> {
    let room = Room {
        receive: 8 << 20,
        send: 1 << 20,
    };
    let sockets: Vec<Udp> = (0..3)
        .map(|_| Udp::bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0), false, room).unwrap())
        .collect();
    let at: Vec<SocketAddr> = sockets.iter().map(Udp::local).collect();
    let relay = vec![
        link(1, Remote::new(0, at[VIEWER]), false),
        link(2, Remote::new(0, at[GATEWAY]), false),
        forward(hop(1, 1001), hop(2, 2000)),
        forward(hop(2, 2001), hop(1, 1000)),
    ];
    let viewer = end(
        at[RELAY],
        1,
        viewer_pair(),
        (1000, 1001),
        orders::policy(SESSION, calls()),
    );
    let gateway = end(at[RELAY], 2, gateway_pair(), (2000, 2001), policy(services));
    let mut nodes = Vec::new();
    let commands = [viewer, relay, gateway];
    for (number, ((parts, socket), commands)) in parts.into_iter().zip(sockets).zip(commands).enumerate() {
        nodes.push(Node::start(number, parts, socket, commands, around));
    }
    nodes
}
