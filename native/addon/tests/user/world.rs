//! Viewer, relay and gateway over loopback, each end with a kernel's TCP or with our own, and programs around them that can't tell.

use crate::lab::space::Space;
use crate::lab::{GATEWAY, Node, PATIENCE, Parts, VIEWER, gateway_pair, path, service, viewer_pair};
use crate::sys;
use crate::user::{UserConfig, UserOrder, UserStats};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use thicket_core::Service;
use thicket_core::wire::protocol;

pub const BUDGET: usize = 64 << 20;

/// Whose TCP/IP an end has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A kernel's, behind a TUN in a namespace of its own.
    Kernel,
    /// Ours, which needs no privilege.
    Own,
}

/// Every mix; the first is what the others must be like.
pub const MIXES: [(Side, Side); 4] = [
    (Side::Kernel, Side::Kernel),
    (Side::Own, Side::Own),
    (Side::Kernel, Side::Own),
    (Side::Own, Side::Kernel),
];

pub struct World {
    pub nodes: Vec<Node>,
    near: Option<Space>,
    devices: HashMap<u16, TcpListener>,
    next: AtomicU32,
    // Last: what is in it goes first.
    _far: Option<Space>,
}

impl World {
    /// Devices listen, and may be called, on these ports.
    pub fn new(sides: (Side, Side), ports: &[u16]) -> Self {
        Self::with(sides, ports, BUDGET, 1)
    }

    /// With so many bytes for buffers, and so many workers each.
    pub fn with((viewer, gateway): (Side, Side), ports: &[u16], budget: usize, threads: usize) -> Self {
        let ends = [(viewer, viewer_pair()), (gateway, gateway_pair())];
        let [near, far] = ends.map(|(side, (own, peer))| {
            (side == Side::Kernel).then(|| {
                let space = Space::new();
                let tun = space.tun(own, peer, threads);
                (space, tun)
            })
        });
        let endpoint = gateway_pair().0;
        let listen = |port: u16| match &far {
            Some((space, _)) => space.enter(|| TcpListener::bind((endpoint, port)).unwrap()),
            None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
        };
        let devices: HashMap<_, _> = ports.iter().map(|&port| (port, listen(port))).collect();
        let services = devices
            .iter()
            .map(|(&port, device)| tcp(port, device.local_addr().unwrap()));
        let services = services.collect();
        let (near, near_tun) = near.unzip();
        let (far, far_tun) = far.unzip();
        let parts = |seed: u8, tun: Option<Vec<sys::Tun>>| Parts {
            user: tun.is_none().then_some(UserConfig {
                seed: [seed; 32],
                budget,
            }),
            tun: tun.unwrap_or_default(),
            threads,
        };
        let relay = Parts {
            threads,
            ..Parts::default()
        };
        Self {
            nodes: path([parts(1, near_tun), relay, parts(2, far_tun)], services, |run| run()),
            near,
            devices,
            next: AtomicU32::new(1),
            _far: far,
        }
    }

    /// The gateway our own, with these services.
    pub fn offering(services: Vec<Service>) -> Self {
        Self::of(None, services)
    }

    /// The same, called by a kernel's programs.
    pub fn called_by_a_kernel(services: Vec<Service>) -> Self {
        Self::of(Some(Space::new()), services)
    }

    fn of(near: Option<Space>, services: Vec<Service>) -> Self {
        let user = |seed| Parts {
            user: Some(UserConfig {
                seed: [seed; 32],
                budget: BUDGET,
            }),
            threads: 1,
            ..Parts::default()
        };
        let relay = Parts {
            threads: 1,
            ..Parts::default()
        };
        let (own, peer) = viewer_pair();
        let viewer = match &near {
            Some(space) => Parts {
                tun: space.tun(own, peer, 1),
                threads: 1,
                ..Parts::default()
            },
            None => user(1),
        };
        Self {
            nodes: path([viewer, relay, user(2)], services, |run| run()),
            near,
            devices: HashMap::new(),
            next: AtomicU32::new(1),
            _far: None,
        }
    }

    pub fn viewer(&self) -> &Node {
        &self.nodes[VIEWER]
    }

    pub fn gateway(&self) -> &Node {
        &self.nodes[GATEWAY]
    }

    /// Figures of those ends that have any.
    pub fn stats(&self) -> Vec<UserStats> {
        self.nodes.iter().filter_map(|node| node.stats().1).collect()
    }

    /// A program at the viewer that has called this port; what it says and hears may still wait for the far end.
    pub fn program(&self, port: u16) -> TcpStream {
        let program = match &self.near {
            Some(space) => space.enter(|| TcpStream::connect((viewer_pair().1, port)).unwrap()),
            None => self.spliced(port, &[]).1,
        };
        patient(program)
    }

    /// As JavaScript does it: accepts a program's connection, has read `early` of it, opens a stream and gives both away.
    pub fn spliced(&self, port: u16, early: &[u8]) -> (u32, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let program = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        (self.splice(port, &accepted, early), patient(program))
    }

    /// The same with what has been accepted.
    pub fn splice(&self, port: u16, accepted: &TcpStream, early: &[u8]) -> u32 {
        let stream = self.dial(port);
        let socket = sys::device::adopt(accepted.as_raw_fd()).unwrap();
        let early = early.to_vec();
        self.viewer().user(UserOrder::Splice { stream, socket, early });
        stream
    }

    /// Opens a stream as JavaScript does it.
    pub fn dial(&self, port: u16) -> u32 {
        let stream = self.next.fetch_add(2, Ordering::Relaxed);
        let (own, peer) = viewer_pair();
        let peer = SocketAddr::new(peer, port);
        self.viewer().user(UserOrder::Dial { stream, own, peer });
        stream
    }

    /// The device behind a port, when it has been called.
    pub fn device(&self, port: u16) -> TcpStream {
        accept(&self.devices[&port])
    }

    /// Runs a program beside the viewer's kernel, and says what it said.
    pub fn run(&self, line: &str) -> String {
        self.near.as_ref().unwrap().run(line)
    }

    /// The same of one that may fail.
    pub fn try_run(&self, line: &str) -> String {
        self.near.as_ref().unwrap().try_run(line)
    }

    /// As the viewer's programs know the far end.
    pub fn far(&self) -> IpAddr {
        viewer_pair().1
    }
}

/// A device of its own, and where it is.
pub fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

fn patient(socket: TcpStream) -> TcpStream {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub fn accept(listener: &TcpListener) -> TcpStream {
    let (socket, _) = listener.accept().unwrap();
    patient(socket)
}

pub fn tcp(port: u16, target: SocketAddr) -> Service {
    service(protocol::TCP, port, target)
}

/// Sets an option of a socket's.
pub fn set(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` is valid for the call.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    assert_eq!(set, 0);
}

/// So many bytes that repeat themselves nowhere near.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Tries until it is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
