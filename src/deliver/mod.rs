//! The way out to an application: what is sent, what came of it, and when to try again.

mod attempt;
mod breaker;
mod client;
mod link;
mod request;
mod retry;
mod settings;
mod target;
mod targets;

pub use attempt::{Made, attempt};
pub use breaker::{Breaker, Gate};
pub use client::{Client, ClientError, Connection, Connector, Failure, FailureKind, Keep, Reply, Whole, connect};
pub use link::Link;
pub use request::{Outbound, TargetError, carry_over, check_path, relayed, request, target};
pub use retry::{RetryAfter, Tried, judge};
pub use settings::{BreakerPolicy, Destination, HeaderEdits, Jitter, RetryPolicy};
pub use target::{Asked, Healthy, InHand, Patience, Target, Turn, Wait, Way};
pub use targets::Targets;
