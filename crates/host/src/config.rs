//! The host's configuration: `config.toml` in the state folder. It need not exist.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farhelm_proto::Code;
use serde::{Deserialize, Serialize};

use crate::agents::{Agent, AgentEntry, AgentError, Registry};
use crate::home::HomeError;

/// The file's content. Unknown keys are refused, so that a misspelt one is not ignored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What the host is called; the machine's name unless set.
    pub name: Option<String>,
    /// The relay to use, as `https://relay.example`; an embedded one unless set.
    pub relay: Option<String>,
    /// Certificates to trust beside the system's: a PEM file.
    pub extra_ca: Option<PathBuf>,
    /// Where the embedded relay listens: a port of 127.0.0.1; a free one, kept from then on,
    /// unless set.
    pub relay_port: Option<u16>,
    /// The agent of a session that names none; the first one found unless set.
    pub agent: Option<String>,
    /// Whether the machine is kept from sleeping while a turn runs; it is, unless this is false.
    pub keep_awake: Option<bool>,
    /// How long an agent may take until it answers, in seconds.
    pub agent_start_s: Option<u64>,
    /// How large the journal may become, in MiB, before the oldest outputs are dropped.
    pub journal_mib: Option<u64>,
    /// How many agents may run at once.
    pub agents_at_once: Option<usize>,
    /// Agents, by name: over what is known, or new ones.
    pub agents: BTreeMap<String, AgentEntry>,
}

impl Config {
    /// Reads the file; the defaults when there is none.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when it cannot be read or is wrong; the text names the line.
    pub fn read(path: &Path) -> Result<Self, HomeError> {
        let failed = |why: String| HomeError {
            code: Code::StateUnusable,
            text: format!("configuration {}: {why}", path.display()),
        };
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| failed(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The agents there are.
    #[must_use]
    pub fn registry(&self) -> Registry {
        Registry::new(self.agents.clone())
    }

    /// How many agents may run at once.
    #[must_use]
    pub fn agents_at_once(&self) -> usize {
        self.agents_at_once
            .unwrap_or(64)
            .min(tokio::sync::Semaphore::MAX_PERMITS)
    }

    /// How large the journal may become before the oldest outputs are dropped.
    #[must_use]
    pub fn journal_bytes(&self) -> u64 {
        let mib = self.journal_mib.unwrap_or(20 * 1024);
        mib.saturating_mul(1024 * 1024)
    }

    /// How long an agent may take until it answers.
    #[must_use]
    pub fn start_within(&self) -> Duration {
        self.agent_start_s
            .map_or(crate::agents::START_WITHIN, Duration::from_secs)
            .min(LONGEST_START)
    }
}

/// Nobody waits longer for an agent, whatever the file says: beyond some point there is no clock.
const LONGEST_START: Duration = Duration::from_hours(24 * 365);

/// Which agent a session has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AgentChoice {
    /// One with a name.
    Named {
        /// The name.
        name: String,
    },
    /// A command line, of any agent that speaks ACP.
    Command {
        /// The line; no shell is involved.
        line: String,
    },
}

impl AgentChoice {
    /// The agent that it stands for.
    ///
    /// # Errors
    ///
    /// [`Code::AgentUnknown`] when there is none.
    pub fn resolve(&self, registry: &Registry) -> Result<Agent, AgentError> {
        match self {
            Self::Named { name } => registry.find(name),
            Self::Command { line } => registry.from_command(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "relai = \"https://relay.example\"\n").unwrap();
        let error = Config::read(&path).unwrap_err();
        assert!(error.text.contains("relai"), "{error}");
    }

    #[test]
    fn f22_numbers_beyond_all_clocks_and_stores_are_bounded() {
        let most = i64::MAX;
        let text =
            format!("agent_start_s = {most}\njournal_mib = {most}\nagents_at_once = {most}\n");
        let config: Config = toml::from_str(&text).unwrap();
        let now = std::time::Instant::now();
        assert!(now.checked_add(config.start_within()).is_some());
        assert_eq!(config.journal_bytes(), u64::MAX);
        let _permits = tokio::sync::Semaphore::new(config.agents_at_once());
    }

    #[test]
    fn any_acp_agent_is_one_entry() {
        let config: Config =
            toml::from_str("[agents.mine]\ncommand = \"my-agent\"\nargs = [\"--acp\"]\n").unwrap();
        let choice = AgentChoice::Named {
            name: "mine".into(),
        };
        assert_eq!(
            choice.resolve(&config.registry()).unwrap().command,
            "my-agent"
        );
    }
}
