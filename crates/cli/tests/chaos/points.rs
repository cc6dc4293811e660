//! Programs that are killed at each of their failpoints, enumerated from the binary.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::ensure;
use farhelm_chaos::chance::{Chance, seed};
use farhelm_chaos::person::Person;
use farhelm_chaos::world::{Session, World};

use crate::{FARHELM, farhelm, settle, turns};

/// Reached only where a host or a relay is new, a device is let in or removed, a session is made,
/// or an agent is started, ends, or wants a file touched:
/// [`f01_a_host_that_is_killed_while_everything_is_new_comes_up_whole`](crate::beginnings).
pub(crate) const ONCE: &[&str] = &[
    "host.daemon.before_stop",
    "host.home.key_made",
    "host.home.key_written",
    "host.journal.after_migration",
    "host.journal.before_migration",
    "host.journal.in_migration",
    "host.journal.reopened",
    "host.keeper.after_spawn",
    "host.keeper.before_spawn",
    "host.letters.after_pair_answer",
    "host.letters.before_pair_answer",
    "host.letters.before_receipt",
    "host.local.before_outcome",
    "host.local.request_came",
    "host.log.after_members",
    "host.session.after_file_work",
    "host.session.before_farewell",
    "host.session.before_file_work",
    "host.session.before_launched",
    "host.session.before_start",
    "host.wishes.after_revoked",
    "host.wishes.after_session_noted",
    "host.wishes.after_session_opened",
    "host.wishes.before_session_noted",
    "relay.peer.before_members",
    "relay.store.in_creation",
];

/// Reached only after another fault, or long after it.
pub(crate) const FAULTS: &[&str] = &["host.journal.reopened"];

#[tokio::test(flavor = "multi_thread")]
async fn f01_a_daemon_that_is_killed_at_any_failpoint_loses_and_doubles_nothing()
-> anyhow::Result<()> {
    each(Victim::Host, &points("host.")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn f03_a_relay_that_is_killed_while_it_stores_loses_and_doubles_nothing() -> anyhow::Result<()>
{
    each_anew(&points("relay.store.")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn f03_a_relay_that_is_killed_while_it_sends_loses_and_doubles_nothing() -> anyhow::Result<()>
{
    each_anew(
        &[
            points("relay.outbox."),
            points("relay.peer.before_p"),
            points("relay.peer.after"),
        ]
        .concat(),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn f03_a_relay_that_is_killed_while_it_answers_loses_and_doubles_nothing()
-> anyhow::Result<()> {
    let mut rest = points("relay.");
    rest.retain(|point| {
        let elsewhere = [
            "relay.store.",
            "relay.outbox.",
            "relay.peer.before_p",
            "relay.peer.after",
        ];
        !elsewhere.iter().any(|prefix| point.starts_with(prefix))
    });
    each_anew(&rest).await
}

#[derive(Clone, Copy)]
enum Victim {
    Host,
    Relay,
}

/// Each point in a world of its own: peers of a relay that is killed again and again rightly take their time.
async fn each_anew(points: &[String]) -> anyhow::Result<()> {
    for point in points {
        each(Victim::Relay, std::slice::from_ref(point)).await?;
    }
    Ok(())
}

async fn each(victim: Victim, points: &[String]) -> anyhow::Result<()> {
    let seed = seed();
    let mut chance = Chance::new(seed);
    let mut world = World::start(farhelm(), seed).await?;
    let session = world.session(&turns()).await?;
    let person = Person::new(world.device("phone").await?, session.id, chance.fork());
    let mut missed = BTreeSet::new();
    for (number, point) in points.iter().enumerate() {
        // Not the first time always: later ones are in the middle of something else.
        let time = 1 + chance.below(6);
        let plan = format!("{point}=kill@{time}");
        let struck = strike(&mut world, &person, victim, &format!("p{number}"), &plan).await;
        let mut fired = explain(struck, &world, &session, &plan).await?;
        if !fired && !ONCE.contains(&point.as_str()) {
            let plan = format!("{point}=kill@1");
            let struck = strike(&mut world, &person, victim, &format!("q{number}"), &plan).await;
            fired = explain(struck, &world, &session, &plan).await?;
        }
        if !fired {
            missed.insert(point.as_str());
        }
    }
    let device = person.stops().await?;
    let verdict = settle(&world, &session, &[&device]).await?;
    ensure!(verdict.is_clean(), "SEED={seed}, {points:?}: {verdict:#?}");
    let unknown: Vec<_> = missed
        .iter()
        .filter(|point| !ONCE.contains(point))
        .collect();
    ensure!(unknown.is_empty(), "never reached: {unknown:?}");
    world.end().await;
    Ok(())
}

/// Adds to a failure what was tried, and what everybody last said.
async fn explain(
    struck: anyhow::Result<bool>,
    world: &World,
    session: &Session,
    plan: &str,
) -> anyhow::Result<bool> {
    let Err(error) = struck else {
        return struck;
    };
    let said = world.last_words(session).await;
    Err(error
        .context(said)
        .context(format!("SEED={}, {plan}", world.seed)))
}

/// A turn while the victim is to be killed somewhere. Whether it was.
async fn strike(
    world: &mut World,
    person: &Person,
    victim: Victim,
    prompt: &str,
    plan: &str,
) -> anyhow::Result<bool> {
    restart(world, victim, &[(fail::PLAN, plan)]).await?;
    person.prompts(prompt).await?;
    // Wishes for the host itself, which take another way there than one for a session.
    person.asks_the_host().await?;
    let fired = {
        let program = match victim {
            Victim::Host => &mut world.host,
            Victim::Relay => &mut world.relay,
        };
        let ended = person.sees("the end of the turn", |seen| seen.ended.contains(prompt));
        // It may have ended before it ever answered.
        if program.has_ended() {
            true
        } else {
            tokio::select! {
                seen = ended => { seen?; program.has_ended() }
                status = program.ended(farhelm_chaos::world::PATIENCE) => status.is_some(),
            }
        }
    };
    if fired {
        restart(world, victim, &[]).await?;
    }
    person
        .sees("the end of the turn", |seen| seen.ended.contains(prompt))
        .await?;
    Ok(fired)
}

async fn restart(world: &mut World, victim: Victim, more: &[(&str, &str)]) -> anyhow::Result<()> {
    match victim {
        Victim::Host => {
            world.host.kill().await;
            world.start_host(more).await
        }
        Victim::Relay => {
            world.relay.kill().await;
            world.start_relay(more).await
        }
    }
}

/// The names that the program itself says, of those that begin so; with the variable `POINT`, only those that contain it.
pub(crate) fn points(prefix: &str) -> Vec<String> {
    let said = Command::new(FARHELM).arg("failpoints").output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
    let all: Vec<String> = said
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    assert!(all.len() >= 65, "{all:?}");
    let only = std::env::var("POINT").unwrap_or_default();
    let wanted = |point: &String| point.starts_with(prefix) && point.contains(&only);
    all.into_iter().filter(wanted).collect()
}
