//! RTSP against a viewer that keeps to no rule: whatever it sends, it learns no address of the LAN, and nothing sets anything up unread.

#![allow(clippy::unwrap_used, clippy::panic)]

mod rtsp_lab;

use proptest::prelude::*;
use rtsp_lab::*;
use std::collections::{BTreeMap, BTreeSet};
use thicket_core::*;

const NEEDLES: [&str; 2] = ["192.168.1.20", "192.168.1.1"];
const PSH: u8 = 8;

/// A camera that tells its addresses wherever it can, reads requests out of anything, and keeps to TCP.
struct Camera {
    /// What it has of the client's words, and what came early; first come, first kept.
    first: u32,
    heard: Vec<u8>,
    early: BTreeMap<u32, u8>,
    read: usize,
    /// Its own words, and how many are acknowledged and were sent.
    start: u32,
    said: Vec<u8>,
    acked: usize,
    sent: usize,
    reset: bool,
}

impl Camera {
    fn new(first: u32, start: u32) -> Self {
        Self {
            first,
            heard: Vec::new(),
            early: BTreeMap::new(),
            read: 0,
            start,
            said: Vec::new(),
            acked: 0,
            sent: 0,
            reset: false,
        }
    }

    fn next(&self) -> u32 {
        self.first.wrapping_add(self.heard.len() as u32)
    }

    /// Takes a segment as TCP does; whether it is answered by an acknowledgement.
    fn hears(&mut self, segment: &Tcp, ack: u32) -> bool {
        let ahead = segment.seq.wrapping_sub(self.next()) as i32;
        let end = ahead + segment.payload.len() as i32;
        if segment.flags & RST != 0 {
            self.reset |= ahead == 0;
            return false;
        }
        let acceptable = (0..60_000).contains(&ahead) || (ahead < 0 && end > 0);
        if !acceptable {
            return true;
        }
        let acked = ack.wrapping_sub(self.start) as i32;
        if acked > self.sent as i32 {
            return true;
        }
        self.acked = self.acked.max(acked.max(0) as usize);
        for (i, &byte) in segment.payload.iter().enumerate() {
            let at = segment.seq.wrapping_add(i as u32);
            if at.wrapping_sub(self.next()) < 1 << 30 {
                self.early.entry(at).or_insert(byte);
            }
        }
        while let Some(byte) = self.early.remove(&self.next()) {
            self.heard.push(byte);
        }
        self.answers();
        !segment.payload.is_empty()
    }

    /// Takes anything that looks like a request for one, at any line's end.
    fn answers(&mut self) {
        let text = String::from_utf8_lossy(&self.heard[self.read..]).replace('\r', "\n");
        let mut used = 0;
        let (mut sequence, mut interleaved) = (String::new(), None);
        let mut method = String::new();
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            used += line.len();
            let line = line.trim();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("cseq:") {
                sequence = value.trim().to_owned();
            }
            if line.to_ascii_lowercase().contains("transport") {
                let sets_up = method == "SETUP";
                assert!(
                    !sets_up || !line.to_ascii_lowercase().contains("destination="),
                    "{line}"
                );
                let channel = line
                    .split("interleaved=")
                    .nth(1)
                    .and_then(|c| c.split(['-', ';']).next());
                interleaved = channel.and_then(|c| c.parse::<u8>().ok()).filter(|_| sets_up);
            }
            let word = line
                .split_whitespace()
                .next()
                .unwrap_or("")
                .trim_start_matches(|c: char| !c.is_ascii_alphabetic());
            for known in [
                "OPTIONS",
                "DESCRIBE",
                "SETUP",
                "PLAY",
                "GET_PARAMETER",
                "SET_PARAMETER",
                "TEARDOWN",
            ] {
                if word.eq_ignore_ascii_case(known) {
                    method = known.to_owned();
                }
            }
            if line.is_empty() && !method.is_empty() {
                let words = Self::answer(&method, &sequence, interleaved);
                self.said.extend_from_slice(words.as_bytes());
                if method == "PLAY" || interleaved.is_some() {
                    for channel in 0..4u8 {
                        let report = format!("\u{1}\u{2} root@{CAMERA} by way of {LAN} ");
                        self.said.extend_from_slice(&[b'$', channel, 0, report.len() as u8]);
                        self.said.extend_from_slice(report.as_bytes());
                    }
                }
                (method, interleaved) = (String::new(), None);
            }
        }
        // Lossy text may be longer than what it stands for.
        self.read = if method.is_empty() {
            self.heard.len().min(self.read + used)
        } else {
            self.read
        };
    }

    fn answer(method: &str, sequence: &str, interleaved: Option<u8>) -> String {
        let common = format!("RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\nServer: {CAMERA}\r\n");
        match method {
            "DESCRIBE" => {
                let body = format!(
                    "v=0\r\no=- 1 1 IN IP4 {CAMERA}\r\nc=IN IP4 {CAMERA}\r\na=control:rtsp://{CAMERA}:554/live/\r\nm=video 0 RTP/AVP 96\r\na=control:rtsp://{CAMERA}/live/1\r\n"
                );
                let base = format!("Content-Base: rtsp://{CAMERA}:554/live/\r\nContent-Type: application/sdp\r\n");
                format!("{common}{base}Content-Length: {}\r\n\r\n{body}", body.len())
            }
            "SETUP" => {
                let transport = interleaved.map_or(
                    "RTP/AVP;unicast;client_port=6100-6101;server_port=5000-5001".to_owned(),
                    |c| format!("RTP/AVP/TCP;unicast;interleaved={c}-{}", c.wrapping_add(1)),
                );
                format!("{common}Transport: {transport};source={CAMERA};destination={LAN}\r\nSession: 7\r\n\r\n")
            }
            "PLAY" => format!("{common}RTP-Info: url=rtsp://{CAMERA}/live/1;seq=1\r\n\r\n"),
            _ => format!("{common}X-Address: {CAMERA},{LAN}\r\n\r\n"),
        }
    }
}

/// What the viewer has ever seen at each place of the camera's words, over all connections.
#[derive(Default)]
struct Seen(BTreeMap<u32, BTreeSet<u8>>);

impl Seen {
    /// Whether any choice among it spells an address.
    fn address(&self) -> Option<&'static str> {
        NEEDLES.into_iter().find(|needle| {
            self.0.keys().any(|&at| {
                needle.bytes().enumerate().all(|(i, byte)| {
                    let place = self.0.get(&at.wrapping_add(i as u32));
                    place.is_some_and(|bytes| bytes.contains(&byte))
                })
            })
        })
    }
}

/// A viewer and what lies between it and the camera.
struct World {
    lab: Lab,
    player: Player,
    camera: Camera,
    /// What the client means to say, and how much of it went out in order.
    words: Vec<u8>,
    asked: usize,
    seen: Seen,
}

impl World {
    fn new() -> Self {
        let mut lab = Lab::new();
        // Its own core helps with nothing.
        lab.watches(ANN, Vec::new());
        let player = Player::new(ANN, 5_000);
        let mut world = Self {
            lab,
            player,
            camera: Camera::new(0, 0),
            words: Vec::new(),
            asked: 0,
            seen: Seen::default(),
        };
        world.connect();
        world
    }

    /// With numbers that no connection before had.
    fn connect(&mut self) {
        self.player.asked = self.player.asked.wrapping_add(10_000_000);
        self.player.answered = self.player.answered.wrapping_add(10_000_000);
        let player = self.player.clone().shaken(&mut self.lab);
        self.camera = Camera::new(player.asked, player.answered);
        (self.player, self.asked) = (player, 0);
        self.words.clear();
    }

    /// A segment of the client's. `arrives`: all the way; else something behind the gateway loses it.
    fn send(&mut self, seq: u32, ack: u32, flags: u8, payload: &[u8], arrives: bool) {
        let (vnet, packet) = self.player.tcp(true, seq, ack, flags, payload);
        self.lab.tun_in(ANN, vnet, &packet);
        let (heard, _) = self.lab.written(GATEWAY);
        for segment in heard.iter().filter(|_| arrives) {
            if self.camera.hears(segment, ack) {
                self.camera_sends(self.camera.sent, 0);
            }
        }
        self.note();
    }

    /// Bytes of the camera's words from `at` on.
    fn camera_sends(&mut self, at: usize, len: usize) {
        let (start, next, reset) = (self.camera.start, self.camera.next(), self.camera.reset);
        if reset {
            return;
        }
        let end = self.camera.said.len().min(at + len);
        let payload = self.camera.said.get(at..end).unwrap_or(&[]).to_vec();
        let seq = start.wrapping_add(at as u32);
        let (vnet, packet) = self.player.tcp(false, seq, next, ACK | PSH, &payload);
        self.lab.tun_in(GATEWAY, vnet, &packet);
        self.camera.sent = self.camera.sent.max(at + payload.len());
        // What the gateway tells the camera meanwhile.
        let (heard, _) = self.lab.written(GATEWAY);
        for segment in heard {
            self.camera
                .hears(&segment, start.wrapping_add(self.camera.acked as u32));
        }
        self.note();
    }

    fn note(&mut self) {
        let (tcp, udp) = self.lab.written(ANN);
        for segment in tcp {
            for (i, byte) in segment.payload.into_iter().enumerate() {
                let at = segment.seq.wrapping_add(i as u32);
                self.seen.0.entry(at).or_default().insert(byte);
            }
        }
        for datagram in udp {
            let text = String::from_utf8_lossy(&datagram.payload);
            assert!(!NEEDLES.iter().any(|needle| text.contains(needle)), "{text}");
        }
    }

    fn client_at(&self, at: usize) -> u32 {
        self.camera.first.wrapping_add(at as u32)
    }

    /// Says everything that it means to, acknowledges everything, and lets the camera say all it has to.
    fn talk(&mut self) {
        for _ in 0..40 {
            let at = self.camera.heard.len().min(self.words.len());
            let piece = self
                .words
                .get(at..self.words.len().min(at + 900))
                .unwrap_or(&[])
                .to_vec();
            let ack = self.camera.start.wrapping_add(self.camera.sent as u32);
            let before = (self.camera.heard.len(), self.camera.acked);
            self.send(self.client_at(at), ack, ACK | PSH, &piece, true);
            let from = self.camera.acked;
            self.camera_sends(from, 1_100);
            if self.camera.reset || (self.camera.acked == self.camera.said.len() && before.0 == self.camera.heard.len())
            {
                break;
            }
        }
        self.asked = self.words.len();
    }
}

const WORDS: [&str; 12] = [
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

#[derive(Clone, Debug)]
enum Deed {
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

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
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

fn run(world: &mut World, deed: &Deed) {
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
        let (vnet, packet) = world
            .player
            .tcp(true, world.camera.next(), ack, ACK | PSH, WORDS[bad].as_bytes());
        world.lab.tun_in(ANN, vnet, &packet);
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
    let (vnet, packet) = world.player.tcp(
        false,
        world.player.answered,
        world.player.asked,
        RST | ACK,
        b"at 192.168.1.20",
    );
    world.lab.tun_in(GATEWAY, vnet, &packet);
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
    let lab = &mut Lab::new();
    let (_, id) = playing(lab, ANN, 5_001);
    lab.written(ANN);
    for (rtcp, port) in [(false, 40_000), (true, 40_001)] {
        lab.media(id, rtcp, (CAMERA, port), b"\x80\xca root@192.168.1.20");
    }
    let got: Vec<_> = lab.written(ANN).1.into_iter().map(|d| d.payload).collect();
    assert_eq!(got, [b"\x80\xca root@000.000.0.00"; 2].map(|b| b.to_vec()));
}
