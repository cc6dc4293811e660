//! The detour: a peer's connection by plain HTTP, where something in between lets no WebSocket
//! through. Frames go down an event stream that stays open, and come up in numbered requests, of
//! which each is acted on once however often it is sent.
//!
//! The key that ties the two together is fresh for each connection, is told in the event stream
//! alone, and ends with it. It opens nothing: who the peer is, it proves by the same handshake.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Buf as _, Bytes};
use farhelm_proto::limits;
use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, Semaphore};

use crate::lock::Lock as _;
use crate::state::State;
use crate::wire::{Socket, WireError};

mod down;
mod up;

pub(crate) use down::{Down, open};
pub(crate) use up::take;

/// What ties requests to their event stream.
type Key = [u8; 32];

/// The open detours.
#[derive(Default)]
pub(crate) struct Detours {
    open: Mutex<BTreeMap<Key, Arc<Detour>>>,
}

impl Detours {
    fn find(&self, key: &str) -> Option<Arc<Detour>> {
        let key: Key = URL_SAFE_NO_PAD.decode(key).ok()?.try_into().ok()?;
        self.open.hold().get(&key).cloned()
    }
}

/// What event stream, requests and the peer's task share.
struct Detour {
    inner: Mutex<Inner>,
    /// The task of the peer.
    peer: AtomicWaker,
    /// The task that writes the event stream.
    stream: AtomicWaker,
    /// Told when there is room for more requests.
    room: Notify,
    /// Requests that may be read at once.
    reading: Semaphore,
}

struct Inner {
    /// The number of the request that is awaited.
    next: u64,
    /// Rows of frames, as they came: however many frames those are, no more is held than was sent.
    arrived: VecDeque<Bytes>,
    arrived_bytes: usize,
    /// The longest message accepted.
    limit: usize,
    stirred: bool,
    /// Why nothing more comes.
    ended: Option<WireError>,
    leaving: VecDeque<Bytes>,
    leaving_bytes: usize,
    /// Whether the event stream ends once everything was sent.
    last: bool,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// It was acted on, now or before.
    Yes,
    /// It is not its turn.
    TooEarly,
    /// There is no room at present.
    NoRoom,
    /// It was refused, and the connection ends.
    Refused,
}

impl Detour {
    fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                next: 0,
                arrived: VecDeque::new(),
                arrived_bytes: 0,
                limit: limits::HELLO_FRAME_BYTES,
                stirred: false,
                ended: None,
                leaving: VecDeque::new(),
                leaving_bytes: 0,
                last: false,
            }),
            peer: AtomicWaker::new(),
            stream: AtomicWaker::new(),
            room: Notify::new(),
            reading: Semaphore::new(READING),
        }
    }

    /// Whether a request with this number was acted on before.
    fn knows(&self, number: u64) -> bool {
        number < self.inner.hold().next
    }

    /// Whether the peer has proved its key, and how much one of its requests may hold.
    fn allowance(&self) -> (bool, usize) {
        let limit = self.inner.hold().limit;
        (
            limit > limits::HELLO_FRAME_BYTES,
            limit + LENGTH_BYTES + limit / 16,
        )
    }

    fn stir(&self) {
        self.inner.hold().stirred = true;
        self.peer.wake();
    }

    /// Acts on a whole request, once.
    fn take(&self, number: u64, body: &Bytes) -> Taken {
        let mut inner = self.inner.hold();
        if number < inner.next {
            return Taken::Yes;
        }
        if number > inner.next {
            return Taken::TooEarly;
        }
        if inner.arrived_bytes > ARRIVED_BYTES {
            return Taken::NoRoom;
        }
        let taken = match check(body, inner.limit) {
            Ok(()) => {
                inner.next += 1;
                inner.arrived_bytes += body.len();
                inner.arrived.push_back(body.clone());
                Taken::Yes
            }
            Err(error) => {
                inner.ended.get_or_insert(error);
                Taken::Refused
            }
        };
        inner.stirred = true;
        drop(inner);
        self.peer.wake();
        taken
    }

    fn end(&self) {
        self.inner.hold().ended.get_or_insert(WireError::Ended);
        self.peer.wake();
        self.room.notify_waiters();
    }
}

/// Whether a request is a row of frames, each with its length in front, in four bytes.
pub(crate) fn check(body: &Bytes, limit: usize) -> Result<(), WireError> {
    let mut rest = body.clone();
    while rest.has_remaining() {
        next(&mut rest, limit)?;
    }
    Ok(())
}

/// Takes the next frame off a row.
pub(crate) fn next(row: &mut Bytes, limit: usize) -> Result<Bytes, WireError> {
    let length = row.try_get_u32().map_err(|_| WireError::Malformed)?;
    let length = usize::try_from(length).map_err(|_| WireError::TooLarge)?;
    if length > limit {
        return Err(WireError::TooLarge);
    }
    if length > row.remaining() {
        return Err(WireError::Malformed);
    }
    Ok(row.split_to(length))
}

/// The relay's end of a detour, as a connection's task holds it.
pub(crate) struct Ramp {
    state: Arc<State>,
    key: Key,
    detour: Arc<Detour>,
}

impl Socket for Ramp {
    fn set_limit(&mut self, limit: usize) {
        self.detour.inner.hold().limit = limit;
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, WireError>> {
        self.detour.peer.register(cx.waker());
        let mut inner = self.detour.inner.hold();
        let limit = inner.limit;
        if let Some(row) = inner.arrived.front_mut() {
            let before = row.len();
            let frame = next(row, limit)?;
            let taken = before - row.len();
            if row.is_empty() {
                inner.arrived.pop_front();
            }
            inner.arrived_bytes -= taken;
            let room = inner.arrived_bytes <= ARRIVED_BYTES;
            drop(inner);
            if room {
                self.detour.room.notify_waiters();
            }
            return Poll::Ready(Ok(frame));
        }
        match inner.ended {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Pending,
        }
    }

    /// Ready when all of it is in the event stream, which holds a little.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut VecDeque<Bytes>,
    ) -> Poll<Result<(), WireError>> {
        self.detour.peer.register(cx.waker());
        let mut inner = self.detour.inner.hold();
        if matches!(inner.ended, Some(WireError::Ended)) {
            return Poll::Ready(Err(WireError::Ended));
        }
        while inner.leaving_bytes < LEAVING_BYTES
            && let Some(frame) = queue.pop_front()
        {
            inner.leaving_bytes += frame.len();
            inner.leaving.push_back(frame);
        }
        drop(inner);
        self.detour.stream.wake();
        if queue.is_empty() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn stirred(&mut self) -> bool {
        std::mem::take(&mut self.detour.inner.hold().stirred)
    }

    async fn close(self, last: Option<Bytes>, patience: Duration) {
        {
            let mut inner = self.detour.inner.hold();
            inner.leaving.extend(last);
            inner.last = true;
        }
        self.detour.stream.wake();
        let sent = std::future::poll_fn(|cx| {
            self.detour.peer.register(cx.waker());
            let inner = self.detour.inner.hold();
            let gone = matches!(inner.ended, Some(WireError::Ended));
            if gone || inner.leaving.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        if tokio::time::timeout(patience, sent).await.is_err() {
            tracing::debug!("a peer did not close in time");
        }
    }
}

impl Drop for Ramp {
    fn drop(&mut self) {
        self.state.detours.open.hold().remove(&self.key);
        self.detour.inner.hold().last = true;
        self.detour.stream.wake();
        self.detour.end();
    }
}

const LENGTH_BYTES: usize = 4;
/// What may wait for the peer's task before requests have to wait.
const ARRIVED_BYTES: usize = 128 * 1024;
/// What an event stream holds that its socket has not taken.
const LEAVING_BYTES: usize = 32 * 1024;
/// Requests of one peer that are read at once: one, and the same once more.
const READING: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_acted_on_once_and_in_its_turn() {
        let detour = Detour::new();
        let body = |text: &'static [u8]| {
            let length = u32::try_from(text.len()).unwrap().to_be_bytes();
            Bytes::from([&length[..], text].concat())
        };
        assert_eq!(detour.take(1, &body(b"two")), Taken::TooEarly);
        assert_eq!(detour.take(0, &body(b"one")), Taken::Yes);
        assert_eq!(detour.take(0, &body(b"one")), Taken::Yes);
        assert_eq!(detour.take(1, &body(b"two")), Taken::Yes);
        assert!(detour.knows(1) && !detour.knows(2));
        let arrived: Vec<_> = detour.inner.hold().arrived.iter().cloned().collect();
        assert_eq!(arrived, [&b"\0\0\0\x03one"[..], b"\0\0\0\x03two"]);
    }

    #[test]
    fn s12_lengths_that_lie_are_refused() {
        let refused = |bytes: &'static [u8]| check(&Bytes::from_static(bytes), 100);
        assert!(matches!(refused(&[0, 0, 0]), Err(WireError::Malformed)));
        assert!(matches!(
            refused(&[0, 0, 0, 2, 1]),
            Err(WireError::Malformed)
        ));
        assert!(matches!(
            refused(&[0xff, 0xff, 0xff, 0xff, 1]),
            Err(WireError::TooLarge)
        ));
        let mut row = Bytes::from_static(&[0, 0, 0, 1, 7, 0, 0, 0, 0]);
        assert!(check(&row, 100).is_ok());
        assert_eq!(next(&mut row, 100).unwrap(), &[7][..]);
        assert_eq!(next(&mut row, 100).unwrap(), &[][..]);
        assert!(row.is_empty());
    }

    #[test]
    fn s12_frames_of_nothing_take_room_too() {
        let detour = Detour::new();
        detour.inner.hold().limit = limits::FRAME_BYTES;
        let empty = Bytes::from(vec![0; ARRIVED_BYTES + LENGTH_BYTES]);
        assert_eq!(detour.take(0, &empty), Taken::Yes);
        assert_eq!(detour.inner.hold().arrived.len(), 1);
        assert_eq!(detour.take(1, &empty), Taken::NoRoom);
    }

    #[test]
    fn s12_requests_wait_while_too_much_waits() {
        let detour = Detour::new();
        detour.inner.hold().limit = limits::FRAME_BYTES;
        let length = u32::try_from(ARRIVED_BYTES + 1).unwrap().to_be_bytes();
        let body = Bytes::from([&length[..], &vec![0; ARRIVED_BYTES + 1]].concat());
        assert_eq!(detour.take(0, &body), Taken::Yes);
        assert_eq!(detour.take(1, &body), Taken::NoRoom);
    }
}
