//! The relay's wall clock, for the `now` of `Welcome` and for letters, which outlive the program.
//!
//! Nothing else here is measured by it: somebody may set it, and those of the peers show other
//! times. What is held in memory goes by [`crate::state::State::uptime`].

use farhelm_proto::Timestamp;

/// The present time.
pub(crate) fn now() -> Timestamp {
    Timestamp(farhelm_world::millis())
}
