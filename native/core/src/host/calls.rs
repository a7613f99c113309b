//! What a shell asks for.

use super::api::*;
use super::egress::write_ip;
use super::streams::{Body, Stream};
use super::tcp::{Header, Means, Tcp};
use super::{Control, Flow, Host};
use crate::time::Instant;
use crate::wire::{checksum, protocol, pseudo_header_sum, sum_bytes};
use core::net::{IpAddr, SocketAddr};

/// Ephemeral ports, Linux's.
const PORTS: core::ops::RangeInclusive<u16> = 32_768..=60_999;

impl Host {
    /// Opens a connection from an address of ours. Its [`HostEvent::Connected`] or [`HostEvent::Closed`] follows; what is written before goes out then.
    pub fn connect(&mut self, now: Instant, own: IpAddr, peer: SocketAddr) -> Result<StreamId, HostError> {
        if own.is_ipv4() != peer.is_ipv4() {
            return Err(HostError::MixedFamilies);
        }
        if self.streams.len() >= self.most_streams {
            return Err(HostError::TooManyStreams);
        }
        let peer = SocketAddr::new(peer.ip(), peer.port());
        let flow = self
            .ports()
            .map(|port| Flow {
                own: SocketAddr::new(own, port),
                peer,
            })
            .find(|flow| !self.flows.contains_key(flow) && !self.waits.has(flow))
            .ok_or(HostError::NoPort)?;
        self.now = now;
        let means = self.means(&flow);
        let tcp = Tcp::connect(now, flow, &means).ok_or(HostError::NoAddress)?;
        let id = self.add(Stream::new(flow, Body::Held(Header::default()), None));
        self.begin(id, tcp, &means);
        Ok(StreamId(id))
    }

    fn begin(&mut self, id: u32, tcp: Tcp, means: &Means) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.body = Body::Open(Box::new(tcp));
            self.incoming.charge(&mut stream.charge.0, means.room.0);
            self.outgoing.charge(&mut stream.charge.1, means.room.1);
            self.queue(id);
        }
    }

    /// Ephemeral ports, each time from another place on.
    fn ports(&mut self) -> impl Iterator<Item = u16> + use<> {
        let span = PORTS.end() - PORTS.start() + 1;
        self.next_port = self.next_port.wrapping_add(1) % span;
        let from = self.next_port;
        (0..span).map(move |step| PORTS.start() + (from + step) % span)
    }

    /// Our end of a stream, and the far end's.
    pub fn ends(&self, stream: StreamId) -> Option<(SocketAddr, SocketAddr)> {
        let flow = self.streams.get(&stream.0)?.flow;
        Some((flow.own, flow.peer))
    }

    /// Answers an [`HostEvent::Incoming`]; `false`: the stream is gone.
    pub fn accept(&mut self, stream: StreamId) -> bool {
        let Some(held) = self.streams.get_mut(&stream.0) else {
            return false;
        };
        let (flow, Body::Held(syn)) = (held.flow, &held.body) else {
            return false;
        };
        let syn = *syn;
        held.until = None;
        let means = self.means(&flow);
        let Some(tcp) = Tcp::accept(self.now, flow, &means, &syn) else {
            self.remove(stream.0);
            return false;
        };
        self.not_held(&flow);
        self.begin(stream.0, tcp, &means);
        true
    }

    /// Answers an [`HostEvent::Incoming`] with a reset: nobody listens.
    pub fn refuse(&mut self, stream: StreamId) {
        self.abort(stream);
    }

    /// Answers an [`HostEvent::Incoming`]: the device can't be reached.
    pub fn unreachable(&mut self, stream: StreamId) {
        if self.streams.get(&stream.0).is_some_and(|stream| stream.is_held())
            && let Some(stream) = self.remove(stream.0)
            && let Body::Held(syn) = stream.body
        {
            self.icmp_error(stream.flow, protocol::TCP, syn.seq, Lost::Unreachable);
        }
    }

    /// Bytes to read that lie in one piece, for [`Host::consume`].
    pub fn readable(&mut self, stream: StreamId) -> &[u8] {
        match self.streams.get_mut(&stream.0).map(|stream| &mut stream.body) {
            Some(Body::Open(tcp)) => tcp.socket_mut().peek(usize::MAX).unwrap_or(&[]),
            Some(Body::Over(rest, read)) => rest.get(*read..).unwrap_or(&[]),
            _ => &[],
        }
    }

    /// Bytes were read; the far end may send as many more.
    pub fn consume(&mut self, stream: StreamId, bytes: usize) {
        let Some(open) = self.streams.get_mut(&stream.0) else {
            return;
        };
        match &mut open.body {
            // No more than what lay in one piece.
            Body::Open(tcp) => drop(tcp.socket_mut().recv(|front| (bytes.min(front.len()), ()))),
            Body::Over(rest, read) => *read = (*read + bytes).min(rest.len()),
            Body::Held(_) => {}
        }
        self.was_read(stream.0, bytes);
    }

    /// Reads into `out` and says how many bytes; 0 when there are none for now, or, after [`HostEvent::Finished`] or [`HostEvent::Closed`], ever.
    pub fn read(&mut self, stream: StreamId, out: &mut [u8]) -> usize {
        let mut read = 0;
        while let Some(rest) = out.get_mut(read..).filter(|rest| !rest.is_empty()) {
            let front = self.readable(stream);
            let bytes = front.len().min(rest.len());
            if bytes == 0 {
                break;
            }
            rest[..bytes].copy_from_slice(&front[..bytes]);
            self.consume(stream, bytes);
            read += bytes;
        }
        read
    }

    /// Whether the far end finished and all of it was read.
    pub fn is_read_out(&self, stream: StreamId) -> bool {
        self.streams.get(&stream.0).is_none_or(|stream| {
            let over = stream.tcp().map_or(!stream.is_held(), Tcp::is_finished);
            over && stream.ready() == 0
        })
    }

    /// Takes bytes to send and says how many: none before [`HostEvent::Connected`]. When that is less than all, [`HostEvent::Writable`] tells when to go on.
    pub fn write(&mut self, stream: StreamId, bytes: &[u8]) -> usize {
        let Some(open) = self.streams.get_mut(&stream.0) else {
            return 0;
        };
        let taken = open.tcp_mut().map_or(0, |tcp| tcp.write(bytes));
        open.wants_room |= taken < bytes.len();
        if taken > 0 {
            self.queue(stream.0);
        }
        taken
    }

    /// How much [`Host::write`] would take, if that is worth a call; at zero, [`HostEvent::Writable`] tells when it is again.
    pub fn room(&mut self, stream: StreamId) -> usize {
        self.streams.get_mut(&stream.0).map_or(0, |stream| {
            let room = stream.room();
            stream.wants_room |= room == 0;
            room
        })
    }

    /// Nothing more will be written: the far end reads to the end. Reading goes on.
    pub fn finish(&mut self, stream: StreamId) {
        if let Some(open) = self.streams.get_mut(&stream.0) {
            open.wants_room = false;
            if let Some(tcp) = open.tcp_mut() {
                tcp.finish();
                self.queue(stream.0);
            }
        }
    }

    /// Resets it. It is gone, and no event tells so.
    pub fn abort(&mut self, stream: StreamId) {
        let Some(gone) = self.remove(stream.0) else { return };
        let mut out = core::mem::take(&mut self.scratch);
        let reset = match gone.body {
            Body::Held(syn) => syn.reset(0),
            Body::Open(mut tcp) => tcp.reset(self.now, &mut out),
            Body::Over(..) => None,
        };
        self.scratch = out;
        if let Some(reset) = reset {
            self.control(Control::Segment(gone.flow, reset));
        }
    }

    /// As a program's close: what was written still goes out, in the background; what wasn't read resets it. It is gone for the shell, and no event tells so.
    pub fn close(&mut self, stream: StreamId) {
        let Some(open) = self.streams.get_mut(&stream.0) else {
            return;
        };
        let unread = open.ready() > 0;
        match open.tcp_mut().filter(|tcp| !unread && !tcp.is_opening()) {
            None => return self.abort(stream),
            Some(tcp) => tcp.finish(),
        }
        open.wants_room = false;
        open.orphan = true;
        self.settle(stream.0, Closed::Done);
        self.queue(stream.0);
    }

    /// Policy no longer has this flow: its stream, if there is one, is over. The far end isn't told; the core lets nothing through to it.
    pub fn cut(&mut self, now: Instant, own: SocketAddr, peer: SocketAddr) {
        if let Some(id) = self.find(&Flow { own, peer }) {
            self.now = now;
            self.end(id, Closed::Reset);
        }
    }

    /// A port of an address of ours for datagrams that the shell begins.
    pub fn open_datagrams(&mut self, own: IpAddr) -> Result<u16, HostError> {
        let port = self
            .ports()
            .find(|port| !self.datagram_ports.contains_key(&SocketAddr::new(own, *port)))
            .ok_or(HostError::NoPort)?;
        self.datagram_ports.insert(SocketAddr::new(own, port), ());
        Ok(port)
    }

    /// Gives it back.
    pub fn close_datagrams(&mut self, own: SocketAddr) {
        self.datagram_ports.remove(&own);
    }

    /// Sends a datagram, from a port of [`Host::open_datagrams`] or from a service's. `false`: lost, for it is too long or too many wait.
    pub fn send_datagram(&mut self, own: SocketAddr, peer: SocketAddr, payload: &[u8]) -> bool {
        let sent = own.is_ipv4() == peer.is_ipv4() && self.datagrams_out.push_one(own, peer, payload);
        self.overflown += u64::from(!sent);
        sent
    }

    /// The oldest datagrams that the shell hasn't seen; `out` then holds them alone. To whom they are, their own port tells: a service's, or one that was opened.
    pub fn poll_datagrams(&mut self, out: &mut Vec<u8>) -> Option<Datagrams> {
        out.clear();
        self.datagrams_in.pop(out)
    }

    /// Tells the far end that its datagrams went no further.
    pub fn lose_datagram(&mut self, own: SocketAddr, peer: SocketAddr, reason: Lost) {
        let length = 8 << 16;
        self.icmp_error(Flow { own, peer }, protocol::UDP, length, reason);
    }

    /// Answers an [`HostEvent::Echo`].
    pub fn reply_echo(&mut self, echo: &Echo) {
        let [i0, i1] = echo.id.to_be_bytes();
        let [s0, s1] = echo.sequence.to_be_bytes();
        let kind = if echo.own.is_ipv4() { 0 } else { 129 };
        let mut message = vec![kind, 0, 0, 0, i0, i1, s0, s1];
        message.extend_from_slice(&echo.data);
        self.icmp(echo.own, echo.peer, message);
    }

    /// An error about a packet that came: it quotes the headers of one, of the transport two ports and the `word` behind them.
    fn icmp_error(&mut self, flow: Flow, number: u8, word: u32, reason: Lost) {
        let v4 = flow.own.is_ipv4();
        let mtu = match reason {
            Lost::TooLong(mtu) => mtu,
            _ => 0,
        };
        let (kind, code) = match (reason, v4) {
            (Lost::Refused, true) => (3, 3),
            (Lost::Refused, false) => (1, 4),
            (Lost::Unreachable, true) => (3, 1),
            (Lost::Unreachable, false) => (1, 3),
            (Lost::TooLong(_), true) => (3, 4),
            (Lost::TooLong(_), false) => (2, 0),
        };
        let [m0, m1] = mtu.to_be_bytes();
        let mut message = vec![kind, code, 0, 0, 0, 0, m0, m1];
        write_ip(&mut message, flow.peer.ip(), flow.own.ip(), number, 8);
        message.extend_from_slice(&flow.peer.port().to_be_bytes());
        message.extend_from_slice(&flow.own.port().to_be_bytes());
        message.extend_from_slice(&word.to_be_bytes());
        self.icmp(flow.own.ip(), flow.peer.ip(), message);
    }

    fn icmp(&mut self, own: IpAddr, peer: IpAddr, mut message: Vec<u8>) {
        let pseudo = if own.is_ipv4() {
            0
        } else {
            pseudo_header_sum(own, peer, protocol::ICMP6, message.len())
        };
        let sum = checksum(sum_bytes(pseudo, &message)).to_be_bytes();
        if let Some(field) = message.get_mut(2..4) {
            field.copy_from_slice(&sum);
        }
        self.control(Control::Icmp { own, peer, message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_takes_the_last_free_port_and_then_there_is_none() {
        let mut host = Host::new(&HostConfig {
            seed: [1; 32],
            mtu: 1_400,
            budget: 1 << 20,
            streams: 8,
        });
        let (own, peer) = (IpAddr::from([198, 18, 0, 1]), SocketAddr::from(([198, 18, 0, 2], 80)));
        for port in PORTS.filter(|port| *port != 50_000) {
            let own = SocketAddr::new(own, port);
            host.flows.insert(Flow { own, peer }, 0);
        }
        let now = Instant::default();
        let stream = host.connect(now, own, peer).unwrap();
        assert_eq!(host.ends(stream), Some((SocketAddr::new(own, 50_000), peer)));
        assert_eq!(host.connect(now, own, peer), Err(HostError::NoPort));
        let other = SocketAddr::new(peer.ip(), 81);
        assert!(
            host.connect(now, own, other).is_ok(),
            "towards another port they are all free"
        );
    }
}
