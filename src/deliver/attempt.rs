//! One attempt, whoever makes it: the request path or a lane's owner.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tower::Service;

use super::target::{Healthy, Target};
use super::{Failure, FailureKind, Keep, Outbound, Reply, Tried, judge, request};
use crate::base::{Clock, UnixMillis};
use crate::event::{Attempt, AttemptReason, DeliveryId};
use crate::journal::Verdict;
use crate::telemetry::DeliveryOutcome;

/// An attempt that was made.
#[derive(Debug)]
pub struct Made {
    /// What came of it.
    pub outcome: Result<Reply, Failure>,
    /// When it began.
    pub started_at: UnixMillis,
    /// When it ended.
    pub ended_at: UnixMillis,
    /// How long it took.
    pub took: Duration,
}

/// Makes one attempt, and keeps of the answer what `keep` says. The request is built at once. A panic on the way is a failure like
/// any other: the event that brings it about must not end delivery for all.
pub fn attempt(
    target: &Target,
    outbound: Outbound<'_>,
    keep: Keep,
    clock: Arc<dyn Clock>,
) -> impl Future<Output = Made> + Send + use<> {
    let way = target.way();
    let request = catch_unwind(AssertUnwindSafe(|| {
        #[cfg(test)]
        assert_ne!(outbound.event.kind.as_deref(), Some("panics"), "on purpose");
        request(&way.destination, outbound)
    }));
    let mut client = way.client.keeping(keep);
    async move {
        let (started_at, began) = (clock.now(), Instant::now());
        let outcome = match request {
            Ok(Ok(request)) => {
                let answer = AssertUnwindSafe(async { client.call(request).await }).catch_unwind().await;
                answer.unwrap_or_else(|_| Err(panicked()))
            }
            Ok(Err(error)) => Err(Failure { kind: FailureKind::Broken, detail: error.to_string() }),
            Err(_) => Err(panicked()),
        };
        Made { outcome, started_at, ended_at: clock.now(), took: began.elapsed() }
    }
}

fn panicked() -> Failure {
    tracing::error!("an attempt panicked; this is a bug, please report it");
    Failure { kind: FailureKind::Panicked, detail: "it panicked; the log says where".to_owned() }
}

impl Made {
    /// Whether the application is well.
    #[must_use]
    pub fn healthy(&self) -> Healthy {
        let well = self.outcome.as_ref().is_ok_and(|reply| reply.status < 500 && reply.status != 429);
        if well { Healthy::Yes } else { Healthy::No }
    }

    /// What follows from it for a delivery, by the destination's policy.
    #[must_use]
    pub fn judge(&self, target: &Target, attempts: u32, since: UnixMillis) -> Verdict {
        let tried = Tried { attempts, since, now: self.ended_at };
        judge(&target.way().destination.retry, &self.outcome, tried, fastrand::f64())
    }

    /// Counts it and says so in the log.
    pub fn observe(&self, target: &Target, delivery: DeliveryId, number: u32, since: UnixMillis, verdict: Verdict) {
        let metrics = &target.metrics;
        let said = || match &self.outcome {
            Ok(reply) => format!("status {}", reply.status),
            Err(failure) => failure.to_string(),
        };
        let destination = &target.name;
        let outcome = match verdict {
            Verdict::Delivered => {
                metrics.delivered_after(self.ended_at.since(since));
                tracing::debug!(%destination, %delivery, attempt = number, "delivered");
                DeliveryOutcome::Delivered
            }
            Verdict::RetryAt(due) => {
                tracing::info!(%destination, %delivery, attempt = number, outcome = said(), retry_at = %due, "attempt failed");
                DeliveryOutcome::Retry
            }
            Verdict::Dead(why) => {
                tracing::warn!(%destination, %delivery, attempt = number, outcome = said(), reason = why.as_str(), "delivery given up: a dead letter");
                DeliveryOutcome::Dead
            }
            Verdict::Refused => {
                tracing::debug!(%destination, %delivery, attempt = number, outcome = said(), "refused by the application, and its sender told so");
                DeliveryOutcome::Refused
            }
        };
        metrics.attempted(outcome, self.took);
    }

    /// The attempt as it is recorded.
    #[must_use]
    pub fn record(&self, number: u32, reason: AttemptReason) -> Attempt {
        let (status, error, answer) = match &self.outcome {
            Ok(reply) => (Some(reply.status), None, reply.answer.clone()),
            Err(failure) => (None, Some(failure.to_string().into_boxed_str()), bytes::Bytes::new()),
        };
        Attempt { number, reason, started_at: self.started_at, took: self.took, status, error, answer }
    }
}
