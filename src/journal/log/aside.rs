//! `corrupt/`: what stood where the log is damaged, set aside for somebody to look at before its segment is let go of.
//!
//! A file a stretch, `<segment>-<from>-<to>.bin`, each 8 hex digits; a page that cannot be read is zeros. Forebay never reads them
//! and never removes them; there are only so many.

use std::collections::BTreeMap;
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

/// The directory, as it is known to whoever sets something aside.
pub struct Aside {
    files: io::Result<BTreeMap<String, u64>>,
    /// The most that may be in it, in bytes.
    most: u64,
}

impl Aside {
    /// Looks at what is there. At most `most` bytes are to be.
    pub fn look(disk: &dyn Disk, most: u64) -> Self {
        Self { files: disk.list(DIR).map(|files| files.into_iter().collect()), most }
    }

    /// Copies `bytes` of segment `number` to the directory, unless all that is set aside would be too many bytes, or too
    /// many files. Says where to; what goes wrong costs only the copy.
    pub fn keep(&mut self, disk: &dyn Disk, number: u32, bytes: &Range<u32>) -> String {
        let file = format!("{number:08x}-{:08x}-{:08x}.bin", bytes.start, bytes.end);
        let files = match &mut self.files {
            Ok(files) => files,
            Err(error) => return format!("not set aside: {error}"),
        };
        let name = format!("{DIR}/{file}");
        if files.contains_key(&file) {
            return name;
        }
        let taken: u64 = files.values().sum();
        if files.len() >= FILES_MAX || taken + u64::from(bytes.end.saturating_sub(bytes.start)) > self.most {
            return format!("not set aside: {DIR} is full");
        }
        match copy(disk, number, bytes, &name) {
            Ok(count) => {
                files.insert(file, count);
                name
            }
            Err(error) => format!("not set aside: {error}"),
        }
    }
}

/// How many bytes there were to copy.
fn copy(disk: &dyn Disk, number: u32, bytes: &Range<u32>, name: &str) -> io::Result<u64> {
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
    Ok(copy.len() as u64)
}
