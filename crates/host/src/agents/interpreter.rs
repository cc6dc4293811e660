//! Between one run of an agent's program and its session: what the agent's lines and the session's
//! orders amount to. A pure machine that can be written down and taken up by a later daemon.
//!
//! It knows no numbers, no clock and no pipes: lines, orders and ends go in, [`Deed`]s come out.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use farhelm_core::agent::{Order, Said};
use farhelm_proto::Code;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::acp::{self, Acp};
use super::claude::{self, Claude};
use super::files::FileError;
use super::json::RawMessage;
use super::{Adapter, FileWork, Step, Ticket};
use crate::keeper::End;

/// What is to be done, in order.
#[derive(Debug)]
pub enum Deed {
    /// Tell the session.
    Say(Said),
    /// Write the agent a line.
    Write(Box<RawValue>),
    /// Touch a file, then call [`Interpreter::filed`].
    File {
        /// Names the work.
        ticket: Ticket,
        /// The work.
        work: FileWork,
    },
    /// End the program.
    End {
        /// Whether it is asked to terminate at once.
        at_once: bool,
    },
}

/// One run of an agent's program, as the session sees it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Interpreter {
    dialect: Spoken,
    phase: Phase,
    /// Whether the agent came up, or the session was told that it did not.
    start_settled: bool,
    garbage: Garbage,
    /// Orders that wait until the agent is up.
    waiting: VecDeque<Order>,
    /// File work under way. After a restart it is done again: see [`Interpreter::unfinished`].
    work: BTreeMap<Ticket, FileWork>,
}

/// How the agent is spoken to, and how far the conversation is.
#[derive(Debug, Serialize, Deserialize)]
enum Spoken {
    Acp(Box<Acp>),
    Claude(Box<Claude>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// It has not answered yet.
    Starting,
    /// It works.
    Running,
    /// It is to end; it is told nothing any more.
    Leaving,
}

impl Interpreter {
    /// For a program that speaks ACP.
    #[must_use]
    pub fn acp(setup: acp::Setup) -> Self {
        Self::new(Spoken::Acp(Box::new(Acp::new(setup))))
    }

    /// For Claude Code.
    #[must_use]
    pub fn claude(setup: claude::Setup) -> Self {
        Self::new(Spoken::Claude(Box::new(Claude::new(setup))))
    }

    const fn new(dialect: Spoken) -> Self {
        Self {
            dialect,
            phase: Phase::Starting,
            start_settled: false,
            garbage: Garbage { seen: 0 },
            waiting: VecDeque::new(),
            work: BTreeMap::new(),
        }
    }

    /// Whether it has yet to answer.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.phase == Phase::Starting
    }

    /// Whether it was asked to end.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.phase == Phase::Leaving
    }

    /// Opens the conversation.
    pub fn begin(&mut self) -> Vec<Deed> {
        let steps = self.adapter().begin();
        self.carry_out(steps)
    }

    /// The agent printed a line.
    pub fn line(&mut self, line: &str) -> Vec<Deed> {
        self.take(line, RawMessage::parse(line))
    }

    /// The agent printed a line in which something shorter stands in the place of long strings.
    pub fn long_line(&mut self, line: &str) -> Vec<Deed> {
        self.take(line, RawMessage::parse(line).map(RawMessage::cut))
    }

    fn take(&mut self, line: &str, read: Result<RawMessage, serde_json::Error>) -> Vec<Deed> {
        match read {
            Ok(message) if message.value().is_object() => {
                let steps = self.adapter().hear(&message);
                self.carry_out(steps)
            }
            Ok(_) | Err(_) => self.rubbish(Garbage::quote(line)),
        }
    }

    /// The agent printed a line that was too long.
    pub fn too_long(&mut self, bytes: u64) -> Vec<Deed> {
        self.rubbish(format!(
            "a line of {bytes} bytes, which is too long, was skipped"
        ))
    }

    /// The agent closed its standard output: nothing will come any more.
    pub fn silent(&mut self) -> Vec<Deed> {
        self.leave(false)
    }

    /// The session wants something of the agent.
    pub fn obey(&mut self, order: Order) -> Vec<Deed> {
        match self.phase {
            Phase::Starting if self.waiting.len() < WAITING => {
                self.waiting.push_back(order);
                Vec::new()
            }
            Phase::Starting => vec![Deed::Say(Said::Notice {
                code: Code::QueueFull,
                text: "too many orders wait for the agent to come up; one was dropped".to_owned(),
            })],
            Phase::Running => {
                let steps = self.adapter().obey(order);
                self.carry_out(steps)
            }
            Phase::Leaving => Vec::new(),
        }
    }

    /// File work is done.
    pub fn filed(&mut self, ticket: Ticket, outcome: Result<String, FileError>) -> Vec<Deed> {
        if self.work.remove(&ticket).is_none() {
            return Vec::new();
        }
        let steps = self.adapter().filed(ticket, outcome);
        self.carry_out(steps)
    }

    /// File work of which the end has not been heard.
    #[must_use]
    pub fn unfinished(&self) -> Vec<(Ticket, FileWork)> {
        let pairs = self.work.iter();
        pairs
            .map(|(ticket, work)| (*ticket, work.clone()))
            .collect()
    }

    /// The agent has not answered its first request within the time it had.
    pub fn late(&mut self, start_within: Duration) -> Vec<Deed> {
        if self.phase != Phase::Starting {
            return Vec::new();
        }
        self.start_settled = true;
        let text = format!(
            "the agent did not answer its first request within {} s; `agent_start_s` in config.toml gives it longer",
            start_within.as_secs()
        );
        let mut deeds = vec![Deed::Say(Said::StartFailed {
            code: Code::AgentSilent,
            text,
        })];
        deeds.extend(self.leave(true));
        deeds
    }

    /// More waits to be written to the agent than is bearable.
    pub fn choked(&mut self) -> Vec<Deed> {
        if self.phase == Phase::Leaving {
            return Vec::new();
        }
        let mut deeds = vec![Deed::Say(Said::Notice {
            code: Code::AgentSilent,
            text: "the agent does not read what it is told".to_owned(),
        })];
        deeds.extend(self.leave(true));
        deeds
    }

    /// Somebody wants the agent gone: a start that was cut short has not failed.
    pub fn dismiss(&mut self) -> Vec<Deed> {
        self.start_settled = true;
        self.leave(false)
    }

    /// The program has ended: what there is to say about it besides.
    pub fn ended(&mut self, end: &End) -> Vec<Said> {
        self.phase = Phase::Leaving;
        let rest = self.garbage.rest().map(|text| Said::Notice {
            code: Code::AgentGarbage,
            text,
        });
        let failed = (!self.start_settled).then(|| {
            let how = end.signal.map_or_else(
                || format!("with code {}", end.code.unwrap_or_default()),
                |signal| format!("by signal {signal}"),
            );
            let text = format!(
                "the agent's program ended {how} before it answered: {}",
                end.stderr.trim_end()
            );
            Said::StartFailed {
                code: Code::AgentExited,
                text,
            }
        });
        rest.into_iter().chain(failed).collect()
    }

    fn adapter(&mut self) -> &mut dyn Adapter {
        match &mut self.dialect {
            Spoken::Acp(acp) => acp.as_mut(),
            Spoken::Claude(claude) => claude.as_mut(),
        }
    }

    fn carry_out(&mut self, steps: Vec<Step>) -> Vec<Deed> {
        let mut deeds = Vec::with_capacity(steps.len());
        for step in steps {
            match step {
                Step::Say(said) => {
                    let started = matches!(said, Said::Started { .. });
                    let failed = matches!(said, Said::StartFailed { .. });
                    deeds.push(Deed::Say(said));
                    if failed {
                        self.start_settled = true;
                        deeds.extend(self.leave(false));
                    } else if started && self.phase == Phase::Starting {
                        self.start_settled = true;
                        self.phase = Phase::Running;
                    }
                }
                Step::Send(_) if self.phase == Phase::Leaving => {}
                Step::Send(line) => deeds.push(Deed::Write(line)),
                Step::File { ticket, work } => {
                    self.work.insert(ticket, work.clone());
                    deeds.push(Deed::File { ticket, work });
                }
            }
        }
        while self.phase == Phase::Running
            && let Some(order) = self.waiting.pop_front()
        {
            let steps = self.adapter().obey(order);
            deeds.extend(self.carry_out(steps));
        }
        deeds
    }

    fn rubbish(&mut self, problem: String) -> Vec<Deed> {
        let shown = self.garbage.note(problem).map(|text| Said::Notice {
            code: Code::AgentGarbage,
            text,
        });
        shown.map(Deed::Say).into_iter().collect()
    }

    /// Lets the agent leave: without standard input there is nothing to stay for.
    fn leave(&mut self, at_once: bool) -> Vec<Deed> {
        if self.phase == Phase::Leaving {
            return Vec::new();
        }
        self.phase = Phase::Leaving;
        self.waiting.clear();
        vec![Deed::End { at_once }]
    }
}

/// Lines that are not the protocol: the first few are shown, the rest are counted.
#[derive(Debug, Serialize, Deserialize)]
struct Garbage {
    seen: u64,
}

impl Garbage {
    const SHOWN: u64 = 5;
    const QUOTED: usize = 200;

    fn note(&mut self, problem: String) -> Option<String> {
        self.seen += 1;
        (self.seen <= Self::SHOWN).then_some(problem)
    }

    fn rest(&self) -> Option<String> {
        let rest = self.seen.saturating_sub(Self::SHOWN);
        (rest > 0).then(|| format!("and {rest} more such lines"))
    }

    fn quote(line: &str) -> String {
        let mut quoted: String = line.chars().take(Self::QUOTED).collect();
        if quoted.len() < line.len() {
            quoted.push('…');
        }
        quoted
    }
}

/// Orders that may wait until an agent is up.
const WAITING: usize = 256;
