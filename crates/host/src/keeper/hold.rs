//! Being a keeper: one thread that waits on the agent's pipes and on a socket. It answers nothing
//! by itself and knows no dialect; it numbers, keeps, passes on, and says how the program ended.
//!
//! Whoever connects must be of the same user and sign with the key of the state folder, and be of
//! no earlier generation than the last one that did.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use farhelm_proto::Code;
use farhelm_proto::sign::{Domain, VerifyingKey};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::{Deserialize, Serialize};

use self::peer::{Peer, Progress, State};
use self::program::Program;
use super::folder::{Folder, Lock, Note};
use super::raw::Raw;
use super::tape::Tape;
use super::wire::{Challenge, Frame, Prove, Refusal, VERSION, proof};
use super::{Standing, Start};
use crate::agents::AgentError;

mod peer;
mod program;

/// What a keeper is started with, on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The state folder.
    pub home: PathBuf,
    /// The generation of the daemon that starts it.
    pub generation: u64,
    /// The public key by which daemons prove themselves.
    pub key: [u8; 32],
    /// What to run.
    pub start: Start,
}

/// What a keeper says on its standard output before it turns away from it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ready {
    /// The program runs.
    Up,
    /// It does not.
    Failed(Code, String),
}

/// Is a keeper, until its agent has ended and somebody has taken note of that.
pub fn run(spec: Spec, ready: impl FnOnce(Result<(), AgentError>)) {
    match Keeper::start(spec) {
        Ok(keeper) => {
            ready(Ok(()));
            fail::point("keeper.after_ready");
            keeper.run();
        }
        Err(error) => ready(Err(error)),
    }
}

/// Is the keeper that its standard input describes: the hidden command `farhelm keeper`.
///
/// # Errors
///
/// When there is no description.
pub fn main() -> io::Result<()> {
    let spec: Spec = serde_json::from_reader(io::stdin().lock())?;
    // A session of its own: the daemon's terminal and signals are not its, and what its agent
    // starts can be told from everything else.
    let _apart = rustix::process::setsid().is_ok();
    drop(std::env::set_current_dir("/"));
    run(spec, |result| {
        let ready = result.map_or_else(
            |error| Ready::Failed(error.code, error.text),
            |()| Ready::Up,
        );
        drop(serde_json::to_writer(io::stdout().lock(), &ready));
        drop(io::stdout().write_all(b"\n"));
        drop(io::stdout().flush());
        turn_away();
    });
    Ok(())
}

/// Holds on to none of the pipes of whoever has started it.
fn turn_away() {
    let nothing = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null");
    if let Ok(nothing) = nothing {
        rustix::stdio::dup2_stdin(&nothing).unwrap_or_default();
        rustix::stdio::dup2_stdout(&nothing).unwrap_or_default();
    }
}

struct Keeper {
    start: Start,
    generation: u64,
    key: VerifyingKey,
    folder: Folder,
    listener: UnixListener,
    program: Program,
    tape: Tape,
    raw: Raw,
    peers: Vec<Peer>,
    /// When it is looked whether the state folder is still there.
    sweep: Instant,
    is_over: bool,
    _lock: Lock,
}

/// What is ready to be done.
#[derive(Default)]
struct Ripe {
    knock: bool,
    stdout: bool,
    stderr: bool,
    peers: Vec<bool>,
}

impl Keeper {
    fn start(spec: Spec) -> Result<Self, AgentError> {
        let failed = |error: io::Error| {
            let text = format!("the agent's keeper cannot be started: {error}");
            AgentError::new(Code::StateUnusable, text)
        };
        let key = VerifyingKey::from_bytes(&spec.key)
            .map_err(|_| AgentError::new(Code::Internal, "the keeper has no key"))?;
        let folder = Folder::of(&spec.home, spec.start.session);
        folder.make().map_err(failed)?;
        let lock = folder.lock().map_err(failed)?.ok_or_else(|| {
            let text = "the session's last agent has not gone yet; try again";
            AgentError::new(Code::NotNow, text)
        })?;
        fail::point("keeper.before_note");
        let name: [u8; 4] = farhelm_world::random();
        let note = Note::of_this_process(farhelm_core::text::hex(&name));
        folder.write(&note).map_err(failed)?;
        fail::point("keeper.before_spawn");
        let started = listen(&folder, &note)
            .map_err(failed)
            .and_then(|listener| Ok((listener, Program::start(&spec.start)?)));
        let (listener, program) = started.inspect_err(|_| folder.clear())?;
        fail::point("keeper.after_spawn");
        Ok(Self {
            tape: Tape::new(folder.path()),
            raw: Raw::open(&spec.home, spec.start.session),
            start: Start {
                // What the program has got is nobody else's business.
                env: Vec::new(),
                args: Vec::new(),
                ..spec.start
            },
            generation: spec.generation,
            key,
            folder,
            listener,
            program,
            peers: Vec::new(),
            sweep: Instant::now() + SWEEP,
            is_over: false,
            _lock: lock,
        })
    }

    fn run(mut self) {
        let mut buffer = vec![0; CHUNK];
        while !self.is_over {
            self.tell();
            let ripe = self.wait();
            if ripe.stdout {
                self.take_said(&mut buffer);
            }
            if ripe.stderr {
                self.program.read_stderr(&mut buffer);
            }
            self.program.flush();
            self.program.look(self.may_read() && !ripe.stdout);
            self.take_frames(&ripe, &mut buffer);
            if ripe.knock {
                self.let_knock();
            }
            self.tidy();
        }
        fail::point("keeper.before_gone");
        // The last daemon may want to know that it is really over.
        self.peers.clear();
        self.folder.clear();
    }

    /// Tells the daemon what it has not been told.
    fn tell(&mut self) {
        let (end, written) = (self.tape.end(), self.program.written());
        for peer in &mut self.peers {
            // As long as the socket takes all of it: nothing else would wake us for the rest.
            while tell_one(peer, &self.tape, &self.program, end, written) {
                peer.flush();
                if peer.wants_to_write() {
                    break;
                }
            }
            peer.flush();
        }
    }

    /// Whether more of the agent is to be read: not while the daemon is slow, nor beyond all
    /// bounds while there is none, nor when the disk is full.
    fn may_read(&self) -> bool {
        let heard = self.peers.iter().find_map(|peer| match &peer.state {
            State::Attached(progress) => progress.sent,
            State::Knocking(..) | State::Leaving | State::Gone => None,
        });
        let (from, most) = heard.map_or((self.tape.begin(), KEPT), |sent| (sent, UNSENT));
        !self.tape.is_full() && self.tape.end() - from < most
    }

    fn wait(&self) -> Ripe {
        let timeout = self
            .deadline()
            .map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            // A little later rather than once more for nothing.
            tv_nsec: i64::from(left.subsec_nanos()) + 1,
        });
        let stdout = self.program.stdout().filter(|_| self.may_read());
        let pipes = [
            Some((self.listener.as_fd(), PollFlags::IN)),
            stdout.map(|fd| (fd, PollFlags::IN)),
            self.program.stderr().map(|fd| (fd, PollFlags::IN)),
            self.program.stdin().map(|fd| (fd, PollFlags::OUT)),
            self.program.watch().map(|fd| (fd, PollFlags::IN)),
        ];
        let peers = self.peers.iter().map(|peer| {
            let more = if peer.wants_to_write() {
                PollFlags::OUT
            } else {
                PollFlags::empty()
            };
            Some((peer.fd(), PollFlags::IN | more))
        });
        let wanted: Vec<_> = pipes.into_iter().chain(peers).collect();
        let mut fds: Vec<_> = wanted
            .iter()
            .flatten()
            .map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags))
            .collect();
        // An interrupted wait is as good as one that is over.
        rustix::event::poll(&mut fds, timeout.as_ref()).unwrap_or_default();
        let mut found = fds.iter().map(PollFd::revents);
        let mut next = wanted.iter().map(|want| match want {
            Some(_) => found.next().unwrap_or(PollFlags::empty()),
            None => PollFlags::empty(),
        });
        let mut any = || !next.next().unwrap_or(PollFlags::empty()).is_empty();
        let (knock, stdout, stderr) = (any(), any(), any());
        let (_stdin, _watch) = (any(), any());
        let peers = next
            .map(|flags| !(flags - PollFlags::OUT).is_empty())
            .collect();
        Ripe {
            knock,
            stdout,
            stderr,
            peers,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let knocking = self.peers.iter().filter_map(|peer| match &peer.state {
            State::Knocking(_, until) => Some(*until),
            State::Attached(_) | State::Leaving | State::Gone => None,
        });
        let sweep = (self.is_alone() || self.tape.is_full()).then_some(self.sweep);
        knocking.chain(self.program.deadline()).chain(sweep).min()
    }

    fn is_alone(&self) -> bool {
        !self
            .peers
            .iter()
            .any(|peer| matches!(peer.state, State::Attached(_)))
    }

    fn take_said(&mut self, buffer: &mut [u8]) {
        let Some(count) = self.program.read(buffer) else {
            return;
        };
        fail::point("keeper.said");
        self.raw.said(&buffer[..count]);
        // What does not fit on the disk is in memory, and the agent waits when that is full.
        drop(self.tape.push(&buffer[..count]));
        fail::point("keeper.kept");
    }

    fn take_frames(&mut self, ripe: &Ripe, buffer: &mut [u8]) {
        for at in 0..self.peers.len() {
            if ripe.peers.get(at).is_some_and(|readable| *readable) {
                self.peers[at].read(buffer);
            }
            while let Some(frame) = self.peers[at].next() {
                self.take_frame(at, frame);
            }
        }
    }

    fn take_frame(&mut self, at: usize, frame: Frame) {
        let is_attached = matches!(self.peers[at].state, State::Attached(_));
        match frame {
            Frame::Prove(prove) if !is_attached => self.prove(at, &prove),
            Frame::Hear(place) if is_attached => self.hear(at, place),
            Frame::Write(number, line) if is_attached => self.write(at, number, &line),
            Frame::Acknowledge(place) if is_attached => self.acknowledge(place),
            Frame::End { at_once } if is_attached => {
                fail::point("keeper.asked_to_end");
                self.program.finish(at_once);
            }
            // Nothing else is a daemon's to say.
            Frame::Prove(_)
            | Frame::Hear(_)
            | Frame::Write(..)
            | Frame::Acknowledge(_)
            | Frame::End { .. }
            | Frame::Challenge(_)
            | Frame::Attached(_)
            | Frame::Refused(_)
            | Frame::Said(..)
            | Frame::Silent(_)
            | Frame::Written(_)
            | Frame::Ended(..)
            | Frame::Superseded => self.peers[at].state = State::Gone,
        }
    }

    fn prove(&mut self, at: usize, prove: &Prove) {
        let State::Knocking(challenge, _) = &self.peers[at].state else {
            return;
        };
        let signed = <[u8; 64]>::try_from(prove.signature.as_slice()).is_ok_and(|signature| {
            let message = proof(challenge, prove.generation);
            let verified = self.key.verify(Domain::KEEPER, &message, &signature);
            verified.is_ok()
        });
        let refusal = if !signed {
            Some(Refusal::BadProof)
        } else if prove.version != VERSION || fail::error("keeper.version").is_err() {
            Some(Refusal::Version)
        } else {
            (prove.generation < self.generation).then_some(Refusal::Superseded)
        };
        if let Some(refusal) = refusal {
            self.peers[at].say(&Frame::Refused(refusal));
            self.peers[at].state = State::Leaving;
            return;
        }
        self.generation = prove.generation;
        for peer in &mut self.peers {
            if let State::Attached(_) = peer.state {
                peer.say(&Frame::Superseded);
                peer.state = State::Leaving;
            }
        }
        fail::point("keeper.before_attached");
        let standing = self.standing();
        self.peers[at].state = State::Attached(Progress {
            written: standing.written,
            ..Progress::default()
        });
        self.peers[at].say(&Frame::Attached(standing));
    }

    fn standing(&self) -> Standing {
        Standing {
            run: self.start.run.clone(),
            note: self.start.note.clone(),
            acknowledged: self.tape.begin(),
            accepted: self.program.accepted(),
            written: self.program.written(),
            pid: self.program.pid(),
        }
    }

    fn hear(&mut self, at: usize, place: u64) {
        let place = place.clamp(self.tape.begin(), self.tape.end());
        if let State::Attached(progress) = &mut self.peers[at].state {
            progress.sent = Some(place);
        }
    }

    fn write(&mut self, at: usize, number: u64, line: &[u8]) {
        fail::point("keeper.before_write");
        if number > self.program.accepted() {
            self.raw.told(line);
        }
        if !self.program.write(number, line) {
            self.peers[at].state = State::Gone;
        }
        fail::point("keeper.after_write");
    }

    fn acknowledge(&mut self, place: u64) {
        fail::point("keeper.acknowledged");
        if self.program.end().is_some() && place > self.tape.end() {
            self.is_over = true;
        }
        self.tape.forget(place);
    }

    fn let_knock(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else {
            return;
        };
        if !is_ours(&stream) || self.peers.len() >= PEERS {
            return;
        }
        let challenge = Challenge {
            version: VERSION,
            session: self.start.session,
            nonce: farhelm_world::random(),
        };
        self.peers.extend(Peer::new(stream, challenge).ok());
    }

    fn tidy(&mut self) {
        let now = Instant::now();
        self.peers.retain(|peer| match &peer.state {
            State::Knocking(_, until) => now < *until,
            State::Attached(_) | State::Leaving => true,
            State::Gone => false,
        });
        if now < self.sweep {
            return;
        }
        self.sweep = now + SWEEP;
        if self.tape.is_full() {
            // There may be room by now.
            drop(self.tape.push(&[]));
        }
        if self.is_alone() && !self.folder.path().exists() {
            // Nobody will ever come back to it.
            self.program.finish(false);
            self.is_over = self.program.end().is_some();
        }
    }
}

/// Tells one peer what it has not been told, as far as it has room; whether there is more.
fn tell_one(peer: &mut Peer, tape: &Tape, program: &Program, end: u64, written: u64) -> bool {
    loop {
        let has_room = peer.has_room();
        let State::Attached(progress) = &mut peer.state else {
            return false;
        };
        let Some(sent) = progress.sent else {
            return false;
        };
        let frame = if progress.written < written {
            progress.written = written;
            Frame::Written(written)
        } else if sent < end && !has_room {
            return true;
        } else if sent < end {
            let Ok(bytes) = tape.read(sent, CHUNK) else {
                peer.state = State::Gone;
                return false;
            };
            progress.sent = Some(sent + bytes.len() as u64);
            fail::point("keeper.before_said");
            Frame::Said(sent, bytes)
        } else if program.is_silent() && !progress.silent {
            progress.silent = true;
            Frame::Silent(end)
        } else if let Some(how) = program.end().filter(|_| progress.silent && !progress.ended) {
            progress.ended = true;
            fail::point("keeper.before_ended");
            Frame::Ended(end + 1, how.clone())
        } else {
            return false;
        };
        peer.say(&frame);
    }
}

fn listen(folder: &Folder, note: &Note) -> io::Result<UnixListener> {
    let path = folder.socket(note);
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether whoever has connected is the same user; the socket's mode says so where the system does not.
#[cfg(target_os = "linux")]
fn is_ours(stream: &std::os::unix::net::UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

#[cfg(not(target_os = "linux"))]
fn is_ours(_: &std::os::unix::net::UnixStream) -> bool {
    true
}

/// How much is read at once.
const CHUNK: usize = 64 << 10;
/// Bytes that may wait to be sent to a daemon before its agent is not read any more.
const UNSENT: u64 = 1 << 20;
/// Bytes that are kept for a daemon that is away, before the agent has to wait.
const KEPT: u64 = 1 << 30;
/// Connections at once.
const PEERS: usize = 8;
/// How often it is looked whether the state folder is still there, and whether it has room.
const SWEEP: Duration = Duration::from_secs(5);
