//! The one thread that writes: it takes what has come in as one batch, and decides what each command comes to.
//! How the batch gets to the disk is in [`super::commit`].

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::claims::{Claims, Held};
use super::commit::{Batch, Broken, Effect, Told};
use super::entry::Standing;
use super::record::{Home, KIND_EVENT, Record, StoredClaim};
use super::segment;
use super::state::{EventFacts, Rearmed, State};
use super::{Gauges, RETRY_AFTER};
use crate::admit::Lease;
use crate::base::{Clock, UnixMillis};
use crate::event::DeliveryId;
use crate::journal::disk::{Disk, DiskFile};
use crate::journal::{
    AppendError, Appended, JournalError, Lane, Located, Position, Rearm, Retention, Room, Settled, Verdict,
};
use crate::telemetry::Metrics;

/// What is written but need not be durable at once is so after this.
const FLUSH_WITHIN: Duration = Duration::from_millis(50);
/// An event up to this size is an ordinary one: without room for it there is no room.
pub const ORDINARY_BYTES: u64 = 64 << 10;
/// Commands in one batch, at most.
const BATCH_MAX: usize = 1024;

/// Where an answer goes.
pub type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// What the writer is asked for.
pub enum Command {
    /// Keep an event.
    Append {
        facts: EventFacts,
        claim: Option<StoredClaim>,
        payload: Vec<u8>,
        lease: Option<Lease>,
        reply: Reply<Appended, AppendError>,
    },
    /// An attempt is about to run.
    Start { lane: Lane, delivery: DeliveryId, number: u32, reply: Reply<(), JournalError> },
    /// An attempt ended.
    Settle { lane: Lane, settled: Settled, reply: Reply<(), JournalError> },
    /// Make these pending again.
    Rearm { at: Located, first_entry: u32, wanted: Vec<u8>, why: Rearm, reply: Reply<Vec<DeliveryId>, JournalError> },
    /// Let go of what is past retention.
    Trim { keep: Retention, reply: Reply<(), JournalError> },
    /// Flush and end.
    Close { reply: oneshot::Sender<()> },
}

/// The writing side of the log.
pub struct Writer {
    pub disk: Arc<dyn Disk>,
    pub store: [u8; 16],
    pub clock: Arc<dyn Clock>,
    pub state: Arc<Mutex<State>>,
    pub claims: Claims,
    pub sealed_through: Position,
    pub limits: Limits,
    pub gauges: Arc<Gauges>,
    pub metrics: Metrics,
    pub keep: Retention,
    pub active: Active,
    /// Nothing can be evicted until something is settled.
    pub exhausted: bool,
    pub log_bytes: u64,
    pub index_bytes: u64,
}

/// How much the log may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Everything together.
    pub max_bytes: u64,
    /// A segment is closed at this size.
    pub segment_bytes: u32,
}

impl Limits {
    /// What fresh events must leave free: room for copying a segment's stragglers, and for outcomes until there are
    /// enough of them that it is worth letting go of the oldest.
    pub fn reserve(self) -> u64 {
        u64::from(self.segment_bytes) + (256 << 10) + self.max_bytes / 16
    }
}

/// The segment that is written to.
pub struct Active {
    pub number: u32,
    pub file: Arc<dyn DiskFile>,
    /// Its length on disk.
    pub length: u32,
    /// Entries in it, written or in the batch.
    pub entries: u32,
    /// Since when there is something not flushed.
    pub unflushed: Option<Instant>,
}

impl Writer {
    /// Runs until it is told to close or nobody is left to ask. Call it on a thread of its own.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut taken = Vec::with_capacity(BATCH_MAX);
        loop {
            let wait = self.active.unflushed.map(|since| FLUSH_WITHIN.saturating_sub(since.elapsed()));
            let count = match wait {
                None => commands.recv_many(&mut taken, BATCH_MAX).await,
                Some(wait) => match tokio::time::timeout(wait, commands.recv_many(&mut taken, BATCH_MAX)).await {
                    Ok(count) => count,
                    Err(_elapsed) => {
                        self.gauges.set_busy(true);
                        self.flush();
                        self.gauges.set_busy(false);
                        continue;
                    }
                },
            };
            if count == 0 {
                self.flush();
                return;
            }
            let mut batch = Batch::default();
            self.gauges.set_busy(true);
            for command in taken.drain(..) {
                if let Command::Close { reply } = command {
                    let _ = self.commit(&mut batch); // whoever waits has been told
                    self.flush();
                    self.gauges.set_room(Room::Failed(Arc::from("the journal is closed")));
                    let _ = reply.send(()); // whoever asked may have gone
                    return;
                }
                self.take(command, &mut batch);
            }
            let _ = self.commit(&mut batch); // whoever waits has been told
            self.gauges.set_busy(false);
        }
    }

    fn take(&mut self, command: Command, batch: &mut Batch) {
        match command {
            Command::Append { facts, claim, payload, lease, reply } => {
                batch.leases.extend(lease);
                self.append(facts, claim, &payload, reply, batch);
            }
            Command::Start { lane, delivery, number, reply } => match self.start(&lane, delivery, number, batch) {
                Ok(()) => batch.replies.push(Told::Early(reply)),
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Settle { lane, settled, reply } => self.settle(&lane, settled, reply, batch),
            Command::Rearm { at, first_entry, wanted, why, reply } => {
                let (segment, _) = segment::split(at.at);
                let homes = wanted.iter().map(|index| {
                    let id = DeliveryId { event: at.id, index: *index };
                    (id, Home { segment, entry: first_entry.saturating_add(u32::from(*index)) })
                });
                match self.rearm(homes.collect(), at.at, why, batch) {
                    Ok(ids) => batch.replies.push(Told::Rearm(reply, ids)),
                    Err(broken) => drop(reply.send(Err(broken.into()))),
                }
            }
            Command::Trim { keep, reply } => {
                let _ = self.commit(batch); // whoever waits has been told
                self.keep = keep;
                let done = self.trim().map_err(JournalError::from);
                self.refresh_room();
                drop(reply.send(done)); // whoever asked may have gone
            }
            Command::Close { .. } => {} // taken by `run`
        }
    }

    fn append(
        &mut self,
        facts: EventFacts,
        claim: Option<StoredClaim>,
        payload: &[u8],
        reply: Reply<Appended, AppendError>,
        batch: &mut Batch,
    ) {
        let now = self.clock.now();
        let held = match &claim {
            None => Ok(None),
            Some(claim) => self.claims.holder(&claim.hash, now),
        };
        let done = match (held, claim) {
            (Err(error), _) => Err(self.fail(&format!("claims cannot be read: {error}")).into()),
            (Ok(Some(held)), claim) => {
                let conflict = claim.is_some_and(|claim| claim.fingerprint != held.fingerprint);
                self.duplicate(held, conflict, now, batch).map_err(AppendError::from)
            }
            (Ok(None), claim) => self.fresh(facts, claim, payload, batch),
        };
        match done {
            Ok(appended) => batch.replies.push(Told::Append(reply, appended)),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn fresh(
        &mut self,
        facts: EventFacts,
        claim: Option<StoredClaim>,
        payload: &[u8],
        batch: &mut Batch,
    ) -> Result<Appended, AppendError> {
        let size = segment::record_bytes(payload.len());
        if size as u64 > self.limits.max_bytes / 4 {
            return Err(AppendError::TooLarge { bytes: size });
        }
        if !self.make_room(size as u64, batch)? {
            if size as u64 <= ORDINARY_BYTES {
                self.gauges.set_room(Room::Full { retry_after: RETRY_AFTER });
            }
            return Err(AppendError::Full { retry_after: RETRY_AFTER });
        }
        let id = facts.id;
        let entries = facts.deliveries.len();
        let (at, first) = self.add_event(payload, facts, batch)?;
        if let Some(claim) = claim {
            batch.claim(&mut self.claims, claim.hash, Held::new(&claim, id, at, first, entries));
        }
        Ok(Appended::Fresh(Located { id, at }))
    }

    /// Adds an event's record; it counts once it is durable.
    pub fn add_event(
        &mut self,
        payload: &[u8],
        facts: EventFacts,
        batch: &mut Batch,
    ) -> Result<(Position, u32), Broken> {
        let at = self.place(payload.len(), batch)?;
        let first = self.active.entries;
        self.frame(KIND_EVENT, first, payload, batch);
        self.active.entries += u32::try_from(facts.deliveries.len()).unwrap_or(0);
        batch.late.push(Effect::Event { at, first, facts });
        batch.durable = true;
        Ok((at, first))
    }

    fn duplicate(
        &mut self,
        held: Held,
        conflict: bool,
        now: UnixMillis,
        batch: &mut Batch,
    ) -> Result<Appended, Broken> {
        self.add(&Record::Duplicate { original: held.event, conflict, at: now }, batch)?;
        let original = Located { id: held.event, at: held.at };
        if held.rearms {
            let (segment, _) = segment::split(held.at);
            let homes = (0..held.entries).map(|index| {
                let entry = held.first_entry.saturating_add(u32::from(index));
                (DeliveryId { event: held.event, index }, Home { segment, entry })
            });
            self.rearm(homes.collect(), held.at, Rearm::Duplicate, batch)?;
        }
        Ok(Appended::Duplicate { original, conflict })
    }

    fn rearm(
        &mut self,
        homes: Vec<(DeliveryId, Home)>,
        event_at: Position,
        why: Rearm,
        batch: &mut Batch,
    ) -> Result<Vec<DeliveryId>, Broken> {
        let now = self.clock.now();
        let settled: Vec<_> = {
            let state = self.state();
            let may = |standing| match why {
                Rearm::Replay => matches!(standing, Standing::Dead | Standing::Delivered),
                Rearm::Duplicate => standing == Standing::Dead,
            };
            let entries = homes.into_iter().filter_map(|(id, home)| Some((id, home, state.entry(home)?)));
            entries.filter(|(_, _, entry)| may(entry.standing())).collect()
        };
        let mut rearmed = Vec::new();
        for (id, home, entry) in settled {
            let attempts = entry.attempts();
            let record = Record::Rearmed { delivery: id, home, event_at, why, attempts, at: now };
            let record_at = self.add(&record, batch)?;
            let effect = Rearmed { id, home, event_at, why, attempts, at: now };
            batch.late.push(Effect::Rearmed { rearmed: effect, record_at });
            batch.durable = true;
            rearmed.push(id);
        }
        Ok(rearmed)
    }

    fn start(&mut self, lane: &Lane, id: DeliveryId, number: u32, batch: &mut Batch) -> Result<(), JournalError> {
        let (home, event_at) = self.home(lane, id)?;
        let at = self.clock.now();
        self.add(&Record::Started { delivery: id, home, event_at, number, at }, batch)?;
        batch.early.push(Effect::Started { id, home, number });
        Ok(())
    }

    fn settle(&mut self, lane: &Lane, settled: Settled, reply: Reply<(), JournalError>, batch: &mut Batch) {
        let (id, verdict, at) = (settled.delivery, settled.verdict, self.clock.now());
        let home = match self.home(lane, id) {
            Ok((home, _)) => home,
            Err(error) => return drop(reply.send(Err(error))),
        };
        if let Err(broken) = self.add(&Record::Settled { settled, home, at }, batch) {
            return drop(reply.send(Err(broken.into())));
        }
        let effect = Effect::Settled { id, home, verdict, at };
        if matches!(verdict, Verdict::Dead(_)) {
            batch.durable = true;
            batch.late.push(effect);
            batch.replies.push(Told::Late(reply));
        } else {
            batch.early.push(effect);
            batch.replies.push(Told::Early(reply));
        }
        self.exhausted = false;
    }

    fn home(&self, lane: &Lane, delivery: DeliveryId) -> Result<(Home, Position), JournalError> {
        let mut state = self.state();
        if state.lane(lane).is_none() {
            return Err(JournalError::Fenced);
        }
        state.home(delivery).ok_or(JournalError::Unknown)
    }
}
