//! How long it takes until all is well again, and until a device knows what is not.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use farhelm_chaos::chance::Chance;
use farhelm_chaos::device::Device;
use farhelm_chaos::person::Person;
use farhelm_chaos::world::World;
use farhelm_core::command::Command;
use farhelm_link::clock;
use farhelm_link::device::Stage;
use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::bench::say;

/// Times that each is measured.
const TIMES: usize = 15;
/// Times that a host sleeps: each takes its while.
const SLEEPS: usize = 5;
/// How long a host sleeps: longer than anybody keeps a line that nothing comes over.
const SLEEP: Duration = Duration::from_secs(20);
/// How long it is quiet before the next one: whoever loses a connection as soon as it is up rightly waits longer each time.
const PAUSE: Duration = Duration::from_secs(6);

pub(crate) async fn run(world: &mut World, chance: &mut Chance) -> anyhow::Result<()> {
    let device = world.device("stopwatch").await?;
    let mut times = Vec::new();
    for _ in 0..TIMES {
        world.host.kill().await;
        let begun = Instant::now();
        world.start_host(&[]).await?;
        times.push(answered(&device, begun).await?);
    }
    tell("host kill -9 -> live again on a device", times);
    let mut times = Vec::new();
    for _ in 0..TIMES {
        world.relay.kill().await;
        let begun = Instant::now();
        world.start_relay(&[]).await?;
        times.push(answered(&device, begun).await?);
    }
    tell("relay kill -9 -> live again", times);
    let mut times = Vec::new();
    for _ in 0..SLEEPS {
        world.host.signal(Signal::STOP);
        tokio::time::sleep(SLEEP).await;
        let begun = Instant::now();
        world.host.signal(Signal::CONT);
        times.push(answered(&device, begun).await?);
    }
    tell("host asleep for 20 s, wakes -> live again", times);
    let times = deaths(world, device, chance).await?;
    tell("agent kill -9 -> said on a device", times);
    Ok(())
}

/// From a moment on until a wish has gone to the host and its answer has come back.
async fn answered(device: &Device, begun: Instant) -> anyhow::Result<Duration> {
    let command = Command::SendKeys {
        stream: device.host.peer().into(),
    };
    let mut sent = device
        .client()
        .send(command, clock::now().plus_millis(60_000))
        .await?;
    while let Some(stage) = sent.stages.recv().await {
        if let Stage::Done(_) = stage {
            break;
        }
    }
    let took = begun.elapsed();
    tokio::time::sleep(PAUSE).await;
    Ok(took)
}

/// How long it takes until a device is told that an agent was killed in the middle of a question.
async fn deaths(
    world: &World,
    device: Device,
    chance: &mut Chance,
) -> anyhow::Result<Vec<Duration>> {
    let before = world.agents();
    let turns =
        json!([[{"do": "ask", "call": {"title": "may {prompt} happen?", "kind": "execute"}}]]);
    let session = world.session(&turns).await?;
    let person = Person::new(device, session.id, chance.fork());
    person.answers(false);
    let mut times = Vec::new();
    for time in 0..TIMES {
        person.prompts(&format!("m{time}")).await?;
        person
            .sees("a question", |seen| {
                !seen.open.is_empty() && seen.deaths == time
            })
            .await?;
        let agents = world.agents();
        let mine = agents.into_iter().find(|agent| !before.contains(agent));
        let begun = Instant::now();
        kill_process(mine.context("no agent")?, Signal::KILL)?;
        person.sees("its death", |seen| seen.deaths > time).await?;
        times.push(begun.elapsed());
        person
            .sees("no question", |seen| seen.open.is_empty())
            .await?;
    }
    drop(person.stops().await?);
    Ok(times)
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let median = times[times.len() / 2].as_millis();
    let most = times[times.len() - 1].as_millis();
    say(&format!(
        "{what:<42} median {median} ms, most {most} ms, of {}",
        times.len()
    ));
}
