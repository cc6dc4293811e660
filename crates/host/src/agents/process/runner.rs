//! What a running agent's inputs amount to. Nothing here waits.

use std::collections::VecDeque;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use farhelm_core::agent::{Order, Said};
use farhelm_proto::Code;
use rustix::process::Signal;
use serde_json::value::RawValue;
use tokio::process::ChildStdin;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::group::Group;
use super::{AgentOutput, AgentSpec, LAST_WORDS, pipes};
use crate::agents::files::FileError;
use crate::agents::json::RawMessage;
use crate::agents::lines::{Lines, Piece};
use crate::agents::{Adapter, FileWork, Step, Ticket};

/// How far the program's life is.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// It has until then to answer.
    Starting(Instant),
    /// It works.
    Running,
    /// Its standard input is closed; it has until then to leave.
    Leaving(Instant),
    /// It was asked to terminate, and has until then.
    Terminating(Instant),
    /// It was killed; the system has until then to say so.
    Killed(Instant),
    /// It has ended; what it printed last is read until then.
    Draining(Instant, ExitStatus),
}

/// Decides what an input amounts to; waits for nothing.
pub(super) struct Runner {
    adapter: Box<dyn Adapter>,
    lines: Lines,
    garbage: Garbage,
    phase: Phase,
    start_within: Duration,
    grace: Duration,
    group: Group,
    /// Whether the agent came up, or the session was told that it did not.
    start_settled: bool,
    /// Whether an ended agent's pipes stayed silent long enough.
    drained: bool,
    /// Nothing once the agent's standard input is closed.
    lines_out: Option<mpsc::UnboundedSender<Box<RawValue>>>,
    /// How many bytes wait to be written.
    unwritten: Arc<AtomicUsize>,
    work: mpsc::UnboundedSender<(Ticket, FileWork)>,
    pub(super) filed: mpsc::UnboundedReceiver<(Ticket, Result<String, FileError>)>,
    /// What the session has not been told yet; while there is any, the agent is not read.
    pub(super) pending: VecDeque<AgentOutput>,
}

impl Runner {
    pub(super) fn new(
        spec: &AgentSpec,
        adapter: Box<dyn Adapter>,
        group: Group,
        stdin: ChildStdin,
    ) -> Self {
        // Bounded by `UNWRITTEN`.
        let (lines_out, lines_in) = mpsc::unbounded_channel();
        let unwritten = Arc::new(AtomicUsize::new(0));
        drop(tokio::spawn(pipes::write_lines(
            stdin,
            lines_in,
            Arc::clone(&unwritten),
        )));
        // Bounded by what the agent asks without reading answers, and so by `UNWRITTEN` too.
        let (work, work_in) = mpsc::unbounded_channel();
        let (filed_out, filed) = mpsc::unbounded_channel();
        drop(tokio::spawn(pipes::do_file_work(
            spec.dir.clone(),
            work_in,
            filed_out,
        )));
        Self {
            adapter,
            lines: Lines::default(),
            garbage: Garbage::default(),
            phase: Phase::Starting(Instant::now() + spec.start_within),
            start_within: spec.start_within,
            grace: spec.grace,
            group,
            start_settled: false,
            drained: false,
            lines_out: Some(lines_out),
            unwritten,
            work,
            filed,
            pending: VecDeque::new(),
        }
    }

    pub(super) const fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Starting(_) | Phase::Running)
    }

    pub(super) const fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    pub(super) const fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Draining(..))
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running => None,
            Phase::Starting(at)
            | Phase::Leaving(at)
            | Phase::Terminating(at)
            | Phase::Killed(at)
            | Phase::Draining(at, _) => Some(at),
        }
    }

    /// The end, once there is nothing left to read.
    pub(super) const fn finished(&self, readable: bool) -> Option<ExitStatus> {
        match self.phase {
            Phase::Draining(_, status) if self.drained || !readable => Some(status),
            Phase::Starting(_)
            | Phase::Running
            | Phase::Leaving(_)
            | Phase::Terminating(_)
            | Phase::Killed(_)
            | Phase::Draining(..) => None,
        }
    }

    pub(super) fn begin(&mut self) {
        let steps = self.adapter.begin();
        self.carry_out(steps);
    }

    pub(super) fn printed(&mut self, bytes: &[u8]) {
        if let Phase::Draining(at, _) = &mut self.phase {
            *at = Instant::now() + LAST_WORDS;
        }
        for piece in self.lines.feed(bytes) {
            self.take_in(piece);
        }
    }

    /// The agent closed its standard output: nothing will come any more.
    pub(super) fn silent(&mut self) {
        if let Some(piece) = self.lines.finish() {
            self.take_in(piece);
        }
        self.stop();
    }

    fn take_in(&mut self, piece: Piece) {
        let problem = match piece {
            Piece::Line(line) => match RawMessage::parse(&line) {
                Ok(message) if message.value().is_object() => {
                    let steps = self.adapter.hear(&message);
                    return self.carry_out(steps);
                }
                Ok(_) | Err(_) => Garbage::quote(&line),
            },
            Piece::TooLong { bytes } => {
                format!("a line of {bytes} bytes, which is too long, was skipped")
            }
        };
        if let Some(text) = self.garbage.note(problem) {
            self.say(Said::Notice {
                code: Code::AgentGarbage,
                text,
            });
        }
    }

    pub(super) fn obey(&mut self, order: Order) {
        let steps = self.adapter.obey(order);
        self.carry_out(steps);
    }

    pub(super) fn filed(&mut self, ticket: Ticket, outcome: Result<String, FileError>) {
        let steps = self.adapter.filed(ticket, outcome);
        self.carry_out(steps);
    }

    fn carry_out(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Say(said) => self.say(said),
                Step::Send(line) => self.send(line),
                // Its receiver lives as long as the runner.
                Step::File { ticket, work } => drop(self.work.send((ticket, work))),
            }
        }
    }

    fn say(&mut self, said: Said) {
        let started = matches!(said, Said::Started { .. });
        let failed = matches!(said, Said::StartFailed { .. });
        self.pending.push_back(AgentOutput::Said(said));
        if failed {
            self.start_settled = true;
            self.stop();
        } else if started && matches!(self.phase, Phase::Starting(_)) {
            self.start_settled = true;
            self.phase = Phase::Running;
        }
    }

    fn send(&mut self, line: Box<RawValue>) {
        let Some(lines_out) = &self.lines_out else {
            return;
        };
        let unwritten = self
            .unwritten
            .fetch_add(line.get().len(), Ordering::Relaxed);
        // A writer that is gone means that the agent is, too.
        drop(lines_out.send(line));
        if unwritten > UNWRITTEN {
            let text = "the agent does not read what it is told".to_owned();
            self.say(Said::Notice {
                code: Code::AgentSilent,
                text,
            });
            self.terminate();
        }
    }

    pub(super) fn hand_over(&mut self, permit: mpsc::Permit<'_, AgentOutput>) {
        if let Some(output) = self.pending.pop_front() {
            permit.send(output);
        }
    }

    /// Somebody wants the agent gone: a start that was cut short has not failed.
    pub(super) fn dismiss(&mut self) {
        self.start_settled = true;
        self.stop();
    }

    /// Lets the agent leave: without standard input there is nothing to stay for.
    fn stop(&mut self) {
        if self.is_up() {
            self.lines_out = None;
            self.phase = Phase::Leaving(Instant::now() + self.grace);
        }
    }

    fn terminate(&mut self) {
        self.lines_out = None;
        self.group.signal(Signal::TERM);
        self.phase = Phase::Terminating(Instant::now() + self.grace);
    }

    pub(super) fn late(&mut self) {
        match self.phase {
            Phase::Running => {}
            Phase::Starting(_) => {
                self.start_settled = true;
                let text = format!(
                    "the agent did not answer its first request within {} s; `agent_start_s` in config.toml gives it longer",
                    self.start_within.as_secs()
                );
                self.pending.push_back(AgentOutput::Said(Said::StartFailed {
                    code: Code::AgentSilent,
                    text,
                }));
                self.terminate();
            }
            Phase::Leaving(_) => self.terminate(),
            Phase::Terminating(_) => {
                self.group.signal(Signal::KILL);
                self.phase = Phase::Killed(Instant::now() + LAST_WORDS);
            }
            // A program in an uninterruptible wait: it is dead as soon as that is over.
            Phase::Killed(_) => self.phase = Phase::Killed(Instant::now() + LAST_WORDS),
            // While the session is slow, there may be more to read.
            Phase::Draining(_, status) if !self.pending.is_empty() => {
                self.phase = Phase::Draining(Instant::now() + LAST_WORDS, status);
            }
            Phase::Draining(..) => self.drained = true,
        }
    }

    pub(super) fn ended(&mut self, status: io::Result<ExitStatus>) {
        self.group.end();
        self.lines_out = None;
        let status = status.unwrap_or_default();
        self.phase = Phase::Draining(Instant::now() + LAST_WORDS, status);
    }

    pub(super) fn last_words(&mut self, status: ExitStatus, stderr: &str) {
        if let Some(text) = self.garbage.rest() {
            self.pending.push_back(AgentOutput::Said(Said::Notice {
                code: Code::AgentGarbage,
                text,
            }));
        }
        let (code, signal) = (status.code(), status.signal());
        if !self.start_settled {
            let how = signal.map_or_else(
                || format!("with code {}", code.unwrap_or_default()),
                |signal| format!("by signal {signal}"),
            );
            let text = format!(
                "the agent's program ended {how} before it answered: {}",
                stderr.trim_end()
            );
            self.pending.push_back(AgentOutput::Said(Said::StartFailed {
                code: Code::AgentExited,
                text,
            }));
        }
        self.pending.push_back(AgentOutput::Exited {
            code,
            signal,
            stderr: stderr.to_owned(),
        });
    }
}

/// Lines that are not the protocol: the first few are shown, the rest are counted.
#[derive(Debug, Default)]
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

/// How many bytes may wait to be written to an agent that does not read.
const UNWRITTEN: usize = 64 << 20;
