//! Plans: what people do and what goes wrong, step by step. A plan is text, so that one that found
//! something can be kept and played again after the generator has changed.

use std::fmt;
use std::str::FromStr;

use crate::chance::Chance;

/// What is played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Gives everything that is not in the steps: keys, delays, what agents say.
    pub seed: u64,
    /// Devices that are paired at the beginning.
    pub devices: usize,
    /// Sessions that are begun at the beginning.
    pub sessions: usize,
    /// What happens then.
    pub steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Milliseconds after the step before.
    pub wait: u64,
    /// What.
    pub act: Act,
    /// To whom; numbers go round, so that every number means somebody.
    pub whom: usize,
    /// In which session, or with whom.
    pub what: usize,
    /// How long in milliseconds, after how many steps, or which of several.
    pub much: u64,
}

macro_rules! acts {
    ($($(#[$doc:meta])* $act:ident = $word:literal, $weight:literal;)*) => {
        /// What can happen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Act { $($(#[$doc])* $act,)* }

        /// All of it: its word, and how often it comes.
        const ACTS: &[(Act, &str, u64)] = &[$((Act::$act, $word, $weight),)*];
    };
}

acts! {
    /// A device sends a prompt.
    Prompt = "prompt", 30;
    /// A device sends a prompt that is worth nothing after `much` milliseconds.
    PromptSoon = "prompt-soon", 4;
    /// A device withdraws a prompt that waits.
    Withdraw = "withdraw", 4;
    /// A device answers a question.
    Decide = "decide", 30;
    /// Two devices answer the same question, differently.
    DecideTwice = "decide-twice", 6;
    /// A device answers a question that is not the one it names, as if it had shown another.
    DecideWrong = "decide-wrong", 4;
    /// A device stops the turn.
    Cancel = "cancel", 6;
    /// A device gives a session a title.
    Rename = "rename", 4;
    /// A device wants an agent started again.
    Resume = "resume", 5;
    /// A device ends a session.
    End = "end", 1;
    /// A device begins a session.
    Start = "start", 2;
    /// Somebody at the host sends a prompt.
    PromptHere = "prompt-here", 6;
    /// Somebody at the host answers a question.
    DecideHere = "decide-here", 4;
    /// A device removes a device.
    Revoke = "revoke", 1;
    /// Somebody at the host removes a device.
    RevokeHere = "revoke-here", 2;
    /// A device more is paired.
    Pair = "pair", 2;
    /// Connections over a link break.
    Cut = "cut", 10;
    /// Connections over a link fall silent for ever; new ones work.
    Lose = "lose", 4;
    /// Nothing passes over a link for a while.
    Hold = "hold", 6;
    /// A link is slow for a while.
    Slow = "slow", 3;
    /// A machine crashes, and is down for a while.
    Crash = "crash", 8;
    /// A machine crashes after `much` steps of its programs.
    CrashAt = "crash-at", 14;
    /// The relay loses everything that it keeps.
    Wipe = "wipe", 2;
    /// The host's machine loses power, and its agents with it.
    Blackout = "blackout", 2;
    /// A machine sleeps for a while.
    Sleep = "sleep", 5;
    /// The wall clock of a machine jumps; an odd number of milliseconds means back.
    Skew = "skew", 4;
    /// The disk of a machine is full for a while.
    Full = "full", 3;
    /// An agent is killed.
    Kill = "kill", 4;
}

impl Plan {
    /// The plan that a seed stands for.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let devices = small(&mut chance, 3);
        let sessions = small(&mut chance, 3);
        let count = chance.between(5, 22);
        Self {
            seed,
            devices,
            sessions,
            steps: (0..count).map(|_| step(&mut chance)).collect(),
        }
    }

    /// A plan that goes on for so many hours, with something every fifteen seconds or so. Nobody leaves and no session
    /// ends in it, so that as much goes on in its last hour as in its first.
    #[must_use]
    pub fn long(seed: u64, hours: u64) -> Self {
        let mut chance = Chance::new(seed);
        let mut steps = Vec::new();
        let mut left = hours * 3_600_000;
        while left > 0 {
            let mut next = step(&mut chance);
            if matches!(
                next.act,
                Act::Revoke | Act::RevokeHere | Act::Pair | Act::End | Act::Start
            ) {
                continue;
            }
            if chance.once_in(4) {
                next.wait = chance.below(100_000);
            }
            next.wait = next.wait.min(left);
            left -= next.wait;
            steps.push(next);
        }
        Self {
            seed,
            devices: 3,
            sessions: 3,
            steps,
        }
    }

    /// The same without a step.
    #[must_use]
    pub fn without(&self, from: usize, count: usize) -> Self {
        let mut steps = self.steps.clone();
        drop(steps.drain(from..(from + count).min(self.steps.len())));
        Self {
            steps,
            ..self.clone()
        }
    }
}

/// Anything, as often as it should come.
fn step(chance: &mut Chance) -> Step {
    let all: u64 = ACTS.iter().map(|(_, _, weight)| weight).sum();
    let mut luck = chance.below(all);
    let drawn = ACTS.iter().find(|(_, _, weight)| {
        let hit = luck < *weight;
        luck = luck.saturating_sub(*weight);
        hit
    });
    let act = drawn.map_or(Act::Prompt, |(act, _, _)| *act);
    let wait = match chance.below(10) {
        0 => 0,
        1..=5 => chance.below(300),
        6..=8 => chance.below(3_000),
        _ => chance.below(30_000),
    };
    Step {
        wait,
        act,
        whom: usize::from(chance.any().to_le_bytes()[0]),
        what: usize::from(chance.any().to_le_bytes()[0]),
        much: how_much(act, chance),
    }
}

/// One, more often than two or three.
fn small(chance: &mut Chance, most: u64) -> usize {
    let first = chance.between(1, most);
    usize::try_from(chance.between(1, first)).unwrap_or(1)
}

fn how_much(act: Act, chance: &mut Chance) -> u64 {
    match act {
        Act::CrashAt => {
            let most = [4, 40, 400][usize::try_from(chance.below(3)).unwrap_or(0)];
            chance.below(most)
        }
        Act::Skew => match chance.below(3) {
            0 => chance.below(10_000),
            1 => chance.below(7_200_000),
            _ => chance.below(63_072_000_000),
        },
        Act::Slow => chance.between(100, 4_000),
        Act::PromptSoon => chance.between(100, 20_000),
        Act::Hold | Act::Crash | Act::Wipe | Act::Blackout | Act::Sleep | Act::Full => {
            match chance.below(4) {
                0 => chance.below(500),
                1 | 2 => chance.below(8_000),
                _ => chance.below(90_000),
            }
        }
        Act::Prompt
        | Act::Withdraw
        | Act::Decide
        | Act::DecideTwice
        | Act::DecideWrong
        | Act::Cancel
        | Act::Rename
        | Act::Resume
        | Act::End
        | Act::Start
        | Act::PromptHere
        | Act::DecideHere
        | Act::Revoke
        | Act::RevokeHere
        | Act::Pair
        | Act::Cut
        | Act::Lose
        | Act::Kill => chance.below(100),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            devices,
            sessions,
            steps,
        } = self;
        writeln!(f, "seed {seed} devices {devices} sessions {sessions}")?;
        for step in steps {
            let word = ACTS
                .iter()
                .find(|(act, _, _)| *act == step.act)
                .map_or("", |(_, word, _)| word);
            let Step {
                wait,
                whom,
                what,
                much,
                ..
            } = step;
            writeln!(f, "{wait} {word} {whom} {what} {much}")?;
        }
        Ok(())
    }
}

/// A text is not a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoPlan(String);

impl fmt::Display for NoPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a line of a plan: {}", self.0)
    }
}

impl FromStr for Plan {
    type Err = NoPlan;

    fn from_str(text: &str) -> Result<Self, NoPlan> {
        let mut lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let first = lines.next().unwrap_or_default();
        let words: Vec<&str> = first.split(' ').collect();
        let ["seed", seed, "devices", devices, "sessions", sessions] = *words else {
            return Err(NoPlan(first.to_owned()));
        };
        let wrong = || NoPlan(first.to_owned());
        Ok(Self {
            seed: seed.parse().map_err(|_| wrong())?,
            devices: devices.parse().map_err(|_| wrong())?,
            sessions: sessions.parse().map_err(|_| wrong())?,
            steps: lines.map(str::parse).collect::<Result<_, _>>()?,
        })
    }
}

impl FromStr for Step {
    type Err = NoPlan;

    fn from_str(line: &str) -> Result<Self, NoPlan> {
        let parse = || {
            let mut words = line.split(' ');
            let wait = words.next()?.parse().ok()?;
            let word = words.next()?;
            let (act, _, _) = ACTS.iter().find(|(_, known, _)| *known == word)?;
            Some(Self {
                wait,
                act: *act,
                whom: words.next()?.parse().ok()?,
                what: words.next()?.parse().ok()?,
                much: words.next()?.parse().ok()?,
            })
        };
        parse().ok_or_else(|| NoPlan(line.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_back_as_it_was_written() {
        for seed in 0..200 {
            let plan = Plan::of(seed);
            assert_eq!(plan.to_string().parse(), Ok(plan));
        }
    }
}
