//! Thicket's packet logic: formats, links, labels, sessions, flows. No I/O, clock, thread or randomness: bytes and a time go in, bytes and
//! events come out. [`Core`] tells how a shell drives it; [`wire`] documents every format.

#![forbid(unsafe_code)]

pub mod aead;
mod answers;
mod api;
mod assemble;
mod buffers;
mod commands;
mod core;
mod deliver;
mod flat;
mod flows;
mod gate;
mod hash;
mod host;
mod icmp;
mod inbound;
pub mod keyed;
mod labels;
mod links;
mod merge;
mod outbound;
mod path_size;
mod probes;
mod receive;
mod replay;
mod rtsp;
mod seal;
mod services;
mod stats;
mod tables;
mod time;
pub mod wire;

pub use crate::core::{Core, CoreConfig, TunFeatures};
pub use api::{
    Command, Event, Generation, Hop, Label, LinkId, LinkKeys, LogLevel, Neighbour, Pair, PathId, PathKeys, Policy,
    Remote, Service, SessionId,
};
pub use buffers::{
    MediaBatch, MediaSend, RxBatch, Share, TRAIN_BYTES, TRAIN_SEGMENTS, TX_ROOM, Train, TunBatch, TunWrite, TxBatch,
};
pub use flat::{Flat, protocol_of};
pub use host::{Closed, Datagrams, Echo, Host, HostConfig, HostError, HostEvent, HostStats, Lost, StreamId};
pub use replay::{ReplayWindow, WINDOW};
pub use rtsp::MediaRequest;
pub use stats::{DropReason, Fullness, Ledger, LinkStats, ServiceStats, SessionStats, Stats, Traffic};
pub use time::{Duration, Instant};
