//! Wishes to the host itself: sessions, pairings, devices, keys.

use std::path::PathBuf;
use std::sync::Arc;

use farhelm_core::command::{Command, Delivery, Outcome, Rejection};
use farhelm_core::event::{Author, Event, HostEvent};
use farhelm_core::grant::{Capability, Grant};
use farhelm_core::keys::PublicKeys;
use farhelm_core::pairing::{Link, Offer, PairAnswer};
use farhelm_core::roster::{Change, Roster};
use farhelm_core::session::Session;
use farhelm_link::clock::now;
use farhelm_link::rng::random;
use farhelm_proto::limits::OPEN_OFFERS;
use farhelm_proto::{Code, CommandId, OfferId, PeerId, SessionId, StreamId};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use super::Daemon;
use super::letters::{Asker, fresh_id};
use crate::agents::AgentError;
use crate::agents::registry::find_program;
use crate::config::AgentChoice;
use crate::environment::Environment;
use crate::journal::{JournalError, Op};
use crate::session::{Reply, SessionActor, SessionInput, Spec, Wish};
use crate::stream::{StreamWriter, key_letters};

/// Sessions that may be open at once on one host.
const MAX_SESSIONS: usize = 256;

impl Daemon {
    /// A wish of somebody at this machine.
    pub(super) async fn take_local_wish(
        &mut self,
        command: Command,
        reply: oneshot::Sender<Outcome>,
    ) -> Result<(), JournalError> {
        let Some(session) = command.session() else {
            let outcome = self
                .take_host_wish(command, Author::Local, None, None)
                .await?;
            drop(reply.send(outcome));
            return Ok(());
        };
        let Some(handle) = self.sessions.get(&session) else {
            let known = self.fleet.sessions.contains_key(&session);
            let code = if known {
                Code::SessionEnded
            } else {
                Code::SessionNotFound
            };
            drop(reply.send(refused(Rejection::new(code))));
            return Ok(());
        };
        let wish = Wish {
            command,
            id: fresh_id(),
            by: Author::Local,
            reply: Reply::Local(reply),
        };
        if let Err(TrySendError::Closed(SessionInput::Wish(Wish {
            reply: Reply::Local(reply),
            ..
        }))) = handle.inputs.try_send(SessionInput::Wish(wish))
        {
            drop(reply.send(refused(Rejection::new(Code::SessionEnded))));
        }
        // When it does not fit, the reply's end is dropped with it, and the asker is told.
        Ok(())
    }

    /// Decides and carries out a wish to the host.
    pub(super) async fn take_host_wish(
        &mut self,
        command: Command,
        by: Author,
        asker: Asker,
        cause: Option<CommandId>,
    ) -> Result<Outcome, JournalError> {
        match command {
            Command::StartSession { dir, agent, prompt } => {
                let agent = agent.or_else(|| self.config.agent.clone());
                match self.spec_from_afar(dir, agent).await {
                    Ok(spec) => self.start_session(spec, prompt, by).await,
                    Err(rejection) => Ok(refused(rejection)),
                }
            }
            Command::OpenPairing {} => Ok(self.open_pairing()),
            Command::SettlePairing { offer, accept } => {
                self.settle_pairing(offer, accept, cause).await
            }
            Command::RevokeDevice { peer } => self.revoke(peer, cause).await,
            Command::Recall { .. } => Ok(refused(Rejection::new(Code::NotFound))),
            Command::SendKeys { stream } => self.send_keys(stream, asker).await,
            Command::Prompt { .. }
            | Command::EditPrompt { .. }
            | Command::MovePrompt { .. }
            | Command::WithdrawPrompt { .. }
            | Command::DecideApproval { .. }
            | Command::CancelTurn { .. }
            | Command::SetMode { .. }
            | Command::SetConfig { .. }
            | Command::Rename { .. }
            | Command::ResumeAgent { .. }
            | Command::EndSession { .. } => Ok(refused(Rejection::new(Code::SessionNotFound))),
        }
    }

    /// Opens a session and starts its agent.
    pub(super) async fn start_session(
        &mut self,
        spec: Spec,
        prompt: Option<String>,
        by: Author,
    ) -> Result<Outcome, JournalError> {
        if self.sessions.len() >= MAX_SESSIONS {
            let rejection = Rejection::because(
                Code::Full,
                "too many sessions are open; end some with `farhelm stop`",
            );
            return Ok(refused(rejection));
        }
        if !spec.dir.is_dir() {
            let text = format!("{} is not a folder", spec.dir.display());
            return Ok(refused(Rejection::because(Code::FolderMissing, text)));
        }
        let environment = spec.environment.resolve(&spec.dir).await;
        let found = spec.agent.resolve(&self.shared.agents).and_then(|agent| {
            find_program(
                &agent,
                environment.get(std::ffi::OsStr::new("PATH")),
                &spec.dir,
            )?;
            Ok(agent)
        });
        let agent = match found {
            Ok(agent) => agent,
            Err(AgentError { code, text }) => return Ok(refused(Rejection::because(code, text))),
        };
        let at = now();
        let id = SessionId::fresh(at, random());
        let text = serde_json::to_string(&spec).unwrap_or_default();
        fail::point("host.wishes.before_session_noted");
        self.shared
            .journal
            .commit(vec![Op::Session {
                session: id,
                spec: text,
            }])
            .await?;
        fail::point("host.wishes.after_session_noted");
        let title = spec.dir.file_name().map_or_else(
            || "/".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        );
        let opened = Event::SessionOpened {
            title,
            dir: spec.dir.to_string_lossy().into_owned(),
            branch: crate::git::branch(&spec.dir).await,
            agent: agent.name,
        };
        let writer = StreamWriter::new(Arc::clone(&self.shared.host), id.into(), None, 0);
        let (actor, handle) = SessionActor::new(
            id,
            self.shared.clone(),
            spec,
            Session::default(),
            writer,
            0,
            at,
        );
        self.shared.tasks.spawn("session", actor.open(opened));
        if let Some(text) = prompt.filter(|text| !text.trim().is_empty()) {
            let (reply, _) = oneshot::channel();
            let command = Command::Prompt { session: id, text };
            let wish = Wish {
                command,
                id: fresh_id(),
                by,
                reply: Reply::Local(reply),
            };
            drop(handle.inputs.try_send(SessionInput::Wish(wish)));
        }
        let mut summary = handle.summary.clone();
        self.sessions.insert(id, handle);
        // Once its first event is on the disk, the session is there for good.
        drop(summary.wait_for(|summary| !summary.dir.is_empty()).await);
        fail::point("host.wishes.after_session_opened");
        self.list_sessions().await?;
        let seq = self.writer.head();
        Ok(Outcome::Applied {
            stream: self.writer.stream(),
            seq,
            made: Some(id.to_string()),
            delivery: Delivery::Done,
        })
    }

    async fn spec_from_afar(&self, dir: String, agent: Option<String>) -> Result<Spec, Rejection> {
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
                found.ok_or_else(no_agent)?.name
            }
        };
        Ok(Spec {
            dir,
            agent: AgentChoice::Named { name },
            environment,
        })
    }

    fn open_pairing(&mut self) -> Outcome {
        if self.offers.len() >= OPEN_OFFERS {
            let text = "too many pairing links are open; use one, or wait until they expire";
            return refused(Rejection::because(Code::Full, text));
        }
        let offer = Offer::new(random(), now());
        let link = Link {
            relay: self.public_url.borrow().clone(),
            host: *self.shared.host.public(),
            secret: *offer.secret(),
        };
        self.shared.uplink.open_offer(offer.id(), offer.until());
        self.offers.insert(offer.id(), offer);
        Outcome::Applied {
            stream: self.writer.stream(),
            seq: self.writer.head(),
            made: Some(link.to_url()),
            delivery: Delivery::Done,
        }
    }

    async fn settle_pairing(
        &mut self,
        id: OfferId,
        accept: bool,
        cause: Option<CommandId>,
    ) -> Result<Outcome, JournalError> {
        let Some(offer) = self.offers.get_mut(&id) else {
            return Ok(refused(Rejection::because(
                Code::NotFound,
                "no such pairing waits",
            )));
        };
        let candidate = match offer.settle(now()) {
            Ok(candidate) => candidate,
            Err(code) => return Ok(refused(Rejection::new(code))),
        };
        self.offers.remove(&id);
        let settled = HostEvent::PairingSettled {
            offer: id,
            accepted: accept,
        };
        if !accept {
            let answer = PairAnswer::Refused {
                code: Code::PairingRefused,
            };
            let ops = self
                .pair_answer(&candidate.keys, id, &answer)
                .into_iter()
                .collect();
            let seq = self.extend(vec![settled], cause, ops).await?;
            return Ok(Outcome::Applied {
                stream: self.writer.stream(),
                seq,
                made: None,
                delivery: Delivery::Done,
            });
        }
        let peer = candidate.keys.peer();
        let change = Change::Admitted {
            keys: candidate.keys,
            name: candidate.name,
            grant: Grant::owner(),
        };
        let Some((entry, roster)) = self.next_roster(change) else {
            return Ok(refused(Rejection::new(Code::Internal)));
        };
        let answer = PairAnswer::Accepted {
            roster: roster.entries().to_vec(),
        };
        let mut ops: Vec<Op> = self
            .pair_answer(&candidate.keys, id, &answer)
            .into_iter()
            .collect();
        for (stream, _) in self.shared.journal.streams().await? {
            ops.extend(self.keys_for(stream, peer, candidate.keys).await?);
        }
        self.next_roster = Some(roster);
        let seq = self.extend(vec![entry, settled], cause, ops).await?;
        Ok(Outcome::Applied {
            stream: self.writer.stream(),
            seq,
            made: Some(peer.to_string()),
            delivery: Delivery::Done,
        })
    }

    async fn revoke(
        &mut self,
        peer: PeerId,
        cause: Option<CommandId>,
    ) -> Result<Outcome, JournalError> {
        if self.roster.member(peer).is_none() || peer == self.roster.host() {
            return Ok(refused(Rejection::because(
                Code::NotFound,
                "no such device",
            )));
        }
        let Some((entry, roster)) = self.next_roster(Change::Revoked { peer }) else {
            return Ok(refused(Rejection::new(Code::Internal)));
        };
        self.next_roster = Some(roster);
        self.writer.rekey();
        let seq = self
            .extend(vec![entry], cause, vec![Op::LettersDropped { to: peer }])
            .await?;
        fail::point("host.wishes.after_revoked");
        for handle in self.sessions.values() {
            // A session that cannot take it now is full of inputs; it must not miss this one.
            drop(handle.inputs.send(SessionInput::Rekey).await);
        }
        Ok(Outcome::Applied {
            stream: self.writer.stream(),
            seq,
            made: None,
            delivery: Delivery::Done,
        })
    }

    /// The roster after a change, and the event that makes it so.
    fn next_roster(&self, change: Change) -> Option<(HostEvent, Roster)> {
        let host = &self.shared.host;
        let entry = self
            .roster
            .next_entry(change, now(), host.peer(), host.signing());
        let mut roster = self.roster.clone();
        roster.extend(&entry).ok()?;
        Some((
            HostEvent::RosterExtended {
                entry: serde_json::to_string(&entry).ok()?,
            },
            roster,
        ))
    }

    async fn send_keys(&mut self, stream: StreamId, asker: Asker) -> Result<Outcome, JournalError> {
        let Some((peer, keys)) =
            asker.filter(|(peer, _)| self.roster.allows(*peer, Capability::View, now()))
        else {
            return Ok(refused(Rejection::new(Code::Forbidden)));
        };
        let ops = self.keys_for(stream, peer, keys).await?;
        let seq = self.extend(Vec::new(), None, ops).await?;
        Ok(Outcome::Applied {
            stream: self.writer.stream(),
            seq,
            made: None,
            delivery: Delivery::Done,
        })
    }

    /// A letter with all content keys of a stream.
    async fn keys_for(
        &self,
        stream: StreamId,
        peer: PeerId,
        keys: PublicKeys,
    ) -> Result<Vec<Op>, JournalError> {
        let epochs = self.shared.journal.keys(stream).await?;
        let epochs: Vec<_> = epochs.iter().map(|(epoch, key)| (*epoch, key)).collect();
        if epochs.is_empty() {
            return Ok(Vec::new());
        }
        Ok(key_letters(
            &self.shared.host,
            stream,
            &epochs,
            &[(peer, keys)],
        ))
    }
}

pub(super) fn refused(rejection: Rejection) -> Outcome {
    Outcome::Refused { rejection }
}

/// Nothing that we know is installed.
pub(crate) fn no_agent() -> Rejection {
    Rejection::because(
        Code::AgentMissing,
        "no agent was found on the PATH; install one (npm install -g @anthropic-ai/claude-code, opencode-ai or \
         @google/gemini-cli), or name one with --agent or --agent-cmd; `--agent scripted` needs nothing",
    )
}
