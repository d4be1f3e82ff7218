//! What goes along with a reload, one way or the other: pauses, budgets, retention, what is secret, how it ends.

use http::Method;
use serde_json::{Value, json};

use super::{KeepAlive, open_to};
use crate::support::gateway::{PATIENCE, head};
use crate::support::raw::declare;
use crate::support::{FakeApp, Gateway};

/// Paused, left out over a restart, and brought back by a reload: it is as paused as before.
#[tokio::test]
async fn a_paused_destination_comes_back_paused() {
    let (app, other) = (FakeApp::start().await, FakeApp::start().await);
    let gateway = Gateway::start(&open_to(&app.url())).await;
    assert_eq!(gateway.post("/api/v1/destinations/app/pause", "").await.status, 200);
    let dir = gateway.kill().await;
    let without = open_to(&other.url()).replace("app", "other");
    std::fs::write(dir.path().join("forebay.yaml"), head(dir.path()) + &without).unwrap();
    let gateway = Gateway::start_in(dir).await;
    gateway.reload(&open_to(&app.url())).await;
    assert_eq!(gateway.get("/api/v1/destinations").await.json()["items"][0]["paused"], true);
    assert_eq!(gateway.unsigned("/open", b"waits").await, 200);
    assert_eq!(gateway.metric("forebay_pending_deliveries{destination=\"app\"}").await, 1.0);
    assert_eq!(gateway.post("/api/v1/destinations/app/resume", "").await.status, 200);
    app.until("it", |seen| seen.len() == 1).await;
}

/// In proxy mode, too: a request that has found its source is answered, and its event waits for the route to return.
#[tokio::test]
async fn a_destination_that_has_left_is_asked_nothing_more_by_requests_under_way() {
    let (app, other) = (FakeApp::start().await, FakeApp::start().await);
    let proxied = open_to(&app.url()).replace("verify: none,", "verify: none, mode: proxy,");
    let gateway = Gateway::start(&proxied).await;
    let mut connection = KeepAlive::open(&gateway).await;
    connection.begin("/open", "Expect: 100-continue\r\n", "0123456789").await;
    connection.go_on().await;
    gateway.reload(&open_to(&other.url()).replace("app", "other")).await;
    assert_eq!(connection.finish("0123456789").await, 200);
    assert_eq!(gateway.metric("forebay_requests_total{source=\"open\",outcome=\"buffered\"}").await, 1.0);
    gateway.until_metric("forebay_orphaned_deliveries{destination=\"app\"}", 1.0).await;
    assert!(app.seen().is_empty() && other.seen().is_empty());
}

#[tokio::test]
async fn the_budget_of_bytes_in_flight_shrinks_and_grows() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&open_to(&app.url())).await;
    let rest = open_to(&app.url()).replace("verify: none,", "verify: none, body_limit: 900KiB,");
    let with = |bytes: &str| format!("ingress: {{ listen: 127.0.0.1:0, limits: {{ in_flight_bytes: {bytes} }} }}");
    gateway.reload_ingress(&with("1MiB"), &rest).await;
    let (_held, status) = declare(&gateway, "open", 600 << 10).await;
    assert_eq!(status, 100);
    assert_eq!(declare(&gateway, "open", 600 << 10).await.1, 503);
    gateway.reload_ingress(&with("2MiB"), &rest).await;
    assert_eq!(declare(&gateway, "open", 600 << 10).await.1, 100);
}

#[tokio::test]
async fn retention_changes_for_what_is_kept_already() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&open_to(&app.url())).await;
    assert_eq!(gateway.unsigned("/open", b"history").await, 200);
    app.until("it", |seen| seen.len() == 1).await;
    let text = std::fs::read_to_string(gateway.config()).unwrap();
    let brief = "max_size: 256MiB, retention: { delivered: 1ms, dead: 1ms }";
    gateway.write_whole(&text.replace("max_size: 256MiB", brief));
    assert_eq!(gateway.post("/api/v1/reload", "").await.status, 200);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while gateway.get("/api/v1/events").await.json()["items"] != json!([]) {
        assert!(tokio::time::Instant::now() < deadline, "it is kept for as long as it was to be");
        tokio::task::yield_now().await;
    }
}

/// A source of a provider of one's own, which no built-in preset knows: what is secret in its requests is hidden, the rest
/// is shown.
#[tokio::test]
async fn what_is_secret_of_a_new_source_is_known_with_it() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&open_to(&app.url())).await;
    let acme = "providers:\n  acme:\n    docs: https://acme.example/docs\n    secrets: { secret: the token }\n    \
                verify: { token: { header: Acme-Token } }\n    redact: [\"header:Acme-Token\", \"header:Acme-Key\"]\n";
    let sources = "sources:\n  acme: { provider: acme, secret: \"${GITHUB_WEBHOOK_SECRET}\", to: [app] }\n";
    gateway.reload(&format!("{acme}{}", open_to(&app.url()).replace("sources:\n", sources))).await;
    let headers = [("acme-token", crate::support::SECRET), ("acme-key", "hunter2"), ("acme-note", "plain")];
    let url = format!("{}/acme", gateway.ingress);
    let answer = gateway.http.send(Method::POST, &url, &headers, b"{}").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let event = gateway.event(answer.header("forebay-event-id").unwrap(), "delivered").await;
    let shown = |name: &str| {
        let of = |pair: &&Value| pair[0].as_str().is_some_and(|found| found.eq_ignore_ascii_case(name));
        event["headers"].as_array().unwrap().iter().find(of).map(|pair| pair[1].clone())
    };
    assert_eq!([shown("acme-key"), shown("acme-note")], [Some(json!("***")), Some(json!("plain"))], "{event:#}");
}

#[tokio::test]
async fn a_shutdown_goes_by_the_grace_in_force() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&open_to(&app.url())).await;
    gateway.reload(&format!("{}shutdown_grace: 7s\n", open_to(&app.url()))).await;
    let log = gateway.log_to_end();
    let (code, _dir) = gateway.terminate().await;
    assert_eq!(code, 0);
    let said = log.await;
    assert!(said.iter().any(|line| line.contains("shutting down") && line.contains("7s")), "{said:#?}");
}
