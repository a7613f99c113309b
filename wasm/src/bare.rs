//! The core as it is, one call for each datagram: for programs that craft packets (test/impolite).

use crate::aead::Sealer;
use crate::convert::*;
use js_sys::{Array, Uint8Array};
use thicket_core::wire::{VNET_HEADER, VnetHeader};
use thicket_core::*;
use wasm_bindgen::prelude::{JsError, JsValue, wasm_bindgen};

/// One node's core. Times are microseconds of a clock that never goes back, from 1,000,000 on.
#[wasm_bindgen]
pub struct WasmCore {
    core: Core<Sealer>,
    tx: TxBatch,
    rx: RxBatch,
    told: TunBatch,
    datagrams: Vec<Outgoing>,
    packets: Vec<Vec<u8>>,
}

/// One datagram that waits to be sent.
struct Outgoing {
    remote: Remote,
    bytes: Vec<u8>,
    /// Forwarded for others; else made here.
    relayed: bool,
}

#[wasm_bindgen]
impl WasmCore {
    /// `node_key` and `seed`: 32 bytes each; the seed is secret and random.
    #[wasm_bindgen(constructor)]
    pub fn new(node_key: &[u8], seed: &[u8], listening: bool) -> Result<WasmCore, JsError> {
        Ok(Self {
            core: Core::new(CoreConfig {
                node_key: key(node_key)?,
                listening,
                tun: TunFeatures::default(),
                seed: key(seed)?,
            }),
            tx: TxBatch::default(),
            rx: RxBatch::default(),
            told: TunBatch::default(),
            datagrams: Vec::new(),
            packets: Vec::new(),
        })
    }

    /// Takes one order, named and shaped as the method of `DataPlane` in ts/dataplane/data-plane.ts, its arguments in one object.
    pub fn command(&mut self, now: u64, name: &str, arguments: JsValue) -> Result<(), JsError> {
        let command = command(name, arguments)?;
        let now = Instant::from_micros(now);
        self.core.command(now, command, &mut self.tx);
        self.collect_made();
        self.refuse_media(now);
        Ok(())
    }

    /// Takes one datagram that came in.
    #[wasm_bindgen(js_name = handleDatagram)]
    pub fn handle_datagram(
        &mut self,
        now: u64,
        socket: u16,
        host: &str,
        port: u16,
        mut bytes: Vec<u8>,
    ) -> Result<(), JsError> {
        let remote = remote(socket, host, port)?;
        let (now, segment) = (Instant::from_micros(now), bytes.len());
        self.core
            .handle_datagrams(now, remote, &mut bytes, segment, &mut self.rx);
        self.collect_received(&bytes);
        self.refuse_media(now);
        Ok(())
    }

    /// Takes one plain IP packet of a local program; its checksums must be finished.
    #[wasm_bindgen(js_name = handleTun)]
    pub fn handle_tun(&mut self, now: u64, packet: &[u8]) {
        let now = Instant::from_micros(now);
        self.core
            .handle_tun(now, VnetHeader::default(), packet, &mut self.tx, &mut self.told);
        self.collect_made();
        take_packets(&self.told, &[], &mut self.packets);
        self.told.clear();
        self.refuse_media(now);
    }

    /// Call it when `pollTimeout` has come, and about once a second at least.
    #[wasm_bindgen(js_name = handleTimeout)]
    pub fn handle_timeout(&mut self, now: u64) {
        let now = Instant::from_micros(now);
        self.core.handle_timeout(now, &mut self.tx);
        self.collect_made();
        self.refuse_media(now);
    }

    /// When `handleTimeout` should be called next; earlier after any other call.
    #[wasm_bindgen(js_name = pollTimeout)]
    #[must_use]
    pub fn poll_timeout(&self) -> u64 {
        self.core.poll_timeout().as_micros()
    }

    /// What is to be sent, in order: `{ socket, host, port, bytes, relayed }` each. Empty afterwards.
    #[wasm_bindgen(js_name = takeDatagrams)]
    pub fn take_datagrams(&mut self) -> Result<Array, JsError> {
        self.datagrams.drain(..).map(|out| datagram(&out)).collect()
    }

    /// IP packets for local programs, in order. Empty afterwards.
    #[wasm_bindgen(js_name = takePackets)]
    pub fn take_packets(&mut self) -> Array {
        self.packets
            .drain(..)
            .map(|packet| Uint8Array::from(packet.as_slice()))
            .collect()
    }

    /// Events, in order, shaped as `DataPlaneEvent`. Empty afterwards.
    #[wasm_bindgen(js_name = takeEvents)]
    pub fn take_events(&mut self) -> Result<Array, JsError> {
        let events = Array::new();
        while let Some(one) = self.core.poll_event() {
            events.push(&to_js(&event(one))?);
        }
        Ok(events)
    }

    /// Counters now, shaped as `DataPlaneStats`.
    pub fn stats(&self, now: u64) -> Result<JsValue, JsError> {
        let mut counters = self.core.stats(Instant::from_micros(now));
        counters.sealed = self.tx.sealed().plus(self.rx.tx.sealed());
        counters.opened = self.rx.opened();
        to_js(&stats(&counters))
    }

    fn collect_made(&mut self) {
        let (trains, bytes) = self.tx.ready();
        take_trains(trains, bytes, false, &mut self.datagrams);
        self.tx.clear();
    }

    fn collect_received(&mut self, buffer: &[u8]) {
        take_trains(&self.rx.relays, buffer, true, &mut self.datagrams);
        let (trains, bytes) = self.rx.tx.ready();
        take_trains(trains, bytes, false, &mut self.datagrams);
        take_packets(&self.rx.tun, buffer, &mut self.packets);
        self.rx.clear();
    }

    /// There are no sockets on a LAN here: media over UDP are refused at once, and the player asks for them over its connection.
    fn refuse_media(&mut self, now: Instant) {
        while let Some(request) = self.core.poll_media() {
            if let MediaRequest::Reserve { id, .. } = request {
                self.core.media_reserved(now, id, None, &mut self.rx);
                self.collect_received(&[]);
            }
        }
    }
}

fn take_trains(trains: &[Train], bytes: &[u8], relayed: bool, out: &mut Vec<Outgoing>) {
    for train in trains {
        let datagrams = bytes.get(train.range.clone()).unwrap_or(&[]);
        out.extend(datagrams.chunks(train.segment.max(1)).map(|datagram| Outgoing {
            remote: train.remote,
            bytes: datagram.to_vec(),
            relayed,
        }));
    }
}

fn take_packets(batch: &TunBatch, buffer: &[u8], out: &mut Vec<Vec<u8>>) {
    for write in &batch.writes {
        let head = batch.heads.get(write.head.clone()).unwrap_or(&[]);
        let mut packet = head.get(VNET_HEADER..).unwrap_or(&[]).to_vec();
        for piece in batch.pieces.get(write.pieces.clone()).unwrap_or(&[]) {
            packet.extend_from_slice(buffer.get(piece.clone()).unwrap_or(&[]));
        }
        out.push(packet);
    }
}

fn datagram(out: &Outgoing) -> Result<JsValue, JsError> {
    to_js(&JsDatagram {
        socket: out.remote.socket,
        host: out.remote.address.ip().to_string(),
        port: out.remote.address.port(),
        bytes: serde_bytes::Bytes::new(&out.bytes),
        relayed: out.relayed,
    })
}
