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
use super::{Freshness, Redactions, State, view};
use crate::base::Name;
use crate::event::{Event, EventId};
use crate::index::{Detail, Item, Page};
use crate::journal::{Journal, JournalError, Kept};
use crate::provider::Place;

/// The id in a path, which may not even be text.
pub(super) type Id = Result<Path<String>, PathRejection>;

pub(super) type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// One page of the events.
pub(super) async fn list<J: Journal>(
    _: MayRead,
    Of(state): Of<Arc<State<J>>>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let filter = filter(List::Events, &pairs(parameters)?, state.clock.now())?;
    let freshness = state.catch_up().await;
    Ok(freshness.mark(Json(shown(&state, state.index.list(filter).await?))))
}

/// One page of the events with a dead delivery.
pub(super) async fn dead_letters<J: Journal>(
    _: MayRead,
    Of(state): Of<Arc<State<J>>>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let filter = filter(List::DeadLetters, &pairs(parameters)?, state.clock.now())?;
    let freshness = state.catch_up().await;
    Ok(freshness.mark(Json(shown(&state, state.index.dead_letters(filter).await?))))
}

/// One event. A record that is damaged or erased costs its headers; what the index knows is shown.
pub(super) async fn show<J: Journal>(
    _: MayRead,
    Of(state): Of<Arc<State<J>>>,
    id: Id,
    parameters: Parameters,
) -> Result<Response, Problem> {
    no_parameters(parameters)?;
    let freshness = state.catch_up().await;
    let mut detail = detail(&state, parse_id(id)?, freshness).await?;
    hide_target(&state.redactions, &mut detail.item);
    let shown = match record(&state, &detail).await {
        Ok(kept) => {
            let secret = secrets(&state, &kept.event);
            view::event(&detail, Ok(&kept), redact::headers(&kept.event.headers, secret.as_deref()))
        }
        Err(Lost::Unreadable(error)) => view::event(&detail, Err(&error), Vec::new()),
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
    let detail = detail(&state, parse_id(id)?, freshness).await?;
    let Kept { event, .. } = record(&state, &detail).await.map_err(Lost::into_problem)?;
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
    if !secret.iter().any(|place| matches!(place, Place::Json(_) | Place::Form(_))) {
        return Ok(Shown::Exact(event.body));
    }
    let redact = move || {
        let content_type = event.headers.iter().find(|(name, _)| name == header::CONTENT_TYPE);
        redact::body(Bytes::clone(&event.body), content_type.map(|(_, value)| value.as_bytes()), &secret)
    };
    tokio::task::spawn_blocking(redact).await.map_err(|_| Problem::Failed)
}

pub(super) fn pairs(parameters: Parameters) -> Result<Vec<(String, String)>, Problem> {
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

async fn detail<J: Journal>(state: &State<J>, id: EventId, freshness: Freshness) -> Result<Detail, Problem> {
    state.index.show(id).await?.ok_or_else(|| freshness.no_event())
}

/// Hides what is secret in a request's path and query.
/// A page, with what is secret in the events' targets hidden.
fn shown<J>(state: &State<J>, mut page: Page) -> view::Items {
    page.items.iter_mut().for_each(|row| hide_target(&state.redactions, row));
    view::Items::from(page)
}

/// Hides what is secret in an event's path and query.
pub(super) fn hide_target(redactions: &Redactions, row: &mut Item) {
    let names = Name::new(&row.source).ok().zip(Name::new(&row.provider).ok());
    let secret = names.and_then(|(source, provider)| redactions(&source, &provider));
    row.query = row.query.as_deref().map(|query| redact::query(query, secret.as_deref()));
    row.path = redact::path(&row.path, secret.as_deref()).to_owned();
}

fn secrets<J>(state: &State<J>, event: &Event) -> Option<Vec<Place>> {
    (state.redactions)(&event.source, &event.provider)
}

/// Why a record is not at hand.
enum Lost {
    Unreadable(JournalError),
    Other(Problem),
}

impl Lost {
    fn into_problem(self) -> Problem {
        match self {
            Self::Unreadable(error) => error.into(),
            Self::Other(problem) => problem,
        }
    }
}

/// The event's record. It may have moved since the index was asked, so it is looked for twice.
async fn record<J: Journal>(state: &State<J>, detail: &Detail) -> Result<Kept, Lost> {
    let mut at = detail.item.located;
    for _ in 0..2 {
        match state.journal.event(at).await {
            Ok(Some(kept)) => return Ok(kept),
            Ok(None) => {}
            Err(error @ (JournalError::Damaged | JournalError::Erased)) => return Err(Lost::Unreadable(error)),
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
