//! Where every task of the relay is started, so that shutdown can wait for all of them.

use std::future::Future;

use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Starts tasks and waits for their end.
#[derive(Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
}

impl Tasks {
    /// Starts `future` as a task called `name` in traces.
    pub(crate) fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let future = farhelm_world::task(future.instrument(tracing::debug_span!("task", name)));
        drop(farhelm_world::started(self.tracker.spawn(future)));
    }

    /// Waits until every task has ended; none may be started afterwards.
    pub(crate) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
