//! Buffers that the shell lends: what the core wants sent and written. All are reused; nothing allocates once they have grown.

use crate::aead::{OpenKey, Sealed, TrainKey};
use crate::api::{LinkId, PathId, Remote};
use crate::keyed::HopKey;
use crate::seal::write_header;
use crate::stats::Fullness;
use crate::wire::{DATA_HEADER, VNET_HEADER};
use core::net::{IpAddr, SocketAddr};
use core::ops::Range;
use std::sync::Arc;

/// Equal-sized datagrams to one destination, lying one behind the other: one message with `UDP_SEGMENT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Train {
    /// Where to.
    pub remote: Remote,
    /// Size of every datagram but the last, which may be shorter.
    pub segment: usize,
    /// Where in its buffer.
    pub range: Range<usize>,
    /// Whose they are: where a line is slow, each gets its share of it.
    pub share: Share,
}

/// Who shares a line: a neighbour whose packets are relayed, a flow of this host, or the control logic. Equal ones are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Share(pub u32);

impl Share {
    /// Frames of links and handshakes.
    pub const CONTROL: Self = Self(0);
    const LOCAL: u32 = 1 << 31;

    /// What came in over that link.
    pub(crate) const fn of_link(link: LinkId) -> Self {
        Self(!Self::LOCAL & (link.0 + 1))
    }

    /// A flow from the host, by the ends of its addresses and its ports.
    pub(crate) fn of_flow(own: IpAddr, peer: IpAddr, ports: u32) -> Self {
        let mixed = (word(own) ^ word(peer).rotate_left(16) ^ ports).wrapping_mul(0x9e37_79b1);
        Self(Self::LOCAL | mixed >> 1)
    }

    /// What a device sends to its pair of sockets.
    pub(crate) const fn of_media(id: u32) -> Self {
        Self(Self::LOCAL | id)
    }
}

fn word(ip: IpAddr) -> u32 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(ip) => ip.to_bits() as u32,
    }
}

/// The kernel takes at most so many segments in one message.
pub const TRAIN_SEGMENTS: usize = 64;
/// And at most so many bytes.
pub const TRAIN_BYTES: usize = 65_507;
/// Room that one call may need in a [`TxBatch`]: 64 KiB cut into the smallest segments that hosts make (an MSS of 48), each with all headers.
pub const TX_ROOM: usize = 256 * 1_024;

/// From so many bytes on, what was made should be sent: still in the cache that it was written into, and while the next is read the far end works.
const TX_ENOUGH: usize = 32 * 1_024;

/// How a train's packets shall be sealed.
pub(crate) struct Seal<'a> {
    pub key: &'a Arc<dyn TrainKey>,
    pub hop: &'a HopKey,
    pub label: u32,
    /// Counter field of its first packet; the others' follow.
    pub first: u64,
}

/// A train that is written, but not sealed.
struct Planned {
    /// Its place in [`TxBatch::trains`].
    train: usize,
    key: Arc<dyn TrainKey>,
    hop: HopKey,
    label: u32,
    first: u64,
    packets: usize,
}

/// Datagrams that the core made: sealed packets, control frames, cookies.
///
/// Packets are sealed when they are asked for ([`TxBatch::ready`]), not when they are made: so those of one path that came one by one are one train,
/// for the AEAD's lanes and for the kernel.
pub struct TxBatch {
    buffer: Vec<u8>,
    used: usize,
    trains: Vec<Train>,
    /// Whose the trains are that come next. Packets put behind another's share its fate.
    pub(crate) share: Share,
    planned: Vec<Planned>,
    sealed: Fullness,
    /// How often it was emptied.
    turn: u64,
}

/// Where a packet lies that isn't sealed yet; means nothing later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    turn: u64,
    at: usize,
}

impl Default for TxBatch {
    fn default() -> Self {
        Self {
            buffer: vec![0; TX_ENOUGH + TX_ROOM],
            used: 0,
            trains: Vec::with_capacity(256),
            share: Share::CONTROL,
            planned: Vec::with_capacity(256),
            sealed: Fullness::default(),
            turn: 0,
        }
    }
}

impl TxBatch {
    /// Whether it is time to send; another call might not find room.
    pub fn is_full(&self) -> bool {
        self.used >= TX_ENOUGH
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.trains.is_empty()
    }

    /// Seals what isn't yet, and hands out all trains, in order, with the bytes that their ranges lie in.
    pub fn ready(&mut self) -> (&[Train], &mut [u8]) {
        self.turn += 1;
        for planned in self.planned.drain(..) {
            let Some(train) = self.trains.get(planned.train) else {
                continue;
            };
            let Some(bytes) = self.buffer.get_mut(train.range.clone()) else {
                continue;
            };
            planned.key.seal_train(planned.first, bytes, train.segment, DATA_HEADER);
            for (index, packet) in bytes.chunks_mut(train.segment).enumerate() {
                write_header(packet, planned.label, planned.first + index as u64, &planned.hop);
            }
            self.sealed.note(planned.packets);
        }
        (&self.trains, &mut self.buffer)
    }

    /// How many packets it sealed per train.
    pub fn sealed(&self) -> Fullness {
        self.sealed
    }

    /// After everything was sent.
    pub fn clear(&mut self) {
        self.turn += 1;
        self.used = 0;
        self.trains.clear();
        self.planned.clear();
    }

    /// Where the next packet will lie.
    pub(crate) fn place(&self) -> Place {
        Place {
            turn: self.turn,
            at: self.used,
        }
    }

    /// The inner packet of `len` bytes at this place, if it isn't sealed yet.
    pub(crate) fn unsealed(&mut self, place: Place, len: usize) -> Option<&mut [u8]> {
        let at = place.at + DATA_HEADER;
        self.buffer.get_mut(at..at + len).filter(|_| place.turn == self.turn)
    }

    /// Lends `len` bytes to write datagrams into; `None` when there's no room.
    pub(crate) fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        self.buffer.get_mut(self.used..self.used + len)
    }

    /// Keeps the first `len` bytes of what was reserved, as a train.
    pub(crate) fn commit(&mut self, remote: Remote, segment: usize, len: usize) {
        let range = self.used..self.used + len;
        self.used += len;
        self.trains.push(Train {
            remote,
            segment,
            range,
            share: self.share,
        });
    }

    /// One datagram.
    pub(crate) fn push(&mut self, remote: Remote, datagram: &[u8]) {
        if let Some(room) = self.reserve(datagram.len()) {
            room.copy_from_slice(datagram);
            self.commit(remote, datagram.len(), datagram.len());
        }
    }

    /// Keeps `packets` packets of `segment` bytes (the last may be shorter), the first `len` bytes of what was reserved, to be sealed later.
    pub(crate) fn plan(&mut self, seal: &Seal<'_>, remote: Remote, segment: usize, packets: usize, len: usize) {
        if self.extend(seal, remote, segment, packets, len) {
            return;
        }
        self.planned.push(Planned {
            train: self.trains.len(),
            key: seal.key.clone(),
            hop: seal.hop.clone(),
            label: seal.label,
            first: seal.first,
            packets,
        });
        self.commit(remote, segment, len);
    }

    /// Whether they could be put behind the last train: of the same path, with full packets only, and the next counters.
    fn extend(&mut self, seal: &Seal<'_>, remote: Remote, segment: usize, packets: usize, len: usize) -> bool {
        let (Some(planned), place) = (self.planned.last_mut(), self.trains.len()) else {
            return false;
        };
        let Some(train) = self.trains.last_mut().filter(|_| planned.train + 1 == place) else {
            return false;
        };
        let follows = Arc::ptr_eq(&planned.key, seal.key)
            && planned.label == seal.label
            && planned.first + planned.packets as u64 == seal.first
            && train.remote == remote;
        let shape = train.range.len() == planned.packets * train.segment
            && (segment == train.segment || packets == 1 && segment < train.segment)
            && planned.packets + packets <= TRAIN_SEGMENTS
            && train.range.len() + len <= TRAIN_BYTES;
        if follows && shape {
            planned.packets += packets;
            train.range.end += len;
            self.used += len;
        }
        follows && shape
    }
}

/// One packet for the TUN: a virtio header, headers, and payload pieces, to be written with one `writev`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunWrite {
    /// virtio header, IP and transport headers (and payload, where the core made the packet): in [`TunBatch::heads`].
    pub head: Range<usize>,
    /// Indexes into [`TunBatch::pieces`].
    pub pieces: Range<usize>,
}

/// Packets for the TUN. Pieces lie in the receive buffer that was handed in, so they are written before it is used again.
#[derive(Default)]
pub struct TunBatch {
    /// Headers, each with its 10-byte virtio header before it.
    pub heads: Vec<u8>,
    /// Payload ranges in the receive buffer.
    pub pieces: Vec<Range<usize>>,
    /// What to write, in order.
    pub writes: Vec<TunWrite>,
    /// Identification of the next IPv4 packet that a router may fragment.
    next_id: u16,
}

impl TunBatch {
    /// Identifications for `packets` packets; the first.
    pub(crate) fn identify(&mut self, packets: usize) -> u16 {
        let first = self.next_id;
        self.next_id = first.wrapping_add(packets as u16);
        first
    }

    /// A number that all packets of a flow, this way, have in common, for shells that spread flows over queues.
    pub fn flow_of(&self, write: &TunWrite) -> u32 {
        let packet = self
            .heads
            .get(write.head.start + VNET_HEADER..write.head.end)
            .unwrap_or(&[]);
        // Addresses and ports; what has none goes by addresses alone, or nearly.
        let (from, to) = if packet.first().is_some_and(|byte| byte >> 4 == 6) {
            (8, 44)
        } else {
            (12, 24)
        };
        let words = packet.get(from..to).unwrap_or(&[]).as_chunks::<4>().0;
        let mixed = words.iter().fold(0u32, |mixed, word| {
            (mixed.rotate_left(5) ^ u32::from_ne_bytes(*word)).wrapping_mul(0x9e37_79b1)
        });
        mixed >> 8
    }

    /// After everything was written.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.pieces.clear();
        self.writes.clear();
    }

    /// A packet wholly made by the core, in pieces; the first is its virtio header.
    pub(crate) fn push_whole(&mut self, pieces: &[&[u8]]) {
        let start = self.heads.len();
        for piece in pieces {
            self.heads.extend_from_slice(piece);
        }
        self.writes.push(TunWrite {
            head: start..self.heads.len(),
            pieces: self.pieces.len()..self.pieces.len(),
        });
    }

    /// Copies the pieces of the packets from `first` on out of `source`, which won't live as long as they must.
    pub(crate) fn copy_pieces(&mut self, first: usize, source: &[u8]) {
        for write in self.writes.get_mut(first..).unwrap_or(&mut []) {
            let start = self.heads.len();
            self.heads.extend_from_within(write.head.clone());
            for piece in self.pieces.get(write.pieces.clone()).unwrap_or(&[]) {
                self.heads.extend_from_slice(source.get(piece.clone()).unwrap_or(&[]));
            }
            write.head = start..self.heads.len();
            write.pieces = write.pieces.end..write.pieces.end;
        }
    }
}

/// One datagram for a device, from a socket that the core asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaSend {
    /// Number of the pair, and which of its sockets.
    pub id: u32,
    /// The one for RTCP.
    pub rtcp: bool,
    /// The device's port.
    pub to: SocketAddr,
    /// Where in [`MediaBatch::buffer`].
    pub range: Range<usize>,
}

/// Datagrams for devices.
#[derive(Default)]
pub struct MediaBatch {
    /// The datagrams' bytes.
    pub buffer: Vec<u8>,
    /// What to send, in order.
    pub sends: Vec<MediaSend>,
}

impl MediaBatch {
    /// After everything was sent.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.sends.clear();
    }

    pub(crate) fn push(&mut self, id: u32, rtcp: bool, to: SocketAddr, datagram: &[u8]) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(datagram);
        let range = start..self.buffer.len();
        self.sends.push(MediaSend { id, rtcp, to, range });
    }
}

/// Packets of one path and one key in a receive buffer, to be opened.
pub(crate) struct Opening {
    pub label: u32,
    pub path: PathId,
    pub from: Remote,
    pub key: Arc<dyn OpenKey>,
    /// In [`RxBatch::packets`].
    pub packets: Range<usize>,
}

/// What one receive buffer of datagrams turned into.
#[derive(Default)]
pub struct RxBatch {
    /// What is to be opened, and when it was, delivered.
    pub(crate) openings: Vec<Opening>,
    pub(crate) packets: Vec<Sealed>,
    opened: Fullness,
    /// Relayed datagrams, rewritten in place in the receive buffer.
    pub relays: Vec<Train>,
    /// For the TUN.
    pub tun: TunBatch,
    /// Datagrams that the core made in answer.
    pub tx: TxBatch,
    /// Datagrams for devices, from media sockets.
    pub media: MediaBatch,
}

impl RxBatch {
    /// Opens in place what [`Core::receive`](crate::Core::receive) found in this buffer.
    pub fn open(&mut self, buffer: &mut [u8]) {
        for opening in &self.openings {
            let packets = self.packets.get_mut(opening.packets.clone()).unwrap_or(&mut []);
            self.opened.note(packets.len());
            opening.key.open_train(buffer, packets);
        }
    }

    /// Whether there is something to open.
    pub fn is_sealed(&self) -> bool {
        !self.openings.is_empty()
    }

    /// How many packets it opened per train.
    pub fn opened(&self) -> Fullness {
        self.opened
    }

    /// After everything went out.
    pub fn clear(&mut self) {
        self.clear_received();
        self.tx.clear();
    }

    /// After what lies in the receive buffer went out; answers, which have a buffer of their own, may wait for others.
    pub fn clear_received(&mut self) {
        self.openings.clear();
        self.packets.clear();
        self.relays.clear();
        self.tun.clear();
        self.media.clear();
    }
}
