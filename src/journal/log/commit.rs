//! From a batch to the disk: where a record stands, one write, one flush, and who is told when.
//!
//! Within a batch, what need not be durable (an attempt about to run, a delivery made) counts as soon as
//! it is written; the rest counts after the flush. A flush that fails ends the journal: the kernel may drop
//! the dirty pages and call the next flush good (Rebello et al., USENIX ATC 2020), so it must be opened anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tokio::time::Instant;

use super::RETRY_AFTER;
use super::claims::{Claims, Held};
use super::entry::Segment;
use super::facts::EventFacts;
use super::lost::Loss;
use super::open::NUMBER_MAX;
use super::parts::Payload;
use super::record::{Home, Record};
use super::segment::{self, HEADER_BYTES, SegmentKey};
use super::state::{Rearmed, State};
use super::writer::{Active, Reply, Writer};
use crate::admit::Lease;
use crate::base::{Name, UnixMillis};
use crate::event::{DeliveryId, EventId};
use crate::journal::disk;
use crate::journal::seal::Sealer;
use crate::journal::{AppendError, Appended, JournalError, Position, Reserved, Room, Verdict};

/// Why the writer could not write.
#[derive(Clone, Debug)]
pub enum Broken {
    /// No space; the log is as it was.
    Full,
    /// The journal has failed.
    Failed(Arc<str>),
}

/// What is gathered before it is written.
#[derive(Default)]
pub struct Batch {
    pub bytes: Vec<u8>,
    pub durable: bool,
    claimed: Vec<[u8; 16]>,
    /// Routes of its events that the state does not know yet.
    pub routes: BTreeSet<(Name, Name)>,
    /// What its events that will be unsettled take, by source.
    pub unsettled: BTreeMap<Name, u64>,
    /// Counts once written.
    pub early: Vec<Effect>,
    /// Counts once durable.
    pub late: Vec<Effect>,
    pub replies: Vec<Told>,
    /// What the batch's events have in the budget of bytes in flight; given back with it.
    pub leases: Vec<Lease>,
}

impl Batch {
    /// Bytes gathered so far.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Claims `hash` for `held`, unless the batch cannot be written.
    pub fn claim(&mut self, claims: &mut Claims, hash: [u8; 16], held: Held) {
        claims.give(hash, held);
        self.claimed.push(hash);
    }

    /// Makes the commit flush, whatever is in it.
    pub fn must_be_durable(&mut self) {
        self.durable = true;
    }
}

/// A change to the state, once its record is written or durable.
pub enum Effect {
    Event { at: Position, first: u32, facts: EventFacts },
    Started { id: DeliveryId, home: Home, event_at: Position, number: u32 },
    Settled { id: DeliveryId, home: Home, number: Option<u32>, verdict: Verdict, at: UnixMillis },
    Rearmed { rearmed: Rearmed, record_at: Position },
    Erased { event: EventId, first: Home, deliveries: u8 },
    Lost { at: Position, first: u32, loss: Box<Loss>, bytes: u32 },
}

/// Who is told what, and when.
pub enum Told {
    Append(Reply<Appended, AppendError>, Appended),
    Reserve(Reply<Reserved, AppendError>, Reserved),
    Early(Reply<(), JournalError>),
    Late(Reply<(), JournalError>),
    Rearm(Reply<Vec<DeliveryId>, JournalError>, Vec<DeliveryId>),
}

impl Writer {
    /// Adds a record that is not an event.
    pub fn add(&mut self, record: &Record, batch: &mut Batch) -> Result<Position, Broken> {
        let (kind, payload) = self.encode(record)?;
        let at = self.place(segment::record_bytes(payload.bytes.len()), batch)?;
        self.frame(kind, 0, &payload, batch);
        Ok(at)
    }

    /// Frames a record into the batch.
    pub fn frame(&mut self, kind: u8, entry: u32, payload: &Payload, batch: &mut Batch) {
        let offset = self.active.length + u32::try_from(batch.bytes.len()).unwrap_or(0);
        let key = SegmentKey { store: self.store, number: self.active.number };
        segment::frame(&mut batch.bytes, key, offset, kind, entry, payload);
    }

    /// Where `size` bytes of records will stand, all of them in one segment and one batch. Begins a new segment where this
    /// one is full.
    pub fn place(&mut self, size: usize, batch: &mut Batch) -> Result<Position, Broken> {
        if let Room::Failed(why) = self.gauges.room() {
            return Err(Broken::Failed(why));
        }
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let filled = |writer: &Self, batch: &Batch| {
            writer.active.length.saturating_add(u32::try_from(batch.bytes.len()).unwrap_or(u32::MAX))
        };
        let before = filled(self, batch);
        if before > HEADER_BYTES && before.saturating_add(size) > self.limits.segment_bytes {
            self.commit(batch)?;
            self.roll()?;
        }
        Ok(segment::position(self.active.number, filled(self, batch)))
    }

    /// Closes the segment and begins the next.
    pub fn roll(&mut self) -> Result<(), Broken> {
        if self.active.length <= HEADER_BYTES {
            return Ok(());
        }
        if !self.flush() {
            return Err(self.broken());
        }
        self.begin_segment(self.active.number + 1, self.active.sealer.clone())?;
        self.tend_claims()
    }

    /// Begins segment `number`, in which `sealer` seals, and writes to it from now on.
    pub fn begin_segment(&mut self, number: u32, sealer: Option<Arc<Sealer>>) -> Result<(), Broken> {
        if number >= NUMBER_MAX {
            return Err(self.fail(
                "the log has no more numbers for segments; let it deliver what waits, and begin with another journal.dir",
            ));
        }
        let (now, sealed_by) = (self.time.now(), sealer.as_ref().map(|sealer| sealer.id()));
        let key = SegmentKey { store: self.store, number };
        let oldest = self.state().segments.keys().next().copied().unwrap_or(number);
        let disk = &*self.disk;
        let created = self.reserve.or_give_up(disk, || segment::create(disk, key, oldest, now, sealed_by));
        let file = created.map_err(|error| self.write_failed(&error, "begin a segment"))?;
        self.active = Active::begun(number, file, sealer);
        self.log_bytes += u64::from(HEADER_BYTES);
        let mut state = self.state();
        let fresh = Segment::begun(HEADER_BYTES, now, sealed_by);
        if let Some(full) = state.segments.values_mut().next_back() {
            Arc::make_mut(full).close();
        }
        state.segments.insert(number, Arc::new(fresh));
        state.tail = segment::position(number, HEADER_BYTES);
        Ok(())
    }

    /// Seals the open claims, so that segments may go.
    pub fn seal_claims(&mut self) -> Result<(), Broken> {
        if !self.flush() {
            return Err(self.broken()); // no claim on disk without its event
        }
        let through = segment::position(self.active.number, self.active.length);
        let sealed = self.claims.seal(through, self.time.now());
        sealed.map_err(|error| self.write_failed(&error, "seal claims"))?;
        self.sealed_through = through;
        Ok(())
    }

    /// Has claims sealed and merged in the background, as far as it is time for that. Call it when no batch is open.
    /// An error means that too many wait to be sealed.
    pub fn tend_claims(&mut self) -> Result<(), Broken> {
        let now = self.time.now();
        if let Some(through) = self.claims.tend(now) {
            self.sealed_through = through;
        }
        if self.claims.is_overfull() {
            return self.seal_claims();
        }
        if self.claims.is_full() {
            self.begin_seal();
        }
        Ok(())
    }

    /// Has the open claims sealed in the background.
    pub fn begin_seal(&mut self) {
        if self.flush() {
            let through = segment::position(self.active.number, self.active.length);
            self.claims.begin_seal(through, self.time.now());
        }
    }

    /// Writes the batch, flushes it if anything in it must be durable, and tells whoever waits.
    ///
    /// # Errors
    /// [`Broken`]: nothing of the batch counts. Whatever rests on it must not go on.
    pub fn commit(&mut self, batch: &mut Batch) -> Result<(), Broken> {
        let mut batch = std::mem::take(batch);
        let outcome = self.write(&mut batch);
        if outcome.is_err() {
            for hash in &batch.claimed {
                self.claims.take_back(hash);
            }
            let entries = self.state().segments.get(&self.active.number).map_or(0, |segment| segment.entries.len());
            self.active.entries = u32::try_from(entries).unwrap_or(0);
        }
        batch.leases.clear();
        for told in batch.replies {
            let result = outcome.clone();
            match told {
                Told::Append(reply, appended) => drop(reply.send(result.map(|()| appended).map_err(AppendError::from))),
                Told::Reserve(reply, found) => drop(reply.send(result.map(|()| found).map_err(AppendError::from))),
                Told::Early(reply) | Told::Late(reply) => drop(reply.send(result.map_err(JournalError::from))),
                Told::Rearm(reply, ids) => drop(reply.send(result.map(|()| ids).map_err(JournalError::from))),
            }
        }
        if outcome.is_ok() {
            let _ = self.tend_claims(); // a failure is logged, shows in `room`, and is tried again
        }
        outcome
    }

    fn write(&mut self, batch: &mut Batch) -> Result<(), Broken> {
        if let Room::Failed(why) = self.gauges.room() {
            return Err(Broken::Failed(why));
        }
        if !batch.bytes.is_empty() {
            while let Err(error) = self.active.file.append(&batch.bytes) {
                let taken_back = self.active.file.truncate(u64::from(self.active.length));
                if taken_back.is_err() {
                    return Err(self.fail(&format!("a write failed and could not be taken back: {error}")));
                }
                if !self.reserve.give_up(&*self.disk, &error) {
                    return Err(self.write_failed(&error, "write"));
                }
            }
            self.active.length += u32::try_from(batch.bytes.len()).unwrap_or(0);
            self.log_bytes += batch.bytes.len() as u64;
            self.checkpoints.grew(batch.bytes.len() as u64);
            self.active.unflushed.get_or_insert_with(Instant::now);
        }
        Self::apply(std::mem::take(&mut batch.early), &mut self.state());
        self.tell_early(batch);
        if batch.durable && !self.flush() {
            return Err(self.broken());
        }
        let (number, length) = (self.active.number, self.active.length);
        let mut state = self.state();
        state.tail = segment::position(number, length);
        if let Some(segment) = state.segments.get_mut(&number).map(Arc::make_mut) {
            segment.end = length;
        }
        // Under one lock: whoever hears of an event can read it.
        Self::apply(std::mem::take(&mut batch.late), &mut state);
        drop(state);
        self.measure();
        Ok(())
    }

    fn tell_early(&self, batch: &mut Batch) {
        let (early, late): (Vec<_>, Vec<_>) =
            std::mem::take(&mut batch.replies).into_iter().partition(|told| matches!(told, Told::Early(_)));
        batch.replies = late;
        for told in early {
            if let Told::Early(reply) = told {
                drop(reply.send(Ok(()))); // whoever asked may have gone
            }
        }
    }

    fn apply(effects: Vec<Effect>, state: &mut State) {
        for effect in effects {
            match effect {
                Effect::Event { at, first, facts } => state.add_event(at, first, &facts, true),
                Effect::Started { id, home, event_at, number } => state.started(id, home, event_at, number),
                Effect::Settled { id, home, number, verdict, at } => state.settled(id, home, number, verdict, at),
                Effect::Rearmed { rearmed, record_at } => state.rearmed(&rearmed, record_at, true),
                Effect::Erased { event, first, deliveries } => state.erased(event, first, deliveries),
                Effect::Lost { at, first, loss, bytes } => state.add_loss(at, first, &loss, bytes, true),
            }
        }
    }

    /// Makes what was written durable. False when the journal has failed.
    pub fn flush(&mut self) -> bool {
        if self.active.unflushed.is_none() {
            return !matches!(self.gauges.room(), Room::Failed(_));
        }
        let began = Instant::now();
        if let Err(error) = self.active.file.sync() {
            // What was not flushed may stay in the page cache as if it had been, and be read back, and be lost later.
            if let Err(error) = self.active.file.truncate(u64::from(self.active.flushed)) {
                tracing::error!(%error, "what could not be flushed could not be taken back either");
            }
            self.fail(&format!("fsync failed: {error}"));
            return false;
        }
        self.metrics.journal().synced(began.elapsed());
        self.active.unflushed = None;
        self.active.flushed = self.active.length;
        true
    }

    /// Ends the journal until it is opened again.
    pub fn fail(&mut self, why: &str) -> Broken {
        tracing::error!(reason = why, "the journal has failed; it takes no more events until it is opened again");
        let why: Arc<str> = Arc::from(why);
        self.gauges.set_room(Room::Failed(Arc::clone(&why)));
        self.active.unflushed = None; // a second flush may lie
        Broken::Failed(why)
    }

    /// Why nothing can be written.
    pub fn broken(&self) -> Broken {
        match self.gauges.room() {
            Room::Failed(why) => Broken::Failed(why),
            Room::Open | Room::Full { .. } | Room::OverShare { .. } | Room::Stalled { .. } => Broken::Full,
        }
    }

    /// A write that left nothing behind: what may pass ([`disk::is_shortage`]) is waited out, anything else ends the journal.
    pub fn write_failed(&mut self, error: &io::Error, what: &str) -> Broken {
        if disk::is_shortage(error) {
            if !matches!(self.gauges.room(), Room::Full { .. }) {
                tracing::warn!(%error, what, "the disk is full, or may not be written to just now; events are refused until it may");
            }
            let refused = Some(Arc::from(error.to_string()));
            self.gauges.set_room(Room::Full { retry_after: RETRY_AFTER, refused });
            return Broken::Full;
        }
        self.fail(&format!("could not {what}: {error}"))
    }

    /// Says what the journal takes.
    pub fn measure(&self) {
        self.gauges.bytes.store(self.used(), Ordering::Relaxed);
        self.shares.set_others(self.claims.bytes() + self.index_bytes + self.checkpoints.bytes());
    }

    /// Everything the journal takes, as far as it is written.
    pub fn used(&self) -> u64 {
        self.log_bytes + self.claims.bytes() + self.index_bytes + self.checkpoints.bytes()
    }

    /// The state. A panic elsewhere does not make it wrong: every change to it is whole.
    pub fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Broken> for AppendError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Full => Self::Full { retry_after: RETRY_AFTER },
            Broken::Failed(why) => Self::Failed(why),
        }
    }
}

impl From<Broken> for JournalError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Full => Self::Full,
            Broken::Failed(why) => Self::Failed(why),
        }
    }
}
