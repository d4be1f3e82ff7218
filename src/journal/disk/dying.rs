//! A disk that dies: of the steps that are left none is made after the last, and the one that comes then is made half.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::*;

/// What a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// Whatever changes something.
    Changes,
    /// That, and whatever is read or looked at: a process is killed there as well.
    Everything,
}

/// How long a disk lives, and what it has seen.
#[derive(Debug)]
pub struct Life {
    steps: Steps,
    /// Steps that are still made; once it is dead it is below zero.
    pub left: AtomicI64,
    /// Bytes of the log that were read.
    pub log_read: AtomicU64,
    /// Checkpoints that were begun.
    pub checkpoints: AtomicU64,
}

impl Life {
    /// One with so many steps `left`.
    pub fn of(left: i64, steps: Steps) -> Arc<Self> {
        let (left, log_read, checkpoints) = (AtomicI64::new(left), AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { steps, left, log_read, checkpoints })
    }

    /// Whether it has died.
    pub fn is_over(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    fn change(&self) -> io::Result<()> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left > 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(5)) } // EIO
    }

    fn look(&self) -> io::Result<()> {
        if self.steps == Steps::Everything { self.change() } else { Ok(()) }
    }

    /// How many of `length` bytes are written, and what is said of it.
    fn write(&self, length: usize) -> (usize, io::Result<()>) {
        let dies_now = self.left.load(Ordering::SeqCst) == 0;
        match self.change() {
            Ok(()) => (length, Ok(())),
            Err(error) => (if dies_now { length / 2 } else { 0 }, Err(error)),
        }
    }
}

/// [`RealDisk`] with a [`Life`].
pub struct DyingDisk {
    /// What does the work.
    pub real: RealDisk,
    /// For how long.
    pub life: Arc<Life>,
}

struct DyingFile {
    real: Arc<dyn DiskFile>,
    life: Arc<Life>,
    is_log: bool,
}

impl DyingDisk {
    fn file(&self, name: &str, real: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(DyingFile { real, life: Arc::clone(&self.life), is_log: name.starts_with("log/") })
    }
}

impl Disk for DyingDisk {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.life.change().and_then(|()| self.real.create_dir(name))
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.life.change()?;
        self.life.checkpoints.fetch_add(u64::from(name.starts_with("checkpoint")), Ordering::SeqCst);
        Ok(self.file(name, self.real.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.life.look().and_then(|()| Ok(self.file(name, self.real.open(name)?)))
    }
    fn open_to_change(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.life.look().and_then(|()| Ok(self.file(name, self.real.open_to_change(name)?)))
    }
    fn list(&self, dir: &str) -> io::Result<Vec<(String, u64)>> {
        self.life.look().and_then(|()| self.real.list(dir))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.life.change().and_then(|()| self.real.rename(from, to))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.life.change().and_then(|()| self.real.remove(name))
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.life.change().and_then(|()| self.real.sync_dir(dir))
    }
    fn space(&self) -> io::Result<Space> {
        self.life.look().and_then(|()| self.real.space())
    }
}

impl DiskFile for DyingFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let (length, said) = self.life.write(bytes.len());
        self.real.append(&bytes[..length])?;
        said
    }
    fn overwrite(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (length, said) = self.life.write(bytes.len());
        self.real.overwrite(&bytes[..length], offset)?;
        said
    }
    fn sync(&self) -> io::Result<()> {
        self.life.change().and_then(|()| self.real.sync())
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.life.change().and_then(|()| self.real.truncate(length))
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.life.look()?;
        let got = self.real.read_at(buffer, offset)?;
        self.life.log_read.fetch_add(if self.is_log { got as u64 } else { 0 }, Ordering::SeqCst);
        Ok(got)
    }
}
