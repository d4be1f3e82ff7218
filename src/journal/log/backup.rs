//! A backup of a journal that goes on: its files as a crash at one moment would leave them.
//!
//! Segments only grow, so that moment is a length for each: as much as was durable then. They are read one after the other, oldest
//! first, and until its turn has come none is let go of by age; where events need its space it is, and the backup ends: intake
//! goes first. Runs of claims may be merged and removed meanwhile, but are open already, so that their bytes stay.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::crew::{Workplace, thread};
use super::lock::Lock;
use super::meta::Meta;
use super::open;
use super::time::Time;
use super::writer::{Command, Writer};
use super::{LogJournal, OpenError, claims, erase, segment};
use crate::base::{Clock, UnixMillis};
use crate::journal::archive::{Content, Item, Plan};
use crate::journal::disk::{Disk, RealDisk};
use crate::journal::{Backup, JournalError};

/// The files beside the log and the claims, whichever there are.
const BESIDE: [&str; 5] = ["journal.meta", "journal.time", "paused", "routes", erase::FILE];
/// Pieces of the archive that are made ahead of whoever takes them.
const AHEAD: usize = 4;

/// Whether there are files of this name in a directory of the journal's, and a backup has them.
pub fn is_file_of(dir: &str, file: &str) -> bool {
    match dir {
        segment::DIR => segment::number_of(file).is_some_and(|number| segment::path(number) == format!("{dir}/{file}")),
        claims::DIR => claims::is_file(file),
        _ => false,
    }
}

/// From which segment on none is let go of by age, while a backup is made.
pub struct Held(AtomicU32);

impl Default for Held {
    fn default() -> Self {
        Self(AtomicU32::new(u32::MAX))
    }
}

impl Held {
    /// Whether segment `number` is to stay, if space allows.
    pub fn has(&self, number: u32) -> bool {
        self.0.load(Ordering::Relaxed) <= number
    }

    fn begin_at(&self, number: u32) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// None is to stay.
    pub fn release(&self) {
        self.begin_at(u32::MAX);
    }
}

impl LogJournal {
    /// [`crate::journal::Journal::backup`].
    pub(super) async fn make_backup(&self) -> Result<Backup, JournalError> {
        let turn = Arc::clone(&self.shared.turn).try_acquire_owned().map_err(|_| JournalError::Busy)?;
        if erase::is_unfinished(&*self.shared.disk).map_err(unread)? {
            let why = "an error has cut off the erasing of an event, which must not get into a backup: erase it again, or restart";
            return Err(JournalError::Read(Arc::from(why)));
        }
        let under_way = UnderWay { journal: self.clone(), _turn: turn };
        let plan = self.write(|reply| Command::Snapshot { reply }, || JournalError::Closed).await?;
        let (pieces, receiver) = mpsc::channel(AHEAD);
        let backup = Backup { bytes: plan.bytes(), pieces: receiver };
        let thread = thread("journal-backup", move || under_way.write(&plan, &pieces));
        thread.map_err(|error| JournalError::Failed(Arc::from(error.to_string())))?;
        Ok(backup)
    }
}

/// Holds segments until it is dropped.
struct UnderWay {
    journal: LogJournal,
    _turn: OwnedSemaphorePermit,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.held().release();
    }
}

impl UnderWay {
    fn held(&self) -> &Held {
        &self.journal.shared.gauges.held
    }

    /// Writes the archive to whoever takes it; ends where nobody does any more.
    fn write(self, plan: &Plan, pieces: &mpsc::Sender<Bytes>) {
        let opened = |name: &str| {
            let segment =
                name.strip_prefix(segment::DIR).and_then(|name| segment::number_of(name.trim_start_matches('/')));
            if let Some(number) = segment {
                self.held().begin_at(number.saturating_add(1)); // its bytes stay until it is read
            }
        };
        let mut bytes = 0;
        let written = plan.write(&*self.journal.shared.disk, opened, &mut |piece| {
            bytes += piece.len();
            pieces.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
        });
        match written {
            Ok(()) => tracing::info!(bytes, files = plan.items.len(), "a backup was made"),
            Err(error) => tracing::warn!(%error, bytes, "a backup was given up"),
        }
    }
}

#[allow(clippy::needless_pass_by_value)] // for `map_err`
fn unread(error: io::Error) -> JournalError {
    JournalError::Read(Arc::from(error.to_string()))
}

impl Writer {
    /// What a backup has to have. Call it when no batch is open.
    pub fn snapshot(&mut self) -> Result<Plan, JournalError> {
        if !self.flush() {
            return Err(self.broken().into());
        }
        if let Err(error) = self.time.mark(&*self.disk) {
            tracing::warn!(%error, "the journal's time could not be written down; the backup has an older mark");
        }
        let segments: Vec<(u32, u32)> =
            self.state().segments.iter().map(|(number, segment)| (*number, segment.end)).collect();
        self.gauges.held.begin_at(segments.first().map_or(u32::MAX, |(number, _)| *number));
        let mut items = beside(&*self.disk).map_err(unread)?;
        items.extend(self.claims.files());
        let segment = |(number, end): (u32, u32)| Item {
            name: segment::path(number),
            bytes: u64::from(end),
            content: Content::Named,
        };
        items.extend(segments.into_iter().map(segment));
        Ok(Plan { store: self.store, made_at: self.clock.now(), items })
    }
}

/// The small files, read.
fn beside(disk: &dyn Disk) -> io::Result<Vec<Item>> {
    let mut items = Vec::new();
    let files = disk.list(".")?;
    for name in BESIDE {
        let Some((_, length)) = files.iter().find(|(found, _)| found == name) else { continue };
        let mut bytes = vec![0; usize::try_from(*length).unwrap_or(0)];
        let count = disk.open(name)?.read_at(&mut bytes, 0)?;
        bytes.truncate(count);
        items.push(Item { name: name.to_owned(), bytes: count as u64, content: Content::Bytes(bytes.into()) });
    }
    Ok(items)
}

/// A journal that no process has, locked as long as this lives.
pub struct Stopped {
    /// What a backup of it has.
    pub plan: Plan,
    /// Where it is.
    pub disk: RealDisk,
    _lock: Lock,
}

impl Stopped {
    /// Locks the journal in `dir`.
    ///
    /// # Errors
    /// [`OpenError`]: there is none, it is in use, or it cannot be read.
    pub fn open(dir: &Path, now: UnixMillis) -> Result<Self, OpenError> {
        let cannot = |error| OpenError::Io { what: format!("cannot read the journal in {}", dir.display()), error };
        if !dir.join("journal.meta").is_file() {
            return Err(cannot(io::Error::new(io::ErrorKind::NotFound, "it has no journal.meta")));
        }
        let lock = Lock::take(dir)?;
        let disk = RealDisk::new(dir);
        let Meta { store, .. } = Meta::open(&disk)?;
        let mut items = beside(&disk).map_err(cannot)?;
        for dir in [claims::DIR, segment::DIR] {
            let mut files = disk.list(dir).map_err(cannot)?;
            files.retain(|(file, _)| is_file_of(dir, file));
            files.sort_unstable();
            let item = |(file, bytes)| Item { name: format!("{dir}/{file}"), bytes, content: Content::Named };
            items.extend(files.into_iter().map(item));
        }
        Ok(Self { plan: Plan { store, made_at: now, items }, disk, _lock: lock })
    }
}

/// What a journal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Events, whatever has become of them.
    pub events: u64,
    /// Deliveries that wait, orphaned ones included.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// Stretches of the log that cannot be read, and segments and runs of claims that are missing.
    pub damaged: u64,
}

/// Reads the journal in `dir` back, as opening it does, and lets go of nothing.
///
/// # Errors
/// [`OpenError`], as opening it would.
pub fn survey(dir: &Path, clock: Arc<dyn Clock>) -> Result<Survey, OpenError> {
    let cannot = |error| OpenError::Io { what: format!("cannot read the journal in {}", dir.display()), error };
    let _lock = Lock::take(dir)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir));
    let meta = Meta::open(&*disk)?;
    erase::redo(&*disk, meta.store).map_err(cannot)?;
    let now = Time::open(&*disk, clock).map_err(cannot)?.now();
    let open::Recovered { state, damaged, .. } = open::recover(&disk, meta.store, now, &Workplace::default())?;
    let sum =
        |count: fn(&super::Segment) -> u32| state.segments.values().map(|segment| u64::from(count(segment))).sum();
    Ok(Survey {
        events: sum(|segment| segment.events),
        pending: sum(|segment| segment.pending),
        dead: sum(|segment| segment.dead),
        damaged,
    })
}
