//! What a program gets from its surroundings: the time of day, random bytes, connections, a disk
//! that may be written to, and tasks that are given a turn.
//!
//! In a real program all of it comes from the operating system, and each function here is a line.
//! A simulation puts a [`World`] around the tasks of each machine that it plays ([`within`]); the
//! same code then lives in that world, down to the tasks that it starts, and the simulation
//! decides what the time is, which bytes are random, who can be reached, when the disk is full
//! and when the machine sleeps.
//!
//! It knows nothing of frames, keys or stores.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand_core::{TryCryptoRng, TryRng};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{AbortHandle, JoinError, JoinHandle};

/// A byte stream to somewhere else.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for T {}

/// A connection that is being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// A disk at work; an error when it cannot be written to.
pub type Writing = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// The surroundings of one machine.
pub trait World: Send + Sync {
    /// The time of day, in milliseconds since the Unix epoch.
    fn millis(&self) -> u64;

    /// The time since the machine was started, its sleep included, where it counts that.
    fn since_boot(&self) -> Option<Duration> {
        None
    }

    /// Fills `bytes` with random ones.
    fn fill(&self, bytes: &mut [u8]);

    /// Begins to connect.
    fn connect(&self, host: &str, port: u16) -> Connecting;

    /// Waits as long as the disk takes to write something that must last.
    fn disk(&self) -> Writing;

    /// The program has come to a place where a crash would hurt.
    fn reached(&self, place: &'static str);

    /// A task of this machine was started.
    fn spawned(&self, task: AbortHandle);

    /// Whether this machine's tasks get a turn; keeps the waker until they do.
    fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()>;
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn World>>> = const { RefCell::new(None) };
}

fn current() -> Option<Arc<dyn World>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Whether a simulation plays this machine: nothing of the real one is to be touched.
#[must_use]
pub fn is_played() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// The time of day, in milliseconds since the Unix epoch.
#[must_use]
pub fn millis() -> u64 {
    if let Some(world) = current() {
        return world.millis();
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The time since the machine was started, its sleep included, where the system counts that.
#[must_use]
pub fn since_boot() -> Option<Duration> {
    match current() {
        Some(world) => world.since_boot(),
        None => boot_clock(),
    }
}

#[cfg(target_os = "linux")]
fn boot_clock() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Some(Duration::new(seconds.ok()?, nanos.ok()?))
}

#[cfg(not(target_os = "linux"))]
const fn boot_clock() -> Option<Duration> {
    None
}

/// Fills `bytes` with random ones.
///
/// # Errors
///
/// When the operating system has none.
pub fn try_fill(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    match current() {
        Some(world) => {
            world.fill(bytes);
            Ok(())
        }
        None => getrandom::fill(bytes),
    }
}

/// Fresh random bytes.
///
/// # Panics
///
/// When the operating system has none: nothing secure can be done on such a machine.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

fn fill(bytes: &mut [u8]) {
    try_fill(bytes).expect("an operating system gives random bytes");
}

/// The random source of the surroundings.
#[derive(Clone, Copy, Debug)]
pub struct Random;

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_ne_bytes(random()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_ne_bytes(random()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Random {}

/// A connection by the surroundings; none where the operating system's own are to be used.
#[must_use]
pub fn connect(host: &str, port: u16) -> Option<Connecting> {
    current().map(|world| world.connect(host, port))
}

/// What a store in memory asks before it takes something that must last, since it has no disk
/// that would be slow or full.
///
/// # Errors
///
/// When it cannot be written.
pub async fn disk() -> io::Result<()> {
    let writing = current().map(|world| world.disk());
    match writing {
        Some(writing) => writing.await,
        None => Ok(()),
    }
}

/// The program has come to a place where a crash would hurt.
pub fn reached(place: &'static str) {
    if let Some(world) = current() {
        world.reached(place);
    }
}

/// Starts a task that lives where this one does.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    started(tokio::spawn(task(future)))
}

/// Makes a future a task that lives where this one does; for those who start tasks in another way
/// than [`spawn`], and call [`started`] then.
pub fn task<F: Future>(future: F) -> Within<F> {
    Within {
        world: current(),
        future: Box::pin(future),
    }
}

/// Takes note of a task that was started.
pub fn started<T>(handle: JoinHandle<T>) -> JoinHandle<T> {
    if let Some(world) = current() {
        world.spawned(handle.abort_handle());
    }
    handle
}

/// Runs something that may take as long as a disk does where it holds up nobody.
///
/// # Errors
///
/// When it panicked.
pub async fn blocking<T, F>(work: F) -> Result<T, JoinError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    match current() {
        // Time stands still meanwhile.
        Some(_) => Ok(work()),
        None => tokio::task::spawn_blocking(work).await,
    }
}

/// Runs a program to its end and gives what it printed; a world that is played has no programs.
///
/// # Errors
///
/// When it cannot be run.
pub async fn output(mut program: tokio::process::Command) -> io::Result<std::process::Output> {
    match current() {
        Some(_) => Err(io::ErrorKind::Unsupported.into()),
        None => program.output().await,
    }
}

/// Puts a future into a world.
pub fn within<F: Future>(world: Arc<dyn World>, future: F) -> Within<F> {
    Within {
        world: Some(world),
        future: Box::pin(future),
    }
}

/// A future in a world; see [`within`] and [`task`].
pub struct Within<F> {
    world: Option<Arc<dyn World>>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let Some(world) = &this.world else {
            return this.future.as_mut().poll(cx);
        };
        ready!(world.poll_turn(cx));
        let _outer = Entered::into(Arc::clone(world));
        this.future.as_mut().poll(cx)
    }
}

/// Sets the current world until it is dropped, also by a panic.
struct Entered(Option<Arc<dyn World>>);

impl Entered {
    fn into(world: Arc<dyn World>) -> Self {
        Self(CURRENT.replace(Some(world)))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        drop(CURRENT.replace(self.0.take()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u64);

    impl World for Fixed {
        fn millis(&self) -> u64 {
            self.0
        }

        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }

        fn connect(&self, host: &str, port: u16) -> Connecting {
            let refused = io::Error::other(format!("nobody is at {host}:{port}"));
            Box::pin(std::future::ready(Err(refused)))
        }

        fn disk(&self) -> Writing {
            Box::pin(std::future::ready(Err(io::ErrorKind::StorageFull.into())))
        }

        fn reached(&self, _: &'static str) {}

        fn spawned(&self, _: AbortHandle) {}

        fn poll_turn(&self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }

    #[tokio::test]
    async fn tasks_live_in_the_world_of_who_started_them() {
        let lives = within(Arc::new(Fixed(5)), async {
            let other = within(Arc::new(Fixed(6)), async { millis() }).await;
            let task = spawn(async { (millis(), random::<2>(), disk().await.is_err()) });
            (millis(), other, task.await.unwrap())
        });
        assert_eq!(lives.await, (5, 6, (5, [7, 7], true)));
        assert!(millis() > 1_000_000 && disk().await.is_ok() && connect("x", 1).is_none());
        assert_ne!(random::<16>(), [7; 16]);
        let inner = spawn(async { millis() }).await.unwrap();
        assert!(inner > 1_000_000);
    }
}
