//! The one way to start a task.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Every task of the program: awaited at the end, and a panic in one shuts the program down.
///
/// A gateway that lost a part of itself must not go on half alive, so [`Tasks::failed`] is what the
/// application waits for beside its signals.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    failed: CancellationToken,
}

impl Tasks {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts `task` on the runtime of the caller; `name` is for the log line if it panics.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let failed = self.failed.clone();
        self.tracker.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                tracing::error!(task = name, "task panicked; shutting down");
                failed.cancel();
            }
        });
    }

    /// `body` for a thread: a panic in it shuts the program down as one in a task does.
    pub fn guard(&self, name: &'static str, body: impl FnOnce() + Send + 'static) -> impl FnOnce() + Send + 'static {
        let failed = self.failed.clone();
        move || {
            if std::panic::catch_unwind(AssertUnwindSafe(body)).is_err() {
                tracing::error!(thread = name, "thread panicked; shutting down");
                failed.cancel();
            }
        }
    }

    /// Asks every task to come to its end.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// The token that [`Tasks::stop`] cancels.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Waits until a task has panicked.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Marks the program as failed, as a panic in a task would.
    pub fn fail(&self) {
        self.failed.cancel();
    }

    /// Waits until every task has ended. Call [`Tasks::stop`] first.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_task_is_reported_and_the_set_still_ends() {
        let tasks = Tasks::new();
        tasks.spawn("doomed", async { panic!("on purpose") });
        tasks.failed().await;
        tasks.stop();
        tasks.ended().await;
    }

    #[tokio::test]
    async fn so_is_a_panic_in_a_thread() {
        let tasks = Tasks::new();
        std::thread::spawn(tasks.guard("doomed", || panic!("on purpose"))).join().unwrap();
        tasks.failed().await;
    }
}
