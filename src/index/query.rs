//! The queries. Each sees one state of the index; values are bound, never spliced.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use super::status::{EventStatus, Standing, delivery_status};
use crate::base::{Name, UnixMillis};
use crate::event::{DeliveryId, DeliveryStatus, EventId};
use crate::journal::{Located, Position, Routing};

/// Items on a page where nothing is said.
pub const LIMIT_DEFAULT: usize = 50;

/// Items on a page, at most.
pub const LIMIT_MAX: usize = 500;

/// Which events are wanted; what is none does not matter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Taken by this source.
    pub source: Option<Name>,
    /// With a delivery to this destination.
    pub destination: Option<Name>,
    /// Standing like this.
    pub status: Option<Standing>,
    /// Of exactly this type.
    pub kind: Option<String>,
    /// Received at this time or later.
    pub since: Option<UnixMillis>,
    /// Received before this time.
    pub until: Option<UnixMillis>,
    /// With this text in its id, the provider's id, its type or its path; ASCII letters match in either case.
    pub q: Option<String>,
    /// Items on the page; 0 is [`LIMIT_DEFAULT`], more than [`LIMIT_MAX`] is that.
    pub limit: usize,
    /// After the item where the page before ended.
    pub cursor: Option<Cursor>,
}

/// Where a page ended. Prints as an opaque word that reads back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    received_at: UnixMillis,
    id: EventId,
}

/// A text that is not a [`Cursor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor: give the `next` of the page before, as it was")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 24];
        let (time, id) = bytes.split_at_mut(8);
        time.copy_from_slice(&self.received_at.0.to_be_bytes());
        id.copy_from_slice(self.id.as_bytes());
        f.write_str(&BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| CursorError)?;
        let (time, id) = bytes.split_first_chunk::<8>().ok_or(CursorError)?;
        let id: [u8; 16] = id.try_into().map_err(|_| CursorError)?;
        Ok(Self { received_at: UnixMillis(i64::from_be_bytes(*time)), id: EventId::from_bytes(id) })
    }
}

/// One page of events.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Newest first.
    pub items: Vec<Item>,
    /// Where the next page begins; none is the end.
    pub next: Option<Cursor>,
}

/// One event of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The event, and where the journal has it.
    pub located: Located,
    /// The source that took it.
    pub source: String,
    /// The preset that verified it.
    pub provider: String,
    /// What it is about.
    pub kind: Option<String>,
    /// The provider's own id for it.
    pub provider_event_id: Option<String>,
    /// The request's method.
    pub method: String,
    /// The request's path.
    pub path: String,
    /// The request's query.
    pub query: Option<String>,
    /// When it came.
    pub received_at: UnixMillis,
    /// How long its body is.
    pub size_bytes: u64,
    /// Where it stands.
    pub status: EventStatus,
    /// Duplicates that came after it.
    pub duplicates: u64,
    /// Those of them whose body was another.
    pub conflicts: u64,
    /// Later events with the same signed bytes, which came under other ids.
    pub same_bodies: u64,
    /// An earlier event with the same signed bytes, which came under another id.
    pub same_body_as: Option<EventId>,
    /// By index.
    pub deliveries: Vec<DeliveryRow>,
}

/// One delivery of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryRow {
    /// Its id.
    pub id: DeliveryId,
    /// Where it goes.
    pub destination: String,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// Attempts that were started.
    pub attempts: u32,
    /// When the next attempt is due; none where there is none, or it is due now or under way.
    pub next_attempt_at: Option<UnixMillis>,
    /// Why it was given up.
    pub dead_reason: Option<String>,
}

/// One attempt of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptRow {
    /// 1 for the first.
    pub number: u32,
    /// Why it was made.
    pub reason: String,
    /// When it began.
    pub started_at: UnixMillis,
    /// How long it took; none while it runs, or if that is not known.
    pub took: Option<Duration>,
    /// The application's status.
    pub status: Option<u16>,
    /// What went wrong below HTTP.
    pub error: Option<String>,
    /// The first KiB of the application's answer.
    pub answer: Option<Bytes>,
}

/// Everything the index knows of one event.
#[derive(Clone, Debug, PartialEq)]
pub struct Detail {
    /// The event.
    pub item: Item,
    /// The newest attempts of each delivery, in the order of `item.deliveries`, oldest first.
    pub attempts: Vec<Vec<AttemptRow>>,
}

pub(super) const ITEM: &str = "SELECT id, position, source, provider, plain_text(id, type), plain_text(id, provider_event_id), method, \
    plain_text(id, path), plain_text(id, query), received_at, \
    size_bytes, status, duplicates, conflicts, same_bodies, same_body_as FROM events";

/// A `WHERE` of fixed conditions, and what is bound in it.
#[derive(Default)]
pub(super) struct Where {
    conditions: Vec<&'static str>,
    pub(super) values: Vec<Value>,
}

impl Where {
    /// `condition` has as many `?` as there are `values`.
    pub(super) fn and(&mut self, condition: &'static str, values: impl IntoIterator<Item = Value>) {
        self.conditions.push(condition);
        self.values.extend(values);
    }

    fn of(filter: &Filter, routing: &Routing) -> Self {
        let mut wanted = Self::default();
        if let Some(source) = &filter.source {
            wanted.and("source = ?", [text(source.as_str())]);
        }
        match filter.status {
            None => {}
            Some(Standing::Event(status)) => wanted.and("status = ?", [text(status.as_str())]),
            Some(Standing::Orphaned) => wanted.orphaned(routing),
        }
        if let Some(kind) = &filter.kind {
            wanted.and("plain_text(id, type) = ?", [text(kind)]);
        }
        if let Some(since) = filter.since {
            wanted.and("received_at >= ?", [since.0.into()]);
        }
        if let Some(until) = filter.until {
            wanted.and("received_at < ?", [until.0.into()]);
        }
        if let Some(cursor) = filter.cursor {
            wanted.and("(received_at, id) < (?, ?)", [cursor.received_at.0.into(), blob(cursor.id)]);
        }
        if let Some(q) = &filter.q {
            wanted.search(q);
        }
        wanted
    }

    /// What a list of events asks for.
    pub(super) fn listed(filter: &Filter, routing: &Routing) -> Self {
        let mut wanted = Self::of(filter, routing);
        if let Some(destination) = &filter.destination {
            let condition = "EXISTS (SELECT 1 FROM deliveries WHERE event = events.id AND destination = ?)";
            wanted.and(condition, [text(destination.as_str())]);
        }
        wanted
    }

    pub(super) fn sql(&self) -> String {
        if self.conditions.is_empty() { "1".to_owned() } else { self.conditions.join(" AND ") }
    }

    /// Events with an orphaned delivery. Only what is pending can be, and an event with that is dead or pending.
    fn orphaned(&mut self, routing: &Routing) {
        let Some(_) = routing.routes() else { return self.and("0", []) };
        let known = routing.known().map(|(source, destination, until)| {
            let until = until.map_or(-1, |until| until.0); // nothing began before 1970
            (format!("{source} {destination}"), serde_json::Value::from(until))
        });
        let known = serde_json::Value::Object(known.collect()).to_string();
        self.and(
            "status IN ('dead', 'pending') AND EXISTS (SELECT 1 FROM deliveries AS d LEFT JOIN json_each(?) AS r \
             ON r.key = events.source || ' ' || d.destination WHERE d.event = events.id AND d.status = 'pending' \
             AND d.since <= coalesce(r.value, 9223372036854775807))",
            [text(&known)],
        );
    }

    fn search(&mut self, q: &str) {
        if let Ok(id) = q.parse::<EventId>() {
            return self.and("id = ?", [blob(id)]); // the one search that need not look at every event
        }
        let pattern = text(&contains(q));
        self.and(
            r"('evt_' || hex(id) LIKE ? ESCAPE '\' OR plain_text(id, provider_event_id) LIKE ? ESCAPE '\'
            OR plain_text(id, type) LIKE ? ESCAPE '\' OR plain_text(id, path) LIKE ? ESCAPE '\')",
            [pattern.clone(), pattern.clone(), pattern.clone(), pattern],
        );
    }
}

/// The page of `filter`.
pub(super) fn list(db: &Connection, routing: &Routing, filter: &Filter) -> rusqlite::Result<Page> {
    page(db, routing, Where::listed(filter, routing), filter.limit)
}

/// The page of `filter` among the events with a dead delivery.
pub(super) fn dead_letters(db: &Connection, routing: &Routing, filter: &Filter) -> rusqlite::Result<Page> {
    let status = Some(Standing::Event(EventStatus::Dead));
    let mut wanted = Where::of(&Filter { status, ..filter.clone() }, routing);
    if let Some(destination) = &filter.destination {
        let condition =
            "EXISTS (SELECT 1 FROM deliveries WHERE event = events.id AND destination = ? AND status = 'dead')";
        wanted.and(condition, [text(destination.as_str())]);
    }
    page(db, routing, wanted, filter.limit)
}

fn page(db: &Connection, routing: &Routing, mut wanted: Where, limit: usize) -> rusqlite::Result<Page> {
    let limit = if limit == 0 { LIMIT_DEFAULT } else { limit.min(LIMIT_MAX) };
    let conditions = wanted.sql();
    wanted.values.push(Value::Integer(i64::try_from(limit + 1).unwrap_or(i64::MAX)));

    let sql = format!("{ITEM} WHERE {conditions} ORDER BY received_at DESC, id DESC LIMIT ?");
    let mut select = db.prepare_cached(&sql)?;
    let rows = select.query_map(params_from_iter(wanted.values), item)?;
    let mut items = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let more = items.len() > limit;
    items.truncate(limit);
    for item in &mut items {
        item.deliveries = deliveries(db, routing, item)?;
    }
    let next = items.last().filter(|_| more).map(|last| Cursor { received_at: last.received_at, id: last.located.id });
    Ok(Page { items, next })
}

/// Everything about `id`.
pub(super) fn show(db: &Connection, routing: &Routing, id: EventId) -> rusqlite::Result<Option<Detail>> {
    let mut select = db.prepare_cached(&format!("{ITEM} WHERE id = ?1"))?;
    let Some(mut item) = select.query_row([id.as_bytes()], item).optional()? else { return Ok(None) };
    item.deliveries = deliveries(db, routing, &item)?;
    let attempts = item.deliveries.iter().map(|delivery| attempts(db, delivery.id));
    let attempts = attempts.collect::<rusqlite::Result<_>>()?;
    Ok(Some(Detail { item, attempts }))
}

/// Where `id` is.
pub(super) fn locate(db: &Connection, id: EventId) -> rusqlite::Result<Option<Located>> {
    let mut select = db.prepare_cached("SELECT position FROM events WHERE id = ?1")?;
    let at = select.query_row([id.as_bytes()], |row| row.get(0)).optional()?;
    Ok(at.map(|at| Located { id, at: Position(at) }))
}

/// How many events of each status.
pub(super) fn counts(db: &Connection) -> rusqlite::Result<Vec<(EventStatus, u64)>> {
    let mut select = db.prepare_cached("SELECT status, count(*) FROM events GROUP BY status")?;
    let rows = select.query_map([], |row| Ok((parsed(row, 0)?, row.get(1)?)))?;
    let mut counts = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    counts.sort_unstable();
    Ok(counts)
}

pub(super) fn item(row: &Row<'_>) -> rusqlite::Result<Item> {
    Ok(Item {
        located: Located { id: EventId::from_bytes(row.get(0)?), at: Position(row.get(1)?) },
        source: row.get(2)?,
        provider: row.get(3)?,
        kind: row.get(4)?,
        provider_event_id: row.get(5)?,
        method: row.get(6)?,
        path: row.get(7)?,
        query: row.get(8)?,
        received_at: UnixMillis(row.get(9)?),
        size_bytes: row.get(10)?,
        status: parsed(row, 11)?,
        duplicates: row.get(12)?,
        conflicts: row.get(13)?,
        same_bodies: row.get(14)?,
        same_body_as: row.get::<_, Option<[u8; 16]>>(15)?.map(EventId::from_bytes),
        deliveries: Vec::new(),
    })
}

/// The deliveries of `item`.
pub(super) fn deliveries(db: &Connection, routing: &Routing, item: &Item) -> rusqlite::Result<Vec<DeliveryRow>> {
    let event = item.located.id;
    let source = Name::new(&item.source).ok();
    let mut select = db.prepare_cached(
        "SELECT idx, destination, status, attempts, next_attempt_at, dead_reason, since \
         FROM deliveries WHERE event = ?1 ORDER BY idx",
    )?;
    let rows = select.query_map([event.as_bytes()], |row| {
        let (destination, word): (String, String) = (row.get(1)?, row.get(2)?);
        let mut status = delivery_status(&word).ok_or_else(|| foreign(2, "a delivery's status"))?;
        let route = source.as_ref().zip(Name::new(&destination).ok());
        let since = UnixMillis(row.get(6)?);
        let orphaned = route.is_some_and(|(source, destination)| routing.orphans(source, &destination, since));
        if status == DeliveryStatus::Pending && orphaned {
            status = DeliveryStatus::Orphaned;
        }
        Ok(DeliveryRow {
            id: DeliveryId { event, index: row.get(0)? },
            destination,
            status,
            attempts: row.get(3)?,
            next_attempt_at: row.get::<_, Option<i64>>(4)?.map(UnixMillis),
            dead_reason: row.get(5)?,
        })
    })?;
    rows.collect()
}

fn attempts(db: &Connection, delivery: DeliveryId) -> rusqlite::Result<Vec<AttemptRow>> {
    let mut select = db.prepare_cached(
        "SELECT number, reason, started_at, duration_ms, status, plain_text(event, error), plain_bytes(event, answer) \
         FROM attempts WHERE event = ?1 AND idx = ?2 ORDER BY number",
    )?;
    let rows = select.query_map((delivery.event.as_bytes(), delivery.index), |row| {
        Ok(AttemptRow {
            number: row.get(0)?,
            reason: row.get(1)?,
            started_at: UnixMillis(row.get(2)?),
            took: row.get::<_, Option<u64>>(3)?.map(Duration::from_millis),
            status: row.get(4)?,
            error: row.get(5)?,
            answer: row.get::<_, Option<Vec<u8>>>(6)?.map(Bytes::from),
        })
    })?;
    rows.collect()
}

fn parsed(row: &Row<'_>, column: usize) -> rusqlite::Result<EventStatus> {
    row.get::<_, String>(column)?.parse().map_err(|_| foreign(column, "an event's status"))
}

fn foreign(column: usize, wanted: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, format!("not {wanted}").into())
}

/// The `LIKE` pattern of texts with `q` in them; what is special there loses its meaning.
fn contains(q: &str) -> String {
    let mut pattern = String::with_capacity(q.len() + 2);
    pattern.push('%');
    for letter in q.chars() {
        if matches!(letter, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push('%');
    pattern
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

pub(super) fn blob(id: EventId) -> Value {
    Value::Blob(id.as_bytes().to_vec())
}
