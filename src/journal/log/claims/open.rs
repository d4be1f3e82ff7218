//! Opening claims: what a crash left is cleared away, and what is damaged is left out until it has been read again.

use std::io;
use std::sync::Arc;

use super::run::{Pages, Run, Seals};
use super::{Claims, DIR, OPEN_MAX, Open, Placed};
use crate::base::UnixMillis;
use crate::journal::Position;
use crate::journal::disk::Disk;

/// A file that is no run: while it is there, the claims that the log has are read again at the next opening.
const REREAD: &str = "reread.clm";

impl Claims {
    /// Opens the runs of `store`. Returns the claims and the position from which the log has those that are in none.
    ///
    /// A damaged run is left out and reported, and all claims that the log still has are to be read again: only those that
    /// had outlived their events are lost, which can let a duplicate through and never loses an event.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn open(disk: Arc<dyn Disk>, store: [u8; 16]) -> io::Result<(Self, Position)> {
        disk.create_dir(DIR)?;
        let (mut found, mut damaged) = (Vec::new(), Vec::new());
        for (name, bytes) in disk.list(DIR)? {
            match Seals::of(&name) {
                Some(seals) => found.push((seals, bytes, name)),
                None if name.ends_with(".clm.new") => disk.remove(&format!("{DIR}/{name}"))?, // left by a crash
                None if name.ends_with(".clm") => damaged.push(name),
                None => {}
            }
        }
        let next_seal = found.iter().map(|(seals, ..)| seals.last).max().unwrap_or(0) + 1;
        // The largest first, so that what a merge had made is known to be whole before its parts are removed.
        found.sort_unstable_by_key(|(seals, ..)| seals.first.abs_diff(seals.last));
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
        for name in &damaged {
            tracing::error!(
                run = name,
                "claims: a damaged run is left out; those of its claims whose events are still kept are read again"
            );
        }
        runs.sort_by_key(|placed| placed.run.seals);
        let sealed = runs.iter().map(|placed| placed.run.through).max().unwrap_or(Position::START);
        let through = if damaged.is_empty() { sealed } else { Position::START };
        let mut claims = Self {
            disk,
            store,
            seal_at: if cfg!(test) { 1 << 8 } else { OPEN_MAX },
            most: u64::MAX,
            open: Open::new(),
            sealing: None,
            runs,
            merging: None,
            next_seal,
            damaged,
            merge_at: None,
            stop: Arc::default(),
        };
        claims.place_pages();
        Ok((claims, through))
    }

    /// Once everything before `through` has been read again: seals it, and sets damaged runs aside.
    ///
    /// # Errors
    /// As the operating system says; it is tried again at the next opening.
    pub fn mend(&mut self, through: Position, now: UnixMillis) -> io::Result<()> {
        if self.damaged.is_empty() {
            return Ok(());
        }
        self.seal(through, now)?;
        for name in std::mem::take(&mut self.damaged) {
            self.disk.rename(&format!("{DIR}/{name}"), &format!("{DIR}/{name}.damaged"))?;
        }
        self.disk.sync_dir(DIR)
    }

    /// Has the log read again at the next opening, where a run turned out to be damaged inside.
    pub(super) fn note_damage(&mut self) {
        if self.damaged.is_empty() && self.runs.iter().any(|placed| placed.run.is_damaged()) {
            self.damaged.push(REREAD.to_owned());
            let made = self.disk.create(&format!("{DIR}/{REREAD}")).and_then(|_| self.disk.sync_dir(DIR));
            if let Err(error) = made {
                tracing::warn!(%error, "claims: the log will not be read again for those that are damaged");
            }
        }
    }
}
