//! One run of an agent's program, as its session holds it: what a later daemon must know to take it
//! up again ([`Saved`]), and what only this one knows.

use std::collections::VecDeque;

use farhelm_core::assemble::Assembler;
use farhelm_core::content::BlobRef;
use farhelm_proto::{ApprovalId, SessionId};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use crate::agents::{Interpreter, LongString};
use crate::clip::Long;
use crate::journal::Op;
use crate::keeper::{Standing, Told};

/// How the agent's program was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Start {
    /// With a new conversation, or it has come up.
    Afresh,
    /// With its earlier conversation; it has not come up yet.
    Resuming,
    /// The agent does not know its earlier conversation any more: once its program has ended, it
    /// is started with a new one.
    Forgotten,
}

/// What the journal has of a session's agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Row<S> {
    /// It runs, and this is where its conversation is.
    Running(S),
    /// This run has ended, and that was noted.
    Gone(String),
}

/// Where the conversation with a run is, as of the last line taken.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    /// The name of the run.
    pub(super) run: String,
    pub(super) start: Start,
    pub(super) interpreter: Interpreter,
    pub(super) assembler: Assembler,
    /// Answers on their way, each with the number of its last line.
    pub(super) answers: Vec<(ApprovalId, u64)>,
    /// The number of the last line for the agent.
    pub(super) last_line: u64,
    /// The blobs with the parts of long strings of the line that it is in the middle of. Whoever takes the run up
    /// hears that line from its beginning, and has no use for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) parts: Vec<BlobRef>,
}

impl Saved {
    pub(super) fn new(run: String, start: Start, interpreter: Interpreter) -> Self {
        Self {
            assembler: Assembler::new(run.clone()),
            run,
            start,
            interpreter,
            answers: Vec::new(),
            last_line: 0,
            parts: Vec::new(),
        }
    }
}

/// A run that is attached.
pub(super) struct Running {
    pub(super) saved: Saved,
    pub(super) told: mpsc::Sender<Told>,
    /// Lines that its pipe has not taken.
    lines: VecDeque<(u64, String)>,
    unwritten: usize,
    /// The last line that its pipe has taken.
    written: u64,
    /// The last line of which the journal has that it was taken by the pipe.
    forgotten: u64,
    /// The number of the last thing heard.
    pub(super) place: u64,
    /// The number of the last thing heard whose effects are in the journal.
    taken: u64,
    /// The state as it is in the journal.
    kept: String,
    /// The long strings of the line that is taken just now.
    pub(super) longs: Vec<Long>,
    /// Until when it has to come up.
    pub(super) until: Option<Instant>,
    pub(super) pid: u32,
    /// Its place among those that may run at once.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Running {
    /// A run at the beginning, or taken up again where the journal has it.
    pub(super) fn new(
        saved: Saved,
        standing: &Standing,
        told: mpsc::Sender<Told>,
        taken: u64,
        lines: Vec<(u64, String)>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let mut running = Self {
            saved,
            told,
            unwritten: lines.iter().map(|(_, line)| line.len()).sum(),
            lines: lines.into(),
            written: 0,
            forgotten: 0,
            place: taken,
            taken,
            kept: String::new(),
            longs: Vec::new(),
            until: None,
            pid: standing.pid,
            _permit: permit,
        };
        running.written(standing.written);
        running
    }

    /// What a keeper must be told that has just been attached.
    pub(super) fn greeting(&self, accepted: u64) -> Vec<Told> {
        let hear = Told::Hear { after: self.place };
        let lines = self
            .lines
            .iter()
            .filter(|(number, _)| *number > accepted)
            .map(|(number, line)| Told::Write {
                number: *number,
                line: line.clone(),
            });
        let end = self.saved.interpreter.is_leaving();
        let end = end.then_some(Told::End { at_once: false });
        [hear].into_iter().chain(lines).chain(end).collect()
    }

    /// Numbers a line for the agent. False says that more waits than is bearable.
    pub(super) fn write(&mut self, line: String) -> (u64, bool) {
        self.saved.last_line += 1;
        self.unwritten += line.len();
        self.lines.push_back((self.saved.last_line, line));
        (self.saved.last_line, self.unwritten <= UNWRITTEN)
    }

    /// The line of which the parts came has come: these are its long strings.
    pub(super) fn join(&mut self, strings: Vec<LongString>) {
        let mut parts = std::mem::take(&mut self.saved.parts).into_iter();
        let join = |string: LongString| Long {
            blobs: parts.by_ref().take(string.parts).collect(),
            string,
            is_shown: false,
        };
        self.longs = strings.into_iter().map(join).collect();
    }

    /// Its pipe has taken all lines up to this one.
    pub(super) fn written(&mut self, through: u64) {
        self.written = self.written.max(through);
        while self
            .lines
            .front()
            .is_some_and(|(number, _)| *number <= through)
        {
            if let Some((_, line)) = self.lines.pop_front() {
                self.unwritten -= line.len();
            }
        }
    }

    /// Answers that the agent has been given by now.
    pub(super) fn given(&mut self) -> Vec<ApprovalId> {
        let written = self.written;
        let (given, rest) = std::mem::take(&mut self.saved.answers)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, line)| *line <= written);
        self.saved.answers = rest;
        given.into_iter().map(|(approval, _)| approval).collect()
    }

    /// Whether so much was heard without any effect that it is time to take note of it.
    pub(super) const fn lags(&self) -> bool {
        self.place - self.taken > LAG
    }

    /// What the next commit holds of it: its state where that has changed, and how far it is. A
    /// commit that fails is the end of this run's holder, so that it is taken for done.
    pub(super) fn save(&mut self, session: SessionId) -> Vec<Op> {
        let state = serde_json::to_string(&Row::Running(&self.saved)).unwrap_or_default();
        let state = (state != self.kept).then_some(state);
        let mut ops = Vec::new();
        if state.is_some() || self.place != self.taken {
            self.taken = self.place;
            if let Some(state) = &state {
                self.kept.clone_from(state);
            }
            ops.push(Op::Agent {
                session,
                taken: self.place,
                state,
            });
        }
        if self.written > self.forgotten {
            self.forgotten = self.written;
            ops.push(Op::AgentWritten {
                session,
                through: self.written,
            });
        }
        ops
    }

    /// The last thing heard whose effects are in the journal.
    pub(super) const fn taken(&self) -> u64 {
        self.taken
    }
}

/// How many bytes may wait to be written to an agent that does not read.
const UNWRITTEN: usize = 64 << 20;
/// How much may be heard without any effect before it is taken note of.
const LAG: u64 = 256 << 10;
