//! Bad input gets a clear error and loses nothing. Each error is known by its code, says what to
//! do, and what worked before goes on working.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a story that cannot be told has failed"
)]

mod agents;
mod awake;
mod commands;
mod crashes;
mod doctor;
mod dying;
mod garbage;
mod keepers;
mod links;
mod relays;
mod service;
mod state;
#[path = "../support/mod.rs"]
mod support;
