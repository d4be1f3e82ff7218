//! What a limit remembers of those it counts apart, in bounded memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::gcra::{Gcra, Nanos, nanos};

/// How many clients, or values of a header, one limit remembers.
pub const KEYS_MAX: usize = 100_000;

/// How often those that have their whole burst again are forgotten, at most.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What a limit counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Everything.
    All,
    /// An IPv4 address, mapped into IPv6 or not.
    V4([u8; 4]),
    /// An IPv6 /64, which one customer has whole.
    V6([u16; 4]),
    /// A header's values, hashed under a key that nobody outside knows: a long value takes no more room than a short one.
    Header(u64),
}

impl Key {
    pub(super) fn client(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// The states of one limit, by key. A key that is not there has its whole burst.
///
/// It holds a bounded number of keys. Those that have their whole burst again are forgotten in time, and the memory is
/// given back; when that is not enough, the half that has spent least is, and has its whole burst again. So a flood from
/// very many addresses can outrun it, but can neither make it grow nor clear whoever has spent most.
#[derive(Debug)]
pub(super) struct Tally {
    whole_at: HashMap<Key, Nanos>,
    keys_max: usize,
    swept_at: Nanos,
}

impl Tally {
    pub(super) fn new(keys_max: usize) -> Self {
        Self { whole_at: HashMap::new(), keys_max, swept_at: 0 }
    }

    /// The state of `key`, if it is remembered. It is mended for good where the clock was set back.
    pub(super) fn state(&mut self, key: &Key, gcra: &Gcra, now: Nanos) -> Option<Nanos> {
        let whole_at = self.whole_at.get_mut(key)?;
        *whole_at = gcra.at_most_spent(*whole_at, now);
        Some(*whole_at)
    }

    /// Remembers the state of `key`.
    pub(super) fn keep(&mut self, key: Key, whole_at: Nanos, gcra: &Gcra, now: Nanos) {
        let is_full = self.whole_at.len() >= self.keys_max && !self.whole_at.contains_key(&key);
        if is_full {
            self.sweep(gcra, now);
            if self.whole_at.len() >= self.keys_max {
                self.forget_half();
            }
        }
        self.whole_at.insert(key, whole_at);
    }

    /// Forgets, now and then, whoever has its whole burst again.
    pub(super) fn sweep_in_time(&mut self, gcra: &Gcra, now: Nanos) {
        if now.abs_diff(self.swept_at) >= nanos(SWEEP_EVERY).unsigned_abs() {
            self.sweep(gcra, now);
        }
    }

    fn sweep(&mut self, gcra: &Gcra, now: Nanos) {
        self.swept_at = now;
        self.whole_at.retain(|_, whole_at| !gcra.is_whole(*whole_at, now));
        self.whole_at.shrink_to(self.whole_at.len().saturating_mul(2));
    }

    fn forget_half(&mut self) {
        let mut states: Vec<Nanos> = self.whole_at.values().copied().collect();
        let middle = states.len() / 2;
        let (_, median, _) = states.select_nth_unstable(middle);
        let (median, mut room) = (*median, middle.max(1)); // many may stand at the median itself
        self.whole_at.retain(|_, whole_at| {
            let goes = *whole_at <= median && room > 0;
            room -= usize::from(goes);
            !goes
        });
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.whole_at.len(), self.whole_at.capacity())
    }
}
