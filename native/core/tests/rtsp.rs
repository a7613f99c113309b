//! RTSP with media over UDP, among nodes that keep to the rules.

#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use core::net::SocketAddr;
use lab::Lab;
use lab::cameras::*;
use lab::orders::{DEVICE as CAMERA, ip};
use lab::packets::*;
use thicket_core::wire::*;
use thicket_core::*;

#[test]
fn media_come_to_the_port_that_the_program_named_without_a_word_from_it() {
    let mut lab = Lab::cameras();
    let mut player = Player::connect(&mut lab, ANN, 5000);
    let got = player.setup(&mut lab, "6100-6101");
    let (id, ours) = lab.shell.sockets[0];
    assert_eq!(
        got,
        setup(&format!("{ours}-{}", ours + 1)),
        "the camera hears of our ports"
    );
    lab.media(id, false, (CAMERA, 40_000), b"early");
    assert_eq!(
        (lab.open(GATEWAY), lab.open(ANN)),
        (0, 0),
        "nothing is open before the 200"
    );
    let got = player.agree(&mut lab, &format!("{ours}-{}", ours + 1), "40000-40001");
    let blank = ";".repeat("source=192.168.1.20".len());
    let want = agreed("6100-6101", "40000-40001").replace("source=192.168.1.20", &blank);
    assert_eq!(got, want, "and the program of its own");
    assert_eq!((lab.open(GATEWAY), lab.open(ANN)), (1, 1));
    lab.written(ANN);

    lab.media(id, false, (CAMERA, 40_000), b"picture");
    lab.media(id, true, (CAMERA, 40_001), b"\x80\xca user@192.168.1.20");
    let (_, got) = lab.written(ANN);
    let datagram = |from, to, payload: &[u8]| Udp {
        from: (ip(9), from),
        to: (ip(1), to),
        payload: payload.to_vec(),
    };
    let report: &[u8] = b"\x80\xca user@000.000.0.00";
    assert_eq!(
        got,
        [datagram(40_000, 6_100, b"picture"), datagram(40_001, 6_101, report)]
    );
    let stats = lab.nodes[GATEWAY].stats(lab.now);
    assert!(stats.services[0].payload_bytes > 25, "media count for the service");

    // What the program says reaches the camera's own ports.
    lab.hand_in(ANN, udp(ip(1), ip(9), (6_101, 40_001), b"report"));
    assert_eq!(
        lab.shell.sent,
        [(id, true, SocketAddr::new(CAMERA, 40_001), b"report".to_vec())]
    );
}

#[test]
fn every_other_port_of_the_camera_and_every_other_sender_stays_out() {
    let mut lab = Lab::cameras();
    let (_, id) = playing(&mut lab, ANN, 5000);
    lab.written(ANN);
    let before = lab.drops(GATEWAY, DropReason::NotAFlow);
    for (rtcp, from) in [
        (false, (CAMERA, 40_001)),
        (true, (CAMERA, 40_000)),
        (false, (CAMERA, 40_002)),
        (false, ("192.168.1.21".parse().unwrap(), 40_000)),
    ] {
        lab.media(id, rtcp, from, b"x");
    }
    lab.media(id + 1, false, (CAMERA, 40_000), b"x");
    assert_eq!(lab.drops(GATEWAY, DropReason::NotAFlow) - before, 5);
    assert!(lab.written(ANN).1.is_empty());
    for ports in [
        (6_100, 40_002),
        (6_102, 40_000),
        (6_101, 40_000),
        (6_100, 554),
        (6_100, 161),
    ] {
        lab.hand_in(ANN, udp(ip(1), ip(9), ports, b"x"));
    }
    assert!(lab.shell.sent.is_empty());
    assert_eq!(lab.drops(GATEWAY, DropReason::PortNotAllowed), 5);
    // Nor does the gateway's own host speak for the camera.
    lab.hand_in(GATEWAY, udp(ip(77), known_as(ANN), (40_000, 6_100), b"x"));
    assert!(lab.written(ANN).1.is_empty());
}

#[test]
fn two_viewers_that_name_the_same_ports_get_their_own_media() {
    let mut lab = Lab::cameras();
    let (_, ann) = playing(&mut lab, ANN, 5000);
    let (_, bob) = playing(&mut lab, BOB, 5000);
    assert_ne!(lab.shell.sockets[0].1, lab.shell.sockets[1].1);
    lab.written(ANN);
    lab.written(BOB);
    lab.media(ann, false, (CAMERA, 40_000), b"for ann");
    lab.media(bob, false, (CAMERA, 40_000), b"for bob");
    assert_eq!(lab.written(ANN).1[0].payload, b"for ann");
    assert_eq!(lab.written(BOB).1[0].payload, b"for bob");
    for (viewer, words) in [(ANN, b"by ann"), (BOB, b"by bob")] {
        lab.hand_in(viewer, udp(ip(1), ip(9), (6_100, 40_000), words));
    }
    let got: Vec<_> = lab
        .shell
        .sent
        .iter()
        .map(|(id, _, _, bytes)| (*id, &bytes[..]))
        .collect();
    assert_eq!(got, [(ann, &b"by ann"[..]), (bob, b"by bob")]);
}

#[test]
fn a_program_that_speaks_ipv6_gets_media_over_ipv6() {
    let mut lab = Lab::cameras();
    let mut player = Player::new(ANN, 5000);
    (player.own, player.peer) = ("fd00::1".parse().unwrap(), "fd00::9".parse().unwrap());
    let mut player = player.shaken(&mut lab);
    player.setup(&mut lab, "56100-56101");
    let (id, ours) = lab.shell.sockets[0];
    assert!(ours >= 10_000, "as many digits as the program's");
    player.agree(&mut lab, &format!("{ours}-{}", ours + 1), "40000-40001");
    lab.written(ANN);
    lab.media(id, false, (CAMERA, 40_000), b"picture");
    let (_, got) = lab.written(ANN);
    assert_eq!((got[0].from, got[0].to), ((player.peer, 40_000), (player.own, 56_100)));
}

#[test]
fn a_datagram_too_long_for_one_packet_arrives_whole_and_so_does_a_train() {
    let mut lab = Lab::cameras();
    let (_, id) = playing(&mut lab, ANN, 5000);
    lab.written(ANN);
    let long: Vec<u8> = (0..1_472u32).map(|i| i as u8).collect();
    lab.media(id, false, (CAMERA, 40_000), &long);
    assert_eq!(lab.written(ANN).1[0].payload, long);
    let (mut tx, mut train) = (TxBatch::default(), [[7u8; 300], [8; 300]].concat());
    let camera = SocketAddr::new(CAMERA, 40_000);
    lab.nodes[GATEWAY].handle_media(lab.now, id, false, camera, &mut train, 300, &mut tx);
    assert_eq!(tx.ready().0.len(), 1, "sealed as one train");
    lab.send(GATEWAY, &mut tx);
    lab.run();
    assert_eq!(lab.written(ANN).1[0].payload, train);
}

#[test]
fn a_setup_waits_for_its_ports_and_repeats_ask_for_no_more() {
    let mut lab = Lab::cameras();
    lab.shell.answers = false;
    let mut player = Player::connect(&mut lab, ANN, 5000);
    let words = setup("6100-6101");
    for _ in 0..8 {
        player.ask_with(&mut lab, ACK | PSH, words.as_bytes());
    }
    let (held, _) = lab.written(GATEWAY);
    assert!(held.iter().all(|s| s.payload.is_empty()), "{held:?}");
    assert_eq!(lab.shell.sockets.len(), 1);
    let (id, ours) = lab.shell.sockets[0];
    lab.reserved(GATEWAY, id, Some((ours, ours + 1)));
    let (sent, _) = lab.written(GATEWAY);
    let ports = format!("{ours}-{}", ours + 1);
    assert_eq!(
        sent[0],
        Tcp {
            seq: player.asked,
            flags: ACK | PSH,
            payload: setup(&ports).into_bytes(),
        }
    );
    // Sent again because it was lost behind us: rewritten the same.
    assert_eq!(player.ask(&mut lab, &words), setup(&ports));
    let answer = agreed(&ports, "40000-40001");
    let first = player.answer(&mut lab, &answer);
    player.answered -= answer.len() as u32;
    assert_eq!(player.answer(&mut lab, &answer), first);
    assert_eq!((lab.open(ANN), lab.open(GATEWAY), lab.shell.sockets.len()), (1, 1, 1));
}

#[test]
fn without_ports_the_camera_is_offered_what_it_refuses() {
    let mut lab = Lab::cameras();
    lab.shell.finds = false;
    let mut player = Player::connect(&mut lab, ANN, 5000);
    let got = player.setup(&mut lab, "6100-6101");
    assert_eq!(got, setup("6100-6101").replace("RTP/AVP/UDP", "XTP/AVP/UDP"));
    player.answer(&mut lab, "RTSP/1.0 461 Unsupported Transport\r\nCSeq: 3\r\n\r\n");
    assert_eq!(
        (lab.open(ANN), lab.open(GATEWAY), lab.drops(GATEWAY, DropReason::Rtsp)),
        (0, 0, 1)
    );
}

#[test]
fn a_shell_that_never_answers_does_not_hold_a_connection_for_ever() {
    let mut lab = Lab::cameras();
    lab.shell.answers = false;
    let mut player = Player::connect(&mut lab, ANN, 5000);
    assert_eq!(player.setup(&mut lab, "6100-6101"), "");
    lab.wait(6);
    player.asked -= setup("6100-6101").len() as u32;
    assert!(player.setup(&mut lab, "6100-6101").contains("XTP/AVP/UDP"));
}

#[test]
fn teardown_s_answer_closes_both_ends() {
    let mut lab = Lab::cameras();
    let (mut player, id) = playing(&mut lab, ANN, 5000);
    player.ask(
        &mut lab,
        "TEARDOWN rtsp://camera.home.thicket:554/live/ RTSP/1.0\r\nCSeq: 6\r\n\r\n",
    );
    assert_eq!((lab.open(ANN), lab.open(GATEWAY)), (1, 1));
    player.answer(&mut lab, "RTSP/1.0 200 OK\r\nCSeq: 6\r\nConnection: close\r\n\r\n");
    assert_eq!(
        (lab.open(ANN), lab.open(GATEWAY), &lab.shell.released[..]),
        (0, 0, &[id][..])
    );
    assert_eq!(lab.nodes[GATEWAY].stats(lab.now).sessions[0].flows, 1);
    assert_eq!(lab.nodes[ANN].stats(lab.now).sessions[0].flows, 1);
    lab.written(ANN);
    lab.media(id, false, (CAMERA, 40_000), b"late");
    assert!(lab.written(ANN).1.is_empty());
    lab.hand_in(ANN, udp(ip(1), ip(9), (6_100, 40_000), b"late"));
    assert!(lab.shell.sent.is_empty());
}

#[test]
fn media_end_with_the_connection_the_policy_the_session_and_with_silence() {
    type End = fn(&mut Lab, &Player);
    let ends: [(&str, End); 6] = [
        ("FIN", |lab, player| player.ask_with(lab, FIN | ACK, b"")),
        ("RST", |lab, player| player.answer_with(lab, RST | ACK, b"")),
        ("policy", |lab, _| lab.allows(ANN, Vec::new())),
        ("another device", |lab, _| {
            let target = "192.168.1.30:554".parse().unwrap();
            lab.allows(ANN, vec![Service { target, ..RTSP }]);
        }),
        ("session", |lab, _| {
            let session = SessionId(session_of(ANN));
            lab.command(GATEWAY, Command::SessionRemove { session });
        }),
        ("silence", |lab, _| lab.wait(100)),
    ];
    for (name, end) in ends {
        let mut lab = Lab::cameras();
        let (player, id) = playing(&mut lab, ANN, 5000);
        let (_, bob) = playing(&mut lab, BOB, 5000);
        if name == "silence" {
            lab.wait(100);
            lab.media(bob, false, (CAMERA, 40_000), b"x");
        }
        end(&mut lab, &player);
        assert_eq!(lab.shell.released, [id], "{name}");
        assert_eq!(lab.open(GATEWAY), 1, "{name}: Bob's go on");
        lab.written(BOB);
        lab.media(bob, false, (CAMERA, 40_000), b"x");
        assert_eq!(lab.written(BOB).1.len(), 1, "{name}");
    }
}

#[test]
fn a_pause_ends_nothing_while_anybody_speaks() {
    let mut lab = Lab::cameras();
    let (mut player, id) = playing(&mut lab, ANN, 5000);
    for _ in 0..10 {
        lab.wait(60);
        player.ask(
            &mut lab,
            "GET_PARAMETER rtsp://camera.home.thicket/live/ RTSP/1.0\r\nCSeq: 9\r\n\r\n",
        );
        player.answer(&mut lab, "RTSP/1.0 200 OK\r\nCSeq: 9\r\n\r\n");
    }
    lab.written(ANN);
    lab.media(id, false, (CAMERA, 40_000), b"again");
    assert_eq!(lab.written(ANN).1.len(), 1);
}

#[test]
fn the_viewer_opens_nothing_that_its_program_did_not_ask_for() {
    let answers = [
        (
            "another program's port",
            "RTP/AVP;unicast;client_port=7000-7001;server_port=40000-40001",
            "200 OK",
        ),
        (
            "low ports of the camera's",
            "RTP/AVP;unicast;client_port=6100-6101;server_port=53-54",
            "200 OK",
        ),
        ("no ports", "RTP/AVP;unicast;client_port=6100-6101", "200 OK"),
        (
            "a refusal",
            "RTP/AVP;unicast;client_port=6100-6101;server_port=40000-40001",
            "461 No",
        ),
        (
            "a group",
            "RTP/AVP;multicast;client_port=6100-6101;server_port=40000-40001",
            "200 OK",
        ),
    ];
    for (name, transport, status) in answers {
        let mut lab = Lab::cameras();
        // A gateway that helps nobody: what its camera says arrives as it is.
        lab.allows(ANN, vec![Service { rtsp: None, ..RTSP }]);
        let mut player = Player::connect(&mut lab, ANN, 5000);
        player.setup(&mut lab, "6100-6101");
        player.answer(
            &mut lab,
            &format!("RTSP/1.0 {status}\r\nCSeq: 3\r\nTransport: {transport}\r\n\r\n"),
        );
        assert_eq!(lab.open(ANN), 0, "{name}");
    }
    let mut lab = Lab::cameras();
    lab.allows(ANN, vec![Service { rtsp: None, ..RTSP }]);
    let mut player = Player::connect(&mut lab, ANN, 5000);
    player.setup(&mut lab, "6100-6101");
    player.agree(&mut lab, "6100-6101", "40000-40001");
    assert_eq!(lab.open(ANN), 1, "the same words open what was asked for");
    lab.watches(ANN, Vec::new());
    assert_eq!(lab.open(ANN), 0, "as long as the session names the port RTSP");
}

#[test]
fn the_viewer_reads_only_connections_to_rtsp_from_their_first_byte() {
    let mut lab = Lab::cameras();
    lab.allows(ANN, vec![Service { rtsp: None, ..RTSP }]);
    let mut player = Player::new(ANN, 5000);
    player.setup(&mut lab, "6100-6101");
    player.agree(&mut lab, "6100-6101", "40000-40001");
    assert_eq!(lab.open(ANN), 0, "met in its middle");
    let mut player = Player::connect(&mut lab, ANN, 5001);
    player.ask(&mut lab, "GET / HTTP/1.0\r\n\r\n");
    player.setup(&mut lab, "6100-6101");
    player.agree(&mut lab, "6100-6101", "40000-40001");
    assert_eq!(lab.open(ANN), 0, "not RTSP, never again");
    lab.watches(ANN, vec![8554]);
    let mut player = Player::connect(&mut lab, ANN, 5002);
    player.setup(&mut lab, "6100-6101");
    player.agree(&mut lab, "6100-6101", "40000-40001");
    assert_eq!(lab.open(ANN), 0, "not named RTSP");
}

#[test]
fn a_connection_met_in_its_middle_passes_until_it_sets_something_up() {
    let mut lab = Lab::cameras();
    let mut player = Player::new(ANN, 5000);
    let frame = "$\u{1}\0\u{4}data";
    let words = "GET_PARAMETER rtsp://camera.home.thicket/live/ RTSP/1.0\r\nCSeq: 9\r\n\r\n";
    // Where the client's next byte belongs is the camera's to say: it is asked, and its acknowledgement tells.
    player.ask_with(&mut lab, ACK | PSH, frame.as_bytes());
    let (asked, _) = lab.written(GATEWAY);
    let probe = Tcp {
        seq: player.asked - 1,
        flags: ACK,
        payload: Vec::new(),
    };
    assert_eq!(asked, [probe]);
    player.answer_with(&mut lab, ACK, b"");
    assert_eq!(player.ask(&mut lab, frame), frame);
    assert_eq!(player.answer(&mut lab, frame), frame);
    assert_eq!(player.ask(&mut lab, words), words);
    let reply = "RTSP/1.0 200 OK\r\nCSeq: 9\r\n\r\n";
    assert_eq!(player.answer(&mut lab, reply), reply);
    lab.written(ANN);
    player.ask_with(&mut lab, ACK | PSH, &setup("6100-6101").as_bytes()[..3]);
    player.asked += 3;
    lab.written(GATEWAY);
    player.ask_with(&mut lab, ACK | PSH, &setup("6100-6101").as_bytes()[3..]);
    let (reset, _) = lab.written(ANN);
    assert_eq!(
        (reset[0].flags & RST, reset[0].seq),
        (RST, player.answered),
        "the program hears of it"
    );
    let (reset, _) = lab.written(GATEWAY);
    assert_eq!(reset.len(), 1, "the SETUP doesn't arrive");
    assert_eq!(reset[0].flags & RST, RST, "and so does the camera");
    assert_eq!((lab.drops(GATEWAY, DropReason::Rtsp), lab.shell.sockets.len()), (1, 0));
    // The same ports again are a new connection.
    let (_, id) = playing(&mut lab, ANN, 5000);
    lab.written(ANN);
    lab.media(id, false, (CAMERA, 40_000), b"x");
    assert_eq!(lab.written(ANN).1.len(), 1);
}

#[test]
fn what_is_not_rtsp_is_reset_unless_its_media_need_none_of_us() {
    let mut lab = Lab::cameras();
    let mut player = Player::connect(&mut lab, ANN, 5000);
    assert_eq!(player.ask(&mut lab, "GET / HTTP/1.0\r\n\r\n"), "");
    assert_eq!(lab.written(ANN).0[0].flags & RST, RST);
    let mut player = Player::connect(&mut lab, ANN, 5001);
    let words = "SETUP rtsp://c/live RTSP/1.0\r\nCSeq: 3\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n";
    assert_eq!(player.ask(&mut lab, words), words);
    let words = "RTSP/1.0 200 OK\r\nCSeq: 3\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n";
    assert_eq!(player.answer(&mut lab, words), words);
    let noise = "not a line of RTSP\r\n";
    assert_eq!(player.answer(&mut lab, noise), noise);
    assert_eq!(player.answer(&mut lab, noise), noise);
    assert_eq!(lab.shell.sockets, []);
}

#[test]
fn interleaved_media_stay_super_packets() {
    let mut lab = Lab::cameras();
    let player = Player::connect(&mut lab, ANN, 5000);
    let mut payload = Vec::new();
    while payload.len() < 30_000 {
        payload.extend_from_slice(b"$\0\x05\x00");
        payload.extend((0..1_280u32).map(|i| i as u8));
    }
    let (mut vnet, packet) = player.tcp(false, player.answered, player.asked, ACK, &payload);
    (vnet.gso_type, vnet.gso_size) = (gso::TCPV4, 1_380);
    lab.hand_in(GATEWAY, (vnet, packet));
    let [(vnet, got)] = &lab.tun[ANN][..] else {
        panic!("{} packets", lab.tun[ANN].len())
    };
    assert_eq!((vnet.gso_type, &got[40..]), (gso::TCPV4, &payload[..]));
}

#[test]
fn an_answer_inside_a_super_packet_is_rewritten_where_it_stands() {
    let mut lab = Lab::cameras();
    let mut player = Player::connect(&mut lab, ANN, 5000);
    player.ask(
        &mut lab,
        "DESCRIBE rtsp://camera.home.thicket:554/live RTSP/1.0\r\nCSeq: 2\r\n\r\n",
    );
    let frame = [&b"$\0\x10\x00"[..], &[b'x'; 4_096]].concat();
    let body = "o=- 1 1 IN IP4 192.168.1.20\r\nm=video 0 RTP/AVP 96\r\n";
    let head = format!(
        "RTSP/1.0 200 OK\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let payload = [&frame, head.as_bytes(), body.as_bytes(), &frame].concat();
    let (mut vnet, packet) = player.tcp(false, player.answered, player.asked, ACK, &payload);
    (vnet.gso_type, vnet.gso_size) = (gso::TCPV4, 1_380);
    lab.hand_in(GATEWAY, (vnet, packet));
    let got: Vec<u8> = lab.written(ANN).0.into_iter().flat_map(|s| s.payload).collect();
    let want = String::from_utf8(payload)
        .unwrap()
        .replace("192.168.1.20", "     0.0.0.0");
    assert_eq!(String::from_utf8(got).unwrap(), want);
}

#[test]
fn a_lost_answer_leaves_the_viewer_in_step() {
    let mut lab = Lab::cameras();
    let mut player = Player::connect(&mut lab, ANN, 5000);
    player.setup(&mut lab, "6100-6101");
    let ours = lab.shell.sockets[0].1;
    let words = agreed(&format!("{ours}-{}", ours + 1), "40000-40001");
    let (first, second) = words.split_at(40);
    let (mut early, mut late) = (player.clone(), player.clone());
    late.answered += 40;
    // The first part is lost between gateway and viewer, and sent again behind the second.
    let (vnet, packet) = early.tcp(false, early.answered, early.asked, ACK, first.as_bytes());
    let (mut tx, mut tun) = (TxBatch::default(), TunBatch::default());
    lab.nodes[GATEWAY].handle_tun(lab.now, vnet, &packet, &mut tx, &mut tun);
    late.answer_with(&mut lab, ACK | PSH, second.as_bytes());
    assert_eq!(lab.open(ANN), 0);
    assert_eq!(lab.written(ANN).0.len(), 1, "it passes, for the program's TCP to keep");
    early.answer(&mut lab, first);
    assert_eq!((lab.open(ANN), lab.open(GATEWAY)), (1, 1));
}

#[test]
fn a_player_that_comes_again_gets_the_ports_of_its_lost_connection() {
    let mut lab = Lab::cameras();
    let (_, lost) = playing(&mut lab, ANN, 5000);
    let (_, id) = playing(&mut lab, ANN, 5001);
    assert_eq!(
        (lab.open(ANN), lab.open(GATEWAY), &lab.shell.released[..]),
        (1, 1, &[lost][..])
    );
    lab.written(ANN);
    lab.media(id, false, (CAMERA, 40_000), b"x");
    assert_eq!(lab.written(ANN).1.len(), 1);
}

#[test]
fn a_last_word_behind_a_teardown_does_not_keep_the_ports_from_the_next_connection() {
    let mut lab = Lab::cameras();
    for port in [5000, 5001] {
        let (mut player, id) = playing(&mut lab, ANN, port);
        lab.written(ANN);
        lab.media(id, true, (CAMERA, 40_001), b"x");
        assert_eq!(lab.written(ANN).1.len(), 1);
        player.ask(
            &mut lab,
            "TEARDOWN rtsp://camera.home.thicket:554/live/ RTSP/1.0\r\nCSeq: 6\r\n\r\n",
        );
        player.answer(&mut lab, "RTSP/1.0 200 OK\r\nCSeq: 6\r\n\r\n");
        lab.hand_in(ANN, udp(ip(1), ip(9), (6_101, 40_001), b"bye"));
        assert!(lab.shell.sent.is_empty());
    }
}

#[test]
fn a_viewer_with_too_many_reservations_is_refused_more() {
    let mut lab = Lab::cameras();
    let mut player = Player::connect(&mut lab, ANN, 5000);
    for n in 0..20u16 {
        player.setup(&mut lab, &format!("{}-{}", 6_100 + 2 * n, 6_101 + 2 * n));
    }
    assert_eq!(lab.shell.sockets.len(), 16);
    // A camera that answers none of them keeps none for ever.
    lab.wait(61);
    assert_eq!(lab.shell.released.len(), 16);
}
