//! Down: an event stream (`text/event-stream`) with one frame per event, in base64.

use std::convert::Infallible;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use hyper::body::{Body, Frame};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use crate::http::detour::{Detour, Key, LEAVING_BYTES, Ramp};
use crate::http::{Reply, text};
use crate::lock::Lock as _;
use crate::peer;
use crate::state::State;

/// Opens a detour, whose handshake takes the place that `permit` stands for.
pub(crate) fn open(
    state: &Arc<State>,
    asked: &HeaderMap,
    permit: Option<OwnedSemaphorePermit>,
) -> Response<Reply> {
    // No picture or script of a page elsewhere asks for this, and no such page may ask by itself.
    let wanted = asked
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(EVENT_STREAM));
    if !wanted {
        return text(
            StatusCode::NOT_ACCEPTABLE,
            "this is an event stream; ask for text/event-stream\n",
        )
        .map(Reply::Once);
    }
    let (Some(permit), Ok(key)) = (permit, crate::fresh::<32>()) else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "too many wait already\n").map(Reply::Once);
    };
    let detour = Arc::new(Detour::new());
    state.detours.open.hold().insert(key, Arc::clone(&detour));
    let ramp = Ramp {
        state: Arc::clone(state),
        key,
        detour: Arc::clone(&detour),
    };
    state
        .tasks
        .clone()
        .spawn("peer", peer::serve(Arc::clone(state), ramp, permit));
    let mut response = Response::new(Reply::Down(Down::new(detour, &key)));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, EVENT_STREAM),
        (header::CACHE_CONTROL, "no-store, no-transform"),
        (header::CONNECTION, "close"),
        // What nginx wants to be told, and others that learned from it.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The body of an event stream that goes on for as long as the peer stays.
pub(crate) struct Down {
    detour: Arc<Detour>,
    /// What comes before any frame.
    opening: Option<Bytes>,
    /// Ends when nothing was sent for a while.
    quiet: Pin<Box<Sleep>>,
}

impl Down {
    fn new(detour: Arc<Detour>, key: &Key) -> Self {
        let key = URL_SAFE_NO_PAD.encode(key);
        // Some proxies pass nothing on before they have gathered a few kilobytes.
        let opening = format!(": {:.<PADDING_BYTES$}\n\nevent: open\ndata: {key}\n\n", "");
        Self {
            detour,
            opening: Some(opening.into()),
            quiet: Box::pin(tokio::time::sleep(QUIET)),
        }
    }

    /// What waits, as events; nothing when nothing does.
    fn gather(&self) -> Option<Bytes> {
        let mut inner = self.detour.inner.hold();
        if inner.leaving.is_empty() {
            return None;
        }
        let mut events = BytesMut::new();
        for frame in inner.leaving.drain(..) {
            events.put_slice(b"data: ");
            events.put_slice(STANDARD.encode(&frame).as_bytes());
            events.put_slice(b"\n\n");
        }
        inner.leaving_bytes = 0;
        inner.leaving.shrink_to(LEAVING_BYTES / 1024);
        drop(inner);
        self.detour.peer.wake();
        Some(events.freeze())
    }
}

impl Body for Down {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.detour.stream.register(cx.waker());
        let bytes = match self.opening.take().or_else(|| self.gather()) {
            Some(bytes) => bytes,
            None if self.detour.inner.hold().last => return Poll::Ready(None),
            None => {
                std::task::ready!(self.quiet.as_mut().poll(cx));
                Bytes::from_static(COMMENT)
            }
        };
        self.quiet.as_mut().reset(Instant::now() + QUIET);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl Drop for Down {
    fn drop(&mut self) {
        self.detour.end();
    }
}

const EVENT_STREAM: &str = "text/event-stream";
/// How long an event stream may be quiet before a comment shows what is in between that it lives.
const QUIET: Duration = Duration::from_secs(10);
const COMMENT: &[u8] = b":\n\n";
const PADDING_BYTES: usize = 2048;
