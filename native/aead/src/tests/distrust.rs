//! The guard: self-test, comparison with ring, and what follows when they differ.

use super::{Random, Sealed, lanes};
use crate::group::Direction;
use crate::guard::{self, Choice};
use crate::train::{self, NEVER};
use crate::{Kernel, Key, TAG, kernel::Kind};

const FAULTY: Kernel = Kernel(Kind::Faulty);

#[test]
fn what_this_processor_has_passes_its_self_test() {
    for kernel in lanes() {
        assert!(guard::passes(kernel), "{kernel}");
    }
    assert!(guard::passes(Kernel::SINGLE));
}

#[test]
fn a_faulty_implementation_fails_its_self_test() {
    assert!(!guard::passes(FAULTY));
}

/// Sixteen packets under their nonces, in clear.
fn sixteen() -> (Key, Vec<u8>, impl Fn(usize) -> [u8; 12]) {
    let plain = (0..STRIDE * PACKETS).map(|n| n as u8).collect();
    (Key::new(&[9; 32]), plain, |n| [n as u8; 12])
}

const PACKETS: usize = 16;
const STRIDE: usize = 100 + TAG;
const THIRD: train::Compare = |_| Some(3);

/// The only test that uses what the whole process shares.
#[test]
fn the_first_difference_makes_ring_do_everything_for_good() {
    let best = Kernel::available().next().unwrap().code();
    assert_eq!(guard::choose(Choice::Auto).code(), best);
    assert_eq!(guard::kernel().code(), best);
    assert_eq!(guard::choose(Choice::Single).code(), guard::kernel().code());
    assert_eq!(guard::trouble(), None);
    assert_eq!(guard::choose(Choice::Exactly(FAULTY)).code(), Kernel::SINGLE.code());
    assert!(guard::trouble().is_some_and(|line| line.contains("self-test")));
    assert_eq!(guard::choose(Choice::Auto).code(), best);
    // Every so many groups one is compared, each time another packet.
    let compared: Vec<_> = (0..64 * 40).filter_map(|_| guard::to_compare(16)).collect();
    assert!((38..=42).contains(&compared.len()), "{compared:?}");
    assert!((0..16).all(|packet| compared.contains(&packet)), "{compared:?}");

    let (key, plain, nonce) = sixteen();
    let mut sealed = plain.clone();
    train::seal(FAULTY, THIRD, &key, &mut sealed, STRIDE, 0, &nonce);
    // The packet that gave it away is right now; all others open for nobody and show nothing.
    for (n, packet) in sealed.chunks_mut(STRIDE).enumerate() {
        assert_eq!(packet.iter().all(|&byte| byte == 0), n != 3);
        assert_eq!(key.open(&nonce(n), &[], packet), n == 3);
    }
    assert!(guard::trouble().is_some_and(|line| line.contains("came out wrong")));
    assert_eq!(guard::trouble(), None);
    assert_eq!(guard::kernel().code(), Kernel::SINGLE.code());
    assert_eq!(guard::choose(Choice::Auto).code(), Kernel::SINGLE.code());

    // The same when opening, whether it refuses what is genuine or lets through what is forged.
    for forged in [false, true] {
        let mut train = plain.clone();
        train::seal(Kernel::SINGLE, NEVER, &key, &mut train, STRIDE, 0, &nonce);
        if forged {
            // The faulty one finds this tag everywhere.
            train
                .chunks_mut(STRIDE)
                .for_each(|packet| packet[STRIDE - TAG..].fill(0));
        }
        let mut packets: Vec<_> = (0..PACKETS)
            .map(|n| Sealed {
                range: n * STRIDE..(n + 1) * STRIDE,
                nonce: nonce(n),
                opened: true,
            })
            .collect();
        train::open(FAULTY, THIRD, &key, &mut train, &mut packets);
        for (n, packet) in packets.iter().enumerate() {
            assert_eq!(packet.opened, n == 3 && !forged);
            let data = packet.range.start..packet.range.end - TAG;
            let expected = if packet.opened {
                &plain[data.clone()]
            } else {
                &[0; STRIDE - TAG]
            };
            assert!(&train[data] == expected, "{n}");
        }
        assert!(guard::trouble().is_some());
    }
}

#[test]
fn dead_lanes_and_full_groups_give_the_same_packets() {
    let mut random = Random(7);
    let key = Key::new(&random.bytes());
    let nonce = |n: usize| [n as u8 ^ 0x5a; 12];
    for kernel in lanes() {
        for len in [0, 63, 64, 65, 700] {
            let mut full = vec![0; kernel.width() * len];
            random.fill(&mut full);
            let starts: Vec<_> = (0..kernel.width()).map(|n| n * len).collect();
            let nonces: Vec<_> = (0..kernel.width()).map(nonce).collect();
            let plain = full.clone();
            let all = super::run(
                kernel,
                &key,
                &[1, 2, 3],
                &mut full,
                &starts,
                len,
                &nonces,
                Direction::Seal,
            );
            for count in 1..kernel.width() {
                let mut part = plain.clone();
                let tags = super::run(
                    kernel,
                    &key,
                    &[1, 2, 3],
                    &mut part,
                    &starts[..count],
                    len,
                    &nonces[..count],
                    Direction::Seal,
                );
                assert_eq!(tags[..count], all[..count], "{kernel}: {count} of {len} bytes");
                assert!(part[..count * len] == full[..count * len]);
                assert!(part[count * len..] == plain[count * len..]);
            }
        }
    }
}
