//! Up: requests with a number and some frames each.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use hyper::body::{Body as _, Incoming};

use crate::http::detour::{Detour, Taken};
use crate::http::{Once, Refused, text};
use crate::state::State;

/// A request that belongs to an open detour, before its body was read.
pub(crate) struct Up {
    detour: Arc<Detour>,
    number: u64,
    /// Whether it is from a peer that proved its key.
    pub(crate) proven: bool,
    limit: usize,
}

/// Finds out whether a request belongs anywhere, from its head alone.
pub(crate) fn take(state: &State, headers: &HeaderMap) -> Result<Up, Refused> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let detour = header(KEY)
        .and_then(|key| state.detours.find(key))
        .ok_or((StatusCode::NOT_FOUND, "no such connection\n"))?;
    let number = header(NUMBER)
        .and_then(|number| number.parse().ok())
        .ok_or((StatusCode::BAD_REQUEST, "the request has no number\n"))?;
    let (proven, limit) = detour.allowance();
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE));
    }
    Ok(Up {
        detour,
        number,
        proven,
        limit,
    })
}

impl Up {
    /// Reads the body and acts on it, unless that was done before.
    pub(crate) async fn run(self, body: &mut Incoming, patience: Duration) -> Response<Once> {
        if self.detour.knows(self.number) {
            return taken();
        }
        let Ok(_reading) = self.detour.reading.try_acquire() else {
            return text(StatusCode::TOO_MANY_REQUESTS, "one after the other\n");
        };
        let body = match self.read(body, patience).await {
            Ok(body) => body,
            Err((status, why)) => return text(status, why),
        };
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let room = self.detour.room.notified();
            match self.detour.take(self.number, &body) {
                Taken::Yes => return taken(),
                Taken::TooEarly => {
                    return text(StatusCode::CONFLICT, "an earlier request is missing\n");
                }
                Taken::Refused => return text(StatusCode::BAD_REQUEST, "not a row of frames\n"),
                Taken::NoRoom => {}
            }
            if tokio::time::timeout_at(deadline, room).await.is_err() {
                let mut later = text(StatusCode::SERVICE_UNAVAILABLE, "no room; come again\n");
                later
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                return later;
            }
        }
    }

    /// Reads the body; it may take its time for as long as something comes, once the peer has
    /// proved its key.
    async fn read(&self, body: &mut Incoming, patience: Duration) -> Result<Bytes, Refused> {
        let mut read = BytesMut::new();
        let begun = tokio::time::Instant::now();
        loop {
            let deadline = if self.proven {
                tokio::time::Instant::now() + patience
            } else {
                begun + patience
            };
            let next = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx));
            let frame = match tokio::time::timeout_at(deadline, next).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => return Ok(read.freeze()),
                Ok(Some(Err(_))) => {
                    return Err((StatusCode::BAD_REQUEST, "the request broke off\n"));
                }
                Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "too slow\n")),
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if read.len() + data.len() > self.limit {
                return Err((StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE));
            }
            read.extend_from_slice(&data);
            self.detour.stir();
        }
    }
}

fn taken() -> Response<Once> {
    let mut response = Response::new(Once::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

const KEY: &str = "farhelm-key";
const NUMBER: &str = "farhelm-number";
const TOO_LARGE: &str = "the request is larger than it may be\n";
