//! `farhelm service`: makes the daemon a service of this user, for systemd or launchd.
//!
//! What is written is a pure function of the program's path and the state folder ([`mod@unit`]); what
//! is done with it goes through the service manager's own program, which may be absent.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use farhelm_proto::Code;
use serde::Serialize;

use super::{Context, default_home};
use crate::failure::Failure;
use crate::output;
use crate::render::visible;

mod unit;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Subcommand)]
pub(crate) enum Action {
    /// Start the daemon with the machine or the log-in, and again when it ends
    Install {
        /// Ask systemd to start it without a log-in, from the start of the machine on
        #[arg(long)]
        linger: bool,
    },
    /// Stop that; sessions and state stay
    Uninstall,
    /// Say whether it is installed, enabled and running
    Status,
}

/// Who starts and watches programs here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Manager {
    Systemd,
    Launchd,
}

/// A service as it is; nothing is unknown to us but what the manager does not say.
#[derive(Debug, Serialize)]
struct Standing {
    kind: Manager,
    name: String,
    file: PathBuf,
    installed: bool,
    enabled: Option<bool>,
    running: Option<bool>,
    lingers: Option<bool>,
}

/// The service of one state folder.
struct Service {
    manager: Manager,
    name: String,
    file: PathBuf,
    home: PathBuf,
}

pub(super) fn run(context: &Context, action: Action) -> Result<(), Failure> {
    let service = Service::find(&context.home)?;
    match action {
        Action::Install { linger } => service.install(linger)?,
        Action::Uninstall => service.uninstall()?,
        Action::Status => {}
    }
    let standing = service.standing();
    if context.json {
        output::json(&standing);
        return Ok(());
    }
    let word = |value: Option<bool>, yes: &'static str, no: &'static str| match value {
        Some(true) => yes,
        Some(false) => no,
        None => "unknown",
    };
    let installed = if standing.installed {
        "installed"
    } else {
        "not installed"
    };
    output::line(&format!(
        "service   {} ({installed}) at {}",
        service.name,
        service.file.display()
    ));
    output::line(&format!(
        "enabled   {}",
        word(standing.enabled, "yes", "no")
    ));
    output::line(&format!(
        "running   {}",
        word(standing.running, "yes", "no")
    ));
    if service.manager == Manager::Systemd {
        let text = word(
            standing.lingers,
            "yes, it starts with the machine",
            "no, it starts with your log-in and ends with it",
        );
        output::line(&format!("lingers   {text}"));
    }
    if standing.installed && standing.lingers == Some(false) {
        output::note(
            "to start it without a log-in: `loginctl enable-linger`, or `farhelm service install --linger`",
        );
    }
    Ok(())
}

impl Service {
    fn find(home: &Path) -> Result<Self, Failure> {
        let user = std::env::var_os("HOME")
            .map(PathBuf::from)
            .filter(|user| user.is_absolute());
        let user = user.ok_or_else(|| no_service("HOME is not set"))?;
        let is_usual = default_home().is_ok_and(|usual| usual == home);
        let suffix = if is_usual {
            String::new()
        } else {
            format!("-{}", unit::mark(home))
        };
        let home = home.to_owned();
        if runs("systemctl", &["--version"]) {
            let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
            let config = config
                .filter(|config| config.is_absolute())
                .unwrap_or_else(|| user.join(".config"));
            let name = format!("farhelm{suffix}.service");
            let file = config.join("systemd/user").join(&name);
            return Ok(Self {
                manager: Manager::Systemd,
                name,
                file,
                home,
            });
        }
        if runs("launchctl", &["version"]) {
            let name = format!("dev.farhelm.daemon{suffix}");
            let file = user
                .join("Library/LaunchAgents")
                .join(format!("{name}.plist"));
            return Ok(Self {
                manager: Manager::Launchd,
                name,
                file,
                home,
            });
        }
        Err(no_service("neither systemctl nor launchctl is here"))
    }

    fn install(&self, linger: bool) -> Result<(), Failure> {
        let program = std::env::current_exe().map_err(Failure::internal)?;
        // The manager would otherwise fail at each start, with nobody to read why.
        farhelm_host::home::Home::open(self.home.clone())?;
        let path = std::env::var("PATH").unwrap_or_default();
        let service = unit::Service {
            program: &program,
            home: &self.home,
            name: &self.name,
            path: &path,
        };
        let text = match self.manager {
            Manager::Systemd => unit::systemd(&service),
            Manager::Launchd => unit::launchd(&service),
        };
        let text = text.map_err(|why| Failure::new(Code::NoService, why))?;
        let changed = std::fs::read_to_string(&self.file).ok().as_deref() != Some(text.as_str());
        if changed {
            self.write(&text)?;
        }
        match self.manager {
            Manager::Systemd => {
                if changed {
                    self.ask("systemctl", &["--user", "daemon-reload"])?;
                }
                self.ask("systemctl", &["--user", "enable", &self.name])?;
                // A daemon of a terminal may still run, and the service waits for its end.
                self.ask("systemctl", &["--user", "start", "--no-block", &self.name])?;
                if linger {
                    self.ask("loginctl", &["enable-linger"])?;
                }
            }
            Manager::Launchd => {
                let (domain, target) = self.launchd_names();
                let file = self.file.display().to_string();
                if changed {
                    // One that is there has the earlier text; that none is there is nothing to report.
                    let _absent = self.ask("launchctl", &["bootout", &target]);
                }
                if changed || self.standing().running.is_none() {
                    self.ask("launchctl", &["bootstrap", &domain, &file])?;
                }
                self.ask("launchctl", &["enable", &target])?;
            }
        }
        Ok(())
    }

    fn uninstall(&self) -> Result<(), Failure> {
        if !self.file.exists() {
            return Ok(());
        }
        match self.manager {
            Manager::Systemd => {
                self.ask("systemctl", &["--user", "disable", "--now", &self.name])?;
                self.remove()?;
                self.ask("systemctl", &["--user", "daemon-reload"])
            }
            Manager::Launchd => {
                let (_, target) = self.launchd_names();
                // One that does not run cannot be stopped, and that is what was wanted.
                let _absent = self.ask("launchctl", &["bootout", &target]);
                self.remove()
            }
        }
    }

    fn standing(&self) -> Standing {
        let installed = self.file.exists();
        let (enabled, running, lingers) = match self.manager {
            Manager::Systemd => (
                says("systemctl", &["--user", "is-enabled", &self.name])
                    .map(|text| text == "enabled")
                    // Of a unit that there is not it complains, and says no state.
                    .or((!installed).then_some(false)),
                says("systemctl", &["--user", "is-active", &self.name])
                    .map(|text| text == "active"),
                says("loginctl", &["show-user", "--property=Linger", "--value"]).and_then(|text| {
                    match text.as_str() {
                        "yes" => Some(true),
                        "no" => Some(false),
                        _ => None,
                    }
                }),
            ),
            Manager::Launchd => {
                let (_, target) = self.launchd_names();
                let shown = says("launchctl", &["print", &target]);
                let runs = shown.as_ref().map(|text| text.contains("state = running"));
                (shown.as_ref().map(|_| true), runs, None)
            }
        };
        Standing {
            kind: self.manager,
            name: self.name.clone(),
            file: self.file.clone(),
            installed,
            enabled,
            running,
            lingers,
        }
    }

    fn launchd_names(&self) -> (String, String) {
        let domain = format!("gui/{}", rustix::process::geteuid().as_raw());
        let target = format!("{domain}/{}", self.name);
        (domain, target)
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(Code::NoService, format!("{}: {error}", self.file.display()))
        };
        if let Some(folder) = self.file.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        // Whole or not at all: a manager may read it at any moment.
        let fresh = self.file.with_extension("new");
        std::fs::write(&fresh, text)
            .and_then(|()| std::fs::rename(&fresh, &self.file))
            .map_err(failed)
    }

    fn remove(&self) -> Result<(), Failure> {
        std::fs::remove_file(&self.file).map_err(|error| {
            Failure::new(Code::NoService, format!("{}: {error}", self.file.display()))
        })
    }

    /// Has the manager do something.
    fn ask(&self, program: &str, args: &[&str]) -> Result<(), Failure> {
        let shown = format!("{program} {}", args.join(" "));
        let output = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .output();
        let output = output.map_err(|error| no_service(&format!("`{shown}`: {error}")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(no_service(&format!(
            "`{shown}` failed: {}",
            visible(said.trim())
        )))
    }
}

fn no_service(why: &str) -> Failure {
    let text = format!(
        "{why}; there is no service manager here that would start it; start it with `farhelm up`"
    );
    Failure::new(Code::NoService, text)
}

fn runs(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What a program says, whether it succeeds or not; nothing when it says nothing or is not there.
fn says(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
