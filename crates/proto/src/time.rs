//! Points in time as the protocol carries them.
//!
//! Order is never decided by time, only by sequence numbers; times are for people and expiries.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    Serialize,
    Deserialize,
)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Timestamp(
    /// Milliseconds since the Unix epoch.
    #[n(0)]
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub u64,
);

impl Timestamp {
    /// The instant `millis` milliseconds later; saturates at the end of time.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this instant; zero when `earlier` is later.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
