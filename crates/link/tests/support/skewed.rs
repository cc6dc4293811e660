//! A world whose time of day a test sets.

use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use farhelm_world::{Connecting, World, Writing};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// The real world with another time of day, on a machine that does not count its own sleep: the
/// harder case.
#[derive(Default)]
pub struct Skewed {
    pub millis: AtomicI64,
    filled: AtomicU8,
}

impl World for Skewed {
    fn millis(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let real = i64::try_from(since.as_millis()).unwrap();
        u64::try_from(real + self.millis.load(Ordering::Relaxed)).unwrap()
    }

    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.filled.fetch_add(1, Ordering::Relaxed));
    }

    fn connect(&self, host: &str, port: u16) -> Connecting {
        let place = (host.to_owned(), port);
        Box::pin(async move {
            let stream = TcpStream::connect(place).await?;
            Ok(Box::new(stream) as Box<dyn farhelm_world::Stream>)
        })
    }

    fn disk(&self) -> Writing {
        Box::pin(std::future::ready(Ok(())))
    }

    fn reached(&self, _: &'static str) {}

    fn spawned(&self, _: AbortHandle) {}

    fn poll_turn(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}
