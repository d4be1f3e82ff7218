//! A disk whose next calls fail on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

use super::*;

/// An error that is a panic.
pub const PANIC: i32 = -1;

/// What fails, switched from outside.
#[derive(Debug, Default)]
pub struct Faults {
    /// Every `sync` fails with EIO.
    pub sync: AtomicBool,
    /// Every `append` past this many bytes in all fails with ENOSPC, half of it written. 0 is never.
    pub full_after: AtomicU64,
    /// Bytes appended so far.
    pub written: AtomicU64,
    /// The file system says that it has no space left.
    pub no_space: AtomicBool,
    /// Runs of claims and checkpoints that were written.
    pub derived: AtomicU64,
    /// Those of them that go further than the log was flushed when they were begun.
    pub ahead: AtomicU64,
    /// How much of each file is flushed.
    flushed: Mutex<BTreeMap<String, u64>>,
    /// That, as it was when each file was begun.
    begun: Mutex<BTreeMap<String, BTreeMap<String, u64>>>,
    /// Pages that cannot be read: a file's name and the page's number.
    pub unreadable: Mutex<BTreeSet<(String, u64)>>,
    /// So many reads of segments fail, and then none.
    pub reads_to_fail: AtomicU64,
    /// What fails, with which error: of `append`, `sync`, `truncate`, `create`, `open`, `rename`, `remove`, `sync_dir`.
    pub refused: Mutex<Vec<(&'static str, i32)>>,
    gate: Mutex<Gate>,
    moved: Condvar,
}

/// Where syncs are held up.
#[derive(Debug, Default)]
struct Gate {
    shut: bool,
    waiting: usize,
}

impl Faults {
    /// From now on `what` fails with the error `code`; with 0 it no longer does.
    pub fn refuse(&self, what: &'static str, code: i32) {
        let mut refused = self.refused.lock().unwrap();
        refused.retain(|(other, _)| *other != what);
        if code != 0 {
            refused.push((what, code));
        }
    }

    fn may(&self, what: &str) -> io::Result<()> {
        let refused = self.refused.lock().unwrap();
        let code = refused.iter().find(|(other, _)| *other == what).map(|(_, code)| *code);
        drop(refused); // a panic must not poison it
        assert_ne!(code, Some(PANIC), "on purpose");
        code.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }

    /// Every `sync` waits from now on.
    pub fn hold_syncs(&self) {
        self.gate.lock().unwrap().shut = true;
    }

    /// Waits until a `sync` is held up.
    pub fn until_one_is_held(&self) {
        let gate = self.gate.lock().unwrap();
        drop(self.moved.wait_while(gate, |gate| gate.waiting == 0).unwrap());
    }

    /// Lets syncs go on.
    pub fn release_syncs(&self) {
        self.gate.lock().unwrap().shut = false;
        self.moved.notify_all();
    }

    fn begin(&self, name: &str) {
        let flushed = self.flushed.lock().unwrap().clone();
        self.begun.lock().unwrap().insert(name.to_owned(), flushed);
    }

    /// Looks at what gets its name: up to where in the log it goes stands in a run's footer and in a checkpoint's head.
    fn end(&self, name: &str, bytes: &[u8]) {
        let at = match name.split('/').next_back() {
            Some("checkpoint.new") => 24,
            Some(run) if run.ends_with(".clm.new") => bytes.len() - 32,
            _ => return,
        };
        let through = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let (segment, offset) = (format!("log/{:08x}.log", through >> 32), through & u64::from(u32::MAX));
        let begun = self.begun.lock().unwrap();
        let is_ahead = begun[name].get(&segment).is_some_and(|flushed| *flushed < offset);
        self.ahead.fetch_add(u64::from(is_ahead), Ordering::SeqCst);
        self.derived.fetch_add(1, Ordering::SeqCst);
    }

    fn pass_gate(&self) {
        let mut gate = self.gate.lock().unwrap();
        gate.waiting += 1;
        self.moved.notify_all();
        let mut gate = self.moved.wait_while(gate, |gate| gate.shut).unwrap();
        gate.waiting -= 1;
    }
}

/// [`RealDisk`] with [`Faults`].
pub struct FailingDisk {
    /// What fails.
    pub faults: Arc<Faults>,
    /// What does the work.
    pub real: RealDisk,
}

struct FailingFile {
    faults: Arc<Faults>,
    name: String,
    length: AtomicU64,
    real: Arc<dyn DiskFile>,
}

impl FailingDisk {
    fn file(&self, name: &str, real: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let length = fs::metadata(self.real.root.join(name)).map_or(0, |facts| facts.len());
        let (faults, length) = (Arc::clone(&self.faults), AtomicU64::new(length));
        Arc::new(FailingFile { faults, name: name.to_owned(), length, real })
    }
}

impl Disk for FailingDisk {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.real.create_dir(name)
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.faults.may("create")?;
        if name.starts_with("claims/") {
            self.faults.may("create claims")?;
        }
        self.faults.begin(name);
        Ok(self.file(name, self.real.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.faults.may("open")?;
        Ok(self.file(name, self.real.open(name)?))
    }
    fn open_to_change(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.real.open_to_change(name)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<(String, u64)>> {
        self.real.list(dir)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.faults.may("rename")?;
        self.faults.end(from, &fs::read(self.real.root.join(from))?);
        self.real.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.faults.may("remove")?;
        self.real.remove(name)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.faults.may("sync_dir")?;
        self.real.sync_dir(dir)
    }
    fn space(&self) -> io::Result<Space> {
        let space = self.real.space()?;
        Ok(if self.faults.no_space.load(Ordering::SeqCst) { Space { free: 0, ..space } } else { space })
    }
}

impl DiskFile for FailingFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.faults.may("append") {
            self.real.append(&bytes[..bytes.len() / 2])?; // short
            return Err(error);
        }
        let limit = self.faults.full_after.load(Ordering::SeqCst);
        if limit != 0 && self.faults.written.load(Ordering::SeqCst) + bytes.len() as u64 > limit {
            self.real.append(&bytes[..bytes.len() / 2])?;
            return Err(io::Error::from_raw_os_error(28)); // ENOSPC
        }
        self.faults.written.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        self.length.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        self.real.append(bytes)
    }
    fn overwrite(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.real.overwrite(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        if self.faults.sync.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5)); // EIO
        }
        self.faults.may("sync")?;
        self.faults.pass_gate();
        let length = self.length.load(Ordering::SeqCst);
        self.real.sync()?;
        self.faults.flushed.lock().unwrap().insert(self.name.clone(), length);
        Ok(())
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.faults.may("truncate")?;
        self.length.store(length, Ordering::SeqCst);
        self.real.truncate(length)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.faults.may("read")?;
        let left = |left: u64| left.checked_sub(1);
        let is_log = self.name.starts_with("log/");
        if is_log && self.faults.reads_to_fail.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok() {
            return Err(io::Error::from_raw_os_error(5)); // EIO
        }
        let pages = offset / PAGE..(offset + buffer.len() as u64).div_ceil(PAGE);
        let bad = |(name, page): &(String, u64)| *name == self.name && pages.contains(page);
        if self.faults.unreadable.lock().unwrap().iter().any(bad) {
            return Err(io::Error::from_raw_os_error(5)); // EIO
        }
        self.real.read_at(buffer, offset)
    }
}
