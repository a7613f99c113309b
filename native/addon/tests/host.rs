//! The user-space host behind a TUN, and the kernel's TCP before it. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, dead_code, unused_imports)]

#[path = "../src/sys/mod.rs"]
mod sys;

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant as Clock;
use sys::{Poll, Tun, TunOffload};
use thicket_core::wire::{IpPacket, VNET_HEADER, VnetHeader, fold, gso, pseudo_header_sum, vnet_flags};
use thicket_core::{Closed, Host, HostConfig, HostEvent, Instant, StreamId};

/// What each transfer moves.
const BYTES: usize = 30_000_000;

struct World {
    space: String,
    tun: Tun,
    poll: Poll,
    host: Host,
    began: Clock,
    buffer: Vec<u8>,
    packet: Vec<u8>,
}

fn run(line: &str) {
    let mut words = line.split(' ');
    let out = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}

impl World {
    /// A network namespace whose only way out is the TUN: the kernel has .1, the host .2.
    fn new(name: &str) -> Self {
        let space = format!("{name}{}", std::process::id());
        let device = &space;
        let tun = Tun::open(device, TunOffload::Auto).unwrap();
        run(&format!("ip netns add {space}"));
        run(&format!("ip link set {device} netns {space}"));
        run(&format!("ip -n {space} addr add 198.18.0.1/24 dev {device}"));
        run(&format!("ip -n {space} addr add fd00::1/64 dev {device} nodad"));
        run(&format!("ip -n {space} link set {device} mtu 1400 up"));
        run(&format!("ip -n {space} link set lo up"));
        let poll = Poll::new().unwrap();
        poll.add(tun.as_raw_fd(), 1).unwrap();
        let config = HostConfig {
            seed: [std::process::id() as u8; 32],
            mtu: 1_400,
            budget: 32 << 20,
            streams: 256,
        };
        Self {
            space,
            tun,
            poll,
            host: Host::new(&config),
            began: Clock::now(),
            buffer: vec![0; 1 << 17],
            packet: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        Instant::from_micros(self.began.elapsed().as_micros() as u64 + 1)
    }

    fn program(&self, line: &[&str]) -> Child {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space]).args(line);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Sends what the host has, then waits for the kernel's packets or the host's time.
    fn turn(&mut self) {
        loop {
            let now = self.now();
            let Some(vnet) = self.host.poll_packet(now, &mut self.packet) else {
                break;
            };
            let vnet = complete(vnet, &mut self.packet).bytes();
            // The kernel takes as much as comes.
            let _ = self.tun.write(&[Tun::piece(&vnet), Tun::piece(&self.packet)]);
        }
        let wait = self.host.poll_timeout().since(self.now()).as_millis().min(100) as i32;
        self.poll.wait(wait, &mut Vec::new()).unwrap();
        while let Ok(len) = self.tun.read(&mut self.buffer) {
            let now = self.now();
            let (vnet, packet) = self.buffer[..len].split_at(VNET_HEADER);
            self.host
                .handle_packet(now, VnetHeader::parse(vnet.first_chunk().unwrap()), packet);
        }
        let now = self.now();
        self.host.handle_timeout(now);
    }

    /// Goes on until a program has ended.
    fn until_ended(&mut self, mut child: Child, mut serve: impl FnMut(&mut Host)) -> Output {
        while child.try_wait().unwrap().is_none() {
            self.turn();
            serve(&mut self.host);
        }
        child.wait_with_output().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.space]).status();
    }
}

/// What the core would take away, the kernel wants: checksums begun.
fn complete(mut vnet: VnetHeader, packet: &mut [u8]) -> VnetHeader {
    let ip = IpPacket::parse(packet).unwrap();
    if ip.source.is_ipv4() {
        packet[10..12].fill(0);
        let sum = !fold(thicket_core::wire::sum_bytes(0, &packet[..20]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let sum = fold(pseudo_header_sum(
        ip.source,
        ip.destination,
        ip.protocol(),
        ip.end - ip.transport_at,
    ));
    packet[ip.transport_at + 16..ip.transport_at + 18].copy_from_slice(&sum.to_be_bytes());
    vnet.flags = vnet_flags::NEEDS_CSUM;
    vnet.csum_start = ip.transport_at as u16;
    vnet.csum_offset = 16;
    vnet
}

/// A little HTTP: what was asked on one connection, and what is left to answer.
#[derive(Default)]
struct Talk {
    head: Vec<u8>,
    got: usize,
    left: usize,
    ends: bool,
}

fn serve(host: &mut Host, talks: &mut HashMap<StreamId, Talk>) {
    let mut buffer = vec![0; 1 << 16];
    while let Some(event) = host.poll_event() {
        match event {
            HostEvent::Incoming { stream, own, .. } if own.port() == 80 => drop(host.accept(stream)),
            HostEvent::Incoming { stream, .. } => host.refuse(stream),
            HostEvent::Connected(stream) => drop(talks.insert(stream, Talk::default())),
            _ => {}
        }
    }
    for (&stream, talk) in talks.iter_mut() {
        loop {
            let count = host.read(stream, &mut buffer);
            if count == 0 {
                break;
            }
            talk.got += count;
            if talk.ends {
                continue;
            }
            talk.head.extend_from_slice(&buffer[..count]);
            let head = String::from_utf8_lossy(&talk.head).into_owned();
            let Some(end) = head.find("\r\n\r\n") else { continue };
            talk.got -= end + 4;
            talk.ends = true;
            if head.starts_with("GET") {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\nConnection: close\r\n\r\n");
                assert_eq!(host.write(stream, answer.as_bytes()), answer.len());
                talk.left = BYTES;
            }
        }
        if talk.ends && talk.head.starts_with(b"PUT") && talk.got == BYTES {
            talk.got = 0;
            let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            assert_eq!(host.write(stream, answer), answer.len());
            host.finish(stream);
        }
        while talk.left > 0 {
            let count = host.write(stream, &vec![b'x'; talk.left.min(1 << 16)]);
            talk.left -= count;
            if talk.left == 0 {
                host.finish(stream);
            }
            if count == 0 {
                break;
            }
        }
    }
}

#[test]
fn the_kernels_programs_fetch_and_send_much_and_are_refused_as_by_a_kernel() {
    let mut world = World::new("thost");
    let mut talks = HashMap::new();
    let ask = |world: &mut World, talks: &mut HashMap<StreamId, Talk>, line: &[&str]| {
        let child = world.program(line);
        let out = world.until_ended(child, |host| serve(host, talks));
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let told = "%{http_code} %{size_download} %{size_upload} %{speed_download} %{speed_upload}";
    let blob = std::env::temp_dir().join(format!("thicket-host-{}", std::process::id()));
    std::fs::write(&blob, vec![b'y'; BYTES]).unwrap();
    for url in ["http://198.18.0.2/", "http://[fd00::2]/"] {
        let curl = [
            "curl",
            "-sg",
            "-m",
            "60",
            "-H",
            "Expect:",
            "-o",
            "/dev/null",
            "-w",
            told,
        ];
        let (code, out) = ask(&mut world, &mut talks, &[&curl[..], &[url]].concat());
        println!("{url}: {out}");
        assert!(
            code == Some(0) && out.starts_with(&format!("200 {BYTES} 0 ")),
            "{code:?} {out}"
        );
        let (code, out) = ask(
            &mut world,
            &mut talks,
            &[&curl[..], &["-T", blob.to_str().unwrap(), url]].concat(),
        );
        println!("{url}: {out}");
        assert!(
            code == Some(0) && out.starts_with(&format!("201 0 {BYTES} ")),
            "{code:?} {out}"
        );
    }
    std::fs::remove_file(&blob).unwrap();
    let (code, _) = ask(
        &mut world,
        &mut talks,
        &["curl", "-s", "-m", "20", "http://198.18.0.2:81/"],
    );
    assert_eq!(code, Some(7), "connection refused");
    assert_eq!(world.host.stats().resent, 0);
}

#[test]
fn the_kernels_ports_answer_or_refuse_what_the_host_calls() {
    let mut world = World::new("tcall");
    let server = "import socket
s = socket.create_server(('198.18.0.1', 7000))
print('there', flush=True)
c, _ = s.accept()
n = 0
while True:
    b = c.recv(1 << 16)
    if not b: break
    n += len(b)
c.sendall(b'%d' % n)
c.close()";
    let mut child = world.program(&["python3", "-c", server]);
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert_eq!(line, "there\n");
    let own = [198, 18, 0, 2].into();
    let now = world.now();
    let refused = world.host.connect(now, own, ([198, 18, 0, 1], 7_001).into()).unwrap();
    let stream = world.host.connect(now, own, ([198, 18, 0, 1], 7_000).into()).unwrap();
    let (mut left, mut heard, mut ends) = (BYTES, Vec::new(), Vec::new());
    let mut buffer = [0; 100];
    while ends.len() < 2 {
        world.turn();
        while let Some(event) = world.host.poll_event() {
            if let HostEvent::Closed { stream, reason } = event {
                ends.push((stream, reason));
            }
        }
        while left > 0 {
            let count = world.host.write(stream, &vec![7; left.min(1 << 16)]);
            left -= count;
            if left == 0 {
                world.host.finish(stream);
            }
            if count == 0 {
                break;
            }
        }
        let count = world.host.read(stream, &mut buffer);
        heard.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(ends, [(refused, Closed::Refused), (stream, Closed::Done)]);
    assert_eq!(String::from_utf8(heard).unwrap(), BYTES.to_string());
    assert!(child.wait().unwrap().success());
}
