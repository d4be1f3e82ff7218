//! Claims: which dedupe keys are held, by which event, until when.
//!
//! Recent ones are in memory, at most about [`OPEN_MAX`]. Then they are sealed: written to a run on disk (`run`), sorted by hash.
//! Runs are merged into larger ones (`merge`), so that there are few to look in; one whose claims have all expired goes. Both
//! happen on threads of their own; whoever looks a key up or claims one waits for neither. Events carry their claims in the log as
//! well, so what was not yet sealed is read back from there; a claim outlives its event because trimming seals first.
//!
//! The first half of a hash says what is alike: see [`prefix`].

mod filter;
mod listing;
#[cfg(test)]
mod measure;
mod merge;
mod open;
mod run;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use self::listing::{Listed, Listing};
use self::merge::Merged;
use self::run::{PAGE, Pages, Run, Seals};
use super::crew::{self, Crew, Workplace};
use super::stored::StoredClaim;
use crate::base::UnixMillis;
use crate::event::EventId;
use crate::journal::Position;
use crate::journal::archive::{Content, Item};
use crate::journal::disk::Disk;

pub use self::open::Opened;
pub use self::run::{FOOTER as RUN_FOOTER, Found, MAGIC as RUN_MAGIC};

/// Claims in memory before they are sealed: about 12 MiB, and as much again while those before them are being sealed.
pub const OPEN_MAX: usize = 1 << 17;
/// The directory of runs.
pub const DIR: &str = "claims";
/// Pages of runs that are kept in memory, together: what there is to know of 20 million claims. Those of the smaller runs are,
/// since each look-up asks every run for one page.
const PAGES_MAX: usize = (32 << 20) / PAGE;
/// After a merge or a seal that failed.
const RETRY: Duration = Duration::from_secs(30);

/// Whether a backup has a file of this name here.
pub fn is_file(name: &str) -> bool {
    name == listing::FILE || open::is_marker(name) || Seals::of(name).is_some_and(|seals| seals.name() == name)
}

/// A claim and the event that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The event.
    pub event: EventId,
    /// Where its record is, or was: an event that moves takes its claim along.
    pub at: Position,
    /// Until when.
    pub until: UnixMillis,
    /// A digest of the event's body.
    pub fingerprint: u64,
    /// The event's first entry in its segment.
    pub first_entry: u32,
    /// How many entries it has there.
    pub entries: u8,
    /// Whether a duplicate rearms dead deliveries.
    pub rearms: bool,
}

impl Held {
    /// The claim of the event `id` whose record is at `at`.
    pub fn new(claim: &StoredClaim, id: EventId, at: Position, first_entry: u32, entries: usize) -> Self {
        Self {
            event: id,
            at,
            until: claim.until,
            fingerprint: claim.fingerprint,
            first_entry,
            entries: u8::try_from(entries).unwrap_or(u8::MAX),
            rearms: claim.rearms,
        }
    }
}

/// The keyed hash of a dedupe key.
pub type Hash = [u8; 16];

/// What claims of the same signed bytes have in common, whatever their ids: the first half of the hash.
fn prefix(hash: &Hash) -> u64 {
    hash.first_chunk().copied().map_or(0, u64::from_be_bytes)
}

type Open = BTreeMap<Hash, Held>;

/// All claims of a store.
pub struct Claims {
    disk: Arc<dyn Disk>,
    store: [u8; 16],
    crew: Crew,
    /// So many open claims are sealed.
    seal_at: usize,
    /// A merge makes a run of at most so many claims.
    most: u64,
    open: Open,
    sealing: Option<Sealing>,
    /// Oldest first.
    runs: Vec<Placed>,
    listing: Arc<Listing>,
    merging: Option<Merging>,
    next_seal: u32,
    /// Files that could not be read, and those that say so of a run; they go once the log has been read again.
    damaged: Vec<String>,
    /// Whether the claims that the log has are being read again.
    rereading: bool,
    /// When to look for something to merge.
    merge_at: Option<Instant>,
    stop: Arc<AtomicBool>,
}

/// Claims on their way to the disk. They are looked up here until they have got there.
struct Sealing {
    claims: Arc<Open>,
    through: Position,
    /// None once it has failed.
    job: Option<Job>,
    /// When it is tried again then.
    again_at: Instant,
}

struct Merging {
    seals: Seals,
    bytes: u64,
    job: Job,
}

/// A run that is being written; none if all its claims had expired.
type Job = crew::Job<io::Result<Option<Run>>>;

/// A run, and what is kept of it in memory.
struct Placed {
    run: Arc<Run>,
    pages: Pages,
}

impl Claims {
    /// Has claims sealed and merged as `workplace` says.
    pub fn work_as(&mut self, workplace: &Workplace) {
        self.crew = workplace.crew.clone();
        self.seal_at = workplace.claims_in_memory;
    }

    /// A merge makes no run of more than `bytes`: it takes so much space until what it merged is gone.
    pub fn merge_at_most(&mut self, bytes: u64) {
        self.most = bytes / 64;
    }

    /// Who holds `hash` at `now`, and if nobody does, who holds one alike.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn find(&self, hash: &Hash, now: UnixMillis) -> io::Result<Found> {
        let mut found = Found::default();
        for claims in [Some(&self.open), self.sealing.as_ref().map(|sealing| &*sealing.claims)].into_iter().flatten() {
            let held = claims.get(hash).filter(|held| held.until > now);
            if held.is_some() {
                return Ok(Found { holder: held.copied(), alike: None });
            }
            let (mut first, mut last) = ([0; 16], [0xFF; 16]);
            for bound in [&mut first, &mut last] {
                bound.iter_mut().zip(hash).take(8).for_each(|(to, from)| *to = *from);
            }
            let alike = claims.range(first..=last).find(|(other, held)| *other != hash && held.until > now);
            found.alike = found.alike.or(alike.map(|(_, held)| held.event));
        }
        for Placed { run, pages } in self.runs.iter().rev().filter(|placed| placed.run.last_expiry > now) {
            let here = run.find(hash, now, pages)?;
            if here.holder.is_some() {
                return Ok(here);
            }
            found.alike = found.alike.or(here.alike);
        }
        Ok(found)
    }

    /// Gives `hash` to `held`, whoever held it.
    pub fn give(&mut self, hash: Hash, held: Held) {
        self.open.insert(hash, held);
    }

    /// Takes back what [`Claims::give`] gave in a batch that was not written.
    pub fn take_back(&mut self, hash: &Hash) {
        self.open.remove(hash);
    }

    /// Whether it is time to [`Claims::begin_seal`].
    pub fn is_full(&self) -> bool {
        match &self.sealing {
            None => self.open.len() >= self.seal_at,
            Some(sealing) => sealing.job.is_none() && sealing.again_at <= Instant::now(),
        }
    }

    /// Whether the claims before some position are on their way to the disk.
    pub fn is_sealing(&self) -> bool {
        self.sealing.as_ref().is_some_and(|sealing| sealing.job.is_some())
    }

    /// Whether there is none that is not in a run.
    pub fn are_sealed(&self) -> bool {
        self.open.is_empty() && self.sealing.is_none()
    }

    /// How far the runs that there are say that they go.
    pub fn runs_through(&self) -> Position {
        self.runs.iter().map(|placed| placed.run.through).max().unwrap_or(Position::START)
    }

    /// Whether sealing is so far behind that it has to be waited for.
    pub fn is_overfull(&self) -> bool {
        self.open.len() >= 2 * self.seal_at
    }

    /// Writes the open claims to a run, durably. All claims of records before `through` are then on disk.
    ///
    /// # Errors
    /// As the operating system says; the claims then stay in memory.
    pub fn seal(&mut self, through: Position, now: UnixMillis) -> io::Result<()> {
        if self.sealing.is_some() {
            self.seal_again(now)?;
            self.end_seal()?;
        }
        if !self.open.is_empty() {
            self.freeze(through);
            self.seal_again(now)?;
            self.end_seal()?;
        }
        Ok(())
    }

    /// Has the open claims sealed on a thread of their own, unless that is under way: see [`Claims::tend`].
    pub fn begin_seal(&mut self, through: Position, now: UnixMillis) {
        if self.sealing.is_none() {
            self.freeze(through);
        }
        if let Err(error) = self.seal_again(now) {
            self.seal_failed(&error);
        }
    }

    fn freeze(&mut self, through: Position) {
        let claims = Arc::new(std::mem::take(&mut self.open));
        self.sealing = Some(Sealing { claims, through, job: None, again_at: Instant::now() });
    }

    fn seal_failed(&mut self, error: &io::Error) {
        tracing::warn!(%error, "claims could not be sealed; they stay in memory, and it is tried again");
        if let Some(sealing) = &mut self.sealing {
            sealing.again_at = Instant::now() + RETRY;
        }
    }

    fn seal_again(&mut self, now: UnixMillis) -> io::Result<()> {
        let Some(sealing) = self.sealing.as_mut().filter(|sealing| sealing.job.is_none()) else { return Ok(()) };
        let number = self.next_seal;
        let (disk, store, claims) = (Arc::clone(&self.disk), self.store, Arc::clone(&sealing.claims));
        let (through, listing) = (sealing.through, Arc::clone(&self.listing));
        sealing.job = Some(self.crew.begin("journal-seal", move || {
            let rows = claims.iter().filter(|(_, held)| held.until > now).map(|(hash, held)| Ok((*hash, *held)));
            let seals = Seals { first: number, last: number };
            let run = write::write(&*disk, (store, seals, through), rows, &AtomicBool::new(false))?;
            listing.replace(seals, run.as_ref(), now)?;
            Ok(run)
        })?);
        self.next_seal += 1;
        Ok(())
    }

    /// Waits for the seal under way. Says up to where claims are sealed now.
    fn end_seal(&mut self) -> io::Result<Option<Position>> {
        let Some(job) = self.sealing.as_mut().and_then(|sealing| sealing.job.take()) else { return Ok(None) };
        let run = ended(job)?;
        let Some(Sealing { claims, through, .. }) = self.sealing.take() else { return Ok(None) };
        self.crew.clear_away(claims);
        self.runs.extend(run.map(|run| Placed { run: Arc::new(run), pages: Pages::new() }));
        self.place_pages();
        Ok(Some(through))
    }

    /// Takes in what was sealed and merged meanwhile, and has merged what is worth it. Says up to where claims are sealed, if
    /// that has changed. Call it now and then; it waits for nothing. What failed is logged, stays as it was, and is tried again.
    pub fn tend(&mut self, now: UnixMillis) -> Option<Position> {
        let merged = self.merging.as_ref().is_some_and(|merging| merging.job.is_finished());
        self.note_damage();
        if merged {
            self.end_merge();
        }
        let through = match &self.sealing {
            Some(Sealing { job: Some(job), .. }) if job.is_finished() => self.end_seal().unwrap_or_else(|error| {
                self.seal_failed(&error);
                None
            }),
            _ => None,
        };
        self.drop_expired(now);
        if self.merging.is_none() && self.merge_at.is_some_and(|at| at <= Instant::now()) {
            self.merge_at = None;
            self.begin_merge(now);
        }
        through
    }

    fn begin_merge(&mut self, now: UnixMillis) {
        let rows: Vec<u64> = self.runs.iter().map(|placed| placed.run.rows).collect();
        let Some(range) = merge::choose(&rows, self.most) else { return };
        let inputs: Vec<_> = self.runs.get(range).into_iter().flatten().map(|placed| Arc::clone(&placed.run)).collect();
        let (Some(first), Some(last)) = (inputs.first(), inputs.last()) else { return };
        let seals = Seals { first: first.seals.first, last: last.seals.last };
        let through = inputs.iter().map(|run| run.through).max().unwrap_or(Position::START);
        let bytes = inputs.iter().map(|run| run.bytes).sum();
        let (disk, store, stop) = (Arc::clone(&self.disk), self.store, Arc::clone(&self.stop));
        let listing = Arc::clone(&self.listing);
        let began = Instant::now();
        let job = self.crew.begin("journal-merge", move || {
            let rows = Merged::new(&inputs, now)?;
            let run = write::write(&*disk, (store, seals, through), rows, &stop)?;
            listing.replace(seals, run.as_ref(), now)?;
            for input in &inputs {
                let _ = disk.remove(&input.seals.path()); // what stays is removed at the next opening, as part of the new one
            }
            let claims = run.as_ref().map_or(0, |run| run.rows);
            tracing::debug!(
                runs = inputs.len(),
                claims,
                took_ms = began.elapsed().as_millis(),
                "claims: runs merged into one"
            );
            Ok(run)
        });
        match job {
            Ok(job) => self.merging = Some(Merging { seals, bytes, job }),
            Err(error) => self.merge_failed(&error),
        }
    }

    /// Waits for the merge under way.
    fn end_merge(&mut self) {
        let Some(Merging { seals, job, .. }) = self.merging.take() else { return };
        match ended(job) {
            Ok(run) => {
                let merged = self.runs.extract_if(.., |placed| seals.contain(placed.run.seals));
                self.crew.clear_away(merged.collect::<Vec<_>>());
                self.runs.extend(run.map(|run| Placed { run: Arc::new(run), pages: Pages::new() }));
                self.runs.sort_by_key(|placed| placed.run.seals);
                self.place_pages();
            }
            Err(error) => self.merge_failed(&error),
        }
    }

    fn merge_failed(&mut self, error: &io::Error) {
        tracing::warn!(%error, "claims: runs could not be merged; nothing is lost, and it is tried again");
        self.merge_at = Some(Instant::now() + RETRY);
    }

    /// Removes the runs whose claims have all expired, but not the newest: it says how far sealing came.
    fn drop_expired(&mut self, now: UnixMillis) {
        let newest = self.runs.last().map(|placed| placed.run.seals);
        let merging = self.merging.as_ref().map(|merging| merging.seals);
        let expired = |placed: &mut Placed| {
            let run = &placed.run;
            run.last_expiry <= now
                && Some(run.seals) != newest
                && !merging.is_some_and(|seals| seals.contain(run.seals))
        };
        for placed in self.runs.extract_if(.., expired) {
            let _ = self.disk.remove(&placed.run.seals.path()); // what stays is dropped again after the next opening
            self.crew.clear_away(placed);
        }
    }

    /// The runs have changed: gives the smaller ones a place in memory for their pages, as far as there is one. Nothing is
    /// read for it.
    fn place_pages(&mut self) {
        self.merge_at.get_or_insert_with(Instant::now);
        let mut smallest: Vec<&mut Placed> = self.runs.iter_mut().collect();
        smallest.sort_by_key(|placed| placed.run.groups());
        let mut left = PAGES_MAX;
        for Placed { run, pages } in smallest {
            let kept = run.groups().min(left);
            if pages.len() != kept {
                pages.resize_with(kept, Default::default);
                pages.shrink_to_fit();
            }
            left -= kept;
        }
    }

    /// The files that a backup has to have: the runs there are now, which stay readable, and a list of just these.
    pub fn files(&self) -> Vec<Item> {
        let listed: Vec<Listed> = self.runs.iter().map(|placed| Listed::of(&placed.run)).collect();
        let here = |name: &str, bytes: Vec<u8>| Item {
            name: format!("{DIR}/{name}"),
            bytes: bytes.len() as u64,
            content: Content::Bytes(bytes.into()),
        };
        let run = |placed: &Placed| Item {
            name: placed.run.seals.path(),
            bytes: placed.run.bytes,
            content: Content::File(placed.run.file()),
        };
        let markers = self.damaged.iter().filter(|name| open::is_marker(name)).map(|name| here(name, Vec::new()));
        let list = here(listing::FILE, listing::encode(&listed, self.store));
        std::iter::once(list).chain(self.runs.iter().map(run)).chain(markers).collect()
    }

    /// The size of the runs, the one that a merge makes included.
    pub fn bytes(&self) -> u64 {
        let merging = self.merging.as_ref().map_or(0, |merging| merging.bytes);
        self.runs.iter().map(|placed| placed.run.bytes).sum::<u64>() + merging
    }
}

impl Claims {
    /// Ends what is under way, before somebody else opens the directory.
    pub fn close(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let sealing = self.sealing.as_mut().and_then(|sealing| sealing.job.take());
        let merging = self.merging.take().map(|merging| merging.job);
        for job in sealing.into_iter().chain(merging) {
            let _ = job.join(); // what was not sealed is in the log, and what was not merged is as it was
        }
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        self.close();
    }
}

fn ended(job: Job) -> io::Result<Option<Run>> {
    job.join().unwrap_or_else(|| Err(io::Error::other("the thread that wrote claims panicked")))
}
