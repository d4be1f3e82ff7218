//! `verify` of a preset: the checks, and where what they check stands.

use std::time::Duration;

use crate::provider::{
    BasicCheck, Carrier, Check, Hash, KeyDecoding, KeyEncoding, ListShape, Piece, Place, Scheme, SecretSlot,
    SignatureEncoding, SignedCheck, Template, TimeUnit, Timestamp, TokenCheck,
};

use super::parse::{any_place, header_name, place};
use super::problems::suggest;
use super::reader::{Field, Map};
use super::template::{placeholder, template};

const TOLERANCE: Duration = Duration::from_secs(300);

const SCHEMES: [&str; 6] = ["hmac", "ed25519", "token", "basic", "any", "all"];

/// What must hold, as it stands at `field`; `secrets` are the preset's.
pub(super) fn check(field: &Field<'_>, secrets: &[SecretSlot]) -> Option<Check> {
    let map = field.map_at("providers.*.verify")?;
    let mut checks = SCHEMES.into_iter().filter_map(|scheme| Some((scheme, map.get(scheme)?)));
    let Some((scheme, at)) = checks.next() else {
        field.error(format!("nothing to check here; write one of {}", SCHEMES.join(", ")));
        return None;
    };
    if let Some((other, at)) = checks.next() {
        at.error(format!("`{scheme}` and `{other}` both stand here; put them under `any` or `all`"));
        return None;
    }
    match scheme {
        "hmac" => signed(&at.map()?, |map| hash(map).map(Scheme::Hmac), secrets).map(Check::Signed),
        "ed25519" => signed(&at.map()?, |_| Some(Scheme::Ed25519), secrets).map(Check::Signed),
        "token" => token(&at.map()?, secrets).map(Check::Token),
        "basic" => basic(&at.map()?, secrets).map(Check::Basic),
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
    let secret = slot(map, "secret", secrets);
    let prefix = map.string("prefix");
    Some(TokenCheck { from: carrier(map, any_place)?, secret: secret?, prefix })
}

fn basic(map: &Map<'_>, secrets: &[SecretSlot]) -> Option<BasicCheck> {
    let username = map.get("username").map(|_| slot(map, "username", secrets));
    let password = slot(map, "password", secrets)?;
    let username = username.map_or(Some(None), |name| name.map(Some))?;
    if username.as_ref() == Some(&password) {
        map.field().error("`username` and `password` are the same secret; name two");
        return None;
    }
    Some(BasicCheck { username, password })
}

pub(super) fn hash(map: &Map<'_>) -> Option<Hash> {
    let hashes = [("sha1", Hash::Sha1), ("sha256", Hash::Sha256), ("sha384", Hash::Sha384), ("sha512", Hash::Sha512)];
    if map.get("hash").is_none() {
        map.missing("hash", "no hash; write one of sha1, sha256, sha384, sha512");
    }
    map.word("hash", &hashes)
}

/// A signature's check, but for its scheme, which `scheme` reads.
fn signed(map: &Map<'_>, scheme: impl Fn(&Map<'_>) -> Option<Scheme>, secrets: &[SecretSlot]) -> Option<SignedCheck> {
    let secret = slot(map, "secret", secrets);
    let scheme = scheme(map);
    let usual = if scheme == Some(Scheme::Ed25519) { KeyEncoding::Hex } else { KeyEncoding::Utf8 };
    let key = match map.get("key") {
        Some(field) => key(&field, usual).filter(|key| is_bytes(&field, key, scheme)),
        None => Some(KeyDecoding { strip: None, encoding: usual }),
    };
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
    let time_at = map.section("timestamp");
    let timestamp = time_at.as_ref().map(timestamp);
    let (content, content_at) = content?;
    let signature = signature?;
    let timestamp = timestamp.flatten();
    let check = SignedCheck { scheme: scheme?, secret: secret?, key: key?, signature, content, timestamp };
    refuse_lost_fields(map, &check, content_at.as_ref(), time_at.as_ref());
    Some(check)
}

/// A public key is bytes, so its text is written in one way or another.
fn is_bytes(field: &Field<'_>, key: &KeyDecoding, scheme: Option<Scheme>) -> bool {
    let is_text = scheme == Some(Scheme::Ed25519) && key.encoding == KeyEncoding::Utf8;
    if is_text {
        field.error("a public key is bytes; say how they are written, `hex` or `base64`");
    }
    !is_text
}

/// `{field:k}` needs a list to be a field of, and a time that is not signed proves nothing.
fn refuse_lost_fields(map: &Map<'_>, check: &SignedCheck, content: Option<&Field<'_>>, time: Option<&Map<'_>>) {
    let is_list = check.signature.list.is_some();
    let place = &check.signature.from;
    if check.content.covers(place) {
        let at = content.cloned().or_else(|| map.get("signature"));
        let at = at.unwrap_or_else(|| map.field().clone());
        at.error(format!("covers `{place}`, where the signature stands, and it cannot sign itself; leave it out"));
    }
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
    let Some(field) = time.and_then(|map| map.get("from")) else { return };
    if matches!(timestamp.from, Piece::Field(_)) && !is_list {
        field.error("a field of the signature's list, and `signature.list` is not set; set it");
    }
    let signed = match &timestamp.from {
        Piece::At(place) => check.content.covers(place),
        piece => check.content.0.contains(piece),
    };
    if !signed {
        field.error("`content` does not sign this time, so it proves nothing; add it there or take it out");
    }
}

const KEY_ENCODINGS: [(&str, KeyEncoding); 3] =
    [("utf8", KeyEncoding::Utf8), ("base64", KeyEncoding::Base64), ("hex", KeyEncoding::Hex)];

/// How a key is written; `usual` where only a prefix is said.
pub(super) fn key(field: &Field<'_>, usual: KeyEncoding) -> Option<KeyDecoding> {
    if field.is_scalar() {
        return super::parse::word(field, &KEY_ENCODINGS).map(|encoding| KeyDecoding { strip: None, encoding });
    }
    let map = field.map()?;
    Some(KeyDecoding { strip: map.string("strip"), encoding: map.word("encoding", &KEY_ENCODINGS).unwrap_or(usual) })
}

fn signature(map: &Map<'_>) -> Option<Carrier> {
    let prefix = map.string("prefix");
    let list = map.section("list").map(|map| list(&map));
    let encoding = signature_encoding(map);
    Some(Carrier { from: carrier(map, place)?, prefix, list: list.unwrap_or(Some(None))?, encoding })
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
        map.missing("from", "nothing says where the time is; write a place like `header:NAME`, or `field:NAME`");
        return None;
    };
    let from = field.parse("a place like `header:NAME`, or `field:NAME`", |text| match placeholder(text) {
        Ok(piece @ (Piece::At(_) | Piece::Field(_))) => Ok(piece),
        _ => Err(format!("`{text}` is not a place for a time; write one like `header:NAME`, or `field:NAME`")),
    });
    Some(Timestamp { from: from?, unit, tolerance })
}

/// Which secret a check takes, at `key`: the named one, else the only one.
pub(super) fn slot(map: &Map<'_>, key: &str, secrets: &[SecretSlot]) -> Option<String> {
    let known = || secrets.iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>();
    match (map.get(key), secrets) {
        (Some(field), _) => field.parse("a secret's name", |text| match known().contains(&text) {
            true => Ok(text.to_owned()),
            false => Err(format!("`{text}` is not among `secrets`; {}", suggest(text, known()))),
        }),
        (None, [only]) => Some(only.name.clone()),
        (None, _) => {
            map.missing(key, format!("there are several secrets; say which: {}", known().join(", ")));
            None
        }
    }
}

/// Where something is carried: at `from`, or in a `header`, which is short for it.
fn carrier(map: &Map<'_>, parse: fn(&str) -> Result<Place, String>) -> Option<Place> {
    match (map.get("from"), map.get("header")) {
        (Some(_), Some(header)) => {
            header.error("`from` and `header` both stand here; keep one of them");
            None
        }
        (Some(from), None) => from.parse("a place like `query:NAME`", parse),
        (None, Some(header)) => header_name(&header).map(Place::Header),
        (None, None) => {
            map.missing(
                "from",
                "nothing says where it stands; write `header: NAME`, or a place like `from: query:NAME`",
            );
            None
        }
    }
}
