//! Programs that are killed or frozen while a session is idle, streams, waits for an answer, or has one on its way.

use anyhow::{Context as _, ensure};
use farhelm_chaos::chance::{Chance, seed};
use farhelm_chaos::person::Person;
use farhelm_chaos::world::World;
use rustix::process::Signal;

use crate::{farhelm, settle, turns};

#[tokio::test(flavor = "multi_thread")]
async fn f01_a_daemon_that_is_killed_whatever_a_session_does_loses_and_doubles_nothing()
-> anyhow::Result<()> {
    strike(Victim::Host, Blow::Kill).await
}

#[tokio::test(flavor = "multi_thread")]
async fn f03_a_relay_that_is_killed_whatever_a_session_does_loses_and_doubles_nothing()
-> anyhow::Result<()> {
    strike(Victim::Relay, Blow::Kill).await
}

#[tokio::test(flavor = "multi_thread")]
async fn f24_a_relay_that_is_restarted_kindly_loses_and_doubles_nothing() -> anyhow::Result<()> {
    strike(Victim::Relay, Blow::Restart).await
}

#[tokio::test(flavor = "multi_thread")]
async fn f08_programs_that_are_frozen_for_a_while_go_on_as_if_nothing_had_been()
-> anyhow::Result<()> {
    strike(Victim::Host, Blow::Freeze).await?;
    strike(Victim::Relay, Blow::Freeze).await
}

#[tokio::test(flavor = "multi_thread")]
async fn f04_a_relay_whose_disk_hangs_acknowledges_nothing_meanwhile_and_loses_nothing()
-> anyhow::Result<()> {
    let seed = seed();
    let mut world = World::start(farhelm(), seed).await?;
    let session = world.session(&turns()).await?;
    let person = Person::new(
        world.device("phone").await?,
        session.id,
        Chance::new(seed).fork(),
    );
    world.relay.kill().await;
    let plan = format!("relay.store.before_commit=hang:{}s@2-3", HANGS.as_secs());
    let begun = std::time::Instant::now();
    world.start_relay(&[(fail::PLAN, &plan)]).await?;
    person.prompts("hang").await?;
    person
        .sees("the end of the turn", |seen| seen.ended.contains("hang"))
        .await?;
    ensure!(begun.elapsed() >= HANGS, "it did not hang");
    // What hung twice is written now, and is still there for the next one.
    world.relay.kill().await;
    world.start_relay(&[]).await?;
    person.prompts("after").await?;
    person
        .sees("the next turn", |seen| seen.ended.contains("after"))
        .await?;
    let device = person.stops().await?;
    let verdict = settle(&world, &session, &[&device]).await?;
    ensure!(verdict.is_clean(), "SEED={seed}: {verdict:#?}");
    world.end().await;
    Ok(())
}

#[derive(Clone, Copy)]
enum Victim {
    Host,
    Relay,
}

#[derive(Clone, Copy)]
enum Blow {
    Kill,
    Restart,
    Freeze,
}

#[derive(Clone, Copy, Debug)]
enum Moment {
    Idle,
    Streaming,
    Pending,
    InFlight,
}

/// One blow at each moment, one after the other in the same session.
async fn strike(victim: Victim, blow: Blow) -> anyhow::Result<()> {
    let seed = seed();
    let mut world = World::start(farhelm(), seed).await?;
    let session = world.session(&turns()).await?;
    let mut chance = Chance::new(seed);
    let person = Person::new(world.device("phone").await?, session.id, chance.fork());
    for moment in [
        Moment::Idle,
        Moment::Streaming,
        Moment::Pending,
        Moment::InFlight,
    ] {
        let struck = one(&mut world, &person, victim, blow, moment).await;
        struck.with_context(|| format!("SEED={seed}, {moment:?}"))?;
    }
    let device = person.stops().await?;
    let verdict = settle(&world, &session, &[&device]).await?;
    ensure!(verdict.is_clean(), "SEED={seed}: {verdict:#?}");
    ensure!(
        verdict.looked_at >= 8,
        "too little was looked at: {verdict:?}"
    );
    world.end().await;
    Ok(())
}

async fn one(
    world: &mut World,
    person: &Person,
    victim: Victim,
    blow: Blow,
    moment: Moment,
) -> anyhow::Result<()> {
    let prompt = format!("{moment:?}");
    let before = person.seen().messages;
    person.answers(false);
    match moment {
        Moment::Idle => {}
        Moment::Streaming => {
            person.prompts(&prompt).await?;
            person
                .sees("a message", |seen| seen.messages > before)
                .await?;
        }
        Moment::Pending | Moment::InFlight => {
            person.prompts(&prompt).await?;
            person
                .sees("a question", |seen| !seen.open.is_empty())
                .await?;
        }
    }
    if let Moment::InFlight = moment {
        person.answers(true);
    }
    hit(world, victim, blow).await?;
    person.answers(true);
    if let Moment::Idle = moment {
        person.prompts(&prompt).await?;
    }
    person
        .sees("the end of the turn", |seen| seen.ended.contains(&prompt))
        .await
}

async fn hit(world: &mut World, victim: Victim, blow: Blow) -> anyhow::Result<()> {
    let program = match victim {
        Victim::Host => &mut world.host,
        Victim::Relay => &mut world.relay,
    };
    match blow {
        Blow::Kill => program.kill().await,
        Blow::Restart => {
            let ended = program.end(farhelm_chaos::world::PATIENCE).await;
            ensure!(
                ended.is_some_and(|status| status.success()),
                "it ends kindly: {ended:?}"
            );
        }
        Blow::Freeze => {
            program.signal(Signal::STOP);
            tokio::time::sleep(FROZEN).await;
            program.signal(Signal::CONT);
            return Ok(());
        }
    }
    match victim {
        Victim::Host => world.start_host(&[]).await,
        Victim::Relay => world.start_relay(&[]).await,
    }
}

/// For so long a disk takes to write.
const HANGS: std::time::Duration = std::time::Duration::from_secs(3);

/// Not a wait for something: as long as this, a program does nothing.
const FROZEN: std::time::Duration = std::time::Duration::from_millis(1500);
