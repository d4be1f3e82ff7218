//! The config, read again: put in force, or only compared.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Of;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use http::StatusCode;

use super::State;
use super::access::{MayOperate, MayRead};
use super::events::{Parameters, no_parameters};
use super::problem::Problem;
use super::view::{ConfigProblems, Reloaded};
use crate::journal::Journal;

/// Reads the config again.
pub type Reload = Arc<dyn Fn(Wanted) -> BoxFuture<'static, Result<Reloaded, ReloadError>> + Send + Sync>;

/// What is done with a config that was read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is put in force.
    Apply,
    /// It is compared with the one that is in force.
    Compare,
}

/// Why the config of before stays in force.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReloadError {
    /// The new one cannot be used.
    #[error("{}", .0.error)]
    Refused(ConfigProblems),
    /// The program ends.
    #[error("the gateway is shutting down")]
    Ending,
}

/// How the file differs from the config in force.
pub(super) async fn diff<J: Journal>(
    _: MayRead,
    Of(state): Of<Arc<State<J>>>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    no_parameters(parameters)?;
    Ok(answer((state.reload)(Wanted::Compare).await))
}

/// Puts the file in force; 422 with everything that is wrong with it if it cannot be.
pub(super) async fn reload<J: Journal>(
    MayOperate(who): MayOperate,
    Of(state): Of<Arc<State<J>>>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    no_parameters(parameters)?;
    tracing::info!(target: "audit", who = who.as_str(), what = "reload", "operation");
    Ok(answer((state.reload)(Wanted::Apply).await))
}

fn answer(read: Result<Reloaded, ReloadError>) -> Response {
    match read {
        Ok(reloaded) => Json(reloaded).into_response(),
        Err(ReloadError::Refused(problems)) => (StatusCode::UNPROCESSABLE_ENTITY, Json(problems)).into_response(),
        Err(ending @ ReloadError::Ending) => Problem::Unavailable(ending.to_string()).into_response(),
    }
}
