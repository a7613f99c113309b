//! How streams end when nobody says goodbye, and what an idle or unwilling far end costs.

use crate::line::*;
use crate::talk::{End, byte, talk};
use thicket_core::{Closed, Duration, HostError, HostEvent};

fn closed(pair: &mut Pair, host: usize) -> Closed {
    pair.until(|pair| match pair.hosts[host].poll_event()? {
        HostEvent::Closed { reason, .. } => Some(reason),
        _ => None,
    })
}

fn calling(pair: &mut Pair) -> thicket_core::StreamId {
    pair.hosts[0].connect(pair.now, address(0), at(1, 80)).unwrap();
    match pair.event(1) {
        HostEvent::Incoming { stream, .. } => stream,
        event => panic!("{event:?}"),
    }
}

#[test]
fn an_aborted_stream_is_reset_and_what_came_before_can_still_be_read() {
    let mut pair = Pair::new(FAIR);
    let (calling, called) = pair.open();
    pair.hosts[0].write(calling, b"last words");
    pair.pass(1);
    pair.hosts[0].abort(calling);
    assert_eq!(pair.event(1), HostEvent::Readable(called));
    assert_eq!(closed(&mut pair, 1), Closed::Reset);
    let mut words = [0; 20];
    assert_eq!(pair.hosts[1].readable(called), b"last words");
    assert_eq!(pair.hosts[1].read(called, &mut words), 10);
    assert!(pair.hosts[1].is_read_out(called));
    assert_eq!((pair.hosts[0].poll_event(), pair.hosts[1].poll_event()), (None, None));
    assert_eq!(pair.hosts.each_ref().map(|host| host.stats().streams), [0, 0]);
}

#[test]
fn a_reset_is_heeded_while_the_window_is_full() {
    let mut pair = Pair::new(FAIR);
    let (calling, called) = pair.open();
    while pair.hosts[0].write(calling, &[7; 10_000]) > 0 {
        pair.pass(2);
    }
    pair.hosts[1].abort(called);
    assert_eq!(closed(&mut pair, 0), Closed::Reset);
}

#[test]
fn a_refused_caller_learns_it_at_once_and_one_whose_device_is_away_too() {
    let mut pair = Pair::new(FAIR);
    let stream = calling(&mut pair);
    pair.hosts[1].refuse(stream);
    assert_eq!(closed(&mut pair, 0), Closed::Refused);
    let stream = calling(&mut pair);
    pair.hosts[1].unreachable(stream);
    assert_eq!(closed(&mut pair, 0), Closed::Unreachable);
    assert!(!pair.hosts[1].accept(stream));
    assert_eq!(pair.hosts.each_ref().map(|host| host.stats().streams), [0, 0]);
}

#[test]
fn a_held_caller_who_repeats_his_syn_is_one_and_is_answered_when_he_is_accepted() {
    let mut pair = Pair::new(FAIR);
    let stream = calling(&mut pair);
    pair.pass(20);
    assert!(pair.packets > 3, "{} packets", pair.packets);
    assert_eq!((pair.hosts[1].poll_event(), pair.hosts[1].stats().held), (None, 1));
    assert_eq!(pair.hosts[1].stats().committed, 0, "who isn't answered has no buffers");
    assert!(pair.hosts[1].accept(stream));
    assert!(matches!(pair.event(0), HostEvent::Connected(_)));
    assert_eq!(pair.event(1), HostEvent::Connected(stream));
}

#[test]
fn a_caller_who_gives_up_is_no_longer_held() {
    let mut pair = Pair::new(FAIR);
    let stream = calling(&mut pair);
    assert_eq!(closed(&mut pair, 0), Closed::TimedOut);
    assert_eq!(closed(&mut pair, 1), Closed::Reset, "it says so");
    assert!(!pair.hosts[1].accept(stream));
    assert_eq!(pair.hosts[1].stats().held, 0);

    let stream = calling(&mut pair);
    pair.cut = true;
    assert_eq!(closed(&mut pair, 1), Closed::TimedOut);
    assert!(!pair.hosts[1].accept(stream));
}

#[test]
fn nobody_answering_ends_a_call_after_two_minutes() {
    let mut pair = Pair::new(FAIR);
    pair.cut = true;
    let began = pair.now;
    pair.hosts[0].connect(pair.now, address(0), at(1, 80)).unwrap();
    assert_eq!(closed(&mut pair, 0), Closed::TimedOut);
    assert!((100..150).contains(&((pair.now - began).as_millis() / 1_000)));
}

#[test]
fn a_full_window_stops_the_sender_for_as_long_as_it_takes_and_no_byte_is_lost() {
    for lost in [0, 20] {
        let mut pair = Pair::new(FAIR);
        let (calling, called) = pair.open();
        let mut said = 0;
        loop {
            let piece: Vec<u8> = (said..said + 10_000).map(|at| byte(at, 0)).collect();
            let taken = pair.hosts[0].write(calling, &piece);
            said += taken;
            pair.pass(1);
            if taken == 0 {
                break;
            }
        }
        let stats = pair.hosts[1].stats();
        assert!(stats.buffered > 0 && stats.buffered <= stats.committed);
        let packets = pair.packets;
        // A quarter of an hour without an answer would end it; a window that stays closed is an answer.
        pair.pass(2 * 3_600);
        let probes = pair.packets - packets;
        assert!((200..1_000).contains(&probes), "{probes} probes and answers");
        while pair.hosts[0].poll_event().is_some() {}
        pair.weather.lost = lost;
        let mut heard = 0;
        pair.until(|pair| {
            let mut buffer = [0; 5_000];
            loop {
                let count = pair.hosts[1].read(called, &mut buffer);
                if count == 0 {
                    break;
                }
                for &got in &buffer[..count] {
                    assert_eq!(got, byte(heard, 0));
                    heard += 1;
                }
            }
            (heard == said).then_some(())
        });
        assert_eq!(pair.event(0), HostEvent::Writable(calling), "there is room again");
    }
}

#[test]
fn a_window_that_opens_again_is_heeded_when_both_ends_have_finished() {
    let mut pair = Pair::new(FAIR);
    let (calling, called) = pair.open();
    pair.hosts[0].finish(calling);
    pair.pass(1);
    let mut said = 0;
    loop {
        let taken = pair.hosts[1].write(called, &[7; 10_000]);
        said += taken;
        pair.pass(1);
        if taken == 0 {
            break;
        }
    }
    pair.hosts[1].finish(called);
    pair.pass(1);
    let began = pair.now;
    let mut heard = 0;
    pair.until(|pair| {
        heard += pair.hosts[0].read(calling, &mut vec![0; said]);
        pair.hosts[0].is_read_out(calling).then_some(())
    });
    assert_eq!(heard, said);
    // Of the line's own time: nobody waited for a probe.
    assert!(
        pair.now.since(began) < Duration::from_secs(1),
        "{:?} {said}",
        pair.now.since(began)
    );
    assert_eq!(closed(&mut pair, 1), Closed::Done);
}

#[test]
fn an_idle_stream_stays_and_a_dead_far_end_is_found() {
    let mut pair = Pair::new(FAIR);
    let (calling, called) = pair.open();
    let packets = pair.packets;
    pair.pass(24 * 3_600);
    assert!(pair.packets - packets < 24 * 3_600 / 75 * 4 + 10);
    let mut ends = [End::new(0, calling, 10, 10), End::new(1, called, 10, 10)];
    talk(&mut pair, &mut ends);

    for busy in [false, true] {
        let (calling, _) = pair.open();
        pair.cut = true;
        if busy {
            pair.hosts[0].write(calling, b"anybody there?");
        }
        let began = pair.now;
        assert_eq!(closed(&mut pair, 0), Closed::TimedOut);
        assert_eq!(closed(&mut pair, 1), Closed::TimedOut);
        let seconds = (pair.now - began).as_millis() / 1_000;
        assert!((600..1_200).contains(&seconds), "{seconds} s");
        pair.cut = false;
    }
    assert_eq!(pair.hosts.each_ref().map(|host| host.stats().committed), [0, 0]);
}

#[test]
fn a_line_that_was_away_for_minutes_costs_nothing_but_time() {
    let mut pair = Pair::new(FAIR);
    let (calling, called) = pair.open();
    pair.hosts[0].write(calling, &[1; 1_000]);
    pair.pass(1);
    pair.cut = true;
    pair.hosts[0].write(calling, &[2; 1_000]);
    pair.pass(600);
    pair.cut = false;
    pair.until(|pair| (pair.hosts[1].readable(called).len() == 2_000).then_some(()));
}

#[test]
fn a_closed_stream_says_the_rest_in_the_background() {
    let mut pair = Pair::new(FAIR);
    let (calling, called) = pair.open();
    assert_eq!(pair.hosts[0].write(calling, &[9; 50_000]), 50_000);
    pair.hosts[0].close(calling);
    let mut heard = 0;
    pair.until(|pair| {
        heard += pair.hosts[1].read(called, &mut [0; 9_000]);
        (heard == 50_000 && pair.hosts[1].is_read_out(called)).then_some(())
    });
    pair.hosts[1].finish(called);
    assert_eq!(closed(&mut pair, 1), Closed::Done);
    assert_eq!(pair.hosts[0].stats().streams, 0);

    // Whoever goes on talking to nobody is told.
    let (calling, called) = pair.open();
    pair.hosts[0].close(calling);
    pair.pass(1);
    pair.hosts[1].write(called, b"hello?");
    assert_eq!(closed(&mut pair, 1), Closed::Reset);
    // Whoever is silent is forgotten.
    let (calling, _) = pair.open();
    pair.hosts[0].close(calling);
    pair.pass(90);
    assert_eq!(pair.hosts[0].stats().streams, 0);
    assert_eq!(pair.hosts[0].poll_event(), None);
}

#[test]
fn a_stream_whose_flow_policy_cut_is_over() {
    let mut pair = Pair::new(FAIR);
    let (calling, called) = pair.open();
    let (own, peer) = pair.hosts[1].ends(called).unwrap();
    assert_eq!(pair.hosts[0].ends(calling), Some((peer, own)));
    pair.hosts[1].cut(pair.now, own, peer);
    assert_eq!(closed(&mut pair, 1), Closed::Reset);
    pair.hosts[1].cut(pair.now, own, peer);
    assert_eq!(pair.hosts[1].poll_event(), None);
}

#[test]
fn what_cannot_be_called_is_an_error() {
    let mut pair = Pair::with(FAIR, 1 << 20, 2);
    let host = &mut pair.hosts[0];
    let v6 = "[fd00::1]:80".parse().unwrap();
    assert_eq!(host.connect(pair.now, address(0), v6), Err(HostError::MixedFamilies));
    assert_eq!(host.connect(pair.now, address(0), at(1, 0)), Err(HostError::NoAddress));
    host.connect(pair.now, address(0), at(1, 80)).unwrap();
    host.connect(pair.now, address(0), at(1, 80)).unwrap();
    assert_eq!(
        host.connect(pair.now, address(0), at(1, 80)),
        Err(HostError::TooManyStreams)
    );
}
