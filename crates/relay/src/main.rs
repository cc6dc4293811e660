//! The binary `farhelm-relay`; see [`farhelm_relay::program`].

use std::process::ExitCode;

use clap::Parser;
use farhelm_relay::program;

/// Many small queues that grow and shrink: the system's allocator would keep their peak.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Stores and forwards sealed frames between hosts and devices.
#[derive(Parser)]
#[command(name = "farhelm-relay", version)]
struct Cli {
    #[command(flatten)]
    args: program::Args,
}

fn main() -> ExitCode {
    program::main(Cli::parse().args)
}
