//! What size of datagram one path carries, found as RFC 8899 does: by sealed probes that the far end answers. ICMP has no say, for anybody can forge it.
//!
//! A path begins at [`BASE`], which every link carries. Only traffic makes probes: who sends nothing longer, or nothing at all, sends none.
//!
//! ```text
//! Unknown ──something longer is to be sent──▶ Probing ──nothing left to try──▶ Settled ──10 min, something longer──▶ Probing
//!                                               ▲ the size fell to BASE           │ long datagrams not heard of
//!                                               └─────── no answer ───── Doubting ◀┘ ── answered ──▶ Settled
//! ```
//!
//! Each round of probes has a short one too: what it doesn't prove to be alive says nothing about sizes.

use crate::time::{Duration, Instant};

/// Longest datagram (UDP payload) before anything is known: 1,280 bytes with IPv6's header, which every link must carry.
pub const BASE: usize = SIZES[0] as usize;
/// Lengths that are tried: what common links leave below the headers of UDP and of IPv4 (28 bytes) or IPv6 (48).
const SIZES: [u16; 13] = [
    1_232, 1_252, 1_272, 1_312, 1_352, 1_372, 1_392, 1_412, 1_432, 1_444, 1_452, 1_464, 1_472,
];
/// The longest for a first link that speaks IPv6.
const LIMIT_V6: u8 = 10;
const LIMIT_V4: u8 = 12;
/// Lengths tried at once, and how often before they count as too long.
pub const AT_ONCE: usize = 3;
const TRIES: u8 = 3;
/// How long an answer may take: before anything is known of the path; at least, once the round's short probe was answered.
const PATIENCE: Duration = Duration::from_secs(1);
const PATIENCE_LEAST: Duration = Duration::from_millis(100);
/// A longer datagram is tried again after so long; where the path was dead, or the size fell more than once, sooner.
const RAISE_AFTER: Duration = Duration::from_secs(600);
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The far end tells of long datagrams that came so often, and not before so many came.
const REPORT_EVERY: Duration = Duration::from_secs(2);
const REPORT_FROM: u32 = 8;
/// Not hearing that after so long, and so many, is a reason to ask.
const UNHEARD_FOR: Duration = Duration::from_secs(3);
const UNHEARD_FROM: u32 = 12;
/// A connection that sends again what it sent before is a reason too: not more often than this, unless so many long datagrams went meanwhile.
const DOUBT_EVERY: Duration = Duration::from_secs(10);
const DOUBT_FROM: u32 = 96;
/// Answers to probes per second.
const ANSWERS: u32 = 50;

/// Probes to send now: datagrams of these lengths, and a short one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probes {
    /// Tells a round's answers from another's.
    pub id: u16,
    /// 0: none.
    pub sizes: [u16; AT_ONCE],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Unknown,
    Probing(Round),
    Doubting(Round),
    Settled { until: Instant },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Round {
    /// Places in [`SIZES`].
    tried: [Option<u8>; AT_ONCE],
    tries: u8,
    /// The short probe was answered.
    alive: bool,
    sent: Instant,
    due: Instant,
}

/// Long datagrams that the far end hasn't told of.
#[derive(Clone, Copy, Debug, Default)]
struct Unheard {
    since: Instant,
    size: u16,
    count: u32,
}

/// Long datagrams that came since we last told.
#[derive(Clone, Copy, Debug, Default)]
struct Came {
    told: Instant,
    size: u16,
    count: u32,
}

/// The size of one path, in our direction, and what we tell the far end about its own.
#[derive(Clone, Debug)]
pub struct PathSize {
    size: u16,
    phase: Phase,
    /// Places in [`SIZES`]: passes; doesn't; the last worth trying.
    passes: u8,
    fails: u8,
    limit: u8,
    id: u16,
    unheard: Unheard,
    came: Came,
    doubted: Instant,
    since_doubt: u32,
    fell: Instant,
    falls: u8,
    answers: (Instant, u32),
}

impl PathSize {
    /// Of a path whose first link speaks IPv6, or IPv4.
    pub fn new(v6: bool) -> Self {
        let limit = if v6 { LIMIT_V6 } else { LIMIT_V4 };
        Self {
            size: SIZES[0],
            phase: Phase::Unknown,
            passes: 0,
            fails: limit + 1,
            limit,
            id: 0,
            unheard: Unheard::default(),
            came: Came::default(),
            doubted: Instant::default(),
            since_doubt: 0,
            fell: Instant::default(),
            falls: 0,
            answers: (Instant::default(), 0),
        }
    }

    /// Longest datagram to send now.
    pub fn size(&self) -> usize {
        usize::from(self.size)
    }

    /// The same, once anything was probed.
    pub fn known(&self) -> Option<usize> {
        (self.phase != Phase::Unknown).then(|| self.size())
    }

    /// What a connection that begins now should reckon with: the size, or the longest, before that was tried.
    pub fn expected(&self) -> usize {
        let hopeful = self.falls == 0 && self.passes == 0 && self.fails > self.limit;
        usize::from(if hopeful { at(self.limit) } else { self.size })
    }

    /// A datagram of `len` bytes could be sent. True when that begins a search: ask [`PathSize::poll`].
    pub fn wants(&mut self, now: Instant, len: usize) -> bool {
        if len <= self.size() || self.passes >= self.limit {
            return false;
        }
        match self.phase {
            Phase::Unknown => {}
            Phase::Settled { until } if now >= until => self.fails = self.limit + 1,
            _ => return false,
        }
        self.search(now);
        true
    }

    /// `count` datagrams longer than [`BASE`], of `len` bytes, go out. True when it is time to ask whether such arrive.
    pub fn sent(&mut self, now: Instant, len: usize, count: usize) -> bool {
        let unheard = &mut self.unheard;
        if unheard.count == 0 {
            unheard.since = now;
            unheard.size = 0;
        }
        unheard.size = unheard.size.max(len.min(usize::from(self.size)) as u16);
        unheard.count = unheard.count.saturating_add(count as u32);
        self.since_doubt = self.since_doubt.saturating_add(count as u32);
        let silent = unheard.count >= UNHEARD_FROM && now.since(unheard.since) >= UNHEARD_FOR;
        silent && now.since(self.doubted) >= UNHEARD_FOR && self.doubt(now)
    }

    /// A connection sends again what it had sent. True as with [`PathSize::sent`].
    pub fn resent(&mut self, now: Instant) -> bool {
        let rare = now.since(self.doubted) >= DOUBT_EVERY || self.since_doubt >= DOUBT_FROM;
        self.unheard.count > 0 && rare && self.doubt(now)
    }

    /// The first link doesn't take datagrams of `len` bytes. True when there is something to do.
    pub fn refused(&mut self, now: Instant, len: usize) -> bool {
        let place = SIZES.iter().position(|&size| usize::from(size) >= len).unwrap_or(0) as u8;
        if place == 0 || self.phase == Phase::Unknown {
            return false;
        }
        let news = place < self.fails;
        self.fails = self.fails.min(place);
        if place <= self.passes {
            self.fall(now);
            return true;
        }
        if news && matches!(self.phase, Phase::Probing(_)) {
            self.search(now);
            return true;
        }
        false
    }

    /// When [`PathSize::poll`] has something to do.
    pub fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Probing(round) | Phase::Doubting(round) => Some(round.due),
            Phase::Unknown | Phase::Settled { .. } => None,
        }
    }

    /// Probes that are to be sent now, if any.
    pub fn poll(&mut self, now: Instant) -> Option<Probes> {
        loop {
            let (Phase::Probing(mut round) | Phase::Doubting(mut round)) = self.phase else {
                return None;
            };
            if now < round.due {
                return None;
            }
            let doubting = matches!(self.phase, Phase::Doubting(_));
            let left = round.tried.iter().flatten().copied().min();
            let Some(left) = left else {
                self.finish(now, doubting);
                continue;
            };
            if round.tries >= TRIES {
                if !round.alive {
                    // Nothing passes at all: that is no matter of sizes.
                    self.phase = Phase::Settled {
                        until: now + AGAIN_AFTER,
                    };
                } else if doubting {
                    self.fall(now);
                } else {
                    self.fails = left;
                    self.search(now);
                }
                continue;
            }
            round.tries += 1;
            round.sent = now;
            round.due = now + PATIENCE;
            self.phase = if doubting {
                Phase::Doubting(round)
            } else {
                Phase::Probing(round)
            };
            self.id = self.id.wrapping_add(1);
            return Some(Probes {
                id: self.id,
                sizes: round.tried.map(|place| place.map_or(0, at)),
            });
        }
    }

    /// The far end got a probe of round `id`.
    pub fn answered(&mut self, now: Instant, id: u16, len: usize) {
        let (Phase::Probing(mut round) | Phase::Doubting(mut round)) = self.phase else {
            return;
        };
        if id != self.id || round.tries == 0 {
            return;
        }
        let doubting = matches!(self.phase, Phase::Doubting(_));
        match SIZES.iter().position(|&size| usize::from(size) == len) {
            Some(place) if round.tried.contains(&Some(place as u8)) => {
                let place = place as u8;
                // Shorter ones would pass too.
                round.tried = round.tried.map(|tried| tried.filter(|&tried| tried > place));
                self.passes = self.passes.max(place);
                self.size = at(self.passes);
                self.heard(len);
            }
            // A length that we didn't probe proves nothing about sizes.
            Some(_) => return,
            None => {}
        }
        round.alive = true;
        // Whatever went with it takes about as long.
        round.due = round.due.min(now + now.since(round.sent).max(PATIENCE_LEAST));
        if round.tried == [None; AT_ONCE] {
            round.due = now;
        }
        self.phase = if doubting {
            Phase::Doubting(round)
        } else {
            Phase::Probing(round)
        };
    }

    /// The far end tells of long datagrams that came.
    pub fn heard(&mut self, len: usize) {
        if len >= usize::from(self.unheard.size) {
            self.unheard.count = 0;
        }
    }

    /// `count` datagrams came, the longest of `len` bytes, which is more than [`BASE`]: the length to tell of, when it is time to.
    pub fn came(&mut self, now: Instant, len: usize, count: u64) -> Option<u16> {
        let came = &mut self.came;
        came.size = came.size.max(len.min(0xffff) as u16);
        came.count = came.count.saturating_add(count.min(0xffff) as u32);
        if came.count < REPORT_FROM || now.since(came.told) < REPORT_EVERY {
            return None;
        }
        let size = came.size;
        *came = Came {
            told: now,
            ..Came::default()
        };
        Some(size)
    }

    /// Whether a probe may be answered.
    pub fn may_answer(&mut self, now: Instant) -> bool {
        crate::tables::within_rate(&mut self.answers, now, ANSWERS)
    }

    fn doubt(&mut self, now: Instant) -> bool {
        if !matches!(self.phase, Phase::Settled { .. }) || self.passes == 0 {
            return false;
        }
        self.doubted = now;
        self.since_doubt = 0;
        self.phase = Phase::Doubting(round(now, [Some(self.passes), None, None]));
        true
    }

    /// Back to what always passes.
    fn fall(&mut self, now: Instant) {
        if now.since(self.fell) >= RAISE_AFTER {
            self.falls = 0;
        }
        self.fails = self.fails.min(self.passes);
        self.passes = 0;
        self.size = SIZES[0];
        self.unheard.count = 0;
        self.fell = now;
        self.falls = self.falls.saturating_add(1);
        if self.falls > 1 {
            // A path that keeps changing is searched ever less often.
            let wait = Duration::from_secs(1 << self.falls.min(9));
            self.phase = Phase::Settled { until: now + wait };
        } else {
            self.search(now);
        }
    }

    fn finish(&mut self, now: Instant, doubting: bool) {
        if doubting {
            self.phase = Phase::Settled {
                until: now + RAISE_AFTER,
            };
        } else {
            self.search(now);
        }
    }

    /// The next round: the longest alone, while it may be that all pass; else some between what passes and what doesn't.
    fn search(&mut self, now: Instant) {
        let (low, high) = (self.passes, self.fails);
        let between = high.saturating_sub(low + 1);
        self.phase = if between == 0 {
            Phase::Settled {
                until: now + RAISE_AFTER,
            }
        } else if high > self.limit {
            Phase::Probing(round(now, [Some(self.limit), None, None]))
        } else {
            let mut tried = [None; AT_ONCE];
            let parts = between.min(AT_ONCE as u8) + 1;
            for (part, place) in (1..parts).zip(&mut tried) {
                *place = Some(low + (between + 1) * part / parts);
            }
            Phase::Probing(round(now, tried))
        };
    }
}

fn at(place: u8) -> u16 {
    SIZES.get(usize::from(place)).copied().unwrap_or(SIZES[0])
}

fn round(now: Instant, tried: [Option<u8>; AT_ONCE]) -> Round {
    Round {
        tried,
        tries: 0,
        alive: false,
        sent: now,
        due: now,
    }
}

#[cfg(test)]
mod tests;
