//! A disk in memory that fails as disks do: it forgets what was not flushed, tears it, fails calls, fills up, hangs.
//!
//! What a file shows is what the page cache has; what of it is on the medium is told apart byte by byte. Names are on the
//! medium once their directory was flushed. A view of the disk belongs to one life of the gateway: when that has ended, in the
//! middle of a call perhaps, every further call of it fails and does nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay::journal::disk::{Disk, DiskFile, Space};
use tokio::sync::Notify;

use crate::medium::{CACHE_LIES, EIO, ENOSPC, File, Medium, NameChange, Names, TOTAL, error, parent};
use crate::world::{Reach, World};

pub use crate::medium::{Crash, Faults};

/// The disk, whoever uses it.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Medium>>);

/// The disk as one life of the gateway has it.
pub struct View {
    disk: SimDisk,
    life: u32,
}

struct Handle {
    disk: SimDisk,
    life: u32,
    file: u64,
    name: String,
}

impl SimDisk {
    pub fn new(world: World, random: fastrand::Rng) -> Self {
        Self(Arc::new(Mutex::new(Medium {
            world,
            random,
            life: 0,
            dead: true,
            died: Arc::new(Notify::new()),
            calls: 0,
            end_in: None,
            faults: Faults::default(),
            quota: TOTAL,
            files: BTreeMap::new(),
            next_file: 0,
            shown: Names::default(),
            kept: Names::default(),
            unflushed: Vec::new(),
        })))
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new life has the disk; it ends in its `end_in`th call, if any. Tells when it has.
    pub fn begin(&self, end_in: Option<u64>) -> (View, Arc<Notify>) {
        let mut medium = self.medium();
        medium.life += 1;
        medium.dead = false;
        medium.died = Arc::new(Notify::new());
        medium.calls = 0;
        medium.end_in = end_in;
        (View { disk: self.clone(), life: medium.life }, Arc::clone(&medium.died))
    }

    /// The life ends in the so manieth call from now on.
    pub fn end_in(&self, calls: u64) {
        let mut medium = self.medium();
        medium.end_in = Some(medium.calls + calls);
    }

    pub fn set_faults(&self, faults: Faults) {
        self.medium().faults = faults;
    }

    /// Leaves `more` bytes to write; none is all there could be.
    pub fn leave(&self, more: Option<u64>) {
        let mut medium = self.medium();
        medium.quota = more.map_or(TOTAL, |more| medium.used() + more);
    }

    pub fn is_dead(&self) -> bool {
        self.medium().dead
    }

    /// Ends the life that has the disk: nothing it does from now on has any effect.
    pub fn end(&self) {
        self.medium().dead = true;
    }

    /// What a crash leaves.
    pub fn crash(&self, how: Crash) {
        let mut medium = self.medium();
        medium.dead = true;
        if how != Crash::Kill {
            medium.lose(how == Crash::PowerCutAtWorst);
        } else if !CACHE_LIES {
            medium.tell_the_truth();
        }
        let named: BTreeSet<u64> = medium.shown.files.values().chain(medium.kept.files.values()).copied().collect();
        medium.files.retain(|file, _| named.contains(file));
    }

    /// Whether a power cut now, at its worst, leaves one of `what` in a segment of the log.
    pub fn would_keep(&self, what: &[String]) -> bool {
        let medium = self.medium();
        let kept = medium.kept.files.range("log/".to_owned().."log0".to_owned());
        medium.kept.dirs.contains("log")
            && kept
                .rev()
                .filter_map(|(_, file)| medium.files.get(file))
                .any(|file| what.iter().any(|what| file.has_flushed(what.as_bytes())))
    }

    /// Flips a bit of a segment or a run of claims. False if there is none.
    pub fn rot(&self) -> bool {
        let mut medium = self.medium();
        let of_claims = medium.random.u8(..4) == 0;
        let rotten = |name: &str| name.ends_with(".clm") == of_claims && (of_claims || name.starts_with("log/"));
        let names = medium.shown.files.iter().filter(|(name, _)| rotten(name));
        let files: Vec<u64> =
            names.map(|(_, file)| *file).filter(|file| !medium.files[file].bytes.is_empty()).collect();
        if files.is_empty() {
            return false;
        }
        let at = medium.random.usize(..files.len());
        medium.flip(files[at]);
        medium.world.reach(Reach::BitRot);
        true
    }

    /// Whether there is such a file.
    pub fn has(&self, name: &str) -> bool {
        self.medium().shown.files.contains_key(name)
    }

    /// Flips a bit of a file, if it is there.
    pub fn flip(&self, name: &str) {
        let mut medium = self.medium();
        if let Some(file) = medium.shown.files.get(name).copied() {
            medium.flip(file);
        }
    }
}

/// The file's name without a `./` before it.
fn plain(name: &str) -> &str {
    name.strip_prefix("./").unwrap_or(name)
}

impl Disk for View {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        let mut medium = self.disk.medium();
        if medium.shown.dirs.contains(name) {
            return if medium.dead { Err(error(EIO)) } else { Ok(()) };
        }
        medium.change(self.life, NameChange::Dir(name.to_owned()))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let name = plain(name);
        let mut medium = self.disk.medium();
        if medium.shown.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if parent(name) != "." && !medium.shown.dirs.contains(parent(name)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = medium.next_file;
        medium.next_file += 1;
        medium.files.insert(file, File::default());
        medium.change(self.life, NameChange::Create(name.to_owned(), file))?;
        Ok(Arc::new(Handle { disk: self.disk.clone(), life: self.life, file, name: name.to_owned() }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let name = plain(name);
        let mut medium = self.disk.medium();
        if medium.call(self.life)? {
            return Err(medium.die());
        }
        let file = *medium.shown.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Handle { disk: self.disk.clone(), life: self.life, file, name: name.to_owned() }))
    }

    fn open_to_change(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open(name)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<(String, u64)>> {
        let mut medium = self.disk.medium();
        if medium.call(self.life)? {
            return Err(medium.die());
        }
        let files = medium.shown.files.iter().filter(|(name, _)| parent(name) == dir);
        let length = |file: &u64| medium.files.get(file).map_or(0, |file| file.bytes.len() as u64);
        let mut files: Vec<_> =
            files.map(|(name, file)| (name.rsplit('/').next().unwrap_or(name).to_owned(), length(file))).collect();
        medium.random.shuffle(&mut files);
        Ok(files)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (plain(from), plain(to));
        let mut medium = self.disk.medium();
        let file = *medium.shown.files.get(from).ok_or(io::ErrorKind::NotFound)?;
        medium.change(self.life, NameChange::Rename(from.to_owned(), to.to_owned(), file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let name = plain(name);
        let mut medium = self.disk.medium();
        if !medium.shown.files.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        medium.change(self.life, NameChange::Remove(name.to_owned()))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut medium = self.disk.medium();
        let ends = medium.call(self.life)?;
        if !ends && medium.fails(|faults| faults.names) {
            medium.world.disk_failed(Reach::FailedNames);
            return Err(error(EIO));
        }
        if !ends || medium.random.bool() {
            let (flushed, rest) =
                std::mem::take(&mut medium.unflushed).into_iter().partition(|change| change.dir() == dir);
            medium.unflushed = rest;
            let flushed: Vec<NameChange> = flushed;
            flushed.iter().for_each(|change| medium.kept.apply(change));
        }
        if ends { Err(medium.die()) } else { Ok(()) }
    }

    fn space(&self) -> io::Result<Space> {
        let medium = self.disk.medium();
        Ok(Space { total: TOTAL, free: medium.quota.saturating_sub(medium.used()) })
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.disk.medium().random.fill(bytes);
        Ok(())
    }
}

impl DiskFile for Handle {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut medium = self.disk.medium();
        let ends = medium.call(self.life)?;
        let is_log = self.name.starts_with("log/");
        let room = usize::try_from(medium.quota.saturating_sub(medium.used())).unwrap_or(usize::MAX);
        let (fits, outcome) = if ends {
            medium.world.reach(if is_log { Reach::CrashInCommit } else { Reach::CrashInWrite });
            (medium.random.usize(..=bytes.len()), Err(EIO))
        } else if room < bytes.len() {
            medium.world.disk_failed(Reach::NoSpace);
            (room, Err(ENOSPC))
        } else if medium.fails(|faults| faults.write) {
            let part = medium.random.usize(..=bytes.len());
            medium.world.disk_failed(if part == 0 { Reach::FailedWrite } else { Reach::ShortWrite });
            (part, Err(if medium.random.bool() { EIO } else { ENOSPC }))
        } else {
            (bytes.len(), Ok(()))
        };
        if let Some(file) = medium.files.get_mut(&self.file) {
            file.bytes.extend_from_slice(&bytes[..fits]);
        }
        if ends { Err(medium.die()) } else { outcome.map_err(error) }
    }

    fn overwrite(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut medium = self.disk.medium();
        if medium.call(self.life)? {
            return Err(medium.die());
        }
        if medium.fails(|faults| faults.write) {
            medium.world.disk_failed(Reach::FailedWrite);
            return Err(error(EIO));
        }
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(file) = medium.files.get_mut(&self.file) else { return Err(error(EIO)) };
        if file.bytes.get(from..from + bytes.len()) != Some(bytes) {
            return Err(io::ErrorKind::Unsupported.into()); // nothing is erased in a simulation
        }
        file.again.push(from..from + bytes.len());
        medium.world.reach(Reach::WrittenOver);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut medium = self.disk.medium();
        let ends = medium.call(self.life)?;
        let is_log = self.name.starts_with("log/");
        if ends && is_log {
            medium.world.reach(Reach::CrashInCommit);
        }
        let fails = !ends && medium.fails(|faults| faults.sync);
        let happens = !ends || medium.random.bool();
        if let Some(file) = medium.files.get_mut(&self.file).filter(|_| happens) {
            let (from, to) = (file.flushed, file.bytes.len());
            file.flushed = to;
            if fails {
                file.again.clear();
                file.holes.extend((from < to).then_some(from..to)); // the pages are clean now, and were never written
            } else {
                file.fill_holes();
            }
        }
        if fails {
            medium.world.disk_failed(Reach::FailedFlush);
            return Err(error(EIO));
        }
        if ends { Err(medium.die()) } else { Ok(()) }
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut medium = self.disk.medium();
        if medium.call(self.life)? {
            return Err(medium.die());
        }
        if medium.fails(|faults| faults.write) {
            medium.world.disk_failed(Reach::FailedWrite);
            return Err(error(EIO));
        }
        if let Some(file) = medium.files.get_mut(&self.file) {
            file.bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            let end = file.bytes.len();
            file.flushed = file.flushed.min(end);
            file.holes.iter_mut().for_each(|hole| hole.end = hole.end.min(end));
            file.holes.retain(|hole| !hole.is_empty());
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut medium = self.disk.medium();
        if medium.call(self.life)? {
            return Err(medium.die());
        }
        if medium.fails(|faults| faults.read) {
            medium.world.disk_failed(Reach::FailedRead);
            return Err(error(EIO));
        }
        let Some(file) = medium.files.get(&self.file) else { return Err(error(EIO)) };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(file.bytes.len());
        let count = buffer.len().min(file.bytes.len() - from);
        buffer[..count].copy_from_slice(&file.bytes[from..from + count]);
        Ok(count)
    }
}
