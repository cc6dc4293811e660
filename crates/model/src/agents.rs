//! The real agents that `scripts/agents.sh` installs, set up to talk to a [`crate::Model`].
//!
//! An agent gets a home of its own and an environment made from nothing: no login, configuration
//! or key of this machine reaches it, and all it knows of the network is the model server.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// An agent program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Agent {
    /// Claude Code, over its own stdio protocol.
    Claude,
    /// opencode, over ACP.
    OpenCode,
    /// Gemini CLI, over ACP.
    Gemini,
    /// Claude Code behind its ACP adapter; not installed by default.
    ClaudeAcp,
    /// Codex behind its ACP adapter; not installed by default.
    CodexAcp,
}

/// What an agent speaks on its standard input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Claude Code's stream-json with control requests.
    ClaudeStdio,
    /// The Agent Client Protocol.
    Acp,
}

/// Where an agent is to live and work.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// The folder that `scripts/agents.sh` filled; see [`cache`].
    pub cache: &'a Path,
    /// An empty folder that becomes the agent's home.
    pub home: &'a Path,
    /// The working tree; the agent is told to trust it.
    pub cwd: &'a Path,
    /// [`crate::Model::url`].
    pub model: &'a str,
    /// Whether the agent's own configuration makes it ask before it acts, where its default is
    /// not to ask (opencode). A test that a host brings the agent to ask says no.
    pub asks: bool,
}

/// How to start an agent that has been set up.
#[derive(Clone, Debug)]
pub struct Launch {
    pub program: PathBuf,
    /// The arguments that make it speak [`Self::dialect`].
    pub args: Vec<String>,
    /// The whole environment: start it with `env_clear`.
    pub env: BTreeMap<String, String>,
    pub dialect: Dialect,
    /// The mode to set on a fresh session so that a person is asked, where the agent starts in
    /// one that lets a model decide.
    pub mode: Option<&'static str>,
}

/// The folder with the installed agents: `FARHELM_AGENT_CACHE`, or the repository's.
#[must_use]
pub fn cache() -> PathBuf {
    match std::env::var_os("FARHELM_AGENT_CACHE") {
        Some(folder) if !folder.is_empty() => folder.into(),
        Some(_) | None => {
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache/agents")).to_owned()
        }
    }
}

impl Agent {
    /// Those that `scripts/agents.sh` installs by default.
    pub const DEFAULT: [Self; 3] = [Self::Claude, Self::OpenCode, Self::Gemini];

    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Claude,
        Self::OpenCode,
        Self::Gemini,
        Self::ClaudeAcp,
        Self::CodexAcp,
    ];

    /// The name by which `scripts/agents.sh` knows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::OpenCode => "opencode",
            Self::Gemini => "gemini",
            Self::ClaudeAcp => "claude-acp",
            Self::CodexAcp => "codex-acp",
        }
    }

    /// Whether `scripts/agents.sh` has installed it in `cache`.
    #[must_use]
    pub fn is_installed(self, cache: &Path) -> bool {
        cache.join(self.name()).join(".installed").exists()
    }

    /// Writes the agent's configuration into its home and says how to start it.
    ///
    /// # Errors
    ///
    /// When the agent is not installed, or its home cannot be written.
    pub fn prepare(self, setup: &Setup<'_>) -> io::Result<Launch> {
        let cache = fs::canonicalize(setup.cache).unwrap_or_else(|_| setup.cache.to_owned());
        if !self.is_installed(&cache) {
            let (name, cache) = (self.name(), cache.display());
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{name} is not installed in {cache}; run scripts/agents.sh {name}"),
            ));
        }
        let mut env = environment(&cache, setup.home)?;
        env.extend(self.configure(setup)?);
        let program = match self {
            Self::Claude => "claude",
            Self::OpenCode => "opencode",
            Self::Gemini => "gemini",
            Self::ClaudeAcp => "claude-agent-acp",
            Self::CodexAcp => "codex-acp",
        };
        let dialect = match self {
            Self::Claude => Dialect::ClaudeStdio,
            Self::OpenCode | Self::Gemini | Self::ClaudeAcp | Self::CodexAcp => Dialect::Acp,
        };
        Ok(Launch {
            program: cache
                .join(self.name())
                .join("node_modules/.bin")
                .join(program),
            args: self.args().iter().map(|&arg| arg.to_owned()).collect(),
            env,
            dialect,
            mode: match self {
                Self::ClaudeAcp => Some("default"),
                Self::CodexAcp => Some("read-only"),
                Self::Claude | Self::OpenCode | Self::Gemini => None,
            },
        })
    }

    fn args(self) -> &'static [&'static str] {
        match self {
            Self::Claude => &[
                "-p",
                "--input-format",
                "stream-json",
                "--output-format",
                "stream-json",
                "--verbose",
                "--permission-prompt-tool",
                "stdio",
            ],
            Self::OpenCode => &["acp"],
            Self::Gemini => &["--acp"],
            Self::ClaudeAcp | Self::CodexAcp => &[],
        }
    }

    /// Writes the configuration files; returns the variables that belong to them.
    fn configure(self, setup: &Setup<'_>) -> io::Result<BTreeMap<String, String>> {
        match self {
            Self::Claude | Self::ClaudeAcp => claude(setup),
            Self::OpenCode => opencode(setup),
            Self::Gemini => gemini(setup),
            Self::CodexAcp => codex(setup),
        }
    }
}

/// What every agent gets. Its temporary folder is apart from its home, which may well be under
/// the system's: Codex refuses to keep its helpers below a temporary folder.
fn environment(cache: &Path, home: &Path) -> io::Result<BTreeMap<String, String>> {
    let at = |below: &str| home.join(below).display().to_string();
    let folders = [
        ("TMPDIR", at("tmp")),
        ("XDG_CONFIG_HOME", at(".config")),
        ("XDG_CACHE_HOME", at(".cache")),
        ("XDG_DATA_HOME", at(".local/share")),
        ("XDG_STATE_HOME", at(".local/state")),
        ("XDG_RUNTIME_DIR", at("run")),
    ];
    for (_, folder) in &folders {
        fs::create_dir_all(folder)?;
    }
    let node = cache.join("node/node_modules/node/bin");
    let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut env = variables([
        ("HOME", &home.display().to_string()),
        ("PATH", &format!("{}:{system}", node.display())),
        ("SHELL", "/bin/bash"),
        ("LANG", "C.UTF-8"),
    ]);
    env.extend(folders.map(|(name, folder)| (name.to_owned(), folder)));
    Ok(env)
}

fn claude(setup: &Setup<'_>) -> io::Result<BTreeMap<String, String>> {
    let mut projects = json!({});
    projects[setup.cwd.display().to_string()] = json!({"hasTrustDialogAccepted": true});
    // Only its terminal screen needs this file, which else would look for the network.
    write(
        &setup.home.join(".claude.json"),
        &json!({
            "hasCompletedOnboarding": true,
            "lastOnboardingVersion": "2.1.330",
            "theme": "dark",
            "customApiKeyResponses": {"approved": [KEY], "rejected": []},
            "projects": projects,
        }),
    )?;
    Ok(variables([
        ("ANTHROPIC_BASE_URL", setup.model),
        ("ANTHROPIC_API_KEY", KEY),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ("DISABLE_AUTOUPDATER", "1"),
        ("DISABLE_TELEMETRY", "1"),
        ("DISABLE_ERROR_REPORTING", "1"),
    ]))
}

fn opencode(setup: &Setup<'_>) -> io::Result<BTreeMap<String, String>> {
    let path = setup.home.join("opencode.json");
    let mut config = json!({
        "autoupdate": false,
        "share": "disabled",
        "model": "scripted/scripted",
        "small_model": "scripted/scripted",
        "provider": {"scripted": {
            "npm": "@ai-sdk/openai-compatible",
            "name": "Scripted",
            "options": {"baseURL": format!("{}/v1", setup.model), "apiKey": KEY},
            "models": {"scripted": {
                "name": "Scripted", "tool_call": true,
                "limit": {"context": 200_000, "output": 8192},
            }},
        }},
    });
    if setup.asks {
        config["permission"] = json!({"edit": "ask", "bash": "ask", "webfetch": "ask"});
    }
    write(&path, &config)?;
    Ok(variables([
        ("OPENCODE_CONFIG", &path.display().to_string()),
        ("OPENCODE_DISABLE_AUTOUPDATE", "1"),
        ("OPENCODE_DISABLE_MODELS_FETCH", "1"),
    ]))
}

fn gemini(setup: &Setup<'_>) -> io::Result<BTreeMap<String, String>> {
    write(
        &setup.home.join(".gemini/settings.json"),
        &json!({
            "security": {
                "auth": {"selectedType": "gemini-api-key"},
                "folderTrust": {"enabled": false},
            },
            "privacy": {"usageStatisticsEnabled": false},
            "general": {"disableAutoUpdate": true, "enableAutoUpdate": false},
            "model": {"name": "gemini-2.5-pro"},
        }),
    )?;
    Ok(variables([
        ("GEMINI_API_KEY", KEY),
        ("GOOGLE_GEMINI_BASE_URL", setup.model),
    ]))
}

fn codex(setup: &Setup<'_>) -> io::Result<BTreeMap<String, String>> {
    let home = setup.home.join(".codex");
    fs::create_dir_all(&home)?;
    // The model must be one that Codex knows: an unknown one is offered no `apply_patch`.
    let config = format!(
        r#"model = "gpt-5.5"
model_provider = "scripted"
approval_policy = "on-request"
sandbox_mode = "workspace-write"

[model_providers.scripted]
name = "scripted"
base_url = "{}/v1"
wire_api = "responses"
env_key = "SCRIPTED_KEY"
"#,
        setup.model
    );
    fs::write(home.join("config.toml"), config)?;
    Ok(variables([
        ("CODEX_HOME", &home.display().to_string()),
        ("SCRIPTED_KEY", KEY),
    ]))
}

fn write(path: &Path, value: &Value) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, format!("{value:#}\n"))
}

fn variables<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Any key will do.
const KEY: &str = "scripted-key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_that_is_not_installed_says_how_to_install_it() {
        let empty = tempfile::tempdir().unwrap();
        let error = Agent::ClaudeAcp
            .prepare(&Setup {
                cache: empty.path(),
                home: empty.path(),
                cwd: empty.path(),
                model: "http://127.0.0.1:1",
                asks: true,
            })
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let hint = "run scripts/agents.sh claude-acp";
        assert!(error.to_string().ends_with(hint), "{error}");
    }

    #[test]
    fn home_and_environment_hold_nothing_of_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        for agent in Agent::ALL {
            let home = folder.path().join(agent.name());
            fs::create_dir_all(cache.join(agent.name())).unwrap();
            fs::write(cache.join(agent.name()).join(".installed"), "").unwrap();
            let launch = agent
                .prepare(&Setup {
                    cache: &cache,
                    home: &home,
                    cwd: folder.path(),
                    model: "http://127.0.0.1:1",
                    asks: true,
                })
                .unwrap();
            assert_eq!(launch.env["HOME"], home.display().to_string());
            assert!(launch.env["PATH"].starts_with(&cache.display().to_string()));
            let own_home = std::env::var("HOME").unwrap_or_default();
            let leaked = launch.env.values().find(|value| **value == own_home);
            assert_eq!(leaked, None, "{}", agent.name());
        }
    }
}
