//! The UDP sockets against the kernel, on loopback.

#![allow(clippy::unwrap_used, dead_code, unused_imports)]

#[path = "../src/sys/mod.rs"]
mod sys;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use sys::{Outgoing, ReceiveBuffers, Received, Room, TooLong, Udp};

const ROOM: Room = Room {
    receive: 1 << 20,
    send: 1 << 20,
};

fn bind(ip: impl Into<IpAddr>, dual: bool) -> Udp {
    Udp::bind(SocketAddr::new(ip.into(), 0), dual, ROOM).unwrap()
}

/// The next batch that comes.
fn receive(socket: &Udp) -> Vec<(Received, Vec<u8>)> {
    let (mut buffers, mut out) = (ReceiveBuffers::new(), Vec::new());
    let began = Instant::now();
    while out.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(5), "nothing came");
        socket.receive(&mut buffers, &mut out).unwrap();
        std::thread::yield_now();
    }
    out.into_iter()
        .map(|received| {
            let bytes = buffers.buffer(received.buffer, received.len).to_vec();
            (received, bytes)
        })
        .collect()
}

/// Datagrams as they come, until there are `bytes` of them: how long each buffer was.
fn lengths(socket: &Udp, bytes: usize) -> Vec<usize> {
    let mut all = Vec::new();
    while all.iter().sum::<usize>() < bytes {
        all.extend(receive(socket).iter().map(|(received, _)| received.len));
    }
    all
}

fn send(socket: &mut Udp, to: SocketAddr, local: Option<IpAddr>, segment: usize, bytes: &[u8]) -> usize {
    let out = Outgoing {
        to,
        local,
        segment,
        bytes,
        share: 0,
    };
    let mut refused = 0;
    socket.send(std::iter::once(out), &mut |out| refused += out.bytes.len());
    refused
}

#[test]
fn an_answer_leaves_from_the_address_that_was_called() {
    for (wildcard, dual, called) in [
        (IpAddr::from(Ipv4Addr::UNSPECIFIED), false, IpAddr::from([127, 0, 0, 2])),
        (Ipv6Addr::UNSPECIFIED.into(), true, [127, 0, 0, 3].into()),
        (Ipv6Addr::UNSPECIFIED.into(), true, Ipv6Addr::LOCALHOST.into()),
    ] {
        let mut parent = bind(wildcard, dual);
        parent.tell_local();
        let own = if called.is_ipv4() {
            IpAddr::from(Ipv4Addr::LOCALHOST)
        } else {
            called
        };
        // Connected, as a NAT is: it takes answers from there alone.
        let child = UdpSocket::bind((own, 0)).unwrap();
        child.connect((called, parent.local().port())).unwrap();
        child.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        child.send(b"hello").unwrap();
        let got = receive(&parent);
        let (received, bytes) = &got[0];
        assert_eq!((received.local, &bytes[..]), (Some(called), &b"hello"[..]));
        // One datagram, and a train of three.
        for (segment, bytes) in [(6, &b"answer"[..]), (2, b"123456")] {
            assert_eq!(send(&mut parent, received.from, received.local, segment, bytes), 0);
            for piece in bytes.chunks(segment) {
                let mut buffer = [0; 16];
                let len = child.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..len], piece);
            }
        }
    }
}

#[test]
fn an_address_that_is_no_longer_ours_does_not_keep_anything_from_leaving() {
    let mut parent = bind(Ipv4Addr::UNSPECIFIED, false);
    let child = bind(Ipv4Addr::LOCALHOST, false);
    let gone = Some(IpAddr::from([198, 51, 100, 9]));
    assert_eq!(send(&mut parent, child.local(), gone, 3, b"abc"), 0);
    assert_eq!(send(&mut parent, child.local(), gone, 3, b"abcdefg"), 0);
    let mut got = Vec::new();
    while got.len() < 10 {
        got.extend(receive(&child).into_iter().flat_map(|(_, bytes)| bytes));
    }
    assert_eq!(got, b"abcabcdefg");
}

#[test]
fn a_socket_bound_to_one_address_needs_no_word_about_it() {
    let parent = bind(Ipv4Addr::LOCALHOST, false);
    parent.tell_local();
    let mut child = bind(Ipv4Addr::LOCALHOST, false);
    assert_eq!(send(&mut child, parent.local(), None, 2, b"hi"), 0);
    assert_eq!(receive(&parent)[0].0.local, None);
}

#[test]
fn a_destination_that_takes_no_trains_gets_single_datagrams_and_the_others_go_on_getting_trains() {
    let mut sender = bind(Ipv4Addr::LOCALHOST, false);
    let (narrow, wide) = (bind(Ipv4Addr::LOCALHOST, false), bind(Ipv4Addr::LOCALHOST, false));
    // More segments than the kernel takes: EINVAL, as where the segments are too long for the way.
    let long: Vec<u8> = vec![7; 20_000];
    assert_eq!(send(&mut sender, narrow.local(), None, 100, &long), 0);
    assert_eq!(lengths(&narrow, 20_000), [100; 200]);
    for _ in 0..2 {
        assert_eq!(send(&mut sender, wide.local(), None, 100, &long[..1_050]), 0);
        assert_eq!(lengths(&wide, 1_050), [1_050], "one train, received as one");
        assert_eq!(send(&mut sender, narrow.local(), None, 100, &long[..1_050]), 0);
        assert_eq!(lengths(&narrow, 1_050), [[100; 10].as_slice(), &[50]].concat());
    }
}

#[test]
fn what_the_first_link_does_not_take_is_told_unless_it_may_be_fragmented() {
    let (mut sender, receiver) = (bind(Ipv6Addr::LOCALHOST, false), bind(Ipv6Addr::LOCALHOST, false));
    let to = receiver.local();
    // What the loopback interface takes at once.
    let most = 65_536 - 48;
    assert_eq!(send(&mut sender, to, None, most, &vec![1; most]), 0);
    assert_eq!(lengths(&receiver, most), [most]);
    assert_eq!(sender.take_too_long(), None);
    let long = most + 10;
    assert_eq!(send(&mut sender, to, None, long, &vec![1; long]), 0);
    let told = TooLong {
        to,
        len: long,
        datagrams: 1,
    };
    assert_eq!((sender.take_too_long(), sender.take_too_long()), (Some(told), None));
    sender.set_fragmenting(true).unwrap();
    assert_eq!(send(&mut sender, to, None, long, &vec![1; long]), 0);
    assert_eq!(sender.take_too_long(), None);
}
