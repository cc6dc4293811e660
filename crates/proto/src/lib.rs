//! What every machine must agree on: ids, frames, the handshake, and the clear headers of
//! sealed things.
//!
//! A **host** writes streams of sealed [`envelope::Envelope`]s; a **relay** stores and fans them
//! out; **devices** read them and send sealed [`letter::Letter`]s back. This crate knows the
//! outside of both and nothing of the inside: payloads are opaque bytes here, which is why the
//! relay, which links only this crate, cannot read a session.
//!
//! No IO, no clock, no randomness: time and fresh bytes arrive as arguments.
//!
//! `docs/protocol.md` says the same in prose for somebody who writes a client.

pub mod code;
pub mod envelope;
pub mod frame;
pub mod hello;
pub mod id;
pub mod letter;
pub mod limits;
pub mod sign;
pub mod time;

pub use code::Code;
pub use id::{ApprovalId, CommandId, OfferId, PeerId, PromptId, SessionId, StreamId, TurnId};
pub use time::Timestamp;

/// The protocol version this crate speaks; negotiated in [`hello`].
pub const VERSION: u16 = 1;

/// The oldest version this crate still understands.
pub const OLDEST_VERSION: u16 = 1;
