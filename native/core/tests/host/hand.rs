//! A host and packets made by hand: what another kind of TCP would see of it, and do to it.

use crate::line::{address, at, config};
use std::net::SocketAddr;
use thicket_core::wire::{IpPacket, IpRepr, VnetHeader, gso, protocol};
use thicket_core::{Closed, Duration, Host, HostEvent, Instant, StreamId};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// A segment as it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seg {
    pub ports: (u16, u16),
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

pub fn write(from: SocketAddr, to: SocketAddr, seg: &Seg) -> Vec<u8> {
    let len = 20 + seg.options.len() + seg.payload.len();
    let mut packet = vec![0; 40];
    let repr = IpRepr {
        source: from.ip(),
        destination: to.ip(),
        protocol: protocol::TCP,
        traffic_class: 0,
        hop_limit: 64,
        identification: None,
    };
    let ip = repr.write(&mut packet, len);
    packet.truncate(ip);
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend(seg.seq.to_be_bytes());
    packet.extend(seg.ack.to_be_bytes());
    packet.extend([(((20 + seg.options.len()) / 4) << 4) as u8, seg.flags]);
    packet.extend(seg.window.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(&seg.options);
    packet.extend(&seg.payload);
    packet
}

pub fn read(packet: &[u8]) -> Seg {
    let ip = IpPacket::parse(packet).expect("a host sends whole packets");
    assert_eq!(ip.protocol(), protocol::TCP);
    let b = &packet[ip.transport_at..ip.end];
    let (half, word) = (
        |i: usize| u16::from_be_bytes([b[i], b[i + 1]]),
        |i: usize| u32::from_be_bytes(b[i..i + 4].try_into().unwrap()),
    );
    let header = usize::from(b[12] >> 4) * 4;
    Seg {
        ports: (half(0), half(2)),
        seq: word(4),
        ack: word(8),
        flags: b[13] & !8,
        window: half(14),
        options: b[20..header].to_vec(),
        payload: b[header..].to_vec(),
    }
}

/// The host, and the far end's side of one connection.
pub struct Hand {
    pub host: Host,
    pub now: Instant,
    pub own: SocketAddr,
    pub peer: SocketAddr,
}

impl Hand {
    pub fn new() -> Self {
        Self {
            host: Host::new(&config(1, 8 << 20, 100)),
            now: Instant::from_micros(5_000_000),
            own: at(0, 80),
            peer: at(1, 4_000),
        }
    }

    pub fn put(&mut self, seg: Seg) {
        let packet = write(self.peer, self.own, &seg);
        self.host.handle_packet(self.now, VnetHeader::default(), &packet);
    }

    /// All that the host sends now.
    pub fn take(&mut self) -> Vec<(VnetHeader, Seg)> {
        let (mut out, mut packet) = (Vec::new(), Vec::new());
        self.host.handle_timeout(self.now);
        while let Some(vnet) = self.host.poll_packet(self.now, &mut packet) {
            out.push((vnet, read(&packet)));
        }
        out
    }

    pub fn one(&mut self) -> Seg {
        let mut all = self.take();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0).1
    }

    pub fn wait(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    /// A connection that the far end began with these options: the stream, and the host's first number.
    pub fn open(&mut self, window: u16, options: &[u8]) -> (StreamId, u32) {
        self.put(Seg {
            seq: 999,
            flags: SYN,
            window,
            options: options.to_vec(),
            ..Seg::default()
        });
        let Some(HostEvent::Incoming { stream, .. }) = self.host.poll_event() else {
            panic!("no call")
        };
        assert!(self.take().is_empty(), "a caller is held");
        assert!(self.host.accept(stream));
        let answer = self.one();
        assert_eq!((answer.flags, answer.ack), (SYN | ACK, 1_000));
        let mss = 1_400 - 40;
        assert!(
            answer
                .options
                .windows(4)
                .any(|o| o == [2, 4, (mss >> 8) as u8, mss as u8])
        );
        self.put(Seg {
            seq: 1_000,
            ack: answer.seq.wrapping_add(1),
            flags: ACK,
            window,
            ..Seg::default()
        });
        assert_eq!(self.host.poll_event(), Some(HostEvent::Connected(stream)));
        (stream, answer.seq.wrapping_add(1))
    }
}

#[test]
fn segments_are_no_longer_than_the_far_end_wants_and_come_several_in_one() {
    for (mss, want) in [(500u16, 500), (9_000, 1_360)] {
        let mut hand = Hand::new();
        let [m0, m1] = mss.to_be_bytes();
        let (stream, first) = hand.open(60_000, &[2, 4, m0, m1]);
        hand.host.write(stream, &[5; 60_000]);
        let mut sent = 0;
        for _ in 0..50 {
            for (vnet, seg) in hand.take() {
                assert_eq!(seg.seq, first.wrapping_add(sent));
                sent += seg.payload.len() as u32;
                if seg.payload.len() > want {
                    assert_eq!((vnet.gso_type, usize::from(vnet.gso_size)), (gso::TCPV4, want));
                    assert_eq!(vnet.header_len, 40);
                }
            }
            hand.put(Seg {
                seq: 1_000,
                ack: first.wrapping_add(sent),
                flags: ACK,
                window: 60_000,
                ..Seg::default()
            });
        }
        assert_eq!(sent, 60_000);
    }
}

#[test]
fn a_far_end_of_little_room_still_gets_several_segments_at_once() {
    let mut hand = Hand::new();
    let (stream, first) = hand.open(4_000, &[2, 4, 3, 232]);
    hand.host.write(stream, &[5; 50_000]);
    let mut sent: u32 = 0;
    for _ in 0..5 {
        sent += hand.take().iter().map(|(_, seg)| seg.payload.len() as u32).sum::<u32>();
        hand.put(Seg {
            seq: 1_000,
            ack: first.wrapping_add(sent),
            flags: ACK,
            window: 4_000,
            ..Seg::default()
        });
    }
    let last: Vec<_> = hand.take().iter().map(|(_, seg)| seg.payload.len()).collect();
    assert_eq!(last, [1_000; 4]);
}

#[test]
fn a_far_end_that_takes_a_syns_window_for_a_scaled_one_gets_no_more_than_there_is() {
    let mut hand = Hand::new();
    let (stream, first) = hand.open(60_000, &[2, 4, 5, 80, 1, 3, 3, 7]);
    for count in 0..10 {
        hand.put(Seg {
            seq: 1_000 + count * 60_000,
            ack: first,
            flags: ACK,
            window: 60_000,
            payload: vec![3; 60_000],
            ..Seg::default()
        });
    }
    let stats = hand.host.stats();
    assert!(stats.buffered <= stats.committed && hand.host.read(stream, &mut [0; 1_000]) == 1_000);
}

#[test]
fn an_icmp_error_shortens_segments_only_if_it_is_about_one_that_is_under_way() {
    let mut hand = Hand::new();
    let (stream, first) = hand.open(60_000, &[2, 4, 5, 80]);
    let far = |hand: &mut Hand, seq: u32| {
        let mut quote = write(hand.own, hand.peer, &Seg { seq, ..Seg::default() });
        quote.truncate(28);
        let mut message = vec![3, 4, 0, 0, 0, 0];
        message.extend(640u16.to_be_bytes());
        message.extend(quote);
        let mut packet = vec![0; 20];
        let repr = IpRepr {
            source: address(1),
            destination: address(0),
            protocol: protocol::ICMP,
            traffic_class: 0,
            hop_limit: 64,
            identification: None,
        };
        repr.write(&mut packet, message.len());
        packet.extend(message);
        hand.host.handle_packet(hand.now, VnetHeader::default(), &packet);
    };
    let sizes = |hand: &mut Hand| -> Vec<u16> {
        hand.host.write(stream, &[1; 10_000]);
        let all = hand.take();
        let end = all
            .iter()
            .map(|(_, seg)| seg.seq.wrapping_add(seg.payload.len() as u32))
            .max();
        hand.put(Seg {
            seq: 1_000,
            ack: end.unwrap(),
            flags: ACK,
            window: 60_000,
            ..Seg::default()
        });
        all.iter().map(|(vnet, _)| vnet.gso_size).collect()
    };
    assert!(sizes(&mut hand).iter().all(|size| [0, 1_360].contains(size)));
    far(&mut hand, first.wrapping_add(1 << 20));
    assert!(sizes(&mut hand).contains(&1_360), "it was about nothing of ours");
    hand.host.write(stream, &[1; 2_000]);
    let under_way = hand.take()[0].1.seq;
    far(&mut hand, under_way);
    let end = under_way.wrapping_add(2_000);
    hand.put(Seg {
        seq: 1_000,
        ack: end,
        flags: ACK,
        window: 60_000,
        ..Seg::default()
    });
    let after = sizes(&mut hand);
    assert!(after.contains(&600) && !after.contains(&1_360), "{after:?}");
}

#[test]
fn first_numbers_and_ports_differ_from_call_to_call() {
    let mut hand = Hand::new();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50 {
        hand.host.connect(hand.now, address(0), at(1, 80)).unwrap();
        let syn = hand.one();
        assert_eq!((syn.flags, syn.ports.1), (SYN, 80));
        assert!(seen.insert(u64::from(syn.ports.0)) && seen.insert(1 << 40 | u64::from(syn.seq)));
    }
}

#[test]
fn what_belongs_to_no_connection_is_reset_and_a_reset_never_is() {
    let mut hand = Hand::new();
    hand.put(Seg {
        seq: 5,
        ack: 77,
        flags: ACK,
        ..Seg::default()
    });
    let reset = hand.one();
    assert_eq!((reset.flags, reset.seq), (RST, 77));
    hand.put(Seg {
        seq: 5,
        flags: FIN,
        ..Seg::default()
    });
    let reset = hand.one();
    assert_eq!((reset.flags, reset.ack), (RST | ACK, 6));
    hand.put(Seg {
        seq: 5,
        flags: RST,
        ..Seg::default()
    });
    assert!(hand.take().is_empty());
}

#[test]
fn a_reset_counts_only_where_the_next_byte_is() {
    let mut hand = Hand::new();
    let (stream, _) = hand.open(60_000, &[]);
    let reset = |seq: u32| Seg {
        seq,
        flags: RST,
        ..Seg::default()
    };
    hand.put(reset(900));
    hand.put(reset(1_000u32.wrapping_add(1 << 24)));
    assert_eq!(hand.host.poll_event(), None);
    hand.put(reset(1_000));
    assert_eq!(
        hand.host.poll_event(),
        Some(HostEvent::Closed {
            stream,
            reason: Closed::Reset
        })
    );
}

#[test]
fn whoever_finished_first_answers_a_fin_that_comes_again() {
    let mut hand = Hand::new();
    let (stream, first) = hand.open(60_000, &[]);
    hand.host.finish(stream);
    assert_eq!(hand.one().flags, FIN | ACK);
    let fin = Seg {
        seq: 1_000,
        ack: first.wrapping_add(1),
        flags: FIN | ACK,
        window: 60_000,
        ..Seg::default()
    };
    for _ in 0..3 {
        hand.put(fin.clone());
        let answer = hand.one();
        assert_eq!(
            (answer.flags, answer.seq, answer.ack),
            (ACK, first.wrapping_add(1), 1_001)
        );
        hand.wait(2_000);
    }
    assert_eq!(hand.host.stats().streams, 0);
    // A new connection of the same ports needn't wait.
    hand.put(Seg {
        seq: 50_000,
        flags: SYN,
        window: 60_000,
        ..Seg::default()
    });
    hand.host.poll_event();
    hand.host.poll_event();
    assert!(matches!(hand.host.poll_event(), Some(HostEvent::Incoming { .. })));
}

#[test]
fn losses_are_repaired_after_three_repeats_and_after_a_fifth_of_a_second_of_silence() {
    let mut hand = Hand::new();
    let (stream, first) = hand.open(60_000, &[2, 4, 5, 80]);
    let ack = |bytes: u32| Seg {
        seq: 1_000,
        ack: first.wrapping_add(bytes),
        flags: ACK,
        window: 60_000,
        ..Seg::default()
    };
    let mut acked = 0;
    for _ in 0..6 {
        hand.host.write(stream, &[5; 20_000]);
        acked += hand.take().iter().map(|(_, seg)| seg.payload.len() as u32).sum::<u32>();
        hand.wait(10);
        hand.put(ack(acked));
    }
    hand.host.write(stream, &[5; 20_000]);
    assert!(!hand.take().is_empty());
    (0..2).for_each(|_| hand.put(ack(acked)));
    assert!(hand.take().iter().all(|(_, seg)| seg.seq != first.wrapping_add(acked)));
    hand.put(ack(acked));
    assert!(
        hand.take().iter().any(|(_, seg)| seg.seq == first.wrapping_add(acked)),
        "the third repeat"
    );
    hand.wait(150);
    assert!(hand.take().is_empty());
    hand.wait(150);
    assert!(
        hand.take().iter().any(|(_, seg)| seg.seq == first.wrapping_add(acked)),
        "silence"
    );
}
