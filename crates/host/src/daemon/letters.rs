//! Letters from devices: checked, opened, and turned into wishes.

use farhelm_core::command::{Command, CommandBody, Outcome, Receipt, Rejection};
use farhelm_core::event::{Author, HostEvent};
use farhelm_core::keys::{PublicKeys, to_base64};
use farhelm_core::pairing::{PairAnswer, PairRequest};
use farhelm_core::seal;
use farhelm_link::clock::now;
use farhelm_link::rng::random;
use farhelm_proto::letter::{Header, Kind, Letter};
use farhelm_proto::{Code, CommandId, OfferId, PeerId, SessionId};
use tokio::sync::mpsc::error::TrySendError;

use super::Daemon;
use super::wishes::{forked, is_stopping};
use crate::journal::{JournalError, Op};
use crate::session::{Reply, SessionInput, Wish};
use crate::stream::letter_op;
use crate::uplink::Standing;

/// Letters that wait here for their session; what is beyond waits at the relay.
const DEFERRED: usize = 256;

impl Daemon {
    pub(super) async fn take_letter(&mut self, letter: &Letter) -> Result<(), JournalError> {
        let Ok(header) = letter.parse_header() else {
            return Ok(());
        };
        if header.to != self.shared.host.peer() {
            return Ok(());
        }
        fail::point("host.letters.before_opened");
        match header.kind {
            Kind::PairRequest => self.take_pair_request(&header, letter).await,
            Kind::Command => self.take_command(&header, letter).await,
            Kind::Probe => self.take_probe(&header, letter).await,
            Kind::Receipt | Kind::Keys | Kind::PairAnswer => {
                self.shared.uplink.taken(header.from, header.id);
                Ok(())
            }
        }
    }

    async fn take_command(&mut self, header: &Header, letter: &Letter) -> Result<(), JournalError> {
        let Some(member) = self.roster.anybody(header.from) else {
            self.shared.uplink.taken(header.from, header.id);
            return Ok(());
        };
        let (keys, name, revoked) = (member.keys, member.name.clone(), member.revoked);
        if letter.verify(&keys.signing).is_err() {
            tracing::warn!(from = %header.from, "a letter's signature does not match");
            return Ok(());
        }
        let asker = Asker {
            peer: header.from,
            keys,
            id: header.id,
        };
        if revoked {
            return self.refuse(&asker, Rejection::new(Code::Revoked)).await;
        }
        let CommandBody { command, retries } = match open_command(&self.shared.host, letter) {
            Ok(body) => body,
            Err(rejection) => return self.refuse(&asker, rejection).await,
        };
        let session = if let Command::Recall { command } = &command {
            self.session_of(*command).await?
        } else {
            command.session()
        };
        // A copy of what a session was handed and has not decided yet is that session's to judge.
        let handed_to = self.routes.session(header.id);
        if handed_to.is_none() {
            let at = now();
            if header.is_expired(at) {
                return self.refuse(&asker, Rejection::new(Code::Expired)).await;
            }
            if !self.roster.allows(header.from, command.needs(), at) {
                return self.refuse(&asker, Rejection::new(Code::Forbidden)).await;
            }
        }
        let by = Author::Device {
            peer: header.from,
            name,
        };
        let Some(session) = handed_to.or(session) else {
            return self.take_device_wish(&asker, command, by).await;
        };
        let wish = Wish {
            command,
            id: header.id,
            by,
            reply: Reply::Device {
                peer: header.from,
                keys,
            },
            not_after: header.not_after,
            retries,
        };
        self.hand_on(session, wish, &asker, letter).await
    }

    /// Gives a wish to its session, or answers that there is none, or that it must not be done. Wishes
    /// that wait for the same session go first.
    async fn hand_on(
        &mut self,
        session: SessionId,
        wish: Wish,
        asker: &Asker,
        letter: &Letter,
    ) -> Result<(), JournalError> {
        let Some(handle) = self.sessions.get(&session) else {
            let code = self.why_absent(session);
            return self.refuse(asker, Rejection::new(code)).await;
        };
        // What a session was handed before is answered by it, whatever is found out meanwhile.
        if self.routes.session(asker.id).is_none() {
            match self.shared.uplink.standings().of(session.into()) {
                Standing::Agrees => {}
                Standing::Unknown => {
                    self.defer(session, letter);
                    return Ok(());
                }
                Standing::Forked if is_stopping(&wish.command) => {}
                Standing::Forked => return self.refuse(asker, forked()).await,
            }
        }
        if self.deferred.iter().any(|(waits, _)| *waits == session) {
            self.defer(session, letter);
            return Ok(());
        }
        fail::point("host.letters.before_handed_on");
        match handle.inputs.try_send(SessionInput::Wish(wish)) {
            Ok(()) => {
                self.routes.note(asker.id, session);
                Ok(())
            }
            Err(TrySendError::Closed(_)) => {
                self.refuse(asker, Rejection::new(Code::SessionEnded)).await
            }
            Err(TrySendError::Full(_)) => {
                tracing::warn!(%session, "the session cannot take a wish right now");
                self.defer(session, letter);
                Ok(())
            }
        }
    }

    /// Keeps a letter for later. What does not fit is not taken, and the relay is asked for it once
    /// there is room.
    fn defer(&mut self, session: SessionId, letter: &Letter) {
        if self.deferred.iter().any(|(_, waits)| waits == letter) {
            return;
        }
        if self.deferred.len() < DEFERRED {
            self.deferred.push_back((session, letter.clone()));
        } else {
            self.left_out = true;
        }
    }

    /// Tries letters again whose session could not take them.
    pub(super) async fn take_deferred(&mut self) -> Result<(), JournalError> {
        for (_, letter) in std::mem::take(&mut self.deferred) {
            self.take_letter(&letter).await?;
        }
        if self.deferred.is_empty() && std::mem::take(&mut self.left_out) {
            self.shared.uplink.ask_for_mail();
        }
        Ok(())
    }

    /// The session that decides about a command, or has decided.
    async fn session_of(&self, command: CommandId) -> Result<Option<SessionId>, JournalError> {
        if let Some(session) = self.routes.session(command) {
            return Ok(Some(session));
        }
        let Some((_, outcome)) = self.shared.journal.command(command).await? else {
            return Ok(None);
        };
        let session = match serde_json::from_str(&outcome) {
            Ok(Outcome::Applied { stream, .. }) => Some(SessionId::from_bytes(*stream.as_bytes())),
            Ok(Outcome::Received | Outcome::Refused { .. }) | Err(_) => None,
        };
        Ok(session.filter(|session| self.sessions.contains_key(session)))
    }

    async fn take_device_wish(
        &mut self,
        asker: &Asker,
        command: Command,
        by: Author,
    ) -> Result<(), JournalError> {
        if let Some(earlier) = self.shared.journal.outcome(asker.id).await? {
            return self.repeat(asker, &earlier).await;
        }
        fail::point("host.letters.before_decided");
        self.take_host_wish(command, by, Some(asker)).await?;
        self.taken(asker);
        Ok(())
    }

    async fn refuse(&mut self, asker: &Asker, rejection: Rejection) -> Result<(), JournalError> {
        if let Some(earlier) = self.shared.journal.outcome(asker.id).await? {
            return self.repeat(asker, &earlier).await;
        }
        let ops = self.answer_ops(Some(asker), &Outcome::Refused { rejection });
        fail::point("host.letters.before_receipt");
        self.extend(Vec::new(), None, ops).await?;
        self.taken(asker);
        Ok(())
    }

    /// Answers what was answered before.
    async fn repeat(&mut self, asker: &Asker, outcome: &str) -> Result<(), JournalError> {
        let outcome =
            serde_json::from_str(outcome).map_err(|_| JournalError::Corrupt("an outcome"))?;
        let receipt = self.receipt_op(&asker.keys, asker.id, outcome);
        self.extend(Vec::new(), None, receipt.into_iter().collect())
            .await?;
        self.taken(asker);
        Ok(())
    }

    fn taken(&self, asker: &Asker) {
        fail::point("host.letters.before_taken");
        self.shared.uplink.taken(asker.peer, asker.id);
        fail::point("host.letters.after_taken");
    }

    /// What became of a device's wish, to be written with its effect.
    pub(super) fn answer_ops(&self, asker: Option<&Asker>, outcome: &Outcome) -> Vec<Op> {
        let Some(asker) = asker else {
            return Vec::new();
        };
        let decided = Op::Command {
            id: asker.id,
            device: Some(asker.peer),
            outcome: serde_json::to_string(outcome).unwrap_or_default(),
        };
        let receipt = self.receipt_op(&asker.keys, asker.id, outcome.clone());
        std::iter::once(decided).chain(receipt).collect()
    }

    pub(super) fn receipt_op(
        &self,
        keys: &PublicKeys,
        command: CommandId,
        outcome: Outcome,
    ) -> Option<Op> {
        let body = serde_json::to_vec(&Receipt { command, outcome }).unwrap_or_default();
        letter_op(&self.shared.host, keys, Kind::Receipt, &body, None)
    }

    /// A device asks to be let in.
    async fn take_pair_request(
        &mut self,
        header: &Header,
        letter: &Letter,
    ) -> Result<(), JournalError> {
        let Some((offer, keys, answer, event)) = self.answer_pair_request(header, letter) else {
            self.shared.uplink.taken(header.from, header.id);
            return Ok(());
        };
        let body = serde_json::to_vec(&answer).unwrap_or_default();
        let ops = letter_op(
            &self.shared.host,
            &keys,
            Kind::PairAnswer,
            &body,
            Some(offer),
        )
        .into_iter()
        .collect();
        if event.is_some() {
            self.shared.uplink.close_offer(offer, Some(header.from));
        }
        fail::point("host.letters.before_pair_answer");
        self.extend(event.into_iter().collect(), None, ops).await?;
        fail::point("host.letters.after_pair_answer");
        self.shared.uplink.taken(header.from, header.id);
        Ok(())
    }

    fn answer_pair_request(
        &mut self,
        header: &Header,
        letter: &Letter,
    ) -> Option<(OfferId, PublicKeys, PairAnswer, Option<HostEvent>)> {
        let id = header.offer?;
        let offer = self.offers.get_mut(&id)?;
        let body = seal::open_pair_request(&self.shared.host, offer.secret(), id, letter).ok()?;
        let request: PairRequest = serde_json::from_slice(&body).ok()?;
        let keys = request.keys;
        letter.verify(&keys.signing).ok()?;
        let nonce: [u8; 32] = random();
        let hash = letter.hash();
        match offer.request(now(), header.from, &request, &hash, &nonce) {
            Ok(candidate) => {
                let answer = PairAnswer::Challenge {
                    nonce: to_base64(&nonce),
                    host: self.fleet.name.clone(),
                    request: to_base64(&hash),
                };
                let event = HostEvent::PairingRequested {
                    name: candidate.name,
                    code: candidate.code,
                    offer: id,
                };
                Some((id, keys, answer, Some(event)))
            }
            Err(code) => Some((id, keys, PairAnswer::Refused { code }, None)),
        }
    }

    pub(super) fn pair_answer(
        &self,
        keys: &PublicKeys,
        offer: OfferId,
        answer: &PairAnswer,
    ) -> Option<Op> {
        let body = serde_json::to_vec(answer).unwrap_or_default();
        letter_op(
            &self.shared.host,
            keys,
            Kind::PairAnswer,
            &body,
            Some(offer),
        )
    }
}

fn open_command(
    host: &farhelm_core::keys::Identity,
    letter: &Letter,
) -> Result<CommandBody, Rejection> {
    let body = seal::open_letter(host, letter).map_err(|_| Rejection::new(Code::BadSeal))?;
    serde_json::from_slice(&body).map_err(|_| Rejection::new(Code::BadCommand))
}

/// A device that wishes something, and the id of its wish.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    pub(super) peer: PeerId,
    pub(super) keys: PublicKeys,
    pub(super) id: CommandId,
}

/// The id of a wish from this machine.
pub(super) fn fresh_id() -> CommandId {
    CommandId::fresh(now(), random())
}
