//! RTSP against a viewer that keeps to no rule: whatever it sends, it learns no address of the LAN, and nothing sets anything up unread.

#![allow(clippy::unwrap_used, clippy::panic)]

mod camera;
mod deeds;
#[path = "../lab/mod.rs"]
mod lab;
mod world;

use deeds::{Deed, WORDS, deeds, run};
use lab::Lab;
use lab::cameras::*;
use lab::orders::DEVICE as CAMERA;
use lab::packets::*;
use proptest::prelude::*;
use thicket_core::DropReason;
use world::{NEEDLES, World};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn whatever_a_viewer_sends_it_learns_no_address_of_the_lan(deeds in deeds()) {
        let mut world = World::new();
        for deed in &deeds {
            run(&mut world, deed);
            if world.camera.reset {
                world.connect();
            }
        }
        prop_assert_eq!(world.seen.address(), None);
    }
}

/// One after the other, the last of them talking.
fn after(deeds: &[Deed]) -> World {
    let mut world = World::new();
    for deed in deeds {
        run(&mut world, deed);
    }
    world
}

#[test]
fn the_camera_of_these_tests_tells_its_addresses_and_an_honest_talk_works() {
    let world = after(&[Deed::Mean(0), Deed::Mean(1), Deed::Mean(2), Deed::Mean(8), Deed::Talk]);
    let said = String::from_utf8_lossy(&world.camera.said).into_owned();
    assert!(NEEDLES.iter().all(|needle| said.contains(needle)));
    assert_eq!(world.camera.acked, world.camera.said.len(), "all of it arrived");
    assert!(world.seen.0.len() > 500 && !world.camera.reset);
    assert_eq!(world.seen.address(), None);
}

#[test]
fn what_must_not_pass_unread_cuts_the_connection_at_both_ends_also_behind_interleaved_media() {
    for bad in [5, 6, 9] {
        let mut world = after(&[Deed::Mean(2), Deed::Talk]);
        assert!(!world.camera.reset);
        let before = world.lab.drops(GATEWAY, DropReason::Rtsp);
        let ack = world.camera.start.wrapping_add(world.camera.sent as u32);
        let packet = world
            .player
            .tcp(true, world.camera.next(), ack, ACK | PSH, WORDS[bad].as_bytes());
        world.lab.hand_in(ANN, packet);
        let (camera, client) = (world.lab.written(GATEWAY).0, world.lab.written(ANN).0);
        assert_eq!((camera.len(), camera[0].flags & RST), (1, RST), "{bad}");
        assert_eq!((client.len(), client[0].flags & RST), (1, RST), "{bad}");
        assert_eq!(world.lab.drops(GATEWAY, DropReason::Rtsp), before + 1);
    }
}

#[test]
fn a_connection_met_in_its_middle_sets_nothing_up_however_the_words_are_written_or_cut() {
    for bad in [1, 2, 4, 5, 6, 7, 8] {
        for cut in [1, 3, 6, 200] {
            let mut world = after(&[Deed::Mean(10), Deed::Talk, Deed::Forget, Deed::Talk]);
            // The camera says where it is.
            world.camera_sends(world.camera.sent, 0);
            let start = world.camera.heard.len();
            let pieces: Vec<_> = WORDS[bad].as_bytes().chunks(cut).collect();
            // The second piece first.
            let mut order: Vec<_> = (0..pieces.len()).collect();
            if order.len() > 1 {
                order.swap(0, 1);
            }
            for index in order {
                let seq = world.client_at(start + index * cut);
                world.send(
                    seq,
                    world.camera.start.wrapping_add(world.camera.sent as u32),
                    ACK,
                    pieces[index],
                    true,
                );
            }
            let heard = String::from_utf8_lossy(&world.camera.heard[start..]).to_ascii_uppercase();
            assert!(!heard.contains(' '), "{heard}");
            assert!(world.camera.reset, "{bad} in pieces of {cut}");
        }
    }
}

#[test]
fn words_read_once_are_sent_again_as_they_were_read() {
    // Behind a request that is lost behind the gateway comes another with the same numbers.
    let innocent = format!("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nX: {}\r\n\r\n", "-".repeat(150));
    for forgotten in [false, true] {
        let mut world = World::new();
        if forgotten {
            run(&mut world, &Deed::Forget);
            world.camera_sends(0, 0);
        }
        let (seq, ack) = (world.client_at(0), world.camera.start);
        world.send(seq, ack, ACK | PSH, innocent.as_bytes(), false);
        world.send(seq, ack, ACK | PSH, WORDS[4].as_bytes(), true);
        let heard = String::from_utf8_lossy(&world.camera.heard).into_owned();
        assert!(
            heard.starts_with("OPTIONS") && !heard.contains("destination"),
            "{heard}"
        );
    }
}

#[test]
fn a_false_acknowledgement_gets_nobody_what_was_rewritten_before() {
    let mut world = after(&[Deed::Mean(1)]);
    let words = world.words.clone();
    world.send(world.client_at(0), world.camera.start, ACK | PSH, &words, true);
    let total = world.camera.said.len();
    world.camera_sends(0, total);
    // In a segment that the camera doesn't take: it sends all of it again.
    let ack = world.camera.start.wrapping_add(total as u32);
    world.send(world.camera.next().wrapping_sub(1 << 29), ack, ACK, b"", true);
    assert_eq!(world.camera.acked, 0);
    for at in 0..total {
        world.camera_sends(at, total);
    }
    assert_eq!(world.seen.address(), None);
}

#[test]
fn a_reset_carries_no_words() {
    let mut world = World::new();
    let packet = world.player.tcp(
        false,
        world.player.answered,
        world.player.asked,
        RST | ACK,
        b"at 192.168.1.20",
    );
    world.lab.hand_in(GATEWAY, packet);
    let (got, _) = world.lab.written(ANN);
    assert_eq!((got[0].flags & RST, got[0].payload.len()), (RST, 0));
}

#[test]
fn media_tell_no_address_on_whichever_channel_or_port() {
    let world = after(&[Deed::Mean(3), Deed::Talk, Deed::Mean(8), Deed::Talk]);
    assert_eq!(
        (world.seen.address(), world.camera.acked),
        (None, world.camera.said.len())
    );
    assert!(world.camera.said.len() > 400);
    let lab = &mut Lab::cameras();
    let (_, id) = playing(lab, ANN, 5_001);
    lab.written(ANN);
    for (rtcp, port) in [(false, 40_000), (true, 40_001)] {
        lab.media(id, rtcp, (CAMERA, port), b"\x80\xca root@192.168.1.20");
    }
    let got: Vec<_> = lab.written(ANN).1.into_iter().map(|d| d.payload).collect();
    assert_eq!(got, [b"\x80\xca root@000.000.0.00"; 2].map(|b| b.to_vec()));
}
