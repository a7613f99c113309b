//! Whole conversations as ffmpeg, GStreamer and LIVE555 (VLC's library) had them, in every kind of pieces.

use super::lan::Lan;
use super::rewrite::{Answers, Asks};
use super::stream::{Care, Stream, Taken, distance};
use super::talk::{Action, Role, Talk};
use proptest::prelude::*;

const ALL: [&str; 7] = [
    include_str!("../../tests/rtsp/ffmpeg-gstreamer.txt"),
    include_str!("../../tests/rtsp/ffmpeg-tcp-gstreamer.txt"),
    include_str!("../../tests/rtsp/rtspsrc-gstreamer.txt"),
    include_str!("../../tests/rtsp/live555-gstreamer.txt"),
    include_str!("../../tests/rtsp/ffmpeg-live555.txt"),
    include_str!("../../tests/rtsp/live555-live555.txt"),
    include_str!("../../tests/rtsp/vlc-talkative.txt"),
];
const FIRST: u32 = u32::MAX - 100;

/// Who speaks, and what.
fn turns(text: &str) -> Vec<(bool, String)> {
    text.split("--- ")
        .skip(1)
        .map(|turn| {
            let (who, words) = turn.split_once('\n').unwrap();
            (who == "client", words.replace('\n', "\r\n"))
        })
        .collect()
}

/// One end's view of one direction.
#[derive(Default)]
struct Receiver(Vec<u8>);

impl Receiver {
    fn take(&mut self, taken: Taken, seq: u32, payload: &[u8], out: &[u8]) {
        let (seq, bytes) = match taken {
            Taken::Pass => (seq, payload),
            Taken::Send { seq, .. } => (seq, out),
            Taken::Drop => return,
            Taken::Fail => unreachable!("refused"),
        };
        let at = distance(seq, FIRST) as usize;
        assert!(bytes.is_empty() || at <= self.0.len());
        for (i, &byte) in bytes.iter().enumerate() {
            match self.0.get(at + i) {
                Some(&known) => assert_eq!(known, byte),
                None => self.0.push(byte),
            }
        }
    }
}

/// A gateway between a client and a camera.
struct Between {
    talk: Talk,
    streams: [Stream; 2],
    sent: [u32; 2],
    camera: Receiver,
    client: Receiver,
    reserved: Vec<(u16, u16)>,
    opened: Vec<((u16, u16), (u16, u16))>,
}

impl Between {
    fn new() -> Self {
        let lan = Lan::new(&["192.168.1.20".parse().unwrap(), "192.168.1.1".parse().unwrap()]);
        let mut streams = [Stream::new(Care::Guard), Stream::new(Care::Rewrite)];
        streams.iter_mut().for_each(|s| s.begin(FIRST));
        Self {
            talk: Talk::new(Role::Gateway(lan)),
            streams,
            sent: [FIRST; 2],
            camera: Receiver::default(),
            client: Receiver::default(),
            reserved: Vec::new(),
            opened: Vec::new(),
        }
    }

    fn segment(&mut self, client: bool, seq: u32, payload: &[u8]) -> Taken {
        let mut out = Vec::new();
        let [asks, answers] = &mut self.streams;
        let taken = if client {
            asks.take(seq, payload, false, &mut Asks(&mut self.talk), &mut out)
        } else {
            answers.take(seq, payload, false, &mut Answers(&mut self.talk), &mut out)
        };
        if taken == Taken::Fail {
            return taken;
        }
        let receiver = if client { &mut self.camera } else { &mut self.client };
        receiver.take(taken, seq, payload, &out);
        for action in std::mem::take(&mut self.talk.actions) {
            match action {
                Action::Reserve { media, digits, .. } => {
                    let port = if digits == 4 { 7_000 } else { 20_000 } + 2 * self.reserved.len() as u16;
                    self.reserved.push((port, port + 1));
                    self.talk.reserved(media, Some((port, port + 1)));
                    let resumed = self.streams[0].resume(&mut Asks(&mut self.talk), &mut out);
                    if resumed == Taken::Fail {
                        return resumed;
                    }
                    self.camera.take(resumed, seq, &[], &out);
                }
                Action::Open { client, server, .. } => self.opened.push((client, server)),
                Action::Release { .. } | Action::Close { .. } => {}
            }
        }
        taken
    }

    /// Says words in pieces of these sizes, each piece as often as told, or late.
    fn say(&mut self, client: bool, words: &[u8], pieces: &[(usize, u8)]) {
        let (mut at, mut late) = (0, None::<(u32, Vec<u8>)>);
        let side = usize::from(!client);
        for &(size, how) in pieces.iter().chain(&[(words.len(), 0)]) {
            let end = words.len().min(at + size);
            let (seq, piece) = (self.sent[side].wrapping_add(at as u32), words[at..end].to_vec());
            if piece.is_empty() {
                continue;
            }
            at = end;
            match how {
                1 if late.is_none() => late = Some((seq, piece)),
                2 => {
                    self.segment(client, seq, &piece);
                    self.segment(client, seq, &piece);
                }
                _ => {
                    self.segment(client, seq, &piece);
                    if let Some((seq, piece)) = late.take() {
                        self.segment(client, seq, &piece);
                    }
                }
            }
        }
        if let Some((seq, piece)) = late.take() {
            self.segment(client, seq, &piece);
        }
        self.sent[side] = self.sent[side].wrapping_add(words.len() as u32);
        // Once more from the beginning, in one piece: what left leaves the same.
        let seq = self.sent[side].wrapping_sub(words.len() as u32);
        self.segment(client, seq, words);
    }

    fn hold(&mut self, text: &str, pieces: &[(usize, u8)]) {
        for (client, words) in turns(text) {
            let ports = self
                .reserved
                .last()
                .map_or(String::new(), |(rtp, rtcp)| format!("{rtp}-{rtcp}"));
            let words = words.replace("{client_port}", &ports);
            self.say(client, words.as_bytes(), pieces);
            let (sent, got) = match client {
                true => (self.sent[0], &self.camera),
                false => (self.sent[1], &self.client),
            };
            assert_eq!(
                distance(sent, FIRST) as usize,
                got.0.len(),
                "nothing is held back, nothing added"
            );
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// With runs of what lengths are kept by as one each.
fn squeezed(bytes: &[u8]) -> String {
    let mut text = text(bytes);
    for filler in [' ', ';', '-'] {
        let (two, one) = (format!("{filler}{filler}"), filler.to_string());
        while text.contains(&two) {
            text = text.replace(&two, &one);
        }
    }
    text
}

fn held(conversation: &str) -> Between {
    let mut between = Between::new();
    between.hold(conversation, &[]);
    between
}

#[test]
fn the_camera_hears_of_our_ports_and_the_client_of_its_own() {
    let between = held(ALL[0]);
    let (camera, client) = (text(&between.camera.0), text(&between.client.0));
    assert!(camera.contains("Transport: RTP/AVP/UDP;unicast;client_port=7000-7001\r\n"));
    assert!(camera.contains("Transport: RTP/AVP/UDP;unicast;client_port=7002-7003\r\n"));
    assert!(client.contains(";client_port=7654-7655;server_port="));
    assert!(client.contains(";client_port=7656-7657;server_port="));
    assert_eq!(between.opened[0].0, (7654, 7655));
    // What the camera made of the client's own words is still there.
    assert!(client.contains("\r\nContent-Base: rtsp://camera.home.thicket:554/live/\r\n"));
    assert!(client.contains("IN IP4      0.0.0.0\r\n"));
}

#[test]
fn no_address_of_the_lan_reaches_the_client() {
    for conversation in ALL {
        let between = held(conversation);
        let client = text(&between.client.0);
        assert!(!client.contains("192.168.1."), "{client}");
        assert!(!text(&between.camera.0).contains("destination="));
    }
}

#[test]
fn interleaved_media_need_nothing() {
    let between = held(ALL[1]);
    assert!(between.reserved.is_empty() && between.opened.is_empty() && between.talk.interleaved);
}

#[test]
fn a_base_that_does_not_fit_goes_where_the_requests_url_serves() {
    let client = squeezed(&held(ALL[4]).client.0);
    assert!(client.contains("\r\nX-ntent-Base: rtsp://000.000.0.00:8554/h264ESVideoTest/\r\n"));
    assert!(client.contains("\r\nRTP-Info: url=track1;seq=5791;rtptime=3895630317\r\n"));
    assert!(client.contains("unicast;client_port=18158-18159;server_port=6970-6971\r\n"));
}

#[test]
fn a_base_that_fits_is_the_clients_own() {
    let client = text(&held(ALL[5]).client.0);
    assert!(
        client.contains("\r\nContent-Base:        rtsp://198.18.0.9/h264ESVideoTest/\r\n"),
        "{client}"
    );
    assert!(client.contains("url=rtsp://198.18.0.9/h264ESVideoTest/track1;seq="));
}

#[test]
fn absolute_controls_become_relative_or_the_clients_own() {
    let between = held(ALL[6]);
    let (camera, client) = (squeezed(&between.camera.0), squeezed(&between.client.0));
    // Choices that can't be carried are nobody's.
    let transport =
        "RTP/AVP;unicast;client_port=20000-20001,XTP/AVP;multicast;,RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
    assert!(camera.contains(transport), "{camera}");
    for line in [
        "a=control:*\r\na=x-\r\n",
        "a=control:trackID=1\r\na=x-\r\n",
        "a=rtcp:5001 IN IP4 0.0.0.0\r\n",
        "c=IN IP4 0.0.0.0\r\n",
        "u=http://000.000.0.00/\r\n",
        "realm=\"IP Camera 000.000.0.00\"",
        "ip=000.000.0.00, mtu=9\r\n",
    ] {
        assert!(client.contains(line), "{line} in {client}");
    }
    assert_eq!(between.opened.len(), 1);
}

/// What the camera gets for a SETUP with this Transport, and what the client gets for the camera's answer to it.
fn set_up(transport: &str, answer: &str) -> (String, String) {
    let mut between = Between::new();
    let request = format!("SETUP rtsp://h/live RTSP/1.0\r\nTransport: {transport}\r\nCSeq: 1\r\n\r\n");
    between.say(true, request.as_bytes(), &[]);
    let answer = format!("RTSP/1.0 200 OK\r\nCSeq: 1\r\nTransport: {answer}\r\n\r\n");
    between.say(false, answer.as_bytes(), &[]);
    let line = |all: &Receiver| {
        text(&all.0)
            .lines()
            .find(|l| l.starts_with("Transport"))
            .unwrap()
            .to_owned()
    };
    (line(&between.camera), line(&between.client))
}

#[test]
fn ports_of_other_lengths_find_room_and_what_cannot_be_carried_is_nobodys() {
    let (asked, answered) = set_up(
        "RTP/AVP;unicast;client_port=9999-10000",
        "RTP/AVP;unicast;client_port=20000-20001;server_port=5000-5001",
    );
    assert_eq!(asked, "Transport:RTP/AVP;unicast;client_port=20000-20001");
    assert_eq!(
        answered,
        "Transport: RTP/AVP;unicast;client_port=9999-10000;server_port=5000-5001;"
    );
    let (asked, answered) = set_up(
        "RTP/AVP;unicast;client_port=6100",
        "RTP/AVP;client_port=7000;server_port=5000",
    );
    assert_eq!(
        (&asked[11..], &answered[11..]),
        (
            "RTP/AVP;unicast;client_port=7000",
            "RTP/AVP;client_port=6100;server_port=5000"
        )
    );
    for (transport, becomes) in [
        (
            "RTP/AVP;unicast;client_port=554-555",
            "XTP/AVP;unicast;client_port=554-555",
        ),
        ("RTP/AVP;multicast", "XTP/AVP;multicast"),
        (
            "RTP/AVP;unicast;client_port=6100-6101;mode=record",
            "XTP/AVP;unicast;client_port=6100-6101;mode=record",
        ),
        (
            "RTP/AVP;unicast;dest_addr=\":6100\"",
            "XTP/AVP;unicast;;;;;;;;;;;;;;;;;;",
        ),
        (
            "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record",
            "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record",
        ),
        (
            "RTP/AVP;unicast;destination=10.0.0.1;client_port=6100-6101",
            "RTP/AVP;unicast;;;;;;;;;;;;;;;;;;;;;;client_port=7000-7001",
        ),
    ] {
        assert_eq!(set_up(transport, "RTP/AVP").0, format!("Transport: {becomes}"));
    }
}

fn pieces() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((1usize..200, 0u8..4), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn pieces_repeats_and_disorder_change_nothing(which in 0..ALL.len(), pieces in pieces()) {
        let mut between = Between::new();
        between.hold(ALL[which], &pieces);
        let whole = held(ALL[which]);
        prop_assert_eq!(text(&between.camera.0), text(&whole.camera.0));
        prop_assert_eq!(text(&between.client.0), text(&whole.client.0));
        prop_assert_eq!(between.opened, whole.opened);
    }

    #[test]
    fn spoilt_words_are_refused_or_pass_without_harm(
        which in 0..ALL.len(),
        spoilt in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        size in 1usize..600,
    ) {
        let mut between = Between::new();
        'all: for (client, words) in turns(ALL[which]) {
            let mut words = words.into_bytes();
            for (at, byte) in &spoilt {
                let at = at.index(words.len());
                words[at] = *byte;
            }
            let side = usize::from(!client);
            for piece in words.chunks(size) {
                if between.segment(client, between.sent[side], piece) == Taken::Fail {
                    break 'all;
                }
                between.sent[side] = between.sent[side].wrapping_add(piece.len() as u32);
            }
        }
        let total = distance(between.sent[1], FIRST) as usize;
        prop_assert!(between.client.0.len() <= total);
    }

    #[test]
    fn noise_is_refused_or_waits(noise in prop::collection::vec(any::<u8>(), 0..3_000), size in 1usize..300, client: bool) {
        let mut between = Between::new();
        let side = usize::from(!client);
        for piece in noise.chunks(size) {
            if between.segment(client, between.sent[side], piece) == Taken::Fail {
                break;
            }
            between.sent[side] = between.sent[side].wrapping_add(piece.len() as u32);
        }
    }
}
