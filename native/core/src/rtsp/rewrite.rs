//! What each line becomes at the gateway, and what is read out of it at both ends. Every rewritten line is as long as it was.

use super::parse::{First, Reader, Step, first_line, is_continued};
use super::talk::{Action, Answer, Asked, Method, Reservation, Role, Talk};
use super::text::{self, Choice};
use core::ops::Range;

/// From the client to the camera.
pub struct Asks<'a>(pub &'a mut Talk);

/// From the camera to the client.
pub struct Answers<'a>(pub &'a mut Talk);

impl Reader for Asks<'_> {
    fn first(&mut self, line: &[u8]) -> Step {
        let talk = &mut *self.0;
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
                    return rewritten(line, ask_transport(content, value, &choices, None), end);
                };
                asking.client = Some(client);
                if !talk.room {
                    asking.reservation = Reservation::Refused;
                    return rewritten(line, ask_transport(content, value, &choices, None), end);
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
                rewritten(line, ask_transport(content, value, &choices, ports), end)
            }
            Reservation::Refused => rewritten(line, ask_transport(content, value, &choices, None), end),
        }
    }

    fn head_ends(&mut self) -> Step {
        if self.0.asked() { Step::Keep } else { Step::Fail }
    }

    fn description(&mut self, _: &[u8]) -> Step {
        Step::Keep
    }

    fn scans(&self) -> bool {
        false
    }

    fn scan(&self, _: &[u8], _: bool) -> (Option<Vec<u8>>, usize) {
        (None, 0)
    }
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

    fn scan(&self, bytes: &[u8], complete: bool) -> (Option<Vec<u8>>, usize) {
        let Role::Gateway(lan) = &self.0.role else {
            return (None, 0);
        };
        let mut new = bytes.to_vec();
        let found = lan.blank(&mut new);
        let open = if complete { 0 } else { lan.beginning(&new) };
        (found.then_some(new), open)
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

/// Whether a choice goes by datagrams to the client itself, and to which of its ports.
fn datagram_ports(content: &[u8], choice: &Choice) -> Option<(u16, u16)> {
    let has = |word: &[u8]| choice.parameters.iter().any(|p| text::is_word(content, p, word));
    let records = choice
        .parameters
        .iter()
        .filter_map(|p| text::parameter(content, p, b"mode"))
        .any(|mode| mode.windows(6).any(|w| w.eq_ignore_ascii_case(b"record")));
    if is_interleaved(content, choice) || has(b"multicast") || records {
        return None;
    }
    choice
        .parameters
        .iter()
        .find_map(|p| text::parameter(content, p, b"client_port"))
        .and_then(text::port_pair)
        .filter(|(rtp, rtcp)| *rtp >= 1_024 && *rtcp >= 1_024 && rtp != rtcp)
}

fn is_interleaved(content: &[u8], choice: &Choice) -> bool {
    let protocol = choice.parameters.first().and_then(|p| content.get(p.clone()));
    let tcp = protocol.is_some_and(|p| p.len() >= 4 && p[p.len() - 4..].eq_ignore_ascii_case(b"/TCP"));
    tcp || choice
        .parameters
        .iter()
        .any(|p| text::is_word(content, p, b"interleaved"))
}

/// Digits of ports that can stand where these stand.
fn digits((rtp, rtcp): (u16, u16)) -> Option<u8> {
    match (rtp, rtcp) {
        (1_024..=9_999, 1_024..=9_999) => Some(4),
        // One digit more than the client's: a blank behind the colon makes room.
        (9_999, 10_000..) | (10_000.., 10_000..) => Some(5),
        _ => None,
    }
}

/// Parameters that name addresses; a run of semicolons takes their place.
const ADDRESSES: [&[u8]; 4] = [b"source", b"destination", b"src_addr", b"dest_addr"];

fn without_addresses(content: &[u8], choice: &Choice) -> Vec<(Range<usize>, Vec<u8>)> {
    choice
        .parameters
        .iter()
        .filter(|p| ADDRESSES.iter().any(|name| text::is_word(content, p, name)))
        .map(|p| (p.clone(), vec![b';'; p.len()]))
        .collect()
}

/// The client's Transport, as the camera gets it: our ports instead of its own. Choices that can't be carried become ones that nobody knows.
fn ask_transport(
    content: &[u8],
    value: usize,
    choices: &[Choice],
    ports: Option<((u16, u16), (u16, u16))>,
) -> Option<Vec<u8>> {
    let mut edits = Vec::new();
    for choice in choices {
        let theirs = datagram_ports(content, choice);
        match ports {
            Some((client, ours)) if theirs == Some(client) => {
                let mut all = without_addresses(content, choice);
                all.extend(port_edit(content, choice, ours));
                all.sort_by_key(|(range, _)| range.start);
                edits.extend(all);
            }
            _ if is_interleaved(content, choice) => edits.extend(without_addresses(content, choice)),
            _ => {
                let start = choice.parameters.first().map_or(choice.range.start, |p| p.start);
                if start < choice.range.end {
                    edits.push((start..start + 1, b"X".to_vec()));
                }
                edits.extend(
                    without_addresses(content, choice)
                        .into_iter()
                        .filter(|(r, _)| r.start > start),
                );
            }
        }
    }
    fit(content, value, &edits)
}

/// The camera's Transport, as the client gets it: its own ports again, and no addresses.
fn answer_transport(content: &[u8], value: usize, choices: &[Choice], asked: Option<&Asked>) -> Option<Vec<u8>> {
    let mut edits = Vec::new();
    for choice in choices {
        let mut all = without_addresses(content, choice);
        if let Some(Asked {
            client: Some(client),
            reservation: Reservation::Ready(_, ours),
            ..
        }) = asked
        {
            let said = choice
                .parameters
                .iter()
                .find_map(|p| text::parameter(content, p, b"client_port"))
                .and_then(text::port_pair);
            if said.is_some_and(|(rtp, _)| rtp == ours.0) {
                all.extend(port_edit(content, choice, *client));
            }
        }
        all.sort_by_key(|(range, _)| range.start);
        edits.extend(all);
    }
    fit(content, value, &edits)
}

/// `client_port=` with other ports; one stays one, two stay two.
fn port_edit(content: &[u8], choice: &Choice, (rtp, rtcp): (u16, u16)) -> Option<(Range<usize>, Vec<u8>)> {
    let (range, said) = choice
        .parameters
        .iter()
        .find_map(|p| Some((p, text::parameter(content, p, b"client_port")?)))?;
    let new = if said.contains(&b'-') {
        format!("{rtp}-{rtcp}")
    } else {
        rtp.to_string()
    };
    Some((range.end - said.len()..range.end, new.into_bytes()))
}

/// A Transport header with these edits and its old length: semicolons fill it up, the blank behind the colon gives way.
fn fit(content: &[u8], value: usize, edits: &[(Range<usize>, Vec<u8>)]) -> Option<Vec<u8>> {
    let mut new = text::splice(content, edits);
    while new.len() > content.len() && new.get(value).is_some_and(|b| b" \t".contains(b)) {
        new.remove(value);
    }
    if new.len() > content.len() {
        return None;
    }
    new.resize(content.len(), b';');
    Some(new)
}

/// The rewritten line; one that couldn't be rewritten doesn't pass.
fn rewritten(line: &[u8], content: Option<Vec<u8>>, end: &[u8]) -> Step {
    match content {
        Some(mut new) => {
            new.extend_from_slice(end);
            if new == line { Step::Keep } else { Step::Edit(new) }
        }
        None => Step::Fail,
    }
}

fn note_transport(content: &[u8], choices: &[Choice], answer: &mut Answer) {
    // A server answers with the one choice that it took.
    let Some(choice) = choices.first() else { return };
    let pair = |name: &[u8]| {
        choice
            .parameters
            .iter()
            .find_map(|p| text::parameter(content, p, name))
            .and_then(text::port_pair)
    };
    answer.interleaved = is_interleaved(content, choice);
    answer.multicast = choice
        .parameters
        .iter()
        .any(|p| text::is_word(content, p, b"multicast"));
    answer.server = pair(b"server_port");
    answer.client = pair(b"client_port");
}
