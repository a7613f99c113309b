//! Between JavaScript's objects and the core's types. The shapes are those of ts/dataplane/data-plane.ts.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use thicket_core::*;
use wasm_bindgen::prelude::{JsError, JsValue};

#[derive(Serialize, Deserialize)]
struct JsAddress {
    host: String,
    port: u16,
}

#[derive(Deserialize)]
struct JsHop {
    link: u32,
    label: u32,
    generation: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsLinkKeys {
    link: u32,
    generation: u32,
    socket: u16,
    remote: JsAddress,
    initiator: bool,
    receive_index: u32,
    send_index: u32,
    send_key: ByteBuf,
    receive_key: ByteBuf,
    hop_secret: ByteBuf,
    confirmed: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsPathKeys {
    path: u32,
    session: u32,
    ingress: JsHop,
    egress: JsHop,
    send_key: ByteBuf,
    receive_key: ByteBuf,
    confirmed: bool,
}

#[derive(Deserialize)]
struct JsPair {
    session: u32,
    own4: Option<String>,
    own6: Option<String>,
    peer4: Option<String>,
    peer6: Option<String>,
}

#[derive(Deserialize)]
struct JsRtsp {
    lan: String,
}

#[derive(Deserialize)]
struct JsService {
    protocol: String,
    port: u16,
    family: u32,
    target: JsAddress,
    rtsp: Option<JsRtsp>,
    account: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsPolicy {
    session: u32,
    inbound: Vec<JsService>,
    outbound: bool,
    echo: bool,
    rtsp_ports: Vec<u16>,
}

#[derive(Deserialize)]
struct JsHandshake {
    socket: u16,
    to: JsAddress,
    bytes: ByteBuf,
}

#[derive(Deserialize)]
struct JsTo {
    socket: u16,
    remote: JsAddress,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsLinkSend {
    link: u32,
    frame: ByteBuf,
    generation: Option<u32>,
    to: Option<JsTo>,
    keep_alive: Option<bool>,
}

#[derive(Deserialize)]
struct JsLinkMove {
    link: u32,
    socket: u16,
    remote: JsAddress,
}

#[derive(Deserialize)]
struct JsLinkRetire {
    link: u32,
    generation: u32,
}

#[derive(Deserialize)]
struct JsLink {
    link: u32,
}

#[derive(Deserialize)]
struct JsForward {
    ingress: JsHop,
    egress: JsHop,
}

#[derive(Deserialize)]
struct JsLabel {
    label: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsRekey {
    path: u32,
    slot: u8,
    send_key: ByteBuf,
    receive_key: ByteBuf,
    confirmed: bool,
}

#[derive(Deserialize)]
struct JsPathRetire {
    path: u32,
    slot: u8,
}

#[derive(Deserialize)]
struct JsPath {
    path: u32,
}

#[derive(Deserialize)]
struct JsSessionSend {
    session: u32,
    bytes: ByteBuf,
    path: Option<u32>,
}

#[derive(Deserialize)]
struct JsSession {
    session: u32,
}

/// One datagram to send.
#[derive(Serialize)]
pub struct JsDatagram<'a> {
    pub socket: u16,
    pub host: String,
    pub port: u16,
    pub bytes: &'a Bytes,
    pub relayed: bool,
}

/// Any `DataPlaneEvent`; fields that an event doesn't have are absent.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JsEvent {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<JsAddress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<ByteBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    own: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsTraffic {
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<u32>,
    rx_bytes: u64,
    tx_bytes: u64,
    rx_packets: u64,
    tx_packets: u64,
    flows: u32,
    idle_ms: f64,
    sent_ms: f64,
    /// Of sessions: 0 before anything was probed.
    path_mtu: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsServiceStats {
    account: u32,
    payload_bytes: u64,
    overhead_bytes: u64,
}

#[derive(Serialize)]
struct JsRelay {
    packets: u64,
    bytes: u64,
    labels: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsLedger {
    payload: u64,
    overhead: u64,
    control: u64,
    keep_alive: u64,
}

/// `DataPlaneStats`.
#[derive(Serialize)]
pub struct JsStats {
    links: Vec<JsTraffic>,
    sessions: Vec<JsTraffic>,
    services: Vec<JsServiceStats>,
    relay: JsRelay,
    media: f64,
    ledger: JsLedger,
    trains: JsTrains,
    drops: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct JsTrains {
    sealed: [u64; 7],
    opened: [u64; 7],
}

/// A misuse of the interface by our own TypeScript.
pub fn invalid(what: &str) -> JsError {
    JsError::new(&format!("invalid {what}"))
}

pub fn key(bytes: &[u8]) -> Result<[u8; 32], JsError> {
    bytes.try_into().map_err(|_| invalid("key: 32 bytes are wanted"))
}

/// 64-bit numbers become bigints, maps plain objects, byte buffers `Uint8Array`s.
pub fn to_js<T: Serialize>(value: &T) -> Result<JsValue, JsError> {
    let serializer = serde_wasm_bindgen::Serializer::new()
        .serialize_large_number_types_as_bigints(true)
        .serialize_maps_as_objects(true);
    value
        .serialize(&serializer)
        .map_err(|error| invalid(&error.to_string()))
}

fn from_js<T: DeserializeOwned>(value: JsValue) -> Result<T, JsError> {
    serde_wasm_bindgen::from_value(value).map_err(|error| invalid(&format!("command: {error}")))
}

fn ip(text: &str) -> Result<IpAddr, JsError> {
    text.parse().map_err(|_| invalid("IP address"))
}

fn address(address: &JsAddress) -> Result<SocketAddr, JsError> {
    Ok(SocketAddr::new(ip(&address.host)?, address.port))
}

fn remote(socket: u16, to: &JsAddress) -> Result<Remote, JsError> {
    Ok(Remote::new(socket, address(to)?))
}

fn hop(hop: &JsHop) -> Hop {
    Hop {
        link: LinkId(hop.link),
        label: Label(hop.label),
        generation: Generation(hop.generation),
    }
}

/// An order by its name and arguments.
pub fn command(name: &str, arguments: JsValue) -> Result<Command, JsError> {
    Ok(match name {
        "sendHandshake" => {
            let c: JsHandshake = from_js(arguments)?;
            Command::SendHandshake {
                remote: remote(c.socket, &c.to)?,
                bytes: c.bytes.into_vec(),
            }
        }
        "linkInstall" => Command::LinkInstall(link_keys(&from_js(arguments)?)?),
        "linkSend" => {
            let c: JsLinkSend = from_js(arguments)?;
            Command::LinkSend {
                link: LinkId(c.link),
                generation: c.generation.map(Generation),
                to: c.to.map(|to| remote(to.socket, &to.remote)).transpose()?,
                keep_alive: c.keep_alive.unwrap_or(false),
                frame: c.frame.into_vec(),
            }
        }
        "linkMove" => {
            let c: JsLinkMove = from_js(arguments)?;
            Command::LinkMove {
                link: LinkId(c.link),
                remote: remote(c.socket, &c.remote)?,
            }
        }
        "linkRetire" => {
            let c: JsLinkRetire = from_js(arguments)?;
            Command::LinkRetire {
                link: LinkId(c.link),
                generation: Generation(c.generation),
            }
        }
        "linkRemove" => Command::LinkRemove {
            link: LinkId(from_js::<JsLink>(arguments)?.link),
        },
        "labelForward" => {
            let c: JsForward = from_js(arguments)?;
            Command::LabelForward {
                ingress: hop(&c.ingress),
                egress: hop(&c.egress),
            }
        }
        "labelRemove" => Command::LabelRemove {
            label: Label(from_js::<JsLabel>(arguments)?.label),
        },
        "sessionOpen" => {
            let (session, pair) = pair(&from_js(arguments)?)?;
            Command::SessionOpen { session, pair }
        }
        "sessionAliasRemove" => {
            let (session, pair) = pair(&from_js(arguments)?)?;
            Command::SessionAliasRemove { session, pair }
        }
        "sessionPolicy" => {
            let c: JsPolicy = from_js(arguments)?;
            Command::SessionPolicy {
                session: SessionId(c.session),
                policy: policy(c)?,
            }
        }
        "pathInstall" => Command::PathInstall(path_keys(&from_js(arguments)?)?),
        "pathRekey" => {
            let c: JsRekey = from_js(arguments)?;
            Command::PathRekey {
                path: PathId(c.path),
                slot: c.slot,
                send_key: key(&c.send_key)?,
                receive_key: key(&c.receive_key)?,
                confirmed: c.confirmed,
            }
        }
        "pathRetire" => {
            let c: JsPathRetire = from_js(arguments)?;
            Command::PathRetire {
                path: PathId(c.path),
                slot: c.slot,
            }
        }
        "pathRemove" => Command::PathRemove {
            path: PathId(from_js::<JsPath>(arguments)?.path),
        },
        "sessionSend" => {
            let c: JsSessionSend = from_js(arguments)?;
            Command::SessionSend {
                session: SessionId(c.session),
                path: c.path.map(PathId),
                bytes: c.bytes.into_vec(),
            }
        }
        "sessionRemove" => Command::SessionRemove {
            session: SessionId(from_js::<JsSession>(arguments)?.session),
        },
        other => return Err(invalid(&format!("command: {other} is none"))),
    })
}

fn link_keys(keys: &JsLinkKeys) -> Result<LinkKeys, JsError> {
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

fn path_keys(keys: &JsPathKeys) -> Result<PathKeys, JsError> {
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

fn pair(pair: &JsPair) -> Result<(SessionId, Pair), JsError> {
    let both = |own: &Option<String>, peer: &Option<String>| match (own, peer) {
        (Some(own), Some(peer)) => Ok(Some((ip(own)?, ip(peer)?))),
        _ => Ok::<_, JsError>(None),
    };
    let addresses = Pair {
        v4: both(&pair.own4, &pair.peer4)?,
        v6: both(&pair.own6, &pair.peer6)?,
    };
    Ok((SessionId(pair.session), addresses))
}

fn policy(policy: JsPolicy) -> Result<Policy, JsError> {
    let inbound = policy.inbound.iter().map(service).collect::<Result<_, _>>()?;
    Ok(Policy {
        inbound,
        outbound: policy.outbound,
        echo: policy.echo,
        rtsp_ports: policy.rtsp_ports,
    })
}

fn service(service: &JsService) -> Result<Service, JsError> {
    Ok(Service {
        protocol: protocol_of(&service.protocol).ok_or_else(|| invalid("protocol"))?,
        port: service.port,
        v6: service.family == 6,
        target: address(&service.target)?,
        account: service.account,
        rtsp: service.rtsp.as_ref().map(|rtsp| ip(&rtsp.lan)).transpose()?,
    })
}

fn js_address(address: SocketAddr) -> JsAddress {
    JsAddress {
        host: address.ip().to_string(),
        port: address.port(),
    }
}

/// An event as JavaScript sees it.
pub fn event(event: Event) -> JsEvent {
    let e = Flat::from(event);
    JsEvent {
        kind: e.kind,
        link: e.link,
        generation: e.generation,
        session: e.session,
        path: e.path,
        label: e.label,
        slot: e.slot,
        socket: e.from.map(|from| from.socket),
        from: e.from.map(|from| js_address(from.address)),
        bytes: e.bytes.map(ByteBuf::from),
        own: e.own.map(|ip| ip.to_string()),
        peer: e.peer.map(|ip| ip.to_string()),
        protocol: e.protocol,
        port: e.port,
        reason: e.reason,
        level: e.level,
        message: e.message,
    }
}

/// Counters as JavaScript sees them.
pub fn stats(stats: &Stats) -> JsStats {
    let never = |ms: Option<u64>| ms.map_or(-1.0, |ms| ms as f64);
    let traffic = |t: Traffic| JsTraffic {
        link: None,
        session: None,
        rx_bytes: t.rx_bytes,
        tx_bytes: t.tx_bytes,
        rx_packets: t.rx_packets,
        tx_packets: t.tx_packets,
        flows: 0,
        idle_ms: -1.0,
        sent_ms: -1.0,
        path_mtu: 0,
    };
    JsStats {
        links: stats
            .links
            .iter()
            .map(|l| JsTraffic {
                link: Some(l.link.0),
                idle_ms: l.idle_ms as f64,
                ..traffic(l.traffic)
            })
            .collect(),
        sessions: stats
            .sessions
            .iter()
            .map(|s| JsTraffic {
                session: Some(s.session.0),
                flows: s.flows,
                idle_ms: never(s.idle_ms),
                sent_ms: never(s.sent_ms),
                path_mtu: s.path_mtu.unwrap_or(0),
                ..traffic(s.traffic)
            })
            .collect(),
        services: stats
            .services
            .iter()
            .map(|s| JsServiceStats {
                account: s.account,
                payload_bytes: s.payload_bytes,
                overhead_bytes: s.overhead_bytes,
            })
            .collect(),
        relay: JsRelay {
            packets: stats.relay_packets,
            bytes: stats.relay_bytes,
            labels: stats.relay_labels as f64,
        },
        media: stats.media as f64,
        ledger: JsLedger {
            payload: stats.ledger.payload,
            overhead: stats.ledger.overhead,
            control: stats.ledger.control,
            keep_alive: stats.ledger.keep_alive,
        },
        trains: JsTrains {
            sealed: stats.sealed.0,
            opened: stats.opened.0,
        },
        drops: stats.drops.iter().copied().collect(),
    }
}
