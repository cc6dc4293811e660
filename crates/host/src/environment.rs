//! The environment an agent is started in: what works in the terminal that started the session
//! works here; a session started from afar gets the login shell's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a login shell may take to say its environment.
const LOGIN_SHELL_WITHIN: Duration = Duration::from_secs(10);

/// Where a session's environment comes from.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Environment {
    /// The shell that started the session.
    Captured {
        /// Its variables.
        variables: BTreeMap<String, String>,
    },
    /// The user's login shell, asked anew each time the agent starts.
    LoginShell,
}

impl std::fmt::Debug for Environment {
    /// Without the variables: they hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Captured { variables } => write!(f, "Captured({} variables)", variables.len()),
            Self::LoginShell => f.write_str("LoginShell"),
        }
    }
}

impl Environment {
    /// This process's own, for handing to the daemon. Variables that are not UTF-8 are left out.
    #[must_use]
    pub fn of_this_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self::Captured { variables }
    }

    /// The variables for an agent in `dir`.
    pub(crate) async fn resolve(&self, dir: &Path) -> BTreeMap<OsString, OsString> {
        match self {
            Self::Captured { variables } => variables
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            Self::LoginShell => login_shell(dir)
                .await
                .unwrap_or_else(|| std::env::vars_os().collect()),
        }
    }
}

/// Asks the user's login shell for its environment.
async fn login_shell(dir: &Path) -> Option<BTreeMap<OsString, OsString>> {
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let mut command = tokio::process::Command::new(shell);
    command
        .args(["-l", "-c", "env -0"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(LOGIN_SHELL_WITHIN, farhelm_world::output(command))
        .await
        .ok()?
        .ok()?;
    let variables: BTreeMap<_, _> = output
        .stdout
        .split(|byte| *byte == 0)
        .filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b'=')?;
            let (name, value) = line.split_at(at);
            Some((
                OsString::from_vec(name.to_vec()),
                OsString::from_vec(value.get(1..)?.to_vec()),
            ))
        })
        .collect();
    variables
        .contains_key(&OsString::from("PATH"))
        .then_some(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_login_shell_says_its_path() {
        let variables = Environment::LoginShell.resolve(Path::new("/")).await;
        assert!(variables.contains_key(&OsString::from("PATH")));
    }

    #[test]
    fn s30_the_environment_is_not_printed() {
        let variables = BTreeMap::from([("KEY".to_owned(), "secret".to_owned())]);
        assert_eq!(
            format!("{:?}", Environment::Captured { variables }),
            "Captured(1 variables)"
        );
    }
}
