//! What a connection needs of whatever carries its frames.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use crate::wire::WireError;

/// Carries whole messages both ways: a WebSocket, or a detour by plain HTTP.
pub(crate) trait Socket: Send + 'static {
    /// Changes the longest message accepted.
    fn set_limit(&mut self, limit: usize);

    /// The next message, when there is one.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, WireError>>;

    /// Sends everything in `queue`. Ready when all of it is on its way.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut VecDeque<Bytes>,
    ) -> Poll<Result<(), WireError>>;

    /// Whether anything came since this was last asked, be it a part of a message.
    fn stirred(&mut self) -> bool;

    /// Sends a last message and closes, in bounded time.
    fn close(self, last: Option<Bytes>, patience: Duration) -> impl Future<Output = ()> + Send;

    /// The next message.
    fn recv(&mut self) -> impl Future<Output = Result<Bytes, WireError>> + Send {
        poll_fn(|cx| self.poll_recv(cx))
    }

    /// Sends one message.
    fn send(&mut self, message: Bytes) -> impl Future<Output = Result<(), WireError>> + Send {
        let mut queue = VecDeque::from([message]);
        poll_fn(move |cx| self.poll_send(cx, &mut queue))
    }
}
