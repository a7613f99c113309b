//! Links between neighbours: their keys, where they lead, and the labels on them.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use lab::Lab;
use lab::orders::{PATH, frame, ip, link_keys, rekey, remote, turned};
use lab::packets::*;
use lab::relay::*;
use thicket_core::*;

#[test]
fn a_link_frame_is_read_once_and_a_new_address_is_only_reported() {
    let mut lab = Lab::relay();
    lab.command(VIEWER, frame(NEAR, b"\x01hello"));
    let (_, _, sealed) = lab.wire.pop().unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut bad = sealed.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        lab.receive(remote(VIEWER), RELAY, &bad);
    }
    assert_eq!(lab.told(RELAY, is_frame), 0);
    // From another source: read, and the address reported, not taken.
    lab.receive(remote(GATEWAY), RELAY, &sealed);
    lab.receive(remote(VIEWER), RELAY, &sealed);
    assert_eq!((lab.told(RELAY, is_frame), lab.told(RELAY, is_roaming)), (1, 1));
    assert_eq!(lab.drops(RELAY, DropReason::Replayed), 1);
}

/// A frame of the viewer's under its newest keys.
fn frame_of(lab: &mut Lab) -> Vec<u8> {
    lab.command(VIEWER, frame(NEAR, b"\x01hello"));
    lab.wire.pop().unwrap().2
}

fn is_frame(event: &Event) -> bool {
    matches!(event, Event::LinkFrame { .. })
}

fn is_roaming(event: &Event) -> bool {
    matches!(event, Event::LinkRoamed { .. })
}

/// New keys of the link between viewer and relay, as a fresh handshake makes them: the viewer's are confirmed, the relay's aren't.
fn shake_again(lab: &mut Lab, generation: u32) {
    for (node, to, child) in [(VIEWER, RELAY, true), (RELAY, VIEWER, false)] {
        let keys = link_keys(NEAR, remote(to), child);
        let keys = LinkKeys {
            generation: Generation(generation),
            receive_index: keys.receive_index + 100 * generation,
            send_index: keys.send_index + 100 * generation,
            confirmed: child,
            ..keys
        };
        lab.command(node, Command::LinkInstall(keys));
    }
}

/// Where the relay sends what goes to the viewer.
fn relays_to(lab: &mut Lab) -> Remote {
    let mut tx = TxBatch::default();
    lab.nodes[RELAY].command(lab.now, frame(NEAR, b"\x01x"), &mut tx);
    tx.ready().0[0].remote
}

#[test]
fn new_keys_do_not_move_a_live_link_but_ask_for_a_probe_of_the_address_that_they_came_from() {
    let mut lab = Lab::relay();
    shake_again(&mut lab, 7);
    let sealed = frame_of(&mut lab);
    lab.receive(remote(GATEWAY), RELAY, &sealed);
    let from = remote(GATEWAY);
    let told: Vec<_> = lab.events[RELAY].iter().filter(|e| !is_frame(e)).collect();
    let (link, generation) = (LinkId(1), Generation(7));
    assert_eq!(
        told,
        [
            &Event::LinkConfirmed { link, generation, from },
            &Event::LinkRoamed { link, from }
        ]
    );
    assert_eq!(relays_to(&mut lab), remote(VIEWER), "until the probe is answered");
    lab.command(RELAY, Command::LinkMove { link, remote: from });
    assert_eq!(relays_to(&mut lab), from);
}

#[test]
fn a_link_that_was_never_up_is_where_its_first_frame_came_from() {
    let mut lab = Lab::relay();
    lab.command(RELAY, Command::LinkRemove { link: LinkId(1) });
    shake_again(&mut lab, 7);
    let sealed = frame_of(&mut lab);
    lab.receive(remote(GATEWAY), RELAY, &sealed);
    assert_eq!(relays_to(&mut lab), remote(GATEWAY));
    assert_eq!(lab.told(RELAY, is_roaming), 0);
}

#[test]
fn a_parent_answers_from_the_address_that_its_child_called_and_a_child_as_its_host_routes() {
    let mut lab = Lab::relay();
    let at = |node: usize, local: u8| Remote {
        local: Some([192, 0, 2, local].into()),
        ..remote(node)
    };
    let sealed = frame_of(&mut lab);
    let from = at(VIEWER, 33);
    lab.receive(from, RELAY, &sealed);
    assert!(lab.events[RELAY].contains(&Event::LinkRoamed {
        link: LinkId(NEAR),
        from
    }));
    let link = LinkId(NEAR);
    lab.command(RELAY, Command::LinkMove { link, remote: from });
    assert_eq!(relays_to(&mut lab), from);
    // The same at the child, which may get another address of its own at any time.
    lab.command(RELAY, frame(NEAR, b"\x01x"));
    let (_, _, sealed) = lab.wire.pop().unwrap();
    lab.receive(at(RELAY, 44), VIEWER, &sealed);
    assert_eq!(lab.told(VIEWER, is_roaming), 0);
    let known = |e: &Event| matches!(e, Event::LinkFrame { from, .. } if *from == remote(RELAY));
    assert_eq!(lab.told(VIEWER, known), 1);
}

#[test]
fn link_keys_past_their_life_seal_and_open_nothing_while_labels_live_on() {
    let mut lab = Lab::relay();
    let late = frame_of(&mut lab);
    let start = lab.now;
    lab.now = start + Duration::from_secs(180);
    let sealed = frame_of(&mut lab);
    lab.receive(remote(VIEWER), RELAY, &sealed);
    assert_eq!(lab.told(RELAY, is_frame), 1);
    lab.now = start + Duration::from_secs(181);
    lab.events[RELAY].clear();
    lab.receive(remote(VIEWER), RELAY, &late);
    assert_eq!((lab.events[RELAY].len(), lab.drops(RELAY, DropReason::NoKey)), (0, 1));
    lab.command(VIEWER, frame(NEAR, b"\x01x"));
    assert_eq!((lab.wire.len(), lab.drops(VIEWER, DropReason::NoKey)), (0, 1));
    // Hop keys die with their labels only: what the ends seal under keys of their own goes through.
    lab.command(VIEWER, rekey(1, 1, PATH, true));
    lab.command(GATEWAY, rekey(1, 1, turned(PATH), true));
    lab.tun_in(VIEWER, tcp(ip(1), ip(9), (4000, 554), 1, PSH | ACK, b"x"));
    lab.run();
    assert_eq!(lab.tun[GATEWAY].len(), 1);
    // And new link keys serve the link again.
    shake_again(&mut lab, 7);
    let sealed = frame_of(&mut lab);
    lab.receive(remote(VIEWER), RELAY, &sealed);
    assert_eq!(lab.told(RELAY, |e| matches!(e, Event::LinkConfirmed { .. })), 1);
}

#[test]
fn a_relay_tells_which_labels_it_has_freed() {
    let mut lab = Lab::relay();
    lab.tun_in(VIEWER, tcp(ip(1), ip(9), (4000, 554), 1, PSH | ACK, b"x"));
    lab.run();
    let freed = |lab: &mut Lab, after: u64| {
        lab.now = Instant::from_micros(1_000_000) + Duration::from_secs(after);
        lab.later(Duration::from_secs(0));
        let told = |e: &Event| matches!(e, Event::LabelExpired { .. });
        (0..3).map(|node| lab.told(node, told)).sum::<usize>()
    };
    // Nothing ever came back from the gateway; what leads to it has carried a packet; labels of the ends stay.
    assert_eq!(freed(&mut lab, 19), 0);
    assert_eq!(freed(&mut lab, 21), 1);
    assert_eq!(freed(&mut lab, 598), 1);
    assert_eq!(freed(&mut lab, 601), 2);
    assert!(lab.events[RELAY].contains(&Event::LabelExpired {
        link: LinkId(FAR),
        label: Label(2001)
    }));
}
