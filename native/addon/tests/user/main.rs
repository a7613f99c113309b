//! User-space mode beside a kernel's: viewer – relay – gateway over loopback, ordinary programs and devices at both ends.

#![allow(clippy::unwrap_used, clippy::panic, dead_code, unused_imports)]

#[path = "../../src/aead.rs"]
mod aead;
#[path = "../../src/link_sockets.rs"]
mod link_sockets;
#[path = "../../src/media.rs"]
mod media;
#[path = "../../src/outlet.rs"]
mod outlet;
#[path = "../../src/outlets.rs"]
mod outlets;
#[path = "../../src/queues.rs"]
mod queues;
#[path = "../../src/rounds.rs"]
mod rounds;
#[path = "../../src/sys/mod.rs"]
mod sys;
#[path = "../../src/team.rs"]
mod team;
#[path = "../../src/user/mod.rs"]
mod user;
#[path = "../../src/worker/mod.rs"]
mod worker;

#[path = "../lab/mod.rs"]
mod lab;

mod connections;
mod datagrams;
mod many;
mod orders;
mod world;
