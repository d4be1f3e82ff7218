//! The journal as a segmented log in a directory (docs/journal.md).
//!
//! ```text
//! journal.meta   id and hash key      lock       held while open
//! log/           segments: the truth  claims/    sealed claims      index/   derived, rebuildable
//! ```
//!
//! One thread writes (`writer`), one reads (`reader`); `state` is what both know in memory.

mod aside;
mod backup;
mod checkpoint;
mod claims;
mod codec;
mod commit;
mod crew;
mod damage;
mod entry;
mod erase;
mod facts;
mod first;
mod gauges;
mod hash;
mod keys;
mod limits;
mod lock;
mod lost;
mod meta;
mod open;
mod orphans;
mod parts;
mod pauses;
mod reader;
mod record;
mod reserve;
mod routes;
mod segment;
mod shares;
mod state;
mod stored;
mod survey;
#[cfg(test)]
mod tests;
mod time;
mod trim;
mod writer;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use self::checkpoint::Checkpoints;
use self::entry::Segment;
use self::facts::EventFacts;
use self::gauges::Gauges;
use self::limits::Limits;
use self::meta::Meta;
use self::open::Recovered;
use self::reader::{FoundEvent, Job, Reader};
use self::reserve::Reserve;
use self::segment::SegmentKey;
use self::shares::Shares;
use self::state::{Ready, State};
use self::stored::{EventRecord, Progress, StoredClaim, StoredDelivery};
use self::time::Time;
use self::writer::{Active, Append, Command, Writer};
use super::disk::{Disk, RealDisk};
use super::seal::Keyring;
use super::{
    AppendError, Appended, Backup, Changes, Claim, Entry, Erased, Journal, JournalError, Kept, Lane, Located,
    NewDelivery, Pause, PendingBatch, Position, Rearm, Reserved, Retention, Room, Routes, Routing, Settings, Settled,
    Stats, Sync,
};
use crate::base::{ByteSize, Clock, Name};
use crate::event::{DeliveryId, DeliveryStatus};
use crate::telemetry::Metrics;

pub use self::backup::{Stopped, Survey, is_file_of, survey};
pub use self::crew::{Crew, Workplace};
pub use self::lock::Lock;
pub use self::open::OpenError;
pub use self::survey::{key_use, lacks};

/// When a sender is asked to come again after a 503 for want of room.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// A disk that has not answered for so long is taken for hung: events are refused before their bodies are read.
const STALLED: Duration = Duration::from_secs(5);
/// Requests that wait for the writer, at most: more wait before they are taken.
const QUEUE: usize = 4096;
const MAX_BYTES_LEAST: u64 = Settings::MAX_SIZE_LEAST.0;

/// The journal in a directory. A handle; all clones are one journal.
#[derive(Clone)]
pub struct LogJournal {
    shared: Arc<Shared>,
}

struct Shared {
    state: Arc<Mutex<State>>,
    gauges: Arc<Gauges>,
    shares: Arc<Shares>,
    claim_key: [u8; 32],
    keys: Arc<ArcSwap<Keyring>>,
    store: [u8; 16],
    time: Arc<Time>,
    writer: mpsc::Sender<Command>,
    reader: mpsc::Sender<Job>,
    disk: Arc<dyn Disk>,
    /// Who goes through all of it: one at a time.
    turn: Arc<Semaphore>,
    _lock: Option<Lock>,
}

impl LogJournal {
    /// Opens the journal in `settings.dir`, making it where it is new, with everything that was pending.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is changed then.
    pub fn open(settings: &Settings, clock: Arc<dyn Clock>, metrics: Metrics) -> Result<Self, OpenError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&settings.dir));
        // Before anything is touched, the lock included; what cannot be read is told of by whoever needs it.
        if let Err(error @ (OpenError::Format { .. } | OpenError::NoKey(_))) = survey::check(&*disk, settings) {
            Lock::peek(&settings.dir)?;
            return Err(error);
        }
        let lock = Lock::take(&settings.dir)?;
        Self::open_on(disk, settings, clock, metrics, Some(lock))
    }

    /// As [`LogJournal::open`], on any disk.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        settings: &Settings,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        lock: Option<Lock>,
    ) -> Result<Self, OpenError> {
        Self::open_with(disk, settings, clock, metrics, lock, &Workplace::default())
    }

    /// As [`LogJournal::open_on`], with its work done as `workplace` says.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_with(
        disk: Arc<dyn Disk>,
        settings: &Settings,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        lock: Option<Lock>,
        workplace: &Workplace,
    ) -> Result<Self, OpenError> {
        let cannot = |what: &str| {
            let what = what.to_owned();
            move |error| OpenError::Io { what, error }
        };
        let total = disk.space().map_err(cannot("cannot ask for the disk's size"))?.total;
        let limits = Limits::of(settings.max_size, total);
        if limits.max_bytes < MAX_BYTES_LEAST {
            return Err(OpenError::TooSmall { given: limits.max_bytes, least: MAX_BYTES_LEAST });
        }
        survey::check(&*disk, settings)?; // nobody else can change it now
        let meta = Meta::open(&*disk)?;
        let keys = Keyring::new(&settings.encryption, meta.store);
        let sealer = keys.sealing().cloned();
        let sealed_by = sealer.as_ref().map(|sealer| sealer.id());
        let keys = Arc::new(ArcSwap::from_pointee(keys));
        let time = Time::open(&*disk, Arc::clone(&clock)).map_err(cannot("cannot read journal.time"))?;
        let time = Arc::new(time);
        let began = Instant::now();
        let erasing = erase::redo(&*disk, meta.store).map_err(cannot("cannot go on with erasing an event"))?;
        let recovered = open::recover(&disk, meta.store, time.now(), workplace)?;
        let Recovered { mut state, mut claims, sealed_through, next_segment, damaged, lost, read_bytes, checkpoint } =
            recovered;
        survey::lacks(state.key_use(), &settings.encryption)?; // a header may be damaged
        claims.merge_at_most(limits.max_bytes / 16);
        let key = SegmentKey { store: meta.store, number: next_segment };
        let oldest = state.segments.keys().next().copied().unwrap_or(next_segment);
        let now = time.now();
        let mut reserve = Reserve::of(&*disk, limits.max_bytes);
        let created = reserve.or_give_up(&*disk, || segment::create(&*disk, key, oldest, now, sealed_by));
        let file = created.map_err(cannot("cannot begin a segment"))?;
        let fresh = Segment::begun(segment::HEADER_BYTES, now, sealed_by);
        state.segments.insert(next_segment, Arc::new(fresh));
        let log_bytes = state.segments.values().map(|segment| u64::from(segment.end)).sum();
        state.recovered(segment::position(next_segment, segment::HEADER_BYTES));
        if log_bytes > u64::from(segment::HEADER_BYTES) {
            tracing::info!(
                log_bytes,
                read_bytes,
                from_checkpoint = checkpoint.is_some(),
                took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                "the journal was read back"
            );
        }
        let shares = Arc::clone(&state.sources.shares);
        shares.set_capacity(limits.capacity());

        let state = Arc::new(Mutex::new(state));
        let gauges = Arc::new(Gauges {
            room: ArcSwap::from_pointee(Room::Open),
            opened: Instant::now(),
            busy_since: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            max_bytes: AtomicU64::new(limits.max_bytes),
            evicted: AtomicU64::new(0),
            held: Default::default(),
            damaged: AtomicU64::new(damaged),
        });
        state.lock().unwrap_or_else(PoisonError::into_inner).paused =
            pauses::read(&*disk).map_err(cannot("cannot read which destinations are paused"))?;
        let active = Active::begun(next_segment, file, sealer);
        let mut writer = Writer {
            disk: Arc::clone(&disk),
            store: meta.store,
            clock,
            time: Arc::clone(&time),
            state: Arc::clone(&state),
            claims,
            sealed_through,
            checkpoints: Checkpoints::new(
                workplace.crew.clone(),
                Arc::clone(&disk),
                meta.store,
                checkpoint.unwrap_or(0),
                read_bytes,
            ),
            limits,
            gauges: Arc::clone(&gauges),
            metrics,
            keep: settings.retention,
            active,
            keys: Arc::clone(&keys),
            exhausted: false,
            shares: Arc::clone(&shares),
            over_share: BTreeSet::new(),
            log_bytes,
            index_bytes: 0,
            reserve,
        };
        let _ = writer.lost(lost); // whoever comes upon it next says so again
        if let Some(event) = erasing
            && let Err(error) = writer.finish_erasing(event)
        {
            tracing::error!(%event, %error, "the event could not be erased; it is tried again at the next opening");
        }
        let _ = writer.trim(); // a failure is logged, shows in `room`, and is tried again
        writer.refresh_room();
        writer.measure();
        let reader = Reader {
            disk: Arc::clone(&disk),
            store: meta.store,
            state: Arc::clone(&state),
            keys: Arc::clone(&keys),
            open: Default::default(),
        };
        let watched = Arc::clone(&gauges);
        let shared = Shared {
            state,
            gauges,
            shares,
            claim_key: meta.claim_key,
            keys,
            store: meta.store,
            time,
            writer: workplace.crew.write(writer)?,
            reader: workplace.crew.read(reader, watched)?,
            disk,
            turn: Arc::new(Semaphore::new(1)),
            _lock: lock,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The journal's id, the same for as long as the directory is.
    #[must_use]
    pub fn identity(&self) -> [u8; 16] {
        self.shared.store
    }

    /// Takes no more than `max_size` from now on: history that is over it goes at once, what waits stays.
    ///
    /// # Errors
    /// [`JournalError`] if the store cannot be read or written.
    pub async fn resize(&self, max_size: ByteSize) -> Result<(), JournalError> {
        self.write(|reply| Command::Resize { max_size, reply }, || JournalError::Closed).await
    }

    /// Makes everything durable and takes nothing more. Call it last.
    pub async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if self.shared.writer.send(Command::Close { reply }).await.is_ok() {
            let _ = closed.await; // an error means it was closed already
        }
    }

    /// Asks the writing thread for something.
    async fn write<T, E>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Command,
        closed: fn() -> E,
    ) -> Result<T, E> {
        // Reserve, then send without waiting: dropped in between, nothing has been asked for.
        let slot = self.shared.writer.reserve().await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        slot.send(command(reply));
        answer.await.map_err(|_| closed())?
    }

    fn stored_claim(&self, claim: &Claim) -> StoredClaim {
        hash::stored(&self.shared.claim_key, self.shared.time.now(), claim)
    }

    async fn find(&self, at: Located) -> Result<FoundEvent, JournalError> {
        let found = self.read(move |reader| reader.event(at)).await?.ok_or(JournalError::Unknown)?;
        if found.record.erased { Err(JournalError::Erased) } else { Ok(found) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for LogJournal {
    fn room(&self) -> Room {
        self.shared.gauges.room()
    }

    fn room_for(&self, source: &Name) -> Room {
        match self.shared.gauges.room() {
            Room::Open if self.shared.shares.is_over(source) => Room::OverShare { retry_after: RETRY_AFTER },
            room => room,
        }
    }

    async fn reserve(&self, claim: &Claim) -> Result<Reserved, AppendError> {
        let claim = self.stored_claim(claim);
        self.write(|reply| Command::Reserve { claim, reply }, || AppendError::Closed).await
    }

    async fn append(&self, entry: Entry, sync: Sync) -> Result<Appended, AppendError> {
        let Entry { event, claim, deliveries, attempt, relayed, lease } = entry;
        let claim = claim.map(|claim| self.stored_claim(&claim));
        let (event, _) = event.into_parts();
        let progress = Progress::fresh(event.received_at);
        let deliveries = deliveries
            .into_iter()
            .map(|new| StoredDelivery {
                destination: new.destination,
                path: new.path,
                status: DeliveryStatus::Pending,
                progress,
            })
            .collect();
        let record = EventRecord { moved_from: None, claim, deliveries, relayed, event, erased: false };
        let sealer = self.shared.keys.load().sealing().cloned();
        let payload = stored::encode_event(&record, sealer.as_deref());
        let payload = payload.map_err(|error| AppendError::Failed(Arc::from(error.to_string())))?;
        let facts = EventFacts::of(record.outline(), payload.bytes.len());
        drop(record);
        let append = Append { facts, claim, payload, sealer, attempt, sync, lease };
        self.write(|reply| Command::Append { append: Box::new(append), reply }, || AppendError::Closed).await
    }

    fn lanes(&self) -> watch::Receiver<Arc<[Lane]>> {
        self.state().watch()
    }

    async fn pending(&self, lane: &Lane, after: Position, max: usize) -> Result<PendingBatch, JournalError> {
        let mut after = after;
        loop {
            let notify = self.state().lane(lane).map(|state| Arc::clone(&state.notify)).ok_or(JournalError::Fenced)?;
            let woken = notify.notified();
            let ready = self.state().ready(lane, after, max).ok_or(JournalError::Fenced)?;
            match ready {
                Ready::Deliveries(deliveries, next) if deliveries.is_empty() => after = next,
                Ready::Deliveries(deliveries, next) => return Ok(PendingBatch { deliveries, next }),
                Ready::Wait => woken.await,
                Ready::Scan => {
                    let lane = lane.clone();
                    let batch = self.read(move |reader| reader.pending(&lane, after, max)).await?;
                    if !batch.deliveries.is_empty() {
                        return Ok(batch);
                    }
                    after = batch.next;
                }
            }
        }
    }

    async fn start(&self, lane: &Lane, delivery: DeliveryId, number: u32) -> Result<(), JournalError> {
        let lane = lane.clone();
        self.write(|reply| Command::Start { lane, delivery, number, reply }, || JournalError::Closed).await
    }

    async fn settle(&self, lane: &Lane, settled: Settled) -> Result<(), JournalError> {
        let lane = Some(lane.clone());
        self.write(|reply| Command::Settle { lane, settled, reply }, || JournalError::Closed).await
    }

    async fn report(&self, settled: Settled) -> Result<(), JournalError> {
        self.write(|reply| Command::Settle { lane: None, settled, reply }, || JournalError::Closed).await
    }

    async fn pause(&self, destination: &Name, pause: Pause) -> Result<(), JournalError> {
        let destination = destination.clone();
        self.write(|reply| Command::Pause { destination, pause, reply }, || JournalError::Closed).await
    }

    fn paused(&self) -> BTreeSet<Name> {
        self.state().paused.clone()
    }

    async fn set_routes(&self, routes: Routes) -> Result<(), JournalError> {
        self.write(|reply| Command::SetRoutes { routes, reply }, || JournalError::Closed).await
    }

    fn routing(&self) -> watch::Receiver<Arc<Routing>> {
        self.state().routes.watch()
    }

    async fn rearm(&self, at: Located, only: Option<Name>, why: Rearm) -> Result<Vec<DeliveryId>, JournalError> {
        let FoundEvent { at: now_at, first_entry, record } = self.find(at).await?;
        let at = Located { at: now_at, ..at };
        let wanted = (0u8..)
            .zip(&record.deliveries)
            .filter(|(_, delivery)| only.as_ref().is_none_or(|only| delivery.destination == *only))
            .map(|(index, _)| index)
            .collect();
        self.write(|reply| Command::Rearm { at, first_entry, wanted, why, reply }, || JournalError::Closed).await
    }

    async fn event(&self, at: Located) -> Result<Option<Kept>, JournalError> {
        match self.find(at).await {
            Ok(FoundEvent { record, .. }) => {
                let asked = |stored: StoredDelivery| NewDelivery { destination: stored.destination, path: stored.path };
                let EventRecord { event, deliveries, relayed, .. } = *record;
                Ok(Some(Kept { event, deliveries: deliveries.into_iter().map(asked).collect(), relayed }))
            }
            Err(JournalError::Unknown) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn erase(&self, at: Located) -> Result<Erased, JournalError> {
        self.erase_event(at).await
    }

    async fn backup(&self) -> Result<Backup, JournalError> {
        self.make_backup().await
    }

    async fn changes(&self, after: Position, max: usize) -> Result<Changes, JournalError> {
        self.read(move |reader| reader.changes(after, max)).await
    }

    fn stats(&self) -> Stats {
        let (lanes, sources, keys) = {
            let state = self.state();
            (state.lane_stats(), state.sources.stats(), state.key_use())
        };
        Stats {
            keys,
            lanes,
            sources,
            share_bytes: self.shared.shares.share(),
            bytes: self.shared.gauges.bytes.load(Ordering::Relaxed),
            max_bytes: self.shared.gauges.max_bytes.load(Ordering::Relaxed),
            evicted: self.shared.gauges.evicted.load(Ordering::Relaxed),
            damaged: self.shared.gauges.damaged.load(Ordering::Relaxed),
        }
    }

    fn tail(&self) -> Position {
        self.state().tail
    }

    async fn trim(&self, keep: Retention) -> Result<(), JournalError> {
        self.write(|reply| Command::Trim { keep, reply }, || JournalError::Closed).await
    }
}

/// The directory of the index, beside the log.
#[must_use]
pub fn index_dir(dir: &Path) -> std::path::PathBuf {
    dir.join("index")
}
