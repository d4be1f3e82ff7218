//! What is said of handshakes.

use super::mistakes::check;
use super::*;
use crate::provider::{AnswerPiece, AnswerText, HandshakeBody, JsonAnswer, ProvenBy};

#[test]
fn each_mistake_of_a_handshake_is_said() {
    check(
        "preset",
        r#"
| handshakes: { name: ping }
> 17: providers.acme.handshakes: a mapping stands here; write a list: `[{ name: …, when: … }]`
| handshakes: [{ when: { present: ["json:/a"] } }]
> 18: providers.acme.handshakes[0].name: no name; write a short one for the logs, like `subscribe`
| handshakes: [{ name: ping }]
> 18: providers.acme.handshakes[0].when: matches every request, events too; say which are this handshake
| handshakes: [{ name: ping, method: POST, signed: false }]
> 18: providers.acme.handshakes[0].when: matches every request, events too; say which are this handshake
| handshakes: [{ name: ping, method: GET }]
> 40: providers.acme.handshakes[0].method: not among `methods`, so `verify` never sees it; add it there, or write `signed: false` and a `check`
| handshakes: [{ name: ping, method: get, signed: false }]
> 40: providers.acme.handshakes[0].method: `get` is not a method; write it in capitals, like `POST`
| handshakes: [{ name: a, method: HEAD, signed: false }, { name: a, method: GET, signed: false }]
> 60: providers.acme.handshakes[1]: there is another handshake `a`; give one of them another name
| handshakes: [{ name: ping, when: { present: ["json:/a"] }, check: { token: { header: X } } }]
> 71: providers.acme.handshakes[0].check: `verify` is checked first, and this never; write `signed: false`, or take it out
| handshakes: [{ name: ping, when: { equals: { "body": x } } }]
> 50: providers.acme.handshakes[0].when.equals.body: `body` is not a place; write `header:NAME`, `json:/path/to/it`, `query:NAME`, `form:NAME` or `param:NAME`
| handshakes: [{ name: ping, when: { present: ["json:/a"] }, respond: { body: "{compute:x}" } }]
> 81: providers.acme.handshakes[0].respond.body: `x` is not among `compute`; there are none here
| handshakes: [{ name: ping, when: { present: ["json:/a"] }, respond: { body: "{body}" } }]
> 81: providers.acme.handshakes[0].respond.body: `body` is not a place; write `header:NAME`, `json:/path/to/it`, `query:NAME`, `form:NAME` or `param:NAME`, or `compute:NAME`
| handshakes: [{ name: ping, when: { present: ["json:/a"] }, respond: { body: "{json:/a}", content_type: text/html } }]
> 108: providers.acme.handshakes[0].respond.content_type: a body that echoes the request is `text/plain`; leave this out, or write the body under `json`
| handshakes: [{ name: ping, when: { present: ["json:/a"] }, respond: { body: a, json: b } }]
> 90: providers.acme.handshakes[0].respond.json: `body` and `json` both stand here; keep one of them
| handshakes: [{ name: ping, when: { present: ["json:/a"] }, respond: { json: { a: 1.2.3, b: .5 } } }]
> 96: providers.acme.handshakes[0].respond.json.b: `.5` is not how JSON writes it; write it so, or put it in quotes
| handshakes: [{ name: ping, when: { present: ["json:/a"] }, respond: { headers: { Set-Cookie: "{json:/a}" } } }]
> 86: providers.acme.handshakes[0].respond.headers.Set-Cookie: `Set-Cookie` is not for a preset to set; leave it out
| handshakes: [{ name: ping, when: { present: ["json:/a"] }, respond: { status: 302 } }]
> 83: providers.acme.handshakes[0].respond.status: `302` is not a status from 200 to 299; write one of these
| handshakes: [{ name: ping, when: { present: ["json:/a"] }, compute: { x: {} } }]
> 75: providers.acme.handshakes[0].compute.x.hmac: nothing to compute; write `hmac: { hash: sha256, content: … }`
| handshakes: [{ name: ping, when: { present: ["json:/a"] }, compute: { x: { hmac: { hash: sha256 } } } }]
> 80: providers.acme.handshakes[0].compute.x.hmac.content: nothing to compute it over; write a place in braces, like `{json:/challenge}`
| handshakes: [{ name: ping, signed: false, method: GET, compute: { x: { hmac: { hash: sha256, content: "{query:a}.{query:b}" } } } }]
> 18: providers.acme.handshakes[0]: anybody may ask for `x`, which then has exactly one value in its `content`; give the handshake a `check`, or take the others out
| handshakes: [{ name: ping, signed: false, method: GET, compute: { x: { hmac: { hash: sha256, content: "fixed" } } } }]
> 18: providers.acme.handshakes[0]: anybody may ask for `x`, which then has exactly one value in its `content`; give the handshake a `check`, or take the others out
"#,
    );
}

#[test]
fn a_method_that_is_all_of_a_handshake_takes_no_events() {
    let head =
        WHOLE.replace("    event:", "    handshakes: [{ name: probe, signed: false, method: HEAD }]\n    event:");
    let source = |methods: &str| head.replace("    to: [app]", &format!("    methods: [{methods}]\n    to: [app]"));
    good(&head);
    good(&source("POST, PUT"));
    let wrong = "sources.hooks.methods: `acme` answers every HEAD itself, as its handshake `probe`; take HEAD out";
    assert!(said(&source("POST, HEAD")).contains(wrong), "{}", said(&source("POST, HEAD")));
}

#[test]
fn a_json_answer_keeps_what_yaml_writes_without_quotes() {
    let text = r#"
    handshakes:
      - name: ping
        when: { equals: { "json:/type": 1 } }
        respond: { json: { type: 1, "text": "1", list: [true, ~, "{json:/a}", 1e5], "a b": {} } }
"#;
    let config = good(&WHOLE.replace("    event:", &format!("{}    event:", &text[1..])));
    let handshake = &config.sources[0].preset.handshakes[0];
    assert!(matches!(handshake.proven_by, ProvenBy::Verify));
    let literal = |text: &str| JsonAnswer::Literal(text.to_owned());
    let string = |piece| JsonAnswer::Text(AnswerText(vec![piece]));
    let place = crate::provider::Place::Json("/a".to_owned());
    let list = vec![literal("true"), literal("null"), string(AnswerPiece::Value(place)), literal("1e5")];
    let entries = [
        ("type", literal("1")),
        ("text", string(AnswerPiece::Literal("1".to_owned()))),
        ("list", JsonAnswer::List(list)),
        ("a b", JsonAnswer::Object(Vec::new())),
    ];
    let object = JsonAnswer::Object(entries.map(|(key, value)| (key.to_owned(), value)).to_vec());
    assert_eq!(handshake.respond.body, HandshakeBody::Json(object));
}
