//! UDP and echoes.

use crate::line::*;
use thicket_core::wire::{VnetHeader, gso};
use thicket_core::{Datagrams, Echo, HostEvent, Instant, Lost};

const NOW: Instant = Instant::from_micros(7);

/// Carries what one host sends to the other, as it is.
fn carry(pair: &mut Pair, from: usize) -> Vec<VnetHeader> {
    let (mut packet, mut seen) = (Vec::new(), Vec::new());
    while let Some(vnet) = pair.hosts[from].poll_packet(NOW, &mut packet) {
        pair.hosts[1 - from].handle_packet(NOW, vnet, &packet);
        seen.push(vnet);
    }
    seen
}

#[test]
fn datagrams_of_one_size_go_together_and_arrive_as_they_were() {
    let mut pair = Pair::new(FAIR);
    let own = std::net::SocketAddr::new(address(0), pair.hosts[0].open_datagrams(address(0)).unwrap());
    let peer = at(1, 53);
    for length in [500, 500, 500, 20, 7, 0, 1_200] {
        assert!(pair.hosts[0].send_datagram(own, peer, &vec![length as u8; length]));
    }
    let seen = carry(&mut pair, 0);
    assert_eq!((seen[0].gso_type, seen[0].gso_size), (gso::UDP_L4, 500));
    let (mut bytes, mut lengths) = (Vec::new(), Vec::new());
    while let Some(Datagrams {
        own: to,
        peer: from,
        segment,
    }) = pair.hosts[1].poll_datagrams(&mut bytes)
    {
        assert_eq!((to, from), (peer, own));
        if bytes.is_empty() {
            lengths.push(0);
        }
        for datagram in bytes.chunks(segment) {
            assert!(datagram.iter().all(|&byte| byte == datagram.len() as u8));
            lengths.push(datagram.len());
        }
    }
    assert_eq!(lengths, [500, 500, 500, 20, 7, 0, 1_200]);
    assert!(
        !pair.hosts[0].send_datagram(own, peer, &[0; 65_508]),
        "no datagram is so long"
    );
}

#[test]
fn datagrams_that_nobody_takes_are_lost_beyond_a_bound() {
    let mut pair = Pair::new(FAIR);
    let mut sent = 0;
    while pair.hosts[0].send_datagram(at(0, 9), at(1, 9), &[1; 1_000]) {
        sent += 1;
    }
    assert!((100..10_000).contains(&sent));
    carry(&mut pair, 0);
    assert_eq!(pair.hosts[0].stats().overflown, 1);
    assert!(
        pair.hosts[0].send_datagram(at(0, 9), at(1, 9), &[1; 1_000]),
        "there is room again"
    );
}

#[test]
fn a_sender_learns_what_became_of_a_datagram() {
    let mut pair = Pair::new(FAIR);
    for reason in [Lost::Refused, Lost::Unreachable, Lost::TooLong(1_300)] {
        pair.hosts[1].lose_datagram(at(1, 53), at(0, 5_000), reason);
        carry(&mut pair, 1);
        let (own, peer) = (at(0, 5_000), at(1, 53));
        assert_eq!(
            pair.hosts[0].poll_event(),
            Some(HostEvent::DatagramLost { own, peer, reason })
        );
    }
}

#[test]
fn ports_are_given_out_once_until_they_are_given_back() {
    let mut pair = Pair::new(FAIR);
    let host = &mut pair.hosts[0];
    let mut ports: Vec<u16> = Vec::new();
    while let Ok(port) = host.open_datagrams(address(0)) {
        ports.push(port);
    }
    assert_eq!(ports.len(), 28_232);
    host.close_datagrams(at(0, ports[77]));
    assert_eq!(host.open_datagrams(address(0)), Ok(ports[77]));
    ports.sort_unstable();
    ports.dedup();
    assert_eq!((ports.len(), ports[0]), (28_232, 32_768));
}

#[test]
fn echoes_are_for_the_shell_and_its_replies_find_the_asker() {
    for (own, peer) in [("198.18.0.2", "198.18.0.1"), ("fd00::2", "fd00::1")] {
        let mut pair = Pair::new(FAIR);
        let echo = Echo {
            own: own.parse().unwrap(),
            peer: peer.parse().unwrap(),
            id: 7,
            sequence: 9,
            data: b"are you there?".to_vec(),
        };
        let (kind, reply) = if echo.own.is_ipv4() { (8, 0) } else { (128, 129) };
        pair.hosts[0].reply_echo(&Echo {
            own: echo.peer,
            peer: echo.own,
            ..echo.clone()
        });
        let mut packet = Vec::new();
        let vnet = pair.hosts[0].poll_packet(NOW, &mut packet).unwrap();
        let at = packet.len() - 8 - echo.data.len();
        assert_eq!(packet[at], reply);
        packet[at] = kind;
        pair.hosts[1].handle_packet(NOW, vnet, &packet);
        assert_eq!(pair.hosts[1].poll_event(), Some(HostEvent::Echo(echo)));
    }
}
