//! Hard bounds of the protocol. A peer that goes beyond one is answered with a [`crate::Code`]
//! and closed; nobody else notices.

/// Largest frame of any kind, in bytes.
pub const FRAME_BYTES: usize = 1_200_000;
/// Largest frame before the peer has proved its key.
pub const HELLO_FRAME_BYTES: usize = 4 * 1024;
/// Largest sealed body of one durable envelope.
pub const ENVELOPE_BODY_BYTES: usize = 1024 * 1024;
/// Largest sealed body of one live envelope.
pub const LIVE_BODY_BYTES: usize = 64 * 1024;
/// Largest sealed body of one letter.
pub const LETTER_BODY_BYTES: usize = 512 * 1024;
/// Largest blob (sealed).
pub const BLOB_BYTES: usize = 1024 * 1024;
/// Largest control frame (everything but envelopes, letters, pages and blobs).
pub const CONTROL_FRAME_BYTES: usize = 64 * 1024;
/// Highest seq of a stream: every reader counts so far exactly.
pub const SEQ: u64 = (1 << 53) - 1;
/// Devices one host may list.
pub const MEMBERS: usize = 512;
/// Streams one connection may follow.
pub const SUBSCRIPTIONS: usize = 1024;
/// Letters that may wait for one peer.
pub const MAILBOX_LETTERS: usize = 4096;
/// Bytes of letters that may wait for one peer.
pub const MAILBOX_BYTES: usize = 16 * 1024 * 1024;
/// Pairings one host may hold open.
pub const OPEN_OFFERS: usize = 8;
/// How long a pairing link works, in milliseconds.
pub const OFFER_MILLIS: u64 = 10 * 60 * 1000;
/// How long an unauthenticated connection may stay open, in milliseconds.
pub const HELLO_MILLIS: u64 = 5_000;
/// The shortest silence that a peer may ask to be given up after, in milliseconds.
pub const SHORTEST_DEAD_MILLIS: u64 = 3_000;
