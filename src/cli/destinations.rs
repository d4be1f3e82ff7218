//! `forebay destinations`: how a running gateway's destinations stand, and leaving one alone for a while.

use std::process::ExitCode;

use serde_json::json;

use super::client::{AdminArgs, AdminClient, Reply};
use super::events::{finish, json_text};
use super::text::{plain, table};
use crate::admin::{self, Destination, Destinations};
use crate::base::{Name, NameError};

/// Looks at the destinations of a running gateway, and pauses them.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Lists destinations: what waits for each, and whether it is delivered to
    List,
    /// Leaves a destination alone until it is resumed, also over a restart; what comes for it is kept
    Pause(One),
    /// Lets a destination go on
    Resume(One),
}

#[derive(Clone, Debug, clap::Args)]
struct One {
    /// The destination
    #[arg(value_parser = named)]
    name: Name,
}

fn named(text: &str) -> Result<Name, NameError> {
    Name::new(text)
}

/// Runs the command; `settings` are the config's, if there is a config.
///
/// # Errors
/// What keeps it from asking the gateway. What the gateway refuses is printed, and no error but the exit code.
pub async fn run(args: Args, settings: Option<&admin::Settings>) -> anyhow::Result<ExitCode> {
    let client = args.admin.client(settings)?;
    let asked = match &args.command {
        Command::List => client.get("/api/v1/destinations", &[]).await,
        Command::Pause(one) => set(&client, &one.name, "pause").await,
        Command::Resume(one) => set(&client, &one.name, "resume").await,
    };
    finish(asked.and_then(|reply| match (&args.command, args.json) {
        (_, true) => json_text(&reply),
        (Command::List, false) => Ok(listed(&reply.parse()?)),
        (_, false) => Ok(said(&reply.parse()?)),
    }))
}

async fn set(client: &AdminClient, name: &Name, what: &str) -> anyhow::Result<Reply> {
    client.post(&format!("/api/v1/destinations/{name}/{what}"), &json!({})).await
}

fn listed(Destinations { items }: &Destinations) -> String {
    if items.is_empty() {
        return "there are no destinations\n".to_owned();
    }
    let header = ["NAME", "URL", "DELIVERY", "BREAKER", "PENDING", "ORPHANED", "DEAD", "OLDEST PENDING"];
    let rows = items.iter().map(|item| {
        let Destination { name, url, paused, breaker, pending, orphaned, dead, oldest_pending } = item;
        let delivery = match url {
            None => "not in the config",
            Some(_) if *paused => "paused",
            Some(_) => "on",
        };
        let [url, breaker, oldest] = [url, breaker, oldest_pending].map(|maybe| maybe.as_deref().unwrap_or("-"));
        let [pending, orphaned, dead] = [pending, orphaned, dead].map(u64::to_string);
        [name, url, delivery, breaker, &pending, &orphaned, &dead, oldest].map(plain)
    });
    table(header, rows)
}

fn said(item: &Destination) -> String {
    let state = if item.paused { "paused; what comes for it is kept" } else { "delivered to" };
    plain(&format!("{} is {state}; {} pending", item.name, item.pending)) + "\n"
}
