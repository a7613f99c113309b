//! A camera that tells its addresses wherever it can, reads requests out of anything, and keeps to TCP.

use crate::lab::cameras::{LAN, Tcp};
use crate::lab::orders::DEVICE as CAMERA;
use crate::lab::packets::RST;
use std::collections::BTreeMap;

pub struct Camera {
    /// What it has of the client's words, and what came early; first come, first kept.
    pub first: u32,
    pub heard: Vec<u8>,
    early: BTreeMap<u32, u8>,
    read: usize,
    /// Its own words, and how many are acknowledged and were sent.
    pub start: u32,
    pub said: Vec<u8>,
    pub acked: usize,
    pub sent: usize,
    pub reset: bool,
}

impl Camera {
    pub fn new(first: u32, start: u32) -> Self {
        Self {
            first,
            heard: Vec::new(),
            early: BTreeMap::new(),
            read: 0,
            start,
            said: Vec::new(),
            acked: 0,
            sent: 0,
            reset: false,
        }
    }

    pub fn next(&self) -> u32 {
        self.first.wrapping_add(self.heard.len() as u32)
    }

    /// Takes a segment as TCP does; whether it is answered by an acknowledgement.
    pub fn hears(&mut self, segment: &Tcp, ack: u32) -> bool {
        let ahead = segment.seq.wrapping_sub(self.next()) as i32;
        let end = ahead + segment.payload.len() as i32;
        if segment.flags & RST != 0 {
            self.reset |= ahead == 0;
            return false;
        }
        let acceptable = (0..60_000).contains(&ahead) || (ahead < 0 && end > 0);
        if !acceptable {
            return true;
        }
        let acked = ack.wrapping_sub(self.start) as i32;
        if acked > self.sent as i32 {
            return true;
        }
        self.acked = self.acked.max(acked.max(0) as usize);
        for (i, &byte) in segment.payload.iter().enumerate() {
            let at = segment.seq.wrapping_add(i as u32);
            if at.wrapping_sub(self.next()) < 1 << 30 {
                self.early.entry(at).or_insert(byte);
            }
        }
        while let Some(byte) = self.early.remove(&self.next()) {
            self.heard.push(byte);
        }
        self.answers();
        !segment.payload.is_empty()
    }

    /// Takes anything that looks like a request for one, at any line's end.
    fn answers(&mut self) {
        let text = String::from_utf8_lossy(&self.heard[self.read..]).replace('\r', "\n");
        let mut used = 0;
        let (mut sequence, mut interleaved) = (String::new(), None);
        let mut method = String::new();
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            used += line.len();
            let line = line.trim();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("cseq:") {
                sequence = value.trim().to_owned();
            }
            if line.to_ascii_lowercase().contains("transport") {
                let sets_up = method == "SETUP";
                assert!(
                    !sets_up || !line.to_ascii_lowercase().contains("destination="),
                    "{line}"
                );
                let channel = line
                    .split("interleaved=")
                    .nth(1)
                    .and_then(|c| c.split(['-', ';']).next());
                interleaved = channel.and_then(|c| c.parse::<u8>().ok()).filter(|_| sets_up);
            }
            let word = line
                .split_whitespace()
                .next()
                .unwrap_or("")
                .trim_start_matches(|c: char| !c.is_ascii_alphabetic());
            for known in [
                "OPTIONS",
                "DESCRIBE",
                "SETUP",
                "PLAY",
                "GET_PARAMETER",
                "SET_PARAMETER",
                "TEARDOWN",
            ] {
                if word.eq_ignore_ascii_case(known) {
                    method = known.to_owned();
                }
            }
            if line.is_empty() && !method.is_empty() {
                let words = Self::answer(&method, &sequence, interleaved);
                self.said.extend_from_slice(words.as_bytes());
                if method == "PLAY" || interleaved.is_some() {
                    for channel in 0..4u8 {
                        let report = format!("\u{1}\u{2} root@{CAMERA} by way of {LAN} ");
                        self.said.extend_from_slice(&[b'$', channel, 0, report.len() as u8]);
                        self.said.extend_from_slice(report.as_bytes());
                    }
                }
                (method, interleaved) = (String::new(), None);
            }
        }
        // Lossy text may be longer than what it stands for.
        self.read = if method.is_empty() {
            self.heard.len().min(self.read + used)
        } else {
            self.read
        };
    }

    fn answer(method: &str, sequence: &str, interleaved: Option<u8>) -> String {
        let common = format!("RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\nServer: {CAMERA}\r\n");
        match method {
            "DESCRIBE" => {
                let body = format!(
                    "v=0\r\no=- 1 1 IN IP4 {CAMERA}\r\nc=IN IP4 {CAMERA}\r\na=control:rtsp://{CAMERA}:554/live/\r\nm=video 0 RTP/AVP 96\r\na=control:rtsp://{CAMERA}/live/1\r\n"
                );
                let base = format!("Content-Base: rtsp://{CAMERA}:554/live/\r\nContent-Type: application/sdp\r\n");
                format!("{common}{base}Content-Length: {}\r\n\r\n{body}", body.len())
            }
            "SETUP" => {
                let transport = interleaved.map_or(
                    "RTP/AVP;unicast;client_port=6100-6101;server_port=5000-5001".to_owned(),
                    |c| format!("RTP/AVP/TCP;unicast;interleaved={c}-{}", c.wrapping_add(1)),
                );
                format!("{common}Transport: {transport};source={CAMERA};destination={LAN}\r\nSession: 7\r\n\r\n")
            }
            "PLAY" => format!("{common}RTP-Info: url=rtsp://{CAMERA}/live/1;seq=1\r\n\r\n"),
            _ => format!("{common}X-Address: {CAMERA},{LAN}\r\n\r\n"),
        }
    }
}
