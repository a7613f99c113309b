//! One connection: smoltcp's socket with an interface of its own, so that a packet costs the same however many there are.
//!
//! What goes in and out is larger than what smoltcp knows: it is told that the far end takes several segments as one, sends super-packets therefore,
//! and these say in their virtio headers how they are to be cut.

mod cubic;
mod feed;
mod line;
mod patience;
mod ranges;
mod segment;
mod sent;

pub use segment::Header;

use super::Flow;
use crate::flows::tcp_flags as flag;
use crate::time::{Duration as Span, Instant};
use crate::wire::{VnetHeader, gso, vnet_flags};
use core::net::SocketAddr;
use line::Line;
use patience::Patience;
use sent::Sent;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant as Then};
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint, IpListenEndpoint};

/// How long the far end may be silent while a connection opens (six SYNs, as Linux), and once it is open and something is sent again and again
/// (tcp_retries2); and how long before an idle one is asked whether it still lives.
const OPENING: Duration = Duration::from_secs(130);
const SILENT: Span = Span::from_secs(15 * 60);
const IDLE: Duration = Duration::from_secs(75);
/// Segments that smoltcp takes for one: what it sends, or sends again, at once.
const TOGETHER: usize = 44;

pub struct Tcp {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    flow: Flow,
    /// Longest payload that we want in one packet, and that the far end takes.
    longest: usize,
    segment: usize,
    sent: Sent,
    patience: Patience,
    /// When the far end last said anything.
    heard: Instant,
    /// The next byte that the far end will send.
    expects: u32,
    /// Reused: a packet without payload.
    small: Vec<u8>,
    /// What was sent last: without payload or SYN it says again how far we are.
    word: Option<Header>,
    opened: bool,
    /// The far end knows of no other window than a SYN's.
    only_syn: bool,
    /// FIN is to follow once it is open.
    finishing: bool,
    resent: u64,
}

/// What smoltcp is made of, besides addresses.
pub struct Means {
    /// Bytes for what comes in and for what goes out.
    pub room: (usize, usize),
    /// Longest payload of a packet.
    pub longest: usize,
    /// Where the first sequence number comes from.
    pub seed: u64,
}

impl Tcp {
    fn new(now: Instant, flow: Flow, means: &Means) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = means.seed;
        let mut none = Vec::new();
        let mut line = Line {
            incoming: None,
            out: &mut none,
        };
        let mut interface = Interface::new(config, &mut line, then(now));
        let prefix = if flow.own.is_ipv4() { 32 } else { 128 };
        interface.update_ip_addrs(|own| {
            // There is room for one.
            let _ = own.push(IpCidr::new(flow.own.ip().into(), prefix));
        });
        let buffer = |bytes: usize| SocketBuffer::new(vec![0; bytes]);
        let mut socket = Socket::new(buffer(means.room.0), buffer(means.room.1));
        socket.set_congestion_control(CongestionControl::None);
        socket.set_nagle_enabled(false);
        // Packets come in batches, and one acknowledgement goes out for each.
        socket.set_ack_delay(None);
        socket.set_timeout(Some(OPENING));
        socket.set_keep_alive(Some(IDLE));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Self {
            interface,
            sockets,
            handle,
            flow,
            longest: means.longest,
            segment: means.longest,
            sent: Sent::new(means.longest),
            patience: Patience::default(),
            heard: now,
            expects: 0,
            small: Vec::new(),
            word: None,
            opened: false,
            only_syn: true,
            finishing: false,
            resent: 0,
        }
    }

    /// Calls. `None`: no such address can be called.
    pub fn connect(now: Instant, flow: Flow, means: &Means) -> Option<Self> {
        let mut tcp = Self::new(now, flow, means);
        let (own, peer) = (endpoint(flow.own), endpoint(flow.peer));
        let socket = tcp.sockets.get_mut::<Socket>(tcp.handle);
        socket.connect(tcp.interface.context(), peer, own).ok()?;
        Some(tcp)
    }

    /// Answers the SYN that was held.
    pub fn accept(now: Instant, flow: Flow, means: &Means, syn: &Header) -> Option<Self> {
        let mut tcp = Self::new(now, flow, means);
        let own = endpoint(flow.own);
        tcp.socket_mut().listen(IpListenEndpoint::from(own)).ok()?;
        tcp.on_syn(now, syn, &mut Vec::new());
        (tcp.state() == State::SynReceived).then_some(tcp)
    }

    pub fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    pub fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    pub fn state(&self) -> State {
        self.socket().state()
    }

    /// Neither end's SYN has been acknowledged.
    pub fn is_opening(&self) -> bool {
        !self.opened
    }

    /// Whether it has just opened.
    pub fn opens(&mut self) -> bool {
        let opening = matches!(
            self.state(),
            State::SynSent | State::SynReceived | State::Listen | State::Closed
        );
        if self.opened || opening {
            return false;
        }
        self.opened = true;
        // From here on we see ourselves how long it is silent: smoltcp also hears us.
        self.socket_mut().set_timeout(None);
        self.close();
        true
    }

    /// The far end has sent its FIN, and nothing is missing before it.
    pub fn is_finished(&self) -> bool {
        matches!(
            self.state(),
            State::CloseWait | State::Closing | State::LastAck | State::TimeWait
        )
    }

    /// Nothing of ours is left to send or to send again.
    pub fn is_sent_out(&self) -> bool {
        matches!(self.state(), State::FinWait2 | State::TimeWait | State::Closed)
    }

    /// Bytes to read.
    pub fn ready(&self) -> usize {
        self.socket().recv_queue()
    }

    /// How much may be written.
    pub fn room(&self) -> usize {
        let socket = self.socket();
        if socket.may_send() && !self.finishing {
            socket.send_capacity() - socket.send_queue()
        } else {
            0
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> usize {
        if self.finishing {
            return 0;
        }
        self.socket_mut().send_slice(bytes).unwrap_or(0)
    }

    pub fn finish(&mut self) {
        self.finishing = true;
        self.close();
    }

    /// Has smoltcp send the FIN that is to follow. Not before all was acknowledged where the far end has sent its own: in LAST-ACK smoltcp heeds
    /// neither windows nor repeats.
    pub fn close(&mut self) {
        let waits = self.state() == State::CloseWait && self.socket().send_queue() > 0;
        if self.finishing && self.opened && !waits {
            self.socket_mut().close();
        }
    }

    /// Segments that went again.
    pub fn resent(&self) -> u64 {
        self.resent
    }

    /// Whether a packet that began with `seq` may be under way.
    pub fn is_under_way(&self, seq: u32) -> bool {
        self.sent.is_under_way(seq)
    }

    /// The path takes no longer packets than these.
    pub fn shorten(&mut self, payload: usize) {
        self.segment = self.segment.min(payload.max(MIN_SEGMENT));
    }

    /// Has smoltcp write its next packet, if it has one.
    fn emit(&mut self, now: Instant, out: &mut Vec<u8>) {
        let mut line = Line { incoming: None, out };
        self.interface.poll_egress(then(now), &mut line, &mut self.sockets);
    }

    fn repair(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Header> {
        let range = self.sent.again().filter(|_| self.opened && self.socket().is_active())?;
        self.repeat(now, range, out)
    }

    /// Puts the next packet into `out`, which is empty.
    pub fn next(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<VnetHeader> {
        let ip = if self.flow.own.is_ipv4() { 20 } else { 40 };
        self.repair(now, out);
        while out.is_empty() {
            self.emit(now, out);
            let Some((header, payload)) = out.get(ip..).and_then(Header::parse) else {
                // It has acknowledged all that came, so it takes for new what we show it.
                if !self.opened {
                    return None;
                }
                if now.since(self.heard) >= SILENT {
                    self.socket_mut().abort();
                    self.emit(now, out);
                    return (!out.is_empty()).then_some(VALID);
                }
                if !self.patience.is_over(now) {
                    return None;
                }
                self.sent.on_silence();
                self.repair(now, out)?;
                break;
            };
            if self.opened && self.sent.is_unasked(header.seq, payload.len()) {
                self.sent.on_given(header.end(payload.len()));
                out.clear();
            }
        }
        let (header, payload) = Header::parse(out.get(ip..)?)?;
        let payload = payload.len();
        let header = self.sent(now, header, payload);
        out.get_mut(ip + 4..ip + 8)?.copy_from_slice(&header.seq.to_be_bytes());
        if header.has(flag::SYN) {
            let longest = self.longest as u16;
            Header::set_mss(out.get_mut(ip..)?, longest);
        }
        let mut vnet = VALID;
        if payload > self.segment {
            vnet.gso_type = if self.flow.own.is_ipv4() {
                gso::TCPV4
            } else {
                gso::TCPV6
            };
            vnet.gso_size = self.segment as u16;
            vnet.header_len = (ip + 20 + header.options.len()) as u16;
        }
        Some(vnet)
    }

    /// Notes what goes out, answers too, and says it as it must be: where smoltcp sends everything again, it takes back how far it was, and both
    /// ends would find each other's acknowledgements too old.
    pub fn sent(&mut self, now: Instant, mut header: Header, payload: usize) -> Header {
        if header.end(0) == header.seq && payload == 0 {
            header.seq = self.sent.next().unwrap_or(header.seq);
        }
        let end = header.end(payload);
        let control = header.flags & (flag::SYN | flag::FIN) != 0;
        let again = self.sent.on_sent(header.seq, end, control);
        self.resent += u64::from(again);
        // A lone byte may be a probe, of which smoltcp remembers nothing.
        self.only_syn = header.has(flag::SYN) || self.only_syn && payload == 1;
        if end != header.seq {
            self.patience.on_sent(now, end, again);
        }
        self.word = Some(Header {
            seq: self.sent.next().unwrap_or(end),
            ack: header.ack,
            flags: flag::ACK,
            window: header.window,
            ..Header::default()
        });
        header
    }

    /// What stragglers are answered with when it is over. After this nothing else is sent.
    pub fn last_word(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Header> {
        out.clear();
        self.next(now, out);
        self.word
    }

    /// Resets it; the packet is put into `out`. `None`: the far end knows nothing of it yet.
    pub fn reset(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Header> {
        let opening = self.state() == State::SynSent;
        self.socket_mut().abort();
        out.clear();
        self.next(now, out)?;
        let ip = if self.flow.own.is_ipv4() { 20 } else { 40 };
        let (header, _) = Header::parse(out.get(ip..)?)?;
        (!opening && header.has(flag::RST)).then_some(header)
    }

    /// When it wants to be asked for a packet next.
    pub fn due(&mut self, now: Instant) -> Option<Instant> {
        let due = self.interface.poll_at(then(now), &self.sockets);
        let due = due.map(|due| Instant::from_micros(due.total_micros().try_into().unwrap_or(0)));
        [due, self.patience.due().filter(|_| self.opened)]
            .into_iter()
            .flatten()
            .min()
    }
}

/// As Linux's TCP_MIN_SND_MSS: less isn't worth a header.
const MIN_SEGMENT: usize = 48;

/// What needs no checksum: the core takes them away, and seals what is left.
pub const VALID: VnetHeader = VnetHeader {
    flags: vnet_flags::DATA_VALID,
    gso_type: gso::NONE,
    header_len: 0,
    gso_size: 0,
    csum_start: 0,
    csum_offset: 0,
};

fn then(now: Instant) -> Then {
    Then::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

fn endpoint(address: SocketAddr) -> IpEndpoint {
    IpEndpoint::new(address.ip().into(), address.port())
}
