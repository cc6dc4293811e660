//! A part of the crowd in a process of its own, so that the limit of open files is one for each part, and the relay's
//! alone says how many pairs there can be. The parts do as they are told on standard input, one word a line, and
//! answer each with a line of JSON.

use std::io::BufRead as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::PATIENCE;
use super::crowd::{Back, Crowd};
use crate::child::cpu_of;
use crate::output;

/// Pairs in one process: it has room for a second connection of each end, while the first is given up. More processes
/// would take the processor from the relay, which shares it with them.
pub(super) const PAIRS: usize = 5_000;

/// One part, seen from the process that asks.
pub(super) struct Part {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Part {
    /// Starts a part of `of` pairs.
    pub(super) fn start(port: u16, pairs: usize, of: usize) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["crowd", "--port", &port.to_string()])
            .args(["--pairs", &pairs.to_string(), "--of", &of.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        Ok(Self {
            child,
            stdin,
            stdout: BufReader::new(stdout).lines(),
        })
    }

    /// Waits until each of its pairs has exchanged an event.
    pub(super) async fn connected(&mut self) -> anyhow::Result<()> {
        self.hear().await.map(drop)
    }

    /// What it heard before does not count.
    pub(super) async fn forget(&mut self) -> anyhow::Result<()> {
        self.say("forget").await?;
        self.hear().await.map(drop)
    }

    /// When each of its links was up again and each device had something, since `begun`.
    pub(super) async fn all_back(&mut self, begun: Moment) -> anyhow::Result<Back> {
        self.say(&format!("back {}", begun.0.as_nanos())).await?;
        let heard = self.hear().await?;
        Ok(Back {
            links: durations(&heard["links"])?,
            pairs: durations(&heard["pairs"])?,
            dials: heard["dials"].as_u64().context("no dials")?,
        })
    }

    /// Processor time used so far.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(self.child.id().context("a part of the crowd is gone")?)
    }

    /// Lets its hosts stop writing; how many of their events never came, and how many came again.
    pub(super) async fn settle(&mut self) -> anyhow::Result<(u64, u64)> {
        self.say("settle").await?;
        let heard = self.hear().await?;
        let number = |name: &str| heard[name].as_u64().context("no number");
        Ok((number("lost")?, number("twice")?))
    }

    async fn say(&mut self, word: &str) -> anyhow::Result<()> {
        self.stdin.write_all(format!("{word}\n").as_bytes()).await?;
        Ok(())
    }

    async fn hear(&mut self) -> anyhow::Result<Value> {
        // It has waits of its own, and says what it waited for.
        let line = tokio::time::timeout(PATIENCE * 2, self.stdout.next_line());
        let line = line.await.context("a part of the crowd is stuck")??;
        let heard: Value = serde_json::from_str(&line.context("a part of the crowd ended")?)?;
        if let Some(error) = heard["error"].as_str() {
            bail!("{error}");
        }
        Ok(heard)
    }
}

/// A moment that processes of one machine agree upon.
#[derive(Clone, Copy)]
pub(super) struct Moment(Duration);

impl Moment {
    pub(super) fn now() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        Self(Duration::new(
            seconds,
            u32::try_from(now.tv_nsec).unwrap_or_default(),
        ))
    }

    pub(super) fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

/// Is a part, until standard input ends.
pub(crate) async fn run(port: u16, pairs: usize, of: usize) -> anyhow::Result<()> {
    let answered = serve(port, pairs, of).await;
    if let Err(error) = &answered {
        output::line(&json!({ "error": format!("{error:#}") }).to_string());
    }
    answered
}

async fn serve(port: u16, pairs: usize, of: usize) -> anyhow::Result<()> {
    let (told, mut hear) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.map_or(true, |line| told.blocking_send(line).is_err()) {
                break;
            }
        }
    });
    let mut crowd = Crowd::connect(port, pairs, of).await?;
    output::line("{}");
    while let Some(line) = hear.recv().await {
        let answer = match line.split_once(' ') {
            None if line == "forget" => {
                crowd.forget();
                json!({})
            }
            None if line == "settle" => {
                let (lost, twice) = crowd.settle().await;
                json!({ "lost": lost, "twice": twice })
            }
            Some(("back", begun)) => {
                let since = Moment(Duration::from_nanos(begun.parse()?)).elapsed();
                let begun = Instant::now().checked_sub(since).context("too long ago")?;
                let back = crowd.all_back(begun).await?;
                json!({ "links": micros(&back.links), "pairs": micros(&back.pairs), "dials": back.dials })
            }
            _ => bail!("{line:?} is no word that a part knows"),
        };
        output::line(&answer.to_string());
    }
    Ok(())
}

fn micros(durations: &[Duration]) -> Vec<u64> {
    let micros = durations.iter().map(Duration::as_micros);
    micros
        .map(|micros| micros.try_into().unwrap_or(u64::MAX))
        .collect()
}

fn durations(heard: &Value) -> anyhow::Result<Vec<Duration>> {
    let micros: Vec<u64> = serde_json::from_value(heard.clone())?;
    Ok(micros.into_iter().map(Duration::from_micros).collect())
}
