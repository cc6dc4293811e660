//! A program of ours that is started, killed, frozen and started again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// A command line with the process that runs it, if one does. The process ends with this.
pub struct Program {
    program: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    /// Where its output goes.
    log: PathBuf,
    child: Option<Child>,
}

impl Program {
    /// A program that does not run yet.
    #[must_use]
    pub fn new(
        program: &Path,
        arguments: &[&str],
        environment: &BTreeMap<String, String>,
        log: PathBuf,
    ) -> Self {
        Self {
            program: program.to_owned(),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            environment: environment.clone(),
            log,
            child: None,
        }
    }

    /// Starts it, with these variables besides.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(&mut self, more: &[(&str, &str)]) -> anyhow::Result<()> {
        let log = || {
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.log)
        };
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(log()?)
            .stderr(log()?)
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.context("a program cannot be started")?);
        Ok(())
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Sends it a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // Whoever ended meanwhile does not hear it.
            kill_process(pid, signal).unwrap_or_default();
        }
    }

    /// Kills it, and waits until it is gone.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill().await);
        }
    }

    /// Asks it to end, and waits until it has.
    pub async fn end(&mut self, within: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        self.ended(within).await
    }

    /// Waits until it has ended by itself; nothing when it has not.
    pub async fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        let status = tokio::time::timeout(within, child.wait()).await.ok()?.ok();
        self.child = None;
        status
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        let ended = self
            .child
            .as_mut()
            .is_none_or(|child| child.try_wait().is_ok_and(|status| status.is_some()));
        if ended {
            self.child = None;
        }
        ended
    }

    /// The end of what it put out.
    #[must_use]
    pub fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let skip = text.lines().count().saturating_sub(SAID_LINES);
        text.lines()
            .skip(skip)
            .map(|line| format!("{line}\n"))
            .collect()
    }
}

/// How much of its output a failure shows.
const SAID_LINES: usize = 40;
