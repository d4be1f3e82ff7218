//! Rate limits, by the `governor` crate's GCRA.
//!
//! GCRA is a bucket that refills evenly: after a quiet time `burst` may come at once, and from then on one each
//! `rate.interval()`. [`Limiter`] counts everything together, [`ClientLimiter`] each client by itself.

mod clients;

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::base::Rate;

pub use clients::{CLIENTS_MAX, ClientLimiter};

/// A limit that is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("over the limit")]
pub struct OverLimit {
    /// When a lone client would be let in again; at least a second, in whole seconds.
    pub retry_after: Duration,
    /// The limit's burst, for `RateLimit`.
    pub limit: u32,
}

/// One limit over everything that asks it.
///
/// `C` is where the time comes from; tests give a clock that they move.
#[derive(Debug)]
pub struct Limiter<C: Clock = MonotonicClock> {
    inner: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    burst: u32,
}

impl Limiter {
    /// A limit with its whole burst to spend. A `burst` of 0 counts as 1: nothing would ever pass.
    #[must_use]
    pub fn new(rate: Rate, burst: u32) -> Self {
        Self::with_clock(rate, burst, MonotonicClock)
    }
}

impl<C: Clock + Clone> Limiter<C> {
    /// As [`Limiter::new`], with the time from `clock`.
    #[must_use]
    pub fn with_clock(rate: Rate, burst: u32, clock: C) -> Self {
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        // Above a thousand million a second the interval would round to nothing.
        let interval = rate.interval().max(Duration::from_nanos(1));
        let quota = Quota::with_period(interval).expect("the interval is not zero").allow_burst(burst);
        Self { inner: RateLimiter::direct_with_clock(quota, clock.clone()), clock, burst: burst.get() }
    }
}

impl<C: Clock> Limiter<C> {
    /// Spends one.
    ///
    /// # Errors
    /// [`OverLimit`] if there is none to spend; nothing was spent.
    pub fn check(&self) -> Result<(), OverLimit> {
        self.try_take().map_err(|wait| OverLimit { retry_after: whole_seconds(wait), limit: self.burst })
    }

    /// Spends one.
    ///
    /// # Errors
    /// The exact time until there is one to spend, if there is none now; nothing was spent.
    pub fn try_take(&self) -> Result<(), Duration> {
        self.inner.check().map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

/// `wait` rounded up to whole seconds, at least one: what `Retry-After` can say.
fn whole_seconds(wait: Duration) -> Duration {
    let up = u64::from(wait.subsec_nanos() != 0);
    Duration::from_secs(wait.as_secs().saturating_add(up).max(1))
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn limiter(rate: &str, burst: u32) -> (Limiter<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Limiter::with_clock(Rate::parse(rate).unwrap(), burst, clock.clone()), clock)
    }

    #[test]
    fn the_burst_passes_at_once_and_then_one_each_interval() {
        let (limiter, clock) = limiter("10/s", 3);
        for _ in 0..3 {
            assert_eq!(limiter.check(), Ok(()));
        }
        assert_eq!(limiter.try_take(), Err(Duration::from_millis(100)));
        clock.advance(Duration::from_millis(99));
        assert_eq!(limiter.try_take(), Err(Duration::from_millis(1)));
        clock.advance(Duration::from_millis(1));
        assert_eq!(limiter.try_take(), Ok(()));
        assert!(limiter.try_take().is_err());
    }

    #[test]
    fn what_was_refused_was_not_spent() {
        let (limiter, clock) = limiter("1/s", 1);
        assert_eq!(limiter.check(), Ok(()));
        for _ in 0..1000 {
            assert!(limiter.check().is_err());
        }
        clock.advance(Duration::from_secs(1));
        assert_eq!(limiter.check(), Ok(()));
    }

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (wait, says) in [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (59_001, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(wait)), Duration::from_secs(says), "{wait} ms");
        }
        let (limiter, _clock) = limiter("1/m", 5);
        let over = std::iter::repeat_with(|| limiter.check()).find_map(Result::err).unwrap();
        assert_eq!(over, OverLimit { retry_after: Duration::from_secs(60), limit: 5 });
    }

    #[test]
    fn the_fastest_rate_and_no_burst_are_still_limits() {
        let clock = FakeRelativeClock::default();
        let rate = Rate { count: u32::MAX, per: Duration::from_secs(1) };
        let limiter = Limiter::with_clock(rate, 0, clock.clone());
        assert_eq!(limiter.check(), Ok(()));
        assert!(limiter.check().is_err());
        clock.advance(Duration::from_nanos(1));
        assert_eq!(limiter.check(), Ok(()));
    }
}
