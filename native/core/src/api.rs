//! What goes into the core and comes out of it, besides packets.

use core::net::{IpAddr, SocketAddr};

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);
    };
}

handle!(
    /// One adjacent node; chosen by the control logic.
    LinkId
);
handle!(
    /// One set of link keys on one link.
    Generation
);
handle!(
    /// One set-up path of a session.
    PathId
);
handle!(
    /// A pair of keys, ours and theirs.
    SessionId
);
handle!(
    /// A 32-bit path label, 256 or more.
    Label
);

/// Where a link's datagrams go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Remote {
    /// Index of our socket.
    pub socket: u16,
    /// The neighbour's address.
    pub address: SocketAddr,
    /// Which of our addresses it talks to, where the socket has several: answers leave from there. `None`: as the host routes.
    pub local: Option<IpAddr>,
}

impl Remote {
    /// Over whichever of our addresses the host picks.
    pub const fn new(socket: u16, address: SocketAddr) -> Self {
        Self {
            socket,
            address,
            local: None,
        }
    }
}

/// A link, and where its datagrams go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Neighbour {
    pub link: LinkId,
    pub remote: Remote,
}

/// A label on a link, announced in a frame under `generation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Over which link.
    pub link: LinkId,
    /// Under which label.
    pub label: Label,
    /// Whose hop secret keys its tags.
    pub generation: Generation,
}

/// Keys of a link: see `LinkKeys` in ts/dataplane/data-plane.ts.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct LinkKeys {
    pub link: LinkId,
    pub generation: Generation,
    pub remote: Remote,
    pub initiator: bool,
    pub receive_index: u32,
    pub send_index: u32,
    pub send_key: [u8; 32],
    pub receive_key: [u8; 32],
    pub hop_secret: [u8; 32],
    pub confirmed: bool,
}

/// Keys of a path.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct PathKeys {
    pub path: PathId,
    pub session: SessionId,
    pub ingress: Hop,
    pub egress: Hop,
    pub send_key: [u8; 32],
    pub receive_key: [u8; 32],
    pub confirmed: bool,
}

/// One pair of local addresses by which the host knows a session, per family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// Ours and the remote key's, IPv4.
    pub v4: Option<(IpAddr, IpAddr)>,
    /// The same for IPv6.
    pub v6: Option<(IpAddr, IpAddr)>,
}

/// A service that a session's far end may reach at our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// 6 or 17.
    pub protocol: u8,
    /// At the endpoint.
    pub port: u16,
    /// Its packets are handed to the TUN as IPv6.
    pub v6: bool,
    /// The device; port 0: this program itself, in user-space mode.
    pub target: SocketAddr,
    /// For accounting.
    pub account: u32,
    /// RTSP is spoken there; our address on the device's LAN.
    pub rtsp: Option<IpAddr>,
}

impl Service {
    /// Whether this program itself answers, by the programmatic API.
    pub const fn is_local(&self) -> bool {
        self.target.port() == 0
    }
}

/// A session's compiled policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What the far end may reach here.
    pub inbound: Vec<Service>,
    /// Local programs may open flows to the far end.
    pub outbound: bool,
    /// Echo requests are delivered.
    pub echo: bool,
    /// Ports at the far end that speak RTSP.
    pub rtsp_ports: Vec<u16>,
}

/// The control logic's orders, in order.
#[derive(Clone)]
#[allow(missing_docs)]
pub enum Command {
    SendHandshake {
        remote: Remote,
        bytes: Vec<u8>,
    },
    LinkInstall(LinkKeys),
    LinkSend {
        link: LinkId,
        generation: Option<Generation>,
        to: Option<Remote>,
        keep_alive: bool,
        frame: Vec<u8>,
    },
    LinkMove {
        link: LinkId,
        remote: Remote,
    },
    LinkRetire {
        link: LinkId,
        generation: Generation,
    },
    LinkRemove {
        link: LinkId,
    },
    LabelForward {
        ingress: Hop,
        egress: Hop,
    },
    LabelRemove {
        label: Label,
    },
    SessionOpen {
        session: SessionId,
        pair: Pair,
    },
    SessionAliasRemove {
        session: SessionId,
        pair: Pair,
    },
    SessionPolicy {
        session: SessionId,
        policy: Policy,
    },
    PathInstall(PathKeys),
    PathRekey {
        path: PathId,
        slot: u8,
        send_key: [u8; 32],
        receive_key: [u8; 32],
        confirmed: bool,
    },
    PathRetire {
        path: PathId,
        slot: u8,
    },
    PathRemove {
        path: PathId,
    },
    SessionSend {
        session: SessionId,
        path: Option<PathId>,
        bytes: Vec<u8>,
    },
    SessionRemove {
        session: SessionId,
    },
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    /// Its name in ts/dataplane/data-plane.ts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// What the packets caused: see `DataPlaneEvent` in ts/dataplane/data-plane.ts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    Handshake {
        from: Remote,
        bytes: Vec<u8>,
    },
    LinkFrame {
        link: LinkId,
        generation: Generation,
        from: Remote,
        bytes: Vec<u8>,
    },
    LinkConfirmed {
        link: LinkId,
        generation: Generation,
        from: Remote,
    },
    LinkRoamed {
        link: LinkId,
        from: Remote,
    },
    PathConfirmed {
        session: SessionId,
        path: PathId,
    },
    PathKeyConfirmed {
        session: SessionId,
        path: PathId,
        slot: u8,
    },
    SessionControl {
        session: SessionId,
        path: PathId,
        bytes: Vec<u8>,
    },
    SessionNeeded {
        own: IpAddr,
        peer: IpAddr,
    },
    LabelUnknown {
        link: LinkId,
        label: Label,
    },
    LabelExpired {
        link: LinkId,
        label: Label,
    },
    FlowDenied {
        session: SessionId,
        protocol: u8,
        port: u16,
        reason: u16,
    },
    RekeyNeeded {
        session: SessionId,
        path: PathId,
    },
    /// A line for the log: never a packet's content, never a key.
    Log {
        level: LogLevel,
        message: String,
    },
}
