//! Erasing an event.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Of;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::access::MayOperate;
use super::events::{Id, Parameters, no_parameters, parse_id};
use super::problem::Problem;
use super::view::Erased;
use super::{Freshness, State};
use crate::event::EventId;
use crate::journal::{self, Journal, JournalError};

/// Erases one event: 200 once nothing of what its sender wrote is in the journal's directory, 202 while the index still has some.
pub(super) async fn one<J: Journal>(
    MayOperate(who): MayOperate,
    Of(state): Of<Arc<State<J>>>,
    id: Id,
    parameters: Parameters,
) -> Result<Response, Problem> {
    no_parameters(parameters)?;
    let id = parse_id(id)?;
    let journal::Erased { purged } = erase(&state, id).await?;
    tracing::info!(target: "audit", who = who.as_str(), what = "erase", %id, deliveries = purged, "operation");
    let status = match state.catch_up().await {
        Freshness::Current => StatusCode::OK,
        Freshness::Behind => StatusCode::ACCEPTED, // the feeder goes on until it has
    };
    Ok((status, Json(Erased { id: id.to_string(), purged })).into_response())
}

/// Erases it in the journal. The record may have moved since the index was asked, so it is looked for twice.
async fn erase<J: Journal>(state: &State<J>, id: EventId) -> Result<journal::Erased, Problem> {
    let mut freshness = Freshness::Current;
    for _ in 0..2 {
        freshness = state.catch_up().await;
        let Some(located) = state.index.locate(id).await? else { break };
        match state.journal.erase(located).await {
            Ok(erased) => return Ok(erased),
            Err(JournalError::Unknown) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(freshness.no_event())
}
