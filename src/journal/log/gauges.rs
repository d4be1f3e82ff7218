//! What is known of the journal without waiting for the writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;

use super::backup::Held;
use super::{RETRY_AFTER, STALLED};
use crate::journal::Room;

/// What is read without waiting for the writer.
pub struct Gauges {
    pub room: ArcSwap<Room>,
    pub opened: Instant,
    /// When the writer turned to the disk, in milliseconds from `opened`; 0 while it has not.
    pub busy_since: AtomicU64,
    pub bytes: AtomicU64,
    pub max_bytes: AtomicU64,
    pub evicted: AtomicU64,
    /// Stretches of the log, segments and runs of claims that were found damaged or missing.
    pub damaged: AtomicU64,
    pub held: Held,
}

impl Gauges {
    pub fn room(&self) -> Room {
        let since = self.busy_since.load(Ordering::Relaxed);
        let room = Room::clone(&self.room.load());
        if since != 0 && room == Room::Open && self.millis().saturating_sub(since) > STALLED.as_millis() as u64 {
            return Room::Stalled { retry_after: RETRY_AFTER };
        }
        room
    }

    /// The writer turns to the disk, or has its answer.
    pub fn set_busy(&self, busy: bool) {
        self.busy_since.store(if busy { self.millis().max(1) } else { 0 }, Ordering::Relaxed);
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A journal that has failed stays so.
    pub fn set_room(&self, room: Room) {
        if !matches!(**self.room.load(), Room::Failed(_)) {
            self.room.store(Arc::new(room));
        }
    }
}
