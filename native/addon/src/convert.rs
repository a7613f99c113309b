//! Between JavaScript's objects and the core's types.

use crate::user::{End, Told, UserStats};
use napi::bindgen_prelude::{BigInt, Either, Uint8Array};
use napi::{Error, Result, Status};
use napi_derive::napi;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use thicket_core::*;

/// `SocketAddress` of data-plane.ts.
#[napi(object)]
pub struct JsAddress {
    pub host: String,
    pub port: u16,
    pub local: Option<String>,
}

/// `Hop` of data-plane.ts.
#[napi(object)]
pub struct JsHop {
    pub link: u32,
    pub label: u32,
    pub generation: u32,
}

/// `LinkKeys` of data-plane.ts.
#[napi(object)]
pub struct JsLinkKeys {
    pub link: u32,
    pub generation: u32,
    pub socket: u16,
    pub remote: JsAddress,
    pub initiator: bool,
    pub receive_index: u32,
    pub send_index: u32,
    pub send_key: Uint8Array,
    pub receive_key: Uint8Array,
    pub hop_secret: Uint8Array,
    pub confirmed: bool,
}

/// `PathKeys` of data-plane.ts.
#[napi(object)]
pub struct JsPathKeys {
    pub path: u32,
    pub session: u32,
    pub ingress: JsHop,
    pub egress: JsHop,
    pub send_key: Uint8Array,
    pub receive_key: Uint8Array,
    pub confirmed: bool,
}

/// `SessionAddresses` of data-plane.ts.
#[napi(object)]
pub struct JsPair {
    pub session: u32,
    pub own4: Option<String>,
    pub own6: Option<String>,
    pub peer4: Option<String>,
    pub peer6: Option<String>,
}

/// RTSP part of `AllowedService`.
#[napi(object)]
pub struct JsRtsp {
    pub lan: String,
}

/// `AllowedService` of data-plane.ts.
#[napi(object)]
pub struct JsService {
    pub protocol: String,
    pub port: u16,
    pub family: u32,
    /// Absent only where `local`.
    pub target: Option<JsAddress>,
    pub local: Option<bool>,
    pub rtsp: Option<JsRtsp>,
    pub account: u32,
}

/// `SessionPolicy` of data-plane.ts.
#[napi(object)]
pub struct JsPolicy {
    pub session: u32,
    pub inbound: Vec<JsService>,
    pub outbound: bool,
    pub echo: bool,
    pub rtsp_ports: Vec<u16>,
}

/// Any `DataPlaneEvent`; fields that an event doesn't have are absent.
#[napi(object)]
#[derive(Default)]
pub struct JsEvent {
    #[napi(js_name = "type")]
    pub kind: String,
    pub link: Option<u32>,
    pub generation: Option<u32>,
    pub session: Option<u32>,
    pub path: Option<u32>,
    pub label: Option<u32>,
    pub slot: Option<u32>,
    pub socket: Option<u32>,
    pub from: Option<JsAddress>,
    pub bytes: Option<Uint8Array>,
    pub own: Option<String>,
    pub peer: Option<String>,
    pub protocol: Option<String>,
    pub port: Option<u32>,
    /// A number of the wire's, or how a stream ended.
    pub reason: Option<Either<u32, String>>,
    pub stream: Option<u32>,
    pub account: Option<u32>,
    pub peer_port: Option<u32>,
    pub level: Option<String>,
    pub message: Option<String>,
}

/// A counter by name.
#[napi(object)]
pub struct JsDrop {
    pub name: String,
    pub count: BigInt,
}

/// `LinkStats` and `SessionStats` of data-plane.ts in one shape.
#[napi(object)]
pub struct JsTraffic {
    pub id: u32,
    pub rx_bytes: BigInt,
    pub tx_bytes: BigInt,
    pub rx_packets: BigInt,
    pub tx_packets: BigInt,
    pub flows: u32,
    /// −1 for never.
    pub idle_ms: f64,
    /// −1 for never.
    pub sent_ms: f64,
    /// Of sessions: 0 before anything was probed.
    pub path_mtu: u16,
}

/// `ServiceStats` of data-plane.ts.
#[napi(object)]
pub struct JsServiceStats {
    pub account: u32,
    pub payload_bytes: BigInt,
    pub overhead_bytes: BigInt,
}

/// `UserSpaceStats` of userspace.ts.
#[napi(object)]
pub struct JsUserStats {
    pub streams: u32,
    pub datagrams: u32,
    pub buffered: f64,
    pub refused: BigInt,
}

/// `DataPlaneStats` of data-plane.ts, flat.
#[napi(object)]
pub struct JsStats {
    pub links: Vec<JsTraffic>,
    pub sessions: Vec<JsTraffic>,
    pub services: Vec<JsServiceStats>,
    pub relay_packets: BigInt,
    pub relay_bytes: BigInt,
    pub relay_labels: u32,
    pub media: u32,
    pub payload: BigInt,
    pub overhead: BigInt,
    pub control: BigInt,
    pub keep_alive: BigInt,
    pub sealed: Vec<BigInt>,
    pub opened: Vec<BigInt>,
    pub drops: Vec<JsDrop>,
    /// In user-space mode.
    pub userspace: Option<JsUserStats>,
}

/// A misuse of the interface by our own TypeScript.
pub fn invalid(what: &str) -> Error {
    Error::new(Status::InvalidArg, format!("invalid {what}"))
}

pub fn key(bytes: &[u8]) -> Result<[u8; 32]> {
    bytes.try_into().map_err(|_| invalid("key: 32 bytes are wanted"))
}

pub fn ip(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| invalid("IP address"))
}

pub fn address(address: &JsAddress) -> Result<SocketAddr> {
    Ok(SocketAddr::new(ip(&address.host)?, address.port))
}

pub fn remote(socket: u16, to: &JsAddress) -> Result<Remote> {
    Ok(Remote {
        local: to.local.as_deref().map(ip).transpose()?,
        ..Remote::new(socket, address(to)?)
    })
}

pub fn hop(hop: &JsHop) -> Hop {
    Hop {
        link: LinkId(hop.link),
        label: Label(hop.label),
        generation: Generation(hop.generation),
    }
}

pub fn link_keys(keys: &JsLinkKeys) -> Result<LinkKeys> {
    Ok(LinkKeys {
        link: LinkId(keys.link),
        generation: Generation(keys.generation),
        remote: remote(keys.socket, &keys.remote)?,
        initiator: keys.initiator,
        receive_index: keys.receive_index,
        send_index: keys.send_index,
        send_key: key(&keys.send_key)?,
        receive_key: key(&keys.receive_key)?,
        hop_secret: key(&keys.hop_secret)?,
        confirmed: keys.confirmed,
    })
}

pub fn path_keys(keys: &JsPathKeys) -> Result<PathKeys> {
    Ok(PathKeys {
        path: PathId(keys.path),
        session: SessionId(keys.session),
        ingress: hop(&keys.ingress),
        egress: hop(&keys.egress),
        send_key: key(&keys.send_key)?,
        receive_key: key(&keys.receive_key)?,
        confirmed: keys.confirmed,
    })
}

pub fn pair(pair: &JsPair) -> Result<Pair> {
    let both = |own: &Option<String>, peer: &Option<String>| match (own, peer) {
        (Some(own), Some(peer)) => Ok(Some((ip(own)?, ip(peer)?))),
        _ => Ok::<_, Error>(None),
    };
    Ok(Pair {
        v4: both(&pair.own4, &pair.peer4)?,
        v6: both(&pair.own6, &pair.peer6)?,
    })
}

pub fn policy(policy: &JsPolicy) -> Result<Policy> {
    let inbound = policy.inbound.iter().map(service).collect::<Result<_>>()?;
    Ok(Policy {
        inbound,
        outbound: policy.outbound,
        echo: policy.echo,
        rtsp_ports: policy.rtsp_ports.clone(),
    })
}

fn service(service: &JsService) -> Result<Service> {
    Ok(Service {
        protocol: protocol_of(&service.protocol).ok_or_else(|| invalid("protocol"))?,
        port: service.port,
        v6: service.family == 6,
        target: match &service.target {
            Some(target) => address(target)?,
            // Port 0: see `Service::is_local`.
            None if service.local == Some(true) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            None => return Err(invalid("service: a target, or local, is wanted")),
        },
        account: service.account,
        rtsp: service.rtsp.as_ref().map(|rtsp| ip(&rtsp.lan)).transpose()?,
    })
}

fn js_address(remote: Remote) -> JsAddress {
    JsAddress {
        host: remote.address.ip().to_string(),
        port: remote.address.port(),
        local: remote.local.map(|ip| ip.to_string()),
    }
}

/// An event as JavaScript sees it.
pub fn event(event: Event) -> JsEvent {
    let e = Flat::from(event);
    JsEvent {
        kind: e.kind.to_owned(),
        link: e.link,
        generation: e.generation,
        session: e.session,
        path: e.path,
        label: e.label,
        slot: e.slot.map(u32::from),
        socket: e.from.map(|from| u32::from(from.socket)),
        from: e.from.map(js_address),
        bytes: e.bytes.map(Into::into),
        own: e.own.map(|ip| ip.to_string()),
        peer: e.peer.map(|ip| ip.to_string()),
        protocol: e.protocol.map(str::to_owned),
        port: e.port.map(u32::from),
        reason: e.reason.map(|reason| Either::A(u32::from(reason))),
        level: e.level.map(str::to_owned),
        message: e.message,
        ..JsEvent::default()
    }
}

/// What user-space mode tells, as JavaScript sees it.
pub fn told(told: Told) -> JsEvent {
    let of = |kind: &str, stream| JsEvent {
        kind: kind.to_owned(),
        stream: Some(stream),
        ..JsEvent::default()
    };
    match told {
        Told::Connected(stream) => of("streamConnected", stream),
        Told::Data(stream, bytes) => JsEvent {
            bytes: Some(bytes.into()),
            ..of("streamData", stream)
        },
        Told::Written(stream) => of("streamWritten", stream),
        Told::Finished(stream) => of("streamFinished", stream),
        Told::Closed(stream, end) => JsEvent {
            reason: Some(ended(end)),
            ..of("streamClosed", stream)
        },
        Told::Incoming {
            stream,
            session,
            account,
            peer,
        } => JsEvent {
            session: Some(session.0),
            account: Some(account),
            peer: Some(peer.ip().to_string()),
            peer_port: Some(u32::from(peer.port())),
            ..of("streamIncoming", stream)
        },
        Told::Datagram { port, peer, bytes } => JsEvent {
            kind: "datagram".to_owned(),
            port: Some(port),
            peer: Some(peer.ip().to_string()),
            peer_port: Some(u32::from(peer.port())),
            bytes: Some(bytes.into()),
            ..JsEvent::default()
        },
    }
}

fn ended(end: End) -> Either<u32, String> {
    Either::B(end.name().to_owned())
}

/// Counters as JavaScript sees them.
pub fn stats((stats, user): &(Stats, Option<UserStats>)) -> JsStats {
    let never = |ms: Option<u64>| ms.map_or(-1.0, |ms| ms as f64);
    let traffic = |id: u32, t: Traffic, idle: Option<u64>| JsTraffic {
        id,
        rx_bytes: t.rx_bytes.into(),
        tx_bytes: t.tx_bytes.into(),
        rx_packets: t.rx_packets.into(),
        tx_packets: t.tx_packets.into(),
        flows: 0,
        idle_ms: never(idle),
        sent_ms: never(None),
        path_mtu: 0,
    };
    JsStats {
        links: stats
            .links
            .iter()
            .map(|l| traffic(l.link.0, l.traffic, Some(l.idle_ms)))
            .collect(),
        sessions: stats
            .sessions
            .iter()
            .map(|s| JsTraffic {
                flows: s.flows,
                sent_ms: never(s.sent_ms),
                path_mtu: s.path_mtu.unwrap_or(0),
                ..traffic(s.session.0, s.traffic, s.idle_ms)
            })
            .collect(),
        services: stats
            .services
            .iter()
            .map(|s| JsServiceStats {
                account: s.account,
                payload_bytes: s.payload_bytes.into(),
                overhead_bytes: s.overhead_bytes.into(),
            })
            .collect(),
        relay_packets: stats.relay_packets.into(),
        relay_bytes: stats.relay_bytes.into(),
        relay_labels: stats.relay_labels as u32,
        media: stats.media as u32,
        payload: stats.ledger.payload.into(),
        overhead: stats.ledger.overhead.into(),
        control: stats.ledger.control.into(),
        keep_alive: stats.ledger.keep_alive.into(),
        sealed: stats.sealed.0.iter().map(|&calls| calls.into()).collect(),
        opened: stats.opened.0.iter().map(|&calls| calls.into()).collect(),
        drops: stats
            .drops
            .iter()
            .map(|(name, count)| JsDrop {
                name: (*name).to_owned(),
                count: (*count).into(),
            })
            .collect(),
        userspace: user.map(|user| JsUserStats {
            streams: user.streams as u32,
            datagrams: user.datagrams as u32,
            buffered: user.buffered as f64,
            refused: user.refused.into(),
        }),
    }
}
