//! The actor of one session: between its agent, its log and everybody who follows it.
//!
//! What arrives is taken in groups. Each group is decided, sealed and committed to the journal at
//! once; only then is it shown to anybody, and only then are its effects carried out. When the
//! disk is full the actor waits there, and with it the agent, until the journal takes the group.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use farhelm_core::command::{Command, Outcome, Rejection};
use farhelm_core::event::{Author, Event, Live, Record, Summary};
use farhelm_core::grant::Capability;
use farhelm_core::keys::{Identity, PublicKeys};
use farhelm_core::roster::Roster;
use farhelm_core::session::{Effect, Input, Session};
use farhelm_link::clock::now;
use farhelm_link::rng::random;
use farhelm_proto::{Code, CommandId, PeerId, SessionId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};

use self::running::Running;
use crate::agents::files::FileError;
use crate::agents::{self, AgentError, FileWork, Ticket};
use crate::config::AgentChoice;
use crate::environment::Environment;
use crate::journal::{Dropped, Journal, JournalError};
use crate::keeper::{Heard, Keepers, Kept};
use crate::leftovers::Leftovers;
use crate::stream::StreamWriter;
use crate::tasks::Tasks;
use crate::uplink::Uplink;
use crate::vitals::Vitals;

mod agent;
mod commit;
mod restore;
mod running;
mod wishes;

pub(crate) use agent::too_many;
pub(crate) use commit::letter_of;
pub(crate) use restore::{guard, open_records, restore};

/// Inputs taken in one group.
const GROUP: usize = 128;
/// Parts of a long line in one group.
const PARTS: usize = 16;
/// Inputs that may wait before senders do.
const WAITING: usize = 256;
/// File work that may wait before the agent is not heard any more.
const FILES: usize = 64;
/// How long deltas are gathered before they are shown.
const LIVE_EVERY: Duration = Duration::from_millis(40);
/// How often a growing message is shown whole, for readers that came late.
const WHOLE_EVERY: Duration = Duration::from_secs(2);
/// What followers at the host may lag behind before they read the journal again.
const FOLLOWERS: usize = 1024;

/// How a session is started again: written when it is opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) dir: std::path::PathBuf,
    pub(crate) agent: AgentChoice,
    pub(crate) environment: Environment,
}

/// Everything a session can be woken by.
#[expect(clippy::large_enum_variant, reason = "inputs are moved once or twice")]
#[derive(Debug)]
pub(crate) enum SessionInput {
    /// Somebody wants something.
    Wish(Wish),
    /// The agent said something or ended.
    Heard(Heard),
    /// File work for the agent is done.
    Filed(Ticket, Result<String, FileError>),
    /// The agent's program was started, or could not be.
    Launched(Result<Box<agent::Launched>, AgentError>),
    /// The session's keeper was found, or there is none.
    Reached(Reached),
    /// The agent has not come up in time.
    Late,
    /// The daemon stops, and its agents with it.
    Dismiss,
    /// A device was revoked: what follows is sealed anew.
    Rekey,
    /// Outputs were dropped, of whichever session.
    Dropped,
    /// The deltas that were gathered are to be shown.
    LiveDue,
}

/// What looking for a keeper came to.
pub(crate) type Reached = Result<Option<Kept>, AgentError>;
/// File work under way.
type Filing = oneshot::Receiver<(Ticket, Result<String, FileError>)>;

/// A wish with everything needed to answer it.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) command: Command,
    pub(crate) id: CommandId,
    pub(crate) by: Author,
    pub(crate) reply: Reply,
    /// After this it has no effect; zero means never.
    pub(crate) not_after: Timestamp,
    /// The command that it repeats.
    pub(crate) retries: Option<CommandId>,
}

/// Whom the answer goes to.
#[expect(clippy::large_enum_variant, reason = "wishes are few and moved once")]
#[derive(Debug)]
pub(crate) enum Reply {
    /// A device, by letter.
    Device { peer: PeerId, keys: PublicKeys },
    /// Somebody at the local socket.
    Local(oneshot::Sender<Outcome>),
}

/// What followers at the host see.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    /// A durable event.
    Record(Arc<Record>),
    /// A delta.
    Live(Arc<Live>),
}

/// A handle to a session's actor.
#[derive(Clone, Debug)]
pub(crate) struct SessionHandle {
    pub(crate) inputs: mpsc::Sender<SessionInput>,
    pub(crate) followers: broadcast::Sender<Seen>,
    pub(crate) summary: watch::Receiver<Summary>,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) stop: tokio_util::sync::CancellationToken,
}

/// What every session shares with the daemon.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) host: Arc<Identity>,
    pub(crate) journal: Journal,
    pub(crate) uplink: Uplink,
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    pub(crate) changed: Arc<tokio::sync::Notify>,
    pub(crate) tasks: Tasks,
    pub(crate) agents: agents::Registry,
    pub(crate) stderr_folder: std::path::PathBuf,
    pub(crate) leftovers: Leftovers,
    pub(crate) start_within: Duration,
    pub(crate) keepers: Arc<dyn Keepers>,
    /// How many more agents may run.
    pub(crate) living: Arc<Semaphore>,
    /// Whether the agents end with this daemon.
    pub(crate) ends_agents: Arc<AtomicBool>,
}

impl Shared {
    fn ends_agents(&self) -> bool {
        self.ends_agents.load(Ordering::Acquire)
    }

    /// The devices that may read sessions.
    pub(crate) fn readers(&self) -> Vec<(PeerId, PublicKeys)> {
        readers_of(&self.roster.borrow())
    }
}

/// The devices that may read sessions by this roster.
pub(crate) fn readers_of(roster: &Roster) -> Vec<(PeerId, PublicKeys)> {
    let at = now();
    let may_view = roster
        .devices()
        .filter(|(_, member)| member.grant.allows(Capability::View, at));
    may_view.map(|(peer, member)| (peer, member.keys)).collect()
}

pub(crate) struct SessionActor {
    id: SessionId,
    shared: Shared,
    spec: Spec,
    session: Session,
    writer: StreamWriter,
    since_snapshot: u64,
    /// The run of the agent's program.
    agent: Option<Running>,
    /// What its keeper says.
    heard: Option<mpsc::Receiver<Heard>>,
    /// The last number of which its keeper was told that it may forget it.
    acknowledged: u64,
    /// The keeper is being looked for; wishes wait.
    reaching: Option<oneshot::Receiver<Reached>>,
    /// Another daemon has the agent.
    is_superseded: bool,
    /// File work that waits for the one under way.
    files: VecDeque<(Ticket, FileWork)>,
    filing: Option<Filing>,
    inputs: mpsc::Receiver<SessionInput>,
    own_inputs: mpsc::Sender<SessionInput>,
    followers: broadcast::Sender<Seen>,
    summary: watch::Sender<Summary>,
    vitals: Arc<Vitals>,
    live: Vec<Live>,
    live_due: Option<tokio::time::Instant>,
    whole_due: tokio::time::Instant,
    stop: tokio_util::sync::CancellationToken,
    /// Wakes when outputs were dropped, of whichever session.
    dropping: watch::Receiver<Dropped>,
    /// Why nothing could be written, until the log says so.
    paused: Option<crate::journal::health::Pause>,
    /// How many events are known to be missing at the end of what the journal had, until the log says so.
    lost_end: Option<u64>,
}

impl SessionActor {
    pub(crate) fn new(
        id: SessionId,
        shared: Shared,
        spec: Spec,
        session: Session,
        writer: StreamWriter,
        since_snapshot: u64,
        at: farhelm_proto::Timestamp,
    ) -> (Self, SessionHandle) {
        let (own_inputs, inputs) = mpsc::channel(WAITING);
        let (followers, _) = broadcast::channel(FOLLOWERS);
        let (summary, summary_seen) = watch::channel(summarise(id, &session, at));
        let stop = tokio_util::sync::CancellationToken::new();
        let vitals = Arc::new(Vitals::default());
        let handle = SessionHandle {
            inputs: own_inputs.clone(),
            followers: followers.clone(),
            summary: summary_seen,
            vitals: Arc::clone(&vitals),
            stop: stop.clone(),
        };
        let dropping = shared.journal.dropping();
        let actor = Self {
            id,
            shared,
            spec,
            session,
            writer,
            since_snapshot,
            agent: None,
            heard: None,
            acknowledged: 0,
            reaching: None,
            is_superseded: false,
            files: VecDeque::new(),
            filing: None,
            inputs,
            own_inputs,
            followers,
            summary,
            vitals,
            live: Vec::new(),
            live_due: None,
            whole_due: tokio::time::Instant::now(),
            stop,
            dropping,
            paused: None,
            lost_end: None,
        };
        (actor, handle)
    }

    /// Opens the session with its first event, then runs.
    pub(crate) async fn open(mut self, opened: Event) {
        let mut batch = commit::Batch::default();
        self.stage(vec![opened], None, &mut batch);
        match self.commit(batch).await {
            Ok(()) => self.run().await,
            Err(error) => tracing::error!(session = %self.id, %error, "session cannot be opened"),
        }
    }

    /// Goes on where the journal ends: looks for the agent first.
    pub(crate) async fn go_on(mut self) {
        self.reach();
        self.run().await;
    }

    /// Ends the session, whose actor has met a fault of our own.
    pub(crate) async fn end_broken(mut self) {
        let text = "farhelm met a fault of its own in this session and has ended it; the daemon's log has the detail";
        let mut batch = commit::Batch::default();
        let noticed = Event::Noticed {
            code: Code::Internal,
            text: text.to_owned(),
        };
        self.stage(vec![noticed], None, &mut batch);
        let command = Command::EndSession { session: self.id };
        let by = Author::Host;
        self.decide(Input::Wish { command, by }, &mut batch);
        match self.commit(batch).await {
            Ok(()) => self.go_on().await,
            Err(error) => tracing::error!(session = %self.id, %error, "session cannot be ended"),
        }
    }

    async fn run(mut self) {
        let mut is_ending = false;
        while !self.is_over(is_ending) {
            let group = match self.next(is_ending).await {
                Some(first) => self.gather(first),
                None if !self.shared.ends_agents() => break,
                // The agents end with this daemon, and what becomes of them is noted.
                None => {
                    is_ending = true;
                    vec![SessionInput::Dismiss]
                }
            };
            if let Err(error) = self.take_group(group).await {
                tracing::error!(session = %self.id, %error, "session stops: its log cannot be written");
                break;
            }
        }
        // The daemon forgets a session that has ended and takes nothing more.
        self.inputs.close();
        if let Err(error) = self.answer_the_late().await {
            tracing::error!(session = %self.id, %error, "a late wish was not answered");
        }
        self.shared.changed.notify_one();
    }

    /// Wishes that came while the session ended are told so: nobody would bring them again before
    /// the next connection.
    async fn answer_the_late(&mut self) -> Result<(), JournalError> {
        if !self.session.ended {
            return Ok(());
        }
        let mut late = Vec::new();
        while let Ok(input) = self.inputs.try_recv() {
            if matches!(input, SessionInput::Wish(_)) {
                late.push(input);
            }
        }
        self.take_group(late).await
    }

    fn is_over(&self, is_ending: bool) -> bool {
        let is_alone = self.agent.is_none() && self.reaching.is_none();
        self.is_superseded || ((self.session.ended || is_ending) && is_alone)
    }

    /// Waits for what comes next; nothing when the daemon stops.
    async fn next(&mut self, is_ending: bool) -> Option<SessionInput> {
        let until_late = self.agent.as_ref().and_then(|agent| agent.until);
        let takes_wishes = self.reaching.is_none() && !is_ending;
        let takes_more = self.files.len() < FILES;
        Some(tokio::select! {
            biased;
            () = self.stop.cancelled(), if !is_ending => return None,
            reached = answered(&mut self.reaching), if self.reaching.is_some() => {
                self.reaching = None;
                SessionInput::Reached(reached)
            }
            Some(input) = self.inputs.recv(), if takes_wishes => input,
            done = filed(&mut self.filing), if self.filing.is_some() => {
                self.filing = None;
                done.map_or(SessionInput::LiveDue, |(ticket, outcome)| SessionInput::Filed(ticket, outcome))
            }
            Ok(()) = self.dropping.changed() => SessionInput::Dropped,
            heard = next_heard(&mut self.heard), if takes_more => SessionInput::Heard(heard),
            () = until(self.live_due) => SessionInput::LiveDue,
            () = until(until_late) => SessionInput::Late,
        })
    }

    /// Takes what else has arrived, so that it shares one commit.
    fn gather(&mut self, first: SessionInput) -> Vec<SessionInput> {
        let is_turn = matches!(first, SessionInput::Reached(_));
        let mut parts = 0;
        let mut group = vec![first];
        while group.len() < GROUP && parts < PARTS && !is_turn && self.reaching.is_none() {
            if let Ok(input) = self.inputs.try_recv() {
                group.push(input);
                continue;
            }
            let heard = self.heard.as_mut().and_then(|heard| heard.try_recv().ok());
            let Some(heard) = heard else { break };
            parts += usize::from(matches!(heard, Heard::Part { .. }));
            group.push(SessionInput::Heard(heard));
        }
        group
    }

    async fn take_group(&mut self, group: Vec<SessionInput>) -> Result<(), JournalError> {
        let mut batch = commit::Batch::default();
        self.say_lost_end(&mut batch);
        for input in group {
            match input {
                SessionInput::Wish(wish) => self.take_wish(wish, &mut batch).await?,
                SessionInput::Heard(heard) => self.take_heard(heard, &mut batch),
                SessionInput::Filed(ticket, outcome) => {
                    self.take_filed(ticket, outcome, &mut batch);
                }
                SessionInput::Launched(launched) => self.take_launched(launched, &mut batch),
                SessionInput::Reached(reached) => self.take_reached(reached, &mut batch).await?,
                SessionInput::Late => self.take_late(&mut batch),
                SessionInput::Dismiss => self.dismiss(&mut batch),
                SessionInput::Dropped => self.say_dropped(&mut batch).await?,
                SessionInput::Rekey => self.writer.rekey(),
                SessionInput::LiveDue => self.live_due = None,
            }
        }
        self.commit(batch).await?;
        self.note_pause().await?;
        self.begin_filing();
        if self.live_due.is_none() {
            self.show_live();
        }
        Ok(())
    }

    /// Decides something that cannot be rejected.
    fn decide(&mut self, input: Input, batch: &mut commit::Batch) {
        match self.session.decide(now(), input, &mut random) {
            Ok(events) => {
                self.stage(events, None, batch);
            }
            Err(Rejection { code, text }) => {
                tracing::error!(%code, %text, "an agent's word was rejected");
            }
        }
    }

    /// Applies events in memory; they are shown, and what follows is done, only after the commit.
    fn stage(
        &mut self,
        events: Vec<Event>,
        cause: Option<CommandId>,
        batch: &mut commit::Batch,
    ) -> u64 {
        let mut effects = Vec::new();
        for event in events {
            batch.moved.extend(self.session.deliveries(cause, &event));
            effects.extend(self.session.effects(&event));
            self.session.apply(cause, &event);
            batch.records.push(Record {
                seq: 0,
                at: now(),
                cause,
                event,
            });
        }
        let last = self.writer.head() + batch.records.len() as u64;
        for effect in effects {
            self.act(effect, batch);
        }
        last
    }

    /// Does what follows from an event. The agent is told in the same commit.
    fn act(&mut self, effect: Effect, batch: &mut commit::Batch) {
        match effect {
            Effect::StartAgent { resume } => batch.start = Some(agent::conversation(resume)),
            Effect::StopAgent => self.dismiss(batch),
            Effect::Order(order) => drop(self.order(order, batch)),
            Effect::Answer { approval, order } => self.answer(approval, order, batch),
        }
    }

    fn gather_live(&mut self, live: Live) {
        if let (
            Some(Live::Text {
                message: last,
                text: grown,
                ..
            }),
            Live::Text { message, text, .. },
        ) = (self.live.last_mut(), &live)
            && last == message
        {
            grown.push_str(text);
        } else {
            self.live.push(live);
        }
        if self.live_due.is_none() {
            self.live_due = Some(tokio::time::Instant::now() + LIVE_EVERY);
        }
    }

    /// Shows the deltas that were gathered, or now and then the whole message instead.
    fn show_live(&mut self) {
        if self.live.is_empty() {
            return;
        }
        let mut live = std::mem::take(&mut self.live);
        let at = tokio::time::Instant::now();
        if at >= self.whole_due
            && let Some(whole) = self
                .agent
                .as_ref()
                .and_then(|agent| agent.saved.assembler.growing())
        {
            self.whole_due = at + WHOLE_EVERY;
            live.push(whole);
        }
        self.send_live(live);
    }

    /// Shows something that is not in the log.
    fn send_live(&mut self, live: Vec<Live>) {
        if let Ok(json) = serde_json::to_vec(&live)
            && let Some(frame) = self.writer.seal_live(&json)
        {
            self.shared.uplink.live(frame);
        }
        for item in live {
            drop(self.followers.send(Seen::Live(Arc::new(item))));
        }
    }
}

/// The session as a list shows it.
pub(crate) fn summarise(id: SessionId, session: &Session, at: farhelm_proto::Timestamp) -> Summary {
    Summary {
        session: id,
        title: session.title.clone(),
        dir: session.dir.clone(),
        branch: session.branch.clone(),
        agent: session.agent.clone(),
        state: session.activity(),
        pending: u32::try_from(session.pending()).unwrap_or(u32::MAX),
        at,
    }
}

async fn next_heard(heard: &mut Option<mpsc::Receiver<Heard>>) -> Heard {
    match heard {
        // Whoever speaks for a keeper says why before it goes.
        Some(heard) => heard.recv().await.unwrap_or(Heard::Cut),
        None => std::future::pending().await,
    }
}

async fn answered(reaching: &mut Option<oneshot::Receiver<Reached>>) -> Reached {
    match reaching {
        Some(reaching) => reaching.await.unwrap_or_else(|_| {
            Err(AgentError::new(
                Code::Internal,
                "the search for the agent's keeper was given up",
            ))
        }),
        None => std::future::pending().await,
    }
}

async fn filed(filing: &mut Option<Filing>) -> Option<(Ticket, Result<String, FileError>)> {
    match filing {
        Some(filing) => filing.await.ok(),
        None => std::future::pending().await,
    }
}

async fn until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
