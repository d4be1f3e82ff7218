//! No byte stream makes the gateway see other requests than those that every server would see in it.
//!
//! `hostile` sends what `tests/data/framing/hostile.jsonl` has, `http2` hostile frames; `forwarding` looks at what
//! reaches the application.

mod forwarding;
mod hostile;
mod http2;

use crate::support::{FakeApp, Gateway};

/// A gateway that keeps whatever it takes for a request to `/hooks`, and its application.
async fn open() -> (FakeApp, Gateway) {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&format!(
        "sources:\n  hooks: {{ path: /hooks, verify: none, dedupe: off, to: [app] }}\n\
         destinations:\n  app: {{ url: {}/in }}\n",
        app.url()
    ))
    .await;
    (app, gateway)
}

/// The next good request, on a connection of its own, goes through.
async fn next_good_one_passes(gateway: &Gateway, after: &str) {
    let url = format!("{}/hooks", gateway.ingress);
    let answer = crate::support::http::Http::new().send(http::Method::POST, &url, &[], b"good").await;
    assert_eq!(answer.status, 200, "after {after}");
}

/// So many events are kept and sent on, and none else.
async fn kept_are(app: &FakeApp, gateway: &Gateway, count: usize) {
    let seen = app.until("what was kept", |seen| seen.len() >= count).await;
    let stored = gateway.metric("forebay_events_stored_total{source=\"hooks\"}").await;
    let bodies: Vec<_> = seen.iter().map(|seen| String::from_utf8_lossy(&seen.body).into_owned()).collect();
    assert_eq!((stored as usize, seen.len()), (count, count), "{bodies:?}");
}
