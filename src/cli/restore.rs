//! `forebay restore`: a backup back into a directory.

use std::cell::{Cell, RefCell};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::progress::Progress;
use super::{Usage, backup::size, text};
use crate::base::SystemClock;
use crate::journal::archive::{self, Contents};
use crate::journal::log::{self, Lock, Survey};

/// Unpacks a backup into a new journal's directory.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What `forebay backup` wrote
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// The journal's directory, which must be missing or empty; the config's `journal.dir` where it is not given
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Restores into `dir`.
///
/// # Errors
/// Why it is not; nothing is left then.
pub fn run(args: &Args, dir: &Path) -> anyhow::Result<ExitCode> {
    let file = File::open(&args.from).with_context(|| format!("{} cannot be opened", args.from.display()))?;
    let all = file.metadata().map_or(0, |facts| facts.len());
    vacant(dir)?;
    let unpacked = Unpacked::create(dir)?;
    let mut from = Counted { from: BufReader::with_capacity(1 << 20, file), progress: Progress::new("restoring", all) };
    let contents = archive::read(&mut from, |name| unpacked.file(name));
    let Contents { store, made, files, bytes } = contents.with_context(|| format!("{}", args.from.display()))?;
    drop(from);
    let Survey { events, pending, dead, damaged } =
        log::survey(&unpacked.path, Arc::new(SystemClock)).context("what was restored cannot be opened")?;
    unpacked.finish()?;
    let shown = dir.display().to_string();
    if args.json {
        let report = json!({
            "dir": shown, "journal": store, "made": made, "files": files, "bytes": bytes,
            "events": events, "pending": pending, "dead": dead, "damaged": damaged,
        });
        writeln!(io::stdout(), "{report:#}")?;
        return Ok(ExitCode::SUCCESS);
    }
    anstream::println!(
        "{}: {files} files, {}, of journal {store} at {made}\n{events} events; {pending} deliveries wait, {dead} are dead",
        text::plain(&shown),
        size(bytes),
    );
    if damaged > 0 {
        anstream::println!("{damaged} parts of it were damaged or missing before the backup: what was in them is lost");
    }
    Ok(ExitCode::SUCCESS)
}

/// Where it is unpacked, inside of the journal's directory: that may be a mount point, or stand where nothing can be made.
const RESTORING: &str = ".restoring";
/// The file that makes a directory a journal's.
const META: &str = "journal.meta";
/// What a directory may have that has no journal: a file system's own, and a lock that nobody holds.
const NOTHING: [&str; 2] = ["lost+found", "lock"];

/// Nothing is ever restored over something else.
fn vacant(dir: &Path) -> anyhow::Result<()> {
    let unseen = || format!("{} cannot be looked into", dir.display());
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(unseen)?,
    };
    for entry in entries {
        let name = entry.with_context(unseen)?.file_name();
        if name == RESTORING {
            let path = dir.join(name);
            bail!("{} is there: another restore runs, or was killed; remove it if none runs", path.display());
        }
        if NOTHING.iter().all(|nothing| name != *nothing) {
            let cure = "restore into another directory with --dir, or move what is in it away first";
            return Err(Usage(anyhow::anyhow!("{} is not empty; {cure}", dir.display())).into());
        }
    }
    Ok(())
}

/// The directory while it is not whole, which nobody else may open; dropped, all that was made of it is removed.
struct Unpacked<'a> {
    dir: &'a Path,
    /// Where everything is at first.
    path: PathBuf,
    /// Whether the directory is new.
    is_new: bool,
    /// What has its place in the directory.
    moved: RefCell<Vec<PathBuf>>,
    done: Cell<bool>,
    _lock: Lock,
}

impl<'a> Unpacked<'a> {
    fn create(dir: &'a Path) -> anyhow::Result<Self> {
        let is_new = !dir.exists();
        let lock = Lock::take(dir)?;
        let path = dir.join(RESTORING);
        let unpacked = Self { dir, path, is_new, moved: RefCell::default(), done: Cell::new(false), _lock: lock };
        let parts = PARTS.map(|part| unpacked.path.join(part));
        for path in std::iter::once(&unpacked.path).chain(&parts) {
            DirBuilder::new().mode(0o700).create(path).with_context(|| format!("{} cannot be made", path.display()))?;
        }
        Ok(unpacked)
    }

    /// A new file, flushed when it is whole.
    fn file(&self, name: &str) -> io::Result<Flushed> {
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path.join(name))?;
        Ok(Flushed(options))
    }

    /// Gives everything its place, durably. `journal.meta` is the last: without, segments are refused.
    fn finish(&self) -> anyhow::Result<()> {
        let unwritten = || format!("{} cannot be written", self.dir.display());
        self.move_up().with_context(unwritten)?;
        self.done.set(true);
        let _ = fs::remove_dir_all(&self.path); // empty
        match self.is_new {
            true => sync(self.dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))),
            false => Ok(()),
        }
        .with_context(unwritten)
    }

    fn move_up(&self) -> io::Result<()> {
        fs::remove_file(self.path.join("lock"))?; // of reading it back
        for part in PARTS {
            sync(&self.path.join(part))?;
        }
        sync(&self.path)?;
        let names: io::Result<Vec<_>> = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name())).collect();
        for name in names?.into_iter().filter(|name| name != META) {
            self.move_one(Path::new(&name))?;
        }
        sync(self.dir)?;
        self.move_one(Path::new(META))?;
        sync(self.dir)
    }

    fn move_one(&self, name: &Path) -> io::Result<()> {
        let to = self.dir.join(name);
        if to.symlink_metadata().is_ok() {
            return Err(io::Error::other(format!("something made {} meanwhile", to.display())));
        }
        fs::rename(self.path.join(name), &to)?;
        self.moved.borrow_mut().push(to);
        Ok(())
    }
}

/// The directories in a journal's directory that a backup has files of.
const PARTS: [&str; 2] = ["log", "claims"];

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl Drop for Unpacked<'_> {
    fn drop(&mut self) {
        if self.done.get() {
            return;
        }
        for path in self.moved.borrow_mut().drain(..).rev() {
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
        let _ = fs::remove_dir_all(&self.path); // what stays is named when it is in the way
        let _ = fs::remove_file(self.dir.join("lock"));
        if self.is_new {
            let _ = fs::remove_dir(self.dir);
        }
    }
}

struct Flushed(File);

impl Write for Flushed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }
}

struct Counted<R> {
    from: R,
    progress: Progress,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.progress.add(count);
        Ok(count)
    }
}
