//! Time, injected, so that tests can set it: the wall clock's, and one that nobody can set.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

/// Milliseconds since 1970-01-01T00:00:00Z. Never negative where this program makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// This time moved later by `by`, saturating.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This time moved earlier by `by`, saturating.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Whole seconds since the epoch.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

/// RFC 3339 with milliseconds and `Z`, as the API prints times.
impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{}ms", self.0), // outside the years jiff can print
        }
    }
}

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The wall-clock time now.
    fn now(&self) -> UnixMillis;

    /// How long the machine has been up. Setting the wall clock does not change it.
    fn uptime(&self) -> Uptime;
}

/// A reading of the clock that nobody can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uptime {
    /// Which run of the machine this is: two readings can be compared if it is the same. None where the system does
    /// not say; then only readings of one process can be.
    pub boot: Option<u128>,
    /// Since that run began, sleep included where the system counts it.
    pub since: Duration,
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one place that asks the system
    fn now(&self) -> UnixMillis {
        let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    #[cfg(target_os = "linux")]
    fn uptime(&self) -> Uptime {
        // Unlike CLOCK_MONOTONIC this counts on while the machine sleeps (clock_gettime(2)).
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        Uptime { boot: boot_id(), since: Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0)) }
    }

    #[cfg(not(target_os = "linux"))]
    fn uptime(&self) -> Uptime {
        static BEGAN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        Uptime { boot: None, since: BEGAN.get_or_init(std::time::Instant::now).elapsed() }
    }
}

/// The kernel's id of this run of the machine (random(4)).
#[cfg(target_os = "linux")]
fn boot_id() -> Option<u128> {
    static ID: std::sync::OnceLock<Option<u128>> = std::sync::OnceLock::new();
    *ID.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        u128::from_str_radix(&text.trim().replace('-', ""), 16).ok()
    })
}

/// A clock that stands still until it is set. All of them count their uptime alike, as on one machine,
/// unless they are [`ManualClock::rebooted`].
#[derive(Debug, Default)]
pub struct ManualClock {
    wall: AtomicI64,
    up: AtomicU64,
    boot: u128,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: UnixMillis) -> Self {
        let up = u64::try_from(now.0).unwrap_or(0);
        Self { wall: AtomicI64::new(now.0), up: AtomicU64::new(up), boot: 1 }
    }

    /// The clock of a machine that has just started for the `boot`-th time, and shows `now`.
    #[must_use]
    pub fn rebooted(now: UnixMillis, boot: u128) -> Self {
        Self { wall: AtomicI64::new(now.0), up: AtomicU64::new(0), boot }
    }

    /// Another one that shows the same.
    #[must_use]
    pub fn copied(&self) -> Self {
        let up = self.up.load(Ordering::SeqCst);
        Self { wall: AtomicI64::new(self.now().0), up: AtomicU64::new(up), boot: self.boot }
    }

    /// Makes the clock show `now`. If that is later than before, so much time has passed.
    pub fn set(&self, now: UnixMillis) {
        let before = self.wall.swap(now.0, Ordering::SeqCst);
        self.up.fetch_add(u64::try_from(now.0.saturating_sub(before)).unwrap_or(0), Ordering::SeqCst);
    }

    /// Somebody sets the wall clock to `now`, in no time.
    pub fn step(&self, now: UnixMillis) {
        self.wall.store(now.0, Ordering::SeqCst);
    }

    /// Time passes.
    pub fn pass(&self, time: Duration) {
        self.set(self.now().plus(time));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.wall.load(Ordering::SeqCst))
    }

    fn uptime(&self) -> Uptime {
        Uptime { boot: Some(self.boot), since: Duration::from_millis(self.up.load(Ordering::SeqCst)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_rfc_3339_with_milliseconds() {
        assert_eq!(UnixMillis(1_614_265_330_000).to_string(), "2021-02-25T15:02:10.000Z");
        assert_eq!(UnixMillis(1_614_265_330_042).to_string(), "2021-02-25T15:02:10.042Z");
    }

    #[test]
    fn the_systems_uptime_only_grows() {
        let (first, second) = (SystemClock.uptime(), SystemClock.uptime());
        assert!(second.boot == first.boot && second.since >= first.since);
        assert_eq!(first.boot.is_some(), cfg!(target_os = "linux"));
    }

    #[test]
    fn a_clock_that_jumped_back_makes_no_negative_age() {
        assert_eq!(UnixMillis(5).since(UnixMillis(9)), Duration::ZERO);
    }
}
