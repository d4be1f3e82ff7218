//! Cells of the index that hold what a sender or an application wrote: sealed where the journal seals.
//!
//! An index is sealed throughout, with one key that `state` names, or not at all; with another key it is built anew. A sealed cell is
//! a blob: the nonce (12 bytes), what is sealed, its tag (16 bytes), bound to the index and to the event it is of. Queries ask
//! for `plain_text(event, cell)` or `plain_bytes(event, cell)`.

use std::sync::Arc;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error, ffi};

use crate::event::EventId;
use crate::journal::seal::{KeyId, Keyring, NONCE_BYTES, Sealer};

/// Makes and reads cells.
#[derive(Clone)]
pub(super) struct Cells {
    identity: [u8; 16],
    sealer: Option<Arc<Sealer>>,
}

impl Cells {
    /// As `keys` have it now, for the index with this `identity`.
    pub(super) fn new(keys: &Keyring, identity: [u8; 16]) -> Self {
        Self { identity, sealer: keys.sealing().cloned() }
    }

    /// The key that they are sealed with.
    pub(super) fn sealed_by(&self) -> Option<KeyId> {
        self.sealer.as_ref().map(|sealer| sealer.id())
    }

    /// A cell with a text.
    pub(super) fn text(&self, event: EventId, text: Option<&str>) -> rusqlite::Result<Value> {
        match (text, &self.sealer) {
            (None, _) => Ok(Value::Null),
            (Some(text), None) => Ok(Value::Text(text.to_owned())),
            (Some(text), Some(sealer)) => self.sealed(sealer, event, text.as_bytes()),
        }
    }

    /// A cell with bytes.
    pub(super) fn bytes(&self, event: EventId, bytes: Option<&[u8]>) -> rusqlite::Result<Value> {
        match (bytes, &self.sealer) {
            (None, _) => Ok(Value::Null),
            (Some(bytes), None) => Ok(Value::Blob(bytes.to_owned())),
            (Some(bytes), Some(sealer)) => self.sealed(sealer, event, bytes),
        }
    }

    fn sealed(&self, sealer: &Sealer, event: EventId, bytes: &[u8]) -> rusqlite::Result<Value> {
        let mut private = bytes.to_owned();
        let (nonce, tag) = sealer
            .seal(&self.beside(event.as_bytes()), &mut private)
            .map_err(|error| Error::ToSqlConversionFailure(Box::new(error)))?;
        Ok(Value::Blob([&nonce[..], &private, &tag].concat()))
    }

    fn open(&self, event: &[u8], cell: &[u8]) -> Option<Vec<u8>> {
        let sealer = self.sealer.as_ref()?;
        let (nonce, sealed) = cell.split_first_chunk::<NONCE_BYTES>()?;
        let mut bytes = sealed.to_owned();
        let length = sealer.open(&self.beside(event), *nonce, &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }

    /// What is sealed is bound to this.
    fn beside(&self, event: &[u8]) -> Vec<u8> {
        [b"index", &self.identity[..], event].concat()
    }

    /// Lets queries of `db` read cells.
    pub(super) fn teach(&self, db: &Connection) -> rusqlite::Result<()> {
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
        let cells = self.clone();
        db.create_scalar_function("plain_text", 2, flags, move |row| match cells.plain(row)? {
            Value::Blob(bytes) => String::from_utf8(bytes).map(Value::Text).map_err(|_| not_ours()),
            other => Ok(other),
        })?;
        let cells = self.clone();
        db.create_scalar_function("plain_bytes", 2, flags, move |row| cells.plain(row))
    }

    /// The second argument as it was before it was sealed. A text in a sealed index is our own.
    fn plain(&self, row: &Context<'_>) -> rusqlite::Result<Value> {
        match row.get_raw(1) {
            ValueRef::Blob(cell) if self.sealer.is_some() => {
                let opened = row.get_raw(0).as_blob().ok().and_then(|event| self.open(event, cell));
                opened.map(Value::Blob).ok_or_else(not_ours)
            }
            other => Value::try_from(other).map_err(|_| not_ours()),
        }
    }
}

/// It is damage, and mended as damage is: the index is built anew. With a message of its own it would have no code.
fn not_ours() -> Error {
    Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), None)
}
