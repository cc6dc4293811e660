//! The figures of a run: per metric and server one of each round, of which the median counts.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::target::Kind;

macro_rules! metrics {
    ($($name:ident = $text:literal, $key:literal, $unit:literal, $digits:literal;)*) => {
        /// What was measured.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Metric { $($name,)* }

        impl Metric {
            /// In the order of the report.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// For people.
            pub(crate) const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// For programs.
            pub(crate) const fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)* }
            }

            pub(crate) const fn unit(self) -> &'static str {
                match self { $(Self::$name => $unit,)* }
            }

            /// Digits after the point.
            pub(crate) const fn digits(self) -> usize {
                match self { $(Self::$name => $digits,)* }
            }
        }
    };
}

metrics! {
    LatencyP50 = "latency p50", "latency_p50", "ms", 3;
    LatencyP99 = "latency p99", "latency_p99", "ms", 2;
    LatencyP999 = "latency p99.9 (all rounds together)", "latency_p999", "ms", 2;
    FloodRate = "1→1 events/s", "flood_rate", "", 0;
    FloodCpu = "1→1 CPU s per M events", "flood_cpu", "", 2;
    DurableRate = "1→1 events/s until receipted", "durable_rate", "", 0;
    BulkRate = "1→1 in large writes, events/s", "bulk_rate", "", 0;
    BulkCpu = "1→1 in large writes, CPU s per M events", "bulk_cpu", "", 2;
    FanRate = "1→20 deliveries/s", "fan_rate", "", 0;
    FanCpu = "1→20 CPU s per M deliveries", "fan_cpu", "", 2;
    PairsRate = "pairs events/s", "pairs_rate", "", 0;
    PairsCpu = "pairs CPU s per M events", "pairs_cpu", "", 2;
    BasePss = "memory at start", "base_pss", "MiB", 1;
    PairPss = "memory per idle pair", "pair_pss", "KiB", 1;
    IdleCpu = "CPU with idle pairs, in cores", "idle_cpu", "", 3;
    ConnectTime = "all pairs connected in", "connect_time", "s", 2;
    CatchUp = "catch-up of 10,000 events", "catch_up", "ms", 1;
    Tail = "newest 200 events of a long stream", "tail", "ms", 2;
    LongRate = "catch-up of a long stream, events/s", "long_rate", "", 0;
    SlowRate = "rate of a device beside a stopped one, against before", "slow_rate", "×", 2;
    BesideP99 = "latency p99 of a device beside one that reads", "beside_p99", "ms", 2;
    BesideStoppedP99 = "latency p99 beside a stopped one", "beside_stopped_p99", "ms", 2;
    BesideRatio = "the latter against the former", "beside_ratio", "×", 2;
    SlowStall = "longest pause of that device", "slow_stall", "ms", 0;
    SlowPeak = "memory at most with a stopped device", "slow_peak", "MiB", 1;
    SlowMemory = "of which more than before", "slow_memory", "MiB", 1;
    SlowMissed = "events that the stopped one missed", "slow_missed", "", 0;
    SlowBackRate = "its catch-up, events/s", "slow_back_rate", "", 0;
    SlowCatchUp = "stopped one is back at the head after", "slow_catch_up", "s", 2;
    CrashLost = "receipted events lost by kill -9", "crash_lost", "", 0;
    CrashGap = "pause around kill -9", "crash_gap", "s", 2;
    WireBytes = "bytes on the wire per byte of event", "wire_bytes", "×", 2;
}

/// What a run found.
#[derive(Default)]
pub(crate) struct Results {
    values: BTreeMap<(Metric, Kind), Vec<f64>>,
    latencies: BTreeMap<Kind, Histogram<u64>>,
    /// Conditions of the run, by name.
    pub(crate) notes: Vec<(&'static str, String)>,
    /// What could not be measured, and why.
    pub(crate) failures: Vec<String>,
}

impl Results {
    /// Notes one figure of one round.
    pub(crate) fn add(&mut self, metric: Metric, kind: Kind, value: f64) {
        self.values.entry((metric, kind)).or_default().push(value);
    }

    /// Notes a round's latencies, in nanoseconds.
    pub(crate) fn add_latencies(
        &mut self,
        kind: Kind,
        found: &Histogram<u64>,
    ) -> anyhow::Result<()> {
        let millis = |quantile| found.value_at_quantile(quantile) as f64 / 1e6;
        self.add(Metric::LatencyP50, kind, millis(0.5));
        self.add(Metric::LatencyP99, kind, millis(0.99));
        match self.latencies.get_mut(&kind) {
            Some(all) => all.add(found)?,
            None => drop(self.latencies.insert(kind, found.clone())),
        }
        let all = self
            .latencies
            .get(&kind)
            .map_or(0, |all| all.value_at_quantile(0.999));
        self.values
            .insert((Metric::LatencyP999, kind), vec![all as f64 / 1e6]);
        Ok(())
    }

    /// The figures of all rounds.
    pub(crate) fn rounds(&self, metric: Metric, kind: Kind) -> &[f64] {
        self.values.get(&(metric, kind)).map_or(&[], Vec::as_slice)
    }

    /// The median of the rounds; of two in the middle their mean.
    pub(crate) fn median(&self, metric: Metric, kind: Kind) -> Option<f64> {
        let mut rounds = self.rounds(metric, kind).to_vec();
        rounds.sort_by(f64::total_cmp);
        let upper = *rounds.get(rounds.len() / 2)?;
        let lower = *rounds.get((rounds.len() - 1) / 2)?;
        Some(f64::midpoint(lower, upper))
    }

    /// How our figure stands to a yardstick's.
    pub(crate) fn ratio(&self, metric: Metric, kind: Kind, to: Kind) -> Option<f64> {
        let yardstick = self.median(metric, to)?;
        Some(self.median(metric, kind)? / yardstick).filter(|ratio| ratio.is_finite())
    }

    /// Whether anybody has this figure.
    pub(crate) fn has(&self, metric: Metric) -> bool {
        self.values.keys().any(|(found, _)| *found == metric)
    }

    /// The servers that were measured.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = self.values.keys().map(|(_, kind)| *kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_rounds_lies_between_the_middle_two() {
        let mut results = Results::default();
        for value in [4.0, 1.0, 3.0, 100.0] {
            results.add(Metric::FloodCpu, Kind::Ws, value);
        }
        assert_eq!(results.median(Metric::FloodCpu, Kind::Ws), Some(3.5));
        assert_eq!(results.median(Metric::FloodCpu, Kind::Tcp), None);
    }
}
