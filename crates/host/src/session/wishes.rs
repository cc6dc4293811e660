//! Deciding wishes: each id once, for ever; and telling whoever wished how far it has come.

use farhelm_core::command::{Command, Delivery, Outcome, Rejection};
use farhelm_core::keys::PublicKeys;
use farhelm_core::session::{Aim, Input};
use farhelm_link::clock::now;
use farhelm_link::rng::random;
use farhelm_proto::{Code, CommandId, PeerId};

use super::commit::Batch;
use super::{Reply, SessionActor, Wish};
use crate::journal::JournalError;

/// What became of a command, and who sent it.
pub(super) struct Known {
    pub(super) outcome: Outcome,
    pub(super) device: Option<PeerId>,
}

impl SessionActor {
    /// Decides a wish, unless it was decided before: then only the answer is repeated.
    pub(super) async fn take_wish(
        &mut self,
        wish: Wish,
        batch: &mut Batch,
    ) -> Result<(), JournalError> {
        if let Some(known) = self.known(wish.id, batch).await? {
            batch.repeat(wish.reply, wish.id, known.outcome);
            return Ok(());
        }
        let decided = self.decide_wish(&wish, batch).await?;
        let delivery = match self.session.wishes.get(&wish.id) {
            Some(open) => open.delivery,
            None => batch.moved.get(&wish.id).copied().unwrap_or_default(),
        };
        let stream = self.writer.stream();
        let outcome = match decided {
            Ok(seq) => Outcome::Applied {
                stream,
                seq,
                made: None,
                delivery,
            },
            Err(rejection) => Outcome::Refused { rejection },
        };
        batch.answer(wish.reply, wish.id, outcome);
        Ok(())
    }

    async fn decide_wish(
        &mut self,
        wish: &Wish,
        batch: &mut Batch,
    ) -> Result<Result<u64, Rejection>, JournalError> {
        if wish.not_after.0 != 0 && now() > wish.not_after {
            return Ok(Err(Rejection::new(Code::Expired)));
        }
        if let Some(first) = wish.retries
            && !self.may_retry(first, wish.reply.device(), batch).await?
        {
            return Ok(Err(Rejection::new(Code::NotIndeterminate)));
        }
        if let Command::Recall { command } = wish.command {
            return self.recall(command, wish, batch).await;
        }
        let input = Input::Wish {
            command: wish.command.clone(),
            by: wish.by.clone(),
        };
        let decided = self.session.decide(now(), input, &mut random);
        let decided = decided.map(|events| self.stage(events, Some(wish.id), batch));
        if let (Ok(_), Some(first)) = (&decided, wish.retries) {
            batch.moved.insert(first, Delivery::Retried);
        }
        Ok(decided)
    }

    /// Whether nobody knows what became of a command of the same device, and it was not sent again.
    async fn may_retry(
        &self,
        first: CommandId,
        device: Option<PeerId>,
        batch: &Batch,
    ) -> Result<bool, JournalError> {
        let known = self.known(first, batch).await?;
        let here = self.writer.stream();
        Ok(known.is_some_and(|known| {
            let is_open = matches!(
                known.outcome,
                Outcome::Applied {
                    stream,
                    delivery: Delivery::Indeterminate,
                    ..
                } if stream == here
            );
            is_open && known.device == device
        }))
    }

    /// Takes a command back: one that was never seen will be refused when it comes, and a prompt
    /// that waits is withdrawn. Whoever asks is told what became of it in any case.
    async fn recall(
        &mut self,
        command: CommandId,
        wish: &Wish,
        batch: &mut Batch,
    ) -> Result<Result<u64, Rejection>, JournalError> {
        let Reply::Device { peer, keys } = &wish.reply else {
            return Ok(Err(Rejection::new(Code::NotFound)));
        };
        let asker = |peer: &PeerId, keys: &PublicKeys| Reply::Device {
            peer: *peer,
            keys: *keys,
        };
        let Some(known) = self.known(command, batch).await? else {
            let rejection = Rejection::new(Code::Recalled);
            batch.answer(asker(peer, keys), command, Outcome::Refused { rejection });
            return Ok(Ok(self.stage(Vec::new(), None, batch)));
        };
        if known.device != Some(*peer) {
            return Ok(Err(Rejection::new(Code::NotFound)));
        }
        let waiting = self.session.wishes.get(&command);
        if let Some(open) = waiting
            && let (Delivery::Waiting, Aim::Prompt { prompt }) = (open.delivery, &open.aim)
        {
            let withdraw = Command::WithdrawPrompt {
                session: self.id,
                prompt: *prompt,
            };
            let input = Input::Wish {
                command: withdraw,
                by: wish.by.clone(),
            };
            let decided = self.session.decide(now(), input, &mut random);
            return Ok(decided.map(|events| self.stage(events, Some(wish.id), batch)));
        }
        batch.repeat(asker(peer, keys), command, known.outcome);
        Ok(Err(Rejection::new(Code::TooLate)))
    }

    /// What became of a command, with this group.
    async fn known(&self, id: CommandId, batch: &Batch) -> Result<Option<Known>, JournalError> {
        let known = match batch.answer_to(id) {
            Some((reply, outcome)) => Some(Known {
                outcome: outcome.clone(),
                device: reply.device(),
            }),
            None => self.written(id).await?,
        };
        Ok(known.map(|known| match batch.moved.get(&id) {
            Some(delivery) => Known {
                outcome: known.outcome.advanced(*delivery),
                ..known
            },
            None => known,
        }))
    }

    /// What became of a command that was decided in an earlier group.
    pub(super) async fn written(&self, id: CommandId) -> Result<Option<Known>, JournalError> {
        let Some((device, outcome)) = self.shared.journal.command(id).await? else {
            return Ok(None);
        };
        let outcome =
            serde_json::from_str(&outcome).map_err(|_| JournalError::Corrupt("an outcome"))?;
        Ok(Some(Known { outcome, device }))
    }

    /// The keys of a device that may still be written to.
    pub(super) fn keys_of(&self, device: PeerId) -> Option<PublicKeys> {
        let roster = self.shared.roster.borrow();
        let member = roster.anybody(device).filter(|member| !member.revoked);
        member.map(|member| member.keys)
    }
}

impl Reply {
    /// The device that is answered, when it is one.
    pub(super) const fn device(&self) -> Option<PeerId> {
        match self {
            Self::Device { peer, .. } => Some(*peer),
            Self::Local(_) => None,
        }
    }
}
