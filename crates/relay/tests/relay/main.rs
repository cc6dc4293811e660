//! The relay over real sockets, seen from its peers.
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where something is not as it expects"
)]

mod blobs;
mod common;
mod connections;
mod crowd;
mod detour;
mod http;
mod letters;
mod malformed;
mod restarts;
mod streams;
