//! Lists of events, one event, its body.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Of};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderName, header};

use super::access::MayRead;
use super::filter::{List, filter};
use super::problem::Problem;
use super::redact::{self, Shown};
use super::{State, view};
use crate::event::{Event, EventId};
use crate::index::Detail;
use crate::journal::{Journal, JournalError};
use crate::provider::Place;

/// The id in a path, which may not even be text.
pub(super) type Id = Result<Path<String>, PathRejection>;

type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// One page of the events.
pub(super) async fn list<J: Journal>(
    _: MayRead,
    Of(state): Of<Arc<State<J>>>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    page(&state, List::Events, parameters).await
}

/// One page of the events with a dead delivery.
pub(super) async fn dead_letters<J: Journal>(
    _: MayRead,
    Of(state): Of<Arc<State<J>>>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    page(&state, List::DeadLetters, parameters).await
}

async fn page<J: Journal>(state: &State<J>, which: List, parameters: Parameters) -> Result<Response, Problem> {
    let filter = filter(which, &pairs(parameters)?, state.clock.now())?;
    let freshness = state.catch_up().await;
    let page = match which {
        List::Events => state.index.list(filter).await?,
        List::DeadLetters => state.index.dead_letters(filter).await?,
    };
    Ok(freshness.mark(Json(view::Items::from(page))))
}

/// One event. A damaged record costs its headers; what the index knows is shown.
pub(super) async fn show<J: Journal>(
    _: MayRead,
    Of(state): Of<Arc<State<J>>>,
    id: Id,
    parameters: Parameters,
) -> Result<Response, Problem> {
    no_parameters(parameters)?;
    let freshness = state.catch_up().await;
    let detail = detail(&state, parse_id(id)?).await?;
    let shown = match record(&state, &detail).await {
        Ok(event) => {
            let secret = secrets(&state, &event);
            view::event(&detail, Ok(&event), redact::headers(&event.headers, secret.as_deref()))
        }
        Err(Lost::Damaged(error)) => view::event(&detail, Err(&error), Vec::new()),
        Err(Lost::Other(problem)) => return Err(problem),
    };
    Ok(freshness.mark(Json(shown)))
}

/// An event's body, as a file: a browser must not run what a sender wrote.
pub(super) async fn body<J: Journal>(
    _: MayRead,
    Of(state): Of<Arc<State<J>>>,
    id: Id,
    parameters: Parameters,
) -> Result<Response, Problem> {
    no_parameters(parameters)?;
    let freshness = state.catch_up().await;
    let detail = detail(&state, parse_id(id)?).await?;
    let event = record(&state, &detail).await.map_err(Lost::into_problem)?;
    let Some(secret) = secrets(&state, &event) else { return Err(Problem::Withheld(UNKNOWN_SECRETS)) };

    let file = format!("attachment; filename=\"{}.bin\"", event.id);
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, file.as_str()),
        (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"),
    ];
    match redacted(event, secret).await? {
        Shown::Exact(body) => Ok(freshness.mark((headers, body))),
        Shown::Redacted(body) => Ok(freshness.mark((headers, [(REDACTED, "true")], body))),
        Shown::Withheld => Err(Problem::Withheld(UNREADABLE)),
    }
}

/// Says that a body is not the exact bytes that came.
const REDACTED: HeaderName = HeaderName::from_static("forebay-redacted");

const UNKNOWN_SECRETS: &str = "neither the event's source nor its provider is in the config any more, so nobody knows \
    what is secret in this body";

const UNREADABLE: &str = "the event's provider sends secrets in the body, and this one cannot be read to hide them";

/// Parsing a large body takes a while: not on a thread that serves others.
async fn redacted(event: Event, secret: Vec<Place>) -> Result<Shown, Problem> {
    if !secret.iter().any(|place| matches!(place, Place::Json(_))) {
        return Ok(Shown::Exact(event.body));
    }
    let redact = move || {
        let content_type = event.headers.iter().find(|(name, _)| name == header::CONTENT_TYPE);
        redact::body(Bytes::clone(&event.body), content_type.map(|(_, value)| value.as_bytes()), &secret)
    };
    tokio::task::spawn_blocking(redact).await.map_err(|_| Problem::Failed)
}

fn pairs(parameters: Parameters) -> Result<Vec<(String, String)>, Problem> {
    match parameters {
        Ok(Query(pairs)) => Ok(pairs),
        Err(rejection) => Err(Problem::Bad(rejection.body_text())),
    }
}

pub(super) fn no_parameters(parameters: Parameters) -> Result<(), Problem> {
    match pairs(parameters)?.first() {
        None => Ok(()),
        Some((name, _)) => Err(Problem::Bad(format!("`{name}` is not a parameter; there are none here"))),
    }
}

pub(super) fn parse_id(id: Id) -> Result<EventId, Problem> {
    let id = id.ok().and_then(|Path(text)| text.parse().ok());
    id.ok_or_else(|| Problem::Bad("this is not an event's id; one is `evt_` and 32 hex digits".into()))
}

async fn detail<J: Journal>(state: &State<J>, id: EventId) -> Result<Detail, Problem> {
    state.index.show(id).await?.ok_or(Problem::NotFound("there is no such event, or it is no longer kept"))
}

fn secrets<J>(state: &State<J>, event: &Event) -> Option<Vec<Place>> {
    (state.redactions)(&event.source, &event.provider)
}

/// Why a record is not at hand.
enum Lost {
    Damaged(JournalError),
    Other(Problem),
}

impl Lost {
    fn into_problem(self) -> Problem {
        match self {
            Self::Damaged(error) => error.into(),
            Self::Other(problem) => problem,
        }
    }
}

/// The event's record. It may have moved since the index was asked, so it is looked for twice.
async fn record<J: Journal>(state: &State<J>, detail: &Detail) -> Result<Event, Lost> {
    let mut at = detail.item.located;
    for _ in 0..2 {
        match state.journal.event(at).await {
            Ok(Some(kept)) => return Ok(kept.event),
            Ok(None) => {}
            Err(error @ JournalError::Damaged) => return Err(Lost::Damaged(error)),
            Err(error) => return Err(Lost::Other(error.into())),
        }
        state.catch_up().await;
        match state.index.locate(at.id).await {
            Ok(Some(now)) => at = now,
            Ok(None) => break,
            Err(error) => return Err(Lost::Other(error.into())),
        }
    }
    Err(Lost::Other(JournalError::Unknown.into()))
}
