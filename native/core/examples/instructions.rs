//! Work for a counter of instructions: takes a load so many times as far as told, between two marks, and prints how many datagrams that were.
//! bench/gates runs it under callgrind, or steps it from mark to mark.
//!
//! `instructions ring|avx2|avx512|auto bulk|datagram seal|relay|open ROUNDS`

#![allow(clippy::expect_used, clippy::panic)]

mod chain;

use chain::{Chain, Load, Stage};
use std::env;
use std::hint::black_box;
use std::thread;
use thicket_aead::{Choice, Kernel, choose};
use thicket_core::aead::Simd;

/// As many full segments as one read from a TUN brings.
const SEGMENTS: usize = 45;
/// Payload of the small datagrams.
const SMALL: usize = 200;
/// Rounds before the first mark: buffers grow, the flow is there.
const WARM: usize = 4;

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let [kernel, load, stage, rounds] = &args[..] else {
        panic!("four arguments are wanted: KERNEL LOAD STAGE ROUNDS");
    };
    let chosen = choose(choice(kernel));
    let load = match load.as_str() {
        "bulk" => Load::bulk(SEGMENTS),
        "datagram" => Load::datagram(SMALL),
        _ => panic!("loads are bulk and datagram"),
    };
    let stage = match stage.as_str() {
        "seal" => Stage::Seal,
        "relay" => Stage::Relay,
        "open" => Stage::Open,
        _ => panic!("stages are seal, relay and open"),
    };
    let rounds: usize = rounds.parse().expect("a number of rounds");
    let mut chain = Chain::<Simd>::new();
    // All stages, whatever is measured: what happens before the first mark is the same in every run.
    for _ in 0..WARM {
        assert!(
            chain.pass(&load, Stage::Open) > load.datagrams * SMALL,
            "the load does not arrive"
        );
    }
    thread::yield_now();
    let mut bytes = 0;
    for _ in 0..rounds {
        bytes += chain.pass(black_box(&load), stage);
    }
    thread::yield_now();
    assert!(bytes >= rounds * load.datagrams * SMALL, "the load does not arrive");
    println!(
        "{{\"kernel\":\"{}\",\"datagrams\":{}}}",
        chosen.name(),
        rounds * load.datagrams
    );
}

fn choice(name: &str) -> Choice {
    let called = |wanted: &str| {
        Kernel::available()
            .find(|kernel| kernel.name() == wanted)
            .map(Choice::Exactly)
    };
    match name {
        "ring" => Some(Choice::Single),
        "avx2" => called("AVX2"),
        "avx512" => called("AVX-512"),
        "auto" => Some(Choice::Auto),
        _ => None,
    }
    .unwrap_or_else(|| panic!("this processor has no {name}, or there is no such thing"))
}
