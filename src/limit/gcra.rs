//! The arithmetic of GCRA, the generic cell rate algorithm (ITU-T I.371, the virtual scheduling algorithm), over
//! nanoseconds from an origin of the caller's.
//!
//! A state is one number: the time at which the whole burst is there again. That is in the past for a limit nobody
//! has used for a while, and each request moves it by one interval, up to a whole burst ahead of now.
//!
//! The `governor` crate has the same arithmetic, but cannot be asked without spending, counts a clock that was set
//! back against the client for as long as it was set back, and overflows where burst × interval is over 584 years.

use std::time::Duration;

use tokio::time::Instant;

use crate::base::Rate;

/// A moment, in nanoseconds from an origin.
pub(super) type Nanos = i64;

/// The longest that a whole burst may take to come back; far enough from where sums would overflow.
const REFILL_MAX: Nanos = Nanos::MAX / 4;

/// A rate and a burst.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gcra {
    interval: Nanos,
    refill: Nanos,
}

impl Gcra {
    /// A `burst` of 0 counts as 1, as nothing would ever pass; one that takes longer than 73 years to come back is cut there.
    pub(super) fn new(rate: Rate, burst: u32) -> Self {
        // Above a thousand million a second the interval would round to nothing.
        let interval = nanos(rate.interval()).clamp(1, REFILL_MAX);
        let refill = interval.saturating_mul(Nanos::from(burst.max(1))).min(REFILL_MAX);
        Self { interval, refill }
    }

    /// The state after one more at `now`, from the state before it; none is a limit that nobody has used.
    ///
    /// # Errors
    /// The time until one more would pass.
    pub(super) fn one_more(&self, whole_at: Option<Nanos>, now: Nanos) -> Result<Nanos, Duration> {
        let after = self.owed(whole_at, now).saturating_add(self.interval);
        match u64::try_from(after.saturating_sub(self.refill)) {
            Ok(over) if over > 0 => Err(Duration::from_nanos(over)),
            _ => Ok(now.saturating_add(after)),
        }
    }

    /// Whether the whole burst is there at `now`: such a state need not be remembered.
    pub(super) fn is_whole(&self, whole_at: Nanos, now: Nanos) -> bool {
        self.owed(Some(whole_at), now) == 0
    }

    /// How long the whole burst takes to come back.
    pub(super) fn refill(&self) -> Duration {
        Duration::from_nanos(u64::try_from(self.refill).unwrap_or(0))
    }

    /// `whole_at`, or what it would be for a limit spent at `now`: further away it is only where the clock was set back,
    /// and that is not held against anybody.
    pub(super) fn at_most_spent(&self, whole_at: Nanos, now: Nanos) -> Nanos {
        whole_at.min(now.saturating_add(self.refill))
    }

    /// How long from `now` until the whole burst is there.
    fn owed(&self, whole_at: Option<Nanos>, now: Nanos) -> Nanos {
        whole_at.map_or(0, |at| at.saturating_sub(now).max(0))
    }
}

/// The moment `now`, before or after `origin`.
pub(super) fn moment(origin: Instant, now: Instant) -> Nanos {
    match now.checked_duration_since(origin) {
        Some(after) => nanos(after),
        None => -nanos(origin.duration_since(now)),
    }
}

/// `duration` in nanoseconds; 292 years at most.
pub(super) fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}
