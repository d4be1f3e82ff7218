//! One limit for each client.

use std::net::IpAddr;
use std::sync::Arc;

use governor::clock::{Clock, MonotonicClock};
use quick_cache::sync::Cache;

use super::{Limiter, OverLimit};
use crate::base::Rate;

/// How many clients a [`ClientLimiter`] remembers where nothing else is said.
pub const CLIENTS_MAX: usize = 100_000;

/// The same limit for each client by itself.
///
/// It remembers a bounded number of clients. One that was forgotten has its whole burst again, so a flood from
/// very many addresses can outrun it, but cannot make it grow.
pub struct ClientLimiter<C: Clock = MonotonicClock> {
    rate: Rate,
    burst: u32,
    clock: C,
    clients: Cache<ClientKey, Arc<Limiter<C>>>,
}

impl ClientLimiter {
    /// Lets each client do `burst` at once and `rate` from then on; remembers about [`CLIENTS_MAX`] clients.
    #[must_use]
    pub fn new(rate: Rate, burst: u32) -> Self {
        Self::with_clock(rate, burst, MonotonicClock, CLIENTS_MAX)
    }
}

impl<C: Clock + Clone> ClientLimiter<C> {
    /// As [`ClientLimiter::new`], with the time from `clock`, remembering about `clients_max` clients.
    #[must_use]
    pub fn with_clock(rate: Rate, burst: u32, clock: C, clients_max: usize) -> Self {
        Self { rate, burst, clock, clients: Cache::new(clients_max) }
    }

    /// Spends one of the client at `ip`.
    ///
    /// # Errors
    /// [`OverLimit`] if the client has none to spend; nothing was spent.
    pub fn check(&self, ip: IpAddr) -> Result<(), OverLimit> {
        let fresh = || Ok::<_, OverLimit>(Arc::new(Limiter::with_clock(self.rate, self.burst, self.clock.clone())));
        self.clients.get_or_insert_with(&ClientKey::of(ip), fresh)?.check()
    }
}

impl<C: Clock> std::fmt::Debug for ClientLimiter<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientLimiter").field("rate", &self.rate).field("burst", &self.burst).finish_non_exhaustive()
    }
}

/// What is one client: an IPv4 address (mapped into IPv6 or not), or an IPv6 /64, which one customer has whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ClientKey {
    V4([u8; 4]),
    V6([u16; 4]),
}

impl ClientKey {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;

    fn one_each_second(clients_max: usize) -> (ClientLimiter<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let rate = Rate::parse("1/s").unwrap();
        (ClientLimiter::with_clock(rate, 1, clock.clone(), clients_max), clock)
    }

    #[test]
    fn each_client_has_a_limit_of_its_own() {
        let (limiter, clock) = one_each_second(100);
        let (one, two) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert_eq!(limiter.check(one), Ok(()));
        assert_eq!(limiter.check(two), Ok(()));
        assert_eq!(limiter.check(one), Err(OverLimit { retry_after: Duration::from_secs(1), limit: 1 }));
        clock.advance(Duration::from_secs(1));
        assert_eq!(limiter.check(one), Ok(()));
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_a_mapped_address_is_its_ipv4() {
        let same = |a: &str, b: &str| {
            let (limiter, _clock) = one_each_second(100);
            limiter.check(a.parse().unwrap()).unwrap();
            limiter.check(b.parse().unwrap()).is_err()
        };
        assert!(same("2001:db8:0:1::1", "2001:db8:0:1:ffff::9"));
        assert!(!same("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "::ffff:192.0.2.2"));
    }

    #[test]
    fn a_flood_of_addresses_does_not_make_it_grow() {
        let (limiter, _clock) = one_each_second(1_000);
        for n in 0..20_000 {
            limiter.check(Ipv4Addr::from_bits(n).into()).unwrap();
        }
        assert!(limiter.clients.len() <= 1_000 + 100, "{}", limiter.clients.len());
    }
}
