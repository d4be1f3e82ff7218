//! One preset's YAML into [`Preset`] (docs/presets.md).

use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use crate::base::Name;
use crate::provider::{
    AnswerFacts, Carrier, Check, EventFacts, Hash, HmacCheck, KeyDecoding, KeyEncoding, ListShape, Piece, Preset,
    Respond, RetryFacts, Sample, SecretSlot, SignatureEncoding, Template, TimeUnit, Timestamp, TokenCheck,
};

use super::handshake;
use super::parse::{first_of, header_name, key_rule, methods, place, respond};
use super::problems::suggest;
use super::reader::{Field, Map};

const TOLERANCE: Duration = Duration::from_secs(300);

/// The preset called `name` that stands at `field`; what is wrong with it goes to the field's reader.
pub fn parse(name: Name, field: &Field<'_>) -> Option<Preset> {
    let map = field.map()?;
    let secrets = secrets(&map);
    let verify = match map.get("verify") {
        Some(field) => check(&field, &secrets),
        None => {
            map.missing("verify", "nothing says how it signs; write one of hmac, token, any, all");
            None
        }
    };
    let methods = map.get("methods").and_then(|field| methods(&field)).unwrap_or_else(|| vec![Method::POST]);
    let around = handshake::Around { secrets: &secrets, methods: &methods, verify: verify.as_ref() };
    let handshakes = map.get("handshakes").map(|field| handshake::all(&field, &around)).unwrap_or_default();
    let preset = Preset {
        title: map.string("title").unwrap_or_else(|| name.to_string()),
        docs: map.string("docs").unwrap_or_default(),
        aliases: map.get("aliases").map(|field| aliases(&field)).unwrap_or_default(),
        event: map.section("event").map(|map| event(&map)).unwrap_or_default(),
        answer: map.section("answer").map(|map| answer(&map)).unwrap_or_default(),
        retries: retries(&map),
        redact: map
            .get("redact")
            .map(|field| field.list("`[\"json:/token\"]`"))
            .unwrap_or_default()
            .iter()
            .filter_map(|item| item.parse("a place", place))
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

fn secrets(map: &Map<'_>) -> Vec<SecretSlot> {
    let Some(field) = map.get("secrets") else {
        return vec![SecretSlot { name: "secret".to_owned(), hint: None }];
    };
    let named = field.named();
    if named.is_empty() {
        field.error("a preset without secrets proves nothing; name one, `{ secret: where to find it }`");
    }
    let slot = |(entry, hint): &(&super::tree::Entry, Field<'_>)| {
        let name = hint.name(&entry.key)?;
        let hint = if hint.is_off() { None } else { hint.text().map(|text| text.value) };
        Some(SecretSlot { name: name.to_string(), hint })
    };
    named.iter().filter_map(slot).collect()
}

fn aliases(field: &Field<'_>) -> Vec<Name> {
    field.list("`[other-name]`").iter().filter_map(|item| item.parse("a name", Name::new)).collect()
}

pub(super) fn check(field: &Field<'_>, secrets: &[SecretSlot]) -> Option<Check> {
    let map = field.map_at("providers.*.verify")?;
    let mut checks = ["hmac", "token", "any", "all"].into_iter().filter_map(|scheme| Some((scheme, map.get(scheme)?)));
    let Some((scheme, at)) = checks.next() else {
        field.error("nothing to check here; write one of hmac, token, any, all");
        return None;
    };
    if let Some((other, at)) = checks.next() {
        at.error(format!("`{scheme}` and `{other}` both stand here; put them under `any` or `all`"));
        return None;
    }
    match scheme {
        "hmac" => hmac(&at.map()?, secrets).map(Check::Hmac),
        "token" => token(&at.map()?, secrets).map(Check::Token),
        "any" => several(&at, secrets).map(Check::Any),
        _ => several(&at, secrets).map(Check::All),
    }
}

fn several(field: &Field<'_>, secrets: &[SecretSlot]) -> Option<Vec<Check>> {
    let items = field.list("`[{ token: … }, { hmac: … }]`");
    if field.is_list() && items.is_empty() {
        field.error("an empty list checks nothing; write at least one check");
    }
    let checks: Vec<Option<Check>> = items.iter().map(|item| check(item, secrets)).collect();
    let checks: Option<Vec<Check>> = checks.into_iter().collect();
    checks.filter(|checks| !checks.is_empty())
}

fn token(map: &Map<'_>, secrets: &[SecretSlot]) -> Option<TokenCheck> {
    let secret = slot(map, secrets);
    let prefix = map.string("prefix");
    Some(TokenCheck { header: required_header(map)?, secret: secret?, prefix })
}

fn hmac(map: &Map<'_>, secrets: &[SecretSlot]) -> Option<HmacCheck> {
    let secret = slot(map, secrets);
    let hash = hash(map);
    let key = map.get("key").map_or(Some(PLAIN_KEY), |field| key(&field));
    let signature = match map.section("signature") {
        Some(map) => signature(&map),
        None => {
            map.missing("signature", "nothing says where the signature is; write `{ header: NAME, encoding: hex }`");
            None
        }
    };
    let content = match map.get("content") {
        Some(field) => field.parse("a template like `{body}`", template).map(|content| (content, Some(field))),
        None => Some((Template(vec![Piece::Body]), None)),
    };
    let timestamp = map.section("timestamp").map(|map| timestamp(&map));
    let (content, content_at) = content?;
    let signature = signature?;
    let check =
        HmacCheck { hash: hash?, secret: secret?, key: key?, signature, content, timestamp: timestamp.flatten() };
    refuse_lost_fields(map, &check, content_at.as_ref());
    Some(check)
}

pub(super) fn hash(map: &Map<'_>) -> Option<Hash> {
    let hashes = [("sha1", Hash::Sha1), ("sha256", Hash::Sha256), ("sha384", Hash::Sha384), ("sha512", Hash::Sha512)];
    if map.get("hash").is_none() {
        map.missing("hash", "no hash; write one of sha1, sha256, sha384, sha512");
    }
    map.word("hash", &hashes)
}

/// `{field:k}` needs a list to be a field of, and a time that is not signed proves nothing.
fn refuse_lost_fields(map: &Map<'_>, check: &HmacCheck, content: Option<&Field<'_>>) {
    let is_list = check.signature.list.is_some();
    let pieces = check.content.0.iter().filter(|piece| matches!(piece, Piece::Field(_))).count();
    if let Some(field) = content.filter(|_| pieces > 0 && !is_list) {
        field.error("`{field:…}` is a field of the signature's list, and `signature.list` is not set; set it");
    }
    if let (Some(field), Some(content)) = (content, content.map(|_| &check.content))
        && !content.0.contains(&Piece::Body)
    {
        field.warn("does not sign the `{body}`, so anybody can change it on the way");
    }
    let Some(timestamp) = &check.timestamp else { return };
    let Some(field) = map.section("timestamp").and_then(|map| map.get("from")) else { return };
    if matches!(timestamp.from, Piece::Field(_)) && !is_list {
        field.error("a field of the signature's list, and `signature.list` is not set; set it");
    }
    if !check.content.0.contains(&timestamp.from) {
        field.warn("`content` does not sign this time, so it proves nothing; add it there or take it out");
    }
}

pub(super) const PLAIN_KEY: KeyDecoding = KeyDecoding { strip: None, encoding: KeyEncoding::Utf8 };
const KEY_ENCODINGS: [(&str, KeyEncoding); 3] =
    [("utf8", KeyEncoding::Utf8), ("base64", KeyEncoding::Base64), ("hex", KeyEncoding::Hex)];

pub(super) fn key(field: &Field<'_>) -> Option<KeyDecoding> {
    if field.is_scalar() {
        return super::parse::word(field, &KEY_ENCODINGS).map(|encoding| KeyDecoding { strip: None, encoding });
    }
    let map = field.map()?;
    Some(KeyDecoding {
        strip: map.string("strip"),
        encoding: map.word("encoding", &KEY_ENCODINGS).unwrap_or(KeyEncoding::Utf8),
    })
}

fn signature(map: &Map<'_>) -> Option<Carrier> {
    let prefix = map.string("prefix");
    let list = map.section("list").map(|map| list(&map));
    let encoding = signature_encoding(map);
    Some(Carrier { header: required_header(map)?, prefix, list: list.unwrap_or(Some(None))?, encoding })
}

pub(super) fn signature_encoding(map: &Map<'_>) -> SignatureEncoding {
    let encodings = [
        ("hex", SignatureEncoding::Hex),
        ("base64", SignatureEncoding::Base64),
        ("base64url", SignatureEncoding::Base64Url),
    ];
    map.word("encoding", &encodings).unwrap_or(SignatureEncoding::Hex)
}

/// The list's shape. The outer none is a problem.
#[allow(clippy::option_option)]
fn list(map: &Map<'_>) -> Option<Option<ListShape>> {
    let char = |key: &str, default: char| match map.get(key) {
        Some(field) => field.parse("one character", |text| {
            let mut chars = text.chars();
            match (chars.next(), chars.next()) {
                (Some(char), None) if char.is_ascii() => Ok(char),
                _ => Err(format!("{text:?} is not one ASCII character; write one")),
            }
        }),
        None => Some(default),
    };
    let (items, pair) = (char("items", ','), char("pair", '='));
    let Some(key) = map.string("key") else {
        map.missing("key", "no key; write the one whose values are signatures, like `v1`");
        return None;
    };
    let (items, pair) = (items?, pair?);
    if items == pair {
        map.field().error("`items` and `pair` are the same character; they must differ");
        return None;
    }
    Some(Some(ListShape { items, pair, key }))
}

fn timestamp(map: &Map<'_>) -> Option<Timestamp> {
    let units = [("s", TimeUnit::Seconds), ("ms", TimeUnit::Milliseconds), ("rfc3339", TimeUnit::Rfc3339)];
    let unit = map.word("unit", &units).unwrap_or(TimeUnit::Seconds);
    let tolerance = map.duration("tolerance").unwrap_or(TOLERANCE);
    let Some(field) = map.get("from") else {
        map.missing("from", "nothing says where the time is; write `header:NAME` or `field:NAME`");
        return None;
    };
    let from = field.parse("`header:NAME` or `field:NAME`", |text| match placeholder(text) {
        Ok(piece @ (Piece::Header(_) | Piece::Field(_))) => Ok(piece),
        _ => Err(format!("`{text}` is not a place for a time; write `header:NAME` or `field:NAME`")),
    });
    Some(Timestamp { from: from?, unit, tolerance })
}

/// Which secret a check takes: the named one, else the only one.
pub(super) fn slot(map: &Map<'_>, secrets: &[SecretSlot]) -> Option<String> {
    let known = || secrets.iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>();
    match (map.get("secret"), secrets) {
        (Some(field), _) => field.parse("a secret's name", |text| match known().contains(&text) {
            true => Ok(text.to_owned()),
            false => Err(format!("`{text}` is not among `secrets`; {}", suggest(text, known()))),
        }),
        (None, [only]) => Some(only.name.clone()),
        (None, _) => {
            map.missing("secret", format!("there are several secrets; say which: {}", known().join(", ")));
            None
        }
    }
}

fn required_header(map: &Map<'_>) -> Option<HeaderName> {
    match map.get("header") {
        Some(field) => header_name(&field),
        None => {
            map.missing("header", "no header; write its name");
            None
        }
    }
}

/// A template that says what is signed, and so is not empty.
fn template(text: &str) -> Result<Template, String> {
    let pieces = split_template(text, Piece::Literal, placeholder)?;
    if pieces.is_empty() {
        Err("an empty template signs nothing; write `{body}`".to_owned())
    } else {
        Ok(Template(pieces))
    }
}

/// The pieces of a template: text, `{placeholders}`, and `{{` `}}` for the braces themselves.
pub(super) fn split_template<P>(
    text: &str,
    text_piece: impl Fn(String) -> P,
    placeholder: impl Fn(&str) -> Result<P, String>,
) -> Result<Vec<P>, String> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        literal.push_str(before);
        if let Some(after) = brace.strip_prefix("{{") {
            literal.push('{');
            rest = after;
        } else if let Some(after) = brace.strip_prefix("}}") {
            literal.push('}');
            rest = after;
        } else if let Some(inside) = brace.strip_prefix('{') {
            let (inside, after) = inside.split_once('}').ok_or("a `{` has no `}`; close it, or write `{{`")?;
            let piece = placeholder(inside)?;
            if !literal.is_empty() {
                pieces.push(text_piece(std::mem::take(&mut literal)));
            }
            pieces.push(piece);
            rest = after;
        } else {
            return Err("a `}` has no `{`; write `}}` for the brace itself".to_owned());
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(text_piece(literal));
    }
    Ok(pieces)
}

fn placeholder(text: &str) -> Result<Piece, String> {
    match text.split_once(':') {
        Some(("header", name)) => HeaderName::from_str(name)
            .map(Piece::Header)
            .map_err(|_| format!("`{name}` is not a header's name; write one like `header:X-Time`")),
        Some(("field", name)) if !name.is_empty() => Ok(Piece::Field(name.to_owned())),
        None if text == "body" => Ok(Piece::Body),
        None if text == "method" => Ok(Piece::Method),
        None if text == "path" => Ok(Piece::Path),
        None if text == "query" => Ok(Piece::Query),
        _ => Err(format!(
            "`{{{text}}}` stands for nothing; there are body, method, path, query, header:NAME and field:NAME"
        )),
    }
}

fn event(map: &Map<'_>) -> EventFacts {
    EventFacts {
        id: map.get("id").and_then(|field| first_of(&field)),
        kind: map.get("type").and_then(|field| first_of(&field)),
        dedupe: map.get("dedupe").and_then(|field| key_rule(&field)),
    }
}

fn answer(map: &Map<'_>) -> AnswerFacts {
    let usual = Respond { status: 200, body: None, content_type: HeaderValue::from_static("application/json") };
    AnswerFacts { within: map.duration("within"), respond: map.section("respond").map(|map| respond(&map, usual)) }
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
    fn uses(check: &Check, secret: &str) -> bool {
        match check {
            Check::Hmac(hmac) => hmac.secret == secret,
            Check::Token(token) => token.secret == secret,
            Check::Any(checks) | Check::All(checks) => checks.iter().any(|check| uses(check, secret)),
            Check::Nothing => false,
        }
    }
    let Some(field) = map.get("secrets") else { return };
    let used = |name: &str| {
        let in_check = |check: &Check| uses(check, name);
        in_check(&preset.verify) || preset.handshakes.iter().any(|handshake| handshake.uses(name, in_check))
    };
    for slot in preset.secrets.iter().filter(|slot| !used(&slot.name)) {
        field.warn(format!("no check uses the secret `{}`; use it under `verify`, or take it out", slot.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_text_and_placeholders() {
        let literal = |text: &str| Piece::Literal(text.to_owned());
        let time = Piece::Header(HeaderName::from_static("x-time"));
        assert_eq!(template("v0:{header:X-Time}:{body}").unwrap().0, [literal("v0:"), time, literal(":"), Piece::Body]);
        assert_eq!(template("{{{method}}}").unwrap().0, [literal("{"), Piece::Method, literal("}")]);
        for bad in ["", "{body", "body}", "{}", "{bodY}", "{header:}", "{header:a b}", "{field:}", "{x:y}"] {
            assert!(template(bad).is_err(), "{bad}");
        }
    }
}
