//! What smoltcp is shown of what comes, and what it is made to do when nothing comes.

use super::line::Line;
use super::segment::Header;
use super::{MIN_SEGMENT, TOGETHER, Tcp, then};
use crate::flows::tcp_flags as flag;
use crate::host::Flow;
use crate::host::egress::write_ip;
use crate::time::Instant;
use crate::wire::protocol;
use smoltcp::socket::tcp::State;

impl Tcp {
    /// Takes a segment of this connection; what it is answered with at once is put into `reply`.
    pub fn on_packet(&mut self, now: Instant, packet: &[u8], header: &Header, payload: usize, reply: &mut Vec<u8>) {
        self.heard = now;
        if header.has(flag::SYN) {
            // Nobody calls us from a port that we call.
            if self.state() != State::SynSent || header.has(flag::ACK) {
                self.on_syn(now, header, reply);
            }
            return;
        }
        if payload > 0 && self.only_syn && self.is_too_much(header.seq.wrapping_add(payload as u32)) {
            return;
        }
        let shown = self.sent.shown();
        let Some(acked) = self.acknowledge(now, header, payload) else {
            return self.feed(now, packet, reply);
        };
        let bare = payload == 0 && header.flags == flag::ACK;
        if !bare {
            self.feed(now, packet, reply);
        }
        // smoltcp counts repeats by itself, and has no other measure of what may be under way than the window.
        let news = acked > 0 || self.sent.shown() != shown || !bare;
        if self.socket().is_active() && (news || !self.sent.is_waiting()) {
            self.feed_ack(now, header.ack, self.sent.shown(), reply);
        }
    }

    /// Notes what came of ours; how many bytes are new. `None`: what smoltcp is to judge.
    fn acknowledge(&mut self, now: Instant, header: &Header, payload: usize) -> Option<u32> {
        let (queued, round) = (self.socket().send_queue(), self.patience.round());
        let acked = self.sent.on_ack(now, header, payload, queued, round)?;
        if acked > 0
            && let Some(round) = self.patience.on_progress(now, header.ack, self.sent.is_waiting())
        {
            self.sent.on_round(round);
        }
        Some(acked)
    }

    /// Whether there is no room for all before `end`. The window in a SYN isn't scaled, but smoltcp takes it so when it judges what comes next, and
    /// would panic for want of room.
    fn is_too_much(&self, end: u32) -> bool {
        let room = self.socket().recv_capacity() - self.ready();
        i64::from(end.wrapping_sub(self.expects) as i32) > room as i64
    }

    /// With what smoltcp is to know of the far end's longest segment.
    pub(super) fn on_syn(&mut self, now: Instant, syn: &Header, reply: &mut Vec<u8>) {
        let mut syn = *syn;
        if let (Some(mss), State::Listen | State::SynSent) = (syn.options.mss.as_mut(), self.state()) {
            self.segment = self.longest.min(usize::from(*mss)).max(MIN_SEGMENT);
            // Whoever has little room must still get several at once.
            let many = (usize::from(syn.window) / 4 / self.segment).clamp(1, TOGETHER);
            *mss = (self.segment * many) as u16;
            self.sent.set_segment(self.segment, many);
            self.sent.scale = syn.options.scale.unwrap_or(0);
        }
        if matches!(self.state(), State::Listen | State::SynSent) {
            self.expects = syn.seq.wrapping_add(1);
        }
        self.feed_header(now, &syn, reply);
        if syn.has(flag::ACK) && self.state() == State::Established {
            // As the next segment would say it: a SYN's window isn't shifted.
            let first = Header {
                flags: flag::ACK,
                window: syn.window >> self.sent.scale,
                ..syn
            };
            if self.acknowledge(now, &first, 0).is_some() {
                self.feed_ack(now, first.ack, self.sent.shown(), reply);
            }
        }
    }

    /// A bare acknowledgement, which always follows what came before.
    fn feed_ack(&mut self, now: Instant, ack: u32, window: u16, reply: &mut Vec<u8>) {
        let bare = Header {
            seq: self.expects,
            ack,
            flags: flag::ACK,
            window,
            ..Header::default()
        };
        self.feed_header(now, &bare, reply);
    }

    fn feed_header(&mut self, now: Instant, header: &Header, reply: &mut Vec<u8>) {
        let Flow { own, peer } = self.flow;
        let mut packet = core::mem::take(&mut self.small);
        packet.clear();
        write_ip(
            &mut packet,
            peer.ip(),
            own.ip(),
            protocol::TCP,
            20 + header.options.len(),
        );
        header.write((peer.port(), own.port()), &mut packet);
        self.feed(now, &packet, reply);
        self.small = packet;
    }

    fn feed(&mut self, now: Instant, packet: &[u8], reply: &mut Vec<u8>) {
        let before = (self.ready(), self.is_finished());
        let mut line = Line {
            incoming: Some(packet),
            out: reply,
        };
        self.interface
            .poll_ingress_single(then(now), &mut line, &mut self.sockets);
        let finished = self.is_finished() && !before.1;
        let came = self.ready().saturating_sub(before.0) as u32 + u32::from(finished);
        self.expects = self.expects.wrapping_add(came);
    }

    /// Puts into `out` what is to go again, counted from the first byte that isn't acknowledged.
    pub(super) fn repeat(&mut self, now: Instant, (start, end): (usize, usize), out: &mut Vec<u8>) -> Option<Header> {
        let Flow { own, peer } = self.flow;
        let (ack, window, word) = (self.sent.first(), self.sent.shown(), self.word?);
        if self.socket().send_queue() == 0 {
            // Only FIN is missing, which smoltcp has no other way to repeat than its own time.
            let fin = Header {
                seq: ack,
                flags: flag::FIN | flag::ACK,
                ..word
            };
            write_ip(out, own.ip(), peer.ip(), protocol::TCP, 20);
            fin.write((own.port(), peer.port()), out);
            self.sent.on_resent(end);
            return Some(fin);
        }
        // Repeats are a loss to smoltcp, which then has the first bytes go again; another window ends a series of them, if there is one.
        let mut none = Vec::new();
        for window in [window ^ 1, window, window, window, window] {
            self.feed_ack(now, ack, window, &mut none);
        }
        self.emit(now, out);
        let at = if own.is_ipv4() { 20 } else { 40 };
        self.sent.block();
        let (mut header, payload) = Header::parse(out.get(at..)?)?;
        let (len, first) = (payload.len(), at + 20 + header.options.len());
        self.sent.on_given(header.end(len));
        if header.seq != ack || len == 0 {
            return Some(header);
        }
        // It gives what lies in one piece.
        if start > len || start == len && !header.has(flag::FIN) {
            out.clear();
            return None;
        }
        // Of these, what is really missing.
        let last = end.min(len);
        if last < len {
            header.flags &= !(flag::FIN | flag::PSH);
        }
        header.seq = ack.wrapping_add(start as u32);
        out.copy_within(first + start..first + last, first);
        out.truncate(first + last - start);
        let mut head = Vec::with_capacity(first);
        write_ip(&mut head, own.ip(), peer.ip(), protocol::TCP, first - at + last - start);
        header.write((own.port(), peer.port()), &mut head);
        out.get_mut(..first)?.copy_from_slice(&head);
        self.sent.on_resent(last + usize::from(header.has(flag::FIN)));
        Some(header)
    }
}
