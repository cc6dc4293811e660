//! An agent's program: started in its own process group, spoken to by lines, watched, and ended.
//!
//! One task owns the program and its adapter. It never waits for a slow reader of its outputs
//! without listening to orders, and never stops reading the agent because the agent does not read.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use farhelm_core::agent::{Order, Said};
use farhelm_proto::Code;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::group::Group;
use self::runner::Runner;
use super::files::FileError;
use super::stderr::Tail;
use super::{Adapter, AgentError, Launch, Ticket};

mod group;
mod pipes;
mod runner;

/// A program to start.
#[derive(Clone, Debug)]
pub struct AgentSpec {
    /// The program's file.
    pub program: PathBuf,
    /// What it is started with.
    pub args: Vec<String>,
    /// All of its environment.
    pub env: BTreeMap<OsString, OsString>,
    /// The folder it works in, and the only one in which its adapter touches files.
    pub dir: PathBuf,
    /// Where its standard error is kept, bounded; nowhere if there is no path.
    pub stderr: Option<PathBuf>,
    /// How long it may take until its adapter says [`Said::Started`].
    pub start_within: Duration,
    /// How long it may take to end after its standard input was closed, and again after it was
    /// asked to terminate; then it is killed.
    pub grace: Duration,
    /// What a person does when the program is missing.
    pub install: Option<String>,
}

impl AgentSpec {
    /// A program with an empty environment and the usual patience.
    #[must_use]
    pub const fn new(program: PathBuf, args: Vec<String>, dir: PathBuf) -> Self {
        Self {
            program,
            args,
            env: BTreeMap::new(),
            dir,
            stderr: None,
            start_within: Launch::START_WITHIN,
            grace: Duration::from_secs(3),
            install: None,
        }
    }
}

/// What comes of a running agent, in order; [`AgentOutput::Exited`] is the last.
#[derive(Debug)]
pub enum AgentOutput {
    /// The agent, or its shell, said something.
    Said(Said),
    /// The program has ended, and with it everything in its process group.
    Exited {
        /// Its exit code.
        code: Option<i32>,
        /// The signal that killed it.
        signal: Option<i32>,
        /// The end of what it wrote to its standard error.
        stderr: String,
    },
}

/// Starts agents.
#[derive(Debug)]
pub struct AgentProcess;

/// A running agent. Dropping it stops the agent.
#[derive(Debug)]
pub struct AgentHandle {
    orders: mpsc::UnboundedSender<Order>,
    stop: CancellationToken,
    tail: Tail,
    pid: u32,
}

/// The agent has ended and takes no orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent has ended")]
pub struct Gone;

impl AgentHandle {
    /// Gives the agent an order. Orders wait until the agent has started.
    ///
    /// # Errors
    ///
    /// [`Gone`] when the agent has ended.
    pub fn order(&self, order: Order) -> Result<(), Gone> {
        self.orders.send(order).map_err(|_| Gone)
    }

    /// Ends the agent: its standard input is closed, then, after a grace, its process group is
    /// asked to terminate, then killed. [`AgentOutput::Exited`] follows.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// The end of what it wrote to its standard error so far.
    #[must_use]
    pub fn stderr_tail(&self) -> String {
        self.tail.text()
    }

    /// Its process id, which is also that of its group.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for AgentHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl AgentProcess {
    /// Starts a program and the adapter over it.
    ///
    /// # Errors
    ///
    /// [`Code::FolderMissing`], [`Code::AgentMissing`], or [`Code::AgentExited`] when the system
    /// does not run it.
    pub fn start(
        spec: &AgentSpec,
        adapter: Box<dyn Adapter>,
    ) -> Result<(AgentHandle, mpsc::Receiver<AgentOutput>), AgentError> {
        let mut child = spawn(spec)?;
        let pid = child.id().unwrap_or_default();
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(AgentError::new(
                Code::Internal,
                "the agent was started without pipes",
            ));
        };
        // Bounded by what people ask: one prompt at a time, and an answer for each question.
        let (orders, orders_in) = mpsc::unbounded_channel();
        let (outputs, outputs_in) = mpsc::channel(OUTPUTS);
        let stop = CancellationToken::new();
        let tail = Tail::default();
        let stderr = tokio::spawn(pipes::read_stderr(
            stderr,
            tail.clone(),
            spec.stderr.clone(),
        ));
        let runner = Runner::new(spec, adapter, Group::of(pid), stdin);
        let io = Io {
            child,
            stdout: Some(stdout),
            orders: orders_in,
            stop: stop.clone(),
        };
        drop(tokio::spawn(run(runner, io, outputs, stderr, tail.clone())));
        Ok((
            AgentHandle {
                orders,
                stop,
                tail,
                pid,
            },
            outputs_in,
        ))
    }
}

fn spawn(spec: &AgentSpec) -> Result<Child, AgentError> {
    if !spec.dir.is_dir() {
        let text = format!("{} is not a folder", spec.dir.display());
        return Err(AgentError::new(Code::FolderMissing, text));
    }
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.args)
        .env_clear()
        .envs(&spec.env)
        .current_dir(&spec.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command.spawn().map_err(|error| {
        let hint = spec
            .install
            .as_ref()
            .map(|install| format!("; install it with `{install}`"))
            .unwrap_or_default();
        let missing = matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
        );
        let code = if missing {
            Code::AgentMissing
        } else {
            Code::AgentExited
        };
        AgentError::new(
            code,
            format!("{} cannot be run: {error}{hint}", spec.program.display()),
        )
    })
}

/// What the task waits on.
struct Io {
    child: Child,
    /// Nothing once it has ended.
    stdout: Option<ChildStdout>,
    orders: mpsc::UnboundedReceiver<Order>,
    stop: CancellationToken,
}

/// What can wake the task.
enum Input<'a> {
    /// The agent printed so many bytes; none at the end.
    Printed(usize),
    Order(Box<Order>),
    Filed(Ticket, Result<String, FileError>),
    /// The reader of the outputs has room.
    Room(mpsc::Permit<'a, AgentOutput>),
    /// Nobody wants the agent any more.
    Stop,
    /// The time of the phase is over.
    Late,
    Ended(io::Result<ExitStatus>),
}

async fn run(
    mut runner: Runner,
    mut io: Io,
    outputs: mpsc::Sender<AgentOutput>,
    stderr: JoinHandle<()>,
    tail: Tail,
) {
    let mut buffer = vec![0; CHUNK];
    runner.begin();
    let status = loop {
        if let Some(status) = runner.finished(io.stdout.is_some()) {
            break status;
        }
        let input = next(&mut io, &outputs, &mut runner, &mut buffer).await;
        match input {
            Input::Printed(0) => {
                io.stdout = None;
                runner.silent();
            }
            Input::Printed(count) => runner.printed(&buffer[..count]),
            Input::Order(order) => runner.obey(*order),
            Input::Filed(ticket, outcome) => runner.filed(ticket, outcome),
            Input::Room(permit) => runner.hand_over(permit),
            Input::Stop => runner.dismiss(),
            Input::Late => runner.late(),
            Input::Ended(status) => runner.ended(status),
        }
    };
    drop(tokio::time::timeout(LAST_WORDS, stderr).await);
    runner.last_words(status, &tail.text());
    for output in runner.pending.drain(..) {
        if outputs.send(output).await.is_err() {
            return;
        }
    }
}

/// Waits for the next input. Every arm is cancel-safe: reads land in `buffer` whole or not at all.
async fn next<'a>(
    io: &mut Io,
    outputs: &'a mpsc::Sender<AgentOutput>,
    runner: &mut Runner,
    buffer: &mut [u8],
) -> Input<'a> {
    let Io {
        child,
        stdout,
        orders,
        stop,
    } = io;
    let full = !runner.pending.is_empty();
    let deadline = runner.deadline();
    tokio::select! {
        biased;
        () = stop.cancelled(), if runner.is_up() => Input::Stop,
        Some(order) = orders.recv(), if runner.is_running() => Input::Order(Box::new(order)),
        Some((ticket, outcome)) = runner.filed.recv() => Input::Filed(ticket, outcome),
        status = child.wait(), if !runner.has_ended() => Input::Ended(status),
        permit = outputs.reserve(), if full => permit.map_or(Input::Stop, Input::Room),
        count = read(stdout, buffer), if !full && stdout.is_some() => Input::Printed(count),
        () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Input::Late,
    }
}

/// Reads once; an error is the end.
async fn read<R: AsyncRead + Unpin>(from: &mut Option<R>, buffer: &mut [u8]) -> usize {
    match from {
        Some(from) => from.read(buffer).await.unwrap_or(0),
        None => 0,
    }
}

/// How many outputs wait for the session at most, besides those of one read.
const OUTPUTS: usize = 64;
/// How much is read of the agent at once.
const CHUNK: usize = 64 << 10;
/// How long an ended agent's pipes are read on while somebody else holds them open.
const LAST_WORDS: Duration = Duration::from_millis(500);
