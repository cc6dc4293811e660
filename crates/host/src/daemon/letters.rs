//! Letters from devices: checked, opened, and turned into wishes.

use farhelm_core::command::{Command, CommandBody, Outcome, Receipt, Rejection};
use farhelm_core::event::{Author, HostEvent};
use farhelm_core::keys::{PublicKeys, to_base64};
use farhelm_core::pairing::{PairAnswer, PairRequest};
use farhelm_core::seal;
use farhelm_link::clock::now;
use farhelm_link::rng::random;
use farhelm_proto::letter::{Header, Kind, Letter};
use farhelm_proto::{Code, CommandId, OfferId, PeerId};
use tokio::sync::mpsc::error::TrySendError;

use super::Daemon;
use crate::journal::{JournalError, Op};
use crate::session::{Reply, SessionInput, Wish};
use crate::stream::letter_op;

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
        if revoked {
            return self
                .refuse(header, &keys, Rejection::new(Code::Revoked))
                .await;
        }
        let command = match open_command(&self.shared.host, letter) {
            Ok(command) => command,
            Err(rejection) => return self.refuse(header, &keys, rejection).await,
        };
        let (at, needs) = (now(), command.needs());
        if header.is_expired(at) {
            return self
                .refuse(header, &keys, Rejection::new(Code::Expired))
                .await;
        }
        if !self.roster.allows(header.from, needs, at) {
            return self
                .refuse(header, &keys, Rejection::new(Code::Forbidden))
                .await;
        }
        let by = Author::Device {
            peer: header.from,
            name,
        };
        match command.session() {
            Some(session) => {
                let Some(handle) = self.sessions.get(&session) else {
                    let code = if self.fleet.sessions.contains_key(&session) {
                        Code::SessionEnded
                    } else {
                        Code::SessionNotFound
                    };
                    return self.refuse(header, &keys, Rejection::new(code)).await;
                };
                let reply = Reply::Device {
                    peer: header.from,
                    keys,
                };
                let wish = SessionInput::Wish(Wish {
                    command,
                    id: header.id,
                    by,
                    reply,
                });
                fail::point("host.letters.before_handed_on");
                match handle.inputs.try_send(wish) {
                    Ok(()) => Ok(()),
                    Err(TrySendError::Closed(_)) => {
                        self.refuse(header, &keys, Rejection::new(Code::SessionEnded))
                            .await
                    }
                    Err(TrySendError::Full(_)) => {
                        // Not taken: the relay delivers it again.
                        tracing::warn!(%session, "the session cannot take a wish right now");
                        Ok(())
                    }
                }
            }
            None => self.take_device_wish(header, &keys, command, by).await,
        }
    }

    async fn take_device_wish(
        &mut self,
        header: &Header,
        keys: &PublicKeys,
        command: Command,
        by: Author,
    ) -> Result<(), JournalError> {
        if let Some(earlier) = self.shared.journal.outcome(header.id).await? {
            let outcome =
                serde_json::from_str(&earlier).map_err(|_| JournalError::Corrupt("an outcome"))?;
            return self.send_receipt(header, keys, outcome, false).await;
        }
        let asker = Some((header.from, *keys));
        fail::point("host.letters.before_decided");
        let outcome = self
            .take_host_wish(command, by, asker, Some(header.id))
            .await?;
        self.send_receipt(header, keys, outcome, true).await
    }

    async fn refuse(
        &mut self,
        header: &Header,
        keys: &PublicKeys,
        rejection: Rejection,
    ) -> Result<(), JournalError> {
        if let Some(earlier) = self.shared.journal.outcome(header.id).await? {
            let outcome =
                serde_json::from_str(&earlier).map_err(|_| JournalError::Corrupt("an outcome"))?;
            return self.send_receipt(header, keys, outcome, false).await;
        }
        self.send_receipt(header, keys, Outcome::Refused { rejection }, true)
            .await
    }

    async fn send_receipt(
        &mut self,
        header: &Header,
        keys: &PublicKeys,
        outcome: Outcome,
        is_first: bool,
    ) -> Result<(), JournalError> {
        let mut ops = Vec::new();
        if is_first {
            let text = serde_json::to_string(&outcome).unwrap_or_default();
            ops.push(Op::Command {
                id: header.id,
                device: Some(header.from),
                outcome: text,
            });
        }
        let body = serde_json::to_vec(&Receipt {
            command: header.id,
            outcome,
        })
        .unwrap_or_default();
        ops.extend(letter_op(
            &self.shared.host,
            keys,
            Kind::Receipt,
            &body,
            None,
        ));
        fail::point("host.letters.before_receipt");
        self.extend(Vec::new(), None, ops).await?;
        fail::point("host.letters.before_taken");
        self.shared.uplink.taken(header.from, header.id);
        fail::point("host.letters.after_taken");
        Ok(())
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
) -> Result<Command, Rejection> {
    let body = seal::open_letter(host, letter).map_err(|_| Rejection::new(Code::BadSeal))?;
    let body: CommandBody =
        serde_json::from_slice(&body).map_err(|_| Rejection::new(Code::BadCommand))?;
    Ok(body.command)
}

/// Who asked, when it was a device.
pub(super) type Asker = Option<(PeerId, PublicKeys)>;

/// The id of a wish from this machine.
pub(super) fn fresh_id() -> CommandId {
    CommandId::fresh(now(), random())
}
