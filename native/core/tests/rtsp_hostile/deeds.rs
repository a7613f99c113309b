//! What may happen to a connection.

use crate::lab::cameras::GATEWAY;
use crate::lab::packets::{ACK, FIN, PSH, RST, SYN};
use crate::world::World;
use proptest::prelude::*;

/// What a viewer may mean to say.
pub const WORDS: [&str; 12] = [
    "OPTIONS rtsp://cam/ RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    "DESCRIBE rtsp://cam/live RTSP/1.0\r\nCSeq: 2\r\n\r\n",
    "SETUP rtsp://cam/live/1 RTSP/1.0\r\nCSeq: 3\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n",
    "SETUP rtsp://cam/live/1 RTSP/1.0\r\nCSeq: 3\r\nTransport: RTP/AVP/TCP;interleaved=1-2\r\n\r\n",
    "SETUP rtsp://cam/live/1 RTSP/1.0\r\nCSeq: 4\r\nTransport: RTP/AVP;unicast;destination=192.168.1.9;client_port=6100-6101\r\n\r\n",
    "SETUP rtsp://cam/live/1 RTSP/1.0\r\nCSeq: 5\r\nTransport:\r\n RTP/AVP;unicast;destination=192.168.1.9;client_port=6100-6101\r\n\r\n",
    "SETUP  rtsp://cam/live/1 RTSP/1.0\rTransport: RTP/AVP;destination=192.168.1.9;client_port=6100-6101\r\n\r\n",
    "DESCRIBE /live RTSP/1.0\nCSeq: 6\n\n",
    "PLAY rtsp://cam/live RTSP/1.0\r\nCSeq: 7\r\n\r\n",
    "SET_PARAMETER * RTSP/1.0\r\nCSeq: 8\r\nContent-Length: 95\r\n\r\nSETUP rtsp://c RTSP/1.0\r\nTransport: RTP/AVP;destination=192.168.1.9;client_port=6100-6101\r\n\r\n..",
    "GET_PARAMETER * RTSP/1.0\r\nCSeq: 9\r\n\r\n",
    "$\u{1}\0\u{8}12345678",
];

/// One thing that a viewer, the camera or the network does.
#[derive(Clone, Debug)]
pub enum Deed {
    /// Means to say more.
    Mean(usize),
    /// Says it as TCP would, and lets the camera answer.
    Talk,
    /// A piece of what it means to say, or something else with the same numbers; it may be lost behind the gateway.
    Piece {
        at: prop::sample::Index,
        len: usize,
        other: Option<usize>,
        arrives: bool,
    },
    /// Claims to have so much of the camera's words, in a segment that the camera may not believe.
    Claim {
        at: prop::sample::Index,
        beyond: u8,
        believed: bool,
    },
    /// The camera sends something, or sends it again.
    Camera { at: prop::sample::Index, len: usize },
    /// A reset or a SYN that the camera doesn't believe, or never gets.
    Feign { flags: u8, seq: u32 },
    /// The gateway forgets the connection: it was told that it ended, or starts anew.
    Forget,
    /// Another connection.
    Connect,
}

pub fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let at = || any::<prop::sample::Index>();
    let deed = prop_oneof![
        6 => (0..WORDS.len()).prop_map(Deed::Mean),
        4 => Just(Deed::Talk),
        6 => (at(), 1usize..200, prop::option::weighted(0.3, 0..WORDS.len()), any::<bool>())
            .prop_map(|(at, len, other, arrives)| Deed::Piece { at, len, other, arrives }),
        3 => (at(), 0u8..40, any::<bool>()).prop_map(|(at, beyond, believed)| Deed::Claim { at, beyond, believed }),
        6 => (at(), 1usize..400).prop_map(|(at, len)| Deed::Camera { at, len }),
        1 => (prop::sample::select(vec![RST, RST | ACK, SYN, SYN | ACK, FIN | ACK]), any::<u32>())
            .prop_map(|(flags, seq)| Deed::Feign { flags, seq }),
        2 => Just(Deed::Forget),
        1 => Just(Deed::Connect),
    ];
    prop::collection::vec(deed, 1..40)
}

pub fn run(world: &mut World, deed: &Deed) {
    match deed {
        Deed::Mean(which) => world.words.extend_from_slice(WORDS[*which].as_bytes()),
        Deed::Talk => world.talk(),
        Deed::Piece {
            at,
            len,
            other,
            arrives,
        } => {
            let at = at.index(world.words.len() + 1);
            let source = other.map_or_else(
                || world.words.get(at..).unwrap_or(&[]).to_vec(),
                |w| WORDS[w].as_bytes().to_vec(),
            );
            let piece = source.get(..source.len().min(*len)).unwrap_or(&[]).to_vec();
            let ack = world.camera.start.wrapping_add(world.camera.acked as u32);
            let seq = world.client_at(at);
            world.send(seq, ack, ACK | PSH, &piece, *arrives);
        }
        Deed::Claim { at, beyond, believed } => {
            let ack = world
                .camera
                .start
                .wrapping_add((at.index(world.camera.said.len() + 1) + usize::from(*beyond)) as u32);
            let seq = if *believed {
                world.camera.next()
            } else {
                world.camera.next().wrapping_sub(1 << 29)
            };
            world.send(seq, ack, ACK, b"", true);
        }
        Deed::Camera { at, len } => {
            // Never what was acknowledged to it, and nothing ahead of what it sent.
            let from = world.camera.acked;
            let at = from + at.index(world.camera.sent - from + 1);
            world.camera_sends(at, *len);
        }
        Deed::Feign { flags, seq } => {
            world.send(*seq, world.camera.start, *flags, b"", false);
        }
        Deed::Forget => {
            let wild = world.camera.next().wrapping_sub(1 << 29);
            world.send(wild, world.camera.start, RST, b"", false);
            world.lab.wait(62);
            world.lab.written(GATEWAY);
        }
        Deed::Connect => world.connect(),
    }
}
