//! What we ask git.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// The branch that is checked out in `dir`; nothing outside a work tree.
pub async fn branch(dir: &Path) -> Option<String> {
    let mut command = tokio::process::Command::new("git");
    command
        .args([
            "--no-optional-locks",
            "symbolic-ref",
            "--quiet",
            "--short",
            "HEAD",
        ])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(5), farhelm_world::output(command))
        .await
        .ok()?
        .ok()?;
    let name = String::from_utf8(output.stdout).ok()?;
    Some(name.trim().to_owned()).filter(|name| output.status.success() && !name.is_empty())
}
