//! Opening claims: what a crash left is cleared away, and what is damaged is left out until it has been read again.

use std::io;
use std::sync::Arc;

use super::super::crew::Workplace;
use super::super::segment;
use super::listing::{Listed, Listing};
use super::merge::Merged;
use super::run::{Pages, Run, Seals};
use super::write;
use super::{Claims, DIR, Open, Placed};
use crate::base::UnixMillis;
use crate::journal::Position;
use crate::journal::disk::Disk;

/// What the name of a run's [`marker`] ends with.
const REREAD: &str = ".reread";

/// What opening claims came to.
pub struct Opened {
    /// The claims.
    pub claims: Claims,
    /// The log has the claims from here on; [`Position::START`] if all it has are to be read again.
    pub through: Position,
    /// Runs that are not there although they must be, each told of in the log.
    pub missing: u64,
}

fn has_segments(disk: &dyn Disk) -> io::Result<bool> {
    Ok(disk.list(segment::DIR)?.iter().any(|(name, _)| segment::number_of(name).is_some()))
}

impl Claims {
    /// Opens the runs of `store` as of `now`. Returns the claims and the position from which the log has those that are in none.
    ///
    /// A damaged run is left out and reported, and so is one that is missing; all claims that the log still has are then to be
    /// read again: only those that had outlived their events are lost, which can let a duplicate through and never loses an event.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn open(disk: Arc<dyn Disk>, store: [u8; 16], now: UnixMillis) -> io::Result<Opened> {
        disk.create_dir(DIR)?;
        let listed = Listing::read(&*disk, store)?;
        let (mut found, mut damaged, mut marked) = (Vec::new(), Vec::new(), Vec::new());
        for (name, bytes) in disk.list(DIR)? {
            match Seals::of(&name) {
                Some(seals) => found.push((seals, bytes, name)),
                None if name.ends_with(".new") => disk.remove(&format!("{DIR}/{name}"))?, // left by a crash
                None if name.ends_with(REREAD) => marked.push(name),
                None if name.ends_with(".clm") => damaged.push(name),
                None => {}
            }
        }
        let known = found.iter().map(|(seals, ..)| seals.last);
        let next_seal = known.chain(listed.iter().flatten().map(|listed| listed.seals.last)).max().unwrap_or(0) + 1;
        // The largest first, so that what a merge had made is known to be whole before its parts are removed.
        found.sort_unstable_by_key(|(seals, ..)| seals.first.abs_diff(seals.last));
        let present: Vec<Seals> = found.iter().map(|(seals, ..)| *seals).collect();
        let mut runs: Vec<Placed> = Vec::new();
        for (seals, bytes, name) in found.into_iter().rev() {
            if runs.iter().any(|merged| merged.run.seals.contain(seals)) {
                disk.remove(&seals.path())?; // the crash came between a merge and this
                continue;
            }
            match Run::open(&*disk, seals, bytes, store)? {
                Some(run) => runs.push(Placed { run: Arc::new(run), pages: Pages::new() }),
                None => damaged.push(name),
            }
        }
        let is_there =
            |seals: Seals| present.contains(&seals) || runs.iter().any(|merged| merged.run.seals.contain(seals));
        let mut missing = 0;
        for gone in listed.iter().flatten().filter(|listed| listed.last_expiry > now && !is_there(listed.seals)) {
            missing += 1;
            tracing::error!(
                run = gone.seals.path(),
                "claims: a run is missing; those of its claims whose events are still kept are read again"
            );
        }
        let is_new =
            listed.is_none() && runs.is_empty() && damaged.is_empty() && marked.is_empty() && !has_segments(&*disk)?;
        if listed.is_none() && !is_new {
            missing += 1;
            tracing::error!(
                "claims: the list of runs is missing or damaged; the claims that the log has are read again"
            );
        }
        for name in &damaged {
            tracing::error!(
                run = name,
                "claims: a damaged run is left out; those of its claims whose events are still kept are read again"
            );
        }
        damaged.append(&mut marked);
        runs.sort_by_key(|placed| placed.run.seals);
        let sealed = runs.iter().map(|placed| placed.run.through).max().unwrap_or(Position::START);
        let rereading = missing > 0 || !damaged.is_empty();
        let through = if rereading { Position::START } else { sealed };
        let listing = Arc::new(Listing::new(Arc::clone(&disk), store, listed));
        if is_new {
            listing.set(Vec::new(), now)?;
        }
        let workplace = Workplace::default();
        let mut claims = Self {
            disk,
            store,
            crew: workplace.crew,
            seal_at: workplace.claims_in_memory,
            most: u64::MAX,
            open: Open::new(),
            sealing: None,
            runs,
            listing,
            merging: None,
            next_seal,
            damaged,
            rereading,
            merge_at: None,
            stop: Arc::default(),
        };
        claims.place_pages();
        // A run may have been left by a crash before its name was durable. It counts from now on: segments go because of it.
        claims.disk.sync_dir(DIR)?;
        Ok(Opened { claims, through, missing })
    }

    /// Once everything before `through` has been read again: seals it, removes damaged runs, and writes anew those with damage
    /// inside, without what cannot be read. Nothing if all was well.
    ///
    /// # Errors
    /// As the operating system says; it is tried again at the next opening.
    pub fn mend(&mut self, through: Position, now: UnixMillis) -> io::Result<()> {
        if !self.rereading {
            return Ok(());
        }
        self.seal(through, now)?;
        let mut settled = std::mem::take(&mut self.damaged);
        for placed in std::mem::take(&mut self.runs) {
            let seals = placed.run.seals;
            if !settled.contains(&marker(seals)) {
                self.runs.push(placed);
                continue;
            }
            let whole = Merged::new(&[Arc::clone(&placed.run)], now)
                .and_then(|rows| write::write(&*self.disk, (self.store, seals, placed.run.through), rows, &self.stop));
            match whole {
                Ok(Some(run)) => self.runs.push(Placed { run: Arc::new(run), pages: Pages::new() }),
                Ok(None) => self.disk.remove(&seals.path())?,
                Err(error) => {
                    tracing::warn!(%error, "claims: a damaged run could not be written anew; tried at the next opening");
                    settled.retain(|name| *name != marker(seals));
                    self.damaged.push(marker(seals));
                    self.runs.push(placed);
                }
            }
        }
        self.place_pages();
        self.listing.set(self.runs.iter().map(|placed| Listed::of(&placed.run)).collect(), now)?;
        for name in settled {
            self.disk.remove(&format!("{DIR}/{name}"))?;
        }
        self.rereading = false;
        self.disk.sync_dir(DIR)
    }

    /// Has the log read again at the next opening, where a run turned out to be damaged inside.
    pub(super) fn note_damage(&mut self) {
        let damaged = self.runs.iter().filter(|placed| placed.run.is_damaged()).map(|placed| marker(placed.run.seals));
        for name in damaged.filter(|name| !self.damaged.contains(name)).collect::<Vec<_>>() {
            let made = self.disk.create(&format!("{DIR}/{name}")).and_then(|_| self.disk.sync_dir(DIR));
            if let Err(error) = made {
                tracing::warn!(%error, "claims: the log will not be read again for those that are damaged");
            }
            self.damaged.push(name);
        }
    }
}

/// Whether a file of this name is a [`marker`].
pub fn is_marker(name: &str) -> bool {
    name.strip_suffix(REREAD).and_then(Seals::of).is_some_and(|seals| marker(seals) == name)
}

/// A file that says of a run that it is damaged inside: while it is there, the claims that the log has are read again at the next
/// opening.
fn marker(seals: Seals) -> String {
    format!("{}{REREAD}", seals.name())
}
