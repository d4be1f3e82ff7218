//! What went wrong, as an answer: `{"error":"…"}`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::index::IndexError;
use crate::journal::JournalError;

/// Why a request of the private side is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// A parameter or body is not as it must be; the text names it and the cure.
    #[error("{0}")]
    Bad(String),
    #[error("a valid token is needed: `Authorization: Bearer …`")]
    Unauthorized,
    #[error("this needs the token that may operate; the read token may only read")]
    ReadOnly,
    #[error("a page of another site may not do this")]
    ForeignSite,
    #[error("without a token, the host must be an IP address or localhost")]
    ForeignHost,
    /// What may not be shown, and why.
    #[error("{0}")]
    Withheld(&'static str),
    #[error("{0}")]
    NotFound(&'static str),
    #[error("{0}")]
    Gone(&'static str),
    #[error("this path does not take this method")]
    Method,
    /// The event does not stand as it would have to.
    #[error("{0}")]
    Conflict(String),
    #[error("the body is too large")]
    TooLarge,
    /// Later it may go.
    #[error("{0}")]
    Unavailable(String),
    #[error("something failed; the log says what")]
    Failed,
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::ReadOnly | Self::ForeignSite | Self::Withheld(_) => StatusCode::FORBIDDEN,
            Self::ForeignHost => StatusCode::MISDIRECTED_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Gone(_) => StatusCode::GONE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        match self {
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"forebay\""));
            }
            Self::Unavailable(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        (self.status(), headers, Json(serde_json::json!({ "error": self.to_string() }))).into_response()
    }
}

impl From<IndexError> for Problem {
    fn from(error: IndexError) -> Self {
        match error {
            error if error.may_pass() => Self::Unavailable(error.to_string()),
            error => {
                tracing::error!(%error, "the index could not be asked");
                Self::Failed
            }
        }
    }
}

impl From<JournalError> for Problem {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Unknown => Self::NotFound("this event is no longer kept"),
            JournalError::Erased => Self::Gone("this event was erased"),
            JournalError::Orphaned | JournalError::Busy => Self::Conflict(error.to_string()),
            JournalError::Damaged => Self::Conflict("the event's record is damaged".into()),
            JournalError::NoKey(_) => Self::Conflict(error.to_string()),
            JournalError::Full | JournalError::Failed(_) | JournalError::Closed | JournalError::Fenced => {
                Self::Unavailable(error.to_string())
            }
            JournalError::Read(_) => {
                tracing::error!(%error, "the journal could not be read");
                Self::Failed
            }
        }
    }
}
