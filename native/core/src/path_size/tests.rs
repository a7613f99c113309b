//! The search against simulated paths: one sender, one receiver, a virtual clock, seeded losses.

use super::*;
use proptest::prelude::*;

enum Message {
    Probe(u16, usize),
    Answer(u16, usize),
    Data(usize),
    Report(usize),
}

struct Sim {
    now: Instant,
    near: PathSize,
    far: PathSize,
    carries: usize,
    rtt: Duration,
    loss_percent: u64,
    random: u64,
    under_way: Vec<(Instant, Message)>,
    /// Long datagrams that came, and all bytes of probes.
    came: usize,
    probed: usize,
}

const TICK: Duration = Duration::from_millis(10);
const LONG: usize = 1_472;

impl Sim {
    fn new(carries: usize, rtt_ms: u64, loss_percent: u64, seed: u64) -> Self {
        Self {
            now: Instant::from_micros(1_000_000),
            near: PathSize::new(false),
            far: PathSize::new(false),
            carries,
            rtt: Duration::from_millis(rtt_ms),
            loss_percent,
            random: seed | 1,
            under_way: Vec::new(),
            came: 0,
            probed: 0,
        }
    }

    fn send(&mut self, len: usize, message: Message) {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if len <= self.carries && self.random % 100 >= self.loss_percent {
            let half = Duration::from_millis(self.rtt.as_millis() / 2);
            self.under_way.push((self.now + half, message));
        }
    }

    /// Ten milliseconds, in which `count` packets of `len` bytes want to go.
    fn tick(&mut self, len: usize, count: usize) {
        self.now = self.now + TICK;
        for _ in 0..count {
            self.near.wants(self.now, len);
            let cut = len.min(self.near.size());
            if cut > BASE {
                self.near.sent(self.now, cut, 1);
            }
            self.send(cut, Message::Data(cut));
        }
        if let Some(probes) = self.near.poll(self.now) {
            for len in [46]
                .into_iter()
                .chain(probes.sizes.map(usize::from))
                .filter(|&len| len > 0)
            {
                self.probed += len;
                self.send(len, Message::Probe(probes.id, len));
            }
        }
        let (due, later) = std::mem::take(&mut self.under_way)
            .into_iter()
            .partition(|(at, _)| *at <= self.now);
        self.under_way = later;
        for (_, message) in due {
            match message {
                Message::Probe(id, len) => self.send(46, Message::Answer(id, len)),
                Message::Answer(id, len) => self.near.answered(self.now, id, len),
                Message::Data(len) if len > BASE => {
                    self.came += 1;
                    if let Some(told) = self.far.came(self.now, len, 1) {
                        self.send(46, Message::Report(usize::from(told)));
                    }
                }
                Message::Data(_) => {}
                Message::Report(len) => self.near.heard(len),
            }
        }
    }

    fn run(&mut self, seconds: u64, len: usize, count: usize) {
        for _ in 0..seconds * 100 {
            self.tick(len, count);
        }
    }
}

fn best(carries: usize) -> usize {
    SIZES
        .iter()
        .map(|&size| usize::from(size))
        .filter(|&size| size <= carries)
        .max()
        .unwrap()
}

proptest! {
    #[test]
    fn the_longest_that_passes_is_found_and_then_there_is_silence(
        carries in 1_232usize..1_500, rtt in 1u64..800, v6: bool, seed: u64,
    ) {
        let mut sim = Sim::new(carries, rtt, 0, seed);
        sim.near = PathSize::new(v6);
        sim.run(12, LONG, 3);
        let most = if v6 { carries.min(1_452) } else { carries };
        prop_assert_eq!(sim.near.size(), best(most));
        // Three rounds at most, each three times, besides their short ones.
        prop_assert!(sim.probed <= 9 * 3 * 1_472, "{} bytes", sim.probed);
        let probed = sim.probed;
        sim.run(60, LONG, 3);
        prop_assert_eq!(sim.probed, probed, "reports are proof enough");
    }

    #[test]
    fn a_path_that_shrinks_carries_everything_again_within_seconds(
        before in 1_300usize..1_500, after in 1_232usize..1_300, rtt in 1u64..300, seed: u64,
    ) {
        let mut sim = Sim::new(before, rtt, 0, seed);
        sim.run(12, LONG, 3);
        sim.carries = after;
        sim.run(6, LONG, 3);
        prop_assert!(sim.near.size() <= after, "{} of {after}", sim.near.size());
        sim.run(8, LONG, 3);
        prop_assert_eq!(sim.near.size(), best(after));
    }

    #[test]
    fn losses_only_slow_the_search_down(carries in 1_232usize..1_500, loss in 1u64..15, seed: u64) {
        let mut sim = Sim::new(carries, 40, loss, seed);
        for _ in 0..120 {
            sim.run(1, LONG, 3);
            prop_assert!(sim.near.size() <= carries.min(1_472));
        }
        // One per cent of what the flow itself sent.
        prop_assert!(sim.probed <= 120 * 300 * 1_232 / 100, "{} bytes", sim.probed);
    }

    #[test]
    fn whatever_is_heard_and_whenever_the_size_stays_one_of_those_tried(
        steps in prop::collection::vec((0u8..7, any::<u16>(), 0usize..1_600, 0u64..4_000), 0..200),
    ) {
        let mut size = PathSize::new(false);
        let mut now = Instant::from_micros(1_000_000);
        for (what, id, len, wait) in steps {
            now = now + Duration::from_millis(wait);
            match what {
                0 => { size.wants(now, len); }
                1 => { size.sent(now, len.max(BASE + 1), 5); }
                2 => { size.resent(now); }
                3 => { size.refused(now, len); }
                4 => size.answered(now, id % 8, len),
                5 => size.heard(len),
                _ => { size.poll(now); }
            }
            prop_assert!(SIZES.contains(&size.size) && size.size() >= BASE);
        }
    }
}

#[test]
fn who_sends_nothing_long_probes_nothing_and_who_sends_nothing_any_more_stops() {
    let mut sim = Sim::new(1_472, 20, 0, 7);
    sim.run(60, BASE, 3);
    assert_eq!((sim.probed, sim.near.known()), (0, None));
    sim.run(2, LONG, 1);
    assert_eq!(sim.near.known(), Some(1_472));
    let probed = sim.probed;
    sim.carries = 1_252;
    sim.run(3_600, BASE, 1);
    assert_eq!(sim.probed, probed, "nothing long: nothing to find out");
}

#[test]
fn a_connection_that_sends_again_finds_a_shorter_path_at_once() {
    let mut sim = Sim::new(1_472, 20, 0, 7);
    sim.run(30, LONG, 3);
    sim.carries = 1_300;
    // Its window is full after a few, and then it repeats the first.
    sim.run(1, LONG, 0);
    for _ in 0..4 {
        sim.tick(LONG, 1);
    }
    assert!(sim.near.resent(sim.now));
    assert!(!sim.near.resent(sim.now), "once is enough");
    sim.run(1, LONG, 0);
    assert!(sim.near.size() < 1_300, "{}", sim.near.size());
}

#[test]
fn a_dead_path_says_nothing_about_sizes() {
    let mut sim = Sim::new(1_472, 20, 0, 7);
    sim.run(5, LONG, 3);
    sim.carries = 0;
    sim.run(20, LONG, 3);
    sim.carries = 1_472;
    assert_eq!(sim.near.size(), 1_472);
    // A path that was dead from the start is searched once it lives.
    let mut sim = Sim::new(0, 20, 0, 7);
    sim.run(20, LONG, 3);
    assert_eq!(sim.near.size(), BASE);
    sim.carries = 1_472;
    sim.run(10, LONG, 3);
    assert_eq!(sim.near.size(), 1_472);
}

#[test]
fn a_path_that_grows_is_used_after_ten_minutes_and_one_that_flaps_is_probed_ever_less() {
    let mut sim = Sim::new(1_300, 20, 0, 7);
    sim.run(20, LONG, 1);
    assert_eq!(sim.near.size(), 1_272);
    sim.carries = 1_472;
    sim.run(500, LONG, 1);
    assert_eq!(sim.near.size(), 1_272);
    sim.run(120, LONG, 1);
    assert_eq!(sim.near.size(), 1_472);
    let mut sim = Sim::new(1_472, 20, 0, 7);
    let mut of_minute = Vec::new();
    for _ in 0..5 {
        let before = sim.probed;
        for _ in 0..6 {
            sim.carries = 1_472;
            sim.run(5, LONG, 3);
            sim.carries = 1_232;
            sim.run(5, LONG, 3);
        }
        of_minute.push(sim.probed - before);
    }
    assert!(of_minute[4] * 2 < of_minute[0], "{of_minute:?}");
}

#[test]
fn what_the_first_link_refuses_is_not_tried_further() {
    let mut size = PathSize::new(false);
    let now = Instant::from_micros(1_000_000);
    assert!(size.wants(now, LONG));
    let first = size.poll(now).unwrap();
    assert_eq!(first.sizes, [1_472, 0, 0]);
    assert!(size.refused(now, 1_472));
    let second = size.poll(now).unwrap();
    assert!(second.sizes.iter().all(|&len| len < 1_472), "{second:?}");
    size.answered(now, second.id, 1_392);
    assert_eq!(size.size(), 1_392);
    // The interface shrinks under a size in use.
    assert!(size.refused(now, 1_300));
    assert_eq!(size.size(), BASE);
    assert!(!size.refused(now, 40), "that would be no IP link");
}
