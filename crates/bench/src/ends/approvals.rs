//! An approval's way from a device through the relay to the agent and back, on a host that does
//! nothing else and on one where another session's agent says as much as it can.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use farhelm_core::ask::{Verdict, digest};
use farhelm_core::command::Command;
use farhelm_core::content::Content;
use farhelm_core::event::{Event, Live};
use farhelm_link::clock::now;
use farhelm_link::device::{self, Client, LogItem, Store};
use farhelm_proto::SessionId;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Figure, Host, PATIENCE, figure};

/// Both ways.
pub(super) async fn all(program: &Path) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for flooded in [false, true] {
        let host = Host::new(program)?;
        let measured = one(&host, flooded).await;
        host.run(&["down"]).await?;
        figures.extend(measured?);
    }
    Ok(figures)
}

/// Approves one command after another from a device that reaches the host through the relay.
async fn one(host: &Host, flooded: bool) -> anyhow::Result<Vec<Figure>> {
    let flood =
        json!([[{"do": "count", "to": FLOOD_EVENTS, "per_second": FLOOD_RATE, "tool": true}]]);
    let flood = host.scripted("flood.json", &flood)?;
    let mut floods = None;
    if flooded {
        floods = Some(host.up(&["--agent-cmd", &flood]).await?);
    }
    let step = json!({"do": "shell", "command": "true"});
    let asking = host.scripted("asking.json", &json!([vec![step; APPROVALS]]))?;
    let asks = host.up(&["--agent-cmd", &asking]).await?;
    let client = join(host, floods.as_ref().unwrap_or(&asks)).await?;
    let mut reading = JoinSet::new();
    let counted = Arc::new(AtomicU64::new(0));
    if let Some(made) = &floods {
        let session = session_of(made)?;
        let mut log = client.log(session, None, true).await;
        prompt(&client, session).await?;
        let shown = Arc::clone(&counted);
        reading.spawn(async move {
            while let Some(item) = log.recv().await {
                if let Some(number) = item.ok().as_ref().and_then(last_number) {
                    shown.fetch_max(number, Ordering::Relaxed);
                }
            }
        });
        let begun = Instant::now();
        while counted.load(Ordering::Relaxed) == 0 {
            ensure!(begun.elapsed() < PATIENCE, "nothing of the flood arrives");
            tokio::time::sleep(LOOK).await;
        }
    }
    let (begun, from) = (Instant::now(), counted.load(Ordering::Relaxed));
    let (decided, applied) = steer(&client, session_of(&asks)?).await?;
    let said = counted.load(Ordering::Relaxed) - from;
    let beside = if flooded {
        let rate = (said as f64 / begun.elapsed().as_secs_f64()).round();
        format!(", beside {rate} outputs/s")
    } else {
        String::new()
    };
    Ok(vec![
        figure(
            format!(
                "approval{beside}: tap until the decision is back on the device, durable at the host"
            ),
            decided,
        ),
        figure(
            format!("approval{beside}: tap until the device knows that the agent has it"),
            applied,
        ),
    ])
}

/// How far the flooding agent has counted, by what the device was shown.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a flood is a tool's text, and nothing else"
)]
fn last_number(item: &LogItem) -> Option<u64> {
    let tool = match item {
        LogItem::Record(record) => match &record.event {
            Event::ToolUpdated { tool } => tool,
            _ => return None,
        },
        LogItem::Live(live) => match &**live {
            Live::Tool { tool } => tool,
            Live::Text { .. } | Live::Paused { .. } => return None,
        },
        LogItem::Limited { .. } | LogItem::CaughtUp => return None,
    };
    let text = match tool.content.as_ref()?.last()? {
        Content::Text { text } => text,
        Content::Clipped { tail, .. } => tail,
        _ => return None,
    };
    text.trim_end().lines().next_back()?.parse().ok()
}

fn session_of(made: &Value) -> anyhow::Result<SessionId> {
    Ok(made["session"].as_str().context("a session")?.parse()?)
}

/// Pairs a device with the host.
async fn join(host: &Host, made: &Value) -> anyhow::Result<Client> {
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
    Ok(client)
}

async fn prompt(client: &Client, session: SessionId) -> anyhow::Result<()> {
    let text = "go".into();
    let later = now().plus_millis(LONG_MILLIS);
    drop(
        client
            .send(Command::Prompt { session, text }, later)
            .await?,
    );
    Ok(())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only these events are timed"
)]
async fn steer(
    client: &Client,
    session: SessionId,
) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let mut log = client.log(session, None, true).await;
    prompt(client, session).await?;
    let later = now().plus_millis(LONG_MILLIS);
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

/// Approvals measured.
const APPROVALS: usize = 200;
/// More than are ever said.
const FLOOD_EVENTS: u64 = 100_000_000;
/// What the flooding agent says in a second, if the machine lets it.
const FLOOD_RATE: u64 = 10_000;
const LONG_MILLIS: u64 = 3_600_000;
const LOOK: Duration = Duration::from_millis(5);
