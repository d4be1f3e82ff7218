//! The sources of the config.

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
    Ok(Json(Sources { items: state.present.load().sources.clone() }).into_response())
}
