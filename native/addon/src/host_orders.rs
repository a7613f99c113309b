//! The N-API face of user-space mode: `HostOrders` of ts/dataplane/userspace.ts.

use crate::NativeDataPlane;
use crate::convert::{invalid, ip};
use crate::sys::device;
use crate::user::UserOrder;
use crate::worker::Order;
use napi::bindgen_prelude::Uint8Array;
use napi::{Error, Result, Status};
use napi_derive::napi;
use std::net::SocketAddr;

#[napi]
impl NativeDataPlane {
    fn user(&self, order: UserOrder) {
        self.send(Order::User(order));
    }

    #[napi]
    pub fn stream_dial(&self, stream: u32, own: String, peer: String, port: u16) -> Result<()> {
        let (own, peer) = (ip(&own)?, SocketAddr::new(ip(&peer)?, port));
        self.user(UserOrder::Dial { stream, own, peer });
        Ok(())
    }

    #[napi]
    pub fn stream_write(&self, stream: u32, bytes: Uint8Array) {
        let bytes = bytes.to_vec();
        self.user(UserOrder::Write { stream, bytes });
    }

    #[napi]
    pub fn stream_read(&self, stream: u32, bytes: u32) {
        let bytes = bytes as usize;
        self.user(UserOrder::Read { stream, bytes });
    }

    #[napi]
    pub fn stream_finish(&self, stream: u32) {
        self.user(UserOrder::Finish { stream });
    }

    #[napi]
    pub fn stream_abort(&self, stream: u32) {
        self.user(UserOrder::Abort { stream });
    }

    /// The descriptor is duplicated before this returns. An error (no descriptor left, or none of a stream) leaves both as they were.
    #[napi]
    pub fn stream_splice(&self, stream: u32, fd: i32, initial: Uint8Array) -> Result<()> {
        let failed = |error| Error::new(Status::GenericFailure, format!("EBADF: descriptor {fd}: {error}"));
        let socket = device::adopt(fd).map_err(failed)?;
        let early = initial.to_vec();
        self.user(UserOrder::Splice { stream, socket, early });
        Ok(())
    }

    #[napi]
    pub fn datagrams_open(&self, port: u32, own: String) -> Result<()> {
        let own = ip(&own)?;
        self.user(UserOrder::DatagramsOpen { port, own });
        Ok(())
    }

    #[napi]
    pub fn datagrams_send(&self, port: u32, peer: String, peer_port: u16, bytes: Uint8Array) -> Result<()> {
        if bytes.len() > 65_507 {
            return Err(invalid("datagram: 65,507 bytes at most"));
        }
        let peer = SocketAddr::new(ip(&peer)?, peer_port);
        let taken = self.allowance.take(bytes.len());
        // Too many at once: some are lost.
        if taken.is_some() {
            let bytes = bytes.to_vec();
            self.user(UserOrder::DatagramsSend {
                port,
                peer,
                bytes,
                taken,
            });
        }
        Ok(())
    }

    #[napi]
    pub fn datagrams_close(&self, port: u32) {
        self.user(UserOrder::DatagramsClose { port });
    }
}
