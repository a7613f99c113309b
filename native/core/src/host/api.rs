//! What goes into a [`Host`](super::Host) and comes out of it, besides packets.

use core::fmt;
use core::net::SocketAddr;

/// What a [`Host`](super::Host) must know to begin.
#[derive(Clone)]
pub struct HostConfig {
    /// 32 secret random bytes: all the randomness that it ever gets.
    pub seed: [u8; 32],
    /// Longest packet that we ask far ends to send, bytes with the IP header. Longer ones are taken too.
    pub mtu: u16,
    /// Bytes of all streams' buffers together. Half is for what comes in, half for what goes out; half of each is kept for all the `streams` that may
    /// come (8 KiB at least, so there may be fewer), and the rest goes to those who come first.
    pub budget: usize,
    /// Streams at most, those that nobody accepted yet included.
    pub streams: u32,
}

/// One TCP connection. Never used again for another (until 2³² were).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Both sides finished, and all was acknowledged.
    Done,
    /// The far end reset it, gave up opening it, or it was cut.
    Reset,
    /// Nobody listens there, or policy has no such service.
    Refused,
    /// No answer for too long.
    TimedOut,
    /// The far end, or its device, can't be reached.
    Unreachable,
}

/// What happened. Each of `Readable` and `Writable` comes once, and again only after [`Host::read`](super::Host::read) left nothing
/// ([`Host::write`](super::Host::write) took less than all): as with edge-triggered epoll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// The far end wants to open a connection that policy allows. It is held until [`Host::accept`](super::Host::accept),
    /// [`Host::refuse`](super::Host::refuse) or [`Host::unreachable`](super::Host::unreachable); a SYN repeated meanwhile makes no second one.
    Incoming {
        /// The new stream.
        stream: StreamId,
        /// Our address and port: the service.
        own: SocketAddr,
        /// Who calls.
        peer: SocketAddr,
    },
    /// The connection is open, whoever began it.
    Connected(StreamId),
    /// There is something to read.
    Readable(StreamId),
    /// There is room to write again.
    Writable(StreamId),
    /// The far end will send no more: what is there may still be read, and we may go on writing.
    Finished(StreamId),
    /// It is over, and only that which came before can still be read. The stream is gone with its last byte: at once if there is none.
    Closed {
        /// Which.
        stream: StreamId,
        /// Why.
        reason: Closed,
    },
    /// A datagram that we sent went no further.
    DatagramLost {
        /// Our address and port.
        own: SocketAddr,
        /// Where it was sent.
        peer: SocketAddr,
        /// Why.
        reason: Lost,
    },
    /// An echo request to an address of ours that policy lets through.
    Echo(Echo),
}

/// Why a datagram went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Nobody listens on that port.
    Refused,
    /// The far end, or its device, can't be reached, or policy has no such service.
    Unreachable,
    /// Longer than the path takes; so many bytes fit, IP header included.
    TooLong(u16),
}

/// An echo request, or the reply to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Our address.
    pub own: core::net::IpAddr,
    /// Theirs.
    pub peer: core::net::IpAddr,
    /// Tells the askers of one host apart.
    pub id: u16,
    /// Counts requests.
    pub sequence: u16,
    /// Comes back as it went.
    pub data: Vec<u8>,
}

/// Datagrams of one flow that came together. All but the last have `segment` bytes; an empty one comes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagrams {
    /// Our address and port.
    pub own: SocketAddr,
    /// Who sent them.
    pub peer: SocketAddr,
    /// Bytes of each but the last, which may be shorter; at least 1.
    pub segment: usize,
}

/// A moment's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostStats {
    /// Streams that a shell knows: held, opening, open, or with something left to read.
    pub streams: usize,
    /// Of these, held until they are accepted.
    pub held: usize,
    /// Bytes that wait in streams' buffers.
    pub buffered: usize,
    /// Bytes of streams' buffers, used or not. Never above the budget.
    pub committed: usize,
    /// Connections that were over a moment ago.
    pub waiting: usize,
    /// Connections, datagrams and echoes dropped because too many waited.
    pub overflown: u64,
    /// Segments sent again.
    pub resent: u64,
}

/// Why something can't be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostError {
    /// As many streams as the configuration allows.
    TooManyStreams,
    /// All ephemeral ports towards that peer are taken.
    NoPort,
    /// One address is IPv4, the other IPv6.
    MixedFamilies,
    /// No host has that address, or no program that port.
    NoAddress,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyStreams => "too many connections: close some, or allow more",
            Self::NoPort => "all ports towards that address are in use: close some connections to it",
            Self::MixedFamilies => "an IPv4 address can't reach an IPv6 one: take addresses of one family",
            Self::NoAddress => "port 0, or an address of no host, can't be called: take another",
        })
    }
}

impl core::error::Error for HostError {}
