//! From journal to delivered or dead.

use http::Method;
use serde_json::json;

use crate::support::app::status;
use crate::support::gateway::github_to;
use crate::support::{FakeApp, Gateway};

/// A source that takes anything, to one application with these settings.
fn to(app: &FakeApp, settings: &str) -> String {
    format!(
        "sources:\n  s: {{ verify: none, to: [app] }}\ndestinations:\n  app: {{ url: {}, {settings} }}\n",
        app.url()
    )
}

async fn post(gateway: &Gateway, body: &[u8]) -> String {
    let answer = gateway.http.send(Method::POST, &format!("{}/s", gateway.ingress), &[], body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("forebay-event-id").unwrap().to_owned()
}

#[tokio::test]
async fn events_acknowledged_in_an_outage_survive_a_kill_and_arrive() {
    let app = FakeApp::down();
    let gateway = Gateway::start(&github_to(&app.url())).await;
    let mut acknowledged = std::collections::BTreeSet::new();
    for number in 0..20 {
        let answer = gateway.github(&number.to_string(), format!("event {number}").as_bytes()).await;
        assert_eq!(answer.status, 200);
        acknowledged.insert(answer.header("forebay-event-id").unwrap().to_owned());
    }
    let gateway = gateway.kill_and_restart().await;
    assert_eq!(gateway.metric(r#"forebay_pending_deliveries{destination="app"}"#).await, 20.0);
    app.up().await;
    for id in &acknowledged {
        gateway.event(id, "delivered").await;
    }
    assert_eq!(app.event_ids(), acknowledged);
}

#[tokio::test]
async fn failures_are_retried_with_rising_numbers_until_the_application_takes_it() {
    let app = FakeApp::start().await;
    app.behave(|seen| Some(status(if seen.header("forebay-attempt") == "4" { 204 } else { 503 })));
    let gateway = Gateway::start(&to(&app, "retry: { initial: 10ms, max: 20ms }")).await;
    let id = post(&gateway, b"x").await;
    let event = gateway.event(&id, "delivered").await;
    let seen = app.seen();
    let numbers: Vec<_> = seen.iter().map(|seen| seen.header("forebay-attempt")).collect();
    let reasons: Vec<_> = seen.iter().map(|seen| seen.header("forebay-attempt-reason")).collect();
    assert_eq!(numbers, ["1", "2", "3", "4"]);
    assert_eq!(reasons, ["initial", "retry", "retry", "retry"]);
    assert!(seen.iter().all(|seen| seen.header("forebay-delivery-id") == seen.header("forebay-delivery-id")));
    let attempts = event["deliveries"][0]["attempts"].as_array().unwrap().clone();
    assert_eq!(attempts.iter().map(|attempt| attempt["status"].clone()).collect::<Vec<_>>(), [503, 503, 503, 204]);
    assert_eq!(attempts[0]["answer"], "noted");
}

#[tokio::test]
async fn a_given_up_delivery_is_a_dead_letter_that_can_be_replayed() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(status(500)));
    let gateway = Gateway::start(&to(&app, "retry: { initial: 1ms, max: 1ms, max_attempts: 2 }")).await;
    let id = post(&gateway, b"x").await;
    gateway.event(&id, "dead").await;
    let dead = gateway.get("/api/v1/dead-letters").await.json();
    assert_eq!((dead["items"][0]["id"].as_str(), app.seen().len()), (Some(id.as_str()), 2));
    assert_eq!(gateway.metric(r#"forebay_dead_letters{destination="app"}"#).await, 1.0);

    let gateway = gateway.kill_and_restart().await;
    gateway.event(&id, "dead").await;
    app.behave(|_| Some(status(200)));
    let replay = gateway.post(&format!("/api/v1/events/{id}/replay"), "{}").await;
    assert_eq!(replay.status, 202, "{}", replay.text());
    let event = gateway.event(&id, "delivered").await;
    let last = app.seen().last().cloned().unwrap();
    assert_eq!((last.header("forebay-attempt"), last.header("forebay-attempt-reason")), ("3", "replay"));
    assert_eq!(event["deliveries"][0]["attempts"].as_array().unwrap().len(), 3);
    assert_eq!(gateway.get("/api/v1/dead-letters").await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_status_to_give_up_on_ends_it_at_once() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(status(410)));
    let gateway = Gateway::start(&to(&app, "retry: { initial: 1ms }")).await;
    let id = post(&gateway, b"x").await;
    gateway.event(&id, "dead").await;
    assert_eq!(app.seen().len(), 1);
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_not_followed() {
    let app = FakeApp::start().await;
    let elsewhere = FakeApp::start().await;
    let location = elsewhere.url();
    app.behave(move |_| {
        let mut answer = status(302);
        answer.headers_mut().insert("location", location.parse().unwrap());
        Some(answer)
    });
    let gateway = Gateway::start(&to(&app, "retry: { initial: 1ms, max: 1ms, max_attempts: 2 }")).await;
    let id = post(&gateway, b"x").await;
    gateway.event(&id, "dead").await;
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn an_application_that_hangs_is_timed_out_and_tried_again() {
    let app = FakeApp::start().await;
    app.behave(|seen| (seen.header("forebay-attempt") != "1").then(|| status(200)));
    let gateway = Gateway::start(&to(&app, "timeout: 200ms, retry: { initial: 1ms }")).await;
    let id = post(&gateway, b"x").await;
    let event = gateway.event(&id, "delivered").await;
    let first = &event["deliveries"][0]["attempts"][0];
    assert!(first["error"].as_str().unwrap().contains("timed out"), "{first}");
    assert_eq!(first["status"], json!(null));
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let app = FakeApp::start().await;
    app.behave(|_| {
        let mut answer = status(503);
        answer.headers_mut().insert("retry-after", "3600".parse().unwrap());
        Some(answer)
    });
    let gateway = Gateway::start(&to(&app, "retry: { initial: 1ms, retry_after_max: 2h }")).await;
    let id = post(&gateway, b"x").await;
    app.until("the first attempt", |seen| seen.len() == 1).await;
    let event = loop {
        let event = gateway.get(&format!("/api/v1/events/{id}")).await.json();
        if event["deliveries"][0]["next_attempt_at"].is_string() {
            break event;
        }
    };
    let next: jiff::Timestamp = event["deliveries"][0]["next_attempt_at"].as_str().unwrap().parse().unwrap();
    let began: jiff::Timestamp = event["received_at"].as_str().unwrap().parse().unwrap();
    let wait = next.as_second() - began.as_second();
    assert!((3599..=3660).contains(&wait), "{wait}");
    assert_eq!(event["status"], "pending");
}

#[tokio::test]
async fn concurrency_is_never_exceeded() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&to(&app, "concurrency: 3, timeout: 250ms, retry: { initial: 1ms, max: 1ms, max_attempts: 1 }, breaker: { failures: 1000 }")).await;
    // Nothing is ever answered: those under way pile up to the limit, and go no further until they time out.
    let most = Arc::new(AtomicUsize::new(0));
    let noted = Arc::clone(&most);
    app.behave(move |_| {
        noted.fetch_add(1, Ordering::SeqCst);
        None
    });
    let mut ids = Vec::new();
    for number in 0..9u8 {
        ids.push(post(&gateway, &[number]).await);
    }
    for id in &ids {
        gateway.event(id, "dead").await;
    }
    let starts: Vec<(jiff::Timestamp, i64)> = {
        let mut starts = Vec::new();
        for id in &ids {
            let event = gateway.get(&format!("/api/v1/events/{id}")).await.json();
            let attempt = &event["deliveries"][0]["attempts"][0];
            let began = attempt["started_at"].as_str().unwrap().parse().unwrap();
            starts.push((began, attempt["duration_ms"].as_i64().unwrap()));
        }
        starts
    };
    for (began, _) in &starts {
        let at = began.as_millisecond();
        let under_way = starts
            .iter()
            .filter(|(other, took)| other.as_millisecond() <= at && at < other.as_millisecond() + took - 5)
            .count();
        assert!(under_way <= 3, "{under_way} at once");
    }
    assert_eq!(most.load(Ordering::SeqCst), 9);
}

/// With the application down, an open breaker makes one attempt a cooldown, so that an outage burns no attempts.
#[tokio::test]
async fn an_open_breaker_burns_no_attempts() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(status(503)));
    let gateway =
        Gateway::start(&to(&app, "retry: { initial: 1ms, max: 1ms }, breaker: { failures: 3, cooldown: 1h }")).await;
    let id = post(&gateway, b"first").await;
    app.until("three failures", |seen| seen.len() == 3).await;
    loop {
        if gateway.metric(r#"forebay_breaker_state{destination="app"}"#).await == 1.0 {
            break;
        }
    }
    let mut ids = vec![id];
    for number in 0..5u8 {
        ids.push(post(&gateway, &[number]).await);
    }
    for id in &ids[1..] {
        let event = gateway.get(&format!("/api/v1/events/{id}")).await.json();
        assert_eq!((&event["status"], &event["deliveries"][0]["attempts"]), (&json!("pending"), &json!([])));
    }
    assert_eq!(app.seen().len(), 3);
}

#[tokio::test]
async fn one_dead_destination_does_not_hold_up_another() {
    let (down, up) = (FakeApp::down(), FakeApp::start().await);
    let gateway = Gateway::start(&format!(
        "sources:\n  s: {{ verify: none, to: [down, up] }}\n\
         destinations:\n  down: {{ url: {} }}\n  up: {{ url: {} }}\n",
        down.url(),
        up.url()
    ))
    .await;
    for number in 0..50u8 {
        post(&gateway, &[number]).await;
    }
    up.until("all 50", |seen| seen.len() == 50).await;
}

#[tokio::test]
async fn a_duplicate_rearms_a_dead_delivery() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(status(410)));
    let gateway = Gateway::start(&github_to(&app.url())).await;
    let first = gateway.github("again", b"{}").await;
    let id = first.header("forebay-event-id").unwrap().to_owned();
    gateway.event(&id, "dead").await;
    app.behave(|_| Some(status(200)));
    let again = gateway.github("again", b"{}").await; // GitHub's "Redeliver" uses the same id
    assert_eq!(
        (again.header("forebay-duplicate"), again.header("forebay-event-id")),
        (Some("true"), Some(id.as_str()))
    );
    gateway.event(&id, "delivered").await;
    assert_eq!(app.seen().last().unwrap().header("forebay-attempt-reason"), "rearm");
}

#[tokio::test]
async fn sigterm_finishes_what_is_under_way_and_exits_0() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&github_to(&app.url())).await;
    for number in 0..10 {
        assert_eq!(gateway.github(&number.to_string(), b"{}").await.status, 200);
    }
    let (code, dir) = gateway.terminate().await;
    assert_eq!(code, 0);
    let gateway = Gateway::start_in(dir).await;
    app.until("all of them", |seen| seen.len() >= 10).await;
    assert_eq!(app.event_ids().len(), 10);
    drop(gateway);
}

#[tokio::test]
async fn a_connection_that_never_comes_about_ends_with_its_own_time_out() {
    // Accepts, and never speaks TLS.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let gateway = Gateway::start(&format!(
        "sources:\n  s: {{ verify: none, to: [app] }}\n\
         destinations:\n  app: {{ url: \"https://{address}\", connect_timeout: 100ms, timeout: 60s, retry: {{ max_attempts: 1 }} }}\n"
    ))
    .await;
    let id = post(&gateway, b"x").await;
    let event = gateway.event(&id, "dead").await;
    let error = event["deliveries"][0]["attempts"][0]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("cannot connect"), "{error}");
}

#[tokio::test]
async fn sighup_does_not_end_it() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&github_to(&app.url())).await;
    gateway.signal("HUP").await;
    assert_eq!(gateway.github("1", b"{}").await.status, 200);
    app.until("it", |seen| seen.len() == 1).await;
    let (code, _dir) = gateway.terminate().await;
    assert_eq!(code, 0);
}
