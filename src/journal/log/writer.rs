//! The one thread that writes: it takes what has come in as one batch, and decides what each command comes to.
//! How the batch gets to the disk is in [`super::commit`].

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::checkpoint::Checkpoints;
use super::claims::{Claims, Found, Held};
use super::commit::{Batch, Broken, Effect, Told};
use super::damage::Stretch;
use super::entry::Standing;
use super::facts::EventFacts;
use super::first::{attempt_notes, will_wait};
use super::limits::Limits;
use super::parts::Payload;
use super::pauses;
use super::record::{Home, KIND_EVENT, Record};
use super::reserve::Reserve;
use super::segment::{self, HEADER_BYTES};
use super::shares::Shares;
use super::state::{Rearmed, State};
use super::stored::{StoredClaim, StoredDelivery};
use super::time::Time;
use super::{Gauges, RETRY_AFTER};
use crate::admit::Lease;
use crate::base::{ByteSize, Clock, Name};
use crate::event::{DeliveryId, EventId};
use crate::journal::archive::Plan;
use crate::journal::disk::{Disk, DiskFile};
use crate::journal::seal::{Keyring, Sealer};
use crate::journal::{
    AppendError, Appended, FirstAttempt, JournalError, Lane, Located, Pause, Position, Rearm, Reserved, Retention,
    Room, Routes, Settled, Sync, Verdict,
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
    Append { append: Box<Append>, reply: Reply<Appended, AppendError> },
    /// Say who holds a key, and note that a duplicate came.
    Reserve { claim: StoredClaim, reply: Reply<Reserved, AppendError> },
    /// An attempt is about to run.
    Start { lane: Lane, delivery: DeliveryId, number: u32, reply: Reply<(), JournalError> },
    /// An attempt ended: of a lane's owner, or of the request path.
    Settle { lane: Option<Lane>, settled: Settled, reply: Reply<(), JournalError> },
    /// Leave a destination alone, or no longer.
    Pause { destination: Name, pause: Pause, reply: Reply<(), JournalError> },
    /// The routes are these.
    SetRoutes { routes: Routes, reply: Reply<(), JournalError> },
    /// Make these pending again.
    Rearm { at: Located, first_entry: u32, wanted: Vec<u8>, why: Rearm, reply: Reply<Vec<DeliveryId>, JournalError> },
    /// These cannot be read.
    Lost { stretches: Vec<Stretch>, reply: Reply<(), JournalError> },
    /// Note that an event is erased, and end what waits of it. Says how many deliveries those are.
    Erase { event: EventId, first: Home, deliveries: u8, reply: Reply<u32, JournalError> },
    /// Say what a backup has to have, and hold it.
    Snapshot { reply: Reply<Plan, JournalError> },
    /// Let go of what is past retention.
    Trim { keep: Retention, reply: Reply<(), JournalError> },
    /// Seal and open with these from now on.
    SetKeys { keys: Arc<Keyring>, reply: Reply<(), JournalError> },
    /// Take no more than this from now on.
    Resize { max_size: ByteSize, reply: Reply<(), JournalError> },
    /// Panic.
    #[cfg(test)]
    Panic { reply: oneshot::Sender<()> },
    /// Flush and end.
    Close { reply: oneshot::Sender<()> },
}

/// An event to be kept.
pub struct Append {
    pub facts: EventFacts,
    pub claim: Option<StoredClaim>,
    pub payload: Payload,
    /// What sealed the payload.
    pub sealer: Option<Arc<Sealer>>,
    pub attempt: Option<FirstAttempt>,
    pub sync: Sync,
    pub lease: Option<Lease>,
}

/// The writing side of the log.
pub struct Writer {
    pub disk: Arc<dyn Disk>,
    pub store: [u8; 16],
    pub clock: Arc<dyn Clock>,
    pub time: Arc<Time>,
    pub state: Arc<Mutex<State>>,
    pub claims: Claims,
    pub sealed_through: Position,
    pub checkpoints: Checkpoints,
    pub limits: Limits,
    pub gauges: Arc<Gauges>,
    pub metrics: Metrics,
    pub keep: Retention,
    pub active: Active,
    /// What the segment written to is sealed with is in [`Active`].
    pub keys: Arc<ArcSwap<Keyring>>,
    /// Nothing can be evicted until something is settled.
    pub exhausted: bool,
    pub shares: Arc<Shares>,
    /// Sources that have more than their share, as far as that has been said.
    pub over_share: BTreeSet<Name>,
    pub log_bytes: u64,
    pub index_bytes: u64,
    pub reserve: Reserve,
}

/// The segment that is written to.
pub struct Active {
    pub number: u32,
    pub file: Arc<dyn DiskFile>,
    /// What seals in it.
    pub sealer: Option<Arc<Sealer>>,
    /// Its length on disk.
    pub length: u32,
    /// Entries in it, written or in the batch.
    pub entries: u32,
    /// As much of it as has been flushed.
    pub flushed: u32,
    /// Since when there is something not flushed.
    pub unflushed: Option<Instant>,
}

impl Active {
    /// A segment that has nothing but its header.
    pub fn begun(number: u32, file: Arc<dyn DiskFile>, sealer: Option<Arc<Sealer>>) -> Self {
        Self { number, file, sealer, length: HEADER_BYTES, entries: 0, flushed: HEADER_BYTES, unflushed: None }
    }
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
                    if self.flush() {
                        self.close_with_checkpoint();
                    }
                    self.claims.close();
                    let _ = self.time.mark(&*self.disk); // the one before will do
                    self.gauges.set_room(Room::Failed(Arc::from("the journal is closed")));
                    let _ = reply.send(()); // whoever asked may have gone
                    return;
                }
                self.take(command, &mut batch);
            }
            let _ = self.commit(&mut batch); // whoever waits has been told
            self.tend_checkpoint();
            self.gauges.set_busy(false);
        }
    }

    fn take(&mut self, command: Command, batch: &mut Batch) {
        match command {
            Command::Append { mut append, reply } => {
                batch.leases.extend(append.lease.take());
                match self.append(*append, batch) {
                    Ok(appended) => batch.replies.push(Told::Append(reply, appended)),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Command::Reserve { claim, reply } => match self.reserve(&claim, batch) {
                Ok(reserved) => batch.replies.push(Told::Reserve(reply, reserved)),
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Start { lane, delivery, number, reply } => match self.start(&lane, delivery, number, batch) {
                Ok(()) => batch.replies.push(Told::Early(reply)),
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Settle { lane, settled, reply } => self.settle(lane.as_ref(), settled, reply, batch),
            Command::Pause { destination, pause, reply } => {
                drop(reply.send(self.pause(destination, pause).map_err(JournalError::from)));
            }
            Command::SetRoutes { routes, reply } => {
                let _ = self.commit(batch); // attempts that begin by the routes before are told so first
                drop(reply.send(self.set_routes(routes).map_err(JournalError::from)));
            }
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
            Command::Lost { stretches, reply } => {
                let _ = self.commit(batch); // whoever waits has been told
                drop(reply.send(self.lost(stretches).map(drop).map_err(JournalError::from)));
            }
            Command::Erase { event, first, deliveries, reply } => {
                let _ = self.commit(batch); // whoever waits has been told
                drop(reply.send(self.erase(event, first, deliveries)));
            }
            Command::Snapshot { reply } => {
                let _ = self.commit(batch); // whoever waits has been told
                if reply.send(self.snapshot()).is_err() {
                    self.gauges.held.release(); // whoever asked has gone
                }
            }
            Command::Trim { keep, reply } => {
                let _ = self.commit(batch); // whoever waits has been told
                self.keep = keep;
                let done = self.trim().map_err(JournalError::from);
                self.refresh_room();
                drop(reply.send(done)); // whoever asked may have gone
            }
            Command::SetKeys { keys, reply } => {
                let _ = self.commit(batch); // whoever waits has been told
                drop(reply.send(self.change_keys(keys).map_err(JournalError::from)));
            }
            Command::Resize { max_size, reply } => {
                let _ = self.commit(batch); // whoever waits has been told
                drop(reply.send(self.resize(max_size)));
            }
            #[cfg(test)]
            Command::Panic { reply: _reply } => panic!("on purpose"),
            Command::Close { .. } => {} // taken by `run`
        }
    }

    fn append(&mut self, append: Append, batch: &mut Batch) -> Result<Appended, AppendError> {
        let Some(claim) = append.claim else { return self.fresh(append, None, batch) };
        let Found { holder, alike } = self.find(&claim)?;
        let Some(held) = holder else { return self.fresh(append, alike, batch) };
        if append.sync == Sync::Durable && self.is_unflushed(held.at) {
            batch.durable = true; // the original was relayed; only now is anybody told that it is kept
        }
        let (original, conflict) = self.duplicate(held, &claim, batch)?;
        Ok(Appended::Duplicate { original, conflict })
    }

    fn reserve(&mut self, claim: &StoredClaim, batch: &mut Batch) -> Result<Reserved, AppendError> {
        let Some(held) = self.find(claim)?.holder else { return Ok(Reserved::Free) };
        let (original, conflict) = self.duplicate(held, claim, batch)?;
        Ok(Reserved::Seen { original, conflict })
    }

    fn find(&mut self, claim: &StoredClaim) -> Result<Found, Broken> {
        let found = self.claims.find(&claim.hash, self.time.now());
        let mut found = found.map_err(|error| self.fail(&format!("claims cannot be read: {error}")))?;
        found.holder = found.holder.filter(|held| !self.state().has_lost(held.at, held.first_entry));
        Ok(found)
    }

    /// Whether what stands at `at` is not durable yet.
    fn is_unflushed(&self, at: Position) -> bool {
        at >= segment::position(self.active.number, self.active.flushed)
    }

    /// Keeps an event whose key nobody holds; `alike` is an earlier one with the same signed bytes.
    fn fresh(&mut self, append: Append, alike: Option<EventId>, batch: &mut Batch) -> Result<Appended, AppendError> {
        let Append { facts, claim, payload, sealer, attempt, sync, .. } = append;
        let payload = self.sealed_for_here(payload, sealer)?;
        let (id, entries, now) = (facts.id, facts.deliveries.len(), self.time.now());
        let same_body = alike.map(|like| self.encode(&Record::SameBody { event: id, like })).transpose()?;
        let notes =
            |home, at| attempt.as_ref().map_or_else(Vec::new, |attempt| attempt_notes(id, home, at, attempt, now));
        let nowhere = Home { segment: 0, entry: 0 };
        let mut size = segment::record_bytes(payload.bytes.len());
        for (record, _) in notes(nowhere, Position::START) {
            size += segment::record_bytes(self.encode(&record)?.1.bytes.len());
        }
        size += same_body.iter().map(|(_, payload)| segment::record_bytes(payload.bytes.len())).sum::<usize>();
        if size as u64 > self.limits.max_bytes / 4 {
            return Err(AppendError::TooLarge { bytes: size });
        }
        if !self.has_places(&facts, batch) {
            tracing::error!(source = %facts.source, "the journal holds deliveries of as many routes as it can tell apart; events of others are refused until it has let go of some and is opened again");
            return Err(AppendError::Full { retry_after: RETRY_AFTER });
        }
        let waits = will_wait(entries, attempt.as_ref());
        if waits && self.shares.would_be_over(&facts.source, &batch.unsettled) {
            return Err(AppendError::OverShare { retry_after: RETRY_AFTER });
        }
        if !self.make_room(size as u64, batch)? {
            if size as u64 <= ORDINARY_BYTES {
                self.gauges.set_room(Room::Full { retry_after: RETRY_AFTER, refused: None });
            }
            return Err(AppendError::Full { retry_after: RETRY_AFTER });
        }
        if waits {
            *batch.unsettled.entry(facts.source.clone()).or_default() += size as u64;
        }
        self.place(size, batch)?; // all of it in one batch: nobody sees an event without what else is known of it
        let (at, first) = self.add_event(&payload, facts, batch)?;
        let (segment, _) = segment::split(at);
        for (record, effect) in notes(Home { segment, entry: first }, at) {
            let (kind, payload) = self.encode(&record)?;
            self.frame(kind, 0, &payload, batch);
            batch.late.push(effect);
        }
        if let Some((kind, payload)) = same_body {
            self.frame(kind, 0, &payload, batch);
        }
        batch.durable |= sync == Sync::Durable;
        if let Some(claim) = claim {
            batch.claim(&mut self.claims, claim.hash, Held::new(&claim, id, at, first, entries));
        }
        let kept = Located { id, at };
        Ok(alike.map_or(Appended::Fresh(kept), |like| Appended::SameBody { kept, like }))
    }

    /// Whether the routes of an event can be told apart from all others.
    fn has_places(&self, facts: &EventFacts, batch: &mut Batch) -> bool {
        let state = self.state();
        for StoredDelivery { destination, .. } in &facts.deliveries {
            if state.routes.find(&facts.source, destination).is_none() {
                batch.routes.insert((facts.source.clone(), destination.clone()));
            }
        }
        state.routes.has_places(batch.routes.len())
    }

    fn pause(&mut self, destination: Name, pause: Pause) -> Result<(), Broken> {
        let mut paused = self.state().paused.clone();
        match pause {
            Pause::Paused => paused.insert(destination),
            Pause::Resumed => paused.remove(&destination),
        };
        let written = pauses::write(&*self.disk, &paused);
        written.map_err(|error| self.write_failed(&error, "note what is paused"))?;
        self.state().paused = paused;
        Ok(())
    }

    fn set_routes(&mut self, routes: Routes) -> Result<(), Broken> {
        let now = self.clock.now();
        let Some(known) = self.state().set_routes(routes, now) else { return Ok(()) };
        known.write(&*self.disk).map_err(|error| self.write_failed(&error, "note which routes there are"))
    }

    /// Adds an event's record; it counts with the batch.
    pub fn add_event(
        &mut self,
        payload: &Payload,
        facts: EventFacts,
        batch: &mut Batch,
    ) -> Result<(Position, u32), Broken> {
        let at = self.place(segment::record_bytes(payload.bytes.len()), batch)?;
        let first = self.active.entries;
        self.frame(KIND_EVENT, first, payload, batch);
        self.active.entries += u32::try_from(facts.deliveries.len()).unwrap_or(0);
        batch.late.push(Effect::Event { at, first, facts });
        Ok((at, first))
    }

    /// Notes a duplicate. Gives the original, and whether the bodies differ.
    fn duplicate(&mut self, held: Held, claim: &StoredClaim, batch: &mut Batch) -> Result<(Located, bool), Broken> {
        let conflict = claim.fingerprint != held.fingerprint;
        self.add(&Record::Duplicate { original: held.event, conflict, at: self.clock.now() }, batch)?;
        let original = Located { id: held.event, at: held.at };
        if held.rearms {
            let (segment, _) = segment::split(held.at);
            let homes = (0..held.entries).map(|index| {
                let entry = held.first_entry.saturating_add(u32::from(index));
                (DeliveryId { event: held.event, index }, Home { segment, entry })
            });
            self.rearm(homes.collect(), held.at, Rearm::Duplicate, batch)?;
        }
        Ok((original, conflict))
    }

    fn rearm(
        &mut self,
        homes: Vec<(DeliveryId, Home)>,
        event_at: Position,
        why: Rearm,
        batch: &mut Batch,
    ) -> Result<Vec<DeliveryId>, Broken> {
        let now = self.clock.now();
        let chosen: Vec<_> = {
            let state = self.state();
            let choose = |(id, home): (DeliveryId, Home)| {
                let (entry, at) = (state.entry(home)?, state.rearmed_at(home, now));
                let may = match (why, entry.standing()) {
                    (Rearm::Replay, Standing::Dead | Standing::Delivered | Standing::Refused) => true,
                    (Rearm::Replay, Standing::Pending) => at.is_some() && state.is_orphaned(id, home),
                    (Rearm::Duplicate, Standing::Dead) => state.has_route(home),
                    (Rearm::Replay | Rearm::Duplicate, _) => false,
                };
                may.then_some((id, home, state.attempts(home), at.unwrap_or(now)))
            };
            homes.into_iter().filter_map(choose).collect()
        };
        let mut rearmed = Vec::new();
        for (id, home, attempts, at) in chosen {
            let record = Record::Rearmed { delivery: id, home, event_at, why, attempts, at };
            let record_at = self.add(&record, batch)?;
            let effect = Rearmed { id, home, event_at, why, attempts, at };
            batch.late.push(Effect::Rearmed { rearmed: effect, record_at });
            batch.durable = true;
            rearmed.push(id);
        }
        Ok(rearmed)
    }

    fn start(&mut self, lane: &Lane, id: DeliveryId, number: u32, batch: &mut Batch) -> Result<(), JournalError> {
        let (home, event_at) = self.home(Some(lane), id)?;
        if self.state().is_orphaned(id, home) {
            return Err(JournalError::Orphaned);
        }
        if self.state().entry(home).is_none_or(|entry| entry.standing() != Standing::Pending) {
            return Err(JournalError::Unknown); // its event has been lost since it was read
        }
        let at = self.clock.now();
        self.add(&Record::Started { delivery: id, home, event_at, number, at }, batch)?;
        batch.early.push(Effect::Started { id, home, event_at, number });
        Ok(())
    }

    fn settle(&mut self, lane: Option<&Lane>, mut settled: Settled, reply: Reply<(), JournalError>, batch: &mut Batch) {
        let (id, at) = (settled.delivery, self.time.now());
        let number = settled.attempt.as_ref().map(|attempt| attempt.number);
        let home = match self.home(lane, id) {
            Ok((home, _)) => home,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let verdict = self.verdict_of(home, settled.verdict);
        settled.verdict = verdict;
        if let Err(broken) = self.add(&Record::Settled { settled, home, at }, batch) {
            return drop(reply.send(Err(broken.into())));
        }
        let effect = Effect::Settled { id, home, number, verdict, at };
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

    /// Where a delivery under way is kept, if `lane` is still whose it was.
    fn home(&self, lane: Option<&Lane>, delivery: DeliveryId) -> Result<(Home, Position), JournalError> {
        let mut state = self.state();
        if lane.is_some_and(|lane| state.lane(lane).is_none()) {
            return Err(JournalError::Fenced);
        }
        state.home(delivery).ok_or(JournalError::Unknown)
    }
}
