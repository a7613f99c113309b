//! Three workers as the addon runs them, viewer – relay – gateway, with real TUNs and sockets and iperf3 at both ends: while packets pass, they
//! allocate nothing and tell JavaScript nothing. Needs root (network namespaces).

#![allow(clippy::unwrap_used, clippy::panic, dead_code, unused_imports)]

#[path = "../src/aead.rs"]
mod aead;
#[path = "../src/link_sockets.rs"]
mod link_sockets;
#[path = "../src/media.rs"]
mod media;
#[path = "../../core/tests/lab/orders.rs"]
mod orders;
#[path = "../src/outlet.rs"]
mod outlet;
#[path = "../src/outlets.rs"]
mod outlets;
#[path = "../src/queues.rs"]
mod queues;
#[path = "../src/rounds.rs"]
mod rounds;
#[path = "../src/sys/mod.rs"]
mod sys;
#[path = "../src/team.rs"]
mod team;
#[path = "../src/worker/mod.rs"]
mod worker;

use orders::{PATH, calls, config, forward, hop, ip, link, offers, service, turned};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use sys::{EventFd, Room, Tun, TunOffload, Udp};
use thicket_core::wire::protocol;
use thicket_core::{Command, Event, Policy, Remote, Stats, TunFeatures};
use worker::{Beginning, Events, Order, Worker};

/// Datagrams between the nodes that make a window, and windows at most.
const WINDOW: u64 = 100_000;
const WINDOWS: usize = 5;
/// What a window may hold besides: buffers that grow to the longest batch yet.
const GROWTH: u64 = 256;
/// Once a second at most something is told: not with each packet.
const TOLD: u64 = 20;
const PORT: u16 = 5201;
/// Of each node.
const THREADS: usize = 2;
const VIEWER: usize = 0;
const RELAY: usize = 1;
const GATEWAY: usize = 2;

/// Counts what the watched threads allocate.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if WATCHED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes on to the system's allocator as it came; counting touches no memory of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller vouches.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller keeps to GlobalAlloc's contract, which is the system allocator's.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller vouches.
        unsafe { System.alloc_zeroed(layout) }
    }

    // SAFETY: the caller keeps to GlobalAlloc's contract, which is the system allocator's.
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller vouches.
        unsafe { System.realloc(memory, layout, size) }
    }

    // SAFETY: the caller keeps to GlobalAlloc's contract, which is the system allocator's.
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller vouches.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Stands where JavaScript does.
#[derive(Clone)]
struct Told(Arc<AtomicU64>);

impl Events for Told {
    fn deliver(&self, events: Vec<Event>) {
        self.0.fetch_add(events.len() as u64, Ordering::Relaxed);
    }

    fn fatal(&self, message: String) {
        panic!("{message}");
    }
}

struct Node {
    orders: Sender<Order>,
    wake: Arc<EventFd>,
    asked: Arc<AtomicBool>,
    told: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Node {
    fn start(number: usize, tun: Vec<Tun>, socket: Udp, commands: Vec<Command>) -> Self {
        let (orders, receiver) = channel();
        for command in commands {
            orders.send(Order::Command(Box::new(command))).unwrap();
        }
        let asked = Arc::new(AtomicBool::new(false));
        let wakes: Vec<_> = (0..THREADS).map(|_| Arc::new(EventFd::new().unwrap())).collect();
        let wake = wakes[0].clone();
        let told = Arc::new(AtomicU64::new(0));
        let workers = Worker::team(Beginning {
            config: config(number, number == RELAY, TunFeatures::default()),
            sealer: aead::choose(false),
            tun,
            sockets: vec![socket],
            orders: receiver,
            asked: asked.clone(),
            wakes,
            events: Told(told.clone()),
        });
        let threads = workers.unwrap().into_iter().map(|worker| {
            std::thread::spawn(move || {
                WATCHED.set(true);
                worker.run();
                WATCHED.set(false);
            })
        });
        let threads = threads.collect();
        wake.wake();
        Self {
            orders,
            wake,
            asked,
            told,
            threads,
        }
    }

    fn stats(&self) -> Stats {
        let (reply, answer) = channel();
        self.asked.store(true, Ordering::Relaxed);
        self.orders.send(Order::Stats(reply)).unwrap();
        self.wake.wake();
        answer.recv_timeout(Duration::from_secs(10)).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        self.wake.wake();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// A network namespace with one node's TUN in it; gone when dropped.
struct Space {
    name: String,
    device: String,
}

impl Space {
    fn new(name: &str) -> Self {
        let name = format!("thicket-worker-{}-{name}", std::process::id());
        run(&format!("ip netns add {name}"));
        let device = format!("tw{}{}", std::process::id(), &name[name.len() - 1..]);
        let space = Self { name, device };
        space.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        space
    }

    /// The device stays the descriptor's, wherever it is moved to.
    fn tun(&self, own: IpAddr, peer: IpAddr) -> Vec<Tun> {
        let Self { name, device } = self;
        let tun = Tun::open_queues(device, TunOffload::Auto, THREADS).unwrap();
        run(&format!("ip link set {device} netns {name}"));
        self.run("ip link set lo up");
        self.run(&format!("ip addr add {own}/32 dev {device}"));
        self.run(&format!("ip link set {device} up"));
        self.run(&format!("ip route add {peer}/32 dev {device}"));
        tun
    }

    fn run(&self, line: &str) -> String {
        run(&format!("ip netns exec {} {line}", self.name))
    }

    fn spawn(&self, line: &str) -> Running {
        let line = format!("ip netns exec {} {line}", self.name);
        let mut words = line.split(' ');
        let mut program = Program::new(words.next().unwrap());
        Running(
            program
                .args(words)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    /// What the node wrote to its TUN so far.
    fn written(&self) -> u64 {
        let file = format!("/sys/class/net/{}/statistics/rx_bytes", self.device);
        self.run(&format!("cat {file}")).trim().parse().unwrap()
    }

    /// Waits until it has written so much.
    fn wait(&self, bytes: u64) {
        let began = Instant::now();
        while self.written() < bytes {
            assert!(began.elapsed() < Duration::from_secs(60), "the transfer stands still");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Program::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A program, ended when dropped.
struct Running(Child);

impl Running {
    fn wait_for(&mut self, text: &str) {
        let lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        assert!(
            lines.map_while(Result::ok).any(|line| line.contains(text)),
            "never said: {text}"
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let out = Program::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// What an end of the session is told: its link, its addresses and the far end's, its labels, its policy, and what it sends and receives under.
fn end(
    relay: SocketAddr,
    number: u32,
    pair: (IpAddr, IpAddr),
    labels: (u32, u32),
    policy: Policy,
    keys: ([u8; 32], [u8; 32]),
) -> Vec<Command> {
    vec![
        link(number, Remote::new(0, relay), true),
        orders::open(5, pair.0, pair.1),
        orders::policy(5, policy),
        orders::path(1, 5, hop(number, labels.0), hop(number, labels.1), keys),
    ]
}

#[test]
fn nothing_is_allocated_or_told_while_packets_pass() {
    let (near, far) = (Space::new("a"), Space::new("b"));
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
    let services = [protocol::TCP, protocol::UDP].map(|protocol| service(protocol, PORT));
    let viewer = end(at[RELAY], 1, (ip(1), ip(9)), (1000, 1001), calls(), PATH);
    let offers = offers(services.to_vec());
    let gateway = end(at[RELAY], 2, (ip(77), ip(88)), (2000, 2001), offers, turned(PATH));
    let tuns = [near.tun(ip(1), ip(9)), Vec::new(), far.tun(ip(77), ip(88))];
    let mut nodes = Vec::new();
    for (number, ((tun, socket), commands)) in tuns.into_iter().zip(sockets).zip([viewer, relay, gateway]).enumerate() {
        nodes.push(Node::start(number, tun, socket, commands));
    }
    // How much of a datagram the far TUN gets: payload and headers.
    for (load, longest) in [("", 1_500), ("-u -b 0 -l 200", 228)] {
        let mut server = far.spawn(&format!("iperf3 -s -4 -1 --forceflush -p {PORT}"));
        server.wait_for("Server listening");
        let line = format!("iperf3 -c {} -p {PORT} -t 600 {load}", ip(9));
        let _client = near.spawn(line.trim_end());
        far.wait(far.written() + 20_000_000);
        let mut windows = Vec::new();
        while windows.len() < WINDOWS && !windows.contains(&0) {
            let relayed = nodes[RELAY].stats().relay_packets;
            let told = || nodes.iter().map(|n| n.told.load(Ordering::Relaxed)).sum::<u64>();
            let (allocations, events) = (ALLOCATIONS.load(Ordering::Relaxed), told());
            far.wait(far.written() + WINDOW * longest);
            windows.push(ALLOCATIONS.load(Ordering::Relaxed) - allocations);
            assert!(told() - events <= TOLD, "{} events were told", told() - events);
            let passed = nodes[RELAY].stats().relay_packets - relayed;
            assert!(passed >= WINDOW, "only {passed} datagrams passed");
        }
        assert!(
            windows.contains(&0) && windows.iter().all(|&w| w <= GROWTH),
            "iperf3 {load}: allocations in windows of {WINDOW} datagrams: {windows:?}"
        );
    }
}
