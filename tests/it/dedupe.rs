//! Duplicates are forwarded once. The rules of docs/dedupe.md, one by one.
//!
//! `FOREBAY_IDS` says how many ids [`identical_webhooks_at_once_are_one_event_each`] sends, 64 times each
//! (`tests/duplicates.sh`).

use std::collections::BTreeSet;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use http::Method;
use serde_json::Value;

use crate::support::app::status;
use crate::support::gateway::github_to;
use crate::support::http::Answer;
use crate::support::{FakeApp, Gateway, sign};

/// Signed over the body, with the id where `event` says, to one application; `source` is more of the source's settings.
fn acme(app: &FakeApp, event: &str, source: &str) -> String {
    format!(
        "providers:\n  acme:\n    verify: {{ hmac: {{ hash: sha256, signature: {{ header: X-Sig, prefix: \"sha256=\", encoding: hex }} }} }}\n    \
         event: {event}\n\
         sources:\n  one: {{ path: /one, provider: acme, secret: \"${{GITHUB_WEBHOOK_SECRET}}\", to: [app] {source} }}\n  \
         two: {{ path: /two, provider: acme, secret: \"${{GITHUB_WEBHOOK_SECRET}}\", to: [app] {source} }}\n\
         destinations:\n  app: {{ url: {}, retry: {{ initial: 1ms, max: 1ms, max_attempts: 2 }} }}\n",
        app.url()
    )
}

async fn start(event: &str, source: &str) -> (FakeApp, Gateway) {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&acme(&app, event, source)).await;
    (app, gateway)
}

const JSON_ID: &str = "{ id: \"json:/id\" }";
const HEADER_ID: &str = "{ id: \"header:X-Id\" }";

async fn post_to(gateway: &Gateway, path: &str, id: &str, body: &[u8]) -> Answer {
    let signature = sign(body);
    let headers = [("x-sig", signature.as_str()), ("x-id", id)];
    let url = format!("{}{path}", gateway.ingress);
    gateway.http.send(Method::POST, &url, &headers, body).await
}

async fn post(gateway: &Gateway, id: &str, body: &[u8]) -> Answer {
    post_to(gateway, "/one", id, body).await
}

/// The event's id, and whether it was there before.
fn said(answer: &Answer) -> (String, bool) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let duplicate = answer.header("forebay-duplicate");
    assert!(duplicate.is_none_or(|text| text == "true"));
    (answer.header("forebay-event-id").unwrap().to_owned(), duplicate.is_some())
}

async fn duplicates(gateway: &Gateway, kind: &str) -> f64 {
    gateway.metric(&format!("forebay_duplicates_total{{source=\"one\",kind=\"{kind}\"}}")).await
}

/// What the API says of the event `id`, once it says so much of duplicates.
async fn shown(gateway: &Gateway, id: &str, wanted: impl Fn(&Value, &str) -> bool) -> Value {
    let deadline = tokio::time::Instant::now() + crate::support::gateway::PATIENCE;
    loop {
        let event = gateway.get(&format!("/api/v1/events/{id}")).await.json();
        if wanted(&event, &explained(&event)) {
            return event;
        }
        assert!(tokio::time::Instant::now() < deadline, "{event:#}");
        tokio::task::yield_now().await;
    }
}

/// What `explain` says of deduplication.
fn explained(event: &Value) -> String {
    let steps = event["explain"].as_array().cloned().unwrap_or_default();
    let dedupe = steps.iter().filter(|step| step["step"] == "dedupe");
    dedupe.map(|step| format!("{}: {}\n", step["rule"].as_str().unwrap(), step["result"].as_str().unwrap())).collect()
}

// ---- What the key is ----

#[tokio::test]
async fn a_signed_id_with_another_body_is_a_conflict_the_first_wins_and_it_shows() {
    let (app, gateway) = start(JSON_ID, "").await;
    let (first, _) = said(&post(&gateway, "", br#"{"id":"1","n":1}"#).await);
    assert_eq!(said(&post(&gateway, "", br#"{"id":"1","n":2}"#).await), (first.clone(), true));
    assert_eq!(said(&post(&gateway, "", br#"{"id":"1","n":1}"#).await), (first.clone(), true));
    assert_eq!((duplicates(&gateway, "conflict").await, duplicates(&gateway, "same").await), (1.0, 1.0));
    let event = shown(&gateway, &first, |event, _| event["duplicates"] == 2).await;
    assert!(explained(&event).contains("2 duplicates since, 1 with another body"), "{event:#}");
    gateway.event(&first, "delivered").await;
    assert_eq!(app.seen().iter().map(|seen| seen.body.clone()).collect::<Vec<_>>(), [&br#"{"id":"1","n":1}"#[..]]);
}

#[tokio::test]
async fn a_forged_request_takes_no_id_from_the_event_that_is_to_come() {
    for event in [HEADER_ID, JSON_ID] {
        let (app, gateway) = start(event, "").await;
        let body = br#"{"id":"future"}"#;
        for signature in ["", "sha256=00", &sign(b"other")] {
            let headers = [("x-sig", signature), ("x-id", "future")];
            let url = format!("{}/one", gateway.ingress);
            assert_eq!(gateway.http.send(Method::POST, &url, &headers, body).await.status, 401);
        }
        let (id, duplicate) = said(&post(&gateway, "future", body).await);
        assert!(!duplicate);
        gateway.event(&id, "delivered").await;
        assert_eq!(app.seen().len(), 1);
    }
}

#[tokio::test]
async fn an_old_body_under_an_unsigned_id_suppresses_nothing_and_is_an_event_of_its_own() {
    let (app, gateway) = start(HEADER_ID, "").await;
    let (old, _) = said(&post(&gateway, "1", b"old").await);
    let (replayed, duplicate) = said(&post(&gateway, "2", b"old").await);
    assert!(!duplicate && replayed != old, "two equal dispatches are two events");
    let (genuine, duplicate) = said(&post(&gateway, "2", b"the true one").await);
    assert!(!duplicate && genuine != replayed);
    assert_eq!(said(&post(&gateway, "1", b"old").await), (old.clone(), true));
    assert_eq!(said(&post(&gateway, "2", b"old").await), (replayed.clone(), true));
    assert_eq!((duplicates(&gateway, "same_body").await, duplicates(&gateway, "same").await), (1.0, 2.0));

    shown(&gateway, &old, |_, dedupe| dedupe.contains("1 later events had them too, under other ids")).await;
    shown(&gateway, &replayed, |_, dedupe| dedupe.contains(&format!("as {old} had them, under another id"))).await;
    shown(&gateway, &genuine, |_, dedupe| dedupe.lines().count() == 1).await;
    app.until("all three", |seen| seen.len() == 3).await;

    let gateway = gateway.kill_and_restart().await;
    let (third, duplicate) = said(&post(&gateway, "3", b"old").await);
    assert!(!duplicate);
    assert_eq!(duplicates(&gateway, "same_body").await, 1.0, "known over a restart");
    shown(&gateway, &third, |_, dedupe| dedupe.contains("under another id: a new event (same_body)")).await;
}

#[tokio::test]
async fn with_the_key_signed_the_same_bytes_are_a_duplicate_under_any_id() {
    let (app, gateway) = start(HEADER_ID, ", dedupe: { key: signed }").await;
    let (first, _) = said(&post(&gateway, "1", b"same").await);
    assert_eq!(said(&post(&gateway, "2", b"same").await), (first, true));
    assert!(!said(&post(&gateway, "1", b"other").await).1, "and the id is nothing");
    assert_eq!(duplicates(&gateway, "same_body").await, 0.0);
    app.until("both", |seen| seen.len() == 2).await;
}

#[tokio::test]
async fn without_an_id_the_signed_bytes_are_the_key() {
    for (event, body) in
        [(HEADER_ID, &b"{}"[..]), (JSON_ID, b"{}"), (JSON_ID, b"not JSON"), ("{ type: \"json:/t\" }", b"{}")]
    {
        let (_app, gateway) = start(event, "").await;
        let post = async |body: &[u8]| {
            let signature = sign(body);
            let url = format!("{}/one", gateway.ingress);
            said(&gateway.http.send(Method::POST, &url, &[("x-sig", &signature)], body).await)
        };
        let (first, _) = post(body).await;
        assert_eq!(post(body).await, (first, true), "{event}");
        assert!(!post(&[body, b" "].concat()).await.1, "{event}");
    }
}

#[tokio::test]
async fn where_it_is_off_every_request_is_an_event() {
    for (event, source) in [("{ id: \"json:/id\", dedupe: off }", ""), (JSON_ID, ", dedupe: off")] {
        let (app, gateway) = start(event, source).await;
        let ids: BTreeSet<_> = join_all((0..5).map(|_| post(&gateway, "", br#"{"id":"beat"}"#)))
            .await
            .iter()
            .map(|answer| said(answer).0)
            .collect();
        assert_eq!(ids.len(), 5);
        app.until("all of them", |seen| seen.len() == 5).await;
    }
}

/// An id in a body may be any scalar up to 256 bytes; whatever else is there is no id, and the signed bytes count.
#[tokio::test]
async fn ids_in_a_body_are_read_exactly_and_what_is_none_is_no_key() {
    let (_app, gateway) = start(JSON_ID, "").await;
    let deep = format!(r#"{{"deep":{}{},"id":"deep"}}"#, "[".repeat(5_000), "]".repeat(5_000));
    let long = |letters: usize, tail: &str| format!(r#"{{"id":"{}"{tail}}}"#, "x".repeat(letters));
    let number = format!(r#"{{"id":{}}}"#, "9".repeat(200));
    // The first of each and another body with the same id, if it is one.
    let cases: &[(String, String, bool)] = &[
        (r#"{"id":"a"}"#.into(), r#"{"id":"\u0061","n":2}"#.into(), true),
        (r#"{"id":7}"#.into(), r#"{"n":1,"id":7}"#.into(), true),
        (r#"{"id":7.0}"#.into(), r#"{"id":7.00}"#.into(), false), // numbers are as written
        (r#"{"id":true}"#.into(), r#"{"id":true }"#.into(), true),
        (r#"{"id":"b","id":"c"}"#.into(), r#"{"id":"c","n":1}"#.into(), true), // of keys that come twice the last counts
        (r#"{"id":"c2","id":"d"}"#.into(), r#"{"id":"c2"}"#.into(), false),
        (long(256, ""), long(256, ",\"n\":1"), true),
        (long(257, ""), long(257, ",\"n\":1"), false),
        (number.clone(), number.replace('}', ",\"n\":1}"), true),
        (r#"{"id":null}"#.into(), r#"{"id":null,"n":1}"#.into(), false),
        (r#"{"id":""}"#.into(), r#"{"id":"","n":1}"#.into(), false),
        (r#"{"id":["e"]}"#.into(), r#"{"id":["e"],"n":1}"#.into(), false),
        (r#"{"id":{"x":"f"}}"#.into(), r#"{"id":{"x":"f"},"n":1}"#.into(), false),
        (r#"[{"id":"g"}]"#.into(), r#"[{"id":"g"},1]"#.into(), false),
        (r#"{"id":"h""#.into(), r#"{"id":"h","#.into(), false), // cut short: not JSON
    ];
    for (first, second, same) in cases {
        let (id, new) = said(&post(&gateway, "", first.as_bytes()).await);
        assert!(!new, "{first} is the first of its kind");
        let (other, duplicate) = said(&post(&gateway, "", second.as_bytes()).await);
        assert_eq!((duplicate, other == id), (*same, *same), "{first} and {second}");
        assert_eq!(said(&post(&gateway, "", first.as_bytes()).await), (id, true), "{first} again");
    }
    // However deep: no harm, and the same bytes are the same event.
    let (id, _) = said(&post(&gateway, "", deep.as_bytes()).await);
    assert_eq!(said(&post(&gateway, "", deep.as_bytes()).await), (id, true));
}

#[tokio::test]
async fn two_sources_share_no_keys() {
    for event in [JSON_ID, HEADER_ID, "{ dedupe: signed }"] {
        let (_app, gateway) = start(event, "").await;
        let (one, _) = said(&post_to(&gateway, "/one", "1", br#"{"id":"1"}"#).await);
        let (two, duplicate) = said(&post_to(&gateway, "/two", "1", br#"{"id":"1"}"#).await);
        assert!(!duplicate && one != two);
        assert_eq!(duplicates(&gateway, "same_body").await, 0.0);
        let two_more = gateway.metric("forebay_duplicates_total{source=\"two\",kind=\"same_body\"}").await;
        assert_eq!(two_more, 0.0);
    }
}

// ---- When it is claimed, and for how long ----

#[tokio::test]
async fn a_request_that_is_turned_away_claims_nothing() {
    let limits = ", body_limit: 1KiB, rate_limit: { rate: 1/h, burst: 1 }";
    let (app, gateway) = start(JSON_ID, limits).await;
    let padded = |bytes: usize| format!(r#"{{"id":"1","pad":"{}"}}"#, "x".repeat(bytes));
    assert_eq!(post(&gateway, "", padded(2_000).as_bytes()).await.status, 413);
    let url = format!("{}/one", gateway.ingress);
    let body = padded(10);
    assert_eq!(gateway.http.send(Method::POST, &url, &[("x-sig", "sha256=00")], body.as_bytes()).await.status, 401);
    assert!(!said(&post(&gateway, "", body.as_bytes()).await).1, "neither of them took the id");
    assert_eq!(post(&gateway, "", br#"{"id":"2"}"#).await.status, 429);
    assert_eq!(post_to(&gateway, "/two", "", br#"{"id":"3"}"#).await.status, 200);
    app.until("both", |seen| seen.len() == 2).await;
    let gateway = gateway.kill_and_restart().await; // a fresh quota
    assert!(!said(&post(&gateway, "", br#"{"id":"2"}"#).await).1, "what was over the limit claimed nothing");
}

#[tokio::test]
async fn claims_survive_kills_and_hold_while_nothing_is_delivered_and_after() {
    let app = FakeApp::down();
    let mut gateway =
        Gateway::start(&acme(&app, JSON_ID, "").replace("max_attempts: 2", "max_attempts: 1000000")).await;
    let body = |number: usize| format!(r#"{{"id":{number}}}"#).into_bytes();
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(said(&post(&gateway, "", &body(number)).await).0);
    }
    for round in 0..3 {
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(said(&post(&gateway, "", &body(number)).await), (id.clone(), true), "round {round}");
        }
        gateway = gateway.kill_and_restart().await;
        if round == 1 {
            app.up().await;
            for id in &ids {
                gateway.event(id, "delivered").await;
            }
        }
    }
    let got: Vec<_> = app.seen().iter().map(|seen| seen.header("forebay-event-id").to_owned()).collect();
    let distinct: BTreeSet<_> = got.iter().cloned().collect();
    assert_eq!((distinct, got.len()), (ids.into_iter().collect(), 20), "each arrived once");
}

#[tokio::test]
async fn a_duplicate_is_one_also_when_its_original_has_been_let_go_of() {
    let dir = tempfile::tempdir().unwrap();
    let app = FakeApp::start().await;
    let head = crate::support::gateway::head(dir.path()).replace("256MiB", "4MiB");
    let bin = "sources:\n  bin: { verify: none, to: [], path: /bin, body_limit: 1MiB }\n";
    let config = acme(&app, JSON_ID, "").replace("sources:\n", bin);
    std::fs::write(dir.path().join("forebay.yaml"), format!("{head}{config}")).unwrap();
    let gateway = Gateway::start_in(dir).await;
    let (first, _) = said(&post(&gateway, "", br#"{"id":"1"}"#).await);
    gateway.event(&first, "delivered").await;
    let deadline = tokio::time::Instant::now() + crate::support::gateway::PATIENCE;
    while gateway.get(&format!("/api/v1/events/{first}")).await.status != 404 {
        let answer = gateway.http.send(Method::POST, &format!("{}/bin", gateway.ingress), &[], &[7; 64 << 10]).await;
        assert_eq!(answer.status, 200);
        assert!(tokio::time::Instant::now() < deadline, "it never went");
    }
    assert_eq!(said(&post(&gateway, "", br#"{"id":"1"}"#).await), (first.clone(), true));
    let gateway = gateway.kill_and_restart().await;
    assert_eq!(said(&post(&gateway, "", br#"{"id":"1"}"#).await), (first, true), "and after a restart");
    assert_eq!(app.seen().len(), 1);
}

// ---- What a duplicate does ----

#[tokio::test]
async fn a_duplicate_makes_a_dead_delivery_pending_again_unless_told_to_drop() {
    for (source, requeued) in [("", true), (", dedupe: { on_dead: drop }", false)] {
        let (app, gateway) = start(JSON_ID, source).await;
        app.behave(|_| Some(status(500)));
        let body = br#"{"id":"1"}"#;
        let (id, _) = said(&post(&gateway, "", body).await);
        gateway.event(&id, "dead").await;
        let gateway = gateway.kill_and_restart().await;
        app.behave(|_| Some(status(200)));
        assert_eq!(said(&post(&gateway, "", body).await), (id.clone(), true));
        if requeued {
            gateway.event(&id, "delivered").await;
            assert_eq!(said(&post(&gateway, "", body).await), (id.clone(), true));
        }
        let (marker, _) = said(&post(&gateway, "", br#"{"id":"2"}"#).await);
        gateway.event(&marker, "delivered").await; // whatever came before it was dealt with
        let seen = app.seen();
        let attempts: Vec<_> = seen
            .iter()
            .filter(|seen| seen.header("forebay-event-id") == id)
            .map(|seen| (seen.header("forebay-attempt"), seen.header("forebay-attempt-reason")))
            .collect();
        let both = [("1", "initial"), ("2", "retry"), ("3", "rearm")];
        assert_eq!(attempts, if requeued { &both[..] } else { &both[..2] });
        let deliveries: BTreeSet<_> = seen
            .iter()
            .filter(|seen| seen.header("forebay-event-id") == id)
            .map(|seen| seen.header("forebay-delivery-id").to_owned())
            .collect();
        assert_eq!(deliveries.len(), 1, "one delivery all along");
    }
}

#[tokio::test]
async fn the_original_is_not_sent_again_while_it_is_under_way_or_waits() {
    let app = FakeApp::start().await;
    app.behave(|seen| (seen.body.as_ref() != br#"{"id":"1"}"#).then(|| status(200))); // the first never gets an answer
    let gateway = Gateway::start(&acme(&app, JSON_ID, "")).await;
    let (first, _) = said(&post(&gateway, "", br#"{"id":"1"}"#).await);
    app.until("the first attempt", |seen| seen.len() == 1).await;
    assert_eq!(said(&post(&gateway, "", br#"{"id":"1"}"#).await), (first, true), "answered at once, delivery or not");
    let (marker, _) = said(&post(&gateway, "", br#"{"id":"2"}"#).await);
    gateway.event(&marker, "delivered").await;
    assert_eq!(app.seen().len(), 2);
}

/// Of 64 identical requests at once one is the event, and none of the others is told so before it is durable. Many
/// ids at a time, so that the batches the journal makes of them are of all kinds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identical_webhooks_at_once_are_one_event_each() {
    let ids: usize = std::env::var("FOREBAY_IDS").map_or(100, |text| text.parse().expect("FOREBAY_IDS is a number"));
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&github_to(&app.url())).await;
    let gateway = &gateway;
    let one_id = async |number: usize| {
        let (id, body) = (format!("id-{number}"), format!("body {number}"));
        let answers = join_all((0..64).map(|_| gateway.github(&id, body.as_bytes()))).await;
        let (events, duplicates): (BTreeSet<_>, Vec<_>) = answers.iter().map(said).unzip();
        assert_eq!(events.len(), 1, "{id}: {events:?}");
        assert_eq!(duplicates.iter().filter(|duplicate| **duplicate).count(), 63, "{id}");
        events.into_iter().next().unwrap()
    };
    let events: BTreeSet<_> = stream::iter(0..ids).map(one_id).buffer_unordered(8).collect().await;
    assert_eq!(events.len(), ids);
    app.until("all of them", |seen| seen.len() >= ids).await;
    let stored = gateway.metric(r#"forebay_events_stored_total{source="github"}"#).await;
    let same = gateway.metric(r#"forebay_duplicates_total{source="github",kind="same"}"#).await;
    assert_eq!((stored, same), (ids as f64, ids as f64 * 63.0));
    let got: Vec<_> = app.seen().iter().map(|seen| seen.header("forebay-event-id").to_owned()).collect();
    assert_eq!((got.len(), app.event_ids() == events), (ids, true), "each arrived once");
    println!("{ids} ids, 64 requests each at once: {} events, {same} duplicates", events.len());
}
