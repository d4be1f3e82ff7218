//! Space on the disk that is held back: a file `reserve` beside the log, which is given up once the disk is full.
//!
//! `max_size` keeps room for outcomes in the journal, but somebody else may fill the disk. Then events are refused, and what was taken
//! must still be delivered: that an attempt begins and how it ends is written, dead letters are, and so is that a segment of history goes,
//! which gives back more than this. It is part of what `max_size` holds back for outcomes, so it is not counted again.

use std::io;

use crate::journal::disk::{self, Disk};

const FILE: &str = "reserve";
/// At most so much; an attempt takes a few hundred bytes.
const BYTES_MAX: u64 = 4 << 20;
const PIECE: usize = 64 << 10;
/// What is written over at a time.
const PAGE: usize = 4096;

/// What is held back.
#[derive(Debug)]
pub struct Reserve {
    bytes: u64,
    held: bool,
}

impl Reserve {
    /// That of a journal of `max_bytes`: held already if there is such a file.
    pub fn of(disk: &dyn Disk, max_bytes: u64) -> Self {
        let bytes = (max_bytes / 64).min(BYTES_MAX);
        let there = disk.list(".").ok().and_then(|files| files.into_iter().find(|(name, _)| name == FILE));
        Self { bytes, held: there.is_some_and(|(_, length)| length >= bytes) }
    }

    /// Holds it, if it is not held and the disk has room for much more than that.
    ///
    /// # Errors
    /// As the operating system says; nothing is held then.
    pub fn hold(&mut self, disk: &dyn Disk, spare: u64) -> io::Result<()> {
        if self.held || disk.space()?.free < spare + 2 * self.bytes {
            return Ok(());
        }
        if disk.list(".")?.iter().any(|(name, _)| name == FILE) {
            disk.remove(FILE)?; // a part of one
        }
        let file = disk.create(FILE)?;
        let filled =
            (0..self.bytes / PIECE as u64).try_for_each(|_| file.append(&[0; PIECE])).and_then(|()| file.sync());
        if filled.is_err() {
            disk.remove(FILE)?;
        }
        self.held = filled.is_ok();
        self.bytes = self.bytes / PIECE as u64 * PIECE as u64;
        filled
    }

    /// Does `what`; where that fails for want of space, once more with the reserve given up.
    ///
    /// # Errors
    /// Those of `what`.
    pub fn or_give_up<T>(&mut self, disk: &dyn Disk, what: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match what() {
            Err(error) if self.give_up(disk, &error) => what(),
            done => done,
        }
    }

    /// Gives it up for whoever met `error`. False if that was not for want of space, or nothing is held.
    pub fn give_up(&mut self, disk: &dyn Disk, error: &io::Error) -> bool {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if !full || !self.held || disk.remove(FILE).is_err() {
            return false;
        }
        self.held = false;
        tracing::warn!(
            bytes = self.bytes,
            "the disk is full: the journal's reserve is given up, so that delivery goes on"
        );
        true
    }
}

/// Writes file `dir/name` anew, durably, if all of it can be read. What a process that died had written may be in the page cache
/// alone, and be taken there for written after a flush that failed: flushing it again would prove nothing.
///
/// # Errors
/// As the operating system says; the file is then as it was.
pub fn rewrite(disk: &dyn Disk, dir: &str, name: &str, bytes: u64) -> io::Result<()> {
    let (old, fresh) = (disk.open(&format!("{dir}/{name}"))?, format!("{dir}/{name}.new"));
    if disk.list(dir)?.iter().any(|(found, _)| *found == format!("{name}.new")) {
        disk.remove(&fresh)?; // left by a crash
    }
    let copied = (|| {
        let file = disk.create(&fresh)?;
        let (mut piece, mut at) = (vec![0; 1 << 20], 0);
        while at < bytes {
            let count = old.read_at(&mut piece, at)?; // a page that cannot be read now stays for another try
            if count == 0 {
                break;
            }
            file.append(piece.get(..count).unwrap_or_default())?;
            at += count as u64;
        }
        file.sync()?;
        disk.rename(&fresh, &format!("{dir}/{name}"))?;
        disk.sync_dir(dir)
    })();
    if copied.is_err() {
        let _ = disk.remove(&fresh); // it may not be there
    }
    copied
}

/// Writes file `name` over where it stands, durably, with what it shows: as [`rewrite`], and needs no room. A crash in the middle of it
/// changes nothing. What cannot be read stays as it is.
///
/// # Errors
/// As the operating system says.
pub fn write_over(disk: &dyn Disk, name: &str) -> io::Result<()> {
    let file = disk.open_to_change(name)?;
    let (mut page, mut at) = (vec![0; PAGE], 0);
    loop {
        match file.read_at(&mut page, at) {
            Ok(0) => return file.sync(),
            Ok(count) => file.overwrite(page.get(..count).unwrap_or_default(), at)?,
            Err(error) if disk::is_bad_sector(&error) => {}
            Err(error) => return Err(error),
        }
        at += PAGE as u64;
    }
}
