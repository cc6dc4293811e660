//! The daemon's end of the local socket.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use farhelm_core::content::BlobRef;
use farhelm_core::event::{Activity, Record};
use farhelm_core::keys::to_base64;
use farhelm_core::seal;
use farhelm_core::text::from_hex;
use farhelm_proto::{Code, CommandId, PeerId, SessionId};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, oneshot};

use super::{LocalAnswer, LocalRequest, MAX_LINE, Outputs, Paused, Status};
use crate::config::AgentChoice;
use crate::daemon::{DaemonHandle, Request};
use crate::journal::health::{Health, Pause};
use crate::journal::{Lost, Op};
use crate::session::{Seen, SessionHandle, Spec, open_records};
use crate::tunnel::Via;
use crate::uplink::RelayState;

/// How long somebody may take to answer a probe.
const ANSWER_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);
/// Bytes of envelopes read at a time.
const CHUNK: usize = 1024 * 1024;

/// Opens the socket and answers until the daemon stops.
pub(crate) fn serve(path: &Path, daemon: DaemonHandle) -> std::io::Result<()> {
    // Whoever holds the folder's lock may replace what an earlier daemon left.
    drop(std::fs::remove_file(path));
    let listener = UnixListener::bind(path)?;
    fail::point("host.local.bound");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let tasks = daemon.tasks.clone();
    tasks.clone().spawn("local socket", async move {
        loop {
            let stream = tokio::select! {
                () = daemon.stop.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "local socket");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let daemon = daemon.clone();
            tasks.spawn("local request", async move {
                let stop = daemon.stop.clone();
                tokio::select! {
                    () = answer(stream, daemon) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    });
    Ok(())
}

async fn answer(stream: UnixStream, daemon: DaemonHandle) {
    let own = rustix::process::geteuid().as_raw();
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own) {
        tracing::warn!("another user tried the local socket");
        return;
    }
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    if (&mut reader)
        .take(limit)
        .read_until(b'\n', &mut line)
        .await
        .is_err()
    {
        return;
    }
    let mut out = Out(writer);
    let result = match serde_json::from_slice(&line) {
        Ok(request) => {
            fail::point("host.local.request_came");
            // Whoever asked and went does not want the answer any more.
            tokio::select! {
                result = take(request, &daemon, &mut out) => result,
                _ = reader.read_u8() => return,
            }
        }
        Err(error) => Err((
            Code::BadCommand,
            format!("not a request of this version: {error}"),
        )),
    };
    // What a daemon that ends has not done is the next one's to do, and no failure.
    if let Err((code, text)) = result
        && !daemon.stop.is_cancelled()
    {
        drop(out.say(&LocalAnswer::Failed { code, text }).await);
    }
}

type Failure = (Code, String);

struct Out(OwnedWriteHalf);

impl Out {
    async fn say(&mut self, answer: &LocalAnswer) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(answer).unwrap_or_default();
        line.push(b'\n');
        self.0
            .write_all(&line)
            .await
            .map_err(|error| (Code::Internal, error.to_string()))
    }
}

async fn take(request: LocalRequest, daemon: &DaemonHandle, out: &mut Out) -> Result<(), Failure> {
    match request {
        LocalRequest::Blob {
            session,
            blob: wanted,
        } => {
            let data = blob(daemon, session, &wanted).await?;
            out.say(&LocalAnswer::Blob { data }).await
        }
        LocalRequest::Status => {
            out.say(&LocalAnswer::Status(Box::new(status(daemon))))
                .await
        }
        LocalRequest::Start {
            session,
            dir,
            agent,
            environment,
            prompt,
        } => {
            let agent = match agent {
                Some(agent) => agent,
                None => default_agent(daemon, &environment, &dir).await?,
            };
            let (reply, outcome) = oneshot::channel();
            let spec = Spec {
                dir,
                agent,
                environment,
            };
            tell(
                daemon,
                Request::Start {
                    session,
                    spec,
                    prompt,
                    reply,
                },
            )
            .await?;
            say_outcome(out, outcome).await
        }
        LocalRequest::Wish { command } => {
            let (reply, outcome) = oneshot::channel();
            tell(daemon, Request::Wish { command, reply }).await?;
            say_outcome(out, outcome).await
        }
        LocalRequest::Fleet { follow } => {
            let mut fleets = daemon.fleet.clone();
            loop {
                let fleet = Box::new(fleets.borrow_and_update().as_ref().clone());
                out.say(&LocalAnswer::Fleet { fleet }).await?;
                if !follow || fleets.changed().await.is_err() {
                    return Ok(());
                }
            }
        }
        LocalRequest::Log {
            session,
            from,
            follow,
        } => say_log(daemon, out, session, from, follow).await,
        LocalRequest::Tunnel { via, is_command } => {
            let unknown = format!(
                "{via:?} is not known; only tailscale and cloudflared are, use --via-cmd for another program"
            );
            let via = if is_command {
                Some(Via::Command(via))
            } else {
                Via::named(&via)
            };
            let via = via.ok_or((Code::TunnelFailed, unknown))?;
            let (reply, url) = oneshot::channel();
            tell(daemon, Request::Tunnel { via, reply }).await?;
            match url.await {
                Ok(Ok(url)) => out.say(&LocalAnswer::Tunnelled { url }).await,
                Ok(Err(error)) => Err((error.code, error.text)),
                Err(_) => Err(busy()),
            }
        }
        LocalRequest::Pulse => {
            let (reply, echo) = oneshot::channel();
            tell(daemon, Request::Pulse { reply }).await?;
            let echo = Box::new(echo.await.map_err(|_| busy())?);
            let host = daemon.host.peer();
            out.say(&LocalAnswer::Pulse { host, echo }).await
        }
        LocalRequest::Journal => {
            let begin = tokio::time::Instant::now();
            try_journal(daemon).await.map_err(journal_failed)?;
            let millis = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            out.say(&LocalAnswer::Answered { millis }).await
        }
        LocalRequest::RoundTrip { of } => {
            let (reply, answer) = oneshot::channel();
            tell(daemon, Request::RoundTrip { of, reply }).await?;
            let answered = tokio::time::timeout(ANSWER_WITHIN, answer).await;
            let millis = match answered {
                Ok(Ok(Ok(took))) => u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                Ok(Ok(Err(code))) => return Err((code, code.sentence().to_owned())),
                Ok(Err(_)) => return Err(busy()),
                Err(_) => return Err((Code::Timeout, Code::Timeout.sentence().to_owned())),
            };
            out.say(&LocalAnswer::Answered { millis }).await
        }
        LocalRequest::Down => {
            out.say(&LocalAnswer::Done {}).await?;
            daemon.ends_agents.store(true, Ordering::Release);
            daemon.stop.cancel();
            Ok(())
        }
    }
}

/// Writes something to the journal that leaves nothing behind.
async fn try_journal(daemon: &DaemonHandle) -> Result<(), crate::journal::JournalError> {
    let id = CommandId::fresh(farhelm_link::clock::now(), farhelm_link::rng::random());
    let (to, frame) = (daemon.host.peer(), bytes::Bytes::new());
    let ops = vec![Op::Letter { id, to, frame }, Op::LetterPosted { id }];
    daemon.journal.commit(ops).await
}

async fn tell(daemon: &DaemonHandle, request: Request) -> Result<(), Failure> {
    daemon.requests.send(request).await.map_err(|_| busy())
}

async fn say_outcome(
    out: &mut Out,
    outcome: oneshot::Receiver<farhelm_core::command::Outcome>,
) -> Result<(), Failure> {
    let outcome = outcome.await.map_err(|_| busy())?;
    fail::point("host.local.before_outcome");
    out.say(&LocalAnswer::Outcome { outcome }).await
}

fn busy() -> Failure {
    (
        Code::QueueFull,
        "the daemon or the session cannot take it right now; try again".to_owned(),
    )
}

async fn default_agent(
    daemon: &DaemonHandle,
    environment: &crate::environment::Environment,
    dir: &Path,
) -> Result<AgentChoice, Failure> {
    if let Some(name) = daemon.config.agent.clone() {
        return Ok(AgentChoice::Named { name });
    }
    let variables = environment.resolve(dir).await;
    let path = variables.get(std::ffi::OsStr::new("PATH"));
    let found = daemon.config.registry().detect(path);
    let agent = found.ok_or_else(|| {
        let rejection = crate::daemon::no_agent();
        (rejection.code, rejection.text)
    })?;
    Ok(AgentChoice::Named { name: agent.name })
}

fn status(daemon: &DaemonHandle) -> Status {
    let dropped = daemon.journal.dropped_in_all();
    let fleet = daemon.fleet.borrow();
    let (relay, relay_way, relay_error) = match &*daemon.relay.borrow() {
        RelayState::Connecting => ("connecting", None, None),
        RelayState::Up(_, way) => ("up", Some(way.as_str().to_owned()), None),
        RelayState::Down { code, detail, .. } => ("down", None, Some(format!("{code}: {detail}"))),
    };
    let roster = farhelm_core::roster::Roster::verify(&fleet.roster, daemon.host.public());
    Status {
        version: daemon.version.clone(),
        pid: std::process::id(),
        since: daemon.since,
        host: daemon.host.peer(),
        name: fleet.name.clone(),
        url: daemon.public_url.borrow().clone(),
        relay_url: daemon.relay_url.clone(),
        relay: relay.to_owned(),
        relay_way,
        relay_error,
        sessions: fleet
            .sessions
            .values()
            .filter(|summary| summary.state != Activity::Ended)
            .count(),
        devices: roster.map_or(0, |roster| roster.devices().count()),
        paused: paused(daemon),
        journal_lost: daemon
            .journal
            .lost()
            .iter()
            .map(|lost| lost_text(lost, daemon.host.peer()))
            .collect(),
        journal_dropped: Outputs {
            pieces: dropped.pieces,
            bytes: dropped.bytes,
        },
        journal_beyond: daemon.journal.beyond(),
        forked: daemon
            .standings
            .forked()
            .iter()
            .filter(|stream| **stream != daemon.host.peer().into())
            .map(|stream| SessionId::from_bytes(*stream.as_bytes()))
            .collect(),
    }
}

/// Opens a blob of a session.
async fn blob(
    daemon: &DaemonHandle,
    session: SessionId,
    blob: &BlobRef,
) -> Result<String, Failure> {
    let lost = || {
        let text = "the journal does not have that piece any more".to_owned();
        (Code::NotFound, text)
    };
    let name = from_hex(&blob.name).and_then(|name| name.try_into().ok());
    let name = name.ok_or_else(lost)?;
    let stream = session.into();
    let keys = daemon.journal.keys(stream).await.map_err(journal_failed)?;
    let sealed = daemon.journal.blob(name).await.map_err(journal_failed)?;
    if sealed.is_none()
        && daemon
            .journal
            .dropped(stream)
            .await
            .is_ok_and(|it| it.is_some())
    {
        let text = "that output was dropped to keep the journal within its size (`journal_mib`)"
            .to_owned();
        return Err((Code::HistoryDropped, text));
    }
    let key = keys.iter().find(|(epoch, _)| *epoch == blob.epoch);
    let (Some((_, key)), Some(sealed)) = (key, sealed) else {
        return Err(lost());
    };
    let opened = seal::open_blob(key, stream, blob.epoch, &sealed).map_err(|_| lost())?;
    Ok(to_base64(&opened))
}

fn lost_text(lost: &Lost, host: PeerId) -> String {
    match lost {
        Lost::Table(table) => (*table).to_owned(),
        Lost::Commits(commits) => format!("the last {commits} commits"),
        Lost::Events {
            stream,
            first,
            last,
        } => {
            let log = if *stream == host.into() {
                "the host's own log".to_owned()
            } else {
                SessionId::from(*stream).to_string()
            };
            format!("events {first} to {last} of {log}")
        }
    }
}

fn paused(daemon: &DaemonHandle) -> Option<Paused> {
    match daemon.journal.health().borrow().clone() {
        Health::Sound => None,
        Health::Paused(Pause { since, code, text }) => Some(Paused { code, since, text }),
    }
}

async fn say_log(
    daemon: &DaemonHandle,
    out: &mut Out,
    session: SessionId,
    from: u64,
    follow: bool,
) -> Result<(), Failure> {
    if daemon
        .journal
        .stream(session.into())
        .await
        .map_err(journal_failed)?
        .is_none()
    {
        return Err((
            Code::SessionNotFound,
            Code::SessionNotFound.sentence().to_owned(),
        ));
    }
    let (reply, handle) = oneshot::channel();
    tell(daemon, Request::Session { session, reply }).await?;
    let handle: Option<SessionHandle> = handle.await.map_err(|_| busy())?;
    // Following begins before reading, so that nothing falls in between.
    let mut seen = handle.map(|handle| handle.followers.subscribe());
    let mut next = from.max(1);
    next = say_stored(daemon, out, session, next).await?;
    out.say(&LocalAnswer::CaughtUp {}).await?;
    let Some(seen) = seen.as_mut().filter(|_| follow) else {
        return Ok(());
    };
    loop {
        match seen.recv().await {
            Ok(Seen::Record(record)) if record.seq < next => {}
            Ok(Seen::Record(record)) => {
                next = record.seq + 1;
                let record = Box::new(Arc::unwrap_or_clone(record));
                out.say(&LocalAnswer::Record { record }).await?;
            }
            Ok(Seen::Live(live)) => {
                let live = Box::new(Arc::unwrap_or_clone(live));
                out.say(&LocalAnswer::Live { live }).await?;
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {
                next = say_stored(daemon, out, session, next).await?;
            }
            Err(broadcast::error::RecvError::Closed) => {
                say_stored(daemon, out, session, next).await?;
                return Ok(());
            }
        }
    }
}

/// Says what the journal holds from `next` on; gives the seq after it.
async fn say_stored(
    daemon: &DaemonHandle,
    out: &mut Out,
    session: SessionId,
    mut next: u64,
) -> Result<u64, Failure> {
    loop {
        let envelopes = daemon
            .journal
            .envelopes(session.into(), next - 1, CHUNK)
            .await
            .map_err(journal_failed)?;
        if envelopes.is_empty() {
            return Ok(next);
        }
        let records: Vec<Record> = open_records(&daemon.journal, &envelopes)
            .await
            .map_err(journal_failed)?;
        for record in records {
            if record.seq >= next {
                next = record.seq + 1;
                out.say(&LocalAnswer::Record {
                    record: Box::new(record),
                })
                .await?;
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn journal_failed(error: crate::journal::JournalError) -> Failure {
    (error.code(), error.to_string())
}
