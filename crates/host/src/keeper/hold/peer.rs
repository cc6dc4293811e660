//! Whoever is at the other end of a keeper's socket.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::keeper::wire::{Challenge, Frame, Frames};

/// A connection, and how far it is let in.
pub(super) struct Peer {
    stream: UnixStream,
    frames: Frames,
    out: Vec<u8>,
    pub(super) state: State,
}

/// How far a peer is let in.
pub(super) enum State {
    /// It has to prove itself by then.
    Knocking(Box<Challenge>, Instant),
    /// It is the daemon.
    Attached(Progress),
    /// It gets what is left to be sent, and no more is heard of it.
    Leaving,
    /// It is gone.
    Gone,
}

/// What an attached daemon has been told.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The place of the next byte; nothing until it wants to hear.
    pub(super) sent: Option<u64>,
    pub(super) silent: bool,
    pub(super) written: u64,
    pub(super) ended: bool,
}

impl Peer {
    /// Greets whoever has connected.
    pub(super) fn new(stream: UnixStream, challenge: Challenge) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let mut peer = Self {
            stream,
            frames: Frames::default(),
            out: Vec::new(),
            state: State::Knocking(Box::new(challenge.clone()), Instant::now() + KNOCKING),
        };
        peer.say(&Frame::Challenge(challenge));
        Ok(peer)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    pub(super) const fn wants_to_write(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether it has room for bulk.
    pub(super) const fn has_room(&self) -> bool {
        self.out.len() < ROOM
    }

    pub(super) fn say(&mut self, frame: &Frame) {
        self.out.extend_from_slice(&frame.to_bytes());
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.state = State::Gone;
                    return;
                }
            }
        }
        if let State::Leaving = self.state {
            self.state = State::Gone;
        }
    }

    /// Reads once; what has come whole is to be taken with [`Peer::next`].
    pub(super) fn read(&mut self, buffer: &mut [u8]) {
        match self.stream.read(buffer) {
            Ok(0) => self.state = State::Gone,
            Ok(count) => self.frames.push(&buffer[..count]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.state = State::Gone,
        }
    }

    /// The next frame; what is none ends the connection.
    pub(super) fn next(&mut self) -> Option<Frame> {
        match self.frames.next() {
            Ok(frame) => frame,
            Err(_) => {
                self.state = State::Gone;
                None
            }
        }
    }
}

/// How long a peer may take to prove itself.
const KNOCKING: Duration = Duration::from_secs(5);
/// Bytes that wait for a peer before no more of the agent's are put there.
const ROOM: usize = 128 << 10;
