//! Measures sealing and opening through the native core for bench/micro: prints one JSON document, nanoseconds a packet.
//!
//! `cargo run --release --features simd --example seal -- SECONDS`

use std::env;
use std::hint::black_box;
use std::time::{Duration, Instant};
use thicket_core::aead::{Aead, Portable, Sealed};
use thicket_core::wire::{DATA_HEADER, DATA_OVERHEAD};

/// Payload sizes, bytes; the same as in bench/micro.
const SIZES: [usize; 4] = [64, 256, 1_400, 16_384];
/// Packets in a train, as long as one `UDP_SEGMENT` message takes.
const TRAIN: usize = 48;

fn main() {
    let seconds = env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0.3);
    let each = Duration::from_secs_f64(seconds);
    let mut rows = Vec::new();
    measure::<Portable>("RustCrypto", &[1, TRAIN], each, &mut rows);
    #[cfg(feature = "ring")]
    measure::<thicket_core::aead::Ring>("ring", &[1, TRAIN], each, &mut rows);
    // Each kind of lanes that this processor has, so that one machine shows what others get.
    #[cfg(feature = "simd")]
    for kernel in thicket_aead::Kernel::available() {
        use thicket_aead::{Choice, choose};
        if choose(Choice::Exactly(kernel)).name() != "ring" {
            measure::<thicket_core::aead::Simd>(kernel.name(), &[TRAIN], each, &mut rows);
        }
    }
    println!("{{\"avx512ifma\":{},\"rows\":[{}]}}", has_ifma(), rows.join(","));
}

#[cfg(target_arch = "x86_64")]
fn has_ifma() -> bool {
    std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512ifma")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_ifma() -> bool {
    false
}

fn measure<A: Aead>(name: &str, trains: &[usize], each: Duration, rows: &mut Vec<String>) {
    let key = A::key(&[7; 32]);
    for size in SIZES {
        for &packets in trains {
            let stride = size + DATA_OVERHEAD;
            let mut train = vec![0u8; stride * packets];
            let mut counter = 0;
            let seal = time(each, || {
                A::seal_train(&key, counter, black_box(&mut train), stride, DATA_HEADER);
                counter += packets as u64;
            });
            A::seal_train(&key, 0, &mut train, stride, DATA_HEADER);
            let sealed = train.clone();
            let mut places: Vec<_> = (0..packets)
                .map(|index| Sealed {
                    start: index * stride + DATA_HEADER,
                    end: (index + 1) * stride,
                    counter: index as u64,
                    opened: false,
                })
                .collect();
            // Opening is in place: the copy that gives it something to open again is measured apart and taken off.
            let copy = time(each / 4, || black_box(&mut train).copy_from_slice(black_box(&sealed)));
            let mut failed = 0;
            let open = time(each, || {
                train.copy_from_slice(&sealed);
                A::open_train(&key, black_box(&mut train), &mut places);
                failed += places.iter().filter(|place| !place.opened).count();
            });
            assert_eq!(failed, 0, "a sealed packet did not open");
            let per_packet = |nanoseconds: f64| nanoseconds / packets as f64;
            rows.push(format!(
                "{{\"implementation\":\"{name}\",\"size\":{size},\"packets\":{packets},\"seal\":{:.1},\"open\":{:.1}}}",
                per_packet(seal),
                per_packet((open - copy).max(0.0))
            ));
        }
    }
}

/// Nanoseconds a call; the best of five rounds, since whatever disturbs only ever adds.
fn time(each: Duration, mut call: impl FnMut()) -> f64 {
    const ROUNDS: u32 = 5;
    let mut calls = 1u32;
    let mut best = f64::MAX;
    // Doubling finds how many calls fill a round.
    loop {
        let begun = Instant::now();
        (0..calls).for_each(|_| call());
        if begun.elapsed() * ROUNDS * 2 >= each || calls > u32::MAX / 2 {
            break;
        }
        calls *= 2;
    }
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        (0..calls).for_each(|_| call());
        best = best.min(begun.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    best
}
