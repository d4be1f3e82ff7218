//! Events as text for a person. What a sender wrote loses its control characters: they could rewrite the terminal.

use std::fmt::Write as _;

use http::StatusCode;

use super::super::text::{is_harmful, plain, table};
use crate::admin::{Attempt, Delivery, Erased, Event, Item, Items, Replayed};

/// A page as a table.
pub(super) fn list(page: &Items) -> String {
    if page.items.is_empty() {
        return "no events match\n".to_owned();
    }
    let mut text = table(
        ["RECEIVED", "ID", "SOURCE", "TYPE", "STATUS", "DUPLICATES", "DELIVERIES"],
        page.items.iter().map(|item| {
            let deliveries: Vec<String> = item.deliveries.iter().map(brief).collect();
            let kind = item.kind.clone().unwrap_or_else(|| "-".to_owned());
            let duplicates = item.duplicates.to_string();
            let Item { received_at, id, source, status, .. } = item;
            let cells = [received_at, id, source, &shortened(&kind), status, &duplicates, &deliveries.join(", ")];
            cells.map(|cell| plain(cell))
        }),
    );
    if let Some(next) = &page.next {
        let _ = writeln!(text, "\nthere is more: --cursor {}", plain(next)); // writing to a String cannot fail
    }
    text
}

fn brief(delivery: &Delivery<u32>) -> String {
    let attempts = match delivery.attempts {
        1 => "1 attempt".to_owned(),
        number => format!("{number} attempts"),
    };
    format!("{}: {} ({attempts})", delivery.destination, delivery.status)
}

/// A type can be long; a table's column had better not be.
fn shortened(text: &str) -> String {
    const WIDTH: usize = 40;
    if text.chars().count() <= WIDTH {
        return text.to_owned();
    }
    text.chars().take(WIDTH - 1).chain(['…']).collect()
}

/// Everything about one event.
pub(super) fn event(event: &Event) -> String {
    let item = &event.item;
    let query = item.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let none = || "-".to_owned();
    let facts = [
        ("id", item.id.clone()),
        ("status", item.status.clone()),
        ("source", item.source.clone()),
        ("provider", item.provider.clone()),
        ("type", item.kind.clone().unwrap_or_else(none)),
        ("provider's id", item.provider_event_id.clone().unwrap_or_else(none)),
        ("request", format!("{} {}{query}", item.method, item.path)),
        ("received", item.received_at.clone()),
        ("body", format!("{} bytes", item.size_bytes)),
        ("duplicates", item.duplicates.to_string()),
    ];
    let mut text = String::new();
    for (name, value) in facts {
        let _ = writeln!(text, "{name:14} {}", plain(&value)); // writing to a String cannot fail, here and below
    }
    for delivery in &item.deliveries {
        let next = delivery.next_attempt_at.as_ref().map(|at| format!(", next attempt at {at}")).unwrap_or_default();
        let line = format!("{} to {}: {}{next}", delivery.id, delivery.destination, delivery.status);
        let _ = writeln!(text, "\n{}", plain(&line));
        if !delivery.attempts.is_empty() {
            text.push_str(&attempts(&delivery.attempts));
        }
    }
    text.push_str("\nheaders\n");
    for (name, value) in &event.headers {
        let _ = writeln!(text, "  {}: {}", plain(name), plain(value));
    }
    text.push_str("\nwhat was decided\n");
    let lines =
        event.explain.iter().map(|line| [&line.at, &line.step, &line.rule, &line.result].map(|cell| plain(cell)));
    text.push_str(&table(["AT", "STEP", "RULE", "RESULT"], lines));
    text
}

fn attempts(attempts: &[Attempt]) -> String {
    let rows = attempts.iter().map(|attempt| {
        let took = attempt.duration_ms.map_or("-".to_owned(), |ms| format!("{ms} ms"));
        let outcome = match (attempt.status, &attempt.error) {
            (Some(status), None) => status.to_string(),
            (Some(status), Some(error)) => format!("{status}, {error}"),
            (None, Some(error)) => error.clone(),
            (None, None) => "under way".to_owned(),
        };
        let answer = shortened(attempt.answer.as_deref().unwrap_or("-"));
        [&attempt.number.to_string(), &attempt.reason, &attempt.started_at, &took, &outcome, &answer].map(|c| plain(c))
    });
    table(["ATTEMPT", "REASON", "STARTED", "TOOK", "OUTCOME", "ANSWER"], rows)
}

/// What a replay came to.
pub(super) fn replayed(replayed: &Replayed) -> String {
    let mut text = String::new();
    for delivery in &replayed.deliveries {
        let _ = writeln!(text, "{} is pending again", plain(delivery));
    }
    text
}

/// What erasing came to.
pub(super) fn erased(erased: &Erased, status: StatusCode) -> String {
    let Erased { id, purged } = erased;
    let mut text = match purged {
        0 => format!("{} is erased\n", plain(id)),
        1 => format!("{} is erased; 1 delivery that waited or was dead has ended\n", plain(id)),
        many => format!("{} is erased; {many} deliveries that waited or were dead have ended\n", plain(id)),
    };
    if status == StatusCode::ACCEPTED {
        text.push_str("the index still has some of it, until it has followed the journal; ask again to know\n");
    }
    text
}

/// JSON as it came, a line; control characters that JSON lets stand are escaped.
pub(super) fn json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 1);
    for letter in text.trim().chars() {
        if is_harmful(letter) && !letter.is_ascii_whitespace() {
            let _ = write!(safe, "\\u{:04x}", u32::from(letter)); // it can only stand within a string
        } else {
            safe.push(letter);
        }
    }
    safe.push('\n');
    safe
}
