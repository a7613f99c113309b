//! Pieces of RTSP and SDP text (RFC 2326, RFC 4566): line ends, headers, URLs, transports. Everything here is total: any bytes go in, and a line that
//! comes out is as long as the one that went in.

use core::ops::Range;

/// A line without its end, and the end.
pub fn split_end(line: &[u8]) -> (&[u8], &[u8]) {
    let len = match line {
        [.., b'\r', b'\n'] => line.len() - 2,
        [.., b'\n'] => line.len() - 1,
        _ => line.len(),
    };
    line.split_at(len)
}

/// A header's name, and where what stands behind its colon begins.
pub fn header(content: &[u8]) -> Option<(&[u8], usize)> {
    let colon = content.iter().position(|&b| b == b':')?;
    Some((content.get(..colon)?.trim_ascii(), colon + 1))
}

/// A decimal number, surrounding space allowed.
pub fn number(text: &[u8]) -> Option<usize> {
    let text = text.trim_ascii();
    if text.is_empty() || text.len() > 9 {
        return None;
    }
    text.iter().try_fold(0usize, |value, digit| {
        digit.is_ascii_digit().then(|| value * 10 + usize::from(digit - b'0'))
    })
}

/// `6100-6101`, or `6100`, which means its successor too.
pub fn port_pair(text: &[u8]) -> Option<(u16, u16)> {
    let port = |text| number(text).and_then(|n| u16::try_from(n).ok()).filter(|&p| p > 0);
    match text.iter().position(|&b| b == b'-') {
        Some(dash) => Some((port(text.get(..dash)?)?, port(text.get(dash + 1..)?)?)),
        None => port(text).and_then(|first| Some((first, first.checked_add(1)?))),
    }
}

/// What a request names: `rtsp://host:port/path` in its parts. User names are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Url<'a> {
    pub scheme: &'a [u8],
    /// Host, and port where there is one.
    pub authority: &'a [u8],
    /// From the path's slash on, query included.
    pub path: &'a [u8],
}

/// Takes an absolute URL apart; `None` for anything else.
pub fn url(text: &[u8]) -> Option<Url<'_>> {
    let at = text.windows(3).position(|w| w == b"://")?;
    let scheme = text.get(..at)?;
    if scheme.is_empty() || !scheme.iter().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let rest = text.get(at + 3..)?;
    let end = rest.iter().position(|b| b"/?#".contains(b)).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    let host = authority.iter().rposition(|&b| b == b'@').map_or(0, |at| at + 1);
    Some(Url {
        scheme,
        authority: authority.get(host..)?,
        path,
    })
}

/// The path of a request's URI, absolute or not.
pub fn path_of(uri: &[u8]) -> &[u8] {
    url(uri).map_or(uri, |url| url.path)
}

/// The ways to write an authority: as it is, without the default port, with it.
fn spellings(scheme: &[u8], authority: &[u8]) -> Vec<Vec<u8>> {
    const PORT: &[u8] = b":554";
    let mut all = vec![authority.to_vec()];
    if scheme.eq_ignore_ascii_case(b"rtsp") {
        let host = authority.rsplit(|&b| b == b']').next().unwrap_or(authority);
        if let Some(short) = authority.strip_suffix(PORT) {
            all.push(short.to_vec());
        } else if !host.contains(&b':') {
            all.push([authority, PORT].concat());
        }
    }
    all
}

/// The same URL at another host, in every spelling.
pub fn at_host(url: &Url, authority: &[u8]) -> Vec<Vec<u8>> {
    if authority.is_empty() {
        return Vec::new();
    }
    spellings(url.scheme, authority)
        .into_iter()
        .map(|authority| [url.scheme, b"://", &authority, url.path].concat())
        .collect()
}

/// What a client appends to `base` to get to `path`; `None` when it isn't below it.
pub fn below<'a>(path: &'a [u8], base: &[u8]) -> Option<&'a [u8]> {
    let base = base.strip_suffix(b"/").unwrap_or(base);
    match path.strip_prefix(base)? {
        [] => Some(&[]),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// One choice of a Transport header: where it stands in the line, and its parameters, the protocol first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub range: Range<usize>,
    pub parameters: Vec<Range<usize>>,
}

/// The choices in a Transport header's value, which begins at `from`. Commas and semicolons in quotes divide nothing.
pub fn choices(content: &[u8], from: usize) -> Vec<Choice> {
    let mut all = Vec::new();
    let mut choice = Choice {
        range: from..from,
        parameters: Vec::new(),
    };
    let (mut start, mut quoted) = (from, false);
    for at in from..=content.len() {
        let byte = content.get(at).copied();
        quoted ^= byte == Some(b'"');
        let ends_choice = byte.is_none() || (byte == Some(b',') && !quoted);
        if !ends_choice && (byte != Some(b';') || quoted) {
            continue;
        }
        choice.parameters.push(trimmed(content, start..at));
        start = at + 1;
        if ends_choice {
            choice.range.end = at;
            all.push(std::mem::replace(
                &mut choice,
                Choice {
                    range: start..start,
                    parameters: Vec::new(),
                },
            ));
        }
    }
    all
}

fn trimmed(content: &[u8], range: Range<usize>) -> Range<usize> {
    let text = content.get(range.clone()).unwrap_or(&[]);
    let left = text.len() - text.trim_ascii_start().len();
    let len = text.trim_ascii().len();
    range.start + left..range.start + left + len
}

/// A parameter's value, if it has that name.
pub fn parameter<'a>(content: &'a [u8], range: &Range<usize>, name: &[u8]) -> Option<&'a [u8]> {
    let text = content.get(range.clone())?;
    let equals = text.iter().position(|&b| b == b'=')?;
    let (key, value) = text.split_at_checked(equals)?;
    key.trim_ascii().eq_ignore_ascii_case(name).then_some(value.get(1..)?)
}

/// Whether a parameter, or its part before `=`, is this word.
pub fn is_word(content: &[u8], range: &Range<usize>, word: &[u8]) -> bool {
    content
        .get(range.clone())
        .and_then(|text| text.split(|&b| b == b'=').next())
        .is_some_and(|key| key.trim_ascii().eq_ignore_ascii_case(word))
}

/// Replaces ranges, which are in order and don't overlap.
pub fn splice(content: &[u8], edits: &[(Range<usize>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 8);
    let mut at = 0;
    for (range, new) in edits {
        out.extend_from_slice(content.get(at..range.start).unwrap_or(&[]));
        out.extend_from_slice(new);
        at = range.end;
    }
    out.extend_from_slice(content.get(at..).unwrap_or(&[]));
    out
}

/// `name` (colon included) and a value, with spaces between them so that it is `len` bytes long; `None` when it is longer.
pub fn padded(name: &[u8], value: &[u8], len: usize) -> Option<Vec<u8>> {
    let spaces = len.checked_sub(name.len() + value.len())?;
    Some([name, &vec![b' '; spaces], value].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_come_apart() {
        let all = url(b"rtsp://user:p@[fd00::9]:554/live?x=1").unwrap();
        assert_eq!((all.authority, all.path), (&b"[fd00::9]:554"[..], &b"/live?x=1"[..]));
        assert_eq!(url(b"rtsp://host").unwrap().path, b"");
        assert_eq!((url(b"stream=0"), url(b"://x")), (None, None));
        assert_eq!(spellings(b"rtsp", b"cam:554"), [&b"cam:554"[..], b"cam"]);
        assert_eq!(spellings(b"rtsp", b"[fd00::9]"), [&b"[fd00::9]"[..], b"[fd00::9]:554"]);
        assert_eq!(spellings(b"rtsp", b"cam:8554"), [&b"cam:8554"[..]]);
        assert_eq!(below(b"/live/track1", b"/live/"), Some(&b"track1"[..]));
        assert_eq!(below(b"/live/track1", b"/live"), Some(&b"track1"[..]));
        assert_eq!(
            (below(b"/liver", b"/live"), below(b"/live", b"/live/")),
            (None, Some(&b""[..]))
        );
    }

    #[test]
    fn transports_come_apart() {
        let line =
            br#"Transport: RTP/AVP;unicast; client_port=6100-6101;mode="PLAY,RECORD",RTP/AVP/TCP;interleaved=0-1"#;
        let all = choices(line, 10);
        assert_eq!(all.iter().map(|c| c.parameters.len()).collect::<Vec<_>>(), [4, 2]);
        assert_eq!(
            parameter(line, &all[0].parameters[2], b"client_port"),
            Some(&b"6100-6101"[..])
        );
        assert!(is_word(line, &all[0].parameters[1], b"UNICAST"));
        assert_eq!(port_pair(b"6100-6101"), Some((6100, 6101)));
        assert_eq!(port_pair(b"6100"), Some((6100, 6101)));
        assert_eq!(
            (port_pair(b"65535"), port_pair(b"0-1"), port_pair(b"7-70000")),
            (None, None, None)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..80), from in 0usize..100) {
            let (content, end) = split_end(&bytes);
            prop_assert_eq!(content.len() + end.len(), bytes.len());
            let _ = (header(content), number(content), port_pair(content), path_of(content));
            if let Some(url) = url(content) { prop_assert!(!at_host(&url, b"h").is_empty()); }
            for choice in choices(content, from) {
                prop_assert!(choice.parameters.iter().all(|p| parameter(content, p, b"x").is_none_or(|v| v.len() < content.len())));
            }
        }
    }
}
