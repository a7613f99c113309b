//! Echoes, and what the ends tell each other about packets that went no further.

use crate::aead::Aead;
use crate::api::*;
use crate::buffers::RxBatch;
use crate::core::Core;
use crate::deliver::ports;
use crate::flows::{LocalKey, Watch, WireKey};
use crate::icmp;
use crate::stats::DropReason;
use crate::time::Instant;
use crate::wire::*;

/// Why the far end refused: its policy lists no such service.
const NOT_LISTED: u16 = 1;

impl<A: Aead> Core<A> {
    /// A sealed "denied" for a caller that we admitted: its own node tells its program.
    pub(crate) fn refuse(
        &mut self,
        now: Instant,
        id: SessionId,
        protocol: u8,
        source_port: u16,
        destination_port: u16,
        rx: &mut RxBatch,
    ) {
        let report = ErrorReport {
            class: ErrorClass::Denied,
            protocol,
            value: NOT_LISTED,
            source_port,
            destination_port,
        };
        self.report(now, id, report, &mut rx.tx);
    }

    /// Hop limit used up here: its sender may be tracing the route.
    pub(crate) fn expired(&mut self, now: Instant, id: SessionId, kind: Kind, body: &[u8], rx: &mut RxBatch) {
        let (protocol, (source_port, destination_port)) = match kind {
            Kind::Tcp => (protocol::TCP, ports(body)),
            Kind::Udp => (protocol::UDP, ports(body)),
            _ => (protocol::ICMP, (0, ports(body).1)),
        };
        let report = ErrorReport {
            class: ErrorClass::HopLimit,
            protocol,
            value: 0,
            source_port,
            destination_port,
        };
        self.report(now, id, report, &mut rx.tx);
    }

    pub(crate) fn echo(
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
        let Some(hop_limit) = header.hop_limit.checked_sub(1).filter(|&limit| limit > 0) else {
            self.expired(now, id, Kind::Echo, body, rx);
            return Err(DropReason::HopLimit);
        };
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
        let [p0, p1] = local.local_port.to_be_bytes();
        let mut message = [kind, 0, 0, 0, p0, p1, q0, q1];
        let number = if v4 { protocol::ICMP } else { protocol::ICMP6 };
        let length = message.len() + data.len();
        let pseudo = if v4 {
            0
        } else {
            pseudo_header_sum(local.peer, local.own, number, length)
        };
        let sum = checksum(sum_bytes(sum_bytes(pseudo, &message), data));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let repr = IpRepr {
            source: local.peer,
            destination: local.own,
            protocol: number,
            traffic_class: header.traffic_class,
            hop_limit,
            identification: Some(rx.tun.identify(1)),
        };
        let mut head = [0; 40];
        let at = repr.write(&mut head, length);
        rx.tun
            .push_whole(&[&VnetHeader::default().bytes(), &head[..at], &message, data]);
        self.account(None, data.len(), DATA_OVERHEAD + INNER_HEADER + body.len() - data.len());
        Ok(())
    }

    /// A report about a packet of ours: told to the program with its own flow's headers; nothing of the report's is believed beyond that.
    pub(crate) fn error(&mut self, id: SessionId, report: ErrorReport, rx: &mut RxBatch) -> Result<(), DropReason> {
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
        let index = self.flows.by_wire(&key).ok_or(DropReason::NotAFlow)?;
        let flow = self.flows.get_mut(index).ok_or(DropReason::NotAFlow)?;
        if let Watch::Media(..) = flow.watch {
            // The viewer's program has gone; its camera will notice by itself.
            return Ok(());
        }
        icmp::tell(&mut rx.tun, flow, report.class, report.value);
        if report.class == ErrorClass::Denied {
            let told = core::mem::replace(&mut flow.closed, true);
            if !told && report.protocol != protocol::ICMP {
                self.emit(Event::FlowDenied {
                    session: id,
                    protocol: report.protocol,
                    port: remote_port,
                    reason: report.value,
                });
            }
        }
        Ok(())
    }
}
