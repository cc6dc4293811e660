//! A host that is killed at everything that happens once: while it is new, lets devices in and removes one, opens a
//! session, starts an agent, touches a file for it, and ends.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use farhelm_chaos::chance::{Chance, seed};
use farhelm_chaos::device::Device;
use farhelm_chaos::person::Person;
use farhelm_chaos::program::Program;
use farhelm_chaos::trouble;
use farhelm_chaos::world::{PATIENCE, World};
use farhelm_proto::SessionId;
use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::points::{FAULTS, ONCE};
use crate::{farhelm, settle};

#[tokio::test(flavor = "multi_thread")]
async fn f01_a_host_that_is_killed_while_everything_is_new_comes_up_whole() -> anyhow::Result<()> {
    let seed = seed();
    let lived = live(seed).await;
    lived.with_context(|| format!("SEED={seed}"))
}

async fn live(seed: u64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let of = |program: &str| {
        let prefix = format!("{program}.");
        let points = ONCE.iter().filter(|point| point.starts_with(&prefix));
        Deaths {
            ahead: points
                .filter(|point| !FAULTS.contains(point))
                .copied()
                .collect(),
            trace: folder.path().join(program),
        }
    };
    let (relay, host) = (of("relay"), of("host"));
    let mut world = World::start_with(farhelm(), seed, &relay.plan(), &host.plan()).await?;
    // `up` would put a daemon of its own in the place of one that has just died.
    world.commands_start_nothing();
    let mut life = Life { world, relay, host };
    let turns = json!([[
        {"do": "text", "text": "working on {prompt}"},
        {"do": "read", "path": "a.txt", "client": true},
        {"do": "write", "path": "a.txt", "text": "{prompt}", "client": true},
        {"do": "count", "to": 20},
    ]]);

    let session = life
        .does("open a session", async |world, _| {
            world.session(&turns).await
        })
        .await?;
    let phone = life.lets_in("phone").await?;
    let _watch = life.lets_in("watch").await?;
    let revoke = async |world: &World, _| {
        let list = world.cli(&["devices"]).await?;
        let devices = list.first().and_then(|list| list["devices"].as_array());
        // Those, too, that were let in while the host died.
        for device in devices.context("a list of devices")? {
            let name = device["name"].as_str().unwrap_or_default();
            if let Some(id) = device["device"]
                .as_str()
                .filter(|_| name.starts_with("watch"))
            {
                world.cli(&["revoke", id]).await?;
            }
        }
        Ok(())
    };
    life.does("remove a device", revoke).await?;
    // A wish for a session that there is not.
    phone
        .prompt(SessionId::from_bytes([7; 16]), "to nobody")
        .await?;

    let person = Person::new(phone, session.id, Chance::new(seed));
    life.turn(&person, "m0").await?;
    for agent in life.world.agents() {
        // It may have ended meanwhile.
        kill_process(agent, Signal::KILL).unwrap_or_default();
    }
    life.turn(&person, "m1").await?;
    // Here the daemon is meant to end, so that one that died of it is no other.
    let mut is_over = false;
    for _ in 0..=ONCE.len() {
        life.tend().await?;
        is_over = life.world.cli(&["down"]).await.is_ok();
        if is_over {
            break;
        }
    }
    ensure!(is_over, "it does not end: {}", life.world.host.said());
    life.world.host.ended(PATIENCE).await;
    life.tend().await?;
    life.turn(&person, "m2").await?;
    ensure!(
        life.host.ahead.is_empty() && life.relay.ahead.is_empty(),
        "never reached: {:?}, {:?}",
        life.host.ahead,
        life.relay.ahead
    );

    let device = person.stops().await?;
    let verdict = settle(&life.world, &session, &[&device]).await?;
    ensure!(verdict.is_clean(), "{verdict:#?}");
    drop(device);
    life.world.end().await;
    Ok(())
}

/// Where a program is still to be killed, each once.
struct Deaths {
    ahead: BTreeSet<&'static str>,
    /// The points that were reached, by its own word: those of the plan killed it.
    trace: PathBuf,
}

impl Deaths {
    fn plan(&self) -> [(&'static str, &'static str); 2] {
        let plan: Vec<_> = self
            .ahead
            .iter()
            .map(|point| format!("{point}=kill@1"))
            .collect();
        // A few words, for as long as the test runs.
        let leak = |text: String| -> &'static str { text.leak() };
        [
            (fail::PLAN, leak(plan.join(","))),
            (fail::TRACE, leak(self.trace.display().to_string())),
        ]
    }

    fn died(&mut self) {
        let reached = std::fs::read_to_string(&self.trace).unwrap_or_default();
        for point in reached.lines() {
            self.ahead.remove(point);
        }
    }
}

struct Life {
    world: World,
    relay: Deaths,
    host: Deaths,
}

impl Life {
    /// Starts again what has died, until all is up.
    async fn tend(&mut self) -> anyhow::Result<()> {
        for _ in 0..=ONCE.len() {
            for program in [&mut self.world.relay, &mut self.world.host] {
                // A process that has died is a little later one that has ended.
                if program.pid().is_some_and(|pid| !trouble::lives(pid)) {
                    program.ended(PATIENCE).await;
                }
            }
            if self.world.relay.has_ended() {
                self.relay.died();
                self.world.start_relay(&self.relay.plan()).await?;
            } else if self.world.host.has_ended() {
                self.host.died();
                self.world.start_host(&self.host.plan()).await?;
            } else {
                return Ok(());
            }
        }
        anyhow::bail!(
            "it does not come up: {}{}",
            self.world.relay.said(),
            self.world.host.said()
        )
    }

    /// Does something again until nobody dies of it.
    async fn does<T>(
        &mut self,
        what: &str,
        mut step: impl AsyncFnMut(&World, usize) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut last = None;
        for time in 0..=ONCE.len() {
            self.tend().await?;
            let world = &self.world;
            let done = tokio::select! {
                done = step(world, time) => done,
                () = dies([&world.relay, &world.host]) => Err(anyhow::anyhow!("somebody died of it")),
            };
            match done {
                Ok(done) => return Ok(done),
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(POLL).await;
        }
        let said = [&self.world.relay, &self.world.host]
            .map(Program::said)
            .concat();
        let last = last.context("nothing was tried")?;
        Err(last.context(format!("{what}, without {:?}: {said}", self.host.ahead)))
    }

    /// Pairs a device, under another name each time.
    async fn lets_in(&mut self, name: &str) -> anyhow::Result<Device> {
        self.does("let a device in", async |world, time| {
            world.device(&format!("{name}{time}")).await
        })
        .await
    }

    /// A prompt, and what comes of it.
    async fn turn(&mut self, person: &Person, prompt: &str) -> anyhow::Result<()> {
        self.tend().await?;
        person.prompts(prompt).await?;
        self.does("a turn", async |_, _| {
            person
                .sees("the end of the turn", |seen| seen.ended.contains(prompt))
                .await
        })
        .await
    }
}

/// Waits until one of them has died.
async fn dies(programs: [&Program; 2]) {
    let lives = |program: &Program| program.pid().is_some_and(trouble::lives);
    while programs.into_iter().all(lives) {
        tokio::time::sleep(POLL).await;
    }
}

const POLL: Duration = Duration::from_millis(20);
