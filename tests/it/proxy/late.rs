//! An attempt outlives the request that made it: the deadline, the sender, a shutdown; only a crash ends it.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{LATER, SOON, assert_kept, attempts, id, post, proxied, to};
use crate::support::app::status;
use crate::support::{FakeApp, Gateway};

#[tokio::test]
async fn no_answer_by_the_deadline_and_the_attempt_goes_on_as_the_only_one() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&proxied(&app.url(), "deadline: 300ms", "timeout: 60s")).await;
    app.hold();
    let answer = post(&gateway, "1").await;
    assert_kept(&answer);
    let pending = gateway.event(&id(&answer), "pending").await;
    assert_eq!(attempts(&pending), [(1, None)]);
    app.go_on();
    let event = gateway.event(&id(&answer), "delivered").await;
    assert_eq!((attempts(&event), app.seen().len()), (vec![(1, Some(200))], 1), "dispatch made no second one");
}

#[tokio::test]
async fn an_attempt_that_fails_after_the_deadline_is_followed_by_number_2() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&proxied(&app.url(), "deadline: 300ms", "timeout: 60s")).await;
    app.behave(|seen| Some(status(if seen.header("forebay-attempt") == "1" { 500 } else { 200 })));
    app.hold();
    let answer = post(&gateway, "1").await;
    assert_kept(&answer);
    app.go_on();
    let event = gateway.event(&id(&answer), "delivered").await;
    assert_eq!(attempts(&event), [(1, Some(500)), (2, Some(200))]);
    assert_eq!(event["deliveries"][0]["attempts"][1]["reason"], "retry");
}

#[tokio::test]
async fn after_a_crash_an_attempt_under_way_is_unknown_and_the_next_is_number_2() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&proxied(&app.url(), "deadline: 300ms", "timeout: 60s")).await;
    app.hold();
    let answer = post(&gateway, "1").await;
    assert_kept(&answer);
    let dir = gateway.kill().await;
    app.go_on();
    let gateway = Gateway::start_in(dir).await;
    let event = gateway.event(&id(&answer), "delivered").await;
    assert_eq!(attempts(&event), [(1, None), (2, Some(200))]);
    let unknown = event["deliveries"][0]["attempts"][0]["error"].as_str().unwrap();
    assert!(unknown.starts_with("outcome unknown"), "{unknown}");
    let numbers: Vec<_> = app.seen().iter().map(|seen| seen.header("forebay-attempt").to_owned()).collect();
    assert_eq!(numbers, ["1", "2"]);
}

#[tokio::test]
async fn a_sender_that_hangs_up_cancels_nothing() {
    let app = FakeApp::start().await;
    let gateway = to(&app).await;
    app.hold();
    let address = gateway.ingress.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST /s HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\n{\"id\":\"1\"}").await.unwrap();
    app.until("the request", |seen| !seen.is_empty()).await;
    drop(stream);
    let event = app.event_ids().pop_first().unwrap();
    app.go_on();
    assert_eq!(attempts(&gateway.event(&event, "delivered").await), [(1, Some(200))]);
    let again = post(&gateway, "1").await;
    assert_eq!((id(&again), again.header("forebay-duplicate")), (event, Some("true")));
}

/// One has the only place at the application, one waits for it, and one waits for the answer of the first.
#[tokio::test]
async fn every_answer_comes_by_the_deadline_while_the_application_still_holds() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&proxied(&app.url(), "deadline: 2s", "timeout: 1h, concurrency: 1")).await;
    app.hold();
    let first = post(&gateway, "1");
    let others = async {
        app.until("the first request", |seen| !seen.is_empty()).await;
        futures_util::future::join(post(&gateway, "2"), post(&gateway, "1")).await
    };
    let (first, (second, again)) = futures_util::future::join(first, others).await;
    for answer in [&first, &second, &again] {
        assert_kept(answer);
    }
    assert_eq!((id(&again), again.header("forebay-duplicate")), (id(&first), Some("true")));
    let waits = gateway.event(&id(&first), "pending").await;
    assert_eq!(attempts(&waits), [(1, None)], "nobody has been answered by the application");
    app.go_on();
    for answer in [&first, &second] {
        assert_eq!(attempts(&gateway.event(&id(answer), "delivered").await), [(1, Some(200))]);
    }
    assert_eq!(app.seen().len(), 2);
}

#[tokio::test]
async fn how_a_late_attempt_ends_counts_for_the_breaker() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(status(503)));
    let breaker = "timeout: 1h, breaker: { failures: 1, cooldown: 1h }";
    let gateway = Gateway::start(&proxied(&app.url(), "deadline: 1s", breaker).replace(SOON, LATER)).await;
    app.hold();
    let late = post(&gateway, "1").await;
    assert_kept(&late);
    let state = r#"forebay_breaker_state{destination="app"}"#;
    assert_eq!(gateway.metric(state).await, 0.0, "nobody knows yet how it ends");
    app.go_on();
    gateway.until_metric(state, 1.0).await;
    assert_eq!(attempts(&gateway.event(&id(&late), "pending").await), [(1, Some(503))]);
    let kept = post(&gateway, "2").await;
    assert_kept(&kept);
    assert_eq!(attempts(&gateway.event(&id(&kept), "pending").await), []);
    assert_eq!(app.seen().len(), 1);
}

/// A gateway that has been told to stop, with one attempt under way whose sender was answered at its deadline.
async fn stopping(app: &FakeApp) -> (Gateway, String) {
    let config = proxied(&app.url(), "deadline: 1s", "timeout: 1h") + "shutdown_grace: 1h\n";
    let gateway = Gateway::start(&config).await;
    app.hold();
    let answer = post(&gateway, "1").await;
    assert_kept(&answer);
    gateway.signal("TERM").await;
    gateway.says("shutting down").await;
    (gateway, id(&answer))
}

#[tokio::test]
async fn a_shutdown_waits_for_an_attempt_under_way_and_records_how_it_ended() {
    let app = FakeApp::start().await;
    let (gateway, event) = stopping(&app).await;
    app.go_on();
    let (code, dir) = gateway.ended().await;
    assert_eq!(code, 0);
    let gateway = Gateway::start_in(dir).await;
    assert_eq!(attempts(&gateway.event(&event, "delivered").await), [(1, Some(200))]);
    assert_eq!(app.seen().len(), 1);
}

#[tokio::test]
async fn a_second_signal_does_not_wait_and_the_attempt_that_follows_is_number_2() {
    let app = FakeApp::start().await;
    let (gateway, event) = stopping(&app).await;
    let (code, dir) = gateway.terminate().await; // while the application holds; the grace period is an hour
    assert_eq!(code, 0);
    app.go_on();
    let gateway = Gateway::start_in(dir).await;
    let event = gateway.event(&event, "delivered").await;
    assert_eq!(attempts(&event), [(1, None), (2, Some(200))]);
    let unknown = event["deliveries"][0]["attempts"][0]["error"].as_str().unwrap();
    assert!(unknown.starts_with("outcome unknown"), "{unknown}");
    let numbers: Vec<_> = app.seen().iter().map(|seen| seen.header("forebay-attempt").to_owned()).collect();
    assert_eq!(numbers, ["1", "2"]);
}
