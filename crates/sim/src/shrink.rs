//! Makes a plan that found something as small as it can be: steps are dropped as long as a promise
//! is still broken.

use crate::plan::Plan;
use crate::run::{Report, play};

/// The smallest plan found that breaks the same promise, and what came of it.
#[must_use]
pub fn shrink(plan: &Plan, report: &Report) -> (Plan, Report) {
    let (mut plan, mut report) = (plan.clone(), report.clone());
    let promise = promise_of(&report);
    let mut count = plan.steps.len().div_ceil(2);
    let mut tries = TRIES;
    while count > 0 {
        let mut from = 0;
        while from < plan.steps.len() && tries > 0 {
            tries -= 1;
            let smaller = plan.without(from, count);
            let came = play(&smaller, false);
            if promise_of(&came) == promise && promise.is_some() {
                (plan, report) = (smaller, came);
            } else {
                from += count;
            }
        }
        count /= 2;
    }
    (plan, report)
}

/// Which promise was broken first: its number, which is how the text begins.
fn promise_of(report: &Report) -> Option<String> {
    let first = report.broken.first()?;
    let words: Vec<&str> = first.split(' ').take(3).collect();
    Some(words.join(" "))
}

/// Runs at most.
const TRIES: u32 = 200;
