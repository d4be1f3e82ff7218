//! A disk in memory that forgets, as a real one does: after a power cut a file has what was flushed of it, and a directory the names
//! that it had at its last flush. After a flush that fails, what was to be written is taken for written by the kernel, can be read
//! until the power is cut, and is gone then, whatever later flushes say (Rebello et al., USENIX ATC 2020).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

/// The disk. A handle; clones are one disk.
#[derive(Clone, Default)]
pub struct Forgetful {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    names: Mutex<BTreeMap<String, Arc<Memory>>>,
    kept: Mutex<BTreeMap<String, Arc<Memory>>>,
    /// Bytes that all files may have together; 0 is no limit.
    capacity: AtomicU64,
    fails: AtomicBool,
}

#[derive(Default)]
struct Memory(Mutex<Content>);

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    flushed: usize,
    never_written: Vec<Range<usize>>,
    /// Written over since, and not flushed yet.
    again: Vec<Range<usize>>,
}

struct Handle {
    disk: Arc<Inner>,
    memory: Arc<Memory>,
}

fn gone() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn dir_of(name: &str) -> &str {
    name.rsplit_once('/').map_or(".", |(dir, _)| dir)
}

/// `./x` and `x` are one.
fn plain(name: &str) -> String {
    name.strip_prefix("./").unwrap_or(name).to_owned()
}

impl Inner {
    fn used(&self) -> u64 {
        self.names.lock().unwrap().values().map(|memory| memory.0.lock().unwrap().bytes.len() as u64).sum()
    }
}

impl Forgetful {
    /// What is there once power is back.
    pub fn after_power_cut(&self) -> Self {
        let mut names = BTreeMap::new();
        for (name, memory) in self.inner.kept.lock().unwrap().iter() {
            let content = memory.0.lock().unwrap();
            let mut bytes = content.bytes[..content.flushed.min(content.bytes.len())].to_vec();
            for lost in &content.never_written {
                let end = lost.end.min(bytes.len());
                bytes[lost.start.min(end)..end].fill(0);
            }
            let content = Content { flushed: bytes.len(), bytes, ..Content::default() };
            names.insert(name.clone(), Arc::new(Memory(Mutex::new(content))));
        }
        let kept = Mutex::new(names.clone());
        Self { inner: Arc::new(Inner { names: Mutex::new(names), kept, ..Inner::default() }) }
    }

    /// A disk with these files, flushed.
    pub fn with(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let disk = Self::default();
        let file = |(name, bytes): (&String, &Vec<u8>)| {
            let content = Content { flushed: bytes.len(), bytes: bytes.clone(), ..Content::default() };
            (name.clone(), Arc::new(Memory(Mutex::new(content))))
        };
        let names: BTreeMap<_, _> = files.iter().map(file).collect();
        disk.inner.kept.lock().unwrap().clone_from(&names);
        *disk.inner.names.lock().unwrap() = names;
        disk
    }

    /// Its files.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let names = self.inner.names.lock().unwrap();
        names.iter().map(|(name, memory)| (name.clone(), memory.0.lock().unwrap().bytes.clone())).collect()
    }

    /// What `name` has from `from` on was not flushed yet; or its flush failed, and the kernel takes it for written.
    pub fn unflush(&self, name: &str, from: usize, failed: bool) {
        let memory = Arc::clone(&self.inner.names.lock().unwrap()[name]);
        let mut content = memory.0.lock().unwrap();
        let end = content.bytes.len();
        content.flushed = if failed { end } else { from };
        content.never_written.extend(failed.then_some(from..end));
    }

    /// The names in `dir` were not flushed.
    pub fn unflush_names(&self, dir: &str) {
        self.inner.kept.lock().unwrap().retain(|name, _| dir_of(name) != dir);
    }

    /// Whether flushes of files fail from now on.
    pub fn set_fails(&self, fails: bool) {
        self.inner.fails.store(fails, Ordering::SeqCst);
    }

    /// Lets somebody else leave room for `left` more bytes.
    pub fn leave(&self, left: u64) {
        self.inner.capacity.store(self.inner.used() + left, Ordering::SeqCst);
    }

    /// There is plenty of room again.
    pub fn empty(&self) {
        self.inner.capacity.store(0, Ordering::SeqCst);
    }
}

impl Disk for Forgetful {
    fn create_dir(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut names = self.inner.names.lock().unwrap();
        if names.contains_key(&plain(name)) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let memory = Arc::new(Memory::default());
        names.insert(plain(name), Arc::clone(&memory));
        Ok(Arc::new(Handle { disk: Arc::clone(&self.inner), memory }))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let memory = self.inner.names.lock().unwrap().get(&plain(name)).cloned().ok_or_else(gone)?;
        Ok(Arc::new(Handle { disk: Arc::clone(&self.inner), memory }))
    }
    fn open_to_change(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open(name)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<(String, u64)>> {
        let names = self.inner.names.lock().unwrap();
        let here = names.iter().filter(|(name, _)| dir_of(name) == dir);
        let file = |(name, memory): (&String, &Arc<Memory>)| {
            let short = name.rsplit('/').next().unwrap_or(name).to_owned();
            (short, memory.0.lock().unwrap().bytes.len() as u64)
        };
        Ok(here.map(file).collect())
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut names = self.inner.names.lock().unwrap();
        let memory = names.remove(&plain(from)).ok_or_else(gone)?;
        names.insert(plain(to), memory);
        Ok(())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.names.lock().unwrap().remove(&plain(name)).map(drop).ok_or_else(gone)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let names = self.inner.names.lock().unwrap();
        let mut kept = self.inner.kept.lock().unwrap();
        kept.retain(|name, _| dir_of(name) != dir);
        let here = names.iter().filter(|(name, _)| dir_of(name) == dir);
        kept.extend(here.map(|(name, memory)| (name.clone(), Arc::clone(memory))));
        Ok(())
    }
    fn space(&self) -> io::Result<Space> {
        let (capacity, total) = (self.inner.capacity.load(Ordering::SeqCst), 1 << 40);
        let free = if capacity == 0 { total } else { capacity.saturating_sub(self.inner.used()) };
        Ok(Space { total, free })
    }
}

impl DiskFile for Handle {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let (capacity, used) = (self.disk.capacity.load(Ordering::SeqCst), self.disk.used());
        if capacity != 0 && used + bytes.len() as u64 > capacity {
            let fits = usize::try_from(capacity.saturating_sub(used)).unwrap_or(0);
            self.memory.0.lock().unwrap().bytes.extend_from_slice(&bytes[..fits.min(bytes.len())]);
            return Err(io::Error::from_raw_os_error(28)); // ENOSPC
        }
        self.memory.0.lock().unwrap().bytes.extend_from_slice(bytes);
        Ok(())
    }
    fn overwrite(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let mut content = self.memory.0.lock().unwrap();
        content.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        content.again.push(at..at + bytes.len());
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        let mut content = self.memory.0.lock().unwrap();
        let (flushed, length) = (content.flushed, content.bytes.len());
        content.flushed = length;
        if self.disk.fails.load(Ordering::SeqCst) {
            content.never_written.push(flushed..length);
            content.again.clear();
            return Err(io::Error::from_raw_os_error(5)); // EIO
        }
        for again in std::mem::take(&mut content.again) {
            let rest =
                |lost: Range<usize>| [lost.start..lost.end.min(again.start), lost.start.max(again.end)..lost.end];
            let lost = std::mem::take(&mut content.never_written).into_iter().flat_map(rest);
            content.never_written = lost.filter(|lost| !lost.is_empty()).collect();
        }
        Ok(())
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut content = self.memory.0.lock().unwrap();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        content.bytes.truncate(length);
        content.flushed = content.flushed.min(length);
        content.never_written.retain(|lost| lost.start < length);
        Ok(())
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.memory.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.bytes.len());
        let count = buffer.len().min(content.bytes.len() - from);
        buffer[..count].copy_from_slice(&content.bytes[from..from + count]);
        Ok(count)
    }
}
