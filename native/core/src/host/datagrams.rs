//! UDP: datagrams wait here for the shell, and those of the shell for the core. Both queues are bounded; what doesn't fit is lost, as on any line.

use super::api::Datagrams;
use super::egress::write_ip;
use core::net::SocketAddr;
use std::collections::VecDeque;

use crate::wire::{VnetHeader, gso, protocol, vnet_flags};

/// Bytes and packets that may wait in one direction.
const BYTES: usize = 1 << 20;
const PACKETS: usize = 4_096;
/// Datagrams of one size that go as one packet.
const TOGETHER: usize = 64;
const TOGETHER_BYTES: usize = 60_000;
/// Longest payload of a datagram.
const LONGEST: usize = 65_507;

/// One direction.
#[derive(Default)]
pub struct Queue {
    bytes: VecDeque<u8>,
    packets: VecDeque<(Datagrams, usize)>,
}

impl Queue {
    /// Appends datagrams of one flow; `false`: there is no room.
    pub fn push(&mut self, head: Datagrams, payload: &[u8]) -> bool {
        if self.packets.len() >= PACKETS || self.bytes.len() + payload.len() > BYTES {
            return false;
        }
        self.bytes.extend(payload);
        self.packets.push_back((head, payload.len()));
        true
    }

    /// Appends one datagram, to those before it if these are of its flow and size.
    pub fn push_one(&mut self, own: SocketAddr, peer: SocketAddr, payload: &[u8]) -> bool {
        if payload.len() > LONGEST {
            return false;
        }
        if let Some((last, len)) = self.packets.back_mut()
            && (last.own, last.peer) == (own, peer)
            && (1..=last.segment).contains(&payload.len())
            && *len > 0
            && len.is_multiple_of(last.segment)
            && *len < TOGETHER * last.segment
            && *len + payload.len() <= TOGETHER_BYTES
            && self.bytes.len() + payload.len() <= BYTES
        {
            *len += payload.len();
            self.bytes.extend(payload);
            return true;
        }
        let segment = payload.len().max(1);
        self.push(Datagrams { own, peer, segment }, payload)
    }

    /// The oldest; its bytes are appended to `out`.
    pub fn pop(&mut self, out: &mut Vec<u8>) -> Option<Datagrams> {
        let (head, len) = self.packets.pop_front()?;
        let (front, back) = self.bytes.as_slices();
        let first = len.min(front.len());
        out.extend_from_slice(front.get(..first).unwrap_or(&[]));
        out.extend_from_slice(back.get(..len - first).unwrap_or(&[]));
        self.bytes.drain(..len.min(self.bytes.len()));
        if self.bytes.is_empty() && self.bytes.capacity() > BYTES / 8 {
            self.bytes = VecDeque::new();
        }
        Some(head)
    }

    /// The oldest as a packet, for the core.
    pub fn packet(&mut self, out: &mut Vec<u8>) -> Option<VnetHeader> {
        let &(head, len) = self.packets.front()?;
        let ip = write_ip(out, head.own.ip(), head.peer.ip(), protocol::UDP, 8 + len);
        out.extend_from_slice(&head.own.port().to_be_bytes());
        out.extend_from_slice(&head.peer.port().to_be_bytes());
        out.extend_from_slice(&((8 + len) as u16).to_be_bytes());
        out.extend_from_slice(&[0; 2]);
        self.pop(out);
        let mut vnet = VnetHeader {
            flags: vnet_flags::DATA_VALID,
            ..VnetHeader::default()
        };
        if len > head.segment {
            vnet.gso_type = gso::UDP_L4;
            vnet.gso_size = head.segment as u16;
            vnet.header_len = (ip + 8) as u16;
        }
        Some(vnet)
    }
}
