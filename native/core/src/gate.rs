//! What a handshake message passes before the control logic spends a thought on it: cheap tests first, dear ones last.

use crate::api::Remote;
use crate::hash::{KeyedMap, KeyedState};
use crate::keyed::{blake2b_128_keyed, blake2b_256, cookie_key, mac1_key, same};
use crate::stats::DropReason;
use crate::tables::within_rate;
use crate::time::{Duration, Instant};
use crate::wire::{COOKIE_LEN, HANDSHAKE_LEN, MAC_LEN};
use chacha20poly1305::{AeadInPlace, KeyInit, XChaCha20Poly1305};
use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;

const MAC1_AT: usize = HANDSHAKE_LEN - 2 * MAC_LEN;
const MAC2_AT: usize = HANDSHAKE_LEN - MAC_LEN;
/// A cookie is good for this long, and one period more.
const COOKIE_PERIOD: Duration = Duration::from_secs(120);
/// Initiations a second that pass without a cookie; more, and sources must prove that they get our answers.
const UNLOADED: u32 = 64;
/// Each source's share once it has: sustained per second, and at once.
const RATE: u64 = 10;
const BURST: u64 = 20;
/// Sources remembered at most; only sources that showed a cookie take a place.
const SOURCES: usize = 4_096;
/// Neighbours that we called lately and whose answers therefore pass: how many are remembered, for how long, and answers of each.
const EXPECTED: usize = 64;
const EXPECTED_FOR: Duration = Duration::from_secs(10);
const ANSWERS: u32 = 8;
/// Answers a second that pass from elsewhere: a neighbour with several addresses may answer from another than the one that we called.
const UNEXPECTED: u32 = 16;

/// The verdict on a handshake message.
pub enum Verdict {
    /// To the control logic.
    Pass,
    /// Dropped.
    Drop(DropReason),
    /// Dropped, but told how to come again.
    Cookie([u8; COOKIE_LEN]),
}

struct Bucket {
    tokens_micros: u64,
    at: Instant,
}

struct Expected {
    address: SocketAddr,
    at: Instant,
    answers: u32,
}

/// Gates for one node.
pub struct Gate {
    mac1: [u8; 32],
    cookie: [u8; 32],
    seed: [u8; 32],
    drawn: u64,
    secrets: [[u8; 32]; 2],
    rotated: Instant,
    window_at: Instant,
    in_window: u32,
    loaded_until: Instant,
    sources: KeyedMap<IpAddr, Bucket>,
    expected: VecDeque<Expected>,
    unexpected: (Instant, u32),
}

impl Gate {
    /// For the node with this public key; `seed` is secret randomness.
    pub fn new(node_key: &[u8; 32], seed: [u8; 32]) -> Self {
        let mut gate = Self {
            mac1: mac1_key(node_key),
            cookie: cookie_key(node_key),
            seed,
            drawn: 0,
            secrets: [[0; 32]; 2],
            rotated: Instant::default(),
            window_at: Instant::default(),
            in_window: 0,
            loaded_until: Instant::default(),
            expected: VecDeque::with_capacity(EXPECTED),
            unexpected: (Instant::default(), 0),
            sources: KeyedMap::with_hasher(KeyedState::new(
                *blake2b_256(&[&seed, b"sources"]).first_chunk().unwrap_or(&[0; 16]),
            )),
        };
        gate.secrets = [gate.draw(), gate.draw()];
        gate
    }

    fn draw(&mut self) -> [u8; 32] {
        self.drawn += 1;
        blake2b_256(&[&self.seed, b"gate", &self.drawn.to_le_bytes()])
    }

    /// Judges message 1, whose length and type have been checked.
    pub fn initiation(&mut self, now: Instant, from: Remote, message: &[u8]) -> Verdict {
        if !self.mac1_holds(message) {
            return Verdict::Drop(DropReason::BadMac1);
        }
        if now.since(self.rotated) > COOKIE_PERIOD {
            self.secrets = [self.draw(), self.secrets[0]];
            self.rotated = now;
        }
        if now.since(self.window_at) >= Duration::from_secs(1) {
            self.window_at = now;
            self.in_window = 0;
        }
        self.in_window = self.in_window.saturating_add(1);
        if self.in_window > UNLOADED {
            self.loaded_until = now + Duration::from_secs(5);
        }
        let bare = without_mac2(message);
        let proven = !bare && self.mac2_holds(from, message);
        // A wrong mac2 is told apart from none also without load, so that no bit of a message can be changed unnoticed: a stale cookie gets a new one.
        if !proven && (now < self.loaded_until || !bare) {
            return Verdict::Cookie(self.cookie_reply(from, message));
        }
        if proven && !self.take(now, from) {
            return Verdict::Drop(DropReason::RateLimited);
        }
        Verdict::Pass
    }

    /// We are about to send a handshake message there: answers may come.
    pub fn expect(&mut self, now: Instant, address: SocketAddr) {
        self.expected
            .retain(|e| e.address != address && now.since(e.at) < EXPECTED_FOR);
        if self.expected.len() >= EXPECTED {
            self.expected.pop_front();
        }
        self.expected.push_back(Expected {
            address,
            at: now,
            answers: 0,
        });
    }

    /// Judges message 2: mac1 under our own key, no mac2; what it answers is the control logic's to know.
    pub fn response(&mut self, now: Instant, from: Remote, message: &[u8]) -> Verdict {
        if !self.mac1_holds(message) {
            return Verdict::Drop(DropReason::BadMac1);
        }
        if !without_mac2(message) {
            return Verdict::Drop(DropReason::Malformed);
        }
        self.answer(now, from)
    }

    /// Judges a cookie, or message 2 after its mac1: a flood of forged answers must not drown the true one.
    pub fn answer(&mut self, now: Instant, from: Remote) -> Verdict {
        let known = self
            .expected
            .iter_mut()
            .find(|e| e.address == from.address && now.since(e.at) < EXPECTED_FOR);
        let passes = match known {
            Some(expected) => {
                expected.answers = expected.answers.saturating_add(1);
                expected.answers <= ANSWERS
            }
            None => within_rate(&mut self.unexpected, now, UNEXPECTED),
        };
        if passes {
            Verdict::Pass
        } else {
            Verdict::Drop(DropReason::RateLimited)
        }
    }

    fn mac1_holds(&self, message: &[u8]) -> bool {
        match (message.get(..MAC1_AT), message.get(MAC1_AT..MAC2_AT)) {
            (Some(covered), Some(mac1)) => same(&blake2b_128_keyed(&self.mac1, &[covered]), mac1),
            _ => false,
        }
    }

    fn mac2_holds(&self, from: Remote, message: &[u8]) -> bool {
        let (Some(covered), Some(mac2)) = (message.get(..MAC2_AT), message.get(MAC2_AT..)) else {
            return false;
        };
        self.secrets.iter().any(|secret| {
            let cookie = cookie_for(secret, from);
            same(&blake2b_128_keyed(&cookie, &[covered]), mac2)
        })
    }

    fn cookie_reply(&mut self, from: Remote, message: &[u8]) -> [u8; COOKIE_LEN] {
        let mut reply = [0; COOKIE_LEN];
        reply[..4].copy_from_slice(&3u32.to_be_bytes());
        if let Some(index) = message.get(4..8) {
            reply[4..8].copy_from_slice(index);
        }
        let random = self.draw();
        let (nonce, _) = random.split_at(24);
        reply[8..32].copy_from_slice(nonce);
        let mut sealed = cookie_for(&self.secrets[0], from);
        let aad = message.get(MAC1_AT..MAC2_AT).unwrap_or(&[]);
        let cipher = XChaCha20Poly1305::new(&self.cookie.into());
        if let Ok(tag) = cipher.encrypt_in_place_detached(nonce.into(), aad, &mut sealed) {
            reply[32..48].copy_from_slice(&sealed);
            reply[48..].copy_from_slice(&tag);
        }
        reply
    }

    fn take(&mut self, now: Instant, from: Remote) -> bool {
        let source = prefix(from.address.ip());
        let full = BURST * 1_000_000;
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&source) {
            // Sources that have rested long enough for a full bucket lose nothing by being forgotten.
            self.sources
                .retain(|_, b| b.tokens_micros + now.since(b.at).as_micros() * RATE < full);
            if self.sources.len() >= SOURCES {
                return false;
            }
        }
        let bucket = self.sources.entry(source).or_insert(Bucket {
            tokens_micros: full,
            at: now,
        });
        bucket.tokens_micros = full.min(bucket.tokens_micros + now.since(bucket.at).as_micros() * RATE);
        bucket.at = now;
        let allowed = bucket.tokens_micros >= 1_000_000;
        if allowed {
            bucket.tokens_micros -= 1_000_000;
        }
        allowed
    }
}

/// Whether the place for mac2 is empty.
fn without_mac2(message: &[u8]) -> bool {
    message
        .get(MAC2_AT..)
        .is_some_and(|mac2| mac2.iter().all(|&byte| byte == 0))
}

fn cookie_for(secret: &[u8; 32], from: Remote) -> [u8; 16] {
    let port = from.address.port().to_be_bytes();
    match from.address.ip() {
        IpAddr::V4(ip) => blake2b_128_keyed(secret, &[&ip.octets(), &port]),
        IpAddr::V6(ip) => blake2b_128_keyed(secret, &[&ip.octets(), &port]),
    }
}

/// What counts as one source: an IPv4 address, an IPv6 /64.
fn prefix(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => {
            let mut octets = ip.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(node: &[u8; 32], cookie: Option<[u8; 16]>) -> Vec<u8> {
        let mut m = vec![9; HANDSHAKE_LEN];
        let mac1 = blake2b_128_keyed(&mac1_key(node), &[&m[..MAC1_AT]]);
        m[MAC1_AT..MAC2_AT].copy_from_slice(&mac1);
        m[MAC2_AT..].fill(0);
        if let Some(cookie) = cookie {
            let mac2 = blake2b_128_keyed(&cookie, &[&m[..MAC2_AT]]);
            m[MAC2_AT..].copy_from_slice(&mac2);
        }
        m
    }

    fn remote(port: u16) -> Remote {
        Remote::new(0, ([192, 0, 2, 1], port).into())
    }

    #[test]
    fn under_load_a_source_must_show_that_it_gets_our_answers_and_then_has_its_share() {
        let node = [5; 32];
        let mut gate = Gate::new(&node, [1; 32]);
        let now = Instant::from_micros(1);
        for _ in 0..UNLOADED {
            assert!(matches!(
                gate.initiation(now, remote(1), &message(&node, None)),
                Verdict::Pass
            ));
        }
        let Verdict::Cookie(reply) = gate.initiation(now, remote(1), &message(&node, None)) else {
            panic!("no cookie")
        };
        let asked = message(&node, None);
        let mut cookie: [u8; 16] = reply[32..48].try_into().unwrap();
        XChaCha20Poly1305::new(&cookie_key(&node).into())
            .decrypt_in_place_detached(
                reply[8..32].into(),
                &asked[MAC1_AT..MAC2_AT],
                &mut cookie,
                reply[48..].into(),
            )
            .unwrap();
        let with = message(&node, Some(cookie));
        assert!(
            matches!(gate.initiation(now, remote(2), &with), Verdict::Cookie(_)),
            "another port has another cookie"
        );
        for _ in 0..BURST {
            assert!(matches!(gate.initiation(now, remote(1), &with), Verdict::Pass));
        }
        assert!(matches!(
            gate.initiation(now, remote(1), &with),
            Verdict::Drop(DropReason::RateLimited)
        ));
    }

    #[test]
    fn a_wrong_mac2_is_noticed_without_load_too() {
        let node = [5; 32];
        let mut gate = Gate::new(&node, [1; 32]);
        let now = Instant::from_micros(1);
        let wrong = message(&node, Some([1; 16]));
        assert!(matches!(gate.initiation(now, remote(1), &wrong), Verdict::Cookie(_)));
        assert!(matches!(
            gate.response(now, remote(1), &wrong),
            Verdict::Drop(DropReason::Malformed)
        ));
        assert!(matches!(
            gate.initiation(now, remote(1), &message(&node, None)),
            Verdict::Pass
        ));
    }

    #[test]
    fn a_message_for_another_node_is_noise() {
        let mut gate = Gate::new(&[5; 32], [1; 32]);
        let verdict = gate.initiation(Instant::default(), remote(1), &message(&[6; 32], None));
        assert!(matches!(verdict, Verdict::Drop(DropReason::BadMac1)));
    }

    #[test]
    fn forged_answers_do_not_drown_the_one_that_is_expected() {
        let mut gate = Gate::new(&[5; 32], [1; 32]);
        let now = Instant::from_micros(5_000_000);
        let answer = message(&[5; 32], None);
        gate.expect(now, remote(7).address);
        let passed = (0..1000)
            .filter(|_| matches!(gate.response(now, remote(9), &answer), Verdict::Pass))
            .count();
        assert_eq!(passed, UNEXPECTED as usize);
        assert!(matches!(gate.response(now, remote(7), &answer), Verdict::Pass));
        let foreign = message(&[6; 32], None);
        assert!(matches!(
            gate.response(now, remote(7), &foreign),
            Verdict::Drop(DropReason::BadMac1)
        ));
    }
}
