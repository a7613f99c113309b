//! Two hosts, a line between them, and a clock that only we turn.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use thicket_core::wire::{IpPacket, Transport, VnetHeader, gso};
use thicket_core::{Duration, Host, HostConfig, HostEvent, Instant, StreamId};

/// What the line does to packets, per cent of each, and how long it takes (microseconds, and up to so many more).
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub lost: u64,
    pub twice: u64,
    pub delay: u64,
    pub jitter: u64,
    /// Super-packets arrive whole, as from a line that never fills.
    pub whole: bool,
}

pub const FAIR: Weather = Weather {
    lost: 0,
    twice: 0,
    delay: 5_000,
    jitter: 0,
    whole: false,
};

pub const FOUL: Weather = Weather {
    lost: 5,
    twice: 2,
    delay: 5_000,
    jitter: 2_000,
    whole: false,
};

pub const MTU: u16 = 1_400;

pub struct Pair {
    pub hosts: [Host; 2],
    pub now: Instant,
    pub weather: Weather,
    /// Nothing passes.
    pub cut: bool,
    /// Packets that either host sent, longest of their payloads, and bytes.
    pub packets: u64,
    pub longest: usize,
    pub bytes: u64,
    /// Bytes that the line carries a second (0: all), and that may wait before it.
    pub narrow: (u64, u64),
    free: [Instant; 2],
    queue: BTreeMap<(Instant, u64), (usize, VnetHeader, Vec<u8>)>,
    count: u64,
    random: u64,
}

pub fn config(seed: u8, budget: usize, streams: u32) -> HostConfig {
    HostConfig {
        seed: [seed; 32],
        mtu: MTU,
        budget,
        streams,
    }
}

/// Addresses of the hosts.
pub fn address(host: usize) -> IpAddr {
    [198, 18, 0, 1 + host as u8].into()
}

pub fn at(host: usize, port: u16) -> SocketAddr {
    SocketAddr::new(address(host), port)
}

impl Pair {
    pub fn new(weather: Weather) -> Self {
        Self::with(weather, 16 << 20, 1_000)
    }

    pub fn with(weather: Weather, budget: usize, streams: u32) -> Self {
        Self {
            hosts: [
                Host::new(&config(1, budget, streams)),
                Host::new(&config(2, budget, streams)),
            ],
            now: Instant::from_micros(1_000_000),
            weather,
            cut: false,
            packets: 0,
            longest: 0,
            bytes: 0,
            narrow: (0, 0),
            free: [Instant::default(); 2],
            queue: BTreeMap::new(),
            count: 0,
            random: 0x9e37_79b9,
        }
    }

    pub fn random(&mut self) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    pub fn seed(mut self, seed: u64) -> Self {
        self.random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        self
    }

    /// What hosts have to send goes onto the line.
    pub fn send(&mut self) {
        let mut packet = Vec::new();
        for from in 0..2 {
            while let Some(vnet) = self.hosts[from].poll_packet(self.now, &mut packet) {
                if self.weather.whole {
                    self.put(1 - from, vnet, packet.clone());
                    continue;
                }
                for segment in cut(vnet, &packet) {
                    self.put(1 - from, VnetHeader::default(), segment);
                }
            }
        }
    }

    fn put(&mut self, to: usize, vnet: VnetHeader, packet: Vec<u8>) {
        self.packets += 1;
        self.longest = self.longest.max(packet.len());
        self.bytes += packet.len() as u64;
        if self.cut || self.random() % 100 < self.weather.lost {
            return;
        }
        let mut leaves = self.now;
        if let (rate @ 1.., room) = self.narrow {
            let begins = self.free[to].max(self.now);
            if begins.since(self.now).as_micros() * rate / 1_000_000 > room {
                return;
            }
            leaves = begins + Duration::from_micros(packet.len() as u64 * 1_000_000 / rate);
            self.free[to] = leaves;
        }
        let copies = 1 + usize::from(self.random() % 100 < self.weather.twice);
        for _ in 0..copies {
            let late = self.random() % (self.weather.jitter + 1);
            let at = leaves + Duration::from_micros(self.weather.delay + late);
            self.count += 1;
            self.queue.insert((at, self.count), (to, vnet, packet.clone()));
        }
    }

    /// Goes on to the next thing that happens; `false`: nothing will before `until`.
    pub fn step(&mut self, until: Instant) -> bool {
        self.send();
        let timers = self.hosts.iter().map(Host::poll_timeout);
        let arrival = self.queue.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = timers.chain(arrival).min().filter(|next| *next <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(next);
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (to, vnet, packet) = entry.remove();
            self.hosts[to].handle_packet(self.now, vnet, &packet);
        }
        for host in &mut self.hosts {
            host.handle_timeout(self.now);
        }
        true
    }

    /// Time passes.
    pub fn pass(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while self.step(until) {}
    }

    /// Goes on until `done` says something, for an hour of the line's time at most.
    pub fn until<R>(&mut self, mut done: impl FnMut(&mut Self) -> Option<R>) -> R {
        let end = self.now + Duration::from_secs(3_600);
        loop {
            if let Some(result) = done(self) {
                self.send();
                return result;
            }
            assert!(self.now < end, "nothing more happens");
            self.step(end);
        }
    }

    /// The next event of a host.
    pub fn event(&mut self, host: usize) -> HostEvent {
        self.until(|pair| pair.hosts[host].poll_event())
    }

    /// The first calls the second, which answers: both ends of the stream.
    pub fn open(&mut self) -> (StreamId, StreamId) {
        let calling = self.hosts[0].connect(self.now, address(0), at(1, 80)).unwrap();
        let HostEvent::Incoming { stream, own, peer } = self.event(1) else {
            panic!("no call")
        };
        assert_eq!((own, peer.ip()), (at(1, 80), address(0)));
        assert!(self.hosts[1].accept(stream));
        assert_eq!(self.event(0), HostEvent::Connected(calling));
        assert_eq!(self.event(1), HostEvent::Connected(stream));
        (calling, stream)
    }
}

/// Cuts a super-packet of TCP as the core does on its way to the line.
pub fn cut(vnet: VnetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let ip = IpPacket::parse(packet).expect("a host sends whole packets");
    let Transport::Tcp { header } = ip.transport else {
        return vec![packet.to_vec()];
    };
    if vnet.gso_type & !gso::ECN == gso::NONE {
        return vec![packet.to_vec()];
    }
    let at = ip.transport_at;
    assert_eq!(usize::from(vnet.header_len), at + header);
    let (head, payload) = packet.split_at(at + header);
    let size = usize::from(vnet.gso_size);
    let count = payload.len().div_ceil(size);
    let seq = u32::from_be_bytes(packet[at + 4..at + 8].try_into().unwrap());
    payload
        .chunks(size)
        .enumerate()
        .map(|(index, piece)| {
            let mut segment = [head, piece].concat();
            segment[at + 4..at + 8].copy_from_slice(&seq.wrapping_add((index * size) as u32).to_be_bytes());
            if index + 1 < count {
                segment[at + 13] &= !9;
            }
            let (place, len) = if ip.source.is_ipv4() {
                (2, segment.len())
            } else {
                (4, segment.len() - 40)
            };
            segment[place..place + 2].copy_from_slice(&(len as u16).to_be_bytes());
            segment
        })
        .collect()
}
