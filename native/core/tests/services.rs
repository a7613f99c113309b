//! The user-space host behind the core: what a shell asks about policy, and streams that pass through three nodes.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use lab::Lab;
use lab::orders::{DEVICE, calls, ip, long_ip, offers, service};
use lab::relay::*;
use thicket_core::wire::protocol;
use thicket_core::*;

/// Hands what each end's host sends to its core, and the other way round, until nothing moves.
fn carry(lab: &mut Lab, hosts: &mut [(usize, Host)]) {
    let mut packet = Vec::new();
    loop {
        let mut moved = false;
        for (node, host) in hosts.iter_mut() {
            while let Some((own, peer)) = lab.nodes[*node].poll_cut() {
                host.cut(lab.now, own, peer);
            }
            for (vnet, packet) in std::mem::take(&mut lab.tun[*node]) {
                host.handle_packet(lab.now, vnet, &packet);
                moved = true;
            }
            while let Some(vnet) = host.poll_packet(lab.now, &mut packet) {
                lab.tun_in(*node, (vnet, packet.clone()));
                moved = true;
            }
        }
        moved |= !lab.run().is_empty();
        if !moved {
            return;
        }
    }
}

fn host(seed: u8) -> Host {
    Host::new(&HostConfig {
        seed: [seed; 32],
        mtu: 1_500,
        budget: 8 << 20,
        streams: 64,
    })
}

#[test]
fn a_stream_passes_through_the_path_and_ends_when_policy_does() {
    let mut lab = Lab::probed_relay();
    lab.nodes[GATEWAY].tell_cuts();
    let mut hosts = [(VIEWER, host(1)), (GATEWAY, host(2))];
    let calling = hosts[0].1.connect(lab.now, ip(1), (ip(9), 554).into()).unwrap();
    carry(&mut lab, &mut hosts);
    let Some(HostEvent::Incoming { stream, own, peer }) = hosts[1].1.poll_event() else {
        panic!("no call")
    };
    assert_eq!((own, peer.ip()), ((ip(77), 554).into(), ip(88)));
    let core = &lab.nodes[GATEWAY];
    let found = core.service_of(own.ip(), peer.ip(), protocol::TCP, own.port());
    assert_eq!(found, Some((SessionId(CALLED), service(protocol::TCP, 554))));
    assert!(hosts[1].1.accept(stream));
    carry(&mut lab, &mut hosts);

    let said: Vec<u8> = (0..200_000u32).map(|at| (at >> 3) as u8).collect();
    let (mut done, mut heard) = (0, Vec::new());
    let mut buffer = vec![0; 30_000];
    while heard.len() < said.len() {
        done += hosts[0].1.write(calling, &said[done..]);
        carry(&mut lab, &mut hosts);
        let count = hosts[1].1.read(stream, &mut buffer);
        assert!(count > 0);
        heard.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(heard, said);
    assert_eq!(hosts[0].1.stats().resent, 0);

    // A policy that still has the service cuts nothing.
    lab.policy(GATEWAY, CALLED, offers(vec![service(protocol::TCP, 554)]));
    assert_eq!(lab.nodes[GATEWAY].poll_cut(), None);
    lab.policy(GATEWAY, CALLED, offers(vec![service(protocol::TCP, 80)]));
    carry(&mut lab, &mut hosts);
    let closed = std::iter::from_fn(|| hosts[1].1.poll_event()).last();
    let reason = Closed::Reset;
    assert_eq!(closed, Some(HostEvent::Closed { stream, reason }));
    hosts[0].1.write(calling, b"still there?");
    carry(&mut lab, &mut hosts);
    let closed = std::iter::from_fn(|| hosts[0].1.poll_event()).last();
    let stream = calling;
    assert_eq!(
        closed,
        Some(HostEvent::Closed { stream, reason }),
        "the core says that it was refused"
    );
}

#[test]
fn a_call_that_policy_refuses_is_reset_before_any_host_hears_of_it() {
    let mut lab = Lab::relay();
    let mut hosts = [(VIEWER, host(1)), (GATEWAY, host(2))];
    let stream = hosts[0].1.connect(lab.now, ip(1), (ip(9), 22).into()).unwrap();
    carry(&mut lab, &mut hosts);
    let reason = Closed::Refused;
    assert_eq!(hosts[0].1.poll_event(), Some(HostEvent::Closed { stream, reason }));
    assert_eq!(hosts[1].1.poll_event(), None);
}

#[test]
fn services_are_found_by_both_addresses_and_devices_only_by_those_who_may_ask() {
    let mut lab = Lab::relay();
    let core = &lab.nodes[GATEWAY];
    let find = |own, peer, number, port| core.service_of(own, peer, number, port).map(|(_, s)| s.target.port());
    assert_eq!(find(ip(77), ip(88), protocol::UDP, 5_000), Some(5_000));
    for (own, peer, number, port) in [
        (ip(77), ip(88), protocol::TCP, 5_000),
        (ip(77), ip(88), protocol::UDP, 5_001),
        (ip(77), ip(1), protocol::UDP, 5_000),
        (long_ip(77), long_ip(88), protocol::UDP, 5_000),
    ] {
        assert_eq!(find(own, peer, number, port), None);
    }
    assert_eq!(core.device_of(ip(77), ip(88)), Some(DEVICE));
    assert_eq!(core.device_of(ip(77), ip(1)), None);
    assert_eq!(lab.nodes[VIEWER].device_of(ip(1), ip(9)), None, "it offers nothing");
    let own = Service {
        target: (DEVICE, 0).into(),
        ..service(protocol::TCP, 80)
    };
    let policy = Policy {
        echo: true,
        ..offers(vec![own])
    };
    lab.policy(GATEWAY, CALLED, policy);
    assert_eq!(
        lab.nodes[GATEWAY].device_of(ip(77), ip(88)),
        None,
        "no device, but the program itself"
    );
    lab.policy(GATEWAY, CALLED, offers(vec![service(protocol::TCP, 80)]));
    assert_eq!(lab.nodes[GATEWAY].device_of(ip(77), ip(88)), None, "no echoes");
}

#[test]
fn cuts_are_told_of_flows_that_go_with_their_session_and_only_to_whoever_asks() {
    for asks in [false, true] {
        let mut lab = Lab::relay();
        if asks {
            lab.nodes[VIEWER].tell_cuts();
        }
        let mut hosts = [(VIEWER, host(1))];
        let stream = hosts[0].1.connect(lab.now, ip(1), (ip(9), 554).into()).unwrap();
        let ends = hosts[0].1.ends(stream);
        carry(&mut lab, &mut hosts);
        lab.policy(VIEWER, CALLS, calls());
        assert_eq!(lab.nodes[VIEWER].poll_cut(), None, "they may still be called");
        let session = SessionId(CALLS);
        lab.command(VIEWER, Command::SessionRemove { session });
        assert_eq!(lab.nodes[VIEWER].poll_cut(), ends.filter(|_| asks));
        assert_eq!(lab.nodes[VIEWER].poll_cut(), None);
    }
}
