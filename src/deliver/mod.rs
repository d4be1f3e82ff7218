//! The way out to an application: what is sent, what came of it, and when to try again.

mod breaker;
mod client;
mod request;
mod retry;
mod settings;

pub use breaker::{Breaker, Gate};
pub use client::{Client, ClientError, Failure, FailureKind, Reply};
pub use request::{Outbound, TargetError, check_path, request};
pub use retry::{RetryAfter, Tried, judge};
pub use settings::{BreakerPolicy, Destination, HeaderEdits, Jitter, RetryPolicy};
