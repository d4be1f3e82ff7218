//! `forebay backup`: a running gateway's journal, or a stopped one's, as one file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::BodyExt as _;

use super::client::AdminArgs;
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
    if to.exists() && !args.force {
        let error =
            anyhow::anyhow!("{} is there already; write elsewhere with --to, or over it with --force", to.display());
        return Err(Usage(error).into());
    }
    let part = Part::create(&to)?;
    let made = match &args.dir {
        None => ask(&args, settings, &part).await,
        Some(dir) => match Stopped::open(dir, made_at) {
            Ok(stopped) => copy(&stopped, &part),
            Err(error @ OpenError::Locked { .. }) => {
                anstream::eprintln!("forebay: {error}; a running gateway's journal is backed up without --dir");
                return Ok(ExitCode::from(3));
            }
            Err(error) => Err(error.into()),
        },
    };
    let Contents { files, bytes, .. } = made.and_then(|()| part.check())?;
    part.finish(&to)?;
    anstream::println!("{}: {files} files, {}", text::plain(&to.display().to_string()), size(bytes));
    Ok(ExitCode::SUCCESS)
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

/// The file while it is not whole; dropped, it is removed.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    fn create(to: &Path) -> anyhow::Result<Self> {
        let mut path = to.to_owned().into_os_string();
        path.push(".part");
        let path = PathBuf::from(path);
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = options.with_context(|| format!("{} cannot be written", path.display()))?;
        rustix::fs::fchmod(&file, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).context("its mode cannot be set")?;
        Ok(Self { path, file })
    }

    fn writer(&self) -> BufWriter<&File> {
        BufWriter::with_capacity(1 << 20, &self.file)
    }

    fn unwritten(&self) -> String {
        format!("{} cannot be written", self.path.display())
    }

    /// Reads it back.
    fn check(&self) -> anyhow::Result<Contents> {
        let file = File::open(&self.path).with_context(|| format!("{} cannot be read back", self.path.display()))?;
        archive::read(&mut BufReader::with_capacity(1 << 20, file), |_| Ok(io::sink())).context("there is no backup")
    }

    /// Gives it its name, durably.
    fn finish(self, to: &Path) -> anyhow::Result<()> {
        let unwritten = || format!("{} cannot be written", to.display());
        self.file.sync_all().with_context(unwritten)?;
        std::fs::rename(&self.path, to).with_context(unwritten)?;
        let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).with_context(unwritten)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // it has its name by now, or is not whole
    }
}
