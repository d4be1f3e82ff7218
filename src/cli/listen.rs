//! `forebay listen`: what a running gateway's source takes, sent to an application under development as well.

mod forward;
mod stream;

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Usage;
use super::client::{AdminArgs, AdminClient, Refused, Reply};
use super::send::header;
use super::text::plain;
use crate::admin::{self, Event, Item, Sources};
use crate::event::EventId;
use forward::{Forwarded, Forwarder};
use stream::{Message, Stream};

/// The first wait before the gateway is asked again, and the longest.
const WAIT: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Sends each new event of a source to an application under development, besides what the gateway does with it.
///
/// The application gets the original method, headers and body. Events go one after the other, in the order in which they
/// came, each once. Ctrl-C ends it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The source, by its name in the gateway's config
    source: String,
    /// Where the application takes its webhooks, e.g. `http://localhost:3000/hooks`
    #[arg(long, value_name = "URL")]
    forward_to: String, // read later: the parser of arguments would print a password with its error
    /// Begin with the events received at this time or later, `2026-01-31T12:00:00Z` or `1h` ago, instead of with the next one
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// A header to add or to replace, e.g. one that is forwarded as `***` because it is secret
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Print one JSON object an event
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Runs the command until Ctrl-C; `settings` are the config's, if there is a config.
///
/// # Errors
/// What keeps it from following the gateway. What the application answers is no error.
pub async fn run(args: Args, settings: Option<&admin::Settings>) -> anyhow::Result<ExitCode> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let to = forward::url(&args.forward_to).map_err(|wrong| Usage(anyhow!("--forward-to: {wrong}")))?;
    let client = args.admin.client(settings)?;
    let forwarder = Forwarder::new(to, args.headers.clone())?;
    let mut session = Session { args, client, forwarder, place: None, waited: WAIT, told: Told::default() };
    let mut counts = Counts::default();
    tokio::select! { // whatever is under way when it is interrupted is cut off: the gateway has the event
        ended = session.run(&mut counts) => match ended? {},
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("forebay: {}", counts.summary());
    Ok(ExitCode::SUCCESS)
}

/// What came of the events.
#[derive(Debug, Default)]
struct Counts {
    taken: u64,
    refused: u64,
    lost: u64,
    /// Whether one has come, and nothing of it yet.
    under_way: bool,
}

impl Counts {
    fn summary(&self) -> String {
        let Self { taken, refused, lost, under_way } = self;
        let events = taken + refused + lost + u64::from(*under_way);
        if events == 0 {
            return "no events came".to_owned();
        }
        let plural = if events == 1 { "event" } else { "events" };
        let cut_off = if *under_way { ", 1 under way" } else { "" };
        format!(
            "{events} {plural}: {taken} answered 2xx, {refused} answered otherwise, {lost} without an answer{cut_off}"
        )
    }
}

struct Session {
    args: Args,
    client: AdminClient,
    forwarder: Forwarder,
    /// The last event that was dealt with, or that was there before the first.
    place: Option<EventId>,
    /// How long to wait before the gateway is asked again.
    waited: Duration,
    told: Told,
}

/// What is said only once.
#[derive(Debug, Default)]
struct Told {
    listening: bool,
    gone: bool,
    headers: bool,
    body: bool,
}

impl Session {
    async fn run(&mut self, counts: &mut Counts) -> anyhow::Result<Infallible> {
        self.know_source().await?;
        loop {
            let Err(error) = self.follow(counts).await;
            let refused = error.downcast_ref::<Refused>();
            if !self.told.listening || refused.is_some_and(|refused| refused.status.is_client_error()) {
                return Err(asked_wrongly(error));
            }
            if error.is::<io::Error>() {
                return Err(error); // nobody reads what is printed
            }
            if !self.told.gone {
                eprintln!("forebay: {}; trying again until it is back", plain(&format!("{error:#}")));
                self.told.gone = true;
            }
            tokio::time::sleep(self.waited).await;
            self.waited = (self.waited * 2).min(WAIT_MAX);
        }
    }

    /// A source that is not in the config would be waited for in vain.
    async fn know_source(&self) -> anyhow::Result<()> {
        let reply = self.client.get("/api/v1/sources", &[]).await?;
        let Sources { items } = reply.parse()?;
        if items.iter().any(|source| source.name == self.args.source) {
            return Ok(());
        }
        let names: Vec<&str> = items.iter().map(|source| source.name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let wrong = anyhow::anyhow!("the gateway has no source `{}`; it has {names}", self.args.source);
        Err(Usage(wrong).into())
    }

    /// Deals with what comes until the stream ends: it is opened again after the last event that was dealt with.
    async fn follow(&mut self, counts: &mut Counts) -> anyhow::Result<Infallible> {
        let mut query = vec![("source", self.args.source.clone()), ("changes", "false".to_owned())];
        let since = match (&self.args.since, self.told.listening) {
            (Some(since), false) => Some(since.clone()),
            (_, true) if self.place.is_none() => Some("1970-01-01T00:00:00Z".to_owned()), // there was no event yet
            _ => None,
        };
        query.extend(since.map(|since| ("since", since)));
        let mut stream = Stream::new(self.client.follow("/api/v1/tail", &query, self.place).await?);
        let mut last_words = None;
        while let Some(message) = stream.next().await? {
            self.greet();
            match message {
                Message::Comment(words) => last_words = Some(words),
                Message::Place(id) if self.place.is_none() => self.place = Some(id),
                Message::Place(_) => {}
                Message::Event { id, data } => {
                    let item: Item<u32> = serde_json::from_str(&data).context("this is not the tail of a gateway")?;
                    counts.under_way = true;
                    let dealt_with = self.deal_with(id, &item, counts).await;
                    counts.under_way = false;
                    dealt_with?;
                    self.place = Some(id);
                }
            }
        }
        bail!("the gateway closed the stream{}", last_words.map(|words| format!(" ({words})")).unwrap_or_default())
    }

    /// The gateway talks to us.
    fn greet(&mut self) {
        if !self.told.listening {
            eprintln!("forebay: listening to {}; Ctrl-C ends it", self.args.source);
        } else if self.told.gone {
            eprintln!("forebay: the gateway is back");
        }
        (self.told.listening, self.told.gone, self.waited) = (true, false, WAIT);
    }

    /// Forwards one event, and says what came of it.
    async fn deal_with(&mut self, id: EventId, item: &Item<u32>, counts: &mut Counts) -> anyhow::Result<()> {
        let outcome = match self.fetch(id).await {
            Ok((event, body)) => {
                self.tell_of_secrets(&event, &body);
                self.forwarder.forward(&event, body.body).await
            }
            Err(error) => Err(why_not(error)?),
        };
        match &outcome {
            Ok(forwarded) if forwarded.status.is_success() => counts.taken += 1,
            Ok(_) => counts.refused += 1,
            Err(_) => counts.lost += 1,
        }
        let mut out = io::stdout().lock();
        let line = if self.args.json { json_line(item, &outcome) } else { line(item, &outcome) };
        writeln!(out, "{line}")?;
        out.flush()?;
        Ok(())
    }

    async fn fetch(&self, id: EventId) -> anyhow::Result<(Event, Reply)> {
        let event = self.client.get(&format!("/api/v1/events/{id}"), &[]).await?;
        let body = self.client.get(&format!("/api/v1/events/{id}/body"), &[]).await?;
        Ok((event.parse()?, body))
    }

    fn tell_of_secrets(&mut self, event: &Event, body: &Reply) {
        let given = |name: &str| self.args.headers.iter().any(|(given, _)| given.as_str() == name);
        let hidden: Vec<&str> = event
            .headers
            .iter()
            .filter(|(name, value)| value == "***" && !given(name))
            .map(|(name, _)| name.as_str())
            .collect();
        if !hidden.is_empty() && !self.told.headers {
            let names = plain(&hidden.join(", "));
            eprintln!("forebay: secret, so forwarded as ***: {names}; --header 'NAME: VALUE' puts in what you have");
            self.told.headers = true;
        }
        if body.redacted && !self.told.body {
            eprintln!(
                "forebay: there are secrets in the body: it is forwarded without them, and no signature of it holds"
            );
            self.told.body = true;
        }
    }
}

/// Why an event cannot be forwarded at all; an error if it may yet be.
fn why_not(error: anyhow::Error) -> anyhow::Result<String> {
    match error.downcast_ref::<Refused>() {
        Some(Refused { status, message, .. })
            if matches!(
                *status,
                StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::CONFLICT
            ) =>
        {
            Ok(message.clone())
        }
        _ => Err(error),
    }
}

fn asked_wrongly(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Refused>() {
        Some(Refused { status: StatusCode::BAD_REQUEST, .. }) => Usage(error).into(),
        _ => error,
    }
}

type Outcome = Result<Forwarded, String>;

fn line(item: &Item<u32>, outcome: &Outcome) -> String {
    let Item { received_at, id, kind, .. } = item;
    let came = match outcome {
        Ok(Forwarded { status, took }) => format!("{} {} ms", status.as_u16(), took.as_millis()),
        Err(why) => why.clone(),
    };
    plain(&format!("{received_at} {id} {} → {came}", kind.as_deref().unwrap_or("-")))
}

fn json_line(item: &Item<u32>, outcome: &Outcome) -> String {
    let Item { received_at, id, kind, .. } = item;
    let took = |forwarded: &Forwarded| u64::try_from(forwarded.took.as_millis()).unwrap_or(u64::MAX);
    let line = json!({
        "id": id,
        "type": kind,
        "received_at": received_at,
        "status": outcome.as_ref().ok().map(|forwarded| forwarded.status.as_u16()),
        "milliseconds": outcome.as_ref().ok().map(took),
        "error": outcome.as_ref().err(),
    });
    line.to_string()
}
