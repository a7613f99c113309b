//! Cameras and who watches them, for bench/cameras: streams of RTP (RFC 3550) over UDP in real time, a burst of packets for each picture.
//!
//! `cameras serve ADDRESS:PORT` answers requests for streams, one lot after another.
//! `cameras watch ADDRESS:PORT STREAMS SECONDS` asks for so many, each from a port of its own, and prints one JSON document: what came, what didn't, and
//! how long it took. Both must be on one machine: they compare its clock.
//!
//! A request is 'S', lot u32, stream u32, streams u32, pictures u32. Behind a packet's RTP header stand the time of sending (nanoseconds since 1970, u64), how
//! many packets the stream has (u32), and bytes that its sequence number tells.

#![allow(clippy::expect_used, clippy::panic)]

use std::env;
use std::net::{SocketAddr, UdpSocket};
use std::process;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// As in bench/cameras.
const PACKET: usize = 1_316;
const BITS_PER_SECOND: u64 = 8_000_000;
const PICTURES_PER_SECOND: u64 = 30;
/// Of RTP's video clock, per picture.
const TICKS: u32 = 3_000;
const RTP_HEADER: usize = 12;
const HEAD: usize = RTP_HEADER + 12;
/// Whoever asks asks again until the stream comes.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// What hasn't come so long after the last packet is lost.
const PATIENCE: Duration = Duration::from_secs(1);
const START_WITHIN: Duration = Duration::from_secs(10);

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["serve", address] => serve(address.parse().expect("ADDRESS:PORT")),
        ["watch", address, streams, seconds] => {
            let seconds: u32 = seconds.parse().expect("SECONDS");
            let pictures = seconds * PICTURES_PER_SECOND as u32;
            watch(
                address.parse().expect("ADDRESS:PORT"),
                streams.parse().expect("STREAMS"),
                pictures,
            );
        }
        _ => panic!("serve ADDRESS:PORT, or watch ADDRESS:PORT STREAMS SECONDS"),
    }
}

/// Packets of a stream's first `pictures`.
fn packets(pictures: u32) -> u32 {
    (u64::from(pictures) * BITS_PER_SECOND / (8 * PACKET as u64 * PICTURES_PER_SECOND)) as u32
}

fn first_sequence(stream: u32) -> u16 {
    // Some wrap soon, as some do.
    (stream as u16).wrapping_mul(997).wrapping_sub(500)
}

fn fill(sequence: u16, stream: u32) -> u8 {
    (u32::from(sequence) * 31 + stream) as u8
}

fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    since.as_nanos() as u64
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |b| u32::from_be_bytes(*b))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |b| u64::from_be_bytes(*b))
}

fn serve(address: SocketAddr) {
    let socket = UdpSocket::bind(address).expect("a free port");
    println!("ready");
    let mut lot = None;
    let mut viewers: Vec<Option<SocketAddr>> = Vec::new();
    let mut request = [0; 64];
    loop {
        let (len, from) = socket.recv_from(&mut request).expect("a socket that works");
        if len != 17 || request[0] != b'S' {
            continue;
        }
        let [number, stream, streams, pictures] = [1, 5, 9, 13].map(|at| be32(&request, at));
        if lot == Some(number) && viewers.is_empty() {
            // A late repetition: that lot has been sent.
            continue;
        }
        if lot != Some(number) {
            lot = Some(number);
            viewers = vec![None; streams as usize];
        }
        if let Some(viewer) = viewers.get_mut(stream as usize) {
            *viewer = Some(from);
        }
        if viewers.iter().all(Option::is_some) {
            let all: Vec<SocketAddr> = viewers.drain(..).flatten().collect();
            send(&socket, &all, pictures);
        }
    }
}

/// Pictures of all streams in turn, evenly over the time of one.
fn send(socket: &UdpSocket, viewers: &[SocketAddr], pictures: u32) {
    let streams = viewers.len() as u64;
    let begun = Instant::now();
    let mut packet = [0; PACKET];
    let total = packets(pictures);
    for picture in 0..pictures {
        for (stream, viewer) in (0u32..).zip(viewers) {
            let turn = u64::from(picture) * streams + u64::from(stream);
            let due = Duration::from_nanos(turn * 1_000_000_000 / PICTURES_PER_SECOND / streams);
            thread::sleep(due.saturating_sub(begun.elapsed()));
            let (from, to) = (packets(picture), packets(picture + 1));
            for number in from..to {
                let sequence = first_sequence(stream).wrapping_add(number as u16);
                let marker = u8::from(number + 1 == to) << 7;
                packet[HEAD..].fill(fill(sequence, stream));
                packet[0] = 2 << 6;
                packet[1] = marker | 96;
                packet[2..4].copy_from_slice(&sequence.to_be_bytes());
                packet[4..8].copy_from_slice(&picture.wrapping_mul(TICKS).to_be_bytes());
                packet[8..12].copy_from_slice(&stream.to_be_bytes());
                packet[12..20].copy_from_slice(&now().to_be_bytes());
                packet[20..24].copy_from_slice(&total.to_be_bytes());
                // A full queue loses packets, as a camera's would: whoever watches tells.
                let _ = socket.send_to(&packet, viewer);
            }
        }
    }
}

#[derive(Default)]
struct Seen {
    expected: u32,
    received: u32,
    late: u32,
    duplicates: u32,
    /// Nanoseconds.
    delays: Vec<u64>,
}

fn watch(address: SocketAddr, streams: u32, pictures: u32) {
    let lot = process::id();
    let watchers: Vec<_> = (0..streams)
        .map(|stream| thread::spawn(move || watch_one(address, [lot, stream, streams, pictures])))
        .collect();
    let mut all = Seen::default();
    for watcher in watchers {
        let seen = watcher.join().unwrap_or_else(|_| process::exit(1));
        all.expected += seen.expected;
        all.received += seen.received;
        all.late += seen.late;
        all.duplicates += seen.duplicates;
        all.delays.extend(seen.delays);
    }
    all.delays.sort_unstable();
    let at = |share: f64| {
        let index = (all.delays.len().saturating_sub(1) as f64 * share) as usize;
        all.delays.get(index).copied().unwrap_or_default() as f64 / 1e6
    };
    println!(
        "{{\"packets\":{},\"lost\":{},\"late\":{},\"duplicates\":{},\"median\":{:.4},\"p99\":{:.4},\"most\":{:.4}}}",
        all.expected,
        all.expected - all.received,
        all.late,
        all.duplicates,
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn watch_one(address: SocketAddr, request: [u32; 4]) -> Seen {
    let [_, stream, _, pictures] = request;
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a free port");
    socket.connect(address).expect("a way there");
    socket.set_read_timeout(Some(ASK_EVERY)).expect("a timeout");
    let mut ask = vec![b'S'];
    request
        .iter()
        .for_each(|word| ask.extend_from_slice(&word.to_be_bytes()));
    let mut packet = [0; 2_048];
    let begun = Instant::now();
    let mut first = None;
    while first.is_none() {
        assert!(begun.elapsed() < START_WITHIN, "stream {stream} does not come");
        // Refused while nobody listens yet.
        let _ = socket.send(&ask);
        first = socket.recv(&mut packet).ok();
    }
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut seen = Seen {
        expected: packets(pictures),
        ..Seen::default()
    };
    let mut came = vec![false; seen.expected as usize];
    let mut highest = 0;
    let mut next = first;
    while let Some(len) = next {
        let number = check(&packet[..len], stream, seen.expected, highest);
        let delay = now().saturating_sub(be64(&packet, RTP_HEADER));
        if came[number] {
            seen.duplicates += 1;
        } else {
            came[number] = true;
            seen.received += 1;
            seen.late += u32::from(number < highest);
            seen.delays.push(delay);
        }
        highest = highest.max(number);
        if seen.received == seen.expected {
            break;
        }
        next = socket.recv(&mut packet).ok();
    }
    seen
}

/// The packet's number in its stream; anything that was not sent so ends the program.
fn check(packet: &[u8], stream: u32, expected: u32, highest: usize) -> usize {
    assert_eq!(packet.len(), PACKET, "a packet of another size");
    assert_eq!((packet[0], packet[1] & 0x7f), (2 << 6, 96), "not our RTP");
    assert_eq!(
        (be32(packet, 8), be32(packet, 20)),
        (stream, expected),
        "another stream"
    );
    let sequence = u16::from_be_bytes([packet[2], packet[3]]);
    assert!(
        packet[HEAD..].iter().all(|&byte| byte == fill(sequence, stream)),
        "wrong bytes in stream {stream}"
    );
    let low = sequence.wrapping_sub(first_sequence(stream));
    // Numbers go on past 16 bits: the one nearest to the highest so far.
    let number = highest as i64 + i64::from(low.wrapping_sub(highest as u16) as i16);
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    assert!(number < expected as usize, "a sequence number that was not sent");
    let picture = be32(packet, 4) / TICKS;
    assert!(
        (packets(picture)..packets(picture + 1)).contains(&(number as u32)),
        "a wrong timestamp"
    );
    number
}
