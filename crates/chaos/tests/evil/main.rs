//! A relay that does evil, with a real daemon and devices: everything that it tries is without effect, and what it hides
//! or changes is noticed and shown. `make test-evil` runs these.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a script is about the frames that it names"
)]

mod answers;
mod eviction;
mod frozen;
mod pairing;
mod replay;
mod retarget;
mod rollback;
mod scene;
mod withhold;
