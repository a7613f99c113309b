//! What each line becomes at the gateway, and what is read out of it at both ends. Every rewritten line is as long as it was.

use super::parse::{First, Reader, Refused, Scanned, Step, first_line, is_continued};
use super::talk::{Action, Asked, Method, Reservation, Role, Talk};
use super::text;
use super::transport::{answer_transport, ask_transport, asked, datagram_ports, digits, note_transport};

/// From the client to the camera.
pub struct Asks<'a>(pub &'a mut Talk);

/// From the camera to the client.
pub struct Answers<'a>(pub &'a mut Talk);

impl Reader for Asks<'_> {
    fn first(&mut self, line: &[u8]) -> Step {
        if self.is_double(line) {
            return Step::Fail;
        }
        let talk = &mut *self.0;
        talk.tail.clear();
        match first_line(line) {
            None => return Step::Fail,
            // To a request of the camera's.
            Some(First::Answer { .. }) => talk.asking = None,
            Some(First::Request { method, uri }) => {
                let uri = line.get(uri).unwrap_or(&[]);
                if let Some(url) = text::url(uri).filter(|url| !url.authority.is_empty()) {
                    talk.authority = url.authority.to_vec();
                }
                talk.asking = Some(Asked {
                    method: match method {
                        b"SETUP" => Method::Setup,
                        b"TEARDOWN" => Method::Teardown,
                        _ => Method::Other,
                    },
                    authority: talk.authority.clone(),
                    path: text::path_of(uri).to_vec(),
                    ..Asked::default()
                });
            }
        }
        Step::Keep
    }

    fn header(&mut self, line: &[u8]) -> Step {
        if self.is_double(line) {
            return Step::Fail;
        }
        let talk = &mut *self.0;
        let (content, end) = text::split_end(line);
        let Some(asking) = talk.asking.as_mut() else {
            return Step::Keep;
        };
        // A header that goes on over several lines (nobody writes one) is not understood here: what it says must not pass unread.
        if is_continued(content) {
            return if asking.method == Method::Setup {
                Step::Fail
            } else {
                Step::Keep
            };
        }
        let Some((name, value)) = text::header(content) else {
            return Step::Keep;
        };
        if name.eq_ignore_ascii_case(b"cseq") {
            asking.sequence = content.get(value..).and_then(text::number);
        }
        if !name.eq_ignore_ascii_case(b"transport") || asking.method != Method::Setup {
            return Step::Keep;
        }
        let choices = text::choices(content, value);
        if let Role::Viewer = talk.role {
            asking.client = asking
                .client
                .or_else(|| choices.iter().find_map(|c| datagram_ports(content, c)));
            return Step::Keep;
        }
        match asking.reservation {
            Reservation::None => {
                let Some((client, digits)) = choices
                    .iter()
                    .find_map(|c| datagram_ports(content, c))
                    .and_then(|client| Some((client, digits(client)?)))
                else {
                    return asked(line, ask_transport(content, value, &choices, None), end);
                };
                asking.client = Some(client);
                if !talk.room {
                    asking.reservation = Reservation::Refused;
                    return asked(line, ask_transport(content, value, &choices, None), end);
                }
                talk.last_media = talk.last_media.wrapping_add(1);
                let media = talk.last_media;
                asking.reservation = Reservation::Wanted(media);
                talk.actions.push(Action::Reserve { media, digits, client });
                Step::Wait
            }
            Reservation::Wanted(_) => Step::Wait,
            Reservation::Ready(_, ours) => {
                let ports = asking.client.map(|client| (client, ours));
                asked(line, ask_transport(content, value, &choices, ports), end)
            }
            Reservation::Refused => asked(line, ask_transport(content, value, &choices, None), end),
        }
    }

    fn head_ends(&mut self) -> Step {
        if self.0.asked() { Step::Keep } else { Step::Fail }
    }

    fn description(&mut self, line: &[u8]) -> Step {
        match self.scan(line, true) {
            Ok(_) => Step::Keep,
            Err(Refused) => Step::Fail,
        }
    }

    fn scans(&self) -> bool {
        self.0.is_gateway()
    }

    /// A camera may take what we take for a body, or for media, as a request.
    fn scan(&mut self, bytes: &[u8], complete: bool) -> Scanned {
        if !self.0.is_gateway() {
            return Ok((None, 0));
        }
        let scanned = self.loose(bytes, false);
        if complete {
            self.0.tail.clear();
        }
        scanned
    }

    /// Nothing that sets something up, or asks for what names addresses, may pass unread.
    fn loose(&mut self, bytes: &[u8], _: bool) -> Scanned {
        let mut joined = core::mem::take(&mut self.0.tail);
        joined.extend_from_slice(bytes);
        let found = has_method(&joined);
        joined.drain(..joined.len().saturating_sub(LONGEST - 1));
        self.0.tail = joined;
        if found { Err(Refused) } else { Ok((None, 0)) }
    }
}

impl Asks<'_> {
    /// Whether a camera may see more lines in this one than we do.
    fn is_double(&self, line: &[u8]) -> bool {
        let (content, _) = text::split_end(line);
        self.0.is_gateway() && content.iter().any(|b| b"\r\0".contains(b))
    }
}

/// Methods that set something up, or whose answers name addresses. Some cameras don't care for case.
const METHODS: [&[u8]; 5] = [b"SETUP", b"DESCRIBE", b"ANNOUNCE", b"RECORD", b"PLAY"];
/// The longest, and the blank behind it.
const LONGEST: usize = b"DESCRIBE ".len();

/// Whether one of these names stands there, with a blank behind it.
fn has_method(bytes: &[u8]) -> bool {
    let blanks = bytes.iter().enumerate().filter(|(_, b)| b" \t".contains(b));
    blanks.map(|(at, _)| bytes.get(..at).unwrap_or(&[])).any(|before| {
        METHODS.iter().any(|method| {
            let name = before.len().checked_sub(method.len()).and_then(|at| before.get(at..));
            name.is_some_and(|name| name.eq_ignore_ascii_case(method))
        })
    })
}

impl Reader for Answers<'_> {
    fn first(&mut self, line: &[u8]) -> Step {
        match first_line(line) {
            None => return Step::Fail,
            Some(First::Answer { status }) => self.0.answers(status),
            Some(First::Request { uri, .. }) => {
                let base = text::path_of(line.get(uri).unwrap_or(&[])).to_vec();
                self.0.answers(0);
                self.0.answer.base = base;
            }
        }
        self.clean(line, None)
    }

    fn header(&mut self, line: &[u8]) -> Step {
        let (content, end) = text::split_end(line);
        let Some((name, value)) = text::header(content).filter(|_| !is_continued(content)) else {
            return self.clean(line, None);
        };
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        if is(b"cseq") {
            if let Some(sequence) = content.get(value..).and_then(text::number) {
                self.0.answers_to(sequence);
            }
        } else if is(b"transport") {
            let choices = text::choices(content, value);
            note_transport(content, &choices, &mut self.0.answer);
            if self.0.is_gateway() {
                let new = answer_transport(content, value, &choices, self.0.answer.asked.as_ref());
                return self.clean(line, Some((new, end)));
            }
        } else if self.0.is_gateway() {
            let new = if is(b"content-base") || is(b"content-location") {
                self.base(content, value)
            } else if is(b"location") {
                self.location(content, value)
            } else if is(b"rtp-info") {
                self.rtp_info(content, value)
            } else {
                None
            };
            return self.clean(line, Some((new, end)));
        }
        self.clean(line, None)
    }

    fn head_ends(&mut self) -> Step {
        self.0.answered();
        Step::Keep
    }

    fn description(&mut self, line: &[u8]) -> Step {
        if !self.0.is_gateway() {
            return Step::Keep;
        }
        let (content, end) = text::split_end(line);
        self.0.answer.media_level |= content.starts_with(b"m=");
        let new = match content {
            [b'c' | b'o', b'=', ..] => no_address(content),
            _ if content.starts_with(b"a=rtcp:") => no_address(content),
            _ => content
                .strip_prefix(b"a=control:")
                .and_then(|url| self.control(url, content.len(), end)),
        };
        self.clean(line, Some((new, end)))
    }

    fn scans(&self) -> bool {
        self.0.is_gateway()
    }

    fn scan(&mut self, bytes: &[u8], complete: bool) -> Scanned {
        let Role::Gateway(lan) = &self.0.role else {
            return Ok((None, 0));
        };
        let new = lan.blanked(bytes);
        let open = if complete {
            0
        } else {
            lan.beginning(new.as_deref().unwrap_or(bytes))
        };
        Ok((new, open))
    }

    fn loose(&mut self, bytes: &[u8], met: bool) -> Scanned {
        let (edit, open) = self.scan(bytes, false)?;
        let Role::Gateway(lan) = &self.0.role else {
            return Ok((edit, open));
        };
        if !met {
            return Ok((edit, open));
        }
        let mut new = edit.clone().unwrap_or_else(|| bytes.to_vec());
        let rest = lan.blank_rest(&mut new);
        Ok((if rest { Some(new) } else { edit }, open))
    }
}

impl Answers<'_> {
    /// The line, or what stands for its content, without addresses of the LAN.
    fn clean(&self, line: &[u8], new: Option<(Option<Vec<u8>>, &[u8])>) -> Step {
        let Role::Gateway(lan) = &self.0.role else {
            return Step::Keep;
        };
        let mut whole = match new {
            Some((Some(mut content), end)) => {
                content.extend_from_slice(end);
                content
            }
            _ => line.to_vec(),
        };
        lan.blank(&mut whole);
        if whole == line { Step::Keep } else { Step::Edit(whole) }
    }

    /// Whom the client believes to talk to.
    fn authority(&self) -> &[u8] {
        self.0
            .answer
            .asked
            .as_ref()
            .map_or(&self.0.authority, |asked| &asked.authority)
    }

    /// Content-Base and Content-Location: at the client's own host. Where that is too long the header goes, if the request's URL serves as well.
    fn base(&mut self, content: &[u8], value: usize) -> Option<Vec<u8>> {
        let url = text::url(content.get(value..)?.trim_ascii())?;
        let new = self.fitting(content, value, &url);
        let asked = self.0.answer.asked.as_ref().map_or(&[][..], |asked| &asked.path);
        if new.is_none() && text::below(url.path, asked) == Some(&[]) {
            return hidden(content);
        }
        self.0.answer.base = url.path.to_vec();
        new
    }

    fn location(&self, content: &[u8], value: usize) -> Option<Vec<u8>> {
        let url = text::url(content.get(value..)?.trim_ascii())?;
        self.fitting(content, value, &url).or_else(|| hidden(content))
    }

    /// The header with its URL at the client's host, if that is no longer.
    fn fitting(&self, content: &[u8], value: usize, url: &text::Url) -> Option<Vec<u8>> {
        text::at_host(url, self.authority())
            .iter()
            .find_map(|new| text::padded(content.get(..value)?, new, content.len()))
    }

    /// RTP-Info: each URL at the client's host, or where that is too long as the part behind the base.
    fn rtp_info(&self, content: &[u8], value: usize) -> Option<Vec<u8>> {
        let mut urls = Vec::new();
        for choice in text::choices(content, value) {
            for range in &choice.parameters {
                let named = text::parameter(content, range, b"url");
                if let Some(url) = named.and_then(|v| text::url(v.trim_ascii())) {
                    let len = named.map_or(0, <[u8]>::len);
                    urls.push((range.end - len..range.end, url));
                }
            }
        }
        let with = |new: &dyn Fn(&text::Url) -> Option<Vec<u8>>| -> Option<Vec<u8>> {
            let edits = urls
                .iter()
                .map(|(range, url)| Some((range.clone(), new(url)?)))
                .collect::<Option<Vec<_>>>()?;
            let line = text::splice(content, &edits);
            let new = line.get(value..)?.trim_ascii();
            text::padded(content.get(..value)?, new, content.len())
        };
        let authority = self.authority();
        (0..2)
            .find_map(|spelling| with(&|url| text::at_host(url, authority).into_iter().nth(spelling)))
            .or_else(|| {
                with(&|url| {
                    let below = text::below(url.path, &self.0.answer.base).filter(|rest| !rest.is_empty());
                    Some(below.unwrap_or(url.path).to_vec())
                })
            })
    }

    /// `a=control:` with an absolute URL: at the client's host, or relative to the base; a line of nothing takes what is left.
    fn control(&self, url: &[u8], len: usize, end: &[u8]) -> Option<Vec<u8>> {
        const NAME: &[u8] = b"a=control:";
        let url = text::url(url.trim_ascii())?;
        let mut ways = text::at_host(&url, self.authority());
        match text::below(url.path, &self.0.answer.base) {
            Some(rest) if !rest.is_empty() => ways.push(rest.to_vec()),
            Some(_) if !self.0.answer.media_level => ways.push(b"*".to_vec()),
            _ => {}
        }
        ways.iter().find_map(|way| {
            let line = [NAME, way].concat();
            let left = len.checked_sub(line.len())?;
            if left == 0 {
                return Some(line);
            }
            let filler = left.checked_sub(end.len() + b"a=x".len()).filter(|_| !end.is_empty())?;
            Some([&line, end, b"a=x", &vec![b'-'; filler]].concat())
        })
    }
}

/// The header under a name that nobody knows.
fn hidden(content: &[u8]) -> Option<Vec<u8>> {
    let mut new = content.to_vec();
    new.get_mut(..2)?.copy_from_slice(b"X-");
    Some(new)
}

/// A description's address, which is nobody's now; spaces before it keep the length, and every reader skips them.
fn no_address(content: &[u8]) -> Option<Vec<u8>> {
    let kinds: [(&[u8], &[u8]); 2] = [(b" IP4 ", b"0.0.0.0"), (b" IP6 ", b"::")];
    let (at, nobody) = kinds.iter().find_map(|(kind, nobody)| {
        let at = content.windows(kind.len()).position(|w| w == *kind)?;
        Some((at + kind.len(), *nobody))
    })?;
    let address = content.get(at..)?;
    let len = address.iter().position(|&b| b == b' ').unwrap_or(address.len());
    let new = match len.checked_sub(nobody.len()) {
        Some(spaces) => [&vec![b' '; spaces], nobody].concat(),
        None => vec![b'0'; len],
    };
    Some(text::splice(content, &[(at..at + len, new)]))
}
