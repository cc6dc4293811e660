//! Reading: the host's own log and those that were asked for.

use std::collections::BTreeMap;
use std::task::Poll;
use std::time::Duration;

use farhelm_core::keys::ContentKey;
use farhelm_proto::envelope::Envelope;
use farhelm_proto::frame::{Frame, Subscribe, Subscribed, Unsubscribe};
use farhelm_proto::{Code, SessionId, StreamId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Actor;
use super::letters::copy;
use crate::device::log::{Drained, Item, Log};
use crate::device::reader::{Reader, Start, Step};
use crate::device::{DeviceError, FleetView};

impl Actor {
    /// Begins to read a log.
    pub(super) fn open_log(
        &mut self,
        session: SessionId,
        from: u64,
        follow: bool,
        patience: Duration,
    ) -> mpsc::Receiver<Item> {
        let stream = StreamId::from(session);
        let mut reader = Reader::new(
            &self.host,
            stream,
            Start::At(from),
            self.seen.get(&stream).copied(),
        );
        for (epoch, key) in keys_of(&self.keys, stream) {
            reader.add_key(epoch, key);
        }
        let (log, items) = Log::new(reader, from, follow, patience);
        self.logs.insert(self.next_log, log);
        self.next_log += 1;
        self.subscribe(stream);
        items
    }

    pub(super) fn subscribe_all(&mut self) {
        let mut streams: Vec<StreamId> =
            self.logs.values().map(|log| log.reader.stream()).collect();
        streams.push(self.home.reader.stream());
        streams.sort_unstable();
        streams.dedup();
        for stream in streams {
            self.subscribe(stream);
        }
    }

    /// Subscribes to a stream from the earliest cursor of those who read it; the others read on
    /// where they are.
    pub(super) fn subscribe(&mut self, stream: StreamId) {
        self.later.remove(&stream);
        if !self.is_up() {
            return;
        }
        if stream == self.home.reader.stream() {
            let frame = self.home.reader.subscribe();
            self.push(&frame);
            return;
        }
        let readers = self
            .logs
            .values_mut()
            .filter(|log| log.reader.stream() == stream && log.is_reading());
        let cursors = readers
            .filter(|log| log.reader.blocked().is_none())
            .map(|log| {
                log.reader.subscribes();
                log.reader.after().unwrap_or_default()
            });
        let frame = cursors.min().map(|after| {
            Frame::Subscribe(Subscribe {
                host: self.host.peer(),
                stream,
                after: Some(after),
                tail: None,
            })
        });
        if let Some(frame) = frame {
            self.push(&frame);
        }
    }

    /// The connection ended, and with it every subscription.
    pub(super) fn cut_all(&mut self) {
        self.later.clear();
        self.home.reader.is_cut();
        for log in self.logs.values_mut() {
            log.reader.is_cut();
        }
    }

    pub(super) async fn take_subscribed(&mut self, answer: &Subscribed) -> Result<(), DeviceError> {
        if answer.host != self.host.peer() {
            return Ok(());
        }
        if answer.stream == self.home.reader.stream() {
            self.refused = None;
            self.status.send_modify(|status| status.trouble = None);
            let step = self.home.reader.subscribed(answer);
            if step.is_ok()
                && self
                    .home
                    .alarm
                    .as_ref()
                    .is_some_and(|alarm| alarm.code == Code::RolledBack)
            {
                self.home.alarm = None;
            }
            return self.home_stepped(step).await;
        }
        let concerned: Vec<u64> = self.readers_of(answer.stream);
        for id in concerned {
            let Some(log) = self.logs.get_mut(&id).filter(|log| log.is_reading()) else {
                continue;
            };
            let step = log.reader.subscribed(answer);
            self.log_stepped(id, step).await?;
        }
        Ok(())
    }

    pub(super) async fn take_envelope(&mut self, envelope: &Envelope) -> Result<(), DeviceError> {
        let Ok(header) = envelope.parse_header() else {
            tracing::warn!("an envelope without a header that can be read");
            return Ok(());
        };
        if header.stream == self.home.reader.stream() {
            if self.home.alarm.is_some() {
                return Ok(());
            }
            let step = self.home.reader.accept(envelope);
            return self.home_stepped(step).await;
        }
        for id in self.readers_of(header.stream) {
            let Some(log) = self.logs.get_mut(&id).filter(|log| log.is_reading()) else {
                continue;
            };
            let step = log.reader.accept(envelope);
            self.log_stepped(id, step).await?;
        }
        Ok(())
    }

    async fn home_stepped(&mut self, step: Result<Step, DeviceError>) -> Result<(), DeviceError> {
        let stream = self.home.reader.stream();
        self.sight_read(stream);
        let applied = match step {
            Ok(Step::Events(events)) => {
                self.note_head(stream);
                self.home.apply(&events)
            }
            // The open state comes whole, with the roster; what is missing is of no use here.
            Ok(Step::Nothing | Step::Live(_) | Step::Limited { .. }) => Ok(false),
            Ok(Step::Again) => {
                self.subscribe(stream);
                Ok(false)
            }
            Ok(Step::Later) => {
                self.later.insert(stream, Instant::now() + LATER);
                Ok(false)
            }
            Ok(Step::KeyMissing(_)) => {
                self.find_keys().await?;
                Ok(false)
            }
            Err(alarm) => Err(alarm),
        };
        match applied {
            Ok(true) => self.save_host().await?,
            Ok(false) => {}
            Err(alarm) => {
                tracing::warn!(%alarm, code = %alarm.code, "the host's log is not believed");
                if alarm.code == Code::RolledBack {
                    // The host may fill the relay up again.
                    self.later.insert(stream, Instant::now() + MUCH_LATER);
                }
                self.home.alarm = Some(alarm);
            }
        }
        self.answer_fleet().await
    }

    async fn log_stepped(
        &mut self,
        id: u64,
        step: Result<Step, DeviceError>,
    ) -> Result<(), DeviceError> {
        let Some(log) = self.logs.get_mut(&id) else {
            return Ok(());
        };
        let stream = log.reader.stream();
        match step {
            Ok(Step::Events(events)) => {
                let pushed = log.push_events(&events);
                if let Err(error) = pushed {
                    log.fail(error);
                }
                self.note_head(stream);
                self.hold_back(stream);
            }
            Ok(Step::Live(live)) => log.push_live(&live),
            Ok(Step::Limited { first, last }) => log.push_limited(first, last),
            Ok(Step::Nothing) => {}
            Ok(Step::Again) => self.subscribe(stream),
            Ok(Step::Later) => {
                self.later.insert(stream, Instant::now() + LATER);
            }
            Ok(Step::KeyMissing(_)) => self.find_keys().await?,
            Err(error) => {
                tracing::warn!(%error, code = %error.code, "a session's log is not believed");
                log.fail(error);
            }
        }
        self.sight_read(stream);
        if self.logs.get_mut(&id).is_some_and(Log::note_caught_up) {
            self.save_heads().await?;
        }
        Ok(())
    }

    /// Asks the relay to hold a stream back while nobody has room for it.
    fn hold_back(&mut self, stream: StreamId) {
        if !self
            .logs
            .values()
            .any(|log| log.reader.stream() == stream && log.is_reading())
        {
            self.push(&Frame::Unsubscribe(Unsubscribe {
                host: self.host.peer(),
                stream,
            }));
        }
    }

    pub(super) fn drained(&mut self, id: u64, drained: Drained) {
        let Some(stream) = self.logs.get(&id).map(|log| log.reader.stream()) else {
            return;
        };
        match drained {
            Drained::Room => self.subscribe(stream),
            Drained::Gone => {
                self.logs.remove(&id);
                self.sight_read(stream);
                if self.readers_of(stream).is_empty() {
                    self.later.remove(&stream);
                    self.push(&Frame::Unsubscribe(Unsubscribe {
                        host: self.host.peer(),
                        stream,
                    }));
                }
            }
        }
    }

    /// The relay does not let a stream be read. It may when the host connects and names this
    /// device, so it is asked again until nobody waits any more.
    pub(super) fn refuse(&mut self, stream: StreamId, code: Code) {
        self.refused = Some(code);
        if stream == self.home.reader.stream() {
            let trouble = Some(self.reason(false));
            self.status.send_modify(|status| status.trouble = trouble);
        }
        let wanted = stream == self.home.reader.stream() || !self.readers_of(stream).is_empty();
        if wanted {
            self.later.insert(stream, Instant::now() + LATER);
        }
    }

    /// Gives keys to those who wait for them.
    pub(super) fn add_keys(&mut self, stream: StreamId, keys: Vec<(u32, ContentKey)>) {
        let mut waited = false;
        let home = std::iter::once(&mut self.home.reader);
        let logs = self.logs.values_mut().map(|log| &mut log.reader);
        for reader in home.chain(logs).filter(|reader| reader.stream() == stream) {
            for (epoch, key) in &keys {
                waited |= reader.add_key(*epoch, copy(key));
            }
        }
        for (epoch, key) in keys {
            self.keys.entry((stream, epoch)).or_insert(key);
        }
        if waited {
            if stream == self.home.reader.stream() {
                self.home.alarm = None;
            }
            self.subscribe(stream);
        }
    }

    /// The host refuses the keys of a stream; whoever has got them meanwhile does not mind.
    pub(super) fn no_keys(&mut self, stream: StreamId, error: &DeviceError) {
        if stream == self.home.reader.stream() && self.home.reader.blocked().is_some() {
            self.home.alarm = Some(error.clone());
            for (_, reply) in self.waiting.drain(..) {
                drop(reply.send(Err(error.clone())));
            }
        }
        for log in self
            .logs
            .values_mut()
            .filter(|log| log.reader.stream() == stream && log.reader.blocked().is_some())
        {
            log.fail(error.clone());
        }
    }

    /// Answers those who wait for the fleet, when it can be told.
    pub(super) async fn answer_fleet(&mut self) -> Result<(), DeviceError> {
        let answer = match &self.home.alarm {
            Some(alarm) => Err(alarm.clone()),
            None if self.home.is_caught_up() => Ok(self.fleet_view()),
            None => return Ok(()),
        };
        if self.waiting.is_empty() {
            return Ok(());
        }
        if answer.is_ok() {
            self.save_heads().await?;
        }
        for (_, reply) in self.waiting.drain(..) {
            drop(reply.send(answer.clone()));
        }
        Ok(())
    }

    fn fleet_view(&self) -> FleetView {
        FleetView {
            fleet: self.home.fleet.clone(),
            roster: self.home.roster.clone(),
            host_online: self.status.borrow().host_online,
            head: self.home.reader.head().map_or(0, |head| head.seq),
            me: self.identity.peer(),
        }
    }

    /// Tells those whose time is over why there is nothing.
    pub(super) fn give_up(&mut self, now: Instant) {
        let reason = self.home_reason();
        for (_, reply) in self
            .waiting
            .extract_if(.., |(deadline, _)| *deadline <= now)
        {
            drop(reply.send(Err(reason.clone())));
        }
        let late: Vec<u64> = self
            .logs
            .iter()
            .filter(|(_, log)| log.deadline.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            let blocked = self
                .logs
                .get(&id)
                .is_some_and(|log| log.reader.blocked().is_some());
            let reason = self.reason(blocked);
            if let Some(log) = self.logs.get_mut(&id) {
                log.fail(reason);
            }
        }
    }

    fn home_reason(&self) -> DeviceError {
        if self.home.reader.is_caught_up() && !self.home.is_blank() && !self.home.has_whole_roster()
        {
            let text = "the relay shows an older roster of the fleet than was seen before";
            return DeviceError::because(Code::RolledBack, text);
        }
        self.reason(self.home.reader.blocked().is_some())
    }

    /// Why nothing can be read, as far as is known.
    fn reason(&self, blocked: bool) -> DeviceError {
        let status = self.status.borrow();
        if !status.up {
            let unknown =
                || DeviceError::because(Code::RelayUnreachable, "the relay has not answered yet");
            return status.trouble.clone().unwrap_or_else(unknown);
        }
        let offline = status.host_online == Some(false);
        match (self.refused, blocked, offline) {
            (Some(Code::NotFound), _, _) => {
                let text = "the relay does not let this device read the host: it was removed from the fleet, or the \
                            host has not been connected since the relay started";
                DeviceError::because(Code::NotFound, text)
            }
            (Some(code), _, _) => DeviceError::new(code),
            (None, true, true) => {
                let text = "a key is missing, and the host that has it is not connected";
                DeviceError::because(Code::HostOffline, text)
            }
            (None, true, false) => DeviceError::new(Code::KeyMissing),
            (None, false, true) => {
                let text = "the host is not connected, and the relay has nothing of it";
                DeviceError::because(Code::HostOffline, text)
            }
            (None, false, false) => DeviceError::because(
                Code::Timeout,
                "the log could not be read to its end in time",
            ),
        }
    }

    /// Tells everybody that nothing more will come.
    pub(super) async fn fail_all(&mut self, error: &DeviceError) {
        for (_, reply) in self.waiting.drain(..) {
            drop(reply.send(Err(error.clone())));
        }
        self.logs
            .values_mut()
            .for_each(|log| log.fail(error.clone()));
        let logs = &mut self.logs;
        let told = std::future::poll_fn(|cx| {
            logs.retain(|_, log| log.poll_drain(cx).is_pending());
            if logs.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        if tokio::time::timeout(LATER, told).await.is_err() {
            tracing::debug!("somebody who reads a log was not told of its end");
        }
    }

    fn readers_of(&self, stream: StreamId) -> Vec<u64> {
        self.logs
            .iter()
            .filter(|(_, log)| log.reader.stream() == stream)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Takes note of how far a stream was seen.
    fn note_head(&mut self, stream: StreamId) {
        let home = std::iter::once(&self.home.reader);
        let readers = home.chain(self.logs.values().map(|log| &log.reader));
        let head = readers
            .filter(|reader| reader.stream() == stream)
            .filter_map(Reader::head)
            .max_by_key(|head| head.seq);
        let Some(head) = head else { return };
        if self
            .seen
            .get(&stream)
            .is_none_or(|seen| seen.seq < head.seq)
        {
            self.seen.insert(stream, head);
            self.unsaved.insert(stream);
            self.save.get_or_insert(Instant::now() + SAVE);
        }
    }

    /// Writes down how far streams were seen.
    pub(super) async fn save_heads(&mut self) -> Result<(), DeviceError> {
        self.save = None;
        let unsaved = std::mem::take(&mut self.unsaved);
        let heads: Vec<_> = unsaved
            .into_iter()
            .filter_map(|stream| Some((stream, *self.seen.get(&stream)?)))
            .collect();
        if heads.is_empty() {
            return Ok(());
        }
        let host = self.host.peer();
        let home = self.home.reader.stream();
        let is_news = heads.iter().any(|(stream, _)| *stream == home) && self.home.is_caught_up();
        let fleet = is_news.then(|| self.home.fleet.clone());
        self.store
            .run(move |store| {
                store.keep_heads(host, &heads)?;
                fleet.map_or(Ok(()), |fleet| store.keep_fleet(host, &fleet))
            })
            .await
    }

    /// Writes down what is known of the host.
    async fn save_host(&mut self) -> Result<(), DeviceError> {
        self.host.roster = self.home.roster.entries().to_vec();
        if !self.home.fleet.name.is_empty() {
            self.host.name.clone_from(&self.home.fleet.name);
        }
        let host = self.host.clone();
        self.store.run(move |store| store.keep_host(&host)).await
    }
}

/// Copies of the keys of one stream.
pub(super) fn keys_of(
    keys: &BTreeMap<(StreamId, u32), ContentKey>,
    stream: StreamId,
) -> impl Iterator<Item = (u32, ContentKey)> {
    keys.range((stream, 0)..=(stream, u32::MAX))
        .map(|((_, epoch), key)| (*epoch, copy(key)))
}

/// How long to wait before a subscription that did not do is tried again.
const LATER: Duration = Duration::from_secs(1);
/// The same, where it takes the host to change something.
const MUCH_LATER: Duration = Duration::from_secs(5);
/// How long a head that was seen may not be on the disk.
const SAVE: Duration = Duration::from_secs(1);
