//! Whatever a recipe signs it verifies, and no byte of what it signed can be another.

use proptest::prelude::*;

use super::*;

/// A way to sign: every choice that the preset language offers a HMAC in headers.
fn checks() -> impl Strategy<Value = SignedCheck> {
    let hash = prop::sample::select(vec![Hash::Sha1, Hash::Sha256, Hash::Sha384, Hash::Sha512]);
    let encodings = vec![SignatureEncoding::Hex, SignatureEncoding::Base64, SignatureEncoding::Base64Url];
    let prefix = prop::sample::select(vec![None, Some("v0="), Some("HMAC ")]);
    let lists = vec![None, Some((',', '=', "v1")), Some((' ', ',', "v1")), Some((';', '=', "h1"))];
    let unit = prop::sample::select(vec![TimeUnit::Seconds, TimeUnit::Milliseconds, TimeUnit::Rfc3339]);
    let encoding = prop::sample::select(encodings);
    (hash, encoding, prefix, prop::sample::select(lists), prop::option::of(unit), any::<bool>()).prop_map(
        |(hash, encoding, prefix, list, unit, with_id)| {
            // A space ends an item of the space-separated list.
            let prefix = prefix.filter(|prefix| !(prefix.contains(' ') && matches!(list, Some((' ', ..)))));
            let time = if list.is_some() { Piece::Field("t".into()) } else { header(TIME) };
            let dot = || Piece::Literal(".".into());
            let mut content = vec![Piece::Method, Piece::Path, Piece::Query, dot()];
            if with_id {
                content.extend([header(ID), dot()]);
            }
            if unit.is_some() {
                content.extend([time.clone(), dot()]);
            }
            content.push(Piece::Body);
            SignedCheck {
                scheme: Scheme::Hmac(hash),
                signature: Carrier {
                    from: Place::Header(SIGNATURE),
                    prefix: prefix.map(String::from),
                    list: list.map(|(items, pair, key)| ListShape { items, pair, key: key.into() }),
                    encoding,
                },
                timestamp: unit.map(|unit| Timestamp { from: time, unit, tolerance: Duration::from_secs(300) }),
                ..hmac(content)
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_signed_verifies_and_no_byte_of_it_can_change(
        check in checks(),
        body in prop::collection::vec(any::<u8>(), 0..64),
        at in any::<prop::sample::Index>(),
        flip in 1u8..=255,
    ) {
        let hex = check.signature.encoding == SignatureEncoding::Hex;
        let recipe = compile(Check::Signed(check), EventFacts::default());
        let sent = Sent::new(&[(ID, "msg_1")], "").body(&body).sign(&recipe, NOW, None);
        prop_assert!(sent.rejected(&recipe).is_none());

        if !body.is_empty() {
            let mut changed = sent.clone();
            let place = at.index(body.len());
            changed.body[place] ^= flip;
            prop_assert_eq!(changed.rejected(&recipe), Some(Rejection::NoMatch));
        }
        for (name, value) in sent.headers.iter().filter(|(name, _)| **name != ID) {
            let mut bytes = value.as_bytes().to_vec();
            let place = at.index(bytes.len());
            let before = bytes[place];
            bytes[place] ^= flip;
            let same_digit = hex && before.eq_ignore_ascii_case(&bytes[place]);
            if let (Ok(value), false) = (HeaderValue::from_bytes(&bytes), same_digit) {
                let mut changed = sent.clone();
                changed.headers.insert(name.clone(), value);
                prop_assert!(changed.rejected(&recipe).is_some(), "{:?}", changed.headers);
            }
        }
    }

    #[test]
    fn no_header_or_body_makes_it_panic_or_pass(
        check in checks(),
        signature in "[ -~]{0,120}|(t=[0-9]{1,13},)?(v1=[0-9a-f]{0,64},?){0,12}|v1,[A-Za-z0-9+/]{43}=",
        time in "[ -~]{0,40}|[0-9]{1,16}",
        body in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let recipe = compile(Check::Signed(check), json_id());
        let sent = Sent::new(&[(ID, "msg_1"), (SIGNATURE, &signature), (TIME, &time)], "").body(&body);
        prop_assert!(sent.rejected(&recipe).is_some());
    }

    #[test]
    fn pointers_agree_with_a_whole_parse(body in json(4), pointer in "(/[ab01]){1,4}") {
        let text = body.to_string();
        let whole = match body.pointer(&pointer) {
            Some(serde_json::Value::String(text)) => Some(text.clone()),
            Some(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => Some(value.to_string()),
            _ => None,
        };
        let facts = EventFacts { id: Some(first_of(&[Place::Json(pointer)])), ..EventFacts::default() };
        let verified = Sent::new(&[], &text).verify(&compile(Check::Nothing, facts), NOW).unwrap();
        prop_assert_eq!(verified.event().provider_event_id.as_deref(), whole.as_deref().filter(|id| !id.is_empty()));
    }
}

fn json(depth: u32) -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "\\PC{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(depth, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Into::into),
            prop::collection::hash_map("[ab01]", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}
