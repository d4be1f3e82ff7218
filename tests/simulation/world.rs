//! What all parts of a simulation share: what has happened, what was reached, and what went wrong.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::SimClock;

macro_rules! reaches {
    ($($name:ident: $words:literal,)*) => {
        /// What a batch of seeds must have met at least once.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reach { $($name,)* }

        impl Reach {
            pub const ALL: &[(Self, &str)] = &[$((Self::$name, $words),)*];
        }
    };
}

reaches! {
    CrashInCommit: "crash inside a commit",
    CrashInNames: "crash inside a change of names",
    CrashInWrite: "crash inside another write",
    CrashInOpening: "crash while opening",
    CrashBetween: "crash between two steps",
    Killed: "kill -9",
    PowerCut: "power cut",
    PowerCutAtAck: "power cut at a 2xx",
    Closed: "ordered end",
    TornTail: "torn tail",
    LostWrite: "lost unflushed write",
    LostName: "lost directory entry",
    FailedFlush: "EIO on fsync",
    FailedWrite: "EIO on write",
    ShortWrite: "short write",
    NoSpace: "ENOSPC",
    FailedRead: "EIO on read",
    FailedNames: "EIO on a change of names",
    SlowDisk: "slow disk",
    BitRot: "bit rot",
    OpenFailed: "opening failed, and again",
    FromCheckpoint: "opened from a checkpoint",
    PassedOver: "checkpoint passed over",
    WrittenOver: "newest segment written over",
    Lost: "loss noted",
    Acked: "2xx",
    Duplicate: "duplicate",
    DuplicateInFlight: "duplicate while in flight",
    DuplicateAfterCrash: "duplicate after a crash",
    Conflict: "same id, another body",
    Expired: "the same id after the window",
    Forged: "forged request",
    HangUp: "sender hung up",
    Refused: "503",
    Relayed: "answer relayed",
    Buffered: "kept for later in proxy mode",
    Delivered: "delivered",
    DeadLetter: "dead letter",
    Rearm: "rearmed by a duplicate",
    Replay: "replay",
    CopiedForward: "trim with copy forward",
    Trimmed: "segment trimmed",
    Evicted: "eviction",
    Sealed: "claims sealed",
    Merged: "claims merged",
    ClockJump: "clock jump",
    Reload: "reload of routes",
    Orphaned: "orphans",
    Paused: "pause",
    AppRefuses: "application refuses",
    App5xx: "application says 5xx",
    AppHangs: "application hangs",
    AppResets: "application resets",
    AppCutsShort: "answer cut short",
    AppRetryAfter: "Retry-After",
    AppGone: "410",
}

/// A handle; all clones are one world.
#[derive(Clone)]
pub struct World(Arc<Mutex<Inner>>, pub Arc<SimClock>);

struct Inner {
    hash: u64,
    print: bool,
    reached: Vec<u64>,
    wrong: Option<String>,
    /// The present life has met a failing or slow disk.
    disk_failed: bool,
    /// When the disk hung.
    hung: Vec<u64>,
}

impl World {
    pub fn new(print: bool) -> Self {
        let reached = vec![0; Reach::ALL.len()];
        let inner =
            Inner { hash: 0xcbf2_9ce4_8422_2325, print, reached, wrong: None, disk_failed: false, hung: Vec::new() };
        Self(Arc::new(Mutex::new(inner)), Arc::new(SimClock::new()))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn reach(&self, what: Reach) {
        self.inner().reached[what as usize] += 1;
    }

    pub fn disk_failed(&self, how: Reach) {
        let mut inner = self.inner();
        inner.reached[how as usize] += 1;
        inner.disk_failed = true;
        drop(inner);
        self.note(format_args!("disk: {how:?}"));
    }

    pub fn disk_hangs(&self, time: Duration) {
        let now = self.1.millis();
        let mut inner = self.inner();
        inner.disk_failed = true;
        inner.hung.push(now);
        drop(inner);
        self.note(format_args!("disk: hangs for {time:?}"));
    }

    /// Whether the disk hung around `at`, so that what was said then may have come too late.
    pub fn hung_near(&self, at: u64) -> bool {
        self.inner().hung.iter().any(|hung| hung.abs_diff(at) <= 15_000)
    }

    /// Whether the disk has failed or hung since this was asked last.
    pub fn take_disk_failed(&self) -> bool {
        std::mem::take(&mut self.inner().disk_failed)
    }

    pub fn disk_has_failed(&self) -> bool {
        self.inner().disk_failed
    }

    /// Something happened: part of what two runs of a seed have in common.
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let at = self.1.millis();
        let mut inner = self.inner();
        let _ = write!(Fnv(&mut inner.hash), "{at} {what}");
        if inner.print {
            println!("{:>9}.{:03} {what}", at / 1000, at % 1000);
        }
    }

    /// A promise is broken. The first one counts.
    pub fn wrong(&self, what: fmt::Arguments<'_>) {
        self.note(format_args!("WRONG: {what}"));
        let at = self.1.millis();
        self.inner().wrong.get_or_insert_with(|| format!("at {at} ms: {what}"));
    }

    pub fn is_wrong(&self) -> bool {
        self.inner().wrong.is_some()
    }

    /// The hash of all that happened, what was reached, and what went wrong.
    pub fn end(&self) -> (u64, Vec<u64>, Option<String>) {
        let inner = self.inner();
        (inner.hash, inner.reached.clone(), inner.wrong.clone())
    }
}

struct Fnv<'h>(&'h mut u64);

impl fmt::Write for Fnv<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.0 = (*self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
