//! One WebSocket (RFC 6455, server side) over any byte stream, written for many idle sockets.
//!
//! A socket that waits owns no buffer at all: reads go through a buffer of the thread, and what
//! is left of a message afterwards is kept exactly. Outgoing frames are gathered in another such
//! buffer and written at once. No extension is negotiated: payloads are sealed, so compressing
//! them is useless, and compressing beside secrets is harmful.
//!
//! It knows nothing of frames of the protocol, only of binary messages.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::wire::codec::{Head, Opcode};
pub(crate) use crate::wire::socket::Socket;

mod codec;
mod socket;

/// A byte stream that carries one peer.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static> Pipe for T {}

/// Why nothing more comes from a socket.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The other side closed, or the connection broke.
    #[error("the connection ended")]
    Ended,
    /// A message is larger than allowed now.
    #[error("a message is too large")]
    TooLarge,
    /// Something that is not a binary message in a well-formed WebSocket.
    #[error("not a binary message")]
    Malformed,
}

impl From<io::Error> for WireError {
    fn from(_: io::Error) -> Self {
        Self::Ended
    }
}

/// The server's end of a WebSocket.
pub(crate) struct Wire<S> {
    io: S,
    /// Bytes read, not yet a whole message.
    input: BytesMut,
    /// The payload so far of a message that comes in several pieces.
    pieces: Option<BytesMut>,
    /// The longest message accepted.
    limit: usize,
    /// Bytes that the socket did not take yet.
    rest: Bytes,
    /// The payload that follows `rest` when it was too long to be gathered.
    payload: Bytes,
    /// Pongs to send.
    pongs: Vec<Bytes>,
    /// Whether something was written and not flushed.
    dirty: bool,
    /// Whether anything was read since somebody asked.
    stirred: bool,
}

impl<S: Pipe> Wire<S> {
    /// A socket whose upgrade is done; `read` was already read behind it.
    pub(crate) fn new(io: S, read: &[u8], limit: usize) -> Self {
        Self {
            io,
            input: read.into(),
            pieces: None,
            limit,
            rest: Bytes::new(),
            payload: Bytes::new(),
            pongs: Vec::new(),
            dirty: false,
            stirred: false,
        }
    }

    /// Writes as many frames as fit the thread's buffer, in one call to the socket.
    fn poll_gathered(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut VecDeque<Bytes>,
    ) -> Poll<Result<(), WireError>> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            for pong in self.pongs.drain(..) {
                codec::write_head(scratch, Opcode::Pong, pong.len());
                scratch.extend_from_slice(&pong);
            }
            while let Some(front) = queue.front() {
                let fits = scratch.len() + front.len() + codec::HEAD_BYTES <= GATHER_BYTES;
                if !fits && !scratch.is_empty() {
                    break;
                }
                let Some(front) = queue.pop_front() else {
                    break;
                };
                codec::write_head(scratch, Opcode::Binary, front.len());
                if fits {
                    scratch.extend_from_slice(&front);
                } else {
                    self.payload = front;
                    break;
                }
            }
            match Pin::new(&mut self.io).poll_write(cx, scratch)? {
                Poll::Ready(0) => return Poll::Ready(Err(WireError::Ended)),
                Poll::Ready(written) => {
                    self.dirty = true;
                    if written < scratch.len() {
                        self.rest = Bytes::copy_from_slice(&scratch[written..]);
                    }
                }
                Poll::Pending => {
                    self.rest = Bytes::copy_from_slice(scratch);
                    return Poll::Pending;
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Reads once from the socket.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        let missing = self.missing();
        let read = if missing > READ_BYTES {
            self.input.reserve(missing);
            ready!(pin!(self.io.read_buf(&mut self.input)).poll(cx))?
        } else {
            ready!(ARRIVED.with_borrow_mut(|arrived| {
                let mut buffer = ReadBuf::new(arrived);
                ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
                self.input.extend_from_slice(buffer.filled());
                Poll::Ready(Ok::<usize, io::Error>(buffer.filled().len()))
            }))?
        };
        self.stirred |= read > 0;
        Poll::Ready(if read == 0 {
            Err(WireError::Ended)
        } else {
            Ok(())
        })
    }

    /// How many bytes the message being read still lacks, as far as its head says.
    fn missing(&self) -> usize {
        match Head::read(&self.input) {
            Ok(Some(head)) => (head.bytes + head.length).saturating_sub(self.input.len()),
            Ok(None) | Err(_) => 0,
        }
    }

    /// Takes the next whole message out of what was read.
    fn decode(&mut self) -> Result<Option<Bytes>, WireError> {
        while let Some(head) = Head::read(&self.input)? {
            let before = self.pieces.as_ref().map_or(0, BytesMut::len);
            if head.length > self.limit.saturating_sub(before) {
                return Err(WireError::TooLarge);
            }
            if self.input.len() < head.bytes + head.length {
                return Ok(None);
            }
            self.input.advance(head.bytes);
            let mut payload = self.input.split_to(head.length);
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
            codec::unmask(&mut payload, head.mask);
            match (head.opcode, self.pieces.take()) {
                (Opcode::Binary, None) if head.last => return Ok(Some(payload.freeze())),
                (Opcode::Binary, None) => self.pieces = Some(payload),
                (Opcode::Continuation, Some(mut pieces)) => {
                    pieces.extend_from_slice(&payload);
                    if head.last {
                        return Ok(Some(pieces.freeze()));
                    }
                    self.pieces = Some(pieces);
                }
                (Opcode::Ping, pieces) => {
                    self.pieces = pieces;
                    if self.pongs.len() < PONGS {
                        self.pongs.push(payload.freeze());
                    }
                }
                (Opcode::Pong, pieces) => self.pieces = pieces,
                (Opcode::Close, _) => return Err(WireError::Ended),
                (Opcode::Binary | Opcode::Text, _) | (Opcode::Continuation, None) => {
                    return Err(WireError::Malformed);
                }
            }
        }
        Ok(None)
    }
}

impl<S: Pipe> Socket for Wire<S> {
    fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, WireError>> {
        loop {
            match self.decode()? {
                Some(message) => return Poll::Ready(Ok(message)),
                None => ready!(self.poll_fill(cx))?,
            }
        }
    }

    /// Ready when the socket took all of it, and it was flushed.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut VecDeque<Bytes>,
    ) -> Poll<Result<(), WireError>> {
        loop {
            while self.rest.has_remaining() {
                let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.rest))?;
                if written == 0 {
                    return Poll::Ready(Err(WireError::Ended));
                }
                self.rest.advance(written);
                self.dirty = true;
            }
            if self.payload.has_remaining() {
                self.rest = std::mem::take(&mut self.payload);
                continue;
            }
            if queue.is_empty() && self.pongs.is_empty() {
                break;
            }
            ready!(self.poll_gathered(cx, queue))?;
        }
        self.rest = Bytes::new();
        if self.dirty {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    fn stirred(&mut self) -> bool {
        std::mem::take(&mut self.stirred)
    }

    /// Without a reset that could overtake the message: what the other side still sends is read
    /// and dropped for a moment.
    async fn close(mut self, last: Option<Bytes>, patience: Duration) {
        let farewell = async {
            if let Some(last) = last {
                self.send(last).await?;
            }
            self.io.write_all(&codec::CLOSE).await?;
            self.io.flush().await?;
            self.io.shutdown().await?;
            let mut sink = [0; 1024];
            let mut left = DRAIN_BYTES;
            while left > 0 {
                match self.io.read(&mut sink).await? {
                    0 => break,
                    read => left = left.saturating_sub(read),
                }
            }
            Ok::<(), WireError>(())
        };
        if tokio::time::timeout(patience, farewell).await.is_err() {
            tracing::debug!("a peer did not close in time");
        }
    }
}

/// What one call to the socket reads, unless a long message is under way.
const READ_BYTES: usize = 16 * 1024;
/// Frames are gathered up to this size into one call to the socket.
const GATHER_BYTES: usize = 32 * 1024;
/// Pings of one burst that are answered.
const PONGS: usize = 4;
/// What is read and dropped at most from a peer that was told to go.
const DRAIN_BYTES: usize = 8 * 1024 * 1024;

thread_local! {
    /// Where outgoing frames are gathered; shared by all sockets of a thread.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Where a socket is read into; shared by all sockets of a thread.
    static ARRIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

#[cfg(test)]
mod tests;
