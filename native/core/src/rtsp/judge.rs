//! What becomes of each segment of a watched connection.

use super::rewrite::{Answers, Asks};
use super::stream::Taken;
use super::{Mode, PATIENCE, Watched};
use crate::aead::Aead;
use crate::core::Core;
use crate::flows::tcp_flags;
use crate::time::Instant;

/// A TCP segment as the helper sees it.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub payload: &'a [u8],
}

impl<'a> Seen<'a> {
    /// From a header, with or without its checksum: what counts here stands before it.
    pub fn new(header: &[u8], payload: &'a [u8]) -> Option<Self> {
        let h: &[u8; 14] = header.first_chunk()?;
        Some(Self {
            seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
            ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
            flags: h[13],
            payload,
        })
    }

    fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }
}

/// What becomes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Goes on.
    Pass,
    /// The bytes in [`Rtsp::out`] go instead.
    Instead { seq: u32, flags: u8 },
    /// Doesn't.
    Drop,
    /// Neither does anything else of this connection: both ends are told.
    Cut,
}

impl Watched {
    /// Met in the middle of a connection at the gateway: a segment with bytes of a side that isn't read yet. What becomes of it, if it isn't
    /// read now.
    fn meet(&mut self, asks: bool, seen: &Seen) -> Option<Verdict> {
        if asks {
            // Only the camera knows where the client's next byte belongs, and tells when it is asked, by a byte that it has already.
            return Some(Verdict::Instead {
                seq: seen.seq.wrapping_sub(1),
                flags: tcp_flags::ACK,
            });
        }
        self.answers.meet(seen.seq, false);
        None
    }
}

impl<A: Aead> Core<A> {
    /// Reads a segment of a watched connection: of the client's if `asks`, else of the camera's.
    pub(crate) fn rtsp_segment(&mut self, now: Instant, index: u32, asks: bool, seen: Seen) -> Verdict {
        let Some(mut watched) = self.rtsp.take(index) else {
            return Verdict::Pass;
        };
        let mut out = core::mem::take(&mut self.rtsp.out);
        let verdict = self.judge(now, index, &mut watched, asks, seen, &mut out);
        if seen.has(tcp_flags::FIN | tcp_flags::RST) || verdict == Verdict::Cut {
            self.end_media(&mut watched);
        }
        if verdict == Verdict::Cut {
            watched.mode = Mode::Cut;
        }
        self.rtsp.out = out;
        self.rtsp.put(index, watched);
        verdict
    }

    fn judge(
        &mut self,
        now: Instant,
        index: u32,
        watched: &mut Watched,
        asks: bool,
        seen: Seen,
        out: &mut Vec<u8>,
    ) -> Verdict {
        if seen.has(tcp_flags::SYN) {
            let first = seen.seq.wrapping_add(1);
            let stream = if asks { &watched.asks } else { &watched.answers };
            let known = stream.first() == Some(first) && watched.mode == Mode::Reading;
            if asks && !known {
                self.end_media(watched);
                watched.restart(first);
            } else if !asks && !known && watched.mode == Mode::Reading {
                watched.answers.begin(first);
            }
            // Bytes in a SYN come again behind it.
            out.clear();
            return if seen.payload.is_empty() {
                Verdict::Pass
            } else {
                Verdict::Instead {
                    seq: seen.seq,
                    flags: seen.flags & !(tcp_flags::FIN | tcp_flags::PSH),
                }
            };
        }
        let gateway = watched.service.is_some();
        let met = gateway && watched.mode == Mode::Passing;
        if seen.has(tcp_flags::ACK) {
            let other = if asks { &mut watched.answers } else { &mut watched.asks };
            if other.first().is_some() {
                other.acknowledged(seen.ack);
            } else if met {
                other.meet(seen.ack, true);
            }
        }
        match watched.mode {
            Mode::Cut => return Verdict::Drop,
            _ if seen.has(tcp_flags::RST) && seen.payload.is_empty() => return Verdict::Pass,
            _ if seen.has(tcp_flags::RST) => {
                out.clear();
                return Verdict::Instead {
                    seq: seen.seq,
                    flags: seen.flags,
                };
            }
            Mode::Passing if !gateway => return Verdict::Pass,
            Mode::Passing | Mode::Reading => {}
        }
        let stream = if asks { &watched.asks } else { &watched.answers };
        if stream.first().is_none() {
            // Bytes of a side whose SYN we haven't seen: it comes again if the other side hasn't seen it either.
            let verdict = match (seen.payload.is_empty(), gateway) {
                (true, _) => Some(Verdict::Pass),
                (false, true) if met => {
                    out.clear();
                    watched.meet(asks, &seen)
                }
                (false, true) => Some(Verdict::Drop),
                (false, false) => {
                    watched.mode = Mode::Passing;
                    Some(Verdict::Pass)
                }
            };
            if let Some(verdict) = verdict {
                return verdict;
            }
        }
        let taken = self.read(now, watched, asks, seen, out);
        let carried_out = self.act(now, index, watched);
        match taken {
            Taken::Pass if carried_out => Verdict::Pass,
            Taken::Send { seq, fin, whole } if carried_out => Self::instead(seen, seq, fin, whole),
            Taken::Drop if carried_out => Verdict::Drop,
            _ if !gateway => {
                watched.mode = Mode::Passing;
                Verdict::Pass
            }
            // A camera that loses its place in what it says goes on where media need none of us. A client that does is cut off.
            _ if carried_out && !asks && !met && watched.talk.needs_nothing() => {
                watched.mode = Mode::Passing;
                watched.asks.lose();
                watched.answers.lose();
                match watched.answers.resume(&mut Answers(&mut watched.talk), out) {
                    Taken::Send { seq, fin, whole } => Self::instead(seen, seq, fin, whole),
                    _ => Verdict::Cut,
                }
            }
            _ => Verdict::Cut,
        }
    }

    /// Other bytes with a segment's own flags, as far as they still hold.
    fn instead(seen: Seen, seq: u32, fin: bool, whole: bool) -> Verdict {
        let mut flags = seen.flags & !(tcp_flags::FIN | tcp_flags::PSH);
        if whole {
            flags |= seen.flags & tcp_flags::PSH;
        }
        if fin {
            flags |= tcp_flags::FIN;
        }
        Verdict::Instead { seq, flags }
    }

    fn read(&mut self, now: Instant, watched: &mut Watched, asks: bool, seen: Seen, out: &mut Vec<u8>) -> Taken {
        let fin = seen.has(tcp_flags::FIN);
        if asks {
            watched.talk.last_media = self.rtsp.last_media;
            watched.talk.room = self.has_room(watched);
        }
        let taken = if !asks {
            let mut reader = Answers(&mut watched.talk);
            watched.answers.take(seen.seq, seen.payload, fin, &mut reader, out)
        } else {
            let waited = watched.asks.waits();
            if waited && now.since(watched.waits_since) > PATIENCE {
                let refused: Vec<_> = watched.talk.unanswered().collect();
                for media in refused {
                    watched.talk.reserved(media, None);
                }
                watched.asks.resume(&mut Asks(&mut watched.talk), out)
            } else {
                let mut reader = Asks(&mut watched.talk);
                let taken = watched.asks.take(seen.seq, seen.payload, fin, &mut reader, out);
                if watched.asks.waits() && !waited {
                    watched.waits_since = now;
                }
                taken
            }
        };
        if asks {
            self.rtsp.last_media = watched.talk.last_media;
        }
        taken
    }
}
