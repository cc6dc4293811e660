//! The daemon on the machine where agents run: the only writer of its sessions' logs.
//!
//! [`daemon`] is the actor that owns the host's own log, its roster and its sessions; each session
//! is an actor of its own ([`session`]) between its agent ([`agents`]), its log ([`stream`],
//! [`journal`]) and the relay ([`uplink`]). The CLI on this machine talks to the daemon through
//! [`local`], a unix socket that nobody else may open.
//!
//! Everything that decides is in `farhelm-core`; here it is appended, applied and acted upon, in
//! that order.

pub mod agents;
mod awake;
#[doc(hidden)]
pub mod bare;
mod clip;
pub mod config;
pub mod daemon;
pub mod environment;
pub mod git;
pub mod home;
pub mod journal;
pub mod keeper;
mod leftovers;
pub mod local;
#[doc(hidden)]
pub mod measure;
mod session;
#[doc(hidden)]
pub mod stage;
mod stream;
mod tasks;
pub mod tunnel;
mod uplink;
mod vitals;
