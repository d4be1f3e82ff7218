//! Following the index: what is new is read from it, what has changed is told by the feeder.
//!
//! Events have an order that never changes, so a follower only has to know how far it has read; it loses no event
//! however slow it is, and costs no memory. Changes have none: who falls too far behind the feeder loses some.

use std::collections::BTreeSet;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::query::{Filter, ITEM, Item, LIMIT_DEFAULT, LIMIT_MAX, Where, blob, deliveries, item};
use crate::base::UnixMillis;
use crate::event::EventId;
use crate::journal::Routing;

/// How far a follower may be behind the feeder, in changes. They are kept for all followers together, some 60 bytes each.
pub(super) const TOUCHED: usize = 8192;

/// Changed events that a follower takes at a time.
const TAKEN: usize = 500;

/// A place in the order in which events came into the index: everything before it has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// Where to begin to follow.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// After the newest event.
    Newest,
    /// After this event; if it is no longer kept, with those received when it was, or later.
    After(EventId),
    /// With those received at this time or later.
    Since(UnixMillis),
}

/// Some of the events from a mark on.
#[derive(Clone, Debug)]
pub struct Batch {
    /// In the order in which they came.
    pub items: Vec<Item>,
    /// Where to go on.
    pub next: Mark,
    /// Whether there was more to read.
    pub more: bool,
}

/// Hears which events are new or have changed.
#[derive(Debug)]
pub struct Follower(Receiver<EventId>);

/// Why a follower did not hear of every change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// There were more than are kept; it goes on with those that are.
    Behind,
    /// The index is closed.
    Closed,
}

impl Follower {
    pub(super) fn new(receiver: Receiver<EventId>) -> Self {
        Self(receiver)
    }

    /// Waits for changes, and gives the events that changed, each once; some at a time.
    ///
    /// # Errors
    /// [`Lost`].
    ///
    /// # Cancellation
    /// Safe: dropped, it has taken nothing.
    pub async fn changed(&mut self) -> Result<Vec<EventId>, Lost> {
        let first = self.0.recv().await.map_err(|error| match error {
            RecvError::Lagged(_) => Lost::Behind,
            RecvError::Closed => Lost::Closed,
        })?;
        let mut changed = BTreeSet::from([first]);
        while changed.len() < TAKEN {
            match self.0.try_recv() {
                Ok(id) => changed.insert(id),
                Err(TryRecvError::Lagged(_)) => return Err(Lost::Behind),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            };
        }
        Ok(changed.into_iter().collect())
    }
}

/// Where `start` is, and the last event before it.
pub(super) fn mark(db: &Connection, start: Start) -> rusqlite::Result<(Mark, Option<EventId>)> {
    let number =
        |sql: &str, value: Value| db.prepare_cached(sql)?.query_row([value], |row| row.get::<_, Option<u64>>(0));
    let since = |at: UnixMillis| number("SELECT min(seq) FROM events WHERE received_at >= ?1", at.0.into());
    let found = match start {
        Start::Newest => None,
        Start::Since(at) => since(at)?,
        Start::After(id) => match number("SELECT max(seq) + 1 FROM events WHERE id = ?1", blob(id))? {
            Some(next) => Some(next),
            None => since(id.made_at())?,
        },
    };
    let found = match found {
        Some(found) => Mark(found),
        None => end(db)?,
    };
    let mut before = db.prepare_cached("SELECT id FROM events WHERE seq < ?1 ORDER BY seq DESC LIMIT 1")?;
    let before = before.query_row([found.0], |row| row.get(0)).optional()?;
    Ok((found, before.map(EventId::from_bytes)))
}

/// After the newest event.
fn end(db: &Connection) -> rusqlite::Result<Mark> {
    let mut newest = db.prepare_cached("SELECT max(seq) + 1 FROM events")?;
    let next: Option<u64> = newest.query_row([], |row| row.get(0))?;
    Ok(Mark(next.unwrap_or(0)))
}

pub(super) fn from_mark(db: &Connection, routing: &Routing, mark: Mark, filter: &Filter) -> rusqlite::Result<Batch> {
    let limit = if filter.limit == 0 { LIMIT_DEFAULT } else { filter.limit.min(LIMIT_MAX) };
    let mut wanted = Where::listed(&Filter { cursor: None, ..filter.clone() }, routing);
    wanted.and("seq >= ?", [whole(mark.0)]);
    // By `seq` alone: an index over a column of the filter would have it sort all that a source ever had, each time.
    let sql = format!("{ITEM} NOT INDEXED WHERE {} ORDER BY seq LIMIT ?", wanted.sql());
    wanted.values.push(whole(limit as u64));
    let mut items = db
        .prepare_cached(&sql)?
        .query_map(params_from_iter(wanted.values), item)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for item in &mut items {
        item.deliveries = deliveries(db, routing, item)?;
    }
    let next = match items.last() {
        Some(last) if items.len() == limit => {
            let mut place = db.prepare_cached("SELECT seq + 1 FROM events WHERE id = ?1")?;
            Mark(place.query_row([last.located.id.as_bytes()], |row| row.get(0))?)
        }
        _ => end(db)?.max(mark), // what does not match need not be looked at again
    };
    Ok(Batch { more: items.len() == limit, items, next })
}

pub(super) fn before_mark(
    db: &Connection,
    routing: &Routing,
    ids: &[EventId],
    mark: Mark,
    filter: &Filter,
) -> rusqlite::Result<Vec<Item>> {
    let mut wanted = Where::listed(&Filter { cursor: None, ..filter.clone() }, routing);
    wanted.and("seq < ?", [whole(mark.0)]);
    let mut select = db.prepare_cached(&format!("{ITEM} WHERE {} AND id = ?", wanted.sql()))?;
    let mut items = Vec::new();
    for id in ids {
        let values = wanted.values.iter().cloned().chain([blob(*id)]);
        if let Some(mut found) = select.query_row(params_from_iter(values), item).optional()? {
            found.deliveries = deliveries(db, routing, &found)?;
            items.push(found);
        }
    }
    Ok(items)
}

fn whole(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}
