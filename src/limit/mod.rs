//! Rate limits, by GCRA: a bucket that refills evenly. After a quiet time `burst` may come at once, and from then on
//! one each `rate.interval()`.
//!
//! [`Limiter`] counts everything together; [`Limits`] are those of a source or a client, several at once and each
//! by what it counts together.

mod gcra;
mod limits;
mod tally;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::HeaderName;
use tokio::time::Instant;

use crate::base::Rate;
use crate::telemetry::LimitedPer;

use gcra::{Gcra, Nanos, moment};

pub use limits::Limits;
pub use tally::KEYS_MAX;

/// A limit on requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How many in a time, evenly.
    pub rate: Rate,
    /// How many at once after a quiet time; at least 1.
    pub burst: u32,
    /// What is counted together.
    pub per: Per,
}

/// What a [`RateLimit`] counts together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Per {
    /// One client: an IPv4 address or an IPv6 /64. Every request counts, before its body is read.
    ClientIp,
    /// The source. Only verified requests count.
    Source,
    /// Requests with the same value of this header; those without it together. Only verified requests count.
    Header(HeaderName),
    /// One client's requests that failed verification, at all sources. Nothing else counts.
    Unverified,
}

impl Per {
    /// The word for it in metrics, and the name of the policy that a sender is told.
    #[must_use]
    pub fn word(&self) -> LimitedPer {
        match self {
            Self::ClientIp => LimitedPer::ClientIp,
            Self::Source => LimitedPer::Source,
            Self::Header(_) => LimitedPer::Header,
            Self::Unverified => LimitedPer::Unverified,
        }
    }
}

/// A limit that is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("over the limit per {}", crate::telemetry::Word::as_str(*.per))]
pub struct OverLimit {
    /// Which limit.
    pub per: LimitedPer,
    /// When a lone client would be let in again; more than nothing.
    pub retry_after: Duration,
    /// The limit's burst, for `RateLimit-Policy`.
    pub quota: u32,
    /// How long the whole burst takes to come back, for `RateLimit-Policy`.
    pub window: Duration,
}

/// One limit over everything that asks it.
#[derive(Debug)]
pub struct Limiter {
    gcra: Gcra,
    origin: Instant,
    whole_at: AtomicI64,
}

impl Limiter {
    /// A limit with its whole burst to spend. A `burst` of 0 counts as 1: nothing would ever pass.
    #[must_use]
    pub fn new(rate: Rate, burst: u32) -> Self {
        Self { gcra: Gcra::new(rate, burst), origin: Instant::now(), whole_at: AtomicI64::new(Nanos::MIN) }
    }

    /// Spends one.
    ///
    /// # Errors
    /// The exact time until there is one to spend, if there is none now; nothing was spent.
    pub fn try_take(&self) -> Result<(), Duration> {
        let now = moment(self.origin, Instant::now());
        let mut before = self.whole_at.load(Ordering::Relaxed);
        loop {
            let after = self.gcra.one_more(Some(before), now)?;
            match self.whole_at.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(meanwhile) => before = meanwhile,
            }
        }
    }
}
