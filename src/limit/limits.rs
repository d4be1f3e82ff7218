//! The limits that a request is under together.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use governor::RateLimiter;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use tokio::time::Instant;

use super::clock::{Clock, Forward};
use super::tally::{Ask, ClientKey, KEYS_MAX, Key, Question, Tally};
use super::{OverLimit, Per, RateLimit, quota};
use crate::event::{Event, Headers};

/// Limits that a request is under together: it spends one of each, or, where one of them is spent, of none.
#[derive(Debug)]
pub struct Limits {
    limits: Vec<Limit>,
    hashes: RandomState,
    /// Held from a look at all of the limits until they are spent, so that nobody spends in between. A tally's lock is
    /// taken under it, never the other way round.
    time: Mutex<Forward>,
}

#[derive(Debug)]
struct Limit {
    per: Per,
    governor: RateLimiter<Question, Tally, Clock, NoOpMiddleware<Nanos>>,
    tally: Tally,
}

impl Limits {
    /// Limits with their whole bursts to spend. Each remembers about [`KEYS_MAX`] keys.
    #[must_use]
    pub fn new(limits: Vec<RateLimit>) -> Self {
        Self::remembering(KEYS_MAX, limits)
    }

    pub(super) fn remembering(keys_max: usize, limits: Vec<RateLimit>) -> Self {
        let time = Forward::new();
        let limit = |RateLimit { rate, burst, per }| {
            let tally = Tally::new(keys_max, time.clock());
            let governor = RateLimiter::new(quota(rate, burst), tally.clone(), time.clock());
            Limit { per, governor, tally }
        };
        let limits = limits.into_iter().map(limit).collect();
        Self { limits, hashes: RandomState::new(), time: Mutex::new(time) }
    }

    /// Spends one of the client's at `ip`.
    ///
    /// # Errors
    /// [`OverLimit`] of the limit with the longest wait; nothing was spent of any.
    pub fn spend_client(&self, ip: IpAddr) -> Result<(), OverLimit> {
        self.ask(Ask::Spend, Instant::now, |_| Key::Client(ClientKey::of(ip)))
    }

    /// Looks whether the client at `ip` has one to spend, and spends nothing.
    ///
    /// # Errors
    /// As [`Limits::spend_client`].
    pub fn look_client(&self, ip: IpAddr) -> Result<(), OverLimit> {
        self.ask(Ask::Look, Instant::now, |_| Key::Client(ClientKey::of(ip)))
    }

    /// Spends one for a verified event.
    ///
    /// # Errors
    /// As [`Limits::spend_client`].
    pub fn spend_event(&self, event: &Event) -> Result<(), OverLimit> {
        self.spend_by_headers(Instant::now, event.client.ip, &event.headers)
    }

    fn spend_by_headers(&self, now: impl FnOnce() -> Instant, ip: IpAddr, headers: &Headers) -> Result<(), OverLimit> {
        self.ask(Ask::Spend, now, |per| match per {
            Per::Source => Key::All,
            Per::ClientIp | Per::Unverified => Key::Client(ClientKey::of(ip)),
            Per::Header(name) => {
                // No value, one empty value and two values are three different keys.
                let mut hasher = self.hashes.build_hasher();
                let values = headers.iter().filter(|(other, _)| other == name);
                values.for_each(|(_, value)| value.as_bytes().hash(&mut hasher));
                Key::Header(hasher.finish())
            }
        })
    }

    /// Asks all limits at one moment. `now` is read once nobody else can ask.
    fn ask(&self, ask: Ask, now: impl FnOnce() -> Instant, key: impl Fn(&Per) -> Key) -> Result<(), OverLimit> {
        if self.limits.is_empty() {
            return Ok(());
        }
        let keys: Vec<Key> = self.limits.iter().map(|limit| key(&limit.per)).collect();
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        let now = time.move_to(now());
        self.limits.iter().for_each(|limit| limit.tally.sweep_in_time());
        self.ask_each(Ask::Look, &keys, now)?;
        match ask {
            Ask::Look => Ok(()),
            Ask::Spend => self.ask_each(Ask::Spend, &keys, now), // they all pass, as they have just said
        }
    }

    /// Asks each limit, all of them even where one refuses.
    fn ask_each(&self, ask: Ask, keys: &[Key], now: Nanos) -> Result<(), OverLimit> {
        let mut over: Option<OverLimit> = None;
        for (limit, key) in self.limits.iter().zip(keys) {
            let Err(until) = limit.governor.check_key(&Question { key: *key, ask }) else { continue };
            let retry_after = until.wait_time_from(now);
            if over.is_none_or(|over| over.retry_after < retry_after) {
                let (per, quota) = (limit.per.word(), until.quota());
                let window = quota.burst_size_replenished_in();
                over = Some(OverLimit { per, retry_after, quota: quota.burst_size().get(), window });
            }
        }
        over.map_or(Ok(()), Err)
    }

    #[cfg(test)]
    pub(super) fn spend_client_at(&self, now: Instant, ip: IpAddr) -> Result<(), OverLimit> {
        self.ask(Ask::Spend, || now, |_| Key::Client(ClientKey::of(ip)))
    }

    #[cfg(test)]
    pub(super) fn spend_event_at(&self, now: Instant, ip: IpAddr, headers: &Headers) -> Result<(), OverLimit> {
        self.spend_by_headers(|| now, ip, headers)
    }

    /// How many keys the first limit remembers, and how many it has memory for.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        self.limits.first().map_or((0, 0), |limit| limit.tally.size())
    }

    /// How often the first limit has looked at all it remembers.
    #[cfg(test)]
    pub(super) fn sweeps(&self) -> usize {
        self.limits.first().map_or(0, |limit| limit.tally.sweeps())
    }
}
