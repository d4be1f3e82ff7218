//! What a limit remembers of those it counts apart, in bounded memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use governor::clock::Clock as _;
use governor::nanos::Nanos;
use governor::state::StateStore;

use super::clock::Clock;

/// How many clients, or values of a header, one limit remembers.
pub const KEYS_MAX: usize = 100_000;

/// How often those that have their whole burst again are forgotten, at most.
const SWEEP_EVERY: Nanos = Nanos::new(60_000_000_000);

/// What a limit counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Everything.
    All,
    /// One client.
    Client(ClientKey),
    /// A header's values, hashed under a key that nobody outside knows: a long value takes no more room than a short one.
    Header(u64),
}

/// Whoever counts as one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientKey {
    /// An IPv4 address, mapped into IPv6 or not.
    V4([u8; 4]),
    /// An IPv6 /64, which one customer has whole.
    V6([u16; 4]),
}

impl ClientKey {
    /// The client at `ip`.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// What governor is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) key: Key,
    pub(super) ask: Ask,
}

/// What becomes of one that would pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ask {
    /// Nothing: the state stays as it is.
    Look,
    /// It is spent.
    Spend,
}

/// The states of one limit, by key: what governor remembers. All clones hold the same.
///
/// A state is the time at which the whole burst is there again, and a key that is not there has its whole burst.
///
/// It holds a bounded number of keys. Those that have their whole burst again are forgotten in time, and the memory is
/// given back; when that leaves less than a quarter of the room, the half that has spent least is, and has its whole
/// burst again. So a flood from very many addresses can outrun it, but can neither make it grow, nor clear whoever has
/// spent most, nor have all keys looked at more often than once for each quarter of them that is new.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    clock: Clock,
    states: Arc<Mutex<States>>,
}

#[derive(Debug)]
struct States {
    whole_at: HashMap<Key, Nanos>,
    keys_max: usize,
    swept_at: Nanos,
    #[cfg(test)]
    sweeps: usize,
}

impl StateStore for Tally {
    type Key = Question;

    fn measure_and_replace<T, F, E>(&self, question: &Question, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut states = self.states();
        let (passes, whole_at) = measure(states.whole_at.get(&question.key).copied())?;
        if question.ask == Ask::Spend {
            states.keep(question.key, whole_at, self.clock.now());
        }
        Ok(passes)
    }
}

impl Tally {
    /// Of nobody. `clock` is the one that its governor goes by, before it has moved: states count from there.
    pub(super) fn new(keys_max: usize, clock: Clock) -> Self {
        let states = States {
            whole_at: HashMap::new(),
            keys_max,
            swept_at: clock.now(),
            #[cfg(test)]
            sweeps: 0,
        };
        Self { clock, states: Arc::new(Mutex::new(states)) }
    }

    /// Forgets, now and then, whoever has their whole burst again.
    pub(super) fn sweep_in_time(&self) {
        let (mut states, now) = (self.states(), self.clock.now());
        if now.saturating_sub(states.swept_at) >= SWEEP_EVERY {
            states.sweep(now);
        }
    }

    fn states(&self) -> MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many keys it remembers, and how many it has memory for.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let states = self.states();
        (states.whole_at.len(), states.whole_at.capacity())
    }

    /// How often all keys were looked at.
    #[cfg(test)]
    pub(super) fn sweeps(&self) -> usize {
        self.states().sweeps
    }
}

impl States {
    /// Remembers the state of `key`.
    fn keep(&mut self, key: Key, whole_at: Nanos, now: Nanos) {
        let is_full = self.whole_at.len() >= self.keys_max && !self.whole_at.contains_key(&key);
        if is_full {
            self.sweep(now);
            if self.whole_at.len() > self.keys_max / 4 * 3 {
                self.forget_half(); // or the next few would fill it again
            }
        }
        self.whole_at.insert(key, whole_at);
    }

    fn sweep(&mut self, now: Nanos) {
        self.swept_at = now;
        #[cfg(test)]
        (self.sweeps += 1);
        self.whole_at.retain(|_, whole_at| *whole_at > now);
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
}
