//! `destinations`: the internal services.

use http::Uri;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};

use crate::base::Name;
use crate::config::reader::{Field, Map};
use crate::deliver::{BreakerPolicy, Destination, HeaderEdits, Jitter, RetryPolicy};

use super::values;

/// The destinations, and the names of all, usable or not: a route to one with a bad URL is not a second problem.
pub struct Destinations {
    pub settings: Vec<Destination>,
    pub names: Vec<Name>,
}

pub fn all(root: &Map<'_>) -> Destinations {
    let named = super::named(root, "destinations");
    let names = named.iter().map(|(name, _)| name.clone()).collect();
    let settings = named.into_iter().filter_map(|(name, field)| destination(name, &field)).collect();
    Destinations { settings, names }
}

/// A destination that no source names is likely a slip.
pub fn warn_of_unused(root: &Map<'_>, used: &[Name]) {
    for (name, field) in super::named(root, "destinations") {
        if !used.contains(&name) {
            field.warn_at_key(format!("no source sends to `{name}`; name it in a `to`, or take it out"));
        }
    }
}

fn destination(name: Name, field: &Field<'_>) -> Option<Destination> {
    let map = field.map()?;
    let field = map.get("url");
    let url_is_private = field.as_ref().is_some_and(Field::is_from_outside);
    let url = match field {
        Some(field) => url(&field),
        None => {
            map.missing("url", "no url; write where the service is, like `url: http://127.0.0.1:3000/hooks`");
            None
        }
    };
    let destination = Destination {
        name,
        url: url.unwrap_or_default(),
        url_is_private,
        timeout: map.duration("timeout").unwrap_or(Destination::TIMEOUT),
        connect_timeout: map.duration("connect_timeout").unwrap_or(Destination::CONNECT_TIMEOUT),
        concurrency: map.count("concurrency").map_or(Destination::CONCURRENCY, |count| count as usize),
        rate_limit: map.unless_off("rate_limit").and_then(|field| values::rate(&field)),
        retry: map.section("retry").map_or_else(RetryPolicy::default, |map| retry(&map)),
        breaker: map.section("breaker").map_or_else(BreakerPolicy::default, |map| breaker(&map)),
        headers: map.section("headers").map_or_else(HeaderEdits::default, |map| headers(&map)),
    };
    if let Some(field) = map.get("connect_timeout").filter(|_| destination.connect_timeout > destination.timeout) {
        field.warn("longer than `timeout`, which ends the attempt first; make it shorter");
    }
    Some(destination)
}

/// The URL. It is not quoted where it may hold a password.
fn url(field: &Field<'_>) -> Option<Uri> {
    field.parse("a URL like `http://127.0.0.1:3000/hooks`", |text| {
        if text.starts_with("unix:") {
            return Err("`unix:` is not available in this version yet; write an http or https URL".to_owned());
        }
        if text.contains('@') {
            return Err(
                "a URL with a user or an `@` in it; set the header `Authorization` under `headers.set`".to_owned()
            );
        }
        let bad = |cure: &str| Err(format!("`{text}` is not a URL to deliver to; {cure}"));
        if text.contains('#') {
            return bad("leave the part from `#` on out: it is never sent");
        }
        let Ok(url) = text.parse::<Uri>() else { return bad("write one like `http://127.0.0.1:3000/hooks`") };
        match (url.scheme_str(), url.host()) {
            (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(url),
            (None, _) => bad(&format!("write `http://{text}`")),
            _ => bad("begin with `http://` or `https://` and a host"),
        }
    })
}

fn retry(map: &Map<'_>) -> RetryPolicy {
    let default = RetryPolicy::default();
    let give_up_on = map
        .get("give_up_on")
        .map(|field| field.list("`[410]`").iter().filter_map(|item| values::status(item, 300..=599)).collect());
    let policy = RetryPolicy {
        initial: map.duration("initial").unwrap_or(default.initial),
        factor: map.get("factor").and_then(|field| factor(&field)).unwrap_or(default.factor),
        max: map.duration("max").unwrap_or(default.max),
        jitter: match map.get("jitter") {
            Some(field) if field.is_off() => Jitter::Off,
            Some(field) => {
                values::word(&field, &[("full", Jitter::Full), ("off", Jitter::Off)]).unwrap_or(default.jitter)
            }
            None => default.jitter,
        },
        max_age: map.duration("max_age").unwrap_or(default.max_age),
        max_attempts: map.unless_off("max_attempts").and_then(|field| values::count(&field)),
        give_up_on: give_up_on.unwrap_or(default.give_up_on),
        retry_after_max: map.duration("retry_after_max").unwrap_or(default.retry_after_max),
    };
    if let Some(field) = map.get("max").filter(|_| policy.max < policy.initial) {
        field.error("shorter than `initial`; make it the longer one");
    }
    policy
}

fn factor(field: &Field<'_>) -> Option<f64> {
    field.parse("a number from 1 to 100", |text| match text.parse::<f64>() {
        Ok(number) if (1.0..=100.0).contains(&number) => Ok(number),
        _ => Err(format!("`{text}` is not a number from 1 to 100; write one, like `2`")),
    })
}

fn breaker(map: &Map<'_>) -> BreakerPolicy {
    let default = BreakerPolicy::default();
    BreakerPolicy {
        failures: map.count("failures").unwrap_or(default.failures),
        cooldown: map.duration("cooldown").unwrap_or(default.cooldown),
    }
}

fn headers(map: &Map<'_>) -> HeaderEdits {
    let mut edits = HeaderEdits::default();
    for (entry, field) in map.get("set").map(|field| field.named()).unwrap_or_default() {
        let Ok(name) = HeaderName::try_from(entry.key.as_str()) else {
            field.error_at_key(format!("`{}` is not a header's name; write one like `X-Env`", entry.key));
            continue;
        };
        if is_ours(&name) {
            field.error_at_key("the gateway writes this header itself; leave it out");
            continue;
        }
        edits.set.extend(values::header_value(&field).map(|value| (name, value)));
    }
    for field in map.get("remove").map(|field| field.list("`[Cookie]`")).unwrap_or_default() {
        let name = values::header_name(&field);
        if name.as_ref().is_some_and(is_ours) {
            field.error("the gateway writes this header itself; leave it out");
        }
        edits.remove.extend(name);
    }
    edits
}

/// What belongs to the connection or to the gateway, and so is not the config's to change.
fn is_ours(name: &HeaderName) -> bool {
    [CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
        || name.as_str().starts_with("forebay-")
}
