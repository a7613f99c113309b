//! Bounded reassembly: of IP fragments that the host made, and of inner packets that were sealed in parts.

use crate::api::SessionId;
use crate::hash::{KeyedMap, KeyedState};
use crate::time::{Duration, Instant};
use crate::wire::{IpPacket, PartHeader, Transport};
use core::net::IpAddr;

/// Packets in the making at most, of each sort.
const MOST: usize = 128;
/// Bytes held at most, of each sort.
const BYTES: usize = 1 << 20;
const PARTS_TIMEOUT: Duration = Duration::from_secs(1);
const FRAGMENTS_TIMEOUT: Duration = Duration::from_secs(5);

struct Slices {
    at: Instant,
    slices: [Option<Vec<u8>>; 4],
    count: u8,
}

/// Inner packets in parts.
pub struct Parts {
    making: KeyedMap<(SessionId, u16), Slices>,
    bytes: usize,
}

impl Parts {
    pub fn new(state: KeyedState) -> Self {
        Self {
            making: KeyedMap::with_hasher(state),
            bytes: 0,
        }
    }

    /// Takes one part; the whole inner packet once all are there. `Err` when there's no room or the parts contradict each other.
    pub fn take(
        &mut self,
        now: Instant,
        session: SessionId,
        part: PartHeader,
        slice: &[u8],
    ) -> Result<Option<Vec<u8>>, ()> {
        let key = (session, part.id);
        if !self.making.contains_key(&key) && (self.making.len() >= MOST || self.bytes + slice.len() > BYTES) {
            return Err(());
        }
        let entry = self.making.entry(key).or_insert(Slices {
            at: now,
            slices: [const { None }; 4],
            count: part.count,
        });
        let place = entry.slices.get_mut(usize::from(part.index)).ok_or(())?;
        if entry.count != part.count || place.is_some() {
            return Err(());
        }
        *place = Some(slice.to_vec());
        self.bytes += slice.len();
        if entry.slices.iter().flatten().count() < usize::from(entry.count) {
            return Ok(None);
        }
        let whole = self
            .making
            .remove(&key)
            .map(|e| e.slices.into_iter().flatten().flatten().collect::<Vec<u8>>());
        self.bytes = self.bytes.saturating_sub(whole.as_ref().map_or(0, Vec::len));
        Ok(whole)
    }

    /// Forgets what is late; returns how many packets that was.
    pub fn expire(&mut self, now: Instant) -> usize {
        let before = self.making.len();
        let bytes = &mut self.bytes;
        self.making.retain(|_, e| {
            let keep = now.since(e.at) < PARTS_TIMEOUT;
            if !keep {
                *bytes = bytes.saturating_sub(e.slices.iter().flatten().map(Vec::len).sum());
            }
            keep
        });
        before - self.making.len()
    }
}

struct Making {
    at: Instant,
    header: Vec<u8>,
    body: Vec<u8>,
    /// Which bytes are there, in units of eight.
    have: Vec<bool>,
    total: Option<usize>,
}

type FragmentKey = (IpAddr, IpAddr, u8, u32);

/// IP fragments from the TUN.
pub struct Fragments {
    making: KeyedMap<FragmentKey, Making>,
    bytes: usize,
}

impl Fragments {
    pub fn new(state: KeyedState) -> Self {
        Self {
            making: KeyedMap::with_hasher(state),
            bytes: 0,
        }
    }

    /// Takes one fragment; the whole IP packet once all bytes are there. Overlapping fragments spoil their packet (RFC 5722).
    pub fn take(&mut self, now: Instant, ip: &IpPacket, bytes: &[u8]) -> Result<Option<Vec<u8>>, ()> {
        let Transport::Fragment {
            id,
            offset,
            more,
            protocol,
        } = ip.transport
        else {
            return Err(());
        };
        let body = bytes.get(ip.transport_at..ip.end).ok_or(())?;
        let key = (ip.source, ip.destination, protocol, id);
        if !self.making.contains_key(&key) && (self.making.len() >= MOST || self.bytes + body.len() > BYTES) {
            return Err(());
        }
        let entry = self.making.entry(key).or_insert_with(|| Making {
            at: now,
            header: Vec::new(),
            body: Vec::new(),
            have: Vec::new(),
            total: None,
        });
        let end = offset + body.len();
        let (first, last) = (offset / 8, end.div_ceil(8));
        if entry.have.len() < last {
            entry.have.resize(last, false);
        }
        let overlaps = entry
            .have
            .get(first..last)
            .is_none_or(|units| units.iter().any(|&unit| unit));
        let beyond = entry.total.is_some_and(|total| end > total || (!more && end != total));
        if overlaps || beyond {
            self.forget(&key);
            return Err(());
        }
        if entry.body.len() < end {
            self.bytes += end - entry.body.len();
            entry.body.resize(end, 0);
        }
        entry.body[offset..end].copy_from_slice(body);
        entry.have[first..last].fill(true);
        if !more {
            entry.total = Some(end);
        }
        if offset == 0 {
            let mut header = vec![0; 40];
            let len = IpPacket::write_header(
                &mut header,
                ip.source,
                ip.destination,
                protocol,
                ip.traffic_class,
                ip.hop_limit,
                0,
                false,
            );
            header.truncate(len);
            entry.header = header;
        }
        let Some(total) = entry.total else { return Ok(None) };
        if entry.header.is_empty() || entry.body.len() != total || entry.have.iter().any(|&unit| !unit) {
            return Ok(None);
        }
        let Some(done) = self.forget(&key) else { return Err(()) };
        let mut packet = done.header;
        packet.extend_from_slice(&done.body);
        let length = u16::try_from(if ip.source.is_ipv4() { packet.len() } else { total }).map_err(|_| ())?;
        let at = if ip.source.is_ipv4() { 2 } else { 4 };
        packet[at..at + 2].copy_from_slice(&length.to_be_bytes());
        Ok(Some(packet))
    }

    fn forget(&mut self, key: &FragmentKey) -> Option<Making> {
        let gone = self.making.remove(key)?;
        self.bytes = self.bytes.saturating_sub(gone.body.len());
        Some(gone)
    }

    /// Forgets what is late; returns how many packets that was.
    pub fn expire(&mut self, now: Instant) -> usize {
        let before = self.making.len();
        let bytes = &mut self.bytes;
        self.making.retain(|_, e| {
            let keep = now.since(e.at) < FRAGMENTS_TIMEOUT;
            if !keep {
                *bytes = bytes.saturating_sub(e.body.len());
            }
            keep
        });
        before - self.making.len()
    }
}
