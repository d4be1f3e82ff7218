//! Erasing one event: its record, and those of its attempts, are overwritten where they stand.
//!
//! The steps, each durable before the next:
//!
//! 1. `erasing` names the event. From here on it will be erased, whatever happens: the next opening goes on from here.
//! 2. An `Erased` record: what waits of the event has ended. Nothing is copied forward or written of it any more.
//! 3. The log is gone through for the event's records. `erasing` then has what is to stand in their places.
//! 4. They are overwritten by records of the same length. Whatever a crash leaves of that, the next opening writes all of them
//!    again before it reads anything, so that none is found torn.
//! 5. `erasing` is removed.
//!
//! `erasing`, replaced whole: magic `FBERASE1`, store 16, event 16, known u8 (whether what follows is), u32 count; for each
//! record its position u64 and its new bytes (u32 length, bytes); CRC-32C of all before u32. Numbers are little-endian.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::codec::{Decoder, Encoder, Malformed};
use super::commit::{Batch, Effect};
use super::crew::thread;
use super::entry::Standing;
use super::parts::{Parts, Payload};
use super::reader::FoundEvent;
use super::record::{Home, KIND_EVENT, KIND_SETTLED, Record};
use super::segment::{self, Found, RawRecord, Scan, SegmentKey};
use super::stored::{self, EventOutline};
use super::writer::{Command, Writer};
use super::{LogJournal, Shared};
use crate::event::EventId;
use crate::journal::disk::{self, Disk, DiskFile};
use crate::journal::seal::Keyring;
use crate::journal::{Erased, JournalError, Located, Position};

/// The file beside the log that says which event is being erased.
pub const FILE: &str = "erasing";
const MAGIC: &[u8; 8] = b"FBERASE1";
const READ_AHEAD: usize = 1 << 20;
/// How often an event may move before it is noted as erased.
const MOVES_MAX: usize = 8;

/// What `erasing` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Order {
    event: EventId,
    /// What is to be overwritten; none if that has not been looked for.
    patches: Option<Vec<Patch>>,
}

/// What is to stand at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Patch {
    at: Position,
    bytes: Bytes,
}

impl LogJournal {
    /// [`crate::journal::Journal::erase`], on a thread of its own: it goes through much of the log.
    pub(super) async fn erase_event(&self, at: Located) -> Result<Erased, JournalError> {
        let turn = Arc::clone(&self.shared.turn).try_acquire_owned().map_err(|_| JournalError::Busy)?;
        let (reply, answer) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let thread = thread("journal-erase", move || {
            let erased = shared.erase(at);
            drop(turn);
            drop(reply.send(erased)); // whoever asked may have gone
        });
        thread.map_err(|error| JournalError::Failed(Arc::from(error.to_string())))?;
        answer.await.map_err(|_| JournalError::Closed)?
    }
}

impl Shared {
    /// Blocks: for a thread of its own, one at a time.
    fn erase(&self, mut at: Located) -> Result<Erased, JournalError> {
        if let Some(Order { event, patches }) = read(&*self.disk, self.store).map_err(unwritten)? {
            self.finish(event, patches)?; // the one before was cut off by an error
        }
        for _ in 0..MOVES_MAX {
            let found = self
                .ask_reader(move |reader| reader.event(at).map_err(JournalError::from))?
                .ok_or(JournalError::Unknown)?;
            let FoundEvent { at: now_at, first_entry, record } = found;
            if record.erased {
                return Ok(Erased { purged: 0 });
            }
            at.at = now_at;
            write(&*self.disk, self.store, &Order { event: at.id, patches: None }).map_err(unwritten)?;
            let first = Home { segment: segment::split(now_at).0, entry: first_entry };
            let deliveries = u8::try_from(record.deliveries.len()).unwrap_or(u8::MAX);
            match self.note(at.id, first, deliveries) {
                Ok(purged) => {
                    self.overwrite(at.id)?;
                    return Ok(Erased { purged });
                }
                Err(JournalError::Unknown) => remove(&*self.disk).map_err(unwritten)?, // it has moved meanwhile
                Err(error @ JournalError::Full) => {
                    remove(&*self.disk).map_err(unwritten)?; // nothing was written
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(JournalError::Unknown)
    }

    /// Goes on where an error cut an erasure off.
    fn finish(&self, event: EventId, patches: Option<Vec<Patch>>) -> Result<(), JournalError> {
        if let Some(patches) = patches {
            return self.put(patches);
        }
        let found = locate(&*self.disk, self.store, &self.segments(), event).map_err(unwritten)?;
        if let Some((first, deliveries)) = found {
            self.note(event, first, deliveries)?;
        }
        self.overwrite(event)
    }

    fn note(&self, event: EventId, first: Home, deliveries: u8) -> Result<u32, JournalError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Erase { event, first, deliveries, reply };
        self.writer.blocking_send(command).map_err(|_| JournalError::Closed)?;
        answer.blocking_recv().map_err(|_| JournalError::Closed)?
    }

    fn overwrite(&self, event: EventId) -> Result<(), JournalError> {
        let patches =
            look_for(&*self.disk, self.store, &self.keys.load(), &self.segments(), event).map_err(unwritten)?;
        let order = Order { event, patches: Some(patches.clone()) };
        write(&*self.disk, self.store, &order).map_err(unwritten)?;
        self.put(patches)
    }

    /// Between two reads of the reading thread, so that it finds no record half overwritten.
    fn put(&self, patches: Vec<Patch>) -> Result<(), JournalError> {
        let disk = Arc::clone(&self.disk);
        let files = self.ask_reader(move |_| put(&*disk, &patches).map_err(unwritten))?;
        files.iter().try_for_each(|file| file.sync()).and_then(|()| remove(&*self.disk)).map_err(unwritten)
    }

    fn ask_reader<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut super::Reader) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move |reader: &mut super::Reader| drop(reply.send(job(reader))));
        self.reader.blocking_send(job).map_err(|_| JournalError::Closed)?;
        answer.blocking_recv().map_err(|_| JournalError::Closed)?
    }

    fn segments(&self) -> Vec<(u32, u32)> {
        ends(&self.state)
    }
}

fn ends(state: &std::sync::Mutex<super::State>) -> Vec<(u32, u32)> {
    let state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    state.segments.iter().map(|(number, segment)| (*number, segment.end)).collect()
}

#[allow(clippy::needless_pass_by_value)] // for `map_err`
fn unwritten(error: io::Error) -> JournalError {
    if error.kind() == io::ErrorKind::StorageFull {
        return JournalError::Full;
    }
    tracing::error!(%error, "an event could not be erased wholly; it is finished when it is asked for again, or at the next opening");
    JournalError::Read(Arc::from(error.to_string()))
}

impl Writer {
    /// Notes that an event is erased, durably, and ends what waits of it. Says how many deliveries those are.
    pub fn erase(&mut self, event: EventId, first: Home, deliveries: u8) -> Result<u32, JournalError> {
        let standing: Option<Vec<Standing>> = {
            let state = self.state();
            let there = state.segments.contains_key(&first.segment);
            let entries = first.and_following(deliveries).map(|(_, home)| state.entry(home));
            entries.map(|entry| entry.map(super::entry::Entry::standing)).collect::<Option<_>>().filter(|_| there)
        };
        let standing = standing.filter(|all| !all.contains(&Standing::Moved)).ok_or(JournalError::Unknown)?;
        let purged = standing.iter().filter(|standing| standing.is_unsettled()).count();
        let purged = u32::try_from(purged).unwrap_or(u32::MAX);
        let mut batch = Batch::default();
        let at = self.clock.now();
        self.add(&Record::Erased { event, home: first, deliveries, at }, &mut batch)?;
        batch.must_be_durable();
        batch.late.push(Effect::Erased { event, first, deliveries });
        self.commit(&mut batch)?;
        self.metrics.journal().erased(u64::from(purged));
        self.exhausted = false;
        Ok(purged)
    }

    /// Goes on with an erasure that the last run did not come to the end of. Call it before anything else is asked of a journal.
    pub fn finish_erasing(&mut self, event: EventId) -> Result<(), JournalError> {
        let disk = Arc::clone(&self.disk);
        let found = locate(&*disk, self.store, &ends(&self.state), event).map_err(unwritten)?;
        if let Some((first, deliveries)) = found {
            self.erase(event, first, deliveries)?;
        }
        let patches = look_for(&*disk, self.store, &self.keys.load(), &ends(&self.state), event).map_err(unwritten)?;
        let order = Order { event, patches: Some(patches) };
        write(&*disk, self.store, &order).and_then(|()| carry_out(&*disk, &order)).map_err(unwritten)
    }
}

/// Before the log is read back: overwrites what the last run was overwriting, so that nothing is found torn. Gives an event
/// that is still to be looked for.
///
/// # Errors
/// As the operating system says.
pub fn redo(disk: &dyn Disk, store: [u8; 16]) -> io::Result<Option<EventId>> {
    let Some(order) = read(disk, store)? else { return Ok(None) };
    if order.patches.is_none() {
        return Ok(Some(order.event));
    }
    carry_out(disk, &order)?;
    tracing::info!(event = %order.event, "an erasure that was cut off is finished");
    Ok(None)
}

fn carry_out(disk: &dyn Disk, order: &Order) -> io::Result<()> {
    let files = put(disk, order.patches.as_deref().unwrap_or_default())?;
    files.iter().try_for_each(|file| file.sync())?;
    remove(disk)
}

/// Overwrites, and gives the files that are then to be flushed. A segment that has been let go of needs nothing.
fn put(disk: &dyn Disk, patches: &[Patch]) -> io::Result<Vec<Arc<dyn DiskFile>>> {
    let mut files: BTreeMap<u32, Option<Arc<dyn DiskFile>>> = BTreeMap::new();
    for Patch { at, bytes } in patches {
        let (number, offset) = segment::split(*at);
        let file = match files.entry(number) {
            std::collections::btree_map::Entry::Occupied(file) => file.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(match disk.open_to_change(&segment::path(number)) {
                    Ok(file) => Some(file),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => return Err(error),
                })
            }
        };
        if let Some(file) = file {
            file.overwrite(bytes, u64::from(offset))?;
        }
    }
    Ok(files.into_values().flatten().collect())
}

/// The event's newest record: its first delivery's home, and how many there are.
fn locate(disk: &dyn Disk, store: [u8; 16], segments: &[(u32, u32)], event: EventId) -> io::Result<Option<(Home, u8)>> {
    let mut newest = None;
    walk(disk, store, segments, |number, raw| {
        if raw.kind == KIND_EVENT
            && let Some(outline) = outline_of(&raw, event)
        {
            let first = Home { segment: number, entry: raw.entry };
            newest = Some((first, u8::try_from(outline.deliveries.len()).unwrap_or(u8::MAX)));
        }
    })?;
    Ok(newest)
}

/// The records of `event` that have something to erase, with what is to stand in their places.
fn look_for(
    disk: &dyn Disk,
    store: [u8; 16],
    keys: &Keyring,
    segments: &[(u32, u32)],
    event: EventId,
) -> io::Result<Vec<Patch>> {
    let mut patches = Vec::new();
    walk(disk, store, segments, |number, raw| {
        let length = raw.payload.len();
        let Some(mut payload) = blanked(&raw, keys, event) else { return };
        payload.bytes.resize(length, 0);
        let mut bytes = Vec::with_capacity(segment::record_bytes(length));
        segment::frame(&mut bytes, SegmentKey { store, number }, raw.offset, raw.kind, raw.entry, &payload);
        patches.push(Patch { at: segment::position(number, raw.offset), bytes: bytes.into() });
    })?;
    Ok(patches)
}

/// The payload of a record of `event` without what is to be erased, in clear and never longer than it was; none for every other.
fn blanked(raw: &RawRecord, keys: &Keyring, event: EventId) -> Option<Payload> {
    let record = match raw.kind {
        KIND_EVENT => {
            outline_of(raw, event)?;
            let Ok(Record::Event(mut record)) = Record::decode(raw, keys) else { return None };
            if record.erased {
                return None;
            }
            record.erase();
            Record::Event(record)
        }
        KIND_SETTLED => {
            let Ok(Record::Settled { mut settled, home, at }) = Record::decode_outline(raw) else { return None };
            let attempt = settled.attempt.as_mut().filter(|_| settled.delivery.event == event)?;
            (attempt.error, attempt.answer) = (None, Bytes::new());
            Record::Settled { settled, home, at }
        }
        _ => return None,
    };
    record.encode(None).ok().map(|(_, payload)| payload)
}

/// What can be read of the record without a key, if it is `event`'s own.
fn outline_of(raw: &RawRecord, event: EventId) -> Option<EventOutline> {
    let outline = Parts::outline(raw).and_then(|mut from| stored::decode_outline(&mut from));
    outline.ok().filter(|outline| outline.id == event)
}

/// Shows `each` every good record of `segments`.
fn walk(
    disk: &dyn Disk,
    store: [u8; 16],
    segments: &[(u32, u32)],
    mut each: impl FnMut(u32, RawRecord),
) -> io::Result<()> {
    for (number, end) in segments {
        let file = match disk.open(&segment::path(*number)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // let go of meanwhile
            Err(error) => return Err(error),
        };
        let mut scan = Scan::new(file, SegmentKey { store, number: *number }, 0, *end, READ_AHEAD);
        while let Some(found) = scan.next()? {
            if let Found::Record(raw) = found {
                each(*number, raw);
            }
        }
    }
    Ok(())
}

fn write(disk: &dyn Disk, store: [u8; 16], order: &Order) -> io::Result<()> {
    disk::replace(disk, ".", FILE, &order.encode(store))
}

fn remove(disk: &dyn Disk) -> io::Result<()> {
    disk.remove(FILE)?;
    disk.sync_dir(".")
}

/// Whether an erasure was cut off by an error, and is still to be finished.
///
/// # Errors
/// As the operating system says.
pub fn is_unfinished(disk: &dyn Disk) -> io::Result<bool> {
    Ok(disk.list(".")?.iter().any(|(name, _)| name == FILE))
}

/// What is being erased, if anything is.
fn read(disk: &dyn Disk, store: [u8; 16]) -> io::Result<Option<Order>> {
    let Some((_, length)) = disk.list(".")?.into_iter().find(|(name, _)| name == FILE) else { return Ok(None) };
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let count = disk.open(FILE)?.read_at(&mut bytes, 0)?;
    bytes.truncate(count);
    match Order::decode(Bytes::from(bytes), store) {
        Ok(order) => Ok(Some(order)),
        Err(Malformed) => {
            tracing::error!(
                file = FILE,
                "damaged: an event that was being erased may not be wholly; erase it again if it is still there"
            );
            remove(disk)?;
            Ok(None)
        }
    }
}

impl Order {
    fn encode(&self, store: [u8; 16]) -> Vec<u8> {
        let patches = self.patches.as_deref().unwrap_or_default();
        let mut out = Encoder::default();
        out.raw(MAGIC).raw(&store).raw(self.event.as_bytes()).u8(u8::from(self.patches.is_some()));
        out.u32(u32::try_from(patches.len()).unwrap_or(u32::MAX));
        for Patch { at, bytes } in patches {
            out.u64(at.0).bytes(bytes);
        }
        let sum = crc32c::crc32c(&out.0);
        out.u32(sum);
        out.0
    }

    fn decode(bytes: Bytes, store: [u8; 16]) -> Result<Self, Malformed> {
        let (said, sum) = bytes.split_last_chunk::<4>().ok_or(Malformed)?;
        let good = u32::from_le_bytes(*sum) == crc32c::crc32c(said);
        let mut from = Decoder(bytes.clone());
        if !good || from.take(8)? != MAGIC.as_slice() || from.id()? != store {
            return Err(Malformed);
        }
        let (event, known, count) = (EventId::from_bytes(from.id()?), from.u8()? == 1, from.u32()?);
        let patches = (0..count).map(|_| Ok(Patch { at: Position(from.u64()?), bytes: from.bytes()? }));
        let patches = patches.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { event, patches: known.then_some(patches) })
    }
}
