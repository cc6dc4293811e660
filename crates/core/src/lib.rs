//! What only the ends know: events and commands, the session and its approvals, the roster,
//! pairing, keys and sealing, and the replica that a device keeps.
//!
//! Decisions live here, and nothing else does: no IO, no clock, no randomness. Time and fresh
//! bytes arrive as arguments; what must be done leaves as a return value. The relay does not link
//! this crate.
//!
//! The road of a wish: a [`command::Command`] arrives sealed in a letter, the host opens it
//! ([`seal`]), checks the device's [`grant`], asks [`session::Session::decide`], appends the
//! [`event::Event`]s, applies them, acts on their [`session::Effect`]s, and seals them into an
//! envelope that devices check and open with [`replica`].

pub mod agent;
pub mod ask;
pub mod assemble;
pub mod command;
pub mod content;
pub mod event;
pub mod fleet;
pub mod grant;
pub mod keys;
pub mod pairing;
pub mod presence;
pub mod probe;
pub mod replica;
pub mod roster;
pub mod seal;
pub mod session;
pub mod text;
