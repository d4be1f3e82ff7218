//! The limits that a request is under together.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::gcra::{Gcra, Nanos, moment};
use super::tally::{KEYS_MAX, Key, Tally};
use super::{OverLimit, Per, RateLimit};
use crate::event::{Event, Headers};

/// Limits that a request is under together: it spends one of each, or, where one of them is spent, of none.
#[derive(Debug)]
pub struct Limits {
    limits: Vec<(RateLimit, Gcra)>,
    origin: Instant,
    hashes: RandomState,
    /// One for each limit. Under one lock, so that nobody spends between a look at all of them and the spending.
    tallies: Mutex<Vec<Tally>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Look,
    Spend,
}

impl Limits {
    /// Limits with their whole bursts to spend. Each remembers about [`KEYS_MAX`] keys.
    #[must_use]
    pub fn new(limits: Vec<RateLimit>) -> Self {
        Self::remembering(KEYS_MAX, limits)
    }

    pub(super) fn remembering(keys_max: usize, limits: Vec<RateLimit>) -> Self {
        let tallies = limits.iter().map(|_| Tally::new(keys_max)).collect();
        let limits = limits.into_iter().map(|limit| (limit.clone(), Gcra::new(limit.rate, limit.burst))).collect();
        Self { limits, origin: Instant::now(), hashes: RandomState::new(), tallies: Mutex::new(tallies) }
    }

    /// Spends one of the client's at `ip`.
    ///
    /// # Errors
    /// [`OverLimit`] of the limit with the longest wait; nothing was spent of any.
    pub fn spend_client(&self, ip: IpAddr) -> Result<(), OverLimit> {
        self.ask(Ask::Spend, Instant::now(), |_| Key::client(ip))
    }

    /// Looks whether the client at `ip` has one to spend, and spends nothing.
    ///
    /// # Errors
    /// As [`Limits::spend_client`].
    pub fn look_client(&self, ip: IpAddr) -> Result<(), OverLimit> {
        self.ask(Ask::Look, Instant::now(), |_| Key::client(ip))
    }

    /// Spends one for a verified event.
    ///
    /// # Errors
    /// As [`Limits::spend_client`].
    pub fn spend_event(&self, event: &Event) -> Result<(), OverLimit> {
        self.spend_event_at(Instant::now(), event.client.ip, &event.headers)
    }

    pub(super) fn spend_event_at(&self, now: Instant, ip: IpAddr, headers: &Headers) -> Result<(), OverLimit> {
        self.ask(Ask::Spend, now, |per| match per {
            Per::Source => Key::All,
            Per::ClientIp | Per::Unverified => Key::client(ip),
            Per::Header(name) => {
                // No value, one empty value and two values are three different keys.
                let mut hasher = self.hashes.build_hasher();
                let values = headers.iter().filter(|(other, _)| other == name);
                values.for_each(|(_, value)| value.as_bytes().hash(&mut hasher));
                Key::Header(hasher.finish())
            }
        })
    }

    fn ask(&self, ask: Ask, now: Instant, key: impl Fn(&Per) -> Key) -> Result<(), OverLimit> {
        if self.limits.is_empty() {
            return Ok(());
        }
        let now = moment(self.origin, now);
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let mut over: Option<OverLimit> = None;
        let mut after: Vec<(Key, Nanos)> = Vec::with_capacity(self.limits.len());
        for ((limit, gcra), tally) in self.limits.iter().zip(tallies.iter_mut()) {
            tally.sweep_in_time(gcra, now);
            let key = key(&limit.per);
            match gcra.one_more(tally.state(&key, gcra, now), now) {
                Ok(whole_at) => after.push((key, whole_at)),
                Err(wait) if over.is_none_or(|over| over.retry_after < wait) => {
                    let (per, quota) = (limit.per.word(), limit.burst.max(1));
                    over = Some(OverLimit { per, retry_after: wait, quota, window: gcra.refill() });
                }
                Err(_) => {}
            }
        }
        if let Some(over) = over {
            return Err(over);
        }
        if ask == Ask::Spend {
            for (((_, gcra), tally), (key, whole_at)) in self.limits.iter().zip(tallies.iter_mut()).zip(after) {
                tally.keep(key, whole_at, gcra, now);
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn spend_client_at(&self, now: Instant, ip: IpAddr) -> Result<(), OverLimit> {
        self.ask(Ask::Spend, now, |_| Key::client(ip))
    }

    /// How many keys the first limit remembers, and how many it has memory for.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        self.tallies.lock().unwrap().first().map_or((0, 0), Tally::size)
    }
}
