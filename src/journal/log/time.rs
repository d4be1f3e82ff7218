//! The journal's own time, which says when claims and retention end.
//!
//! It goes by the clock that nobody can set ([`Clock::uptime`]), so that setting the wall clock, by hand or by NTP, makes nothing
//! end early or late: neither while the journal is open nor, on the same run of the machine, while it is not. Only when the
//! machine itself was restarted (or the directory moved to another one) does the wall clock say how long that took: if
//! it is set ahead by then, what there is ends earlier by so much; if it is set back, later by no more than the time that it was away.
//!
//! So the journal's time is not the time of day. It begins as that, and drifts away from it by what the wall clock is ever set.
//!
//! `journal.time`, replaced now and then: magic `FBTIME1\0`, the journal's time i64, the wall clock i64 (both milliseconds),
//! boot id known u8, boot id 16, uptime in milliseconds u64, CRC-32C of all before u32.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::codec::{Decoder, Encoder, Malformed};
use crate::base::{Clock, UnixMillis, Uptime};
use crate::journal::disk::{self, Disk};

const FILE: &str = "journal.time";
const MAGIC: &[u8; 8] = b"FBTIME1\0";
/// How often a mark is made. All that is lost with a later one is how far the wall clock was set since this one, and
/// only where the machine was restarted.
const EVERY: Duration = Duration::from_secs(60);

/// The journal's time, as long as it is open.
pub struct Time {
    clock: Arc<dyn Clock>,
    began: UnixMillis,
    began_at: Uptime,
    /// When the last mark was made, in the journal's time.
    marked: AtomicI64,
}

/// What the clocks said at one time.
struct Mark {
    time: UnixMillis,
    wall: UnixMillis,
    uptime: Uptime,
}

impl Time {
    /// Goes on from the journal's last mark; from the wall clock where there is none.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn open(disk: &dyn Disk, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let (wall, uptime) = (clock.now(), clock.uptime());
        let mark = Mark::read(disk)?;
        let began = mark.map_or(wall, |mark| mark.time.plus(mark.away(wall, uptime)));
        Ok(Self { clock, began, began_at: uptime, marked: AtomicI64::new(i64::MIN) })
    }

    /// The journal's time.
    pub fn now(&self) -> UnixMillis {
        self.began.plus(self.clock.uptime().since.saturating_sub(self.began_at.since))
    }

    /// Writes down where the clocks are.
    ///
    /// # Errors
    /// As the operating system says; the mark before is still there then.
    pub fn mark(&self, disk: &dyn Disk) -> io::Result<()> {
        let mark = Mark { time: self.now(), wall: self.clock.now(), uptime: self.clock.uptime() };
        disk::replace(disk, ".", FILE, &mark.encode())?;
        self.marked.store(mark.time.0, Ordering::Relaxed);
        Ok(())
    }

    /// [`Time::mark`], if the last one was some time ago.
    ///
    /// # Errors
    /// As those of [`Time::mark`].
    pub fn mark_now_and_then(&self, disk: &dyn Disk) -> io::Result<()> {
        let due = UnixMillis(self.marked.load(Ordering::Relaxed)).plus(EVERY) <= self.now();
        if due { self.mark(disk) } else { Ok(()) }
    }
}

impl Mark {
    /// How long ago the mark was made.
    fn away(&self, wall: UnixMillis, uptime: Uptime) -> Duration {
        let same_run = self.uptime.boot.is_some() && self.uptime.boot == uptime.boot;
        if same_run { uptime.since.saturating_sub(self.uptime.since) } else { wall.since(self.wall) }
    }

    /// The last one; none if there is none that can be read.
    fn read(disk: &dyn Disk) -> io::Result<Option<Self>> {
        if !disk.list(".")?.iter().any(|(name, _)| name == FILE) {
            return Ok(None);
        }
        let mut bytes = vec![0; 64];
        let count = disk::read_around(&*disk.open(FILE)?, &mut bytes, 0)?;
        bytes.truncate(count);
        let mark = Self::decode(Bytes::from(bytes));
        if mark.is_err() {
            tracing::warn!(file = FILE, "damaged: the wall clock says how long the journal was closed");
        }
        Ok(mark.ok())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.raw(MAGIC).i64(self.time.0).i64(self.wall.0);
        out.u8(u8::from(self.uptime.boot.is_some())).raw(&self.uptime.boot.unwrap_or(0).to_le_bytes());
        out.u64(u64::try_from(self.uptime.since.as_millis()).unwrap_or(u64::MAX));
        let sum = crc32c::crc32c(&out.0);
        out.u32(sum);
        out.0
    }

    fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let sum = crc32c::crc32c(bytes.get(..bytes.len().saturating_sub(4)).unwrap_or_default());
        let mut from = Decoder(bytes);
        if from.take(8)? != MAGIC.as_slice() {
            return Err(Malformed);
        }
        let (time, wall) = (UnixMillis(from.i64()?), UnixMillis(from.i64()?));
        let known = from.u8()? == 1;
        let boot = Some(u128::from_le_bytes(from.id()?)).filter(|_| known);
        let since = Duration::from_millis(from.u64()?);
        if from.u32()? != sum {
            return Err(Malformed);
        }
        Ok(Self { time, wall, uptime: Uptime { boot, since } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ManualClock;
    use crate::journal::disk::RealDisk;

    const T0: UnixMillis = UnixMillis(1_700_000_000_000);

    #[test]
    fn a_mark_that_cannot_be_read_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        let clock = Arc::new(ManualClock::at(T0));
        let time = Time::open(&disk, Arc::clone(&clock) as _).unwrap();
        time.mark(&disk).unwrap();
        clock.step(T0.plus(EVERY * 1000));
        assert_eq!(Time::open(&disk, Arc::clone(&clock) as _).unwrap().now(), T0);
        let file = dir.path().join(FILE);
        let whole = std::fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        flipped[10] ^= 1;
        for bytes in [&[][..], &whole[..20], &flipped] {
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(Time::open(&disk, Arc::clone(&clock) as _).unwrap().now(), clock.now());
        }
    }

    #[test]
    fn marks_are_made_now_and_then() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        let clock = Arc::new(ManualClock::at(T0));
        let time = Time::open(&disk, Arc::clone(&clock) as _).unwrap();
        let marked = || Mark::read(&disk).unwrap().map(|mark| mark.time);
        time.mark_now_and_then(&disk).unwrap();
        clock.pass(EVERY - Duration::from_millis(1));
        time.mark_now_and_then(&disk).unwrap();
        assert_eq!(marked(), Some(T0));
        clock.pass(Duration::from_millis(1));
        time.mark_now_and_then(&disk).unwrap();
        assert_eq!(marked(), Some(T0.plus(EVERY)));
    }
}
