//! Two viewers – relay – gateway over simulated links with one virtual clock, and a scripted camera behind the gateway.

#![allow(dead_code)]

use core::net::{IpAddr, SocketAddr};
use thicket_core::aead::Portable;
use thicket_core::wire::*;
use thicket_core::*;

pub type Node = Core<Portable>;

pub const ANN: usize = 0;
pub const BOB: usize = 1;
pub const RELAY: usize = 2;
pub const GATEWAY: usize = 3;

pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;
pub const FIN: u8 = 1;

pub const CAMERA: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 168, 1, 20));
pub const LAN: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 168, 1, 1));

pub const RTSP: Service = Service {
    protocol: protocol::TCP,
    port: 554,
    v6: false,
    target: SocketAddr::new(CAMERA, 8554),
    account: 1,
    rtsp: Some(LAN),
};

pub struct Lab {
    pub nodes: Vec<Node>,
    pub now: Instant,
    pub slot: u8,
    pub wire: Vec<(usize, usize, Vec<u8>)>,
    pub tun: Vec<Vec<(VnetHeader, Vec<u8>)>>,
    /// Pairs of sockets at the gateway: number and RTP's port.
    pub sockets: Vec<(u32, u16)>,
    pub released: Vec<u32>,
    /// Whether the gateway's shell answers reservations, and whether it finds ports.
    pub answers: bool,
    pub finds: bool,
    /// What the camera's sockets got: its port, and the bytes.
    pub camera: Vec<(u32, bool, SocketAddr, Vec<u8>)>,
}

pub fn address(node: usize) -> SocketAddr {
    ([192, 0, 2, node as u8 + 1], 7117).into()
}

pub fn remote(node: usize) -> Remote {
    Remote::new(0, address(node))
}

pub fn ip(last: u8) -> IpAddr {
    [198, 18, 0, last].into()
}

pub fn hop(link: u32, label: u32) -> Hop {
    Hop {
        link: LinkId(link),
        label: Label(label),
        generation: Generation(link),
    }
}

pub fn link_keys(link: u32, to: usize, child: bool) -> Command {
    let (up, down) = ([link as u8; 32], [link as u8 + 100; 32]);
    Command::LinkInstall(LinkKeys {
        link: LinkId(link),
        generation: Generation(link),
        remote: remote(to),
        initiator: child,
        receive_index: if child { 10 + link } else { 20 + link },
        send_index: if child { 20 + link } else { 10 + link },
        send_key: if child { up } else { down },
        receive_key: if child { down } else { up },
        hop_secret: [link as u8 + 50; 32],
        confirmed: true,
    })
}

/// The gateway's session with a viewer.
pub fn session_of(viewer: usize) -> u32 {
    6 + viewer as u32
}

/// The viewer's address as the gateway's host knows it.
pub fn known_as(viewer: usize) -> IpAddr {
    ip(88 + viewer as u8)
}

impl Lab {
    pub fn new() -> Self {
        let nodes = (0..4)
            .map(|i| {
                Node::new(CoreConfig {
                    node_key: [i as u8; 32],
                    listening: i == RELAY,
                    tun: TunFeatures {
                        checksum: true,
                        tso: true,
                        uso: true,
                    },
                    seed: [i as u8 + 9; 32],
                })
            })
            .collect();
        let mut lab = Self {
            nodes,
            now: Instant::from_micros(1_000_000),
            slot: 0,
            wire: Vec::new(),
            tun: vec![Vec::new(); 4],
            sockets: Vec::new(),
            released: Vec::new(),
            answers: true,
            finds: true,
            camera: Vec::new(),
        };
        lab.command(GATEWAY, link_keys(9, RELAY, true));
        lab.command(RELAY, link_keys(9, GATEWAY, false));
        for viewer in [ANN, BOB] {
            let link = 1 + viewer as u32;
            let label = 1_000 * link;
            lab.command(viewer, link_keys(link, RELAY, true));
            lab.command(RELAY, link_keys(link, viewer, false));
            let (out, back) = ([60 + viewer as u8; 32], [70 + viewer as u8; 32]);
            for (ingress, egress) in [
                (hop(link, label + 1), hop(9, label + 2)),
                (hop(9, label + 3), hop(link, label)),
            ] {
                lab.command(RELAY, Command::LabelForward { ingress, egress });
            }
            let v6 = Some(("fd00::1".parse().unwrap(), "fd00::9".parse().unwrap()));
            lab.session(
                viewer,
                5,
                Pair {
                    v4: Some((ip(1), ip(9))),
                    v6,
                },
            );
            lab.session(
                GATEWAY,
                session_of(viewer),
                Pair {
                    v4: Some((ip(77), known_as(viewer))),
                    v6: None,
                },
            );
            lab.path(viewer, 5, hop(link, label), hop(link, label + 1), out, back);
            let session = session_of(viewer);
            lab.path(GATEWAY, session, hop(9, label + 2), hop(9, label + 3), back, out);
            lab.watches(viewer, vec![554]);
            lab.allows(viewer, vec![RTSP]);
        }
        lab
    }

    pub fn session(&mut self, node: usize, session: u32, pair: Pair) {
        let session = SessionId(session);
        self.command(node, Command::SessionOpen { session, pair });
    }

    pub fn path(
        &mut self,
        node: usize,
        session: u32,
        ingress: Hop,
        egress: Hop,
        send_key: [u8; 32],
        receive_key: [u8; 32],
    ) {
        let keys = PathKeys {
            path: PathId(session),
            session: SessionId(session),
            ingress,
            egress,
            send_key,
            receive_key,
            confirmed: true,
        };
        self.command(node, Command::PathInstall(keys));
    }

    pub fn policy(&mut self, node: usize, session: u32, policy: Policy) {
        let session = SessionId(session);
        self.command(node, Command::SessionPolicy { session, policy });
    }

    pub fn watches(&mut self, viewer: usize, rtsp_ports: Vec<u16>) {
        let policy = Policy {
            outbound: true,
            rtsp_ports,
            ..Policy::default()
        };
        self.policy(viewer, 5, policy);
    }

    pub fn allows(&mut self, viewer: usize, inbound: Vec<Service>) {
        let policy = Policy {
            inbound,
            ..Policy::default()
        };
        self.policy(GATEWAY, session_of(viewer), policy);
    }

    pub fn command(&mut self, node: usize, command: Command) {
        let mut tx = TxBatch::default();
        self.nodes[node].command(self.now, command, &mut tx);
        self.send(node, &mut tx);
        self.serve(node);
    }

    pub fn send(&mut self, from: usize, tx: &mut TxBatch) {
        let (trains, buffer) = tx.ready();
        for train in trains {
            for datagram in buffer[train.range.clone()].chunks(train.segment) {
                let to = (0..4).find(|&n| address(n) == train.remote.address).unwrap();
                self.wire.push((from, to, datagram.to_vec()));
            }
        }
    }

    pub fn tun_in(&mut self, node: usize, vnet: VnetHeader, packet: &[u8]) {
        let (mut tx, mut tun) = (TxBatch::default(), TunBatch::default());
        self.nodes[node].handle_tun(self.now, vnet, packet, &mut tx, &mut tun);
        self.send(node, &mut tx);
        self.take_tun(node, &tun, &[]);
        self.serve(node);
        self.run();
    }

    pub fn take_tun(&mut self, node: usize, tun: &TunBatch, buffer: &[u8]) {
        for write in &tun.writes {
            let head = &tun.heads[write.head.clone()];
            let vnet = VnetHeader::parse(head.first_chunk().unwrap());
            let mut packet = head[VNET_HEADER..].to_vec();
            for piece in &tun.pieces[write.pieces.clone()] {
                packet.extend_from_slice(&buffer[piece.clone()]);
            }
            self.tun[node].push((vnet, packet));
        }
    }

    /// The shell's part in media.
    pub fn serve(&mut self, node: usize) {
        while let Some(request) = self.nodes[node].poll_media() {
            assert_eq!(node, GATEWAY, "viewers have no sockets");
            match request {
                MediaRequest::Reserve { id, lan, ports } => {
                    assert_eq!(lan, LAN);
                    let port = ports.start().next_multiple_of(2) + 2 * self.sockets.len() as u16;
                    self.sockets.push((id, port));
                    if self.answers {
                        self.reserved(id, self.finds.then_some((port, port + 1)));
                    }
                }
                MediaRequest::Release { id } => self.released.push(id),
            }
        }
    }

    pub fn reserved(&mut self, id: u32, ports: Option<(u16, u16)>) {
        let mut rx = RxBatch::default();
        self.nodes[GATEWAY].media_reserved(self.now, id, ports, &mut rx);
        self.send(GATEWAY, &mut rx.tx);
        self.take_tun(GATEWAY, &rx.tun, &[]);
    }

    pub fn receive(&mut self, from: usize, to: usize, buffer: &mut [u8], segment: usize) {
        let mut rx = RxBatch::default();
        self.nodes[to].handle_datagrams(self.now, remote(from), buffer, segment, &mut rx);
        for train in &rx.relays {
            for datagram in buffer[train.range.clone()].chunks(train.segment) {
                let next = (0..4).find(|&n| address(n) == train.remote.address).unwrap();
                self.wire.push((to, next, datagram.to_vec()));
            }
        }
        self.send(to, &mut rx.tx);
        self.take_tun(to, &rx.tun, buffer);
        for send in &rx.media.sends {
            let bytes = rx.media.buffer[send.range.clone()].to_vec();
            self.camera.push((send.id, send.rtcp, send.to, bytes));
        }
        self.serve(to);
    }

    pub fn run(&mut self) {
        while !self.wire.is_empty() {
            let mut batch = std::mem::take(&mut self.wire).into_iter().peekable();
            while let Some((from, to, mut buffer)) = batch.next() {
                let segment = buffer.len();
                while let Some((_, _, next)) = batch.next_if(|(f, t, d)| {
                    (*f, *t) == (from, to) && d.len() <= segment && buffer.len() % segment == 0 && buffer.len() < 50_000
                }) {
                    buffer.extend_from_slice(&next);
                }
                self.receive(from, to, &mut buffer, segment);
            }
        }
    }

    /// A datagram of the camera's, to a socket of a pair.
    pub fn media(&mut self, id: u32, rtcp: bool, from: (IpAddr, u16), payload: &[u8]) {
        let mut tx = TxBatch::default();
        let mut bytes = payload.to_vec();
        let len = bytes.len();
        self.nodes[GATEWAY].handle_media(self.now, id, rtcp, from.into(), &mut bytes, len, &mut tx);
        self.send(GATEWAY, &mut tx);
        self.run();
    }

    pub fn drops(&self, node: usize, reason: DropReason) -> u64 {
        let stats = self.nodes[node].stats(self.now);
        stats.drops.iter().find(|(name, _)| *name == reason.name()).unwrap().1
    }

    pub fn open(&self, node: usize) -> u64 {
        self.nodes[node].stats(self.now).media
    }

    /// Time passes, with new keys as the control logic would make them.
    pub fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.slot = (self.slot + 1) % 4;
        for viewer in [ANN, BOB] {
            let (out, back) = ([80 + viewer as u8; 32], [90 + viewer as u8; 32]);
            for (node, path, send_key, receive_key) in
                [(viewer, 5, out, back), (GATEWAY, session_of(viewer), back, out)]
            {
                let rekey = Command::PathRekey {
                    path: PathId(path),
                    slot: self.slot,
                    send_key,
                    receive_key,
                    confirmed: true,
                };
                self.command(node, rekey);
            }
        }
        for node in 0..4 {
            let mut tx = TxBatch::default();
            self.nodes[node].handle_timeout(self.now, &mut tx);
            self.send(node, &mut tx);
            self.serve(node);
        }
    }

    /// What came out of a node's TUN since last asked: TCP and UDP apart.
    pub fn written(&mut self, node: usize) -> (Vec<Tcp>, Vec<Udp>) {
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        for (_, packet) in std::mem::take(&mut self.tun[node]) {
            let ip = IpPacket::parse(&packet).unwrap();
            let t = &packet[ip.transport_at..ip.end];
            let half = |at: usize| u16::from_be_bytes([t[at], t[at + 1]]);
            let word = |at: usize| u32::from_be_bytes(*t[at..].first_chunk().unwrap());
            match ip.transport {
                Transport::Tcp { header } => tcp.push(Tcp {
                    seq: word(4),
                    flags: t[13],
                    payload: t[header..].to_vec(),
                }),
                Transport::Udp => udp.push(Udp {
                    to: (ip.destination, half(2)),
                    from: (ip.source, half(0)),
                    payload: t[8..].to_vec(),
                }),
                _ => {}
            }
        }
        (tcp, udp)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Tcp {
    pub seq: u32,
    pub flags: u8,
    pub payload: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Udp {
    pub from: (IpAddr, u16),
    pub to: (IpAddr, u16),
    pub payload: Vec<u8>,
}

pub fn udp(source: IpAddr, destination: IpAddr, ports: (u16, u16), payload: &[u8]) -> (VnetHeader, Vec<u8>) {
    let mut datagram = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    datagram.extend_from_slice(&(8 + payload.len() as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    packet(source, destination, protocol::UDP, &datagram)
}

pub fn packet(source: IpAddr, destination: IpAddr, protocol: u8, transport: &[u8]) -> (VnetHeader, Vec<u8>) {
    let mut packet = vec![0; 40];
    let repr = IpRepr {
        source,
        destination,
        protocol,
        traffic_class: 0,
        hop_limit: 64,
        identification: None,
    };
    let at = repr.write(&mut packet, transport.len());
    packet.truncate(at);
    packet.extend_from_slice(transport);
    let vnet = VnetHeader {
        flags: vnet_flags::NEEDS_CSUM,
        ..VnetHeader::default()
    };
    (vnet, packet)
}

/// A program's RTSP connection through the lab.
#[derive(Clone)]
pub struct Player {
    pub viewer: usize,
    pub own: IpAddr,
    pub peer: IpAddr,
    pub port: u16,
    /// Its local port at the gateway.
    pub wire_port: u16,
    pub asked: u32,
    pub answered: u32,
}

impl Player {
    pub fn new(viewer: usize, port: u16) -> Self {
        Self {
            viewer,
            own: ip(1),
            peer: ip(9),
            port,
            wire_port: port,
            asked: 1_000,
            answered: 9_000,
        }
    }

    /// With its three-way handshake done.
    pub fn connect(lab: &mut Lab, viewer: usize, port: u16) -> Self {
        Self::new(viewer, port).shaken(lab)
    }

    pub fn shaken(mut self, lab: &mut Lab) -> Self {
        self.ask_with(lab, SYN, b"");
        self.asked += 1;
        self.answer_with(lab, SYN | ACK, b"");
        self.answered += 1;
        self.ask_with(lab, ACK, b"");
        lab.written(self.viewer);
        lab.written(GATEWAY);
        self
    }

    pub fn tcp(&self, asks: bool, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> (VnetHeader, Vec<u8>) {
        let (source, destination, from, to) = if asks {
            (self.own, self.peer, self.port, 554)
        } else {
            (ip(77), known_as(self.viewer), 554, self.wire_port)
        };
        let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
        segment.extend_from_slice(&seq.to_be_bytes());
        segment.extend_from_slice(&ack.to_be_bytes());
        segment.extend_from_slice(&[5 << 4, flags, 1, 2, 0, 0, 0, 0]);
        segment.extend_from_slice(payload);
        packet(source, destination, protocol::TCP, &segment)
    }

    pub fn ask_with(&self, lab: &mut Lab, flags: u8, payload: &[u8]) {
        let (vnet, packet) = self.tcp(true, self.asked, self.answered, flags, payload);
        lab.tun_in(self.viewer, vnet, &packet);
    }

    pub fn answer_with(&self, lab: &mut Lab, flags: u8, payload: &[u8]) {
        let (vnet, packet) = self.tcp(false, self.answered, self.asked, flags, payload);
        lab.tun_in(GATEWAY, vnet, &packet);
    }

    /// Says something, and tells what the camera got.
    pub fn ask(&mut self, lab: &mut Lab, words: &str) -> String {
        self.ask_with(lab, ACK | 8, words.as_bytes());
        let got = Self::joined(lab.written(GATEWAY).0, self.asked);
        self.asked += words.len() as u32;
        got
    }

    /// The camera says something; what the program got.
    pub fn answer(&mut self, lab: &mut Lab, words: &str) -> String {
        self.answer_with(lab, ACK | 8, words.as_bytes());
        let got = Self::joined(lab.written(self.viewer).0, self.answered);
        self.answered += words.len() as u32;
        got
    }

    pub fn joined(segments: Vec<Tcp>, from: u32) -> String {
        let mut bytes = Vec::new();
        for segment in segments.into_iter().filter(|s| !s.payload.is_empty()) {
            assert_eq!(segment.seq, from + bytes.len() as u32, "in order");
            bytes.extend(segment.payload);
        }
        String::from_utf8(bytes).unwrap()
    }

    pub fn setup(&mut self, lab: &mut Lab, ports: &str) -> String {
        self.ask(lab, &setup(ports))
    }

    /// The camera agrees, its own ports being `server`.
    pub fn agree(&mut self, lab: &mut Lab, ports: &str, server: &str) -> String {
        self.answer(lab, &agreed(ports, server))
    }
}

pub fn setup(ports: &str) -> String {
    format!(
        "SETUP rtsp://camera.home.thicket:554/live/stream=0 RTSP/1.0\r\nTransport: RTP/AVP/UDP;unicast;client_port={ports}\r\nCSeq: 3\r\n\r\n"
    )
}

pub fn agreed(ports: &str, server: &str) -> String {
    format!(
        "RTSP/1.0 200 OK\r\nCSeq: 3\r\nTransport: RTP/AVP;unicast;source=192.168.1.20;client_port={ports};server_port={server};mode=\"PLAY\"\r\nSession: x\r\n\r\n"
    )
}

/// A connection with media set up from 6100–6101 to 40000–40001.
pub fn playing(lab: &mut Lab, viewer: usize, port: u16) -> (Player, u32) {
    let mut player = Player::connect(lab, viewer, port);
    player.setup(lab, "6100-6101");
    let &(id, ours) = lab.sockets.last().unwrap();
    player.agree(lab, &format!("{ours}-{}", ours + 1), "40000-40001");
    (player, id)
}
