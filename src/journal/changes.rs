//! What happened, in order: what the index is made from.

use super::{Position, Rearm, Settled};
use crate::base::{Name, UnixMillis};
use crate::event::{DeliveryId, DeliveryStatus, Event, EventId};

/// Where a delivery stood when its event's record was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryState {
    /// Where it goes.
    pub destination: Name,
    /// Where it stood.
    pub status: DeliveryStatus,
    /// Attempts that had been started.
    pub attempts: u32,
    /// When its present cycle began.
    pub since: UnixMillis,
}

/// A piece of the change stream.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// In order.
    pub changes: Vec<Change>,
    /// Where to go on.
    pub next: Position,
}

/// One change.
#[derive(Clone, Debug)]
pub enum Change {
    /// An event was kept, or its record has moved to a new place, its deliveries standing as they do here.
    Event {
        /// Where.
        at: Position,
        /// The event; its body is left empty here.
        event: Box<Event>,
        /// How long the body is.
        body_bytes: u64,
        /// Its deliveries, by index.
        deliveries: Vec<DeliveryState>,
    },
    /// An attempt is about to run.
    Started {
        /// Of which delivery.
        delivery: DeliveryId,
        /// Its number.
        number: u32,
        /// When.
        at: UnixMillis,
    },
    /// A delivery was settled, or waits for another attempt.
    Settled(Settled),
    /// A delivery is pending again.
    Rearmed {
        /// Which.
        delivery: DeliveryId,
        /// Why.
        why: Rearm,
        /// When.
        at: UnixMillis,
    },
    /// A duplicate of an event came.
    Duplicate {
        /// Of which.
        original: EventId,
        /// Whether its body was another.
        conflict: bool,
        /// When.
        at: UnixMillis,
    },
    /// An event was kept whose signed bytes are those of an earlier one.
    SameBody {
        /// The event.
        event: EventId,
        /// The earlier one.
        like: EventId,
    },
    /// An event was erased: whatever waited of it has ended, and nothing of what its sender wrote is to be left.
    Erased {
        /// The event.
        event: EventId,
        /// When.
        at: UnixMillis,
    },
    /// The events whose records lie before `before` and not before `from` can no longer be read. Their deliveries that are pending
    /// are dead; what is kept of them is at `at` now.
    Lost {
        /// The first position.
        from: Position,
        /// The first position after.
        before: Position,
        /// Where they are put down.
        at: Position,
    },
    /// Every event whose record lies before `before` and not before `from` is gone.
    Trimmed {
        /// The first position.
        from: Position,
        /// The first position after.
        before: Position,
    },
}
