//! User-space mode: packets between the core and its own TCP/IP host. Whoever opens packets hands them over; the first worker does all the rest.

use super::{Events, Worker};
use crate::team::Team;
use crate::user::{Services, User};
use std::net::IpAddr;
use thicket_core::{Instant, Service, SessionId};

/// Times that the host is asked for packets before the others have their turn.
const TURNS: usize = 8;

impl<E: Events> Worker<E> {
    /// Some socket of user-space mode has something to tell.
    pub(super) fn hear_user(&mut self) {
        if let Some(mut user) = self.team.user() {
            user.hear(self.team.now());
            self.stirred = true;
        }
    }

    /// Lets the host go on, if something has happened, and sends what it has for the core.
    pub(super) fn turn_user(&mut self) {
        if self.first.is_none() {
            return;
        }
        let team = self.team.clone();
        for _ in 0..TURNS {
            if !(team.take_roused() | std::mem::take(&mut self.stirred)) {
                return;
            }
            let Some(mut user) = team.user() else { return };
            let now = team.now();
            if std::mem::take(&mut self.review) {
                while let Some((own, peer)) = team.state().core.poll_cut() {
                    user.cut(now, own, peer);
                }
                user.review(&*team);
            }
            user.turn(now, &*team);
            self.stirred = self.take_host(now, &mut user);
            user.told(&mut self.user_told);
            drop(user);
            self.send_made();
            if !self.user_told.told.is_empty() {
                // What the core said before comes before.
                self.tell(&mut team.state().core);
                self.events.user(std::mem::take(&mut self.user_told));
            }
        }
    }

    /// Hands the core what the host sends, as much as goes in one call; whether there may be more to do at once.
    fn take_host(&mut self, now: Instant, user: &mut User) -> bool {
        let mut state = self.team.state();
        let mut more = true;
        while more && !self.tx.is_full() {
            match user.packet(now, &mut self.packet) {
                Some(vnet) => state
                    .core
                    .handle_tun(now, vnet, &self.packet, &mut self.tx, &mut self.told),
                None => more = false,
            }
        }
        drop(state);
        // What the core says to that itself: errors about what can't be sent.
        if !self.told.writes.is_empty() {
            user.take(now, &self.told, &[]);
            self.told.clear();
            more = true;
        }
        more
    }

    /// When the host has something to do again; that is the first worker's.
    pub(super) fn user_due(&self) -> Instant {
        if self.first.is_none() {
            return Instant::MAX;
        }
        if self.stirred {
            return Instant::default();
        }
        self.team.user().map_or(Instant::MAX, |user| user.due())
    }
}

impl Services for Team {
    fn service(&self, own: IpAddr, peer: IpAddr, protocol: u8, port: u16) -> Option<(SessionId, Service)> {
        self.state().core.service_of(own, peer, protocol, port)
    }

    fn device(&self, own: IpAddr, peer: IpAddr) -> Option<IpAddr> {
        self.state().core.device_of(own, peer)
    }
}
