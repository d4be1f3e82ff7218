//! STORY 1: one webhook, from request head to answer.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method};
use http_body_util::combinators::BoxBody;
use tokio::time::Instant;
use tower::Service;

use crate::admit::{Denied, Lease};
use crate::base::Clock;
use crate::event::{EventId, Head};
use crate::journal::{Appended, Journal};
use crate::provider::VerifiedEvent;
use crate::router::Router;
use crate::source::Source;
use crate::telemetry::{DuplicateKind, Metrics, Reason, RequestOutcome};

/// Takes webhooks. One for the whole program, shared.
pub struct Intake<J> {
    /// The sources, by host and path.
    pub router: Router<Arc<Source>>,
    /// Where events are kept.
    pub journal: J,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Metrics,
}

impl<J: Journal> Intake<J> {
    /// Takes one webhook from its request head to what its sender is told.
    ///
    /// The order is the security model: no body is read before `admit`, nothing unverified spends quota or
    /// is remembered, and nothing is acknowledged before it is kept.
    ///
    /// # Errors
    /// The [`Refusal`].
    ///
    /// # Cancellation
    /// Dropped (the sender hung up) before the event is handed to the journal: nothing is kept. Later: the
    /// journal finishes the append; the sender's retry is then a duplicate.
    pub async fn receive(&self, request: Inbound) -> Result<Receipt, Refusal> {
        let began = Instant::now(); // the head is complete
        let Inbound { head, body } = request;
        let Some((source, params)) = self.router.find(head.client.host.as_deref(), &head.path) else {
            let unknown = self.metrics.unknown_source();
            return counted(unknown, began, Err(Refusal::NoRoute));
        };
        let answer = async {
            if !source.takes(&head.method) {
                return Err(Refusal::Method { allowed: source.settings().methods.clone() });
            }
            source.admit(&head, &self.journal.room())?; // no body read yet
            let (received, lease) = source.read(head, params, body).await?;
            let event = source.verify(received, self.clock.now())?;
            source.spend_quota()?;
            self.store(&source, event, lease, began).await
        };
        let answer = answer.await;
        counted(source.metrics(), began, answer)
    }

    /// Keeps a verified event, durably, and only then has something to tell its sender.
    async fn store(
        &self,
        source: &Source,
        event: VerifiedEvent,
        lease: Lease,
        began: Instant,
    ) -> Result<Receipt, Refusal> {
        let deadline = source.settings().deadline;
        let entry = source.entry(event, lease, self.clock.now());
        let append = tokio::time::timeout_at(began + deadline, self.journal.append(entry));
        let (id, duplicate) = match append.await {
            Err(_elapsed) => return Err(Refusal::Late { deadline }),
            Ok(appended) => match appended? {
                Appended::Fresh(kept) => {
                    source.metrics().stored();
                    (kept.id, false)
                }
                Appended::Duplicate { original, conflict } => {
                    let kind = if conflict { DuplicateKind::Conflict } else { DuplicateKind::Same };
                    source.metrics().duplicate(kind);
                    (original.id, true)
                }
            },
        };
        let respond = &source.settings().respond;
        let body = match &respond.body {
            Some(body) => Bytes::copy_from_slice(body.as_bytes()),
            None => Bytes::from(format!(r#"{{"id":"{id}"}}"#)),
        };
        let content_type = respond.content_type.clone();
        Ok(Receipt::Stored { id, duplicate, status: respond.status, body, content_type })
    }
}

fn counted(
    metrics: &crate::telemetry::SourceMetrics,
    began: Instant,
    answer: Result<Receipt, Refusal>,
) -> Result<Receipt, Refusal> {
    let outcome = match &answer {
        Ok(Receipt::Stored { duplicate: false, .. }) => RequestOutcome::Stored,
        Ok(Receipt::Stored { duplicate: true, .. }) => RequestOutcome::Duplicate,
        Err(refusal) => {
            metrics.refused(refusal.reason());
            RequestOutcome::Refused
        }
    };
    metrics.answered(outcome, began.elapsed());
    answer
}

/// The intake as the tower service that the public side calls.
pub struct Handle<J>(pub Arc<Intake<J>>);

impl<J> Clone for Handle<J> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<J: Journal> Service<Inbound> for Handle<J> {
    type Response = Receipt;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Receipt, Refusal>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Inbound) -> Self::Future {
        let intake = Arc::clone(&self.0);
        async move { intake.receive(request).await }.boxed()
    }
}

/// A request whose body has not been read.
pub struct Inbound {
    /// Its head.
    pub head: Head,
    /// Its body.
    pub body: BoxBody<Bytes, hyper::Error>,
}

/// What a sender is told when it went well.
#[derive(Clone, Debug)]
pub enum Receipt {
    /// The event is durable (or was before, for a duplicate).
    Stored {
        /// The event's id; the original's for a duplicate.
        id: EventId,
        /// Whether an earlier request had brought it.
        duplicate: bool,
        /// The status.
        status: u16,
        /// The body.
        body: Bytes,
        /// The body's type.
        content_type: HeaderValue,
    },
}

/// Why a request was turned away.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No source has this path and host.
    #[error("no source has this path")]
    NoRoute,
    /// The source does not take this method.
    #[error("the source does not take this method")]
    Method {
        /// What it takes, for `Allow`.
        allowed: Vec<Method>,
    },
    /// Not admitted; no body was read.
    #[error("not admitted")]
    Denied(#[from] Denied),
    /// Not verified.
    #[error("not verified")]
    Unverified(#[from] crate::provider::Rejection),
    /// The source's quota is spent.
    #[error("over the source's limit")]
    OverQuota(#[from] crate::limit::OverLimit),
    /// Verified, and not kept.
    #[error("the event could not be kept")]
    NotKept(#[from] crate::journal::AppendError),
    /// The deadline was over first.
    #[error("the deadline was over before the event was durable")]
    Late {
        /// The source's deadline.
        deadline: Duration,
    },
}

impl Refusal {
    /// The word for it in metrics and logs.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoRoute => Reason::NoRoute,
            Self::Method { .. } => Reason::Method,
            Self::Denied(Denied::NoRoom { .. }) => Reason::NoRoom,
            Self::Denied(Denied::Client) => Reason::Client,
            Self::Denied(Denied::TooFast(_)) => Reason::TooFast,
            Self::Denied(Denied::Busy) => Reason::Busy,
            Self::Denied(Denied::TooLarge { .. }) => Reason::TooLarge,
            Self::Denied(Denied::TooSlow) => Reason::TooSlow,
            Self::Denied(Denied::Broken) => Reason::Broken,
            Self::Denied(Denied::Encoded) => Reason::Encoded,
            Self::Unverified(_) => Reason::Unverified,
            Self::OverQuota(_) => Reason::OverQuota,
            Self::NotKept(_) => Reason::NotKept,
            Self::Late { .. } => Reason::Late,
        }
    }
}
