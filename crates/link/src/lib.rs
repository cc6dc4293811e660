//! One peer's connection to a relay, and what a device outside the host keeps and does.
//!
//! [`driver`] holds a connection up for ever: it dials ([`socket`]), proves the peer's key,
//! watches for silence, and tries again with [`backoff`]. Hosts and devices use it alike; it
//! knows frames and nothing of what is sealed in them. [`device`] is the rest of a device: its
//! store, the pairing ceremony, and the reader of a host's logs.
//!
//! Nothing here reads the environment but for the proxy that the system prescribes.

pub mod backoff;
#[doc(hidden)]
pub mod bare;
pub mod clock;
pub mod device;
pub mod driver;
pub mod rng;
mod silence;
mod socket;
mod ways;
