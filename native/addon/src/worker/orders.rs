//! The control logic's orders, and what it is told.

use super::{Events, First, Order, Worker};
use crate::aead::Sealer;
use std::sync::atomic::Ordering;
use std::sync::mpsc::TryRecvError;
use thicket_core::{Command, Core};

/// Commands taken between packets.
const COMMANDS: usize = 256;

impl<E: Events> Worker<E> {
    /// Carries out what the control logic ordered. Who waits for counters gets them behind the orders before.
    pub(super) fn take_orders(&mut self) {
        let Some(First { orders, asked }) = &self.first else {
            return;
        };
        let now = self.team.now();
        let mut taken = 0;
        let mut state = self.team.state();
        loop {
            if taken >= COMMANDS && !asked.load(Ordering::Relaxed) {
                // More may wait: come back at once, after the packets.
                if let Some(wake) = self.team.wakes.get(self.number) {
                    wake.wake();
                }
                break;
            }
            taken += 1;
            match orders.try_recv() {
                Ok(Order::Command(command)) => {
                    let policy = changes_policy(&command);
                    self.review |= policy;
                    self.stirred |= policy;
                    state.core.command(now, *command, &mut self.tx);
                    if self.tx.is_full() {
                        drop(state);
                        self.outlets.send_made(&mut self.tx, &self.poll);
                        self.tx.clear();
                        state = self.team.state();
                    }
                }
                Ok(Order::User(order)) => {
                    drop(state);
                    if let Some(mut user) = self.team.user() {
                        user.order(now, order);
                        self.stirred = true;
                    }
                    state = self.team.state();
                }
                Ok(Order::Stats(reply)) => {
                    asked.store(false, Ordering::Relaxed);
                    let own = (self.sealed(), self.opened());
                    if let Some(known) = state.trains.get_mut(self.number) {
                        *known = own;
                    }
                    let counters = state.stats(now);
                    drop(state);
                    let _ = reply.send((counters, self.team.user().map(|user| user.stats())));
                    state = self.team.state();
                }
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => {
                    self.team.stop();
                    break;
                }
                Err(TryRecvError::Empty) => break,
            }
        }
        drop(state);
        self.send_made();
    }

    /// Between packets: JavaScript stands still while it waits for counters.
    pub(super) fn hear(&mut self) {
        if self
            .first
            .as_ref()
            .is_some_and(|first| first.asked.load(Ordering::Relaxed))
        {
            self.take_orders();
        }
    }

    /// Hands on what the core has to say.
    pub(super) fn tell(&self, core: &mut Core<Sealer>) {
        let Some(first) = core.poll_event() else { return };
        let mut events = vec![first];
        while let Some(event) = core.poll_event() {
            events.push(event);
        }
        self.events.deliver(events);
    }
}

/// Whether something may no longer pass that did.
const fn changes_policy(command: &Command) -> bool {
    matches!(
        command,
        Command::SessionOpen { .. }
            | Command::SessionAliasRemove { .. }
            | Command::SessionPolicy { .. }
            | Command::SessionRemove { .. }
    )
}
