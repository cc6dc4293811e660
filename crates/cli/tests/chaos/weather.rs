//! Networks that cut, delay and spoil.

use anyhow::{Context as _, ensure};
use farhelm_chaos::chance::{Chance, seed};
use farhelm_chaos::weather::Odds;
use farhelm_chaos::world::World;

use crate::{farhelm, settle, turns};

#[tokio::test(flavor = "multi_thread")]
async fn f13_nothing_is_lost_where_connections_are_cut_and_slow() -> anyhow::Result<()> {
    through(Odds::rough()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn f13_frames_that_come_twice_or_out_of_order_are_noticed_and_nothing_is_lost()
-> anyhow::Result<()> {
    through(Odds::broken()).await
}

/// Prompts and answers of two devices through such weather, judged at the end.
async fn through(odds: Odds) -> anyhow::Result<()> {
    let seed = seed();
    let world = World::start(farhelm(), seed).await?;
    let done = storm(&world, odds)
        .await
        .with_context(|| format!("SEED={seed}"));
    world.end().await;
    done
}

async fn storm(world: &World, odds: Odds) -> anyhow::Result<()> {
    let mut chance = Chance::new(world.seed);
    let session = world.session(&turns()).await?;
    let (phone, tablet) = (world.device("phone").await?, world.device("tablet").await?);
    let mut weather = || {
        let storm = odds.clone().with(chance.fork());
        storm.breaking_at_most(BREAKS).breaking_by(SURELY)
    };
    world.host_road.weather(weather());
    world.device_road.weather(weather());
    let (mut first, mut second) = (chance.fork(), chance.fork());
    let prompting = async {
        for number in 0..PROMPTS {
            let device = if number % 2 == 0 { &phone } else { &tablet };
            device.prompt(session.id, &format!("m{number}")).await?;
        }
        anyhow::Ok(())
    };
    // Both answer everything, so most questions are answered twice, and one of them is late.
    let answering = async {
        tokio::try_join!(
            phone.answer_until(session.id, PROMPTS, &mut first),
            tablet.answer_until(session.id, PROMPTS, &mut second),
        )
    };
    tokio::try_join!(prompting, answering)?;
    let verdict = settle(world, &session, &[&phone, &tablet]).await?;
    ensure!(verdict.is_clean(), "{verdict:#?}");
    ensure!(
        verdict.looked_at >= 3 * PROMPTS as u64,
        "too little was looked at: {verdict:?}"
    );
    for road in [&world.host_road, &world.device_road] {
        let (passed, faults) = road.counts();
        ensure!(faults > 0, "of {passed} frames none met a fault");
    }
    Ok(())
}

const PROMPTS: usize = 12;
/// Of each road. More would make peers wait half a minute between two attempts.
const BREAKS: u64 = 6;
/// By this frame of each road, of the four hundred and more that pass, one was broken. Chance alone spares all of six
/// hundred once in a hundred runs, and nothing is proved then.
const SURELY: u64 = 200;
