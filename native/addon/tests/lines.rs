//! Sockets of links, their queues and turns: against the kernel, on loopback. The modules' own tests run here too.

#![allow(clippy::unwrap_used, dead_code, unused_imports)]

#[path = "../src/link_sockets.rs"]
mod link_sockets;
#[path = "../src/media.rs"]
mod media;
#[path = "../src/outlet.rs"]
mod outlet;
#[path = "../src/outlets.rs"]
mod outlets;
#[path = "../src/queues.rs"]
mod queues;
#[path = "../src/rounds.rs"]
mod rounds;
#[path = "../src/sys/mod.rs"]
mod sys;

use link_sockets::LinkSockets;
use outlets::Outlets;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use sys::{Poll, Ready, ReceiveBuffers, Room, Udp};
use thicket_core::{Remote, Share, Train};

const ROOM: Room = Room {
    receive: 1 << 20,
    send: 1 << 20,
};

/// Place of the link's socket (none: a listening one), whom from, to which of our addresses, what.
type Came = (Option<usize>, SocketAddr, Option<IpAddr>, Vec<u8>);

/// A node's sockets.
struct Node {
    poll: Poll,
    outlets: Outlets,
    buffers: ReceiveBuffers,
    moves: u64,
}

impl Node {
    fn new(at: IpAddr, dual: bool) -> Self {
        Self::with(at, dual, LinkSockets::new(true))
    }

    fn with(at: IpAddr, dual: bool, links: LinkSockets) -> Self {
        let poll = Poll::new().unwrap();
        let socket = Udp::bind(SocketAddr::new(at, 0), dual, ROOM).unwrap();
        socket.tell_local();
        let outlets = Outlets::new(vec![socket], false, links, &poll).unwrap();
        Self {
            poll,
            outlets,
            buffers: ReceiveBuffers::new(),
            moves: 0,
        }
    }

    fn port(&self) -> u16 {
        self.outlets.listening[0].socket().local().port()
    }

    fn follow(&mut self, links: &[Remote]) {
        self.moves += 1;
        self.outlets.follow(self.moves, links.iter().copied(), &self.poll);
    }

    /// The next datagrams, until there are so many.
    fn receive(&mut self, count: usize) -> Vec<Came> {
        let (mut all, mut ready, mut out) = (Vec::new(), Vec::new(), Vec::new());
        let began = Instant::now();
        while all.len() < count {
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "{} of {count} came",
                all.len()
            );
            self.poll.wait(100, &mut ready).unwrap();
            for Ready { token, .. } in ready.clone() {
                let place = LinkSockets::place(token);
                let (socket, local) = match place {
                    Some(place) => self
                        .outlets
                        .links
                        .at(place)
                        .map(|(r, o)| (o.socket(), r.local))
                        .unwrap(),
                    None => (self.outlets.listening[token as usize].socket(), None),
                };
                if socket.receive(&mut self.buffers, &mut out).is_err() {
                    continue;
                }
                for r in &out {
                    let bytes = self.buffers.buffer(r.buffer, r.len).to_vec();
                    all.push((place, r.from, r.local.or(local), bytes));
                }
            }
        }
        all
    }

    fn send(&mut self, remote: Remote, bytes: &[u8]) {
        let train = Train {
            remote,
            segment: bytes.len(),
            range: 0..bytes.len(),
            share: Share::CONTROL,
        };
        self.outlets.send(&[train], bytes, &self.poll);
    }
}

fn peer(ip: IpAddr, to: IpAddr, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.connect((to, port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn hears(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

#[test]
fn a_neighbour_gets_a_socket_of_its_own_whichever_address_it_called() {
    let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
    for (wildcard, dual, ours, theirs) in [
        (
            IpAddr::from(Ipv4Addr::UNSPECIFIED),
            false,
            IpAddr::from([127, 0, 0, 2]),
            IpAddr::from([127, 0, 0, 1]),
        ),
        (
            Ipv6Addr::UNSPECIFIED.into(),
            true,
            [127, 0, 0, 3].into(),
            [127, 0, 0, 1].into(),
        ),
        (Ipv6Addr::UNSPECIFIED.into(), true, v6, v6),
        (
            [127, 0, 0, 4].into(),
            false,
            [127, 0, 0, 4].into(),
            [127, 0, 0, 1].into(),
        ),
    ] {
        let mut node = Node::new(wildcard, dual);
        let (child, stranger) = (peer(theirs, ours, node.port()), peer(theirs, ours, node.port()));
        child.send(b"hello").unwrap();
        let (place, from, local, _) = node.receive(1).remove(0);
        assert_eq!((place, from), (None, child.local_addr().unwrap()));
        let remote = Remote {
            socket: 0,
            address: from,
            local,
        };
        node.follow(&[remote]);
        child.send(b"mine").unwrap();
        stranger.send(b"theirs").unwrap();
        let mut got = node.receive(2);
        got.sort();
        assert_eq!(
            got[0],
            (None, stranger.local_addr().unwrap(), local, b"theirs".to_vec())
        );
        assert_eq!(got[1], (Some(0), from, local, b"mine".to_vec()));
        // Answers leave from the address that was called, by either socket.
        node.send(remote, b"answer");
        let other = Remote {
            address: stranger.local_addr().unwrap(),
            ..remote
        };
        node.send(other, b"other");
        assert_eq!(
            (hears(&child), hears(&stranger)),
            (b"answer".to_vec(), b"other".to_vec())
        );
    }
}

#[test]
fn a_neighbour_that_we_called_has_one_too_and_a_moved_one_gets_another() {
    let ours = IpAddr::from(Ipv4Addr::LOCALHOST);
    let mut node = Node::new(Ipv6Addr::UNSPECIFIED.into(), true);
    let (first, second) = (peer(ours, ours, node.port()), peer(ours, ours, node.port()));
    let remotes = [&first, &second].map(|socket| Remote::new(0, socket.local_addr().unwrap()));
    node.follow(&remotes[..1]);
    node.follow(&remotes[1..]);
    node.send(remotes[1], b"here");
    assert_eq!(hears(&second), b"here");
    second.send(b"yes").unwrap();
    // What was under way from the old address still comes.
    first.send(b"late").unwrap();
    let got = node.receive(2);
    let of = |socket: &UdpSocket| got.iter().find(|g| g.1 == socket.local_addr().unwrap()).unwrap();
    assert!(of(&first).0.is_some() && of(&second).0.is_some() && of(&first).0 != of(&second).0);
    // It comes back, and its old socket serves.
    node.follow(&remotes[..1]);
    let before = of(&first).0;
    first.send(b"again").unwrap();
    assert_eq!(node.receive(1)[0].0, before);
}

#[test]
fn nobody_else_gets_the_port_meanwhile_or_later() {
    let ours = IpAddr::from(Ipv4Addr::LOCALHOST);
    let mut node = Node::new(Ipv4Addr::UNSPECIFIED.into(), false);
    let child = peer(ours, ours, node.port());
    node.follow(&[Remote::new(0, child.local_addr().unwrap())]);
    for ip in [IpAddr::from(Ipv4Addr::UNSPECIFIED), ours] {
        assert!(UdpSocket::bind((ip, node.port())).is_err());
    }
}

#[test]
fn a_neighbour_that_has_gone_away_for_a_moment_is_still_sent_to() {
    let ours = IpAddr::from(Ipv4Addr::LOCALHOST);
    let mut node = Node::new(Ipv4Addr::UNSPECIFIED.into(), false);
    let child = peer(ours, ours, node.port());
    let at = child.local_addr().unwrap();
    let remote = Remote::new(0, at);
    node.follow(&[remote]);
    drop(child);
    // Each of these is answered by "port unreachable", which the next call is told.
    for _ in 0..3 {
        node.send(remote, b"gone?");
    }
    let back = UdpSocket::bind(at).unwrap();
    back.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    node.send(remote, b"back");
    assert_eq!(hears(&back), b"back");
}

#[test]
fn neighbours_beyond_the_cap_share_the_listening_socket_until_another_goes() {
    let ours = IpAddr::from(Ipv4Addr::LOCALHOST);
    let mut node = Node::with(Ipv4Addr::UNSPECIFIED.into(), false, LinkSockets::up_to(2));
    let children: Vec<_> = (0..4).map(|_| peer(ours, ours, node.port())).collect();
    let remotes: Vec<_> = children
        .iter()
        .map(|child| Remote::new(0, child.local_addr().unwrap()))
        .collect();
    // Which of them have one, by what comes in; each also gets what is sent to it.
    let own = |node: &mut Node, of: &[usize]| -> Vec<usize> {
        for &child in of {
            node.send(remotes[child], &[child as u8]);
            assert_eq!(hears(&children[child]), [child as u8]);
            children[child].send(&[child as u8]).unwrap();
        }
        let mut all = node.receive(of.len());
        all.sort_by_key(|came| came.3[0]);
        let owned: Vec<_> = all
            .iter()
            .filter_map(|came| came.0.map(|place| (place, came.3[0])))
            .collect();
        assert_eq!(all.iter().map(|came| usize::from(came.3[0])).collect::<Vec<_>>(), of);
        assert!(owned.iter().all(|(place, _)| *place < 2), "{owned:?}");
        owned.into_iter().map(|(_, child)| usize::from(child)).collect()
    };
    node.follow(&remotes);
    let first = own(&mut node, &[0, 1, 2, 3]);
    assert_eq!((first.len(), node.outlets.links.serve_all()), (2, false));
    // One of the two goes: its socket is kept for a moment, then another's neighbour gets one.
    let left: Vec<usize> = (0..4).filter(|child| *child != first[0]).collect();
    let began = Instant::now();
    while own(&mut node, &left).len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(10), "nobody gets the free place");
        let wanted: Vec<_> = left.iter().map(|&child| remotes[child]).collect();
        node.follow(&wanted);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(own(&mut node, &left).contains(&first[1]));
    // And when no more than have room are there, all have one.
    let two: Vec<_> = own(&mut node, &left).iter().map(|&child| remotes[child]).collect();
    node.follow(&two);
    assert!(node.outlets.links.serve_all());
}
