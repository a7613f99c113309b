//! Three workers as the addon runs them, viewer – relay – gateway, with real TUNs and sockets and iperf3 at both ends: while packets pass, they
//! allocate nothing and tell JavaScript nothing. Needs root (network namespaces).

#![allow(clippy::unwrap_used, clippy::panic, dead_code, unused_imports)]

#[path = "../src/aead.rs"]
mod aead;
#[path = "../src/link_sockets.rs"]
mod link_sockets;
#[path = "../src/media.rs"]
mod media;
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
#[path = "../src/user/mod.rs"]
mod user;
#[path = "../src/worker/mod.rs"]
mod worker;

mod lab;

use lab::space::Space;
use lab::{Node, Parts, RELAY};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use thicket_core::wire::protocol;

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

/// A worker's thread is watched while it runs.
fn watch(run: &mut dyn FnMut()) {
    WATCHED.set(true);
    run();
    WATCHED.set(false);
}

#[test]
fn nothing_is_allocated_or_told_while_packets_pass() {
    let (near, far) = (Space::new(), Space::new());
    let target = SocketAddr::new([192, 168, 1, 20].into(), PORT);
    let services = [protocol::TCP, protocol::UDP].map(|protocol| lab::service(protocol, PORT, target));
    let ((own, peer), (endpoint, caller)) = (lab::viewer_pair(), lab::gateway_pair());
    let tuns = [
        near.tun(own, peer, THREADS),
        Vec::new(),
        far.tun(endpoint, caller, THREADS),
    ];
    let parts = tuns.map(|tun| Parts {
        tun,
        user: None,
        threads: THREADS,
    });
    let nodes = lab::path(parts, services.to_vec(), watch);
    // How much of a datagram the far TUN gets: payload and headers.
    for (load, longest) in [("", 1_500), ("-u -b 0 -l 200", 228)] {
        let mut server = far.spawn(&format!("iperf3 -s -4 -1 --forceflush -p {PORT}"));
        server.wait_for("Server listening");
        let line = format!("iperf3 -c {peer} -p {PORT} -t 600 {load}");
        let _client = near.spawn(line.trim_end());
        far.wait(far.written() + 20_000_000);
        let mut windows = Vec::new();
        while windows.len() < WINDOWS && !windows.contains(&0) {
            let relayed = nodes[RELAY].stats().0.relay_packets;
            let told = || nodes.iter().map(Node::events).sum::<u64>();
            let (allocations, events) = (ALLOCATIONS.load(Ordering::Relaxed), told());
            far.wait(far.written() + WINDOW * longest);
            windows.push(ALLOCATIONS.load(Ordering::Relaxed) - allocations);
            assert!(told() - events <= TOLD, "{} events were told", told() - events);
            let passed = nodes[RELAY].stats().0.relay_packets - relayed;
            assert!(passed >= WINDOW, "only {passed} datagrams passed");
        }
        assert!(
            windows.contains(&0) && windows.iter().all(|&w| w <= GROWTH),
            "iperf3 {load}: allocations in windows of {WINDOW} datagrams: {windows:?}"
        );
    }
}
