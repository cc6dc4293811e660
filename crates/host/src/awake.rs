//! Keeps the machine from going to sleep while a turn runs, through the system's own program for
//! that. It holds the machine for as long as its standard input is open or this process lives, so
//! that nothing keeps a machine awake after a daemon that was killed.

use std::process::{Child, Command, Stdio};

/// Whether the machine is kept awake, and by what.
#[derive(Debug)]
pub(crate) struct Awake {
    allowed: bool,
    holding: Option<Child>,
    /// Whether it was said that it cannot be done; once is enough.
    complained: bool,
}

impl Awake {
    pub(crate) const fn new(allowed: bool) -> Self {
        Self {
            allowed,
            holding: None,
            complained: false,
        }
    }

    /// A turn runs somewhere, or none does.
    pub(crate) fn is_needed(&mut self, needed: bool) {
        match (needed && self.allowed, &self.holding) {
            (true, None) => self.hold(),
            (false, Some(_)) => self.let_go(),
            (true, Some(_)) | (false, None) => {}
        }
    }

    fn hold(&mut self) {
        match program().stdin(Stdio::piped()).spawn() {
            Ok(child) => self.holding = Some(child),
            Err(error) => self.complain(&error),
        }
    }

    fn let_go(&mut self) {
        let Some(mut child) = self.holding.take() else {
            return;
        };
        match child.try_wait() {
            Ok(Some(status)) => self.complain(&status),
            Ok(None) | Err(_) => {
                // What it runs ends with its input; the program itself need not be asked.
                drop(child.stdin.take());
                if let Err(error) = child.kill().and_then(|()| child.wait()) {
                    tracing::debug!(%error, "what kept the machine awake has ended by itself");
                }
            }
        }
    }

    fn complain(&mut self, why: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(
                program = ?program().get_program(), %why,
                "the machine may go to sleep while an agent works; `keep_awake = false` in config.toml silences this"
            );
        }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// What holds the machine until its standard input ends.
#[cfg(not(target_os = "macos"))]
fn program() -> Command {
    let mut command = Command::new("systemd-inhibit");
    command.args([
        "--what=sleep:idle",
        "--who=Farhelm",
        "--why=an agent works",
        "--mode=block",
        "cat",
    ]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// What holds the machine for as long as this process lives.
#[cfg(target_os = "macos")]
fn program() -> Command {
    let mut command = Command::new("caffeinate");
    command.args(["-i", "-w", &std::process::id().to_string()]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}
