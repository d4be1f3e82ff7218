//! `forebay events` and `forebay dead-letters`: what a running gateway keeps.

mod render;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use http::StatusCode;
use serde_json::json;

use super::Usage;
use super::client::{AdminArgs, AdminClient, Refused, Reply};
use super::text::plain;
use crate::admin;
use crate::event::EventId;

/// Looks at the events of a running gateway, and sends them again.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Lists events, newest first
    List(ListArgs),
    /// Shows one event: its headers, its deliveries with their attempts, and what was decided about it
    Show(ShowArgs),
    /// Sends an event again: every delivery that is delivered, dead or orphaned
    Replay(ReplayArgs),
    /// Erases an event for good: what its sender wrote and what was answered. What waits of it is not delivered any more
    Erase(EraseArgs),
}

/// Looks at the events that could not be delivered.
#[derive(Clone, Debug, clap::Args)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    command: DeadLettersCommand,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum DeadLettersCommand {
    /// Lists events with a dead delivery, newest first
    List(FilterArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct ListArgs {
    /// Only events that stand like this: dead, pending, delivered, unrouted, captured, refused_by_app or erased; or with a delivery
    /// that is orphaned
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Clone, Debug, clap::Args)]
struct FilterArgs {
    /// Only events of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only events that go to this destination
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// Only events of exactly this type, e.g. `push`
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only events received at this time or later: `2026-01-31T12:00:00Z`, or `1h` ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only events received before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only events with this text in their id, the provider's id, the type or the path
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    /// Go on where a page before ended; it says so below its table
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Print the page as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct ShowArgs {
    /// The event, `evt_…`
    id: EventId,
    /// Print the event as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct ReplayArgs {
    /// The event, `evt_…`
    id: EventId,
    /// Only its delivery to this destination
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// Print what was replayed as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct EraseArgs {
    /// The event, `evt_…`
    id: EventId,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print what was erased as JSON
    #[arg(long)]
    json: bool,
}

impl FilterArgs {
    fn query(&self, status: Option<&String>) -> Vec<(&'static str, String)> {
        let given = [
            ("source", self.source.as_ref()),
            ("destination", self.destination.as_ref()),
            ("status", status),
            ("type", self.kind.as_ref()),
            ("since", self.since.as_ref()),
            ("until", self.until.as_ref()),
            ("q", self.q.as_ref()),
            ("cursor", self.cursor.as_ref()),
        ];
        let mut query: Vec<_> =
            given.into_iter().filter_map(|(name, value)| value.map(|value| (name, value.clone()))).collect();
        query.push(("limit", self.limit.to_string()));
        query
    }
}

/// Runs `forebay events`; `settings` are the config's, if there is a config.
///
/// # Errors
/// What keeps it from asking the gateway. What the gateway refuses is printed, and no error but the exit code.
pub async fn run(args: Args, settings: Option<&admin::Settings>) -> anyhow::Result<ExitCode> {
    let client = args.admin.client(settings)?;
    let asked = match &args.command {
        Command::List(list) => page(&client, "/api/v1/events", list.status.as_ref(), &list.filter).await,
        Command::Show(show) => one(&client, show).await,
        Command::Replay(order) => replay(&client, order).await,
        Command::Erase(order) => erase(&client, order).await,
    };
    finish(asked)
}

/// Runs `forebay dead-letters`; `settings` are the config's, if there is a config.
///
/// # Errors
/// As [`run`].
pub async fn run_dead_letters(args: DeadLettersArgs, settings: Option<&admin::Settings>) -> anyhow::Result<ExitCode> {
    let client = args.admin.client(settings)?;
    let DeadLettersCommand::List(filter) = &args.command;
    finish(page(&client, "/api/v1/dead-letters", None, filter).await)
}

async fn page(client: &AdminClient, path: &str, status: Option<&String>, args: &FilterArgs) -> anyhow::Result<String> {
    let reply = client.get(path, &args.query(status)).await?;
    note_lag(&reply);
    if args.json { json_text(&reply) } else { Ok(render::list(&reply.parse()?)) }
}

async fn one(client: &AdminClient, args: &ShowArgs) -> anyhow::Result<String> {
    let reply = client.get(&format!("/api/v1/events/{}", args.id), &[]).await?;
    note_lag(&reply);
    if args.json { json_text(&reply) } else { Ok(render::event(&reply.parse()?)) }
}

async fn replay(client: &AdminClient, args: &ReplayArgs) -> anyhow::Result<String> {
    let body = args.destination.as_ref().map_or(json!({}), |destination| json!({ "destination": destination }));
    let reply = client.post(&format!("/api/v1/events/{}/replay", args.id), &body).await?;
    if args.json { json_text(&reply) } else { Ok(render::replayed(&reply.parse()?)) }
}

async fn erase(client: &AdminClient, args: &EraseArgs) -> anyhow::Result<String> {
    if !args.yes {
        confirm(args.id)?;
    }
    let reply = client.delete(&format!("/api/v1/events/{}", args.id)).await?;
    if args.json { json_text(&reply) } else { Ok(render::erased(&reply.parse()?, reply.status)) }
}

/// Asks whoever sits at the terminal; where nobody does, `--yes` has to have been said.
fn confirm(id: EventId) -> anyhow::Result<()> {
    let (mut asked, mut said) = (io::stderr().lock(), String::new());
    if !io::stdin().is_terminal() {
        return Err(Usage(anyhow::anyhow!("erasing cannot be undone; add --yes where nobody can be asked")).into());
    }
    write!(asked, "Erase {id}? It cannot be undone, and what waits of it is not delivered. [y/N] ")?;
    asked.flush()?;
    io::stdin().lock().read_line(&mut said)?;
    anyhow::ensure!(matches!(said.trim(), "y" | "Y" | "yes"), "nothing was erased");
    Ok(())
}

/// The answer as it came, for a program.
pub(super) fn json_text(reply: &Reply) -> anyhow::Result<String> {
    let _: serde::de::IgnoredAny = reply.parse()?;
    Ok(render::json(&String::from_utf8_lossy(&reply.body)))
}

fn note_lag(reply: &Reply) {
    if reply.behind {
        eprintln!("forebay: the gateway's index is still catching up; the newest changes may be missing");
    }
}

/// Prints what was asked for.
pub(super) fn finish(asked: anyhow::Result<String>) -> anyhow::Result<ExitCode> {
    told(asked.and_then(|text| {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(ExitCode::SUCCESS), // `| head` has seen enough
        }
    }))
}

/// Says what the gateway refused, if it did: 2 is for what was asked wrongly, 1 for what could not be done.
pub(super) fn told(asked: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match asked {
        Ok(code) => Ok(code),
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) => {
                eprintln!("forebay: {}", plain(&refused.message));
                let asked_wrongly = refused.status == StatusCode::BAD_REQUEST;
                Ok(ExitCode::from(if asked_wrongly { 2 } else { 1 }))
            }
            None => Err(error),
        },
    }
}

#[cfg(test)]
mod tests;
