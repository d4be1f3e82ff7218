//! What is known of a segment: five bytes for each delivery whose event is in it, and the sums of them.

use std::collections::BTreeMap;
use std::ops::Range;

use super::shares::Classes;
use crate::base::UnixMillis;
use crate::event::DeliveryStatus;
use crate::journal::seal::KeyId;

/// What is known of one segment.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    /// Its length in bytes, as far as readers may go.
    pub end: u32,
    /// The state of each delivery whose event is in it.
    pub entries: Vec<Entry>,
    /// Which of them are of one event, and how large its record is.
    pub classes: Classes,
    /// Events in it.
    pub events: u32,
    /// Bytes of their records. The rest is what came of them: of no use once the events are gone or copied.
    pub event_bytes: u64,
    /// When the last of them was received.
    pub newest: UnixMillis,
    /// When the last of its deliveries died.
    pub newest_dead: UnixMillis,
    /// When the segment was begun.
    pub made_at: UnixMillis,
    /// Pending deliveries in it.
    pub pending: u32,
    /// Dead ones.
    pub dead: u32,
    /// Whether it has records that make deliveries pending again, wherever those are kept.
    pub has_rearm: bool,
    /// The key that what is sealed in it is sealed with.
    pub sealed_by: Option<KeyId>,
    /// Pending ones by route, for those that have any.
    pub pending_by_route: BTreeMap<u16, u32>,
    /// Stretches that are known to be no records.
    pub lost: Vec<(Range<u32>, Lost)>,
    /// Attempts at deliveries that had more than an [`Entry`] can say, by the entry's number. There are hardly ever any.
    pub tried_more: BTreeMap<u32, u32>,
}

/// What a stretch of a segment is that has no records to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Damage: there were records.
    Damaged,
    /// A write that a crash cut off: none that anybody was told of.
    Torn,
    /// A record of what is lost, which was copied forward.
    Moved,
}

impl Lost {
    /// As it is written.
    pub fn code(self) -> u8 {
        match self {
            Self::Damaged => 1,
            Self::Torn => 2,
            Self::Moved => 3,
        }
    }

    /// As it was written.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Damaged, Self::Torn, Self::Moved].into_iter().find(|lost| lost.code() == code)
    }
}

impl Segment {
    /// A segment of `end` bytes that was begun at `made_at`; what is sealed in it is `sealed_by` this.
    pub fn begun(end: u32, made_at: UnixMillis, sealed_by: Option<KeyId>) -> Self {
        Self { end, made_at, sealed_by, ..Self::default() }
    }

    /// Adds an entry.
    pub fn push(&mut self, standing: Standing, route: u16, attempts: u32) {
        let number = u32::try_from(self.entries.len()).unwrap_or(u32::MAX); // a segment has fewer bytes than that
        self.entries.push(Entry::new(standing, route, attempts));
        self.set_attempts(number, attempts);
    }

    /// Changes entry `number`, if there is one.
    pub fn set(&mut self, number: u32, standing: Standing, route: u16, attempts: u32) {
        if let Some(entry) = self.entries.get_mut(number as usize) {
            *entry = Entry::new(standing, route, attempts);
            self.set_attempts(number, attempts);
        }
    }

    fn set_attempts(&mut self, number: u32, attempts: u32) {
        if attempts >= ATTEMPTS_SAID {
            self.tried_more.insert(number, attempts);
        }
    }

    /// Attempts started so far at the delivery of entry `number`.
    pub fn attempts(&self, number: u32) -> u32 {
        let said = self.entries.get(number as usize).map_or(0, |entry| entry.0 >> 17);
        if said < ATTEMPTS_SAID { said } else { self.tried_more.get(&number).copied().unwrap_or(said) }
    }

    /// When the newest event in it was received; one without events is as old as itself.
    pub fn newest_at(&self) -> UnixMillis {
        if self.events == 0 { self.made_at } else { self.newest }
    }

    /// It grows no more: gives back the room that was taken for that.
    pub fn close(&mut self) {
        self.entries.shrink_to_fit();
        self.classes.shrink_to_fit();
    }

    /// About how many of its bytes are still needed when so many of its deliveries are. Events without deliveries
    /// are history from the start, like delivered ones.
    pub fn needed_bytes(&self, deliveries: u32) -> u64 {
        let all = (self.entries.len() as u64).max(u64::from(self.events)).max(1);
        self.event_bytes.saturating_mul(u64::from(deliveries)) / all
    }
}

/// The attempts from which on an [`Entry`] does not say how many they were.
const ATTEMPTS_SAID: u32 = 0x7FFF;

/// One delivery: 3 bits of standing, 14 of route, 15 of attempts started; from [`ATTEMPTS_SAID`] on see [`Segment::tried_more`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u32);

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Waits.
    Pending,
    /// Done.
    Delivered,
    /// Given up.
    Dead,
    /// Its event has been copied to a later segment, and counts there.
    Moved,
    /// The application refused it to its sender's face.
    Refused,
    /// Its event has been erased, however it stood before.
    Erased,
}

impl Standing {
    /// Whether it keeps its event from being history.
    pub fn is_unsettled(self) -> bool {
        matches!(self, Self::Pending | Self::Dead)
    }
}

impl From<DeliveryStatus> for Standing {
    fn from(status: DeliveryStatus) -> Self {
        match status {
            DeliveryStatus::Pending | DeliveryStatus::Orphaned => Self::Pending, // orphaned is never written
            DeliveryStatus::Delivered => Self::Delivered,
            DeliveryStatus::Dead => Self::Dead,
            DeliveryStatus::Refused => Self::Refused,
            DeliveryStatus::Purged => Self::Erased, // is never written
        }
    }
}

impl Entry {
    /// A delivery of `route` that stands so, tried so often.
    fn new(standing: Standing, route: u16, attempts: u32) -> Self {
        let code = match standing {
            Standing::Pending => 0,
            Standing::Delivered => 1,
            Standing::Dead => 2,
            Standing::Moved => 3,
            Standing::Refused => 4,
            Standing::Erased => 5,
        };
        Self(code | u32::from(route & 0x3FFF) << 3 | attempts.min(ATTEMPTS_SAID) << 17)
    }

    /// As it is written down.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// As it was written down.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Where it stands.
    pub fn standing(self) -> Standing {
        match self.0 & 7 {
            0 => Standing::Pending,
            1 => Standing::Delivered,
            2 => Standing::Dead,
            4 => Standing::Refused,
            5 => Standing::Erased,
            _ => Standing::Moved,
        }
    }

    /// Its route.
    pub fn route(self) -> u16 {
        (self.0 >> 3 & 0x3FFF) as u16
    }

    /// The same of another route.
    pub fn with_route(self, route: u16) -> Self {
        Self::new(self.standing(), route, self.0 >> 17)
    }
}
