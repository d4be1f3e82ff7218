//! What the state needs of an event's record.

use super::segment;
use super::stored::{EventOutline, StoredDelivery};
use crate::base::{Name, UnixMillis};
use crate::event::EventId;
use crate::journal::Position;

/// What [`super::state::State::add_event`] needs of an event's record.
#[derive(Clone, Debug)]
pub struct EventFacts {
    /// The event's id.
    pub id: EventId,
    /// The source that took it.
    pub source: Name,
    /// When it was received.
    pub received_at: UnixMillis,
    /// Its deliveries.
    pub deliveries: Vec<StoredDelivery>,
    /// Where it was before.
    pub moved_from: Option<(Position, u32)>,
    /// Whether nothing of it is left.
    pub erased: bool,
    /// The record's size in the log.
    pub bytes: u32,
}

impl EventFacts {
    /// Those of `record`, whose payload is of so many bytes.
    pub fn of(record: EventOutline, payload: usize) -> Self {
        Self {
            id: record.id,
            source: record.source,
            received_at: record.received_at,
            deliveries: record.deliveries,
            moved_from: record.moved_from,
            erased: record.erased,
            bytes: u32::try_from(segment::record_bytes(payload)).unwrap_or(u32::MAX),
        }
    }
}
