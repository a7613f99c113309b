//! Back-pressure: whoever reads slowly holds his own sender back, and nobody else.

use crate::lab::{GATEWAY, PATIENCE, VIEWER};
use crate::world::{BUDGET, MIXES, Side, World, noise, set, until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Sends until it has sent all.
struct Talker {
    sent: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Talker {
    fn new(mut socket: TcpStream, all: Arc<Vec<u8>>) -> Self {
        // Half of these are meant to wait for long.
        socket.set_write_timeout(None).unwrap();
        let sent = Arc::new(AtomicU64::new(0));
        let counted = sent.clone();
        let thread = std::thread::spawn(move || {
            for chunk in all.chunks(16 << 10) {
                socket.write_all(chunk).unwrap();
                counted.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
        });
        Self { sent, thread }
    }

    /// Waits until it is held back, and says how much was taken of it.
    fn held(&self) -> u64 {
        let (mut last, mut since) = (0, Instant::now());
        until("it is held back", || {
            let sent = self.sent();
            if sent != last {
                (last, since) = (sent, Instant::now());
            }
            sent > 0 && since.elapsed() > Duration::from_millis(500)
        });
        last
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

#[test]
fn a_slow_reader_holds_the_sender_back_and_gets_all_in_the_end() {
    const ALL: usize = 48 << 20;
    let all = Arc::new(noise(3, ALL));
    for sides in MIXES {
        let world = World::new(sides, &[80]);
        for upwards in [false, true] {
            let (program, device) = (world.program(80), world.device(80));
            let (from, mut to) = if upwards { (program, device) } else { (device, program) };
            let talker = Talker::new(from, all.clone());
            let held = talker.held();
            // Kernel buffers at both ends are megabytes on their own.
            assert!(
                held < 24 << 20,
                "{sides:?}: {held} bytes were taken though nobody reads"
            );
            for stats in world.stats() {
                assert!(stats.buffered <= 4 << 20, "{sides:?}: {} bytes wait", stats.buffered);
            }
            let mut came = vec![0; ALL];
            to.read_exact(&mut came).unwrap();
            assert!(came == *all, "{sides:?}");
            talker.thread.join().unwrap();
        }
    }
}

#[test]
fn five_hundred_connections_half_with_slow_readers_starve_nobody() {
    const EACH: usize = 768 << 10;
    const SMALL: usize = 16 << 20;
    let expected = Arc::new(noise(3, EACH));
    for (sides, count) in [((Side::Own, Side::Own), 500), ((Side::Kernel, Side::Own), 100)] {
        let world = World::with(sides, &[80], SMALL, 1);
        let (mut programs, mut talkers) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (program, device) = (world.program(80), world.device(80));
            narrow(&device);
            programs.push(program);
            talkers.push(Talker::new(device, expected.clone()));
        }
        let slow = programs.split_off(count / 2);
        let waiting = talkers.split_off(count / 2);
        for (number, program) in programs.into_iter().enumerate() {
            hear(program, &expected, &format!("{sides:?}, {number}"));
        }
        for stats in world.stats() {
            assert!(stats.buffered <= SMALL, "{sides:?}: {} bytes wait", stats.buffered);
        }
        talkers.into_iter().for_each(|talker| talker.thread.join().unwrap());
        for (number, talker) in waiting.iter().enumerate() {
            let sent = talker.sent();
            assert!(
                sent < EACH as u64,
                "{sides:?}, slow {number}: {sent} bytes were taken though nobody reads"
            );
        }
        for (number, program) in slow.into_iter().enumerate() {
            hear(program, &expected, &format!("{sides:?}, slow {number}"));
        }
        waiting.into_iter().for_each(|talker| talker.thread.join().unwrap());
    }
}

fn hear(mut program: TcpStream, expected: &[u8], which: &str) {
    let mut came = Vec::new();
    let all = program.read_to_end(&mut came);
    assert!(all.is_ok(), "{which}: {all:?} after {} bytes", came.len());
    assert!(came == expected, "{which}: {} bytes, or others", came.len());
}

/// Has the kernel keep little that is to be sent, as in a small device.
fn narrow(socket: &TcpStream) {
    set(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, 128 << 10);
}
