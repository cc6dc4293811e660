//! The daemon: owns the host's own log, its roster and its sessions, and is the one place where a
//! letter or a local request turns into somebody's wish.
//!
//! 1. A letter arrives: its signature is checked against the roster, it is opened, its expiry and
//!    the device's grant are checked ([`letters`]).
//! 2. A wish for a session goes to that session's actor; one for the host is decided here
//!    ([`wishes`]).
//! 3. What is decided is appended to the host's log, applied, and then acted upon ([`log`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use farhelm_core::command::Outcome;
use farhelm_core::fleet::Fleet;
use farhelm_core::keys::Identity;
use farhelm_core::pairing::Offer;
use farhelm_core::roster::Roster;
use farhelm_link::clock::now;
use farhelm_link::driver::LinkOptions;
use farhelm_proto::frame::{Members, Role};
use farhelm_proto::letter::Letter;
use farhelm_proto::{OfferId, PeerId, SessionId, Timestamp};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::agents::AgentError;
use crate::awake::Awake;
use crate::config::Config;
use crate::home::Home;
use crate::journal::{Journal, JournalError};
use crate::keeper::{self, Keepers, Processes};
use crate::leftovers::Leftovers;
use crate::session::{self, SessionHandle, Shared, Spec};
use crate::stream::StreamWriter;
use crate::tasks::Tasks;
use crate::tunnel::{Tunnel, Via};
use crate::uplink::{Mail, RelayState, Standings, Uplink};

mod letters;
mod log;
mod opening;
mod probes;
mod routes;
mod wishes;

pub(crate) use probes::Answer;
use routes::Routes;
pub(crate) use wishes::no_agent;

/// Local requests that may wait.
const WAITING: usize = 64;
/// Letters that may wait.
const LETTERS: usize = 64;
/// How long the agents may take to end when the daemon is to end them.
const AGENTS_WITHIN: Duration = Duration::from_secs(20);
/// How long tasks may take to end when the daemon stops.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// The tunnel's name among the programs that run.
const TUNNEL: &str = "tunnel";
/// How often expired pairing links are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// How often letters are tried again whose session could not take them.
const AGAIN: Duration = Duration::from_millis(250);

/// What a daemon is started with.
pub struct DaemonOptions {
    /// The state folder, locked by the caller.
    pub home: Home,
    /// The configuration.
    pub config: Config,
    /// The relay.
    pub relay: RelayChoice,
    /// The program's version.
    pub version: String,
    /// Where sessions get the keepers of their agents from; processes of their own unless given.
    pub keepers: Option<Arc<dyn Keepers>>,
}

/// What a daemon consists of before it runs.
pub(crate) struct Parts {
    /// The host's keys.
    pub(crate) identity: Arc<Identity>,
    /// Its journal.
    pub(crate) journal: Journal,
    /// Its state folder.
    pub(crate) folder: std::path::PathBuf,
    pub(crate) config: Arc<Config>,
    pub(crate) relay: RelayChoice,
    pub(crate) version: String,
    pub(crate) keepers: Arc<dyn Keepers>,
}

/// The relay that a daemon uses.
pub enum RelayChoice {
    /// Somebody runs it.
    Remote {
        /// Its address.
        url: String,
    },
    /// It runs inside this program.
    Embedded {
        /// Its loopback address, as a browser on this machine reaches it.
        url: String,
        /// Its port.
        port: u16,
        /// Makes it answer to one more authority, as a tunnel gives it.
        allow: Box<dyn Fn(&str) + Send + Sync>,
    },
}

impl RelayChoice {
    fn url(&self) -> &str {
        match self {
            Self::Remote { url } | Self::Embedded { url, .. } => url,
        }
    }
}

/// Something the daemon is told from this machine.
pub(crate) enum Request {
    /// Somebody at the host wants something.
    Wish {
        command: farhelm_core::command::Command,
        reply: oneshot::Sender<Outcome>,
    },
    /// A session is wanted, with the environment of a terminal.
    Start {
        /// What it is to be called.
        session: Option<SessionId>,
        spec: Spec,
        prompt: Option<String>,
        reply: oneshot::Sender<Outcome>,
    },
    /// A session's handle.
    Session {
        session: SessionId,
        reply: oneshot::Sender<Option<SessionHandle>>,
    },
    /// What is known of each session.
    Pulse {
        reply: oneshot::Sender<farhelm_core::probe::Echo>,
    },
    /// Somebody is to answer through the relay.
    RoundTrip {
        of: PeerId,
        reply: oneshot::Sender<Answer>,
    },
    /// A session's actor has met a fault, and another has taken its place.
    Replaced {
        session: SessionId,
        handle: SessionHandle,
    },
    /// A tunnel is wanted.
    Tunnel {
        via: Via,
        reply: oneshot::Sender<Result<String, AgentError>>,
    },
    /// A tunnel is there, or is not.
    Tunnelled {
        tunnel: Result<Tunnel, AgentError>,
        reply: oneshot::Sender<Result<String, AgentError>>,
    },
}

/// A handle for the local socket.
#[derive(Clone)]
pub(crate) struct DaemonHandle {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) fleet: watch::Receiver<Arc<Fleet>>,
    pub(crate) relay: watch::Receiver<RelayState>,
    pub(crate) standings: Standings,
    pub(crate) public_url: watch::Receiver<String>,
    pub(crate) relay_url: String,
    pub(crate) journal: Journal,
    pub(crate) host: Arc<Identity>,
    pub(crate) config: Arc<Config>,
    pub(crate) tasks: Tasks,
    pub(crate) stop: CancellationToken,
    pub(crate) ends_agents: Arc<AtomicBool>,
    pub(crate) since: Timestamp,
    pub(crate) version: String,
}

/// A daemon that is ready to run.
pub struct Daemon {
    shared: Shared,
    config: Arc<Config>,
    relay: RelayChoice,
    version: String,
    writer: StreamWriter,
    fleet: Fleet,
    roster: Roster,
    /// The roster after the extension that is being written.
    next_roster: Option<Roster>,
    since_snapshot: u64,
    offers: BTreeMap<OfferId, Offer>,
    sessions: BTreeMap<SessionId, SessionHandle>,
    /// Those whose logs are damaged.
    unreadable: BTreeMap<SessionId, String>,
    tunnel: Option<Tunnel>,
    roster_out: watch::Sender<Arc<Roster>>,
    fleet_out: watch::Sender<Arc<Fleet>>,
    public_url: watch::Sender<String>,
    requests: mpsc::Receiver<Request>,
    own_requests: mpsc::Sender<Request>,
    letters: mpsc::Receiver<Mail>,
    /// Letters whose session cannot take them right now, or not before its log is known to be whole.
    deferred: VecDeque<(SessionId, Letter)>,
    /// Whether there were more, which the relay takes for delivered.
    left_out: bool,
    routes: Routes,
    probes: probes::Probes,
    awake: Awake,
    stop: CancellationToken,
}

/// Why a daemon cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The state folder cannot be used.
    #[error(transparent)]
    Home(#[from] crate::home::HomeError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The local socket cannot be made.
    #[error("local socket: {0}")]
    Socket(#[from] std::io::Error),
}

impl Daemon {
    /// Brings the host back as its journal says, and opens the local socket.
    ///
    /// # Errors
    ///
    /// [`DaemonError`] when the state cannot be used.
    pub async fn start(options: DaemonOptions) -> Result<Self, DaemonError> {
        let DaemonOptions {
            home,
            config,
            relay,
            version,
            keepers,
        } = options;
        let identity = Arc::new(home.identity()?);
        let generation = home.next_generation()?;
        let keepers = keepers.unwrap_or_else(|| {
            Arc::new(Processes::new(
                home.path(),
                generation,
                Arc::clone(&identity),
            ))
        });
        let parts = Parts {
            identity,
            journal: Journal::open_within(&home.journal(), config.journal_bytes())?,
            folder: home.path().to_owned(),
            config: Arc::new(config),
            relay,
            version,
            keepers,
        };
        let (daemon, handle) = Self::assemble(parts).await?;
        fail::point("host.daemon.before_socket");
        crate::local::serve(&home.socket(), handle)?;
        fail::point("host.daemon.after_socket");
        Ok(daemon)
    }

    /// Brings the host back as its journal says.
    pub(crate) async fn assemble(parts: Parts) -> Result<(Self, DaemonHandle), DaemonError> {
        let Parts {
            identity,
            journal,
            folder,
            config,
            relay,
            version,
            keepers,
        } = parts;
        let ends_agents = Arc::new(AtomicBool::new(false));
        let tasks = Tasks::default();
        let stop = CancellationToken::new();

        let own = identity.peer().into();
        let (fleet, since_snapshot) = log::read_fleet(&journal, own).await?;
        let end = journal.stream(own).await?;
        let epoch = journal.last_epoch(own).await?;
        let writer = StreamWriter::new(Arc::clone(&identity), own, end, epoch);
        let name = config.name.clone().unwrap_or_else(machine_name);
        let (roster, founded) = log::read_roster(&fleet, &identity, &name)?;

        let (letters_in, letters) = mpsc::channel(LETTERS);
        let (uplink, uplink_actor) = Uplink::new(journal.clone(), own, letters_in);
        let (roster_out, roster_seen) = watch::channel(Arc::new(roster.clone()));
        let (fleet_out, fleet_seen) = watch::channel(Arc::new(fleet.clone()));
        let (public_url, public_url_seen) = watch::channel(relay.url().to_owned());
        let (own_requests, requests) = mpsc::channel(WAITING);
        let shared = Shared {
            host: Arc::clone(&identity),
            journal: journal.clone(),
            uplink: uplink.clone(),
            roster: roster_seen,
            changed: Arc::new(Notify::new()),
            tasks: tasks.clone(),
            agents: config.registry(),
            stderr_folder: folder.join("stderr"),
            leftovers: Leftovers::new(folder.join("running")),
            start_within: config.start_within(),
            keepers,
            living: Arc::new(Semaphore::new(config.agents_at_once())),
            ends_agents: Arc::clone(&ends_agents),
        };
        drop(std::fs::create_dir_all(&shared.stderr_folder));
        shared.leftovers.end_all();

        let mut daemon = Self {
            shared,
            config: Arc::clone(&config),
            relay,
            version: version.clone(),
            writer,
            fleet,
            roster,
            next_roster: None,
            since_snapshot,
            offers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            tunnel: None,
            roster_out,
            fleet_out,
            public_url,
            requests,
            own_requests: own_requests.clone(),
            letters,
            deferred: VecDeque::new(),
            left_out: false,
            routes: Routes::default(),
            probes: probes::Probes::default(),
            awake: Awake::new(config.keep_awake != Some(false) && !farhelm_world::is_played()),
            stop: stop.clone(),
        };
        fail::point("host.daemon.before_start_noted");
        daemon.note_start(&name, founded).await?;
        fail::point("host.daemon.before_restore");
        daemon.restore_sessions().await?;
        fail::point("host.daemon.after_restore");
        daemon.tell_members();

        let generation = now().0;
        let link = LinkOptions {
            relay: daemon.relay.url().to_owned(),
            identity: Arc::clone(&identity),
            role: Role::Host,
            generation,
            dead_millis: None,
            agent: format!("farhelm/{version}"),
            extra_ca: config.extra_ca.clone(),
        };
        tasks.spawn("uplink", async move {
            if let Err(error) = uplink_actor.run(link).await {
                tracing::error!(%error, "the uplink stops");
            }
        });
        let handle = DaemonHandle {
            requests: own_requests,
            fleet: fleet_seen,
            relay: uplink.state(),
            standings: uplink.standings().clone(),
            public_url: public_url_seen,
            relay_url: daemon.relay.url().to_owned(),
            journal,
            host: identity,
            config,
            tasks,
            stop,
            ends_agents,
            since: now(),
            version,
        };
        Ok((daemon, handle))
    }

    /// A token that stops the daemon.
    #[must_use]
    pub fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs until it is told to stop. The agents go on with their keepers, unless they are to end.
    ///
    /// # Errors
    ///
    /// [`JournalError`] when the host's log cannot be written any more.
    pub async fn run(mut self) -> Result<(), JournalError> {
        let changed = Arc::clone(&self.shared.changed);
        let mut damages = self.shared.journal.damages().watch();
        let mut sweep = tokio::time::interval(SWEEP);
        let mut again = tokio::time::interval(AGAIN);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                _ = sweep.tick() => {
                    self.sweep_offers();
                    if !self.shared.stderr_folder.exists() {
                        tracing::error!("the state folder is gone; nobody can reach this daemon any more");
                        self.shared.ends_agents.store(true, Ordering::Release);
                        break;
                    }
                }
                _ = again.tick(), if !self.deferred.is_empty() => self.take_deferred().await?,
                () = tunnel_ended(&mut self.tunnel) => {
                    tracing::warn!("the tunnel program has ended");
                    self.tunnel = None;
                    self.shared.leftovers.forget(TUNNEL);
                    self.public_url.send_replace(self.relay.url().to_owned());
                }
                () = changed.notified() => self.list_sessions().await?,
                Ok(()) = damages.changed() => self.restore_mended().await?,
                Some(request) = self.requests.recv() => self.take_request(request).await?,
                Some(mail) = self.letters.recv() => match mail {
                    Mail::Letter(letter) => self.take_letter(&letter).await?,
                    Mail::Away(id) => self.take_away(id),
                },
            }
        }
        fail::point("host.daemon.before_stop");
        self.list_sessions().await?;
        for handle in self.sessions.values() {
            handle.stop.cancel();
        }
        let closed = async {
            for handle in self.sessions.values() {
                handle.inputs.closed().await;
            }
        };
        if tokio::time::timeout(AGENTS_WITHIN, closed).await.is_err() {
            tracing::warn!("an agent could not be ended");
        }
        if self.shared.ends_agents.load(Ordering::Acquire) {
            // What became of the agents is in the sessions' logs by now.
            self.list_sessions().await?;
            self.sessions.clear();
            self.put_away_strays().await;
        }
        self.sessions.clear();
        if let Some(tunnel) = self.tunnel.take() {
            tunnel.close().await;
            self.shared.leftovers.forget(TUNNEL);
        }
        let (tasks, journal) = (self.shared.tasks.clone(), self.shared.journal.clone());
        drop(self);
        // What is left has been told to stop; the uplink ends with the last handle to it.
        drop(tokio::time::timeout(STOP_WITHIN, tasks.done()).await);
        if let Err(error) = journal.settle().await {
            tracing::warn!(%error, "the journal is left in several files");
        }
        Ok(())
    }

    async fn take_request(&mut self, request: Request) -> Result<(), JournalError> {
        match request {
            Request::Wish { command, reply } => self.take_local_wish(command, reply).await?,
            Request::Start {
                session,
                spec,
                prompt,
                reply,
            } => {
                let by = farhelm_core::event::Author::Local;
                let decided = match session.filter(|session| self.has_begun(*session)) {
                    Some(session) => Ok(opening::opened(session)),
                    None => self.start_session(session, spec, prompt, by, None).await?,
                };
                drop(reply.send(decided.unwrap_or_else(wishes::refused)));
            }
            Request::Session { session, reply } => {
                drop(reply.send(self.sessions.get(&session).cloned()));
            }
            Request::Pulse { reply } => drop(reply.send(self.own_echo().await?)),
            Request::RoundTrip { of, reply } => self.round_trip(of, reply),
            Request::Replaced { session, handle } => {
                self.sessions.insert(session, handle);
                self.shared.changed.notify_one();
            }
            Request::Tunnel { via, reply } => self.open_tunnel(via, reply),
            Request::Tunnelled { tunnel, reply } => {
                let opened = tunnel.map(|tunnel| {
                    let url = tunnel.url.clone();
                    if let RelayChoice::Embedded { allow, .. } = &self.relay {
                        allow(url.trim_start_matches("https://"));
                    }
                    self.public_url.send_replace(url.clone());
                    self.shared.leftovers.note(TUNNEL, tunnel.pid());
                    self.tunnel = Some(tunnel);
                    url
                });
                drop(reply.send(opened));
            }
        }
        Ok(())
    }

    fn open_tunnel(&self, via: Via, reply: oneshot::Sender<Result<String, AgentError>>) {
        let RelayChoice::Embedded { port, .. } = &self.relay else {
            let url = self.relay.url();
            let text = format!(
                "a tunnel is for the embedded relay, and this daemon uses {url}; run `farhelm down` first to change that"
            );
            drop(reply.send(Err(AgentError::new(
                farhelm_proto::Code::TunnelFailed,
                text,
            ))));
            return;
        };
        if let Some(tunnel) = self.tunnel.as_ref().filter(|tunnel| tunnel.via == via) {
            drop(reply.send(Ok(tunnel.url.clone())));
            return;
        }
        let (port, requests) = (*port, self.own_requests.clone());
        self.shared.tasks.spawn("open tunnel", async move {
            let tunnel = Tunnel::open(via, port).await;
            drop(requests.send(Request::Tunnelled { tunnel, reply }).await);
        });
    }

    async fn restore_sessions(&mut self) -> Result<(), JournalError> {
        for (id, entry) in self.shared.journal.sessions().await? {
            let is_over = self
                .fleet
                .sessions
                .get(&id)
                .is_some_and(|summary| summary.state == farhelm_core::event::Activity::Ended);
            if is_over {
                continue;
            }
            self.restore_session(id, entry).await?;
        }
        self.put_away_strays().await;
        self.list_sessions().await
    }

    /// Brings one session back. One whose log is damaged is left out, until the relay has given
    /// back what is missing; all others go on.
    async fn restore_session(&mut self, id: SessionId, entry: String) -> Result<(), JournalError> {
        let Ok(spec) = serde_json::from_str::<Spec>(&entry) else {
            tracing::error!(session = %id, "a session's entry cannot be read");
            return Ok(());
        };
        match session::restore(id, spec.clone(), self.shared.clone()).await {
            Ok(Some((actor, handle))) => {
                self.sessions.insert(id, handle);
                self.let_live(id, spec, actor.go_on());
                self.give_first_prompt(id, &entry).await?;
            }
            Ok(None) => self.open_noted(id, &entry).await?,
            Err(error @ (JournalError::Damaged { .. } | JournalError::Corrupt(_))) => {
                tracing::error!(session = %id, %error, "a session cannot be brought back");
                self.unreadable.insert(id, entry);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Tries again those whose logs were damaged.
    async fn restore_mended(&mut self) -> Result<(), JournalError> {
        let damages = self.shared.journal.damages().all();
        for (id, entry) in std::mem::take(&mut self.unreadable) {
            if damages.iter().any(|damage| damage.stream == id.into()) {
                self.unreadable.insert(id, entry);
            } else {
                self.restore_session(id, entry).await?;
            }
        }
        self.list_sessions().await
    }

    /// Gives a session's actor a life of its own.
    pub(super) fn let_live(
        &self,
        id: SessionId,
        spec: Spec,
        life: impl Future<Output = ()> + Send + 'static,
    ) {
        let (shared, replace) = (self.shared.clone(), self.own_requests.clone());
        let life = session::guard(id, spec, shared, life, replace);
        self.shared.tasks.spawn("session", life);
    }

    /// Ends the agents of keepers whose sessions there are not.
    async fn put_away_strays(&self) {
        for id in self.shared.keepers.list().await {
            // One that cannot be read may be given back by the relay.
            if self.sessions.contains_key(&id) || self.unreadable.contains_key(&id) {
                continue;
            }
            let keepers = Arc::clone(&self.shared.keepers);
            self.shared.tasks.spawn("put away agent", async move {
                match keepers.attach(id).await {
                    Ok(Some(kept)) => {
                        tracing::warn!(session = %id, "an agent without a session is ended");
                        keeper::put_away(kept).await;
                    }
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(session = %id, %error, "an agent without a session is out of reach");
                    }
                }
            });
        }
    }

    /// Tells the relay who belongs to the fleet.
    pub(super) fn tell_members(&self) {
        let devices = self.roster.devices().map(|(peer, _)| peer).collect();
        self.shared.uplink.members(Members {
            version: self.roster.number(),
            devices,
        });
    }

    fn sweep_offers(&mut self) {
        let at = now();
        let over: Vec<_> = self
            .offers
            .iter()
            .filter(|(_, offer)| offer.waiting().is_none() && at > offer.until())
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.offers.remove(&id);
            self.shared.uplink.close_offer(id, None);
        }
    }
}

/// What this machine calls itself.
fn machine_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    farhelm_core::pairing::clean_name(&name)
}

async fn tunnel_ended(tunnel: &mut Option<Tunnel>) {
    match tunnel {
        Some(tunnel) => tunnel.ended().await,
        None => std::future::pending().await,
    }
}
