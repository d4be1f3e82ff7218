//! What a sender is told, and what becomes of its webhook.

use http::Method;
use serde_json::json;

use crate::support::gateway::github_to;
use crate::support::http::Http;
use crate::support::{FakeApp, Gateway, HELLO, HELLO_SIGNATURE, sign};

async fn gateway() -> (FakeApp, Gateway) {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&github_to(&app.url())).await;
    (app, gateway)
}

async fn post(gateway: &Gateway, headers: &[(&str, &str)], body: &[u8]) -> u16 {
    let url = format!("{}/webhooks/github", gateway.ingress);
    gateway.http.send(Method::POST, &url, headers, body).await.status
}

#[tokio::test]
async fn the_documented_example_is_accepted_and_arrives_byte_for_byte() {
    let (app, gateway) = gateway().await;
    let url = format!("{}/webhooks/github?team=core", gateway.ingress);
    let headers = [
        ("x-hub-signature-256", HELLO_SIGNATURE),
        ("x-github-event", "ping"),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("x-many", "1"),
        ("x-many", "2"),
        ("forebay-event-id", "forged"),
        ("forebay_source", "forged"),
    ];
    let answer = gateway.http.send(Method::POST, &url, &headers, HELLO).await;
    assert_eq!(answer.status, 200);
    let id = answer.header("forebay-event-id").unwrap().to_owned();
    assert_eq!(answer.json(), json!({ "id": id }));

    let seen = &app.until("the webhook", |seen| !seen.is_empty()).await[0];
    assert_eq!((seen.method.as_str(), seen.uri.to_string().as_str()), ("POST", "/hooks/github?team=core"));
    assert_eq!(&seen.body[..], HELLO);
    assert_eq!(seen.headers.get_all("x-many").iter().collect::<Vec<_>>(), ["1", "2"]);
    for (name, value) in [
        ("forebay-event-id", id.as_str()),
        ("forebay-source", "github"),
        ("forebay-provider", "github"),
        ("forebay-event-type", "ping"),
        ("forebay-attempt", "1"),
        ("forebay-attempt-reason", "initial"),
        ("idempotency-key", id.as_str()),
        ("x-hub-signature-256", HELLO_SIGNATURE),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("content-length", "13"),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    assert!(!seen.headers.contains_key("forebay_source"), "nobody outside may speak for the gateway");
    assert_eq!(seen.header("forebay-delivery-id"), format!("{}-0", id.replace("evt_", "dlv_")));

    let event = gateway.event(&id, "delivered").await;
    assert_eq!(event["provider_event_id"], "72d3162e-cc78-11e3-81ab-4c9367dc0958");
    assert_eq!((&event["type"], &event["size_bytes"]), (&json!("ping"), &json!(13)));
    assert_eq!(event["deliveries"][0]["attempts"][0]["status"], 200);
}

#[tokio::test]
async fn what_is_not_genuine_is_refused_the_same_way_and_leaves_no_trace() {
    let (app, gateway) = gateway().await;
    let mut changed = HELLO.to_vec();
    changed[0] ^= 1;
    let upper = HELLO_SIGNATURE.replace("sha256=", "SHA256=");
    let cut = &HELLO_SIGNATURE[..HELLO_SIGNATURE.len() - 2];
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [u8]);
    let cases: &[Case] = &[
        (&[("x-hub-signature-256", HELLO_SIGNATURE)], &changed),
        (&[], HELLO),
        (&[("x-hub-signature-256", "sha256=")], HELLO),
        (&[("x-hub-signature-256", cut)], HELLO),
        (&[("x-hub-signature-256", &upper)], HELLO),
        (&[("x-hub-signature", "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59")], HELLO),
        (&[("x-hub-signature-256", HELLO_SIGNATURE), ("x-hub-signature-256", HELLO_SIGNATURE)], HELLO),
    ];
    for (headers, body) in cases {
        let mut headers = headers.to_vec();
        headers.push(("x-github-delivery", "poison"));
        let url = format!("{}/webhooks/github", gateway.ingress);
        let answer = gateway.http.send(Method::POST, &url, &headers, body).await;
        assert_eq!(answer.status, 401, "{headers:?}");
        assert_eq!(answer.json()["error"], "signature verification failed");
    }
    assert_eq!(gateway.get("/api/v1/events").await.json()["items"], json!([]));
    assert_eq!(gateway.metric(r#"forebay_refusals_total{source="github",reason="unverified"}"#).await, 7.0);
    assert!(app.seen().is_empty());
    for why in ["no signature matches", "the request carries no signature", "the signature came more than once"] {
        assert!(
            gateway.log().iter().any(|line| line.contains(why)),
            "the log does not say {why:?}: {:#?}",
            gateway.log()
        );
    }
    // The id that forged requests carried is still free for the genuine one.
    let genuine = gateway.github("poison", HELLO).await;
    assert_eq!((genuine.status, genuine.header("forebay-duplicate")), (200, None));
}

#[tokio::test]
async fn a_duplicate_gets_the_first_answer_again_and_reaches_the_application_once() {
    let (app, gateway) = gateway().await;
    let first = gateway.github("one", b"{}").await;
    let again = gateway.github("one", b"{}").await;
    assert_eq!((again.status, again.body.clone()), (200, first.body.clone()));
    assert_eq!(again.header("forebay-duplicate"), Some("true"));
    assert_eq!(again.header("forebay-event-id"), first.header("forebay-event-id"));
    assert_eq!(first.header("forebay-duplicate"), None);

    gateway.event(first.header("forebay-event-id").unwrap(), "delivered").await;
    let gateway = gateway.kill_and_restart().await;
    assert_eq!(gateway.github("one", b"{}").await.header("forebay-duplicate"), Some("true"), "over a restart as well");
    let other = gateway.github("two", b"{}").await; // the marker: whatever came before it was dealt with
    let id = other.header("forebay-event-id").unwrap();
    gateway.event(id, "delivered").await;
    app.until("both", |seen| seen.iter().any(|seen| seen.header("forebay-event-id") == id)).await;
    let ids: Vec<_> = app.seen().iter().map(|seen| seen.header("x-github-delivery").to_owned()).collect();
    assert_eq!(ids.iter().filter(|id| *id == "one").count(), 1, "{ids:?}");
    let shown = gateway.get(&format!("/api/v1/events/{}", first.header("forebay-event-id").unwrap())).await.json();
    assert_eq!(shown["duplicates"], 2);
}

#[tokio::test]
async fn sixty_four_identical_webhooks_at_once_are_one_event() {
    let (app, gateway) = gateway().await;
    let answers = futures_util::future::join_all((0..64).map(|_| gateway.github("same", b"at once"))).await;
    let ids: std::collections::BTreeSet<_> =
        answers.iter().map(|answer| answer.header("forebay-event-id").unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 1);
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(answers.iter().filter(|answer| answer.header("forebay-duplicate").is_none()).count(), 1);
    gateway.event(ids.first().unwrap(), "delivered").await;
    assert_eq!(app.seen().len(), 1);
}

/// The id is in a header that GitHub does not sign: with it alone, whoever replays an old body could take the id
/// of an event that is still to come.
#[tokio::test]
async fn an_unsigned_id_cannot_suppress_another_body() {
    let (app, gateway) = gateway().await;
    gateway.github("contested", b"an old body, replayed").await;
    let genuine = gateway.github("contested", b"the true event").await;
    assert_eq!((genuine.status, genuine.header("forebay-duplicate")), (200, None));
    app.until("both", |seen| seen.len() == 2).await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_so() {
    let (_app, gateway) = gateway().await;
    for path in ["/", "/webhooks", "/webhooks/github/", "/webhooks//github", "/webhooks/%67ithub", "/WEBHOOKS/GITHUB"] {
        let answer = gateway.http.send(Method::POST, &format!("{}{path}", gateway.ingress), &[], HELLO).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.json()["request_id"].is_string());
    }
    let answer = gateway.http.get(&format!("{}/webhooks/github", gateway.ingress)).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let public_admin = gateway.http.get(&format!("{}/metrics", gateway.ingress)).await;
    assert_eq!(public_admin.status, 404, "the admin side is not on the public side");
}

#[tokio::test]
async fn limits_are_held_on_both_sides_of_their_edges() {
    let app = FakeApp::start().await;
    let sources = format!(
        "sources:\n  small: {{ verify: none, body_limit: 1KiB, to: [app] }}\n  \
         narrow: {{ verify: none, rate_limit: {{ rate: 1/h, burst: 2 }}, to: [] }}\n  \
         inside: {{ verify: none, allow_ips: [192.0.2.0/24], to: [] }}\n\
         destinations:\n  app: {{ url: {} }}\n",
        app.url()
    );
    let gateway = Gateway::start(&sources).await;
    let to = |name: &str| format!("{}/{name}", gateway.ingress);
    let post = async |name: &str, headers: &[(&str, &str)], body: &[u8]| {
        gateway.http.send(Method::POST, &to(name), headers, body).await
    };
    assert_eq!(post("small", &[], &[b'x'; 1024]).await.status, 200);
    assert_eq!(post("small", &[], &[b'x'; 1025]).await.status, 413);
    assert_eq!(post("small", &[("content-encoding", "gzip")], b"x").await.status, 415);
    assert_eq!(post("inside", &[], b"x").await.status, 403);
    assert_eq!(post("narrow", &[], b"1").await.status, 200);
    assert_eq!(post("narrow", &[], b"2").await.status, 200);
    let third = post("narrow", &[], b"3").await;
    assert_eq!(third.status, 429);
    assert!(third.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert!(third.header("ratelimit").is_some());
}

#[tokio::test]
async fn a_source_without_destinations_captures() {
    let gateway = Gateway::start("sources:\n  bin: { verify: none, to: [] }\n").await;
    let answer = gateway.http.send(Method::POST, &format!("{}/bin", gateway.ingress), &[], b"kept").await;
    let id = answer.header("forebay-event-id").unwrap();
    let event = gateway.event(id, "captured").await;
    assert_eq!(event["deliveries"], json!([]));
    assert_eq!(gateway.get(&format!("/api/v1/events/{id}/body")).await.body.as_ref(), b"kept");
    let warned = gateway.log().iter().any(|line| line.contains("verify") && line.contains("WARN"));
    assert!(warned, "a source that verifies nothing is warned of at the start");
}

#[tokio::test]
async fn http2_without_tls_is_spoken_too() {
    let (app, gateway) = gateway().await;
    let signature = sign(b"{}");
    let headers = [("x-github-delivery", "h2"), ("x-hub-signature-256", signature.as_str())];
    let url = format!("{}/webhooks/github", gateway.ingress);
    assert_eq!(Http::http2().send(Method::POST, &url, &headers, b"{}").await.status, 200);
    app.until("it", |seen| seen.len() == 1).await;
    assert_eq!(post(&gateway, &headers, b"{}").await, 200);
}

#[tokio::test]
async fn several_destinations_each_get_it_on_their_path_also_when_it_is_replayed() {
    let (one, two) = (FakeApp::start().await, FakeApp::start().await);
    let gateway = Gateway::start(&format!(
        "sources:\n  s: {{ path: /s, verify: none, to: [one, {{ destination: two, path: /other }}] }}\n\
         destinations:\n  one: {{ url: {}/in }}\n  two: {{ url: {}/in }}\n",
        one.url(),
        two.url()
    ))
    .await;
    let answer = gateway.http.send(Method::POST, &format!("{}/s", gateway.ingress), &[], b"x").await;
    let id = answer.header("forebay-event-id").unwrap();
    gateway.event(id, "delivered").await;
    let replay = gateway.post(&format!("/api/v1/events/{id}/replay"), r#"{"destination":"two"}"#).await;
    assert_eq!(replay.status, 202, "{}", replay.text());
    let paths = |seen: Vec<crate::support::Seen>| seen.iter().map(|seen| seen.uri.to_string()).collect::<Vec<_>>();
    assert_eq!(paths(two.until("both", |seen| seen.len() == 2).await), ["/other", "/other"]);
    assert_eq!(paths(one.seen()), ["/in"], "only the destination that was asked for");
}
