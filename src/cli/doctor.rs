//! `forebay doctor`: whether this machine can run what the config asks for; `--crash` tries it.

mod crash;
mod disk;
mod flush;
mod keys;
mod network;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use super::text::{plain, table};
use crate::base::{Clock as _, SystemClock, UnixMillis, format_duration};
use crate::config::{Config, Problem, Problems, Severity};

pub(super) use network::destinations;

/// Checks the config and the machine: disk, clock, limits, addresses, and with `--connect` the destinations.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Connect to every destination, too
    #[arg(long)]
    connect: bool,
    /// Print JSON for a program
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    crash: crash::CrashArgs,
}

impl Args {
    /// How often `--crash` kills, if it is asked for.
    pub(super) fn kills(&self) -> Option<u32> {
        self.crash.crash
    }

    /// The directory that `--dir` names.
    pub(super) fn dir(&self) -> Option<PathBuf> {
        self.crash.dir.clone()
    }
}

/// Kills a gateway `kills` times on a scratch journal in `dir`. Exit codes: 0 where everything held, 1 otherwise.
///
/// # Errors
/// What keeps it from trying.
pub(super) async fn crash(args: &Args, kills: u32, dir: &Path) -> anyhow::Result<ExitCode> {
    crash::run(&args.crash, kills, dir, args.json).await
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug)]
pub(super) struct Check {
    what: String,
    pub(super) verdict: Verdict,
    detail: String,
    /// What to do about it; empty where there is nothing to do.
    cure: String,
}

impl Check {
    fn ok(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Ok, detail: detail.into(), cure: String::new() }
    }

    fn warn(what: impl Into<String>, detail: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Warn, detail: detail.into(), cure: cure.into() }
    }

    fn fail(what: impl Into<String>, detail: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Fail, detail: detail.into(), cure: cure.into() }
    }
}

/// Runs the command with a config that has been read; `warnings` are what reading it brought up. Exit codes: 0 where
/// nothing fails, 1 otherwise.
///
/// # Errors
/// The standard output cannot be written.
pub async fn run(args: Args, file: &Path, config: Config, warnings: &[Problem]) -> anyhow::Result<ExitCode> {
    let begun = (Instant::now(), SystemClock.now());
    let mut checks = vec![configured(file, &config, warnings), secrets(&config)];
    let holder = disk::checks(&config.journal, &mut checks);
    checks.push(keys::check(&config.journal));
    checks.push(disk::open_files(config.ingress.limits.connections));
    let gateway = network::addresses(&config, holder, &mut checks).await;
    let mut dates = Vec::from_iter(gateway.map(|date| ("the running gateway".to_owned(), date)));
    if args.connect {
        let (reached, more) = destinations(&config.destinations).await;
        checks.extend(reached);
        dates.extend(more);
    }
    checks.extend(clock(begun, disk::newest(&config.journal.dir), &dates));
    print(&checks, args.json)?;
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints the report where the config cannot be used, as JSON: nothing else can be checked.
///
/// # Errors
/// The standard output cannot be written.
pub(super) fn print_unusable(file: &Path, Problems(problems): &Problems) -> std::io::Result<()> {
    let cure = match file.exists() {
        true => "mend it".to_owned(),
        false => format!("`forebay init {}` writes a first one", file.display()),
    };
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    let checks = errors.map(|problem| Check::fail("config", problem.to_string(), cure.as_str()));
    print(&Vec::from_iter(checks), true)
}

/// Prints the report: a table for a person, JSON for a program.
pub(super) fn print(checks: &[Check], as_json: bool) -> std::io::Result<()> {
    let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
    let mut out = std::io::stdout().lock();
    if as_json {
        let checks: Vec<_> = checks.iter().map(json).collect();
        return writeln!(out, "{:#}", json!({ "verdict": worst.as_str(), "checks": checks }));
    }
    let rows = checks.iter().map(|check| {
        let detail = match check.cure.as_str() {
            "" => check.detail.clone(),
            cure => format!("{}; {cure}", check.detail),
        };
        [plain(check.verdict.as_str()), plain(&check.what), plain(&detail)]
    });
    write!(out, "{}", table(["VERDICT", "WHAT", "DETAIL"], rows))
}

/// One line as JSON.
pub(super) fn json(check: &Check) -> serde_json::Value {
    let Check { what, verdict, detail, cure } = check;
    let cure = Some(cure).filter(|cure| !cure.is_empty());
    json!({ "what": what, "verdict": verdict.as_str(), "detail": detail, "cure": cure })
}

fn configured(file: &Path, config: &Config, warnings: &[Problem]) -> Check {
    let (file, sources, destinations) = (file.display(), config.sources.len(), config.destinations.len());
    match warnings {
        [] => Check::ok("config", format!("{file}: {sources} sources, {destinations} destinations")),
        [only] => Check::warn("config", only.to_string(), ""),
        several => Check::warn("config", format!("{file}: {} warnings", several.len()), "`forebay check` lists them"),
    }
}

/// A secret shorter than this can be guessed.
const SECRET_BYTES: usize = 16;

fn secrets(config: &Config) -> Check {
    let mut weak = Vec::new();
    let mut count = 0;
    for source in &config.sources {
        for (slot, keys) in &source.keyring.0 {
            count += keys.len();
            let short = keys.iter().any(|key| key.secret.len() < SECRET_BYTES);
            weak.extend(short.then(|| format!("sources.{}.{slot}", source.name)));
        }
    }
    if weak.is_empty() {
        return Check::ok("secrets", format!("{count} are there, each of {SECRET_BYTES} bytes or more"));
    }
    let detail = format!("shorter than {SECRET_BYTES} bytes: {}", weak.join(", "));
    Check::warn("secrets", detail, "make longer ones: whoever guesses one can forge webhooks")
}

/// Signed timestamps are compared with the clock, mostly to five minutes; a tenth of it is the first sign of trouble.
const CLOCK_OFF: Duration = Duration::from_secs(30);
const CLOCK_WRONG: Duration = Duration::from_secs(150);

/// 2025-01-01T00:00:00Z: a clock before this was never set.
const LONG_AGO: UnixMillis = UnixMillis(1_735_689_600_000);

const SET_CLOCK: &str = "let NTP set the clock (`timedatectl`): signatures with a time in them are refused otherwise";

/// Compares the wall clock with whatever else knows the time.
fn clock(
    (started, then): (Instant, UnixMillis),
    newest: Option<UnixMillis>,
    dates: &[(String, UnixMillis)],
) -> Vec<Check> {
    let (took, now) = (started.elapsed(), SystemClock.now());
    let expected = then.plus(took);
    let jumped = now.since(expected).max(expected.since(now));
    let mut checks = Vec::new();
    checks.push(match newest {
        _ if now < LONG_AGO => Check::fail("clock", format!("it shows {now}: it was never set"), SET_CLOCK),
        _ if jumped > Duration::from_millis(250) => {
            let detail = format!("it jumped by {} while this ran", format_duration(jumped));
            Check::warn("clock", detail, "something sets it in steps: let NTP slew it")
        }
        Some(newest) if newest.since(now) > CLOCK_OFF => {
            let ahead = format_duration(Duration::from_secs(newest.since(now).as_secs()));
            let detail = format!("the journal was written to {ahead} after the {now} that it shows: it was set back");
            Check::fail("clock", detail, SET_CLOCK)
        }
        Some(newest) => {
            let age = format_duration(Duration::from_secs(now.since(newest).as_secs()));
            Check::ok("clock", format!("it shows {now}, {age} after the journal was last written to"))
        }
        None => Check::ok("clock", format!("it shows {now}")),
    });
    for (whose, date) in dates {
        let off = now.since(*date).max(date.since(now));
        let off = Duration::from_secs(off.as_secs()); // the header has whole seconds
        let way = if now >= *date { "behind" } else { "ahead of" };
        let detail = format!("the clock of {whose} is {} {way} this one", format_duration(off));
        let what = format!("clock of {whose}");
        checks.push(match off {
            off if off > CLOCK_WRONG => Check::fail(what, detail, SET_CLOCK),
            off if off > CLOCK_OFF => Check::warn(what, detail, SET_CLOCK),
            _ => Check::ok(what, detail),
        });
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(newest: Option<Duration>, date: Option<Duration>) -> Vec<Verdict> {
        let now = SystemClock.now();
        let dates: Vec<_> = date.map(|ahead| ("app".to_owned(), now.plus(ahead))).into_iter().collect();
        let checks = clock((Instant::now(), now), newest.map(|ahead| now.plus(ahead)), &dates);
        checks.iter().map(|check| check.verdict).collect()
    }

    #[test]
    fn a_clock_is_judged_by_whatever_else_knows_the_time() {
        let minutes = |count: u64| Some(Duration::from_secs(60 * count));
        assert_eq!(verdict(None, None), [Verdict::Ok]);
        assert_eq!(verdict(Some(Duration::ZERO), minutes(0)), [Verdict::Ok, Verdict::Ok]);
        assert_eq!(verdict(minutes(10), minutes(1)), [Verdict::Fail, Verdict::Warn]);
        assert_eq!(verdict(None, minutes(5)), [Verdict::Ok, Verdict::Fail]);
        let jumped = clock((Instant::now(), SystemClock.now().minus(Duration::from_secs(3))), None, &[]);
        assert_eq!(jumped[0].verdict, Verdict::Warn);
    }
}
