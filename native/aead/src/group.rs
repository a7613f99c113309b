//! Packets that are worked on together: equal lengths, one key, a nonce each.

use core::marker::PhantomData;
use core::sync::atomic::{Ordering, compiler_fence};

/// Packets at most in a group, whatever the implementation.
pub(crate) const LANES: usize = 16;
/// Dead lanes run under this nonce. No packet of Thicket's has it (their first four bytes are zero), and what it makes goes into a scratch that is
/// wiped.
const DUMMY: [u8; 12] = [0xff; 12];

/// A Poly1305 tag.
pub(crate) type Tag = [u8; 16];

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Seal,
    Open,
}

/// Where a dead lane reads and writes.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Scratch([u8; 64]);

#[cfg(target_arch = "x86_64")]
impl Scratch {
    pub(crate) fn new() -> Self {
        Self([0; 64])
    }
}

/// One packet's bytes, or for a dead lane a scratch of 64 bytes again and again.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Lane {
    base: *mut u8,
    /// All ones for a packet, 0 for a dead lane.
    step: usize,
}

#[cfg(target_arch = "x86_64")]
impl Lane {
    /// The lane's bytes from `offset` on, which is a multiple of 64 below the group's length: of a packet all that follow, of a dead lane 64, may be read
    /// and written as long as the group and the scratch are borrowed.
    #[inline(always)]
    pub(crate) fn at(self, offset: usize) -> *mut u8 {
        self.base.wrapping_add(offset & self.step)
    }
}

/// Up to [`LANES`] packets of equal length in one buffer.
pub(crate) struct Group<'a> {
    /// INVARIANT: `starts[..live]` each have `len` bytes behind them within the buffer.
    buffer: *mut u8,
    starts: [usize; LANES],
    live: usize,
    len: usize,
    nonces: [[u32; LANES]; 3],
    lifetime: PhantomData<&'a mut [u8]>,
}

impl<'a> Group<'a> {
    /// Packets of `len` bytes at `starts` of `buffer`; `None` when one lies outside, or when there are none or too many.
    pub(crate) fn new(buffer: &'a mut [u8], starts: &[usize], len: usize, nonces: &[[u8; 12]]) -> Option<Self> {
        let live = starts.len();
        if live == 0 || live > LANES || nonces.len() != live {
            return None;
        }
        let last = buffer.len().checked_sub(len)?;
        if starts.iter().any(|&start| start > last) {
            return None;
        }
        let mut group = Self {
            buffer: buffer.as_mut_ptr(),
            starts: [0; LANES],
            live,
            len,
            nonces: [[0; LANES]; 3],
            lifetime: PhantomData,
        };
        group.starts[..live].copy_from_slice(starts);
        for lane in 0..LANES {
            let nonce = nonces.get(lane).unwrap_or(&DUMMY);
            for (word, bytes) in group.nonces.iter_mut().zip(nonce.as_chunks().0) {
                word[lane] = u32::from_le_bytes(*bytes);
            }
        }
        Some(group)
    }

    /// Bytes in every packet.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Packets in the group.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// A packet's bytes.
    #[cfg(any(test, target_arch = "wasm32"))]
    pub(crate) fn packet(&self, packet: usize) -> &[u8] {
        let start = self.starts[..self.live][packet];
        // SAFETY: by the invariant they lie within the buffer, which is borrowed for as long as the group is, and nobody writes while the group is
        // borrowed.
        unsafe { core::slice::from_raw_parts(self.buffer.wrapping_add(start), self.len) }
    }

    /// The same, to be written.
    #[cfg(any(test, target_arch = "wasm32"))]
    pub(crate) fn packet_mut(&mut self, packet: usize) -> &mut [u8] {
        let start = self.starts[..self.live][packet];
        // SAFETY: as above, and the group is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.buffer.wrapping_add(start), self.len) }
    }

    /// The nonces' three words, by lane.
    pub(crate) fn nonces(&self) -> &[[u32; LANES]; 3] {
        &self.nonces
    }

    /// Where each lane's bytes are; dead lanes share the scratch.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn lanes(&mut self, scratch: &mut Scratch) -> [Lane; LANES] {
        let dead = Lane {
            base: scratch.0.as_mut_ptr(),
            step: 0,
        };
        let mut lanes = [dead; LANES];
        for (lane, &start) in lanes.iter_mut().zip(&self.starts[..self.live]) {
            *lane = Lane {
                base: self.buffer.wrapping_add(start),
                step: usize::MAX,
            };
        }
        lanes
    }
}

/// Overwrites plain numbers with zeros, in a way that isn't optimized away.
///
/// # Safety
/// All zeros must be a value of `T`.
pub(crate) unsafe fn wipe<T: Copy>(secret: &mut T) {
    // SAFETY: a place that is borrowed exclusively may be written, and the caller vouches for the value.
    unsafe { core::ptr::write_volatile(secret, core::mem::zeroed()) };
    compiler_fence(Ordering::SeqCst);
}
