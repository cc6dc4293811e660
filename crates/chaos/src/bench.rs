//! The headline: approvals and messages lost, doubled or misreported, of a thousand.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use farhelm_chaos::chance::Chance;
use farhelm_chaos::device::Device;
use farhelm_chaos::oracle::{self, Verdict};
use farhelm_chaos::person::Person;
use farhelm_chaos::trouble::{self, Counts};
use farhelm_chaos::world::{Session, World, until};
use serde_json::json;

use crate::{Options, recover};

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut chance = Chance::new(options.seed);
    say(&format!("seed {}", options.seed));
    let mut world = World::start(&options.farhelm, options.seed).await?;
    let mut pairs = Vec::new();
    for number in 0..options.sessions {
        let session = world.session(&turns()).await?;
        let device = world.device(&format!("device-{number}")).await?;
        pairs.push((
            session.clone(),
            Person::new(device, session.id, chance.fork()),
        ));
    }
    // A prompt is a message and brings one question.
    let prompts = options.count.div_ceil(2).div_ceil(options.sessions);
    let mut counts = Counts::default();
    let begun = Instant::now();
    {
        let work = pairs
            .iter()
            .enumerate()
            .map(|(number, (_, person))| async move {
                for prompt in 0..prompts {
                    let text = format!("s{number}m{prompt}");
                    person.prompts(&text).await?;
                    person
                        .sees(&text, |seen| seen.ended.contains(&text))
                        .await?;
                }
                anyhow::Ok(())
            });
        let mut work = std::pin::pin!(all(work.collect()));
        loop {
            tokio::select! {
                done = &mut work => { done?; break }
                () = tokio::time::sleep(trouble::pause(&mut chance)) => {}
            }
            trouble::one(&mut world, &mut chance, &mut counts).await?;
        }
    }
    let took = begun.elapsed();
    let mut verdict = Verdict::default();
    for (session, person) in pairs {
        let device = person.stops().await?;
        verdict.absorb(
            judge(&world, &session, &device)
                .await
                .with_context(|| format!("seed {}", options.seed))?,
        );
    }
    tell(&verdict, counts, took);
    recover::run(&mut world, &mut chance).await?;
    world.end().await;
    ensure!(verdict.is_clean(), "seed {}: {verdict:#?}", options.seed);
    Ok(())
}

/// Waits for all of them.
async fn all(work: Vec<impl Future<Output = anyhow::Result<()>>>) -> anyhow::Result<()> {
    let mut work: Vec<_> = work.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        let mut failed = None;
        work.retain_mut(|task| match task.as_mut().poll(cx) {
            std::task::Poll::Ready(Err(error)) => {
                failed.get_or_insert(error);
                false
            }
            std::task::Poll::Ready(Ok(())) => false,
            std::task::Poll::Pending => true,
        });
        match failed {
            Some(error) => std::task::Poll::Ready(Err(error)),
            None if work.is_empty() => std::task::Poll::Ready(Ok(())),
            None => std::task::Poll::Pending,
        }
    })
    .await
}

async fn judge(world: &World, session: &Session, device: &Device) -> anyhow::Result<Verdict> {
    let waits = || {
        device
            .told()
            .into_iter()
            .find(|wish| wish.outcome.is_none())
    };
    until("everybody is told", async || waits().is_none()).await?;
    let log = world.host_log(session).await?;
    let mut verdict = world.judge(session, &[device]).await?;
    // Approvals were looked at there; of the wishes, the prompts are the messages.
    let asked = verdict.looked_at;
    verdict.absorb(oracle::wishes(&log, &device.told()));
    verdict.looked_at = asked + session.agent().heard.len() as u64;
    Ok(verdict)
}

fn tell(verdict: &Verdict, counts: Counts, took: Duration) {
    let Verdict {
        looked_at,
        lost,
        doubled,
        misreported,
    } = verdict;
    let Counts {
        cuts,
        relays,
        hosts,
        agents,
    } = counts;
    say(&format!(
        "messages and approvals {looked_at} in {} s",
        took.as_secs()
    ));
    say(&format!(
        "roads cut {cuts}, killed: relay {relays}, daemon {hosts}, agents {agents}"
    ));
    say("of 1,000:");
    for (what, list) in [
        ("lost", lost),
        ("doubled", doubled),
        ("misreported", misreported),
    ] {
        let tenths = (list.len() as u64 * 10_000)
            .checked_div(*looked_at)
            .unwrap_or(0);
        say(&format!(
            "  {what:<12} {}.{} ({})",
            tenths / 10,
            tenths % 10,
            list.len()
        ));
    }
}

/// What every turn is.
pub(crate) fn turns() -> serde_json::Value {
    json!([[
        {"do": "text", "text": "working on {prompt}"},
        {"do": "ask", "call": {"title": "may {prompt} happen?", "kind": "execute", "rawInput": {"command": "true"}}},
    ]])
}

#[expect(clippy::print_stdout, reason = "this is what the program is asked for")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}
