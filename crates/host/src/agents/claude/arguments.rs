//! The command line of Claude Code.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::Setup;

/// What the installed version can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Whether it passes on what subagents say.
    pub subagent_text: bool,
}

impl Features {
    /// What the text of `--help` shows.
    #[must_use]
    pub fn of_help(help: &str) -> Self {
        Self {
            subagent_text: help.contains("--forward-subagent-text"),
        }
    }
}

/// The arguments that make it speak the control protocol.
#[must_use]
pub fn arguments(setup: &Setup, features: Features) -> Vec<String> {
    let mut arguments = vec![
        "-p",
        "--input-format",
        "stream-json",
        "--output-format",
        "stream-json",
        "--verbose",
        "--permission-prompt-tool",
        "stdio",
        "--include-partial-messages",
        "--replay-user-messages",
        "--permission-mode",
        &setup.mode,
        if setup.resumed {
            "--resume"
        } else {
            "--session-id"
        },
        &setup.session,
    ];
    if features.subagent_text {
        arguments.push("--forward-subagent-text");
    }
    arguments.into_iter().map(str::to_owned).collect()
}

/// Asks the program what it can do; once for each file, as it costs as much as a start. A program
/// that does not say can do nothing special.
pub async fn probe(program: &Path, env: &BTreeMap<OsString, OsString>, dir: &Path) -> Features {
    let changed = program.metadata().and_then(|data| data.modified()).ok();
    if let Some(known) = recall(program, changed) {
        return known;
    }
    let mut command = tokio::process::Command::new(program);
    command
        .arg("--help")
        .env_clear()
        .envs(env)
        .current_dir(dir)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let help = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(Err(_)) | Err(_) => return Features::default(),
    };
    let features = Features::of_help(&help);
    PROBED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(program.to_owned(), (changed, features));
    features
}

fn recall(program: &Path, changed: Option<SystemTime>) -> Option<Features> {
    let probed = PROBED.lock().unwrap_or_else(PoisonError::into_inner);
    probed
        .get(program)
        .filter(|(when, _)| *when == changed)
        .map(|(_, features)| *features)
}

/// What programs have said, and when they were last changed.
static PROBED: Mutex<BTreeMap<PathBuf, (Option<SystemTime>, Features)>> =
    Mutex::new(BTreeMap::new());
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::super::Conversation;
    use super::*;

    #[test]
    fn the_mode_and_the_conversation_are_always_named() {
        let setup = Setup::new("/w".to_owned(), Conversation::New, None, "u-1".to_owned());
        let line = arguments(&setup, Features::default()).join(" ");
        assert!(
            line.contains("--permission-mode default --session-id u-1"),
            "{line}"
        );
        assert!(!line.contains("--forward-subagent-text"));
        let setup = Setup::new(
            "/w".to_owned(),
            Conversation::Continue("u-0".to_owned()),
            Some("plan".to_owned()),
            "u-1".to_owned(),
        );
        let line = arguments(
            &setup,
            Features {
                subagent_text: true,
            },
        )
        .join(" ");
        assert!(
            line.ends_with("--permission-mode plan --resume u-0 --forward-subagent-text"),
            "{line}"
        );
    }
}
