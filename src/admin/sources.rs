//! The sources of the config, and what waits of each.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Of;
use axum::response::{IntoResponse, Response};

use super::State;
use super::access::MayRead;
use super::events::{Parameters, no_parameters};
use super::problem::Problem;
use super::view::Sources;
use crate::journal::Journal;

/// All of them: there are as many as somebody wrote down.
pub(super) async fn list<J: Journal>(
    _: MayRead,
    Of(state): Of<Arc<State<J>>>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    no_parameters(parameters)?;
    let mut items = state.present.load().sources.clone();
    let stats = state.journal.stats().sources;
    for item in &mut items {
        if let Some(stats) = stats.iter().find(|stats| stats.source.as_str() == item.name) {
            (item.unsettled_bytes, item.over_share) = (stats.unsettled_bytes, stats.over_share);
        }
    }
    Ok(Json(Sources { items }).into_response())
}
