//! What is counted. `u64` throughout: a full 100 Gbit/s would take forty years to wrap one.

use crate::api::{LinkId, SessionId};

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident => $name:literal),+ $(,)?) => {
        /// Why a packet was dropped. The names are stable: `status --json` and tests use them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum DropReason { $($(#[$doc])* $variant),+ }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &[DropReason] = &[$(DropReason::$variant),+];

            /// Stable name.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name),+ }
            }
        }
    };
}

drop_reasons! {
    /// Neither a known type of the right length nor a label.
    Malformed => "malformed",
    /// A handshake message to a node that doesn't listen.
    NotListening => "notListening",
    /// A handshake message whose mac1 is wrong.
    BadMac1 => "badMac1",
    /// Under load: answered with a cookie instead.
    CookieWanted => "cookieWanted",
    /// A source sent more handshakes than its share.
    RateLimited => "rateLimited",
    /// No link has that index.
    UnknownIndex => "unknownIndex",
    /// No entry has that label.
    UnknownLabel => "unknownLabel",
    /// The hop tag doesn't verify.
    BadHopTag => "badHopTag",
    /// Counter seen before, or behind the window.
    Replayed => "replayed",
    /// The AEAD tag doesn't verify.
    BadTag => "badTag",
    /// No key in that slot, or keys past their time.
    NoKey => "noKey",
    /// The seal held something that isn't an inner packet.
    BadInner => "badInner",
    /// A service that policy doesn't list for this session.
    PortNotAllowed => "portNotAllowed",
    /// A reply to nothing that we asked.
    NotAFlow => "notAFlow",
    /// Echo without any allowed service.
    EchoNotAllowed => "echoNotAllowed",
    /// A local program may not open flows on this session.
    OutboundNotAllowed => "outboundNotAllowed",
    /// Nobody has that pool address, or its session isn't up.
    NoSession => "noSession",
    /// The session has no confirmed path.
    NoPath => "noPath",
    /// From the TUN: not an IP packet that we carry.
    NotCarried => "notCarried",
    /// A checksum that was wrong before we took it away.
    BadChecksum => "badChecksum",
    /// Hop limit used up.
    HopLimit => "hopLimit",
    /// Too long even for four parts.
    TooLong => "tooLong",
    /// Longer than the first link on its way takes.
    TooLongForLink => "tooLongForLink",
    /// Fragments or parts that never became whole, or too many of them.
    Unassembled => "unassembled",
    /// The flow table is full.
    TooManyFlows => "tooManyFlows",
    /// No room in the buffer that the shell lent.
    NoRoom => "noRoom",
    /// All counters of the keys are used.
    CounterExhausted => "counterExhausted",
    /// A command that named something that is gone.
    StaleCommand => "staleCommand",
    /// The queue of events is full.
    EventOverflow => "eventOverflow",
    /// RTSP that could not be rewritten.
    Rtsp => "rtsp",
    /// Its way out is slower than what came, and its sender had most waiting there.
    QueueFull => "queueFull",
}

/// Counters of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Traffic {
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_packets: u64,
    pub tx_packets: u64,
}

/// A link's line in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LinkStats {
    pub link: LinkId,
    pub traffic: Traffic,
    pub idle_ms: u64,
}

/// A session's line in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SessionStats {
    pub session: SessionId,
    pub traffic: Traffic,
    pub flows: u32,
    pub idle_ms: Option<u64>,
    pub sent_ms: Option<u64>,
    /// Longest IP packet that passes, as its first link sees it; `None` before anything longer than every link carries was sent.
    pub path_mtu: Option<u16>,
}

/// Bytes of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ServiceStats {
    pub account: u32,
    pub payload_bytes: u64,
    pub overhead_bytes: u64,
}

/// Bytes sent and received by what they were for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Ledger {
    pub payload: u64,
    pub overhead: u64,
    pub control: u64,
    pub keep_alive: u64,
}

/// How full trains are: so many calls of the AEAD had 1, 2–3, 4–7, 8–15, 16–31, 32–63, and 64 or more packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fullness(pub [u64; 7]);

impl Fullness {
    /// Counts a call with so many packets.
    pub fn note(&mut self, packets: usize) {
        let place = packets.checked_ilog2().map_or(0, |log| log.min(6) as usize);
        if let Some(count) = self.0.get_mut(place) {
            *count += 1;
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let mut sum = self;
        for (sum, count) in sum.0.iter_mut().zip(other.0) {
            *sum += count;
        }
        sum
    }
}

/// All counters at one moment.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Stats {
    pub links: Vec<LinkStats>,
    pub sessions: Vec<SessionStats>,
    pub services: Vec<ServiceStats>,
    pub relay_packets: u64,
    pub relay_bytes: u64,
    pub relay_labels: u64,
    /// Streams set up by RTSP whose datagrams may pass, at a gateway and at a viewer.
    pub media: u64,
    pub ledger: Ledger,
    /// Trains sealed and opened. They are counted in the batches, and the shell adds them ([`TxBatch::sealed`](crate::TxBatch::sealed),
    /// [`RxBatch::opened`](crate::RxBatch::opened)).
    pub sealed: Fullness,
    pub opened: Fullness,
    pub drops: Vec<(&'static str, u64)>,
}

/// Drop counters.
#[derive(Clone)]
pub(crate) struct Drops(Vec<u64>);

impl Default for Drops {
    fn default() -> Self {
        Self(vec![0; DropReason::ALL.len()])
    }
}

impl Drops {
    pub(crate) fn count(&mut self, reason: DropReason) {
        self.add(reason, 1);
    }

    pub(crate) fn add(&mut self, reason: DropReason, packets: u64) {
        if let Some(counter) = self.0.get_mut(reason as usize) {
            *counter += packets;
        }
    }

    pub(crate) fn get(&self, reason: DropReason) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }
}
