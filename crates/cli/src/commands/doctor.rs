//! `farhelm doctor`: looks at everything that a message needs on its way, in the order in which it
//! needs it, and names the first thing that is wrong with what to do about it.
//!
//! It changes nothing, and it asks nobody to believe it: what can be tried is tried, up to a message
//! that goes to the host or a device and comes back.

use farhelm_host::local::{LocalClient, socket_of};
use farhelm_proto::Code;

use super::Context;
use crate::failure::Failure;
use crate::output;
use crate::station::device_folder;

mod device;
mod host;
mod machine;
mod relay;

/// How something looked at was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    Failed,
    /// Nobody needs it, or it is for information.
    Note,
    /// Something that it depends on failed.
    Skipped,
}

/// One thing looked at.
#[derive(Debug, serde::Serialize)]
struct Check {
    check: &'static str,
    state: State,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cure: Option<String>,
}

/// Everything looked at so far; says each as it comes.
struct Report {
    quiet: bool,
    checks: Vec<Check>,
}

/// What is wrong with one thing, and what to do.
#[derive(Debug)]
struct Trouble {
    code: Code,
    text: String,
    cure: String,
}

impl Trouble {
    fn new(code: Code, text: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
            cure: cure.into(),
        }
    }
}

impl Report {
    fn add(&mut self, check: Check) {
        if !self.quiet {
            let mark = match check.state {
                State::Ok => "ok",
                State::Failed => "FAIL",
                State::Note => "note",
                State::Skipped => "-",
            };
            output::line(&format!("{mark:<5} {:<13} {}", check.check, check.text));
        }
        self.checks.push(check);
    }

    fn note(&mut self, check: &'static str, text: impl Into<String>) {
        self.say(check, State::Note, text);
    }

    fn skip(&mut self, check: &'static str, why: impl Into<String>) {
        self.say(check, State::Skipped, why);
    }

    fn say(&mut self, check: &'static str, state: State, text: impl Into<String>) {
        let text = text.into();
        self.add(Check {
            check,
            state,
            text,
            code: None,
            cure: None,
        });
    }

    /// Notes what came of looking at something; whether it is well.
    fn look(&mut self, check: &'static str, found: Result<String, Trouble>) -> bool {
        match found {
            Ok(text) => {
                self.say(check, State::Ok, text);
                true
            }
            Err(Trouble { code, text, cure }) => {
                self.add(Check {
                    check,
                    state: State::Failed,
                    text,
                    code: Some(code),
                    cure: Some(cure),
                });
                false
            }
        }
    }

    /// The first thing that failed, as everybody is told of a failure.
    fn failure(&self) -> Option<Failure> {
        let failed = self
            .checks
            .iter()
            .find(|check| check.state == State::Failed)?;
        let cure = failed.cure.as_deref().unwrap_or_default();
        let text = format!("{}: {}; {cure}", failed.check, failed.text);
        Some(Failure::new(failed.code.unwrap_or(Code::Internal), text))
    }
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let mut report = Report {
        quiet: context.json,
        checks: Vec::new(),
    };
    let runs = LocalClient::new(&socket_of(&context.home))
        .is_running()
        .await;
    let is_host = runs || context.home.join("host.key").exists();
    let is_device = device_folder(&context.home).exists();
    if context.host.is_some() || (is_device && !is_host) {
        device::look(context, &mut report).await?;
    } else {
        host::look(context, &mut report).await;
    }
    if context.json {
        output::json(&serde_json::json!({ "checks": report.checks }));
    }
    match report.failure() {
        Some(failure) => Err(failure),
        None => {
            if !context.json {
                output::line("all is well");
            }
            Ok(())
        }
    }
}
