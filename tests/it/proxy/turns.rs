//! Whose turn it is: a request makes an attempt only when its destination's breaker, pause, places and rate allow one.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{LATER, NO_BREAKER, SOON, assert_kept, attempts, id, post, post_to, proxied, to};
use crate::support::app::status;
use crate::support::gateway::PATIENCE;
use crate::support::{FakeApp, Gateway};

#[tokio::test]
async fn an_open_breaker_keeps_events_without_asking_the_application() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(status(503)));
    let breaker = "timeout: 60s, breaker: { failures: 2, cooldown: 1h }";
    let gateway = Gateway::start(&proxied(&app.url(), "deadline: 8s", breaker).replace(SOON, LATER)).await;
    for number in 0..5 {
        assert_kept(&post(&gateway, &number.to_string()).await);
    }
    assert_eq!(app.seen().len(), 2);
    assert_eq!(gateway.metric(r#"forebay_breaker_state{destination="app"}"#).await, 1.0);
    assert_eq!(gateway.metric(r#"forebay_pending_deliveries{destination="app"}"#).await, 5.0);
}

#[tokio::test]
async fn a_paused_destination_keeps_events_without_asking_the_application_until_it_goes_on() {
    let app = FakeApp::start().await;
    let gateway = to(&app).await;
    assert_eq!(gateway.post("/api/v1/destinations/app/pause", "{}").await.status, 200);
    let answer = post(&gateway, "1").await;
    assert_kept(&answer);
    let gateway = gateway.kill_and_restart().await; // a pause is not forgotten
    assert_kept(&post(&gateway, "2").await);
    assert_eq!(attempts(&gateway.event(&id(&answer), "pending").await), []);
    assert!(app.seen().is_empty());
    assert_eq!(gateway.post("/api/v1/destinations/app/resume", "{}").await.status, 200);
    assert_eq!(attempts(&gateway.event(&id(&answer), "delivered").await), [(1, Some(200))]);
    assert_eq!(post(&gateway, "3").await.header("forebay-buffered"), None);
}

#[tokio::test]
async fn without_a_free_place_by_the_deadline_an_event_is_kept_and_waits_for_its_first_attempt() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&proxied(&app.url(), "deadline: 300ms", "timeout: 60s, concurrency: 1")).await;
    app.hold();
    let (first, second) = (post(&gateway, "1").await, post(&gateway, "2").await);
    assert_kept(&first);
    assert_kept(&second);
    assert_eq!(attempts(&gateway.event(&id(&second), "pending").await), []);
    app.go_on();
    for answer in [&first, &second] {
        assert_eq!(attempts(&gateway.event(&id(answer), "delivered").await), [(1, Some(200))]);
    }
}

#[tokio::test]
async fn after_the_cooldown_one_request_is_the_probe_and_its_success_closes_the_breaker() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(status(503)));
    let breaker = "timeout: 1h, breaker: { failures: 2, cooldown: 200ms }";
    let gateway = Gateway::start(&proxied(&app.url(), "deadline: 60s", breaker).replace(SOON, LATER)).await;
    let state = r#"forebay_breaker_state{destination="app"}"#;
    for number in ["1", "2"] {
        assert_kept(&post(&gateway, number).await);
    }
    assert_eq!(gateway.metric(state).await, 1.0, "open");
    app.behave(|_| Some(status(200)));
    app.hold();
    let cooled_down = async {
        // Nobody is due: the two that were kept wait for an hour. The API says when an attempt may be made again.
        while gateway.get("/api/v1/destinations").await.json()["items"][0]["breaker"] == "open" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, cooled_down).await.expect("the cooldown ends");
    let probe = post(&gateway, "3");
    let others = async {
        app.until("the probe", |seen| seen.len() == 3).await;
        assert_eq!(gateway.metric(state).await, 2.0, "probing");
        let others = [post(&gateway, "4").await, post(&gateway, "5").await];
        for other in &others {
            assert_kept(other);
        }
        assert_eq!(app.seen().len(), 3, "only the probe is let through");
        app.go_on();
        others
    };
    let (probe, others) = futures_util::future::join(probe, others).await;
    assert_eq!((probe.status, probe.header("forebay-buffered")), (200, None));
    for other in &others {
        gateway.event(&id(other), "delivered").await;
    }
    assert_eq!(gateway.metric(state).await, 0.0, "closed");
    assert_eq!(post(&gateway, "6").await.header("forebay-buffered"), None);
}

#[tokio::test]
async fn a_request_spends_the_destinations_rate_and_one_too_many_is_kept() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&proxied(&app.url(), "deadline: 2s", "timeout: 1h, rate_limit: 1/h")).await;
    let (first, second) = (post(&gateway, "1").await, post(&gateway, "2").await);
    assert_eq!((first.status, first.header("forebay-buffered")), (200, None));
    assert_kept(&second);
    assert_eq!(attempts(&gateway.event(&id(&second), "pending").await), []);
    assert_eq!(app.seen().len(), 1);
}

/// A source in store mode and one in proxy mode share two places. That turns come in the order in which they were asked
/// for, `src/deliver/target.rs` shows.
#[tokio::test]
async fn a_backlog_drains_and_live_requests_are_relayed_beside_it() {
    let app = FakeApp::start().await;
    let config = proxied(&app.url(), "deadline: 60s", &format!("timeout: 1h, concurrency: 2, {NO_BREAKER}"));
    let store = "destinations:\n";
    let config = config.replace(store, &format!("  t: {{ verify: none, mode: store, to: [app] }}\n{store}"));
    let gateway = Gateway::start(&config).await;
    let live = async |number: usize| {
        let answer = post(&gateway, &number.to_string()).await;
        assert_eq!((answer.status, answer.header("forebay-buffered")), (200, None), "live request {number}");
    };

    // The backlog always has something that is due: all of it fails, again and again.
    app.behave(|seen| Some(status(if seen.body.starts_with(b"kept") { 503 } else { 200 })));
    let mut backlog = Vec::new();
    for number in 0..20 {
        let answer = post_to(&gateway, "/t", &format!("kept {number}")).await;
        assert_eq!((answer.status, answer.header("forebay-buffered")), (200, None));
        backlog.push(id(&answer));
    }
    app.until("all of the backlog", |seen| seen.len() >= 20).await;
    for number in 0..10 {
        live(number).await;
    }
    assert_eq!(gateway.metric(r#"forebay_pending_deliveries{destination="app"}"#).await, 20.0);

    // Now live requests always wait for a place.
    app.behave(|_| Some(status(200)));
    let drained = AtomicBool::new(false);
    let send = async |mut number: usize| {
        while !drained.load(Ordering::Relaxed) {
            live(number).await;
            number += 16;
        }
    };
    let senders = futures_util::future::join_all((100..116).map(send));
    let drains = async {
        for event in &backlog {
            gateway.event(event, "delivered").await;
        }
        drained.store(true, Ordering::Relaxed);
    };
    futures_util::future::join(senders, drains).await;
}
