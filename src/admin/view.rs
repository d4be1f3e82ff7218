//! The API's JSON. The command line reads it back with the same types.

use serde::{Deserialize, Serialize};

use crate::base::UnixMillis;
use crate::event::{self, DeliveryStatus};
use crate::index::{AttemptRow, DeliveryRow, Detail, Item as Row, Page};
use crate::journal::{JournalError, Kept};
use crate::source::{Mode, SourceSettings};

/// One event; `A` is a delivery's attempts: their number in a list, the attempts themselves in one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item<A> {
    /// `evt_…`.
    pub id: String,
    /// The source that took it.
    pub source: String,
    /// The preset that verified it.
    pub provider: String,
    /// What it is about, in the provider's words.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The provider's own id for it.
    pub provider_event_id: Option<String>,
    /// The request's method.
    pub method: String,
    /// The request's path, as received.
    pub path: String,
    /// The request's query, as received.
    pub query: Option<String>,
    /// RFC 3339, milliseconds, `Z`.
    pub received_at: String,
    /// The length of its body.
    pub size_bytes: u64,
    /// Where it stands.
    pub status: String,
    /// How many duplicates came after it.
    pub duplicates: u64,
    /// Its deliveries, in route order.
    pub deliveries: Vec<Delivery<A>>,
}

/// One delivery of an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery<A> {
    /// `dlv_…`.
    pub id: String,
    /// Where it goes.
    pub destination: String,
    /// Where it stands.
    pub status: String,
    /// Its attempts.
    pub attempts: A,
    /// When the next one is due.
    pub next_attempt_at: Option<String>,
}

/// A page of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Items {
    /// Newest first.
    pub items: Vec<Item<u32>>,
    /// The `cursor` of the next page; null at the end.
    pub next: Option<String>,
}

/// One event with everything that is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What a list has, too.
    #[serde(flatten)]
    pub item: Item<Vec<Attempt>>,
    /// The request's headers, secret ones as `***`.
    pub headers: Vec<(String, String)>,
    /// Every decision that was made about it.
    pub explain: Vec<Explained>,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// When.
    pub at: String,
    /// Which step of a webhook's way.
    pub step: String,
    /// By what rule.
    pub rule: String,
    /// What it came to.
    pub result: String,
}

/// One try of a delivery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// initial, retry, replay or rearm.
    pub reason: String,
    /// When it began.
    pub started_at: String,
    /// How long it took; null while it runs, or if that is not known.
    pub duration_ms: Option<u64>,
    /// The application's status.
    pub status: Option<u16>,
    /// What went wrong below HTTP.
    pub error: Option<String>,
    /// The first KiB of the application's answer, as text.
    pub answer: Option<String>,
}

/// One source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// The host it answers for; null is every host.
    pub host: Option<String>,
    /// Its path, with `{param}`s as in the config.
    pub path: String,
    /// The preset that verifies it.
    pub provider: String,
    /// Who answers: `store` or `proxy`.
    pub mode: String,
    /// Where its events go, in route order; none where they are only kept.
    pub destinations: Vec<String>,
    /// What those of its events take in the journal that have a delivery that is pending, orphaned or dead.
    pub unsettled_bytes: u64,
    /// Whether that is more than its share, so that its events are refused.
    pub over_share: bool,
}

/// What reading the config again came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Whether it is in force: not if it was only compared.
    pub applied: bool,
    /// In what it differs from the one before.
    pub changes: Vec<ConfigChange>,
    /// What there is to say about it.
    pub warnings: Vec<ConfigProblem>,
}

/// One difference between two configs. Never shows a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    /// `added`, `removed` or `changed`.
    pub change: String,
    /// `source`, `destination` or `provider`; or the name of another section, e.g. `ingress`.
    pub section: String,
    /// Which source, destination or provider.
    pub name: Option<String>,
    /// Which key in it, e.g. `retry.max`; null is the whole.
    pub key: Option<String>,
    /// What it was, where it can be shown.
    pub from: Option<String>,
    /// What it is now, where it can be shown.
    pub to: Option<String>,
    /// All of that on one line for people: `~ destination app: timeout 30s -> 10s`.
    pub text: String,
}

/// Why a config cannot be used: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigProblems {
    /// In short.
    pub error: String,
    /// Each with its place and its cure.
    pub problems: Vec<ConfigProblem>,
}

/// Something wrong with a config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigProblem {
    /// `error` or `warning`.
    pub severity: String,
    /// The file.
    pub file: String,
    /// The line, from 1; 0 where it is the file as a whole.
    pub line: u64,
    /// The column, from 1; 0 where it is the file as a whole.
    pub column: u64,
    /// The key, `destinations.app.timeout`; empty where it is none.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl ConfigProblem {
    /// Whether it keeps the config from being used.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == "error"
    }
}

/// `file:line:column: warning: key: what is wrong; the cure`, as a compiler would say it.
impl std::fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { severity, file, line, column, path, message } = self;
        if !file.is_empty() {
            f.write_str(file)?;
            if *line > 0 {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
        }
        if severity == "warning" {
            f.write_str("warning: ")?;
        }
        if !path.is_empty() && !message.starts_with(path.as_str()) {
            write!(f, "{path}: ")?; // once is enough
        }
        f.write_str(message)
    }
}

/// All sources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sources {
    /// In the config's order.
    pub items: Vec<Source>,
}

/// One destination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Destination {
    /// Its name.
    pub name: String,
    /// Where it is; null where the config no longer has it, and something is kept for it.
    pub url: Option<String>,
    /// Whether somebody has paused it.
    pub paused: bool,
    /// `closed`, `open` or `probing`; null where the config no longer has it.
    pub breaker: Option<String>,
    /// Deliveries that wait for an attempt.
    pub pending: u64,
    /// Deliveries that wait for their route to be in the config again.
    pub orphaned: u64,
    /// Dead letters.
    pub dead: u64,
    /// Since when the delivery that has waited longest waits: its event's receipt, or its replay.
    pub oldest_pending: Option<String>,
}

/// All destinations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Destinations {
    /// In the config's order; then those that it no longer has.
    pub items: Vec<Destination>,
}

/// What erasing an event came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Erased {
    /// The event.
    pub id: String,
    /// Its deliveries that have ended with it: they were pending, orphaned or dead.
    pub purged: u32,
}

/// What a replay came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replayed {
    /// The event.
    pub id: String,
    /// The deliveries that are pending again.
    pub deliveries: Vec<String>,
}

impl From<Page> for Items {
    fn from(page: Page) -> Self {
        Self { items: page.items.iter().map(listed).collect(), next: page.next.map(|cursor| cursor.to_string()) }
    }
}

/// An item of a list.
pub(super) fn listed(row: &Row) -> Item<u32> {
    item(row, row.deliveries.iter().map(|row| delivery(row, row.attempts)).collect())
}

/// One event: `detail` is what the index knows, `record` what the journal has of it, `headers` the record's, redacted.
pub(super) fn event(detail: &Detail, record: Result<&Kept, &JournalError>, headers: Vec<(String, String)>) -> Event {
    let rows = detail.item.deliveries.iter().zip(&detail.attempts);
    let deliveries = rows.map(|(row, attempts)| delivery(row, attempts.iter().map(attempt).collect())).collect();
    Event { item: item(&detail.item, deliveries), headers, explain: explain(detail, record) }
}

impl From<&SourceSettings> for Source {
    fn from(settings: &SourceSettings) -> Self {
        let SourceSettings { name, host, path, preset, mode, routes, .. } = settings;
        Self {
            name: name.to_string(),
            host: host.clone(),
            path: path.clone(),
            provider: preset.name.to_string(),
            mode: match mode {
                Mode::Store => "store".to_owned(),
                Mode::Proxy => "proxy".to_owned(),
            },
            destinations: routes.iter().map(|route| route.destination.to_string()).collect(),
            unsettled_bytes: 0,
            over_share: false,
        }
    }
}

fn item<A>(row: &Row, deliveries: Vec<Delivery<A>>) -> Item<A> {
    Item {
        id: row.located.id.to_string(),
        source: row.source.clone(),
        provider: row.provider.clone(),
        kind: row.kind.clone(),
        provider_event_id: row.provider_event_id.clone(),
        method: row.method.clone(),
        path: row.path.clone(),
        query: row.query.clone(),
        received_at: row.received_at.to_string(),
        size_bytes: row.size_bytes,
        status: row.status.to_string(),
        duplicates: row.duplicates,
        deliveries,
    }
}

fn delivery<A>(row: &DeliveryRow, attempts: A) -> Delivery<A> {
    Delivery {
        id: row.id.to_string(),
        destination: row.destination.clone(),
        status: row.status.as_str().to_owned(),
        attempts,
        next_attempt_at: row.next_attempt_at.map(|at| at.to_string()),
    }
}

fn attempt(row: &AttemptRow) -> Attempt {
    Attempt {
        number: row.number,
        reason: row.reason.clone(),
        started_at: row.started_at.to_string(),
        duration_ms: row.took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
        status: row.status,
        error: row.error.clone(),
        answer: row.answer.as_ref().map(|answer| String::from_utf8_lossy(answer).into_owned()),
    }
}

/// The way of the event, a line a decision, as far as it is recorded.
fn explain(detail: &Detail, record: Result<&Kept, &JournalError>) -> Vec<Explained> {
    let row = &detail.item;
    let mut lines = Vec::new();
    let mut say = |at: UnixMillis, step: &str, rule: String, result: String| {
        lines.push(Explained { at: at.to_string(), step: step.to_owned(), rule, result });
    };

    match record {
        Ok(Kept { event, .. }) => {
            let transport = if event.client.tls { "over TLS" } else { "without TLS" };
            let result = format!("source {}, from {} {transport}", row.source, event.client.ip);
            say(row.received_at, "receive", format!("{} {}", row.method, row.path), result);
            let (rule, result) = verified(event);
            say(row.received_at, "verify", rule, result);
        }
        Err(error @ JournalError::Erased) => {
            say(row.received_at, "erase", "an operator's order".to_owned(), error.to_string());
        }
        Err(error) => say(row.received_at, "read", "the record in the journal".to_owned(), error.to_string()),
    }
    let facts = [("type", &row.kind), ("id", &row.provider_event_id)];
    let facts = facts.map(|(name, fact)| format!("{name} {}", fact.as_deref().unwrap_or("none")));
    say(row.received_at, "identify", format!("preset {}", row.provider), facts.join(", "));
    let result = format!("new; {} duplicates since, {} with another body", row.duplicates, row.conflicts);
    say(row.received_at, "dedupe", "source, key and window".to_owned(), result);
    if let Some(earlier) = row.same_body_as {
        let result = format!("as {earlier} had them, under another id: a new event (same_body)");
        say(row.received_at, "dedupe", "the signed bytes".to_owned(), result);
    }
    if row.same_bodies > 0 {
        let result = format!("{} later events had them too, under other ids (same_body)", row.same_bodies);
        say(row.received_at, "dedupe", "the signed bytes".to_owned(), result);
    }
    if row.deliveries.is_empty() {
        say(row.received_at, "route", "no destination".to_owned(), row.status.to_string());
    }
    if let Ok(Kept { relayed: Some(told), .. }) = record {
        let result = format!("the application's own: status {}", told.status);
        say(row.received_at, "answer", "mode: proxy".to_owned(), result);
    }
    for (delivery, attempts) in row.deliveries.iter().zip(&detail.attempts) {
        say(row.received_at, "route", format!("destination {}", delivery.destination), delivery.id.to_string());
        if delivery.status == DeliveryStatus::Orphaned {
            let rule = format!("source {} to {}", row.source, delivery.destination);
            say(row.received_at, "orphan", rule, "not in the config: kept, and delivered once it is back".to_owned());
        }
        if let Some(why) = &delivery.dead_reason {
            let last = attempts.last().map(|last| last.started_at.plus(last.took.unwrap_or_default()));
            say(last.unwrap_or(row.received_at), "give up", format!("retry of {}", delivery.destination), why.clone());
        }
    }
    lines
}

fn verified(event: &event::Event) -> (String, String) {
    let proof = &event.proof;
    match &*proof.scheme {
        "none" => ("verify: none".to_owned(), "not verified: the source asks for nothing".to_owned()),
        scheme if proof.slot.is_empty() => (scheme.to_owned(), "holds".to_owned()),
        scheme => (scheme.to_owned(), format!("holds with {}", proof.slot)),
    }
}
