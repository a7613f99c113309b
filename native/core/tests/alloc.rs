//! The hot path makes no allocation: a counting allocator watches packets go from the viewer's TUN through the relay to the gateway's.

#![allow(clippy::unwrap_used)]

#[path = "../examples/chain/mod.rs"]
mod chain;

use allocation_counter::measure;
use chain::{Chain, Load, Stage};
use thicket_core::Duration;
#[cfg(not(feature = "ring"))]
use thicket_core::aead::Portable as Sealer;
#[cfg(all(feature = "ring", not(feature = "simd")))]
use thicket_core::aead::Ring as Sealer;
#[cfg(feature = "simd")]
use thicket_core::aead::Simd as Sealer;

/// Milliseconds of the core's own time, and loads, until all buffers have grown.
const WARM: usize = 200;
/// Five of its seconds: sweeps of the tables are among what is counted.
const ROUNDS: usize = 5_000;

/// Allocations while a load goes the whole way again and again, one every millisecond.
fn allocations(load: &Load) -> u64 {
    let mut chain = Chain::<Sealer>::new();
    let mut pass = |rounds: usize| {
        let mut bytes = 0;
        for _ in 0..rounds {
            bytes += chain.pass(load, Stage::Open);
            chain.wait(Duration::from_millis(1));
        }
        bytes
    };
    let each = pass(WARM) / WARM;
    assert!(each > 0, "nothing arrives");
    let mut bytes = 0;
    let counted = measure(|| bytes = pass(ROUNDS));
    assert_eq!(bytes, each * ROUNDS, "something was lost");
    assert_eq!(chain.events(), 0, "the control logic has no part in this");
    counted.count_total
}

#[test]
fn a_bulk_transfer_allocates_nothing() {
    assert_eq!(allocations(&Load::bulk(45)), 0);
}

#[test]
fn small_datagrams_allocate_nothing() {
    assert_eq!(allocations(&Load::datagram(200)), 0);
}

#[test]
fn datagrams_that_go_in_parts_allocate_nothing() {
    assert_eq!(allocations(&Load::datagram(1_460)), 0);
}

#[test]
fn the_counter_counts() {
    assert_eq!(
        measure(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(10)))).count_total,
        1
    );
}
