//! A relay, a daemon and devices, each a real program or real code, with a proxy between each pair.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use farhelm_link::device::{self, Store};
use farhelm_proto::SessionId;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::device::Device;
use crate::oracle::{self, Verdict};
use crate::program::Program;
use crate::proxy::Proxy;
use crate::record::Agent;

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Everything that runs. The programs end with it.
pub struct World {
    /// What everything random in it follows from.
    pub seed: u64,
    /// The relay.
    pub relay: Program,
    /// The daemon.
    pub host: Program,
    /// Between the daemon and the relay.
    pub host_road: Proxy,
    /// Between the devices and the relay.
    pub device_road: Proxy,
    farhelm: PathBuf,
    environment: BTreeMap<String, String>,
    /// Variables that only commands get.
    for_commands: BTreeMap<String, String>,
    address: SocketAddr,
    folder: TempDir,
    is_over: bool,
}

/// A session with its agent.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    record: PathBuf,
}

impl Session {
    /// What its agent heard and said, by its own word.
    #[must_use]
    pub fn agent(&self) -> Agent {
        Agent::read(&self.record)
    }
}

impl World {
    /// Starts relay and daemon. `farhelm` is the program.
    ///
    /// # Errors
    ///
    /// When one of them does not come up.
    pub async fn start(farhelm: &Path, seed: u64) -> anyhow::Result<Self> {
        Self::start_with(farhelm, seed, &[], &[]).await
    }

    /// The same, with variables for the relay and for the daemon.
    ///
    /// # Errors
    ///
    /// When one of them does not come up.
    pub async fn start_with(
        farhelm: &Path,
        seed: u64,
        for_relay: &[(&str, &str)],
        for_host: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let mut world = Self::still(farhelm, seed, free_address()?).await?;
        world.start_relay(for_relay).await?;
        world.start_host(for_host).await?;
        Ok(world)
    }

    /// A world in which nothing runs yet but the roads to a relay at `address`.
    ///
    /// # Errors
    ///
    /// When there is no room for it.
    pub async fn still(farhelm: &Path, seed: u64, address: SocketAddr) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let at = |name: &str| folder.path().join(name);
        let text = |path: PathBuf| path.display().to_string();
        for name in ["user", "host", "devices", "sessions"] {
            std::fs::create_dir(at(name))?;
        }
        let mut environment = BTreeMap::from([
            ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("HOME".to_owned(), text(at("user"))),
            ("FARHELM_HOME".to_owned(), text(at("host"))),
            ("FARHELM_SCRIPTED_STATE".to_owned(), text(at("scripted"))),
        ]);
        for name in ["FARHELM_LOG", "FARHELM_RELAY_LOG"] {
            environment.extend(std::env::var(name).map(|level| (name.to_owned(), level)));
        }
        let host_road = Proxy::start(address).await?;
        let device_road = Proxy::start(address).await?;
        let (listen, data) = (address.to_string(), text(at("relay")));
        let (first, second) = (host_road.url(), device_road.url());
        let relay_line = [
            "relay",
            "--listen",
            &listen,
            "--data",
            &data,
            "--public-url",
            &first,
            "--public-url",
            &second,
        ];
        let relay = Program::new(farhelm, &relay_line, &environment, at("relay.log"));
        let host_line = ["host", "run", "--relay", &first];
        let host = Program::new(farhelm, &host_line, &environment, at("host.log"));
        Ok(Self {
            seed,
            relay,
            host,
            host_road,
            device_road,
            farhelm: farhelm.to_owned(),
            environment,
            for_commands: BTreeMap::new(),
            address,
            folder,
            is_over: false,
        })
    }

    /// Starts the relay, and waits until it listens or has ended.
    ///
    /// # Errors
    ///
    /// When it does neither.
    pub async fn start_relay(&mut self, more: &[(&str, &str)]) -> anyhow::Result<()> {
        self.relay.start(more)?;
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            if self.relay.has_ended() {
                break;
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "the relay does not listen: {}",
                self.relay.said()
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Starts the daemon, and waits until it answers or has ended.
    ///
    /// # Errors
    ///
    /// When it does neither.
    pub async fn start_host(&mut self, more: &[(&str, &str)]) -> anyhow::Result<()> {
        self.host.start(more)?;
        let socket = self.home().join("farhelm.sock");
        let begun = Instant::now();
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            if self.host.has_ended() {
                break;
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "the daemon does not answer: {}",
                self.host.said()
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// The daemon's state folder.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("host")
    }

    /// The processes of agents that run here.
    #[must_use]
    pub fn agents(&self) -> Vec<rustix::process::Pid> {
        let sessions = self.folder.path().join("sessions");
        // By the path of their scenarios, which nothing else on this machine has.
        crate::trouble::processes(&format!(
            "scripted-agent\0--scenario\0{}",
            sessions.display()
        ))
    }

    /// The relay's folder.
    #[must_use]
    pub fn relay_data(&self) -> PathBuf {
        self.folder.path().join("relay")
    }

    /// From here on, a command that finds no daemon starts none that comes up.
    pub fn commands_start_nothing(&mut self) {
        let plan = "host.daemon.before_socket=kill".to_owned();
        self.for_commands.insert(fail::PLAN.to_owned(), plan);
    }

    /// Runs a command at the host, for its JSON.
    ///
    /// # Errors
    ///
    /// When it fails, with what it says.
    pub async fn cli(&self, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
        let mut command = Command::new(&self.farhelm);
        command.args(arguments).arg("--json");
        let run = command
            .env_clear()
            .envs(&self.environment)
            .envs(&self.for_commands)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PATIENCE, run)
            .await
            .context("a command does not end")??;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let log = std::fs::read_to_string(self.home().join("farhelm.log")).unwrap_or_default();
            let end = log.len().saturating_sub(LOG_BYTES);
            bail!(
                "farhelm {arguments:?}: {said}\n{}",
                log.get(end..).unwrap_or_default()
            );
        }
        let lines = said.lines().map(serde_json::from_str);
        Ok(lines.collect::<Result<_, _>>()?)
    }

    /// Opens a session whose scripted agent plays these turns, again and again.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub async fn session(&self, turns: &Value) -> anyhow::Result<Session> {
        let folder = tempfile::tempdir_in(self.folder.path().join("sessions"))?.keep();
        let record = folder.join("record");
        let scenario = json!({
            "start": {"record": record, "load": false, "resume": true},
            "scenarios": {"default": turns},
        });
        let file = folder.join("scenario.json");
        std::fs::write(&file, scenario.to_string())?;
        let dir = folder.join("project");
        std::fs::create_dir(&dir)?;
        let line = format!(
            "{} scripted-agent --scenario {}",
            self.farhelm.display(),
            file.display()
        );
        let dir = dir.display().to_string();
        let made = self
            .cli(&["up", "--headless", "--dir", &dir, "--agent-cmd", &line])
            .await?;
        let id = made.first().and_then(|made| made["session"].as_str());
        Ok(Session {
            id: id.context("no session")?.parse()?,
            record,
        })
    }

    /// Pairs a device, with the codes compared.
    ///
    /// # Errors
    ///
    /// When it is not let in.
    pub async fn device(&self, name: &str) -> anyhow::Result<Device> {
        let made = self.cli(&["pair", "--no-wait"]).await?;
        let link = made
            .first()
            .and_then(|made| made["link"].as_str())
            .context("no link")?;
        // Devices come by a road of their own.
        let link = link.replace(&self.host_road.url(), &self.device_road.url());
        let folder = self.folder.path().join("devices").join(name);
        let store = Store::open(&folder)?;
        let (told, code) = tokio::sync::oneshot::channel();
        let pairing = device::pair(&store, &link, name, None, |code| {
            drop(told.send(code.to_owned()));
        });
        let accepting = async {
            // Without a code the device says itself why.
            match code.await {
                Ok(code) => self.cli(&["pair", "--accept", &code]).await.map(drop),
                Err(_) => Ok(()),
            }
        };
        let (host, accepted) = tokio::join!(pairing, accepting);
        accepted?;
        let host = host.with_context(|| format!("{name} is not let in"))?;
        drop(store);
        Device::connect(name, &folder, host).await
    }

    /// A session's log as the host has it.
    ///
    /// # Errors
    ///
    /// When the host does not tell.
    pub async fn host_log(&self, session: &Session) -> anyhow::Result<Vec<Value>> {
        self.cli(&["log", &session.id.to_string()]).await
    }

    /// Compares everything about a session: agent, host, devices, and what they were told.
    ///
    /// # Errors
    ///
    /// When somebody does not tell.
    pub async fn judge(&self, session: &Session, devices: &[&Device]) -> anyhow::Result<Verdict> {
        let log = self.host_log(session).await?;
        let mut verdict = oracle::agent(&log, &session.agent());
        for device in devices {
            let shown = device.transcript(session.id, log.len() as u64);
            let shown = tokio::time::timeout(PATIENCE, shown).await;
            let shown = shown.with_context(|| format!("{} does not catch up", device.name))??;
            verdict.absorb(oracle::transcript(&device.name, &log, &shown));
        }
        Ok(verdict)
    }

    /// What everybody last said, for whoever looks for the cause of a failure.
    pub async fn last_words(&self, session: &Session) -> String {
        let tail = |lines: Vec<String>| {
            let skip = lines.len().saturating_sub(LAST_LINES);
            lines[skip..].join("\n")
        };
        let lines = |values: anyhow::Result<Vec<Value>>| match values {
            Ok(values) => tail(values.iter().map(Value::to_string).collect()),
            Err(error) => format!("{error:#}"),
        };
        let status = lines(self.cli(&["status"]).await);
        let log = lines(self.host_log(session).await);
        let record = std::fs::read_to_string(&session.record).unwrap_or_default();
        let record = tail(record.lines().map(str::to_owned).collect());
        let (host, relay) = (self.host.said(), self.relay.said());
        format!(
            "status: {status}\nthe host's log: {log}\nits agent: {record}\nthe daemon: {host}\nthe relay: {relay}"
        )
    }

    /// Ends everything kindly, also what outlives a daemon.
    pub async fn end(mut self) {
        if !self.host.has_ended() {
            drop(self.cli(&["down"]).await);
            self.is_over = self.host.ended(PATIENCE).await.is_some();
        }
        let _gone = self.relay.end(PATIENCE).await;
    }
}

/// What outlives a daemon must not outlive a test that failed.
impl Drop for World {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let run = |words: &[&str]| {
            let mut command = std::process::Command::new(&self.farhelm);
            command.args(words).env_clear().envs(&self.environment);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.spawn()
        };
        let daemon = self
            .host
            .has_ended()
            .then(|| run(&["host", "run", "--relay", &self.host_road.url()]));
        let begun = Instant::now();
        let socket = self.home().join("farhelm.sock");
        while std::os::unix::net::UnixStream::connect(&socket).is_err()
            && begun.elapsed() < FAREWELL
        {
            std::thread::sleep(POLL);
        }
        let down = run(&["down"]).and_then(|mut down| down.wait());
        if let Some(Ok(mut daemon)) = daemon {
            if !down.is_ok_and(|status| status.success()) {
                drop(daemon.kill());
            }
            drop(daemon.wait());
        }
    }
}

/// The program under test: `FARHELM_BIN`, or the one that was built beside this test.
///
/// # Errors
///
/// When there is none.
pub fn farhelm() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os("FARHELM_BIN") {
        return Ok(given.into());
    }
    let test = std::env::current_exe()?;
    let found = test
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("farhelm"));
    let mut found = found.filter(|program| program.is_file());
    found.next().context(
        "there is no program `farhelm` beside this test; build it with `cargo build -p farhelm`",
    )
}

/// An address of this machine on which nobody listens.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// Waits until something holds.
///
/// # Errors
///
/// When it does not in time.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !holds().await {
        ensure!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// How long a daemon that is started only to be ended may take.
const FAREWELL: Duration = Duration::from_secs(20);
/// How often something is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How much of the daemon's log a failure shows.
const LOG_BYTES: usize = 4000;
/// How much of a log a failure shows.
const LAST_LINES: usize = 30;
