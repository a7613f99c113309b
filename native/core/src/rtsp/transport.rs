//! Transport headers (RFC 2326, 12.39): which ports they name, and what they become at the gateway.

use super::parse::Step;
use super::talk::{Answer, Asked, Reservation};
use super::text::{self, Choice};
use core::ops::Range;

/// Whether a choice goes by datagrams to the client itself, and to which of its ports.
pub fn datagram_ports(content: &[u8], choice: &Choice) -> Option<(u16, u16)> {
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

pub fn is_interleaved(content: &[u8], choice: &Choice) -> bool {
    let protocol = choice.parameters.first().and_then(|p| content.get(p.clone()));
    let tcp = protocol.is_some_and(|p| p.len() >= 4 && p[p.len() - 4..].eq_ignore_ascii_case(b"/TCP"));
    tcp || choice
        .parameters
        .iter()
        .any(|p| text::is_word(content, p, b"interleaved"))
}

/// Digits of ports that can stand where these stand.
pub fn digits((rtp, rtcp): (u16, u16)) -> Option<u8> {
    match (rtp, rtcp) {
        (1_024..=9_999, 1_024..=9_999) => Some(4),
        // One digit more than the client's: a blank behind the colon makes room.
        (9_999, 10_000..) | (10_000.., 10_000..) => Some(5),
        _ => None,
    }
}

/// Parameters that name addresses; a run of semicolons takes their place.
const ADDRESSES: [&[u8]; 4] = [b"source", b"destination", b"src_addr", b"dest_addr"];

pub fn without_addresses(content: &[u8], choice: &Choice) -> Vec<(Range<usize>, Vec<u8>)> {
    choice
        .parameters
        .iter()
        .filter(|p| ADDRESSES.iter().any(|name| text::is_word(content, p, name)))
        .map(|p| (p.clone(), vec![b';'; p.len()]))
        .collect()
}

/// The client's Transport, as the camera gets it: our ports instead of its own. Choices that can't be carried become ones that nobody knows.
pub fn ask_transport(
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
pub fn answer_transport(content: &[u8], value: usize, choices: &[Choice], asked: Option<&Asked>) -> Option<Vec<u8>> {
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
pub fn port_edit(content: &[u8], choice: &Choice, (rtp, rtcp): (u16, u16)) -> Option<(Range<usize>, Vec<u8>)> {
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
pub fn fit(content: &[u8], value: usize, edits: &[(Range<usize>, Vec<u8>)]) -> Option<Vec<u8>> {
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

/// The client's rewritten Transport. What still names addresses (within quotes, say) may be read otherwise by a camera, and doesn't pass.
pub fn asked(line: &[u8], content: Option<Vec<u8>>, end: &[u8]) -> Step {
    let names = |content: &Vec<u8>| {
        ADDRESSES
            .iter()
            .any(|name| content.windows(name.len()).any(|w| w.eq_ignore_ascii_case(name)))
    };
    rewritten(line, content.filter(|content| !names(content)), end)
}

/// The rewritten line; one that couldn't be rewritten doesn't pass.
pub fn rewritten(line: &[u8], content: Option<Vec<u8>>, end: &[u8]) -> Step {
    match content {
        Some(mut new) => {
            new.extend_from_slice(end);
            if new == line { Step::Keep } else { Step::Edit(new) }
        }
        None => Step::Fail,
    }
}

pub fn note_transport(content: &[u8], choices: &[Choice], answer: &mut Answer) {
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
