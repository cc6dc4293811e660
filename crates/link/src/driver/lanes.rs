//! The ways to the half that writes: a short one, and a long one that is bounded by its bytes.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::NotConnected;

/// What senders have.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    first: mpsc::Sender<Bytes>,
    bulk: mpsc::Sender<Bytes>,
    room: Arc<Semaphore>,
}

/// What the half that writes takes from, the first first.
pub(super) struct Queues {
    pub(super) first: mpsc::Receiver<Bytes>,
    pub(super) bulk: mpsc::Receiver<Bytes>,
}

pub(super) fn lanes() -> (Lanes, Queues) {
    let (first, first_out) = mpsc::channel(QUEUE);
    let (bulk, bulk_out) = mpsc::channel(QUEUE);
    let room = Arc::new(Semaphore::new(ROOM as usize));
    let queues = Queues {
        first: first_out,
        bulk: bulk_out,
    };
    (Lanes { first, bulk, room }, queues)
}

impl Lanes {
    pub(super) async fn send(&self, frame: Bytes) -> Result<(), NotConnected> {
        let weight = u32::try_from(frame.len()).unwrap_or(u32::MAX).min(ROOM);
        let permit = Arc::clone(&self.room).acquire_many_owned(weight).await;
        let held = Held {
            frame,
            _permit: permit.map_err(|_| NotConnected)?,
        };
        let sent = self.bulk.send(Bytes::from_owner(held)).await;
        sent.map_err(|_| NotConnected)
    }

    pub(super) async fn send_first(&self, frame: Bytes) -> Result<(), NotConnected> {
        self.first.send(frame).await.map_err(|_| NotConnected)
    }
}

/// A frame that counts until it was written.
struct Held {
    frame: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

/// Frames that wait to be written before senders wait.
const QUEUE: usize = 256;
/// Bytes of frames in the long way; a longer one goes alone.
const ROOM: u32 = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_long_way_is_bounded_by_bytes_until_they_are_written_and_the_short_one_is_not() {
        let (lanes, mut queues) = lanes();
        let frame = Bytes::from(vec![0; 300 * 1024]);
        lanes.send(frame.clone()).await.unwrap();
        let waiting = lanes.clone();
        let second = tokio::spawn(async move { waiting.send(frame).await });
        lanes
            .send_first(Bytes::from_static(b"letter"))
            .await
            .unwrap();
        assert_eq!(&queues.first.recv().await.unwrap()[..], b"letter");
        let first = queues.bulk.recv().await.unwrap();
        tokio::task::yield_now().await;
        assert!(
            queues.bulk.try_recv().is_err(),
            "the first is not written yet"
        );
        drop(first);
        assert_eq!(queues.bulk.recv().await.unwrap().len(), 300 * 1024);
        second.await.unwrap().unwrap();
    }
}
