//! A disk that dies, and one that is watched: what a crash leaves at each step, and how much of the log opening reads.

use std::sync::atomic::AtomicI64;

use super::*;
use crate::journal::disk::{DiskFile, Space};

/// A disk that can be made to die, and that says what is read of the log.
struct Watched {
    real: RealDisk,
    facts: Arc<Facts>,
}

#[derive(Default)]
struct Facts {
    /// So many changes are still made; negative is none.
    left: AtomicI64,
    log_read: AtomicU64,
    /// How many checkpoints were begun.
    begun: AtomicU64,
}

impl Facts {
    fn change(&self) -> io::Result<()> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left > 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(5)) }
    }
}

struct WatchedFile {
    real: Arc<dyn DiskFile>,
    facts: Arc<Facts>,
    is_log: bool,
}

impl Watched {
    fn file(&self, name: &str, real: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(WatchedFile { real, facts: Arc::clone(&self.facts), is_log: name.starts_with("log/") })
    }
}

impl Disk for Watched {
    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.real.create_dir(name)
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.facts.change()?;
        if name.starts_with(FILE) {
            self.facts.begun.fetch_add(1, Ordering::SeqCst);
        }
        self.real.create(name).map(|file| self.file(name, file))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.real.open(name).map(|file| self.file(name, file))
    }
    fn open_to_change(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.real.open_to_change(name).map(|file| self.file(name, file))
    }
    fn list(&self, dir: &str) -> io::Result<Vec<(String, u64)>> {
        self.real.list(dir)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.facts.change()?;
        self.real.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.facts.change()?;
        self.real.remove(name)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.facts.change()?;
        self.real.sync_dir(dir)
    }
    fn space(&self) -> io::Result<Space> {
        self.real.space()
    }
}

impl DiskFile for WatchedFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.facts.change() {
            self.real.append(&bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        self.real.append(bytes)
    }
    fn overwrite(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.facts.change()?;
        self.real.overwrite(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.facts.change()?;
        self.real.sync()
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.facts.change()?;
        self.real.truncate(length)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let got = self.real.read_at(buffer, offset)?;
        if self.is_log {
            self.facts.log_read.fetch_add(got as u64, Ordering::SeqCst);
        }
        Ok(got)
    }
}

fn open_watched(dir: &Path, clock: &Arc<ManualClock>, left: i64) -> (Result<LogJournal, OpenError>, Arc<Facts>) {
    let facts = Arc::new(Facts { left: AtomicI64::new(left), ..Facts::default() });
    let disk = Arc::new(Watched { real: RealDisk::new(dir), facts: Arc::clone(&facts) });
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    (LogJournal::open_on(disk, &settings(dir, SMALL), clock, Metrics::new("test"), None), facts)
}

/// The disk dies at every single step: of opening, appending, writing checkpoints, closing.
#[tokio::test]
async fn a_crash_at_any_step_leaves_a_journal_that_opens_as_without_a_checkpoint() {
    let (begin, clock) = closed().await;
    let (mut died_at_a_checkpoint, mut steps) = (0, 0);
    for left in 0.. {
        let dir = tempfile::tempdir().unwrap();
        copy(begin.path(), dir.path());
        let (journal, facts) = open_watched(dir.path(), &clock, left);
        let mut acknowledged = Vec::new();
        if let Ok(journal) = journal {
            for number in 20..50u8 {
                let kept = journal.append(entry(&[number; 24_000], Some(number), &["app"]), Sync::Durable).await;
                acknowledged.extend(kept.ok().map(fresh));
            }
            journal.close().await;
            crash(journal).await;
        }
        let begun = facts.begun.load(Ordering::SeqCst);
        died_at_a_checkpoint += u64::from(facts.left.load(Ordering::SeqCst) < 0 && begun > 0);
        let plain = copied((dir.path(), &clock), without);
        let other = copied((dir.path(), &clock), |_| ());
        let waits: Vec<_> = other.pending("app").await.iter().map(|pending| pending.event.id).collect();
        assert!(acknowledged.iter().all(|kept| waits.contains(&kept.id)), "dead after {left} steps");
        assert_eq!(seen(&other).await, seen(&plain).await, "dead after {left} steps");
        steps = left;
        if facts.left.load(Ordering::SeqCst) >= 0 {
            break;
        }
    }
    assert!(steps > 40 && died_at_a_checkpoint >= 5, "{steps} steps, {died_at_a_checkpoint} with a checkpoint begun");
}

/// With claims and without: what is read does not depend on how much there is.
#[tokio::test]
async fn after_a_close_nothing_of_the_log_is_read_and_after_a_crash_little() {
    for key in [None, Some(())] {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::at(T0)));
        let (journal, facts) = open_watched(dir.path(), &clock, i64::MAX);
        let journal = journal.unwrap();
        for number in 0..200u8 {
            journal.append(entry(&[number; 10_000], key.map(|()| number), &["app"]), Sync::Durable).await.unwrap();
            while number % 40 == 39 && facts.begun.load(Ordering::SeqCst) < u64::from(number / 40) {
                journal.trim(Retention::default()).await.unwrap(); // as the app does every second
            }
        }
        crash(journal).await;
        let (journal, facts) = open_watched(dir.path(), &clock, i64::MAX);
        let journal = journal.unwrap();
        let read = facts.log_read.load(Ordering::SeqCst);
        assert!((10_000..1_300_000).contains(&read), "{read} of 2 MB");
        journal.append(entry(b"one more", None, &["app"]), Sync::Durable).await.unwrap();
        journal.close().await;
        crash(journal).await;
        let (journal, facts) = open_watched(dir.path(), &clock, i64::MAX);
        let read = facts.log_read.load(Ordering::SeqCst);
        assert!(read < 16_000, "{read}"); // headers, and the end that the checkpoint vouches for
        assert_eq!(journal.unwrap().stats().lanes[0].pending, 201);
    }
}
