//! Signatures and times wherever they may stand: in the query, a form, the JSON body, the URL.

use super::schemes::{FORM, TYPE, at, form, of, query, with};
use super::*;

/// reliability: V1, V3, V4, V7, V24.
#[test]
fn a_signature_stands_once_wherever_it_stands() {
    let id = || vec![Piece::At(query("id")), Piece::Literal("\n".into()), Piece::Body];
    let recipe = compile(Check::Signed(at(query("sig"), id())), json_id());
    let mut sent = Sent::new(&[], BODY);
    sent.query = Some("id=a%20b".into());
    let sent = sent.sign(&recipe, NOW, None);
    let good = sent.query.clone().unwrap();
    let value = good.rsplit('=').next().unwrap();
    let verdict = |query: &str| Sent { query: Some(query.into()), ..sent.clone() }.rejected(&recipe);
    assert_eq!(verdict(&good), None);
    assert_eq!(verdict(&good.replace("id=a%20b", "%69d=a+b")), None, "the decoded value is signed");
    for (query, expected) in [
        ("id=a+b".to_owned(), Rejection::MissingSignature),
        ("id=a+b&sig=".to_owned(), Rejection::MissingSignature),
        (format!("{good}&sig={value}"), Rejection::RepeatedSignature),
        (format!("{good}&s%69g=x"), Rejection::RepeatedSignature),
        (good.replace(value, &value[1..]), Rejection::MalformedSignature),
        (format!("{good}00"), Rejection::MalformedSignature),
        (good.replace(value, &"0".repeat(64)), Rejection::NoMatch),
        (good.replace("a%20b", "a%2520b"), Rejection::NoMatch),
        (format!("sig={value}"), Rejection::MissingSignedPart),
        (format!("{good}&id=a+b"), Rejection::RepeatedSignedPart),
    ] {
        assert_eq!(verdict(&query), Some(expected), "{query}");
    }
    assert_eq!(Sent { query: None, ..sent.clone() }.rejected(&recipe), Some(Rejection::MissingSignature));

    let recipe = compile(Check::Signed(at(form("sig"), vec![Piece::At(form("a")), Piece::At(form("b"))])), json_id());
    let sent = Sent::new(&[(TYPE, FORM)], "a=1+2&b=%C3%A9").sign(&recipe, NOW, None);
    assert_eq!(sent.rejected(&recipe), None);
    let twice = [&sent.body[..], b"&a=1+2"].concat();
    assert_eq!(sent.clone().body(&twice).rejected(&recipe), Some(Rejection::RepeatedSignedPart));
    let moved = String::from_utf8(sent.body.clone()).unwrap().replace("a=1+2&b=%C3%A9", "b=é&x=1&a=1%202");
    assert_eq!(sent.clone().body(moved.as_bytes()).rejected(&recipe), None);

    let recipe = compile(
        Check::Signed(at(Place::Json("/s/sig".into()), vec![Piece::At(Place::Json("/s/t".into()))])),
        json_id(),
    );
    let sent = Sent::new(&[], r#"{"s":{"t":"1"}}"#).sign(&recipe, NOW, None);
    assert_eq!(sent.rejected(&recipe), None);
    assert_eq!(sent.body(br#"{"s":{"t":"1","sig":7}}"#).rejected(&recipe), Some(Rejection::MalformedSignature));
}

#[test]
fn only_a_form_of_at_most_1000_fields_has_fields() {
    let check = Check::Token(TokenCheck { secret: "secret".into(), from: form("token"), prefix: None });
    let recipe = with(check, EventFacts::default(), &of(&[("secret", "abc")])).unwrap();
    let verdict = |types: &[&str], body: &str| {
        let mut sent = Sent::new(&[], body);
        for value in types {
            sent = sent.with(TYPE, value);
        }
        sent.rejected(&recipe)
    };
    let missing = Some(Rejection::MissingSignature);
    assert_eq!(verdict(&[FORM], "token=abc"), None);
    assert_eq!(verdict(&["Application/X-WWW-Form-Urlencoded ; charset=utf-8"], "t%6Fken=%61bc"), None);
    for types in [&[][..], &["text/plain"], &["application/json"], &[FORM, FORM]] {
        assert_eq!(verdict(types, "token=abc"), None, "{types:?}: nobody signed it");
        for json in [r#"{"text":"&token=abc&"}"#, " [\"&token=abc&\"]"] {
            assert_eq!(verdict(types, json), missing, "{types:?}: what people write is no field");
        }
    }
    let fields = |count: usize| format!("{}token=abc", "a&".repeat(count - 1));
    assert_eq!(verdict(&[FORM], &fields(1_000)), None);
    assert_eq!(verdict(&[FORM], &fields(1_001)), missing);
    assert_eq!(verdict(&[FORM], "token=abc&token=abc"), Some(Rejection::RepeatedSignature));
}

/// reliability: V23.
#[test]
fn the_signed_url_is_the_configured_one_and_no_header_changes_it() {
    let recipe = compile(Check::Signed(hmac(vec![Piece::Url, Piece::Body])), json_id());
    let with_query = |query: Option<&str>| Sent { query: query.map(String::from), ..Sent::new(&[], BODY) };
    for query in [None, Some(""), Some("b=2&a=%41")] {
        let sent = with_query(query).sign(&recipe, NOW, None);
        assert_eq!(sent.rejected(&recipe), None, "{query:?}");
        let mut spoofed = sent.clone();
        for (name, value) in
            [("host", "evil.example"), ("x-forwarded-host", "evil.example"), ("x-forwarded-proto", "http")]
        {
            spoofed.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        assert_eq!(spoofed.rejected(&recipe), None, "{query:?}");
        for other in [None, Some(""), Some("a=%41&b=2"), Some("b=2&a=A")].into_iter().filter(|other| *other != query) {
            let changed = Sent { query: other.map(String::from), ..sent.clone() };
            assert_eq!(changed.rejected(&recipe), Some(Rejection::NoMatch), "{query:?} as {other:?}");
        }
    }
    // HMAC-SHA256 of `https://hooks.example.com/hook/eu?a=1` and the body, computed apart from this program.
    let sent = with_query(Some("a=1")).sign(&recipe, NOW, None);
    let expected = "sha256=5935096db0ea6d5064cfc22911e1fcd051739de2e3b67173789cc7217430fce6";
    assert_eq!(sent.headers[&SIGNATURE], expected);

    let none = Options { public_url: None, ..options() };
    let check = Check::Any(vec![token(), Check::Signed(hmac(vec![Piece::Url]))]);
    let error = Recipe::compile(&preset(check, json_id()), &keyring(&[SECRET]), &none).err();
    assert_eq!(error, Some(CompileError::MissingPublicUrl));
}

/// reliability: V11, V12.
#[test]
fn a_signed_time_may_stand_anywhere_that_is_signed() {
    let time = |from: Place, unit| Timestamp { from: Piece::At(from), unit, tolerance: Duration::from_secs(60) };
    let timed = |from: Place, unit, content| {
        compile(Check::Signed(SignedCheck { timestamp: Some(time(from, unit)), ..hmac(content) }), json_id())
    };
    let json = || Place::Json("/t".into());
    let recipe = timed(json(), TimeUnit::Milliseconds, vec![Piece::Body]);
    let at = |millis: i64| {
        let sent = Sent::new(&[], r#"{"t":0}"#).sign(&recipe, UnixMillis(NOW.0 + millis), None);
        assert_eq!(sent.body, format!(r#"{{"t":{}}}"#, NOW.0 + millis).as_bytes(), "a number stays one");
        sent
    };
    assert_eq!(at(-60_000).rejected(&recipe), None);
    assert_eq!(at(-60_001).rejected(&recipe), Some(Rejection::StaleTimestamp));
    assert_eq!(at(60_000).rejected(&recipe), None);
    assert_eq!(at(60_001).rejected(&recipe), Some(Rejection::FutureTimestamp));
    let untimed = compile(Check::Signed(hmac(vec![Piece::Body])), json_id());
    for body in ["{}", r#"{"t":1e12}"#, r#"{"t":1700000000000.0}"#, r#"{"t":-1}"#, r#"{"t":true}"#, r#"{"t":[1]}"#] {
        let sent = Sent::new(&[], body).sign(&untimed, NOW, None);
        assert_eq!(sent.rejected(&recipe), Some(Rejection::BadTimestamp), "{body}");
    }
    for (place, content) in [
        (query("t"), vec![Piece::Query, Piece::Body]),
        (query("t"), vec![Piece::Url]),
        (query("t"), vec![Piece::At(query("t")), Piece::Body]),
        (form("t"), vec![Piece::Body]),
        (Place::Header(TIME), vec![Piece::At(Place::Header(TIME)), Piece::Body]),
    ] {
        let recipe = timed(place.clone(), TimeUnit::Seconds, content);
        let sent = Sent::new(&[(TYPE, FORM)], "a=1");
        assert_eq!(sent.clone().sign(&recipe, NOW, None).rejected(&recipe), None, "{place}");
        let old = sent.sign(&recipe, UnixMillis(NOW.0 - 61_000), None);
        assert_eq!(old.rejected(&recipe), Some(Rejection::StaleTimestamp), "{place}");
    }
    for (place, content) in [
        (query("t"), vec![Piece::Body]),
        (query("t"), vec![Piece::At(query("u"))]),
        (json(), vec![Piece::Url]),
        (form("t"), vec![Piece::At(form("u"))]),
        (Place::Param("region".into()), vec![Piece::Query]),
    ] {
        let check = SignedCheck { timestamp: Some(time(place.clone(), TimeUnit::Seconds)), ..hmac(content) };
        let error = with(Check::Signed(check), json_id(), &keyring(&[SECRET])).err();
        assert_eq!(error, Some(CompileError::UnsignedTimestamp), "{place}");
    }
}

/// reliability: V22.
#[test]
fn a_value_beside_a_dot_has_none_wherever_it_stands() {
    let dot = || Piece::Literal(".".into());
    let recipe = compile(Check::Signed(hmac(vec![Piece::At(query("id")), dot(), Piece::Body])), json_id());
    let sign = |id: &str| {
        let sent = Sent { query: Some(format!("id={id}")), ..Sent::new(&[], BODY) };
        recipe.sign(&mut sent.draft(), NOW, None)
    };
    assert_eq!(sign("a"), Ok(()));
    assert_eq!(sign(&"x".repeat(256)), Ok(()));
    for id in ["a.b", "a%2Eb", "a%00", &"x".repeat(257)] {
        assert_eq!(sign(id), Err(SignError::Value), "{id}");
    }
    assert_eq!(sign(""), Err(SignError::Missing(query("id"))));
}

#[test]
fn a_signature_cannot_sign_itself() {
    for (from, content) in [
        (query("sig"), vec![Piece::Query]),
        (query("sig"), vec![Piece::Url]),
        (query("sig"), vec![Piece::At(query("sig"))]),
        (form("sig"), vec![Piece::Body]),
        (Place::Json("/sig".into()), vec![Piece::Body]),
        (Place::Param("sig".into()), vec![Piece::Path]),
        (Place::Header(SIGNATURE), vec![Piece::At(Place::Header(SIGNATURE)), Piece::Body]),
    ] {
        let error = with(Check::Signed(at(from.clone(), content)), json_id(), &keyring(&[SECRET])).err();
        assert_eq!(error, Some(CompileError::SignsItself { place: from }));
    }
}
