//! Replays.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Of;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;

use super::access::MayOperate;
use super::events::{Id, parse_id};
use super::problem::Problem;
use super::view::Replayed;
use super::{Freshness, State};
use crate::base::Name;
use crate::event::{DeliveryId, DeliveryStatus, EventId};
use crate::index::Detail;
use crate::journal::{Journal, JournalError, Rearm};

/// What the body may say.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    destination: Option<String>,
}

/// Makes the settled deliveries of one event pending again, and has orphaned ones delivered all the same; 202, since they are made later.
pub(super) async fn one<J: Journal>(
    MayOperate(who): MayOperate,
    Of(state): Of<Arc<State<J>>>,
    id: Id,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let id = parse_id(id)?;
    let only = destination(&body.map_err(unread)?)?;
    let (rearmed, detail) = rearm(&state, id, only.as_ref()).await?;
    if rearmed.is_empty() {
        return Err(nothing_to_replay(&detail, only.as_ref()));
    }
    let deliveries: Vec<String> = rearmed.iter().map(DeliveryId::to_string).collect();
    tracing::info!(
        target: "audit",
        who = who.as_str(),
        what = "replay",
        %id,
        destination = only.as_ref().map(Name::as_str),
        deliveries = deliveries.len(),
        "operation"
    );
    Ok((StatusCode::ACCEPTED, Json(Replayed { id: id.to_string(), deliveries })).into_response())
}

/// Rearms through the journal. The record may have moved since the index was asked, so it is looked for twice.
async fn rearm<J: Journal>(
    state: &State<J>,
    id: EventId,
    only: Option<&Name>,
) -> Result<(Vec<DeliveryId>, Detail), Problem> {
    let mut freshness = Freshness::Current;
    for _ in 0..2 {
        freshness = state.catch_up().await;
        let Some(detail) = state.index.show(id).await? else { break };
        match state.journal.rearm(detail.item.located, only.cloned(), Rearm::Replay).await {
            Ok(rearmed) => return Ok((rearmed, detail)),
            Err(JournalError::Unknown) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(freshness.no_event())
}

fn destination(body: &[u8]) -> Result<Option<Name>, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let usage = "the body is `{}` or `{\"destination\":\"NAME\"}`, or empty";
    let order: Order = serde_json::from_slice(body).map_err(|error| Problem::Bad(format!("{usage}: {error}")))?;
    let name = |text: String| Name::new(&text).map_err(|error| Problem::Bad(format!("`destination`: {error}")));
    order.destination.map(name).transpose()
}

fn unread(rejection: BytesRejection) -> Problem {
    match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => Problem::TooLarge,
        _ => Problem::Bad("the body could not be read".into()),
    }
}

/// Why nothing was rearmed.
fn nothing_to_replay(detail: &Detail, only: Option<&Name>) -> Problem {
    let deliveries = &detail.item.deliveries;
    let why = match only {
        _ if deliveries.is_empty() => "this event has no deliveries: its source sends it nowhere".to_owned(),
        Some(name) if !deliveries.iter().any(|delivery| delivery.destination == name.as_str()) => {
            let there: Vec<&str> = deliveries.iter().map(|delivery| delivery.destination.as_str()).collect();
            format!("this event has no delivery to `{name}`; it goes to {}", there.join(", "))
        }
        _ if deliveries.iter().any(|delivery| delivery.status == DeliveryStatus::Orphaned) => {
            "it is orphaned: its destination is not in the config; it is delivered once that and its route are back"
                .to_owned()
        }
        _ if deliveries.iter().any(|delivery| delivery.status == DeliveryStatus::Pending) => {
            "nothing is settled yet: what is pending is delivered anyway".to_owned()
        }
        _ => "nothing could be replayed".to_owned(),
    };
    Problem::Conflict(why)
}
