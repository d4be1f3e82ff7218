//! Damage as readers come upon it.
//!
//! The opening, a lane, the index, an operator, and the writer that copies stragglers forward all read the log, and any of them may
//! be the first to find that a stretch of it cannot be read. Whoever does goes through that segment whole ([`Survey`]), which tells
//! which entries the lost records had, and hands the stretches to the writer ([`super::lost`]), once. After that they are known
//! ([`super::entry::Segment::lost`]), and readers pass over them.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::LogJournal;
use super::codec::Malformed;
use super::entry::{Lost, Standing};
use super::parts::Parts;
use super::reader::Reader;
use super::record::{KIND_EVENT, KIND_LOST, Record};
use super::segment::{self, Found, RawRecord, Scan, SegmentKey};
use super::state::State;
use super::stored::{self, EventOutline};
use super::writer::Command;
use crate::base::Name;
use crate::journal::disk::Disk;
use crate::journal::{JournalError, Position};

/// How often a read is tried again that came upon damage. Once is enough, unless what can be read changes from one to the next.
pub const ROUNDS: usize = 3;

/// Bytes of a segment that are no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The segment's number.
    pub segment: u32,
    /// The bytes.
    pub bytes: Range<u32>,
    /// The entries of events whose records are lost with them. Of several stretches between two events the last has them all,
    /// unless a header that holds says otherwise.
    pub entries: Range<u32>,
    /// Whether no event follows it, so that there may have been more entries.
    pub open: bool,
    /// How many deliveries such a record says that it has.
    pub count: u32,
    /// Source and destination of each delivery, as a record says whose header holds and whose payload does not.
    pub said: Vec<(Name, Name)>,
    /// What it is.
    pub why: Lost,
}

impl Stretch {
    /// Whether it is still no record when it is read again, in a segment that ends at `end`.
    pub fn is_still_there(&self, disk: &dyn Disk, store: [u8; 16], end: u32) -> bool {
        let Ok(file) = disk.open(&segment::path(self.segment)) else { return false };
        let key = SegmentKey { store, number: self.segment };
        let next = Scan::new(file, key, self.bytes.start, end, 16 << 10).next();
        matches!(next, Ok(Some(Found::Damage { from, to, .. })) if (from..to) == self.bytes)
    }
}

/// What a segment has that is no record, found by going through it from its start.
pub struct Survey {
    segment: u32,
    /// The entry after those that are accounted for.
    next: u32,
    found: Vec<Stretch>,
}

impl Survey {
    /// Of a segment of which nothing was seen yet.
    pub fn of(segment: u32) -> Self {
        Self::after(segment, 0)
    }

    /// Of what stands in a segment after its first so many entries.
    pub fn after(segment: u32, entries: u32) -> Self {
        Self { segment, next: entries, found: Vec::new() }
    }

    /// A good record.
    pub fn record(&mut self, raw: &RawRecord) {
        let count = match raw.kind {
            KIND_EVENT => outline(raw).map(|event| event.deliveries.len()),
            KIND_LOST => match Record::decode_outline(raw) {
                Ok(Record::Lost(loss)) => Ok(loss.deliveries.len()),
                _ => Err(Malformed),
            },
            _ => return,
        };
        self.reach(raw.entry);
        self.next = raw.entry.saturating_add(count.ok().and_then(|count| u32::try_from(count).ok()).unwrap_or(0));
        self.found.iter_mut().rev().take_while(|stretch| stretch.open).for_each(|stretch| stretch.open = false);
    }

    /// Damage; `suspect` is the record, where its header holds.
    pub fn damage(&mut self, bytes: Range<u32>, suspect: Option<RawRecord>) {
        let (mut said, mut count) = (Vec::new(), 0);
        if let Some(raw) = suspect.filter(|raw| matches!(raw.kind, KIND_EVENT | KIND_LOST)) {
            self.reach(raw.entry);
            self.next = raw.entry;
            if let Some(event) = outline(&raw).ok().filter(|_| raw.kind == KIND_EVENT) {
                count = u32::try_from(event.deliveries.len()).unwrap_or(0);
                said = event.deliveries.into_iter().map(|to| (event.source.clone(), to.destination)).collect();
            }
        }
        let entries = self.next..self.next;
        self.found.push(Stretch { segment: self.segment, bytes, entries, open: true, count, said, why: Lost::Damaged });
    }

    /// The end of a segment with so many entries.
    pub fn end(mut self, entries: u32) -> Vec<Stretch> {
        self.reach(entries);
        self.found
    }

    /// All entries before `entry` that nothing was seen of are those of the last stretch.
    fn reach(&mut self, entry: u32) {
        let next = self.next;
        if let Some(last) = self.found.last_mut().filter(|last| last.entries.end == next && next < entry) {
            last.entries.end = entry;
        }
    }
}

fn outline(raw: &RawRecord) -> Result<EventOutline, Malformed> {
    Parts::outline(raw).and_then(|mut from| stored::decode_outline(&mut from))
}

/// What keeps a reader from going on.
pub enum Obstacle {
    /// Damage that the writer does not know of yet: all there is of it in one segment.
    Damage(Vec<Stretch>),
    /// Something else.
    Error(JournalError),
}

impl From<JournalError> for Obstacle {
    fn from(error: JournalError) -> Self {
        Self::Error(error)
    }
}

impl From<Obstacle> for JournalError {
    /// For whoever does not go on behind damage.
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::Damage(_) => Self::Damaged,
            Obstacle::Error(error) => error,
        }
    }
}

impl Reader {
    /// Goes through segment `number`, where something cannot be read.
    pub fn survey(&mut self, number: u32) -> Obstacle {
        match self.stretches(number) {
            Ok(stretches) if stretches.is_empty() => {
                Obstacle::Error(JournalError::Read(Arc::from("what could not be read can be read now")))
            }
            Ok(stretches) => Obstacle::Damage(stretches),
            Err(error) => Obstacle::Error(error),
        }
    }

    /// The stretches of segment `number` that the writer does not know of.
    fn stretches(&mut self, number: u32) -> Result<Vec<Stretch>, JournalError> {
        let (end, entries) = {
            let state = self.state();
            let Some(segment) = state.segments.get(&number) else { return Ok(Vec::new()) };
            (segment.end, u32::try_from(segment.entries.len()).unwrap_or(u32::MAX)) // both as of the same moment
        };
        let Some(file) = self.file(number)? else { return Ok(Vec::new()) };
        let mut scan = Scan::new(file, SegmentKey { store: self.store, number }, 0, end, super::reader::READ_AHEAD);
        let mut survey = Survey::of(number);
        while let Some(found) = scan.next().map_err(super::reader::unreadable)? {
            match found {
                Found::Record(raw) => survey.record(&raw),
                Found::Damage { from, to, suspect } => survey.damage(from..to, suspect),
            }
        }
        let mut stretches = survey.end(entries);
        let state = self.state();
        stretches.retain(|stretch| state.lost_in(number, &stretch.bytes).is_none());
        Ok(stretches)
    }
}

impl State {
    /// Whether the event that was at `at`, its first entry being `first`, is lost before it was delivered, as far as that is known:
    /// then its claim holds nothing, and its sender may send it again.
    pub fn has_lost(&self, at: Position, first: u32) -> bool {
        let (number, offset) = segment::split(at);
        let Some(segment) = self.segments.get(&number) else {
            return self.missing.iter().any(|missing| missing.contains(&number));
        };
        let damaged = self.lost_in(number, &(offset..offset.saturating_add(1))) == Some(Lost::Damaged);
        let entry = segment.entries.get(first as usize).map(|entry| entry.standing());
        damaged && matches!(entry, None | Some(Standing::Moved))
    }

    /// What is known of damage that has all of `bytes` of segment `number`.
    pub fn lost_in(&self, number: u32, bytes: &Range<u32>) -> Option<Lost> {
        let known = &self.segments.get(&number)?.lost;
        known.iter().find(|(lost, _)| lost.start <= bytes.start && bytes.end <= lost.end).map(|(_, why)| *why)
    }
}

impl LogJournal {
    /// Asks the reading thread for something. Damage that it comes upon is told to the writer first; then it goes on behind it.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        job: impl Fn(&mut Reader) -> Result<T, Obstacle> + Clone + Send + 'static,
    ) -> Result<T, JournalError> {
        for _ in 0..ROUNDS {
            let (reply, answer) = oneshot::channel();
            let job = job.clone();
            let job = Box::new(move |reader: &mut Reader| drop(reply.send(job(reader)))); // whoever asked may have gone
            self.shared.reader.send(job).await.map_err(|_| JournalError::Closed)?;
            match answer.await.map_err(|_| JournalError::Closed)? {
                Ok(found) => return Ok(found),
                Err(Obstacle::Error(error)) => return Err(error),
                Err(Obstacle::Damage(stretches)) => {
                    self.write(|reply| Command::Lost { stretches, reply }, || JournalError::Closed).await?;
                }
            }
        }
        Err(JournalError::Read(Arc::from("what can be read of the log changes from one try to the next")))
    }
}
