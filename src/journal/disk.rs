//! The file system as the journal needs it: a real one, and (in tests) ones that fail, forget and die.

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

/// How often a page is read before it is taken for one that cannot be: a path to a disk may fail for a moment, and what is taken
/// for lost then would be given up although it is there.
const TRIES: usize = 4;

/// Reads at `offset` into `buffer` as [`DiskFile::read_at`] does; where that fails because a sector is bad, page by page, and a
/// page that cannot be read, however often it is tried, is zeros: one bad sector costs what it held.
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
        let failed = |got: &io::Result<usize>| got.as_ref().is_err_and(is_bad_sector);
        let mut got = file.read_at(page, at);
        for _ in 1..TRIES {
            if !failed(&got) {
                break;
            }
            got = file.read_at(page, at);
        }
        let got = match got {
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

/// Whether everything in a range of a file can be read.
pub fn can_read(file: &dyn DiskFile, range: std::ops::Range<u64>) -> bool {
    let mut page = [0; PAGE as usize];
    range.step_by(page.len()).all(|at| file.read_at(&mut page, at).is_ok())
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
pub mod dying;
#[cfg(test)]
pub mod failing;
#[cfg(test)]
pub mod forgetful;
