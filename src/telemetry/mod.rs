//! Logs and metrics: every metric's name and handle, and how logging is set up.

mod families;
pub mod logs;
pub mod metrics;
mod words;

pub use metrics::{BreakerState, ConnectionMetrics, DestinationMetrics, JournalMetrics, Metrics, SourceMetrics};
pub use words::{
    CutOff, DeliveryOutcome, DuplicateKind, LimitedPer, Reason, ReloadOutcome, RequestOutcome, VerificationOutcome,
    Word,
};

/// How logs look, and how much of them there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// `auto` is text on a terminal, JSON elsewhere.
    pub format: LogFormat,
    /// A level or a filter as of `tracing_subscriber::EnvFilter`.
    pub level: String,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned() }
    }
}
