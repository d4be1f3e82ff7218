//! How long this disk takes to make something durable.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Check;

/// Flushes that are timed, and for how long at most.
const FLUSHES: usize = 100;
const TIME_MAX: Duration = Duration::from_secs(5);

/// What is written before each: a small batch of events.
const BLOCK: [u8; 4096] = [0xfb; 4096];

/// A flush faster than this is not one of a disk without a battery: the drive's or the hypervisor's cache answers.
const TOO_FAST: Duration = Duration::from_micros(30);
/// Slower than this, senders wait noticeably.
const SLOW: Duration = Duration::from_millis(50);

/// What the scratch file's name begins with.
const SCRATCH: &str = ".forebay-doctor-";

/// Times flushes in `dir`.
pub(super) fn check(dir: &Path) -> Check {
    const WHAT: &str = "disk flush";
    let mut times = match measure(dir) {
        Ok(times) => times,
        Err(error) => {
            let full = error.kind() == io::ErrorKind::StorageFull;
            let cure = if full {
                "free some space"
            } else {
                "let the user who runs forebay write there, and look at the disk"
            };
            return Check::fail(WHAT, format!("a scratch file in {} cannot be written: {error}", dir.display()), cure);
        }
    };
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1)).copied().unwrap_or_default();
    let (p50, p99, max) = (at(50), at(99), at(100));
    let each = (1.0 / p50.as_secs_f64().max(1e-9)).round();
    let detail = format!(
        "{} flushes: p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}; those who wait share one, so about {each} durable events \
         a second from one sender, and up to {} from a hundred at once",
        times.len(),
        each * 100.0
    );
    if p50 < TOO_FAST {
        let cure = "too fast for a disk: make sure that a power cut does not lose what the cache under it has";
        return Check::warn(WHAT, detail, cure);
    }
    if p50 > SLOW {
        return Check::warn(WHAT, detail, "slow: every acknowledgement waits for one; use an SSD of your own");
    }
    Check::ok(WHAT, detail)
}

/// How long each of some flushes took; at least one.
fn measure(dir: &Path) -> io::Result<Vec<Duration>> {
    let mut scratch = Scratch::new(dir)?;
    let started = Instant::now();
    let mut times = Vec::new();
    while times.is_empty() || (times.len() < FLUSHES && started.elapsed() < TIME_MAX) {
        scratch.file.write_all(&BLOCK)?;
        let before = Instant::now();
        scratch.file.sync_data()?;
        times.push(before.elapsed());
    }
    Ok(times)
}

/// A file that is gone when this is.
struct Scratch {
    file: File,
    path: PathBuf,
}

impl Scratch {
    fn new(dir: &Path) -> io::Result<Self> {
        clear(dir);
        let path = dir.join(format!("{SCRATCH}{}", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // the next run tries again
    }
}

/// Removes what a run that was killed has left.
fn clear(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
