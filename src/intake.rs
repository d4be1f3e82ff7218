//! STORY 1: one webhook, from request head to answer.

mod relay;
#[cfg(test)]
mod tests;
mod underway;

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::combinators::BoxBody;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower::Service;

use crate::admit::{Denied, Lease};
use crate::base::{Clock, Name, Tasks};
use crate::deliver::Target;
use crate::event::{EventId, Head};
use crate::journal::{AppendError, Appended, Claim, Entry, Journal, Sync};
use crate::provider::VerifiedEvent;
use crate::router::Router;
use crate::source::{Mode, Source};
use crate::telemetry::{DuplicateKind, Metrics, Reason, RequestOutcome};

pub use underway::Underway;

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
    /// The destinations, by name: in proxy mode the first of a source's answers.
    pub targets: Arc<HashMap<Name, Arc<Target>>>,
    /// Where what a sender's hanging up must not cancel is done.
    pub tasks: Tasks,
    /// Requests of proxy mode that are under way.
    pub underway: Underway,
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
    /// Dropped (the sender hung up) before the request is verified: nothing is kept. Later: it goes on in a task of
    /// its own, and the sender's retry is then a duplicate.
    pub async fn receive(self: &Arc<Self>, request: Inbound) -> Result<Receipt, Refusal> {
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
            self.keep_or_relay(&source, event, lease, began).await
        };
        let answer = answer.await;
        counted(source.metrics(), began, answer)
    }

    /// What is done with a verified event: by a task that outlives a sender who hangs up.
    async fn keep_or_relay(
        self: &Arc<Self>,
        source: &Arc<Source>,
        event: VerifiedEvent,
        lease: Lease,
        began: Instant,
    ) -> Result<Receipt, Refusal> {
        let (reply, answer) = oneshot::channel();
        let claim = source.claim(&event, self.clock.now());
        let verified = Verified { source: Arc::clone(source), event, claim, lease, began };
        let intake = Arc::clone(self);
        match source.settings().mode {
            Mode::Store => self.tasks.spawn("store", async move { drop(reply.send(intake.store(verified).await)) }),
            Mode::Proxy => self.tasks.spawn("relay", relay::relay(intake, verified, reply)),
        }
        answer.await.unwrap_or(Err(Refusal::NotKept(AppendError::Closed))) // the task has panicked, and all ends
    }

    /// Keeps a verified event, durably, and only then has something to tell its sender.
    async fn store(&self, verified: Verified) -> Result<Receipt, Refusal> {
        let Verified { source, event, claim, lease, began } = verified;
        let deadline = began + source.settings().deadline;
        self.append(&source, source.entry(event, claim, lease), deadline, Buffered::No).await
    }

    /// Keeps `entry`, durably, before `deadline`.
    async fn append(
        &self,
        source: &Source,
        entry: Entry,
        deadline: Instant,
        buffered: Buffered,
    ) -> Result<Receipt, Refusal> {
        let append = tokio::time::timeout_at(deadline, self.journal.append(entry, Sync::Durable));
        let (id, again) = match append.await {
            Err(_elapsed) => return Err(Refusal::Late { deadline: source.settings().deadline }),
            Ok(appended) => match appended? {
                Appended::Fresh(kept) => {
                    source.metrics().stored();
                    (kept.id, Again::No)
                }
                Appended::Duplicate { original, conflict } => {
                    source.metrics().duplicate(duplicate_kind(conflict));
                    (original.id, Again::Yes)
                }
            },
        };
        Ok(acknowledged(source, id, again, buffered))
    }
}

/// A verified event on its way.
struct Verified {
    source: Arc<Source>,
    event: VerifiedEvent,
    claim: Option<Claim>,
    lease: Lease,
    /// When the request's head was complete.
    began: Instant,
}

/// The source's own answer to an event that is kept.
fn acknowledged(source: &Source, id: EventId, again: Again, buffered: Buffered) -> Receipt {
    let respond = &source.settings().respond;
    let body = match &respond.body {
        Some(body) => Bytes::copy_from_slice(body.as_bytes()),
        None => Bytes::from(format!(r#"{{"id":"{id}"}}"#)),
    };
    let content_type = respond.content_type.clone();
    Receipt::Stored { id, again, buffered, status: respond.status, body, content_type }
}

fn duplicate_kind(conflict: bool) -> DuplicateKind {
    if conflict { DuplicateKind::Conflict } else { DuplicateKind::Same }
}

fn counted(
    metrics: &crate::telemetry::SourceMetrics,
    began: Instant,
    answer: Result<Receipt, Refusal>,
) -> Result<Receipt, Refusal> {
    let outcome = match &answer {
        Ok(Receipt::Stored { again: Again::Yes, .. } | Receipt::Relayed { again: Again::Yes, .. }) => {
            RequestOutcome::Duplicate
        }
        Ok(Receipt::Stored { buffered: Buffered::No, .. }) => RequestOutcome::Stored,
        Ok(Receipt::Stored { buffered: Buffered::Yes, .. }) => RequestOutcome::Buffered,
        Ok(Receipt::Relayed { status, .. }) if *status < 400 => RequestOutcome::Relayed,
        Ok(Receipt::Relayed { .. }) => RequestOutcome::RefusedByApp,
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
        again: Again,
        /// Whether the application should have answered, and could not.
        buffered: Buffered,
        /// The status.
        status: u16,
        /// The body.
        body: Bytes,
        /// The body's type.
        content_type: HeaderValue,
    },
    /// The application's own answer, in proxy mode.
    Relayed {
        /// The event's id; the original's for a duplicate.
        id: EventId,
        /// Whether an earlier request had brought it.
        again: Again,
        /// The application's status.
        status: u16,
        /// The application's headers that go on to the sender.
        headers: HeaderMap,
        /// The application's body.
        body: Bytes,
    },
}

impl Receipt {
    /// The same, told to whoever sends the event again.
    fn again(self) -> Self {
        match self {
            Self::Stored { id, again: _, buffered, status, body, content_type } => {
                Self::Stored { id, again: Again::Yes, buffered, status, body, content_type }
            }
            Self::Relayed { id, again: _, status, headers, body } => {
                Self::Relayed { id, again: Again::Yes, status, headers, body }
            }
        }
    }
}

/// Whether a request is a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It is the first.
    No,
    /// An earlier request had brought its event.
    Yes,
}

/// Whether an event is kept because the application could not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffered {
    /// It is kept as every event is.
    No,
    /// It is.
    Yes,
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
    /// Another request with the same key is under way, and has not been answered in time or has too many waiting.
    #[error("the same event is under way")]
    UnderWay,
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
            Self::UnderWay => Reason::UnderWay,
            Self::Late { .. } => Reason::Late,
        }
    }
}
