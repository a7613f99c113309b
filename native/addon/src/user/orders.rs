//! JavaScript's orders: `HostOrders` of ts/dataplane/userspace.ts.

use super::{PORTS, Taken, User};
use std::net::{IpAddr, SocketAddr, TcpStream};
use thicket_core::Instant;

/// What JavaScript orders. Streams and ports go by its numbers.
#[allow(missing_docs)]
pub enum UserOrder {
    Dial {
        stream: u32,
        own: IpAddr,
        peer: SocketAddr,
    },
    Write {
        stream: u32,
        bytes: Vec<u8>,
    },
    Read {
        stream: u32,
        bytes: usize,
    },
    Finish {
        stream: u32,
    },
    Abort {
        stream: u32,
    },
    Splice {
        stream: u32,
        socket: TcpStream,
        early: Vec<u8>,
    },
    DatagramsOpen {
        port: u32,
        own: IpAddr,
    },
    DatagramsSend {
        port: u32,
        peer: SocketAddr,
        bytes: Vec<u8>,
        /// Its room on the way here.
        taken: Option<Taken>,
    },
    DatagramsClose {
        port: u32,
    },
}

impl User {
    /// Carries out one of JavaScript's orders.
    pub fn order(&mut self, now: Instant, order: UserOrder) {
        let Self { host, streams, .. } = self;
        match order {
            UserOrder::Dial { stream, own, peer } => streams.dial(now, stream, own, peer, host),
            UserOrder::Write { stream, bytes } => streams.write(stream, bytes, host),
            UserOrder::Read { stream, bytes } => streams.read(stream, bytes, host),
            UserOrder::Finish { stream } => streams.finish(stream, host),
            UserOrder::Abort { stream } => {
                if !streams.abort(stream, host) {
                    self.pipes.abort(stream, host, &self.poll);
                }
            }
            UserOrder::Splice { stream, socket, early } => {
                let given = streams.give(stream);
                self.pipes.splice(stream, given, socket, early, host, &self.poll);
            }
            UserOrder::DatagramsOpen { port, own } => self.open_port(port, own),
            UserOrder::DatagramsSend {
                port,
                peer,
                bytes,
                taken,
            } => {
                if let Some(&own) = self.ports.get(&port) {
                    host.send_datagram(own, peer, &bytes);
                }
                drop(taken);
            }
            UserOrder::DatagramsClose { port } => {
                if let Some(own) = self.ports.remove(&port) {
                    self.by_port.remove(&own);
                    host.close_datagrams(own);
                }
            }
        }
    }

    /// Where there is none left, what is sent from it goes nowhere.
    fn open_port(&mut self, port: u32, own: IpAddr) {
        if self.ports.len() < PORTS
            && let Ok(at) = self.host.open_datagrams(own)
        {
            let own = SocketAddr::new(own, at);
            self.ports.insert(port, own);
            self.by_port.insert(own, port);
        }
    }
}
