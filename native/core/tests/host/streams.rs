//! Streams from their beginning to their end.

use crate::line::*;
use crate::talk::{End, talk};
use thicket_core::{Closed, HostEvent};

fn converse(pair: &mut Pair, say: usize, hear: usize) -> [End; 2] {
    let (calling, called) = pair.open();
    let mut ends = [End::new(0, calling, say, hear), End::new(1, called, hear, say)];
    talk(pair, &mut ends);
    for (end, bytes) in ends.iter().zip([hear, say]) {
        assert_eq!((end.heard, end.finished, end.closed), (bytes, true, Some(Closed::Done)));
    }
    ends
}

#[test]
fn bytes_cross_both_ways_and_nothing_is_left_of_the_stream() {
    for whole in [false, true] {
        let mut pair = Pair::new(Weather { whole, ..FAIR });
        converse(&mut pair, 3_000_000, 1_000_001);
        assert!(whole || pair.longest <= usize::from(MTU), "{} bytes", pair.longest);
        assert_eq!(pair.hosts[0].stats().resent + pair.hosts[1].stats().resent, 0);
        pair.pass(60);
        for host in &pair.hosts {
            let stats = host.stats();
            assert_eq!(
                (stats.streams, stats.buffered, stats.committed, stats.waiting),
                (0, 0, 0, 0)
            );
        }
    }
}

#[test]
fn a_stream_of_ipv6_is_like_one_of_ipv4() {
    let mut pair = Pair::new(FAIR);
    let (own, peer) = ("fd00::1".parse().unwrap(), "[fd00::2]:80".parse().unwrap());
    let calling = pair.hosts[0].connect(pair.now, own, peer).unwrap();
    let HostEvent::Incoming { stream, .. } = pair.event(1) else {
        panic!("no call")
    };
    assert!(pair.hosts[1].accept(stream));
    let mut ends = [End::new(0, calling, 500_000, 1), End::new(1, stream, 1, 500_000)];
    talk(&mut pair, &mut ends);
    assert!(pair.longest <= usize::from(MTU));
}

#[test]
fn what_a_bad_line_loses_repeats_and_reorders_arrives_whole() {
    for seed in 0..20 {
        let mut pair = Pair::new(FAIR).seed(seed);
        pair.weather = FOUL;
        let calling = pair.hosts[0].connect(pair.now, address(0), at(1, 80)).unwrap();
        let called = pair.until(|pair| match pair.hosts[1].poll_event()? {
            HostEvent::Incoming { stream, .. } => Some(stream),
            _ => None,
        });
        pair.hosts[1].accept(called);
        let mut ends = [
            End::new(0, calling, 300_000, 200_000),
            End::new(1, called, 200_000, 300_000),
        ];
        let began = pair.now;
        talk(&mut pair, &mut ends);
        // Losses are repaired as they are seen, not by doubling a second again and again.
        let took = (pair.now - began).as_millis();
        assert!(took < 30_000, "seed {seed}: {took} ms");
    }
}

#[test]
fn a_side_that_has_finished_still_hears_the_other() {
    let mut pair = Pair::new(FAIR);
    let (calling, called) = pair.open();
    pair.hosts[0].finish(calling);
    assert_eq!(pair.event(1), HostEvent::Finished(called));
    assert!(pair.hosts[1].is_read_out(called) && !pair.hosts[0].is_read_out(calling));
    // A minute is longer than a kernel waits for the far end of what nobody holds.
    pair.pass(3_600);
    let mut ends = [End::new(0, calling, 0, 500_000), End::new(1, called, 500_000, 0)];
    ends[1].finished = true;
    talk(&mut pair, &mut ends);
    assert_eq!(ends[0].closed, Some(Closed::Done));
}

#[test]
fn a_narrow_line_is_filled_and_little_is_sent_twice() {
    // 12.5 MB/s with a long queue and a short one, and a line like a slow household's.
    for (delay, rate, room, least) in [
        (10_000, 12_500_000, 250_000, 80),
        (10_000, 1_250_000, 50_000, 80),
        (25_000, 1_250_000, 30_000, 80),
        (10_000, 12_500_000, 60_000, 20),
    ] {
        let mut pair = Pair::with(Weather { delay, ..FAIR }, 64 << 20, 1_000);
        pair.narrow = (rate, room);
        let (calling, called) = pair.open();
        let bytes = 10_000_000;
        let mut ends = [End::new(0, calling, bytes, 1), End::new(1, called, 1, bytes)];
        let (began, before) = (pair.now, pair.bytes);
        talk(&mut pair, &mut ends);
        let ideal = bytes as u64 * 1_000 / rate;
        let took = (pair.now - began).as_millis();
        assert!(ideal * 100 / took >= least, "{took} ms instead of {ideal}");
        assert!(pair.bytes - before < bytes as u64 * 115 / 100);
    }
}
