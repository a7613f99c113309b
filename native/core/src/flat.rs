//! Events with the names that both shells tell JavaScript: see `DataPlaneEvent` in ts/dataplane/data-plane.ts.

use crate::api::{Event, Remote};
use crate::wire::protocol;
use core::net::IpAddr;

/// Any event; fields that it doesn't have are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Flat {
    pub kind: &'static str,
    pub link: Option<u32>,
    pub generation: Option<u32>,
    pub session: Option<u32>,
    pub path: Option<u32>,
    pub label: Option<u32>,
    pub slot: Option<u8>,
    /// Socket and address, told apart.
    pub from: Option<Remote>,
    pub bytes: Option<Vec<u8>>,
    pub own: Option<IpAddr>,
    pub peer: Option<IpAddr>,
    pub protocol: Option<&'static str>,
    pub port: Option<u16>,
    pub reason: Option<u16>,
    pub level: Option<&'static str>,
    pub message: Option<String>,
}

/// A protocol's number by its name; `None` for what no service has.
pub fn protocol_of(name: &str) -> Option<u8> {
    match name {
        "tcp" => Some(protocol::TCP),
        "udp" => Some(protocol::UDP),
        _ => None,
    }
}

fn name_of(number: u8) -> &'static str {
    match number {
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        _ => "icmp",
    }
}

impl From<Event> for Flat {
    fn from(event: Event) -> Self {
        let new = |kind| Self {
            kind,
            ..Self::default()
        };
        let at = |kind, from| Self {
            from: Some(from),
            ..new(kind)
        };
        match event {
            Event::Handshake { from: f, bytes } => Flat {
                bytes: Some(bytes),
                ..at("handshake", f)
            },
            Event::LinkFrame {
                link,
                generation,
                from: f,
                bytes,
            } => Flat {
                link: Some(link.0),
                generation: Some(generation.0),
                bytes: Some(bytes),
                ..at("linkFrame", f)
            },
            Event::LinkConfirmed {
                link,
                generation,
                from: f,
            } => Flat {
                link: Some(link.0),
                generation: Some(generation.0),
                ..at("linkConfirmed", f)
            },
            Event::LinkRoamed { link, from: f } => Flat {
                link: Some(link.0),
                ..at("linkRoamed", f)
            },
            Event::PathConfirmed { session, path } => Flat {
                session: Some(session.0),
                path: Some(path.0),
                ..new("pathConfirmed")
            },
            Event::PathKeyConfirmed { session, path, slot } => Flat {
                session: Some(session.0),
                path: Some(path.0),
                slot: Some(slot),
                ..new("pathKeyConfirmed")
            },
            Event::SessionControl { session, path, bytes } => Flat {
                session: Some(session.0),
                path: Some(path.0),
                bytes: Some(bytes),
                ..new("sessionControl")
            },
            Event::SessionNeeded { own, peer } => Flat {
                own: Some(own),
                peer: Some(peer),
                ..new("sessionNeeded")
            },
            Event::LabelUnknown { link, label } => Flat {
                link: Some(link.0),
                label: Some(label.0),
                ..new("labelUnknown")
            },
            Event::LabelExpired { link, label } => Flat {
                link: Some(link.0),
                label: Some(label.0),
                ..new("labelExpired")
            },
            Event::FlowDenied {
                session,
                protocol,
                port,
                reason,
            } => Flat {
                session: Some(session.0),
                protocol: Some(name_of(protocol)),
                port: Some(port),
                reason: Some(reason),
                ..new("flowDenied")
            },
            Event::RekeyNeeded { session, path } => Flat {
                session: Some(session.0),
                path: Some(path.0),
                ..new("rekeyNeeded")
            },
            Event::Log { level, message } => Flat {
                level: Some(level.name()),
                message: Some(message),
                ..new("log")
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SessionId;

    #[test]
    fn an_event_has_its_own_fields_under_the_names_of_the_seam_and_no_others() {
        let denied = Event::FlowDenied {
            session: SessionId(4),
            protocol: protocol::UDP,
            port: 53,
            reason: 1,
        };
        let want = Flat {
            kind: "flowDenied",
            session: Some(4),
            protocol: Some("udp"),
            port: Some(53),
            reason: Some(1),
            ..Flat::default()
        };
        assert_eq!(Flat::from(denied), want);
        assert_eq!((protocol_of("udp"), protocol_of("icmp")), (Some(protocol::UDP), None));
    }
}
