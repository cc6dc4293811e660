//! The whole system, played from seeds: see `docs/simulation.md`.
//!
//! `SEED=7 cargo test -p farhelm-sim --test simulation one` plays one plan and shows all of it;
//! `SEEDS=1000-2000` or `SEEDS=100000` plays many in `long`; `PLAN=file` plays a plan that was kept.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use farhelm_sim::plan::Plan;
use farhelm_sim::run::{Report, play};
use farhelm_sim::shrink::shrink;

macro_rules! plans {
    ($($name:ident = $from:literal;)*) => {
        $(
            #[test]
            fn $name() {
                all_hold($from..$from + EACH);
            }
        )*
    };
}

// In pieces, so that every core has something to do.
plans! {
    promises_hold_in_plans_of_the_first_piece = 1;
    promises_hold_in_plans_of_the_second_piece = 251;
    promises_hold_in_plans_of_the_third_piece = 501;
    promises_hold_in_plans_of_the_fourth_piece = 751;
    promises_hold_in_plans_of_the_fifth_piece = 1001;
    promises_hold_in_plans_of_the_sixth_piece = 1251;
    promises_hold_in_plans_of_the_seventh_piece = 1501;
    promises_hold_in_plans_of_the_eighth_piece = 1751;
}

/// Plans of one piece.
const EACH: u64 = 250;

#[test]
fn promises_hold_in_plans_that_found_something_once() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let plan: Plan = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        let report = play(&plan, false);
        assert!(
            report.broken.is_empty(),
            "{}: {:#?}",
            file.display(),
            report.broken
        );
    }
}

#[test]
fn a_seed_gives_the_same_run_for_ever() {
    for seed in 1..13 {
        let plan = Plan::of(seed);
        let (first, second) = (play(&plan, true), play(&plan, true));
        let differs = first
            .log
            .iter()
            .zip(&second.log)
            .find(|(one, two)| one != two);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}

#[test]
fn a_run_is_no_idle_one() {
    let reports: Vec<Report> = (1..21).map(|seed| play(&Plan::of(seed), false)).collect();
    let events: usize = reports.iter().map(|report| report.events).sum();
    assert!(events > 20 * 15, "{events} events only");
}

/// A day and more, when its hours are given: `make soak-sim`. An hour of it is played by every test run.
#[test]
#[expect(
    clippy::print_stdout,
    reason = "whoever asks for hours wants to know what they were"
)]
fn f34_hours_of_faults_break_no_promise() {
    let hours = std::env::var("HOURS").map_or(1, |hours| hours.parse().unwrap());
    let seed = std::env::var("SEED").map_or(34, |seed| seed.parse().unwrap());
    let plan = Plan::long(seed, hours);
    let report = play(&plan, false);
    println!(
        "{hours} h: {} steps, {} events, {} s on the played clock",
        plan.steps.len(),
        report.events,
        report.millis / 1_000
    );
    assert!(
        report.broken.is_empty(),
        "SEED={seed} HOURS={hours}: {:#?}",
        report.broken
    );
    assert!(report.millis >= hours * 3_600_000);
}

/// Plays one plan and shows everything, when one is named.
#[test]
fn one() {
    let plan = match (std::env::var("SEED"), std::env::var("PLAN")) {
        (Ok(seed), _) => Plan::of(seed.parse().unwrap()),
        (_, Ok(file)) => std::fs::read_to_string(file).unwrap().parse().unwrap(),
        (Err(_), Err(_)) => return,
    };
    let report = play(&plan, true);
    let log = report.log.join("\n");
    assert!(
        report.broken.is_empty(),
        "{plan}\n{log}\n{:#?}",
        report.broken
    );
    if std::env::var("SHOW").is_ok() {
        panic!("{plan}\n{log}\ntrace {:016x}", report.trace);
    }
}

/// Plays many plans, when their number or range is given: `make sim`.
#[test]
fn long() {
    let Ok(seeds) = std::env::var("SEEDS") else {
        return;
    };
    let (from, to) = match seeds.split_once('-') {
        Some((from, to)) => (from.parse().unwrap(), to.parse().unwrap()),
        None => (1_000_000, 1_000_000 + seeds.parse::<u64>().unwrap()),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let is_over = &is_over;
            scope.spawn(move || {
                for seed in (from + thread..to).step_by(usize::try_from(threads).unwrap()) {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let held = std::panic::catch_unwind(|| all_hold(seed..seed + 1));
                    if let Err(broken) = held {
                        is_over.store(true, Ordering::Relaxed);
                        std::panic::resume_unwind(broken);
                    }
                }
            });
        }
    });
}

fn all_hold(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let plan = Plan::of(seed);
        let report = play(&plan, false);
        if !report.broken.is_empty() {
            let (small, report) = shrink(&plan, &report);
            panic!(
                "SEED={seed} breaks promises: {:#?}\nthe smallest plan that does:\n{small}",
                report.broken
            );
        }
    }
}
