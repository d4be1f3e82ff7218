//! The database file: its schema, how it is opened, and when it is thrown away.
//!
//! `index.db` holds four tables. `state` is one row: whose index this is, up to where it has been
//! fed, and whether something was erased since it was written anew. `events` is a row an event, `deliveries` a row a delivery, `attempts` a row an attempt (the newest of each delivery).
//! Ids are the 16 bytes of the UUID, times Unix milliseconds, statuses the words of the API. An event's `seq` is the position
//! at which the index first met it: it gives the order in which events came, and stays when the record moves. Columns that may
//! hold `ANY`, and `answer`, are [`Cells`]: sealed where the journal is.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::cells::Cells;
use super::{IndexError, apply};
use crate::event::EventId;
use crate::journal::seal::{KeyId, Keyring};
use crate::journal::{Changes, Position};

/// Rises with every change of [`SCHEMA`]: an index of another version is rebuilt, never converted.
const VERSION: i32 = 5;

const SCHEMA: &str = "
CREATE TABLE state (
    identity BLOB NOT NULL,
    position INTEGER NOT NULL,
    sealed_by BLOB,
    unscrubbed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    position INTEGER NOT NULL,
    source TEXT NOT NULL,
    provider TEXT NOT NULL,
    type ANY,
    provider_event_id ANY,
    method TEXT NOT NULL,
    path ANY NOT NULL,
    query ANY,
    received_at INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    status TEXT NOT NULL,
    duplicates INTEGER NOT NULL DEFAULT 0,
    conflicts INTEGER NOT NULL DEFAULT 0,
    same_bodies INTEGER NOT NULL DEFAULT 0,
    same_body_as BLOB
) STRICT;
CREATE INDEX events_by_position ON events (position);
CREATE INDEX events_by_time ON events (received_at, id);
CREATE INDEX events_by_source ON events (source, received_at, id);
CREATE INDEX events_by_status ON events (status, received_at, id);
CREATE TABLE deliveries (
    event BLOB NOT NULL,
    idx INTEGER NOT NULL,
    destination TEXT NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    since INTEGER NOT NULL,
    next_attempt_at INTEGER,
    next_reason TEXT NOT NULL DEFAULT 'initial',
    dead_reason TEXT,
    PRIMARY KEY (event, idx)
) STRICT, WITHOUT ROWID;
CREATE TABLE attempts (
    event BLOB NOT NULL,
    idx INTEGER NOT NULL,
    number INTEGER NOT NULL,
    reason TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    duration_ms INTEGER,
    status INTEGER,
    error ANY,
    answer BLOB,
    PRIMARY KEY (event, idx, number)
) STRICT, WITHOUT ROWID;
";

/// For every connection: check the shape of each page as it is read, so that damage is an error early.
const PRAGMAS: &str = "PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF;";

/// For the one that writes. `synchronous = NORMAL` syncs at checkpoints only: a power cut may cost the
/// last transactions, whole ones, and the position with them, so the journal gives them again. `OFF` would be faster by a sync
/// every few MiB, but could leave a file that is wrong without looking so.
///
/// The write-ahead log stays below 1 MiB and freed pages go back to the disk: `journal.max_size` counts the index too.
const WRITER_PRAGMAS: &str = "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
    PRAGMA secure_delete = ON; \
    PRAGMA cache_size = -8192; PRAGMA wal_autocheckpoint = 200; PRAGMA journal_size_limit = 1048576;";

const READER_PRAGMAS: &str = "PRAGMA query_only = ON; PRAGMA cache_size = -2048;";

/// Statements kept ready on a connection: the combinations of filters that are in use.
const STATEMENTS: usize = 64;

/// The connection that writes, and the position it has applied.
pub(super) struct Store {
    db: Option<Connection>,
    path: PathBuf,
    identity: [u8; 16],
    cells: Cells,
    applied: Position,
    /// Where the journal's tail was before it took events.
    began_at: Position,
    /// Whether what was erased may still be in its files.
    unscrubbed: bool,
}

impl Store {
    /// The index in `dir`, not open yet, of the journal with this `identity`, which goes up to `tail` now.
    pub(super) fn new(dir: &Path, identity: [u8; 16], keys: &Keyring, tail: Position) -> Self {
        let (cells, path) = (Cells::new(keys, identity), dir.join("index.db"));
        Self { db: None, path, identity, cells, applied: Position::START, began_at: tail, unscrubbed: false }
    }

    /// Opens it, made where it is missing. One that is not of this version, not of this journal, damaged, or ahead of where the
    /// journal was at the start is deleted and starts anew. Says whether there was need to.
    pub(super) fn open(&mut self) -> Result<bool, IndexError> {
        if self.db.is_some() {
            return Ok(false);
        }
        if let Some(dir) = self.path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(|error| IndexError::unusable(dir, &error))?;
        }
        self.remove(".new")?; // left by a crash
        match self.resume(self.began_at) {
            Ok(Resumed::Yes) => {}
            Ok(Resumed::New) => {
                tracing::info!("there is no index yet; it is built from the journal");
                self.replace()?;
            }
            Ok(Resumed::No(reason)) => self.rebuild(reason)?,
            Err(error) if is_outside(&error) => return Err(error.into()),
            Err(error) => self.rebuild(&error.to_string())?,
        }
        Ok(true)
    }

    /// How its cells are sealed.
    pub(super) fn cells(&self) -> &Cells {
        &self.cells
    }

    /// Starts anew where something else is to seal than did so far. Says whether it did.
    pub(super) fn follow(&mut self, keys: &Keyring) -> Result<bool, IndexError> {
        let wanted = Cells::new(keys, self.identity);
        if wanted.sealed_by() == self.cells.sealed_by() {
            return Ok(false);
        }
        self.cells = wanted;
        self.rebuild("the key that seals it is another")?;
        Ok(true)
    }

    /// Up to where the journal's changes are in the index.
    pub(super) fn applied(&self) -> Position {
        self.applied
    }

    /// Applies `batch` in one transaction, its position included. Gives the events that are new or have changed.
    pub(super) fn apply(&mut self, batch: &Changes) -> Result<BTreeSet<EventId>, IndexError> {
        let db = self.db.as_mut().ok_or(IndexError::Closed)?;
        let touched = apply::apply(db, &self.cells, batch)?;
        self.applied = batch.next;
        self.unscrubbed |= apply::erases(batch);
        Ok(touched)
    }

    /// Deletes the index and starts a new one before the first change.
    pub(super) fn rebuild(&mut self, reason: &str) -> Result<(), IndexError> {
        tracing::warn!(reason, "the index is rebuilt from the journal");
        self.replace()
    }

    /// Deletes what there is, a write-ahead log without its database included, and starts before the first change.
    fn replace(&mut self) -> Result<(), IndexError> {
        self.db = None;
        FILES.iter().chain(&[".new"]).try_for_each(|suffix| self.remove(suffix))?;
        self.create()
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    fn remove(&self, suffix: &str) -> Result<(), IndexError> {
        let path = self.beside(suffix);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(IndexError::unusable(&path, &error)),
            _ => Ok(()),
        }
    }

    /// Writes the database anew where it may have what was erased: a row that is deleted is still in pages that it was moved
    /// from before (`secure_delete` or not), and in the write-ahead log.
    pub(super) fn scrub(&mut self) -> Result<Scrubbed, IndexError> {
        if !self.unscrubbed {
            return Ok(Scrubbed::Before);
        }
        if let Err(error) = self.copy() {
            self.rebuild(&format!("what was erased cannot be taken out of it: {error}"))?; // needs no space beside it
        }
        let db = self.db.as_ref().ok_or(IndexError::Closed)?;
        db.execute("UPDATE state SET unscrubbed = 0", [])?;
        self.unscrubbed = false;
        Ok(Scrubbed::Now)
    }

    /// Puts a copy in the place of the database. A crash in between leaves none, and it is built anew.
    fn copy(&mut self) -> Result<(), IndexError> {
        let fresh = self.beside(".new");
        self.remove(".new")?;
        make(&fresh)?;
        let db = self.db.take().ok_or(IndexError::Closed)?;
        let name = fresh.to_str().ok_or_else(|| rusqlite::Error::InvalidPath(fresh.clone()))?;
        db.execute("VACUUM INTO ?1", [name])?;
        drop(db);
        let unusable = |error| IndexError::unusable(&fresh, &error);
        File::open(&fresh).and_then(|file| file.sync_all()).map_err(unusable)?;
        FILES.iter().try_for_each(|suffix| self.remove(suffix))?; // an old log must not meet a new database
        std::fs::rename(&fresh, &self.path).map_err(unusable)?;
        self.db = Some(connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE, WRITER_PRAGMAS)?);
        Ok(())
    }

    /// Gives pages that deletions left free back to the disk, once they are a quarter of the file.
    pub(super) fn shrink(&self) -> Result<(), IndexError> {
        let Some(db) = &self.db else { return Ok(()) };
        let count = |pragma: &str| db.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0));
        if count("freelist_count")? * 4 > count("page_count")? {
            let mut vacuum = db.prepare_cached("PRAGMA incremental_vacuum")?;
            let mut steps = vacuum.query([])?;
            while steps.next()?.is_some() {} // a page or so a step
            db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        }
        Ok(())
    }

    fn resume(&mut self, tail: Position) -> rusqlite::Result<Resumed> {
        if !self.path.exists() {
            return Ok(Resumed::New);
        }
        let db = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE, WRITER_PRAGMAS)?;
        if db.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0))? != VERSION {
            return Ok(Resumed::No("it is of another version"));
        }
        let sql = "SELECT identity, position, sealed_by, unscrubbed FROM state";
        let state: Option<StateRow> =
            db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).optional()?;
        let Some((identity, position, sealed_by, unscrubbed)) = state else {
            return Ok(Resumed::No("it is unfinished"));
        };
        if identity != self.identity {
            return Ok(Resumed::No("it is of another journal"));
        }
        if sealed_by.map(KeyId) != self.cells.sealed_by() {
            return Ok(Resumed::No("the key that seals it is another"));
        }
        if Position(position) > tail {
            return Ok(Resumed::No("it is ahead of the journal"));
        }
        self.db = Some(db);
        (self.applied, self.unscrubbed) = (Position(position), unscrubbed);
        Ok(Resumed::Yes)
    }

    fn create(&mut self) -> Result<(), IndexError> {
        make(&self.path)?;
        let mut db = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE, WRITER_PRAGMAS)?;
        let tx = db.transaction()?;
        tx.execute_batch(SCHEMA)?;
        let sealed_by = self.cells.sealed_by().map(|key| key.0);
        let sql = "INSERT INTO state (identity, position, sealed_by) VALUES (?1, 0, ?2)";
        tx.execute(sql, (&self.identity[..], sealed_by))?;
        tx.pragma_update(None, "user_version", VERSION)?;
        tx.commit()?;
        self.db = Some(db);
        self.applied = Position::START;
        Ok(())
    }
}

/// A database's files, by what their names end with.
const FILES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// When the database was written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scrubbed {
    /// There was no need to.
    Before,
    /// Just now: there is another file.
    Now,
}

/// Makes an empty file, rather than let SQLite do so, which would leave the mode to the umask; -wal and -shm take it over.
fn make(path: &Path) -> Result<(), IndexError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).map_err(|error| IndexError::unusable(path, &error))
}

/// Whose index it is, up to where it is fed, the key that seals in it, and whether something was erased since it was written anew.
type StateRow = (Vec<u8>, u64, Option<[u8; 8]>, bool);

enum Resumed {
    Yes,
    New,
    No(&'static str),
}

/// A connection for queries to the index in `dir`, whose cells are `cells`.
pub(super) fn open_reader(dir: &Path, cells: &Cells) -> rusqlite::Result<Connection> {
    let db = connect(&dir.join("index.db"), OpenFlags::SQLITE_OPEN_READ_ONLY, READER_PRAGMAS)?;
    cells.teach(&db)?;
    Ok(db)
}

fn connect(path: &Path, access: OpenFlags, pragmas: &str) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    db.execute_batch(PRAGMAS)?;
    db.execute_batch(pragmas)?;
    Ok(db)
}

/// Whether `error` says that the file is not a sound index: throwing it away mends that.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Whether `error` comes from the disk or the permissions: throwing the index away would mend nothing.
pub(super) fn is_outside(error: &rusqlite::Error) -> bool {
    use ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    let outside =
        [CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure];
    error.sqlite_error_code().is_some_and(|code| outside.contains(&code))
}
