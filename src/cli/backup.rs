//! `forebay backup`: a running gateway's journal, or a stopped one's, as one file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek as _, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::BodyExt as _;
use serde_json::json;

use super::client::AdminArgs;
use super::interrupt::Signals;
use super::progress::Progress;
use super::{Usage, text};
use crate::admin;
use crate::base::{Clock as _, SystemClock};
use crate::journal::archive::{self, Contents};
use crate::journal::log::{OpenError, Stopped};

/// How long the gateway may give nothing; it cuts off whoever takes nothing for as long.
const STALLED: Duration = Duration::from_secs(60);

/// Writes all that a gateway has kept into one file.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The file; `forebay-backup-TIME.tar` here where nothing is said
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Back up the journal in this directory, which no gateway runs on, instead of a running gateway's
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Args {
    /// Whether a gateway is asked.
    #[must_use]
    pub fn asks_a_gateway(&self) -> bool {
        self.dir.is_none()
    }
}

/// Runs the command; `settings` are the config's, if there is a config.
///
/// # Errors
/// Why there is no backup; nothing is left then.
pub async fn run(args: Args, settings: Option<&admin::Settings>) -> anyhow::Result<ExitCode> {
    let made_at = SystemClock.now();
    let to = args.to.clone().unwrap_or_else(|| PathBuf::from(named(&made_at.to_string())));
    can_be_written(&to, args.force).map_err(Usage)?;
    let stopped = match args.dir.as_deref().map(|dir| Stopped::open(dir, made_at)).transpose() {
        Ok(stopped) => stopped,
        Err(error @ OpenError::Locked { .. }) => {
            anstream::eprintln!("forebay: {error}; a running gateway's journal is backed up without --dir");
            return Ok(ExitCode::from(3));
        }
        Err(error) => return Err(error.into()),
    };
    let mut signals = Signals::new().context("signals cannot be waited for")?;
    let part = Arc::new(Part::create(&to)?);
    let made = signals.unless(async {
        let _given_up = GivenUp(&part);
        match stopped {
            None => ask(&args, settings, &part).await?,
            Some(stopped) => aside(&part, move |part| copy(&stopped, part)).await?,
        }
        aside(&part, Part::check).await
    });
    let Contents { store, made, files, bytes } = made.await?;
    part.finish(&to, args.force)?;
    let shown = to.display().to_string();
    if args.json {
        let report = json!({ "file": shown, "journal": store, "made": made, "files": files, "bytes": bytes });
        writeln!(io::stdout(), "{report:#}")?;
    } else {
        anstream::println!("{}: {files} files, {}", text::plain(&shown), size(bytes));
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a backup may get this name, before it is made; [`Part::finish`] asks again.
fn can_be_written(to: &Path, force: bool) -> anyhow::Result<()> {
    if to == Path::new("-") {
        bail!("--to names a file: a backup is read back before it gets its name; `./-` is a file, too");
    }
    let Ok(facts) = to.symlink_metadata() else { return Ok(()) }; // if that is wrong, making the file says why
    if !facts.is_file() && !facts.is_symlink() {
        bail!("{} is there, and not a file; name one with --to", to.display());
    }
    if !force {
        bail!("{} is there already; write elsewhere with --to, or over it with --force", to.display());
    }
    Ok(())
}

/// Does something long with `part` that waits for the disk. Dropped, it goes on until it next touches the part.
async fn aside<T: Send + 'static>(
    part: &Arc<Part>,
    job: impl FnOnce(&Part) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let part = Arc::clone(part);
    tokio::task::spawn_blocking(move || job(&part)).await.context("it ended in the middle")?
}

fn named(made_at: &str) -> String {
    let seconds = made_at.split('.').next().unwrap_or_default();
    format!("forebay-backup-{}Z.tar", seconds.replace([':', '-'], "").replace('T', "-"))
}

/// In words: the largest unit, rounded down.
pub(super) fn size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.into_iter().find(|(_, bits)| bytes >> bits > 0);
    unit.map_or_else(|| format!("{bytes} bytes"), |(name, bits)| format!("{} {name}", bytes >> bits))
}

async fn ask(args: &Args, settings: Option<&admin::Settings>, part: &Part) -> anyhow::Result<()> {
    let client = args.admin.client(settings)?;
    let answer = client.follow("/api/v1/backup", &[], None).await?;
    let expected = answer.headers().get(admin::BACKUP_SIZE).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut progress = Progress::new("backing up", expected.unwrap_or(0));
    let mut out = part.writer();
    let mut body = answer.into_body();
    loop {
        let Ok(frame) = tokio::time::timeout(STALLED, body.frame()).await else {
            bail!("the gateway gave nothing more for {} s", STALLED.as_secs());
        };
        let Some(frame) = frame else { break };
        let frame = frame.context("the gateway ended the connection before the backup was whole; its log says why")?;
        if let Ok(piece) = frame.into_data() {
            out.write_all(&piece).with_context(|| part.unwritten())?;
            progress.add(piece.len());
        }
    }
    out.flush().with_context(|| part.unwritten())
}

fn copy(stopped: &Stopped, part: &Part) -> anyhow::Result<()> {
    let mut progress = Progress::new("backing up", stopped.plan.bytes());
    let mut out = part.writer();
    stopped.plan.write(&stopped.disk, |_| {}, &mut |piece| {
        progress.add(piece.len());
        out.write_all(&piece)
    })?;
    out.flush().with_context(|| part.unwritten())
}

/// The file while it is not whole. It is nobody else's; dropped, it is removed.
struct Part {
    path: PathBuf,
    file: File,
    given_up: AtomicBool,
}

/// Dropped, nothing more is written to the part, nor read of it.
struct GivenUp<'a>(&'a Part);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.0.given_up.store(true, Ordering::Relaxed);
    }
}

impl Part {
    fn create(to: &Path) -> anyhow::Result<Self> {
        loop {
            let mut path = to.to_owned().into_os_string();
            path.push(format!(".{:08x}.part", fastrand::u32(..)));
            let path = PathBuf::from(path);
            let file = match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue, // another one's
                other => other.with_context(|| format!("{} cannot be written", path.display()))?,
            };
            return Ok(Self { path, file, given_up: AtomicBool::new(false) });
        }
    }

    fn writer(&self) -> BufWriter<&Self> {
        BufWriter::with_capacity(1 << 20, self)
    }

    fn unwritten(&self) -> String {
        format!("{} cannot be written", self.path.display())
    }

    /// Reads it back.
    fn check(&self) -> anyhow::Result<Contents> {
        (&self.file).rewind().with_context(|| format!("{} cannot be read back", self.path.display()))?;
        archive::read(&mut BufReader::with_capacity(1 << 20, self), |_| Ok(io::sink())).context("there is no backup")
    }

    /// Whether its path still leads to it.
    fn is_there(&self) -> io::Result<bool> {
        let (ours, there) = (self.file.metadata()?, self.path.symlink_metadata()?);
        Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino()))
    }

    /// Gives it its name, durably; over a file that is there only by `force`.
    fn finish(&self, to: &Path, force: bool) -> anyhow::Result<()> {
        let unwritten = || format!("{} cannot be written", to.display());
        self.file.sync_all().with_context(unwritten)?;
        if !self.is_there().unwrap_or(false) {
            bail!("{} was taken away while it was written: there is no backup", self.path.display());
        }
        if force {
            std::fs::rename(&self.path, to).with_context(unwritten)?;
        } else {
            rename_new(&self.path, to).with_context(unwritten)?;
        }
        let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).with_context(unwritten)
    }

    fn go_on(&self) -> io::Result<()> {
        if self.given_up.load(Ordering::Relaxed) { Err(io::Error::other("it was given up")) } else { Ok(()) }
    }
}

impl Write for &Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.go_on()?;
        (&self.file).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.file).flush()
    }
}

impl Read for &Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.go_on()?;
        (&self.file).read(buffer)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.is_there().unwrap_or(false) {
            let _ = std::fs::remove_file(&self.path); // it is not whole; with its own name it is no longer there
        }
    }
}

/// Renames a file, never over another one.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {} // not on this file system
            other => return Ok(other?),
        }
    }
    std::fs::hard_link(from, to)?;
    std::fs::remove_file(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn two_backups_to_one_name_leave_each_other_alone() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("b.tar");
        let (first, second, third) =
            (Part::create(&to).unwrap(), Part::create(&to).unwrap(), Part::create(&to).unwrap());
        (&first).write_all(b"first").unwrap();
        (&second).write_all(b"second").unwrap();
        drop(third); // it failed
        first.finish(&to, false).unwrap();
        let error = second.finish(&to, false).unwrap_err();
        assert!(format!("{error:#}").contains("exists"), "{error:#}");
        drop((first, second));
        assert_eq!(names(dir.path()), ["b.tar"]);
        assert_eq!(std::fs::read(&to).unwrap(), b"first");
        let over = Part::create(&to).unwrap();
        over.finish(&to, true).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"");
    }

    #[test]
    fn a_part_that_somebody_took_the_name_of_is_neither_renamed_nor_removed() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("b.tar");
        let part = Part::create(&to).unwrap();
        std::fs::remove_file(&part.path).unwrap();
        std::fs::write(&part.path, "another's").unwrap();
        assert!(part.finish(&to, true).unwrap_err().to_string().contains("taken away"));
        drop(part);
        assert!(matches!(&names(dir.path())[..], [only] if only.ends_with(".part")));
    }

    #[test]
    fn only_a_file_is_written_over_and_never_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        for (to, force, fits) in [
            (&link, false, false),
            (&link, true, true),
            (&dir.path().to_owned(), true, false),
            (&"-".into(), true, false),
        ] {
            assert_eq!(can_be_written(to, force).is_ok(), fits, "{}", to.display());
        }
    }

    #[test]
    fn nothing_is_written_or_read_once_it_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let part = Part::create(&dir.path().join("b.tar")).unwrap();
        drop(GivenUp(&part));
        assert!((&part).write_all(b"x").is_err() && part.check().is_err());
    }
}
