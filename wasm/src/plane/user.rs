//! User-space mode: the core's TCP/IP host in place of a kernel's, and its streams and datagrams as ts/dataplane/wasm drives them.

use super::{WasmPlane, instant};
use crate::convert::{ip, to_js};
use js_sys::Uint8Array;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use thicket_core::wire::{VNET_HEADER, VnetHeader, protocol};
use thicket_core::{Closed, Host, HostEvent, Instant, Lost, Service, SessionId, StreamId, TunBatch};
use wasm_bindgen::prelude::{JsError, JsValue, wasm_bindgen};

/// Streams at most.
const STREAMS: u32 = 16_384;
/// Longest packet that we ask far ends for; the core divides what is longer than the path takes.
const MTU: u16 = 1_500;
/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// Flows of datagrams that may have a number.
const FLOWS: usize = 16_384;
/// Words of an event.
const EVENT: usize = 3;

/// The host, and numbers for flows of datagrams: an end of ours and one of theirs.
pub struct User {
    host: Host,
    packet: Vec<u8>,
    told: TunBatch,
    chunk: Vec<u8>,
    events: Vec<u32>,
    datagrams: Vec<u8>,
    segment: usize,
    flows: BTreeMap<(SocketAddr, SocketAddr), u32>,
    ends: Vec<Option<(SocketAddr, SocketAddr)>>,
    free: Vec<u32>,
}

impl User {
    pub fn new(seed: [u8; 32], budget: usize) -> Self {
        Self {
            host: Host::new(&thicket_core::HostConfig {
                seed,
                mtu: MTU,
                budget,
                streams: STREAMS,
            }),
            packet: Vec::new(),
            told: TunBatch::default(),
            chunk: vec![0; CHUNK],
            events: Vec::new(),
            datagrams: Vec::new(),
            segment: 1,
            flows: BTreeMap::new(),
            ends: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Takes what the core delivers; its payload lies in `buffer`.
    pub fn deliver(&mut self, now: Instant, batch: &TunBatch, buffer: &[u8]) {
        for write in &batch.writes {
            let head = batch.heads.get(write.head.clone()).unwrap_or(&[]);
            let Some((vnet, head)) = head.split_first_chunk::<VNET_HEADER>() else {
                continue;
            };
            self.packet.clear();
            self.packet.extend_from_slice(head);
            for piece in batch.pieces.get(write.pieces.clone()).unwrap_or(&[]) {
                self.packet.extend_from_slice(buffer.get(piece.clone()).unwrap_or(&[]));
            }
            self.host.handle_packet(now, VnetHeader::parse(vnet), &self.packet);
        }
    }

    pub fn due(&self) -> Instant {
        self.host.poll_timeout()
    }

    fn number(&mut self, ends: (SocketAddr, SocketAddr)) -> Option<u32> {
        if let Some(&number) = self.flows.get(&ends) {
            return Some(number);
        }
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.ends.len() < FLOWS => {
                self.ends.push(None);
                self.ends.len() as u32 - 1
            }
            None => return None,
        };
        *self.ends.get_mut(number as usize)? = Some(ends);
        self.flows.insert(ends, number);
        Some(number)
    }

    fn flow(&self, number: u32) -> Option<(SocketAddr, SocketAddr)> {
        *self.ends.get(number as usize)?
    }
}

/// A caller's stream, or flow of datagrams, and the service that it is for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsCall {
    own: String,
    own_port: u16,
    peer: String,
    peer_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<JsCalled>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsCalled {
    session: u32,
    account: u32,
    host: String,
    /// 0: the program itself.
    port: u16,
}

fn call((own, peer): (SocketAddr, SocketAddr), service: Option<(SessionId, Service)>) -> JsCall {
    JsCall {
        own: own.ip().to_string(),
        own_port: own.port(),
        peer: peer.ip().to_string(),
        peer_port: peer.port(),
        service: service.map(|(session, service)| JsCalled {
            session: session.0,
            account: service.account,
            host: service.target.ip().to_string(),
            port: service.target.port(),
        }),
    }
}

const fn reason(closed: Closed) -> u32 {
    match closed {
        Closed::Done => 0,
        Closed::Refused => 1,
        Closed::Reset => 2,
        Closed::TimedOut => 3,
        Closed::Unreachable => 4,
    }
}

/// Without user-space mode, which only its own TypeScript could forget, none of these does anything.
#[wasm_bindgen]
impl WasmPlane {
    /// Lets the host go on and hands what it sends to the core; to be called after whatever else was, as long as what is made can be sent. Whether there is more: then
    /// what was made is to be sent first.
    pub fn turn(&mut self, now: f64) -> bool {
        let now = instant(now);
        let Some(user) = &mut self.user else { return false };
        user.host.handle_timeout(now);
        while let Some((own, peer)) = self.core.poll_cut() {
            user.host.cut(now, own, peer);
        }
        let mut packet = std::mem::take(&mut user.packet);
        while !self.tx.is_full() {
            let Some(vnet) = user.host.poll_packet(now, &mut packet) else {
                user.packet = packet;
                return false;
            };
            self.core.handle_tun(now, vnet, &packet, &mut self.tx, &mut user.told);
            if !user.told.writes.is_empty() {
                let told = std::mem::take(&mut user.told);
                user.deliver(now, &told, &[]);
                user.told = told;
                user.told.clear();
            }
        }
        user.packet = packet;
        true
    }

    /// Writes down what happened to streams, and says how often something did. Three words for each: what (1 incoming, 2 connected, 3 readable, 4 writable,
    /// 5 finished, 6 closed, 7 a datagram was lost), which stream (or flow), why.
    #[wasm_bindgen(js_name = hostEvents)]
    pub fn host_events(&mut self) -> usize {
        let Some(user) = &mut self.user else { return 0 };
        user.events.clear();
        while let Some(event) = user.host.poll_event() {
            let words: [u32; EVENT] = match event {
                HostEvent::Incoming { stream, .. } => [1, stream.0, 0],
                HostEvent::Connected(stream) => [2, stream.0, 0],
                HostEvent::Readable(stream) => [3, stream.0, 0],
                HostEvent::Writable(stream) => [4, stream.0, 0],
                HostEvent::Finished(stream) => [5, stream.0, 0],
                HostEvent::Closed { stream, reason: why } => [6, stream.0, reason(why)],
                // Nobody here holds a program's UDP socket that could be told, and without privileges Node.js asks no device for an echo.
                HostEvent::DatagramLost { .. } | HostEvent::Echo(_) => continue,
            };
            user.events.extend_from_slice(&words);
        }
        user.events.len() / EVENT
    }

    /// Where it is written.
    #[wasm_bindgen(getter, js_name = hostTable)]
    pub fn host_table(&self) -> usize {
        self.user.as_ref().map_or(0, |user| user.events.as_ptr() as usize)
    }

    /// Opens a stream; `undefined`: there is nothing left for one.
    pub fn connect(&mut self, now: f64, own: &str, peer: &str, port: u16) -> Result<Option<u32>, JsError> {
        let (own, peer) = (ip(own)?, SocketAddr::new(ip(peer)?, port));
        let Some(user) = &mut self.user else { return Ok(None) };
        Ok(user.host.connect(instant(now), own, peer).ok().map(|stream| stream.0))
    }

    /// Who calls by this stream, and which service: `{ own, ownPort, peer, peerPort, service?: { session, account, host, port } }`.
    pub fn caller(&self, stream: u32) -> Result<JsValue, JsError> {
        let ends = self.user.as_ref().and_then(|user| user.host.ends(StreamId(stream)));
        self.call_of(ends, protocol::TCP)
    }

    fn call_of(&self, ends: Option<(SocketAddr, SocketAddr)>, number: u8) -> Result<JsValue, JsError> {
        let Some((own, peer)) = ends else {
            return Ok(JsValue::UNDEFINED);
        };
        let service = self.core.service_of(own.ip(), peer.ip(), number, own.port());
        to_js(&call((own, peer), service))
    }

    /// Answers a caller; `false`: it has gone.
    pub fn accept(&mut self, stream: u32) -> bool {
        self.user
            .as_mut()
            .is_some_and(|user| user.host.accept(StreamId(stream)))
    }

    /// Resets it: what a caller gets where nobody listens.
    pub fn abort(&mut self, stream: u32) {
        if let Some(user) = &mut self.user {
            user.host.abort(StreamId(stream));
        }
    }

    /// Tells a caller that the device is out of reach.
    pub fn unreachable(&mut self, stream: u32) {
        if let Some(user) = &mut self.user {
            user.host.unreachable(StreamId(stream));
        }
    }

    /// What there is to read, at most so many bytes and never more than 64 KiB; empty: nothing for now, or ever.
    pub fn read(&mut self, stream: u32, most: usize) -> Uint8Array {
        let Some(user) = &mut self.user else {
            return Uint8Array::new_with_length(0);
        };
        let room = user.chunk.get_mut(..most.min(CHUNK)).unwrap_or_default();
        let read = user.host.read(StreamId(stream), room);
        Uint8Array::from(user.chunk.get(..read).unwrap_or(&[]))
    }

    /// Whether the far end has finished and all was read.
    #[wasm_bindgen(js_name = isReadOut)]
    pub fn is_read_out(&self, stream: u32) -> bool {
        self.user
            .as_ref()
            .is_none_or(|user| user.host.is_read_out(StreamId(stream)))
    }

    /// Takes bytes to send, as many as it has room for; how many.
    pub fn write(&mut self, stream: u32, bytes: &[u8]) -> usize {
        self.user
            .as_mut()
            .map_or(0, |user| user.host.write(StreamId(stream), bytes))
    }

    /// How many bytes it has room for; at 0 an event tells when there is room again.
    pub fn room(&mut self, stream: u32) -> usize {
        self.user.as_mut().map_or(0, |user| user.host.room(StreamId(stream)))
    }

    /// Nothing more will be written.
    pub fn finish(&mut self, stream: u32) {
        if let Some(user) = &mut self.user {
            user.host.finish(StreamId(stream));
        }
    }

    /// The number of a flow of datagrams; `undefined`: there are too many.
    #[wasm_bindgen(js_name = flowOf)]
    pub fn flow_of(&mut self, own: &str, own_port: u16, peer: &str, peer_port: u16) -> Result<Option<u32>, JsError> {
        let ends = (
            SocketAddr::new(ip(own)?, own_port),
            SocketAddr::new(ip(peer)?, peer_port),
        );
        Ok(self.user.as_mut().and_then(|user| user.number(ends)))
    }

    /// What a number stands for, as [`WasmPlane::caller`] says it.
    pub fn flow(&self, number: u32) -> Result<JsValue, JsError> {
        let ends = self.user.as_ref().and_then(|user| user.flow(number));
        self.call_of(ends, protocol::UDP)
    }

    /// The number means nothing from now on.
    #[wasm_bindgen(js_name = forgetFlow)]
    pub fn forget_flow(&mut self, number: u32) {
        let Some(user) = &mut self.user else { return };
        if let Some(ends) = user.ends.get_mut(number as usize).and_then(Option::take) {
            user.flows.remove(&ends);
            user.free.push(number);
        }
    }

    /// Takes the oldest datagrams that came together; the number of their flow. `undefined`: there are none.
    #[wasm_bindgen(js_name = nextDatagrams)]
    pub fn next_datagrams(&mut self) -> Option<u32> {
        let user = self.user.as_mut()?;
        loop {
            let head = user.host.poll_datagrams(&mut user.datagrams)?;
            user.segment = head.segment.max(1);
            // More flows than have numbers: lost, as datagrams may be.
            if let Some(number) = user.number((head.own, head.peer)) {
                return Some(number);
            }
        }
    }

    /// Where they lie.
    #[wasm_bindgen(getter, js_name = datagramsAt)]
    pub fn datagrams_at(&self) -> usize {
        self.user.as_ref().map_or(0, |user| user.datagrams.as_ptr() as usize)
    }

    /// How many bytes they are.
    #[wasm_bindgen(getter, js_name = datagramsLength)]
    pub fn datagrams_length(&self) -> usize {
        self.user.as_ref().map_or(0, |user| user.datagrams.len())
    }

    /// Bytes of each but the last, which may be shorter.
    #[wasm_bindgen(getter, js_name = datagramsSegment)]
    pub fn datagrams_segment(&self) -> usize {
        self.user.as_ref().map_or(1, |user| user.segment)
    }

    /// Sends a datagram from our end of a flow to the other.
    #[wasm_bindgen(js_name = sendDatagram)]
    pub fn send_datagram(&mut self, flow: u32, bytes: &[u8]) {
        if let Some(user) = &mut self.user
            && let Some((own, peer)) = user.flow(flow)
        {
            user.host.send_datagram(own, peer, bytes);
        }
    }

    /// Tells the far end that its device doesn't listen there.
    #[wasm_bindgen(js_name = refuseDatagram)]
    pub fn refuse_datagram(&mut self, flow: u32) {
        if let Some(user) = &mut self.user
            && let Some((own, peer)) = user.flow(flow)
        {
            user.host.lose_datagram(own, peer, Lost::Refused);
        }
    }

    /// A port of an address of ours; `undefined`: there is none.
    #[wasm_bindgen(js_name = openDatagrams)]
    pub fn open_datagrams(&mut self, own: &str) -> Result<Option<u16>, JsError> {
        let own: IpAddr = ip(own)?;
        Ok(self.user.as_mut().and_then(|user| user.host.open_datagrams(own).ok()))
    }

    /// Gives it back.
    #[wasm_bindgen(js_name = closeDatagrams)]
    pub fn close_datagrams(&mut self, own: &str, port: u16) -> Result<(), JsError> {
        let own = SocketAddr::new(ip(own)?, port);
        if let Some(user) = &mut self.user {
            user.host.close_datagrams(own);
        }
        Ok(())
    }

    /// Figures now: `{ streams, buffered }`.
    #[wasm_bindgen(js_name = hostStats)]
    pub fn host_stats(&self) -> Result<JsValue, JsError> {
        let stats = self.user.as_ref().map(|user| user.host.stats()).unwrap_or_default();
        to_js(&JsHostStats {
            streams: stats.streams as u32,
            buffered: stats.buffered as f64,
        })
    }
}

#[derive(Serialize)]
struct JsHostStats {
    streams: u32,
    buffered: f64,
}
