//! One preset's YAML into [`Preset`] (docs/presets.md).

use std::str::FromStr;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;

use crate::base::Name;
use crate::provider::{AnswerFacts, Check, EventFacts, Preset, Respond, RetryFacts, Sample, SecretSlot};

use super::handshake;
use super::parse::{any_place, first_of, methods, network, proved_key_rule, respond, status};
use super::reader::{Field, Map};
use super::verify::check;

/// The preset called `name` that stands at `field`; what is wrong with it goes to the field's reader.
pub fn parse(name: Name, field: &Field<'_>) -> Option<Preset> {
    let map = field.map()?;
    let secrets = secrets(&map);
    let verify = match map.get("verify") {
        Some(field) => check(&field, &secrets),
        None => {
            map.missing("verify", "nothing says how it signs; write one of hmac, ed25519, token, basic, any, all");
            None
        }
    };
    let methods = map.get("methods").and_then(|field| methods(&field)).unwrap_or_else(|| vec![Method::POST]);
    let around = handshake::Around { secrets: &secrets, methods: &methods };
    let handshakes = map.get("handshakes").map(|field| handshake::all(&field, &around)).unwrap_or_default();
    let preset = Preset {
        title: map.string("title").unwrap_or_else(|| name.to_string()),
        docs: map.string("docs").unwrap_or_default(),
        aliases: map.get("aliases").map(|field| aliases(&field)).unwrap_or_default(),
        event: map.section("event").map(|map| event(&map, verify.as_ref())).unwrap_or_default(),
        answer: map.section("answer").map(|map| answer(&map)).unwrap_or_default(),
        retries: retries(&map),
        ips: map.get("ips").map(|field| ips(&field)).unwrap_or_default(),
        redact: map
            .get("redact")
            .map(|field| field.list("`[\"json:/token\"]`"))
            .unwrap_or_default()
            .iter()
            .filter_map(|item| item.parse("a place", any_place))
            .collect(),
        sample: map.section("sample").map(|map| sample(&map)),
        verify: verify?,
        handshakes,
        methods,
        secrets,
        name,
    };
    warn_of_unused_secrets(&map, &preset);
    Some(preset)
}

fn ips(field: &Field<'_>) -> Vec<IpNet> {
    field.list("`[192.0.2.0/24]`").iter().filter_map(network).collect()
}

fn secrets(map: &Map<'_>) -> Vec<SecretSlot> {
    let Some(field) = map.get("secrets") else {
        return vec![SecretSlot { name: "secret".to_owned(), hint: None, optional: false }];
    };
    let named = field.named();
    if named.is_empty() {
        field.error("a preset without secrets proves nothing; name one, `{ secret: where to find it }`");
    }
    let slot = |(entry, hint): &(&super::tree::Entry, Field<'_>)| {
        let name = hint.name(&entry.key)?.to_string();
        if hint.is_mapping() {
            let map = hint.map()?;
            let optional = map.switch("optional").unwrap_or(false);
            return Some(SecretSlot { name, hint: map.string("hint"), optional });
        }
        let hint = if hint.is_off() { None } else { hint.text().map(|text| text.value) };
        Some(SecretSlot { name, hint, optional: false })
    };
    named.iter().filter_map(slot).collect()
}

fn aliases(field: &Field<'_>) -> Vec<Name> {
    field.list("`[other-name]`").iter().filter_map(|item| item.parse("a name", Name::new)).collect()
}

/// `verify` is none where it has a problem of its own.
fn event(map: &Map<'_>, verify: Option<&Check>) -> EventFacts {
    EventFacts {
        id: map.get("id").and_then(|field| first_of(&field)),
        kind: map.get("type").and_then(|field| first_of(&field)),
        dedupe: map.get("dedupe").and_then(|field| proved_key_rule(&field, verify.unwrap_or(&Check::Nothing))),
    }
}

fn answer(map: &Map<'_>) -> AnswerFacts {
    let usual = Respond { status: 200, body: None, content_type: HeaderValue::from_static("application/json") };
    let statuses = |key: &str, range: std::ops::RangeInclusive<u16>| {
        let items = map.get(key).map(|field| field.list("`[200]`")).unwrap_or_default();
        items.iter().filter_map(|item| status(item, range.clone())).collect()
    };
    let mut facts = AnswerFacts {
        within: map.duration("within"),
        respond: None,
        success: statuses("success", 200..=299),
        ends_on: statuses("ends_on", 300..=599),
    };
    let given = map.section("respond").map(|map| respond(&map, usual, &facts, "its provider"));
    if given.is_none() && !facts.is_success(200) {
        map.missing("respond", "200 is no success to it, and nothing else is said; write `respond: { status: … }`");
    }
    facts.respond = given;
    facts
}

fn retries(map: &Map<'_>) -> RetryFacts {
    let Some(map) = map.section("retries") else { return RetryFacts { after_429: true, ..RetryFacts::default() } };
    RetryFacts {
        horizon: map.duration("horizon"),
        after_429: map.switch("after_429").unwrap_or(true),
        note: map.string("note"),
    }
}

fn sample(map: &Map<'_>) -> Sample {
    let mut headers = Vec::new();
    for (entry, field) in map.get("headers").map(|field| field.named()).unwrap_or_default() {
        match HeaderName::from_str(&entry.key) {
            Ok(name) => headers.extend(field.text().map(|text| (name, text.value))),
            Err(_) => field.error_at_key(format!("`{}` is not a header's name; write one like `X-Event`", entry.key)),
        }
    }
    Sample { headers, body: map.string("body").unwrap_or_else(|| "{}".to_owned()) }
}

fn warn_of_unused_secrets(map: &Map<'_>, preset: &Preset) {
    let uses = |slot: &str| preset.used_slots().any(|used| used == slot);
    let Some(field) = map.get("secrets") else { return };
    for slot in preset.secrets.iter().filter(|slot| !uses(&slot.name)) {
        field.warn(format!("no check uses the secret `{}`; use it under `verify`, or take it out", slot.name));
    }
}
