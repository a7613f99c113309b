//! RTSP over UDP (design.md, Gateway). A camera sends its media to ports that its viewer named in a SETUP; through a gateway those must be ports of the
//! gateway's, whose datagrams go into the session. Nothing terminates the RTSP connection: its segments are read as they pass.
//!
//! At the gateway both directions are rewritten in place, and no byte of a message passes unread: `client_port` becomes a pair of ports reserved on the
//! LAN and back, and what tells addresses of the LAN is blanked. At the viewer both are only read: once the camera has agreed, datagrams from its
//! ports may come in for the program that asked. Everything opened ends with the TEARDOWN, the connection, the policy or the session.
//!
//! The client is nobody's friend. What must not pass unread resets the connection at both ends; bytes that it sends again count as they were read
//! first, in the order of their numbers; what it claims to have got costs it those bytes. A connection that is met in its middle (we started anew, or
//! were told that it had ended) sets nothing up and asks for no description, and addresses are blanked in whatever the camera says on it.
//!
//! The core has no sockets. It asks for them by [`MediaRequest`]; the shell answers with [`Core::media_reserved`], hands in what they receive with
//! [`Core::handle_media`], and sends what [`RxBatch::media`](crate::RxBatch) says.

mod carry;
mod judge;
mod lan;
mod media;
mod parse;
mod rewrite;
mod stream;
mod talk;
#[cfg(test)]
mod tests;
mod text;
mod transport;

use crate::aead::Aead;
use crate::api::{Service, SessionId};
use crate::core::Core;
use crate::flows::{FlowIndex, LocalKey, Watch, WireKey};
use crate::hash::IdMap;
use crate::time::{Duration, Instant};
use crate::wire::*;
pub(crate) use carry::Head;
use core::net::IpAddr;
use core::ops::RangeInclusive;
pub(crate) use judge::{Seen, Verdict};
use lan::Lan;
use std::collections::VecDeque;
use stream::{Care, Stream};
use talk::{Role, Talk};

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Both directions are read from their first byte on.
    Reading,
    /// Begun before we were there, or not RTSP. At a viewer it passes; at the gateway it sets nothing up and tells no address.
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
        self.talk = Talk::new(self.role());
        let (asks, answers) = self.cares();
        (self.asks, self.answers) = (Stream::new(asks), Stream::new(answers));
        self.asks.begin(first);
        self.mode = Mode::Reading;
    }

    fn role(&self) -> Role {
        match self.service {
            Some(_) => Role::Gateway(self.lan()),
            None => Role::Viewer,
        }
    }

    /// What is done with the client's words, and with the camera's.
    fn cares(&self) -> (Care, Care) {
        match self.service {
            Some(_) => (Care::Guard, Care::Rewrite),
            None => (Care::Read, Care::Read),
        }
    }

    fn lan(&self) -> Lan {
        let addresses = self.service.map(|s| [Some(s.target.ip()), s.rtsp]);
        Lan::new(&addresses.into_iter().flatten().flatten().collect::<Vec<_>>())
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
        let mut watched = Watched {
            session: flow.wire.session,
            wire: flow.wire,
            local: flow.local,
            service,
            account: flow.account,
            mode: Mode::Passing,
            asks: Stream::new(Care::Read),
            answers: Stream::new(Care::Read),
            talk: Talk::new(Role::Viewer),
            open: Vec::new(),
            head: None,
            waits_since: now,
        };
        watched.talk = Talk::new(watched.role());
        let (asks, answers) = watched.cares();
        (watched.asks, watched.answers) = (Stream::new(asks), Stream::new(answers));
        let watched = self.rtsp.add(watched)?;
        flow.watch = Watch::Rtsp(watched);
        Some(())
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
