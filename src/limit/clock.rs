//! governor's clock over tokio's, which tests can pause and wind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::nanos::Nanos;
use tokio::time::Instant;

/// Where it stops: 292 years. So far from the end of [`Nanos`], a time and a whole burst still have a sum.
const END: u64 = u64::MAX / 2;

/// Nanoseconds since it was made. All clones show the same, and only [`Forward`] moves them.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock(Arc<AtomicU64>);

impl governor::clock::Clock for Clock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

/// Moves a [`Clock`] with the time, and never back.
///
/// Where the time was set back it goes on from where it stands. If it waited for the time to come there again, as
/// long as that takes nothing that was spent would come back.
#[derive(Debug)]
pub(super) struct Forward {
    clock: Clock,
    seen: Instant,
}

impl Forward {
    pub(super) fn new() -> Self {
        Self { clock: Clock::default(), seen: Instant::now() }
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Moves the clock by what has passed until `now`, and says what it shows then.
    ///
    /// Threads that share it read `now` while they hold its lock: in another order they would be times set back.
    pub(super) fn move_to(&mut self, now: Instant) -> Nanos {
        let passed = now.saturating_duration_since(self.seen).as_nanos();
        self.seen = now;
        let shown = self.clock.0.load(Ordering::Relaxed).saturating_add(u64::try_from(passed).unwrap_or(END)).min(END);
        self.clock.0.store(shown, Ordering::Relaxed);
        shown.into()
    }
}
