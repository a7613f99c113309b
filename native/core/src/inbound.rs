//! Flows of the far end's: made where policy lists the service, refused, or shown to the host.

use crate::aead::Aead;
use crate::api::*;
use crate::buffers::RxBatch;
use crate::core::Core;
use crate::deliver::ports;
use crate::flows::{FlowIndex, LocalKey, WireKey, tcp_flags};
use crate::merge::{Merge, Segment};
use crate::stats::DropReason;
use crate::tables::within_rate;
use crate::time::{Duration, Instant};
use crate::wire::*;
use core::net::IpAddr;

/// For so long after a session began, TCP connections that outlived our restart may show themselves: so many segments a second.
const RESUME_FOR: Duration = Duration::from_secs(60);
const RESUMES: u32 = 64;

impl<A: Aead> Core<A> {
    /// The flow of a packet from the wire, made if policy lists the service; else refused, and said so. `None`: a TCP segment of no flow
    /// that may belong to a connection which outlived our restart.
    pub(crate) fn wire_flow(
        &mut self,
        now: Instant,
        segment: &Segment,
        body: &[u8],
        rx: &mut RxBatch,
    ) -> Result<Option<FlowIndex>, DropReason> {
        let id = segment.session;
        let protocol = if segment.kind == Kind::Tcp {
            protocol::TCP
        } else {
            protocol::UDP
        };
        let (source, destination) = ports(body);
        let key = WireKey {
            session: id,
            protocol,
            wire_port: destination,
            remote_port: source,
        };
        if let Some(index) = self.flows.by_wire(&key) {
            return Ok(Some(index));
        }
        let session = self.sessions.get_mut(&id.0).ok_or(DropReason::NoSession)?;
        let listed = session
            .policy
            .inbound
            .iter()
            .find(|s| s.protocol == protocol && s.port == destination)
            .copied();
        let Some(service) = listed else {
            if !session.policy.outbound {
                self.refuse(now, id, protocol, source, destination, rx);
                return Err(DropReason::PortNotAllowed);
            }
            const SHAPE: u8 = tcp_flags::SYN | tcp_flags::RST | tcp_flags::ACK;
            let going_on = protocol == protocol::TCP && body.get(13).is_some_and(|f| f & SHAPE == tcp_flags::ACK);
            let young = now.since(session.opened) < RESUME_FOR;
            if going_on && young && destination >= 1_024 && within_rate(&mut session.resumed, now, RESUMES) {
                return Ok(None);
            }
            return Err(DropReason::NotAFlow);
        };
        let (own, peer) = self.first_pair(id, service.v6).ok_or(DropReason::NoSession)?;
        let local = LocalKey {
            own,
            peer,
            protocol,
            local_port: destination,
            remote_port: source,
        };
        let account = self.account_place(service.account);
        let index = self
            .flows
            .add(now, local, id, true, account)
            .ok_or(DropReason::TooManyFlows)?;
        if !self.watch_service(now, index, &service) {
            self.flows.remove_wire(&key);
            return Err(DropReason::TooManyFlows);
        }
        Ok(Some(index))
    }

    /// Shows a segment to the host by each of the session's pairs of addresses. A host that has the connection answers, and its answer makes
    /// the flow; one that hasn't resets it, and a reset of no flow goes nowhere.
    pub(crate) fn resume(
        &mut self,
        segment: &Segment,
        buffer: &[u8],
        body: &[u8],
        rx: &mut RxBatch,
    ) -> Result<(), DropReason> {
        let session = self.sessions.get(&segment.session.0).ok_or(DropReason::NoSession)?;
        if session.pairs.iter().all(|pair| pair.v4.is_none() && pair.v6.is_none()) {
            return Err(DropReason::NotAFlow);
        }
        let (source, destination) = ports(body);
        for (own, peer) in session.pairs.iter().flat_map(|pair| [pair.v4, pair.v6]).flatten() {
            let local = LocalKey {
                own,
                peer,
                protocol: protocol::TCP,
                local_port: destination,
                remote_port: source,
            };
            let mut merge = Merge::default();
            merge.push(segment, FlowIndex::NONE, local, buffer, self.config.tun, &mut rx.tun);
            merge.finish(buffer, self.config.tun, &mut rx.tun);
        }
        Ok(())
    }

    pub(crate) fn first_pair(&self, id: SessionId, v6: bool) -> Option<(IpAddr, IpAddr)> {
        let pairs = &self.sessions.get(&id.0)?.pairs;
        pairs.iter().find_map(|pair| if v6 { pair.v6 } else { pair.v4 })
    }
}
