//! Real programs with faults between them, and the oracle that says whether anything was lost, doubled or told wrongly.
//!
//! A [`world::World`] runs a relay, a daemon and devices on this machine, each pair with a [`proxy::Proxy`] in between.
//! A proxy sees whole frames; its [`weather::Weather`] says what becomes of each. What the scripted agent heard and said is
//! in its own record, and [`oracle`] compares that with what the host and every device show. Everything that is random
//! follows from a seed, which a failure prints.
//!
//! Never shipped. It does not know how the programs do what they do.

pub mod chance;
pub mod device;
#[cfg(feature = "evil")]
pub mod evil;
pub mod oracle;
pub mod person;
pub mod program;
pub mod proxy;
pub mod record;
pub mod trouble;
pub mod weather;
pub mod world;
