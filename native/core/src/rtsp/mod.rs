//! RTSP over UDP (design.md, Gateway). A camera sends its media to ports that its viewer named in a SETUP; through a gateway those must be ports of the
//! gateway's, whose datagrams go into the session. Nothing terminates the RTSP connection: its segments are read as they pass.
//!
//! At the gateway both directions are rewritten in place, and no byte of a message passes unread: `client_port` becomes a pair of ports reserved on the
//! LAN and back, and what tells addresses of the LAN is blanked. At the viewer both are only read: once the camera has agreed, datagrams from its
//! ports may come in for the program that asked. Everything opened ends with the TEARDOWN, the connection, the policy or the session.
//!
//! The core has no sockets. It asks for them by [`MediaRequest`]; the shell answers with [`Core::media_reserved`], hands in what they receive with
//! [`Core::handle_media`], and sends what [`RxBatch::media`](crate::RxBatch) says.

mod media;
mod parse;
mod rewrite;
mod stream;
mod talk;
#[cfg(test)]
mod tests;
mod text;

use crate::aead::Aead;
use crate::api::{Service, SessionId};
use crate::buffers::{TunBatch, TxBatch};
use crate::core::Core;
use crate::flows::{FlowIndex, LocalKey, Watch, WireKey, tcp_flags};
use crate::hash::IdMap;
use crate::icmp;
use crate::time::{Duration, Instant};
use crate::wire::*;
use core::net::IpAddr;
use core::ops::RangeInclusive;
use rewrite::{Answers, Asks};
use std::collections::VecDeque;
use stream::{Stream, Taken};
use talk::{Role, Talk};
use text::Lan;

/// RTSP connections at most, in all and of one session.
const WATCHED: usize = 1_024;
const WATCHED_OF_SESSION: u32 = 64;
/// A reservation that the shell doesn't answer for so long is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the shell does about media sockets; in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaRequest {
    /// Bind two sockets on `lan`, to an even port of the range and the one behind it, then call [`Core::media_reserved`].
    Reserve {
        /// The pair's number from now on.
        id: u32,
        /// Our address on the device's LAN.
        lan: IpAddr,
        /// Where the even port lies.
        ports: RangeInclusive<u16>,
    },
    /// Close both.
    Release {
        /// Whose.
        id: u32,
    },
}

/// A TCP segment as the helper sees it.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub payload: &'a [u8],
}

impl<'a> Seen<'a> {
    /// From a header, with or without its checksum: what counts here stands before it.
    pub fn new(header: &[u8], payload: &'a [u8]) -> Option<Self> {
        let h: &[u8; 14] = header.first_chunk()?;
        Some(Self {
            seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
            ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
            flags: h[13],
            payload,
        })
    }

    fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }
}

/// What becomes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Goes on.
    Pass,
    /// The bytes in [`Rtsp::out`] go instead.
    Instead { seq: u32, flags: u8 },
    /// Doesn't.
    Drop,
    /// Neither does anything else of this connection: both ends are told.
    Cut,
}

/// Headers of a segment towards the device, for bytes that leave later.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    /// Without the checksum.
    pub header: [u8; 58],
    pub len: usize,
    pub traffic_class: u8,
    pub hop_limit: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Both directions are read from their first byte on.
    Reading,
    /// Begun before we were there, or not RTSP: passes, but sets nothing up.
    Passing,
    /// Reset.
    Cut,
}

/// Media that the camera agreed to.
struct Open {
    /// At the gateway.
    media: Option<u32>,
    /// The URL that set it up.
    path: Vec<u8>,
    rtp: WireKey,
    rtcp: WireKey,
}

/// One RTSP connection.
struct Watched {
    session: SessionId,
    wire: WireKey,
    local: LocalKey,
    /// At the gateway.
    service: Option<Service>,
    account: Option<u32>,
    mode: Mode,
    /// The client's words and the camera's.
    asks: Stream,
    answers: Stream,
    talk: Talk,
    open: Vec<Open>,
    /// Of the last segment towards the device.
    head: Option<Head>,
    waits_since: Instant,
    /// The last bytes that the client sent before we read it properly.
    tail: Vec<u8>,
}

/// All that the helper knows.
#[derive(Default)]
pub(crate) struct Rtsp {
    watched: Vec<Option<Box<Watched>>>,
    free: Vec<u32>,
    of_session: IdMap<u32, u32>,
    media: IdMap<u32, media::Media>,
    last_media: u32,
    requests: VecDeque<MediaRequest>,
    /// Bytes to send instead of a segment's.
    pub out: Vec<u8>,
}

impl Rtsp {
    fn add(&mut self, watched: Watched) -> Option<u32> {
        let share = self.of_session.entry(watched.session.0).or_insert(0);
        if *share >= WATCHED_OF_SESSION || self.watched.len() - self.free.len() >= WATCHED {
            return None;
        }
        *share += 1;
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.watched.push(None);
                u32::try_from(self.watched.len() - 1).ok()?
            }
        };
        *self.watched.get_mut(index as usize)? = Some(Box::new(watched));
        Some(index)
    }

    fn get_mut(&mut self, index: u32) -> Option<&mut Watched> {
        self.watched.get_mut(index as usize)?.as_deref_mut()
    }

    fn take(&mut self, index: u32) -> Option<Box<Watched>> {
        self.watched.get_mut(index as usize)?.take()
    }

    fn put(&mut self, index: u32, watched: Box<Watched>) {
        if let Some(place) = self.watched.get_mut(index as usize) {
            *place = Some(watched);
        }
    }

    /// Media that are open now.
    pub fn open(&self) -> u64 {
        let open = self.watched.iter().flatten().map(|w| w.open.len() as u64);
        open.sum()
    }
}

impl Watched {
    /// The client's SYN: everything is read from here on.
    fn restart(&mut self, first: u32) {
        let (lan, gateway) = (self.lan(), self.service.is_some());
        self.talk = Talk::new(if gateway { Role::Gateway(lan) } else { Role::Viewer });
        self.asks.begin(first);
        self.answers = Stream::new(gateway);
        self.mode = Mode::Reading;
        self.tail.clear();
    }

    fn lan(&self) -> Lan {
        let addresses = self.service.map(|s| [Some(s.target.ip()), s.rtsp]);
        Lan::new(&addresses.into_iter().flatten().flatten().collect::<Vec<_>>())
    }

    /// Whether the client, whom we don't read properly, sets something up or asks for what names addresses.
    fn begins_anew(&mut self, payload: &[u8]) -> bool {
        const WORDS: [&[u8]; 4] = [b"SETUP rtsp", b"DESCRIBE rtsp", b"PLAY rtsp", b"ANNOUNCE rtsp"];
        const LONGEST: usize = 13;
        self.tail.extend_from_slice(payload);
        let found = WORDS
            .iter()
            .any(|word| self.tail.windows(word.len()).any(|w| w == *word));
        let behind = self.tail.len().saturating_sub(LONGEST);
        self.tail.drain(..behind);
        found
    }
}

impl<A: Aead> Core<A> {
    /// A flow of the far end's to an RTSP service begins, or is met in its middle. False when there are too many.
    pub(crate) fn watch_service(&mut self, now: Instant, index: FlowIndex, service: &Service) -> bool {
        if service.rtsp.is_none() || service.protocol != protocol::TCP {
            return true;
        }
        self.watch(now, index, Some(*service)).is_some()
    }

    /// A local program opens a connection to a port that the session names RTSP.
    pub(crate) fn watch_program(&mut self, now: Instant, index: FlowIndex) {
        let named = self.flows.get(index).is_some_and(|flow| {
            let session = self.sessions.get(&flow.wire.session.0);
            let named = session.is_some_and(|s| s.policy.rtsp_ports.contains(&flow.wire.remote_port));
            named && !flow.inbound && flow.watch == Watch::Nobody
        });
        if named {
            self.watch(now, index, None);
        }
    }

    fn watch(&mut self, now: Instant, index: FlowIndex, service: Option<Service>) -> Option<()> {
        let flow = self.flows.get_mut(index)?;
        let watched = self.rtsp.add(Watched {
            session: flow.wire.session,
            wire: flow.wire,
            local: flow.local,
            service,
            account: flow.account,
            mode: Mode::Passing,
            asks: Stream::new(service.is_some()),
            answers: Stream::new(service.is_some()),
            talk: Talk::new(Role::Viewer),
            open: Vec::new(),
            head: None,
            waits_since: now,
            tail: Vec::new(),
        })?;
        flow.watch = Watch::Rtsp(watched);
        Some(())
    }

    /// Reads a segment of a watched connection: of the client's if `asks`, else of the camera's.
    pub(crate) fn rtsp_segment(&mut self, now: Instant, index: u32, asks: bool, seen: Seen) -> Verdict {
        let Some(mut watched) = self.rtsp.take(index) else {
            return Verdict::Pass;
        };
        let mut out = core::mem::take(&mut self.rtsp.out);
        let verdict = self.judge(now, index, &mut watched, asks, seen, &mut out);
        if seen.has(tcp_flags::FIN | tcp_flags::RST) || verdict == Verdict::Cut {
            self.end_media(&mut watched);
        }
        if verdict == Verdict::Cut {
            watched.mode = Mode::Cut;
        }
        self.rtsp.out = out;
        self.rtsp.put(index, watched);
        verdict
    }

    fn judge(
        &mut self,
        now: Instant,
        index: u32,
        watched: &mut Watched,
        asks: bool,
        seen: Seen,
        out: &mut Vec<u8>,
    ) -> Verdict {
        if seen.has(tcp_flags::SYN) {
            let first = seen.seq.wrapping_add(1);
            let stream = if asks { &watched.asks } else { &watched.answers };
            let known = stream.first() == Some(first) && watched.mode == Mode::Reading;
            if asks && !known {
                self.end_media(watched);
                watched.restart(first);
            } else if !asks && !known && watched.mode == Mode::Reading {
                watched.answers.begin(first);
            }
            // Bytes in a SYN come again behind it.
            out.clear();
            return if seen.payload.is_empty() {
                Verdict::Pass
            } else {
                Verdict::Instead {
                    seq: seen.seq,
                    flags: seen.flags & !(tcp_flags::FIN | tcp_flags::PSH),
                }
            };
        }
        let gateway = watched.service.is_some();
        if seen.has(tcp_flags::ACK) {
            let other = if asks { &mut watched.answers } else { &mut watched.asks };
            other.acknowledged(seen.ack);
        }
        match watched.mode {
            Mode::Cut => return Verdict::Drop,
            _ if seen.has(tcp_flags::RST) => return Verdict::Pass,
            Mode::Passing if !gateway => return Verdict::Pass,
            Mode::Passing => {
                if asks && watched.begins_anew(seen.payload) {
                    return Verdict::Cut;
                }
                let stream = if asks { &watched.asks } else { &watched.answers };
                return if stream.again(seen.seq, seen.payload, out) {
                    Verdict::Instead {
                        seq: seen.seq,
                        flags: seen.flags,
                    }
                } else {
                    Verdict::Pass
                };
            }
            Mode::Reading => {}
        }
        let stream = if asks { &watched.asks } else { &watched.answers };
        if stream.first().is_none() {
            // Bytes of a side whose SYN we haven't seen: it comes again if the other side hasn't seen it either.
            return match (seen.payload.is_empty(), gateway) {
                (true, _) => Verdict::Pass,
                (false, true) => Verdict::Drop,
                (false, false) => {
                    watched.mode = Mode::Passing;
                    Verdict::Pass
                }
            };
        }
        let taken = self.read(now, watched, asks, seen, out);
        let carried_out = self.act(now, index, watched);
        match taken {
            Taken::Pass if carried_out => Verdict::Pass,
            Taken::Send { seq, fin, whole } if carried_out => {
                let mut flags = seen.flags & !(tcp_flags::FIN | tcp_flags::PSH);
                if whole {
                    flags |= seen.flags & tcp_flags::PSH;
                }
                if fin {
                    flags |= tcp_flags::FIN;
                }
                Verdict::Instead { seq, flags }
            }
            Taken::Drop if carried_out => Verdict::Drop,
            _ if !gateway => {
                watched.mode = Mode::Passing;
                Verdict::Pass
            }
            // Media over this connection alone need none of us.
            _ if watched.talk.interleaved && !watched.talk.datagrams && watched.talk.unanswered().next().is_none() => {
                watched.mode = Mode::Passing;
                let stream = if asks { &mut watched.asks } else { &mut watched.answers };
                match stream.surrender(out) {
                    Taken::Send { seq, .. } => Verdict::Instead { seq, flags: seen.flags },
                    _ => Verdict::Pass,
                }
            }
            _ => Verdict::Cut,
        }
    }

    fn read(&mut self, now: Instant, watched: &mut Watched, asks: bool, seen: Seen, out: &mut Vec<u8>) -> Taken {
        let fin = seen.has(tcp_flags::FIN);
        if asks {
            watched.talk.last_media = self.rtsp.last_media;
            watched.talk.room = self.has_room(watched);
        }
        let taken = if !asks {
            let mut reader = Answers(&mut watched.talk);
            watched.answers.take(seen.seq, seen.payload, fin, &mut reader, out)
        } else {
            let waited = watched.asks.waits();
            if waited && now.since(watched.waits_since) > PATIENCE {
                let refused: Vec<_> = watched.talk.unanswered().collect();
                for media in refused {
                    watched.talk.reserved(media, None);
                }
                watched.asks.resume(&mut Asks(&mut watched.talk), out)
            } else {
                let mut reader = Asks(&mut watched.talk);
                let taken = watched.asks.take(seen.seq, seen.payload, fin, &mut reader, out);
                if watched.asks.waits() && !waited {
                    watched.waits_since = now;
                }
                taken
            }
        };
        if asks {
            self.rtsp.last_media = watched.talk.last_media;
        }
        taken
    }

    /// Keeps the headers of a segment towards the device.
    pub(crate) fn rtsp_head(&mut self, index: u32, head: Head) {
        if let Some(watched) = self.rtsp.get_mut(index) {
            watched.head = Some(head);
        }
    }

    /// Resets a connection at both ends.
    pub(crate) fn rtsp_cut(&mut self, now: Instant, index: u32, flow: FlowIndex, tx: &mut TxBatch, tun: &mut TunBatch) {
        let behind = self.rtsp.get_mut(index).and_then(|w| w.answers.done());
        let Some(flow) = self.flows.get_mut(flow) else { return };
        flow.closed = true;
        icmp::reset(tun, flow);
        let mut reset = [0u8; INNER_HEADER + 18];
        let inner = InnerHeader {
            kind: Kind::Tcp,
            traffic_class: 0,
            hop_limit: 64,
        };
        reset[..4].copy_from_slice(&inner.bytes());
        reset[4..6].copy_from_slice(&flow.wire.wire_port.to_be_bytes());
        reset[6..8].copy_from_slice(&flow.wire.remote_port.to_be_bytes());
        reset[8..12].copy_from_slice(&behind.unwrap_or(flow.next_seq).to_be_bytes());
        reset[12..16].copy_from_slice(&flow.acked.to_be_bytes());
        reset[16] = 5 << 4;
        reset[17] = tcp_flags::RST | tcp_flags::ACK;
        let session = flow.wire.session;
        if let Ok(path) = self.path_of(session) {
            self.seal_one(now, path, &[&reset], tx);
        }
    }

    /// Forgets connections whose flows are gone, with their media.
    pub(crate) fn rtsp_forget(&mut self) {
        while let Some(index) = self.flows.unwatched.pop() {
            let Some(mut watched) = self.rtsp.take(index) else {
                continue;
            };
            self.end_media(&mut watched);
            self.rtsp.free.push(index);
            if let Some(share) = self.rtsp.of_session.get_mut(&watched.session.0) {
                *share -= 1;
                if *share == 0 {
                    self.rtsp.of_session.remove(&watched.session.0);
                }
            }
        }
    }

    /// A session has a new policy: what was opened for programs closes where the far end's port isn't named RTSP any more; what goes on is
    /// accounted anew.
    pub(crate) fn rtsp_policy(&mut self, session: SessionId, ports: &[u16]) {
        for index in 0..self.rtsp.watched.len() {
            let index = index as u32;
            if self.rtsp.get_mut(index).is_none_or(|w| w.session != session) {
                continue;
            }
            let Some(mut watched) = self.rtsp.take(index) else {
                continue;
            };
            if watched.service.is_none() && !ports.contains(&watched.wire.remote_port) {
                self.end_media(&mut watched);
                watched.mode = Mode::Passing;
            }
            let flow = self.flows.by_wire(&watched.wire).and_then(|at| self.flows.get(at));
            watched.account = flow.and_then(|flow| flow.account);
            self.account_media(&watched);
            self.rtsp.put(index, watched);
        }
    }
}
