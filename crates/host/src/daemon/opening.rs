//! Opening a session. That it is wanted, and by which command, is one commit; what is not done of
//! it when the daemon ends is done by the next one.

use std::path::PathBuf;
use std::sync::Arc;

use farhelm_core::command::{Command, Delivery, Outcome, Rejection};
use farhelm_core::event::{Author, Event};
use farhelm_core::session::Session;
use farhelm_link::clock::now;
use farhelm_link::rng::random;
use farhelm_proto::{Code, CommandId, SessionId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Daemon;
use super::letters::{Asker, fresh_id};
use super::wishes::Decided;
use crate::agents::AgentError;
use crate::agents::registry::find_program;
use crate::config::AgentChoice;
use crate::environment::Environment;
use crate::journal::{JournalError, Op};
use crate::session::{Reply, SessionActor, SessionHandle, SessionInput, Spec, Wish};
use crate::stream::StreamWriter;

/// Sessions that may be open at once on one host.
const MAX_SESSIONS: usize = 256;

/// A session as it is written down before it is opened.
#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    spec: Spec,
    #[serde(default)]
    opening: Option<Opening>,
}

/// What its beginning holds.
#[derive(Serialize, Deserialize)]
struct Opening {
    title: String,
    branch: Option<String>,
    agent: String,
    first: Option<First>,
}

/// Its first prompt, with the id that makes it the same however often it is given.
#[derive(Serialize, Deserialize)]
struct First {
    id: CommandId,
    text: String,
    by: Author,
}

/// What becomes of the wish for a session that is opened.
pub(super) fn opened(session: SessionId) -> Outcome {
    Outcome::Applied {
        stream: session.into(),
        seq: 1,
        made: Some(session.to_string()),
        delivery: Delivery::Done,
    }
}

impl Daemon {
    /// Opens a session and starts its agent.
    pub(super) async fn start_session(
        &mut self,
        wanted: Option<SessionId>,
        spec: Spec,
        prompt: Option<String>,
        by: Author,
        asker: Option<&Asker>,
    ) -> Decided {
        let agent = match self.check_start(&spec).await {
            Ok(agent) => agent,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let id = wanted.unwrap_or_else(|| SessionId::fresh(now(), random()));
        let title = spec.dir.file_name().map_or_else(
            || "/".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        );
        let text = prompt.filter(|text| !text.trim().is_empty());
        let opening = Opening {
            title,
            branch: crate::git::branch(&spec.dir).await,
            agent,
            first: text.map(|text| First {
                id: fresh_id(),
                text,
                by,
            }),
        };
        let entry = Entry {
            spec,
            opening: Some(opening),
        };
        let outcome = opened(id);
        let mut ops = vec![Op::Session {
            session: id,
            spec: serde_json::to_string(&entry).unwrap_or_default(),
        }];
        ops.extend(self.answer_ops(asker, &outcome));
        fail::point("host.wishes.before_session_noted");
        self.extend(Vec::new(), None, ops).await?;
        fail::point("host.wishes.after_session_noted");
        self.open_session(id, entry).await?;
        fail::point("host.wishes.after_session_opened");
        self.list_sessions().await?;
        Ok(Ok(outcome))
    }

    /// Whether a session is there, or has been.
    pub(super) fn has_begun(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
            || self.fleet.sessions.contains_key(&session)
            || self.unreadable.contains_key(&session)
    }

    /// Whether a session can be started; the name of its agent.
    async fn check_start(&self, spec: &Spec) -> Result<String, Rejection> {
        if self.sessions.len() >= MAX_SESSIONS {
            let text = "too many sessions are open; end some with `farhelm stop`";
            return Err(Rejection::because(Code::Full, text));
        }
        if self.shared.living.available_permits() == 0 {
            let AgentError { code, text } = crate::session::too_many();
            return Err(Rejection::because(code, text));
        }
        if !spec.dir.is_dir() {
            let text = format!("{} is not a folder", spec.dir.display());
            return Err(Rejection::because(Code::FolderMissing, text));
        }
        let environment = spec.environment.resolve(&spec.dir).await;
        let found = spec.agent.resolve(&self.shared.agents).and_then(|agent| {
            find_program(
                &agent,
                environment.get(std::ffi::OsStr::new("PATH")),
                &spec.dir,
            )?;
            Ok(agent.name)
        });
        found.map_err(|AgentError { code, text }| Rejection::because(code, text))
    }

    /// Brings up a session of which nothing but its entry is written down.
    pub(super) async fn open_noted(
        &mut self,
        id: SessionId,
        entry: &str,
    ) -> Result<(), JournalError> {
        match serde_json::from_str::<Entry>(entry) {
            Ok(entry) if entry.opening.is_some() => self.open_session(id, entry).await,
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn open_session(&mut self, id: SessionId, entry: Entry) -> Result<(), JournalError> {
        let Entry { spec, opening } = entry;
        let Some(opening) = opening else {
            return Ok(());
        };
        let opened = Event::SessionOpened {
            title: opening.title,
            dir: spec.dir.to_string_lossy().into_owned(),
            branch: opening.branch,
            agent: opening.agent,
        };
        let epoch = self.shared.journal.last_epoch(id.into()).await?;
        let lost = self.shared.journal.lost_end(id.into()).await?;
        let writer = StreamWriter::new(Arc::clone(&self.shared.host), id.into(), None, epoch);
        let (mut actor, handle) = SessionActor::new(
            id,
            self.shared.clone(),
            spec.clone(),
            Session::default(),
            writer,
            0,
            now(),
        );
        actor.has_lost(lost);
        self.let_live(id, spec, actor.open(opened));
        give_first(&handle, id, opening.first);
        let mut summary = handle.summary.clone();
        self.sessions.insert(id, handle);
        // Once its first event is on the disk, the session is there for good.
        drop(summary.wait_for(|summary| !summary.dir.is_empty()).await);
        Ok(())
    }

    /// Gives a session that was brought back its first prompt, when it has never had it.
    pub(super) async fn give_first_prompt(
        &self,
        id: SessionId,
        entry: &str,
    ) -> Result<(), JournalError> {
        let entry = serde_json::from_str::<Entry>(entry).ok();
        let first = entry.and_then(|entry| entry.opening?.first);
        if let (Some(first), Some(handle)) = (first, self.sessions.get(&id))
            && self.shared.journal.command(first.id).await?.is_none()
        {
            give_first(handle, id, Some(first));
        }
        Ok(())
    }

    pub(super) async fn spec_from_afar(
        &self,
        dir: String,
        agent: Option<String>,
    ) -> Result<Spec, Rejection> {
        let dir = PathBuf::from(dir);
        if !dir.is_absolute() {
            return Err(Rejection::because(
                Code::FolderMissing,
                "the folder must be given whole, from /",
            ));
        }
        let dir = dir.canonicalize().map_err(|error| {
            Rejection::because(Code::FolderMissing, format!("{}: {error}", dir.display()))
        })?;
        let environment = Environment::LoginShell;
        let name = match agent {
            Some(name) => name,
            None => {
                let variables = environment.resolve(&dir).await;
                let path = variables.get(std::ffi::OsStr::new("PATH"));
                let found = self.shared.agents.detect(path);
                found.ok_or_else(super::no_agent)?.name
            }
        };
        Ok(Spec {
            dir,
            agent: AgentChoice::Named { name },
            environment,
        })
    }
}

fn give_first(handle: &SessionHandle, session: SessionId, first: Option<First>) {
    let Some(First { id, text, by }) = first else {
        return;
    };
    let (reply, _) = oneshot::channel();
    let wish = Wish {
        command: Command::Prompt { session, text },
        id,
        by,
        reply: Reply::Local(reply),
        not_after: Timestamp(0),
        retries: None,
    };
    drop(handle.inputs.try_send(SessionInput::Wish(wish)));
}
