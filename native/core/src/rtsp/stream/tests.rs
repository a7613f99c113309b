//! One direction, piece by piece.

use super::super::parse::{Scanned, Step};
use super::*;

/// Turns headers to upper case, and makes `hold:` wait until told.
#[derive(Default)]
struct Upper {
    open: bool,
    requests: usize,
}

impl Reader for Upper {
    fn first(&mut self, line: &[u8]) -> Step {
        self.requests += 1;
        if super::super::parse::first_line(line).is_some() {
            Step::Keep
        } else {
            Step::Fail
        }
    }
    fn header(&mut self, line: &[u8]) -> Step {
        match line {
            [b'h', b'o', b'l', b'd', ..] if !self.open => Step::Wait,
            _ => Step::Edit(line.to_ascii_uppercase()),
        }
    }
    fn head_ends(&mut self) -> Step {
        Step::Keep
    }
    fn description(&mut self, _: &[u8]) -> Step {
        Step::Keep
    }
    fn scans(&self) -> bool {
        false
    }
    fn scan(&mut self, _: &[u8], _: bool) -> Scanned {
        Ok((None, 0))
    }
    fn loose(&mut self, _: &[u8], _: bool) -> Scanned {
        Ok((None, 0))
    }
}

const TEXT: &[u8] = b"PLAY rtsp://h/ RTSP/1.0\r\na: x\r\ncontent-length: 3\r\n\r\nabc$\x01\0\x04data";
const WANT: &[u8] = b"PLAY rtsp://h/ RTSP/1.0\r\nA: X\r\nCONTENT-LENGTH: 3\r\n\r\nabc$\x01\0\x04data";

fn stream() -> Stream {
    let mut stream = Stream::new(Care::Rewrite);
    stream.begin(u32::MAX - 10);
    stream
}

/// What a receiver has after a segment was taken.
fn receive(got: &mut Vec<u8>, taken: Taken, seq: u32, payload: &[u8], out: &[u8]) {
    let (seq, bytes) = match taken {
        Taken::Pass => (seq, payload),
        Taken::Send { seq, .. } => (seq, out),
        other => unreachable!("{other:?}"),
    };
    let at = distance(seq, u32::MAX - 10) as usize;
    if bytes.is_empty() {
        return;
    }
    assert!(at <= got.len(), "nothing leaves before what comes before it");
    for (i, &byte) in bytes.iter().enumerate() {
        match got.get(at + i) {
            Some(&known) => assert_eq!(known, byte, "sent again, it is the same"),
            None => got.push(byte),
        }
    }
}

#[test]
fn a_stream_in_any_pieces_leaves_as_the_same_bytes() {
    for size in 1..TEXT.len() {
        let (mut stream, mut reader, mut out, mut got) = (stream(), Upper::default(), Vec::new(), Vec::new());
        for (i, piece) in TEXT.chunks(size).enumerate() {
            let seq = (u32::MAX - 10).wrapping_add((i * size) as u32);
            for _ in 0..2 {
                let taken = stream.take(seq, piece, false, &mut reader, &mut out);
                receive(&mut got, taken, seq, piece, &out);
            }
        }
        assert_eq!(got, WANT, "pieces of {size}");
        assert_eq!(reader.requests, 1);
    }
}

#[test]
fn what_comes_early_waits_for_what_is_missing() {
    let (mut stream, mut reader, mut out, mut got) = (stream(), Upper::default(), Vec::new(), Vec::new());
    for range in [40..TEXT.len(), 20..45, 0..25] {
        let seq = (u32::MAX - 10).wrapping_add(range.start as u32);
        let taken = stream.take(seq, &TEXT[range.clone()], false, &mut reader, &mut out);
        receive(&mut got, taken, seq, &TEXT[range], &out);
    }
    assert_eq!(got, WANT);
}

#[test]
fn behind_its_fin_a_side_acknowledges_as_ever() {
    let start = u32::MAX - 10;
    let (mut stream, mut reader, mut out) = (stream(), Upper::default(), Vec::new());
    let fin = stream.take(start, b"", true, &mut reader, &mut out);
    assert_eq!(fin, Taken::Pass);
    for _ in 0..2 {
        let taken = stream.take(start.wrapping_add(1), b"", false, &mut reader, &mut out);
        assert_eq!(taken, Taken::Pass);
    }
}

#[test]
fn a_line_that_waits_holds_its_whole_message_and_the_fin_behind_it() {
    let (mut stream, mut reader, mut out) = (stream(), Upper::default(), Vec::new());
    let text = b"A * RTSP/1.0\r\n\r\nB * RTSP/1.0\r\nx: 1\r\nhold: me\r\n\r\n";
    let start = u32::MAX - 10;
    let taken = stream.take(start, text, true, &mut reader, &mut out);
    assert_eq!(
        taken,
        Taken::Send {
            seq: start,
            fin: false,
            whole: false
        }
    );
    assert_eq!(out, &text[..16]);
    assert!(stream.waits());
    reader.open = true;
    let taken = stream.resume(&mut reader, &mut out);
    assert_eq!(
        taken,
        Taken::Send {
            seq: start.wrapping_add(16),
            fin: true,
            whole: true
        }
    );
    assert_eq!(out, text[16..].to_ascii_uppercase());
}

#[test]
fn a_sender_that_waits_for_us_is_not_left_waiting_for_ever() {
    let (mut stream, mut reader, mut out) = (stream(), Upper::default(), Vec::new());
    let taken: Vec<_> = (0..6)
        .map(|_| stream.take(u32::MAX - 10, b"PLAY rt", false, &mut reader, &mut out))
        .collect();
    assert!(taken[..3].iter().all(|t| matches!(t, Taken::Send { .. })) && taken[5] == Taken::Fail);
}
