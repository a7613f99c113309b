//! Congestion control: CUBIC (RFC 9438), leaving slow start when round trips grow longer (after HyStart++, RFC 9406).

use crate::time::Instant;

const C: f64 = 0.4;
const BETA: f64 = 0.7;
/// Segments at the start (RFC 6928).
const FIRST: usize = 10;

/// All in bytes.
#[derive(Clone, Debug)]
pub struct Cubic {
    mss: usize,
    window: usize,
    threshold: usize,
    /// Where the last loss was, and the curve since then.
    before: f64,
    curve: Option<Curve>,
    /// Shortest round trip, microseconds.
    shortest: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Curve {
    begun: Instant,
    /// Seconds until it is back where the loss was.
    k: f64,
    /// What Reno would have.
    reno: f64,
}

impl Cubic {
    pub fn new(mss: usize) -> Self {
        Self {
            mss,
            window: FIRST * mss,
            threshold: usize::MAX,
            before: 0.0,
            curve: None,
            shortest: None,
        }
    }

    /// The far end's segment size became known.
    pub fn set_mss(&mut self, mss: usize) {
        if self.window == FIRST * self.mss {
            self.window = FIRST * mss;
        }
        self.mss = mss;
    }

    /// Bytes that may be under way.
    pub fn window(&self) -> usize {
        self.window
    }

    /// `acked` bytes arrived while the window was used up; `rtt` in microseconds.
    pub fn on_ack(&mut self, now: Instant, acked: usize, rtt: u64) {
        if self.window < self.threshold {
            self.window += acked.min(self.threshold - self.window);
            return;
        }
        let (mss, window) = (self.mss as f64, self.window as f64);
        let curve = self.curve.get_or_insert_with(|| {
            self.before = self.before.max(window);
            Curve {
                begun: now,
                k: ((self.before - window) / mss / C).cbrt(),
                reno: window,
            }
        });
        let elapsed = (now.since(curve.begun).as_micros() + rtt) as f64 / 1e6;
        let target = (self.before + C * (elapsed - curve.k).powi(3) * mss).clamp(window, window * 1.5);
        let share = acked as f64 / window;
        let slope = if curve.reno < self.before {
            3.0 * (1.0 - BETA) / (1.0 + BETA)
        } else {
            1.0
        };
        curve.reno += slope * share * mss;
        self.window = (window + (target - window) * share).max(curve.reno) as usize;
    }

    /// Something sent a round trip ago was lost: once for all that was under way.
    pub fn on_loss(&mut self) {
        let window = self.window as f64;
        // Who lost before reaching the last summit leaves room for others.
        self.before = if window < self.before {
            window * (1.0 + BETA) / 2.0
        } else {
            window
        };
        self.window = ((window * BETA) as usize).max(2 * self.mss);
        self.threshold = self.window;
        self.curve = None;
    }

    /// Nothing came back at all.
    pub fn on_timeout(&mut self) {
        self.on_loss();
        self.window = self.mss;
    }

    /// A round trip was measured, one in each: slow start ends where a queue begins to grow.
    pub fn on_sample(&mut self, round: u64) {
        let shortest = self.shortest.map_or(round, |shortest| shortest.min(round));
        self.shortest = Some(shortest);
        if round >= shortest + (shortest / 4).clamp(8_000, 32_000) {
            self.threshold = self.threshold.min(self.window);
        }
    }
}
