//! Plays the whole system in one process: the real host, relay and devices with stores in memory,
//! a network that loses, delays and falls silent, machines that crash at any step, and people who
//! do anything at any time. All of it comes from a seed, so that whatever goes wrong once goes
//! wrong again. See `docs/simulation.md`.

pub mod agent;
pub mod chance;
pub mod device;
pub mod host;
pub mod keep;
pub mod machine;
pub mod net;
pub mod oracle;
pub mod plan;
pub mod relay;
pub mod run;
pub mod shrink;
mod tap;
pub mod universe;
