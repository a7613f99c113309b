//! Bytes that no honest far end would send.

use crate::hand::{ACK, FIN, Hand, RST, SYN, Seg, write};
use proptest::prelude::*;
use thicket_core::wire::VnetHeader;

/// A segment near enough to a connection's state to be taken seriously.
fn near() -> impl Strategy<Value = (i32, i32, u8, u16, Vec<u8>, usize)> {
    let close = prop_oneof![-3i32..4, -70_000i32..70_000, any::<i32>()];
    let flags = prop::sample::select(vec![0, ACK, ACK | FIN, ACK | SYN, SYN, RST, RST | ACK, FIN, 0xff]);
    let options = prop_oneof![
        Just(Vec::new()),
        Just(vec![2, 4, 0, 0]),
        Just(vec![2, 4, 0, 1, 3, 3, 14, 1]),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|mut o| {
            o.truncate(o.len() / 4 * 4);
            o
        }),
    ];
    let length = prop_oneof![0usize..3, 0usize..3_000, Just(60_000)];
    (close.clone(), close, flags, any::<u16>(), options, length)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_segment_brings_a_connection_to_panic_or_beyond_its_memory(
        theirs in any::<bool>(), segments in prop::collection::vec(near(), 1..60), calls in prop::collection::vec(0u8..8, 60),
    ) {
        let mut hand = Hand::new();
        let (stream, mut next) = if theirs {
            hand.open(30_000, &[2, 4, 5, 80, 1, 3, 3, 7, 4, 2, 1, 1])
        } else {
            let stream = hand.host.connect(hand.now, hand.own.ip(), hand.peer).unwrap();
            let syn = hand.one();
            hand.own.set_port(syn.ports.0);
            (stream, syn.seq.wrapping_add(1))
        };
        for ((seq, ack, flags, window, options, length), call) in segments.into_iter().zip(calls) {
            hand.put(Seg {
                seq: 1_000u32.wrapping_add(seq as u32),
                ack: next.wrapping_add(ack as u32),
                flags,
                window,
                options,
                payload: vec![3; length],
                ..Seg::default()
            });
            match call {
                0 => drop(hand.host.read(stream, &mut [0; 5_000])),
                1 => drop(hand.host.write(stream, &[4; 30_000])),
                2 => hand.host.finish(stream),
                3 => hand.wait(1_500),
                4 => hand.wait(100_000),
                5 => while hand.host.poll_event().is_some() {},
                _ => {}
            }
            for (_, seg) in hand.take() {
                next = seg.seq.wrapping_add(seg.payload.len() as u32);
            }
            let stats = hand.host.stats();
            prop_assert!(stats.committed <= 8 << 20 && stats.buffered <= stats.committed);
        }
        hand.host.close(stream);
        hand.take();
    }

    #[test]
    fn any_bytes_are_taken_or_ignored(bytes in prop::collection::vec(any::<u8>(), 0..120), first in prop::sample::select(vec![0x45u8, 0x60, 0]),
        vnet in any::<[u8; 10]>(), cut in 0usize..60,
    ) {
        let mut hand = Hand::new();
        let (_, next) = hand.open(30_000, &[]);
        let mut bytes = bytes;
        if let Some(byte) = bytes.first_mut() { *byte = first; }
        hand.host.handle_packet(hand.now, VnetHeader::parse(&vnet), &bytes);
        let mut whole = write(hand.peer, hand.own, &Seg { seq: 1_000, ack: next, flags: ACK, payload: bytes, ..Seg::default() });
        whole.truncate(whole.len().saturating_sub(cut));
        hand.host.handle_packet(hand.now, VnetHeader::parse(&vnet), &whole);
        let mut packet = Vec::new();
        while hand.host.poll_packet(hand.now, &mut packet).is_some() {}
    }
}
