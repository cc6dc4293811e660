//! What the two ends cost: the host's journal, a cold start, and an approval's way from a device
//! through the relay to the agent and back, with the real program and nothing left out.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use farhelm_host::measure;
use serde_json::Value;

use crate::child::cpu_of;
use crate::measure::rate;

mod approvals;
mod idle;

/// Appends measured of each size.
const APPENDS: usize = 500;
/// Events of a large append.
const LARGE: u64 = 100;
/// Cold starts measured.
const STARTS: usize = 5;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was found.
pub(crate) struct Ends {
    figures: Vec<Figure>,
    idle: Vec<idle::Idle>,
}

/// A figure with its name.
struct Figure {
    name: String,
    p50: Duration,
    p99: Duration,
}

/// Measures everything; `program` is the release build of `farhelm`.
pub(crate) async fn all(program: &Path) -> anyhow::Result<Ends> {
    ensure!(
        program.exists(),
        "{} is not built; run `make build`",
        program.display()
    );
    let folder = tempfile::tempdir()?;
    let one = measure::append(&folder.path().join("one.db"), APPENDS, 1).await?;
    let before = cpu_of(std::process::id())?;
    let many = measure::append(&folder.path().join("many.db"), APPENDS, LARGE).await?;
    let used = cpu_of(std::process::id())?.saturating_sub(before);
    let each_second = rate(LARGE * APPENDS as u64, used).round();
    let mut figures = vec![
        figure("journal: one event sealed, appended and on the disk", one),
        figure(
            format!("journal: 100 events, the same, {each_second} events per CPU second"),
            many,
        ),
    ];
    figures.push(figure(
        "cold start: `farhelm up` until the session is there",
        cold_starts(program).await?,
    ));
    figures.extend(approvals::all(program).await?);
    Ok(Ends {
        figures,
        idle: idle::measure(program).await?,
    })
}

/// The tables of the figures, in Markdown.
pub(crate) fn table(ends: &Ends) -> String {
    let millis = |duration: Duration| format!("{:.2} ms", duration.as_secs_f64() * 1e3);
    let mut text = "| the ends | p50 | p99 |\n|---|---:|---:|\n".to_owned();
    for figure in &ends.figures {
        text += &format!(
            "| {} | {} | {} |\n",
            figure.name,
            millis(figure.p50),
            millis(figure.p99)
        );
    }
    text + &idle::table(&ends.idle)
}

fn figure(name: impl Into<String>, mut took: Vec<Duration>) -> Figure {
    took.sort_unstable();
    let at = |part: usize| {
        took.get((took.len() * part / 100).min(took.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    };
    Figure {
        name: name.into(),
        p50: at(50),
        p99: at(99),
    }
}

/// A host in a folder of its own; it ends with this.
struct Host {
    program: PathBuf,
    folder: tempfile::TempDir,
}

impl Host {
    fn new(program: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("project"))?;
        Ok(Self {
            program: program.to_owned(),
            folder,
        })
    }

    async fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .env("FARHELM_HOME", self.folder.path().join("state"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output())
            .await
            .context("too slow")??;
        ensure!(
            output.status.success(),
            "farhelm {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    async fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(
            &self.run(&[args, &["--json"]].concat()).await?,
        )?)
    }

    /// How to start the scripted agent with this scenario.
    fn scripted(&self, name: &str, turns: &Value) -> anyhow::Result<String> {
        let file = self.folder.path().join(name);
        let scenario = serde_json::json!({"scenarios": {"default": turns}});
        std::fs::write(&file, scenario.to_string())?;
        Ok(format!(
            "{} scripted-agent --scenario {}",
            self.program.display(),
            file.display()
        ))
    }

    async fn up(&self, more: &[&str]) -> anyhow::Result<Value> {
        let dir = self.folder.path().join("project").display().to_string();
        self.json(&[&["up", "--dir", &dir, "--headless"], more].concat())
            .await
    }
}

async fn cold_starts(program: &Path) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::new();
    for _ in 0..STARTS {
        let host = Host::new(program)?;
        let begun = Instant::now();
        host.up(&["--agent", "scripted"]).await?;
        took.push(begun.elapsed());
        host.run(&["down"]).await?;
    }
    Ok(took)
}
