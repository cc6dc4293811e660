//! The host's side of the relay: sends what the journal holds and the relay lacks, passes letters
//! to the daemon, and never makes anybody wait. The journal is the truth; what does not fit into
//! the queue here is read from it again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use farhelm_core::keys::Identity;
use farhelm_link::backoff::Ending;
use farhelm_link::driver::{Link, LinkEvent, LinkOptions, Way};
use farhelm_proto::frame::{Frame, Locate, Members, OpenOffer};
use farhelm_proto::letter::Letter;
use farhelm_proto::{Code, CommandId, OfferId, StreamId, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::handle::Input;
pub(crate) use self::handle::Uplink;
use self::inbox::Inbox;
use self::mend::Mending;
use self::question::{Due, Question};
use self::queue::{Line, Queue};
use self::receipts::Receipts;
use self::rest::Rest;
use self::sent::Sent;
pub(crate) use self::standing::{Standing, Standings};
use crate::journal::{Journal, JournalError, Op};

mod handle;
mod inbox;
mod inward;
mod mend;
mod outward;
mod question;
mod queue;
mod receipts;
mod rest;
mod sent;
mod standing;

/// When letters are sent again that the relay could not take, as when its disk was full.
const RETRY: std::time::Duration = std::time::Duration::from_secs(3);

/// What the relay link is doing, as people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RelayState {
    /// Not connected yet.
    Connecting,
    /// Connected since then, in that way, and the relay has of this host's own log what is here.
    Up(Timestamp, Way),
    /// Not connected.
    Down {
        /// Why.
        code: Code,
        /// Detail for people.
        detail: String,
        /// Since when.
        since: Timestamp,
    },
}

/// What comes for the daemon.
#[derive(Debug)]
pub(crate) enum Mail {
    /// A letter.
    Letter(Letter),
    /// The addressee of a probe is not connected.
    Away(CommandId),
}

/// The actor behind [`Uplink`].
pub(crate) struct UplinkActor {
    journal: Journal,
    inputs: mpsc::Receiver<Input>,
    lagging: Arc<AtomicBool>,
    waiting: Arc<AtomicUsize>,
    state: watch::Sender<RelayState>,
    letters_in: mpsc::Sender<Mail>,
    streams: BTreeMap<StreamId, Position>,
    standings: Standings,
    sent: Sent,
    behind: BTreeSet<StreamId>,
    /// The stream that was filled up last; the others come before it again.
    filled: Option<StreamId>,
    queue: Queue,
    rest: Rest,
    receipts: Receipts,
    /// Which logs the relay was asked about and has not answered.
    located: Receipts,
    question: Question,
    mending: Mending,
    own: StreamId,
    /// Whether another daemon has gone on with this host's own log.
    is_copy: bool,
    /// When letters are sent again that the relay could not take.
    retry: Option<Instant>,
    members: Option<Members>,
    offers: BTreeMap<OfferId, Timestamp>,
    inbox: Inbox,
    /// How frames get to the relay.
    way: Way,
    /// Whether there is a connection.
    is_linked: bool,
    /// Whether there is one, and the relay has of the host's own log what is here. Nothing but that question is sent before:
    /// a copy would let in whom the other one has removed, and do once more what that has done.
    is_up: bool,
}

/// How far the relay has a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// The relay was asked.
    Asked,
    /// The next seq to send.
    Next(u64),
    /// The relay has something else than the journal: nothing more is sent.
    Forked,
}

impl UplinkActor {
    /// Runs until every [`Uplink`] is gone.
    pub(crate) async fn run(mut self, options: LinkOptions) -> Result<(), JournalError> {
        let identity = Arc::clone(&options.identity);
        let (link, mut events) = Link::start(options);
        let mut damages = self.journal.damages().watch();
        let daemon = self.letters_in.clone();
        loop {
            let can_wait = self.is_up && self.inbox.is_full();
            let passes_on = self.is_up && !self.inbox.is_empty();
            let front = self.queue.front().filter(|_| self.is_linked);
            let due = self.rest.due();
            let unconfirmed = self.receipts.due().filter(|_| self.is_up);
            let unanswered = self.located.due().filter(|_| self.is_up);
            let unsettled = self.question.due();
            let done = tokio::select! {
                biased;
                event = events.recv(), if !can_wait => {
                    let Some(event) = event else { return Ok(()) };
                    self.take_event(event, &link, &identity).await
                }
                Ok(room) = daemon.reserve(), if passes_on => {
                    if let Some(mail) = self.inbox.take() {
                        room.send(mail);
                    }
                    Ok(())
                }
                input = self.inputs.recv() => {
                    let Some(input) = input else { return Ok(()) };
                    self.take_input(input);
                    Ok(())
                }
                Ok(()) = damages.changed() => self.ask_for_lost(&identity).await,
                () = until(due), if due.is_some() => {
                    for stream in self.rest.over(Instant::now()) {
                        self.locate(stream);
                    }
                    Ok(())
                }
                () = until(unconfirmed), if unconfirmed.is_some() => {
                    for stream in self.receipts.over(Instant::now()) {
                        tracing::warn!(%stream, "the relay does not confirm what it was sent; it is asked");
                        self.locate(stream);
                    }
                    Ok(())
                }
                () = until(unanswered), if unanswered.is_some() => {
                    for stream in self.located.over(Instant::now()) {
                        tracing::warn!(%stream, "the relay does not say how far it has a log; it is asked again");
                        self.locate(stream);
                    }
                    Ok(())
                }
                () = until(unsettled), if unsettled.is_some() => {
                    match self.question.look(Instant::now(), link.heard()) {
                        Some(Due::Again) => self.locate(self.own),
                        Some(Due::GiveUp) => link.give_up(Ending::Useless, Code::RelaySilent, SILENT),
                        None => {}
                    }
                    Ok(())
                }
                () = until(self.retry), if self.retry.is_some() => {
                    self.retry = None;
                    self.send_letters().await
                }
                (line, sent) = send(&link, front) => {
                    if sent {
                        self.queue.pop(line);
                        let now = Instant::now();
                        self.receipts.sent(now);
                        self.located.sent(now);
                    } else {
                        self.is_gone();
                    }
                    Ok(())
                }
            };
            self.settle(done)?;
            if self.is_copy {
                drop((link, events));
                return self.stand_aside().await;
            }
            if self.is_up && self.lagging.swap(false, Ordering::AcqRel) {
                let begun = self.begin(&identity).await;
                self.settle(begun)?;
            }
            if self.is_up && self.inbox.wants_more() {
                self.inbox.clear();
                link.give_up(Ending::Lost, Code::Full, TOO_MANY);
            }
            let filled = self.refill().await;
            self.settle(filled)?;
        }
    }

    /// The relay has more of this host's own log than this state folder, or something else: another
    /// daemon with the same keys has written it, here or on another machine. Two writers of one
    /// log must not be, and this one is behind, so it leaves the relay to the other.
    async fn stand_aside(mut self) -> Result<(), JournalError> {
        self.is_gone();
        let detail = "the relay has newer events of this host than this state folder: it is a copy, or was \
                      restored from one, and another daemon with the same keys has gone on; this daemon leaves \
                      the relay to that one until it is started again";
        let detail = if self.journal.lost().is_empty() {
            detail.to_owned()
        } else {
            format!(
                "{detail}; or it is what this journal had and has lost, see `journal` in `farhelm status`"
            )
        };
        tracing::error!(detail, "two daemons with the keys of one host");
        self.state.send_replace(RelayState::Down {
            code: Code::Copied,
            detail,
            since: farhelm_link::clock::now(),
        });
        while let Some(input) = self.inputs.recv().await {
            self.take_input(input);
        }
        Ok(())
    }

    /// What cannot be read or written for the moment, or of one log, must not keep everything
    /// else from the relay.
    fn settle(&self, done: Result<(), JournalError>) -> Result<(), JournalError> {
        match done {
            Err(JournalError::Closed) => Err(JournalError::Closed),
            Err(error) => {
                tracing::warn!(%error, "something is not sent to the relay now");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Asks the relay for what the journal has lost.
    async fn ask_for_lost(&mut self, identity: &Identity) -> Result<(), JournalError> {
        if self.is_up {
            for frame in self.mending.ask(&self.journal, identity).await? {
                self.queue.push(Line::First, frame.to_bytes());
            }
        }
        Ok(())
    }

    async fn take_event(
        &mut self,
        event: LinkEvent,
        link: &Link,
        identity: &Identity,
    ) -> Result<(), JournalError> {
        match event {
            LinkEvent::Up(_) => {
                self.is_linked = true;
                self.way = link.way().unwrap_or(Way::WebSocket);
                tracing::info!(way = self.way.as_str(), "connected to the relay");
                fail::point("host.uplink.up");
                self.forget();
                self.inbox.clear();
                self.question.begin(Instant::now(), link.heard());
                self.locate(self.own);
                Ok(())
            }
            LinkEvent::Down { code, detail, .. } => {
                self.is_gone();
                self.is_down(code, detail);
                Ok(())
            }
            LinkEvent::Frame { frame, .. } => self.take_frame(frame, identity).await,
        }
    }

    /// Says why nothing goes to the relay and nothing comes from there.
    fn is_down(&self, code: Code, detail: String) {
        self.state.send_if_modified(|state| {
            let since = match state {
                RelayState::Down { since, .. } => *since,
                RelayState::Connecting | RelayState::Up(..) => farhelm_link::clock::now(),
            };
            let down = RelayState::Down {
                code,
                detail,
                since,
            };
            let changed = *state != down;
            // Once for each reason; the same again would fill the log of a long night.
            if changed && let RelayState::Down { code, detail, .. } = &down {
                tracing::warn!(%code, detail, "no connection to the relay");
            }
            *state = down;
            changed
        });
    }

    /// The connection is no more.
    fn is_gone(&mut self) {
        self.is_linked = false;
        self.is_up = false;
        self.inbox.clear();
        self.question.end();
        self.sent.forget();
        self.queue.clear();
    }

    /// What was known of the relay is known no more.
    fn forget(&mut self) {
        self.queue.clear();
        self.behind.clear();
        self.streams.clear();
        self.sent.forget();
        self.rest.forget();
        self.receipts.forget();
        self.located.forget();
        self.mending.forget();
    }

    /// Says who belongs, sends what waits, and asks where each stream stands.
    async fn begin(&mut self, identity: &Identity) -> Result<(), JournalError> {
        self.forget();
        if let Some(members) = self.members.clone() {
            self.say(&Frame::Members(members));
        }
        for (offer, until) in self.offers.clone() {
            self.say(&Frame::OpenOffer(OpenOffer { offer, until }));
        }
        self.send_letters().await?;
        self.ask_for_lost(identity).await?;
        let mut streams: Vec<_> = self
            .journal
            .streams()
            .await?
            .into_iter()
            .map(|(stream, _)| stream)
            .collect();
        streams.sort_by_key(|stream| (*stream != self.own, std::cmp::Reverse(*stream)));
        for stream in streams {
            self.locate(stream);
        }
        Ok(())
    }

    /// Sends every letter that the relay has not confirmed.
    async fn send_letters(&mut self) -> Result<(), JournalError> {
        for (_, frame) in self.journal.letters().await? {
            if self.is_up {
                self.queue.push(Line::First, frame);
            }
        }
        Ok(())
    }

    /// Forgets a letter that the relay has, or will never take. When that cannot be written, as on
    /// a full disk, it is sent again, which does no harm.
    async fn forget_letter(&mut self, id: CommandId) {
        if let Err(error) = self.journal.commit(vec![Op::LetterPosted { id }]).await {
            tracing::warn!(%error, "that a letter has left could not be noted");
            self.retry.get_or_insert(Instant::now() + RETRY);
        }
    }

    fn locate(&mut self, stream: StreamId) {
        self.streams.insert(stream, Position::Asked);
        if stream != self.own {
            self.located.expect(stream, 0, Instant::now());
        }
        if self.is_linked {
            let ask = Frame::Locate(Locate { stream });
            self.queue.push(Line::First, ask.to_bytes());
        }
    }

    /// The line of a log: what the host's own says is never kept behind the others.
    fn line_of(&self, stream: StreamId) -> Line {
        if stream == self.own {
            Line::First
        } else {
            Line::Bulk
        }
    }
}

/// Sends one frame, or waits for ever when there is none. Says whether it went out.
async fn send(link: &Link, frame: Option<(Line, Bytes)>) -> (Line, bool) {
    let Some((line, frame)) = frame else {
        return std::future::pending().await;
    };
    fail::point("host.uplink.before_send");
    let sent = match line {
        Line::First => link.send_first(frame).await,
        Line::Bulk => link.send(frame).await,
    };
    fail::point("host.uplink.after_send");
    (line, sent.is_ok())
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Whoever looks sees the host connected, and neither reads nor reaches it.
const SILENT: &str = "the relay lets this host connect and does not say how much of its log it has; without that nothing \
                      may be sent or done, and it is tried again and again";
/// The relay gives letters that were not taken on the next connection.
const TOO_MANY: &str =
    "more letters came than could be taken at once; the rest is asked for on another connection";
