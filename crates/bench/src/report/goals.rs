//! What the figures must be (gates), and what they should be (targets T1 to T18 of
//! `docs/performance.md`), for our relay.

use crate::results::{Metric, Results};
use crate::target::Kind;

/// One bound and how our relay stands to it.
pub(crate) struct Goal {
    pub(crate) name: &'static str,
    /// Whether a change that misses it must not pass.
    pub(crate) gate: bool,
    pub(crate) must: String,
    pub(crate) aim: String,
    pub(crate) found: String,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not measured in this run.
    Unknown,
    /// Worse than it must be.
    Missed,
    /// As good as it must be.
    Met,
    /// As good as we aim for.
    Reached,
}

/// What a bound is held against.
#[derive(Clone, Copy)]
enum Of {
    /// The figure itself.
    Value(Metric),
    /// The figure against that of a yardstick in the same run.
    Against(Metric, Kind),
}

/// Which side of the bound is good.
#[derive(Clone, Copy)]
enum Side {
    AtMost,
    AtLeast,
}

/// Everything that can be judged.
pub(crate) fn all(results: &Results) -> Vec<Goal> {
    GATES
        .iter()
        .map(|row| judge(results, true, row))
        .chain(TARGETS.iter().map(|row| judge(results, false, row)))
        .collect()
}

type Row = (&'static str, Of, Side, f64, Option<f64>);

fn judge(results: &Results, gate: bool, row: &Row) -> Goal {
    let (name, of, side, must, aim) = *row;
    let (found, digits, unit) = match of {
        Of::Value(metric) => (
            results.median(metric, Kind::Farhelm),
            metric.digits(),
            metric.unit(),
        ),
        Of::Against(metric, yardstick) => (results.ratio(metric, Kind::Farhelm, yardstick), 2, "×"),
    };
    let keeps = |bound: f64| {
        found.is_some_and(|found| match side {
            Side::AtMost => found <= bound,
            Side::AtLeast => found >= bound,
        })
    };
    let sign = match side {
        Side::AtMost => "≤",
        Side::AtLeast => "≥",
    };
    let yardstick = match of {
        Of::Value(_) => String::new(),
        Of::Against(_, kind) => format!(" {}", kind.name()),
    };
    let bound = |bound: f64| {
        format!(
            "{sign} {} {unit}{yardstick}",
            super::number(bound, fitting(bound))
        )
        .trim_end()
        .to_owned()
    };
    let verdict = match found {
        None => Verdict::Unknown,
        Some(_) if aim.is_some_and(keeps) => Verdict::Reached,
        Some(_) if keeps(must) => Verdict::Met,
        Some(_) => Verdict::Missed,
    };
    Goal {
        name,
        gate,
        must: bound(must),
        aim: aim.map(bound).unwrap_or_default(),
        found: found
            .map(|found| {
                format!("{} {unit}", super::number(found, digits))
                    .trim_end()
                    .to_owned()
            })
            .unwrap_or_default(),
        verdict,
    }
}

/// As many digits as a bound has.
fn fitting(bound: f64) -> usize {
    (0..3)
        .find(|digits| (bound * 10_f64.powi(*digits)).fract() == 0.0)
        .map_or(3, |digits| digits.unsigned_abs() as usize)
}

impl Verdict {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Unknown => "not measured",
            Self::Missed => "MISSED",
            Self::Met => "ok",
            Self::Reached => "ok, aim reached",
        }
    }
}

const GATES: &[Row] = &[
    (
        "gate: latency p50",
        Of::Against(Metric::LatencyP50, Kind::Ws),
        Side::AtMost,
        2.0,
        None,
    ),
    (
        "gate: 1→1 events/s",
        Of::Against(Metric::FloodRate, Kind::Ws),
        Side::AtLeast,
        0.5,
        None,
    ),
    (
        "gate: memory per idle pair",
        Of::Value(Metric::PairPss),
        Side::AtMost,
        32.0,
        None,
    ),
    (
        "gate: catch-up of 10,000 events",
        Of::Value(Metric::CatchUp),
        Side::AtMost,
        50.0,
        None,
    ),
    (
        "gate: a device beside a stopped one",
        Of::Value(Metric::SlowRate),
        Side::AtLeast,
        0.9,
        None,
    ),
];

const TARGETS: &[Row] = &[
    (
        "T1 latency p50",
        Of::Against(Metric::LatencyP50, Kind::Ws),
        Side::AtMost,
        1.25,
        Some(1.1),
    ),
    (
        "T2 latency p99",
        Of::Against(Metric::LatencyP99, Kind::Ws),
        Side::AtMost,
        1.5,
        Some(1.2),
    ),
    (
        "T2 latency p99.9",
        Of::Against(Metric::LatencyP999, Kind::Ws),
        Side::AtMost,
        2.0,
        Some(1.5),
    ),
    (
        "T4 1→1 events/s",
        Of::Against(Metric::FloodRate, Kind::Ws),
        Side::AtLeast,
        0.5,
        Some(0.8),
    ),
    (
        "T5 1→1 CPU s per M events",
        Of::Value(Metric::FloodCpu),
        Side::AtMost,
        5.0,
        Some(3.0),
    ),
    (
        "T6 1→20 CPU s per M deliveries",
        Of::Value(Metric::FanCpu),
        Side::AtMost,
        0.9,
        Some(0.55),
    ),
    (
        "T7 pairs events/s",
        Of::Value(Metric::PairsRate),
        Side::AtLeast,
        70_000.0,
        Some(100_000.0),
    ),
    (
        "T8 memory per idle pair",
        Of::Value(Metric::PairPss),
        Side::AtMost,
        24.0,
        Some(16.0),
    ),
    (
        "T9 memory at start",
        Of::Value(Metric::BasePss),
        Side::AtMost,
        15.0,
        Some(8.0),
    ),
    (
        "T10 catch-up of 10,000 events",
        Of::Value(Metric::CatchUp),
        Side::AtMost,
        20.0,
        Some(10.0),
    ),
    (
        "T11 newest 200 events of a long stream",
        Of::Value(Metric::Tail),
        Side::AtMost,
        5.0,
        Some(2.0),
    ),
    (
        "T11 rest of it, events/s",
        Of::Value(Metric::LongRate),
        Side::AtLeast,
        500_000.0,
        None,
    ),
    (
        "T12 memory for a stopped device",
        Of::Value(Metric::SlowMemory),
        Side::AtMost,
        1.0,
        None,
    ),
    (
        "T12 stopped one at the head again",
        Of::Value(Metric::SlowCatchUp),
        Side::AtMost,
        1.0,
        None,
    ),
    (
        "T12 latency p99 beside a stopped one",
        Of::Value(Metric::BesideRatio),
        Side::AtMost,
        1.1,
        None,
    ),
    (
        "T13 receipted events lost by kill -9",
        Of::Value(Metric::CrashLost),
        Side::AtMost,
        0.0,
        None,
    ),
    (
        "T13 pause around kill -9",
        Of::Value(Metric::CrashGap),
        Side::AtMost,
        1.5,
        Some(0.5),
    ),
    (
        "T14 events/s until receipted",
        Of::Value(Metric::DurableRate),
        Side::AtLeast,
        100_000.0,
        Some(200_000.0),
    ),
    (
        "T15 bytes on the wire, one event each",
        Of::Value(Metric::WireBytes),
        Side::AtMost,
        1.15,
        Some(1.1),
    ),
    (
        "T16 CPU with idle pairs, in cores",
        Of::Value(Metric::IdleCpu),
        Side::AtMost,
        0.05,
        Some(0.02),
    ),
    (
        "T17 all pairs connected",
        Of::Value(Metric::ConnectTime),
        Side::AtMost,
        5.0,
        Some(2.0),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_held_against_the_right_side_and_the_right_yardstick() {
        let mut results = Results::default();
        results.add(Metric::LatencyP50, Kind::Ws, 0.2);
        results.add(Metric::LatencyP50, Kind::Farhelm, 0.3);
        results.add(Metric::FloodRate, Kind::Ws, 300.0);
        results.add(Metric::FloodRate, Kind::Farhelm, 100.0);
        let goals = all(&results);
        let verdict = |name| goals.iter().find(|goal| goal.name == name).unwrap().verdict;
        assert_eq!(verdict("gate: latency p50"), Verdict::Met);
        assert_eq!(verdict("T1 latency p50"), Verdict::Missed);
        assert_eq!(verdict("gate: 1→1 events/s"), Verdict::Missed);
        assert_eq!(verdict("gate: memory per idle pair"), Verdict::Unknown);
    }
}
