//! A network in memory. Bytes arrive in order and late; a link can be cut, fall silent with the
//! connections over it, or refuse new ones. What passes is looked at: see [`crate::tap`].

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use farhelm_world::{Connecting, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::tap::Tap;
use crate::universe::Universe;

/// Where connections go.
pub type Door = Box<dyn Fn(End) -> bool + Send + Sync>;

/// The network: from every machine to the relay.
pub struct Net {
    universe: Arc<Universe>,
    door: Mutex<Option<Door>>,
    next: Mutex<u64>,
}

/// A machine's way to the relay.
#[derive(Default)]
pub struct Link {
    inner: Mutex<Weather>,
    name: String,
}

struct Weather {
    /// How long a byte is on its way, at least and at most, in milliseconds.
    delay: (u64, u64),
    /// Nothing passes, and nobody is told.
    is_held: bool,
    waiting: Vec<Waker>,
    connections: Vec<Weak<Both>>,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            delay: (1, 30),
            is_held: false,
            waiting: Vec::new(),
            connections: Vec::new(),
        }
    }
}

/// A connection: what goes up to the relay, and what comes down.
struct Both {
    up: Mutex<Way>,
    down: Mutex<Way>,
}

/// One direction of a connection.
struct Way {
    queue: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    last: Instant,
    is_closed: bool,
    is_reset: bool,
    /// This connection alone passes nothing any more, and nobody is told.
    is_lost: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    tap: Tap,
}

/// One end of a connection.
pub struct End {
    both: Arc<Both>,
    link: Arc<Link>,
    universe: Arc<Universe>,
    is_relay: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Net {
    /// A network that leads nowhere yet.
    #[must_use]
    pub fn new(universe: &Arc<Universe>) -> Arc<Self> {
        Arc::new(Self {
            universe: Arc::clone(universe),
            door: Mutex::default(),
            next: Mutex::new(1),
        })
    }

    /// Sets who takes connections; nobody while the relay is off.
    pub fn set_door(&self, door: Option<Door>) {
        *hold(&self.door) = door;
    }

    /// Connects a machine to the relay.
    pub fn dial(self: &Arc<Self>, link: &Arc<Link>) -> Connecting {
        let (net, link) = (Arc::clone(self), Arc::clone(link));
        Box::pin(async move {
            let delay = link.delay(&net.universe);
            tokio::time::sleep(delay).await;
            poll_fn(|cx| link.poll_open(cx)).await;
            let (near, far) = net.pair(&link);
            let is_taken = hold(&net.door).as_ref().is_some_and(|door| door(far));
            if is_taken {
                Ok(Box::new(near) as Box<dyn Stream>)
            } else {
                Err(io::ErrorKind::ConnectionRefused.into())
            }
        })
    }

    fn pair(&self, link: &Arc<Link>) -> (End, End) {
        let number = {
            let mut next = hold(&self.next);
            *next += 1;
            *next - 1
        };
        let way = |is_up| {
            let arrow = if is_up { '>' } else { '<' };
            Mutex::new(Way {
                queue: VecDeque::new(),
                bytes: 0,
                last: Instant::now(),
                is_closed: false,
                is_reset: false,
                is_lost: false,
                reader: None,
                writer: None,
                tap: Tap::new(format!("{}{arrow}{number}", link.name), &self.universe),
            })
        };
        let both = Arc::new(Both {
            up: way(true),
            down: way(false),
        });
        let mut weather = hold(&link.inner);
        weather.connections.retain(|each| each.strong_count() > 0);
        weather.connections.push(Arc::downgrade(&both));
        drop(weather);
        let end = |is_relay| End {
            both: Arc::clone(&both),
            link: Arc::clone(link),
            universe: Arc::clone(&self.universe),
            is_relay,
            timer: None,
        };
        (end(false), end(true))
    }
}

impl Link {
    /// A link in good weather.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            name: name.into(),
        })
    }

    /// Sets how long bytes are on their way.
    pub fn set_delay(&self, least: u64, most: u64) {
        hold(&self.inner).delay = (least, most.max(least));
    }

    /// Nothing passes from here on, or everything that waits does.
    pub fn set_held(&self, held: bool) {
        let (waiting, connections) = {
            let mut weather = hold(&self.inner);
            weather.is_held = held;
            let waiting = std::mem::take(&mut weather.waiting);
            (waiting, weather.connections.clone())
        };
        if held {
            return;
        }
        waiting.into_iter().for_each(Waker::wake);
        for both in connections.iter().filter_map(Weak::upgrade) {
            hold(&both.up).wake();
            hold(&both.down).wake();
        }
    }

    /// Breaks every connection; both ends are told.
    pub fn cut(&self) {
        self.each(|way| {
            way.is_reset = true;
            way.wake();
        });
    }

    /// Every connection passes nothing any more, and nobody is told; new ones work.
    pub fn lose(&self) {
        self.each(|way| way.is_lost = true);
    }

    /// Bytes that are on their way.
    pub fn bytes(&self) -> usize {
        let mut bytes = 0;
        self.each(|way| bytes += way.bytes);
        bytes
    }

    fn each(&self, mut visit: impl FnMut(&mut Way)) {
        let connections = hold(&self.inner).connections.clone();
        for both in connections.iter().filter_map(Weak::upgrade) {
            visit(&mut hold(&both.up));
            visit(&mut hold(&both.down));
        }
    }

    fn delay(&self, universe: &Universe) -> Duration {
        let (least, most) = hold(&self.inner).delay;
        Duration::from_millis(universe.chance(|chance| chance.between(least, most)))
    }

    fn is_held(&self) -> bool {
        hold(&self.inner).is_held
    }

    fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        let mut weather = hold(&self.inner);
        if weather.is_held {
            weather.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl Way {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }
}

impl End {
    fn incoming(&self) -> MutexGuard<'_, Way> {
        hold(if self.is_relay {
            &self.both.up
        } else {
            &self.both.down
        })
    }

    fn outgoing(&self) -> MutexGuard<'_, Way> {
        hold(if self.is_relay {
            &self.both.down
        } else {
            &self.both.up
        })
    }
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let is_held = self.link.is_held();
        let due = {
            let mut way = self.incoming();
            if way.is_reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            way.reader = Some(cx.waker().clone());
            if is_held || way.is_lost {
                return Poll::Pending;
            }
            let now = Instant::now();
            let mut read = false;
            while let Some((at, bytes)) = way.queue.front_mut() {
                if *at > now || buffer.remaining() == 0 {
                    break;
                }
                let count = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..count]);
                bytes.advance(count);
                let is_empty = bytes.is_empty();
                way.bytes -= count;
                read = true;
                if is_empty {
                    way.queue.pop_front();
                }
            }
            if read {
                if let Some(writer) = way.writer.take() {
                    writer.wake();
                }
                return Poll::Ready(Ok(()));
            }
            match way.queue.front() {
                Some((at, _)) => *at,
                None if way.is_closed => return Poll::Ready(Ok(())),
                None => return Poll::Pending,
            }
        };
        let mut timer = Box::pin(tokio::time::sleep_until(due));
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        self.timer = Some(timer);
        Poll::Pending
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let delay = self.link.delay(&self.universe);
        let mut way = self.outgoing();
        if way.is_reset || way.is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if way.bytes >= BUFFER {
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = bytes.len().min(BUFFER);
        way.tap.passed(&bytes[..count]);
        way.bytes += count;
        way.last = way.last.max(Instant::now() + delay);
        let at = way.last;
        way.queue
            .push_back((at, Bytes::copy_from_slice(&bytes[..count])));
        if let Some(reader) = way.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut way = self.outgoing();
        way.is_closed = true;
        way.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut way = self.outgoing();
        way.is_closed = true;
        way.wake();
        drop(way);
        let mut way = self.incoming();
        way.is_reset = true;
        way.wake();
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a connection holds in one direction before its writer waits.
const BUFFER: usize = 64 * 1024;
