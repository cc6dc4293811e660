//! The daemon: starting it apart from this terminal, and being it.

use std::io::Read as _;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use farhelm_host::config::Config;
use farhelm_host::daemon::{Daemon, DaemonOptions, RelayChoice};
use farhelm_host::home::{Home, HomeLock};
use farhelm_host::local::{LocalClient, LocalRequest, socket_of};
use farhelm_proto::{Code, PeerId};
use farhelm_relay::Relay;

use crate::failure::Failure;

/// How long a daemon may take to answer.
const START_WITHIN: Duration = Duration::from_secs(20);
/// How long one that is there takes to answer at most, unless it is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// How often a daemon looks whether its state folder is still there.
const LOOK_EVERY: Duration = Duration::from_millis(2500);
/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// How often a state folder that another daemon holds is tried again.
const TRY_EVERY: Duration = Duration::from_millis(100);
/// The embedded relay's port is one of these the first time, by the host's id.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 10_000;
/// Ports that are tried before any free one is taken.
const TRIES: u16 = 16;
/// Daemons that may end under what they are asked, before that is said.
const DAEMONS: usize = 3;

/// Asks something of the daemon, which is started if none runs; `asking` is told whether it was.
///
/// A daemon may end in the moment in which it is asked. Then another one is, a few times: what it
/// is asked must be the same however often it is done.
pub(crate) async fn with<T>(
    home: &Path,
    relay: Option<&str>,
    asking: impl AsyncFn(&LocalClient, bool) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let home = Home::open(home.to_owned())?;
    let client = LocalClient::new(&socket_of(home.path()));
    let mut daemons = 0;
    loop {
        daemons += 1;
        let started = ensure(&home, &client, relay).await;
        let asked = home.locked_by();
        let done = match started {
            Ok(started) => asking(&client, started).await,
            Err(failure) => Err(failure),
        };
        match (done, asked) {
            (Err(failure), Some(pid)) if failure.code == Code::NotRunning && daemons < DAEMONS => {
                // It may still listen for a moment, and would be taken for one that runs.
                let _ended = ended(&home, pid, START_WITHIN).await;
            }
            (done, _) => return done,
        }
    }
}

/// Waits until a daemon has given back the state folder, or another has taken it; whether it did.
pub(crate) async fn ended(home: &Home, pid: u32, within: Duration) -> bool {
    let deadline = tokio::time::Instant::now() + within;
    while home.lock().is_err() && home.locked_by() == Some(pid) {
        if tokio::time::Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    true
}

/// Starts a daemon if none runs. Says whether it did.
async fn ensure(home: &Home, client: &LocalClient, relay: Option<&str>) -> Result<bool, Failure> {
    if client.is_running().await {
        return Ok(false);
    }
    let deadline = tokio::time::Instant::now() + START_WITHIN;
    loop {
        match start(home, client, relay, deadline).await {
            // Another terminal was faster, or an earlier daemon is about to end.
            Err(failure)
                if failure.code == Code::AlreadyRunning
                    && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(TRY_EVERY).await;
                if client.is_running().await {
                    return Ok(false);
                }
            }
            result => return result,
        }
    }
}

/// Starts a daemon and waits until one answers. Says whether that is the one.
async fn start(
    home: &Home,
    client: &LocalClient,
    relay: Option<&str>,
    deadline: tokio::time::Instant,
) -> Result<bool, Failure> {
    let program = std::env::current_exe().map_err(Failure::internal)?;
    let mut command = Command::new(program);
    command.arg("--home").arg(home.path()).args(["host", "run"]);
    if let Some(relay) = relay {
        command.args(["--relay", relay]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .current_dir("/")
        .spawn()
        .map_err(Failure::internal)?;
    while !client.is_running().await {
        if let Ok(Some(_)) = child.try_wait() {
            let mut said = String::new();
            if let Some(stderr) = &mut child.stderr {
                drop(stderr.read_to_string(&mut said));
            }
            return Err(read_failure(&said));
        }
        if tokio::time::Instant::now() > deadline {
            let text = format!("the daemon does not answer; see {}", home.log().display());
            return Err(Failure::new(Code::Timeout, text));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(crate::station::status(client).await?.pid == child.id())
}

/// The failure that a daemon printed before it ended.
fn read_failure(said: &str) -> Failure {
    let parts = said
        .split_once("error[")
        .and_then(|(_, rest)| rest.split_once("]: "));
    match parts {
        Some((code, text)) => {
            // The hint goes with the code, and is given again.
            let text = text.split_once("\nhint: ").map_or(text, |(text, _)| text);
            Failure::new(
                Code::from_word(code).unwrap_or(Code::Internal),
                text.trim_end(),
            )
        }
        None => Failure::internal(format!("the daemon ended at once: {}", said.trim())),
    }
}

/// Is the daemon, until it is told to stop.
pub(crate) async fn run(home: &Path, relay: Option<String>, wait: bool) -> Result<(), Failure> {
    // Apart from the terminal that started it. It fails only for a leader, who is apart already.
    let _apart = rustix::process::setsid().is_ok();
    let home = Home::open(home.to_owned())?;
    // Given back by the kernel: who gets it next may rely on this process being gone.
    let lock = ManuallyDrop::new(lock(&home, wait).await?);
    start_log(&home);
    farhelm_relay::program::take_small_pages();
    let mut config = Config::read(&home.config())?;
    config.relay = relay.or(config.relay);
    if let Some(ca) = crate::station::extra_ca() {
        config.extra_ca = Some(ca);
    }
    let (choice, embedded) = choose_relay(&home, &config)?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let daemon = Daemon::start(DaemonOptions {
        home: home.clone(),
        config,
        relay: choice,
        version,
        keepers: None,
    })
    .await?;
    let stop = daemon.stopper();
    let signals = stop.clone();
    let listening = async move {
        wait_for_signal().await;
        signals.cancel();
    };
    let running = async {
        let result = daemon.run().await;
        stop.cancel();
        result
    };
    let (result, is_lost) = tokio::join!(running, async {
        tokio::select! {
            () = listening => false,
            () = stop.cancelled() => false,
            () = lost(&lock) => {
                stop.cancel();
                true
            }
            () = crate::ready::tell(LocalClient::new(&home.socket())) => false,
        }
    });
    if let Some(relay) = embedded.and_then(Arc::into_inner) {
        relay.shutdown().await;
    }
    if is_lost {
        // The socket there is another daemon's, if there is one.
        let text = format!(
            "{} was removed or replaced while this daemon used it",
            home.path().display()
        );
        return Err(Failure::new(Code::StateUnusable, text));
    }
    drop(std::fs::remove_file(home.socket()));
    result.map_err(Failure::from)
}

/// The state folder for this process alone; with `wait` once another daemon has given it back.
///
/// Without it, one that does not answer is waited for all the same, for a while: it is about to
/// end, or was killed while it started a program, which has its lock and its socket until it is
/// that program.
async fn lock(home: &Home, wait: bool) -> Result<HomeLock, Failure> {
    let begun = tokio::time::Instant::now();
    loop {
        match home.lock() {
            Err(error) if error.code == Code::AlreadyRunning => {
                let every = if begun.elapsed() < START_WITHIN && !answers(home).await {
                    ASK_EVERY
                } else if wait {
                    TRY_EVERY
                } else {
                    return Err(error.into());
                };
                tokio::time::sleep(every).await;
            }
            result => return Ok(result?),
        }
    }
}

/// Whether a daemon is there, be it one that is stuck.
async fn answers(home: &Home) -> bool {
    let daemon = LocalClient::new(&home.socket());
    let answer = daemon.ask_once(&LocalRequest::Pulse);
    let answer = tokio::time::timeout(STUCK_AFTER, answer).await;
    !matches!(answer, Ok(Err(error)) if error.code == Code::NotRunning)
}

/// Waits until the state folder is no more.
async fn lost(lock: &HomeLock) {
    let mut looks = 0;
    // One that is being moved is not there for a moment.
    while looks < 2 {
        tokio::time::sleep(LOOK_EVERY).await;
        looks = if lock.is_void() { looks + 1 } else { 0 };
    }
}

/// The relay that the configuration names, or one inside this process.
fn choose_relay(
    home: &Home,
    config: &Config,
) -> Result<(RelayChoice, Option<Arc<Relay>>), Failure> {
    if let Some(url) = &config.relay {
        let url = url.trim_end_matches('/').to_owned();
        if !is_address(&url) {
            let text = format!(
                "{url:?} is not the address of a relay; one looks like https://relay.example"
            );
            return Err(Failure::new(Code::RelayUnreachable, text));
        }
        return Ok((RelayChoice::Remote { url }, None));
    }
    let identity = home.identity()?;
    let (relay, port) = start_relay(home, config, identity.peer())?;
    let relay = Arc::new(relay);
    let for_tunnel = Arc::downgrade(&relay);
    let allow = Box::new(move |authority: &str| {
        if let Some(relay) = for_tunnel.upgrade()
            && let Err(error) = relay.allow_authority(authority)
        {
            tracing::warn!(%error, "the tunnel's address cannot be used");
        }
    });
    Ok((
        RelayChoice::Embedded {
            url: format!("http://localhost:{port}"),
            port,
            allow,
        },
        Some(relay),
    ))
}

/// Whether it is a scheme with an authority and nothing after it.
fn is_address(url: &str) -> bool {
    let authority = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    authority.is_some_and(|authority| {
        !authority.is_empty() && !authority.contains(['/', '?', '#', '@', ' '])
    })
}

/// Starts the embedded relay, for this host only. Its port stays what it was the first time: it is
/// part of the address that devices know.
fn start_relay(home: &Home, config: &Config, host: PeerId) -> Result<(Relay, u16), Failure> {
    let start = |port: u16| {
        let listen = ([127, 0, 0, 1], port).into();
        let hosts = vec![host];
        Relay::start(farhelm_relay::Config {
            listen,
            hosts,
            ..farhelm_relay::Config::in_folder(home.path().join("relay"))
        })
    };
    let remembered = home.path().join("relay.port");
    let kept = std::fs::read_to_string(&remembered)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    if let Some(port) = config.relay_port.or(kept) {
        return start(port).map(|relay| (relay, port)).map_err(|error| {
            let text = format!(
                "the embedded relay cannot listen on port {port}, which is part of the address that devices know: \
                 {error:#}; end the program that uses it, or remove {} and pair the devices again",
                remembered.display(),
            );
            Failure::new(Code::StateUnusable, text)
        });
    }
    // Below the range from which systems take ports of outgoing connections.
    let bytes = host.as_bytes();
    let first = FIRST_PORT + u16::from_be_bytes([bytes[0], bytes[1]]) % PORTS;
    let mut last = None;
    for port in (first..first.saturating_add(TRIES)).chain([0]) {
        match start(port) {
            Ok(relay) => {
                let port = relay.local_addr().port();
                std::fs::write(&remembered, port.to_string()).map_err(|error| {
                    Failure::new(
                        Code::StateUnusable,
                        format!("{}: {error}", remembered.display()),
                    )
                })?;
                return Ok((relay, port));
            }
            Err(error) => last = Some(error),
        }
    }
    let why = last.map(|error| format!("{error:#}")).unwrap_or_default();
    Err(Failure::new(
        Code::StateUnusable,
        format!("the embedded relay cannot be started: {why}"),
    ))
}

fn start_log(home: &Home) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(home.log());
    let Ok(file) = file else { return };
    let filter = tracing_subscriber::EnvFilter::try_from_env("FARHELM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(file)
        // Else a full disk makes it complain to standard error, which is that file too, and panic.
        .log_internal_errors(false)
        .finish();
    drop(tracing::subscriber::set_global_default(subscriber));
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    // A terminal that is closed ends what was started from it, but not the sessions.
    let _kept = signal(SignalKind::hangup());
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
}
