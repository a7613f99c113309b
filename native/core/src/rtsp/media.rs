//! Media of RTSP connections: sockets on the LAN, and who may use which ports.

use super::lan::Lan;
use super::rewrite::Asks;
use super::stream::Taken;
use super::talk::{self, Action, Reservation};
use super::{MediaRequest, Mode, Open, Watched};
use crate::aead::Aead;
use crate::api::SessionId;
use crate::buffers::{RxBatch, Share, TxBatch};
use crate::core::Core;
use crate::flows::{LocalKey, Watch, WireKey, tcp_flags};
use crate::stats::DropReason;
use crate::time::{Duration, Instant};
use crate::wire::*;
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;

/// Socket pairs at most, in all and of one session.
const MEDIA: usize = 1_024;
const MEDIA_OF_SESSION: usize = 64;
/// Neither words nor media for so long, and the media end. A camera gives up sooner.
const IDLE: Duration = Duration::from_secs(180);
/// A camera that doesn't answer a SETUP for so long isn't going to.
const UNANSWERED: Duration = Duration::from_secs(60);
/// Where our ports lie: those that players use themselves, and those below the host's own dynamic ones.
const FOUR_DIGITS: RangeInclusive<u16> = 6_970..=9_998;
const FIVE_DIGITS: RangeInclusive<u16> = 16_384..=32_766;

/// One pair of sockets at the gateway.
pub struct Media {
    /// Its connection's number.
    watched: u32,
    session: SessionId,
    account: Option<u32>,
    camera: IpAddr,
    /// Addresses that RTCP must not tell.
    lan: Lan,
    /// Ports for RTP and RTCP at the viewer, and at the camera once it has agreed.
    client: (u16, u16),
    server: Option<(u16, u16)>,
    since: Instant,
    last: Instant,
}

impl<A: Aead> Core<A> {
    /// What the shell is to do about media sockets next; asked after every batch, command and timeout.
    pub fn poll_media(&mut self) -> Option<MediaRequest> {
        self.rtsp.requests.pop_front()
    }

    /// Whether [`Core::poll_media`] has something; for shells where another thread asks.
    pub fn wants_media(&self) -> bool {
        !self.rtsp.requests.is_empty()
    }

    /// The sockets asked for under `id` are bound to these ports (RTP's and RTCP's), or can't be. The SETUP that waited goes on: write and send
    /// what `rx` holds.
    pub fn media_reserved(&mut self, now: Instant, id: u32, ports: Option<(u16, u16)>, rx: &mut RxBatch) {
        let Some(index) = self.rtsp.media.get(&id).map(|media| media.watched) else {
            return;
        };
        if ports.is_none() {
            self.rtsp.media.remove(&id);
            self.drops.count(DropReason::Rtsp);
        }
        let Some(mut watched) = self.rtsp.take(index) else {
            return;
        };
        watched.talk.reserved(id, ports);
        let mut out = core::mem::take(&mut self.rtsp.out);
        let wanted = watched.talk.asking.as_ref().map(|a| a.reservation);
        let mut result = None;
        if watched.asks.waits() && !matches!(wanted, Some(Reservation::Wanted(_))) {
            watched.talk.last_media = self.rtsp.last_media;
            watched.talk.room = self.has_room(&watched);
            result = Some(watched.asks.resume(&mut Asks(&mut watched.talk), &mut out));
            self.rtsp.last_media = watched.talk.last_media;
            if watched.asks.waits() {
                watched.waits_since = now;
            }
            if !self.act(now, index, &mut watched) {
                result = Some(Taken::Fail);
            }
        }
        let (head, local, wire) = (watched.head, watched.local, watched.wire);
        if result == Some(Taken::Fail) {
            self.end_media(&mut watched);
            watched.mode = Mode::Cut;
        }
        self.rtsp.put(index, watched);
        match (result, head) {
            (Some(Taken::Send { seq, fin, whole }), Some(head)) => {
                let mut flags = tcp_flags::ACK;
                if whole {
                    flags |= tcp_flags::PSH;
                }
                if fin {
                    flags |= tcp_flags::FIN;
                }
                self.write_tcp(&head, local, seq, flags, &out, &mut rx.tun);
            }
            (Some(Taken::Fail), _) => {
                self.drops.count(DropReason::Rtsp);
                if let Some(flow) = self.flows.by_wire(&wire) {
                    self.rtsp_cut(now, index, flow, &mut rx.tx, &mut rx.tun);
                }
            }
            _ => {}
        }
        self.rtsp.out = out;
    }

    /// Takes what a media socket received: datagrams of `segment` bytes (the last may be shorter) from one source. Addresses of the LAN in RTCP
    /// are blanked in place.
    #[allow(clippy::too_many_arguments)]
    pub fn handle_media(
        &mut self,
        now: Instant,
        id: u32,
        rtcp: bool,
        from: SocketAddr,
        bytes: &mut [u8],
        segment: usize,
        tx: &mut TxBatch,
    ) {
        tx.share = Share::of_media(id);
        let result = self.media_out(now, id, rtcp, from, bytes, segment, tx);
        self.note(result);
    }

    #[allow(clippy::too_many_arguments)]
    fn media_out(
        &mut self,
        now: Instant,
        id: u32,
        rtcp: bool,
        from: SocketAddr,
        bytes: &mut [u8],
        segment: usize,
        tx: &mut TxBatch,
    ) -> Result<(), DropReason> {
        let media = self.rtsp.media.get_mut(&id).ok_or(DropReason::NotAFlow)?;
        let server = media.server.ok_or(DropReason::NotAFlow)?;
        let (source, destination) = if rtcp {
            (server.1, media.client.1)
        } else {
            (server.0, media.client.0)
        };
        if from.ip() != media.camera || from.port() != source {
            return Err(DropReason::NotAFlow);
        }
        media.last = now;
        // RTP as well: some cameras send their reports, or what they saw as text, to the same port.
        media.lan.blank(bytes);
        let (session, account) = (media.session, media.account);
        let inner = InnerHeader {
            kind: Kind::Udp,
            traffic_class: 0,
            hop_limit: 64,
        };
        self.seal_datagrams(now, session, account, inner, (source, destination), bytes, segment, tx)
    }

    /// A datagram of the viewer's for the camera.
    pub(crate) fn media_in(
        &mut self,
        now: Instant,
        id: u32,
        rtcp: bool,
        payload: &[u8],
        rx: &mut RxBatch,
    ) -> Result<(), DropReason> {
        let media = self.rtsp.media.get_mut(&id).ok_or(DropReason::NotAFlow)?;
        let server = media.server.ok_or(DropReason::NotAFlow)?;
        media.last = now;
        let port = if rtcp { server.1 } else { server.0 };
        rx.media.push(id, rtcp, SocketAddr::new(media.camera, port), payload);
        Ok(())
    }

    /// Whether another pair of sockets may be had for this connection.
    pub(super) fn has_room(&self, watched: &Watched) -> bool {
        let of_session = self
            .rtsp
            .media
            .values()
            .filter(|m| m.session == watched.session)
            .count();
        let of_connection = watched.open.len() + watched.talk.unanswered().count();
        self.rtsp.media.len() < MEDIA && of_session < MEDIA_OF_SESSION && of_connection < talk::MEDIA
    }

    /// Does what follows from the words just read, before they are passed on. False when that isn't possible.
    pub(super) fn act(&mut self, now: Instant, index: u32, watched: &mut Watched) -> bool {
        let actions = core::mem::take(&mut watched.talk.actions);
        for action in actions {
            match action {
                Action::Reserve { media, digits, client } => {
                    let Some((service, lan)) = watched.service.and_then(|s| Some((s, s.rtsp?))) else {
                        return false;
                    };
                    let ports = if digits == 4 { FOUR_DIGITS } else { FIVE_DIGITS };
                    self.rtsp
                        .requests
                        .push_back(MediaRequest::Reserve { id: media, lan, ports });
                    let entry = Media {
                        watched: index,
                        session: watched.session,
                        account: watched.account,
                        camera: service.target.ip(),
                        lan: watched.lan(),
                        client,
                        server: None,
                        since: now,
                        last: now,
                    };
                    self.rtsp.media.insert(media, entry);
                }
                Action::Open {
                    media,
                    path,
                    client,
                    server,
                } => self.open_media(now, watched, media, path, client, server),
                Action::Release { media } => self.release(media),
                Action::Close { path } => {
                    let one = watched.open.iter().any(|open| open.path == path);
                    let closing = |open: &Open| !one || open.path == path;
                    self.close(watched, closing);
                }
            }
        }
        true
    }

    /// The camera agreed: datagrams may pass between its ports and the client's.
    fn open_media(
        &mut self,
        now: Instant,
        watched: &mut Watched,
        media: Option<u32>,
        path: Vec<u8>,
        client: (u16, u16),
        server: (u16, u16),
    ) {
        if media.is_some_and(|id| !self.rtsp.media.contains_key(&id)) {
            self.drops.count(DropReason::Rtsp);
            return;
        }
        // Set up again, with other ports perhaps.
        self.close(watched, |open| open.path == path);
        let gateway = watched.service.is_some();
        let connection = watched.local;
        let key = |theirs: u16, ours: u16| LocalKey {
            protocol: protocol::UDP,
            local_port: ours,
            remote_port: theirs,
            ..connection
        };
        for (at_client, at_server) in [(client.0, server.0), (client.1, server.1)] {
            let (theirs, ours) = if gateway {
                (at_client, at_server)
            } else {
                (at_server, at_client)
            };
            self.replace(watched, key(theirs, ours));
        }
        let mut add = |theirs: u16, ours: u16, watch| {
            let local = key(theirs, ours);
            self.flows
                .add_watched(now, local, watched.session, gateway, watched.account, watch)
        };
        let (rtp, rtcp) = match media {
            Some(id) => (
                add(client.0, server.0, Watch::Media(id, false)),
                add(client.1, server.1, Watch::Media(id, true)),
            ),
            None => (
                add(server.0, client.0, Watch::Opened),
                add(server.1, client.1, Watch::Opened),
            ),
        };
        if let Some(entry) = media.and_then(|id| self.rtsp.media.get_mut(&id)) {
            entry.server = Some(server);
            entry.last = now;
        }
        let room = watched.open.len() < talk::MEDIA;
        match (rtp, rtcp) {
            (Some(rtp), Some(rtcp)) if room => watched.open.push(Open { media, path, rtp, rtcp }),
            (rtp, rtcp) => {
                // Its ports are another flow's.
                self.drops.count(DropReason::Rtsp);
                for wire in [rtp, rtcp].into_iter().flatten() {
                    self.flows.remove_wire(&wire);
                }
                if let Some(id) = media {
                    self.release(id);
                }
            }
        }
    }

    /// A player that lost its connection comes again with the same ports: the new one gets them. So it does after it said a last word
    /// behind its TEARDOWN, which made a flow like any program's.
    fn replace(&mut self, watched: &mut Watched, local: LocalKey) {
        let wire = WireKey {
            session: watched.session,
            protocol: protocol::UDP,
            wire_port: local.local_port,
            remote_port: local.remote_port,
        };
        let uses = |open: &Open| open.rtp == wire || open.rtcp == wire;
        self.close(watched, uses);
        for index in 0..self.rtsp.watched.len() as u32 {
            let theirs = self
                .rtsp
                .get_mut(index)
                .is_some_and(|other| other.open.iter().any(uses));
            if let Some(mut other) = theirs.then(|| self.rtsp.take(index)).flatten() {
                self.close(&mut other, uses);
                self.rtsp.put(index, other);
            }
        }
        for at in [self.flows.by_wire(&wire), self.flows.by_local(&local)]
            .into_iter()
            .flatten()
        {
            let flow = self.flows.get(at);
            if let Some(key) = flow.filter(|f| !f.inbound && f.watch == Watch::Nobody).map(|f| f.wire) {
                self.flows.remove_wire(&key);
            }
        }
    }

    fn close(&mut self, watched: &mut Watched, mut closing: impl FnMut(&Open) -> bool) {
        let (gone, stay) = core::mem::take(&mut watched.open).into_iter().partition(&mut closing);
        watched.open = stay;
        let gone: Vec<Open> = gone;
        for open in gone {
            self.flows.remove_wire(&open.rtp);
            self.flows.remove_wire(&open.rtcp);
            if let Some(id) = open.media {
                self.release(id);
            }
        }
    }

    fn release(&mut self, id: u32) {
        if self.rtsp.media.remove(&id).is_some() {
            self.rtsp.requests.push_back(MediaRequest::Release { id });
        }
    }

    /// Media count for the service that their connection counts for.
    pub(super) fn account_media(&mut self, watched: &Watched) {
        for open in &watched.open {
            if let Some(media) = open.media.and_then(|id| self.rtsp.media.get_mut(&id)) {
                media.account = watched.account;
            }
            for wire in [open.rtp, open.rtcp] {
                if let Some(flow) = self.flows.by_wire(&wire).and_then(|at| self.flows.get_mut(at)) {
                    flow.account = watched.account;
                }
            }
        }
    }

    /// The connection is over, or may have no media any more.
    pub(super) fn end_media(&mut self, watched: &mut Watched) {
        self.close(watched, |_| true);
        let unanswered: Vec<_> = watched.talk.unanswered().collect();
        for media in unanswered {
            self.release(media);
        }
    }

    /// Ends what nobody uses any more.
    pub(crate) fn rtsp_expire(&mut self, now: Instant) {
        for index in 0..self.rtsp.watched.len() {
            let Some(mut watched) = self.rtsp.take(index as u32) else {
                continue;
            };
            let spoke = self
                .flows
                .by_wire(&watched.wire)
                .and_then(|i| self.flows.get(i))
                .map(|f| f.last);
            let idle = |at: Option<Instant>| at.is_none_or(|at| now.since(at) > IDLE);
            let of_flow = |wire: &WireKey| self.flows.by_wire(wire).and_then(|i| self.flows.get(i)).map(|f| f.last);
            let silent = |open: &Open| {
                let sockets = open.media.and_then(|id| self.rtsp.media.get(&id)).map(|m| m.last);
                idle(spoke) && idle(of_flow(&open.rtp)) && idle(of_flow(&open.rtcp)) && idle(sockets)
            };
            let gone: Vec<_> = watched.open.iter().map(silent).collect();
            let mut gone = gone.into_iter();
            self.close(&mut watched, |_| gone.next().unwrap_or(false));
            let late: Vec<_> = watched
                .talk
                .unanswered()
                .filter(|id| {
                    let media = self.rtsp.media.get(id);
                    media.is_some_and(|m| m.server.is_none() && now.since(m.since) > UNANSWERED)
                })
                .collect();
            for media in late {
                self.release(media);
            }
            self.rtsp.put(index as u32, watched);
        }
    }
}
