//! From the wire: what a datagram is, links' frames, handshakes, and packets relayed for others.

use crate::aead::Aead;
use crate::api::*;
use crate::buffers::{RxBatch, Share, TRAIN_SEGMENTS, Train};
use crate::core::Core;
use crate::gate::Verdict;
use crate::keyed::HopKey;
use crate::seal::write_header;
use crate::stats::DropReason;
use crate::tables::{Action, Forward, within_rate};
use crate::time::Instant;
use crate::wire::*;
use core::ops::Range;

/// Unknown labels reported per link and second.
const REPORTS: u32 = 20;
/// Plaintext of a keep-alive frame.
const KEEP_ALIVE: &[u8] = &[0];

/// A run of datagrams with one label in a receive buffer.
#[derive(Clone)]
pub(crate) struct Run {
    pub label: u32,
    pub range: Range<usize>,
    /// Length of every datagram but the last, which may be shorter.
    pub segment: usize,
}

impl Run {
    /// Where the datagrams lie.
    pub fn datagrams(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (end, segment) = (self.range.end, self.segment);
        self.range
            .clone()
            .step_by(segment)
            .map(move |at| at..end.min(at + segment))
    }
}

/// Packets of a run that were valid.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Valid {
    pub packets: u64,
    pub bytes: u64,
}

impl Valid {
    pub fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

impl<A: Aead> Core<A> {
    /// Takes one receive buffer: datagrams of `segment` bytes (the last may be shorter) from one source. Relayed ones are rewritten in place;
    /// opened ones are opened in place. Send and write what `rx` holds before the buffer is used again.
    ///
    /// Three steps, for shells with several threads: [`Core::receive`], [`RxBatch::open`] (which costs most, and needs no core), [`Core::deliver`].
    pub fn handle_datagrams(
        &mut self,
        now: Instant,
        from: Remote,
        buffer: &mut [u8],
        segment: usize,
        rx: &mut RxBatch,
    ) {
        self.receive(now, from, buffer, segment, rx);
        rx.open(buffer);
        self.deliver(now, buffer, rx);
    }

    /// The first step: tells what there is, relays, takes control frames, and finds what is to be opened.
    pub fn receive(&mut self, now: Instant, from: Remote, buffer: &mut [u8], segment: usize, rx: &mut RxBatch) {
        let segment = segment.max(1);
        let mut at = 0;
        while at < buffer.len() {
            let end = buffer.len().min(at + segment);
            let datagram = buffer.get_mut(at..end).unwrap_or(&mut []);
            at = match Outer::parse(datagram) {
                Some(Outer::Data(header)) => {
                    // Consecutive packets with one label are one run: its entry, keys and flow are looked up once.
                    let word = header.label.to_be_bytes();
                    let mut run_end = end;
                    while buffer.get(run_end..run_end + 4) == Some(&word) && buffer.len() - run_end > DATA_OVERHEAD {
                        run_end = buffer.len().min(run_end + segment);
                    }
                    self.data(
                        now,
                        from,
                        &Run {
                            label: header.label,
                            range: at..run_end,
                            segment,
                        },
                        buffer,
                        rx,
                    );
                    run_end
                }
                Some(Outer::LinkFrame { index, counter }) => {
                    let result = self.link_frame(now, from, index, counter, datagram);
                    self.note(result);
                    end
                }
                Some(message) => {
                    let result = self.handshake(now, from, message, datagram, rx);
                    self.note(result);
                    end
                }
                None => {
                    self.drops.count(DropReason::Malformed);
                    end
                }
            };
        }
    }

    pub(crate) fn note(&mut self, result: Result<(), DropReason>) {
        if let Err(reason) = result {
            self.drops.count(reason);
        }
    }

    fn handshake(
        &mut self,
        now: Instant,
        from: Remote,
        message: Outer,
        datagram: &[u8],
        rx: &mut RxBatch,
    ) -> Result<(), DropReason> {
        let verdict = match message {
            Outer::Initiation if !self.config.listening => Verdict::Drop(DropReason::NotListening),
            Outer::Initiation => self.gate.initiation(now, from, datagram),
            Outer::Response => self.gate.response(now, from, datagram),
            _ => self.gate.answer(now, from),
        };
        match verdict {
            Verdict::Pass => {
                self.emit(Event::Handshake {
                    from,
                    bytes: datagram.to_vec(),
                });
                Ok(())
            }
            Verdict::Drop(reason) => Err(reason),
            Verdict::Cookie(reply) => {
                rx.tx.push(from, &reply);
                Err(DropReason::CookieWanted)
            }
        }
    }

    fn link_frame(
        &mut self,
        now: Instant,
        from: Remote,
        index: u32,
        counter: u64,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let &(id, generation) = self.indexes.get(&index).ok_or(DropReason::UnknownIndex)?;
        let link = self.links.get_mut(&id.0).ok_or(DropReason::UnknownIndex)?;
        let from = link.source(from);
        let live = link.is_confirmed();
        let newer = generation >= link.current || !live;
        let keys = link.generation(generation).ok_or(DropReason::NoKey)?;
        if !keys.is_alive(now) {
            return Err(DropReason::NoKey);
        }
        if !keys.window.is_fresh(counter) {
            return Err(DropReason::Replayed);
        }
        let len = datagram.len();
        let (header, body) = datagram.split_at_mut(LINK_HEADER);
        if !A::open(&keys.receive, counter, &header[..8], body) {
            return Err(DropReason::BadTag);
        }
        let newest = keys.window.is_newest(counter);
        if !keys.window.accept(counter) {
            return Err(DropReason::Replayed);
        }
        let first = !keys.confirmed;
        keys.confirmed = true;
        link.heard = now;
        link.traffic.rx_bytes += len as u64;
        link.traffic.rx_packets += 1;
        if first && newer {
            // The far end has shown that it holds these keys: only now is anything replaced. A live link's address only by an answered probe.
            link.current = generation;
            let moved = live && link.remote != from;
            if moved {
                link.roamed = Some(now);
            } else {
                self.move_to(id, from);
            }
            self.emit(Event::LinkConfirmed {
                link: id,
                generation,
                from,
            });
            if moved {
                self.emit(Event::LinkRoamed { link: id, from });
            }
        } else if newest && generation == link.current && link.roams(now, from) {
            self.emit(Event::LinkRoamed { link: id, from });
        }
        let plain = body.get(..body.len() - TAG).unwrap_or(&[]);
        let purpose = if plain == KEEP_ALIVE {
            &mut self.ledger.keep_alive
        } else {
            &mut self.ledger.control
        };
        *purpose += len as u64;
        self.emit(Event::LinkFrame {
            link: id,
            generation,
            from,
            bytes: plain.to_vec(),
        });
        Ok(())
    }

    fn data(&mut self, now: Instant, from: Remote, run: &Run, buffer: &mut [u8], rx: &mut RxBatch) {
        match self.labels.get(run.label).map(|entry| &entry.action) {
            None => {
                self.drops.add(DropReason::UnknownLabel, run.datagrams().count() as u64);
                self.report_unknown(now, from, run.label);
            }
            Some(&Action::Deliver(path)) => self.prepare(now, path, from, run, buffer, rx),
            Some(Action::Forward(_)) => {
                let valid = self.relay(run, buffer, rx);
                self.note_valid(now, run.label, from, valid);
            }
        }
    }

    /// What valid packets prove of their label and their link.
    pub(crate) fn note_valid(&mut self, now: Instant, label: u32, from: Remote, valid: Valid) {
        if valid.packets == 0 {
            return;
        }
        let Some(entry) = self.labels.get_mut(label) else {
            return;
        };
        entry.valid = now;
        entry.carried = true;
        let id = entry.link;
        let Some(link) = self.links.get_mut(&id.0) else { return };
        link.heard = now;
        link.traffic.rx_bytes += valid.bytes;
        link.traffic.rx_packets += valid.packets;
        let from = link.source(from);
        if link.roams(now, from) {
            self.emit(Event::LinkRoamed { link: id, from });
        }
    }

    /// Swaps label and hop tag of each packet in place; neighbours that pass stay one train.
    fn relay(&mut self, run: &Run, buffer: &mut [u8], rx: &mut RxBatch) -> Valid {
        let mut valid = Valid::default();
        let Some(entry) = self.labels.get_mut(run.label) else {
            return valid;
        };
        let Action::Forward(forward) = &mut entry.action else {
            return valid;
        };
        let Some(egress) = self.links.get_mut(&forward.link.0) else {
            self.drops.add(DropReason::NoPath, run.datagrams().count() as u64);
            return valid;
        };
        let (remote, share) = (egress.remote, Share::of_link(entry.link));
        let most = run.segment * TRAIN_SEGMENTS;
        let mut train: Option<Range<usize>> = None;
        for range in run.datagrams() {
            let packet = buffer.get_mut(range.clone()).unwrap_or(&mut []);
            if let Err(reason) = swap(&entry.hop, forward, run.label, packet) {
                self.drops.count(reason);
                continue;
            }
            valid.count(range.len());
            match &mut train {
                Some(train) if train.end == range.start && train.len() + range.len() <= most => train.end = range.end,
                _ => {
                    if let Some(range) = train.replace(range) {
                        rx.relays.push(Train {
                            remote,
                            segment: run.segment,
                            range,
                            share,
                        });
                    }
                }
            }
        }
        if let Some(range) = train {
            rx.relays.push(Train {
                remote,
                segment: run.segment,
                range,
                share,
            });
        }
        egress.traffic.tx_bytes += valid.bytes;
        egress.traffic.tx_packets += valid.packets;
        self.relayed.0 += valid.packets;
        self.relayed.1 += valid.bytes;
        valid
    }

    fn report_unknown(&mut self, now: Instant, from: Remote, label: u32) {
        let Some(&id) = self.addresses.get(&from.address) else {
            return;
        };
        let Some(link) = self.links.get_mut(&id.0) else { return };
        if within_rate(&mut link.reported, now, REPORTS) {
            self.emit(Event::LabelUnknown {
                link: id,
                label: Label(label),
            });
        }
    }
}

/// A relay's work on one packet: verify the hop tag, refuse replays, write the next hop's header.
fn swap(hop: &HopKey, forward: &mut Forward, label: u32, packet: &mut [u8]) -> Result<(), DropReason> {
    let field = check_hop(hop, label, packet)?;
    if !forward.window.get_or_insert_default().accept(counter_of(field)) {
        return Err(DropReason::Replayed);
    }
    write_header(packet, forward.label.0, field, &forward.hop);
    Ok(())
}

/// Verifies one data packet's label and hop tag; its counter field.
pub(crate) fn check_hop(hop: &HopKey, label: u32, packet: &[u8]) -> Result<u64, DropReason> {
    let Some(Outer::Data(header)) = Outer::parse(packet) else {
        return Err(DropReason::Malformed);
    };
    let Some(tag) = packet.last_chunk::<TAG>() else {
        return Err(DropReason::Malformed);
    };
    if header.label != label || !hop.verify(label, header.counter, tag, &header.hop_tag) {
        return Err(DropReason::BadHopTag);
    }
    Ok(header.counter)
}
