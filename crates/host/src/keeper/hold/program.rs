//! The agent's program: started in its own process group, its pipes, and how it is ended.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use farhelm_proto::Code;
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};

use crate::agents::AgentError;
use crate::keeper::stderr::{Keep, Tail};
use crate::keeper::{End, Start};

/// A program with its pipes.
pub(super) struct Program {
    child: Child,
    /// Readable once the program has ended, where the system has that.
    watch: Option<OwnedFd>,
    /// Nothing once whoever was left in it has been ended.
    group: Option<Pid>,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    tail: Tail,
    keep: Option<Keep>,
    /// Lines that have to be written, the first of them in part.
    queue: VecDeque<(u64, Vec<u8>)>,
    part: usize,
    accepted: u64,
    written: u64,
    phase: Phase,
    grace: Duration,
}

/// How far the program's life is.
#[derive(Clone, Debug)]
enum Phase {
    Running,
    /// Its standard input is closed; it has until then to leave.
    Leaving(Instant),
    /// It was asked to terminate, and has until then.
    Terminating(Instant),
    /// It was killed; the system has until then to say so.
    Killed(Instant),
    /// It has ended; what it printed last is read until then.
    Draining(Instant, ExitStatus),
    /// There is nothing left to read.
    Ended(End),
}

impl Program {
    /// Starts it.
    pub(super) fn start(start: &Start) -> Result<Self, AgentError> {
        let mut child = spawn(start)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            let text = "the agent was started without pipes";
            return Err(AgentError::new(Code::Internal, text));
        };
        let flags = rustix::fs::fcntl_getfl(&stdin).unwrap_or(OFlags::empty());
        rustix::fs::fcntl_setfl(&stdin, flags | OFlags::NONBLOCK).unwrap_or_default();
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let keep = start.stderr.as_ref();
        Ok(Self {
            watch: pid.and_then(watch),
            group: pid,
            stdin: Some(stdin),
            stdout: Some(stdout),
            stderr: Some(stderr),
            tail: Tail::default(),
            keep: keep.and_then(|path| Keep::open(path).ok()),
            queue: VecDeque::new(),
            part: 0,
            accepted: 0,
            written: 0,
            phase: Phase::Running,
            grace: Duration::from_millis(start.grace_millis),
            child,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) const fn accepted(&self) -> u64 {
        self.accepted
    }

    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    /// How it ended, once there is nothing left to read.
    pub(super) const fn end(&self) -> Option<&End> {
        match &self.phase {
            Phase::Ended(end) => Some(end),
            Phase::Running
            | Phase::Leaving(_)
            | Phase::Terminating(_)
            | Phase::Killed(_)
            | Phase::Draining(..) => None,
        }
    }

    /// Whether its standard output has ended.
    pub(super) const fn is_silent(&self) -> bool {
        self.stdout.is_none()
    }

    pub(super) fn stdout(&self) -> Option<BorrowedFd<'_>> {
        self.stdout.as_ref().map(|pipe| pipe.as_fd())
    }

    pub(super) fn stderr(&self) -> Option<BorrowedFd<'_>> {
        self.stderr.as_ref().map(|pipe| pipe.as_fd())
    }

    /// Its standard input, while something waits to be written there.
    pub(super) fn stdin(&self) -> Option<BorrowedFd<'_>> {
        let waits = !self.queue.is_empty();
        self.stdin
            .as_ref()
            .filter(|_| waits)
            .map(|pipe| pipe.as_fd())
    }

    /// What becomes readable when it ends.
    pub(super) fn watch(&self) -> Option<BorrowedFd<'_>> {
        let lives = !self.has_ended();
        self.watch
            .as_ref()
            .filter(|_| lives)
            .map(|watch| watch.as_fd())
    }

    /// When it must be looked at again at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let unwatched =
            (self.watch.is_none() && !self.has_ended()).then(|| Instant::now() + LOOK_EVERY);
        let phase = match &self.phase {
            Phase::Running | Phase::Ended(_) => None,
            Phase::Leaving(at)
            | Phase::Terminating(at)
            | Phase::Killed(at)
            | Phase::Draining(at, _) => Some(*at),
        };
        [unwatched, phase].into_iter().flatten().min()
    }

    /// Takes a line to write. A number that was taken before changes nothing; false says that
    /// one before it is missing.
    pub(super) fn write(&mut self, number: u64, line: &[u8]) -> bool {
        if number <= self.accepted {
            return true;
        }
        if number != self.accepted + 1 {
            return false;
        }
        self.accepted = number;
        if self.stdin.is_some() && matches!(self.phase, Phase::Running) {
            let mut line = line.to_vec();
            line.push(b'\n');
            self.queue.push_back((number, line));
            self.flush();
        }
        true
    }

    /// Writes what the pipe takes.
    pub(super) fn flush(&mut self) {
        while let (Some(stdin), Some((number, line))) = (&mut self.stdin, self.queue.front()) {
            match stdin.write(&line[self.part..]) {
                Ok(count) => self.part += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It does not listen any more; its end is on its way.
                Err(_) => self.stdin = None,
            }
            if self.part == line.len() {
                fail::point("keeper.program.line_written");
                self.written = *number;
                self.part = 0;
                self.queue.pop_front();
            }
        }
        if self.stdin.is_none() {
            self.queue.clear();
        } else if !matches!(self.phase, Phase::Running) {
            self.stdin = None;
        }
    }

    /// Reads its standard output once; nothing at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let count = read(self.stdout.as_mut(), buffer)?;
        if let Phase::Draining(at, _) = &mut self.phase {
            *at = Instant::now() + LAST_WORDS;
        }
        if count == 0 {
            self.stdout = None;
        }
        Some(count)
    }

    /// Reads its standard error once.
    pub(super) fn read_stderr(&mut self, buffer: &mut [u8]) {
        let Some(count) = read(self.stderr.as_mut(), buffer) else {
            return;
        };
        if count == 0 {
            self.stderr = None;
        }
        self.tail.push(&buffer[..count]);
        if self
            .keep
            .as_mut()
            .is_some_and(|keep| keep.push(&buffer[..count]).is_err())
        {
            self.keep = None;
        }
    }

    /// Lets it leave, or asks it to terminate.
    pub(super) fn finish(&mut self, at_once: bool) {
        match self.phase {
            Phase::Running if !at_once => {
                self.phase = Phase::Leaving(Instant::now() + self.grace);
                self.flush();
            }
            Phase::Running | Phase::Leaving(_) if at_once => self.terminate(),
            Phase::Running
            | Phase::Leaving(_)
            | Phase::Terminating(_)
            | Phase::Killed(_)
            | Phase::Draining(..)
            | Phase::Ended(_) => {}
        }
    }

    /// Takes note of what has become of it by now.
    pub(super) fn look(&mut self, is_read: bool) {
        if !self.has_ended()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            fail::point("keeper.program.ended");
            // Whoever is left goes too, and the number is free for others.
            self.signal(Signal::KILL);
            self.group = None;
            self.stdin = None;
            self.queue.clear();
            self.phase = Phase::Draining(Instant::now() + LAST_WORDS, status);
        }
        let now = Instant::now();
        match self.phase.clone() {
            Phase::Leaving(at) if now >= at => self.terminate(),
            Phase::Terminating(at) if now >= at => {
                self.signal(Signal::KILL);
                self.phase = Phase::Killed(now + LAST_WORDS);
            }
            // A program in an uninterruptible wait: it is dead as soon as that is over.
            Phase::Killed(at) if now >= at => self.phase = Phase::Killed(now + LAST_WORDS),
            Phase::Draining(at, status) => {
                let is_all = self.stdout.is_none() && self.stderr.is_none();
                if is_all || (now >= at && is_read) {
                    self.stdout = None;
                    self.stderr = None;
                    self.phase = Phase::Ended(End {
                        code: status.code(),
                        signal: status.signal(),
                        stderr: self.tail.text(),
                    });
                } else if now >= at {
                    self.phase = Phase::Draining(now + LAST_WORDS, status);
                }
            }
            Phase::Running
            | Phase::Leaving(_)
            | Phase::Terminating(_)
            | Phase::Killed(_)
            | Phase::Ended(_) => {}
        }
    }

    const fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Draining(..) | Phase::Ended(_))
    }

    fn terminate(&mut self) {
        // Before its input ends, so that it is this that ends it.
        self.signal(Signal::TERM);
        self.stdin = None;
        self.queue.clear();
        self.phase = Phase::Terminating(Instant::now() + self.grace);
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // Nobody left in it is what we want.
            rustix::process::kill_process_group(group, signal).unwrap_or_default();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn spawn(start: &Start) -> Result<Child, AgentError> {
    if !start.dir.is_dir() {
        let text = format!("{} is not a folder", start.dir.display());
        return Err(AgentError::new(Code::FolderMissing, text));
    }
    let mut command = Command::new(&start.program);
    command
        .args(&start.args)
        .env_clear()
        .envs(start.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&start.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    take_pages_of_any_size();
    command.spawn().map_err(|error| {
        let missing = matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
        );
        let code = if missing {
            Code::AgentMissing
        } else {
            Code::AgentExited
        };
        let text = format!("{} cannot be run: {error}", start.program.display());
        AgentError::new(code, text)
    })
}

/// Undoes what the daemon chose for itself and this process inherited: an agent runs as it would without us.
fn take_pages_of_any_size() {
    #[cfg(target_os = "linux")]
    rustix::thread::disable_transparent_huge_pages(false).unwrap_or_default();
}

/// Reads once; an error is the end, and nothing says that there was nothing to read.
fn read<R: io::Read>(from: Option<&mut R>, buffer: &mut [u8]) -> Option<usize> {
    match from?.read(buffer) {
        Ok(count) => Some(count),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            None
        }
        Err(_) => Some(0),
    }
}

#[cfg(target_os = "linux")]
fn watch(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn watch(_: Pid) -> Option<OwnedFd> {
    None
}

/// How long an ended agent's pipes are read on while somebody else holds them open.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How often it is looked whether a program has ended, where the system does not say so.
const LOOK_EVERY: Duration = Duration::from_millis(100);
