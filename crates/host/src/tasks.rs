//! The one way to start a task here: named in the log, and counted for shutdown.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Starts tasks and waits for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks(TaskTracker);

impl Tasks {
    /// Starts a task whose log lines carry its name.
    pub(crate) fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let future = farhelm_world::task(future.instrument(tracing::debug_span!("task", name)));
        farhelm_world::started(self.0.spawn(future))
    }

    /// Waits until all have ended.
    pub(crate) async fn done(&self) {
        self.0.close();
        self.0.wait().await;
    }
}
