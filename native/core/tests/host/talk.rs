//! Programs at both hosts that say much and compare what they hear.

use crate::line::Pair;
use thicket_core::{Closed, HostEvent, StreamId};

/// What one end says, and how far it is.
pub struct End {
    pub host: usize,
    pub stream: StreamId,
    say: usize,
    said: usize,
    hear: usize,
    pub heard: usize,
    pub finished: bool,
    pub closed: Option<Closed>,
    salt: u8,
}

/// The byte at a place of what is said.
pub fn byte(at: usize, salt: u8) -> u8 {
    ((at as u32).wrapping_mul(2_654_435_761) >> 13) as u8 ^ salt
}

impl End {
    pub fn new(host: usize, stream: StreamId, say: usize, hear: usize) -> Self {
        Self {
            host,
            stream,
            say,
            said: 0,
            hear,
            heard: 0,
            finished: false,
            closed: None,
            salt: host as u8,
        }
    }

    /// Says and hears what it can; it finishes with its last byte.
    pub fn turn(&mut self, pair: &mut Pair) {
        let host = &mut pair.hosts[self.host];
        let mut buffer = vec![0; 16 << 10];
        loop {
            let count = host.read(self.stream, &mut buffer);
            if count == 0 {
                break;
            }
            for &got in &buffer[..count] {
                assert_eq!(got, byte(self.heard, 1 - self.salt), "byte {}", self.heard);
                self.heard += 1;
            }
        }
        while self.said < self.say {
            let piece: Vec<u8> = (self.said..self.say.min(self.said + 10_000))
                .map(|at| byte(at, self.salt))
                .collect();
            let taken = host.write(self.stream, &piece);
            self.said += taken;
            if self.said == self.say {
                host.finish(self.stream);
            }
            if taken < piece.len() {
                break;
            }
        }
    }

    pub fn on_event(&mut self, event: &HostEvent) {
        match event {
            HostEvent::Finished(stream) if *stream == self.stream => self.finished = true,
            HostEvent::Closed { stream, reason } if *stream == self.stream => self.closed = Some(*reason),
            _ => {}
        }
    }

    pub fn is_done(&self) -> bool {
        self.closed.is_some() && self.heard >= self.hear
    }
}

/// Lets all of them talk until they have nothing more to say. Nobody looks but when there is an event: a missing one stops the talk.
pub fn talk(pair: &mut Pair, ends: &mut [End]) {
    for end in ends.iter_mut() {
        end.turn(pair);
    }
    pair.until(|pair| {
        for host in 0..2 {
            while let Some(event) = pair.hosts[host].poll_event() {
                let stream = match &event {
                    HostEvent::Connected(stream)
                    | HostEvent::Readable(stream)
                    | HostEvent::Writable(stream)
                    | HostEvent::Finished(stream)
                    | HostEvent::Closed { stream, .. } => *stream,
                    _ => continue,
                };
                if let Some(end) = ends.iter_mut().find(|end| (end.host, end.stream) == (host, stream)) {
                    end.on_event(&event);
                    end.turn(pair);
                }
            }
        }
        ends.iter().all(End::is_done).then_some(())
    });
}
