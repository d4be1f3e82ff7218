//! Virtual time: it passes only where the runtime has nothing else to do, or the disk is slow.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use forebay::base::{Clock, UnixMillis, Uptime};
use tokio::time::Instant;

pub const BEGAN: i64 = 1_700_000_000_000;

/// The clocks of the machine, over all lives of the gateway. Times of the simulation are milliseconds since it began.
pub struct SimClock(Mutex<Clocks>);

struct Clocks {
    /// How long the lives and the times between them took.
    before: Duration,
    /// When the present life began.
    life: Option<Instant>,
    /// How far the wall clock was set, in milliseconds.
    set_by: i64,
    boot: u128,
    booted: Duration,
}

impl SimClock {
    pub fn new() -> Self {
        let (before, booted) = (Duration::ZERO, Duration::ZERO);
        Self(Mutex::new(Clocks { before, life: None, set_by: 0, boot: 1, booted }))
    }

    fn clocks(&self) -> std::sync::MutexGuard<'_, Clocks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A life begins, on a runtime of its own.
    pub fn begin(&self) {
        self.clocks().life = Some(Instant::now());
    }

    /// A life ends.
    pub fn end(&self) {
        let mut clocks = self.clocks();
        clocks.before = clocks.elapsed();
        clocks.life = None;
    }

    /// The time between two lives.
    pub fn away(&self, time: Duration) {
        self.clocks().before += time;
    }

    pub fn reboot(&self) {
        let mut clocks = self.clocks();
        clocks.boot += 1;
        clocks.booted = clocks.before;
    }

    /// Somebody sets the wall clock.
    pub fn jump(&self, by: i64) {
        self.clocks().set_by += by;
    }

    pub fn millis(&self) -> u64 {
        u64::try_from(self.clocks().elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Clocks {
    fn elapsed(&self) -> Duration {
        self.before + self.life.map_or(Duration::ZERO, |began| began.elapsed())
    }
}

impl Clock for SimClock {
    fn now(&self) -> UnixMillis {
        let clocks = self.clocks();
        UnixMillis(BEGAN + clocks.set_by + i64::try_from(clocks.elapsed().as_millis()).unwrap_or(0))
    }

    fn uptime(&self) -> Uptime {
        let clocks = self.clocks();
        Uptime { boot: Some(clocks.boot), since: clocks.elapsed() - clocks.booted }
    }
}

/// Lets virtual time pass.
pub async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
