//! The task of a device that is connected to one host: owns the link and all that was read.
//!
//! Whatever wakes it is an [`Input`]; what it has to send waits in `out`, so that it never waits
//! for the link while the link waits for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use farhelm_core::command::Command;
use farhelm_core::content::BlobRef;
use farhelm_core::keys::{ContentKey, Identity};
use farhelm_core::presence::{Presence, Sighting};
use farhelm_core::replica::Head;
use farhelm_proto::frame::{Frame, Role};
use farhelm_proto::{Code, CommandId, SessionId, StreamId, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::clock;
use crate::device::home::Home;
use crate::device::log::{Drained, Item, Log};
use crate::device::wishes::Wishes;
use crate::device::{DeviceError, FleetView, KnownHost, Sent, Status, Store};
use crate::driver::{Link, LinkEvent, LinkOptions, WATCHED_MILLIS};

mod blobs;
mod letters;
mod pulse;
mod streams;

/// What a client asks for.
#[derive(Debug)]
pub(crate) enum Ask {
    Fleet {
        deadline: Instant,
        reply: oneshot::Sender<Result<FleetView, DeviceError>>,
    },
    Log {
        session: SessionId,
        from: u64,
        follow: bool,
        patience: Duration,
        reply: oneshot::Sender<mpsc::Receiver<Item>>,
    },
    Send {
        command: Command,
        not_after: Timestamp,
        reply: oneshot::Sender<Result<Sent, DeviceError>>,
    },
    Again {
        first: CommandId,
        not_after: Timestamp,
        reply: oneshot::Sender<Result<Sent, DeviceError>>,
    },
    TakeBack {
        id: CommandId,
        reply: oneshot::Sender<Result<Sent, DeviceError>>,
    },
    /// How often the host is to be asked whether it is there.
    Pulse {
        every: Option<Duration>,
    },
    /// How things are, once the host has answered.
    Probe {
        deadline: Instant,
        reply: oneshot::Sender<Presence>,
    },
    Blob {
        stream: StreamId,
        blob: BlobRef,
        reply: oneshot::Sender<Result<Vec<u8>, DeviceError>>,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
}

/// What wakes the actor.
enum Input {
    Asked(Option<Ask>),
    Link(Option<LinkEvent>),
    /// The first of what waits was sent, or cannot be.
    Sent,
    Drained(u64, Drained),
    Time,
}

/// The state of the task.
pub(crate) struct Actor {
    store: Store,
    identity: Arc<Identity>,
    host: KnownHost,
    asks: mpsc::Receiver<Ask>,
    link: Link,
    events: mpsc::Receiver<LinkEvent>,
    status: watch::Sender<Status>,
    out: VecDeque<Bytes>,
    keys: BTreeMap<(StreamId, u32), ContentKey>,
    /// Keys that were asked for on this connection, by the command that asks.
    asked: BTreeMap<CommandId, (StreamId, u32)>,
    /// The highest heads that were ever seen.
    seen: BTreeMap<StreamId, Head>,
    /// Those of them that are not on the disk.
    unsaved: BTreeSet<StreamId>,
    home: Home,
    /// Why the relay does not let the host be read, once it has said so.
    refused: Option<Code>,
    waiting: Vec<(Instant, oneshot::Sender<Result<FleetView, DeviceError>>)>,
    logs: BTreeMap<u64, Log>,
    next_log: u64,
    wishes: Wishes,
    pulse: pulse::Pulse,
    /// The host's own word of what time it has.
    host_clock: Option<clock::HostClock>,
    blobs: blobs::Blobs,
    /// Streams to subscribe to again.
    later: BTreeMap<StreamId, Instant>,
    /// When to send letters again that the relay did not take.
    retry: Option<Instant>,
    /// Commands that the host was asked for on this connection.
    recalled: BTreeSet<CommandId>,
    /// Names the life of the relay's store.
    relay_store: Option<[u8; 16]>,
    /// When to look for commands whose time is over.
    expiry: Option<Instant>,
    /// When to look into the store for what another process of this device was told.
    look: Option<Instant>,
    /// When to write down what was seen.
    save: Option<Instant>,
}

impl Actor {
    pub(crate) async fn new(
        store: Store,
        host: KnownHost,
        extra_ca: Option<PathBuf>,
        asks: mpsc::Receiver<Ask>,
        status: watch::Sender<Status>,
    ) -> Result<Self, DeviceError> {
        let peer = host.peer();
        let load =
            move |store: &Store| Ok((store.identity()?, store.keys(peer)?, store.heads(peer)?));
        let (identity, keys, heads) = store.run(load).await?;
        let seen: BTreeMap<StreamId, Head> = heads.into_iter().collect();
        let mut home = Home::new(&host, seen.get(&peer.into()).copied())?;
        let keys: BTreeMap<_, _> = keys
            .into_iter()
            .map(|(stream, epoch, key)| ((stream, epoch), key))
            .collect();
        for (epoch, key) in streams::keys_of(&keys, peer.into()) {
            home.reader.add_key(epoch, key);
        }
        let (link, events) = Link::start(LinkOptions {
            relay: host.relay.clone(),
            identity: Arc::clone(&identity),
            role: Role::Device,
            generation: 0,
            dead_millis: Some(WATCHED_MILLIS),
            agent: concat!("farhelm/", env!("CARGO_PKG_VERSION")).to_owned(),
            extra_ca,
        });
        Ok(Self {
            store,
            identity,
            host,
            asks,
            link,
            events,
            status,
            out: VecDeque::new(),
            keys,
            asked: BTreeMap::new(),
            seen,
            unsaved: BTreeSet::new(),
            home,
            refused: None,
            waiting: Vec::new(),
            logs: BTreeMap::new(),
            next_log: 0,
            wishes: Wishes::default(),
            pulse: pulse::Pulse::default(),
            host_clock: None,
            blobs: blobs::Blobs::default(),
            later: BTreeMap::new(),
            retry: None,
            recalled: BTreeSet::new(),
            relay_store: None,
            expiry: Some(Instant::now()),
            look: None,
            save: None,
        })
    }

    pub(crate) async fn run(mut self) {
        loop {
            let handled = match self.next_input().await {
                Input::Asked(None) | Input::Link(None) => return,
                Input::Asked(Some(Ask::Close { reply })) => {
                    if let Err(error) = self.save_heads().await {
                        tracing::warn!(%error, "what was seen could not be written down");
                    }
                    if reply.send(()).is_err() {
                        tracing::debug!("nobody waits for the end");
                    }
                    return;
                }
                Input::Asked(Some(ask)) => self.answer(ask).await,
                Input::Link(Some(event)) => self.hear(event).await,
                Input::Sent => Ok(()),
                Input::Drained(log, drained) => {
                    self.drained(log, drained);
                    Ok(())
                }
                Input::Time => self.time_passed().await,
            };
            if let Err(error) = handled {
                // Only the store fails here; everything else has somebody to be told.
                tracing::error!(%error, "a device cannot go on");
                self.fail_all(&error).await;
                return;
            }
        }
    }

    async fn next_input(&mut self) -> Input {
        let wake = self.next_time();
        let front = self.out.front().cloned();
        let logs = &mut self.logs;
        let drained = std::future::poll_fn(|cx| {
            let ready = logs
                .iter_mut()
                .find_map(|(id, log)| match log.poll_drain(cx) {
                    Poll::Ready(drained) => Some(Input::Drained(*id, drained)),
                    Poll::Pending => None,
                });
            ready.map_or(Poll::Pending, Poll::Ready)
        });
        let input = tokio::select! {
            biased;
            () = sleep_until(wake), if wake.is_some() => Input::Time,
            sent = self.link.send(front.unwrap_or_default()), if !self.out.is_empty() => {
                if sent.is_err() {
                    tracing::debug!("a frame was dropped with its connection");
                }
                Input::Sent
            }
            drained = drained => drained,
            ask = self.asks.recv() => Input::Asked(ask),
            event = self.events.recv() => Input::Link(event),
        };
        if matches!(input, Input::Sent) {
            self.out.pop_front();
        }
        input
    }

    async fn answer(&mut self, ask: Ask) -> Result<(), DeviceError> {
        match ask {
            Ask::Fleet { deadline, reply } => {
                self.waiting.push((deadline, reply));
                self.answer_fleet().await
            }
            Ask::Log {
                session,
                from,
                follow,
                patience,
                reply,
            } => {
                let items = self.open_log(session, from, follow, patience);
                drop(reply.send(items));
                Ok(())
            }
            Ask::Send {
                command,
                not_after,
                reply,
            } => {
                let sent = self.send_command(command, None, not_after).await;
                drop(reply.send(sent));
                Ok(())
            }
            Ask::Again {
                first,
                not_after,
                reply,
            } => {
                drop(reply.send(self.send_again(first, not_after).await));
                Ok(())
            }
            Ask::TakeBack { id, reply } => {
                drop(reply.send(self.take_back(id).await));
                Ok(())
            }
            Ask::Pulse { every } => {
                self.probe_every(every);
                Ok(())
            }
            Ask::Probe { deadline, reply } => {
                self.probe_for(deadline, reply);
                Ok(())
            }
            Ask::Blob {
                stream,
                blob,
                reply,
            } => {
                self.want_blob(stream, &blob, reply);
                Ok(())
            }
            // Handled by the loop, which it ends.
            Ask::Close { .. } => Ok(()),
        }
    }

    async fn hear(&mut self, event: LinkEvent) -> Result<(), DeviceError> {
        match event {
            LinkEvent::Up(welcome) => {
                let is_new_store = self
                    .relay_store
                    .is_some_and(|store| store != *welcome.store);
                self.relay_store = Some(*welcome.store);
                let in_doubt =
                    self.host_clock.is_none() || clock::differ(welcome.now, clock::now());
                self.status.send_modify(|status| {
                    status.clock_in_doubt = in_doubt;
                    status.up = true;
                    status.trouble = None;
                    status.host_online = None;
                });
                self.out.clear();
                self.asked.clear();
                self.recalled.clear();
                self.refused = None;
                self.home.alarm = None;
                self.subscribe_all();
                self.ask_for_blobs();
                self.pulse_begins();
                self.find_keys().await?;
                self.expire().await?;
                self.send_unacknowledged(is_new_store).await
            }
            LinkEvent::Down {
                code,
                detail,
                retry_in: _,
            } => {
                let trouble = Some(DeviceError::because(code, detail));
                self.status.send_modify(|status| {
                    status.up = false;
                    status.trouble = trouble;
                    status.host_online = None;
                });
                self.out.clear();
                self.cut_all();
                self.pulse_ends();
                Ok(())
            }
            LinkEvent::Frame { frame, raw: _ } => self.take(frame).await,
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "no other frame is for a device"
    )]
    async fn take(&mut self, frame: Frame) -> Result<(), DeviceError> {
        match frame {
            Frame::Envelope(envelope) => self.take_envelope(&envelope).await,
            Frame::Subscribed(subscribed) => self.take_subscribed(&subscribed).await,
            Frame::Presence(presence) => {
                if presence.host == self.host.peer() {
                    let online = presence.online;
                    self.status
                        .send_modify(|status| status.host_online = Some(online));
                    self.sight(&Sighting::Host { online });
                }
                Ok(())
            }
            Frame::Letter(letter) => self.take_letter(&letter).await,
            Frame::Posted(posted) => self.posted(posted.id).await,
            Frame::Blob(blob) => self.take_blob(&blob).await,
            Frame::Problem(problem) => self.take_problem(&problem).await,
            other => {
                tracing::debug!(?other, "a frame that is not for a device");
                Ok(())
            }
        }
    }

    async fn time_passed(&mut self) -> Result<(), DeviceError> {
        let now = Instant::now();
        let due: Vec<StreamId> = self
            .later
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(stream, _)| *stream)
            .collect();
        for stream in due {
            self.subscribe(stream);
        }
        if self.retry.is_some_and(|at| at <= now) {
            self.retry = None;
            self.asked.clear();
            self.find_keys().await?;
            self.send_unacknowledged(false).await?;
        }
        if self.look.is_some_and(|at| at <= now) {
            self.look = None;
            self.look_into_store().await?;
        }
        if self.expiry.is_some_and(|at| at <= now) {
            self.expire().await?;
        }
        if self.save.is_some_and(|at| at <= now) {
            self.save_heads().await?;
        }
        self.pulse_time();
        self.give_up(now);
        Ok(())
    }

    /// When there is something to do without being asked.
    fn next_time(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().map(|(deadline, _)| *deadline);
        let logs = self.logs.values().filter_map(|log| log.deadline);
        let later = self.later.values().copied();
        waiting
            .chain(logs)
            .chain(later)
            .chain(self.retry)
            .chain(self.look)
            .chain(self.expiry)
            .chain(self.save)
            .chain(self.pulse_due())
            .min()
    }

    fn is_up(&self) -> bool {
        self.status.borrow().up
    }

    /// Queues a frame, when there is a connection.
    fn push(&mut self, frame: &Frame) {
        if self.is_up() {
            self.out.push_back(frame.to_bytes());
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
