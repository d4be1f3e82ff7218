//! Lanes: what is to be delivered to one destination.

use super::{Located, Position};
use crate::base::{Name, UnixMillis};
use crate::event::{AttemptReason, DeliveryId};

/// The deliveries of one destination, in append order, with one owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    /// The destination.
    pub destination: Name,
    /// Which of the destination's lanes.
    pub slot: u16,
    /// Rises with each change of owner; a stale one is fenced.
    pub epoch: u64,
}

/// Unsettled deliveries of one lane.
#[derive(Clone, Debug, Default)]
pub struct PendingBatch {
    /// In append order.
    pub deliveries: Vec<Pending>,
    /// Where to go on: everything up to here has been given.
    pub next: Position,
}

/// An unsettled delivery.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The delivery.
    pub id: DeliveryId,
    /// Its event.
    pub event: Located,
    /// The journal's own mark for it.
    pub(crate) entry: u32,
    /// Attempts that were started so far.
    pub attempts: u32,
    /// Attempts that were started before the present cycle: a replay starts a new one.
    pub attempts_before: u32,
    /// When the present cycle began: the event's receipt, or the replay. `max_age` counts from here.
    pub since: UnixMillis,
    /// When the next attempt is due; none is now.
    pub not_before: Option<UnixMillis>,
    /// Why the next attempt is made.
    pub reason: AttemptReason,
}
