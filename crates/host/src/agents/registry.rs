//! Which program an agent's name stands for, and how it is made to ask a person.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use farhelm_proto::Code;
use serde::Deserialize;

use super::{AgentError, words};

/// An agent: a program, and how to speak with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// What people call it.
    pub name: String,
    /// The program: a path, or a name on the session's `PATH`.
    pub command: String,
    /// What it is started with.
    pub args: Vec<String>,
    /// What is added to its environment.
    pub env: BTreeMap<String, String>,
    /// The dialect it speaks.
    pub dialect: Dialect,
    /// The mode it is put into; without one, a mode in which a person is asked.
    pub mode: Option<String>,
    /// Whether it is offered to read and write files through us.
    pub files: bool,
    /// What a person does when the program is missing.
    pub install: Option<String>,
}

/// How an agent is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// The Agent Client Protocol.
    #[default]
    Acp,
    /// Claude Code's control protocol.
    Claude,
}

/// An entry of the user's configuration: overrides what is known of that name, or adds an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentEntry {
    /// The program: a path, or a name on the session's `PATH`.
    pub command: Option<String>,
    /// What it is started with.
    pub args: Option<Vec<String>>,
    /// What is added to its environment.
    pub env: BTreeMap<String, String>,
    /// The dialect it speaks: `acp` (unless known otherwise) or `claude`.
    pub dialect: Option<Dialect>,
    /// The mode it is put into.
    pub mode: Option<String>,
}

/// The agents there are: those we know, and the user's entries over them.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    entries: BTreeMap<String, AgentEntry>,
}

impl Registry {
    /// The known agents with the user's entries over them.
    #[must_use]
    pub const fn new(entries: BTreeMap<String, AgentEntry>) -> Self {
        Self { entries }
    }

    /// Every name, in the order in which [`Registry::detect`] looks, the user's own first.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let own = self
            .entries
            .keys()
            .filter(|name| known(name).is_none())
            .cloned();
        own.chain(KNOWN.iter().map(|known| known.name.to_owned()))
            .collect()
    }

    /// The agent of this name.
    ///
    /// # Errors
    ///
    /// [`Code::AgentUnknown`] when there is none, or its entry names no command.
    pub fn find(&self, name: &str) -> Result<Agent, AgentError> {
        let agent = known(name).map(Known::agent);
        let Some(entry) = self.entries.get(name) else {
            return agent.ok_or_else(|| {
                let names = self.names().join(", ");
                AgentError::new(
                    Code::AgentUnknown,
                    format!("no agent is called {name:?}; there are {names}"),
                )
            });
        };
        let mut agent = match (agent, &entry.command) {
            (Some(agent), _) => agent,
            (None, Some(command)) => Agent::of_command(name, command),
            (None, None) => {
                return Err(AgentError::new(
                    Code::AgentUnknown,
                    format!("the entry of agent {name:?} has no `command`"),
                ));
            }
        };
        entry.apply(&mut agent);
        Ok(agent)
    }

    /// The first agent whose program is on `path`: the user's own entries by name, then, of those
    /// we know, `claude`, `codex`, `gemini`, `opencode`, `qwen`, `goose`, `cursor`, `copilot`,
    /// `kimi`, `claude-acp`. Never `scripted`.
    #[must_use]
    pub fn detect(&self, path: Option<&OsString>) -> Option<Agent> {
        let names = self.names();
        let candidates = names.iter().filter(|name| *name != "scripted");
        candidates
            .filter_map(|name| self.find(name).ok())
            .find(|agent| look_up(&agent.command, path, Path::new("/")).is_some())
    }

    /// The agent that a command line starts. A program that we know brings its dialect, mode and
    /// environment along; any other speaks ACP.
    ///
    /// # Errors
    ///
    /// [`Code::AgentUnknown`] when the line cannot be split into words.
    pub fn from_command(&self, line: &str) -> Result<Agent, AgentError> {
        let words = words::split(line)
            .map_err(|error| AgentError::new(Code::AgentUnknown, format!("{line:?}: {error}")))?;
        let mut words = words.into_iter();
        let command = words.next().unwrap_or_default();
        let program = Path::new(&command)
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or(&command);
        let mut agent = Agent::of_command(program, &command);
        agent.command = command;
        agent.args = words.collect();
        Ok(agent)
    }
}

impl AgentEntry {
    fn apply(&self, agent: &mut Agent) {
        if let Some(command) = &self.command {
            agent.command.clone_from(command);
            agent.install = None;
        }
        if let Some(args) = &self.args {
            agent.args.clone_from(args);
        }
        if let Some(dialect) = self.dialect {
            agent.dialect = dialect;
        }
        if self.mode.is_some() {
            agent.mode.clone_from(&self.mode);
        }
        agent.env.extend(self.env.clone());
    }
}

impl Agent {
    /// What is known of a program; one that is not known speaks ACP.
    fn of_command(name: &str, command: &str) -> Self {
        let program = Path::new(command)
            .file_name()
            .and_then(|program| program.to_str());
        let known = KNOWN
            .iter()
            .find(|known| Some(known.command) == program && known.command != SCRIPTED);
        match known {
            Some(known) => Self {
                name: name.to_owned(),
                command: command.to_owned(),
                ..known.agent()
            },
            None => Self {
                name: name.to_owned(),
                command: command.to_owned(),
                args: Vec::new(),
                env: BTreeMap::new(),
                dialect: Dialect::Acp,
                mode: None,
                files: true,
                install: None,
            },
        }
    }
}

/// The file of an agent's program, looked up as the session would.
///
/// # Errors
///
/// [`Code::AgentMissing`], saying what to install.
pub fn find_program(
    agent: &Agent,
    path: Option<&OsString>,
    dir: &Path,
) -> Result<PathBuf, AgentError> {
    if agent.name == "scripted" && agent.command == SCRIPTED {
        let here = std::env::current_exe();
        return here.map_err(|error| {
            AgentError::new(Code::AgentMissing, format!("our own program: {error}"))
        });
    }
    look_up(&agent.command, path, dir).ok_or_else(|| {
        let hint = agent
            .install
            .as_ref()
            .map(|install| format!("; install it with `{install}`"))
            .unwrap_or_default();
        let (program, lack) = if agent.command.contains('/') {
            (dir.join(&agent.command), "is not an executable file")
        } else {
            (PathBuf::from(&agent.command), "is not on the PATH")
        };
        let text = format!(
            "agent {:?} needs the program {program:?}, which {lack}{hint}",
            agent.name
        );
        AgentError::new(Code::AgentMissing, text)
    })
}

fn look_up(command: &str, path: Option<&OsString>, dir: &Path) -> Option<PathBuf> {
    let runs = |file: &PathBuf| {
        file.metadata()
            .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    if command.contains('/') {
        return Some(dir.join(command)).filter(runs);
    }
    std::env::split_paths(path?)
        .map(|folder| dir.join(folder).join(command))
        .find(runs)
}

struct Known {
    name: &'static str,
    command: &'static str,
    args: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
    dialect: Dialect,
    mode: Option<&'static str>,
    install: Option<&'static str>,
}

impl Known {
    fn agent(&self) -> Agent {
        Agent {
            name: self.name.to_owned(),
            command: self.command.to_owned(),
            args: self.args.iter().map(|&arg| arg.to_owned()).collect(),
            env: self
                .env
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            dialect: self.dialect,
            mode: self.mode.map(str::to_owned),
            files: !TAKES_NO_FOR_AN_ERROR.contains(&self.name),
            install: self.install.map(str::to_owned),
        }
    }
}

fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// Stands for our own program in the entry of the scripted agent.
const SCRIPTED: &str = "farhelm";

/// Agents that cannot make a file when a client tells them that it does not exist. They use the
/// file system themselves instead.
const TAKES_NO_FOR_AN_ERROR: &[&str] = &["gemini", "qwen"];

/// The agents we know, in the order of [`Registry::detect`].
const KNOWN: &[Known] = &[
    Known {
        name: "claude",
        command: "claude",
        args: &[],
        env: &[],
        dialect: Dialect::Claude,
        mode: Some("default"),
        install: Some("npm install -g @anthropic-ai/claude-code"),
    },
    Known {
        name: "codex",
        command: "codex-acp",
        args: &[],
        env: &[],
        dialect: Dialect::Acp,
        mode: Some("read-only"),
        install: Some("npm install -g @agentclientprotocol/codex-acp"),
    },
    Known {
        name: "gemini",
        command: "gemini",
        args: &["--acp"],
        env: &[],
        dialect: Dialect::Acp,
        mode: Some("default"),
        install: Some("npm install -g @google/gemini-cli"),
    },
    Known {
        name: "opencode",
        command: "opencode",
        args: &["acp"],
        // Its modes say nothing about permissions, and without this it allows everything. The
        // variable goes over the user's own configuration file, which stays as it is.
        env: &[(
            "OPENCODE_PERMISSION",
            r#"{"edit":"ask","bash":"ask","webfetch":"ask"}"#,
        )],
        dialect: Dialect::Acp,
        mode: None,
        install: Some("npm install -g opencode-ai"),
    },
    Known {
        name: "qwen",
        command: "qwen",
        args: &["--acp"],
        env: &[],
        dialect: Dialect::Acp,
        mode: Some("default"),
        install: Some("npm install -g @qwen-code/qwen-code"),
    },
    Known {
        name: "goose",
        command: "goose",
        args: &["acp"],
        env: &[("GOOSE_MODE", "approve")],
        dialect: Dialect::Acp,
        mode: None,
        install: None,
    },
    Known {
        name: "cursor",
        command: "cursor-agent",
        args: &["acp"],
        env: &[],
        dialect: Dialect::Acp,
        mode: None,
        install: None,
    },
    Known {
        name: "copilot",
        command: "copilot",
        args: &["--acp"],
        env: &[],
        dialect: Dialect::Acp,
        mode: None,
        install: Some("npm install -g @github/copilot"),
    },
    Known {
        name: "kimi",
        command: "kimi",
        args: &["acp"],
        env: &[],
        dialect: Dialect::Acp,
        mode: None,
        install: None,
    },
    Known {
        name: "claude-acp",
        command: "claude-agent-acp",
        args: &[],
        env: &[],
        dialect: Dialect::Acp,
        mode: Some("default"),
        install: Some("npm install -g @agentclientprotocol/claude-agent-acp"),
    },
    Known {
        name: "scripted",
        command: SCRIPTED,
        args: &["scripted-agent"],
        env: &[],
        dialect: Dialect::Acp,
        mode: Some("default"),
        install: None,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(text: &str) -> Registry {
        Registry::new(toml::from_str(text).unwrap())
    }

    fn program(folder: &Path, name: &str) -> OsString {
        std::fs::write(folder.join(name), "").unwrap();
        std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o755))
            .unwrap();
        folder.into()
    }

    #[test]
    fn an_entry_goes_over_what_is_known_and_adds_what_is_not() {
        let registry = registry(
            "[gemini]\nmode = \"plan\"\nenv = { A = \"1\" }\n[mine]\ncommand = \"mine\"\nargs = [\"--acp\"]\n",
        );
        let gemini = registry.find("gemini").unwrap();
        assert_eq!(
            (gemini.command.as_str(), gemini.mode.as_deref()),
            ("gemini", Some("plan"))
        );
        assert_eq!(gemini.args, ["--acp"]);
        assert_eq!(gemini.env["A"], "1");
        let mine = registry.find("mine").unwrap();
        assert_eq!((mine.dialect, mine.args.len()), (Dialect::Acp, 1));
        assert_eq!(
            registry.find("nobody").unwrap_err().code,
            Code::AgentUnknown
        );
    }

    #[test]
    fn an_entry_with_an_unknown_key_is_refused() {
        assert!(toml::from_str::<BTreeMap<String, AgentEntry>>("[a]\ncomand = \"x\"").is_err());
    }

    #[test]
    fn a_command_line_brings_what_is_known_of_its_program() {
        let registry = Registry::default();
        let claude = registry
            .from_command("/opt/bin/claude --model 'some model'")
            .unwrap();
        assert_eq!(
            (claude.dialect, claude.command.as_str()),
            (Dialect::Claude, "/opt/bin/claude")
        );
        assert_eq!(claude.args, ["--model", "some model"]);
        let gemini = registry.from_command("gemini --acp").unwrap();
        assert_eq!(
            (gemini.mode.as_deref(), gemini.files),
            (Some("default"), false)
        );
        let other = registry.from_command("my-agent --acp").unwrap();
        assert_eq!(
            (other.dialect, other.name.as_str(), other.mode),
            (Dialect::Acp, "my-agent", None)
        );
        assert!(registry.from_command("'").is_err());
    }

    #[test]
    fn the_first_agent_that_is_installed_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = program(folder.path(), "opencode");
        std::fs::write(folder.path().join("claude"), "not executable").unwrap();
        assert_eq!(
            Registry::default().detect(Some(&path)).unwrap().name,
            "opencode"
        );
        program(folder.path(), "codex-acp");
        assert_eq!(
            Registry::default().detect(Some(&path)).unwrap().name,
            "codex"
        );
        assert_eq!(Registry::default().detect(None), None);
    }

    #[test]
    fn a_missing_program_says_what_to_install() {
        let agent = Registry::default().find("gemini").unwrap();
        let error = find_program(
            &agent,
            Some(&OsString::from("/nonexistent")),
            Path::new("/"),
        )
        .unwrap_err();
        assert_eq!(error.code, Code::AgentMissing);
        assert!(
            error.text.contains("npm install -g @google/gemini-cli"),
            "{error}"
        );
    }
}
