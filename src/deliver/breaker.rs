//! The circuit breaker: after failures in a row a destination is left alone, then probed, then ramped up.

use tokio::time::Instant;

use super::BreakerPolicy;
use crate::telemetry::BreakerState;

/// One destination's breaker. It is asked before each attempt and told how each ended.
#[derive(Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: State,
    /// Attempts at the same time that it lets through; grows back after it was open.
    allowed: usize,
    /// Attempts at the same time that the destination takes.
    concurrency: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Probing,
}

/// Whether an attempt may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Yes, as long as fewer than this many are under way.
    Open {
        /// Attempts at the same time.
        at_most: usize,
    },
    /// One attempt under way decides.
    Probing,
    /// Not before then.
    Shut {
        /// When to ask again.
        until: Instant,
    },
}

impl Breaker {
    /// A closed breaker for a destination that takes `concurrency` attempts at the same time.
    #[must_use]
    pub fn new(policy: BreakerPolicy, concurrency: usize) -> Self {
        Self { policy, state: State::Closed { failures: 0 }, allowed: concurrency, concurrency }
    }

    /// Goes by another policy from now on. One that is open stays so for as long as it was to.
    pub fn change(&mut self, policy: BreakerPolicy, concurrency: usize) {
        let ramping_up = !matches!(self.state, State::Closed { .. }) || self.allowed < self.concurrency;
        self.allowed = if ramping_up { self.allowed.min(concurrency) } else { concurrency };
        (self.policy, self.concurrency) = (policy, concurrency);
    }

    /// Whether an attempt may be made at `now`.
    pub fn gate(&mut self, now: Instant) -> Gate {
        match self.state {
            State::Closed { .. } => Gate::Open { at_most: self.allowed },
            State::Probing => Gate::Probing,
            State::Open { until } if now < until => Gate::Shut { until },
            State::Open { .. } => Gate::Open { at_most: 1 },
        }
    }

    /// How it stands, for people: after the cooldown it is probing, also before anybody has come to probe.
    #[must_use]
    pub fn shown(&self, now: Instant) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::Probing => BreakerState::Probing,
        }
    }

    /// An attempt begins: after the cooldown it is the probe.
    pub fn begun(&mut self) {
        if matches!(self.state, State::Open { .. }) {
            self.state = State::Probing;
        }
    }

    /// The destination answered sensibly. After an outage each success doubles what is let through,
    /// up to its concurrency, so that an application that just came up is not flooded.
    pub fn succeeded(&mut self) {
        self.allowed = match self.state {
            State::Closed { .. } => self.allowed.saturating_mul(2).min(self.concurrency),
            State::Open { .. } | State::Probing => 1,
        };
        self.state = State::Closed { failures: 0 };
    }

    /// The destination did not answer, or not sensibly, at `now`.
    pub fn failed(&mut self, now: Instant) {
        self.state = match self.state {
            State::Closed { failures } if failures + 1 < self.policy.failures => {
                State::Closed { failures: failures + 1 }
            }
            State::Open { until } => State::Open { until }, // an attempt from before it opened
            State::Closed { .. } | State::Probing => State::Open { until: now + self.policy.cooldown },
        };
    }

    /// The probe could not be made after all.
    pub fn not_begun(&mut self, now: Instant) {
        if self.state == State::Probing {
            self.state = State::Open { until: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(10);

    fn breaker() -> Breaker {
        Breaker::new(BreakerPolicy { failures: 3, cooldown: COOLDOWN }, 8)
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_lets_one_probe_through() {
        let (mut breaker, start) = (breaker(), Instant::now());
        breaker.failed(start);
        breaker.failed(start);
        breaker.succeeded();
        breaker.failed(start);
        breaker.failed(start);
        assert_eq!(breaker.gate(start), Gate::Open { at_most: 8 }, "a success between starts the count anew");
        breaker.failed(start);
        assert_eq!(breaker.gate(start), Gate::Shut { until: start + COOLDOWN });
        breaker.failed(start + Duration::from_secs(5)); // begun before it opened
        assert_eq!(breaker.shown(start), BreakerState::Open);
        assert_eq!(breaker.shown(start + COOLDOWN), BreakerState::Probing);
        assert_eq!(breaker.gate(start + COOLDOWN), Gate::Open { at_most: 1 });
        breaker.begun();
        assert_eq!(breaker.gate(start + COOLDOWN), Gate::Probing);
        breaker.failed(start + COOLDOWN);
        assert_eq!(breaker.gate(start + COOLDOWN), Gate::Shut { until: start + COOLDOWN * 2 });
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_outage_it_is_ramped_up() {
        let (mut breaker, start) = (breaker(), Instant::now());
        for _ in 0..3 {
            breaker.failed(start);
        }
        breaker.begun();
        for at_most in [1, 2, 4, 8, 8] {
            breaker.succeeded();
            assert_eq!(breaker.gate(start), Gate::Open { at_most });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_policy_holds_at_once_and_ends_no_outage() {
        let (mut breaker, start) = (breaker(), Instant::now());
        breaker.failed(start);
        breaker.change(BreakerPolicy { failures: 2, cooldown: COOLDOWN * 6 }, 16);
        assert_eq!(breaker.gate(start), Gate::Open { at_most: 16 }, "nothing is being ramped up");
        breaker.failed(start);
        let until = start + COOLDOWN * 6;
        assert_eq!(breaker.gate(start), Gate::Shut { until });
        breaker.change(BreakerPolicy { failures: 100, cooldown: COOLDOWN }, 4);
        assert_eq!(breaker.gate(start), Gate::Shut { until });
        tokio::time::advance(COOLDOWN * 6).await;
        breaker.begun();
        breaker.succeeded();
        breaker.change(BreakerPolicy { failures: 100, cooldown: COOLDOWN }, 64);
        assert_eq!(breaker.gate(until), Gate::Open { at_most: 1 }, "it is still being ramped up");
        for at_most in [2, 4, 8, 16, 32, 64, 64] {
            breaker.succeeded();
            assert_eq!(breaker.gate(until), Gate::Open { at_most });
        }
        breaker.change(BreakerPolicy { failures: 100, cooldown: COOLDOWN }, 2);
        assert_eq!(breaker.gate(until), Gate::Open { at_most: 2 });
    }
}
