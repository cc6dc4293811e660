//! What each decoder must survive: any bytes, without a panic, in bounded time and memory. A test
//! replays a corpus and mutates what is valid; the fuzzer in `fuzz/` searches by coverage. Both call
//! the same [`TARGETS`].
//!
//! Beyond surviving, a target asserts what must be so of whatever is read: that it reads back, that
//! it does not depend on how the bytes were cut, that what a relay passes on can be read.

mod agents;
mod doors;
mod inside;
pub mod mutate;
mod wire;

/// A decoder under test.
pub struct Target {
    /// What it is called, also its folder in the corpus.
    pub name: &'static str,
    /// Feeds it; whether all was read.
    pub run: fn(&[u8]) -> bool,
    /// Inputs that are read.
    pub valid: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "frame",
        run: wire::frame,
        valid: wire::frames,
    },
    Target {
        name: "header",
        run: wire::header,
        valid: wire::headers,
    },
    Target {
        name: "replica",
        run: wire::replica,
        valid: wire::envelopes,
    },
    Target {
        name: "unpack",
        run: inside::unpack,
        valid: inside::packs,
    },
    Target {
        name: "plaintext",
        run: inside::plaintext,
        valid: inside::plaintexts,
    },
    Target {
        name: "session",
        run: inside::session,
        valid: inside::stories,
    },
    Target {
        name: "words",
        run: inside::words,
        valid: inside::links,
    },
    Target {
        name: "lines",
        run: agents::lines,
        valid: agents::said,
    },
    Target {
        name: "acp",
        run: agents::acp,
        valid: agents::acp_lines,
    },
    Target {
        name: "claude",
        run: agents::claude,
        valid: agents::claude_lines,
    },
    Target {
        name: "keeper",
        run: doors::keeper,
        valid: doors::kept,
    },
    Target {
        name: "websocket",
        run: doors::websocket,
        valid: doors::messages,
    },
    Target {
        name: "detour",
        run: doors::detour,
        valid: doors::rows,
    },
    Target {
        name: "events",
        run: doors::events,
        valid: doors::streams,
    },
    Target {
        name: "config",
        run: doors::config,
        valid: doors::configs,
    },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// The pieces in which bytes arrive that come `size` at a time.
fn pieces(bytes: &[u8], size: usize) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(size.max(1))
}
