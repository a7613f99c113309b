//! The data plane of ts/dataplane/wasm: the core, driven in batches. JavaScript copies what its sockets received into this memory, with an index of who sent how
//! much, and calls once for all of it; what is to be sent it reads as views of this memory, by a table. Addresses cross once, and are numbers after that.

mod addresses;
mod outgoing;
mod user;

use crate::aead::Sealer;
use crate::convert::{JsRemote, command, event, key, remote, stats, to_js};
use addresses::Addresses;
use js_sys::Array;
use outgoing::Outgoing;
use thicket_core::*;
use user::User;
use wasm_bindgen::prelude::{JsError, JsValue, wasm_bindgen};

/// Bytes of datagrams, and datagrams, that one call may bring.
const INPUT: usize = 1 << 20;
const DATAGRAMS: usize = 2_048;

/// One node's data plane. Times are whole microseconds of a clock that never goes back, from 1,000,000 on, as JavaScript's numbers: exact for 285 years.
///
/// Its memory grows: views of it are to be made anew when its buffer is another. A call may make something to send: then [`WasmPlane::ready`], and
/// [`WasmPlane::sent`] before the next call.
#[wasm_bindgen]
pub struct WasmPlane {
    core: Core<Sealer>,
    addresses: Addresses,
    input: Vec<u8>,
    /// Of each datagram in `input`, which lie one behind the other: number of its address, length.
    index: Vec<u32>,
    tx: TxBatch,
    rx: RxBatch,
    out: Outgoing,
    user: Option<User>,
}

#[wasm_bindgen]
impl WasmPlane {
    /// `node_key` and `seed`: 32 bytes each; the seed is secret and random. `budget`: bytes for the buffers of user-space mode; 0 without it.
    #[wasm_bindgen(constructor)]
    pub fn new(node_key: &[u8], seed: &[u8], listening: bool, budget: usize) -> Result<WasmPlane, JsError> {
        let (node_key, seed) = (key(node_key)?, key(seed)?);
        let user = (budget > 0).then(|| User::new(seed, budget));
        let mut core = Core::new(CoreConfig {
            node_key,
            listening,
            tun: TunFeatures::default(),
            seed,
        });
        if user.is_some() {
            core.set_tun(Host::FEATURES);
            core.tell_cuts();
        }
        Ok(Self {
            core,
            user,
            addresses: Addresses::default(),
            input: vec![0; INPUT],
            index: vec![0; 2 * DATAGRAMS],
            tx: TxBatch::default(),
            rx: RxBatch::default(),
            out: Outgoing::default(),
        })
    }

    /// Where datagrams are to be written to, one behind the other.
    #[wasm_bindgen(getter)]
    pub fn input(&self) -> usize {
        self.input.as_ptr() as usize
    }

    /// Room for so many bytes there.
    #[wasm_bindgen(getter, js_name = inputRoom)]
    pub fn input_room(&self) -> usize {
        self.input.len()
    }

    /// Where their index is to be written to: two words for each, the number of its address and its length.
    #[wasm_bindgen(getter)]
    pub fn index(&self) -> usize {
        self.index.as_ptr() as usize
    }

    /// Room for so many datagrams there.
    #[wasm_bindgen(getter, js_name = indexRoom)]
    pub fn index_room(&self) -> usize {
        self.index.len() / 2
    }

    /// The number of an address at the far side of a socket of ours; `undefined`: there are too many, forget them.
    pub fn intern(&mut self, socket: u16, host: &str, port: u16) -> Result<Option<u32>, JsError> {
        Ok(self.addresses.number(remote(socket, host, port)?))
    }

    /// What a number stands for: `{ socket, host, port }`.
    pub fn address(&self, number: u32) -> Result<JsValue, JsError> {
        to_js(&self.addresses.get(number).map(JsRemote::from))
    }

    /// All numbers mean nothing from now on. Not while something is to be taken or sent.
    #[wasm_bindgen(js_name = forgetAddresses)]
    pub fn forget_addresses(&mut self) {
        self.addresses.clear();
    }

    /// Takes one order, named and shaped as the method of `DataPlane` in ts/dataplane/data-plane.ts, its arguments in one object.
    pub fn command(&mut self, now: f64, name: &str, arguments: JsValue) -> Result<(), JsError> {
        let now = instant(now);
        self.core.command(now, command(name, arguments)?, &mut self.tx);
        self.make_room();
        self.refuse_media(now);
        Ok(())
    }

    /// Takes the first `count` datagrams of the index.
    pub fn receive(&mut self, now: f64, count: usize) {
        let now = instant(now);
        let mut at = 0;
        let mut next = 0;
        while next < count {
            let Some((from, segment, len, datagrams)) = self.train(next, count) else {
                break;
            };
            next += datagrams;
            let start = at;
            at += len;
            let Some((remote, bytes)) = self.addresses.get(from).zip(self.input.get_mut(start..at)) else {
                continue;
            };
            self.core.handle_datagrams(now, remote, bytes, segment, &mut self.rx);
            self.out.relays(&self.rx.relays, start, &mut self.addresses);
            if let Some(user) = &mut self.user {
                user.deliver(now, &self.rx.tun, bytes);
            }
            self.rx.clear_received();
            if self.rx.tx.is_full() {
                self.out.keep(&mut self.rx.tx, &mut self.addresses);
            }
        }
        self.refuse_media(now);
    }

    /// What comes at this place of the index: from whom, how long each datagram but the last is, how long all are, how many. What follows from the same source
    /// and is as long is one train; its last may be shorter.
    fn train(&self, first: usize, count: usize) -> Option<(u32, usize, usize, usize)> {
        let entries = self.index.as_chunks::<2>().0.get(first..count)?;
        let &[from, segment] = entries.first()?;
        let (mut len, mut datagrams) = (0, 0);
        for &[_, length] in entries.iter().take_while(|next| next[0] == from && next[1] <= segment) {
            len += length as usize;
            datagrams += 1;
            if length < segment {
                break;
            }
        }
        Some((from, segment as usize, len, datagrams))
    }

    /// Call it when [`WasmPlane::poll_timeout`] has come.
    #[wasm_bindgen(js_name = handleTimeout)]
    pub fn handle_timeout(&mut self, now: f64) {
        let now = instant(now);
        self.core.handle_timeout(now, &mut self.tx);
        self.make_room();
        self.refuse_media(now);
    }

    /// When [`WasmPlane::handle_timeout`] should be called next; earlier after any other call.
    #[wasm_bindgen(js_name = pollTimeout)]
    pub fn poll_timeout(&self) -> f64 {
        let own = self.core.poll_timeout();
        let due = self.user.as_ref().map_or(own, |user| own.min(user.due()));
        due.as_micros() as f64
    }

    /// Writes the table of what is to be sent; how many lines it has. Each is five words: number of the address, where the bytes lie, how many, length of each
    /// datagram but the last (which may be shorter), and whose they are (see [`Share`]).
    pub fn ready(&mut self) -> usize {
        self.out.trains(&mut self.rx.tx, &mut self.addresses);
        self.out.trains(&mut self.tx, &mut self.addresses);
        self.out.write(self.input.as_ptr() as usize)
    }

    /// Where that table lies.
    #[wasm_bindgen(getter)]
    pub fn table(&self) -> usize {
        self.out.table()
    }

    /// After everything was sent; so many datagrams found no room since the last call.
    pub fn sent(&mut self, lost: u32) {
        self.out.clear();
        self.rx.clear();
        self.tx.clear();
        if lost > 0 {
            self.core.count_unsent(lost.into());
        }
    }

    /// A line for the log, among the events.
    pub fn log(&mut self, level: &str, message: String) {
        let level = match level {
            "error" => LogLevel::Error,
            _ => LogLevel::Debug,
        };
        self.core.log(level, message);
    }

    /// Events, in order, shaped as `DataPlaneEvent`: at most so many, the others wait.
    #[wasm_bindgen(js_name = takeEvents)]
    pub fn take_events(&mut self, most: u32) -> Result<Array, JsError> {
        let events = Array::new();
        while events.length() < most
            && let Some(one) = self.core.poll_event()
        {
            events.push(&to_js(&event(one))?);
        }
        Ok(events)
    }

    /// Counters now, shaped as `DataPlaneStats`.
    pub fn stats(&self, now: f64) -> Result<JsValue, JsError> {
        let mut counters = self.core.stats(instant(now));
        counters.sealed = self.tx.sealed().plus(self.rx.tx.sealed());
        counters.opened = self.rx.opened();
        to_js(&stats(&counters))
    }

    /// The next call may need as much as fits.
    fn make_room(&mut self) {
        if self.tx.is_full() {
            self.out.keep(&mut self.tx, &mut self.addresses);
        }
    }

    /// There are no sockets on a LAN here: media over UDP are refused at once, and the player asks for them over its connection.
    fn refuse_media(&mut self, now: Instant) {
        while let Some(request) = self.core.poll_media() {
            if let MediaRequest::Reserve { id, .. } = request {
                self.core.media_reserved(now, id, None, &mut self.rx);
                if let Some(user) = &mut self.user {
                    user.deliver(now, &self.rx.tun, &[]);
                }
                self.rx.clear_received();
            }
        }
    }
}

/// The module's memory, for views.
#[wasm_bindgen(js_name = planeMemory)]
pub fn plane_memory() -> JsValue {
    wasm_bindgen::memory()
}

fn instant(micros: f64) -> Instant {
    Instant::from_micros(micros as u64)
}
