//! Health and metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State as Of;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::json;

use super::State;
use super::access::{MayScrape, Trusted};
use crate::journal::{Journal, Room};

/// The program lives.
pub(super) async fn alive() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// The program can take events and keep them. Why it cannot is for those who may read, and so is what is no reason to take none:
/// how many stretches of the journal were found damaged, and an index that cannot follow.
pub(super) async fn ready<J: Journal>(Of(state): Of<Arc<State<J>>>, Trusted(trusted): Trusted) -> Response {
    let reasons = reasons(state.journal.room(), state.draining.load(Ordering::Relaxed));
    match (reasons.is_empty(), trusted) {
        (true, true) => {
            let mut said = serde_json::Map::from_iter([("status".to_owned(), json!("ready"))]);
            let damaged = state.journal.stats().damaged;
            if damaged > 0 {
                said.insert("damaged".to_owned(), damaged.into());
            }
            if let Some(trouble) = state.index.trouble() {
                said.insert("index".to_owned(), format!("{trouble}; it is tried again").into());
            }
            Json(said).into_response()
        }
        (true, false) => Json(json!({ "status": "ready" })).into_response(),
        (false, true) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "unready", "reasons": reasons }))).into_response()
        }
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "unready" }))).into_response(),
    }
}

/// What keeps it from taking events, by component.
fn reasons(room: Room, draining: bool) -> BTreeMap<&'static str, String> {
    let mut reasons = BTreeMap::new();
    match room {
        Room::Open | Room::OverShare { .. } => {} // events of others are taken
        Room::Full { retry_after, refused } => {
            let seconds = retry_after.as_secs().max(1);
            let what = match refused {
                None => "full: what waits takes all of journal.max_size, or the disk has no more".to_owned(),
                Some(error) => format!("it cannot be written just now: {error}"),
            };
            reasons.insert("journal", format!("{what}; looked at again in {seconds} s"));
        }
        Room::Stalled { .. } => {
            reasons.insert("journal", "the disk does not answer: a write or a flush hangs".to_owned());
        }
        Room::Failed(reason) => {
            reasons.insert("journal", format!("failed: {reason}; it recovers only by a restart"));
        }
    }
    if draining {
        reasons.insert("gateway", "shutting down".to_owned());
    }
    reasons
}

/// The metrics as OpenMetrics 1.0 text.
pub(super) async fn metrics<J: Journal>(_: MayScrape, Of(state): Of<Arc<State<J>>>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], (state.metrics)()).into_response()
}
