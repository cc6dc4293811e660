//! What the two ends cost: the host's journal, a cold start, and an approval's way from a device
//! through the relay to the agent and back, with the real program and nothing left out.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use farhelm_core::ask::{Verdict, digest};
use farhelm_core::command::Command;
use farhelm_core::event::Event;
use farhelm_host::measure;
use farhelm_link::clock::now;
use farhelm_link::device::{self, Client, LogItem, Store};
use farhelm_proto::SessionId;
use serde_json::Value;

/// Appends measured of each size.
const APPENDS: usize = 500;
/// Events of a large append.
const LARGE: u64 = 100;
/// Approvals measured.
const APPROVALS: usize = 200;
/// Cold starts measured.
const STARTS: usize = 5;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A figure with its name.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Measures everything; `program` is the release build of `farhelm`.
pub(crate) async fn all(program: &Path) -> anyhow::Result<Vec<Figure>> {
    ensure!(
        program.exists(),
        "{} is not built; run `make build`",
        program.display()
    );
    let folder = tempfile::tempdir()?;
    let one = measure::append(&folder.path().join("one.db"), APPENDS, 1).await?;
    let many = measure::append(&folder.path().join("many.db"), APPENDS, LARGE).await?;
    let mut figures = vec![
        figure("journal: one event sealed, appended and on the disk", one),
        figure("journal: 100 events, the same", many),
    ];
    figures.push(figure(
        "cold start: `farhelm up` until the session is there",
        cold_starts(program).await?,
    ));
    figures.extend(approvals(program).await?);
    Ok(figures)
}

/// The table of the figures, in Markdown.
pub(crate) fn table(figures: &[Figure]) -> String {
    let millis = |duration: Duration| format!("{:.2} ms", duration.as_secs_f64() * 1e3);
    let mut text = "| the ends | p50 | p99 |\n|---|---:|---:|\n".to_owned();
    for figure in figures {
        text += &format!(
            "| {} | {} | {} |\n",
            figure.name,
            millis(figure.p50),
            millis(figure.p99)
        );
    }
    text
}

fn figure(name: &'static str, mut took: Vec<Duration>) -> Figure {
    took.sort_unstable();
    let at = |part: usize| {
        took.get((took.len() * part / 100).min(took.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    };
    Figure {
        name,
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

/// Approves one command after another from a device that reaches the host through the relay.
async fn approvals(program: &Path) -> anyhow::Result<Vec<Figure>> {
    let host = Host::new(program)?;
    let step = serde_json::json!({"do": "shell", "command": "true"});
    let scenario = serde_json::json!({"scenarios": {"default": [vec![step; APPROVALS]]}});
    let file = host.folder.path().join("scenario.json");
    std::fs::write(&file, scenario.to_string())?;
    let line = format!(
        "{} scripted-agent --scenario {}",
        program.display(),
        file.display()
    );
    let made = host.up(&["--agent-cmd", &line]).await?;
    let measured = steer(&host, &made).await;
    host.run(&["down"]).await?;
    let (decided, applied) = measured?;
    Ok(vec![
        figure(
            "approval: tap until the decision is back on the device, durable at the host",
            decided,
        ),
        figure(
            "approval: tap until the device knows that the agent has it",
            applied,
        ),
    ])
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only these events are timed"
)]
async fn steer(host: &Host, made: &Value) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let session: SessionId = made["session"].as_str().context("a session")?.parse()?;
    let link = made["link"].as_str().context("a link")?;
    let store = Store::open(&host.folder.path().join("device"))?;
    let (told, code) = tokio::sync::oneshot::channel();
    let pairing = device::pair(&store, link, "bench", None, |code| {
        drop(told.send(code.to_owned()));
    });
    let accepting = async {
        let code = code.await?;
        host.run(&["pair", "--accept", &code]).await
    };
    let (paired, accepted) = tokio::join!(pairing, accepting);
    accepted?;
    let client = Client::connect(store, paired?, None).await?;
    client.fleet().await?;
    let mut log = client.log(session, None, true).await;
    let later = now().plus_millis(3_600_000);
    let sent = client
        .send(
            Command::Prompt {
                session,
                text: "go".into(),
            },
            later,
        )
        .await?;
    drop(sent);
    let (mut decided, mut applied) = (Vec::new(), Vec::new());
    let mut tapped = Instant::now();
    while let Some(item) = tokio::time::timeout(PATIENCE, log.recv())
        .await
        .context("the log stands still")?
    {
        let LogItem::Record(record) = item? else {
            continue;
        };
        match record.event {
            Event::ApprovalRequested { approval, ask, .. } => {
                let shown: Value = serde_json::from_str(&ask)?;
                let option = shown["options"][0]["id"]
                    .as_str()
                    .context("an option")?
                    .to_owned();
                let verdict = Verdict::Selected {
                    option,
                    allows: true,
                    reason: None,
                };
                let command = Command::DecideApproval {
                    session,
                    approval,
                    digest: digest(&ask),
                    verdict,
                };
                tapped = Instant::now();
                drop(client.send(command, later).await?);
            }
            Event::ApprovalDecided { .. } => decided.push(tapped.elapsed()),
            Event::ApprovalApplied { .. } => applied.push(tapped.elapsed()),
            Event::TurnEnded { .. } => break,
            Event::AgentExited { stderr, .. } => bail!("the agent ended: {stderr}"),
            _ => {}
        }
    }
    ensure!(
        applied.len() == APPROVALS,
        "{} of {APPROVALS} approvals were applied",
        applied.len()
    );
    Ok((decided, applied))
}
