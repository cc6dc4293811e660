//! Measures the relay beside small servers that mark what the machine allows.
//!
//! `relay` starts each server as a process of its own and puts the same load on all of them, in
//! turns: absolute figures drift with the machine, ratios within one run much less. `sizes` weighs
//! what is shipped. `serve` is one of those servers. `docs/performance.md` says what the figures
//! mean.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::run::Plan;
use crate::target::Kind;

mod child;
mod ends;
mod log;
mod measure;
mod output;
mod peer;
mod reconnect;
mod report;
mod results;
mod run;
mod serve;
mod sizes;
mod target;
mod wire;

/// The relay ships with this allocator; the yardsticks get the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the relay beside yardsticks, in one interleaved run.
#[derive(Parser)]
#[command(name = "farhelm-bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the relay and the yardsticks
    Relay(Measure),
    /// Weigh the binaries and the web app
    Sizes(Output),
    /// Measure the two ends: journal, cold start, an approval's way from a device to the agent
    Ends,
    /// Restart a relay under 1,000 and 10,000 live pairs, and see how soon all are back
    Reconnect {
        /// How many pairs
        #[arg(long, value_delimiter = ',', default_values_t = PAIRS)]
        pairs: Vec<usize>,
    },
    /// Be a part of the crowd until standard input ends
    #[command(hide = true)]
    Crowd {
        /// The relay's port on 127.0.0.1
        #[arg(long)]
        port: u16,
        /// How many pairs
        #[arg(long)]
        pairs: usize,
        /// How many pairs there are in all parts
        #[arg(long)]
        of: usize,
    },
    /// Everything
    All(Measure),
    /// Be one of the servers until standard input ends
    Serve(Serve),
}

#[derive(Args, Clone)]
struct Output {
    /// Write the figures to this file, in JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// End with an error when a gate fails
    #[arg(long)]
    gate: bool,
}

#[derive(Args, Clone)]
struct Measure {
    /// 5,000 pairs, a stream of a million events, longer rounds; takes about ten minutes
    #[arg(long)]
    full: bool,
    /// Rounds through all servers
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Begin no further round that would end after so many seconds
    #[arg(long, value_name = "SECONDS")]
    limit: Option<u64>,
    /// Measure these servers only
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    only: Vec<Kind>,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Clone)]
struct Serve {
    /// Which server
    kind: Kind,
    /// The port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Where it keeps what it stores
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            output::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether no gate failed that the caller wanted kept.
fn run(command: Command) -> anyhow::Result<bool> {
    // Many parts of a crowd run beside the relay, and are not to take its turn.
    let mut runtime = if matches!(command, Command::Crowd { .. }) {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = runtime.enable_all().build()?;
    match command {
        Command::Serve(Serve { kind, port, data }) => {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            runtime.block_on(serve::run(kind, address, &data))?;
            Ok(true)
        }
        Command::Relay(Measure {
            full,
            rounds,
            limit,
            only,
            output,
        }) => {
            let results = runtime.block_on(run::relay(&Plan::new(full, rounds, limit, only)))?;
            report::finish(&results, &[], output.json.as_deref(), output.gate)
        }
        Command::Sizes(output) => report::finish(
            &results::Results::default(),
            &sizes::all(),
            output.json.as_deref(),
            output.gate,
        ),
        Command::All(Measure {
            full,
            rounds,
            limit,
            only,
            output,
        }) => {
            let results = runtime.block_on(run::relay(&Plan::new(full, rounds, limit, only)))?;
            let kept =
                report::finish(&results, &sizes::all(), output.json.as_deref(), output.gate)?;
            output::line(&ends::table(&runtime.block_on(ends::all(&shipped()?))?));
            output::line(&restarts(&runtime, &PAIRS)?);
            Ok(kept)
        }
        Command::Reconnect { pairs } => {
            output::line(&restarts(&runtime, &pairs)?);
            Ok(true)
        }
        Command::Crowd { port, pairs, of } => {
            runtime.block_on(reconnect::part::run(port, pairs, of))?;
            Ok(true)
        }
        Command::Ends => {
            output::line(&ends::table(&runtime.block_on(ends::all(&shipped()?))?));
            Ok(true)
        }
    }
}

/// Pairs of which a restart of the relay is measured.
const PAIRS: [usize; 2] = [1_000, 10_000];

fn restarts(runtime: &tokio::runtime::Runtime, pairs: &[usize]) -> anyhow::Result<String> {
    let most = pairs.iter().copied().max().unwrap_or_default();
    let fit = usize::try_from(run::raise_limit(most as u64)?)?;
    if fit < most {
        output::note(&format!("{most} pairs are measured with {fit}"));
    }
    let pairs: Vec<_> = pairs.iter().map(|pairs| (*pairs).min(fit)).collect();
    let restarts = runtime.block_on(reconnect::all(&shipped()?, &pairs))?;
    Ok(reconnect::table(&restarts))
}

/// The program `farhelm` of the same build.
fn shipped() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.with_file_name("farhelm"))
}
