//! Where RTSP messages begin and end in a TCP stream: heads line by line, bodies by Content-Length, interleaved frames by their own length.

use super::text;
use core::ops::Range;

/// A head may have so many bytes, and a line of SDP.
const HEAD: usize = 16 * 1_024;
/// A message's body may be announced with so many.
const BODY: usize = 1 << 24;

/// What a line becomes.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// What it was.
    Keep,
    /// This, which is as long.
    Edit(Vec<u8>),
    /// Unknown yet: it and what follows is read again later.
    Wait,
    /// Nothing that may pass.
    Fail,
}

/// Who reads a direction's messages. Lines have their ends.
pub trait Reader {
    /// The first line of a message.
    fn first(&mut self, line: &[u8]) -> Step;
    /// A header line, or its continuation.
    fn header(&mut self, line: &[u8]) -> Step;
    /// The head is over.
    fn head_ends(&mut self) -> Step;
    /// A line of a session description.
    fn description(&mut self, line: &[u8]) -> Step;
    /// Whether other bodies, and interleaved frames, must be looked through.
    fn scans(&self) -> bool;
    /// Looks bytes through that have no lines; `complete`: no more of them follow.
    fn scan(&mut self, bytes: &[u8], complete: bool) -> Scanned;
    /// The same for a stream that was met in its middle, or lost: nobody knows what begins where.
    /// `met`: these are the first of them.
    fn loose(&mut self, bytes: &[u8], met: bool) -> Scanned;
}

/// The same bytes rewritten, if they must be, and how many at the end can't be judged without what follows; or nothing of them may pass.
pub type Scanned = Result<(Option<Vec<u8>>, usize), Refused>;

/// See [`Scanned`].
#[derive(Debug, PartialEq, Eq)]
pub struct Refused;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    /// Behind the dollar sign: bytes of channel and length so far, and the length's first.
    Frame {
        have: u8,
        high: u8,
    },
    Head,
    Description {
        left: usize,
    },
    Raw {
        left: usize,
    },
    /// For good: see [`Reader::loose`].
    Loose {
        /// Nothing of it was read yet, and there was something before.
        met: bool,
    },
}

/// The replacement of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Edit {
    pub at: usize,
    pub bytes: Vec<u8>,
}

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The rest isn't whole.
    More,
    /// A line has to wait.
    Wait,
    /// This isn't RTSP, or none that may pass.
    Fail,
}

/// How far it got.
#[derive(Debug)]
pub struct Reading {
    pub used: usize,
    pub edits: Vec<Edit>,
    pub end: End,
}

/// Bytes read, and what they become.
type Stepped = Result<(usize, Option<Vec<u8>>), End>;

/// One direction's place in its messages.
#[derive(Debug)]
pub struct Parser {
    state: State,
    /// Bytes of the head so far; its Content-Length; whether its body is a session description.
    head: usize,
    length: usize,
    described: bool,
    /// Sequence number of the message's first byte.
    pub message: u32,
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            state: State::Start,
            head: 0,
            length: 0,
            described: false,
            message: 0,
        }
    }
}

impl Parser {
    /// Of a stream whose messages nobody can tell apart. `met`: what came before wasn't read either.
    pub fn loose(met: bool) -> Self {
        Self {
            state: State::Loose { met },
            ..Self::default()
        }
    }

    /// Whether it is one.
    pub fn is_loose(&self) -> bool {
        matches!(self.state, State::Loose { .. })
    }

    /// Reads `data`, whose first byte has sequence number `base`, as far as it can be judged.
    pub fn read(&mut self, base: u32, data: &[u8], reader: &mut impl Reader) -> Reading {
        let mut reading = Reading {
            used: 0,
            edits: Vec::new(),
            end: End::More,
        };
        while let Some(rest) = data.get(reading.used..).filter(|rest| !rest.is_empty()) {
            match self.step(base.wrapping_add(reading.used as u32), rest, reader) {
                Ok((0, _)) => break,
                Ok((used, edit)) => {
                    if let Some(bytes) = edit {
                        reading.edits.push(Edit {
                            at: reading.used,
                            bytes,
                        });
                    }
                    reading.used += used;
                }
                Err(end) => {
                    reading.end = end;
                    break;
                }
            }
        }
        reading
    }

    /// One line, or a stretch of raw bytes: how many, and what some of them become. None: more are needed.
    fn step(&mut self, seq: u32, rest: &[u8], reader: &mut impl Reader) -> Stepped {
        match self.state {
            State::Start => match rest.first() {
                Some(b'$') => {
                    self.state = State::Frame { have: 0, high: 0 };
                    Ok((1, None))
                }
                Some(b'\r' | b'\n') => Ok((1, None)),
                _ => {
                    (self.head, self.length, self.described) = (0, 0, false);
                    self.message = seq;
                    self.state = State::Head;
                    self.head_line(rest, reader)
                }
            },
            State::Frame { have, high } => {
                let byte = rest.first().copied().unwrap_or(0);
                self.state = match have {
                    // Whose channel it is was the client's to say: all of them are looked through.
                    0 => State::Frame { have: 1, high },
                    1 => State::Frame { have: 2, high: byte },
                    _ => raw(usize::from(u16::from_be_bytes([high, byte]))),
                };
                Ok((1, None))
            }
            State::Head => self.head_line(rest, reader),
            State::Description { left } => {
                let whole = rest.get(..left).unwrap_or(rest);
                let end = match whole.iter().position(|&b| b == b'\n') {
                    Some(end) => end + 1,
                    None if whole.len() == left => left,
                    None if whole.len() > HEAD => return Err(End::Fail),
                    None => return Ok((0, None)),
                };
                let edit = judged(reader.description(&whole[..end]), end)?;
                self.state = if left == end {
                    State::Start
                } else {
                    State::Description { left: left - end }
                };
                Ok((end, edit))
            }
            State::Raw { left } => {
                let part = rest.get(..left).unwrap_or(rest);
                let (used, edit) = if reader.scans() {
                    scanned(reader.scan(part, part.len() == left), part)?
                } else {
                    (part.len(), None)
                };
                self.state = raw(left - used);
                Ok((used, edit))
            }
            State::Loose { met } => {
                let (used, edit) = scanned(reader.loose(rest, met), rest)?;
                self.state = State::Loose { met: met && used == 0 };
                Ok((used, edit))
            }
        }
    }

    fn head_line(&mut self, rest: &[u8], reader: &mut impl Reader) -> Stepped {
        let Some(end) = rest.iter().position(|&b| b == b'\n').map(|at| at + 1) else {
            return if self.head + rest.len() > HEAD {
                Err(End::Fail)
            } else {
                Ok((0, None))
            };
        };
        if self.head + end > HEAD {
            return Err(End::Fail);
        }
        let line = &rest[..end];
        let (content, _) = text::split_end(line);
        let step = if self.head == 0 {
            reader.first(line)
        } else if content.is_empty() {
            reader.head_ends()
        } else {
            reader.header(line)
        };
        let edit = judged(step, end)?;
        if self.head > 0 && content.is_empty() {
            self.state = match (self.length, self.described) {
                (0, _) => State::Start,
                (left, true) => State::Description { left },
                (left, false) => raw(left),
            };
        } else if let Some((name, value)) = text::header(content).filter(|_| self.head > 0 && !is_continued(content)) {
            let value = content.get(value..).unwrap_or(&[]);
            if name.eq_ignore_ascii_case(b"content-length") {
                let length = text::number(value).filter(|&n| n <= BODY).ok_or(End::Fail)?;
                // Two lengths are two readings of what follows.
                if self.length != 0 && self.length != length {
                    return Err(End::Fail);
                }
                self.length = length;
            } else if name.eq_ignore_ascii_case(b"content-type") {
                self.described = is_description(value);
            }
        }
        self.head += end;
        Ok((end, edit))
    }
}

/// A line that goes on with the header before it.
pub fn is_continued(content: &[u8]) -> bool {
    matches!(content.first(), Some(b' ' | b'\t'))
}

fn is_description(value: &[u8]) -> bool {
    const KIND: &[u8] = b"application/sdp";
    value
        .trim_ascii()
        .get(..KIND.len())
        .is_some_and(|v| v.eq_ignore_ascii_case(KIND))
}

fn raw(left: usize) -> State {
    if left == 0 { State::Start } else { State::Raw { left } }
}

/// How many of `part` were judged, and what those become.
fn scanned(result: Scanned, part: &[u8]) -> Stepped {
    let (edit, open) = result.map_err(|Refused| End::Fail)?;
    let used = part.len() - open.min(part.len());
    let edit = edit.map(|mut bytes| {
        bytes.truncate(used);
        bytes
    });
    Ok((used, edit))
}

fn judged(step: Step, len: usize) -> Result<Option<Vec<u8>>, End> {
    match step {
        Step::Keep => Ok(None),
        Step::Edit(bytes) if bytes.len() == len => Ok(Some(bytes)),
        Step::Edit(_) | Step::Fail => Err(End::Fail),
        Step::Wait => Err(End::Wait),
    }
}

/// What a first line is.
#[derive(Debug, PartialEq, Eq)]
pub enum First<'a> {
    /// `METHOD uri RTSP/1.0`.
    Request { method: &'a [u8], uri: Range<usize> },
    /// `RTSP/1.0 200 OK`.
    Answer { status: u16 },
}

/// Reads a first line; `None` when it isn't RTSP.
pub fn first_line(line: &[u8]) -> Option<First<'_>> {
    let (content, _) = text::split_end(line);
    if let Some(rest) = content.strip_prefix(b"RTSP/") {
        let mut words = rest.split(|&b| b == b' ').filter(|w| !w.is_empty());
        let _version = words.next()?;
        let status = words.next().filter(|w| w.len() == 3).and_then(text::number)?;
        return Some(First::Answer {
            status: u16::try_from(status).ok()?,
        });
    }
    let space = content.iter().position(|&b| b == b' ')?;
    let last = content.iter().rposition(|&b| b == b' ')?;
    let method = content.get(..space)?;
    let legal = !method.is_empty() && method.iter().all(|b| b.is_ascii_uppercase() || *b == b'_');
    let version = content.get(last + 1..)?.starts_with(b"RTSP/");
    (legal && version && space < last).then_some(First::Request {
        method,
        uri: space + 1..last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_are_requests_answers_or_nothing() {
        let line = b"SETUP rtsp://h/live/stream=0 RTSP/1.0\r\n";
        let Some(First::Request { method, uri }) = first_line(line) else {
            unreachable!()
        };
        assert_eq!((method, &line[uri]), (&b"SETUP"[..], &b"rtsp://h/live/stream=0"[..]));
        assert_eq!(first_line(b"RTSP/1.0 200 OK\r\n"), Some(First::Answer { status: 200 }));
        for bad in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"RTSP/1.0 20 OK\r\n",
            b"SETUP RTSP/1.0\n",
            b"\x16\x03\x01\n",
            b"\n",
        ] {
            assert_eq!(first_line(bad), None);
        }
    }
}
