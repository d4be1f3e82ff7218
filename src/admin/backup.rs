//! A backup of the journal, as a stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State as Of};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;

use super::State;
use super::access::MayOperate;
use super::events::{Parameters, no_parameters};
use super::problem::Problem;
use super::pulse::Pulse;
use crate::journal::{Backup, Journal};

/// A client that makes no room for the next piece within this is cut off: it must not hold what the journal would let go of.
const STALLED: Duration = Duration::from_secs(60);

/// The archive as it is made. It is whole if it ends with its manifest: once the head is out there is no other way to say so.
pub(super) async fn backup<J: Journal>(
    MayOperate(who): MayOperate,
    Of(state): Of<Arc<State<J>>>,
    parameters: Parameters,
    request: Request,
) -> Result<Response, Problem> {
    no_parameters(parameters)?;
    let Backup { bytes, pieces } = state.journal.backup().await?;
    tracing::info!(target: "audit", who = who.as_str(), what = "backup", bytes, "operation");
    let given = Given { pieces, pulse: request.extensions().get().cloned() };
    let stream = futures_util::stream::unfold(given, async |mut given| {
        let piece = given.next().await?;
        Some((Ok::<_, Infallible>(piece), given))
    });
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/x-tar".to_owned()),
        (header::CONTENT_DISPOSITION.as_str(), "attachment; filename=\"forebay-backup.tar\"".to_owned()),
        (SIZE, bytes.to_string()),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// About how many bytes will come.
pub const SIZE: &str = "forebay-backup-bytes";

struct Given {
    pieces: tokio::sync::mpsc::Receiver<Bytes>,
    pulse: Option<Pulse>,
}

impl Given {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(pulse) = &self.pulse {
            pulse.taken();
        }
        let piece = self.pieces.recv().await;
        if let Some(pulse) = &self.pulse {
            pulse.given_for(STALLED);
        }
        piece
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if let Some(pulse) = &self.pulse {
            pulse.ended();
        }
    }
}
