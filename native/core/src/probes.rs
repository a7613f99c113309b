//! Paths' sizes at work: probes sent and answered, and what everything is cut to.

use crate::aead::Aead;
use crate::api::{PathId, SessionId};
use crate::buffers::{RxBatch, TxBatch};
use crate::core::Core;
use crate::path_size::BASE;
use crate::stats::DropReason;
use crate::tables::Session;
use crate::time::Instant;
use crate::wire::*;
use core::net::SocketAddr;

/// Largest inner packet that every path carries in one datagram.
const INNER_BASE: usize = BASE - DATA_OVERHEAD;
/// What makes a probe as long as it should be.
static PADDING: [u8; DATAGRAM] = [0; DATAGRAM];

impl<A: Aead> Core<A> {
    /// Largest inner packet that goes in one datagram of the session's path now. `wanted`: how long the one at hand is.
    #[inline]
    pub(crate) fn room(&mut self, now: Instant, session: SessionId, wanted: usize) -> usize {
        if wanted <= INNER_BASE {
            return INNER_BASE;
        }
        self.room_on(now, session, wanted)
    }

    fn room_on(&mut self, now: Instant, session: SessionId, wanted: usize) -> usize {
        let Ok(id) = self.path_of(session) else {
            return INNER_BASE;
        };
        let Some(path) = self.paths.get_mut(&id.0) else {
            return INNER_BASE;
        };
        if path.size.wants(now, wanted + DATA_OVERHEAD) {
            self.probe_at(now, id);
        }
        self.paths
            .get(&id.0)
            .map_or(INNER_BASE, |p| p.size.size() - DATA_OVERHEAD)
    }

    /// Longest inner packet that the session's path carries in parts.
    pub(crate) fn room_in_parts(&mut self, now: Instant, session: SessionId, wanted: usize) -> usize {
        PARTS_MAX * (self.room(now, session, wanted) - PART_HEADER)
    }

    /// Largest TCP payload, options not counted, for connections that begin on this path now.
    pub(crate) fn mss(&self, path: PathId) -> u16 {
        let size = self.paths.get(&path.0).map_or(BASE, |p| p.size.expected());
        (size - DATA_OVERHEAD - INNER_HEADER - 18) as u16
    }

    /// A connection of this session sends again what it had sent.
    pub(crate) fn resent(&mut self, now: Instant, session: SessionId) {
        let Ok(id) = self.path_of(session) else { return };
        if self.paths.get_mut(&id.0).is_some_and(|path| path.size.resent(now)) {
            self.probe_at(now, id);
        }
    }

    /// The path has probes to send at that time.
    pub(crate) fn probe_at(&mut self, at: Instant, id: PathId) {
        if !self.probing.contains(&id) {
            self.probing.push(id);
        }
        self.probes_due = self.probes_due.min(at);
    }

    /// Sends what probes are due.
    pub(crate) fn probe(&mut self, now: Instant, tx: &mut TxBatch) {
        let mut probing = core::mem::take(&mut self.probing);
        self.probes_due = Instant::MAX;
        probing.retain(|&id| {
            if let Some(probes) = self.paths.get_mut(&id.0).and_then(|path| path.size.poll(now)) {
                for len in core::iter::once(Size::LEN).chain(probes.sizes.map(usize::from)) {
                    self.seal_size(now, id, SizeKind::Probe, probes.id, len, tx);
                }
            }
            let due = self.paths.get(&id.0).and_then(|path| path.size.due());
            self.probes_due = due.map_or(self.probes_due, |due| self.probes_due.min(due));
            due.is_some()
        });
        probing.append(&mut self.probing);
        self.probing = probing;
    }

    /// A message about sizes; a probe is padded to `len` bytes of datagram, the others speak of it.
    fn seal_size(&mut self, now: Instant, path: PathId, kind: SizeKind, id: u16, len: usize, tx: &mut TxBatch) {
        let padding = match kind {
            _ if len < Size::LEN => return,
            SizeKind::Probe => len - Size::LEN,
            SizeKind::Answer | SizeKind::Report => 0,
        };
        let inner = InnerHeader {
            kind: Kind::Size,
            traffic_class: 0,
            hop_limit: 64,
        };
        let size = Size {
            kind,
            id,
            len: len.min(0xffff) as u16,
        };
        let padding = PADDING.get(..padding).unwrap_or(&[]);
        self.seal_one(now, path, &[&inner.bytes(), &size.bytes(), padding], tx);
    }

    /// A message about sizes came, in a datagram of `len` bytes.
    pub(crate) fn size_message(
        &mut self,
        now: Instant,
        id: PathId,
        body: &[u8],
        len: usize,
        rx: &mut RxBatch,
    ) -> Result<(), DropReason> {
        self.ledger.control += len as u64;
        let size = Size::parse(body).ok_or(DropReason::BadInner)?;
        let told = usize::from(size.len);
        let path = self.paths.get_mut(&id.0).ok_or(DropReason::NoPath)?;
        match size.kind {
            SizeKind::Probe if told != len => return Err(DropReason::BadInner),
            SizeKind::Probe if !path.size.may_answer(now) => return Err(DropReason::RateLimited),
            SizeKind::Probe => self.seal_size(now, id, SizeKind::Answer, size.id, len, &mut rx.tx),
            SizeKind::Answer => {
                path.size.answered(now, size.id, told);
                if let Some(due) = path.size.due() {
                    self.probe_at(due, id);
                }
            }
            SizeKind::Report => path.size.heard(told),
        }
        Ok(())
    }

    /// So many packets came over this path, the longest in a datagram of `len` bytes, which is more than every path carries.
    pub(crate) fn long_came(&mut self, now: Instant, id: PathId, len: usize, packets: u64, rx: &mut RxBatch) {
        let path = self.paths.get_mut(&id.0);
        if let Some(len) = path.and_then(|path| path.size.came(now, len, packets)) {
            self.seal_size(now, id, SizeKind::Report, 0, usize::from(len), &mut rx.tx);
        }
    }

    /// Longest IP packet of the session's path, once anything was probed.
    pub(crate) fn path_mtu(&self, session: &Session) -> Option<u16> {
        let path = self.paths.get(&session.path?.0)?;
        let v6 = self.links.get(&path.egress.link.0)?.remote.address.is_ipv6();
        let headers = if v6 { 48 } else { 28 };
        path.size.known().map(|size| (size + headers) as u16)
    }

    /// The link to `to` didn't take so many datagrams, the shortest of `len` bytes: they are lost.
    pub fn too_long(&mut self, now: Instant, to: SocketAddr, len: usize, datagrams: usize) {
        self.drops.add(DropReason::TooLongForLink, datagrams as u64);
        let Some(&link) = self.addresses.get(&to) else { return };
        let mut told: Vec<PathId> = Vec::new();
        for (&id, path) in &mut self.paths {
            if path.egress.link == link && path.size.refused(now, len) {
                told.push(PathId(id));
            }
        }
        told.sort_unstable();
        for id in told {
            self.probe_at(now, id);
        }
    }
}
