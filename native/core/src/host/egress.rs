//! Packets for the core: written only when they are asked for, one stream after the other.

use super::api::Closed;
use super::tcp::VALID;
use super::{Control, Flow, Host};
use crate::time::Instant;
use crate::wire::{IpRepr, VnetHeader, protocol};
use core::net::IpAddr;
use smoltcp::socket::tcp::State;

/// Appends an IP header for `payload` bytes of transport, and returns its length.
pub fn write_ip(out: &mut Vec<u8>, own: IpAddr, peer: IpAddr, number: u8, payload: usize) -> usize {
    let repr = IpRepr {
        source: own,
        destination: peer,
        protocol: number,
        traffic_class: 0,
        hop_limit: 64,
        identification: None,
    };
    let mut header = [0; 40];
    let len = repr.write(&mut header, payload);
    out.extend_from_slice(header.get(..len).unwrap_or(&[]));
    len
}

impl Host {
    /// The next packet for [`Core::handle_tun`](crate::Core::handle_tun), put into `out` alone, with its virtio header. A super-packet where a stream has much to send.
    /// `None`: nothing to send for now.
    pub fn poll_packet(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<VnetHeader> {
        self.now = now;
        out.clear();
        if let Some(control) = self.control.pop_front() {
            return Some(write_control(control, out));
        }
        self.datagrams_next = !self.datagrams_next;
        if self.datagrams_next {
            self.datagram_packet(out).or_else(|| self.stream_packet(now, out))
        } else {
            self.stream_packet(now, out).or_else(|| self.datagram_packet(out))
        }
    }

    fn datagram_packet(&mut self, out: &mut Vec<u8>) -> Option<VnetHeader> {
        self.datagrams_out.packet(out)
    }

    fn stream_packet(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<VnetHeader> {
        while let Some(id) = self.ready.pop_front() {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            stream.queued = false;
            let Some(tcp) = stream.tcp_mut() else { continue };
            let resent = tcp.resent();
            let vnet = tcp.next(now, out);
            let (over, resent) = (tcp.state() == State::Closed, tcp.resent() - resent);
            self.resent += resent;
            if over {
                self.end(id, Closed::TimedOut);
                self.told_late = true;
            } else if vnet.is_some() {
                // Others come first; this one may have more.
                self.queue(id);
            } else {
                self.arm(id);
            }
            if vnet.is_some() {
                return vnet;
            }
            out.clear();
        }
        None
    }
}

fn write_control(control: Control, out: &mut Vec<u8>) -> VnetHeader {
    match control {
        Control::Segment(Flow { own, peer }, header) => {
            write_ip(out, own.ip(), peer.ip(), protocol::TCP, 20 + header.options.len());
            header.write((own.port(), peer.port()), out);
        }
        Control::Icmp { own, peer, message } => {
            let number = if own.is_ipv4() { protocol::ICMP } else { protocol::ICMP6 };
            write_ip(out, own, peer, number, message.len());
            out.extend_from_slice(&message);
        }
    }
    VALID
}
