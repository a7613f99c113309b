//! From the wire: links' frames, relayed packets, and packets for us, opened, judged and handed to the TUN.

use crate::aead::Aead;
use crate::api::*;
use crate::buffers::{RxBatch, TRAIN_SEGMENTS, Train};
use crate::core::Core;
use crate::flows::{FlowIndex, LocalKey, WireKey};
use crate::gate::Verdict;
use crate::icmp;
use crate::merge::{Merge, Segment};
use crate::outbound::write_header;
use crate::stats::DropReason;
use crate::tables::{Action, KEY_LIFE, within_rate};
use crate::time::{Duration, Instant};
use crate::wire::*;
use core::net::IpAddr;
use core::ops::Range;

/// Refusals that a session is told of, per second.
const REFUSALS: u32 = 20;
/// Unknown labels reported per link and second.
const REPORTS: u32 = 20;
/// A neighbour's new address is told to the control logic at most so often.
const ROAM_EVERY: Duration = Duration::from_millis(500);

impl<A: Aead> Core<A> {
    /// Takes one receive buffer: datagrams of `segment` bytes (the last may be shorter) from one source. Relayed ones are rewritten in place;
    /// opened ones are opened in place. Send and write what `rx` holds before the buffer is used again.
    pub fn handle_datagrams(
        &mut self,
        now: Instant,
        from: Remote,
        buffer: &mut [u8],
        segment: usize,
        rx: &mut RxBatch,
    ) {
        let segment = segment.max(1);
        let mut at = 0;
        while at < buffer.len() {
            let end = buffer.len().min(at + segment);
            let datagram = buffer.get(at..end).unwrap_or(&[]);
            match Outer::parse(datagram) {
                Some(Outer::Data(header)) => {
                    // Consecutive packets with one label are one run: its entry, keys and flow are looked up once.
                    let mut run_end = end;
                    while buffer
                        .get(run_end..run_end + 4)
                        .is_some_and(|word| word == header.label.to_be_bytes())
                        && buffer.len() - run_end > DATA_OVERHEAD
                    {
                        run_end = buffer.len().min(run_end + segment);
                    }
                    self.data(now, from, header.label, buffer, at..run_end, segment, rx);
                    at = run_end;
                    continue;
                }
                Some(Outer::LinkFrame { index, counter }) => {
                    let result = self.link_frame(now, from, index, counter, &mut buffer[at..end]);
                    self.note(result);
                }
                Some(Outer::Initiation) => {
                    let result = self.initiation(now, from, datagram, rx);
                    self.note(result);
                }
                Some(Outer::Response) => match self.gate.response(datagram) {
                    Verdict::Pass => self.emit(Event::Handshake {
                        from,
                        bytes: datagram.to_vec(),
                    }),
                    _ => self.drops.count(DropReason::BadMac1),
                },
                Some(Outer::Cookie) => self.emit(Event::Handshake {
                    from,
                    bytes: datagram.to_vec(),
                }),
                None => self.drops.count(DropReason::Malformed),
            }
            at = end;
        }
    }

    fn note(&mut self, result: Result<(), DropReason>) {
        if let Err(reason) = result {
            self.drops.count(reason);
        }
    }

    fn initiation(&mut self, now: Instant, from: Remote, datagram: &[u8], rx: &mut RxBatch) -> Result<(), DropReason> {
        if !self.config.listening {
            return Err(DropReason::NotListening);
        }
        match self.gate.initiation(now, from, datagram) {
            Verdict::Pass => {
                self.emit(Event::Handshake {
                    from,
                    bytes: datagram.to_vec(),
                });
                Ok(())
            }
            Verdict::Drop(reason) => Err(reason),
            Verdict::Cookie(reply) => {
                rx.tx.push(from, &reply);
                Err(DropReason::CookieWanted)
            }
        }
    }

    fn link_frame(
        &mut self,
        now: Instant,
        from: Remote,
        index: u32,
        counter: u64,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let &(id, generation) = self.indexes.get(&index).ok_or(DropReason::UnknownIndex)?;
        let link = self.links.get_mut(&id.0).ok_or(DropReason::UnknownIndex)?;
        let current = link.current;
        let keys = link.generation(generation).ok_or(DropReason::NoKey)?;
        if !keys.window.is_fresh(counter) {
            return Err(DropReason::Replayed);
        }
        let len = datagram.len();
        let (header, body) = datagram.split_at_mut(LINK_HEADER);
        if !A::open(&keys.receive, counter, &header[..8], body) {
            return Err(DropReason::BadTag);
        }
        let newest = keys.window.is_newest(counter);
        if !keys.window.accept(counter) {
            return Err(DropReason::Replayed);
        }
        let first = !keys.confirmed;
        keys.confirmed = true;
        link.heard = now;
        link.traffic.rx_bytes += len as u64;
        link.traffic.rx_packets += 1;
        self.ledger.control += len as u64;
        if first {
            // The far end has shown that it holds these keys: only now is anything replaced.
            link.current = generation;
            let old = core::mem::replace(&mut link.remote, from);
            if self.addresses.get(&old.address) == Some(&id) {
                self.addresses.remove(&old.address);
            }
            self.addresses.insert(from.address, id);
            self.emit(Event::LinkConfirmed {
                link: id,
                generation,
                from,
            });
        } else if link.remote != from
            && newest
            && generation == current
            && link.roamed.is_none_or(|at| now.since(at) >= ROAM_EVERY)
        {
            link.roamed = Some(now);
            self.emit(Event::LinkRoamed { link: id, from });
        }
        let plain = body.get(..body.len() - TAG).unwrap_or(&[]).to_vec();
        self.emit(Event::LinkFrame {
            link: id,
            generation,
            from,
            bytes: plain,
        });
        Ok(())
    }

    fn data(
        &mut self,
        now: Instant,
        from: Remote,
        label: u32,
        buffer: &mut [u8],
        run: Range<usize>,
        segment: usize,
        rx: &mut RxBatch,
    ) {
        let Some(entry) = self.labels.get_mut(&label) else {
            let count = run.len().div_ceil(segment);
            (0..count).for_each(|_| self.drops.count(DropReason::UnknownLabel));
            self.report_unknown(now, from, label);
            return;
        };
        let link_id = entry.link;
        match &entry.action {
            Action::Deliver(path) => {
                let path = *path;
                self.deliver(now, path, label, buffer, run.clone(), segment, rx);
            }
            Action::Forward {
                link,
                label: onward,
                hop,
            } => {
                let Some(remote) = self.links.get(&link.0).map(|l| l.remote) else {
                    self.drops.count(DropReason::NoPath);
                    return;
                };
                let egress = *link;
                let (mut packets, mut bytes) = (0u64, 0u64);
                let mut train: Option<Range<usize>> = None;
                let mut at = run.start;
                while at < run.end {
                    let end = run.end.min(at + segment);
                    let packet = &mut buffer[at..end];
                    match check(&entry.hop, &mut entry.window, label, packet) {
                        Ok(counter) => {
                            write_header(packet, onward.0, counter, hop);
                            packets += 1;
                            bytes += packet.len() as u64;
                            match &mut train {
                                Some(t) if t.end == at && t.len() < segment * TRAIN_SEGMENTS => t.end = end,
                                _ => {
                                    if let Some(range) = train.replace(at..end) {
                                        rx.relays.push(Train { remote, segment, range });
                                    }
                                }
                            }
                        }
                        Err(reason) => self.drops.count(reason),
                    }
                    at = end;
                }
                if let Some(range) = train {
                    rx.relays.push(Train { remote, segment, range });
                }
                if packets > 0 {
                    entry.valid = now;
                    entry.carried = true;
                    self.relayed.0 += packets;
                    self.relayed.1 += bytes;
                    if let Some(link) = self.links.get_mut(&egress.0) {
                        link.traffic.tx_bytes += bytes;
                        link.traffic.tx_packets += packets;
                    }
                }
            }
        }
        let moved = match self.links.get_mut(&link_id.0) {
            Some(link) => {
                link.heard = now;
                link.traffic.rx_bytes += run.len() as u64;
                link.traffic.rx_packets += run.len().div_ceil(segment) as u64;
                let moved = link.remote != from && link.roamed.is_none_or(|at| now.since(at) >= ROAM_EVERY);
                if moved {
                    link.roamed = Some(now);
                }
                moved
            }
            None => false,
        };
        if moved {
            self.emit(Event::LinkRoamed { link: link_id, from });
        }
    }

    fn report_unknown(&mut self, now: Instant, from: Remote, label: u32) {
        let Some(&id) = self.addresses.get(&from.address) else {
            return;
        };
        let Some(link) = self.links.get_mut(&id.0) else { return };
        if within_rate(&mut link.reported, now, REPORTS) {
            self.emit(Event::LabelUnknown {
                link: id,
                label: Label(label),
            });
        }
    }

    fn deliver(
        &mut self,
        now: Instant,
        path_id: PathId,
        label: u32,
        buffer: &mut [u8],
        run: Range<usize>,
        segment: usize,
        rx: &mut RxBatch,
    ) {
        let mut merge = Merge::default();
        let mut at = run.start;
        while at < run.end {
            let end = run.end.min(at + segment);
            match self.open(now, path_id, label, &mut buffer[at..end]) {
                Ok(session) => {
                    let inner = at + DATA_HEADER..end - TAG;
                    let result = self.inner(now, session, path_id, buffer, inner, &mut merge, rx);
                    self.note(result);
                }
                Err(reason) => self.drops.count(reason),
            }
            at = end;
        }
        merge.finish(buffer, self.config.tun, &mut rx.tun);
    }

    /// Checks and opens one packet of a path in place; what its first valid packet under new keys proves is noted here.
    fn open(&mut self, now: Instant, path_id: PathId, label: u32, packet: &mut [u8]) -> Result<SessionId, DropReason> {
        let entry = self.labels.get_mut(&label).ok_or(DropReason::UnknownLabel)?;
        let field = check(&entry.hop, &mut entry.window, label, packet)?;
        entry.valid = now;
        let path = self.paths.get_mut(&path_id.0).ok_or(DropReason::NoPath)?;
        let slot_index = slot_of(field);
        let slot = path
            .slots
            .get_mut(slot_index)
            .and_then(Option::as_mut)
            .ok_or(DropReason::NoKey)?;
        if now.since(slot.since) > KEY_LIFE {
            return Err(DropReason::NoKey);
        }
        if !path.window.is_fresh(counter_of(field)) {
            return Err(DropReason::Replayed);
        }
        let len = packet.len();
        if !A::open(&slot.receive, field, &[], &mut packet[DATA_HEADER..]) {
            return Err(DropReason::BadTag);
        }
        if !path.window.accept(counter_of(field)) {
            return Err(DropReason::Replayed);
        }
        let id = path.session;
        let session = self.sessions.get_mut(&id.0).ok_or(DropReason::NoSession)?;
        session.heard = Some(now);
        session.traffic.rx_bytes += len as u64;
        session.traffic.rx_packets += 1;
        let new_slot = !slot.confirmed;
        slot.confirmed = true;
        let new_path = !path.confirmed;
        if new_path {
            path.confirmed = true;
            session.path = Some(path_id);
        }
        if new_slot && !new_path {
            path.switch_to(slot_index);
        }
        if new_path {
            self.emit(Event::PathConfirmed {
                session: id,
                path: path_id,
            });
        } else if new_slot {
            self.emit(Event::PathKeyConfirmed {
                session: id,
                path: path_id,
                slot: slot_index as u8,
            });
        }
        Ok(id)
    }

    /// Judges one opened inner packet.
    fn inner(
        &mut self,
        now: Instant,
        session: SessionId,
        path: PathId,
        buffer: &[u8],
        inner: Range<usize>,
        merge: &mut Merge,
        rx: &mut RxBatch,
    ) -> Result<(), DropReason> {
        let bytes = buffer.get(inner.clone()).ok_or(DropReason::BadInner)?;
        let (header, body) = InnerHeader::parse(bytes).ok_or(DropReason::BadInner)?;
        let overhead = bytes.len() + DATA_OVERHEAD;
        match header.kind {
            Kind::Tcp | Kind::Udp => {
                let start = inner.start + INNER_HEADER;
                let header_len = if header.kind == Kind::Tcp { tcp_header(body)? } else { 4 };
                if body.len() < header_len {
                    return Err(DropReason::BadInner);
                }
                let hop_limit = header
                    .hop_limit
                    .checked_sub(1)
                    .filter(|&h| h > 0)
                    .ok_or(DropReason::HopLimit)?;
                let segment = Segment {
                    kind: header.kind,
                    session,
                    traffic_class: header.traffic_class,
                    hop_limit,
                    header: start..start + header_len,
                    payload: start + header_len..inner.end,
                };
                let flow = match merge.same_flow(&segment, buffer) {
                    Some(flow) => flow,
                    None => self.wire_flow(now, session, &segment, body, rx)?,
                };
                let f = self.flows.get_mut(flow).ok_or(DropReason::NotAFlow)?;
                if header.kind == Kind::Tcp {
                    f.note_tcp(now, body[13]);
                } else {
                    f.last = now;
                }
                let (local, account) = (f.local, f.account);
                self.account(account, segment.payload.len(), overhead - segment.payload.len());
                merge.push(&segment, flow, local, buffer, self.config.tun, &mut rx.tun);
                Ok(())
            }
            Kind::Echo => {
                merge.finish(buffer, self.config.tun, &mut rx.tun);
                self.echo(now, session, &header, body, rx)
            }
            Kind::Error => {
                merge.finish(buffer, self.config.tun, &mut rx.tun);
                let report = ErrorReport::parse(body).ok_or(DropReason::BadInner)?;
                self.error(session, report, rx)
            }
            Kind::Part => {
                merge.finish(buffer, self.config.tun, &mut rx.tun);
                let (part, slice) = PartHeader::parse(body).ok_or(DropReason::BadInner)?;
                let whole = self
                    .parts
                    .take(now, session, part, slice)
                    .map_err(|()| DropReason::Unassembled)?;
                match whole {
                    Some(whole) if whole.first() != Some(&(Kind::Part as u8)) => {
                        self.whole(now, session, path, &whole, rx)
                    }
                    Some(_) => Err(DropReason::BadInner),
                    None => Ok(()),
                }
            }
            Kind::Control => {
                self.ledger.control += overhead as u64;
                self.emit(Event::SessionControl {
                    session,
                    path,
                    bytes: body.to_vec(),
                });
                Ok(())
            }
        }
    }

    /// An inner packet that came in parts. Its bytes aren't in the receive buffer, so the TUN packet is copied whole.
    fn whole(
        &mut self,
        now: Instant,
        session: SessionId,
        path: PathId,
        inner: &[u8],
        rx: &mut RxBatch,
    ) -> Result<(), DropReason> {
        let mut merge = Merge::default();
        let before = rx.tun.writes.len();
        self.inner(now, session, path, inner, 0..inner.len(), &mut merge, rx)?;
        merge.finish(inner, self.config.tun, &mut rx.tun);
        for write in rx.tun.writes.get_mut(before..).unwrap_or(&mut []) {
            let head: Vec<u8> = rx.tun.heads[write.head.clone()].to_vec();
            let start = rx.tun.heads.len();
            rx.tun.heads.extend_from_slice(&head);
            for piece in rx.tun.pieces.get(write.pieces.clone()).unwrap_or(&[]) {
                rx.tun.heads.extend_from_slice(inner.get(piece.clone()).unwrap_or(&[]));
            }
            write.head = start..rx.tun.heads.len();
            write.pieces = write.pieces.end..write.pieces.end;
        }
        Ok(())
    }

    /// The flow of a packet from the wire, made if policy lists the service; else refused, and said so.
    fn wire_flow(
        &mut self,
        now: Instant,
        id: SessionId,
        segment: &Segment,
        body: &[u8],
        rx: &mut RxBatch,
    ) -> Result<FlowIndex, DropReason> {
        let protocol = if segment.kind == Kind::Tcp {
            protocol::TCP
        } else {
            protocol::UDP
        };
        let &[s0, s1, d0, d1, ..] = body else {
            return Err(DropReason::BadInner);
        };
        let (source, destination) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        let key = WireKey {
            session: id,
            protocol,
            wire_port: destination,
            remote_port: source,
        };
        if let Some(index) = self.flows.by_wire(&key) {
            return Ok(index);
        }
        let session = self.sessions.get(&id.0).ok_or(DropReason::NoSession)?;
        let Some(service) = session
            .policy
            .inbound
            .iter()
            .find(|s| s.protocol == protocol && s.port == destination)
            .copied()
        else {
            let reason = if session.policy.outbound {
                DropReason::NotAFlow
            } else {
                DropReason::PortNotAllowed
            };
            if reason == DropReason::PortNotAllowed {
                self.refuse(now, id, protocol, source, destination, rx);
            }
            return Err(reason);
        };
        let (own, peer) = self.first_pair(id, service.v6).ok_or(DropReason::NoSession)?;
        let local = LocalKey {
            own,
            peer,
            protocol,
            local_port: destination,
            remote_port: source,
        };
        self.flows
            .add(now, local, id, true, Some(service.account))
            .ok_or(DropReason::TooManyFlows)
    }

    fn first_pair(&self, id: SessionId, v6: bool) -> Option<(IpAddr, IpAddr)> {
        let pairs = &self.sessions.get(&id.0)?.pairs;
        pairs.iter().find_map(|pair| if v6 { pair.v6 } else { pair.v4 })
    }

    /// A sealed "denied" for a caller that we admitted: its own node tells its program.
    fn refuse(&mut self, now: Instant, id: SessionId, protocol: u8, source: u16, destination: u16, rx: &mut RxBatch) {
        let Some(session) = self.sessions.get_mut(&id.0) else {
            return;
        };
        if !within_rate(&mut session.refused, now, REFUSALS) {
            return;
        }
        let Some(path) = session.path else { return };
        let report = ErrorReport {
            class: ErrorClass::Denied,
            protocol,
            value: 1,
            source_port: source,
            destination_port: destination,
        };
        let inner = InnerHeader {
            kind: Kind::Error,
            traffic_class: 0,
            hop_limit: 64,
        }
        .bytes();
        self.seal_one(now, path, &[&inner, &report.bytes()], &mut rx.tx);
    }

    fn echo(
        &mut self,
        now: Instant,
        id: SessionId,
        header: &InnerHeader,
        body: &[u8],
        rx: &mut RxBatch,
    ) -> Result<(), DropReason> {
        let (&[reply, zero, i0, i1, q0, q1], data) = body.split_first_chunk::<6>().ok_or(DropReason::BadInner)?;
        if reply > 1 || zero != 0 {
            return Err(DropReason::BadInner);
        }
        let echo_id = u16::from_be_bytes([i0, i1]);
        let hop_limit = header
            .hop_limit
            .checked_sub(1)
            .filter(|&h| h > 0)
            .ok_or(DropReason::HopLimit)?;
        let key = WireKey {
            session: id,
            protocol: protocol::ICMP,
            wire_port: echo_id,
            remote_port: 0,
        };
        let index = match self.flows.by_wire(&key) {
            Some(index) => index,
            None if reply == 1 => return Err(DropReason::NotAFlow),
            None => {
                let policy = &self.sessions.get(&id.0).ok_or(DropReason::NoSession)?.policy;
                if !policy.echo {
                    self.refuse(now, id, protocol::ICMP, 0, echo_id, rx);
                    return Err(DropReason::EchoNotAllowed);
                }
                let v6 = policy.inbound.first().is_some_and(|s| s.v6);
                let (own, peer) = self.first_pair(id, v6).ok_or(DropReason::NoSession)?;
                let local = LocalKey {
                    own,
                    peer,
                    protocol: protocol::ICMP,
                    local_port: echo_id,
                    remote_port: 0,
                };
                self.flows
                    .add(now, local, id, true, None)
                    .ok_or(DropReason::TooManyFlows)?
            }
        };
        let flow = self.flows.get_mut(index).ok_or(DropReason::NotAFlow)?;
        if flow.inbound != (reply == 0) {
            return Err(DropReason::NotAFlow);
        }
        flow.last = now;
        let local = flow.local;
        let v4 = local.own.is_ipv4();
        let kind = match (v4, reply) {
            (true, 0) => 8,
            (true, _) => 0,
            (false, 0) => 128,
            (false, _) => 129,
        };
        let mut message = core::mem::take(&mut self.scratch);
        message.clear();
        message.extend_from_slice(&[0; 40]);
        let number = if v4 { protocol::ICMP } else { protocol::ICMP6 };
        let at = IpPacket::write_header(
            &mut message,
            local.peer,
            local.own,
            number,
            header.traffic_class,
            hop_limit,
            8 + data.len(),
            false,
        );
        message.truncate(at);
        message.extend_from_slice(&[kind, 0, 0, 0]);
        message.extend_from_slice(&local.local_port.to_be_bytes());
        message.extend_from_slice(&[q0, q1]);
        message.extend_from_slice(data);
        let pseudo = if v4 {
            0
        } else {
            pseudo_header_sum(local.peer, local.own, number, 8 + data.len())
        };
        let sum = checksum(sum_bytes(pseudo, &message[at..]));
        message[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
        rx.tun.push_whole(&VnetHeader::default().bytes(), &message);
        self.scratch = message;
        Ok(())
    }

    /// A report about a packet of ours: told to the program with its own flow's headers; nothing of the report's is believed beyond that.
    fn error(&mut self, id: SessionId, report: ErrorReport, rx: &mut RxBatch) -> Result<(), DropReason> {
        let (wire_port, remote_port) = match report.protocol {
            protocol::ICMP => (report.destination_port, 0),
            _ => (report.source_port, report.destination_port),
        };
        let key = WireKey {
            session: id,
            protocol: report.protocol,
            wire_port,
            remote_port,
        };
        let flow = self
            .flows
            .by_wire(&key)
            .and_then(|index| self.flows.get(index))
            .ok_or(DropReason::NotAFlow)?;
        icmp::tell(&mut rx.tun, flow, report.class, report.value);
        if report.class == ErrorClass::Denied {
            let event = Event::FlowDenied {
                session: id,
                protocol: report.protocol,
                port: remote_port,
                reason: report.value,
            };
            self.emit(event);
        }
        Ok(())
    }
}

/// Length of a TCP header without its checksum.
fn tcp_header(body: &[u8]) -> Result<usize, DropReason> {
    let offset = usize::from(*body.get(12).ok_or(DropReason::BadInner)? >> 4) * 4;
    if (20..=60).contains(&offset) {
        Ok(offset - 2)
    } else {
        Err(DropReason::BadInner)
    }
}

/// Verifies hop tag and replay window of one data packet; its counter field.
fn check(
    hop: &crate::keyed::HopKey,
    window: &mut crate::replay::ReplayWindow,
    label: u32,
    packet: &[u8],
) -> Result<u64, DropReason> {
    let Some(Outer::Data(header)) = Outer::parse(packet) else {
        return Err(DropReason::Malformed);
    };
    let Some(tag) = packet.last_chunk::<TAG>() else {
        return Err(DropReason::Malformed);
    };
    if header.label != label || !hop.verify(label, header.counter, tag, &header.hop_tag) {
        return Err(DropReason::BadHopTag);
    }
    if !window.accept(counter_of(header.counter)) {
        return Err(DropReason::Replayed);
    }
    Ok(header.counter)
}
