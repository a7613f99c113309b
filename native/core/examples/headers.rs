//! Measures reading and writing headers for bench/micro: prints one JSON document, nanoseconds each.
//!
//! `cargo run --release --example headers -- SECONDS`

#![allow(clippy::expect_used)]

use std::env;
use std::hint::black_box;
use std::time::{Duration, Instant};
use thicket_core::wire::{DATA_HEADER, DataHeader, InnerHeader, IpPacket, IpRepr, Kind, Outer, protocol};

const ROUNDS: u32 = 5;
/// Headers in one round.
const BATCH: u32 = 1_000;

fn main() {
    let seconds = env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0.3);
    let each = Duration::from_secs_f64(seconds);
    let mut datagram = [0; DATA_HEADER + 64];
    let outer = DataHeader {
        label: 0x1234_5678,
        counter: 77,
        hop_tag: [9; 8],
    };
    let inner = InnerHeader {
        kind: Kind::Tcp,
        traffic_class: 0xb8,
        hop_limit: 63,
    };
    let ip = IpRepr {
        source: [198, 18, 0, 1].into(),
        destination: [198, 18, 0, 9].into(),
        protocol: protocol::UDP,
        traffic_class: 0,
        hop_limit: 64,
        identification: Some(1),
    };
    let mut packet = [0; 60];
    let mut rows = vec![
        row("write a data packet's header", each, || {
            black_box(outer).write(black_box(&mut datagram));
        }),
        row("write an inner header", each, || {
            black_box(black_box(inner).bytes());
        }),
        row("write an IPv4 header", each, || {
            black_box(black_box(ip).write(black_box(&mut packet), 32));
        }),
    ];
    outer.write(&mut datagram);
    ip.write(&mut packet, 32);
    // A UDP header's length.
    packet[25] = 32;
    let inner = inner.bytes();
    rows.extend([
        row("read a data packet's header", each, || {
            black_box(Outer::parse(black_box(&datagram)).expect("a data packet"));
        }),
        row("read an inner header", each, || {
            black_box(InnerHeader::parse(black_box(&inner)).expect("an inner header"));
        }),
        row("read an IPv4 header", each, || {
            black_box(IpPacket::parse(black_box(&packet[..52])).expect("an IPv4 packet"));
        }),
    ]);
    println!("[{}]", rows.join(","));
}

/// The best of some rounds, since whatever disturbs only ever adds.
fn row(what: &str, each: Duration, mut call: impl FnMut()) -> String {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let mut calls = 0;
        while begun.elapsed() * ROUNDS < each {
            (0..BATCH).for_each(|_| call());
            calls += BATCH;
        }
        best = best.min(begun.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    format!("{{\"what\":\"{what}\",\"nanoseconds\":{best:.2}}}")
}
