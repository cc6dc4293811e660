//! Wishes to the host itself: sessions, pairings, devices, keys.

use std::collections::BTreeMap;

use farhelm_core::command::{Command, Delivery, Outcome, Rejection};
use farhelm_core::event::{Author, HostEvent};
use farhelm_core::grant::{Capability, Grant};
use farhelm_core::keys::PublicKeys;
use farhelm_core::pairing::{Link, Offer, PairAnswer};
use farhelm_core::roster::{Change, Roster};
use farhelm_link::clock::now;
use farhelm_link::rng::random;
use farhelm_proto::limits::OPEN_OFFERS;
use farhelm_proto::{Code, CommandId, OfferId, PeerId, SessionId, StreamId, Timestamp};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use super::Daemon;
use super::letters::{Asker, fresh_id};
use crate::journal::{JournalError, Op};
use crate::session::{Reply, SessionInput, Wish};
use crate::stream::key_letters;
use crate::uplink::Standing;

impl Daemon {
    /// A wish of somebody at this machine.
    pub(super) async fn take_local_wish(
        &mut self,
        command: Command,
        reply: oneshot::Sender<Outcome>,
    ) -> Result<(), JournalError> {
        let Some(session) = command.session() else {
            let outcome = self.take_host_wish(command, Author::Local, None).await?;
            drop(reply.send(outcome));
            return Ok(());
        };
        let Some(handle) = self.sessions.get(&session) else {
            let code = self.why_absent(session);
            drop(reply.send(refused(Rejection::new(code))));
            return Ok(());
        };
        // Without a relay nobody knows, and whoever sits here need not wait for one.
        let standing = self.shared.uplink.standings().of(session.into());
        if standing == Standing::Forked && !is_stopping(&command) {
            drop(reply.send(refused(forked())));
            return Ok(());
        }
        let wish = Wish {
            command,
            id: fresh_id(),
            by: Author::Local,
            reply: Reply::Local(reply),
            not_after: Timestamp(0),
            retries: None,
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

    /// Why a session takes no wishes.
    pub(super) fn why_absent(&self, session: SessionId) -> Code {
        if self.unreadable.contains_key(&session) {
            Code::HistoryDamaged
        } else if self.fleet.sessions.contains_key(&session) {
            Code::SessionEnded
        } else {
            Code::SessionNotFound
        }
    }

    /// Decides and carries out a wish to the host. What became of it is in the commit of its
    /// effect, with the receipt for the device that asked.
    pub(super) async fn take_host_wish(
        &mut self,
        command: Command,
        by: Author,
        asker: Option<&Asker>,
    ) -> Result<Outcome, JournalError> {
        let decided = match command {
            Command::StartSession { dir, agent, prompt } => {
                let agent = agent.or_else(|| self.config.agent.clone());
                match self.spec_from_afar(dir, agent).await {
                    Ok(spec) => self.start_session(None, spec, prompt, by, asker).await?,
                    Err(rejection) => Err(rejection),
                }
            }
            Command::OpenPairing {} => self.open_pairing(asker).await?,
            Command::SettlePairing { offer, accept } => {
                self.settle_pairing(offer, accept, asker).await?
            }
            Command::RevokeDevice { peer } => self.revoke(peer, asker).await?,
            Command::SendKeys { stream } => self.send_keys(stream, asker).await?,
            Command::Recall { command } => self.recall(command, asker).await?,
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
            | Command::EndSession { .. } => Err(Rejection::new(Code::SessionNotFound)),
        };
        match decided {
            Ok(outcome) => Ok(outcome),
            Err(rejection) => {
                let outcome = refused(rejection);
                let ops = self.answer_ops(asker, &outcome);
                if !ops.is_empty() {
                    self.extend(Vec::new(), None, ops).await?;
                }
                Ok(outcome)
            }
        }
    }

    /// What a wish to the host has come to, with its last event the `count`th from here.
    pub(super) fn applied(&self, count: usize, made: Option<String>) -> Outcome {
        Outcome::Applied {
            stream: self.writer.stream(),
            seq: self.writer.head() + count as u64,
            made,
            delivery: Delivery::Done,
        }
    }

    /// Appends events with what became of the wish that they are the effect of.
    async fn carry_out(
        &mut self,
        events: Vec<HostEvent>,
        mut ops: Vec<Op>,
        made: Option<String>,
        asker: Option<&Asker>,
    ) -> Decided {
        let outcome = self.applied(events.len(), made);
        ops.extend(self.answer_ops(asker, &outcome));
        let cause = asker.map(|asker| asker.id);
        self.extend(events, cause, ops).await?;
        Ok(Ok(outcome))
    }

    async fn open_pairing(&mut self, asker: Option<&Asker>) -> Decided {
        if self.offers.len() >= OPEN_OFFERS {
            // Who asks for a link wants that one, and not those that nobody has used.
            let Some(oldest) = oldest_unused(&self.offers) else {
                let text = "too many devices wait for a word; see `farhelm devices`";
                return Ok(Err(Rejection::because(Code::Full, text)));
            };
            self.offers.remove(&oldest);
            self.shared.uplink.close_offer(oldest, None);
        }
        let offer = Offer::new(random(), now());
        let link = Link {
            relay: self.public_url.borrow().clone(),
            host: *self.shared.host.public(),
            secret: *offer.secret(),
        };
        self.shared.uplink.open_offer(offer.id(), offer.until());
        self.offers.insert(offer.id(), offer);
        self.carry_out(Vec::new(), Vec::new(), Some(link.to_url()), asker)
            .await
    }

    async fn settle_pairing(
        &mut self,
        id: OfferId,
        accept: bool,
        asker: Option<&Asker>,
    ) -> Decided {
        let Some(offer) = self.offers.get_mut(&id) else {
            return Ok(Err(Rejection::because(
                Code::NotFound,
                "no such pairing waits",
            )));
        };
        let candidate = match offer.settle(now()) {
            Ok(candidate) => candidate,
            Err(code) => return Ok(Err(Rejection::new(code))),
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
            return self.carry_out(vec![settled], ops, None, asker).await;
        }
        let peer = candidate.keys.peer();
        let change = Change::Admitted {
            keys: candidate.keys,
            name: candidate.name,
            grant: Grant::owner(),
        };
        let Some((entry, roster)) = self.next_roster(change) else {
            return Ok(Err(Rejection::new(Code::Internal)));
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
        self.carry_out(vec![entry, settled], ops, Some(peer.to_string()), asker)
            .await
    }

    async fn revoke(&mut self, peer: PeerId, asker: Option<&Asker>) -> Decided {
        if self.roster.member(peer).is_none() || peer == self.roster.host() {
            return Ok(Err(Rejection::because(Code::NotFound, "no such device")));
        }
        let Some((entry, roster)) = self.next_roster(Change::Revoked { peer }) else {
            return Ok(Err(Rejection::new(Code::Internal)));
        };
        self.next_roster = Some(roster);
        self.writer.rekey();
        let ops = vec![Op::LettersDropped { to: peer }];
        let outcome = self.carry_out(vec![entry], ops, None, asker).await?;
        fail::point("host.wishes.after_revoked");
        for handle in self.sessions.values() {
            // A session that cannot take it now is full of inputs; it must not miss this one.
            drop(handle.inputs.send(SessionInput::Rekey).await);
        }
        Ok(outcome)
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

    async fn send_keys(&mut self, stream: StreamId, asker: Option<&Asker>) -> Decided {
        let Some(reader) =
            asker.filter(|asker| self.roster.allows(asker.peer, Capability::View, now()))
        else {
            return Ok(Err(Rejection::new(Code::Forbidden)));
        };
        let ops = self.keys_for(stream, reader.peer, reader.keys).await?;
        self.carry_out(Vec::new(), ops, None, asker).await
    }

    /// Takes back a command that no session is to decide: one that was never seen will be refused
    /// when it comes. Whoever asks is told what became of it in any case.
    async fn recall(&mut self, command: CommandId, asker: Option<&Asker>) -> Decided {
        let Some(asker) = asker else {
            return Ok(Err(Rejection::new(Code::NotFound)));
        };
        let Some((device, outcome)) = self.shared.journal.command(command).await? else {
            let rejection = Rejection::new(Code::Recalled);
            let recalled = Asker {
                id: command,
                ..*asker
            };
            let ops = self.answer_ops(Some(&recalled), &refused(rejection));
            return self.carry_out(Vec::new(), ops, None, Some(asker)).await;
        };
        if device != Some(asker.peer) {
            return Ok(Err(Rejection::new(Code::NotFound)));
        }
        let outcome: Outcome =
            serde_json::from_str(&outcome).map_err(|_| JournalError::Corrupt("an outcome"))?;
        let again = self.receipt_op(&asker.keys, command, outcome);
        self.extend(Vec::new(), None, again.into_iter().collect())
            .await?;
        Ok(Err(Rejection::new(Code::TooLate)))
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

/// What a wish to the host came to; whoever asked is told of an outcome in its commit.
pub(super) type Decided = Result<Result<Outcome, Rejection>, JournalError>;

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

/// What a wish may do to a session whose log the relay has otherwise: whoever sees an agent run wild
/// must be able to stop it, and doing that once more does no harm.
pub(super) const fn is_stopping(command: &Command) -> bool {
    matches!(
        command,
        Command::CancelTurn { .. } | Command::EndSession { .. }
    )
}

/// The relay has a session's log otherwise than the journal.
pub(super) fn forked() -> Rejection {
    Rejection::because(
        Code::Copied,
        "the relay has newer events of this session than the host's state folder, or others: what is wished may have been \
         done before, and nobody would see what comes of it; put the state folder right, or stop or end the session",
    )
}

/// The pairing that was opened first of those with which no device has come.
fn oldest_unused(offers: &BTreeMap<OfferId, Offer>) -> Option<OfferId> {
    let unused = offers.iter().filter(|(_, offer)| offer.waiting().is_none());
    unused
        .min_by_key(|(_, offer)| offer.until())
        .map(|(id, _)| *id)
}
