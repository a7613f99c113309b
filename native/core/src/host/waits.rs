//! Connections that are over, but whose stragglers may still come (RFC 9293's TIME-WAIT): a few words of memory each, few, and not for long.

use super::Flow;
use super::tcp::Header;
use crate::flows::tcp_flags as flag;
use crate::hash::{KeyedMap, KeyedState};
use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// How long: by then the far end has sent its FIN again, should our last acknowledgement be lost.
const LONG: Duration = Duration::from_secs(10);
const MOST: usize = 1_024;

pub struct Waits {
    words: KeyedMap<Flow, (u64, Header)>,
    order: VecDeque<(Instant, u64, Flow)>,
    count: u64,
}

impl Waits {
    pub fn new(state: KeyedState) -> Self {
        Self {
            words: KeyedMap::with_hasher(state),
            order: VecDeque::new(),
            count: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// `word` is what stragglers are answered with.
    pub fn add(&mut self, now: Instant, flow: Flow, word: Header) {
        self.expire(now);
        if self.order.len() >= MOST {
            self.forget_first();
        }
        self.count += 1;
        self.words.insert(flow, (self.count, word));
        self.order.push_back((now + LONG, self.count, flow));
    }

    pub fn has(&self, flow: &Flow) -> bool {
        self.words.contains_key(flow)
    }

    /// Forgets those that have waited long enough.
    pub fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, ..)| *until <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, count, flow)) = self.order.pop_front()
            && self.words.get(&flow).is_some_and(|(there, _)| *there == count)
        {
            self.words.remove(&flow);
        }
    }

    /// A segment came for one that is over. `Some`: what to answer, if anything; `None`: it begins a new connection, or there is no such one.
    pub fn on_segment(&mut self, flow: &Flow, header: &Header) -> Option<Option<Header>> {
        let (_, word) = self.words.get(flow)?;
        let ahead = header.seq.wrapping_sub(word.ack) as i32;
        let opens = header.flags & (flag::SYN | flag::ACK | flag::RST) == flag::SYN;
        if opens && ahead > 0 {
            self.words.remove(flow);
            return None;
        }
        // A reset could only be meant to end the wait too early (RFC 1337).
        Some((!header.has(flag::RST)).then_some(*word))
    }
}
