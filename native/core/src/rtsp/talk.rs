//! What is said on one RTSP connection: which answer belongs to which request, and which media ports were agreed.

use super::lan::Lan;
use std::collections::VecDeque;

/// Requests without an answer at most, and media of one connection.
const ASKED: usize = 64;
pub const MEDIA: usize = 16;

/// Methods that mean something here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    Setup,
    Teardown,
    #[default]
    Other,
}

/// The gateway's sockets for one SETUP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reservation {
    /// Not asked for.
    #[default]
    None,
    /// Asked for under this number.
    Wanted(u32),
    /// There, with their ports.
    Ready(u32, (u16, u16)),
    /// There are none.
    Refused,
}

impl Reservation {
    pub fn media(self) -> Option<u32> {
        match self {
            Self::Wanted(media) | Self::Ready(media, _) => Some(media),
            _ => None,
        }
    }
}

/// A request without an answer.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: Method,
    pub sequence: Option<usize>,
    /// Whom the client believes to talk to: host, and port if it wrote one.
    pub authority: Vec<u8>,
    pub path: Vec<u8>,
    /// A SETUP's ports for RTP and RTCP at the client.
    pub client: Option<(u16, u16)>,
    pub reservation: Reservation,
}

/// The answer that is being read.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// 0: a request of the camera's.
    pub status: u16,
    pub asked: Option<Asked>,
    pub server: Option<(u16, u16)>,
    /// What it says the client's ports are.
    pub client: Option<(u16, u16)>,
    /// Over this connection, or to a group: no ports of ours.
    pub interleaved: bool,
    pub multicast: bool,
    /// What relative URLs in the body are relative to, as the client will see it.
    pub base: Vec<u8>,
    /// The description is past its first `m=`.
    pub media_level: bool,
}

/// What follows from what was said; done before the words that it follows from are passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sockets are needed on the LAN, for ports of so many digits.
    Reserve { media: u32, digits: u8, client: (u16, u16) },
    /// The camera agreed: media may pass between these ports.
    Open {
        media: Option<u32>,
        path: Vec<u8>,
        client: (u16, u16),
        server: (u16, u16),
    },
    /// They are no longer needed.
    Release { media: u32 },
    /// What was set up by this URL ends, or all if nothing was.
    Close { path: Vec<u8> },
}

/// Gateway or viewer.
pub enum Role {
    /// Rewrites. Addresses that a viewer must not see.
    Gateway(Lan),
    /// Only reads.
    Viewer,
}

/// See the module.
pub struct Talk {
    pub role: Role,
    /// Whom the client last named.
    pub authority: Vec<u8>,
    pub asking: Option<Asked>,
    asked: VecDeque<Asked>,
    pub answer: Answer,
    pub actions: Vec<Action>,
    /// Number of the last reservation, unique in the node, and whether another may be made.
    pub last_media: u32,
    pub room: bool,
    /// Media went over this connection, or over ports of their own.
    pub interleaved: bool,
    pub datagrams: bool,
    /// The last of what the client sent without lines, where a method's name may have begun.
    pub tail: Vec<u8>,
}

impl Talk {
    pub fn new(role: Role) -> Self {
        Self {
            role,
            authority: Vec::new(),
            asking: None,
            asked: VecDeque::new(),
            answer: Answer::default(),
            actions: Vec::new(),
            last_media: 0,
            room: true,
            interleaved: false,
            datagrams: false,
            tail: Vec::new(),
        }
    }

    pub fn is_gateway(&self) -> bool {
        matches!(self.role, Role::Gateway(_))
    }

    /// The request's head is over; false when too many wait for answers.
    pub fn asked(&mut self) -> bool {
        if let Some(asked) = self.asking.take() {
            self.asked.push_back(asked);
        }
        self.asked.len() <= ASKED
    }

    /// An answer begins: it belongs to the oldest request without one.
    pub fn answers(&mut self, status: u16) {
        self.forget_answer();
        self.answer = Answer {
            status,
            ..Answer::default()
        };
        // 100 Continue is not the answer yet.
        if status >= 200 {
            self.answer.asked = self.asked.pop_front();
        }
        if let Some(asked) = &self.answer.asked {
            self.answer.base = asked.path.clone();
        }
    }

    /// The answer names its request, and that isn't the oldest: a server that left one unanswered.
    pub fn answers_to(&mut self, sequence: usize) {
        let mistaken = |asked: &Asked| asked.sequence.is_some_and(|s| s != sequence);
        if !self.answer.asked.as_ref().is_some_and(mistaken) {
            return;
        }
        let Some(at) = self.asked.iter().position(|a| a.sequence == Some(sequence)) else {
            return;
        };
        for asked in self.asked.drain(..at) {
            if let Some(media) = asked.reservation.media() {
                self.actions.push(Action::Release { media });
            }
        }
        let asked = self.asked.pop_front();
        self.forget_answer();
        if let Some(asked) = &asked {
            self.answer.base = asked.path.clone();
        }
        self.answer.asked = asked;
    }

    fn forget_answer(&mut self) {
        if let Some(media) = self.answer.asked.take().and_then(|a| a.reservation.media()) {
            self.actions.push(Action::Release { media });
        }
    }

    /// The answer's head is over: what was agreed takes effect.
    pub fn answered(&mut self) {
        let status = self.answer.status;
        let fine = (200..300).contains(&status);
        let Some(asked) = self.answer.asked.clone().filter(|_| status >= 200) else {
            return;
        };
        match asked.method {
            Method::Setup => {
                self.interleaved |= fine && self.answer.interleaved;
                match self.agreed(&asked).filter(|_| fine) {
                    Some(open) => {
                        self.datagrams = true;
                        // Its sockets are the open media's now.
                        self.answer.asked = None;
                        self.actions.push(open);
                    }
                    None => self.forget_answer(),
                }
            }
            Method::Teardown if fine || status == 454 => self.actions.push(Action::Close { path: asked.path }),
            Method::Teardown | Method::Other => {}
        }
    }

    fn agreed(&self, asked: &Asked) -> Option<Action> {
        let answer = &self.answer;
        let (client, server) = (asked.client?, answer.server?);
        // Ports below 1024 belong to the host's own services.
        let high = |(rtp, rtcp): (u16, u16)| rtp >= 1_024 && rtcp >= 1_024 && rtp != rtcp;
        let media = match (&self.role, asked.reservation) {
            (Role::Gateway(_), Reservation::Ready(media, _)) => Some(media),
            (Role::Gateway(_), _) => return None,
            // Only what the program asked for itself.
            (Role::Viewer, _) if answer.client.is_some_and(|c| c != client) => return None,
            (Role::Viewer, _) => None,
        };
        let carried = !answer.interleaved && !answer.multicast && high(client) && high(server);
        carried.then_some(Action::Open {
            media,
            path: asked.path.clone(),
            client,
            server,
        })
    }

    /// The sockets that were asked for are there, or there are none.
    pub fn reserved(&mut self, media: u32, ports: Option<(u16, u16)>) {
        if let Some(asked) = self
            .asking
            .as_mut()
            .filter(|a| a.reservation == Reservation::Wanted(media))
        {
            asked.reservation = ports.map_or(Reservation::Refused, |ports| Reservation::Ready(media, ports));
        }
    }

    /// Whether all media go over the connection itself.
    pub fn needs_nothing(&self) -> bool {
        self.interleaved && !self.datagrams && self.unanswered().next().is_none()
    }

    /// Every reservation that no open media has taken over.
    pub fn unanswered(&self) -> impl Iterator<Item = u32> {
        self.asking
            .iter()
            .chain(&self.asked)
            .chain(&self.answer.asked)
            .filter_map(|asked| asked.reservation.media())
    }
}
