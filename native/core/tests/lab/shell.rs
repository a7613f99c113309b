//! The shell's part besides TUN and links: events are kept, and sockets towards devices are made up.

use super::Lab;
use core::net::{IpAddr, SocketAddr};
use thicket_core::{MediaBatch, MediaRequest, RxBatch, TxBatch};

/// Sockets towards devices.
pub struct Shell {
    /// The node that may ask for some, and its address on the devices' network.
    pub lan: Option<(usize, IpAddr)>,
    /// Pairs of sockets: number and RTP's port.
    pub sockets: Vec<(u32, u16)>,
    pub released: Vec<u32>,
    /// Whether reservations are answered, and whether ports are found.
    pub answers: bool,
    pub finds: bool,
    /// What went to devices: from which pair, whether RTCP, to where, the bytes.
    pub sent: Vec<(u32, bool, SocketAddr, Vec<u8>)>,
}

impl Default for Shell {
    fn default() -> Self {
        Self {
            lan: None,
            sockets: Vec::new(),
            released: Vec::new(),
            answers: true,
            finds: true,
            sent: Vec::new(),
        }
    }
}

impl Shell {
    pub(super) fn carry(&mut self, media: &MediaBatch) {
        for send in &media.sends {
            let bytes = media.buffer[send.range.clone()].to_vec();
            self.sent.push((send.id, send.rtcp, send.to, bytes));
        }
    }
}

impl Lab {
    /// Takes what a node tells and asks.
    pub(super) fn serve(&mut self, node: usize) {
        while let Some(event) = self.nodes[node].poll_event() {
            self.events[node].push(event);
        }
        while let Some(request) = self.nodes[node].poll_media() {
            match request {
                MediaRequest::Reserve { id, lan, ports } => {
                    assert_eq!(self.shell.lan, Some((node, lan)));
                    let port = ports.start().next_multiple_of(2) + 2 * self.shell.sockets.len() as u16;
                    self.shell.sockets.push((id, port));
                    if self.shell.answers {
                        self.reserved(node, id, self.shell.finds.then_some((port, port + 1)));
                    }
                }
                MediaRequest::Release { id } => self.shell.released.push(id),
            }
        }
    }

    /// Answers a reservation.
    pub fn reserved(&mut self, node: usize, id: u32, ports: Option<(u16, u16)>) {
        let mut rx = RxBatch::default();
        self.nodes[node].media_reserved(self.now, id, ports, &mut rx);
        self.take(node, &mut rx, &[]);
    }

    /// Datagrams of `segment` bytes from a device, to a socket of a pair.
    pub fn device_sends(&mut self, node: usize, id: u32, rtcp: bool, from: SocketAddr, bytes: &[u8], segment: usize) {
        let mut tx = TxBatch::default();
        self.nodes[node].handle_media(self.now, id, rtcp, from, &mut bytes.to_vec(), segment, &mut tx);
        self.send(node, &mut tx);
        self.run();
    }
}
