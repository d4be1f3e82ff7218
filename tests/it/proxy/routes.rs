//! A source with several routes: the first one answers, the others are delivered to behind it.

use super::{NO_BREAKER, SOON, assert_kept, attempts, id, post, proxied, says};
use crate::support::{FakeApp, Gateway};

/// To `app`, which answers, and to `other`.
fn both(app: &FakeApp, other: &FakeApp) -> String {
    let config = proxied(&app.url(), "deadline: 8s", &format!("timeout: 60s, {NO_BREAKER}"));
    let other = format!("  other: {{ url: {}, {SOON}, {NO_BREAKER} }}\n", other.url());
    config.replace("to: [app]", "to: [app, other]") + &other
}

/// A kill leaves what is written, flushed or not: that it is flushed as well before the answer, `src/intake/tests.rs`
/// shows on a disk that holds its flushes.
#[tokio::test]
async fn deliveries_of_other_routes_are_written_before_the_applications_answer_is_relayed() {
    let (app, other) = (FakeApp::start().await, FakeApp::down());
    let gateway = Gateway::start(&both(&app, &other)).await;
    app.behave(|_| Some(says(200, "first")));
    let answer = post(&gateway, "1").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "first"));
    let gateway = gateway.kill_and_restart().await; // at once: nothing is flushed behind
    app.behave(|_| Some(says(404, "not mine")));
    let refused = post(&gateway, "2").await;
    assert_eq!((refused.status, refused.text().as_str()), (404, "not mine"));
    other.up().await;
    other.until("both events", |seen| seen.len() >= 2).await;
    gateway.event(&id(&answer), "delivered").await;
    gateway.event(&id(&refused), "delivered").await;
    assert_eq!(other.event_ids(), [id(&answer), id(&refused)].into());
    assert_eq!(app.seen().len(), 2);
}

#[tokio::test]
async fn while_the_first_route_is_away_the_others_are_delivered_to_and_it_is_when_it_is_back() {
    let (app, other) = (FakeApp::down(), FakeApp::start().await);
    let gateway = Gateway::start(&both(&app, &other)).await;
    let answer = post(&gateway, "1").await;
    assert_kept(&answer);
    other.until("the event", |seen| !seen.is_empty()).await;
    let event = gateway.event(&id(&answer), "pending").await;
    assert_eq!(attempts(&event)[0], (1, None), "the first route is still due");
    app.up().await;
    let event = gateway.event(&id(&answer), "delivered").await;
    assert_eq!(attempts(&event).last().unwrap().1, Some(200));
    assert_eq!((app.seen().len(), other.seen().len()), (1, 1));
    assert_eq!((app.event_ids(), other.event_ids()), ([id(&answer)].into(), [id(&answer)].into()));
}
