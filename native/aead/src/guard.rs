//! Which implementation is trusted: chosen at start after a self-test against ring, given up for good at the first difference from ring.

use crate::train::{self, NEVER};
use crate::{Kernel, Key, Packet, TAG};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use zeroize::Zeroizing;

/// One group in so many has one packet compared with ring's: one packet in 512 to 1,024 when groups are full.
const COMPARE_EVERY: u32 = 64;

/// The implementation in force: its [`Kernel::code`], or this while nobody has chosen.
static CURRENT: AtomicU8 = AtomicU8::new(UNDECIDED);
const UNDECIDED: u8 = u8::MAX;
/// A difference from ring has been seen.
static DISTRUSTED: AtomicBool = AtomicBool::new(false);
/// What [`trouble`] has to say.
static TROUBLE: AtomicU8 = AtomicU8::new(NONE);
const NONE: u8 = 0;
const FAILED_TEST: u8 = 1;
const DIFFERED: u8 = 2;
/// Groups so far, roughly: threads may lose each other's counts.
static GROUPS: AtomicU32 = AtomicU32::new(0);

/// What shall seal and open, in this process.
#[derive(Clone, Copy, Debug)]
pub enum Choice {
    /// The fastest that this processor has and that passes its self-test.
    Auto,
    /// What works one by one, alone: ring, or in WebAssembly RustCrypto.
    Single,
    /// This one, if it passes its self-test; for benches.
    Exactly(Kernel),
}

/// Chooses; returns what will be used. Whatever was once found to differ from ring isn't used again.
pub fn choose(choice: Choice) -> Kernel {
    let kernel = match choice {
        _ if DISTRUSTED.load(Ordering::Relaxed) => Kernel::SINGLE,
        Choice::Auto => Kernel::available().find(|&k| tested(k)).unwrap_or(Kernel::SINGLE),
        Choice::Single => Kernel::SINGLE,
        Choice::Exactly(kernel) if tested(kernel) => kernel,
        Choice::Exactly(_) => Kernel::SINGLE,
    };
    CURRENT.store(kernel.code(), Ordering::Relaxed);
    kernel
}

/// Once, after something went wrong: a line for the log.
pub fn trouble() -> Option<&'static str> {
    match TROUBLE.swap(NONE, Ordering::Relaxed) {
        FAILED_TEST => Some(
            "sealing with this processor's vector instructions failed its self-test, so slower code seals: please report it with the processor's model",
        ),
        DIFFERED => Some(
            "a packet sealed or opened with this processor's vector instructions came out wrong, so slower code seals from now on: check this machine's \
             memory and processor, and please report it with the processor's model",
        ),
        _ => None,
    }
}

/// The implementation in force.
pub(crate) fn kernel() -> Kernel {
    match CURRENT.load(Ordering::Relaxed) {
        UNDECIDED => choose(Choice::Auto),
        code => Kernel::available().find(|k| k.code() == code).unwrap_or(Kernel::SINGLE),
    }
}

/// The packet of a group of so many that shall be compared with ring's, if this group's turn has come.
pub(crate) fn to_compare(count: usize) -> Option<usize> {
    // Not a read-modify-write: a lost count does no harm, a locked bus would cost every group.
    let groups = GROUPS.load(Ordering::Relaxed);
    GROUPS.store(groups.wrapping_add(1), Ordering::Relaxed);
    groups
        .is_multiple_of(COMPARE_EVERY)
        .then(|| (groups / COMPARE_EVERY) as usize % count.max(1))
}

/// ring from now on.
#[cold]
pub(crate) fn distrust() {
    DISTRUSTED.store(true, Ordering::Relaxed);
    CURRENT.store(Kernel::SINGLE.code(), Ordering::Relaxed);
    TROUBLE.store(DIFFERED, Ordering::Relaxed);
}

fn tested(kernel: Kernel) -> bool {
    let passed = passes(kernel);
    if !passed {
        TROUBLE.store(FAILED_TEST, Ordering::Relaxed);
    }
    passed
}

struct Sample {
    range: Range<usize>,
    nonce: [u8; 12],
    opened: bool,
}

impl Packet for Sample {
    fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    fn nonce(&self) -> [u8; 12] {
        self.nonce
    }

    fn set_opened(&mut self, opened: bool) {
        self.opened = opened;
    }
}

/// Whether what an implementation seals is what ring seals, and whether it opens that, and nothing forged, at lengths around all its seams.
pub(crate) fn passes(kernel: Kernel) -> bool {
    const LENGTHS: [usize; 16] = [0, 1, 15, 16, 17, 47, 48, 49, 63, 64, 65, 128, 200, 255, 577, 1_400];
    let key = Key::new(&core::array::from_fn(|n| (n as u8).wrapping_mul(37) ^ 0x5a));
    LENGTHS.into_iter().enumerate().all(|(turn, len)| {
        // Groups that are just worth their while, and full ones.
        let count = if turn % 2 == 0 {
            kernel.worthwhile(len)
        } else {
            kernel.width()
        };
        let count = count.min(kernel.width());
        let stride = len + TAG;
        let nonce = |n: usize| core::array::from_fn(|byte| (n * 31 + byte * 7 + len) as u8);
        let plain: Vec<u8> = (0..stride * count).map(|n| (n * n % 253) as u8).collect();
        let mut sealed = plain.clone();
        train::seal(kernel, NEVER, &key, &mut sealed, stride, 0, nonce);
        let mut expected = Zeroizing::new(plain.clone());
        train::seal(Kernel::SINGLE, NEVER, &key, &mut expected, stride, 0, nonce);
        if sealed != *expected {
            return false;
        }
        let mut packets: Vec<_> = (0..count)
            .map(|n| Sample {
                range: n * stride..(n + 1) * stride,
                nonce: nonce(n),
                opened: false,
            })
            .collect();
        let forged = len % count;
        if let Some(byte) = sealed.get_mut(forged * stride + len) {
            *byte ^= 1;
        }
        train::open(kernel, NEVER, &key, &mut sealed, &mut packets);
        packets.iter().enumerate().all(|(n, packet)| {
            let (Some(now), Some(plain)) = (
                sealed.get(n * stride..n * stride + len),
                plain.get(n * stride..n * stride + len),
            ) else {
                return false;
            };
            packet.opened == (n != forged) && (!packet.opened || now == plain)
        })
    })
}
