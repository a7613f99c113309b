//! A watched connection's segments on their way: other bytes instead of theirs, later ones, resets.

use super::judge::{Seen, Verdict};
use crate::aead::Aead;
use crate::api::SessionId;
use crate::buffers::{RxBatch, TunBatch, TxBatch};
use crate::core::Core;
use crate::flows::{FlowIndex, LocalKey, tcp_flags};
use crate::icmp;
use crate::merge::{Merge, Segment};
use crate::stats::DropReason;
use crate::time::Instant;
use crate::wire::*;

/// Headers of a segment towards the device, for bytes that leave later.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    /// Without the checksum.
    pub header: [u8; 58],
    pub len: usize,
    pub traffic_class: u8,
    pub hop_limit: u8,
}

impl<A: Aead> Core<A> {
    /// A segment of a connection that the RTSP helper reads; whether it goes on as it is.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn watched_in(
        &mut self,
        now: Instant,
        id: u32,
        index: FlowIndex,
        local: LocalKey,
        segment: &Segment,
        bytes: &[u8],
        buffer: &[u8],
        merge: &mut Merge,
        rx: &mut RxBatch,
    ) -> Result<bool, DropReason> {
        let header = buffer.get(segment.header.clone()).ok_or(DropReason::BadInner)?;
        let seen = Seen::new(header, bytes.get(header.len()..).unwrap_or(&[])).ok_or(DropReason::BadInner)?;
        // Who opened the connection asks.
        let asks = self.flows.get(index).is_some_and(|flow| flow.inbound);
        let verdict = self.rtsp_segment(now, id, asks, seen);
        if verdict == Verdict::Pass {
            return Ok(true);
        }
        // Whatever is under construction goes first: nothing overtakes.
        merge.finish(buffer, self.config.tun, &mut rx.tun);
        match verdict {
            Verdict::Pass => Ok(true),
            Verdict::Drop => Err(DropReason::Rtsp),
            Verdict::Cut => {
                self.rtsp_cut(now, id, index, &mut rx.tx, &mut rx.tun);
                Err(DropReason::Rtsp)
            }
            Verdict::Instead { seq, flags } => {
                let mut head = Head {
                    header: [0; 58],
                    len: header.len().min(58),
                    traffic_class: segment.traffic_class,
                    hop_limit: segment.hop_limit,
                };
                head.header[..head.len].copy_from_slice(&header[..head.len]);
                let out = core::mem::take(&mut self.rtsp.out);
                self.write_tcp(&head, local, seq, flags, &out, &mut rx.tun);
                self.rtsp.out = out;
                self.rtsp_head(id, head);
                Ok(false)
            }
        }
    }

    /// Bytes of a TCP connection for the host, behind the headers of a segment that came.
    pub(crate) fn write_tcp(
        &mut self,
        head: &Head,
        local: LocalKey,
        seq: u32,
        flags: u8,
        bytes: &[u8],
        tun: &mut TunBatch,
    ) {
        let header = head.header.get(..head.len).unwrap_or(&[]);
        let mut whole = core::mem::take(&mut self.scratch);
        let (mut merge, first) = (Merge::default(), tun.writes.len());
        whole.clear();
        let cut = INNER_MAX - INNER_HEADER - 58;
        let pieces = bytes.len().div_ceil(cut).max(1);
        for index in 0..pieces {
            let piece = bytes
                .get(index * cut..bytes.len().min((index + 1) * cut))
                .unwrap_or(&[]);
            let at = whole.len();
            whole.extend_from_slice(header);
            whole.extend_from_slice(piece);
            let seq = seq.wrapping_add((index * cut) as u32);
            let last = index + 1 == pieces;
            let bits = if last {
                flags
            } else {
                flags & !(tcp_flags::FIN | tcp_flags::PSH)
            };
            if let Some(header) = whole.get_mut(at..at + 18) {
                header[4..8].copy_from_slice(&seq.to_be_bytes());
                header[13] = bits;
            }
        }
        let mut at = 0;
        for _ in 0..pieces {
            let end = whole.len().min(at + header.len() + cut);
            let segment = Segment {
                kind: Kind::Tcp,
                session: SessionId(0),
                traffic_class: head.traffic_class,
                hop_limit: head.hop_limit,
                header: at..at + header.len(),
                payload: at + header.len()..end,
            };
            merge.push(&segment, FlowIndex::NONE, local, &whole, self.config.tun, tun);
            at = end;
        }
        merge.finish(&whole, self.config.tun, tun);
        tun.copy_pieces(first, &whole);
        self.scratch = whole;
    }

    /// Keeps the headers of a segment towards the device.
    pub(crate) fn rtsp_head(&mut self, index: u32, head: Head) {
        if let Some(watched) = self.rtsp.get_mut(index) {
            watched.head = Some(head);
        }
    }

    /// Resets a connection at both ends.
    pub(crate) fn rtsp_cut(&mut self, now: Instant, index: u32, flow: FlowIndex, tx: &mut TxBatch, tun: &mut TunBatch) {
        let behind = self.rtsp.get_mut(index).and_then(|w| w.answers.done());
        let Some(flow) = self.flows.get_mut(flow) else { return };
        flow.closed = true;
        icmp::reset(tun, flow);
        let mut reset = [0u8; INNER_HEADER + 18];
        let inner = InnerHeader {
            kind: Kind::Tcp,
            traffic_class: 0,
            hop_limit: 64,
        };
        reset[..4].copy_from_slice(&inner.bytes());
        reset[4..6].copy_from_slice(&flow.wire.wire_port.to_be_bytes());
        reset[6..8].copy_from_slice(&flow.wire.remote_port.to_be_bytes());
        reset[8..12].copy_from_slice(&behind.unwrap_or(flow.next_seq).to_be_bytes());
        reset[12..16].copy_from_slice(&flow.acked.to_be_bytes());
        reset[16] = 5 << 4;
        reset[17] = tcp_flags::RST | tcp_flags::ACK;
        let session = flow.wire.session;
        if let Ok(path) = self.path_of(session) {
            self.seal_one(now, path, &[&reset], tx);
        }
    }
}
