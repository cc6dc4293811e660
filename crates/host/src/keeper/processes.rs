//! Keepers as processes of their own: starting them, finding them again, speaking with them.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use farhelm_core::keys::Identity;
use farhelm_proto::sign::Domain;
use farhelm_proto::{Code, SessionId};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::folder::Folder;
use super::hold::{Ready, Spec};
use super::wire::{Challenge, Frame, Frames, Prove, Refusal, VERSION, proof};
use super::{Heard, Keepers, Kept, Start, Told};
use crate::agents::AgentError;
use crate::agents::lines::{Lines, Piece};

/// The keepers of a state folder.
pub struct Processes {
    home: PathBuf,
    generation: u64,
    identity: Arc<Identity>,
    spawn: Spawn,
}

/// Makes a keeper out of its description; returns when it has said whether its program runs.
pub type Spawn = Arc<dyn Fn(Spec) -> BoxFuture<'static, Result<(), AgentError>> + Send + Sync>;

impl Processes {
    /// Those of this state folder, spoken to in this generation.
    #[must_use]
    pub fn new(home: &Path, generation: u64, identity: Arc<Identity>) -> Self {
        Self::with(
            home,
            generation,
            identity,
            Arc::new(|spec| spawn(spec).boxed()),
        )
    }

    /// The same, with another way to make keepers.
    #[must_use]
    pub fn with(home: &Path, generation: u64, identity: Arc<Identity>, spawn: Spawn) -> Self {
        Self {
            home: std::path::absolute(home).unwrap_or_else(|_| home.to_owned()),
            generation,
            identity,
            spawn,
        }
    }

    async fn start_one(&self, start: Start) -> Result<Kept, AgentError> {
        let session = start.session;
        let spec = || Spec {
            home: self.home.clone(),
            generation: self.generation,
            key: *self.identity.public().signing.as_bytes(),
            start: start.clone(),
        };
        fail::point("host.keeper.before_spawn");
        let mut spawned = (self.spawn)(spec()).await;
        // The last keeper goes when it has heard that its end was taken.
        let patience = tokio::time::Instant::now() + PATIENCE;
        while matches!(&spawned, Err(error) if error.code == Code::NotNow)
            && tokio::time::Instant::now() < patience
        {
            tokio::time::sleep(AGAIN).await;
            spawned = (self.spawn)(spec()).await;
        }
        spawned?;
        fail::point("host.keeper.after_spawn");
        let kept = self.attach_one(session).await?;
        kept.ok_or_else(|| AgentError::new(Code::AgentExited, "the agent's keeper ended at once"))
    }

    async fn attach_one(&self, session: SessionId) -> Result<Option<Kept>, AgentError> {
        let folder = Folder::of(&self.home, session);
        let patience = tokio::time::Instant::now() + PATIENCE;
        loop {
            if !folder.path().exists() {
                return Ok(None);
            }
            if clear_if_dead(&folder, session) {
                return Ok(None);
            }
            match self.knock(&folder, session).await {
                Ok(kept) => return Ok(Some(kept)),
                Err(Closed::Refused(Refusal::Version)) => return Err(end_foreign(folder).await),
                Err(Closed::Refused(refusal)) => return Err(refused(refusal)),
                // It may be on its way up, or just going.
                Err(Closed::Io(error)) if tokio::time::Instant::now() >= patience => {
                    let text = format!("the agent's keeper does not answer: {error}");
                    return Err(AgentError::new(Code::Timeout, text));
                }
                Err(Closed::Io(_)) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    async fn knock(&self, folder: &Folder, session: SessionId) -> Result<Kept, Closed> {
        let note = folder
            .note()
            .ok_or_else(|| io::Error::other("it has no note"))?;
        let stream = UnixStream::connect(folder.socket(&note)).await?;
        let mut wire = Wire {
            stream,
            frames: Frames::default(),
        };
        let greeting = within(wire.read()).await?;
        let Frame::Challenge(challenge) = greeting else {
            return Err(io::Error::other("it does not greet").into());
        };
        if challenge.session != session {
            return Err(io::Error::other("it is another session's").into());
        }
        if challenge.version != VERSION {
            return Err(Closed::Refused(Refusal::Version));
        }
        wire.say(&Frame::Prove(self.prove(&challenge))).await?;
        let answer = within(wire.read()).await?;
        if let Frame::Refused(refusal) = answer {
            return Err(Closed::Refused(refusal));
        }
        let Frame::Attached(standing) = answer else {
            return Err(io::Error::other("it neither lets in nor refuses").into());
        };
        let (told, told_in) = mpsc::channel(TOLD);
        let (heard_out, heard) = mpsc::channel(HEARD);
        drop(farhelm_world::spawn(speak(wire, told_in, heard_out)));
        Ok(Kept {
            standing,
            told,
            heard,
        })
    }

    fn prove(&self, challenge: &Challenge) -> Prove {
        let message = proof(challenge, self.generation);
        let signature = self.identity.signing().sign(Domain::KEEPER, &message);
        Prove {
            version: VERSION,
            generation: self.generation,
            signature: signature.to_vec(),
        }
    }
}

impl Keepers for Processes {
    fn start(&self, start: Start) -> BoxFuture<'_, Result<Kept, AgentError>> {
        self.start_one(start).boxed()
    }

    fn attach(&self, session: SessionId) -> BoxFuture<'_, Result<Option<Kept>, AgentError>> {
        self.attach_one(session).boxed()
    }

    fn list(&self) -> BoxFuture<'_, Vec<SessionId>> {
        std::future::ready(Folder::list(&self.home)).boxed()
    }
}

/// Ends what a dead keeper has left, and clears its folder away; false when it lives.
fn clear_if_dead(folder: &Folder, session: SessionId) -> bool {
    // A folder in which there cannot be a lock has no keeper.
    let lock = match folder.lock() {
        Ok(None) => return false,
        Ok(Some(lock)) => Some(lock),
        Err(_) => None,
    };
    if let Some(note) = folder.note() {
        let ended = note.end_all();
        if ended > 0 {
            tracing::warn!(%session, ended, "a keeper is dead; what it had running is ended");
        }
    }
    folder.clear();
    drop(lock);
    true
}

/// Ends a keeper of another version with its agent: nobody can speak with it any more.
async fn end_foreign(folder: Folder) -> AgentError {
    let ended = farhelm_world::blocking(move || folder.end_by_force()).await;
    if ended.unwrap_or_default() {
        return refused(Refusal::Version);
    }
    let text = "the agent's keeper is of another version of farhelm, and cannot be ended";
    AgentError::new(Code::Timeout, text)
}

/// Starts a process that is a keeper, out of this very program.
async fn spawn(spec: Spec) -> Result<(), AgentError> {
    let failed = |error: io::Error| {
        let text = format!("the agent's keeper cannot be started: {error}");
        AgentError::new(Code::Internal, text)
    };
    let mut command = tokio::process::Command::new(own_program());
    command
        .arg("keeper")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if fail::ACTIVE {
        let plans = [fail::PLAN, fail::TRACE].map(|name| (name, std::env::var_os(name)));
        command.envs(
            plans
                .into_iter()
                .filter_map(|(name, plan)| Some((name, plan?))),
        );
    }
    let mut child = command.spawn().map_err(failed)?;
    let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed(io::Error::other("it has no pipes")));
    };
    let answer = async {
        let description = serde_json::to_vec(&spec).map_err(io::Error::from)?;
        stdin.write_all(&description).await?;
        drop(stdin);
        let mut answer = Vec::new();
        stdout.read_to_end(&mut answer).await?;
        serde_json::from_slice(&answer).map_err(|_| io::Error::other("it ended at once"))
    };
    match within(answer).await.map_err(failed)? {
        Ready::Up => Ok(()),
        Ready::Failed(code, text) => Err(AgentError::new(code, text)),
    }
}

/// This program's file, or, when another was put in its place, still this very program.
fn own_program() -> PathBuf {
    std::env::current_exe()
        .ok()
        .filter(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

fn refused(refusal: Refusal) -> AgentError {
    match refusal {
        Refusal::Superseded => AgentError::new(
            Code::Superseded,
            "a later daemon has taken over the session's agent",
        ),
        Refusal::BadProof => AgentError::new(
            Code::BadProof,
            "the agent's keeper does not know the keys of this state folder",
        ),
        Refusal::Version => AgentError::new(
            Code::UnsupportedVersion,
            "the agent's program was held by another version of farhelm, which this one cannot speak with, \
             and was ended; `farhelm resume` starts it again with its conversation",
        ),
    }
}

/// Why a keeper is not there.
enum Closed {
    Io(io::Error),
    Refused(Refusal),
}

impl From<io::Error> for Closed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// One end of a keeper's socket.
struct Wire {
    stream: UnixStream,
    frames: Frames,
}

impl Wire {
    async fn say(&mut self, frame: &Frame) -> io::Result<()> {
        self.stream.write_all(&frame.to_bytes()).await
    }

    /// The next frame. Safe to be given up half-way.
    async fn read(&mut self) -> io::Result<Frame> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let broken = |_| io::Error::other("it says something that is no frame");
            if let Some(frame) = self.frames.next().map_err(broken)? {
                return Ok(frame);
            }
            let count = self.stream.read(&mut buffer).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.frames.push(&buffer[..count]);
        }
    }
}

/// Passes on what is told and heard, until either end is gone.
async fn speak(wire: Wire, mut told: mpsc::Receiver<Told>, heard: mpsc::Sender<Heard>) {
    let Wire { stream, mut frames } = wire;
    let (mut from, mut to) = stream.into_split();
    let listening = async {
        let mut cutter = Cutter::default();
        let mut buffer = vec![0; CHUNK];
        loop {
            while let Ok(Some(frame)) = frames.next() {
                for item in cutter.take(frame) {
                    // Parts are large: few of them wait.
                    let room = if matches!(item, Heard::Part { .. }) {
                        HEARD - PARTS
                    } else {
                        1
                    };
                    let Ok(mut permits) = heard.reserve_many(room).await else {
                        // Nobody listens any more, and what is told goes on.
                        return std::future::pending().await;
                    };
                    if let Some(permit) = permits.next() {
                        permit.send(item);
                    }
                }
                if cutter.is_over {
                    return std::future::pending().await;
                }
            }
            match from.read(&mut buffer).await {
                Ok(count) if count > 0 => frames.push(&buffer[..count]),
                Ok(_) | Err(_) => return,
            }
        }
    };
    let telling = async {
        while let Some(told) = told.recv().await {
            let frame = match told {
                Told::Hear { after } => Frame::Hear(after),
                Told::Write { number, line } => Frame::Write(number, line.into_bytes()),
                Told::Acknowledge { through } => Frame::Acknowledge(through),
                Told::End { at_once } => Frame::End { at_once },
            };
            if to.write_all(&frame.to_bytes()).await.is_err() {
                // What there is to be heard says why.
                return std::future::pending().await;
            }
        }
    };
    tokio::select! {
        biased;
        () = telling => {}
        () = listening => drop(heard.send(Heard::Cut).await),
    }
}

/// Cuts the agent's bytes into lines. A line's number is the place after it.
#[derive(Debug, Default)]
struct Cutter {
    lines: Lines,
    is_over: bool,
}

impl Cutter {
    fn take(&mut self, frame: Frame) -> Vec<Heard> {
        match frame {
            Frame::Said(place, bytes) => self.cut(place, &bytes),
            Frame::Silent(number) => {
                let last = self.lines.finish().map(|piece| heard(number, piece));
                last.into_iter().chain([Heard::Silent { number }]).collect()
            }
            Frame::Written(through) => vec![Heard::Written { through }],
            Frame::Ended(number, end) => {
                self.is_over = true;
                vec![Heard::Ended { number, end }]
            }
            Frame::Superseded => {
                self.is_over = true;
                vec![Heard::Superseded]
            }
            Frame::Challenge(_)
            | Frame::Prove(_)
            | Frame::Attached(_)
            | Frame::Refused(_)
            | Frame::Hear(_)
            | Frame::Write(..)
            | Frame::Acknowledge(_)
            | Frame::End { .. } => Vec::new(),
        }
    }

    fn cut(&mut self, mut place: u64, bytes: &[u8]) -> Vec<Heard> {
        let mut found = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            place += part.len() as u64;
            let pieces = self.lines.feed(part);
            found.extend(pieces.into_iter().map(|piece| heard(place, piece)));
        }
        found
    }
}

fn heard(number: u64, piece: Piece) -> Heard {
    match piece {
        Piece::Line(line) => Heard::Line { number, line },
        Piece::Part(text) => Heard::Part { text },
        Piece::LongLine { line, strings } => Heard::LongLine {
            number,
            line,
            strings,
        },
        Piece::TooLong { bytes } => Heard::TooLong { number, bytes },
    }
}

/// Gives up what takes too long.
async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(ANSWER_WITHIN, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// How long a keeper that seems to be there is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it is waited before the next try.
const AGAIN: Duration = Duration::from_millis(20);
/// How long a keeper may take for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Things told that may wait.
const TOLD: usize = 64;
/// Things heard that may wait; while they do, the agent is not read.
const HEARD: usize = 64;
/// Parts of a long line among them, about.
const PARTS: usize = 8;
/// How much is read at once.
const CHUNK: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_place_after_it_as_its_number_however_it_is_cut() {
        let bytes = b"one\n\ntwo\r\nthree";
        for cut in 0..bytes.len() {
            let mut cutter = Cutter::default();
            let mut heard = cutter.take(Frame::Said(100, bytes[..cut].to_vec()));
            heard.extend(cutter.take(Frame::Said(100 + cut as u64, bytes[cut..].to_vec())));
            heard.extend(cutter.take(Frame::Silent(115)));
            let line = |number, line: &str| Heard::Line {
                number,
                line: line.to_owned(),
            };
            assert_eq!(
                heard,
                [
                    line(104, "one"),
                    line(110, "two\r"),
                    line(115, "three"),
                    Heard::Silent { number: 115 }
                ],
                "cut at {cut}"
            );
        }
    }
}
