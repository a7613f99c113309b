//! Who is served when, and how much at once: links first and each the same, then the host, then strangers.

use crate::link_sockets::LinkSockets;
use crate::media::Media;
use crate::sys::Ready;

/// The wake-up call, the TUN, and the sockets of user-space mode in the poll.
pub const WAKE: u64 = u64::MAX;
pub const TUN: u64 = u64::MAX - 1;
pub const USER: u64 = u64::MAX - 2;

/// What a link may cost per round before the others have their turn, in bytes; and what packets cost that bytes don't tell.
const TURN: i64 = 256 << 10;
const PER_PACKET: i64 = 400;
const PER_CALL: i64 = 1_000;

/// Who a token stands for, in the order of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Orders,
    Link(usize),
    Tun,
    User,
    Media(u64),
    /// A socket that listens, by its index.
    Listening(usize),
}

impl Who {
    /// Of a token.
    pub fn of(token: u64) -> Self {
        match (token, LinkSockets::place(token)) {
            (WAKE, _) => Self::Orders,
            (TUN, _) => Self::Tun,
            (USER, _) => Self::User,
            (_, Some(place)) => Self::Link(place),
            _ if Media::is_media(token) => Self::Media(token),
            _ => Self::Listening(token as usize),
        }
    }
}

/// Orders a round.
pub fn order(ready: &mut [Ready]) {
    ready.sort_unstable_by_key(|r| Who::of(r.token));
}

/// What each link has left of its turns: who took more than one waits until the others have had as many.
#[derive(Default)]
pub struct Turns {
    left: Vec<i64>,
}

impl Turns {
    /// The next turn of the link at this place: whether it may receive now.
    pub fn next(&mut self, place: usize) -> bool {
        if self.left.len() <= place {
            self.left.resize(place + 1, 0);
        }
        self.left.get_mut(place).is_some_and(|left| {
            *left = TURN.min(*left + TURN);
            *left > 0
        })
    }

    /// Notes what a link's call brought; whether it may go on.
    pub fn took(&mut self, place: usize, packets: usize, bytes: usize) -> bool {
        let cost = PER_CALL + PER_PACKET * packets as i64 + bytes as i64;
        self.left.get_mut(place).is_some_and(|left| {
            *left -= cost;
            *left > 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_come_before_the_host_and_strangers_last() {
        let ready = |token| Ready {
            token,
            input: true,
            room: false,
        };
        let link = 1 << 33;
        let mut round = [
            ready(0),
            ready(TUN),
            ready(1 << 32),
            ready(link | 5),
            ready(WAKE),
            ready(link),
        ];
        order(&mut round);
        let served: Vec<_> = round.iter().map(|r| Who::of(r.token)).collect();
        assert_eq!(
            served,
            [
                Who::Orders,
                Who::Link(0),
                Who::Link(5),
                Who::Tun,
                Who::Media(1 << 32),
                Who::Listening(0)
            ]
        );
    }

    #[test]
    fn a_link_that_sends_most_is_served_no_more_than_the_others() {
        let mut turns = Turns::default();
        // Full trains, small datagrams, and a mixture: what one call brings of each.
        let calls = [(720, 1_000_000), (16, 3_200), (100, 60_000)];
        let mut bytes = [0i64; 3];
        for _ in 0..1_000 {
            for (place, &(packets, length)) in calls.iter().enumerate() {
                let mut may = turns.next(place);
                while may {
                    bytes[place] += PER_CALL + PER_PACKET * packets as i64 + length as i64;
                    may = turns.took(place, packets, length);
                }
            }
        }
        for cost in bytes {
            assert!((cost - 1_000 * TURN).abs() < 2_000_000, "{bytes:?}");
        }
    }
}
