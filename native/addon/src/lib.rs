//! The N-API face: commands in, batches of events out. See ts/dataplane/data-plane.ts, which this implements.

mod aead;
// Public, since test builds register no functions and would call them unused.
pub mod aead_key;
mod convert;
mod host_orders;
mod link_sockets;
mod media;
mod outlet;
mod outlets;
mod queues;
mod rounds;
mod sys;
mod team;
mod user;
mod worker;

use convert::*;
use napi::bindgen_prelude::Uint8Array;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Error, Result, Status};
use napi_derive::napi;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use sys::{EventFd, Room, Tun, TunOffload, Udp};
use thicket_core::*;
use user::{Allowance, Batch, UserConfig, UserStats};
use worker::{Beginning, Events, Order, Worker};

/// How long counters may take: the worker answers between two packets, so only a machine that gives it no time makes it late, and JavaScript
/// stands still meanwhile. Then the counters before serve once more, so many times.
const STATS_PATIENCE: Duration = Duration::from_millis(100);
const FIRST_PATIENCE: Duration = Duration::from_secs(2);
const STALE_MOST: u32 = 20;

/// Bytes of JavaScript's datagrams that may wait for the workers.
const DATAGRAMS_ORDERED: usize = 2 << 20;

/// What may wait in sockets that are not for one neighbour alone.
const ROOM: Room = Room {
    receive: 8 << 20,
    send: outlet::SOCKET_FIRST,
};

/// This addon's version; the loader compares it with its own.
#[napi]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

type Callback = ThreadsafeFunction<Vec<JsEvent>, (), Vec<JsEvent>, Status, false, true>;

#[derive(Clone)]
struct ToJs(Arc<Callback>);

impl Events for ToJs {
    fn deliver(&self, events: Vec<Event>) {
        let events = events.into_iter().map(event).collect();
        self.0.call(events, ThreadsafeFunctionCallMode::NonBlocking);
    }

    fn user(&self, Batch { told, taken }: Batch) {
        let events = told.into_iter().map(convert::told).collect();
        let heard = move |done: Result<()>, _| {
            drop(taken);
            done
        };
        self.0
            .call_with_return_value(events, ThreadsafeFunctionCallMode::NonBlocking, heard);
    }

    fn fatal(&self, message: String) {
        let event = JsEvent {
            kind: "fatal".to_owned(),
            message: Some(message),
            ..JsEvent::default()
        };
        self.0.call(vec![event], ThreadsafeFunctionCallMode::NonBlocking);
    }
}

/// `DataPlaneOptions` of data-plane.ts.
#[napi(object)]
pub struct JsOptions {
    pub node_key: Uint8Array,
    /// 32 random bytes from the system.
    pub seed: Uint8Array,
    pub listen: Vec<JsAddress>,
    pub tun_name: Option<String>,
    pub tun_offload: bool,
    /// User-space mode instead of a TUN: bytes for the host's buffers.
    pub host_budget: Option<f64>,
    /// True: ring alone seals. Else trains are sealed in lanes where the processor has them.
    pub ring: Option<bool>,
    /// Threads that move packets; none given: one for each processor that this process may use.
    pub threads: Option<u32>,
}

/// The native data plane: worker threads with TUN and sockets.
#[napi]
pub struct NativeDataPlane {
    orders: Sender<Order>,
    wake: Arc<EventFd>,
    asked: Arc<AtomicBool>,
    /// Datagrams on their way to the workers.
    allowance: Allowance,
    /// Counters as they were last told, and how often since then they were late.
    last: (Option<(Stats, Option<UserStats>)>, u32),
    threads: Vec<JoinHandle<()>>,
    sockets: Vec<SocketAddr>,
    tun: Option<(String, String)>,
}

#[napi]
impl NativeDataPlane {
    /// Opens sockets and TUN and starts the workers. Errors carry the errno's name in front: `EADDRINUSE: …`.
    #[napi(constructor)]
    pub fn new(options: JsOptions, callback: Callback) -> Result<Self> {
        let listening = !options.listen.is_empty();
        let sockets = open_sockets(&options.listen)?;
        let offload = if options.tun_offload {
            TunOffload::Auto
        } else {
            TunOffload::Off
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let count = options
            .threads
            .map_or(processors, |threads| threads as usize)
            .clamp(1, team::MOST);
        let tun = match &options.tun_name {
            Some(name) => {
                Tun::open_queues(name, offload, count).map_err(|e| failed(&format!("interface {name}"), &e))?
            }
            None => Vec::new(),
        };
        let config = CoreConfig {
            node_key: key(&options.node_key)?,
            listening,
            tun: TunFeatures::default(),
            seed: key(&options.seed)?,
        };
        let user = options.host_budget.map(|budget| UserConfig {
            seed: config.seed,
            budget: budget as usize,
        });
        let described = tun.first().map(|tun| (tun.name().to_owned(), describe(tun)));
        let addresses = sockets.iter().map(Udp::local).collect();
        let wakes: Vec<_> = (0..count)
            .map(|_| EventFd::new().map(Arc::new))
            .collect::<io::Result<_>>()
            .map_err(|e| failed("eventfd", &e))?;
        let wake = wakes
            .first()
            .cloned()
            .ok_or_else(|| Error::from_status(Status::GenericFailure))?;
        let asked = Arc::new(AtomicBool::new(false));
        let (orders, receiver) = channel();
        let callback = ToJs(Arc::new(callback));
        let workers = Worker::team(Beginning {
            config,
            sealer: aead::choose(options.ring.unwrap_or(false)),
            tun,
            user,
            sockets,
            orders: receiver,
            asked: asked.clone(),
            wakes,
            events: callback.clone(),
        })
        .map_err(|e| failed("epoll", &e))?;
        let mut plane = Self {
            orders,
            wake,
            asked,
            allowance: Allowance::new(DATAGRAMS_ORDERED),
            last: (None, 0),
            threads: Vec::with_capacity(count),
            sockets: addresses,
            tun: described,
        };
        for worker in workers {
            let callback = callback.clone();
            let thread = std::thread::Builder::new()
                .name("thicket-worker".to_owned())
                .spawn(move || {
                    // A panic must not cross into Node's threads: it ends the data plane, and the node says so and stops.
                    if catch_unwind(AssertUnwindSafe(|| worker.run())).is_err() {
                        callback.fatal("the data plane's worker failed: this is a bug, please report it".to_owned());
                    }
                })
                .map_err(|e| failed("thread", &e))?;
            plane.threads.push(thread);
        }
        Ok(plane)
    }

    /// Bound addresses.
    #[napi(getter)]
    pub fn sockets(&self) -> Vec<JsAddress> {
        self.sockets
            .iter()
            .map(|a| JsAddress {
                host: a.ip().to_string(),
                port: a.port(),
                local: None,
            })
            .collect()
    }

    /// Name and offloads of the TUN, if there is one.
    #[napi(getter)]
    pub fn tun(&self) -> Option<Vec<String>> {
        self.tun
            .as_ref()
            .map(|(name, offload)| vec![name.clone(), offload.clone()])
    }

    fn order(&self, command: Command) {
        self.send(Order::Command(Box::new(command)));
    }

    fn send(&self, order: Order) {
        // A worker that is gone has said so with a fatal event.
        if self.orders.send(order).is_ok() {
            self.wake.wake();
        }
    }

    #[napi]
    pub fn send_handshake(&self, socket: u16, to: JsAddress, bytes: Uint8Array) -> Result<()> {
        self.order(Command::SendHandshake {
            remote: remote(socket, &to)?,
            bytes: bytes.to_vec(),
        });
        Ok(())
    }

    #[napi]
    pub fn link_install(&self, keys: JsLinkKeys) -> Result<()> {
        self.order(Command::LinkInstall(link_keys(&keys)?));
        Ok(())
    }

    #[napi]
    pub fn link_send(
        &self,
        link: u32,
        frame: Uint8Array,
        generation: Option<u32>,
        socket: Option<u16>,
        to: Option<JsAddress>,
        keep_alive: bool,
    ) -> Result<()> {
        let to = match (socket, to) {
            (Some(socket), Some(to)) => Some(remote(socket, &to)?),
            _ => None,
        };
        let generation = generation.map(Generation);
        self.order(Command::LinkSend {
            link: LinkId(link),
            generation,
            to,
            keep_alive,
            frame: frame.to_vec(),
        });
        Ok(())
    }

    #[napi]
    pub fn link_move(&self, link: u32, socket: u16, to: JsAddress) -> Result<()> {
        self.order(Command::LinkMove {
            link: LinkId(link),
            remote: remote(socket, &to)?,
        });
        Ok(())
    }

    #[napi]
    pub fn link_retire(&self, link: u32, generation: u32) {
        self.order(Command::LinkRetire {
            link: LinkId(link),
            generation: Generation(generation),
        });
    }

    #[napi]
    pub fn link_remove(&self, link: u32) {
        self.order(Command::LinkRemove { link: LinkId(link) });
    }

    #[napi]
    pub fn label_forward(&self, ingress: JsHop, egress: JsHop) {
        self.order(Command::LabelForward {
            ingress: hop(&ingress),
            egress: hop(&egress),
        });
    }

    #[napi]
    pub fn label_remove(&self, label: u32) {
        self.order(Command::LabelRemove { label: Label(label) });
    }

    #[napi]
    pub fn session_open(&self, addresses: JsPair) -> Result<()> {
        self.order(Command::SessionOpen {
            session: SessionId(addresses.session),
            pair: pair(&addresses)?,
        });
        Ok(())
    }

    #[napi]
    pub fn session_alias_remove(&self, addresses: JsPair) -> Result<()> {
        self.order(Command::SessionAliasRemove {
            session: SessionId(addresses.session),
            pair: pair(&addresses)?,
        });
        Ok(())
    }

    #[napi]
    pub fn session_policy(&self, new: JsPolicy) -> Result<()> {
        self.order(Command::SessionPolicy {
            session: SessionId(new.session),
            policy: policy(&new)?,
        });
        Ok(())
    }

    #[napi]
    pub fn path_install(&self, keys: JsPathKeys) -> Result<()> {
        self.order(Command::PathInstall(path_keys(&keys)?));
        Ok(())
    }

    #[napi]
    pub fn path_rekey(
        &self,
        path: u32,
        slot: u8,
        send: Uint8Array,
        receive: Uint8Array,
        confirmed: bool,
    ) -> Result<()> {
        let (send_key, receive_key) = (key(&send)?, key(&receive)?);
        self.order(Command::PathRekey {
            path: PathId(path),
            slot,
            send_key,
            receive_key,
            confirmed,
        });
        Ok(())
    }

    #[napi]
    pub fn path_retire(&self, path: u32, slot: u8) {
        self.order(Command::PathRetire {
            path: PathId(path),
            slot,
        });
    }

    #[napi]
    pub fn path_remove(&self, path: u32) {
        self.order(Command::PathRemove { path: PathId(path) });
    }

    #[napi]
    pub fn session_send(&self, session: u32, bytes: Uint8Array, path: Option<u32>) {
        let path = path.map(PathId);
        self.order(Command::SessionSend {
            session: SessionId(session),
            path,
            bytes: bytes.to_vec(),
        });
    }

    #[napi]
    pub fn session_remove(&self, session: u32) {
        self.order(Command::SessionRemove {
            session: SessionId(session),
        });
    }

    /// Counters, now.
    #[napi]
    pub fn stats(&mut self) -> Result<JsStats> {
        let (reply, answer) = channel();
        self.asked.store(true, Ordering::Relaxed);
        let sent = self.orders.send(Order::Stats(reply)).is_ok();
        self.wake.wake();
        let known = self.last.0.is_some();
        match answer.recv_timeout(if known { STATS_PATIENCE } else { FIRST_PATIENCE }) {
            Ok(counters) => self.last = (Some(counters), 0),
            Err(RecvTimeoutError::Timeout) if sent => self.last.1 += 1,
            Err(_) => self.last = (None, 0),
        }
        match &self.last {
            (Some(counters), late) if *late <= STALE_MOST => Ok(stats(counters)),
            _ => Err(Error::new(
                Status::GenericFailure,
                "the data plane's worker doesn't answer",
            )),
        }
    }

    /// Stops the workers; sockets and TUN are gone when this returns.
    #[napi]
    pub fn close(&mut self) {
        let _ = self.orders.send(Order::Stop);
        self.wake.wake();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for NativeDataPlane {
    fn drop(&mut self) {
        self.close();
    }
}

fn open_sockets(listen: &[JsAddress]) -> Result<Vec<Udp>> {
    if listen.is_empty() {
        let dual = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
        let socket = Udp::bind(dual, true, ROOM)
            .or_else(|_| Udp::bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0), false, ROOM));
        return Ok(vec![socket.map_err(|e| failed("a UDP socket", &e))?]);
    }
    listen
        .iter()
        .map(|at| {
            let address = address(at)?;
            let dual = address.ip() == Ipv6Addr::UNSPECIFIED && !listen.iter().any(|l| l.host == "0.0.0.0");
            let socket = Udp::bind(address, dual, ROOM).map_err(|e| failed(&format!("udp://{address}"), &e))?;
            socket.tell_local();
            Ok(socket)
        })
        .collect()
}

fn describe(tun: &Tun) -> String {
    let f = tun.features();
    let parts: Vec<_> = [("csum", f.checksum), ("tso", f.tso), ("uso", f.uso)]
        .iter()
        .filter(|(_, on)| *on)
        .map(|(name, _)| *name)
        .collect();
    if parts.is_empty() {
        "off".to_owned()
    } else {
        parts.join(",")
    }
}

fn failed(what: &str, error: &io::Error) -> Error {
    let name = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => "EADDRINUSE",
        Some(libc::EADDRNOTAVAIL) => "EADDRNOTAVAIL",
        Some(libc::EPERM) => "EPERM",
        Some(libc::EACCES) => "EACCES",
        Some(libc::ENOENT) => "ENOENT",
        Some(libc::ENODEV) => "ENODEV",
        Some(libc::EBUSY) => "EBUSY",
        _ => "EIO",
    };
    Error::new(Status::GenericFailure, format!("{name}: {what}: {error}"))
}
