//! The private side: health, metrics, API (docs/admin-api.md).
//!
//! It listens on an address of its own. What needs a token takes `access::MayRead` or
//! `access::MayOperate` in its handler's signature, so a handler without one of them is open on purpose.

mod access;
mod backup;
mod destinations;
mod erase;
mod events;
mod filter;
mod health;
mod problem;
mod pulse;
mod redact;
mod reload;
mod replay;
mod serve;
mod settings;
mod sources;
mod tail;
mod view;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderValue, header};
use tower_http::catch_panic::CatchPanicLayer;

use crate::base::{Clock, Name};
use crate::deliver::Targets;
use crate::index::Index;
use crate::journal::Journal;
use crate::provider::Place;

pub use access::Access;
pub use backup::SIZE as BACKUP_SIZE;
pub use reload::{Reload, ReloadError, Wanted};
pub use serve::{CONNECTIONS, Server};
pub use settings::Settings;
pub use tail::Places as TailPlaces;
pub use view::{
    Attempt, ConfigChange, ConfigProblem, ConfigProblems, Delivery, Destination, Destinations, Erased, Event,
    Explained, Item, Items, Reloaded, Replayed, Source, Sources,
};

use problem::Problem;

/// A request's body, at most.
const BODY_BYTES: usize = 64 << 10;

/// How long an answer may take; a query of the index ends before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long an answer waits for the index to see the newest changes; then it says that it has not.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// What is secret in the requests of a source, by its name and its provider's; none if nobody knows
/// (any more), and then nothing of a request is shown.
///
/// Headers that carry a configured secret as it is (a token check's) belong on the list.
pub type Redactions = Arc<dyn Fn(&Name, &Name) -> Option<Vec<Place>> + Send + Sync>;

/// What the private side has of the present config. A reload replaces it whole.
pub struct Present {
    /// Who may do what.
    pub access: Access,
    /// The sources, as they are shown, in the config's order.
    pub sources: Vec<Source>,
    /// The destinations.
    pub targets: Arc<Targets>,
}

/// What the private side shows and works on.
pub struct State<J> {
    /// What it has of the present config.
    pub present: Arc<ArcSwap<Present>>,
    /// The journal.
    pub journal: J,
    /// Its index.
    pub index: Index,
    /// The time, for `since=1h`.
    pub clock: Arc<dyn Clock>,
    /// Renders the metrics as OpenMetrics text. Must not scan the journal.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// What is secret in a request.
    pub redactions: Redactions,
    /// Reads the config again.
    pub reload: Reload,
    /// One pause or resume at a time, so that what a destination does is what the journal says last.
    pub pausing: tokio::sync::Mutex<()>,
    /// Places for those who follow what happens.
    pub tails: TailPlaces,
    /// Set when the program shuts down: `/readyz` says so, so that no more traffic is sent here.
    pub draining: Arc<AtomicBool>,
}

/// Every route, with its limits and its default headers.
pub fn router<J: Journal>(state: Arc<State<J>>) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/api/v1/events", get(events::list))
        .route("/api/v1/events/{id}", get(events::show).delete(erase::one))
        .route("/api/v1/events/{id}/body", get(events::body))
        .route("/api/v1/events/{id}/replay", post(replay::one))
        .route("/api/v1/backup", get(backup::backup))
        .route("/api/v1/dead-letters", get(events::dead_letters))
        .route("/api/v1/destinations", get(destinations::list))
        .route("/api/v1/destinations/{name}/pause", post(destinations::pause))
        .route("/api/v1/destinations/{name}/resume", post(destinations::resume))
        .route("/api/v1/diff", get(reload::diff))
        .route("/api/v1/reload", post(reload::reload))
        .route("/api/v1/sources", get(sources::list))
        .route("/api/v1/tail", get(tail::tail))
        .fallback(async || Problem::NotFound("there is nothing here"))
        .method_not_allowed_fallback(async || Problem::Method)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(CatchPanicLayer::custom(|_| Problem::Failed.into_response()))
        .layer(middleware::from_fn(finish))
        .with_state(state)
}

/// Bounds the time of every answer, and gives it the headers that all answers have.
async fn finish(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, next.run(request)).await;
    let mut response = answer.unwrap_or_else(|_| Problem::Unavailable("this took too long".into()).into_response());
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether an answer has everything that was in the journal when it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    Current,
    Behind,
}

impl<J: Journal> State<J> {
    /// Gives the index a moment to see the newest changes.
    async fn catch_up(&self) -> Freshness {
        match tokio::time::timeout(CATCH_UP_TIMEOUT, self.index.catch_up()).await {
            Ok(Ok(())) => Freshness::Current,
            Ok(Err(_)) | Err(_) => Freshness::Behind, // the feeder has logged why
        }
    }
}

impl Freshness {
    /// What is said of an event that the index does not know.
    fn no_event(self) -> Problem {
        match self {
            Self::Current => Problem::NotFound("there is no such event, or it is no longer kept"),
            Self::Behind => Problem::Unavailable(
                "the index does not know of this event, and is behind the journal, which may: ask again (the log says why)"
                    .into(),
            ),
        }
    }

    /// Marks an answer that may miss the newest changes.
    fn mark(self, answer: impl IntoResponse) -> Response {
        match self {
            Self::Current => answer.into_response(),
            Self::Behind => ([("forebay-index", "behind")], answer).into_response(),
        }
    }
}
