//! Sealing: inner packets become trains of datagrams.

use crate::aead::Aead;
use crate::api::*;
use crate::buffers::{Seal, TRAIN_BYTES, TRAIN_SEGMENTS, TxBatch};
use crate::core::Core;
use crate::keyed::HopKey;
use crate::path_size::BASE;
use crate::stats::DropReason;
use crate::tables::{CannotSend, within_rate};
use crate::time::Instant;
use crate::wire::*;

/// Refusals and reports sealed per session and second.
const REPORTS: u32 = 50;

impl<A: Aead> Core<A> {
    /// The path that a session sends over.
    pub(crate) fn path_of(&self, session: SessionId) -> Result<PathId, DropReason> {
        self.sessions
            .get(&session.0)
            .and_then(|s| s.path)
            .ok_or(DropReason::NoPath)
    }

    /// Too long for one datagram: the inner packet goes in up to four slices. Returns bytes sent.
    pub(crate) fn seal_in_parts(
        &mut self,
        now: Instant,
        id: SessionId,
        template: &[u8],
        payload: &[u8],
        tx: &mut TxBatch,
    ) -> Result<usize, DropReason> {
        let path = self.path_of(id)?;
        let session = self.sessions.get_mut(&id.0).ok_or(DropReason::NoSession)?;
        session.part_id = session.part_id.wrapping_add(1);
        let part_id = session.part_id;
        let mut whole = core::mem::take(&mut self.scratch);
        whole.clear();
        whole.extend_from_slice(template);
        whole.extend_from_slice(payload);
        let slice = self.room(now, id, whole.len()) - PART_HEADER;
        let count = whole.len().div_ceil(slice).max(2);
        if count > PARTS_MAX {
            self.scratch = whole;
            return Err(DropReason::TooLong);
        }
        // Even slices: no runt behind full ones.
        let cut = whole.len().div_ceil(count);
        let (traffic_class, hop_limit) = (
            template.get(1).copied().unwrap_or(0),
            template.get(2).copied().unwrap_or(0),
        );
        let inner = InnerHeader {
            kind: Kind::Part,
            traffic_class,
            hop_limit,
        }
        .bytes();
        let stride = DATA_OVERHEAD + PART_HEADER + cut;
        let len = count * (DATA_OVERHEAD + PART_HEADER) + whole.len();
        let result = self.seal(now, path, stride, count, len, tx, |out| {
            for (index, (segment, slice)) in out.chunks_mut(stride).zip(whole.chunks(cut)).enumerate() {
                let part = PartHeader {
                    id: part_id,
                    index: index as u8,
                    count: count as u8,
                }
                .bytes();
                put(segment, DATA_HEADER, &inner);
                put(segment, DATA_HEADER + INNER_HEADER, &part);
                put(segment, DATA_HEADER + PART_HEADER, slice);
            }
        });
        self.scratch = whole;
        result.map(|()| len)
    }

    /// Seals one inner packet given in pieces; returns the datagram's length, 0 if it couldn't be.
    pub(crate) fn seal_one(&mut self, now: Instant, path: PathId, pieces: &[&[u8]], tx: &mut TxBatch) -> usize {
        let len = DATA_OVERHEAD + pieces.iter().map(|p| p.len()).sum::<usize>();
        let result = self.seal(now, path, len, 1, len, tx, |out| {
            let mut at = DATA_HEADER;
            for piece in pieces {
                put(out, at, piece);
                at += piece.len();
            }
        });
        match result {
            Ok(()) => {
                self.ledger.control += len as u64;
                len
            }
            Err(reason) => {
                self.drops.count(reason);
                0
            }
        }
    }

    /// Seals a report about a packet of the far end's, unless it had many this second.
    pub(crate) fn report(&mut self, now: Instant, id: SessionId, report: ErrorReport, tx: &mut TxBatch) {
        let Some(session) = self.sessions.get_mut(&id.0) else {
            return;
        };
        let Some(path) = session.path else { return };
        if within_rate(&mut session.reported, now, REPORTS) {
            let inner = InnerHeader {
                kind: Kind::Error,
                traffic_class: 0,
                hop_limit: 64,
            }
            .bytes();
            self.seal_one(now, path, &[&inner, &report.bytes()], tx);
        }
    }

    /// Cuts `payload` into pieces of `cut` bytes, each behind `template` (patched by `patch(inner packet, index, last)`), and seals them as
    /// trains. Returns bytes sent.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn seal_cut(
        &mut self,
        now: Instant,
        session: SessionId,
        template: &[u8],
        payload: &[u8],
        cut: usize,
        tx: &mut TxBatch,
        patch: impl Fn(&mut [u8], usize, bool),
    ) -> Result<usize, DropReason> {
        let path = self.path_of(session)?;
        let overhead = DATA_OVERHEAD + template.len();
        let stride = overhead + cut;
        let per_train = TRAIN_SEGMENTS.min(TRAIN_BYTES / stride).max(1);
        let pieces = payload.len().div_ceil(cut).max(1);
        let mut bytes = 0;
        let mut done = 0;
        while done < pieces {
            let count = per_train.min(pieces - done);
            let part = payload
                .get(done * cut..payload.len().min((done + count) * cut))
                .unwrap_or(&[]);
            let len = count * overhead + part.len();
            let stride = stride.min(len);
            self.seal(now, path, stride, count, len, tx, |out| {
                for (index, segment) in out.chunks_mut(stride).enumerate() {
                    let piece = part.get(index * cut..part.len().min((index + 1) * cut)).unwrap_or(&[]);
                    put(segment, DATA_HEADER, template);
                    if let Some(inner) = segment.get_mut(DATA_HEADER..) {
                        patch(inner, done + index, done + index + 1 == pieces);
                    }
                    put(segment, DATA_HEADER + template.len(), piece);
                }
            })?;
            bytes += len;
            done += count;
        }
        Ok(bytes)
    }

    /// Seals a train of `count` datagrams, `stride` apart and `len` bytes in all, that `fill` writes (inner packets at their places).
    #[allow(clippy::too_many_arguments)]
    fn seal(
        &mut self,
        now: Instant,
        path_id: PathId,
        stride: usize,
        count: usize,
        len: usize,
        tx: &mut TxBatch,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), DropReason> {
        let path = self.paths.get_mut(&path_id.0).ok_or(DropReason::NoPath)?;
        let link = self.links.get_mut(&path.egress.link.0).ok_or(DropReason::NoPath)?;
        let out = tx.reserve(len).ok_or(DropReason::NoRoom)?;
        let first = path.take_counters(now, count as u64).map_err(|e| match e {
            CannotSend::NoKey => DropReason::NoKey,
            CannotSend::Exhausted => DropReason::CounterExhausted,
        })?;
        fill(out);
        let slot = path.slots.get(path.send_slot).and_then(Option::as_ref);
        let key = &slot.ok_or(DropReason::NoKey)?.send;
        let (hop, label) = (&path.egress_key, path.egress.label.0);
        tx.plan(&Seal { key, hop, label, first }, link.remote, stride, count, len);
        link.traffic.tx_bytes += len as u64;
        link.traffic.tx_packets += count as u64;
        let session = path.session;
        let rekey = path.wants_rekey();
        let doubt = stride > BASE && path.size.sent(now, stride, count);
        if let Some(session) = self.sessions.get_mut(&session.0) {
            session.traffic.tx_bytes += len as u64;
            session.traffic.tx_packets += count as u64;
            session.sent = Some(now);
        }
        if doubt {
            self.probe_at(now, path_id);
        }
        if rekey {
            self.emit(Event::RekeyNeeded { session, path: path_id });
        }
        Ok(())
    }
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Writes a data packet's clear header, hop tag included; the AEAD tag must stand at its end already.
pub(crate) fn write_header(packet: &mut [u8], label: u32, counter: u64, hop: &HopKey) {
    if let Some(&tag) = packet.last_chunk::<TAG>() {
        let hop_tag = hop.tag(label, counter, &tag);
        DataHeader {
            label,
            counter,
            hop_tag,
        }
        .write(packet);
    }
}
