//! Orders of the control logic.

use super::{JsAddress, address, from_js, invalid, ip, key, remote};
use serde::Deserialize;
use serde_bytes::ByteBuf;
use std::net::{Ipv4Addr, SocketAddr};
use thicket_core::*;
use wasm_bindgen::prelude::{JsError, JsValue};

/// The target of a service of this program itself.
const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

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
    target: Option<JsAddress>,
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
                remote: remote(c.socket, &c.to.host, c.to.port)?,
                bytes: c.bytes.into_vec(),
            }
        }
        "linkInstall" => Command::LinkInstall(link_keys(&from_js(arguments)?)?),
        "linkSend" => {
            let c: JsLinkSend = from_js(arguments)?;
            Command::LinkSend {
                link: LinkId(c.link),
                generation: c.generation.map(Generation),
                to: c
                    .to
                    .map(|to| remote(to.socket, &to.remote.host, to.remote.port))
                    .transpose()?,
                keep_alive: c.keep_alive.unwrap_or(false),
                frame: c.frame.into_vec(),
            }
        }
        "linkMove" => {
            let c: JsLinkMove = from_js(arguments)?;
            Command::LinkMove {
                link: LinkId(c.link),
                remote: remote(c.socket, &c.remote.host, c.remote.port)?,
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
        remote: remote(keys.socket, &keys.remote.host, keys.remote.port)?,
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
        target: service.target.as_ref().map_or(Ok(HERE), address)?,
        account: service.account,
        rtsp: service.rtsp.as_ref().map(|rtsp| ip(&rtsp.lan)).transpose()?,
    })
}
