//! From the TUN to the wire: find the session, take headers away, cut, seal.

use crate::aead::Aead;
use crate::api::*;
use crate::buffers::{TRAIN_BYTES, TRAIN_SEGMENTS, TunBatch, TxBatch};
use crate::core::Core;
use crate::flows::{FlowIndex, LocalKey, tcp_flags};
use crate::icmp;
use crate::keyed::HopKey;
use crate::stats::DropReason;
use crate::tables::{CannotSend, Path};
use crate::time::Instant;
use crate::wire::*;

/// Largest TCP payload, options not counted, that fits one datagram.
const MSS: u16 = (INNER_MAX - INNER_HEADER - 18) as u16;
const PARTS_MAX: usize = 4;
const PART_SLICE: usize = INNER_MAX - PART_HEADER;

impl<A: Aead> Core<A> {
    /// Takes one packet from the TUN: `vnet` is its virtio header (all zero where the TUN has none). What goes on the wire is put into `tx`; what the
    /// local sender must be told (ICMP errors) into `tun`.
    pub fn handle_tun(&mut self, now: Instant, vnet: VnetHeader, packet: &[u8], tx: &mut TxBatch, tun: &mut TunBatch) {
        if let Err(reason) = self.outbound(now, vnet, packet, tx, tun) {
            self.drops.count(reason);
        }
    }

    fn outbound(
        &mut self,
        now: Instant,
        vnet: VnetHeader,
        packet: &[u8],
        tx: &mut TxBatch,
        tun: &mut TunBatch,
    ) -> Result<(), DropReason> {
        let ip = IpPacket::parse(packet).ok_or(DropReason::NotCarried)?;
        let bytes = packet.get(ip.transport_at..ip.end).ok_or(DropReason::NotCarried)?;
        if let Transport::Fragment { .. } = ip.transport {
            let whole = self
                .fragments
                .take(now, &ip, packet)
                .map_err(|()| DropReason::Unassembled)?;
            return match whole {
                Some(whole) => self.outbound(now, VnetHeader::default(), &whole, tx, tun),
                None => Ok(()),
            };
        }
        self.verify_checksum(vnet, &ip, bytes)?;
        match ip.transport {
            Transport::Tcp { header } => self.outbound_tcp(now, vnet, &ip, bytes, header, tx),
            Transport::Udp => self.outbound_udp(now, vnet, &ip, packet, bytes, tx, tun),
            Transport::Icmp => self.outbound_icmp(now, &ip, bytes, tx),
            Transport::Fragment { .. } => Err(DropReason::NotCarried),
        }
    }

    /// Checksums aren't sent, so they must be known good: begun only (ours to finish), vouched for by the kernel, or verified here.
    fn verify_checksum(&self, vnet: VnetHeader, ip: &IpPacket, bytes: &[u8]) -> Result<(), DropReason> {
        if vnet.flags & (vnet_flags::NEEDS_CSUM | vnet_flags::DATA_VALID) != 0 {
            return Ok(());
        }
        let sum = match ip.transport {
            Transport::Udp if bytes.get(6..8) == Some(&[0, 0]) && ip.source.is_ipv4() => return Ok(()),
            Transport::Icmp if ip.source.is_ipv4() => 0,
            _ => pseudo_header_sum(ip.source, ip.destination, ip.protocol(), bytes.len()),
        };
        if checksum(sum_bytes(sum, bytes)) == 0 {
            Ok(())
        } else {
            Err(DropReason::BadChecksum)
        }
    }

    /// The flow of a packet from the host, made if the session lets us; asks for the session when there is none.
    fn local_flow(&mut self, now: Instant, key: LocalKey) -> Result<FlowIndex, DropReason> {
        if let Some(index) = self.flows.by_local(&key) {
            return Ok(index);
        }
        let Some(&id) = self.pairs.get(&(key.own, key.peer)) else {
            self.need(now, key.own, key.peer);
            return Err(DropReason::NoSession);
        };
        let session = self.sessions.get(&id.0).ok_or(DropReason::NoSession)?;
        // A reply whose flow we forgot (a restart): the service that it comes from is still allowed, so its flow may go on.
        let service = session
            .policy
            .inbound
            .iter()
            .find(|s| s.protocol == key.protocol && s.port == key.local_port)
            .map(|s| s.account);
        let (inbound, account) = match (service, session.policy.outbound) {
            (Some(account), _) => (true, Some(account)),
            (None, true) => (false, None),
            (None, false) => return Err(DropReason::OutboundNotAllowed),
        };
        self.flows
            .add(now, key, id, inbound, account)
            .ok_or(DropReason::TooManyFlows)
    }

    fn outbound_tcp(
        &mut self,
        now: Instant,
        vnet: VnetHeader,
        ip: &IpPacket,
        bytes: &[u8],
        header_len: usize,
        tx: &mut TxBatch,
    ) -> Result<(), DropReason> {
        let port = |at: usize| {
            bytes
                .get(at..)
                .and_then(|b| b.first_chunk())
                .map_or(0, |b| u16::from_be_bytes(*b))
        };
        let word = |at: usize| {
            bytes
                .get(at..)
                .and_then(|b| b.first_chunk())
                .map_or(0, |b| u32::from_be_bytes(*b))
        };
        let key = LocalKey {
            own: ip.source,
            peer: ip.destination,
            protocol: protocol::TCP,
            local_port: port(0),
            remote_port: port(2),
        };
        let index = self.local_flow(now, key)?;
        let (header, payload) = bytes.split_at(header_len);
        let flags = header[13];
        let seq = word(4);
        let flow = self.flows.get_mut(index).ok_or(DropReason::NotAFlow)?;
        flow.note_tcp(now, flags);
        let control = u32::from(flags & tcp_flags::SYN != 0) + u32::from(flags & tcp_flags::FIN != 0);
        flow.next_seq = seq.wrapping_add(payload.len() as u32).wrapping_add(control);
        flow.acked = word(8);
        let (wire, account) = (flow.wire, flow.account);

        // Inner header, then the TCP header without its checksum.
        let mut template = [0u8; INNER_HEADER + 58];
        let template_len = INNER_HEADER + header_len - 2;
        let inner = InnerHeader {
            kind: Kind::Tcp,
            traffic_class: ip.traffic_class,
            hop_limit: ip.hop_limit,
        };
        template[..4].copy_from_slice(&inner.bytes());
        template[4..20].copy_from_slice(&header[..16]);
        template[20..template_len].copy_from_slice(&header[18..]);
        template[4..6].copy_from_slice(&wire.wire_port.to_be_bytes());
        template[6..8].copy_from_slice(&wire.remote_port.to_be_bytes());
        if flags & tcp_flags::SYN != 0 {
            clamp_mss(&mut template[INNER_HEADER + 16..template_len]);
        }

        let most = INNER_MAX - template_len;
        let cut = match vnet.gso_type & !gso::ECN {
            gso::TCPV4 | gso::TCPV6 if vnet.gso_size > 0 => usize::from(vnet.gso_size).min(most),
            _ => most,
        };
        let template = &template[..template_len];
        let (session, bytes_sent, packets) =
            self.seal_cut(now, wire.session, template, payload, cut, tx, |segment, index, last| {
                let place = &mut segment[8..12];
                place.copy_from_slice(&seq.wrapping_add((index * cut) as u32).to_be_bytes());
                let mut bits = flags;
                if !last {
                    bits &= !(tcp_flags::FIN | tcp_flags::PSH);
                }
                if index > 0 {
                    bits &= !tcp_flags::CWR;
                }
                segment[17] = bits;
            })?;
        self.account(account, payload.len(), bytes_sent - payload.len());
        let _ = (session, packets);
        Ok(())
    }

    fn outbound_udp(
        &mut self,
        now: Instant,
        vnet: VnetHeader,
        ip: &IpPacket,
        packet: &[u8],
        bytes: &[u8],
        tx: &mut TxBatch,
        tun: &mut TunBatch,
    ) -> Result<(), DropReason> {
        let (&[s0, s1, d0, d1, ..], payload) = bytes.split_first_chunk::<8>().ok_or(DropReason::NotCarried)?;
        let key = LocalKey {
            own: ip.source,
            peer: ip.destination,
            protocol: protocol::UDP,
            local_port: u16::from_be_bytes([s0, s1]),
            remote_port: u16::from_be_bytes([d0, d1]),
        };
        let index = self.local_flow(now, key)?;
        let flow = self.flows.get_mut(index).ok_or(DropReason::NotAFlow)?;
        flow.last = now;
        let (wire, account) = (flow.wire, flow.account);
        let mut template = [0u8; INNER_HEADER + 4];
        let inner = InnerHeader {
            kind: Kind::Udp,
            traffic_class: ip.traffic_class,
            hop_limit: ip.hop_limit,
        };
        template[..4].copy_from_slice(&inner.bytes());
        template[4..6].copy_from_slice(&wire.wire_port.to_be_bytes());
        template[6..8].copy_from_slice(&wire.remote_port.to_be_bytes());
        let size = if vnet.gso_type & !gso::ECN == gso::UDP_L4 {
            usize::from(vnet.gso_size)
        } else {
            payload.len()
        };
        if template.len() + size <= INNER_MAX {
            let cut = size.max(1);
            let (.., sent, _) = self.seal_cut(now, wire.session, &template, payload, cut, tx, |_, _, _| ())?;
            self.account(account, payload.len(), sent - payload.len());
            return Ok(());
        }
        for datagram in payload.chunks(size.max(1)) {
            if template.len() + datagram.len() > PARTS_MAX * PART_SLICE {
                icmp::too_big(tun, self.config.tun, ip, packet, (PARTS_MAX * PART_SLICE - 64) as u16);
                return Err(DropReason::TooLong);
            }
            let sent = self.seal_in_parts(now, wire.session, &template, datagram, tx)?;
            self.account(account, datagram.len(), sent.saturating_sub(datagram.len()));
        }
        Ok(())
    }

    fn outbound_icmp(&mut self, now: Instant, ip: &IpPacket, bytes: &[u8], tx: &mut TxBatch) -> Result<(), DropReason> {
        let v4 = ip.source.is_ipv4();
        let message = icmp::parse(v4, bytes).ok_or(DropReason::NotCarried)?;
        let body = match message {
            icmp::Message::Echo {
                reply,
                id,
                sequence,
                data,
            } => {
                let key = LocalKey {
                    own: ip.source,
                    peer: ip.destination,
                    protocol: protocol::ICMP,
                    local_port: id,
                    remote_port: 0,
                };
                let index = if reply {
                    self.flows.by_local(&key).ok_or(DropReason::NotAFlow)?
                } else {
                    self.local_flow(now, key)?
                };
                let flow = self.flows.get_mut(index).ok_or(DropReason::NotAFlow)?;
                flow.last = now;
                let inner = InnerHeader {
                    kind: Kind::Echo,
                    traffic_class: ip.traffic_class,
                    hop_limit: ip.hop_limit,
                };
                let id = flow.wire.wire_port;
                let mut template = [0u8; INNER_HEADER + 6];
                template[..4].copy_from_slice(&inner.bytes());
                template[4] = u8::from(reply);
                template[6..8].copy_from_slice(&id.to_be_bytes());
                template[8..].copy_from_slice(&sequence.to_be_bytes());
                let session = flow.wire.session;
                if template.len() + data.len() > PARTS_MAX * PART_SLICE {
                    return Err(DropReason::TooLong);
                }
                if template.len() + data.len() > INNER_MAX {
                    self.seal_in_parts(now, session, &template, data, tx)?;
                } else {
                    self.seal_cut(now, session, &template, data, data.len().max(1), tx, |_, _, _| ())?;
                }
                return Ok(());
            }
            icmp::Message::Error { class, mtu, embedded } => {
                // About a packet that we wrote: its source is the peer's address, its destination ours.
                let key = LocalKey {
                    own: embedded.destination,
                    peer: embedded.source,
                    protocol: embedded.protocol,
                    local_port: embedded.destination_port,
                    remote_port: embedded.source_port,
                };
                let flow = self
                    .flows
                    .by_local(&key)
                    .and_then(|index| self.flows.get(index))
                    .ok_or(DropReason::NotAFlow)?;
                let report = ErrorReport {
                    class,
                    protocol: flow.wire.protocol,
                    value: mtu,
                    source_port: flow.wire.remote_port,
                    destination_port: flow.wire.wire_port,
                };
                (flow.wire.session, report.bytes())
            }
        };
        let (session, report) = body;
        let inner = InnerHeader {
            kind: Kind::Error,
            traffic_class: 0,
            hop_limit: 64,
        }
        .bytes();
        let path = self
            .sessions
            .get(&session.0)
            .and_then(|s| s.path)
            .ok_or(DropReason::NoPath)?;
        self.seal_one(now, path, &[&inner, &report], tx);
        Ok(())
    }

    /// Too long for one datagram: the inner packet goes in up to four slices.
    fn seal_in_parts(
        &mut self,
        now: Instant,
        id: SessionId,
        template: &[u8],
        payload: &[u8],
        tx: &mut TxBatch,
    ) -> Result<usize, DropReason> {
        let mut whole = core::mem::take(&mut self.scratch);
        whole.clear();
        whole.extend_from_slice(template);
        whole.extend_from_slice(payload);
        let session = self.sessions.get_mut(&id.0).ok_or(DropReason::NoSession)?;
        session.part_id = session.part_id.wrapping_add(1);
        let (part_id, path) = (session.part_id, session.path.ok_or(DropReason::NoPath)?);
        let count = whole.len().div_ceil(PART_SLICE) as u8;
        // Even slices: no runt behind full ones.
        let slice = whole.len().div_ceil(usize::from(count));
        let inner = InnerHeader {
            kind: Kind::Part,
            traffic_class: template[1],
            hop_limit: template[2],
        }
        .bytes();
        let mut sent = 0;
        for (index, slice) in whole.chunks(slice).enumerate() {
            let part = PartHeader {
                id: part_id,
                index: index as u8,
                count,
            }
            .bytes();
            sent += self.seal_one(now, path, &[&inner, &part, slice], tx);
        }
        self.scratch = whole;
        Ok(sent)
    }

    /// Seals one inner packet given in pieces; returns the datagram's length, 0 if it couldn't be.
    pub(crate) fn seal_one(&mut self, now: Instant, path: PathId, pieces: &[&[u8]], tx: &mut TxBatch) -> usize {
        let len = DATA_OVERHEAD + pieces.iter().map(|p| p.len()).sum::<usize>();
        let control = pieces
            .first()
            .is_some_and(|p| p.first() == Some(&(Kind::Control as u8)));
        let result = self.seal(now, path, len, 1, len, tx, |out| {
            let mut at = DATA_HEADER;
            for piece in pieces {
                if let Some(place) = out.get_mut(at..at + piece.len()) {
                    place.copy_from_slice(piece);
                }
                at += piece.len();
            }
        });
        match result {
            Ok(()) => {
                if control {
                    self.ledger.control += len as u64;
                }
                len
            }
            Err(reason) => {
                self.drops.count(reason);
                0
            }
        }
    }

    /// Cuts `payload` into pieces of `cut` bytes, each behind `template` (patched by `patch(segment, index, last)`), and seals them as trains.
    /// Returns session, bytes and packets.
    fn seal_cut(
        &mut self,
        now: Instant,
        session: SessionId,
        template: &[u8],
        payload: &[u8],
        cut: usize,
        tx: &mut TxBatch,
        patch: impl Fn(&mut [u8], usize, bool),
    ) -> Result<(SessionId, usize, usize), DropReason> {
        let path = self
            .sessions
            .get(&session.0)
            .and_then(|s| s.path)
            .ok_or(DropReason::NoPath)?;
        let stride = DATA_OVERHEAD + template.len() + cut;
        let per_train = TRAIN_SEGMENTS.min(TRAIN_BYTES / stride).max(1);
        let pieces = payload.len().div_ceil(cut).max(1);
        let mut bytes = 0;
        let mut done = 0;
        while done < pieces {
            let count = per_train.min(pieces - done);
            let from = done * cut;
            let part = &payload[from..payload.len().min(from + count * cut)];
            let len = count * (DATA_OVERHEAD + template.len()) + part.len();
            let stride_now = stride.min(len);
            self.seal(now, path, stride_now, count, len, tx, |out| {
                for (index, segment) in out.chunks_mut(stride_now).enumerate() {
                    let piece = &part[index * cut..part.len().min((index + 1) * cut)];
                    let inner = &mut segment[DATA_HEADER..];
                    inner[..template.len()].copy_from_slice(template);
                    patch(inner, done + index, done + index + 1 == pieces);
                    inner[template.len()..template.len() + piece.len()].copy_from_slice(piece);
                }
            })?;
            bytes += len;
            done += count;
        }
        Ok((session, bytes, pieces))
    }

    /// Seals a train of `count` datagrams, `stride` apart and `len` bytes in all, that `fill` writes (inner packets at their places).
    fn seal(
        &mut self,
        now: Instant,
        path_id: PathId,
        stride: usize,
        count: usize,
        len: usize,
        tx: &mut TxBatch,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), DropReason> {
        let path = self.paths.get_mut(&path_id.0).ok_or(DropReason::NoPath)?;
        let link = self.links.get_mut(&path.egress.link.0).ok_or(DropReason::NoPath)?;
        let first = path.take_counters(now, count as u64).map_err(|e| match e {
            CannotSend::NoKey => DropReason::NoKey,
            CannotSend::Exhausted => DropReason::CounterExhausted,
        })?;
        let out = tx.reserve(len).ok_or(DropReason::TooLong)?;
        fill(out);
        seal_train(path, first, out, stride);
        tx.commit(link.remote, stride, len);
        link.traffic.tx_bytes += len as u64;
        link.traffic.tx_packets += count as u64;
        let session = path.session;
        let rekey = path.wants_rekey();
        if let Some(session) = self.sessions.get_mut(&session.0) {
            session.traffic.tx_bytes += len as u64;
            session.traffic.tx_packets += count as u64;
            session.sent = Some(now);
        }
        if rekey {
            self.emit(Event::RekeyNeeded { session, path: path_id });
        }
        Ok(())
    }

    /// Notes a service's bytes, and the node's.
    pub(crate) fn account(&mut self, account: Option<u32>, payload: usize, overhead: usize) {
        self.ledger.payload += payload as u64;
        self.ledger.overhead += overhead as u64;
        if let Some(account) = account {
            let entry = self.accounts.entry(account).or_default();
            entry.account = account;
            entry.payload_bytes += payload as u64;
            entry.overhead_bytes += overhead as u64;
        }
    }
}

fn seal_train<A: Aead>(path: &Path<A>, first: u64, out: &mut [u8], stride: usize) {
    let Some(slot) = path.slots.get(path.send_slot).and_then(Option::as_ref) else {
        return;
    };
    A::seal_train(&slot.send, first, out, stride, DATA_HEADER);
    let label = path.egress.label.0;
    for (index, packet) in out.chunks_mut(stride).enumerate() {
        write_header(packet, label, first + index as u64, &path.egress_key);
    }
}

/// Writes a data packet's clear header, hop tag included; the AEAD tag must stand at its end already.
pub(crate) fn write_header(packet: &mut [u8], label: u32, counter: u64, hop: &HopKey) {
    if let Some(&tag) = packet.last_chunk::<TAG>() {
        let hop_tag = hop.tag(label, counter, &tag);
        DataHeader {
            label,
            counter,
            hop_tag,
        }
        .write(packet);
    }
}

/// Lowers the MSS option of a SYN to what a datagram carries (RFC 9293, 3.7.1).
fn clamp_mss(options: &mut [u8]) {
    // `options` begins behind the elided checksum: urgent pointer, then options.
    let mut at = 2;
    while let Some(&kind) = options.get(at) {
        match kind {
            0 => return,
            1 => at += 1,
            _ => {
                let Some(&len) = options.get(at + 1) else { return };
                if len < 2 {
                    return;
                }
                if kind == 2
                    && len == 4
                    && let Some(value) = options.get_mut(at + 2..at + 4)
                {
                    let mss = u16::from_be_bytes([value[0], value[1]]).min(MSS);
                    value.copy_from_slice(&mss.to_be_bytes());
                    return;
                }
                at += usize::from(len);
            }
        }
    }
}
