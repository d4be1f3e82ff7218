//! `forebay doctor --crash N`: a gateway on a scratch journal is killed under load again and again, and nothing that it
//! acknowledged may be gone.

mod app;
mod books;
mod gateway;
mod sender;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use self::app::App;
use self::books::{Books, Broken};
use self::gateway::{Gateway, Scratch};
use self::sender::Sender;
use super::super::client::http_client;
use super::super::interrupt::Signals;
use super::super::text::plain;

/// Who sends at the same time.
const SENDERS: usize = 8;
/// How long a gateway is under load before it is killed: a random time up to this, every other time counted from its first
/// answer, so that a slow machine has something to lose, too.
const LIFE_MAX: Duration = Duration::from_millis(250);
/// How long that first answer is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Once nothing has arrived for so long, nothing more will: deliveries are retried every 100 ms.
const QUIET: Duration = Duration::from_secs(10);
/// Acknowledged webhooks that are sent once more at the end.
const SENT_AGAIN: usize = 50;

/// What `--crash` takes besides the number.
#[derive(Clone, Debug, clap::Args)]
pub struct CrashArgs {
    /// Kill a gateway of this program under load, N times, on a scratch journal, and check that nothing is lost
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "connect")]
    pub(in super::super) crash: Option<u32>,
    /// Where the scratch journal of `--crash` is made, instead of beside the config's journal.dir
    #[arg(long, value_name = "DIR", requires = "crash")]
    pub(in super::super) dir: Option<PathBuf>,
    /// The program that `--crash` kills, instead of this one
    #[arg(long, value_name = "PROGRAM", requires = "crash")]
    gateway: Option<PathBuf>,
}

/// Kills it `kills` times in `dir`, and reports. Exit codes: 0 where everything held, 1 otherwise.
///
/// # Errors
/// What keeps it from trying: the directory, the program, a gateway that does not start; a signal to stop. The gateway and the
/// scratch journal are gone then.
pub async fn run(args: &CrashArgs, kills: u32, dir: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    Signals::new().context("signals cannot be waited for")?.unless(attempt(args, kills, dir, as_json)).await
}

async fn attempt(args: &CrashArgs, kills: u32, dir: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let program = match &args.gateway {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("this program does not know where it is; name it with --gateway")?,
    };
    let books = Arc::new(Books::default());
    let app = App::start(Arc::clone(&books)).await?;
    let scratch = Scratch::new(dir, app.address)?;
    let met = kill(kills, &program, &scratch, &books).await?;
    let gateway = Gateway::start(&program, &scratch).await.context("after the last kill")?;
    send_again(&gateway, &books).await?;
    books.let_all_arrive();
    let dead = settle(&gateway, &books).await?;
    drop(gateway);
    drop(app);
    let broken = books.broken(&dead);
    let good = broken.is_none();
    print(&report(kills, met, dead.len(), broken, &books, dir, began.elapsed()), as_json)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How many of the kills met a request under way.
async fn kill(kills: u32, program: &Path, scratch: &Scratch, books: &Arc<Books>) -> anyhow::Result<u32> {
    let mut met = 0;
    for done in 0..kills {
        progress(done, kills);
        let gateway = Gateway::start(program, scratch).await.with_context(|| format!("after {done} kills"))?;
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            let sender = Sender::new(http_client()?, &gateway.ingress, Arc::clone(books));
            senders.spawn(sender.send_until_it_dies());
        }
        if done % 2 == 1 {
            let (answers, began) = (books.answers(), Instant::now());
            while books.answers() == answers && began.elapsed() < ANSWER_MAX {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        tokio::time::sleep(LIFE_MAX.mul_f64(fastrand::f64())).await;
        met += u32::from(books.under_way() > 0);
        drop(gateway); // kill -9
        while senders.join_next().await.is_some() {} // each has noticed
    }
    progress(kills, kills);
    Ok(met)
}

/// Sends some of what was acknowledged once more: it has to be known.
async fn send_again(gateway: &Gateway, books: &Arc<Books>) -> anyhow::Result<()> {
    let sender = Sender::new(http_client()?, &gateway.ingress, Arc::clone(books));
    let mut known = books.acknowledged();
    fastrand::shuffle(&mut known);
    for number in known.into_iter().take(SENT_AGAIN) {
        sender.send(number).await.map_err(|()| anyhow::anyhow!("the gateway does not answer a webhook sent again"))?;
    }
    Ok(())
}

/// Waits until everything that was acknowledged has arrived or is a dead letter, or nothing has arrived for [`QUIET`].
/// Gives the dead letters.
async fn settle(gateway: &Gateway, books: &Books) -> anyhow::Result<Vec<String>> {
    let mut last = (books.arrivals(), Instant::now());
    loop {
        let dead = gateway.dead_letters().await?;
        let arrivals = books.arrivals();
        if arrivals != last.0 {
            last = (arrivals, Instant::now());
        }
        if books.lost(&dead) == 0 || last.1.elapsed() > QUIET {
            return Ok(dead);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn report(
    kills: u32,
    met: u32,
    dead: usize,
    broken: Option<Broken>,
    books: &Books,
    dir: &Path,
    took: Duration,
) -> Vec<(&'static str, Value)> {
    let verdict = if broken.is_none() { "ok" } else { "fail" };
    let Broken { lost, wrong_bytes, invented, numbers_not_rising, forgotten } = broken.unwrap_or_default();
    let counts = books.counts();
    vec![
        ("verdict", json!(verdict)),
        ("dir", json!(dir.display().to_string())),
        ("kills", json!(kills)),
        ("kills_with_a_request_under_way", json!(met)),
        ("acknowledged", json!(counts.acknowledged)),
        ("delivered", json!(counts.delivered)),
        ("dead_letters", json!(dead)),
        ("attempts", json!(counts.attempts)),
        ("duplicates_recognised", json!(counts.duplicates)),
        ("refused", json!(counts.refused)),
        ("lost", json!(lost)),
        ("wrong_bytes", json!(wrong_bytes)),
        ("invented", json!(invented)),
        ("duplicates_forgotten", json!(forgotten)),
        ("attempt_numbers_not_rising", json!(numbers_not_rising)),
        ("seconds", json!((took.as_secs_f64() * 10.0).round() / 10.0)),
    ]
}

fn print(report: &[(&str, Value)], as_json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        let all: serde_json::Map<_, _> =
            report.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        return writeln!(out, "{:#}", Value::Object(all));
    }
    for (name, value) in report {
        let value = value.as_str().map_or_else(|| value.to_string(), plain);
        writeln!(out, "{:<32} {value}", name.replace('_', " "))?;
    }
    Ok(())
}

/// A bar on a person's terminal.
fn progress(done: u32, of: u32) {
    const WIDTH: u32 = 40;
    let mut terminal = std::io::stderr().lock();
    if terminal.is_terminal() {
        let full = usize::try_from(u64::from(done) * u64::from(WIDTH) / u64::from(of.max(1))).unwrap_or(0);
        let end = if done == of { "\n" } else { "" };
        let _ = write!(terminal, "\r[{:<40}] {done} of {of} kills{end}", "#".repeat(full)); // only for show
        let _ = terminal.flush();
    }
}
