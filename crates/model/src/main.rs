//! `farhelm-model`: the model server on its own, for demos and for driving an agent by hand.

use std::io;
use std::path::PathBuf;
use std::thread;

use clap::Parser;
use farhelm_model::{Model, Options, Scenarios};

/// Plays a model from a scenario file, on 127.0.0.1 only.
#[derive(Parser)]
#[command(name = "farhelm-model")]
struct Arguments {
    /// The port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8765)]
    port: u16,
    /// The scenario file; without it the standard scenarios are played.
    #[arg(long, value_name = "FILE")]
    scenarios: Option<PathBuf>,
    /// Appends every request to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

fn main() -> io::Result<()> {
    let Arguments {
        port,
        scenarios,
        log,
    } = Arguments::parse();
    let scenarios = match scenarios {
        Some(path) => Scenarios::load(&path)?,
        None => Scenarios::standard(),
    };
    let names = scenarios.names().collect::<Vec<_>>().join(" ");
    let model = Model::start_with(scenarios, Options { port, log })?;
    #[expect(clippy::print_stdout, reason = "whoever starts it reads the port here")]
    {
        println!("model at {}", model.url());
        println!("scenarios: {names}");
    }
    loop {
        thread::park();
    }
}
