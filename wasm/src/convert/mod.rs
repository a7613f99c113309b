//! Between JavaScript's objects and the core's types. The shapes are those of ts/dataplane/data-plane.ts.

mod commands;
mod events;
mod stats;

pub use commands::command;
pub use events::{JsDatagram, event};
pub use stats::stats;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use thicket_core::Remote;
use wasm_bindgen::prelude::{JsError, JsValue};

/// `SocketAddress`.
#[derive(Serialize, Deserialize)]
pub struct JsAddress {
    host: String,
    port: u16,
}

impl From<SocketAddr> for JsAddress {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

/// A misuse of the interface by our own TypeScript.
pub fn invalid(what: &str) -> JsError {
    JsError::new(&format!("invalid {what}"))
}

/// A key of 32 bytes.
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

/// An address as text.
pub fn ip(text: &str) -> Result<IpAddr, JsError> {
    text.parse().map_err(|_| invalid("IP address"))
}

fn address(address: &JsAddress) -> Result<SocketAddr, JsError> {
    Ok(SocketAddr::new(ip(&address.host)?, address.port))
}

/// An address at the far side of a socket of ours.
pub fn remote(socket: u16, host: &str, port: u16) -> Result<Remote, JsError> {
    Ok(Remote::new(socket, SocketAddr::new(ip(host)?, port)))
}

/// The same as JavaScript sees it.
#[derive(Serialize)]
pub struct JsRemote {
    socket: u16,
    host: String,
    port: u16,
}

impl From<Remote> for JsRemote {
    fn from(remote: Remote) -> Self {
        Self {
            socket: remote.socket,
            host: remote.address.ip().to_string(),
            port: remote.address.port(),
        }
    }
}
