//! A proxy between a peer and its relay that sees WebSocket messages whole.
//!
//! It passes the upgrade on as it came, so that the authority which the peer signs is the proxy's own; the relay must
//! allow that name. What is not a WebSocket passes as bytes, and can be cut or stalled only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::weather::{Act, Fair, Way, Weather};

mod message;

use message::Message;

/// The longest head of an HTTP request or response.
const HEAD_BYTES: usize = 16 * 1024;

/// A proxy that runs until it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepts: AbortOnDropHandle<()>,
}

struct Shared {
    relay: SocketAddr,
    weather: Mutex<Box<dyn Weather>>,
    /// What ends each connection that is open.
    links: Mutex<BTreeMap<u64, Ends>>,
    opened: AtomicU64,
    refuses: AtomicBool,
    passed: AtomicU64,
    faults: AtomicU64,
}

/// How a connection is made useless.
#[derive(Clone, Default)]
struct Ends {
    cut: CancellationToken,
    stall: CancellationToken,
}

impl Proxy {
    /// Begins to listen on loopback, in front of a relay.
    ///
    /// # Errors
    ///
    /// When there is no port.
    pub async fn start(relay: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("a port for a proxy")?;
        let shared = Arc::new(Shared {
            relay,
            weather: Mutex::new(Box::new(Fair)),
            links: Mutex::default(),
            opened: AtomicU64::new(0),
            refuses: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            faults: AtomicU64::new(0),
        });
        let address = listener.local_addr()?;
        let accepts = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            _accepts: AbortOnDropHandle::new(accepts),
        })
    }

    /// Its address, to be used in the relay's place.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://localhost:{}", self.address.port())
    }

    /// Changes the weather, also for connections that are open.
    pub fn weather(&self, weather: impl Weather + 'static) {
        *lock(&self.shared.weather) = Box::new(weather);
    }

    /// Ends every connection.
    pub fn cut(&self) {
        lock(&self.shared.links)
            .values()
            .for_each(|ends| ends.cut.cancel());
    }

    /// Makes every connection that is open go dead, without ending it.
    pub fn stall(&self) {
        lock(&self.shared.links)
            .values()
            .for_each(|ends| ends.stall.cancel());
    }

    /// Whether new connections are turned away.
    pub fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::Relaxed);
    }

    /// How many connections there were.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.shared.opened.load(Ordering::Relaxed)
    }

    /// How many frames passed, and how many met a fault other than a wait.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.shared.passed), load(&self.shared.faults))
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let links = tokio_util::task::TaskTracker::new();
    // Whatever ends the listener ends what it let in.
    let _all = CancelAll(Arc::clone(&shared));
    while let Ok((peer, _)) = listener.accept().await {
        if shared.refuses.load(Ordering::Relaxed) {
            continue;
        }
        let number = shared.opened.fetch_add(1, Ordering::Relaxed) + 1;
        let ends = Ends::default();
        lock(&shared.links).insert(number, ends.clone());
        let shared = Arc::clone(&shared);
        links.spawn(async move {
            let cut = ends.cut.clone();
            tokio::select! {
                _ = carry(number, peer, &shared, &ends) => {}
                () = cut.cancelled() => {}
            }
            lock(&shared.links).remove(&number);
        });
    }
}

struct CancelAll(Arc<Shared>);

impl Drop for CancelAll {
    fn drop(&mut self) {
        lock(&self.0.links)
            .values()
            .for_each(|ends| ends.cut.cancel());
    }
}

/// Carries one connection until it ends.
async fn carry(
    number: u64,
    mut peer: TcpStream,
    shared: &Shared,
    ends: &Ends,
) -> std::io::Result<()> {
    let mut relay = TcpStream::connect(shared.relay).await?;
    relay.set_nodelay(true)?;
    peer.set_nodelay(true)?;
    let request = read_head(&mut peer).await?;
    relay.write_all(&request).await?;
    let is_upgrade = request
        .to_ascii_lowercase()
        .windows(18)
        .any(|word| word == b"upgrade: websocket");
    if !is_upgrade {
        return carry_bytes(peer, relay, ends).await;
    }
    let response = read_head(&mut relay).await?;
    peer.write_all(&response).await?;
    if !response.starts_with(b"HTTP/1.1 101") {
        return carry_bytes(peer, relay, ends).await;
    }
    let (from_peer, to_peer) = peer.into_split();
    let (from_relay, to_relay) = relay.into_split();
    let up = pump(number, Way::Up, from_peer, to_relay, shared, ends);
    let down = pump(number, Way::Down, from_relay, to_peer, shared, ends);
    // Either side's end ends both, as with any connection that is closed.
    tokio::select! { ended = up => ended, ended = down => ended }
}

async fn carry_bytes(
    mut peer: TcpStream,
    mut relay: TcpStream,
    ends: &Ends,
) -> std::io::Result<()> {
    tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut peer, &mut relay) => copied.map(drop),
        () = ends.stall.cancelled() => std::future::pending().await,
    }
}

/// Passes messages one way.
async fn pump(
    number: u64,
    way: Way,
    from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    ends: &Ends,
) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    let mut held: Option<Message> = None;
    loop {
        let message = tokio::select! {
            message = Message::read(&mut from) => message?,
            () = ends.stall.cancelled() => std::future::pending().await,
        };
        let act = match message.frame() {
            Some(frame) => lock(&shared.weather).act(number, way, &frame),
            None => Act::Pass,
        };
        if !matches!(act, Act::Pass | Act::Wait(_)) {
            shared.faults.fetch_add(1, Ordering::Relaxed);
        }
        let mut out: Vec<Message> = match act {
            Act::Pass => vec![message],
            Act::Wait(time) => {
                tokio::time::sleep(time).await;
                vec![message]
            }
            Act::Cut => {
                ends.cut.cancel();
                return Ok(());
            }
            Act::Stall => {
                ends.stall.cancel();
                continue;
            }
            Act::Drop => Vec::new(),
            Act::Twice => vec![message.clone(), message],
            Act::Swap => match held.replace(message) {
                Some(before) => vec![before],
                None => continue,
            },
            Act::Replace(frames) => frames
                .into_iter()
                .map(|frame: Bytes| Message::of(way, &frame))
                .collect(),
        };
        out.extend(held.take());
        for message in out {
            shared.passed.fetch_add(1, Ordering::Relaxed);
            to.write_all(message.bytes()).await?;
        }
    }
}

async fn read_head(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > HEAD_BYTES {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
