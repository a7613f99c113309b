//! A viewer that keeps to no rule, what lies between it and the camera, and what it has seen.

use crate::camera::Camera;
use crate::lab::Lab;
use crate::lab::cameras::{ANN, GATEWAY, Player};
use crate::lab::packets::{ACK, PSH};
use std::collections::{BTreeMap, BTreeSet};

/// How the camera's and the gateway's addresses are written.
pub const NEEDLES: [&str; 2] = ["192.168.1.20", "192.168.1.1"];

/// What the viewer has ever seen at each place of the camera's words, over all connections.
#[derive(Default)]
pub struct Seen(pub BTreeMap<u32, BTreeSet<u8>>);

impl Seen {
    /// Whether any choice among it spells an address.
    pub fn address(&self) -> Option<&'static str> {
        NEEDLES.into_iter().find(|needle| {
            self.0.keys().any(|&at| {
                needle.bytes().enumerate().all(|(i, byte)| {
                    let place = self.0.get(&at.wrapping_add(i as u32));
                    place.is_some_and(|bytes| bytes.contains(&byte))
                })
            })
        })
    }
}

/// A viewer and what lies between it and the camera.
pub struct World {
    pub lab: Lab,
    pub player: Player,
    pub camera: Camera,
    /// What the client means to say, and how much of it went out in order.
    pub words: Vec<u8>,
    asked: usize,
    pub seen: Seen,
}

impl World {
    pub fn new() -> Self {
        let mut lab = Lab::cameras();
        // Its own core helps with nothing.
        lab.watches(ANN, Vec::new());
        let player = Player::new(ANN, 5_000);
        let mut world = Self {
            lab,
            player,
            camera: Camera::new(0, 0),
            words: Vec::new(),
            asked: 0,
            seen: Seen::default(),
        };
        world.connect();
        world
    }

    /// With numbers that no connection before had.
    pub fn connect(&mut self) {
        self.player.asked = self.player.asked.wrapping_add(10_000_000);
        self.player.answered = self.player.answered.wrapping_add(10_000_000);
        let player = self.player.clone().shaken(&mut self.lab);
        self.camera = Camera::new(player.asked, player.answered);
        (self.player, self.asked) = (player, 0);
        self.words.clear();
    }

    /// A segment of the client's. `arrives`: all the way; else something behind the gateway loses it.
    pub fn send(&mut self, seq: u32, ack: u32, flags: u8, payload: &[u8], arrives: bool) {
        let packet = self.player.tcp(true, seq, ack, flags, payload);
        self.lab.hand_in(ANN, packet);
        let (heard, _) = self.lab.written(GATEWAY);
        for segment in heard.iter().filter(|_| arrives) {
            if self.camera.hears(segment, ack) {
                self.camera_sends(self.camera.sent, 0);
            }
        }
        self.note();
    }

    /// Bytes of the camera's words from `at` on.
    pub fn camera_sends(&mut self, at: usize, len: usize) {
        let (start, next, reset) = (self.camera.start, self.camera.next(), self.camera.reset);
        if reset {
            return;
        }
        let end = self.camera.said.len().min(at + len);
        let payload = self.camera.said.get(at..end).unwrap_or(&[]).to_vec();
        let seq = start.wrapping_add(at as u32);
        let packet = self.player.tcp(false, seq, next, ACK | PSH, &payload);
        self.lab.hand_in(GATEWAY, packet);
        self.camera.sent = self.camera.sent.max(at + payload.len());
        // What the gateway tells the camera meanwhile.
        let (heard, _) = self.lab.written(GATEWAY);
        for segment in heard {
            self.camera
                .hears(&segment, start.wrapping_add(self.camera.acked as u32));
        }
        self.note();
    }

    fn note(&mut self) {
        let (tcp, udp) = self.lab.written(ANN);
        for segment in tcp {
            for (i, byte) in segment.payload.into_iter().enumerate() {
                let at = segment.seq.wrapping_add(i as u32);
                self.seen.0.entry(at).or_default().insert(byte);
            }
        }
        for datagram in udp {
            let text = String::from_utf8_lossy(&datagram.payload);
            assert!(!NEEDLES.iter().any(|needle| text.contains(needle)), "{text}");
        }
    }

    pub fn client_at(&self, at: usize) -> u32 {
        self.camera.first.wrapping_add(at as u32)
    }

    /// Says everything that it means to, acknowledges everything, and lets the camera say all it has to.
    pub fn talk(&mut self) {
        for _ in 0..40 {
            let at = self.camera.heard.len().min(self.words.len());
            let piece = self
                .words
                .get(at..self.words.len().min(at + 900))
                .unwrap_or(&[])
                .to_vec();
            let ack = self.camera.start.wrapping_add(self.camera.sent as u32);
            let before = (self.camera.heard.len(), self.camera.acked);
            self.send(self.client_at(at), ack, ACK | PSH, &piece, true);
            let from = self.camera.acked;
            self.camera_sends(from, 1_100);
            if self.camera.reset || (self.camera.acked == self.camera.said.len() && before.0 == self.camera.heard.len())
            {
                break;
            }
        }
        self.asked = self.words.len();
    }
}
