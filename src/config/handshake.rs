//! A preset's handshakes out of its YAML (docs/presets.md, "Handshakes").

use std::str::FromStr;

use http::{HeaderName, HeaderValue, Method, header};

use crate::base::Name;
use crate::provider::{
    AnswerPiece, AnswerText, ComputedHmac, Handshake, HandshakeBody, HandshakeRespond, JsonAnswer, KeyDecoding,
    KeyEncoding, Place, ProvenBy, SecretSlot, When,
};

use super::parse::{content_type, method, place, status};
use super::problems::suggest;
use super::reader::{Field, Map};
use super::{template, verify};

/// What the rest of the preset says.
pub(super) struct Around<'p> {
    pub secrets: &'p [SecretSlot],
    pub methods: &'p [Method],
}

/// The handshakes at `field`; what is wrong with them goes to its reader.
pub(super) fn all(field: &Field<'_>, around: &Around<'_>) -> Vec<Handshake> {
    let mut handshakes: Vec<Handshake> = Vec::new();
    for item in field.list("`[{ name: …, when: … }]`") {
        let Some(handshake) = handshake(&item, around) else { continue };
        if handshakes.iter().any(|other| other.name == handshake.name) {
            item.error(format!("there is another handshake `{}`; give one of them another name", handshake.name));
        }
        handshakes.push(handshake);
    }
    handshakes
}

/// One of them. Everything is looked at before anything missing ends it, so that all problems come out at once.
fn handshake(field: &Field<'_>, around: &Around<'_>) -> Option<Handshake> {
    let map = field.map()?;
    let name = match map.get("name") {
        Some(field) => field.parse("a name", Name::new),
        None => {
            map.missing("name", "no name; write a short one for the logs, like `subscribe`");
            None
        }
    };
    let proven_by = proven_by(&map, around.secrets);
    let method = map.get("method").map_or(Some(None), |field| method(&field).map(Some));
    let when = map.section("when").map_or_else(|| Some(When::default()), |map| when(&map));
    let compute = map.get("compute").map(|field| compute(&field, around.secrets)).unwrap_or_default();
    let names: Vec<&str> = compute.iter().map(|(name, _)| name.as_str()).collect();
    let respond = map.section("respond").map_or_else(|| Some(nothing()), |map| respond(&map, &names));
    let handshake =
        Handshake { name: name?, proven_by: proven_by?, method: method?, when: when?, compute, respond: respond? };
    refuse_what_takes_events(&map, &handshake, around);
    refuse_open_ends(&map, &handshake);
    Some(handshake)
}

/// 200 and an empty body.
fn nothing() -> HandshakeRespond {
    let body = HandshakeBody::Text(AnswerText::default(), HeaderValue::from_static("text/plain"));
    HandshakeRespond { status: 200, headers: Vec::new(), body }
}

fn proven_by(map: &Map<'_>, secrets: &[SecretSlot]) -> Option<ProvenBy> {
    let signed = map.switch("signed").unwrap_or(true);
    match (signed, map.get("check")) {
        (true, None) => Some(ProvenBy::Verify),
        (false, None) => Some(ProvenBy::Nothing),
        (false, Some(field)) => verify::check(&field, secrets).map(Box::new).map(ProvenBy::Own),
        (true, Some(field)) => {
            field.error("`verify` is checked first, and this never; write `signed: false`, or take it out");
            None
        }
    }
}

/// A handshake that matches too much would swallow events, and one that `verify` never sees would never be answered.
fn refuse_what_takes_events(map: &Map<'_>, handshake: &Handshake, around: &Around<'_>) {
    let of_events = handshake.method.as_ref().is_none_or(|method| around.methods.contains(method));
    if of_events && handshake.when.is_empty() {
        map.missing("when", "matches every request, events too; say which are this handshake");
    }
    if let (Some(field), false, ProvenBy::Verify) = (map.get("method"), of_events, &handshake.proven_by) {
        field.error(
            "not among `methods`, so `verify` never sees it; add it there, or write `signed: false` and a `check`",
        );
    }
}

/// What is computed for anybody must not be what events are signed with, and that can be told of one value alone.
fn refuse_open_ends(map: &Map<'_>, handshake: &Handshake) {
    if !matches!(handshake.proven_by, ProvenBy::Nothing) {
        return;
    }
    for (name, computed) in &handshake.compute {
        let pieces = &computed.content.0;
        if pieces.iter().filter(|piece| matches!(piece, AnswerPiece::Value(_))).count() != 1 {
            map.field().error(format!(
                "anybody may ask for `{name}`, which then has exactly one value in its `content`; \
                 give the handshake a `check`, or take the others out"
            ));
        }
    }
}

/// None where a place is wrong: a condition that is left out would match more than was meant.
fn when(map: &Map<'_>) -> Option<When> {
    let places = |key: &str| -> Option<Vec<Place>> {
        let items = map.get(key).map(|field| field.list("`[\"header:X-Challenge\"]`")).unwrap_or_default();
        let places: Vec<_> = items.iter().map(|item| item.parse("a place", place)).collect();
        places.into_iter().collect()
    };
    let named = map.get("equals").map(|field| field.named()).unwrap_or_default();
    let equal = |(entry, field): (&super::tree::Entry, Field<'_>)| match place(&entry.key) {
        Ok(place) => Some((place, field.text()?.value)),
        Err(error) => {
            field.error_at_key(error);
            None
        }
    };
    let equals: Vec<_> = named.into_iter().map(equal).collect();
    let (present, absent) = (places("present"), places("absent"));
    Some(When { equals: equals.into_iter().collect::<Option<_>>()?, present: present?, absent: absent? })
}

fn compute(field: &Field<'_>, secrets: &[SecretSlot]) -> Vec<(String, ComputedHmac)> {
    let value = |(entry, field): (&super::tree::Entry, Field<'_>)| {
        let name = field.name(&entry.key)?;
        let map = field.map()?;
        match map.section("hmac") {
            Some(map) => Some((name.to_string(), computed_hmac(&map, secrets)?)),
            None => {
                map.missing("hmac", "nothing to compute; write `hmac: { hash: sha256, content: … }`");
                None
            }
        }
    };
    field.named().into_iter().filter_map(value).collect()
}

fn computed_hmac(map: &Map<'_>, secrets: &[SecretSlot]) -> Option<ComputedHmac> {
    let secret = verify::slot(map, "secret", secrets);
    let hash = verify::hash(map);
    let plain = KeyDecoding { strip: None, encoding: KeyEncoding::Utf8 };
    let key = map.get("key").map_or(Some(plain), |field| verify::key(&field, KeyEncoding::Utf8));
    let encoding = verify::signature_encoding(map);
    let content = match map.get("content") {
        Some(field) => answer_text(&field, &[]),
        None => {
            map.missing("content", "nothing to compute it over; write a place in braces, like `{json:/challenge}`");
            None
        }
    };
    Some(ComputedHmac { hash: hash?, secret: secret?, key: key?, content: content?, encoding })
}

fn respond(map: &Map<'_>, computed: &[&str]) -> Option<HandshakeRespond> {
    let status = map.get("status").and_then(|field| status(&field, 200..=299)).unwrap_or(200);
    let mut headers = Vec::new();
    for (entry, field) in map.get("headers").map(|field| field.named()).unwrap_or_default() {
        match answer_header(&entry.key) {
            Ok(name) => headers.extend(answer_text(&field, computed).map(|text| (name, text))),
            Err(error) => field.error_at_key(error),
        }
    }
    let body = match (map.get("json"), map.get("body")) {
        (Some(json), Some(_)) => {
            json.error("`body` and `json` both stand here; keep one of them");
            None
        }
        (Some(json), None) => {
            if let Some(field) = map.get("content_type") {
                field.error("`json` is application/json; take this out");
            }
            json_answer(&json, computed).map(HandshakeBody::Json)
        }
        (None, body) => {
            let text = body.map_or_else(|| Some(AnswerText::default()), |field| answer_text(&field, computed));
            text_body(map, text?)
        }
    };
    Some(HandshakeRespond { status, headers, body: body? })
}

/// What a sender chose is echoed as text that no browser takes for a page or a script.
fn text_body(map: &Map<'_>, text: AnswerText) -> Option<HandshakeBody> {
    let plain = HeaderValue::from_static("text/plain");
    let Some(field) = map.get("content_type") else { return Some(HandshakeBody::Text(text, plain)) };
    let content_type = content_type(&field)?;
    let echoes = text.0.iter().any(|piece| matches!(piece, AnswerPiece::Value(_)));
    let is_plain = content_type.as_bytes().split(|byte| *byte == b';').next() == Some(plain.as_bytes());
    if echoes && !is_plain {
        field.error("a body that echoes the request is `text/plain`; leave this out, or write the body under `json`");
        return None;
    }
    Some(HandshakeBody::Text(text, content_type))
}

/// Headers that we set ourselves, or through which an echo would act on more than a reader's eyes.
const RESERVED: [HeaderName; 15] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_DISPOSITION,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::CONNECTION,
    header::UPGRADE,
    header::DATE,
    header::CACHE_CONTROL,
    header::X_CONTENT_TYPE_OPTIONS,
    header::SET_COOKIE,
    header::LOCATION,
    header::REFRESH,
    header::LINK,
];

fn answer_header(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_str(text)
        .map_err(|_| format!("`{text}` is not a header's name; write one like `X-Hook-Secret`"))?;
    let ours = ["forebay-", "access-control-", "x-request-id"].iter().any(|start| name.as_str().starts_with(start));
    if ours || RESERVED.contains(&name) {
        return Err(format!("`{text}` is not for a preset to set; leave it out"));
    }
    Ok(name)
}

/// A text with `{places}` and `{compute:NAME}`, which may be empty.
fn answer_text(field: &Field<'_>, computed: &[&str]) -> Option<AnswerText> {
    field.parse("a text like `{json:/challenge}`", |text| {
        template::split(text, AnswerPiece::Literal, |inside| piece(inside, computed)).map(AnswerText)
    })
}

fn piece(text: &str, computed: &[&str]) -> Result<AnswerPiece, String> {
    match text.split_once(':') {
        Some(("compute", name)) if computed.contains(&name) => Ok(AnswerPiece::Computed(name.to_owned())),
        Some(("compute", name)) => {
            Err(format!("`{name}` is not among `compute`; {}", suggest(name, computed.iter().copied())))
        }
        _ => place(text).map(AnswerPiece::Value).map_err(|error| format!("{error}, or `compute:NAME`")),
    }
}

fn json_answer(field: &Field<'_>, computed: &[&str]) -> Option<JsonAnswer> {
    if field.is_list() {
        let items: Vec<_> = field.list("`[…]`").iter().map(|item| json_answer(item, computed)).collect();
        return items.into_iter().collect::<Option<_>>().map(JsonAnswer::List);
    }
    if field.is_mapping() {
        let entry = |(entry, field): (&super::tree::Entry, Field<'_>)| {
            Some((entry.key.clone(), json_answer(&field, computed)?))
        };
        let entries: Vec<_> = field.named().into_iter().map(entry).collect();
        return entries.into_iter().collect::<Option<_>>().map(JsonAnswer::Object);
    }
    let Some(written) = field.literal() else { return answer_text(field, computed).map(JsonAnswer::Text) };
    if serde_json::from_str::<serde_json::Value>(written).is_ok() {
        return Some(JsonAnswer::Literal(written.to_owned()));
    }
    field.error(format!("`{written}` is not how JSON writes it; write it so, or put it in quotes"));
    None
}
