//! The texts that tell a service manager how to run the daemon. Pure.
//!
//! They name this program and the state folder, and hold nothing secret: keys and logs are in the
//! folder, and what an agent's environment holds is taken from the log-in shell at each start.

use std::fmt::Write as _;
use std::path::Path;

/// What a service runs.
pub(super) struct Service<'a> {
    /// This program, absolute.
    pub(super) program: &'a Path,
    /// The state folder, absolute.
    pub(super) home: &'a Path,
    /// What the service is called.
    pub(super) name: &'a str,
    /// Where programs are found.
    pub(super) path: &'a str,
}

/// A systemd unit of the user.
///
/// Only the daemon is ended with it (`KillMode=process`): keepers and their agents outlive it, as
/// they outlive its crash.
pub(super) fn systemd(service: &Service<'_>) -> Result<String, String> {
    let (program, home) = (text(service.program)?, text(service.home)?);
    Ok(format!(
        "# Written by `farhelm service install`.\n\
         [Unit]\n\
         Description=Farhelm: coding agents of this machine, steered from anywhere\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={} --home {} host run --wait\n\
         Environment={}\n\
         KillMode=process\n\
         WatchdogSec=60\n\
         Restart=always\n\
         RestartSec=500ms\n\
         TimeoutStartSec=infinity\n\
         TimeoutStopSec=30\n\
         UMask=0077\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n",
        argument(program),
        argument(home),
        word(&format!("PATH={}", service.path)),
    ))
}

/// A launchd agent of the user.
pub(super) fn launchd(service: &Service<'_>) -> Result<String, String> {
    let (program, home) = (text(service.program)?, text(service.home)?);
    let mut arguments = String::new();
    for argument in [program, "--home", home, "host", "run", "--wait"] {
        let _infallible = writeln!(arguments, "    <string>{}</string>", xml(argument));
    }
    Ok(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <!-- Written by `farhelm service install`. -->\n\
         <plist version=\"1.0\">\n\
         <dict>\n\
         \x20 <key>Label</key>\n\
         \x20 <string>{}</string>\n\
         \x20 <key>ProgramArguments</key>\n\
         \x20 <array>\n\
         {arguments}\
         \x20 </array>\n\
         \x20 <key>EnvironmentVariables</key>\n\
         \x20 <dict>\n\
         \x20   <key>PATH</key>\n\
         \x20   <string>{}</string>\n\
         \x20 </dict>\n\
         \x20 <key>RunAtLoad</key>\n\
         \x20 <true/>\n\
         \x20 <key>KeepAlive</key>\n\
         \x20 <true/>\n\
         \x20 <key>AbandonProcessGroup</key>\n\
         \x20 <true/>\n\
         \x20 <key>ProcessType</key>\n\
         \x20 <string>Interactive</string>\n\
         \x20 <key>Umask</key>\n\
         \x20 <integer>63</integer>\n\
         </dict>\n\
         </plist>\n",
        xml(service.name),
        xml(service.path),
    ))
}

/// Tells state folders apart in a service's name: FNV-1a, as hexadecimal digits. It need only
/// differ; nothing is protected by it.
pub(super) fn mark(home: &Path) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in home.as_os_str().as_encoded_bytes() {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    format!("{hash:08x}")
}

/// A path that a text can hold.
fn text(path: &Path) -> Result<&str, String> {
    let shown = path
        .to_str()
        .filter(|path| !path.contains(['\n', '\r', '\0']));
    shown.ok_or_else(|| format!("{} cannot be written into a service's file", path.display()))
}

/// A word of a unit file: quoted, with what has a meaning there made plain.
fn word(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' => quoted.push_str("%%"),
            '\n' | '\r' => quoted.push(' '),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// A word of a command line, in which variables are replaced.
fn argument(text: &str) -> String {
    word(text).replace('$', "$$")
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service<'static> {
        Service {
            program: Path::new("/opt/far helm/bin/farhelm"),
            home: Path::new("/home/ada/100% \"mine\" & <more>"),
            name: "dev.farhelm.daemon",
            path: "/usr/local/bin:/usr/bin",
        }
    }

    #[test]
    fn the_unit_says_how_the_daemon_is_run() {
        insta::assert_snapshot!("systemd", systemd(&service()).unwrap());
    }

    #[test]
    fn the_launch_agent_says_how_the_daemon_is_run() {
        insta::assert_snapshot!("launchd", launchd(&service()).unwrap());
    }

    #[test]
    fn s29_a_path_cannot_add_a_line_of_its_own() {
        let path = Path::new("/tmp/x\nExecStartPre=/bin/sh");
        let service = Service {
            home: path,
            ..service()
        };
        assert!(systemd(&service).is_err());
        assert!(launchd(&service).is_err());
    }

    #[test]
    fn state_folders_have_marks_of_their_own() {
        assert_ne!(mark(Path::new("/a")), mark(Path::new("/b")));
        assert_eq!(mark(Path::new("/a")), mark(Path::new("/a")));
    }
}
