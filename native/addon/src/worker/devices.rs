//! Media of RTSP connections, between the core and devices.

use super::tun::write_tun;
use super::{Events, RECEIVE_CALLS, Worker};
use thicket_core::MediaRequest;

impl<E: Events> Worker<E> {
    /// Media from a device.
    pub(super) fn read_media(&mut self, token: u64) -> Result<(), String> {
        for _ in 0..RECEIVE_CALLS {
            let media = self.team.media();
            let Some((id, rtcp, socket)) = media.ready(token) else {
                return Ok(());
            };
            // Reports about earlier sends come this way, and are nobody's here.
            let received = socket.receive(&mut self.receive, &mut self.received);
            drop(media);
            if received.is_err() || self.received.is_empty() {
                break;
            }
            let now = self.team.now();
            let mut state = self.team.state();
            for received in &self.received {
                let bytes = self.receive.buffer(received.buffer, received.len);
                let (from, segment) = (received.from, received.segment);
                state
                    .core
                    .handle_media(now, id, rtcp, from, bytes, segment, &mut self.tx);
                if self.tx.is_full() {
                    drop(state);
                    self.outlets.send_made(&mut self.tx, &self.poll);
                    self.tx.clear();
                    state = self.team.state();
                }
            }
            drop(state);
            self.hear();
        }
        self.send_made();
        Ok(())
    }

    /// Opens and closes media sockets as the core wants them.
    pub(super) fn serve_media(&mut self) {
        if self.first.is_none() {
            return;
        }
        loop {
            let request = self.team.state().core.poll_media();
            match request {
                Some(MediaRequest::Reserve { id, lan, ports }) => {
                    let reserved = self.team.media().reserve(&self.poll, id, lan, &ports).ok();
                    let now = self.team.now();
                    let queue = self.queue();
                    let Some(rx) = self.rx.first_mut() else { return };
                    self.team.state().core.media_reserved(now, id, reserved, rx);
                    write_tun(&self.team, self.number, queue, &rx.tun, &[]);
                    self.outlets.send_made(&mut rx.tx, &self.poll);
                    rx.clear();
                }
                Some(MediaRequest::Release { id }) => self.team.media().release(id),
                None => return,
            }
        }
    }
}
