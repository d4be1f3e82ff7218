//! Rate limits, by the `governor` crate's GCRA (ITU-T I.371): a bucket that refills evenly. After a quiet time `burst`
//! may come at once, and from then on one each `rate.interval()`.
//!
//! [`Limiter`] counts everything together; [`Limits`] are those of a source or a client, several at once and each
//! by what it counts together. governor decides; its clock and what it remembers of whom are ours.

mod clock;
mod limits;
mod tally;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use http::HeaderName;
use tokio::time::Instant;

use crate::base::Rate;
use crate::telemetry::LimitedPer;

use clock::{Clock, Forward};

pub use limits::Limits;
pub use tally::{ClientKey, KEYS_MAX};

/// A whole burst may take this long to come back, a year: more is hardly meant.
pub const REFILL_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What takes longer is cut, at a century: governor counts nanoseconds in 64 bits, which are 584 years.
const REFILL_CUT: Duration = REFILL_MAX.saturating_mul(100);

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

impl RateLimit {
    /// The largest burst that comes back within [`REFILL_MAX`] at `rate`.
    #[must_use]
    pub fn burst_max(rate: Rate) -> u32 {
        burst_within(REFILL_MAX, rate)
    }
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
    time: Mutex<Forward>,
    governor: RateLimiter<NotKeyed, InMemoryState, Clock, NoOpMiddleware<Nanos>>,
}

impl Limiter {
    /// A limit with its whole burst to spend. A `burst` of 0 counts as 1: nothing would ever pass.
    #[must_use]
    pub fn new(rate: Rate, burst: u32) -> Self {
        let time = Forward::new();
        let governor = RateLimiter::direct_with_clock(quota(rate, burst), time.clock());
        Self { time: Mutex::new(time), governor }
    }

    /// Spends one.
    ///
    /// # Errors
    /// The exact time until there is one to spend, if there is none now; nothing was spent.
    pub fn try_take(&self) -> Result<(), Duration> {
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        let now = time.move_to(Instant::now());
        self.governor.check().map_err(|until| until.wait_time_from(now))
    }
}

/// What governor counts by. A `burst` of 0 counts as 1, as nothing would ever pass, and one that takes longer than
/// [`REFILL_CUT`] to come back is cut there.
fn quota(rate: Rate, burst: u32) -> Quota {
    let burst = burst.min(burst_within(REFILL_CUT, rate));
    let quota = Quota::with_period(interval(rate)).expect("the interval is not zero");
    quota.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN))
}

/// The largest burst that comes back within `refill`.
fn burst_within(refill: Duration, rate: Rate) -> u32 {
    let intervals = refill.as_nanos() / interval(rate).as_nanos();
    u32::try_from(intervals).unwrap_or(u32::MAX)
}

/// The time between two when they come evenly. Above a thousand million a second it would round to nothing.
fn interval(rate: Rate) -> Duration {
    rate.interval().clamp(Duration::from_nanos(1), REFILL_CUT)
}
