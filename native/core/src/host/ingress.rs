//! Packets from the core: each finds its stream, makes one, or is answered.

use super::api::*;
use super::streams::{Body, Stream};
use super::tcp::Header;
use super::{Control, Flow, Host};
use crate::flows::tcp_flags as flag;
use crate::icmp;
use crate::time::{Duration, Instant};
use crate::wire::{ErrorClass, IpPacket, Transport, VnetHeader, gso, protocol};
use core::net::{IpAddr, SocketAddr};

/// Connections of one caller that may wait to be accepted.
const HELD_OF_ONE: u32 = 128;
/// A shell has so long to accept: longer than callers wait.
const HELD_FOR: Duration = Duration::from_secs(135);
/// Echo requests that may wait for the shell.
const ECHOES: usize = 64;
const ECHO_LONGEST: usize = 2_048;

impl Host {
    /// Takes one packet that the core would write to a TUN. What doesn't hold together is ignored.
    pub fn handle_packet(&mut self, now: Instant, vnet: VnetHeader, packet: &[u8]) {
        self.now = now;
        let Some(ip) = IpPacket::parse(packet) else { return };
        let Some(bytes) = packet.get(ip.transport_at..ip.end) else {
            return;
        };
        match ip.transport {
            Transport::Tcp { .. } => self.handle_tcp(now, &ip, bytes, packet),
            Transport::Udp => self.handle_udp(vnet, &ip, bytes),
            Transport::Icmp => self.handle_icmp(&ip, bytes),
            Transport::Fragment { .. } => {}
        }
    }

    fn handle_tcp(&mut self, now: Instant, ip: &IpPacket, bytes: &[u8], packet: &[u8]) {
        let (Some(flow), Some((header, payload))) = (flow_of(ip, bytes), Header::parse(bytes)) else {
            return;
        };
        if let Some(id) = self.find(&flow) {
            return self.on_segment(now, id, &header, payload.len(), packet);
        }
        match self.waits.on_segment(&flow, &header) {
            Some(Some(word)) => self.control(Control::Segment(flow, word)),
            Some(None) => {}
            None if header.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN => {
                self.on_call(now, flow, &header);
            }
            None => {
                if let Some(reset) = header.reset(payload.len()) {
                    self.control(Control::Segment(flow, reset));
                }
            }
        }
    }

    fn on_segment(&mut self, now: Instant, id: u32, header: &Header, payload: usize, packet: &[u8]) {
        let mut reply = core::mem::take(&mut self.scratch);
        reply.clear();
        if let Some(stream) = self.streams.get_mut(&id) {
            let flow = stream.flow;
            match &mut stream.body {
                Body::Open(tcp) => {
                    tcp.on_packet(now, packet, header, payload, &mut reply);
                    tcp.close();
                    let at = if flow.own.is_ipv4() { 20 } else { 40 };
                    if let Some((answer, payload)) = reply.get(at..).and_then(Header::parse) {
                        let answer = tcp.sent(now, answer, payload.len());
                        self.control(Control::Segment(flow, answer));
                    }
                    let reset = header.has(flag::RST);
                    self.settle(id, if reset { Closed::Reset } else { Closed::Done });
                    self.queue(id);
                }
                // Whoever calls gave up.
                Body::Held(syn) if header.has(flag::RST) && header.seq == syn.seq.wrapping_add(1) => {
                    self.end(id, Closed::Reset);
                }
                _ => {}
            }
        }
        self.scratch = reply;
    }

    /// A SYN of no stream. As in a kernel whose queue is full, what is too much is ignored: whoever means it calls again.
    fn on_call(&mut self, now: Instant, flow: Flow, syn: &Header) {
        let held_of_one = self.callers.get(&flow.peer.ip()).copied().unwrap_or(0);
        let full = self.streams.len() >= self.most_streams
            || self.held >= self.most_streams.div_ceil(2)
            || held_of_one >= HELD_OF_ONE
            || self.events.len() >= self.most_events();
        if full || flow.peer.port() == 0 {
            self.overflown += 1;
            return;
        }
        let id = self.add(Stream::new(flow, Body::Held(*syn), Some(now + HELD_FOR)));
        self.held += 1;
        *self.callers.entry(flow.peer.ip()).or_insert(0) += 1;
        self.events.push_back(HostEvent::Incoming {
            stream: StreamId(id),
            own: flow.own,
            peer: flow.peer,
        });
    }

    fn handle_udp(&mut self, vnet: VnetHeader, ip: &IpPacket, bytes: &[u8]) {
        let (Some(flow), Some((&[.., l0, l1, _, _], payload))) = (flow_of(ip, bytes), bytes.split_first_chunk::<8>())
        else {
            return;
        };
        let many = vnet.gso_type & !gso::ECN == gso::UDP_L4 && vnet.gso_size > 0;
        let (payload, segment) = if many {
            (payload, usize::from(vnet.gso_size))
        } else {
            // Bytes behind the datagram's own length aren't its.
            let length = usize::from(u16::from_be_bytes([l0, l1])).saturating_sub(8);
            let payload = payload.get(..length).unwrap_or(&[]);
            (payload, payload.len().max(1))
        };
        let head = Datagrams {
            own: flow.own,
            peer: flow.peer,
            segment,
        };
        self.overflown += u64::from(!self.datagrams_in.push(head, payload));
    }

    fn handle_icmp(&mut self, ip: &IpPacket, bytes: &[u8]) {
        match icmp::parse(ip.source.is_ipv4(), bytes) {
            Some(icmp::Message::Echo {
                reply: false,
                id,
                sequence,
                data,
            }) => {
                if self.echoes >= ECHOES || data.len() > ECHO_LONGEST {
                    self.overflown += 1;
                    return;
                }
                self.echoes += 1;
                self.events.push_back(HostEvent::Echo(Echo {
                    own: ip.destination,
                    peer: ip.source,
                    id,
                    sequence,
                    data: data.to_vec(),
                }));
            }
            Some(icmp::Message::Error { class, mtu, embedded }) => self.on_error(class, mtu, &embedded),
            _ => {}
        }
    }

    /// An error about a packet of ours.
    fn on_error(&mut self, class: ErrorClass, mtu: u16, about: &icmp::Embedded) {
        let flow = Flow {
            own: SocketAddr::new(about.source, about.source_port),
            peer: SocketAddr::new(about.destination, about.destination_port),
        };
        match about.protocol {
            protocol::TCP => self.on_stream_error(class, mtu, &flow, about.seq),
            protocol::UDP if self.events.len() < self.most_events() => {
                let v4 = flow.own.is_ipv4();
                let reason = match class {
                    ErrorClass::PortUnreachable => Lost::Refused,
                    ErrorClass::TooBig => Lost::TooLong(mtu.saturating_add(if v4 { 0 } else { 20 })),
                    _ => Lost::Unreachable,
                };
                let Flow { own, peer } = flow;
                self.events.push_back(HostEvent::DatagramLost { own, peer, reason });
            }
            _ => {}
        }
    }

    fn on_stream_error(&mut self, class: ErrorClass, mtu: u16, flow: &Flow, seq: u32) {
        let Some(id) = self.find(flow) else { return };
        let tcp = self.streams.get_mut(&id).and_then(|stream| stream.tcp_mut());
        let Some(tcp) = tcp.filter(|tcp| tcp.is_under_way(seq)) else {
            return;
        };
        match class {
            ErrorClass::TooBig => tcp.shorten(usize::from(mtu).saturating_sub(40)),
            // Once it is open, an error may pass (RFC 5461).
            _ if !tcp.is_opening() => {}
            ErrorClass::PortUnreachable | ErrorClass::Denied => self.end(id, Closed::Refused),
            ErrorClass::HostUnreachable | ErrorClass::HopLimit => self.end(id, Closed::Unreachable),
        }
    }
}

/// As we see it: the packet goes to us.
fn flow_of(ip: &IpPacket, bytes: &[u8]) -> Option<Flow> {
    let &[s0, s1, d0, d1] = bytes.first_chunk()?;
    let at = |ip: IpAddr, port: [u8; 2]| SocketAddr::new(ip, u16::from_be_bytes(port));
    Some(Flow {
        own: at(ip.destination, [d0, d1]),
        peer: at(ip.source, [s0, s1]),
    })
}
