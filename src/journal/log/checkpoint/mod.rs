//! Checkpoints: what the state knew at one position of the log, so that opening need not read what stands before it.
//!
//! A checkpoint is derived: whatever is wrong with it, it is passed over and the whole log is read ([`read`]). It is taken when
//! the journal is closed, and whenever the log has grown by [`LEAST_GROWTH`] and by [`RATIO`] times the checkpoint's own size, which
//! bounds both what it costs and what is read back after a crash. Claims are sealed first, so that they need not be read
//! back from before it either. The writer only takes a snapshot, which shares the segments with it; encoding
//! and writing happen beside it.
//!
//! `checkpoint`, replaced whole. Numbers are little-endian, times i64 milliseconds. First a head:
//!
//! | bytes | what |
//! | --- | --- |
//! | 0–7 | magic `FBCKPT1\0` |
//! | 8–23 | the store's id |
//! | 24–31 | the position it is of: it knows of every record before that, and of none after |
//! | 32–39 | all claims before this position are in runs |
//! | 40–47 | how far the runs there were then say that they go |
//! | 48–51 | CRC-32C of up to 4096 bytes of the log before the position, those of the segment's header left out |
//! | 52–55 | how many segments follow |
//! | 56–59 | how many sections of deliveries under way follow |
//! | 60–63 | CRC-32C of all before |
//!
//! Then sections: u32 length of what the section holds, u32 CRC-32C (of the head's checksum, the section's number
//! from 0 as u32, and what it holds), and that:
//!
//! - one of routes: u32 count, and of each its source and destination as u32 length and bytes;
//! - one a segment: number u32, end u32, made-at, newest, newest-dead, events u32, event-bytes u64, has-rearm u8, u32 count
//!   of entries, the entries (u32 each), their classes (u8 each), u32 count of stretches that are
//!   known to be damaged (from u32, to u32, why u8), u32 count of entries that were tried more often than they say (number u32,
//!   attempts u32); what can be counted from these is counted;
//! - those of deliveries under way: u32 count, and of each its id 16 + u8, home (segment u32, entry u32), event's position u64,
//!   attempts u32, attempts-before u32, since, maybe not-before, reason u8.

mod read;
mod write;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::crew::{self, Crew};
use super::segment::{self, HEADER_BYTES};
use super::writer::Writer;
use crate::journal::disk::{Disk, DiskFile};
use crate::journal::{Position, Room};

#[cfg(test)]
pub use self::read::Unfit;
pub use self::read::{load, reach};
pub use self::write::Snapshot;

const FILE: &str = "checkpoint";
const MAGIC: &[u8; 8] = b"FBCKPT1\0";
const HEAD_BYTES: usize = 64;
/// How much of the log before its position a checkpoint vouches for.
const TAIL_BYTES: u32 = 4096;
/// The log grows at least by so much from one checkpoint to the next, unless all of it may take no more than sixteen times that.
const LEAST_GROWTH: u64 = 64 << 20;
/// And by so many times the size of the last one: writing them costs an eighth of what the log itself does, at most.
const RATIO: u64 = 8;
/// After one that could not be written.
const RETRY: Duration = Duration::from_secs(30);

/// Up to where claims are in runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// All claims of records before this.
    pub through: Position,
    /// As far as the runs themselves say; less, where there was nothing to seal since.
    pub runs: Position,
}

/// The checkpoints of a journal that is open.
pub struct Checkpoints {
    crew: Crew,
    disk: Arc<dyn Disk>,
    store: [u8; 16],
    /// The log has grown by so much since the last one.
    grown: u64,
    /// The size of the last one.
    bytes: u64,
    /// The one that is being written, and about how large it will be.
    job: Option<(Job, u64)>,
    /// The claims have been sealed, or that was tried, for the one that is due.
    sealed: bool,
    /// When it is tried again, after one that failed.
    again_at: Option<Instant>,
}

/// A checkpoint that is being written; its size.
type Job = crew::Job<io::Result<u64>>;

impl Checkpoints {
    /// Of a journal whose last one is of so many bytes, and whose log has `grown` since.
    pub fn new(crew: Crew, disk: Arc<dyn Disk>, store: [u8; 16], bytes: u64, grown: u64) -> Self {
        Self { crew, disk, store, grown, bytes, job: None, sealed: false, again_at: None }
    }

    /// So much was written to the log.
    pub fn grew(&mut self, bytes: u64) {
        self.grown += bytes;
    }

    /// The size of the last one, and of the one that is being written.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.job.as_ref().map_or(0, |(_, bytes)| *bytes)
    }

    /// Takes in the one that was being written, if it has been. True if none is.
    fn tend(&mut self) -> bool {
        if self.job.as_ref().is_some_and(|(job, _)| job.is_finished()) {
            self.end();
        }
        self.job.is_none()
    }

    fn is_due(&self, least_growth: u64) -> bool {
        let may = self.again_at.is_none_or(|at| at <= Instant::now());
        may && self.grown >= least_growth.max(self.bytes.saturating_mul(RATIO))
    }

    /// Has `snapshot` written on a thread of its own. The log must be flushed as far as that goes: else a power cut could
    /// leave a checkpoint of what never was.
    fn begin(&mut self, snapshot: Snapshot, flushed: Position) {
        if snapshot.through > flushed {
            return self.failed(&io::Error::other("the log is not flushed as far as it would go"));
        }
        let (disk, store) = (Arc::clone(&self.disk), self.store);
        let estimate = snapshot.estimated_bytes();
        match self.crew.begin("journal-checkpoint", move || write::write(&*disk, store, &snapshot)) {
            Ok(job) => self.job = Some((job, estimate)),
            Err(error) => return self.failed(&error),
        }
        self.grown = 0;
        self.sealed = false;
    }

    /// Waits for the one that is being written.
    fn end(&mut self) {
        let Some((job, _)) = self.job.take() else { return };
        match job.join().unwrap_or_else(|| Err(io::Error::other("the thread that wrote it panicked"))) {
            Ok(bytes) => {
                tracing::debug!(bytes, "a checkpoint was written");
                self.bytes = bytes;
                self.again_at = None;
            }
            Err(error) => {
                self.grown = u64::MAX / 2; // it is due still
                self.failed(&error);
            }
        }
    }

    fn failed(&mut self, error: &io::Error) {
        tracing::warn!(%error, "no checkpoint could be written; opening takes longer until there is one, and it is tried again");
        self.again_at = Some(Instant::now() + RETRY);
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.end(); // before somebody else opens the directory
    }
}

/// How much a log of at most `max_bytes` grows from one checkpoint to the next, at least.
fn least_growth(max_bytes: u64) -> u64 {
    LEAST_GROWTH.min(max_bytes / 16)
}

impl Writer {
    /// Has a checkpoint taken and written, as far as it is time for that; waits for neither. Call it when no batch is open, and
    /// nothing is half done.
    pub fn tend_checkpoint(&mut self) {
        if !self.checkpoints.tend() || !self.checkpoints.is_due(least_growth(self.limits.max_bytes)) {
            return;
        }
        if !self.claims.is_sealing() && !self.claims.are_sealed() && !self.checkpoints.sealed {
            self.checkpoints.sealed = true;
            self.begin_seal();
        }
        if !self.claims.is_sealing() {
            self.checkpoint();
        }
    }

    /// Leaves a checkpoint of everything there is. Waits until it is written.
    pub fn close_with_checkpoint(&mut self) {
        self.checkpoints.end();
        if self.checkpoints.grown == 0 || matches!(self.gauges.room(), Room::Failed(_)) {
            return;
        }
        let _ = self.seal_claims(); // else they are read back from where they are sealed to
        self.checkpoint();
        self.checkpoints.end();
    }

    fn checkpoint(&mut self) {
        if matches!(self.gauges.room(), Room::Failed(_)) || !self.flush() {
            return;
        }
        let through = segment::position(self.active.number, self.active.length);
        let runs = self.claims.runs_through();
        let sealed = if self.claims.are_sealed() { through } else { self.sealed_through };
        let sealed = Sealed { through: sealed.min(through), runs };
        let snapshot = Snapshot::of(&self.state(), through, sealed, Arc::clone(&self.active.file));
        let flushed = segment::position(self.active.number, self.active.flushed);
        self.checkpoints.begin(snapshot, flushed);
    }
}

/// A checksum of the end of the log before `offset` of a segment; none if the segment ends before that.
fn tail_sum(file: &dyn DiskFile, offset: u32) -> io::Result<Option<u32>> {
    let from = offset.saturating_sub(TAIL_BYTES).max(HEADER_BYTES);
    let mut bytes = vec![0; offset.saturating_sub(from) as usize];
    let got = file.read_at(&mut bytes, u64::from(from))?;
    Ok((got == bytes.len()).then(|| crc32c::crc32c(&bytes)))
}

/// Removes what a crash left, and the checkpoint itself if it is of no use. What cannot be removed is in nobody's way.
pub fn clear(disk: &dyn Disk, is_good: bool) {
    let _ = disk.remove(&format!("{FILE}.new"));
    if !is_good {
        let _ = disk.remove(FILE);
    }
}

/// The checksum of section `number` of a checkpoint whose head has the checksum `head`.
fn section_sum(head: u32, number: u32, held: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&head.to_le_bytes()), &number.to_le_bytes());
    crc32c::crc32c_append(sum, held)
}
