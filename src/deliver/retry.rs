//! What follows an attempt: delivered, another one later, or given up.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::{Failure, FailureKind, Jitter, Reply, RetryPolicy};
use crate::base::UnixMillis;
use crate::event::DeadReason;
use crate::journal::Verdict;

/// When an application asks to be tried again (RFC 9110, section 10.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// After so long.
    Wait(Duration),
    /// At a time.
    At(UnixMillis),
}

impl RetryAfter {
    /// Reads the header's value: whole seconds, or a date. None for anything else.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let value = value.trim();
        if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
            // Longer than can be counted is as long as can be counted: it is clamped later.
            return Some(Self::Wait(Duration::from_secs(value.parse().unwrap_or(u64::MAX / 1000))));
        }
        let date: Timestamp = rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
        Some(Self::At(UnixMillis(date.as_millisecond())))
    }

    fn wait(self, now: UnixMillis) -> Duration {
        match self {
            Self::Wait(wait) => wait,
            Self::At(at) => at.since(now),
        }
    }
}

/// How far a delivery has come when an attempt has ended.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// Attempts made in this cycle, this one included; at least 1.
    pub attempts: u32,
    /// When the cycle began.
    pub since: UnixMillis,
    /// The time now.
    pub now: UnixMillis,
}

/// An attempt with this number that panics is the last: it will hardly be better next time.
const PANICS_MAX: u32 = 5;

/// What follows an attempt that came to `outcome`. `random` is from 0 to 1.
#[must_use]
pub fn judge(policy: &RetryPolicy, outcome: &Result<Reply, Failure>, tried: Tried, random: f64) -> Verdict {
    let asked = match outcome {
        Ok(reply) if (200..300).contains(&reply.status) => return Verdict::Delivered,
        Ok(reply) if policy.give_up_on.contains(&reply.status) => return Verdict::Dead(DeadReason::GaveUp),
        Ok(reply) => reply.retry_after,
        Err(failure) if failure.kind == FailureKind::Panicked && tried.attempts >= PANICS_MAX => {
            return Verdict::Dead(DeadReason::TooManyAttempts);
        }
        Err(_) => None,
    };
    if policy.max_attempts.is_some_and(|most| tried.attempts >= most) {
        return Verdict::Dead(DeadReason::TooManyAttempts);
    }
    if tried.now.since(tried.since) >= policy.max_age {
        return Verdict::Dead(DeadReason::TooOld);
    }
    let asked = asked.map_or(Duration::ZERO, |asked| asked.wait(tried.now).min(policy.retry_after_max));
    Verdict::RetryAt(tried.now.plus(backoff(policy, tried.attempts, random).max(asked)))
}

/// The wait after the `attempts`th attempt: exponential, spread by full jitter
/// (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
fn backoff(policy: &RetryPolicy, attempts: u32, random: f64) -> Duration {
    let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
    let longest = policy.initial.as_secs_f64() * policy.factor.powi(exponent);
    let longest = longest.min(policy.max.as_secs_f64()); // also takes infinity back
    let wait = match policy.jitter {
        Jitter::Full => longest * random.clamp(0.0, 1.0),
        Jitter::Off => longest,
    };
    Duration::try_from_secs_f64(wait).unwrap_or(policy.max)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn policy() -> RetryPolicy {
        RetryPolicy { max_attempts: Some(5), ..RetryPolicy::default() }
    }

    fn reply(status: u16, retry_after: Option<&str>) -> Result<Reply, Failure> {
        Ok(Reply { status, retry_after: retry_after.and_then(RetryAfter::parse), answer: Bytes::new(), whole: None })
    }

    fn after(outcome: &Result<Reply, Failure>, attempts: u32, random: f64) -> Verdict {
        judge(&policy(), outcome, Tried { attempts, since: NOW, now: NOW }, random)
    }

    fn in_ms(wait: i64) -> Verdict {
        Verdict::RetryAt(UnixMillis(NOW.0 + wait))
    }

    #[test]
    fn every_answer_but_2xx_is_retried_except_those_given_up_on() {
        for status in [200, 204, 299] {
            assert_eq!(after(&reply(status, None), 1, 1.0), Verdict::Delivered);
        }
        for status in [199, 301, 400, 404, 408, 429, 500, 503] {
            assert_eq!(after(&reply(status, None), 1, 1.0), in_ms(1_000), "{status}");
        }
        assert_eq!(after(&reply(410, None), 1, 1.0), Verdict::Dead(DeadReason::GaveUp));
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread_over_all_of_it() {
        let policy = RetryPolicy { max: Duration::from_secs(5), max_attempts: None, ..policy() };
        let wait =
            |attempts, random| judge(&policy, &reply(500, None), Tried { attempts, since: NOW, now: NOW }, random);
        assert_eq!(wait(1, 1.0), in_ms(1_000));
        assert_eq!(wait(2, 1.0), in_ms(2_000));
        assert_eq!(wait(3, 0.5), in_ms(2_000));
        assert_eq!(wait(3, 0.0), in_ms(0));
        assert_eq!(wait(4, 1.0), in_ms(5_000));
        assert_eq!(wait(u32::MAX, 1.0), in_ms(5_000));
    }

    #[test]
    fn retry_after_is_honoured_as_seconds_and_as_a_date_and_clamped() {
        assert_eq!(after(&reply(503, Some("120")), 1, 0.0), in_ms(120_000));
        assert_eq!(after(&reply(503, Some("99999999999999999999")), 1, 0.0), in_ms(3_600_000));
        let date = "Tue, 14 Nov 2023 22:14:20 GMT"; // NOW is 22:13:20
        assert_eq!(after(&reply(429, Some(date)), 1, 0.0), in_ms(60_000));
        let past = "Tue, 14 Nov 2023 22:00:00 GMT";
        assert_eq!(after(&reply(429, Some(past)), 1, 0.0), in_ms(0));
        for garbage in ["-1", "soon", "", "1.5"] {
            assert_eq!(after(&reply(503, Some(garbage)), 1, 0.0), in_ms(0), "{garbage}");
        }
    }

    #[test]
    fn a_delivery_is_given_up_by_count_and_by_age() {
        assert_eq!(after(&reply(500, None), 4, 0.0), in_ms(0));
        assert_eq!(after(&reply(500, None), 5, 0.0), Verdict::Dead(DeadReason::TooManyAttempts));
        let old = |age: Duration| {
            judge(&policy(), &reply(500, None), Tried { attempts: 1, since: NOW.minus(age), now: NOW }, 0.0)
        };
        let max_age = policy().max_age;
        assert_eq!(old(max_age - Duration::from_millis(1)), in_ms(0));
        assert_eq!(old(max_age), Verdict::Dead(DeadReason::TooOld));
    }
}
