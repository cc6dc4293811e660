//! Work with trouble each minute, for long: memory and open files of daemon and relay must not grow.

use std::time::{Duration, Instant};

use anyhow::ensure;
use farhelm_chaos::chance::Chance;
use farhelm_chaos::oracle::Verdict;
use farhelm_chaos::person::Person;
use farhelm_chaos::world::World;

use crate::Options;
use crate::bench::{say, turns};

/// How often there is trouble, and a look at the programs.
const EVERY: Duration = Duration::from_secs(60);

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut chance = Chance::new(options.seed);
    say(&format!("seed {}", options.seed));
    let world = World::start(&options.farhelm, options.seed).await?;
    let mut pairs = Vec::new();
    for number in 0..options.sessions {
        let session = world.session(&turns()).await?;
        let device = world.device(&format!("device-{number}")).await?;
        pairs.push((
            session.clone(),
            Person::new(device, session.id, chance.fork()),
        ));
    }
    say("minute  daemon KiB  files  relay KiB  files");
    let (begun, mut looked, mut prompt) = (Instant::now(), Instant::now(), 0_u64);
    let mut seen = Vec::new();
    while begun.elapsed() < options.time {
        for (_, person) in &pairs {
            person.prompts(&format!("m{prompt}")).await?;
        }
        for (_, person) in &pairs {
            let text = format!("m{prompt}");
            person
                .sees(&text, |seen| seen.ended.contains(&text))
                .await?;
        }
        prompt += 1;
        if looked.elapsed() < EVERY {
            continue;
        }
        looked = Instant::now();
        let row = [world.host.pid(), world.relay.pid()].map(|pid| pid.map_or((0, 0), size));
        say(&format!(
            "{:>6}  {:>10}  {:>5}  {:>9}  {:>5}",
            begun.elapsed().as_secs() / 60,
            row[0].0,
            row[0].1,
            row[1].0,
            row[1].1
        ));
        seen.push(row);
        // A program that is killed begins anew, and its memory with it: only roads are cut here.
        if chance.below(2) == 0 {
            world.host_road.cut();
        } else {
            world.device_road.cut();
        }
    }
    for (place, name) in ["daemon", "relay"].iter().enumerate() {
        let kib: Vec<u64> = seen.iter().map(|row| row[place].0).collect();
        say(&format!("{name}: {} per mille an hour", slope(&kib)));
    }
    let mut verdict = Verdict::default();
    for (session, person) in pairs {
        let device = person.stops().await?;
        verdict.absorb(world.judge(&session, &[&device]).await?);
    }
    world.end().await;
    ensure!(verdict.is_clean(), "seed {}: {verdict:#?}", options.seed);
    Ok(())
}

/// Resident memory in KiB, and open files.
fn size(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
    let files =
        std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |files| files.count() as u64);
    (kib.unwrap_or(0), files)
}

/// How much it grew in its second half, in per mille of its middle, as if for an hour. The first half is warming up.
fn slope(kib: &[u64]) -> i64 {
    let half = &kib[kib.len() / 2..];
    let (Some(first), Some(last)) = (half.first(), half.last()) else {
        return 0;
    };
    let grown = last.cast_signed() - first.cast_signed();
    let minutes = i64::try_from(half.len().saturating_sub(1))
        .unwrap_or(1)
        .max(1);
    (grown * 60 * 1000 / minutes)
        .checked_div(first.cast_signed())
        .unwrap_or(0)
}
