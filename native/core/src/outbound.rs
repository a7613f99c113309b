//! From the TUN to the wire: find the session, take headers away, cut, seal.

use crate::aead::Aead;
use crate::api::SessionId;
use crate::buffers::{Place, Share, TunBatch, TxBatch};
use crate::core::Core;
use crate::flows::{FlowIndex, LocalKey, Watch, WireKey, side, tcp_flags};
use crate::icmp;
use crate::rtsp::{Seen, Verdict};
use crate::stats::DropReason;
use crate::time::Instant;
use crate::wire::*;

impl<A: Aead> Core<A> {
    /// Takes one packet from the TUN: `vnet` is its virtio header (all zero where the TUN has none). What goes on the wire is put into `tx`;
    /// what the local sender must be told (ICMP errors) into `tun`.
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
        verify_checksum(vnet, &ip, bytes)?;
        let ports = bytes.first_chunk().filter(|_| !matches!(ip.transport, Transport::Icmp));
        tx.share = Share::of_flow(
            ip.source,
            ip.destination,
            ports.map_or(0, |&ports| u32::from_ne_bytes(ports)),
        );
        let result = match ip.transport {
            Transport::Tcp { header } => self.outbound_tcp(now, vnet, &ip, bytes, header, tx, tun),
            Transport::Udp => self.outbound_udp(now, vnet, &ip, packet, bytes, tx, tun),
            Transport::Icmp => self.outbound_icmp(now, &ip, bytes, tx),
            Transport::Fragment { .. } => Err(DropReason::NotCarried),
        };
        if matches!(
            result,
            Err(DropReason::NoSession | DropReason::NoPath | DropReason::NoKey)
        ) {
            self.need(now, ip.source, ip.destination);
        }
        result
    }

    /// The flow of a packet from the host, made if the session lets us. `reply`: it can only be part of something that the far end began.
    fn local_flow(&mut self, now: Instant, key: LocalKey, reply: bool) -> Result<FlowIndex, DropReason> {
        if let Some(index) = self.flows.by_local(&key) {
            return Ok(index);
        }
        let &id = self.pairs.get(&(key.own, key.peer)).ok_or(DropReason::NoSession)?;
        let policy = &self.sessions.get(&id.0).ok_or(DropReason::NoSession)?.policy;
        // A reply whose flow we forgot (a restart): the service that it comes from is still allowed, so its flow may go on.
        let service = policy
            .inbound
            .iter()
            .find(|s| s.protocol == key.protocol && s.port == key.local_port)
            .copied()
            .filter(|_| reply);
        let (inbound, account) = match service {
            Some(service) => (true, Some(service.account)),
            _ if policy.outbound => (false, None),
            _ => return Err(DropReason::OutboundNotAllowed),
        };
        let place = account.and_then(|account| self.account_place(account));
        let index = self
            .flows
            .add(now, key, id, inbound, place)
            .ok_or(DropReason::TooManyFlows)?;
        if let Some(service) = service
            && !self.watch_service(now, index, &service)
        {
            self.flows.remove_if(|flow| flow.local == key);
            return Err(DropReason::TooManyFlows);
        }
        Ok(index)
    }

    #[allow(clippy::too_many_arguments)]
    fn outbound_tcp(
        &mut self,
        now: Instant,
        vnet: VnetHeader,
        ip: &IpPacket,
        bytes: &[u8],
        header_len: usize,
        tx: &mut TxBatch,
        tun: &mut TunBatch,
    ) -> Result<(), DropReason> {
        let (header, payload) = bytes.split_at_checked(header_len).ok_or(DropReason::NotCarried)?;
        let (&fixed, options) = header.split_first_chunk::<20>().ok_or(DropReason::NotCarried)?;
        let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, _, flags, ..] = fixed;
        let key = LocalKey {
            own: ip.source,
            peer: ip.destination,
            protocol: protocol::TCP,
            local_port: u16::from_be_bytes([s0, s1]),
            remote_port: u16::from_be_bytes([d0, d1]),
        };
        let opens = flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN;
        // A reset of no flow ends nothing that we know; it is our host's answer to a segment shown by `resume`.
        if flags & tcp_flags::RST != 0 && self.flows.by_local(&key).is_none() {
            return Err(DropReason::NotAFlow);
        }
        let index = self.local_flow(now, key, !opens)?;
        if opens {
            self.watch_program(now, index);
        }
        let seq = u32::from_be_bytes([q0, q1, q2, q3]);
        let flow = self.flows.get_mut(index).ok_or(DropReason::NotAFlow)?;
        flow.note_tcp(now, flags, side::OURS);
        // Its own transport misses it: perhaps because it was too long for the path.
        let again = !payload.is_empty() && flow.next_seq.wrapping_sub(seq) as i32 > 0 && flow.next_seq != 0;
        let control = u32::from(flags & tcp_flags::SYN != 0) + u32::from(flags & tcp_flags::FIN != 0);
        flow.next_seq = seq.wrapping_add(payload.len() as u32).wrapping_add(control);
        let before = flow.acked;
        flow.acked = u32::from_be_bytes([a0, a1, a2, a3]);
        let (wire, account, watch, waiting) = (flow.wire, flow.account, flow.watch, flow.waiting.take());
        let plain = flags == tcp_flags::ACK && payload.is_empty() && watch == Watch::Nobody;
        let supersedes = plain && (1..1 << 31).contains(&flow.acked.wrapping_sub(before));
        if again {
            self.resent(now, wire.session);
        }
        let mut segment = Outgoing { seq, flags, payload };
        let mut out = Vec::new();
        if let Watch::Rtsp(id) = watch {
            // Who opened the connection asks.
            let asks = self.flows.get(index).is_some_and(|flow| !flow.inbound);
            let seen = Seen::new(header, payload).ok_or(DropReason::NotCarried)?;
            match self.rtsp_segment(now, id, asks, seen) {
                Verdict::Pass => {}
                Verdict::Instead { seq, flags } => {
                    out = core::mem::take(&mut self.rtsp.out);
                    segment = Outgoing {
                        seq,
                        flags,
                        payload: &out,
                    };
                }
                Verdict::Drop => return Err(DropReason::Rtsp),
                Verdict::Cut => {
                    self.rtsp_cut(now, id, index, tx, tun);
                    return Err(DropReason::Rtsp);
                }
            }
        }
        let payload = segment.payload.len();
        let template = Template::new(ip, wire, &fixed, options);
        if supersedes && waiting.is_some_and(|place| template.supersede(place, tx)) {
            if let Some(flow) = self.flows.get_mut(index) {
                flow.waiting = waiting;
            }
            return Ok(());
        }
        let place = plain.then(|| tx.place());
        let result = self.seal_segment(now, vnet, wire, template, segment, tx);
        if out.capacity() > 0 {
            self.rtsp.out = out;
        }
        let sent = result?;
        self.account(account, payload, sent.saturating_sub(payload));
        if let Some(flow) = self.flows.get_mut(index) {
            flow.waiting = place;
        }
        Ok(())
    }

    /// Cuts and seals a TCP segment. Returns bytes sent.
    fn seal_segment(
        &mut self,
        now: Instant,
        vnet: VnetHeader,
        wire: WireKey,
        mut template: Template,
        Outgoing { seq, flags, payload }: Outgoing,
        tx: &mut TxBatch,
    ) -> Result<usize, DropReason> {
        if flags & tcp_flags::SYN != 0 {
            let mss = self.mss(self.path_of(wire.session)?);
            clamp_mss(template.options(), mss);
        }
        let template = template.bytes();
        let size = match vnet.gso_type & !gso::ECN {
            gso::TCPV4 | gso::TCPV6 if vnet.gso_size > 0 => payload.len().min(usize::from(vnet.gso_size)),
            _ => payload.len(),
        };
        let most = self.room(now, wire.session, template.len() + size) - template.len();
        let cut = size.clamp(1, most);
        self.seal_cut(now, wire.session, template, payload, cut, tx, |segment, index, last| {
            segment[8..12].copy_from_slice(&seq.wrapping_add((index * cut) as u32).to_be_bytes());
            let mut bits = flags;
            if !last {
                bits &= !(tcp_flags::FIN | tcp_flags::PSH);
            }
            if index > 0 {
                bits &= !tcp_flags::CWR;
            }
            segment[17] = bits;
        })
    }

    #[allow(clippy::too_many_arguments)]
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
        let (&[s0, s1, d0, d1, l0, l1, ..], payload) = bytes.split_first_chunk::<8>().ok_or(DropReason::NotCarried)?;
        let key = LocalKey {
            own: ip.source,
            peer: ip.destination,
            protocol: protocol::UDP,
            local_port: u16::from_be_bytes([s0, s1]),
            remote_port: u16::from_be_bytes([d0, d1]),
        };
        let index = self.local_flow(now, key, false)?;
        let flow = self.flows.get_mut(index).ok_or(DropReason::NotAFlow)?;
        if let Watch::Media(..) = flow.watch {
            // A camera's, which come by their own sockets.
            return Err(DropReason::NotAFlow);
        }
        flow.last = now;
        let (wire, account) = (flow.wire, flow.account);
        let inner = InnerHeader {
            kind: Kind::Udp,
            traffic_class: ip.traffic_class,
            hop_limit: ip.hop_limit,
        };
        let many = vnet.gso_type & !gso::ECN == gso::UDP_L4 && vnet.gso_size > 0;
        let (payload, size) = if many {
            (payload, usize::from(vnet.gso_size))
        } else {
            // Bytes behind the datagram's own length aren't its.
            let length = usize::from(u16::from_be_bytes([l0, l1])).saturating_sub(8);
            let payload = payload.get(..length).ok_or(DropReason::NotCarried)?;
            (payload, payload.len())
        };
        let ports = (wire.wire_port, wire.remote_port);
        let result = self.seal_datagrams(now, wire.session, account, inner, ports, payload, size, tx);
        if result == Err(DropReason::TooLong) {
            let most = self.room_in_parts(now, wire.session, payload.len());
            icmp::too_big(tun, ip, packet, most - INNER_HEADER - 4 + 28);
        }
        result
    }

    /// Seals UDP datagrams of `size` bytes (the last may be shorter), from the first port to the second.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn seal_datagrams(
        &mut self,
        now: Instant,
        session: SessionId,
        account: Option<u32>,
        inner: InnerHeader,
        (source, destination): (u16, u16),
        payload: &[u8],
        size: usize,
        tx: &mut TxBatch,
    ) -> Result<(), DropReason> {
        let mut template = [0u8; INNER_HEADER + 4];
        template[..4].copy_from_slice(&inner.bytes());
        template[4..6].copy_from_slice(&source.to_be_bytes());
        template[6..8].copy_from_slice(&destination.to_be_bytes());
        let size = size.max(1);
        if template.len() + size <= self.room(now, session, template.len() + size) {
            let sent = self.seal_cut(now, session, &template, payload, size, tx, |_, _, _| ())?;
            self.account(account, payload.len(), sent.saturating_sub(payload.len()));
            return Ok(());
        }
        for datagram in payload.chunks(size) {
            let sent = self.seal_in_parts(now, session, &template, datagram, tx)?;
            self.account(account, datagram.len(), sent.saturating_sub(datagram.len()));
        }
        Ok(())
    }

    fn outbound_icmp(&mut self, now: Instant, ip: &IpPacket, bytes: &[u8], tx: &mut TxBatch) -> Result<(), DropReason> {
        match icmp::parse(ip.source.is_ipv4(), bytes).ok_or(DropReason::NotCarried)? {
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
                    self.local_flow(now, key, false)?
                };
                let flow = self.flows.get_mut(index).ok_or(DropReason::NotAFlow)?;
                flow.last = now;
                let wire = flow.wire;
                let inner = InnerHeader {
                    kind: Kind::Echo,
                    traffic_class: ip.traffic_class,
                    hop_limit: ip.hop_limit,
                };
                let mut template = [0u8; INNER_HEADER + 6];
                template[..4].copy_from_slice(&inner.bytes());
                template[4] = u8::from(reply);
                template[6..8].copy_from_slice(&wire.wire_port.to_be_bytes());
                template[8..].copy_from_slice(&sequence.to_be_bytes());
                let len = template.len() + data.len();
                let sent = if len > self.room(now, wire.session, len) {
                    self.seal_in_parts(now, wire.session, &template, data, tx)?
                } else {
                    self.seal_cut(now, wire.session, &template, data, data.len().max(1), tx, |_, _, _| ())?
                };
                self.account(None, data.len(), sent.saturating_sub(data.len()));
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
                let index = self.flows.by_local(&key).ok_or(DropReason::NotAFlow)?;
                let wire = self.flows.get(index).ok_or(DropReason::NotAFlow)?.wire;
                let report = ErrorReport {
                    class,
                    protocol: wire.protocol,
                    value: mtu,
                    source_port: wire.remote_port,
                    destination_port: wire.wire_port,
                };
                self.report(now, wire.session, report, tx);
            }
        }
        Ok(())
    }
}

/// What each piece of a segment begins with: inner header, then the TCP header without its checksum.
struct Template {
    bytes: [u8; INNER_HEADER + 58],
    len: usize,
}

impl Template {
    fn new(ip: &IpPacket, wire: WireKey, fixed: &[u8; 20], options: &[u8]) -> Self {
        let mut bytes = [0; INNER_HEADER + 58];
        let inner = InnerHeader {
            kind: Kind::Tcp,
            traffic_class: ip.traffic_class,
            hop_limit: ip.hop_limit,
        };
        bytes[..4].copy_from_slice(&inner.bytes());
        bytes[4..20].copy_from_slice(&fixed[..16]);
        bytes[20..22].copy_from_slice(&fixed[18..]);
        bytes[22..22 + options.len()].copy_from_slice(options);
        bytes[4..6].copy_from_slice(&wire.wire_port.to_be_bytes());
        bytes[6..8].copy_from_slice(&wire.remote_port.to_be_bytes());
        Self {
            bytes,
            len: 22 + options.len(),
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    fn options(&mut self) -> &mut [u8] {
        self.bytes.get_mut(22..self.len).unwrap_or(&mut [])
    }

    /// Takes the place of an acknowledgement of the same flow that waits in the same batch, and says less: what the far end would have read in two packets
    /// stands in one (RFC 3449, section 5.2.1). Not when either carries more than an acknowledgement: a SACK, a mark, data before it.
    fn supersede(&self, place: Place, tx: &mut TxBatch) -> bool {
        /// Two no-operations, then a timestamp.
        const TIMESTAMP: [u8; 4] = [1, 1, 8, 10];
        let new = self.bytes();
        let options = new.get(22..).unwrap_or(&[]);
        let common = options.is_empty() || options.len() == 12 && options.starts_with(&TIMESTAMP);
        // Up to the acknowledgement, header length and flags, and the options' kinds; the window may differ.
        let kinds = 22..new.len().min(26);
        let same = |old: &[u8]| {
            [0..12, 16..18, kinds.clone()]
                .into_iter()
                .all(|part| old.get(part.clone()) == new.get(part))
        };
        match tx.unsealed(place, new.len()) {
            Some(old) if common && new.get(16).is_some_and(|byte| byte & 0x0f == 0) && same(old) => {
                old.copy_from_slice(new);
                true
            }
            _ => false,
        }
    }
}

/// Sequence number, flags and payload of a segment on its way out.
struct Outgoing<'a> {
    seq: u32,
    flags: u8,
    payload: &'a [u8],
}

/// Checksums aren't sent, so they must be known good: begun only (ours to finish), vouched for by the kernel, or verified here.
fn verify_checksum(vnet: VnetHeader, ip: &IpPacket, bytes: &[u8]) -> Result<(), DropReason> {
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

/// Lowers the MSS option of a SYN to `most` (RFC 9293, 3.7.1).
pub(crate) fn clamp_mss(options: &mut [u8], most: u16) {
    let mut at = 0;
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
                    let mss = u16::from_be_bytes([value[0], value[1]]).min(most);
                    value.copy_from_slice(&mss.to_be_bytes());
                    return;
                }
                at += usize::from(len);
            }
        }
    }
}
