//! `corrupt/`: what stood where the log is damaged, set aside for somebody to look at before its segment is let go of.
//!
//! A file a stretch, `<segment>-<from>-<to>.bin`, each 8 hex digits; a page that cannot be read is zeros. Forebay never reads them
//! and never removes them; there are only so many.

use std::io;
use std::ops::Range;

use super::segment;
use crate::journal::disk::{self, Disk};

/// The directory.
pub const DIR: &str = "corrupt";
/// One part in so many of the journal's size may be set aside.
pub const PART: u64 = 64;
/// Files in it, at most.
const FILES_MAX: usize = 256;

/// Copies `bytes` of segment `number` to the directory, unless all that is set aside would be more than `most` bytes, or too
/// many files. Says where to; what goes wrong costs only the copy.
pub fn set_aside(disk: &dyn Disk, number: u32, bytes: &Range<u32>, most: u64) -> String {
    let name = format!("{DIR}/{number:08x}-{:08x}-{:08x}.bin", bytes.start, bytes.end);
    match copy(disk, number, bytes, most, &name) {
        Ok(true) => name,
        Ok(false) => format!("not set aside: {DIR} is full"),
        Err(error) => format!("not set aside: {error}"),
    }
}

fn copy(disk: &dyn Disk, number: u32, bytes: &Range<u32>, most: u64, name: &str) -> io::Result<bool> {
    let there = disk.list(DIR)?;
    if there.iter().any(|(file, _)| name.strip_prefix(DIR).is_some_and(|path| path.ends_with(file.as_str()))) {
        return Ok(true);
    }
    let taken: u64 = there.iter().map(|(_, bytes)| bytes).sum();
    if there.len() >= FILES_MAX || taken + u64::from(bytes.end.saturating_sub(bytes.start)) > most {
        return Ok(false);
    }
    let mut copy = vec![0; bytes.len()];
    let got = disk::read_around(&*disk.open(&segment::path(number))?, &mut copy, u64::from(bytes.start))?;
    copy.truncate(got);
    disk.create_dir(DIR)?;
    let file = disk.create(name)?;
    if let Err(error) = file.append(&copy).and_then(|()| file.sync()) {
        disk.remove(name)?;
        return Err(error);
    }
    disk.sync_dir(DIR)?;
    Ok(true)
}
