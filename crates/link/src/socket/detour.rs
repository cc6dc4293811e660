//! The detour: frames by plain HTTP where no WebSocket gets through. They come in an event stream
//! that stays open, and go in numbered requests, one after the other, each again until it was
//! answered.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use farhelm_proto::limits::FRAME_BYTES;
use futures_util::{SinkExt as _, future, stream};
use http::{Request, StatusCode, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;
use tokio_util::task::AbortOnDropHandle;

use crate::socket::answers::not_a_relay;
use crate::socket::events::{Event, Events};
use crate::socket::{Broken, Life, Pipe, Route, Socket, Target, Trust, Unreachable, Way, reach};

/// Asks for an event stream on `pipe`; requests take connections of their own.
pub(super) async fn open(
    target: &Target,
    trust: Trust,
    pipe: Box<dyn Pipe>,
    life: Arc<Life>,
    route: Option<Route>,
) -> Result<Socket, Unreachable> {
    let authority = &target.authority;
    let broke = |error: io::Error| {
        let detail =
            format!("the connection to {authority} broke before the relay answered: {error}");
        Unreachable::answered(farhelm_proto::Code::RelayUnreachable, detail)
    };
    let mut line = Line::on(pipe).await.map_err(broke)?;
    let ask = Request::get(DOWN)
        .header(header::HOST, authority)
        .header(header::ACCEPT, EVENT_STREAM)
        .body(Whole::default())
        .map_err(|error| Unreachable::because(error.to_string()))?;
    let answer = line.ask(ask).await.map_err(broke)?;
    let (head, body) = answer.into_parts();
    let is_stream = head
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(EVENT_STREAM.as_bytes()));
    if head.status != StatusCode::OK || !is_stream {
        return Err(not_a_relay(target, head.status, &head.headers));
    }
    let mut down = Down {
        body,
        events: Events::default(),
        ready: VecDeque::new(),
        _line: line,
    };
    let opened = down
        .next_event()
        .await
        .map_err(|broken| broke(io::Error::other(format!("{broken:?}"))))?;
    if opened.name != "open" {
        return Err(not_a_relay(target, head.status, &head.headers));
    }
    let (frames, outgoing) = mpsc::channel(QUEUE);
    let up = Up {
        target: target.clone(),
        trust,
        key: opened.data,
        number: 0,
        line: None,
    };
    let posting = AbortOnDropHandle::new(farhelm_world::spawn(up.run(outgoing)));
    let sink = PollSender::new(frames).sink_map_err(|_| Broken::Off(NOT_TAKEN.to_owned()));
    let incoming = stream::unfold((down, posting), |(mut down, posting)| async {
        let frame = down.next_frame().await;
        Some((frame, (down, posting)))
    });
    Ok(Socket {
        sink: Box::pin(sink),
        frames: Box::pin(incoming),
        way: Way::Http,
        life,
        route,
    })
}

/// An HTTP connection.
struct Line {
    requests: SendRequest<Whole>,
    _driven: AbortOnDropHandle<()>,
}

impl Line {
    async fn on(pipe: Box<dyn Pipe>) -> io::Result<Self> {
        let (requests, driver) = http1::handshake(TokioIo::new(pipe))
            .await
            .map_err(io::Error::other)?;
        let driving = async {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "a connection to the relay broke");
            }
        };
        Ok(Self {
            requests,
            _driven: AbortOnDropHandle::new(farhelm_world::spawn(driving)),
        })
    }

    async fn ask(&mut self, request: Request<Whole>) -> io::Result<http::Response<Incoming>> {
        self.requests.ready().await.map_err(io::Error::other)?;
        self.requests
            .send_request(request)
            .await
            .map_err(io::Error::other)
    }
}

/// The event stream.
struct Down {
    body: Incoming,
    events: Events,
    ready: VecDeque<Event>,
    _line: Line,
}

impl Down {
    async fn next_frame(&mut self) -> Result<Bytes, Broken> {
        let event = self.next_event().await?;
        let frame = STANDARD.decode(event.data).map_err(|_| Broken::NoFrame)?;
        if frame.len() > FRAME_BYTES {
            return Err(Broken::TooLarge);
        }
        Ok(frame.into())
    }

    async fn next_event(&mut self) -> Result<Event, Broken> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let body = &mut self.body;
            let piece = future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
            let piece = piece
                .ok_or(Broken::Closed)?
                .map_err(|error| Broken::Off(error.to_string()))?;
            if let Ok(bytes) = piece.into_data() {
                let events = self.events.take(&bytes).map_err(|_| Broken::TooLarge)?;
                self.ready.extend(events);
            }
        }
    }
}

/// The requests.
struct Up {
    target: Target,
    trust: Trust,
    key: String,
    number: u64,
    line: Option<Line>,
}

/// The relay does not know this connection any more, or takes nothing of it.
struct Over;

impl Up {
    async fn run(mut self, mut frames: mpsc::Receiver<Bytes>) {
        while let Some(first) = frames.recv().await {
            let body = gather(first, &mut frames);
            if self.post(body).await.is_err() {
                return;
            }
            self.number += 1;
        }
    }

    /// Sends one request until it was taken.
    async fn post(&mut self, body: Bytes) -> Result<(), Over> {
        let mut wait = FIRST_WAIT;
        loop {
            let patience = PATIENCE + Duration::from_secs(body.len() as u64 / SLOWEST_BYTES);
            let answered = tokio::time::timeout(patience, self.try_post(&body)).await;
            match answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(StatusCode::NO_CONTENT) => return Ok(()),
                Ok(status) if !may_retry(status) => {
                    tracing::debug!(%status, "a request was refused");
                    return Err(Over);
                }
                Ok(status) => tracing::debug!(%status, "a request is sent again"),
                Err(error) => {
                    tracing::debug!(%error, "a request is sent again");
                    self.line = None;
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn try_post(&mut self, body: &Bytes) -> io::Result<StatusCode> {
        let request = Request::post(UP)
            .header(header::HOST, &self.target.authority)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(KEY, &self.key)
            .header(NUMBER, self.number)
            .body(Whole(body.clone()))
            .map_err(io::Error::other)?;
        let mut line = match self.line.take() {
            Some(line) if !line.requests.is_closed() => line,
            Some(_) | None => {
                let life = Arc::default();
                let reached = Box::pin(reach(&self.target, &mut self.trust, &life)).await;
                let (pipe, _) = reached.map_err(io::Error::other)?;
                Line::on(pipe).await?
            }
        };
        let (head, mut rest) = line.ask(request).await?.into_parts();
        // The line is good for another request once the answer was read.
        let mut read = 0;
        while let Some(Ok(piece)) = future::poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx)).await {
            read += piece.data_ref().map_or(0, Bytes::len);
            if read > LONGEST_ANSWER {
                return Ok(head.status);
            }
        }
        self.line = Some(line);
        Ok(head.status)
    }
}

/// What else waits goes along, up to a size.
fn gather(first: Bytes, frames: &mut mpsc::Receiver<Bytes>) -> Bytes {
    let mut body = BytesMut::with_capacity(LENGTH_BYTES + first.len());
    let mut next = Some(first);
    while let Some(frame) = next {
        body.put_u32(u32::try_from(frame.len()).unwrap_or(u32::MAX));
        body.put_slice(&frame);
        let room = body.len() < GATHERED_BYTES;
        next = room.then(|| frames.try_recv().ok()).flatten();
    }
    body.freeze()
}

const fn may_retry(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 502 | 503 | 504)
}

/// A body that is one piece.
#[derive(Debug, Default)]
struct Whole(Bytes);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.0);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

/// Where a relay takes those who get no WebSocket.
const DOWN: &str = "/v1/down";
const UP: &str = "/v1/up";
const EVENT_STREAM: &str = "text/event-stream";
const KEY: &str = "farhelm-key";
const NUMBER: &str = "farhelm-number";
const NOT_TAKEN: &str = "the relay takes no more requests of this connection";
/// Frames that wait for the request before theirs.
const QUEUE: usize = 64;
const LENGTH_BYTES: usize = 4;
/// A request this large takes no further frame; the largest frame still fits behind the rest, and
/// the relay takes a sixteenth more than the largest.
const GATHERED_BYTES: usize = 16 * 1024;
/// How long the answer to a request may take, and how slow the line may be.
const PATIENCE: Duration = Duration::from_secs(10);
const SLOWEST_BYTES: u64 = 10_000;
/// How long to wait before the same request is sent again.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_ANSWER: usize = 64 * 1024;
