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
        let (together, queued) = (self.segment * self.acks.factor, self.socket().send_queue());
        let before = self.acks.first();
        let Some(plan) = self.acks.plan(header, payload, together, queued) else {
            return;
        };
        if self.acks.first() != before {
            self.patience.on_progress(now, header.ack, self.acks.is_waiting());
        }
        for ack in plan.shown() {
            self.feed_ack(now, ack, header.window, reply);
        }
        if plan.shown().next().is_none() || payload > 0 || header.flags != flag::ACK {
            self.feed(now, packet, reply);
        }
        for _ in 0..plan.again {
            if !self.socket().is_active() {
                return;
            }
            self.feed_ack(now, header.ack, header.window, reply);
        }
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
            self.acks.factor = many;
        }
        if matches!(self.state(), State::Listen | State::SynSent) {
            self.expects = syn.seq.wrapping_add(1);
        }
        self.feed_header(now, &syn, reply);
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

    /// Nothing was acknowledged for too long: has the first that is missing go again.
    pub(super) fn hurry(&mut self, now: Instant, out: &mut Vec<u8>) {
        let (Some((ack, window)), Some(word)) = (self.acks.hurry(), self.word) else {
            return;
        };
        let Flow { own, peer } = self.flow;
        if self.socket().send_queue() == 0 {
            // Only FIN is missing, which smoltcp has no other way to repeat than its own time.
            let fin = Header {
                seq: ack,
                flags: flag::FIN | flag::ACK,
                ..word
            };
            write_ip(out, own.ip(), peer.ip(), protocol::TCP, 20);
            return fin.write((own.port(), peer.port()), out);
        }
        // Repeats are a loss to smoltcp; another window ends a series of them, if there is one.
        let mut none = Vec::new();
        for window in [window ^ 1, window, window, window, window] {
            self.feed_ack(now, ack, window, &mut none);
        }
        self.emit(now, out);
    }
}
