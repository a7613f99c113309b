//! Orders that make nodes, links, sessions and paths, with keys made up from numbers: both ends of a link or path are told so that they fit.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use thicket_core::{
    Command, CoreConfig, Generation, Hop, Label, LinkId, LinkKeys, Pair, PathId, PathKeys, Policy, Remote, Service,
    SessionId, TunFeatures,
};

/// A TUN that takes every kind of super-packet.
pub const ALL: TunFeatures = TunFeatures {
    checksum: true,
    tso: true,
    uso: true,
};

/// The device that services lead to.
pub const DEVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 20));

/// Where the node with this number is in the underlay.
pub fn address(node: usize) -> SocketAddr {
    ([192, 0, 2, node as u8 + 1], 7117).into()
}

pub fn remote(node: usize) -> Remote {
    Remote::new(0, address(node))
}

/// An address that a host knows itself or a far end by.
pub fn ip(last: u8) -> IpAddr {
    [198, 18, 0, last].into()
}

/// The same in IPv6.
pub fn long_ip(last: u8) -> IpAddr {
    [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)].into()
}

pub fn config(number: usize, listening: bool, tun: TunFeatures) -> CoreConfig {
    CoreConfig {
        node_key: [number as u8; 32],
        listening,
        tun,
        seed: [number as u8 + 9; 32],
    }
}

/// A label under the first keys of a link.
pub fn hop(link: u32, label: u32) -> Hop {
    Hop {
        link: LinkId(link),
        label: Label(label),
        generation: Generation(link),
    }
}

/// The first keys of a link, whose number is the same at both ends; the child is the initiator.
pub fn link_keys(link: u32, remote: Remote, child: bool) -> LinkKeys {
    let (up, down) = ([link as u8; 32], [link as u8 + 100; 32]);
    LinkKeys {
        link: LinkId(link),
        generation: Generation(link),
        remote,
        initiator: child,
        receive_index: if child { 10 + link } else { 20 + link },
        send_index: if child { 20 + link } else { 10 + link },
        send_key: if child { up } else { down },
        receive_key: if child { down } else { up },
        hop_secret: [link as u8 + 50; 32],
        confirmed: true,
    }
}

pub fn link(link: u32, remote: Remote, child: bool) -> Command {
    Command::LinkInstall(link_keys(link, remote, child))
}

pub fn forward(ingress: Hop, egress: Hop) -> Command {
    Command::LabelForward { ingress, egress }
}

/// A session whose host knows both ends by these IPv4 addresses: own, then the far end's.
pub fn open(session: u32, own: IpAddr, peer: IpAddr) -> Command {
    open_both(session, Some((own, peer)), None)
}

/// The same with addresses of both families.
pub fn open_both(session: u32, v4: Option<(IpAddr, IpAddr)>, v6: Option<(IpAddr, IpAddr)>) -> Command {
    Command::SessionOpen {
        session: SessionId(session),
        pair: Pair { v4, v6 },
    }
}

pub fn policy(session: u32, policy: Policy) -> Command {
    let session = SessionId(session);
    Command::SessionPolicy { session, policy }
}

/// That of an end that calls and offers nothing.
pub fn calls() -> Policy {
    Policy {
        outbound: true,
        ..Policy::default()
    }
}

/// That of an end that offers these and calls nobody.
pub fn offers(inbound: Vec<Service>) -> Policy {
    Policy {
        inbound,
        ..Policy::default()
    }
}

/// One at the device, accounted under its protocol's number.
pub const fn service(protocol: u8, port: u16) -> Service {
    Service {
        protocol,
        port,
        v6: false,
        target: SocketAddr::new(DEVICE, port),
        account: protocol as u32,
        rtsp: None,
    }
}

/// Keys of a path, confirmed; `keys` are what this end sends under and what it receives under.
pub fn path_keys(path: u32, session: u32, ingress: Hop, egress: Hop, keys: ([u8; 32], [u8; 32])) -> PathKeys {
    PathKeys {
        path: PathId(path),
        session: SessionId(session),
        ingress,
        egress,
        send_key: keys.0,
        receive_key: keys.1,
        confirmed: true,
    }
}

pub fn path(path: u32, session: u32, ingress: Hop, egress: Hop, keys: ([u8; 32], [u8; 32])) -> Command {
    Command::PathInstall(path_keys(path, session, ingress, egress, keys))
}

/// New keys of a path under one of its slots.
pub fn rekey(path: u32, slot: u8, keys: ([u8; 32], [u8; 32]), confirmed: bool) -> Command {
    Command::PathRekey {
        path: PathId(path),
        slot,
        send_key: keys.0,
        receive_key: keys.1,
        confirmed,
    }
}

/// A frame of the control logic under a link's newest keys.
pub fn frame(link: u32, bytes: &[u8]) -> Command {
    Command::LinkSend {
        link: LinkId(link),
        generation: None,
        to: None,
        keep_alive: false,
        frame: bytes.to_vec(),
    }
}

/// The keys of a path's first end; its second end has them the other way round.
pub const PATH: ([u8; 32], [u8; 32]) = ([61; 32], [62; 32]);

pub const fn turned(keys: ([u8; 32], [u8; 32])) -> ([u8; 32], [u8; 32]) {
    (keys.1, keys.0)
}
