//! The user-space host: two of them over a line that loses, repeats and reorders, and one against packets made by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod datagrams;
mod ends;
mod hand;
mod hostile;
mod line;
mod many;
mod streams;
mod talk;
