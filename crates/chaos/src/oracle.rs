//! Whether what was shown is what happened: a device's transcript against the host's log, both against the agent's own
//! record, and what a device was told of its wishes against all of them.

use std::collections::{BTreeMap, BTreeSet};

use farhelm_core::command::Outcome;
use serde_json::Value;

use crate::record::{Agent, Message};

/// What a device was told of a wish.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Its id, as it stands in the log as a cause.
    pub id: String,
    /// What it was, for people.
    pub what: String,
    /// What became of it; none when the device was never told.
    pub outcome: Option<Outcome>,
}

/// What is wrong, counted and told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages and approvals that were looked at.
    pub looked_at: u64,
    /// What should have happened or been shown, and did not or was not.
    pub lost: Vec<String>,
    /// What happened or was shown more than once.
    pub doubled: Vec<String>,
    /// What was told otherwise than it was.
    pub misreported: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.misreported.is_empty()
    }

    /// Adds what another one found.
    pub fn absorb(&mut self, other: Self) {
        self.looked_at += other.looked_at;
        self.lost.extend(other.lost);
        self.doubled.extend(other.doubled);
        self.misreported.extend(other.misreported);
    }
}

/// A session's log in terms that can be compared.
#[derive(Debug, Default)]
struct Told {
    /// What each turn was about, in order, and how it ended.
    turns: Vec<(String, Option<String>)>,
    /// What the agent said, by message.
    said: Vec<(String, String)>,
    /// Questions, in order.
    asks: Vec<Ask>,
    causes: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Ask {
    id: String,
    title: String,
    /// Every decision, as an option or `void`.
    decided: Vec<String>,
    /// The place of the turn that it belongs to.
    turn: usize,
}

/// Compares the host's log with the agent's record.
#[must_use]
pub fn agent(log: &[Value], agent: &Agent) -> Verdict {
    let told = Told::read(log);
    let mut verdict = Verdict::default();
    heard(&told, agent, &mut verdict);
    said(&told, agent, &mut verdict);
    asked(&told, agent, &mut verdict);
    verdict
}

/// Compares a device's transcript with the host's log: the very same records, from 1, without a hole.
#[must_use]
pub fn transcript(device: &str, host: &[Value], shown: &[Value]) -> Verdict {
    let mut verdict = Verdict::default();
    for (place, record) in (1_u64..).zip(shown) {
        if record["seq"].as_u64() != Some(place) {
            verdict.misreported.push(format!(
                "{device}: event {} in place of {place}",
                record["seq"]
            ));
            return verdict;
        }
    }
    let missing = host.len().saturating_sub(shown.len());
    if missing > 0 {
        verdict.lost.push(format!(
            "{device} lacks the last {missing} of {} events",
            host.len()
        ));
    }
    if shown.len() > host.len() {
        verdict.misreported.push(format!(
            "{device} has {} events, the host {}",
            shown.len(),
            host.len()
        ));
    }
    for (ours, theirs) in host.iter().zip(shown) {
        if ours != theirs {
            verdict
                .misreported
                .push(format!("{device} shows {theirs}, the host wrote {ours}"));
        }
    }
    verdict
}

/// Compares what a device was told of its wishes with the log.
#[must_use]
pub fn wishes(log: &[Value], wishes: &[Wish]) -> Verdict {
    let told = Told::read(log);
    let mut verdict = Verdict::default();
    for wish in wishes {
        verdict.looked_at += 1;
        let effects = told.causes.get(&wish.id).copied().unwrap_or_default();
        match &wish.outcome {
            Some(Outcome::Applied { seq, .. }) => {
                let at = log
                    .iter()
                    .find(|record| record["seq"].as_u64() == Some(*seq));
                if effects == 0 {
                    verdict.lost.push(format!(
                        "{}: told applied, and nothing came of it",
                        wish.what
                    ));
                } else if at.is_none_or(|record| record["cause"].as_str() != Some(&wish.id)) {
                    verdict
                        .misreported
                        .push(format!("{}: not at event {seq}", wish.what));
                }
            }
            Some(Outcome::Refused { rejection }) if effects > 0 => {
                let code = rejection.code;
                verdict
                    .misreported
                    .push(format!("{}: told {code}, and it had an effect", wish.what));
            }
            Some(Outcome::Refused { .. }) => {}
            Some(Outcome::Received) | None => {
                verdict
                    .lost
                    .push(format!("{}: nobody said what became of it", wish.what));
            }
        }
        if effects > 1 {
            verdict
                .doubled
                .push(format!("{}: {effects} effects", wish.what));
        }
    }
    verdict
}

/// Each turn was heard once, in order; one that was not heard ended because the agent was gone.
fn heard(told: &Told, agent: &Agent, verdict: &mut Verdict) {
    let mut heard = agent.heard.iter().peekable();
    for (prompt, end) in &told.turns {
        if heard.next_if(|words| *words == prompt).is_some() {
            continue;
        }
        match end.as_deref() {
            Some("agent_died" | "failed" | "cancelled") => {}
            _ => verdict
                .lost
                .push(format!("the agent never heard {prompt:?}")),
        }
    }
    let known: BTreeSet<&String> = told.turns.iter().map(|(prompt, _)| prompt).collect();
    for words in heard {
        let list = if known.contains(words) {
            &mut verdict.doubled
        } else {
            &mut verdict.misreported
        };
        list.push(format!("the agent heard {words:?}, and no turn says so"));
    }
}

/// What the log says that the agent said is what it said, byte for byte. Only the last words of a run that was followed by
/// another may be missing: those of a program that was killed before anybody read them.
fn said(told: &Told, agent: &Agent, verdict: &mut Verdict) {
    let mut shown = told.said.iter().peekable();
    let mut cut_in = None;
    for Message { run, id, text } in &agent.said {
        let is_last_run = *run == agent.runs;
        match shown.peek() {
            Some((message, words)) if message == id && words == text && cut_in != Some(*run) => {
                shown.next();
            }
            Some((message, words))
                if message == id
                    && !is_last_run
                    && cut_in != Some(*run)
                    && text.starts_with(words.as_str()) =>
            {
                shown.next();
                cut_in = Some(*run);
            }
            Some(_) | None if !is_last_run => cut_in = Some(*run),
            Some((message, words)) => {
                verdict
                    .misreported
                    .push(format!("{id}: said {text:?}, shown {message}: {words:?}"));
                return;
            }
            None => verdict.lost.push(format!("{id}: {text:?} is not shown")),
        }
    }
    for (id, words) in shown {
        verdict
            .doubled
            .push(format!("{id}: {words:?} was not said"));
    }
}

/// Each question is shown once, decided once, and answered as decided, once.
fn asked(told: &Told, agent: &Agent, verdict: &mut Verdict) {
    let mut shown = told.asks.iter().peekable();
    for asked in &agent.asked {
        verdict.looked_at += 1;
        let Some(ask) = shown.next_if(|ask| ask.title == asked.title) else {
            // What a program asked right before it was killed, nobody may have read.
            if asked.run == agent.runs {
                verdict
                    .lost
                    .push(format!("the question {:?} is not shown", asked.title));
            }
            continue;
        };
        if ask.decided.len() > 1 {
            let times = ask.decided.len();
            verdict
                .doubled
                .push(format!("{} was decided {times} times", ask.id));
        }
        if asked.answers.len() > 1 {
            verdict.doubled.push(format!(
                "{:?} was answered {} times",
                asked.title,
                asked.answers.len()
            ));
        }
        let turn = ask
            .turn
            .checked_sub(1)
            .and_then(|turn| told.turns.get(turn));
        let died = turn.is_some_and(|(_, end)| end.as_deref() == Some("agent_died"));
        let is_right = match (ask.decided.first(), asked.answers.first()) {
            (Some(decided), Some(answer)) => {
                decided == answer || (decided == "void" && answer == "cancelled")
            }
            // Nobody decided, and the agent was told so or was gone.
            (Some(decided), None) => decided == "void" || died,
            (None, answer) => answer.is_none(),
        };
        if !is_right {
            let (decided, answers) = (&ask.decided, &asked.answers);
            let text = format!(
                "{:?}: decided {decided:?}, answered {answers:?}",
                asked.title
            );
            verdict.misreported.push(text);
        }
    }
    for ask in shown {
        verdict
            .doubled
            .push(format!("{:?} is shown and was not asked", ask.title));
    }
}

impl Told {
    fn read(log: &[Value]) -> Self {
        let mut told = Self::default();
        let mut prompts = BTreeMap::new();
        for record in log {
            if let Some(cause) = record["cause"].as_str() {
                *told.causes.entry(cause.to_owned()).or_default() +=
                    u64::from(is_main(&record["event"]));
            }
            told.apply(&record["event"], &mut prompts);
        }
        told
    }

    fn apply(&mut self, event: &Value, prompts: &mut BTreeMap<String, String>) {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        match event["type"].as_str().unwrap_or_default() {
            "prompt_queued" => drop(prompts.insert(text("prompt"), text("text"))),
            "turn_started" => {
                let prompt = prompts.get(&text("prompt")).cloned().unwrap_or_default();
                self.turns.push((prompt, None));
            }
            "turn_ended" => {
                if let Some((_, end)) = self.turns.last_mut() {
                    *end = Some(text("reason"));
                }
            }
            "message_added" if event["role"] == "agent" => {
                let pieces = event["content"].as_array().into_iter().flatten();
                let words: String = pieces.filter_map(|piece| piece["text"].as_str()).collect();
                let message = text("message");
                match self.said.last_mut().filter(|(last, _)| *last == message) {
                    Some((_, shown)) => shown.push_str(&words),
                    None => self.said.push((message, words)),
                }
            }
            "approval_requested" => {
                let ask: Value = serde_json::from_str(&text("ask")).unwrap_or_default();
                let title = ask["title"].as_str().unwrap_or_default().to_owned();
                self.asks.push(Ask {
                    id: text("approval"),
                    title,
                    decided: Vec::new(),
                    turn: self.turns.len(),
                });
            }
            "approval_decided" => {
                let id = text("approval");
                let verdict = &event["verdict"];
                let how = verdict["option"].as_str().or(verdict["kind"].as_str());
                if let Some(ask) = self.asks.iter_mut().find(|ask| ask.id == id) {
                    ask.decided.push(how.unwrap_or_default().to_owned());
                }
            }
            _ => {}
        }
    }
}

/// Whether an event is what a command is for, and not what follows from it.
fn is_main(event: &Value) -> bool {
    matches!(
        event["type"].as_str(),
        Some(
            "prompt_queued"
                | "approval_decided"
                | "prompt_withdrawn"
                | "turn_cancel_requested"
                | "queue_resumed"
                | "agent_restarting"
        )
    )
}

#[cfg(test)]
mod tests;
