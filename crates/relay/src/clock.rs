//! The relay's wall clock, for expiries and for the `now` of `Welcome`.

use farhelm_proto::Timestamp;

/// The present time.
pub(crate) fn now() -> Timestamp {
    Timestamp(farhelm_world::millis())
}
