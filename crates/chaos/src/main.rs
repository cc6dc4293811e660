//! `farhelm-chaos`: counts what is lost, doubled or told wrongly while everything is killed and cut, and looks for leaks.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use farhelm_chaos::chance::seed;

mod bench;
mod recover;
mod soak;

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let what = words.next().unwrap_or_default();
    let options = Options::read(words)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match what.as_str() {
        "bench" => runtime.block_on(bench::run(&options)),
        "soak" => runtime.block_on(soak::run(&options)),
        _ => bail!(
            "farhelm-chaos bench|soak [--farhelm FILE] [--count N] [--sessions N] [--minutes N]"
        ),
    }
}

/// What both commands take.
struct Options {
    farhelm: PathBuf,
    /// Messages and approvals, together.
    count: u64,
    sessions: u64,
    time: Duration,
    seed: u64,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self {
            farhelm: PathBuf::new(),
            count: 10_000,
            sessions: 6,
            time: Duration::from_secs(3600),
            seed: seed(),
        };
        while let Some(word) = words.next() {
            let value = words
                .next()
                .with_context(|| format!("{word} needs a value"))?;
            match word.as_str() {
                // Agents are started in folders of their own.
                "--farhelm" => {
                    options.farhelm = std::path::absolute(&value).context(value)?;
                }
                "--count" => options.count = value.parse()?,
                "--sessions" => options.sessions = value.parse()?,
                "--minutes" => options.time = Duration::from_secs(60 * value.parse::<u64>()?),
                _ => bail!("{word} is not known"),
            }
        }
        if options.farhelm.as_os_str().is_empty() {
            options.farhelm = farhelm_chaos::world::farhelm()?;
        }
        Ok(options)
    }
}
