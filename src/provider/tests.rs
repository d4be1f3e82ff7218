//! What a whole recipe promises, on presets of an invented provider. The real ones are tests/vectors.rs.

mod carriers;
mod properties;
mod schemes;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use crate::base::Name;
use crate::event::{Client, Head, Received};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);
const SECRET: &str = "an acme secret of some length";
const BODY: &str = r#"{"id":"evt_1","type":"order.paid"}"#;
const PUBLIC_URL: &str = "https://hooks.example.com";
const SIGNATURE: HeaderName = HeaderName::from_static("acme-signature");
const ID: HeaderName = HeaderName::from_static("acme-id");
const TIME: HeaderName = HeaderName::from_static("acme-time");
const TOKEN: HeaderName = HeaderName::from_static("acme-token");

pub(super) fn preset(verify: Check, event: EventFacts) -> Preset {
    Preset { verify, event, ..Preset::none() }
}

/// `acme-signature: sha256=<hex>` over `content`.
pub(super) fn hmac(content: Vec<Piece>) -> SignedCheck {
    SignedCheck {
        scheme: Scheme::Hmac(Hash::Sha256),
        secret: "secret".into(),
        key: KeyDecoding { strip: None, encoding: KeyEncoding::Utf8 },
        signature: Carrier {
            from: Place::Header(SIGNATURE),
            prefix: Some("sha256=".into()),
            list: None,
            encoding: SignatureEncoding::Hex,
        },
        content: Template(content),
        timestamp: None,
    }
}

fn header(name: HeaderName) -> Piece {
    Piece::At(Place::Header(name))
}

fn token() -> Check {
    Check::Token(TokenCheck { secret: "secret".into(), from: Place::Header(TOKEN), prefix: None })
}

/// `{header:acme-id}.{header:acme-time}.{body}`, five minutes either way.
fn timed() -> SignedCheck {
    let dot = || Piece::Literal(".".into());
    let content = vec![header(ID), dot(), header(TIME), dot(), Piece::Body];
    let timestamp = Timestamp { from: header(TIME), unit: TimeUnit::Seconds, tolerance: Duration::from_secs(300) };
    SignedCheck { timestamp: Some(timestamp), ..hmac(content) }
}

pub(super) fn keyring(secrets: &[&str]) -> Keyring {
    let key = |text: &&str| Key { secret: Secret::new(*text), not_after: None };
    Keyring(vec![("secret".into(), secrets.iter().map(key).collect())])
}

pub(super) fn options() -> Options {
    Options { tolerance: Tolerance::Preset, dedupe: KeyRule::Off, public_url: Some(PUBLIC_URL.into()) }
}

pub(super) fn compile(verify: Check, event: EventFacts) -> Recipe {
    let options = Options { dedupe: event.key_rule(), ..options() };
    Recipe::compile(&preset(verify, event), &keyring(&[SECRET]), &options).unwrap()
}

/// A request under test, changed at will.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Sent {
    fn new(headers: &[(HeaderName, &str)], body: &str) -> Self {
        let header = |(name, value): &(HeaderName, &str)| (name.clone(), HeaderValue::from_str(value).unwrap());
        Self { query: None, headers: headers.iter().map(header).collect(), body: body.into() }
    }

    fn signed(recipe: &Recipe, headers: &[(HeaderName, &str)], body: &str, now: UnixMillis) -> Self {
        Self::new(headers, body).sign(recipe, now, None)
    }

    pub(super) fn sign(self, recipe: &Recipe, now: UnixMillis, private: Option<&SigningKey>) -> Self {
        let mut draft = self.draft();
        recipe.sign(&mut draft, now, private).unwrap();
        Self { query: draft.query, headers: draft.headers, body: draft.body }
    }

    pub(super) fn draft(&self) -> Draft {
        Draft {
            method: Method::POST,
            path: "/hook/eu".into(),
            query: self.query.clone(),
            params: vec![("region".into(), "eu".into())],
            headers: self.headers.clone(),
            body: self.body.clone(),
        }
    }

    fn with(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    fn without(mut self, name: &HeaderName) -> Self {
        self.headers.remove(name);
        self
    }

    fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    pub(super) fn verify(&self, recipe: &Recipe, now: UnixMillis) -> Result<VerifiedEvent, Rejection> {
        let client = Client { ip: [192, 0, 2, 1].into(), tls: false, host: None };
        let head = Head {
            method: Method::POST,
            path: "/hook/eu".into(),
            query: self.query.as_deref().map(Box::from),
            headers: self.headers.clone(),
            client,
            received_at: now,
        };
        let params = vec![("region".into(), "eu".into())];
        let received = Received { head, params, body: Bytes::from(self.body.clone()) };
        recipe.verify(&Name::new("shop").unwrap(), &Name::new("acme").unwrap(), received, now)
    }

    fn rejected(&self, recipe: &Recipe) -> Option<Rejection> {
        self.verify(recipe, NOW).err()
    }

    fn dedupe(&self, recipe: &Recipe) -> Dedupe {
        self.verify(recipe, NOW).unwrap().dedupe().unwrap().clone()
    }
}

fn first_of(places: &[Place]) -> FirstOf {
    FirstOf(places.to_vec())
}

fn header_id() -> EventFacts {
    EventFacts { id: Some(first_of(&[Place::Header(ID)])), ..EventFacts::default() }
}

fn json_id() -> EventFacts {
    let json = |pointer: &str| Some(first_of(&[Place::Json(pointer.into())]));
    EventFacts { id: json("/id"), kind: json("/type"), dedupe: None }
}

#[test]
fn a_genuine_request_becomes_an_event_with_its_facts() {
    let recipe = compile(Check::Signed(hmac(vec![Piece::Body])), json_id());
    let ours = [(HeaderName::from_static("forebay-event-id"), "x"), (HeaderName::from_static("forebay_verified"), "1")];
    let sent = Sent::signed(&recipe, &ours, BODY, NOW).with(ID, "1").with(ID, "2");
    let verified = sent.verify(&recipe, NOW).unwrap();
    let event = verified.event();
    assert_eq!(event.kind.as_deref(), Some("order.paid"));
    assert_eq!(event.provider_event_id.as_deref(), Some("evt_1"));
    assert_eq!((&*event.proof.scheme, &*event.proof.slot), ("hmac", "secret[0]"));
    assert_eq!(event.body, BODY);
    let names: Vec<&str> = event.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["acme-signature", "acme-id", "acme-id"]);
    assert_eq!(&*verified.dedupe().unwrap().rule, "json:/id");
}

/// reliability: V1, V3, V4, V5, V7, V18.
#[test]
fn a_request_that_is_not_as_signed_is_rejected() {
    let recipe = compile(Check::Signed(hmac(vec![Piece::Body])), json_id());
    let good = Sent::signed(&recipe, &[], BODY, NOW);
    let value = good.headers[&SIGNATURE].to_str().unwrap().to_owned();
    let bare = good.clone().without(&SIGNATURE);

    assert_eq!(good.rejected(&recipe), None);
    assert_eq!(bare.rejected(&recipe), Some(Rejection::MissingSignature));
    assert_eq!(good.clone().with(SIGNATURE, &value).rejected(&recipe), Some(Rejection::RepeatedSignature));
    for bad in
        ["", "sha256=", &value[..value.len() - 1], &value[..9], &format!("{value}00"), &format!("{value},{value}")]
    {
        let rejected = bare.clone().with(SIGNATURE, bad).rejected(&recipe);
        assert_eq!(rejected, Some(Rejection::MalformedSignature), "{bad}");
    }
    let other = format!("sha256={}", "0".repeat(64));
    assert_eq!(bare.clone().with(SIGNATURE, &other).rejected(&recipe), Some(Rejection::NoMatch));
    assert_eq!(bare.with(SIGNATURE, &value.to_uppercase()).rejected(&recipe), Some(Rejection::MalformedSignature));

    let bodies = [format!("{BODY}\n"), format!("\u{feff}{BODY}"), BODY.replace(':', ": "), String::new()];
    for body in bodies {
        assert_eq!(good.clone().body(body.as_bytes()).rejected(&recipe), Some(Rejection::NoMatch), "{body}");
    }
}

/// reliability: V19, V21.
#[test]
fn any_bytes_can_be_signed_and_none_at_all() {
    let recipe = compile(Check::Signed(hmac(vec![Piece::Body])), json_id());
    for body in [&b"\xff\x00\x80"[..], b""] {
        let sent = Sent::new(&[], "").body(body).sign(&recipe, NOW, None);
        let verified = sent.verify(&recipe, NOW).unwrap();
        assert_eq!(verified.event().body, body);
        assert_eq!(&*verified.dedupe().unwrap().rule, "the signed bytes");
    }
}

/// reliability: V11, V12, V13.
#[test]
fn a_signed_time_is_needed_and_must_be_near() {
    let recipe = compile(Check::Signed(timed()), header_id());
    let at = |seconds: i64| Sent::signed(&recipe, &[(ID, "1")], BODY, UnixMillis(NOW.0 + seconds * 1000));
    for (seconds, expected) in [
        (0, None),
        (-300, None),
        (300, None),
        (-301, Some(Rejection::StaleTimestamp)),
        (301, Some(Rejection::FutureTimestamp)),
    ] {
        assert_eq!(at(seconds).rejected(&recipe), expected, "{seconds}");
    }
    assert_eq!(at(0).without(&TIME).rejected(&recipe), Some(Rejection::BadTimestamp));
    assert_eq!(at(0).with(TIME, "1700000000").rejected(&recipe), Some(Rejection::BadTimestamp));

    let with = |tolerance| {
        let options = Options { tolerance, ..options() };
        Recipe::compile(&preset(Check::Signed(timed()), header_id()), &keyring(&[SECRET]), &options).unwrap()
    };
    assert_eq!(at(-301).rejected(&with(Tolerance::Within(Duration::from_secs(301)))), None);
    assert_eq!(at(1).rejected(&with(Tolerance::Within(Duration::ZERO))), Some(Rejection::FutureTimestamp));
    assert_eq!(at(-1_000_000).rejected(&with(Tolerance::Off)), None);
    assert_eq!(at(0).without(&TIME).rejected(&with(Tolerance::Off)), Some(Rejection::BadTimestamp));
}

/// reliability: V22. `a.1` + `2` and `a` + `1.2` must not be signed alike.
#[test]
fn an_id_cannot_shift_the_borders_of_what_is_signed() {
    let recipe = compile(Check::Signed(timed()), header_id());
    let good = Sent::signed(&recipe, &[(ID, "a")], BODY, NOW);
    for bad in ["a.1700000000", ".", "a\tb", &"x".repeat(257), ""] {
        let sent = good.clone().without(&ID).with(ID, bad);
        assert_eq!(sent.rejected(&recipe), Some(Rejection::BadId), "{bad}");
        assert_eq!(recipe.sign(&mut sent.draft(), NOW, None), Err(SignError::Value));
    }
    assert_eq!(good.clone().with(ID, "a").rejected(&recipe), Some(Rejection::RepeatedSignedPart));
    assert_eq!(good.without(&ID).rejected(&recipe), Some(Rejection::MissingSignedPart));
    let sent = Sent::signed(&recipe, &[(ID, &"x".repeat(256))], BODY, NOW);
    assert_eq!(sent.rejected(&recipe), None);
}

/// reliability: V28, V29.
#[test]
fn secrets_rotate_and_the_first_signs() {
    let check = || preset(Check::Signed(hmac(vec![Piece::Body])), json_id());
    let recipe = |keyring: &Keyring| Recipe::compile(&check(), keyring, &options()).unwrap();
    let mut both = keyring(&["the new secret", "the old secret"]);
    both.0[0].1[1].not_after = Some(NOW);

    let old = Sent::signed(&recipe(&keyring(&["the old secret"])), &[], BODY, NOW);
    let verified = old.verify(&recipe(&both), NOW).unwrap();
    assert_eq!(&*verified.event().proof.slot, "secret[1]");
    assert_eq!(old.verify(&recipe(&both), UnixMillis(NOW.0 + 1)).err(), Some(Rejection::NoMatch));

    let new = Sent::signed(&recipe(&both), &[], BODY, NOW);
    assert_eq!(&*new.verify(&recipe(&both), NOW).unwrap().event().proof.slot, "secret[0]");
    assert_eq!(new.rejected(&recipe(&keyring(&["another source's"]))), Some(Rejection::NoMatch));
}

/// reliability: V30.
#[test]
fn a_token_is_the_whole_header_once() {
    let recipe = compile(token(), json_id());
    let good = Sent::signed(&recipe, &[], BODY, NOW);
    let bare = good.clone().without(&TOKEN);
    let verified = good.verify(&recipe, NOW).unwrap();
    assert_eq!((&*verified.event().proof.scheme, &*verified.event().proof.slot), ("token", "secret[0]"));
    assert_eq!(bare.rejected(&recipe), Some(Rejection::MissingSignature));
    assert_eq!(good.with(TOKEN, SECRET).rejected(&recipe), Some(Rejection::RepeatedSignature));
    for bad in ["", &SECRET[1..], &SECRET[..3], &format!("{SECRET}x"), &SECRET.to_uppercase()] {
        assert_eq!(bare.clone().with(TOKEN, bad).rejected(&recipe), Some(Rejection::NoMatch), "{bad}");
    }
}

#[test]
fn any_needs_one_and_all_needs_each() {
    let signed = || Check::Signed(hmac(vec![Piece::Body]));
    let (any, all) = (Check::Any(vec![signed(), token()]), Check::All(vec![signed(), token()]));
    let (any, all) = (compile(any, json_id()), compile(all, json_id()));
    let both = Sent::signed(&all, &[], BODY, NOW);
    let only = |name: &HeaderName| both.clone().without(name);

    assert_eq!(&*both.verify(&all, NOW).unwrap().event().proof.scheme, "hmac+token");
    assert_eq!(&*both.verify(&all, NOW).unwrap().event().proof.slot, "secret[0]+secret[0]");
    assert_eq!(only(&TOKEN).rejected(&all), Some(Rejection::MissingSignature));
    assert_eq!(only(&SIGNATURE).rejected(&all), Some(Rejection::MissingSignature));

    assert_eq!(&*only(&TOKEN).verify(&any, NOW).unwrap().event().proof.scheme, "hmac");
    assert_eq!(&*only(&SIGNATURE).verify(&any, NOW).unwrap().event().proof.scheme, "token");
    assert_eq!(Sent::new(&[], BODY).rejected(&any), Some(Rejection::MissingSignature));
    assert_eq!(Sent::new(&[(TOKEN, "x")], BODY).rejected(&any), Some(Rejection::NoMatch));
}

#[test]
fn without_a_check_everything_passes_and_says_so() {
    let recipe = compile(Check::Nothing, json_id());
    let verified = Sent::new(&[], BODY).verify(&recipe, NOW).unwrap();
    assert_eq!((&*verified.event().proof.scheme, &*verified.event().proof.slot), ("none", ""));
    let sent = Sent::new(&[], BODY).sign(&recipe, NOW, None);
    assert_eq!((sent.headers.len(), sent.body.as_slice()), (0, BODY.as_bytes()));
}

#[test]
fn a_signed_key_stands_alone() {
    let recipe = compile(Check::Signed(hmac(vec![Piece::Body])), json_id());
    let key = |body: &str| Sent::signed(&recipe, &[], body, NOW).dedupe(&recipe);
    let (one, rendered, two) = (key(BODY), key(&BODY.replace(':', ": ")), key(&BODY.replace("evt_1", "evt_2")));
    assert_eq!(one.key, rendered.key);
    assert_ne!(one.fingerprint, rendered.fingerprint, "another body under the same key is a conflict");
    assert_ne!(one.key, two.key);

    let recipe = compile(Check::Signed(timed()), header_id());
    let key = |id: &str, body: &str| Sent::signed(&recipe, &[(ID, id)], body, NOW).dedupe(&recipe);
    assert_eq!(key("1", BODY).key, key("1", "{}").key);
    assert_ne!(key("1", BODY).key, key("2", BODY).key);
    assert_eq!(&*key("1", BODY).rule, "header:acme-id");
}

/// reliability: V15, V17: nobody can suppress a genuine event with its unsigned id and an old signed body.
#[test]
fn an_unsigned_key_is_bound_to_the_signed_bytes() {
    for check in [Check::Signed(hmac(vec![Piece::Body])), token(), Check::Nothing] {
        let recipe = compile(check, header_id());
        let key = |id: &str, body: &str| Sent::signed(&recipe, &[(ID, id)], body, NOW).dedupe(&recipe);
        assert_eq!(key("1", BODY), key("1", BODY));
        assert_ne!(key("1", BODY).key, key("2", BODY).key);
        assert_ne!(key("1", BODY).key, key("1", "{}").key);
        assert_eq!(&*key("1", BODY).rule, "header:acme-id bound to the signed bytes");
    }
}

#[test]
fn without_a_key_the_signed_bytes_are_the_key() {
    let recipe = compile(Check::Signed(hmac(vec![Piece::Body])), header_id());
    let long = "x".repeat(257);
    let key = |headers: &[(HeaderName, &str)], body: &str| Sent::signed(&recipe, headers, body, NOW).dedupe(&recipe);
    assert_eq!(key(&[], BODY).key, key(&[(ID, &long)], BODY).key);
    assert_eq!(key(&[], BODY).key, key(&[(ID, "")], BODY).key);
    assert_eq!(key(&[], BODY).key, key(&[(ID, "1"), (ID, "1")], BODY).key);
    assert_ne!(key(&[], BODY).key, key(&[], "{}").key);

    // The signed bytes have the time in them: a retry signed anew is a new event.
    let facts = EventFacts { dedupe: Some(KeyRule::Signed), ..header_id() };
    let recipe = compile(Check::Signed(timed()), facts);
    let key = |now| Sent::signed(&recipe, &[(ID, "1")], BODY, now).dedupe(&recipe).key;
    assert_eq!(key(NOW), key(NOW));
    assert_ne!(key(NOW), key(UnixMillis(NOW.0 + 1000)));
}

/// For a provider that has no id and signs a new time on each try.
#[test]
fn a_signed_body_is_a_key_whatever_else_is_signed() {
    let by_body = || EventFacts { dedupe: Some(KeyRule::Body), ..header_id() };
    let recipe = compile(Check::Signed(timed()), by_body());
    let later = UnixMillis(NOW.0 + 1000);
    let key = |id: &str, body: &str, now| Sent::signed(&recipe, &[(ID, id)], body, now).dedupe(&recipe);
    assert_eq!(key("1", BODY, NOW), key("2", BODY, later));
    assert_ne!(key("1", BODY, NOW).key, key("1", "{}", NOW).key);
    assert_eq!(&*key("1", BODY, NOW).rule, "the body");
}

#[test]
fn several_parts_are_one_key_and_all_of_them_are_needed() {
    let parts = vec![first_of(&[Place::Json("/a".into())]), first_of(&[Place::Json("/b".into())])];
    let facts = EventFacts { dedupe: Some(KeyRule::Parts(parts)), ..EventFacts::default() };
    let recipe = compile(Check::Signed(hmac(vec![Piece::Body])), facts);
    let key = |body: &str| Sent::signed(&recipe, &[], body, NOW).dedupe(&recipe);
    assert_eq!(&*key(r#"{"a":"1","b":"2"}"#).rule, "json:/a + json:/b");
    assert_ne!(key(r#"{"a":"1","b":"23"}"#).key, key(r#"{"a":"12","b":"3"}"#).key);
    assert_eq!(&*key(r#"{"a":"1"}"#).rule, "the signed bytes");
    assert_eq!(&*key(r#"{"a":"1","b":[]}"#).rule, "the signed bytes");
}

/// A signed part beside it makes an unsigned one no better.
#[test]
fn one_unsigned_part_binds_a_key_of_several() {
    let (signed, unsigned) = (first_of(&[Place::Json("/id".into())]), first_of(&[Place::Header(ID)]));
    for parts in [vec![signed.clone(), unsigned.clone()], vec![unsigned, signed]] {
        let facts = EventFacts { dedupe: Some(KeyRule::Parts(parts)), ..EventFacts::default() };
        let recipe = compile(Check::Signed(hmac(vec![Piece::Body])), facts);
        let key = |id: &str, body: &str| Sent::signed(&recipe, &[(ID, id)], body, NOW).dedupe(&recipe);
        assert!(key("1", BODY).rule.ends_with(" bound to the signed bytes"));
        assert_ne!(key("1", BODY).key, key("1", &BODY.replace("paid", "lost")).key);
    }
}

#[test]
fn the_check_that_held_decides_what_binds_the_key() {
    let recipe = compile(Check::Any(vec![Check::Signed(timed()), token()]), header_id());
    let signed = Sent::signed(&recipe, &[(ID, "1")], BODY, NOW);
    assert_eq!(&*signed.dedupe(&recipe).rule, "header:acme-id");
    let with_token = Sent::new(&[(ID, "1"), (TOKEN, SECRET)], BODY);
    assert_eq!(&*with_token.dedupe(&recipe).rule, "header:acme-id bound to the signed bytes");
    assert_ne!(signed.dedupe(&recipe).key, with_token.dedupe(&recipe).key);
}

#[test]
fn two_sources_never_share_a_key() {
    let recipe = compile(Check::Nothing, json_id());
    let key = |source: &str| {
        let head = Head {
            method: Method::POST,
            path: "/".into(),
            query: None,
            headers: HeaderMap::new(),
            client: Client { ip: [192, 0, 2, 1].into(), tls: false, host: None },
            received_at: NOW,
        };
        let received = Received { head, params: Vec::new(), body: Bytes::from_static(BODY.as_bytes()) };
        let name = |text: &str| Name::new(text).unwrap();
        recipe.verify(&name(source), &name("acme"), received, NOW).unwrap().dedupe().unwrap().key
    };
    assert_eq!(key("a"), key("a"));
    assert_ne!(key("a"), key("b"));
}

/// Claims are on disk: an upgrade must find them again. SHA-256 computed apart from this program.
#[test]
fn the_dedupe_key_of_an_event_never_changes() {
    let key = |recipe: &Recipe, sent: Sent| data_encoding::HEXLOWER.encode(&sent.dedupe(recipe).key.0);
    let recipe = compile(Check::Nothing, json_id());
    assert_eq!(key(&recipe, Sent::new(&[], BODY)), "2673cf8e6e5609fb34e6c0a65788a49a29379b07b34596a0812ec27a08d5f37e");
    let recipe = compile(Check::Nothing, header_id());
    let bound = Sent::new(&[(ID, "1")], BODY);
    assert_eq!(key(&recipe, bound), "f8cee18ff2cf863c5e8d0d263f9194efdc46edfb61abbc09a123f597d9633040");
    let by_body = EventFacts { dedupe: Some(KeyRule::Body), ..EventFacts::default() };
    let recipe = compile(Check::Nothing, by_body);
    assert_eq!(key(&recipe, Sent::new(&[], BODY)), "9d61ca722e130e6ebe21106ba395cebdd75efe1f9becce8c0462adfbe0e945ad");
}

#[test]
fn a_preset_that_contradicts_itself_does_not_compile() {
    let list = Some(ListShape { items: ',', pair: '=', key: "v1".into() });
    let field = |name: &str| Piece::Field(name.into());
    let with_list = |content: Vec<Piece>| {
        let mut check = hmac(content);
        check.signature.list = list.clone();
        check
    };
    let time = |from: Piece| Some(Timestamp { from, unit: TimeUnit::Seconds, tolerance: Duration::from_secs(1) });
    let named = |field: &str| field.to_owned();
    let cases = [
        (Check::Any(vec![]), CompileError::EmptyCheck),
        (Check::All(vec![]), CompileError::EmptyCheck),
        (Check::Any(vec![Check::Nothing]), CompileError::NothingInside),
        (Check::Signed(hmac(vec![])), CompileError::EmptyContent),
        (Check::Signed(hmac(vec![Piece::Literal("x".into())])), CompileError::EmptyContent),
        (Check::Signed(hmac(vec![field("t")])), CompileError::FieldWithoutList { field: named("t") }),
        (Check::Signed(with_list(vec![field("v1")])), CompileError::FieldIsSignature { field: named("v1") }),
        (Check::Signed(with_list(["a", "b", "c", "d", "e"].map(field).to_vec())), CompileError::TooManyFields),
        (
            Check::Signed(SignedCheck { timestamp: time(Piece::Body), ..hmac(vec![Piece::Body]) }),
            CompileError::TimestampPlace,
        ),
        (
            Check::Signed(SignedCheck { timestamp: time(header(TIME)), ..hmac(vec![Piece::Body]) }),
            CompileError::UnsignedTimestamp,
        ),
        (
            Check::Token(TokenCheck { secret: "other".into(), from: Place::Header(TOKEN), prefix: None }),
            CompileError::MissingSecret { slot: named("other") },
        ),
    ];
    for (check, expected) in cases {
        let error =
            Recipe::compile(&preset(check, EventFacts::default()), &keyring(&[SECRET]), &options()).unwrap_err();
        assert_eq!(error, expected);
    }
    let mut same = with_list(vec![Piece::Body]);
    same.signature.list = Some(ListShape { items: ',', pair: ',', key: "v1".into() });
    let error = Recipe::compile(&preset(Check::Signed(same), EventFacts::default()), &keyring(&[SECRET]), &options());
    assert_eq!(error.unwrap_err(), CompileError::SameSeparators);
}

#[test]
fn nothing_secret_is_printed() {
    let recipe = compile(Check::All(vec![Check::Signed(hmac(vec![Piece::Body])), token()]), json_id());
    let text = format!("{recipe:?}");
    assert!(!text.contains("acme secret") && text.contains("***"), "{text}");
}
