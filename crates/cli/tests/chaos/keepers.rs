//! Keepers that are killed at each of their failpoints: the agent goes along, the session says so and goes on.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use farhelm_chaos::chance::{Chance, seed};
use farhelm_chaos::person::Person;
use farhelm_chaos::trouble;
use farhelm_chaos::world::{PATIENCE, Session, World, until};
use rustix::process::{Pid, Signal, kill_process};

use crate::points::points;
use crate::{FARHELM, farhelm, settle, turns};

#[tokio::test(flavor = "multi_thread")]
async fn f02_a_keeper_that_is_killed_on_its_way_up_takes_its_agent_along_and_the_session_goes_on()
-> anyhow::Result<()> {
    each(&of_the_beginning(true)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn f02_a_keeper_that_is_killed_at_any_other_failpoint_does_so_too() -> anyhow::Result<()> {
    each(&of_the_beginning(false)).await
}

fn of_the_beginning(is_wanted: bool) -> Vec<String> {
    let first = [
        "keeper.after_ready",
        "keeper.after_spawn",
        "keeper.before_attached",
        "keeper.before_note",
        "keeper.before_spawn",
        "keeper.version",
    ];
    let mut points = points("keeper.");
    points.retain(|point| first.contains(&point.as_str()) == is_wanted);
    points
}

/// One after the other in the same session.
async fn each(points: &[String]) -> anyhow::Result<()> {
    let seed = seed();
    let mut chance = Chance::new(seed);
    let folder = tempfile::tempdir()?;
    let mut world = World::start(farhelm(), seed).await?;
    let session = world.session(&turns()).await?;
    let person = Person::new(world.device("phone").await?, session.id, chance.fork());
    for (number, point) in points.iter().enumerate() {
        // A later time first: in the middle of something else.
        for time in [2 + chance.below(5), 1] {
            let strike = Strike {
                point,
                time,
                prompt: format!("p{number}@{time}"),
                trace: folder.path().join(format!("{number}@{time}")),
            };
            let fired = strike.one(&mut world, &session, &person).await;
            let fired = fired.with_context(|| format!("SEED={seed}, {point}@{time}"))?;
            ensure!(fired || time > 1, "SEED={seed}: never reached: {point}");
        }
    }
    let device = person.stops().await?;
    let verdict = settle(&world, &session, &[&device]).await?;
    ensure!(verdict.is_clean(), "SEED={seed}: {verdict:#?}");
    world.end().await;
    Ok(())
}

struct Strike<'a> {
    point: &'a str,
    time: u64,
    prompt: String,
    /// The points that the keeper reached, by its own word.
    trace: PathBuf,
}

impl Strike<'_> {
    /// A turn, and the end of its agent, while the keeper is to be killed somewhere. Whether it was.
    async fn one(
        &self,
        world: &mut World,
        session: &Session,
        person: &Person,
    ) -> anyhow::Result<bool> {
        let Self {
            point,
            time,
            prompt,
            ..
        } = self;
        let plan = format!("{point}=kill@{time}");
        let trace = self.trace.display().to_string();
        // A daemon does not reach these; each keeper that it makes has the plan from it.
        anew(world, &[(fail::PLAN, &plan), (fail::TRACE, &trace)]).await?;
        let before = losses(world, session).await;
        person.prompts(prompt).await?;
        let has_ended = || person.seen().ended.contains(prompt);
        until("the turn ends or its keeper is killed", async || {
            has_ended() || self.killed(losses(world, session).await > before)
        })
        .await?;
        let mut fired = self.killed(losses(world, session).await > before);
        if !fired {
            // The agent is ended as well, for what a keeper does then.
            drop(world.cli(&["down"]).await);
            let gone = world.host.ended(PATIENCE).await;
            ensure!(gone.is_some(), "the daemon does not end");
            let left = async || world.agents().is_empty();
            until("no agent is left", left).await?;
            fired = self.killed(false);
        }
        anew(world, &[]).await?;
        person
            .sees("the end of the turn", |seen| seen.ended.contains(prompt))
            .await?;
        // And it goes on.
        let after = format!("{prompt}, after");
        person.prompts(&after).await?;
        person
            .sees("the end of the next turn", |seen| {
                seen.ended.contains(&after)
            })
            .await?;
        ensure!(world.agents().len() == 1, "agents: {:?}", world.agents());
        Ok(fired)
    }

    /// The first time kills whoever says that it got there.
    fn killed(&self, is_lost: bool) -> bool {
        let reached = || std::fs::read_to_string(&self.trace).unwrap_or_default();
        is_lost || (self.time == 1 && reached().lines().any(|point| point == self.point))
    }
}

/// How often the session says that a keeper was lost.
async fn losses(world: &World, session: &Session) -> usize {
    let log = world.host_log(session).await.unwrap_or_default();
    let lost = log
        .iter()
        .filter(|record| record["event"]["code"] == "keeper_lost");
    lost.count()
}

/// Another daemon, and no keeper from before.
async fn anew(world: &mut World, more: &[(&str, &str)]) -> anyhow::Result<()> {
    world.host.kill().await;
    for agent in world.agents() {
        let Some(keeper) = keeper_of(agent) else {
            continue;
        };
        // It may have gone meanwhile.
        kill_process(keeper, Signal::KILL).unwrap_or_default();
        let pid = keeper.as_raw_nonzero().get().unsigned_abs();
        until("the keeper is gone", async || !trouble::lives(pid)).await?;
    }
    world.start_host(more).await
}

/// The keeper of an agent, if it lives.
fn keeper_of(agent: Pid) -> Option<Pid> {
    let keeper = trouble::parent(agent.as_raw_nonzero().get().unsigned_abs())?;
    let line = std::fs::read(Path::new("/proc").join(keeper.to_string()).join("cmdline")).ok()?;
    let is_keeper = line == format!("{FARHELM}\0keeper\0").into_bytes();
    Pid::from_raw(i32::try_from(keeper).ok()?).filter(|_| is_keeper)
}
