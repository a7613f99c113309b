//! How fast the user-space host is: two of them, back to back, one stream (or many), bytes written at one and read at the other.
//! `cargo run --release --example host [streams]` prints GB/s of one core that does both ends.

#![allow(clippy::expect_used, clippy::panic)]

use std::time::Instant as Clock;
use thicket_core::{Host, HostConfig, HostEvent, Instant, StreamId};

const TOTAL: usize = 4 << 30;

fn host(seed: u8) -> Host {
    Host::new(&HostConfig {
        seed: [seed; 32],
        mtu: 1_420,
        budget: 64 << 20,
        streams: 16_384,
    })
}

fn main() {
    let count: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1);
    let (mut a, mut b) = (host(1), host(2));
    let start = Clock::now();
    let now = || Instant::from_micros(start.elapsed().as_micros() as u64);
    let mut packet = Vec::new();
    let mut open: Vec<StreamId> = Vec::new();
    for _ in 0..count {
        let peer = ([198, 18, 0, 2], 80).into();
        a.connect(now(), [198, 18, 0, 1].into(), peer).expect("there are ports");
    }
    let piece = vec![7; 64 << 10];
    let mut buffer = vec![0; 64 << 10];
    let (mut read, mut packets, mut shortest) = (0, 0u64, u64::MAX);
    let mut per = std::collections::HashMap::new();
    while read < TOTAL {
        while let Some(vnet) = a.poll_packet(now(), &mut packet) {
            packets += 1;
            b.handle_packet(now(), vnet, &packet);
        }
        while let Some(event) = b.poll_event() {
            match event {
                HostEvent::Incoming { stream, .. } => drop(b.accept(stream)),
                HostEvent::Readable(stream) => loop {
                    let got = b.read(stream, &mut buffer);
                    if got == 0 {
                        break;
                    }
                    read += got;
                    *per.entry(stream).or_insert(0u64) += got as u64;
                },
                _ => {}
            }
        }
        while let Some(vnet) = b.poll_packet(now(), &mut packet) {
            packets += 1;
            a.handle_packet(now(), vnet, &packet);
        }
        while let Some(event) = a.poll_event() {
            match event {
                HostEvent::Connected(stream) => open.push(stream),
                HostEvent::Closed { stream, reason } => panic!("{stream:?} ended: {reason:?}"),
                _ => {}
            }
        }
        for stream in &open {
            while a.write(*stream, &piece) == piece.len() {}
        }
        a.handle_timeout(now());
        b.handle_timeout(now());
    }
    let took = start.elapsed().as_secs_f64();
    for got in per.values() {
        shortest = shortest.min(*got);
    }
    println!(
        "{count} streams: {:.2} GB/s, {:.1} kB a packet, {} sent again, least of a stream {:.0} % of its share",
        read as f64 / took / 1e9,
        read as f64 / packets as f64 / 1e3,
        a.stats().resent,
        100.0 * shortest as f64 * count as f64 / read as f64,
    );
}
