//! What happens at which point, as the environment says.

use std::io::{Error, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// What a plan says about one point.
#[derive(Debug)]
struct Rule {
    name: String,
    action: Action,
    /// The first and the last time at which it holds.
    from: u64,
    to: u64,
    hits: AtomicU64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Panic,
    Hang(Duration),
    /// The system's number of an error.
    Error(i32),
    On,
}

#[derive(Debug, Default)]
struct Plan {
    rules: Vec<Rule>,
    trace: Option<Trace>,
}

#[derive(Debug)]
struct Trace {
    file: std::path::PathBuf,
    seen: Mutex<Vec<&'static str>>,
}

std::thread_local! {
    static WATCHER: std::cell::Cell<Option<crate::Watcher>> = const { std::cell::Cell::new(None) };
}

/// Sets who is told of each point that this thread reaches.
pub(crate) fn watch(watcher: Option<crate::Watcher>) {
    WATCHER.set(watcher);
}

/// Counts a visit, and does what the plan says.
pub(crate) fn hit(name: &'static str) -> Option<Error> {
    if let Some(watcher) = WATCHER.get() {
        watcher(name);
    }
    match plan().visit(name)? {
        Action::Kill => std::process::abort(),
        Action::Panic => panic!("failpoint {name}"),
        Action::Hang(time) => std::thread::sleep(*time),
        Action::Error(number) => return Some(Error::from_raw_os_error(*number)),
        Action::On => {}
    }
    None
}

/// Whether the plan switches something on.
pub(crate) fn is_on(name: &'static str) -> bool {
    plan().visit(name) == Some(&Action::On)
}

impl Plan {
    fn visit(&self, name: &'static str) -> Option<&Action> {
        if let Some(trace) = &self.trace {
            trace.note(name);
        }
        let rule = self.rules.iter().find(|rule| rule.name == name)?;
        let hit = rule.hits.fetch_add(1, Ordering::Relaxed) + 1;
        (rule.from..=rule.to).contains(&hit).then_some(&rule.action)
    }
}

impl Trace {
    fn note(&self, name: &'static str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(&name) {
            return;
        }
        seen.push(name);
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.file);
        // One write, so that lines of several processes do not mix. Whoever reads the file misses what is not there.
        drop(file.and_then(|mut file| file.write_all(format!("{name}\n").as_bytes())));
    }
}

fn plan() -> &'static Plan {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    PLAN.get_or_init(|| Plan {
        // A plan that cannot be read must not pass for one without faults.
        rules: std::env::var(crate::PLAN).map_or_else(
            |_| Vec::new(),
            |text| parse(&text).unwrap_or_else(|why| panic!("{}: {why}", crate::PLAN)),
        ),
        trace: std::env::var_os(crate::TRACE).map(|file| Trace {
            file: file.into(),
            seen: Mutex::default(),
        }),
    })
}

fn parse(text: &str) -> Result<Vec<Rule>, String> {
    text.split(',')
        .filter(|rule| !rule.is_empty())
        .map(|rule| parse_rule(rule).ok_or_else(|| format!("{rule:?} is no rule")))
        .collect()
}

fn parse_rule(text: &str) -> Option<Rule> {
    let (name, rest) = text.split_once('=')?;
    let (action, times) = rest.split_once('@').unwrap_or((rest, "1-"));
    let (from, to) = match times.split_once('-') {
        Some((from, "")) => (from.parse().ok()?, u64::MAX),
        Some((from, to)) => (from.parse().ok()?, to.parse().ok()?),
        None => (times.parse().ok()?, times.parse().ok()?),
    };
    Some(Rule {
        name: name.to_owned(),
        action: parse_action(action)?,
        from,
        to,
        hits: AtomicU64::new(0),
    })
}

fn parse_action(text: &str) -> Option<Action> {
    let (word, argument) = text.split_once(':').unwrap_or((text, ""));
    Some(match (word, argument) {
        ("kill", "") => Action::Kill,
        ("panic", "") => Action::Panic,
        ("on", "") => Action::On,
        ("hang", time) => Action::Hang(parse_time(time)?),
        ("error", "enospc") => Action::Error(28),
        ("error", "eio") => Action::Error(5),
        ("error", "emfile") => Action::Error(24),
        _ => return None,
    })
}

fn parse_time(text: &str) -> Option<Duration> {
    if let Some(millis) = text.strip_suffix("ms") {
        return Some(Duration::from_millis(millis.parse().ok()?));
    }
    let seconds = text.strip_suffix('s')?;
    Some(Duration::from_secs(seconds.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        Plan {
            rules: parse(text).unwrap(),
            trace: None,
        }
    }

    #[test]
    fn a_rule_holds_for_the_times_that_it_names() {
        let plan = plan("a=kill@3,b=error:enospc@2-3,c=hang:200ms,d=hang:2s@2-");
        let hits = |name, times: usize| -> Vec<bool> {
            (0..times).map(|_| plan.visit(name).is_some()).collect()
        };
        assert_eq!(hits("a", 4), [false, false, true, false]);
        assert_eq!(hits("b", 4), [false, true, true, false]);
        assert_eq!(hits("d", 3), [false, true, true]);
        assert_eq!(
            plan.visit("c"),
            Some(&Action::Hang(Duration::from_millis(200)))
        );
        assert_eq!(plan.visit("e"), None);
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        for text in ["a", "a=", "a=kil", "a=kill@x", "a=error:", "a=hang:5"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("").unwrap().is_empty());
    }
}
