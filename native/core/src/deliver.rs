//! Packets for us: opened, judged, and handed to the TUN.

use crate::aead::{Aead, Sealed};
use crate::api::*;
use crate::buffers::{Opening, RxBatch};
use crate::core::Core;
use crate::flows::{Watch, side};
use crate::merge::{Merge, Segment};
use crate::path_size::BASE;
use crate::receive::{Run, Valid, check_hop};
use crate::stats::DropReason;
use crate::tables::{KEY_LIFE, Path, Slot};
use crate::time::Instant;
use crate::wire::*;
use core::ops::Range;
use std::sync::Arc;

impl<A: Aead> Core<A> {
    /// The third step: takes what was opened, and hands on what it holds. `buffer` is the one that was received into.
    pub fn deliver(&mut self, now: Instant, buffer: &[u8], rx: &mut RxBatch) {
        let (openings, mut packets) = (core::mem::take(&mut rx.openings), core::mem::take(&mut rx.packets));
        for opening in &openings {
            let packets = packets.get_mut(opening.packets.clone()).unwrap_or(&mut []);
            let (session, valid) = self.accept(now, opening, packets);
            self.note_valid(now, opening.label, opening.from, valid);
            let Some(session) = session else { continue };
            // Of several only the last may be shorter than the rest.
            let longest = packets
                .iter()
                .find(|p| p.opened)
                .map_or(0, |p| p.end - p.start + DATA_HEADER);
            if longest > BASE {
                self.long_came(now, opening.path, longest, valid.packets, rx);
            }
            let mut merge = Merge::new(self.mss(opening.path));
            for packet in packets.iter().filter(|p| p.opened) {
                let inner = packet.start..packet.end - TAG;
                let result = self.inner(now, session, opening.path, buffer, inner, &mut merge, rx);
                self.note(result);
            }
            merge.finish(buffer, self.config.tun, &mut rx.tun);
        }
        (rx.openings, rx.packets) = (openings, packets);
        rx.openings.clear();
        rx.packets.clear();
    }

    /// What of a run may be opened, for [`RxBatch::open`].
    pub(crate) fn prepare(
        &mut self,
        now: Instant,
        id: PathId,
        from: Remote,
        run: &Run,
        buffer: &[u8],
        rx: &mut RxBatch,
    ) {
        let (Some(entry), Some(path)) = (self.labels.get(run.label), self.paths.get(&id.0)) else {
            return;
        };
        let mut opening: Option<(usize, Opening)> = None;
        for range in run.datagrams() {
            let packet = buffer.get(range.clone()).unwrap_or(&[]);
            let field = match check_hop(&entry.hop, run.label, packet).and_then(|field| may_open(path, now, field)) {
                Ok(field) => field,
                Err(reason) => {
                    self.drops.count(reason);
                    continue;
                }
            };
            let slot = slot_of(field);
            if opening.as_ref().is_none_or(|(of, _)| *of != slot) {
                let Some(keys) = path.slots.get(slot).and_then(Option::as_ref) else {
                    continue;
                };
                let next = Opening {
                    label: run.label,
                    path: id,
                    from,
                    key: keys.receive.clone(),
                    packets: rx.packets.len()..rx.packets.len(),
                };
                if let Some((_, done)) = opening.replace((slot, next)) {
                    rx.openings.push(done);
                }
            }
            rx.packets.push(Sealed {
                start: range.start + DATA_HEADER,
                end: range.end,
                counter: field,
                opened: false,
            });
            if let Some((_, opening)) = &mut opening {
                opening.packets.end = rx.packets.len();
            }
        }
        rx.openings.extend(opening.map(|(_, last)| last));
    }

    /// Checks what was opened; what the first valid packet under new keys proves is noted here. `packets` tells which are good, and afterwards
    /// which are taken.
    fn accept(&mut self, now: Instant, opening: &Opening, packets: &mut [Sealed]) -> (Option<SessionId>, Valid) {
        let mut valid = Valid::default();
        let id = opening.path;
        let Some(path) = self.paths.get_mut(&id.0) else {
            return (None, valid);
        };
        for packet in packets.iter_mut() {
            if !packet.opened {
                self.drops.count(DropReason::BadTag);
            } else if !path.window.accept(counter_of(packet.counter)) {
                packet.opened = false;
                self.drops.count(DropReason::Replayed);
            } else {
                valid.count(packet.end - packet.start + DATA_HEADER);
            }
        }
        let session_id = path.session;
        if valid.packets == 0 {
            return (Some(session_id), valid);
        }
        let new_path = !core::mem::replace(&mut path.confirmed, true);
        // The keys in a slot may have been replaced since the packets came: what the old ones opened proves nothing of the new.
        let unproven = |slot: &&mut Slot| !slot.confirmed && Arc::ptr_eq(&slot.receive, &opening.key);
        let mut new_slot = None;
        for (index, slot) in path.slots.iter_mut().enumerate() {
            if let Some(slot) = slot.as_mut().filter(unproven) {
                slot.confirmed = true;
                new_slot = Some(index);
            }
        }
        if let Some(slot) = new_slot {
            path.switch_to(slot);
        }
        if let Some(session) = self.sessions.get_mut(&session_id.0) {
            session.heard = Some(now);
            session.traffic.rx_bytes += valid.bytes;
            session.traffic.rx_packets += valid.packets;
            if new_path {
                session.path = Some(id);
            }
        }
        if new_path {
            self.emit(Event::PathConfirmed {
                session: session_id,
                path: id,
            });
        } else if let Some(slot) = new_slot {
            self.emit(Event::PathKeyConfirmed {
                session: session_id,
                path: id,
                slot: slot as u8,
            });
        }
        (Some(session_id), valid)
    }

    /// Judges one opened inner packet.
    #[allow(clippy::too_many_arguments)]
    fn inner(
        &mut self,
        now: Instant,
        session: SessionId,
        path: PathId,
        buffer: &[u8],
        inner: Range<usize>,
        merge: &mut Merge,
        rx: &mut RxBatch,
    ) -> Result<(), DropReason> {
        let bytes = buffer.get(inner.clone()).ok_or(DropReason::BadInner)?;
        let (header, body) = InnerHeader::parse(bytes).ok_or(DropReason::BadInner)?;
        if let Kind::Tcp | Kind::Udp = header.kind {
            return self.transport(
                now,
                session,
                header,
                buffer,
                inner.start + INNER_HEADER..inner.end,
                merge,
                rx,
            );
        }
        // Whatever is under construction goes first: nothing overtakes.
        merge.finish(buffer, self.config.tun, &mut rx.tun);
        match header.kind {
            Kind::Echo => self.echo(now, session, &header, body, rx),
            Kind::Error => self.error(session, ErrorReport::parse(body).ok_or(DropReason::BadInner)?, rx),
            Kind::Part => self.part(now, session, path, body, rx),
            Kind::Control => {
                self.ledger.control += (bytes.len() + DATA_OVERHEAD) as u64;
                self.emit(Event::SessionControl {
                    session,
                    path,
                    bytes: body.to_vec(),
                });
                Ok(())
            }
            Kind::Size => self.size_message(now, path, body, bytes.len() + DATA_OVERHEAD, rx),
            Kind::Tcp | Kind::Udp => Err(DropReason::BadInner),
        }
    }

    /// A TCP segment or UDP datagram, whose body lies at `body` in the buffer.
    #[allow(clippy::too_many_arguments)]
    fn transport(
        &mut self,
        now: Instant,
        session: SessionId,
        header: InnerHeader,
        buffer: &[u8],
        body: Range<usize>,
        merge: &mut Merge,
        rx: &mut RxBatch,
    ) -> Result<(), DropReason> {
        let bytes = buffer.get(body.clone()).ok_or(DropReason::BadInner)?;
        let header_len = if header.kind == Kind::Tcp {
            tcp_header(bytes)?
        } else {
            4
        };
        if bytes.len() < header_len {
            return Err(DropReason::BadInner);
        }
        let Some(hop_limit) = header.hop_limit.checked_sub(1).filter(|&limit| limit > 0) else {
            self.expired(now, session, header.kind, bytes, rx);
            return Err(DropReason::HopLimit);
        };
        let segment = Segment {
            kind: header.kind,
            session,
            traffic_class: header.traffic_class,
            hop_limit,
            header: body.start..body.start + header_len,
            payload: body.start + header_len..body.end,
        };
        let index = match merge.same_flow(&segment, buffer) {
            Some(index) => index,
            None => match self.wire_flow(now, &segment, bytes, rx)? {
                Some(index) => index,
                None => {
                    merge.finish(buffer, self.config.tun, &mut rx.tun);
                    return self.resume(&segment, buffer, bytes, rx);
                }
            },
        };
        let flow = self.flows.get_mut(index).ok_or(DropReason::NotAFlow)?;
        match header.kind {
            Kind::Tcp => flow.note_tcp(now, bytes.get(13).copied().unwrap_or(0), side::THEIRS),
            _ => flow.last = now,
        }
        let (local, account, watch) = (flow.local, flow.account, flow.watch);
        let payload = segment.payload.len();
        self.account(account, payload, DATA_OVERHEAD + INNER_HEADER + bytes.len() - payload);
        match watch {
            Watch::Nobody | Watch::Opened => {}
            Watch::Media(id, rtcp) => {
                let payload = bytes.get(header_len..).unwrap_or(&[]);
                return self.media_in(now, id, rtcp, payload, rx);
            }
            Watch::Rtsp(id) => {
                if !self.watched_in(now, id, index, local, &segment, bytes, buffer, merge, rx)? {
                    return Ok(());
                }
            }
        }
        merge.push(&segment, index, local, buffer, self.config.tun, &mut rx.tun);
        Ok(())
    }

    fn part(
        &mut self,
        now: Instant,
        session: SessionId,
        path: PathId,
        body: &[u8],
        rx: &mut RxBatch,
    ) -> Result<(), DropReason> {
        let (part, slice) = PartHeader::parse(body).ok_or(DropReason::BadInner)?;
        let mut whole = core::mem::take(&mut self.scratch);
        let result = match self.parts.take(now, session, part, slice, &mut whole) {
            Ok(true) => self.whole(now, session, path, &whole, rx),
            Ok(false) => Ok(()),
            Err(()) => Err(DropReason::Unassembled),
        };
        self.scratch = whole;
        result
    }

    /// An inner packet that came in parts. Its bytes aren't in the receive buffer, so the TUN packet is copied whole.
    fn whole(
        &mut self,
        now: Instant,
        session: SessionId,
        path: PathId,
        inner: &[u8],
        rx: &mut RxBatch,
    ) -> Result<(), DropReason> {
        if !matches!(
            InnerHeader::parse(inner),
            Some((
                InnerHeader {
                    kind: Kind::Udp | Kind::Echo,
                    ..
                },
                _
            ))
        ) {
            return Err(DropReason::BadInner);
        }
        let mut merge = Merge::default();
        let first = rx.tun.writes.len();
        self.inner(now, session, path, inner, 0..inner.len(), &mut merge, rx)?;
        merge.finish(inner, self.config.tun, &mut rx.tun);
        rx.tun.copy_pieces(first, inner);
        Ok(())
    }
}

/// Whether a packet may be opened at all: keys in its slot that are young enough, and a counter not seen yet.
fn may_open(path: &Path, now: Instant, field: u64) -> Result<u64, DropReason> {
    let slot = path
        .slots
        .get(slot_of(field))
        .and_then(Option::as_ref)
        .ok_or(DropReason::NoKey)?;
    if now.since(slot.since) > KEY_LIFE {
        return Err(DropReason::NoKey);
    }
    if path.window.is_fresh(counter_of(field)) {
        Ok(field)
    } else {
        Err(DropReason::Replayed)
    }
}

/// Length of a TCP header without its checksum.
fn tcp_header(body: &[u8]) -> Result<usize, DropReason> {
    let offset = usize::from(*body.get(12).ok_or(DropReason::BadInner)? >> 4) * 4;
    if (20..=60).contains(&offset) {
        Ok(offset - 2)
    } else {
        Err(DropReason::BadInner)
    }
}

/// Source and destination port of a TCP or UDP body.
pub(crate) fn ports(body: &[u8]) -> (u16, u16) {
    match body {
        &[s0, s1, d0, d1, ..] => (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])),
        _ => (0, 0),
    }
}
