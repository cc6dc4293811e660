//! The result, for people and for programs: figures, gates, targets.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::output;
use crate::report::goals::{Goal, Verdict};
use crate::results::{Metric, Results};
use crate::sizes::Size;
use crate::target::Kind;

mod goals;

/// Prints everything and writes `json`. False when `strict` and a gate failed.
pub(crate) fn finish(
    results: &Results,
    sizes: &[Size],
    json: Option<&Path>,
    strict: bool,
) -> anyhow::Result<bool> {
    let goals = goals::all(results);
    if !results.kinds().is_empty() {
        output::line(&conditions(results));
        output::line(&figures(results));
        output::line(&verdicts(&goals));
    }
    if !sizes.is_empty() {
        output::line(&weights(sizes));
    }
    for failure in &results.failures {
        output::line(&format!("Not measured: {failure}."));
    }
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&document(results, &goals, sizes))?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    let measured = !results.kinds().is_empty();
    let kept = goals
        .iter()
        .filter(|goal| goal.gate && measured)
        .all(|goal| match goal.verdict {
            Verdict::Met | Verdict::Reached => true,
            Verdict::Missed | Verdict::Unknown => false,
        });
    Ok(kept || !strict)
}

fn conditions(results: &Results) -> String {
    let notes: Vec<String> = results
        .notes
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    format!(
        "Medians of the rounds; in parentheses against `ws`. Run: {}.\n",
        notes.join(", ")
    )
}

fn figures(results: &Results) -> String {
    let kinds = results.kinds();
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    let mut table = format!(
        "| | {} |\n|---|{}\n",
        names.join(" | "),
        "---:|".repeat(kinds.len())
    );
    for metric in Metric::ALL.iter().filter(|metric| results.has(**metric)) {
        let cells: Vec<String> = kinds
            .iter()
            .map(|kind| cell(results, *metric, *kind))
            .collect();
        table += &format!("| {} | {} |\n", metric.text(), cells.join(" | "));
    }
    table
}

fn cell(results: &Results, metric: Metric, kind: Kind) -> String {
    let Some(median) = results.median(metric, kind) else {
        return String::new();
    };
    let value = number(median, metric.digits());
    let value = format!("{value} {}", metric.unit()).trim_end().to_owned();
    match results
        .ratio(metric, kind, Kind::Ws)
        .filter(|_| kind != Kind::Ws)
    {
        Some(ratio) => format!("{value} ({ratio:.2}×)"),
        None => value,
    }
}

fn verdicts(goals: &[Goal]) -> String {
    let mut table = "| | must | aim | found | |\n|---|---|---|---:|---|\n".to_owned();
    for goal in goals {
        let Goal {
            name,
            must,
            aim,
            found,
            verdict,
            ..
        } = goal;
        table += &format!(
            "| {name} | {must} | {aim} | {found} | {} |\n",
            verdict.text()
        );
    }
    table
}

fn weights(sizes: &[Size]) -> String {
    let mut table = "| | bytes |\n|---|---:|\n".to_owned();
    for size in sizes {
        table += &format!("| {} | {} |\n", size.name, number(size.bytes as f64, 0));
    }
    table
}

/// With a comma between thousands.
fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text
        .split_once('.')
        .map_or((text.as_str(), String::new()), |(w, r)| {
            (w, format!(".{r}"))
        });
    let (sign, whole) = whole
        .strip_prefix('-')
        .map_or(("", whole), |whole| ("-", whole));
    let groups: Vec<&str> = whole
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    format!("{sign}{}{rest}", groups.join(","))
}

fn document(results: &Results, goals: &[Goal], sizes: &[Size]) -> Value {
    let figures: Vec<Value> = Metric::ALL
        .iter()
        .flat_map(|metric| results.kinds().into_iter().map(move |kind| (*metric, kind)))
        .filter_map(|(metric, kind)| {
            Some(json!({
                "metric": metric.key(),
                "unit": metric.unit(),
                "server": kind.name(),
                "median": results.median(metric, kind)?,
                "against_ws": results.ratio(metric, kind, Kind::Ws),
                "rounds": results.rounds(metric, kind),
            }))
        })
        .collect();
    let goals: Vec<Value> = goals
        .iter()
        .map(|goal| {
            json!({
                "name": goal.name, "gate": goal.gate, "must": goal.must, "aim": goal.aim,
                "found": goal.found, "verdict": goal.verdict.text(),
            })
        })
        .collect();
    let sizes: Vec<Value> = sizes
        .iter()
        .map(|size| json!({ "name": size.name, "bytes": size.bytes }))
        .collect();
    let notes: serde_json::Map<String, Value> = results
        .notes
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    json!({ "run": notes, "figures": figures, "goals": goals, "sizes": sizes, "not_measured": results.failures })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(number(1_234_567.891, 1), "1,234,567.9");
        assert_eq!(number(-999.0, 0), "-999");
        assert_eq!(number(0.25, 2), "0.25");
    }
}
