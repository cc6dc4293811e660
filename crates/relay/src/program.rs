//! The relay as a program, `farhelm-relay` or `farhelm relay`: reads its configuration, runs one
//! relay, and ends it when asked to.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::layers::{Layers, PREFIX};
use crate::{Config, Relay};

/// The command line.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address to listen on [default: 127.0.0.1:7420]
    #[arg(long, value_name = "ADDR", global = true)]
    listen: Option<String>,
    /// Folder of the store [default: $FARHELM_HOME/relay, or in the state folder of the user]
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<String>,
    /// Keep everything in memory
    #[arg(long, global = true)]
    memory: bool,
    /// Address under which peers reach this relay; may be repeated
    #[arg(long = "public-url", value_name = "URL", global = true)]
    public_urls: Vec<String>,
    /// TLS certificate chain, a PEM file
    #[arg(long, value_name = "FILE", global = true)]
    cert: Option<String>,
    /// Key of the certificate, a PEM file
    #[arg(long, value_name = "FILE", global = true)]
    key: Option<String>,
    /// Host to serve, and no others; may be repeated
    #[arg(long = "host-allow", value_name = "PEER", global = true)]
    hosts: Vec<String>,
    /// Configuration file, in TOML
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the effective configuration, and where each value is from
    Config,
}

/// Runs until the relay is asked to end.
#[must_use]
pub fn main(args: Args) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let explain = args.command.is_some();
    let layers = layers(args)?;
    if explain {
        show(&layers.explain()?);
        return Ok(());
    }
    let config = layers.resolve()?;
    let filter = std::env::var(format!("{PREFIX}LOG")).unwrap_or_else(|_| "info".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Else a log that cannot be written, on a full disk, ends whoever wanted to log.
        .log_internal_errors(false)
        .init();
    open_many_files();
    take_small_pages();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve(config));
    runtime.shutdown_background();
    ended
}

/// Takes as many descriptors as the system gives. What a process begins with is often 1,024 for the
/// sake of programs that use `select`, and each connection is one.
fn open_many_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, ?current, "the limit of open files cannot be raised");
    }
}

/// Keeps the system from rounding every small heap up to pages of 2 MiB: that doubles what an idle process
/// takes, and gains nothing here. Programs that are started from now on inherit it. Only Linux does so
/// by itself, and an older one that cannot be told otherwise does no harm.
pub fn take_small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages cannot be turned off");
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let relay = Relay::start(config)?;
    show(&format!(
        "farhelm-relay {} listening on {}\n",
        env!("CARGO_PKG_VERSION"),
        relay.url()
    ));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("ending");
    tokio::select! {
        () = relay.shutdown() => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Flags over environment over file over defaults.
fn layers(args: Args) -> anyhow::Result<Layers> {
    let mut layers = Layers::default();
    let from_environment = std::env::var_os(format!("{PREFIX}CONFIG")).map(PathBuf::from);
    if let Some(file) = args.config.or(from_environment) {
        layers.file(&file)?;
    }
    let variables = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    layers.environment(variables)?;
    let texts = [
        ("listen", args.listen),
        ("data", args.data),
        ("cert", args.cert),
        ("key", args.key),
    ];
    for (key, value) in texts
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
    {
        layers.flag(key, value);
    }
    for (key, values) in [("public_urls", args.public_urls), ("hosts", args.hosts)] {
        if !values.is_empty() {
            layers.flag(key, values);
        }
    }
    if args.memory {
        layers.flag("memory", true);
    }
    layers.data_default(data_folder()?)?;
    Ok(layers)
}

fn data_folder() -> anyhow::Result<PathBuf> {
    use etcetera::BaseStrategy as _;
    if let Some(home) = std::env::var_os("FARHELM_HOME") {
        return Ok(PathBuf::from(home).join("relay"));
    }
    let folders =
        etcetera::choose_base_strategy().context("the user has no home folder; set --data")?;
    Ok(folders
        .state_dir()
        .unwrap_or_else(|| folders.data_dir())
        .join("farhelm")
        .join("relay"))
}

/// The only place that writes to standard output.
#[expect(
    clippy::print_stdout,
    reason = "this is what the program is asked to print"
)]
fn show(text: &str) {
    print!("{text}");
}

#[expect(clippy::print_stderr, reason = "there may be no log yet")]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
