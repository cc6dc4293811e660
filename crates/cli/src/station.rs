//! Where commands go: to the daemon of this machine, or through the relay to a host that this
//! machine is joined to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use farhelm_core::command::Command;
use farhelm_core::content::BlobRef;
use farhelm_core::event::{Event, Live, Record};
use farhelm_core::fleet::Fleet;
use farhelm_core::keys::from_base64;
use farhelm_core::presence::{Presence, Reach, SILENT_MILLIS, Sighting};
use farhelm_core::probe::EVERY_MILLIS;
use farhelm_core::roster::Roster;
use farhelm_core::session::Session;
use farhelm_host::local::{Answers, LocalAnswer, LocalClient, LocalRequest, Status, socket_of};
use farhelm_link::clock::now;
use farhelm_link::device::{Client, DeviceError, KnownHost, LogItem, Store};
use farhelm_proto::{Code, PeerId, SessionId, Timestamp};
use tokio::sync::mpsc;

use crate::args::Sending;
use crate::failure::Failure;
use crate::output;
use crate::render::visible;
use crate::resolve::matches;
use crate::seen::Seen;

/// How long somebody who follows waits for a network.
const FOR_EVER: std::time::Duration = std::time::Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a connection may take before what was seen last is good enough to name a session.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// How long a host may take to say that it is there.
const ANSWER_WITHIN: std::time::Duration = std::time::Duration::from_millis(SILENT_MILLIS + 500);
/// How often a host is asked while somebody looks.
const PROBE_EVERY: std::time::Duration = std::time::Duration::from_millis(EVERY_MILLIS);

/// The way to a host.
pub(crate) enum Station {
    /// The daemon of this machine.
    Local(LocalClient),
    /// A host elsewhere.
    Joined {
        client: Box<Client>,
        host: Box<KnownHost>,
    },
}

/// A piece of a log, from either way.
pub(crate) enum Piece {
    Record(Box<Record>),
    Live(Box<Live>),
    /// Events that the relay does not have any more.
    Limited {
        first: u64,
        last: u64,
    },
    CaughtUp,
}

/// A log as it comes.
pub(crate) enum Log {
    Local(Answers),
    Joined(mpsc::Receiver<Result<LogItem, DeviceError>>),
}

/// Who belongs to the fleet, with the host's own state.
pub(crate) struct Overview {
    pub(crate) fleet: Fleet,
    pub(crate) roster: Option<Roster>,
    /// Which member this is, when it is a device.
    pub(crate) me: Option<PeerId>,
}

impl Station {
    /// Finds the way: the daemon of this machine if it runs, else the host it is joined to.
    pub(crate) async fn find(home: &Path, wanted: Option<&str>) -> Result<Self, Failure> {
        let local = LocalClient::new(&socket_of(home));
        if wanted.is_none() && local.is_running().await {
            return Ok(Self::Local(local));
        }
        Self::joined(home, wanted).await
    }

    /// The way to a host that this machine is joined to.
    pub(crate) async fn joined(home: &Path, wanted: Option<&str>) -> Result<Self, Failure> {
        let known = if device_folder(home).exists() {
            Store::open(&device_folder(home))?.hosts()?
        } else {
            Vec::new()
        };
        let host = choose(known, wanted)?;
        let store = Store::open(&device_folder(home))?;
        let client = Client::connect(store, host.clone(), extra_ca()).await?;
        Ok(Self::Joined {
            client: Box::new(client),
            host: Box::new(host),
        })
    }

    /// What there is on the host.
    pub(crate) async fn overview(&self) -> Result<Overview, Failure> {
        match self {
            Self::Local(local) => {
                let status = status(local).await?;
                let answer = local
                    .ask_once(&LocalRequest::Fleet { follow: false })
                    .await?;
                let LocalAnswer::Fleet { fleet } = answer else {
                    return Err(unexpected());
                };
                let roster = read_own_roster(&fleet, status.host);
                Ok(Overview {
                    fleet: *fleet,
                    roster,
                    me: None,
                })
            }
            Self::Joined { client, .. } => {
                let view = patiently(client, client.fleet()).await?;
                Ok(Overview {
                    fleet: view.fleet,
                    roster: Some(view.roster),
                    me: Some(view.me),
                })
            }
        }
    }

    /// What is known of the host at this moment: by its own word, when it answers soon.
    pub(crate) async fn seen(&self, fleet: &Fleet) -> Result<Seen, Failure> {
        let presence = match self {
            Self::Local(local) => {
                let answer = local.ask_once(&LocalRequest::Pulse).await?;
                let LocalAnswer::Pulse { host, echo } = answer else {
                    return Err(unexpected());
                };
                let asked = now();
                let mut presence = Presence::default();
                presence.apply(asked, &Sighting::Link { up: true });
                presence.apply(asked, &Sighting::Echoed { host, asked, echo });
                presence
            }
            Self::Joined { client, .. } => client.probe(ANSWER_WITHIN).await?,
        };
        Ok(Seen::new(presence, fleet, now()))
    }

    /// A big piece of a session's log.
    pub(crate) async fn blob(
        &self,
        session: SessionId,
        blob: &BlobRef,
    ) -> Result<Vec<u8>, Failure> {
        let blob = blob.clone();
        match self {
            Self::Local(local) => {
                let answer = local
                    .ask_once(&LocalRequest::Blob { session, blob })
                    .await?;
                if let LocalAnswer::Blob { data } = answer {
                    from_base64(&data).ok_or_else(unexpected)
                } else {
                    Err(unexpected())
                }
            }
            Self::Joined { client, .. } => Ok(client.blob(session, blob).await?),
        }
    }

    /// A session's log from an event on.
    pub(crate) async fn log(
        &self,
        session: SessionId,
        from: u64,
        follow: bool,
    ) -> Result<Log, Failure> {
        match self {
            Self::Local(local) => {
                let request = LocalRequest::Log {
                    session,
                    from,
                    follow,
                };
                Ok(Log::Local(local.ask(&request).await?))
            }
            Self::Joined { client, .. } => {
                let from = Some(from).filter(|from| *from > 1);
                let log = if follow {
                    client.log_within(session, from, follow, FOR_EVER).await
                } else {
                    client.log(session, from, follow).await
                };
                Ok(Log::Joined(log))
            }
        }
    }

    /// Asks the host again and again whether it is there, and says so whenever that changes. Never
    /// ends.
    pub(crate) async fn watch(&self, say: impl Fn(&str)) -> Result<(), Failure> {
        let Self::Joined { client, .. } = self else {
            return std::future::pending().await;
        };
        client.probe_every(Some(PROBE_EVERY)).await;
        let mut status = client.status();
        let (mut reach, mut missing) = (Reach::Live, 0);
        loop {
            let seen = Seen::new(
                status.borrow_and_update().presence.clone(),
                &Fleet::default(),
                now(),
            );
            // Between two connections it is not known yet whether anything has changed.
            if seen.reach() != reach && seen.reach() != Reach::Unproven {
                reach = seen.reach();
                say(&seen.way());
            }
            if seen.withheld() != missing {
                missing = seen.withheld();
                say(&seen
                    .warnings()
                    .pop()
                    .unwrap_or_else(|| "what was held back has arrived".to_owned()));
            }
            if status.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// A session's open state.
    pub(crate) async fn session(&self, session: SessionId) -> Result<Session, Failure> {
        let mut log = self.log(session, 1, false).await?;
        let mut state = Session::default();
        let mut is_whole = true;
        while let Some(piece) = log.next().await? {
            match piece {
                Piece::Record(record) => {
                    is_whole |= matches!(record.event, Event::Snapshot { .. });
                    state.apply(record.cause, &record.event);
                }
                Piece::Limited { .. } => is_whole = false,
                Piece::Live(_) => {}
                Piece::CaughtUp => break,
            }
        }
        // What cannot be read is not guessed at.
        if !is_whole || state.version.is_unknown() {
            let text =
                "the session's state was written by a later version of farhelm; update this one";
            return Err(Failure::new(Code::UnsupportedVersion, text));
        }
        Ok(state)
    }

    /// What was last seen of the host, when there is no connection to its relay.
    pub(crate) async fn unless_connected(&self) -> Result<Option<Fleet>, Failure> {
        let Self::Joined { client, .. } = self else {
            return Ok(None);
        };
        let mut status = client.status();
        let connected = status.wait_for(|status| status.up);
        if tokio::time::timeout(CONNECT_WITHIN, connected)
            .await
            .is_ok()
        {
            return Ok(None);
        }
        Ok(client.remembered().await?)
    }

    /// Sends a wish, and a rejection is a failure. Gives what was made.
    pub(crate) async fn apply(&self, command: Command) -> Result<Option<String>, Failure> {
        let sending = Sending::default();
        let reached = crate::sending::send(self, command, &sending, |_| ()).await?;
        Ok(reached.made)
    }
}

impl Log {
    /// The next piece; nothing at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, Failure> {
        match self {
            Self::Local(answers) => match answers.next().await? {
                None => Ok(None),
                Some(LocalAnswer::Record { record }) => Ok(Some(Piece::Record(record))),
                Some(LocalAnswer::Live { live }) => Ok(Some(Piece::Live(live))),
                Some(LocalAnswer::CaughtUp {}) => Ok(Some(Piece::CaughtUp)),
                Some(_) => Err(unexpected()),
            },
            Self::Joined(items) => match items.recv().await {
                None => Ok(None),
                Some(Ok(LogItem::Record(record))) => Ok(Some(Piece::Record(record))),
                Some(Ok(LogItem::Live(live))) => Ok(Some(Piece::Live(live))),
                Some(Ok(LogItem::Limited { first, last })) => {
                    Ok(Some(Piece::Limited { first, last }))
                }
                Some(Ok(LogItem::CaughtUp)) => Ok(Some(Piece::CaughtUp)),
                Some(Err(error)) => Err(error.into()),
            },
        }
    }
}

/// How the daemon of this machine is.
pub(crate) async fn status(local: &LocalClient) -> Result<Status, Failure> {
    let answer = local.ask_once(&LocalRequest::Status).await?;
    if let LocalAnswer::Status(status) = answer {
        Ok(*status)
    } else {
        Err(unexpected())
    }
}

/// Where this machine keeps what it is as a device.
pub(crate) fn device_folder(home: &Path) -> PathBuf {
    home.join("device")
}

/// A CA file beside the system's certificates.
pub(crate) fn extra_ca() -> Option<PathBuf> {
    std::env::var_os("FARHELM_CA_FILE").map(PathBuf::from)
}

/// The instant, for printing ages.
pub(crate) fn instant() -> Timestamp {
    now()
}

/// The answer is of another kind than was asked for.
pub(crate) fn unexpected() -> Failure {
    Failure::new(
        Code::UnsupportedVersion,
        "the daemon is of another version; run `farhelm down` and try again",
    )
}

/// Waits for something from afar; a person is told when it will take longer than usual, and why.
pub(crate) async fn patiently<T>(client: &Client, future: impl Future<Output = T>) -> T {
    let mut status = client.status();
    let explain = async {
        if let Ok(now) = status.wait_for(|status| status.trouble.is_some()).await
            && let Some(trouble) = now.trouble.as_ref().filter(|_| output::is_terminal())
        {
            output::note(&format!(
                "not connected yet: {}; trying again …",
                visible(&trouble.text)
            ));
        }
        std::future::pending().await
    };
    tokio::select! {
        done = future => done,
        never = explain => never,
    }
}

fn choose(hosts: Vec<KnownHost>, wanted: Option<&str>) -> Result<KnownHost, Failure> {
    let names: Vec<_> = hosts.iter().map(|host| visible(&host.name)).collect();
    let names = names.join(", ");
    let is_meant = |host: &KnownHost| match wanted {
        Some(wanted) => host.name == wanted || matches(&host.peer().to_string(), wanted),
        None => true,
    };
    let mut matching: Vec<_> = hosts.into_iter().filter(is_meant).collect();
    match (matching.pop(), matching.len(), wanted) {
        (Some(host), 0, _) => Ok(host),
        (Some(_), _, _) => {
            let text =
                format!("this machine is joined to several hosts ({names}); say which with --host");
            Err(Failure::new(Code::Ambiguous, text))
        }
        (None, _, Some(wanted)) => {
            let joined = if names.is_empty() {
                "it is joined to none".to_owned()
            } else {
                format!("there are {names}")
            };
            let text = format!(
                "this machine is joined to no host {wanted:?}; {joined}; join it with `farhelm join LINK`"
            );
            Err(Failure::new(Code::NotPaired, text))
        }
        (None, _, None) => {
            let text = "no daemon runs here and this machine is joined to no host; start one with `farhelm up`, or join a host with `farhelm join LINK`";
            Err(Failure::new(Code::NotRunning, text))
        }
    }
}

/// The daemon has verified its roster; it is read here to be shown.
fn read_own_roster(fleet: &Fleet, host: PeerId) -> Option<Roster> {
    let first: farhelm_core::roster::EntryBody =
        serde_json::from_str(&fleet.roster.first()?.body).ok()?;
    let farhelm_core::roster::Change::Founded { keys, .. } = first.change else {
        return None;
    };
    Roster::verify(&fleet.roster, &keys)
        .ok()
        .filter(|_| keys.peer() == host)
}
