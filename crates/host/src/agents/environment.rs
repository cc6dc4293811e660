//! The environment of an agent: the session's, less what is nobody's business but the daemon's,
//! and less the marks that an enclosing agent leaves on what it starts.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// What an agent gets of the session's environment. Keys for models, proxies, `PATH`, virtual
/// environments and an agent's own settings stay.
#[must_use]
pub fn clean(mut env: BTreeMap<OsString, OsString>) -> BTreeMap<OsString, OsString> {
    env.retain(|name, _| name.to_str().is_none_or(|name| !is_withheld(name)));
    env
}

fn is_withheld(name: &str) -> bool {
    if name.starts_with("FARHELM_SCRIPTED_") {
        return false;
    }
    WITHHELD.contains(&name)
        || WITHHELD_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Every variable that begins like this: ours, systemd's hand-over of sockets, and the sandbox
/// marks of an enclosing Codex.
const WITHHELD_PREFIXES: &[&str] = &["FARHELM_", "LISTEN_", "CODEX_SANDBOX"];

/// Marks of an enclosing agent, which make an agent within believe that it is nested, and private
/// channels to it.
const WITHHELD: &[&str] = &[
    "AGENT",
    "AI_AGENT",
    "CLAUDECODE",
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_CODE_EXECPATH",
    "CLAUDE_CODE_MESSAGING_SOCKET",
    "CLAUDE_CODE_SESSION_ID",
    "CLAUDE_CODE_SSE_PORT",
    "CODEX_THREAD_ID",
    "COPILOT_CLI",
    "CURSOR_AGENT",
    "CURSOR_TRACE_ID",
    "GEMINI_CLI",
    "GEMINI_CLI_IDE_AUTH_TOKEN",
    "GEMINI_CLI_IDE_SERVER_PORT",
    "GEMINI_CLI_NO_RELAUNCH",
    "GOOSE_TERMINAL",
    "NOTIFY_SOCKET",
    "OPENCODE",
    "OPENCODE_CALLER",
    "OPENCODE_PID",
    "OPENCODE_SERVER_PASSWORD",
    "OPENCODE_SERVER_USERNAME",
    "QWEN_CODE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_an_enclosing_agent_and_our_secrets_go_and_the_rest_stays() {
        let given = [
            "ANTHROPIC_API_KEY",
            "CLAUDECODE",
            "CLAUDE_CODE_ENTRYPOINT",
            "CLAUDE_CODE_USE_BEDROCK",
            "CODEX_HOME",
            "CODEX_SANDBOX_NETWORK_DISABLED",
            "FARHELM_SCRIPTED_STATE",
            "FARHELM_TOKEN",
            "GEMINI_CLI",
            "HTTPS_PROXY",
            "OPENCODE",
            "OPENCODE_CONFIG",
            "PATH",
            "VIRTUAL_ENV",
        ];
        let env = given
            .iter()
            .map(|name| (OsString::from(name), OsString::from("x")))
            .collect();
        let kept: Vec<_> = clean(env)
            .into_keys()
            .map(|name| name.into_string().unwrap())
            .collect();
        assert_eq!(
            kept,
            [
                "ANTHROPIC_API_KEY",
                "CLAUDE_CODE_USE_BEDROCK",
                "CODEX_HOME",
                "FARHELM_SCRIPTED_STATE",
                "HTTPS_PROXY",
                "OPENCODE_CONFIG",
                "PATH",
                "VIRTUAL_ENV",
            ]
        );
    }
}
