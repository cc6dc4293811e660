//! A loopback model server that plays scripts, and the real agents set up to talk to it.
//!
//! Real agents are tested without accounts and without the internet: [`Model`] answers them in
//! the four vendors' streaming formats, [`agents`] prepares an agent's home so that it finds
//! nothing but this server. What the model "thinks" is written in a scenario file
//! ([`Scenarios`]): the prompt names one with `SCENARIO:name` and, for absolute paths, the
//! working tree with `CWD:/path`.
//!
//! The server keeps no state between requests. Which turn to play follows from the request alone:
//! it is the number of tool results after the last prompt that carries the marker. Retries, title
//! requests, helper requests in parallel and resumed sessions cannot confuse it.
//!
//! Development only: nothing that is shipped depends on this crate.

pub mod agents;
mod anthropic;
mod chat;
mod conversation;
mod gemini;
mod reply;
mod responses;
mod scenario;
mod server;
mod tools;

pub use scenario::{Action, Scenarios, Step};
pub use server::{Delivery, Model, Options, Request};
