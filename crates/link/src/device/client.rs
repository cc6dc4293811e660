//! The face of a device that is connected to one host.

use std::path::PathBuf;
use std::time::Duration;

use farhelm_core::command::Command;
use farhelm_core::content::BlobRef;
use farhelm_core::fleet::Fleet;
use farhelm_core::presence::Presence;
use farhelm_proto::{Code, CommandId, SessionId, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::device::actor::{Actor, Ask};
use crate::device::log::Item;
use crate::device::{DeviceError, FleetView, KnownHost, Pending, Sent, Status, Store};

/// A connection of this device to one of its hosts, across reconnects. Ends when it is dropped.
#[derive(Debug)]
pub struct Client {
    store: Store,
    host: KnownHost,
    asks: mpsc::Sender<Ask>,
    status: watch::Receiver<Status>,
    _task: AbortOnDropHandle<()>,
}

impl Client {
    /// Begins to connect, on the current runtime.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when the store fails, [`Code::Tampered`] when it holds a roster
    /// that is not the host's.
    pub async fn connect(
        store: Store,
        host: KnownHost,
        extra_ca: Option<PathBuf>,
    ) -> Result<Self, DeviceError> {
        let (publish, status) = watch::channel(Status {
            clock_in_doubt: true,
            ..Status::default()
        });
        let (asks, asked) = mpsc::channel(ASKS);
        let actor = Actor::new(store.clone(), host.clone(), extra_ca, asked, publish).await?;
        let task = AbortOnDropHandle::new(farhelm_world::spawn(actor.run()));
        Ok(Self {
            store,
            host,
            asks,
            status,
            _task: task,
        })
    }

    /// What there is on the host, once its log was read to the end.
    ///
    /// # Errors
    ///
    /// Says after a while why that cannot be: [`Code::RelayUnreachable`], [`Code::HostOffline`],
    /// [`Code::KeyMissing`], [`Code::NotFound`]; at once when the log is not to be believed.
    pub async fn fleet(&self) -> Result<FleetView, DeviceError> {
        self.fleet_within(PATIENCE).await
    }

    /// Like [`Self::fleet`], with another patience.
    ///
    /// # Errors
    ///
    /// Like [`Self::fleet`].
    pub async fn fleet_within(&self, patience: Duration) -> Result<FleetView, DeviceError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Fleet {
            deadline: tokio::time::Instant::now() + patience,
            reply,
        })
        .await?;
        answer.await.map_err(|_| stopped())?
    }

    /// A session's log from the event `from` on, or from its beginning; with `follow` it goes on
    /// with what comes. The last item is an error when it could not be read.
    pub async fn log(
        &self,
        session: SessionId,
        from: Option<u64>,
        follow: bool,
    ) -> mpsc::Receiver<Item> {
        self.log_within(session, from, follow, PATIENCE).await
    }

    /// Like [`Self::log`], with another patience until it has caught up.
    pub async fn log_within(
        &self,
        session: SessionId,
        from: Option<u64>,
        follow: bool,
        patience: Duration,
    ) -> mpsc::Receiver<Item> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask::Log {
            session,
            from: from.unwrap_or(1).max(1),
            follow,
            patience,
            reply,
        };
        let asked = self.ask(ask).await;
        let answered = match asked {
            Ok(()) => answer.await.map_err(|_| stopped()),
            Err(error) => Err(error),
        };
        answered.unwrap_or_else(|error| {
            let (send, items) = mpsc::channel(1);
            drop(send.try_send(Err(error)));
            items
        })
    }

    /// Sends a command, which must have no effect after `not_after`. It is on the disk when this
    /// returns, and arrives whenever relay and host can be reached.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when it could not be written down, [`Code::TooLarge`] when it is.
    pub async fn send(&self, command: Command, not_after: Timestamp) -> Result<Sent, DeviceError> {
        self.settle_clock().await?;
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Send {
            command,
            not_after,
            reply,
        })
        .await?;
        answer.await.map_err(|_| stopped())?
    }

    /// Sends a command again of which nobody knows whether it had its effect, under another id.
    /// The host takes it only while that is so.
    ///
    /// # Errors
    ///
    /// [`Code::NotFound`], [`Code::NotIndeterminate`], and those of [`Self::send`].
    pub async fn send_again(
        &self,
        first: CommandId,
        not_after: Timestamp,
    ) -> Result<Sent, DeviceError> {
        self.settle_clock().await?;
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Again {
            first,
            not_after,
            reply,
        })
        .await?;
        answer.await.map_err(|_| stopped())?
    }

    /// Takes a command back. One of which nobody knows whether it had its effect is not shown any
    /// more; any other has no effect unless it had it before, which the host says: its stages end
    /// with that.
    ///
    /// # Errors
    ///
    /// [`Code::NotFound`] when it is not on its way.
    pub async fn take_back(&self, id: CommandId) -> Result<Sent, DeviceError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::TakeBack { id, reply }).await?;
        answer.await.map_err(|_| stopped())?
    }

    /// Commands to this host whose end is not known, oldest first.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when the store fails.
    pub async fn pending(&self) -> Result<Vec<Pending>, DeviceError> {
        let host = self.host.peer();
        self.store.run(move |store| store.pending(host)).await
    }

    /// Asks the host every so often whether it is there, or no more; what comes of it is in
    /// [`Status::presence`].
    pub async fn probe_every(&self, every: Option<Duration>) {
        if self.ask(Ask::Pulse { every }).await.is_err() {
            tracing::debug!("the device had stopped before");
        }
    }

    /// How things are once the host has answered, or cannot, or `patience` is over.
    ///
    /// # Errors
    ///
    /// [`Code::Internal`] when the connection has stopped.
    pub async fn probe(&self, patience: Duration) -> Result<Presence, DeviceError> {
        let (reply, answer) = oneshot::channel();
        let deadline = tokio::time::Instant::now() + patience;
        self.ask(Ask::Probe { deadline, reply }).await?;
        answer.await.map_err(|_| stopped())
    }

    /// A big piece of a session's log, opened.
    ///
    /// # Errors
    ///
    /// [`Code::NotFound`] when nobody has it any more, [`Code::Timeout`] when nobody answers.
    pub async fn blob(&self, session: SessionId, blob: BlobRef) -> Result<Vec<u8>, DeviceError> {
        let (reply, answer) = oneshot::channel();
        let stream = session.into();
        self.ask(Ask::Blob {
            stream,
            blob,
            reply,
        })
        .await?;
        let answered = tokio::time::timeout(PATIENCE, answer).await;
        let answered = answered.map_err(|_| DeviceError::new(Code::Timeout))?;
        answered.map_err(|_| stopped())?
    }

    /// What was last seen of the host's own log, without asking anybody.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when the store fails.
    pub async fn remembered(&self) -> Result<Option<Fleet>, DeviceError> {
        let host = self.host.peer();
        self.store.run(move |store| store.fleet(host)).await
    }

    /// Where this client stands, as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Ends it in good order: what was seen is written down.
    pub async fn close(self) {
        let (reply, answer) = oneshot::channel();
        if self.ask(Ask::Close { reply }).await.is_ok() && answer.await.is_err() {
            tracing::debug!("the device had stopped before");
        }
    }

    /// Asks the host what time it has, when it has not said so or the relay's clock says that there
    /// may be a difference.
    async fn settle_clock(&self) -> Result<(), DeviceError> {
        let mut status = self.status.clone();
        if !status.borrow().clock_in_doubt {
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + CLOCK_WITHIN;
        let tried = status.wait_for(|status| status.up || status.trouble.is_some());
        let is_up = tokio::time::timeout_at(deadline, tried)
            .await
            .is_ok_and(|tried| tried.is_ok_and(|status| status.up));
        if is_up {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            self.probe(left).await?;
        }
        Ok(())
    }

    async fn ask(&self, ask: Ask) -> Result<(), DeviceError> {
        self.asks.send(ask).await.map_err(|_| stopped())
    }
}

fn stopped() -> DeviceError {
    DeviceError::because(
        Code::Internal,
        "the connection to the host has stopped; its log has the detail",
    )
}

/// How long a wish waits for the host's word of the time, and for a connection by which it comes.
const CLOCK_WITHIN: Duration = Duration::from_secs(2);
/// Questions that wait.
const ASKS: usize = 64;
/// How long a person waits for an answer before being told why there is none.
const PATIENCE: Duration = Duration::from_secs(10);
