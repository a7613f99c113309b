//! Bounded reassembly: of IP fragments that the host made, and of inner packets that were sealed in parts.

use crate::api::SessionId;
use crate::hash::{IdMap, KeyedMap, KeyedState};
use crate::time::{Duration, Instant};
use crate::wire::{IpPacket, IpRepr, PART_SLICE, PARTS_MAX, PartHeader, Transport};
use core::net::IpAddr;

/// Packets in parts in the making at most, in all and of one session.
const PARTS_MOST: usize = 1_024;
const PARTS_OF_SESSION: u32 = 64;
const PARTS_TIMEOUT: Duration = Duration::from_secs(1);
/// Fragmented IP packets in the making at most, in all and of one source, and their bytes.
const FRAGMENTS_MOST: usize = 128;
const FRAGMENTS_OF_SOURCE: usize = 32;
const FRAGMENT_BYTES: usize = 1 << 20;
const FRAGMENTS_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
struct Slices {
    at: Instant,
    place: usize,
    lengths: [usize; PARTS_MAX],
    count: u8,
}

/// Inner packets in parts. Buffers are kept and used again, so that a camera whose packets come in two parts costs no allocation each.
pub struct Parts {
    making: KeyedMap<(SessionId, u16), Slices>,
    of_session: IdMap<u32, u32>,
    buffers: Vec<Vec<u8>>,
    free: Vec<usize>,
}

impl Parts {
    pub fn new(state: KeyedState) -> Self {
        Self {
            making: KeyedMap::with_hasher(state),
            of_session: IdMap::default(),
            buffers: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Takes one part; writes the whole inner packet to `whole` and says so once all are there. `Err` when there's no room, or the parts
    /// contradict each other.
    pub fn take(
        &mut self,
        now: Instant,
        session: SessionId,
        part: PartHeader,
        slice: &[u8],
        whole: &mut Vec<u8>,
    ) -> Result<bool, ()> {
        let (index, count) = (usize::from(part.index), usize::from(part.count));
        if slice.len() > PART_SLICE || count > PARTS_MAX {
            return Err(());
        }
        let key = (session, part.id);
        if !self.making.contains_key(&key) {
            let share = self.of_session.entry(session.0).or_insert(0);
            if self.making.len() >= PARTS_MOST || *share >= PARTS_OF_SESSION {
                return Err(());
            }
            *share += 1;
            let place = self.free.pop().unwrap_or_else(|| {
                self.buffers.push(vec![0; PARTS_MAX * PART_SLICE]);
                self.buffers.len() - 1
            });
            self.making.insert(
                key,
                Slices {
                    at: now,
                    place,
                    lengths: [0; PARTS_MAX],
                    count: part.count,
                },
            );
        }
        let entry = self.making.get_mut(&key).ok_or(())?;
        let length = entry.lengths.get_mut(index).ok_or(())?;
        if entry.count != part.count || *length != 0 {
            return Err(());
        }
        *length = slice.len();
        let entry = *entry;
        let buffer = self.buffers.get_mut(entry.place).ok_or(())?;
        buffer
            .get_mut(index * PART_SLICE..index * PART_SLICE + slice.len())
            .ok_or(())?
            .copy_from_slice(slice);
        if entry.lengths.iter().take(count).any(|&length| length == 0) {
            return Ok(false);
        }
        whole.clear();
        for (at, &length) in entry.lengths.iter().take(count).enumerate() {
            whole.extend_from_slice(buffer.get(at * PART_SLICE..at * PART_SLICE + length).ok_or(())?);
        }
        self.making.remove(&key);
        self.release(session, entry.place);
        Ok(true)
    }

    fn release(&mut self, session: SessionId, place: usize) {
        self.free.push(place);
        if let Some(share) = self.of_session.get_mut(&session.0) {
            *share -= 1;
            if *share == 0 {
                self.of_session.remove(&session.0);
            }
        }
    }

    /// Forgets what is late; returns how many packets that was.
    pub fn expire(&mut self, now: Instant) -> usize {
        let mut gone = Vec::new();
        self.making.retain(|(session, _), entry| {
            let keep = now.since(entry.at) < PARTS_TIMEOUT;
            if !keep {
                gone.push((*session, entry.place));
            }
            keep
        });
        for &(session, place) in &gone {
            self.release(session, place);
        }
        gone.len()
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
        let end = offset + body.len();
        let (grows, known) = match self.making.get(&key) {
            Some(entry) => (end.saturating_sub(entry.body.len()), true),
            None => (end, false),
        };
        let of_source = || self.making.keys().filter(|(source, ..)| *source == ip.source).count();
        let crowded = !known && (self.making.len() >= FRAGMENTS_MOST || of_source() >= FRAGMENTS_OF_SOURCE);
        if crowded || self.bytes + grows > FRAGMENT_BYTES {
            return Err(());
        }
        let entry = self.making.entry(key).or_insert_with(|| Making {
            at: now,
            header: Vec::new(),
            body: Vec::new(),
            have: Vec::new(),
            total: None,
        });
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
            let repr = IpRepr {
                source: ip.source,
                destination: ip.destination,
                protocol,
                traffic_class: ip.traffic_class,
                hop_limit: ip.hop_limit,
                identification: Some(id as u16),
            };
            let len = repr.write(&mut header, 0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SESSION: SessionId = SessionId(3);

    fn parts() -> Parts {
        Parts::new(KeyedState::new([1; 16]))
    }

    #[test]
    fn a_session_that_never_finishes_its_parts_leaves_room_for_others_and_gets_its_own_back() {
        let (mut parts, mut whole) = (parts(), Vec::new());
        let now = Instant::from_micros(5);
        let part = |id| PartHeader { id, index: 0, count: 2 };
        for id in 0..PARTS_OF_SESSION as u16 {
            assert_eq!(parts.take(now, SESSION, part(id), b"x", &mut whole), Ok(false));
        }
        assert_eq!(parts.take(now, SESSION, part(999), b"x", &mut whole), Err(()));
        assert_eq!(parts.take(now, SessionId(4), part(1), b"x", &mut whole), Ok(false));
        assert_eq!(parts.expire(now + PARTS_TIMEOUT), PARTS_OF_SESSION as usize + 1);
        assert_eq!(parts.take(now, SESSION, part(999), b"x", &mut whole), Ok(false));
        assert_eq!(parts.buffers.len(), PARTS_OF_SESSION as usize + 1);
    }

    /// A fragment of the IPv4 packet `id` from 10.0.0.`source`.
    fn fragment(source: u8, id: u16, offset: usize, more: bool, len: usize) -> Vec<u8> {
        let mut packet = vec![0; 60];
        let repr = IpRepr {
            source: [10, 0, 0, source].into(),
            destination: [10, 0, 0, 99].into(),
            protocol: 17,
            traffic_class: 0,
            hop_limit: 64,
            identification: Some(id),
        };
        let at = repr.write(&mut packet, len);
        packet.truncate(at);
        packet.resize(at + len, 7);
        let field = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        packet[10..12].fill(0);
        let sum = crate::wire::checksum(crate::wire::sum_bytes(0, &packet[..at]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    #[test]
    fn fragments_are_bounded_by_source_and_by_bytes_and_room_comes_back() {
        let mut fragments = Fragments::new(KeyedState::new([1; 16]));
        let now = Instant::from_micros(5);
        let take = |fragments: &mut Fragments, packet: Vec<u8>| {
            fragments.take(now, &IpPacket::parse(&packet).unwrap(), &packet)
        };
        for id in 0..FRAGMENTS_OF_SOURCE as u16 {
            assert_eq!(take(&mut fragments, fragment(1, id, 0, true, 8)), Ok(None));
        }
        assert_eq!(take(&mut fragments, fragment(1, 999, 0, true, 8)), Err(()));
        assert_eq!(
            take(&mut fragments, fragment(2, 999, 0, true, 8)),
            Ok(None),
            "another source has its own share"
        );
        // A few bytes far behind take as much as what lies before them.
        let far = (0..FRAGMENTS_OF_SOURCE as u16)
            .filter(|&id| take(&mut fragments, fragment(1, id, 60_000, true, 8)).is_ok())
            .count();
        assert_eq!(far, (FRAGMENT_BYTES - 8 * (FRAGMENTS_OF_SOURCE + 1)) / 60_000);
        assert!(fragments.bytes <= FRAGMENT_BYTES);
        assert_eq!(fragments.expire(now + FRAGMENTS_TIMEOUT), FRAGMENTS_OF_SOURCE + 1);
        assert_eq!((fragments.bytes, fragments.making.len()), (0, 0));
    }

    proptest! {
        #[test]
        fn parts_in_any_order_become_the_packet(
            bytes in prop::collection::vec(any::<u8>(), 8..PARTS_MAX * PART_SLICE), order in Just(vec![0usize, 1, 2, 3]).prop_shuffle(),
        ) {
            let (mut parts, mut whole) = (parts(), Vec::new());
            let slices: Vec<_> = bytes.chunks(bytes.len().div_ceil(PARTS_MAX)).collect();
            let mut done = 0;
            for index in order.into_iter().filter(|&i| i < slices.len()) {
                let header = PartHeader { id: 1, index: index as u8, count: slices.len() as u8 };
                done += usize::from(parts.take(Instant::default(), SESSION, header, slices[index], &mut whole).unwrap());
            }
            prop_assert_eq!((done, &whole[..]), (1, &bytes[..]));
        }

        #[test]
        fn any_parts_and_fragments_are_taken_or_refused(
            headers in prop::collection::vec((0u16..3, 0u8..6, 0u8..6, 0usize..2000), 0..40),
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..20),
        ) {
            let (mut parts, mut whole) = (parts(), Vec::new());
            for (id, index, count, len) in headers {
                let _ = parts.take(Instant::default(), SESSION, PartHeader { id, index, count }, &vec![0; len], &mut whole);
            }
            let mut fragments = Fragments::new(KeyedState::new([1; 16]));
            for mut packet in packets {
                if let Some(first) = packet.first_mut() { *first = 0x45; }
                if packet.len() > 9 {
                    packet[2..4].copy_from_slice(&[0, 60]);
                    packet[6] &= 0x21;
                }
                if let Some(ip) = IpPacket::parse(&packet) {
                    let _ = fragments.take(Instant::default(), &ip, &packet);
                }
            }
        }
    }
}
