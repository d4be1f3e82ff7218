//! The thread that reads the log back: events for delivery, deliveries beyond the rings, changes for the index.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::damage::Obstacle;
use super::entry::{Lost, Standing};
use super::lost::Loss;
use super::parts::{Parts, Unreadable};
use super::record::{Home, KIND_EVENT, KIND_REARMED, Record};
use super::segment::{self, Found, RawRecord, Scan, SegmentKey};
use super::state::{self, State};
use super::stored::{self, EventOutline, EventRecord, Progress, StoredDelivery};
use crate::base::Name;
use crate::event::DeliveryId;
use crate::journal::disk::{Disk, DiskFile};
use crate::journal::seal::Keyring;
use crate::journal::{Change, Changes, DeliveryState, JournalError, Lane, Located, PendingBatch, Position};

/// How often an event may move while it is looked up.
const MOVES_MAX: usize = 8;
/// Files kept open.
const OPEN_FILES: usize = 32;
/// How much of the log one call goes through, so that callers take turns.
const SCAN_BYTES: u64 = 8 << 20;
pub const READ_AHEAD: usize = 256 << 10;

/// Something for the reader to do.
pub type Job = Box<dyn FnOnce(&mut Reader) + Send>;

/// The reading side of the log.
pub struct Reader {
    pub disk: Arc<dyn Disk>,
    pub store: [u8; 16],
    pub state: Arc<Mutex<State>>,
    pub keys: Arc<ArcSwap<Keyring>>,
    pub open: VecDeque<(u32, Arc<dyn DiskFile>)>,
}

/// Where a walk over the log came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    /// Here: whoever walks had enough.
    At(Position),
    /// The end.
    End,
    /// The end, but segments on the way were let go of meanwhile: what was copied out of them lies behind the end.
    Gaps,
}

impl Stopped {
    /// Where to go on, the end being at `end`.
    fn or(self, end: Position) -> Position {
        match self {
            Self::At(next) => next,
            Self::End | Self::Gaps => end,
        }
    }
}

/// An event's record and where it stands.
pub struct FoundEvent {
    /// Where it is now.
    pub at: Position,
    /// Its first entry.
    pub first_entry: u32,
    /// The record.
    pub record: Box<EventRecord>,
}

impl Reader {
    /// The event at `located`; none if it is no longer kept.
    ///
    /// # Errors
    /// [`JournalError::Read`], or [`JournalError::Damaged`] if there is something else in its place.
    pub fn event(&mut self, located: Located) -> Result<Option<FoundEvent>, Obstacle> {
        if let Some(found) = self.event_at(located)? {
            return Ok(Some(found));
        }
        // Copied forward, perhaps in this very moment, perhaps again while it is looked up.
        for _ in 0..MOVES_MAX {
            let Some(at) = self.state().event_at(located.id) else { break };
            if let Some(found) = self.event_at(Located { at, ..located })? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The event whose record is at `located`; none if its segment has been let go of.
    fn event_at(&mut self, located: Located) -> Result<Option<FoundEvent>, Obstacle> {
        let at = located.at;
        let (number, offset) = segment::split(at);
        let Some(end) = self.end_of(number) else { return Ok(None) };
        let Some(file) = self.file(number)? else { return Ok(None) };
        let key = SegmentKey { store: self.store, number };
        let Some(raw) = segment::read_one(file, key, offset, end).map_err(unreadable)? else {
            let known = self.state().lost_in(number, &(offset..offset.saturating_add(1))).is_some();
            return Err(if known { JournalError::Damaged.into() } else { self.survey(number) });
        };
        let first_entry = raw.entry;
        match Record::decode(&raw, &self.keys.load()) {
            Ok(Record::Event(record)) if record.event.id == located.id => {
                Ok(Some(FoundEvent { at, first_entry, record }))
            }
            Err(Unreadable::NoKey(key)) => Err(JournalError::NoKey(key).into()),
            Ok(_) | Err(Unreadable::Malformed | Unreadable::Altered) => Err(JournalError::Damaged.into()),
        }
    }

    /// Unsettled deliveries of `lane` after `after`, from the log.
    ///
    /// # Errors
    /// [`JournalError::Read`] or [`JournalError::Fenced`].
    pub fn pending(&mut self, lane: &Lane, after: Position, max: usize) -> Result<PendingBatch, Obstacle> {
        let (plan, tail) = {
            let mut state = self.state();
            if state.lane(lane).is_none() {
                return Err(JournalError::Fenced.into());
            }
            (state.plan(lane, after), state.tail)
        };
        let mut batch = PendingBatch::default();
        let stopped = self.walk(plan, after, |reader, number, raw| {
            reader.collect(&lane.destination, number, raw, &mut batch);
            batch.deliveries.len() >= max
        })?;
        batch.next = stopped.or(tail.max(after));
        Ok(batch)
    }

    /// Shows `each` every record of `segments` from `after` on, until it has enough or much of the log was gone
    /// through. Damage that is known is passed over. It stops before any other, if it has come anywhere by then.
    fn walk(
        &mut self,
        segments: Vec<(u32, u32)>,
        after: Position,
        mut each: impl FnMut(&Self, u32, RawRecord) -> bool,
    ) -> Result<Stopped, Obstacle> {
        let (first, offset) = segment::split(after);
        let (mut gone_through, mut came_to) = (0, Stopped::End);
        for (number, end) in segments {
            let Some(file) = self.file(number)? else {
                came_to = Stopped::Gaps;
                continue;
            };
            let from = if first == number { offset } else { 0 };
            let mut scan = Scan::new(file, SegmentKey { store: self.store, number }, from, end, READ_AHEAD);
            while let Some(found) = scan.next().map_err(unreadable)? {
                let raw = match found {
                    Found::Record(raw) => raw,
                    Found::Damage { from, to, .. } if self.state().lost_in(number, &(from..to)).is_some() => continue,
                    Found::Damage { from, .. } => {
                        let here = segment::position(number, from);
                        return if gone_through > 0 { Ok(Stopped::At(here)) } else { Err(self.survey(number)) };
                    }
                };
                gone_through += u64::from(raw.end - raw.offset);
                let next = segment::position(number, raw.end);
                if each(self, number, raw) || gone_through >= SCAN_BYTES {
                    return Ok(Stopped::At(next));
                }
            }
        }
        Ok(came_to)
    }

    /// Adds the deliveries of one record that are `destination`'s and pending.
    fn collect(&self, destination: &Name, number: u32, raw: RawRecord, batch: &mut PendingBatch) {
        let at = segment::position(number, raw.offset);
        match raw.kind {
            KIND_EVENT => {
                let outline = Parts::outline(&raw).and_then(|mut from| stored::decode_outline(&mut from));
                let Ok(EventOutline { id, deliveries, .. }) = outline else { return };
                let mut state = self.state();
                for (index, delivery) in (0u8..).zip(deliveries) {
                    let home = Home { segment: number, entry: raw.entry.saturating_add(u32::from(index)) };
                    let waits = state.entry(home).is_some_and(|entry| entry.standing() == Standing::Pending);
                    if waits && delivery.destination == *destination {
                        let (event, id) = (Located { id, at }, DeliveryId { event: id, index });
                        let mut pending = state::pending(id, event, Progress::fresh(id.event.made_at()));
                        pending.entry = home.entry;
                        if state.hand_out(&mut pending) {
                            batch.deliveries.push(pending);
                        }
                    }
                }
            }
            KIND_REARMED => {
                let Ok(Record::Rearmed { delivery, home, event_at, .. }) = Record::decode_outline(&raw) else {
                    return;
                };
                let mut state = self.state();
                let ours = state.destination(home).is_some_and(|name| name == destination);
                let event = Located { id: delivery.event, at: event_at };
                let mut pending = state::pending(delivery, event, Progress::fresh(delivery.event.made_at()));
                pending.entry = home.entry;
                if ours && state.hand_out(&mut pending) {
                    batch.deliveries.push(pending);
                }
            }
            _ => {}
        }
    }

    /// What happened after `after`.
    ///
    /// # Errors
    /// [`JournalError::Read`].
    pub fn changes(&mut self, after: Position, max: usize) -> Result<Changes, Obstacle> {
        let (segments, oldest, tail): (Vec<(u32, u32)>, Option<Position>, Position) = {
            let state = self.state();
            let (first, _) = segment::split(after);
            let segments = state.segments.range(first..).map(|(number, segment)| (*number, segment.end)).collect();
            let oldest = state.segments.keys().next().filter(|oldest| **oldest > 1);
            (segments, oldest.map(|oldest| segment::position(*oldest, 0)), state.tail)
        };
        let (mut changes, mut gone, mut locked) = (Vec::new(), oldest, None);
        let keys = self.keys.load_full();
        let stopped = self.walk(segments, after, |_, number, raw| {
            match Record::decode(&raw, &keys) {
                Ok(Record::Trimmed { segment }) => {
                    gone = gone.max(Some(segment::position(segment.saturating_add(1), 0)));
                }
                Ok(Record::Lost(loss)) => changes.extend(losses(segment::position(number, raw.offset), &loss)),
                Ok(record) => changes.extend(change(segment::position(number, raw.offset), record)),
                Err(Unreadable::NoKey(key)) => locked = Some(key),
                Err(Unreadable::Malformed | Unreadable::Altered) => {}
            }
            changes.len() >= max || locked.is_some()
        })?;
        if let Some(key) = locked {
            return Err(JournalError::NoKey(key).into());
        }
        // What is gone is said last, to a reader that has heard of everything that was copied forward: the records that told
        // one that lags of a copy may be gone by now, and it would take the event for gone where it last knew it.
        let heard = gone.filter(|_| stopped == Stopped::End);
        if let Some(before) = heard.filter(|_| !changes.is_empty() || gone > oldest) {
            changes.push(Change::Trimmed { from: Position::START, before });
        }
        Ok(Changes { changes, next: stopped.or(tail.max(after)) })
    }

    fn end_of(&self, number: u32) -> Option<u32> {
        self.state().segments.get(&number).map(|segment| segment.end)
    }

    /// The segment's file; none if it has been let go of meanwhile.
    pub fn file(&mut self, number: u32) -> Result<Option<Arc<dyn DiskFile>>, JournalError> {
        let oldest = self.state().segments.keys().next().copied().unwrap_or(0);
        self.open.retain(|(open, _)| *open >= oldest); // an open file keeps its blocks on the disk
        if let Some((_, file)) = self.open.iter().find(|(open, _)| *open == number) {
            return Ok(Some(Arc::clone(file)));
        }
        match self.disk.open(&segment::path(number)) {
            Ok(file) => {
                if self.open.len() >= OPEN_FILES {
                    self.open.pop_front();
                }
                self.open.push_back((number, Arc::clone(&file)));
                Ok(Some(file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(error)),
        }
    }

    pub fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[allow(clippy::needless_pass_by_value)] // for `map_err`
pub fn unreadable(error: io::Error) -> JournalError {
    JournalError::Read(Arc::from(error.to_string()))
}

fn change(at: Position, record: Record) -> Option<Change> {
    Some(match record {
        Record::Event(record) => {
            let EventRecord { mut event, deliveries, .. } = *record;
            let body_bytes = event.body.len() as u64;
            event.body = Bytes::new();
            let state = |delivery: StoredDelivery| DeliveryState {
                destination: delivery.destination,
                status: delivery.status,
                attempts: delivery.progress.attempts,
                since: delivery.progress.since,
            };
            let deliveries = deliveries.into_iter().map(state).collect();
            Change::Event { at, event: Box::new(event), body_bytes, deliveries }
        }
        Record::Started { delivery, number, at, .. } => Change::Started { delivery, number, at },
        Record::Settled { settled, .. } => Change::Settled(settled),
        Record::Rearmed { delivery, why, at, .. } => Change::Rearmed { delivery, why, at },
        Record::Duplicate { original, conflict, at } => Change::Duplicate { original, conflict, at },
        Record::SameBody { event, like } => Change::SameBody { event, like },
        Record::Erased { event, at, .. } => Change::Erased { event, at },
        Record::Lost(_) | Record::Trimmed { .. } => return None, // by their own
    })
}

/// What the record of a loss at `at` says: where the events were; and where they are taken to be by whoever heard of it before it
/// was copied. One that lags may never hear of that.
fn losses(at: Position, loss: &Loss) -> Vec<Change> {
    let place = |offset| segment::position(loss.segment, offset);
    let (events, copied) = (loss.events.clone(), place(loss.bytes.start)..place(loss.bytes.end));
    let places = match loss.why {
        Lost::Torn => Vec::new(),
        Lost::Damaged => vec![events],
        Lost::Moved => vec![events, copied],
    };
    places.into_iter().map(|place| Change::Lost { from: place.start, before: place.end, at }).collect()
}
