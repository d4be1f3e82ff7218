//! Why a request was turned away.

use std::time::Duration;

use http::Method;

use crate::admit::Denied;
use crate::journal::AppendError;
use crate::source::Unproven;
use crate::telemetry::Reason;

/// Why a request was turned away.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No source has this path and host.
    #[error("no source has this path")]
    NoRoute,
    /// The source does not take this method.
    #[error("the source does not take this method")]
    Method {
        /// What it takes, for `Allow`.
        allowed: Vec<Method>,
    },
    /// Not admitted; nothing of its body was looked at.
    #[error("not admitted")]
    Denied(#[from] Denied),
    /// Not verified.
    #[error("not verified")]
    Unverified(#[source] crate::provider::Rejection),
    /// The source's quota is spent.
    #[error("over the source's limit")]
    OverQuota(#[from] crate::limit::OverLimit),
    /// Verified, and not kept.
    #[error("the event could not be kept")]
    NotKept(#[from] crate::journal::AppendError),
    /// Another request with the same key is under way, and has not been answered in time or has too many waiting.
    #[error("the same event is under way")]
    UnderWay,
    /// The deadline was over first.
    #[error("the deadline was over before the event was durable")]
    Late {
        /// The source's deadline.
        deadline: Duration,
    },
}

impl From<Unproven> for Refusal {
    fn from(unproven: Unproven) -> Self {
        match unproven {
            Unproven::Rejected(rejection) => Self::Unverified(rejection),
            Unproven::TooMany(over) => Self::Denied(over.into()),
        }
    }
}

impl Refusal {
    /// The word for it in metrics and logs.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoRoute => Reason::NoRoute,
            Self::Method { .. } => Reason::Method,
            Self::Denied(Denied::NoRoom { .. }) => Reason::NoRoom,
            Self::Denied(Denied::Client) => Reason::Client,
            Self::Denied(Denied::TooFast(_)) => Reason::TooFast,
            Self::Denied(Denied::Busy) => Reason::Busy,
            Self::Denied(Denied::TooLarge { .. }) => Reason::TooLarge,
            Self::Denied(Denied::TooSlow) => Reason::TooSlow,
            Self::Denied(Denied::Broken) => Reason::Broken,
            Self::Denied(Denied::Malformed) => Reason::Malformed,
            Self::Denied(Denied::Encoded) => Reason::Encoded,
            Self::Unverified(_) => Reason::Unverified,
            Self::OverQuota(_) => Reason::OverQuota,
            Self::NotKept(AppendError::OverShare { .. }) => Reason::NoRoom,
            Self::NotKept(_) => Reason::NotKept,
            Self::UnderWay => Reason::UnderWay,
            Self::Late { .. } => Reason::Late,
        }
    }
}
