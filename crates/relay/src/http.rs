//! The HTTP side: who may ask at all, the upgrade to a WebSocket, the detour for those who get
//! none, the web app.
//!
//! Host and origin are checked before anything else, on every route and also on loopback.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use farhelm_proto::limits;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use sha1::{Digest as _, Sha1};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::detour::Down;
use crate::http::site::Site;
use crate::lock::Lock as _;
use crate::peer;
use crate::state::State;
use crate::wire::{Pipe, Wire};

pub(crate) mod detour;
pub(crate) mod site;

/// Serves one connection until it ends or becomes a WebSocket.
pub(crate) async fn serve<S: Pipe>(
    state: Arc<State>,
    site: Arc<Site>,
    io: S,
    permit: OwnedSemaphorePermit,
) {
    let seat = Arc::new(Seat {
        places: Arc::clone(permit.semaphore()),
        permit: Mutex::new(Some(permit)),
        upgrade: Mutex::new(None),
    });
    let service = service_fn(|request| {
        let (state, site, seat) = (Arc::clone(&state), Arc::clone(&site), Arc::clone(&seat));
        async move { Ok::<_, Infallible>(answer(&state, &site, &seat, request).await) }
    });
    let patience = Duration::from_millis(state.config.hello_millis);
    let mut served = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades()
    );
    let ended = tokio::select! {
        biased;
        ended = served.as_mut() => ended,
        () = state.stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    let upgrade = seat.upgrade.hold().take();
    let (Ok(()), Some(upgrade), Some(permit)) = (ended, upgrade, seat.permit.hold().take()) else {
        return;
    };
    let Ok(upgraded) = upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<S>>() else {
        return;
    };
    let wire = Wire::new(
        parts.io.into_inner(),
        &parts.read_buf,
        limits::HELLO_FRAME_BYTES,
    );
    // A task of its own: what the request needed is gone while the socket waits.
    state
        .tasks
        .clone()
        .spawn("peer", peer::serve(state, wire, permit));
}

/// What the requests of one connection share.
struct Seat {
    places: Arc<Semaphore>,
    /// The place among those who did not prove who they are. A peer's own connections need none.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    upgrade: Mutex<Option<OnUpgrade>>,
}

impl Seat {
    /// Takes a place again, on a connection that had left it; whether there was one.
    fn sit(&self) -> bool {
        let mut permit = self.permit.hold();
        if permit.is_none() {
            *permit = Arc::clone(&self.places).try_acquire_owned().ok();
        }
        permit.is_some()
    }
}

/// What a request gets.
async fn answer(
    state: &Arc<State>,
    site: &Site,
    seat: &Seat,
    mut request: Request<Incoming>,
) -> Response<Reply> {
    let mut response = match check(state, &request) {
        Err(refused) => refuse(&request, refused),
        Ok(Route::Up) => match detour::take(state, request.headers()) {
            Ok(up) if up.proven || seat.sit() => {
                if up.proven {
                    drop(seat.permit.hold().take());
                }
                let patience = Duration::from_millis(state.config.hello_millis);
                up.run(request.body_mut(), patience).await.map(Reply::Once)
            }
            Ok(_) => refuse(&request, BUSY),
            Err(refused) => refuse(&request, refused),
        },
        Ok(_) if !seat.sit() => refuse(&request, BUSY),
        Ok(Route::Down) => detour::open(state, request.headers(), seat.permit.hold().take()),
        Ok(Route::Health) => text(StatusCode::OK, "ok\n").map(Reply::Once),
        Ok(Route::Link) => upgrade(&request).map(Reply::Once),
        Ok(Route::Site) => site
            .serve(request.uri().path(), request.headers())
            .map(Reply::Once),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        *seat.upgrade.hold() = Some(hyper::upgrade::on(&mut request));
    } else {
        harden(response.headers_mut());
    }
    response
}

/// Where requests go.
#[derive(Clone, Copy, Debug)]
enum Route {
    Health,
    /// A WebSocket.
    Link,
    /// The event stream of a detour.
    Down,
    /// The requests of a detour.
    Up,
    /// The web app.
    Site,
}

impl Route {
    fn of(path: &str) -> Self {
        match path {
            "/healthz" => Self::Health,
            "/v1/link" => Self::Link,
            "/v1/down" => Self::Down,
            "/v1/up" => Self::Up,
            _ => Self::Site,
        }
    }

    /// What it may be asked with.
    const fn methods(self) -> &'static [Method] {
        match self {
            Self::Up => &[Method::POST],
            Self::Down => &[Method::GET],
            Self::Health | Self::Link | Self::Site => &[Method::GET, Method::HEAD],
        }
    }
}

/// Whether a request may be made at all: by these names, and in this manner.
fn check<B>(state: &State, request: &Request<B>) -> Result<Route, Refused> {
    check_names(state, request)?;
    let route = Route::of(request.uri().path());
    if route.methods().contains(request.method()) {
        return Ok(route);
    }
    Err((
        StatusCode::METHOD_NOT_ALLOWED,
        "that method is not served here\n",
    ))
}

/// Why a request is not served, for people.
type Refused = (StatusCode, &'static str);

fn refuse<B>(request: &Request<B>, (status, why): Refused) -> Response<Reply> {
    let mut refused = text(status, why).map(Reply::Once);
    let methods = Route::of(request.uri().path()).methods();
    let names: Vec<_> = methods.iter().map(Method::as_str).collect();
    if status == StatusCode::METHOD_NOT_ALLOWED
        && let Ok(names) = HeaderValue::from_str(&names.join(", "))
    {
        refused.headers_mut().insert(header::ALLOW, names);
    }
    refused
}

const BUSY: Refused = (
    StatusCode::SERVICE_UNAVAILABLE,
    "too many wait already; come again\n",
);

/// Whether the request names this relay, and does not come from a page elsewhere.
fn check_names<B>(state: &State, request: &Request<B>) -> Result<(), Refused> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let named = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host
            .to_str()
            .is_ok_and(|host| state.authorities.allows(host)),
        (_, _) => false,
    };
    let target = request
        .uri()
        .authority()
        .is_none_or(|authority| state.authorities.allows(authority.as_str()));
    if !named || !target {
        return Err((
            StatusCode::MISDIRECTED_REQUEST,
            "this relay is not known by that name\n",
        ));
    }
    let ours = |origin: &HeaderValue| {
        origin
            .to_str()
            .is_ok_and(|origin| state.authorities.allows_origin(origin))
    };
    if !request.headers().get_all(header::ORIGIN).iter().all(ours) {
        return Err((
            StatusCode::FORBIDDEN,
            "pages from elsewhere are not served\n",
        ));
    }
    Ok(())
}

/// Accepts a WebSocket (RFC 6455, section 4.2).
fn upgrade<B>(request: &Request<B>) -> Response<Once> {
    let headers = request.headers();
    let wants = |name: HeaderName, wanted: &str| {
        let tokens = headers
            .get_all(name)
            .into_iter()
            .filter_map(|value| value.to_str().ok());
        tokens
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    let asked = wants(header::CONNECTION, "upgrade") && wants(header::UPGRADE, "websocket");
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|_| asked && request.method() == Method::GET);
    let Some(key) = key else {
        let mut refused = text(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket\n");
        refused
            .headers_mut()
            .insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        return refused;
    };
    if !wants(header::SEC_WEBSOCKET_VERSION, "13") {
        let mut refused = text(StatusCode::UPGRADE_REQUIRED, "only version 13 is spoken\n");
        refused.headers_mut().insert(
            header::SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static("13"),
        );
        return refused;
    }
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = STANDARD.encode(hash.finalize());
    let mut accepted = Response::new(Once(Bytes::new()));
    *accepted.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = accepted.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    accepted
}

/// Adds what every answer carries.
fn harden(headers: &mut HeaderMap) {
    for (name, value) in HARDENING {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// A short answer for people.
fn text(status: StatusCode, text: &'static str) -> Response<Once> {
    let mut response = Response::new(Once(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// The body of any answer.
pub(crate) enum Reply {
    Once(Once),
    Down(Down),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Once(body) => Pin::new(body).poll_frame(cx),
            Self::Down(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Once(body) => body.is_end_stream(),
            Self::Down(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Once(body) => body.size_hint(),
            Self::Down(_) => SizeHint::default(),
        }
    }
}

/// A body that is one piece.
#[derive(Debug, Default)]
pub(crate) struct Once(pub(crate) Bytes);

impl Body for Once {
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

/// The page gets nothing but its own files and its own socket. In CSP level 3 `'self'` covers
/// the `ws` and `wss` of the same place; no browser that can run the app lacks that.
const HARDENING: [(&str, &str); 8] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src 'self' data: blob:; font-src 'self'; manifest-src 'self'; worker-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-embedder-policy", "require-corp"),
    ("x-frame-options", "DENY"),
    (
        "permissions-policy",
        "camera=(self), microphone=(), geolocation=(), display-capture=(), usb=(), serial=(), payment=()",
    ),
];
/// The longest head of a request.
const HEADER_BYTES: usize = 16 * 1024;
