//! What the packets caused.

use super::JsAddress;
use serde::Serialize;
use serde_bytes::{ByteBuf, Bytes};
use thicket_core::*;

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
        from: e.from.map(|from| from.address.into()),
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
