//! STORY 1: one webhook, from request head to answer.

mod receipt;
mod refusal;
mod relay;
#[cfg(test)]
mod tests;
mod underway;

use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use http_body_util::combinators::BoxBody;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower::Service;

use crate::admit::Lease;
use crate::base::{Clock, Tasks};
use crate::event::Head;
use crate::journal::{AppendError, Appended, Claim, Entry, Journal, Sync};
use crate::provider::VerifiedEvent;
use crate::router::Router;
use crate::source::{Mode, Source};
use crate::telemetry::{DuplicateKind, Metrics, RequestOutcome};

use receipt::acknowledged;

pub use receipt::{Again, Buffered, Receipt};
pub use refusal::Refusal;
pub use underway::Underway;

/// Takes webhooks. One for the whole program, shared.
pub struct Intake<J> {
    /// The sources of the present config, by host and path. A request keeps to the source it has found.
    pub router: ArcSwap<Router<Arc<Source>>>,
    /// Where events are kept.
    pub journal: J,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Metrics,
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
        let Inbound { host, head, body } = request;
        let Some((source, params)) = self.router.load().find(host.as_deref(), &head.path) else {
            let unknown = self.metrics.unknown_source();
            return counted(unknown, began, Err(Refusal::NoRoute));
        };
        let answer = async {
            if !source.takes(&head.method) {
                return Err(Refusal::Method { allowed: source.settings().methods.clone() });
            }
            source.admit(&head, &self.journal.room_for(&source.settings().name))?; // no body read yet
            let deadline = source.settings().deadline;
            let read = tokio::time::timeout_at(began + deadline, source.read(head, params, body)).await;
            let (received, lease) = read.map_err(|_elapsed| Refusal::Late { deadline })??;
            if let Some(answer) = source.unsigned_handshake(&received, self.clock.now())? {
                return Ok(Receipt::Handshake(answer));
            }
            if !source.takes_events(&received.head.method) {
                return Err(Refusal::Method { allowed: source.settings().methods.clone() });
            }
            let event = source.verify(received, self.clock.now())?;
            if let Some(answer) = source.signed_handshake(&event) {
                return Ok(Receipt::Handshake(answer));
            }
            source.spend_quota(&event)?;
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
        let claim = source.claim(&event);
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
        let late = |_elapsed| Refusal::Late { deadline: source.settings().deadline };
        let appended = append.await.map_err(late)??;
        count_appended(source, appended);
        let (id, again) = match appended {
            Appended::Fresh(kept) | Appended::SameBody { kept, .. } => (kept.id, Again::No),
            Appended::Duplicate { original, .. } => (original.id, Again::Yes),
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

/// Counts what an append came to.
fn count_appended(source: &Source, appended: Appended) {
    match appended {
        Appended::Fresh(_) => source.metrics().stored(),
        Appended::SameBody { .. } => {
            source.metrics().stored();
            source.metrics().duplicate(DuplicateKind::SameBody);
        }
        Appended::Duplicate { conflict, .. } => source.metrics().duplicate(duplicate_kind(conflict)),
    }
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
        Ok(Receipt::Handshake(_)) => RequestOutcome::Handshake,
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
    /// The `Host` (or `:authority`) that it has itself, by which its source is found, whatever a proxy says of it.
    pub host: Option<Box<str>>,
    /// Its head.
    pub head: Head,
    /// Its body.
    pub body: BoxBody<Bytes, hyper::Error>,
}
