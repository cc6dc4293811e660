//! The relay's wall clock, for expiries and for the `now` of `Welcome`.

use std::time::{SystemTime, UNIX_EPOCH};

use farhelm_proto::Timestamp;

/// The present time.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
