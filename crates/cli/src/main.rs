//! `farhelm`: starts agents on this machine and steers them, here or from afar.
//!
//! On the host, commands go to the daemon through its unix socket; on a machine that was joined
//! with a pairing link they go through the relay, sealed. [`station`] hides the difference.

use std::process::ExitCode;

use clap::Parser as _;
use farhelm_proto::Code;

mod args;
mod commands;
mod daemon;
mod failure;
mod form;
mod output;
mod ready;
mod render;
mod resolve;
mod seen;
mod sending;
mod station;
mod surface;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code of a command line that cannot be understood.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // There is one for each agent, and it lives long: it starts with nothing that commands need.
    if std::env::args_os().skip(1).eq(["keeper"]) {
        let kept = farhelm_host::keeper::main();
        return kept.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() && wants_json() => {
            let text = error.render().to_string();
            let text = text.trim().trim_start_matches("error: ");
            output::print_failure(&failure::Failure::new(Code::BadCommand, text), true);
            return ExitCode::from(USAGE);
        }
        Err(error) => {
            // A reader that went away (a closed pipe) is nothing to report.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        return ExitCode::from(70);
    }
    let json = args.json;
    match commands::run(args) {
        Ok(code) => code,
        Err(failure) => {
            output::print_failure(&failure, json);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Whether a command line that cannot be understood asks for JSON.
fn wants_json() -> bool {
    std::env::args_os()
        .take_while(|word| word != "--")
        .any(|word| word == "--json")
}
