//! What is on the disk: what the page cache shows, what of it is on the medium, and what a crash leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;

use crate::world::{Reach, World};

const PAGE: usize = 4096;
const SECTOR: usize = 512;
pub const TOTAL: u64 = 1 << 30;

/// Whether what a failed flush did not write is still shown to those who open the file again, as ext4 does. Other file systems
/// read it back from the medium. A journal that believes the cache acknowledges what the next power cut takes.
pub const CACHE_LIES: bool = true;

/// How likely a call is to fail, in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub sync: u32,
    pub write: u32,
    pub read: u32,
    pub names: u32,
    pub slow: u32,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is gone, the machine goes on: what was written stays.
    Kill,
    /// The machine is gone: of what was not flushed, anything or nothing stays.
    PowerCut,
    /// The same, and nothing of it stays.
    PowerCutAtWorst,
}

pub struct Medium {
    pub world: World,
    pub random: fastrand::Rng,
    pub life: u32,
    pub dead: bool,
    pub died: Arc<Notify>,
    pub calls: u64,
    /// The call in which the life ends.
    pub end_in: Option<u64>,
    pub faults: Faults,
    /// So many bytes fit.
    pub quota: u64,
    pub files: BTreeMap<u64, File>,
    pub next_file: u64,
    pub shown: Names,
    pub kept: Names,
    pub unflushed: Vec<NameChange>,
}

#[derive(Clone, Default)]
pub struct Names {
    pub dirs: BTreeSet<String>,
    pub files: BTreeMap<String, u64>,
}

#[derive(Clone)]
pub enum NameChange {
    Dir(String),
    Create(String, u64),
    Rename(String, String, u64),
    Remove(String),
}

#[derive(Default)]
pub struct File {
    pub bytes: Vec<u8>,
    /// What lies before this was flushed.
    pub flushed: usize,
    /// Parts of that whose flush failed: the cache shows them, the medium may not have them.
    pub holes: Vec<Range<usize>>,
    /// Parts that were written again since, with what stood there.
    pub again: Vec<Range<usize>>,
}

pub fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

pub const EIO: i32 = 5;
pub const ENOSPC: i32 = 28;

pub fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or(".", |(dir, _)| dir)
}

impl Names {
    pub fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::Dir(name) => drop(self.dirs.insert(name.clone())),
            NameChange::Create(name, file) => drop(self.files.insert(name.clone(), *file)),
            NameChange::Rename(from, to, file) => {
                self.files.remove(from);
                self.files.insert(to.clone(), *file);
            }
            NameChange::Remove(name) => drop(self.files.remove(name)),
        }
    }
}

impl NameChange {
    pub fn dir(&self) -> &str {
        match self {
            Self::Dir(name) | Self::Create(name, _) | Self::Remove(name) => parent(name),
            Self::Rename(_, to, _) => parent(to),
        }
    }
}

impl File {
    /// What was written again is on the medium now.
    pub fn fill_holes(&mut self) {
        for again in std::mem::take(&mut self.again) {
            let rest =
                |hole: Range<usize>| [hole.start..hole.end.min(again.start), hole.start.max(again.end)..hole.end];
            self.holes =
                std::mem::take(&mut self.holes).into_iter().flat_map(rest).filter(|hole| !hole.is_empty()).collect();
        }
    }

    pub fn has_flushed(&self, what: &[u8]) -> bool {
        let mut end = self.flushed;
        // The newest first, and by its first byte: this is asked for each 2xx.
        while let Some(at) = self.bytes[..end].iter().rposition(|byte| *byte == what[0]) {
            let is_here = self.bytes[at..self.flushed].starts_with(what);
            if is_here && !self.holes.iter().any(|hole| hole.start < at + what.len() && at < hole.end) {
                return true;
            }
            end = at;
        }
        false
    }
}

impl Medium {
    pub fn used(&self) -> u64 {
        self.shown.files.values().filter_map(|file| self.files.get(file)).map(|file| file.bytes.len() as u64).sum()
    }

    /// Every call begins here. True if the life ends in it.
    pub fn call(&mut self, life: u32) -> io::Result<bool> {
        if self.dead || life != self.life {
            return Err(error(EIO));
        }
        self.calls += 1;
        if self.fails(|faults| faults.slow) {
            self.world.reach(Reach::SlowDisk);
            let time = Duration::from_millis(self.random.u64(10..9_000));
            self.world.disk_hangs(time);
            let _ = tokio::time::advance(time).now_or_never(); // the clock has moved once it is polled
        }
        Ok(self.end_in.is_some_and(|end| self.calls >= end))
    }

    pub fn die(&mut self) -> io::Error {
        self.dead = true;
        self.died.notify_one();
        error(EIO)
    }

    pub fn fails(&mut self, how: fn(&Faults) -> u32) -> bool {
        let thousandths = how(&self.faults);
        thousandths > 0 && self.random.u32(..1000) < thousandths
    }

    /// A call that changes a name.
    pub fn change(&mut self, life: u32, change: NameChange) -> io::Result<()> {
        let ends = self.call(life)?;
        if ends {
            if self.random.bool() {
                self.shown.apply(&change);
                self.unflushed.push(change);
            }
            self.world.reach(Reach::CrashInNames);
            return Err(self.die());
        }
        if self.fails(|faults| faults.names) {
            self.world.disk_failed(Reach::FailedNames);
            return Err(error(EIO));
        }
        if matches!(change, NameChange::Create(..)) && self.used() >= self.quota {
            self.world.disk_failed(Reach::NoSpace);
            return Err(error(ENOSPC));
        }
        if let NameChange::Rename(_, to, _) = &change
            && let Some((first, last)) =
                to.strip_prefix("claims/").and_then(|name| name.strip_suffix(".clm")?.split_once('-'))
        {
            self.world.reach(if first == last { Reach::Sealed } else { Reach::Merged });
        }
        self.shown.apply(&change);
        self.unflushed.push(change);
        Ok(())
    }

    /// Flips a bit of a file, unless it is empty.
    pub fn flip(&mut self, file: u64) {
        let Some(file) = self.files.get_mut(&file).filter(|file| !file.bytes.is_empty()) else { return };
        let (byte, bit) = (self.random.usize(..file.bytes.len()), self.random.u8(..8));
        file.bytes[byte] ^= 1 << bit;
    }

    pub fn tell_the_truth(&mut self) {
        for file in self.files.values_mut() {
            for hole in std::mem::take(&mut file.holes) {
                forget(&mut self.random, &mut file.bytes, hole, false);
            }
        }
    }

    pub fn lose(&mut self, all: bool) {
        for change in std::mem::take(&mut self.unflushed) {
            if !all && self.random.bool() {
                self.kept.apply(&change);
            } else {
                self.world.reach(Reach::LostName);
            }
        }
        let dirs = &self.kept.dirs;
        self.kept.files.retain(|name, _| parent(name) == "." || dirs.contains(parent(name)));
        self.shown = self.kept.clone();
        for file in self.files.values_mut() {
            for hole in std::mem::take(&mut file.holes) {
                forget(&mut self.random, &mut file.bytes, hole, all);
            }
            let end = file.bytes.len();
            if file.flushed == end {
                continue;
            }
            self.world.reach(Reach::LostWrite);
            let new_end = match self.random.u8(..3) {
                _ if all => file.flushed,
                0 => file.flushed,
                1 => end,
                _ => self.random.usize(file.flushed..=end),
            };
            file.bytes.truncate(new_end);
            if new_end > file.flushed {
                self.world.reach(Reach::TornTail);
            }
            forget(&mut self.random, &mut file.bytes, file.flushed..new_end, false);
            file.flushed = new_end;
        }
    }
}

/// Of what stands there, some pages were never written, and some were written in part.
fn forget(random: &mut fastrand::Rng, bytes: &mut [u8], range: Range<usize>, all: bool) {
    let mut at = range.start;
    while at < range.end {
        let page_end = ((at / PAGE + 1) * PAGE).min(range.end);
        let from = match random.u8(..4) {
            _ if all => at,
            0 | 1 => page_end,
            2 => at,
            _ => (at + random.usize(..=PAGE / SECTOR) * SECTOR).min(page_end),
        };
        bytes[from..page_end].fill(0);
        at = page_end;
    }
}
