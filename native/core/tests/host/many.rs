//! Many streams at once.

use crate::line::*;
use crate::talk::End;
use std::collections::HashMap;
use thicket_core::{HostEvent, StreamId};

#[test]
fn of_500_streams_none_starves_though_half_are_never_read_and_memory_stays_within_the_budget() {
    const STREAMS: usize = 500;
    const SAY: usize = 100_000;
    let budget = 24 << 20;
    let mut pair = Pair::with(FAIR, budget, 600);
    let mut calling: HashMap<StreamId, End> = HashMap::new();
    let mut called: HashMap<StreamId, (End, bool)> = HashMap::new();
    for _ in 0..STREAMS {
        let stream = pair.hosts[0].connect(pair.now, address(0), at(1, 80)).unwrap();
        calling.insert(stream, End::new(0, stream, SAY, 0));
    }
    let mut heard = 0;
    pair.until(|pair| {
        for host in &pair.hosts {
            assert!(host.stats().committed <= budget, "{:?}", host.stats());
        }
        while let Some(event) = pair.hosts[1].poll_event() {
            match event {
                HostEvent::Incoming { stream, .. } => {
                    let reads = called.len().is_multiple_of(2);
                    called.insert(stream, (End::new(1, stream, 0, SAY), reads));
                    pair.hosts[1].accept(stream);
                }
                HostEvent::Readable(stream) => {
                    let (end, reads) = called.get_mut(&stream).unwrap();
                    if *reads {
                        let before = end.heard;
                        end.turn(pair);
                        heard += end.heard - before;
                    }
                }
                _ => {}
            }
        }
        while let Some(event) = pair.hosts[0].poll_event() {
            if let HostEvent::Connected(stream) | HostEvent::Writable(stream) = event {
                calling.get_mut(&stream).unwrap().turn(pair);
            }
        }
        (heard == STREAMS / 2 * SAY).then_some(())
    });
    for (end, reads) in called.values() {
        assert_eq!(end.heard, if *reads { SAY } else { 0 });
    }
    // Those that weren't read may still be.
    let slow = called.values_mut().filter(|(_, reads)| !reads);
    let mut slow: Vec<_> = slow.map(|(end, _)| end).collect();
    pair.until(|pair| {
        for end in &mut slow {
            end.turn(pair);
        }
        while let Some(event) = pair.hosts[0].poll_event() {
            if let HostEvent::Writable(stream) = event {
                calling.get_mut(&stream).unwrap().turn(pair);
            }
        }
        slow.iter().all(|end| end.heard == SAY).then_some(())
    });
}

#[test]
fn more_callers_than_streams_are_not_answered_and_come_again() {
    let mut pair = Pair::with(FAIR, 64 << 20, 40);
    pair.hosts[0] = thicket_core::Host::new(&config(1, 64 << 20, 400));
    for _ in 0..100 {
        pair.hosts[0].connect(pair.now, address(0), at(1, 80)).unwrap();
    }
    let mut accepted = 0;
    pair.until(|pair| {
        while let Some(event) = pair.hosts[1].poll_event() {
            match event {
                HostEvent::Incoming { stream, .. } => {
                    assert!(pair.hosts[1].accept(stream));
                    accepted += 1;
                }
                // Done with it: room for another.
                HostEvent::Connected(stream) => pair.hosts[1].abort(stream),
                _ => {}
            }
            assert!(pair.hosts[1].stats().streams <= 40);
        }
        (accepted == 100).then_some(())
    });
    assert!(pair.hosts[1].stats().overflown > 0);
}
