//! Applies the journal's changes to the tables.
//!
//! Changes of events that are not in the index (any more) are passed over: their event was trimmed.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::cells::Cells;
use super::status::{EventStatus, delivery_status};
use crate::base::UnixMillis;
use crate::event::{Attempt, AttemptReason, DeadReason, DeliveryId, DeliveryStatus, Event, EventId};
use crate::journal::{Change, Changes, DeliveryState, Position, Rearm, Settled, Verdict};

/// Attempts of one delivery that the index keeps, the newest: a delivery that fails for days makes hundreds.
pub(super) const ATTEMPTS_KEPT: u32 = 20;

/// Events that go in one step of a trim, so that its memory is bounded.
const TRIM_STEP: usize = 512;

/// What an attempt is told to have come to when a later one began and it had not ended.
const UNKNOWN_OUTCOME: &str = "outcome unknown: the gateway stopped while it ran";

/// Applies `batch` and its position in one transaction. Gives the events that are new, or whose deliveries have changed.
pub(super) fn apply(db: &mut Connection, cells: &Cells, batch: &Changes) -> rusqlite::Result<BTreeSet<EventId>> {
    let tx = db.transaction()?;
    let mut touched = BTreeSet::new(); // at most one a change, but for damage
    for change in &batch.changes {
        if let Change::Lost { from, before, at } = change {
            touched.extend(lose(&tx, *from, *before, *at)?); // as many as a segment has in one stretch
        } else if let Some(event) = apply_one(&tx, cells, change)? {
            touched.insert(event);
        }
    }
    for event in &touched {
        derive_status(&tx, *event)?;
    }
    let sql = "UPDATE state SET position = ?1, unscrubbed = max(unscrubbed, ?2)";
    tx.prepare_cached(sql)?.execute(params![batch.next.0, erases(batch)])?;
    tx.commit()?;
    Ok(touched)
}

/// Whether an event is erased in `batch`.
pub(super) fn erases(batch: &Changes) -> bool {
    batch.changes.iter().any(|change| matches!(change, Change::Erased { .. }))
}

/// Gives the event whose deliveries have changed.
fn apply_one(tx: &Transaction<'_>, cells: &Cells, change: &Change) -> rusqlite::Result<Option<EventId>> {
    match change {
        Change::Event { at, event, body_bytes, deliveries } => {
            if !move_event(tx, event.id, *at)? {
                insert_event(tx, cells, *at, event, *body_bytes, deliveries)?;
            }
            place_deliveries(tx, event.id, deliveries)?;
            Ok(Some(event.id))
        }
        Change::Started { delivery, number, at } => {
            start(tx, *delivery, *number, *at)?;
            Ok(Some(delivery.event))
        }
        Change::Settled(settled) => {
            settle(tx, cells, settled)?;
            Ok(Some(settled.delivery.event))
        }
        Change::Rearmed { delivery, why, at } => {
            rearm(tx, *delivery, *why, *at)?;
            Ok(Some(delivery.event))
        }
        Change::Duplicate { original, conflict, .. } => {
            let sql = "UPDATE events SET duplicates = duplicates + 1, conflicts = conflicts + ?2 WHERE id = ?1";
            tx.prepare_cached(sql)?.execute(params![blob(original), conflict])?;
            Ok(None)
        }
        Change::SameBody { event, like } => {
            let sql = "UPDATE events SET same_body_as = ?2 WHERE id = ?1";
            tx.prepare_cached(sql)?.execute(params![blob(event), blob(like)])?;
            let sql = "UPDATE events SET same_bodies = same_bodies + 1 WHERE id = ?1";
            tx.prepare_cached(sql)?.execute([blob(like)])?;
            Ok(None)
        }
        Change::Erased { event, .. } => {
            erase(tx, *event)?;
            Ok(Some(*event))
        }
        Change::Lost { .. } => Ok(None), // see `apply`
        Change::Trimmed { from, before } => {
            trim(tx, *from, *before)?;
            Ok(None)
        }
    }
}

/// The deliveries of these events that are pending can never be made. Gives the events.
fn lose(tx: &Transaction<'_>, from: Position, before: Position, at: Position) -> rusqlite::Result<Vec<EventId>> {
    let sql = "SELECT id FROM events WHERE position >= ?1 AND position < ?2";
    let mut find = tx.prepare_cached(sql)?;
    let ids = find.query_map([from.0, before.0], |row| row.get::<_, [u8; 16]>(0))?;
    let ids: Vec<EventId> = ids.map(|id| id.map(EventId::from_bytes)).collect::<rusqlite::Result<_>>()?;
    let sql =
        "UPDATE deliveries SET status = ?2, dead_reason = ?3, next_attempt_at = NULL WHERE event = ?1 AND status = ?4";
    let mut die = tx.prepare_cached(sql)?;
    let (dead, pending) = (DeliveryStatus::Dead.as_str(), DeliveryStatus::Pending.as_str());
    for id in &ids {
        die.execute(params![blob(id), dead, DeadReason::Damaged.as_str(), pending])?;
        move_event(tx, *id, at)?;
    }
    Ok(ids)
}

/// Whether the event was known, and so has only moved.
fn move_event(tx: &Transaction<'_>, event: EventId, at: Position) -> rusqlite::Result<bool> {
    let sql = "UPDATE events SET position = ?2 WHERE id = ?1";
    Ok(tx.prepare_cached(sql)?.execute(params![blob(&event), at.0])? > 0)
}

fn insert_event(
    tx: &Transaction<'_>,
    cells: &Cells,
    at: Position,
    event: &Event,
    body_bytes: u64,
    deliveries: &[DeliveryState],
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO events (seq, id, position, source, provider, type, provider_event_id, method, path, query, \
        received_at, size_bytes, status) VALUES (?2, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    tx.prepare_cached(sql)?.execute(params![
        blob(&event.id),
        at.0,
        event.source.as_str(),
        event.provider.as_str(),
        cells.text(event.id, event.kind.as_deref())?,
        cells.text(event.id, event.provider_event_id.as_deref())?,
        event.method.as_str(),
        cells.text(event.id, Some(&event.path))?,
        cells.text(event.id, event.query.as_deref())?,
        event.received_at.0,
        body_bytes,
        EventStatus::of(deliveries.iter().map(|delivery| delivery.status)).as_str(),
    ])?;
    Ok(())
}

/// Sets the deliveries as the record has them; what is known of their attempts stays, and the count of those
/// whose records are gone is taken from this one.
fn place_deliveries(tx: &Transaction<'_>, event: EventId, deliveries: &[DeliveryState]) -> rusqlite::Result<()> {
    let sql = "INSERT INTO deliveries (event, idx, destination, status, attempts, since) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
        ON CONFLICT (event, idx) DO UPDATE SET attempts = max(attempts, excluded.attempts), status = excluded.status, \
            since = excluded.since, \
            next_attempt_at = CASE WHEN status = excluded.status THEN next_attempt_at END";
    let mut place = tx.prepare_cached(sql)?;
    for (index, DeliveryState { destination, status, attempts, since }) in deliveries.iter().enumerate() {
        place.execute(params![blob(&event), index, destination.as_str(), status.as_str(), attempts, since.0])?;
    }
    Ok(())
}

/// A delivery whose attempt starts is pending, whatever it was here: a power cut can take an outcome that was not
/// synced yet, and the delivery is made again.
fn start(tx: &Transaction<'_>, delivery: DeliveryId, number: u32, at: UnixMillis) -> rusqlite::Result<()> {
    let (event, index) = (blob(&delivery.event), delivery.index);
    let sql = "SELECT next_reason FROM deliveries WHERE event = ?1 AND idx = ?2";
    let mut find = tx.prepare_cached(sql)?;
    let Some(reason) = find.query_row(params![event, index], |row| row.get::<_, String>(0)).optional()? else {
        return Ok(());
    };
    begin_attempt(tx, delivery, number)?;
    let sql = "INSERT INTO attempts (event, idx, number, reason, started_at) VALUES (?1, ?2, ?3, ?4, ?5) \
        ON CONFLICT (event, idx, number) DO NOTHING";
    tx.prepare_cached(sql)?.execute(params![event, index, number, reason, at.0])?;
    let sql = "UPDATE deliveries SET status = ?3, next_attempt_at = NULL, dead_reason = NULL \
        WHERE event = ?1 AND idx = ?2";
    tx.prepare_cached(sql)?.execute(params![event, index, DeliveryStatus::Pending.as_str()])?;
    Ok(())
}

fn settle(tx: &Transaction<'_>, cells: &Cells, settled: &Settled) -> rusqlite::Result<()> {
    let delivery = settled.delivery;
    let (status, next, dead) = match settled.verdict {
        Verdict::Delivered => (DeliveryStatus::Delivered, None, None),
        Verdict::RetryAt(at) => (DeliveryStatus::Pending, Some(at.0), None),
        Verdict::Dead(why) => (DeliveryStatus::Dead, None, Some(why.as_str())),
        Verdict::Refused => (DeliveryStatus::Refused, None, None),
    };
    let sql = "UPDATE deliveries SET status = ?3, next_attempt_at = ?4, dead_reason = ?5 WHERE event = ?1 AND idx = ?2";
    let known =
        tx.prepare_cached(sql)?.execute(params![blob(&delivery.event), delivery.index, status.as_str(), next, dead])?;
    match &settled.attempt {
        Some(attempt) if known > 0 => record_attempt(tx, cells, delivery, attempt),
        _ => Ok(()),
    }
}

fn record_attempt(
    tx: &Transaction<'_>,
    cells: &Cells,
    delivery: DeliveryId,
    attempt: &Attempt,
) -> rusqlite::Result<()> {
    begin_attempt(tx, delivery, attempt.number)?;
    let sql = "INSERT INTO attempts (event, idx, number, reason, started_at, duration_ms, status, error, answer) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (event, idx, number) DO UPDATE SET \
        reason = excluded.reason, started_at = excluded.started_at, duration_ms = excluded.duration_ms, \
        status = excluded.status, error = excluded.error, answer = excluded.answer";
    tx.prepare_cached(sql)?.execute(params![
        blob(&delivery.event),
        delivery.index,
        attempt.number,
        attempt.reason.as_str(),
        attempt.started_at.0,
        i64::try_from(attempt.took.as_millis()).unwrap_or(i64::MAX),
        attempt.status,
        cells.text(delivery.event, attempt.error.as_deref())?,
        cells.bytes(delivery.event, Some(&attempt.answer[..]).filter(|answer| !answer.is_empty()))?,
    ])?;
    Ok(())
}

/// Counts attempt `number`, closes an earlier one that a crash cut off, and lets go of the oldest.
fn begin_attempt(tx: &Transaction<'_>, delivery: DeliveryId, number: u32) -> rusqlite::Result<()> {
    let (event, index) = (blob(&delivery.event), delivery.index);
    let sql = "UPDATE deliveries SET attempts = max(attempts, ?3), next_reason = ?4 WHERE event = ?1 AND idx = ?2";
    tx.prepare_cached(sql)?.execute(params![event, index, number, AttemptReason::Retry.as_str()])?;
    if number > 1 {
        let sql = "UPDATE attempts SET error = ?4 \
            WHERE event = ?1 AND idx = ?2 AND number < ?3 AND duration_ms IS NULL AND error IS NULL";
        tx.prepare_cached(sql)?.execute(params![event, index, number, UNKNOWN_OUTCOME])?;
    }
    if number > ATTEMPTS_KEPT {
        let sql = "DELETE FROM attempts WHERE event = ?1 AND idx = ?2 AND number <= ?3";
        tx.prepare_cached(sql)?.execute(params![event, index, number - ATTEMPTS_KEPT])?;
    }
    Ok(())
}

fn rearm(tx: &Transaction<'_>, delivery: DeliveryId, why: Rearm, at: UnixMillis) -> rusqlite::Result<()> {
    let reason = match why {
        Rearm::Replay => AttemptReason::Replay,
        Rearm::Duplicate => AttemptReason::Rearm,
    };
    let sql = "UPDATE deliveries SET status = ?3, next_attempt_at = NULL, dead_reason = NULL, next_reason = ?4, since = ?5 \
        WHERE event = ?1 AND idx = ?2";
    tx.prepare_cached(sql)?.execute(params![
        blob(&delivery.event),
        delivery.index,
        DeliveryStatus::Pending.as_str(),
        reason.as_str(),
        at.0
    ])?;
    Ok(())
}

fn trim(tx: &Transaction<'_>, from: Position, before: Position) -> rusqlite::Result<()> {
    let mut find =
        tx.prepare_cached("SELECT id FROM events WHERE position >= ?1 AND position < ?2 ORDER BY position LIMIT ?3")?;
    let mut deletes = [
        tx.prepare_cached("DELETE FROM attempts WHERE event = ?1")?,
        tx.prepare_cached("DELETE FROM deliveries WHERE event = ?1")?,
        tx.prepare_cached("DELETE FROM events WHERE id = ?1")?,
    ];
    loop {
        let found = find.query_map(params![from.0, before.0, TRIM_STEP], |row| row.get::<_, Vec<u8>>(0))?;
        let ids = found.collect::<rusqlite::Result<Vec<_>>>()?;
        if ids.is_empty() {
            return Ok(());
        }
        for id in &ids {
            for delete in &mut deletes {
                delete.execute([id])?;
            }
        }
    }
}

/// Leaves what says that there was an event, and nothing of what its sender wrote or was answered.
fn erase(tx: &Transaction<'_>, event: EventId) -> rusqlite::Result<()> {
    let id = blob(&event);
    tx.prepare_cached("DELETE FROM attempts WHERE event = ?1")?.execute([id])?;
    let sql = "UPDATE deliveries SET next_attempt_at = NULL, dead_reason = NULL, \
        status = CASE WHEN status IN ('pending', 'dead') THEN 'purged' ELSE status END WHERE event = ?1";
    tx.prepare_cached(sql)?.execute([id])?;
    let sql = "UPDATE events SET status = 'erased', type = NULL, provider_event_id = NULL, path = '', query = NULL, \
        size_bytes = 0 WHERE id = ?1";
    tx.prepare_cached(sql)?.execute([id])?;
    Ok(())
}

fn derive_status(tx: &Transaction<'_>, event: EventId) -> rusqlite::Result<()> {
    let mut select = tx.prepare_cached("SELECT status FROM deliveries WHERE event = ?1")?;
    let words = select.query_map([blob(&event)], |row| row.get::<_, String>(0))?;
    let deliveries = words.collect::<rusqlite::Result<Vec<_>>>()?;
    let status = EventStatus::of(deliveries.iter().filter_map(|word| delivery_status(word)));
    tx.prepare_cached("UPDATE events SET status = ?2 WHERE id = ?1 AND status NOT IN (?2, 'erased')")?
        .execute(params![blob(&event), status.as_str()])?;
    Ok(())
}

fn blob(id: &EventId) -> &[u8] {
    id.as_bytes()
}
