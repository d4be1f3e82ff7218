//! How long a connection may live: a while, unless it carries a tail that its client keeps reading.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A connection ends after this, whatever its client does: slow readers must not shut the operator out.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);

/// Answers from this age on tell the client that they are the connection's last, so that none is cut off in the middle.
const LAST_ANSWERS: Duration = Duration::from_secs(240);

/// What a tail gave and the client has not made room for within this time was given to nobody.
const STALLED: Duration = Duration::from_secs(30);

/// What becomes of one connection. A tail takes it from the extensions of its request.
#[derive(Clone, Debug)]
pub(super) struct Pulse(Arc<Mutex<State>>);

#[derive(Clone, Copy, Debug)]
enum State {
    /// It carries answers that come to an end, since then.
    Short(Instant),
    /// A tail has something for the client, which is to take it until then.
    Given(Instant),
    /// A tail has nothing for the client, which has taken everything.
    Taken,
}

impl Pulse {
    /// For a connection that has just been accepted.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State::Short(Instant::now()))))
    }

    /// The tail is asked for more.
    pub(super) fn taken(&self) {
        *self.state() = State::Taken;
    }

    /// The tail gives something.
    pub(super) fn given(&self) {
        self.given_for(STALLED);
    }

    /// The tail gives something, which the client may take so long to make room for.
    pub(super) fn given_for(&self, patience: Duration) {
        *self.state() = State::Given(Instant::now() + patience);
    }

    /// The tail has ended.
    pub(super) fn ended(&self) {
        *self.state() = State::Short(Instant::now());
    }

    /// Whether the answer that is given now should be the connection's last.
    pub(super) fn is_old(&self) -> bool {
        matches!(*self.state(), State::Short(since) if since.elapsed() >= LAST_ANSWERS)
    }

    /// Waits until the connection has to go.
    pub(super) async fn stopped(self) {
        loop {
            let state = *self.state();
            let until = match state {
                State::Short(since) => since + CONNECTION_TIMEOUT,
                State::Given(until) => until,
                State::Taken => Instant::now() + STALLED,
            };
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn stops_within(pulse: &Pulse, wait: Duration) -> bool {
        tokio::time::timeout(wait, pulse.clone().stopped()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_tail_that_is_read_outlives_the_others() {
        let (just_before, just_after) = (Duration::from_millis(299_999), Duration::from_millis(2));
        let pulse = Pulse::new();
        assert!(!stops_within(&pulse, just_before).await);
        assert!(stops_within(&pulse, just_after).await, "an ordinary connection");

        let pulse = Pulse::new();
        tokio::time::advance(LAST_ANSWERS - Duration::from_millis(1)).await;
        assert!(!pulse.is_old());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(pulse.is_old());
        assert!(!stops_within(&pulse, Duration::from_secs(59)).await, "there is time for that answer");

        let pulse = Pulse::new();
        for _ in 0..100 {
            pulse.given();
            assert!(!stops_within(&pulse, STALLED - Duration::from_millis(1)).await);
            pulse.taken();
        }
        assert!(!stops_within(&pulse, Duration::from_secs(3600)).await, "a quiet tail");
        pulse.given();
        assert!(stops_within(&pulse, STALLED + Duration::from_millis(1)).await, "a reader that has stopped");
        pulse.taken();
        pulse.given_for(STALLED * 2);
        assert!(!stops_within(&pulse, STALLED * 2 - Duration::from_millis(1)).await, "one that may take longer");
        assert!(stops_within(&pulse, Duration::from_millis(2)).await);
        pulse.ended();
        assert!(!stops_within(&pulse, just_before).await, "an ordinary connection again");
    }
}
