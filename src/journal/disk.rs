//! The file system as the journal needs it: a real one, and one that fails (in tests).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory tree that the journal owns. Names are relative to its root and use `/`.
pub trait Disk: Send + Sync + 'static {
    /// Makes the directory `name`, and its parents, where missing; mode 0700.
    ///
    /// # Errors
    /// As the operating system says.
    fn create_dir(&self, name: &str) -> io::Result<()>;

    /// Makes a new file and opens it for appending; mode 0600. It must not exist.
    ///
    /// # Errors
    /// As the operating system says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// As the operating system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file whose bytes are to be overwritten where they stand. It must exist.
    ///
    /// # Errors
    /// As the operating system says.
    fn open_to_change(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// The files in a directory and their lengths, in no order. An absent directory has none.
    ///
    /// # Errors
    /// As the operating system says.
    fn list(&self, dir: &str) -> io::Result<Vec<(String, u64)>>;

    /// Renames a file over another, both in the same directory.
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names in a directory durable: needed after create, rename and remove.
    ///
    /// # Errors
    /// As the operating system says.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// How large the file system is, and how much of it is free for us.
    ///
    /// # Errors
    /// As the operating system says.
    fn space(&self) -> io::Result<Space>;

    /// Fills `bytes` with what nobody can guess.
    ///
    /// # Errors
    /// As the operating system says.
    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        File::open("/dev/urandom")?.read_exact(bytes)
    }
}

/// A file system's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it, in bytes.
    pub total: u64,
    /// What can still be written.
    pub free: u64,
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes` at the end.
    ///
    /// # Errors
    /// As the operating system says; part of `bytes` may have been written.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, over what stands there; only for files that were opened for that.
    ///
    /// # Errors
    /// As the operating system says; part of `bytes` may have been written.
    fn overwrite(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable (`fdatasync`). After an error nothing written since the last
    /// good call may be trusted, and a later good call proves nothing.
    ///
    /// # Errors
    /// As the operating system says.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file to `length` bytes: takes back a write that failed half way.
    ///
    /// # Errors
    /// As the operating system says.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Reads at `offset` into `buffer`; fewer bytes only at the end of the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// The operating system's file system, below a directory.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// The tree below `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }
}

impl Disk for RealDisk {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.root.join(name))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file =
            OpenOptions::new().append(true).read(true).create_new(true).mode(0o600).open(self.root.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(File::open(self.root.join(name))?)))
    }

    fn open_to_change(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).open(self.root.join(name))?)))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<(String, u64)>> {
        let entries = match fs::read_dir(self.root.join(dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let facts = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // gone since
                other => other?,
            };
            if facts.is_file() {
                files.push((entry.file_name().to_string_lossy().into_owned(), facts.len()));
            }
        }
        Ok(files)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.root.join(name))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.root.join(dir))?.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        let facts = rustix::fs::statvfs(&self.root)?;
        let bytes = |blocks: u64| blocks.saturating_mul(facts.f_frsize);
        Ok(Space { total: bytes(facts.f_blocks), free: bytes(facts.f_bavail) })
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.0).write_all(bytes)
    }

    fn overwrite(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// Writes `bytes` as the whole new content of `dir/name`, durably and all or nothing.
///
/// # Errors
/// As the operating system says; the old content, if any, is then still there.
pub fn replace(disk: &dyn Disk, dir: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let fresh = format!("{dir}/{name}.new");
    if disk.list(dir)?.iter().any(|(found, _)| *found == format!("{name}.new")) {
        disk.remove(&fresh)?; // left by a crash
    }
    let file = disk.create(&fresh)?;
    file.append(bytes)?;
    file.sync()?;
    disk.rename(&fresh, &format!("{dir}/{name}"))?;
    disk.sync_dir(dir)
}

/// The pages that a disk reads and loses as one.
const PAGE: u64 = 4096;

/// Reads at `offset` into `buffer` as [`DiskFile::read_at`] does; where that fails because a sector is bad, page by page, and a
/// page that cannot be read is zeros: one bad sector costs what it held.
///
/// # Errors
/// As the operating system says, but for pages that cannot be read.
pub fn read_around(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    match file.read_at(buffer, offset) {
        Err(error) if is_bad_sector(&error) => {}
        other => return other,
    }
    let mut filled = 0;
    while filled < buffer.len() {
        let at = offset + filled as u64;
        let left = usize::try_from(PAGE - at % PAGE).unwrap_or(usize::MAX);
        let Some(page) = buffer.get_mut(filled..).map(|rest| rest.split_at_mut(left.min(rest.len())).0) else { break };
        let wanted = page.len();
        let got = match file.read_at(page, at) {
            Err(error) if is_bad_sector(&error) => {
                page.fill(0);
                wanted
            }
            other => other?,
        };
        filled += got;
        if got < wanted {
            break;
        }
    }
    Ok(filled)
}

/// Whether a read failed because of what is on the disk there: another place may be read, and trying again is no use.
pub fn is_bad_sector(error: &io::Error) -> bool {
    use rustix::io::Errno;
    Errno::from_io_error(error).is_some_and(|code| matches!(code, Errno::IO | Errno::BADMSG))
}

/// Whether a write failed for want of something that may be there again soon: space, descriptors, memory, or a file system that
/// may be written to. Nothing is wrong with what was written before.
pub fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const SHORT: [Errno; 6] = [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    let known = Errno::from_io_error(error).is_some_and(|code| SHORT.contains(&code));
    known || matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
pub mod forgetful;

/// A disk whose next calls fail on demand.
#[cfg(test)]
pub mod failing {
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
            let pages = offset / PAGE..(offset + buffer.len() as u64).div_ceil(PAGE);
            let bad = |(name, page): &(String, u64)| *name == self.name && pages.contains(page);
            if self.faults.unreadable.lock().unwrap().iter().any(bad) {
                return Err(io::Error::from_raw_os_error(5)); // EIO
            }
            self.real.read_at(buffer, offset)
        }
    }
}
