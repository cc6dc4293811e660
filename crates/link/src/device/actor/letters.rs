//! What the host writes to this device, and what this device writes to the host.

use farhelm_core::command::{Command, CommandBody, Outcome, Receipt, Rejection};
use farhelm_core::keys::{ContentKey, KeyBundle, from_base64};
use farhelm_proto::frame::{Frame, Problem};
use farhelm_proto::letter::{Kind, Letter};
use farhelm_proto::{Code, CommandId, StreamId, Timestamp};
use tokio::time::{Duration, Instant};
use zeroize::Zeroizing;

use super::Actor;
use crate::clock;
use crate::device::post::{self, Distrust};
use crate::device::store::Entry;
use crate::device::{DeviceError, Sent, Stage};
use crate::rng;

impl Actor {
    /// Writes a command down and sends it.
    pub(super) async fn send_command(
        &mut self,
        command: Command,
        retries: Option<CommandId>,
        not_after: Timestamp,
    ) -> Result<Sent, DeviceError> {
        let made_at = clock::now();
        let id = CommandId::fresh(made_at, rng::random());
        let body = CommandBody { command, retries };
        // The host judges by its own clock. Here, and for whoever looks, the own clock counts.
        let until = self.on_host_clock(not_after);
        let letter = post::seal(&self.identity, &self.host.keys, &body, id, until)?;
        let frame = Frame::Letter(letter).to_bytes();
        let entry = Entry {
            id,
            host: self.host.peer(),
            command: body.command,
            retries,
            letter: frame.to_vec(),
            made_at,
            not_after,
        };
        self.store
            .run(move |store| store.keep_command(&entry))
            .await?;
        let stages = self.wishes.watch(id, Stage::Kept);
        self.look_later();
        self.expire().await?;
        if self.is_up() {
            self.out.push_back(frame);
        }
        Ok(Sent { id, stages })
    }

    /// A time on this machine's clock, as the host's will show it, as far as the host has said what
    /// that shows. The relay's word of the time moves nothing.
    fn on_host_clock(&self, time: Timestamp) -> Timestamp {
        self.host_clock.map_or(time, |host| {
            host.translate(time, clock::now(), Instant::now())
        })
    }

    /// Sends a command again of which nobody knows whether it had its effect.
    pub(super) async fn send_again(
        &mut self,
        first: CommandId,
        not_after: Timestamp,
    ) -> Result<Sent, DeviceError> {
        let known = self.store.run(move |store| store.command(first)).await?;
        let known = known.ok_or_else(|| DeviceError::new(Code::NotFound))?;
        let command = known.to_repeat()?;
        self.send_command(command, Some(first), not_after).await
    }

    /// Takes a command back: one that is indeterminate is not shown any more, and of any other the
    /// host is asked to do nothing if it has done nothing yet.
    pub(super) async fn take_back(&mut self, id: CommandId) -> Result<Sent, DeviceError> {
        let taken = self.store.run(move |store| {
            let is_known = store.dismiss(id)? || store.take_back(id)?;
            Ok((is_known, store.command(id)?))
        });
        let (true, Some(known)) = taken.await? else {
            return Err(DeviceError::new(Code::NotFound));
        };
        let stages = self.wishes.watch(id, known.stage);
        self.look_later();
        self.send_recalls().await?;
        Ok(Sent { id, stages })
    }

    /// Asks the host what became of commands that are taken back or whose time is over, each once
    /// per connection.
    pub(super) async fn send_recalls(&mut self) -> Result<(), DeviceError> {
        if !self.is_up() {
            return Ok(());
        }
        let host = self.host.peer();
        for command in self.store.run(move |store| store.recalls(host)).await? {
            if self.recalled.insert(command) {
                self.say_to_host(Command::Recall { command }, RECALL_MILLIS)?;
            }
        }
        Ok(())
    }

    /// Sends a command that is no person's wish, so it is neither kept nor shown.
    fn say_to_host(&mut self, command: Command, millis: u64) -> Result<CommandId, DeviceError> {
        let now = clock::now();
        let id = CommandId::fresh(now, rng::random());
        let body = CommandBody {
            command,
            retries: None,
        };
        let until = self.on_host_clock(now.plus_millis(millis));
        let letter = post::seal(&self.identity, &self.host.keys, &body, id, until)?;
        self.push(&Frame::Letter(letter));
        Ok(id)
    }

    /// Takes note of commands whose time is over, and of when that is so of the next.
    pub(super) async fn expire(&mut self) -> Result<(), DeviceError> {
        let host = self.host.peer();
        let now = clock::now();
        let before = |time: Timestamp| Timestamp(time.0.saturating_sub(GRACE_MILLIS));
        let late = before(now);
        let host_late = self
            .host_clock
            .map(|host| before(host.shows(Instant::now())));
        let looked = self.store.run(move |store| {
            let expired = store.expire(host, late, host_late)?;
            Ok((expired, store.next_expiry(host)?))
        });
        let (expired, next) = looked.await?;
        for id in expired {
            self.wishes.advance(id, Stage::Expired);
        }
        self.expiry = next.map(|next| {
            let left = next.0.saturating_sub(now.0) + GRACE_MILLIS + 1;
            // The clock may be set meanwhile.
            Instant::now() + Duration::from_millis(left).min(EXPIRY_LOOK)
        });
        self.send_recalls().await
    }

    /// Sends again what the host has not acknowledged; it knows by the id what it had before. A
    /// relay that lost its store may have lost what the host said later, so that it is asked for
    /// with everything whose end is not known.
    pub(super) async fn send_unacknowledged(&mut self, all: bool) -> Result<(), DeviceError> {
        if !self.is_up() {
            return Ok(());
        }
        let host = self.host.peer();
        let again = self
            .store
            .run(move |store| store.unacknowledged(host, all))
            .await?;
        self.out
            .extend(again.into_iter().map(|(_, frame)| frame.into()));
        Ok(())
    }

    /// The relay has a letter of ours.
    pub(super) async fn posted(&mut self, id: CommandId) -> Result<(), DeviceError> {
        self.store.run(move |store| store.posted(id)).await?;
        self.wishes.advance(id, Stage::AtRelay);
        Ok(())
    }

    pub(super) async fn take_problem(&mut self, problem: &Problem) -> Result<(), DeviceError> {
        let code = problem.code;
        tracing::debug!(%code, letter = ?problem.letter, stream = ?problem.stream, "the relay has a problem");
        if problem
            .letter
            .is_some_and(|letter| self.probe_refused(letter, code))
        {
            return Ok(());
        }
        if problem
            .request
            .is_some_and(|request| self.blob_refused(request, code))
        {
            return Ok(());
        }
        match (problem.letter, problem.stream) {
            (Some(id), _) if is_final(code) => self.give_up_command(id, code).await,
            (Some(_), _) => {
                self.retry.get_or_insert(Instant::now() + RETRY);
                Ok(())
            }
            (None, Some(stream)) => {
                self.refuse(stream, code);
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    /// The relay will never take this letter.
    async fn give_up_command(&mut self, id: CommandId, code: Code) -> Result<(), DeviceError> {
        if code == Code::Expired {
            return self.expire().await;
        }
        let text = format!("the relay did not take the command: {}", code.sentence());
        let outcome = Outcome::Refused {
            rejection: Rejection::because(code, text),
        };
        let ended = {
            let outcome = outcome.clone();
            self.store
                .run(move |store| store.given_up(id, &outcome))
                .await?
        };
        if ended {
            self.wishes.receipt(id, outcome);
        }
        Ok(())
    }

    /// Takes a letter, which is safe here when the relay is told so.
    pub(super) async fn take_letter(&mut self, letter: &Letter) -> Result<(), DeviceError> {
        let opened = match post::open(&self.identity, &self.host.keys, letter) {
            Ok(opened) => opened,
            // Of another host on the same relay; whoever is connected for that one takes it.
            Err(Distrust::NotOurs) => return Ok(()),
            Err(Distrust::Forged(code)) => {
                tracing::warn!(%code, "a letter in the host's name is not from the host");
                return Ok(());
            }
        };
        match opened.header.kind {
            Kind::Keys => self.take_keys(&opened.body).await?,
            Kind::Receipt => self.take_receipt(&opened.body).await?,
            // Answers to a pairing that is over, and what is not for devices.
            Kind::PairAnswer | Kind::Command | Kind::PairRequest => {}
            // Nobody keeps it, so nobody is told that it is safe.
            Kind::Probe => {
                self.take_probe(&opened.body);
                return Ok(());
            }
        }
        self.push(&opened.taken());
        Ok(())
    }

    async fn take_receipt(&mut self, body: &[u8]) -> Result<(), DeviceError> {
        let receipt: Receipt = match serde_json::from_slice(body) {
            Ok(receipt) => receipt,
            Err(error) => {
                tracing::warn!(%error, "a receipt cannot be read");
                return Ok(());
            }
        };
        if let Some((stream, _)) = self.asked.get(&receipt.command).copied() {
            if let Outcome::Refused { rejection } = receipt.outcome {
                self.no_keys(
                    stream,
                    &DeviceError::because(rejection.code, rejection.text),
                );
            }
            return Ok(());
        }
        let written = receipt.clone();
        self.store.run(move |store| store.receipt(&written)).await?;
        self.wishes.receipt(receipt.command, receipt.outcome);
        Ok(())
    }

    async fn take_keys(&mut self, body: &[u8]) -> Result<(), DeviceError> {
        let Some((stream, keys)) = read_keys(body) else {
            tracing::warn!("content keys cannot be read");
            return Ok(());
        };
        let host = self.host.peer();
        let copies = keys
            .iter()
            .map(|(epoch, key)| (*epoch, copy(key)))
            .collect::<Vec<_>>();
        self.store
            .run(move |store| store.keep_keys(host, stream, &copies))
            .await?;
        self.add_keys(stream, keys);
        Ok(())
    }

    /// Looks for the keys that readers wait for, and asks the host for those that are not here,
    /// each once per connection.
    pub(super) async fn find_keys(&mut self) -> Result<(), DeviceError> {
        if self.missing_keys().is_empty() {
            return Ok(());
        }
        self.reload_keys().await?;
        for (stream, epoch) in self.missing_keys() {
            if !self.is_up() || self.asked.values().any(|asked| *asked == (stream, epoch)) {
                continue;
            }
            let id = self.say_to_host(Command::SendKeys { stream }, KEYS_MILLIS)?;
            self.asked.insert(id, (stream, epoch));
        }
        self.look_later();
        Ok(())
    }

    fn missing_keys(&self) -> Vec<(StreamId, u32)> {
        let home = std::iter::once(&self.home.reader);
        let readers = home.chain(self.logs.values().map(|log| &log.reader));
        readers
            .filter_map(|reader| Some((reader.stream(), reader.blocked()?)))
            .collect()
    }

    /// Takes the keys that another process of this device has written down.
    async fn reload_keys(&mut self) -> Result<(), DeviceError> {
        let host = self.host.peer();
        for (stream, epoch, key) in self.store.run(move |store| store.keys(host)).await? {
            if !self.keys.contains_key(&(stream, epoch)) {
                self.add_keys(stream, vec![(epoch, key)]);
            }
        }
        Ok(())
    }

    fn look_later(&mut self) {
        self.look.get_or_insert(Instant::now() + LOOK);
    }

    /// Another process of this device may have taken a letter before it came here.
    pub(super) async fn look_into_store(&mut self) -> Result<(), DeviceError> {
        let watched = self.wishes.watched();
        let outcomes = self.store.run(move |store| {
            watched
                .into_iter()
                .map(|id| Ok((id, store.outcome(id)?)))
                .collect::<Result<Vec<_>, DeviceError>>()
        });
        for (id, outcome) in outcomes.await? {
            if let Some(outcome) = outcome {
                self.wishes.receipt(id, outcome);
            }
        }
        if !self.missing_keys().is_empty() {
            self.reload_keys().await?;
        }
        if !self.missing_keys().is_empty() || !self.wishes.watched().is_empty() {
            self.look_later();
        }
        Ok(())
    }
}

fn read_keys(body: &[u8]) -> Option<(StreamId, Vec<(u32, ContentKey)>)> {
    let bundle: KeyBundle = serde_json::from_slice(body).ok()?;
    let read = |text: String| {
        let text = Zeroizing::new(text);
        let bytes = Zeroizing::new(from_base64(&text)?);
        <[u8; 32]>::try_from(bytes.as_slice())
            .ok()
            .map(ContentKey::from_bytes)
    };
    let keys = bundle
        .keys
        .into_iter()
        .map(|key| Some((key.epoch, read(key.key)?)));
    Some((bundle.stream, keys.collect::<Option<_>>()?))
}

pub(super) const fn copy(key: &ContentKey) -> ContentKey {
    ContentKey::from_bytes(*key.expose())
}

/// Whether the relay would say the same of this letter for ever. That the host is not known, or
/// this device not to it, may change when the host connects.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::TooLarge | Code::BadFrame | Code::UnsupportedVersion | Code::Expired
    )
}

/// When a letter is sent again that the relay did not take.
const RETRY: Duration = Duration::from_secs(3);
/// How often the store is looked into while something is waited for.
const LOOK: Duration = Duration::from_secs(2);
/// How long a request for keys may wait for the host.
const KEYS_MILLIS: u64 = 10 * 60 * 1000;
/// How long the question what became of a command may wait for the host.
const RECALL_MILLIS: u64 = 7 * 24 * 60 * 60 * 1000;
/// How long after its time a command is believed to be over: clocks differ.
const GRACE_MILLIS: u64 = 2_000;
/// How often expiries are looked at in any case.
const EXPIRY_LOOK: Duration = Duration::from_secs(30);
