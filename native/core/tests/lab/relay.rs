//! Three nodes, viewer – relay – gateway, and a session between the outer two.

use super::Lab;
use super::orders::{self, ALL, PATH, config, forward, hop, ip, long_ip, service, turned};
use super::packets::udp;
use thicket_core::wire::protocol;
use thicket_core::{Command, Policy};

pub const VIEWER: usize = 0;
pub const RELAY: usize = 1;
pub const GATEWAY: usize = 2;

/// The links: viewer to relay, gateway to relay.
pub const NEAR: u32 = 1;
pub const FAR: u32 = 2;
/// The session at the viewer and at the gateway.
pub const CALLS: u32 = 5;
pub const CALLED: u32 = 6;

impl Lab {
    /// The viewer calls as 198.18.0.1 to 198.18.0.9 (or fd00::1 to fd00::9), the gateway's host knows both as 198.18.0.88 to .77: it offers TCP 554,
    /// UDP 5000 and echo. Labels: 1000 at the viewer, 2000 at the gateway, 1001 and 2001 at the relay.
    pub fn relay() -> Self {
        let mut lab = Self::of((0..3).map(|number| config(number, number == RELAY, ALL)));
        lab.link(NEAR, VIEWER, RELAY);
        lab.link(FAR, GATEWAY, RELAY);
        lab.command(RELAY, forward(hop(NEAR, 1001), hop(FAR, 2000)));
        lab.command(RELAY, forward(hop(FAR, 2001), hop(NEAR, 1000)));
        let (v4, v6) = ((ip(1), ip(9)), (long_ip(1), long_ip(9)));
        lab.command(VIEWER, orders::open_both(CALLS, Some(v4), Some(v6)));
        lab.command(GATEWAY, orders::open(CALLED, ip(77), ip(88)));
        lab.policy(VIEWER, CALLS, orders::calls());
        let services = vec![service(protocol::TCP, 554), service(protocol::UDP, 5000)];
        let policy = Policy {
            echo: true,
            ..orders::offers(services)
        };
        lab.policy(GATEWAY, CALLED, policy);
        lab.path(1, true);
        lab
    }

    /// A path of the session; whether the gateway's end is confirmed.
    pub fn path(&mut self, path: u32, confirmed: bool) {
        let (near, far) = ((hop(NEAR, 1000), hop(NEAR, 1001)), (hop(FAR, 2000), hop(FAR, 2001)));
        self.command(VIEWER, orders::path(path, CALLS, near.0, near.1, PATH));
        let mut keys = orders::path_keys(path, CALLED, far.0, far.1, turned(PATH));
        keys.confirmed = confirmed;
        self.command(GATEWAY, Command::PathInstall(keys));
    }

    /// The same when both ends have sent something long, so that the path's size is known.
    pub fn probed_relay() -> Self {
        let mut lab = Self::relay();
        lab.tun_in(VIEWER, udp(ip(1), ip(9), (9999, 5000), &[0; 1_400]));
        lab.run();
        lab.tun_in(GATEWAY, udp(ip(77), ip(88), (5000, 9999), &[0; 1_400]));
        lab.run();
        for node in [VIEWER, GATEWAY, VIEWER, GATEWAY] {
            lab.timeout(node);
            lab.run();
        }
        for node in [VIEWER, GATEWAY] {
            let sessions = lab.nodes[node].stats(lab.now).sessions;
            assert_eq!(sessions[0].path_mtu, Some(1_500));
            assert!(!std::mem::take(&mut lab.tun[node]).is_empty());
        }
        lab
    }
}
