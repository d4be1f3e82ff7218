//! `forebay restore`: a backup back into a directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};

use super::progress::Progress;
use super::{Usage, backup::size, text};
use crate::base::SystemClock;
use crate::journal::archive::{self, Contents};
use crate::journal::log::{self, Survey};

/// Unpacks a backup into a new journal's directory.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What `forebay backup` wrote
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// The journal's directory, which must be missing or empty; the config's `journal.dir` where it is not given
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

/// Restores into `dir`.
///
/// # Errors
/// Why it is not; nothing is left then.
pub fn run(args: &Args, dir: &Path) -> anyhow::Result<ExitCode> {
    vacant(dir)?;
    let file = File::open(&args.from).with_context(|| format!("{} cannot be opened", args.from.display()))?;
    let all = file.metadata().map_or(0, |facts| facts.len());
    let unpacked = Unpacked::create(dir)?;
    let mut from = Counted { from: BufReader::with_capacity(1 << 20, file), progress: Progress::new("restoring", all) };
    let contents = archive::read(&mut from, |name| unpacked.file(name));
    let Contents { store, made, files, bytes } = contents.with_context(|| format!("{}", args.from.display()))?;
    drop(from);
    let Survey { events, pending, dead, damaged } =
        log::survey(&unpacked.path, Arc::new(SystemClock)).context("what was restored cannot be opened")?;
    unpacked.finish(dir)?;
    anstream::println!(
        "{}: {files} files, {}, of journal {store} at {made}\n{events} events; {pending} deliveries wait, {dead} are dead",
        text::plain(&dir.display().to_string()),
        size(bytes),
    );
    if damaged > 0 {
        anstream::println!("{damaged} parts of it were damaged or missing before the backup: what was in them is lost");
    }
    Ok(ExitCode::SUCCESS)
}

/// Nothing is ever restored over something else.
fn vacant(dir: &Path) -> anyhow::Result<()> {
    match fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(false) => Ok(()),
        Ok(true) => {
            let error = anyhow::anyhow!(
                "{} is not empty; restore into another directory with --dir, or move it away first",
                dir.display()
            );
            Err(Usage(error).into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("{} cannot be looked into", dir.display())),
    }
}

/// The directory while it is not whole; dropped, it is removed.
struct Unpacked {
    path: PathBuf,
    done: std::cell::Cell<bool>,
}

impl Unpacked {
    fn create(dir: &Path) -> anyhow::Result<Self> {
        let name = dir.file_name().with_context(|| format!("{} is no directory's name", dir.display()))?;
        let mut name = name.to_owned();
        name.push(".restoring");
        let path = dir.with_file_name(name);
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mode = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .with_context(|| format!("{} cannot be made", parent.display()))?;
        match mode(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("{} is there: another restore runs, or was killed; remove it if none runs", path.display())
            }
            made => made.with_context(|| format!("{} cannot be made", path.display()))?,
        }
        let unpacked = Self { path, done: std::cell::Cell::new(false) };
        for part in PARTS {
            mode(&unpacked.path.join(part)).with_context(|| format!("{} cannot be made", unpacked.path.display()))?;
        }
        Ok(unpacked)
    }

    /// A new file, flushed when it is whole.
    fn file(&self, name: &str) -> io::Result<Flushed> {
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path.join(name))?;
        Ok(Flushed(options))
    }

    /// Gives it its name, durably. An empty directory of that name is taken over.
    fn finish(&self, dir: &Path) -> anyhow::Result<()> {
        let unwritten = || format!("{} cannot be written", dir.display());
        let sync = |path: &Path| File::open(path).and_then(|dir| dir.sync_all());
        for part in PARTS {
            sync(&self.path.join(part)).with_context(unwritten)?;
        }
        sync(&self.path).with_context(unwritten)?;
        fs::rename(&self.path, dir).with_context(unwritten)?;
        self.done.set(true);
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync(parent).with_context(unwritten)
    }
}

/// The directories in a journal's directory that a backup has files of.
const PARTS: [&str; 2] = ["log", "claims"];

impl Drop for Unpacked {
    fn drop(&mut self) {
        if !self.done.get() {
            let _ = fs::remove_dir_all(&self.path); // what stays is named when it is in the way
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
