//! The actor of one session: between its agent, its log and everybody who follows it.
//!
//! What arrives is taken in groups. Each group is decided, sealed and committed to the journal at
//! once; only then is it shown to anybody, and only then are its effects carried out. When the
//! disk is full the actor waits there, and with it the agent, until the journal takes the group.

use std::sync::Arc;
use std::time::Duration;

use farhelm_core::agent::Said;
use farhelm_core::assemble::{Assembler, Made};
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
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::agents::{self, AgentError, AgentHandle, AgentOutput, Conversation, Launch};
use crate::config::AgentChoice;
use crate::environment::Environment;
use crate::journal::{Journal, JournalError};
use crate::leftovers::Leftovers;
use crate::stream::StreamWriter;
use crate::tasks::Tasks;
use crate::uplink::Uplink;
use crate::vitals::Vitals;

mod commit;
mod restore;
mod wishes;

pub(crate) use commit::letter_of;
pub(crate) use restore::{open_records, restore};

/// Inputs taken in one group.
const GROUP: usize = 128;
/// Inputs that may wait before senders do.
const WAITING: usize = 256;
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
    Agent(AgentOutput),
    /// The agent's program was started, or could not be.
    Launched(Result<(AgentHandle, mpsc::Receiver<AgentOutput>), AgentError>),
    /// A device was revoked: what follows is sealed anew.
    Rekey,
    /// The deltas that were gathered are to be shown.
    LiveDue,
}

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
}

impl Shared {
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

/// How the agent's program was started last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// With a new conversation, or it has come up.
    Afresh,
    /// With its earlier conversation; it has not come up yet.
    Resuming,
    /// The agent does not know its earlier conversation any more: once its program has ended, it
    /// is started with a new one.
    Forgotten,
}

pub(crate) struct SessionActor {
    id: SessionId,
    shared: Shared,
    spec: Spec,
    session: Session,
    writer: StreamWriter,
    since_snapshot: u64,
    agent: Option<AgentHandle>,
    outputs: Option<mpsc::Receiver<AgentOutput>>,
    start: Start,
    assembler: Assembler,
    inputs: mpsc::Receiver<SessionInput>,
    own_inputs: mpsc::Sender<SessionInput>,
    followers: broadcast::Sender<Seen>,
    summary: watch::Sender<Summary>,
    vitals: Arc<Vitals>,
    live: Vec<Live>,
    live_due: Option<tokio::time::Instant>,
    whole_due: tokio::time::Instant,
    stop: tokio_util::sync::CancellationToken,
    /// Why nothing could be written, until the log says so.
    paused: Option<crate::journal::health::Pause>,
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
        let actor = Self {
            id,
            shared,
            spec,
            session,
            writer,
            since_snapshot,
            agent: None,
            outputs: None,
            start: Start::Afresh,
            assembler: Assembler::new(String::new()),
            inputs,
            own_inputs,
            followers,
            summary,
            vitals,
            live: Vec::new(),
            live_due: None,
            whole_due: tokio::time::Instant::now(),
            stop,
            paused: None,
        };
        (actor, handle)
    }

    /// Opens the session with its first event, then runs.
    pub(crate) async fn open(mut self, opened: Event) {
        let mut batch = commit::Batch::default();
        self.stage(vec![opened], None, &mut batch);
        let result = match self.commit(batch).await {
            Ok(effects) => self.act_all(effects).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => self.run().await,
            Err(error) => tracing::error!(session = %self.id, %error, "session cannot be opened"),
        }
    }

    /// Runs until the session has ended or the daemon stops.
    pub(crate) async fn run(mut self) {
        loop {
            let first = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(input) = self.inputs.recv() => input,
                Some(output) = next_output(&mut self.outputs) => SessionInput::Agent(output),
                () = until(self.live_due) => SessionInput::LiveDue,
            };
            let group = self.gather(first);
            if let Err(error) = self.take_group(group).await {
                tracing::error!(session = %self.id, %error, "session stops: its log cannot be written");
                break;
            }
            if self.session.ended && self.agent.is_none() {
                break;
            }
        }
        self.end_agent().await;
        // The daemon forgets a session that has ended and takes nothing more.
        self.inputs.close();
        self.shared.changed.notify_one();
    }

    /// Takes what else has arrived, so that it shares one commit.
    fn gather(&mut self, first: SessionInput) -> Vec<SessionInput> {
        let mut group = vec![first];
        while group.len() < GROUP {
            if let Ok(input) = self.inputs.try_recv() {
                group.push(input);
                continue;
            }
            let output = self
                .outputs
                .as_mut()
                .and_then(|outputs| outputs.try_recv().ok());
            let Some(output) = output else { break };
            group.push(SessionInput::Agent(output));
        }
        group
    }

    async fn take_group(&mut self, group: Vec<SessionInput>) -> Result<(), JournalError> {
        let mut batch = commit::Batch::default();
        for input in group {
            match input {
                SessionInput::Wish(wish) => self.take_wish(wish, &mut batch).await?,
                SessionInput::Agent(AgentOutput::Said(said)) => {
                    self.vitals.heard_now();
                    self.take_said(said, &mut batch);
                }
                SessionInput::Agent(AgentOutput::Exited {
                    code,
                    signal,
                    stderr,
                }) => {
                    self.take_exit(code, signal, stderr, &mut batch);
                }
                SessionInput::Launched(Ok((handle, outputs))) => {
                    self.take_launched(handle, outputs);
                }
                SessionInput::Launched(Err(error)) => {
                    let failed = Said::StartFailed {
                        code: error.code,
                        text: error.text,
                    };
                    self.decide_said(failed, &mut batch);
                    self.take_exit(None, None, String::new(), &mut batch);
                }
                SessionInput::Rekey => self.writer.rekey(),
                SessionInput::LiveDue => self.live_due = None,
            }
        }
        let effects = self.commit(batch).await?;
        self.note_pause().await?;
        self.act_all(effects).await?;
        if self.live_due.is_none() {
            self.show_live();
        }
        Ok(())
    }

    async fn act_all(&mut self, effects: Vec<Effect>) -> Result<(), JournalError> {
        for effect in effects {
            self.act(effect).await?;
        }
        Ok(())
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only the start of the program is special here"
    )]
    fn take_said(&mut self, said: Said, batch: &mut commit::Batch) {
        let said = match said {
            Said::Started { .. } => {
                self.start = Start::Afresh;
                said
            }
            Said::StartFailed {
                code: Code::AgentRefused,
                text,
            } if self.start == Start::Resuming => {
                self.start = Start::Forgotten;
                let text = format!(
                    "the agent could not go on with its conversation, so a new one begins: {text}"
                );
                Said::Notice {
                    code: Code::AgentRefused,
                    text,
                }
            }
            other => other,
        };
        for made in self.assembler.push(said) {
            self.take_made(made, batch);
        }
    }

    fn take_made(&mut self, made: Made, batch: &mut commit::Batch) {
        match made {
            Made::Live(live) => self.gather_live(live),
            Made::Said(said) => self.decide_said(said, batch),
        }
    }

    fn decide_said(&mut self, said: Said, batch: &mut commit::Batch) {
        let said = self.shrink(said, batch);
        self.decide(Input::Said(said), batch);
    }

    fn take_exit(
        &mut self,
        code: Option<i32>,
        signal: Option<i32>,
        stderr: String,
        batch: &mut commit::Batch,
    ) {
        for made in self.assembler.finish() {
            self.take_made(made, batch);
        }
        self.agent = None;
        self.outputs = None;
        self.vitals.agent_is(None);
        self.shared.leftovers.forget(&self.id.to_string());
        if self.start == Start::Forgotten && !self.session.ended {
            self.start_agent(None);
            return;
        }
        self.decide(
            Input::Exited {
                code,
                signal,
                stderr,
            },
            batch,
        );
    }

    fn take_launched(&mut self, handle: AgentHandle, outputs: mpsc::Receiver<AgentOutput>) {
        let run = farhelm_core::text::hex(&random::<4>());
        self.assembler = Assembler::new(run);
        self.shared
            .leftovers
            .note(&self.id.to_string(), handle.pid());
        self.vitals.agent_is(Some(handle.pid()));
        self.agent = Some(handle);
        self.outputs = Some(outputs);
        if self.session.ended
            && let Some(agent) = &self.agent
        {
            agent.stop();
        }
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

    /// Applies events in memory; they are shown and acted upon only after the commit.
    fn stage(
        &mut self,
        events: Vec<Event>,
        cause: Option<CommandId>,
        batch: &mut commit::Batch,
    ) -> u64 {
        for event in events {
            batch.moved.extend(self.session.deliveries(cause, &event));
            batch.effects.extend(self.session.effects(&event));
            self.session.apply(cause, &event);
            batch.records.push(Record {
                seq: 0,
                at: now(),
                cause,
                event,
            });
        }
        self.writer.head() + batch.records.len() as u64
    }

    async fn act(&mut self, effect: Effect) -> Result<(), JournalError> {
        match effect {
            Effect::StartAgent { resume } => self.start_agent(resume),
            Effect::StopAgent => {
                if let Some(agent) = &self.agent {
                    agent.stop();
                }
            }
            Effect::Order(order) => self.order(order),
            Effect::Answer { approval, order } => {
                self.order(order);
                let mut batch = commit::Batch::default();
                self.decide(Input::Answered(approval), &mut batch);
                // Being told that an answer was given makes nothing else necessary.
                let effects = self.commit(batch).await?;
                debug_assert!(effects.is_empty());
            }
        }
        Ok(())
    }

    fn order(&self, order: farhelm_core::agent::Order) {
        let told = self.agent.as_ref().map(|agent| agent.order(order));
        if !matches!(told, Some(Ok(()))) {
            tracing::debug!(session = %self.id, "the agent is gone; its end is on its way");
        }
    }

    fn start_agent(&mut self, resume: Option<String>) {
        self.start = if resume.is_some() {
            Start::Resuming
        } else {
            Start::Afresh
        };
        let (shared, spec, inputs) = (
            self.shared.clone(),
            self.spec.clone(),
            self.own_inputs.clone(),
        );
        let stderr = shared.stderr_folder.join(format!("{}.stderr", self.id));
        let stop = self.stop.clone();
        let starting = async move {
            let launched = async {
                let agent = spec.agent.resolve(&shared.agents)?;
                let launch = Launch {
                    conversation: resume.map_or(Conversation::New, Conversation::Continue),
                    stderr: Some(stderr),
                    start_within: shared.start_within,
                    ..Launch::new(spec.dir.clone(), spec.environment.resolve(&spec.dir).await)
                };
                agents::launch(&agent, launch).await
            };
            let result =
                tokio::select! { result = launched => result, () = stop.cancelled() => return };
            // The actor is gone only when the session is over; the handle's drop ends the agent.
            drop(inputs.send(SessionInput::Launched(result)).await);
        };
        self.shared.tasks.spawn("start agent", starting);
    }

    /// Ends the agent's program and waits for it.
    async fn end_agent(&mut self) {
        let Some(agent) = self.agent.take() else {
            return;
        };
        agent.stop();
        let Some(outputs) = &mut self.outputs else {
            return;
        };
        while let Some(output) = outputs.recv().await {
            if let AgentOutput::Exited { .. } = output {
                break;
            }
        }
        self.shared.leftovers.forget(&self.id.to_string());
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
            && let Some(whole) = self.assembler.growing()
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

async fn next_output(outputs: &mut Option<mpsc::Receiver<AgentOutput>>) -> Option<AgentOutput> {
    match outputs {
        Some(outputs) => outputs.recv().await,
        None => std::future::pending().await,
    }
}

async fn until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
