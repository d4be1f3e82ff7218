//! The database file: its schema, how it is opened, and when it is thrown away.
//!
//! `index.db` holds four tables. `state` is one row: whose index this is and up to where it has been
//! fed. `events` is a row an event, `deliveries` a row a delivery, `attempts` a row an attempt (the newest of each delivery).
//! Ids are the 16 bytes of the UUID, times Unix milliseconds, statuses the words of the API. An event's `seq` is the position
//! at which the index first met it: it gives the order in which events came, and stays when the record moves. Columns that may
//! hold `ANY`, and `answer`, are [`Cells`]: sealed where the journal is.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, OpenOptions};
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
    sealed_by BLOB
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
}

impl Store {
    /// Opens the index in `dir`, made where it is missing. One that is not of this version, not of the
    /// journal with this `identity`, damaged, or ahead of `tail` is deleted and starts anew.
    pub(super) fn open(dir: &Path, identity: [u8; 16], keys: &Keyring, tail: Position) -> Result<Self, IndexError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| IndexError::unusable(dir, &error))?;
        let cells = Cells::new(keys, identity);
        let mut store = Self { db: None, path: dir.join("index.db"), identity, cells, applied: Position::START };
        match store.resume(tail) {
            Ok(Resumed::Yes) => {}
            Ok(Resumed::New) => {
                tracing::info!("there is no index yet; it is built from the journal");
                store.replace()?;
            }
            Ok(Resumed::No(reason)) => store.rebuild(reason)?,
            Err(error) if is_outside(&error) => return Err(error.into()),
            Err(error) => store.rebuild(&error.to_string())?,
        }
        Ok(store)
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
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut path = self.path.clone().into_os_string();
            path.push(suffix);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(IndexError::unusable(Path::new(&path), &error));
                }
                _ => {}
            }
        }
        self.create()
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
        let state: Option<(Vec<u8>, u64, Option<[u8; 8]>)> = db
            .query_row("SELECT identity, position, sealed_by FROM state", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        let Some((identity, position, sealed_by)) = state else { return Ok(Resumed::No("it is unfinished")) };
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
        self.applied = Position(position);
        Ok(Resumed::Yes)
    }

    fn create(&mut self) -> Result<(), IndexError> {
        // Made here rather than by SQLite, which would leave the mode to the umask; -wal and -shm take it over.
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path);
        made.map_err(|error| IndexError::unusable(&self.path, &error))?;
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
fn is_outside(error: &rusqlite::Error) -> bool {
    use ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    let outside =
        [CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure];
    error.sqlite_error_code().is_some_and(|code| outside.contains(&code))
}
