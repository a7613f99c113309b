//! What a shell in user-space mode asks about policy: whose service somebody calls, and which connections may go on no longer.

use crate::aead::Aead;
use crate::api::{Service, SessionId};
use crate::core::Core;
use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;

impl<A: Aead> Core<A> {
    /// The service that a session's far end (`peer`) may reach at `own`, by its protocol's number and its port there.
    pub fn service_of(&self, own: IpAddr, peer: IpAddr, protocol: u8, port: u16) -> Option<(SessionId, Service)> {
        let (session, services) = self.services(own, peer)?;
        let service = services
            .iter()
            .find(|s| (s.protocol, s.port, s.v6) == (protocol, port, own.is_ipv6()))?;
        Some((session, *service))
    }

    /// The device behind `own`, if that far end may ask it for echoes.
    pub fn device_of(&self, own: IpAddr, peer: IpAddr) -> Option<IpAddr> {
        let (session, services) = self.services(own, peer)?;
        self.sessions.get(&session.0).filter(|s| s.policy.echo)?;
        let service = services.iter().find(|s| s.v6 == own.is_ipv6() && !s.is_local())?;
        Some(service.target.ip())
    }

    fn services(&self, own: IpAddr, peer: IpAddr) -> Option<(SessionId, &[Service])> {
        let &id = self.pairs.get(&(own, peer))?;
        Some((id, &self.sessions.get(&id.0)?.policy.inbound))
    }

    /// From now on [`Core::poll_cut`] tells; it must be asked after every command.
    pub fn tell_cuts(&mut self) {
        self.flows.cuts.get_or_insert_with(VecDeque::new);
    }

    /// A TCP connection that policy has ended: our end, and the far one. Nothing passes to it any more, so its stream is over.
    pub fn poll_cut(&mut self) -> Option<(SocketAddr, SocketAddr)> {
        self.flows.cuts.as_mut()?.pop_front()
    }
}
