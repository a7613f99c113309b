//! TCP segments as bytes (RFC 9293; options of RFC 7323 and RFC 2018).

use crate::flows::tcp_flags as flag;
use crate::outbound::clamp_mss;

/// What options of a segment mean to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub mss: Option<u16>,
    /// Window scale, 14 at most.
    pub scale: Option<u8>,
    /// Selective acknowledgements are understood.
    pub selective: bool,
    blocks: [(u32, u32); 4],
    count: usize,
}

impl Options {
    /// Ranges that came, the most recent first.
    pub fn blocks(&self) -> &[(u32, u32)] {
        self.blocks.get(..self.count).unwrap_or(&[])
    }

    /// Adds a range, if there is room.
    pub fn push(&mut self, block: (u32, u32)) {
        if let Some(place) = self.blocks.get_mut(self.count) {
            *place = block;
            self.count += 1;
        }
    }

    fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        while let Some((&kind, rest)) = bytes.split_first() {
            match kind {
                0 => break,
                1 => {
                    bytes = rest;
                    continue;
                }
                _ => {}
            }
            let len = rest.first().map_or(0, |&len| usize::from(len));
            let Some((option, behind)) = bytes.split_at_checked(len).filter(|_| len >= 2) else {
                break;
            };
            bytes = behind;
            match *option {
                [2, _, a, b] => options.mss = Some(u16::from_be_bytes([a, b])),
                [3, _, scale] => options.scale = Some(scale.min(14)),
                [4, _] => options.selective = true,
                [5, _, ref blocks @ ..] => {
                    for &[a, b, c, d, e, f, g, h] in blocks.as_chunks::<8>().0 {
                        options.push((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])));
                    }
                }
                _ => {}
            }
        }
        options
    }

    /// Writes them, padded to whole words.
    fn write(&self, out: &mut Vec<u8>) {
        if let Some(mss) = self.mss {
            out.extend_from_slice(&[2, 4]);
            out.extend_from_slice(&mss.to_be_bytes());
        }
        if let Some(scale) = self.scale {
            out.extend_from_slice(&[1, 3, 3, scale]);
        }
        if self.selective {
            out.extend_from_slice(&[1, 1, 4, 2]);
        }
        if self.count > 0 {
            out.extend_from_slice(&[1, 1, 5, 2 + 8 * self.count as u8]);
            for (start, end) in self.blocks() {
                out.extend_from_slice(&start.to_be_bytes());
                out.extend_from_slice(&end.to_be_bytes());
            }
        }
    }

    /// Bytes that [`Header::write`] makes of them.
    pub fn len(&self) -> usize {
        let blocks = if self.count > 0 { 4 + 8 * self.count } else { 0 };
        let words = [self.mss.is_some(), self.scale.is_some(), self.selective];
        blocks + 4 * words.iter().filter(|there| **there).count()
    }
}

/// A segment's header, ports and checksum aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub seq: u32,
    /// Meaningful with [`flag::ACK`].
    pub ack: u32,
    pub flags: u8,
    /// As it stands in the header.
    pub window: u16,
    pub options: Options,
}

impl Header {
    /// Reads a segment with its payload; `None` when lengths don't hold.
    pub fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let &[_, _, _, _, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = bytes.first_chunk::<20>()?;
        let len = usize::from(offset >> 4) * 4;
        let (header, payload) = bytes.split_at_checked(len)?;
        let options = Options::parse(header.get(20..)?);
        let header = Self {
            seq: u32::from_be_bytes([q0, q1, q2, q3]),
            ack: u32::from_be_bytes([a0, a1, a2, a3]),
            flags,
            window: u16::from_be_bytes([w0, w1]),
            options,
        };
        Some((header, payload))
    }

    /// Appends the header with a checksum of zero.
    pub fn write(&self, (source, destination): (u16, u16), out: &mut Vec<u8>) {
        out.extend_from_slice(&source.to_be_bytes());
        out.extend_from_slice(&destination.to_be_bytes());
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.ack.to_be_bytes());
        let words = (20 + self.options.len()) / 4;
        out.extend_from_slice(&[(words as u8) << 4, self.flags]);
        out.extend_from_slice(&self.window.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        self.options.write(out);
    }

    /// Changes the MSS option of a SYN, if there is one.
    pub fn set_mss(bytes: &mut [u8], mss: u16) {
        let len = bytes.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4);
        if let Some(options) = bytes.get_mut(20..len) {
            clamp_mss(options, mss);
        }
    }

    /// The number behind a segment with so many bytes of payload.
    pub fn end(&self, payload: usize) -> u32 {
        let control = u32::from(self.has(flag::SYN)) + u32::from(self.has(flag::FIN));
        self.seq.wrapping_add(payload as u32).wrapping_add(control)
    }

    /// Whether all of `flags` are set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// A reset in answer to this segment with `payload` bytes of payload; `None` for a reset, which is never answered.
    pub fn reset(&self, payload: usize) -> Option<Self> {
        if self.has(flag::RST) {
            return None;
        }
        if self.has(flag::ACK) {
            return Some(Self {
                seq: self.ack,
                flags: flag::RST,
                ..Self::default()
            });
        }
        Some(Self {
            ack: self.end(payload),
            flags: flag::RST | flag::ACK,
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_written_header_reads_back(
            seq: u32, ack: u32, flags: u8, window: u16, mss: Option<u16>, scale in prop::option::of(0u8..=14), selective: bool,
            blocks in prop::collection::vec(any::<(u32, u32)>(), 0..=2), payload in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let mut options = Options { mss, scale, selective, ..Options::default() };
            blocks.into_iter().for_each(|block| options.push(block));
            let header = Header { seq, ack, flags, window, options };
            let mut bytes = Vec::new();
            header.write((1, 2), &mut bytes);
            prop_assert_eq!(bytes.len(), 20 + options.len());
            bytes.extend_from_slice(&payload);
            prop_assert_eq!(Header::parse(&bytes), Some((header, &payload[..])));
        }

        #[test]
        fn any_bytes_parse_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..80), offset in 0u8..16) {
            let _ = Header::parse(&bytes);
            let mut bytes = bytes;
            if let Some(byte) = bytes.get_mut(12) { *byte = offset << 4; }
            let _ = Header::parse(&bytes);
        }
    }
}
