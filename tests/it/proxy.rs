//! Proxy mode: the application answers while it can, and nothing is lost when it cannot.

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::app::status;
use crate::support::http::Answer;
use crate::support::{FakeApp, Gateway, Seen};

/// A source whose key is the body's `id`, with these settings, answered by one application with those.
fn proxied(app: &str, source: &str, destination: &str) -> String {
    format!(
        "sources:\n  s: {{ verify: none, mode: proxy, dedupe: {{ key: json:/id }}, {source}, to: [app] }}\n\
         destinations:\n  app: {{ url: {app}, retry: {{ initial: 1ms, max: 20ms }}, {destination} }}\n"
    )
}

async fn to(app: &FakeApp) -> Gateway {
    Gateway::start(&proxied(&app.url(), "deadline: 8s", "timeout: 60s")).await
}

async fn post(gateway: &Gateway, id: &str) -> Answer {
    let body = format!(r#"{{"id":"{id}"}}"#);
    gateway.http.send(Method::POST, &format!("{}/s?a=1", gateway.ingress), &[("x-one", "1")], body.as_bytes()).await
}

fn id(answer: &Answer) -> String {
    answer.header("forebay-event-id").expect("an event's id").to_owned()
}

fn says(code: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(code).header("content-type", "text/x-app").body(Full::new(body.into())).unwrap()
}

fn attempts(event: &serde_json::Value) -> Vec<(u64, Option<u64>)> {
    let attempts = event["deliveries"][0]["attempts"].as_array().unwrap().iter();
    attempts.map(|attempt| (attempt["number"].as_u64().unwrap(), attempt["status"].as_u64())).collect()
}

fn assert_kept(answer: &Answer) {
    assert_eq!((answer.status, answer.header("forebay-buffered")), (200, Some("true")), "{}", answer.text());
    assert_eq!(answer.json()["id"], id(answer));
}

#[tokio::test]
async fn the_applications_answer_reaches_the_sender_and_is_recorded() {
    let app = FakeApp::start().await;
    app.behave(|_| {
        let mut answer = says(201, "made\n");
        for (name, value) in [
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("x-app", "yes"),
            ("x-request-id", "the application's"),
            ("connection", "x-hop"),
            ("x-hop", "no"),
            ("forebay-event-id", "forged"),
        ] {
            answer.headers_mut().append(name, value.parse().unwrap());
        }
        Some(answer)
    });
    let gateway = to(&app).await;
    let answer = post(&gateway, "1").await;
    assert_eq!((answer.status, answer.text().as_str(), answer.header("x-app")), (201, "made\n", Some("yes")));
    assert_eq!(answer.headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!((answer.header("x-hop"), answer.header("forebay-buffered")), (None, None));
    assert_eq!(answer.header("x-request-id"), Some("the application's"));
    assert_eq!(answer.headers.get_all("forebay-event-id").iter().count(), 1);

    let event = gateway.event(&id(&answer), "delivered").await;
    assert_eq!(attempts(&event), [(1, Some(201))]);
    let steps = event["explain"].as_array().unwrap().iter();
    let told: Vec<_> = steps.filter(|step| step["step"] == "answer").map(|step| &step["result"]).collect();
    assert_eq!(told, ["the application's own: status 201"]);
    let seen = app.seen();
    let [seen]: [Seen; 1] = seen.try_into().unwrap();
    assert_eq!((seen.uri.query(), seen.header("x-one")), (Some("a=1"), "1"));
    assert_eq!((seen.header("forebay-attempt"), seen.header("forebay-attempt-reason")), ("1", "initial"));
    assert_eq!((seen.header("forebay-event-id"), &seen.body[..]), (id(&answer).as_str(), &br#"{"id":"1"}"#[..]));
    assert_eq!(gateway.metric(r#"forebay_requests_total{source="s",outcome="relayed"}"#).await, 1.0);
    assert_eq!(gateway.metric(r#"forebay_events_stored_total{source="s"}"#).await, 1.0);
    assert_eq!(gateway.metric(r#"forebay_deliveries_total{destination="app",outcome="delivered"}"#).await, 1.0);
}

#[tokio::test]
async fn a_4xx_is_relayed_never_retried_and_frees_the_key() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(says(422, "no such customer")));
    let gateway = to(&app).await;
    let refused = post(&gateway, "1").await;
    assert_eq!((refused.status, refused.text().as_str()), (422, "no such customer"));
    let event = gateway.event(&id(&refused), "refused_by_app").await;
    assert_eq!((attempts(&event), &event["deliveries"][0]["status"]), (vec![(1, Some(422))], &"refused".into()));
    assert_eq!(gateway.metric(r#"forebay_requests_total{source="s",outcome="refused_by_app"}"#).await, 1.0);

    app.behave(|_| Some(says(200, "now")));
    let again = post(&gateway, "1").await;
    assert_eq!((again.status, again.text().as_str(), again.header("forebay-duplicate")), (200, "now", None));
    assert_ne!(id(&again), id(&refused));
    gateway.event(&id(&again), "delivered").await;
    assert_eq!(app.seen().len(), 2, "the refused one was not tried again by itself");

    let gateway = gateway.kill_and_restart().await;
    gateway.event(&id(&refused), "refused_by_app").await;
    let replay = gateway.post(&format!("/api/v1/events/{}/replay", id(&refused)), "{}").await;
    assert_eq!(replay.status, 202, "{}", replay.text());
    let event = gateway.event(&id(&refused), "delivered").await;
    assert_eq!(attempts(&event), [(1, Some(422)), (2, Some(200))]);
}

#[tokio::test]
async fn every_other_4xx_is_relayed_and_every_other_answer_is_kept_for_later() {
    let app = FakeApp::start().await;
    let config = proxied(&app.url(), "deadline: 8s", "timeout: 60s, breaker: { failures: 1000, cooldown: 1ms }");
    let gateway = Gateway::start(&config).await;
    for code in [200, 204, 299, 400, 401, 403, 404, 409, 410, 418, 499] {
        app.behave(move |_| Some(says(code, "")));
        let answer = post(&gateway, &code.to_string()).await;
        assert_eq!((answer.status, answer.header("forebay-buffered")), (code, None));
    }
    for code in [301, 302, 307, 408, 425, 429, 500, 502, 503, 599] {
        app.behave(move |seen| Some(says(if seen.header("forebay-attempt") == "1" { code } else { 200 }, "")));
        let answer = post(&gateway, &code.to_string()).await;
        assert_kept(&answer);
        let event = gateway.event(&id(&answer), "delivered").await;
        assert_eq!(attempts(&event), [(1, Some(code.into())), (2, Some(200))]);
    }
    assert_eq!(gateway.metric(r#"forebay_requests_total{source="s",outcome="buffered"}"#).await, 10.0);
}

#[tokio::test]
async fn while_the_application_is_away_its_events_are_kept_and_delivered_when_it_is_back() {
    let app = FakeApp::down();
    let gateway = to(&app).await;
    let answer = post(&gateway, "1").await;
    assert_kept(&answer);
    let again = post(&gateway, "1").await;
    assert_eq!((again.status, id(&again), again.header("forebay-duplicate")), (200, id(&answer), Some("true")));
    let gateway = gateway.kill_and_restart().await; // what was acknowledged survives
    app.up().await;
    gateway.event(&id(&answer), "delivered").await;
    assert_eq!(app.event_ids().len(), 1);
}

#[tokio::test]
async fn an_answer_of_a_mebibyte_is_relayed_and_a_longer_one_is_not() {
    let app = FakeApp::start().await;
    let gateway = to(&app).await;
    for (length, kept) in [(1 << 20, false), ((1 << 20) + 1, true)] {
        app.behave(move |_| Some(says(200, vec![b'x'; length])));
        let answer = post(&gateway, &length.to_string()).await;
        assert_eq!((answer.header("forebay-buffered").is_some(), answer.status), (kept, 200));
        assert!(kept || answer.body.len() == length);
        // It was a 2xx all the same: the application has the event, and does not get it again.
        assert_eq!(attempts(&gateway.event(&id(&answer), "delivered").await), [(1, Some(200))]);
    }
}

/// An application that says this, whatever it is asked, and hangs up.
async fn blunt(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"}") && stream.read_buf(&mut head).await.is_ok_and(|count| count > 0) {}
            let _ = stream.write_all(answer).await;
        }
    });
    url
}

#[tokio::test]
async fn a_malformed_or_broken_answer_is_kept_for_later() {
    for answer in [
        &b""[..],
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
    ] {
        let url = blunt(answer).await;
        let config = proxied(&url, "deadline: 8s", "breaker: { failures: 1000, cooldown: 1ms }");
        let gateway = Gateway::start(&config).await;
        assert_kept(&post(&gateway, "1").await);
    }
}

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
async fn an_open_breaker_keeps_events_without_asking_the_application() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(status(503)));
    let breaker = "retry: { initial: 1h, jitter: off }, breaker: { failures: 2, cooldown: 1h }";
    let config =
        proxied(&app.url(), "deadline: 8s", "timeout: 60s").replace("retry: { initial: 1ms, max: 20ms }", breaker);
    let gateway = Gateway::start(&config).await;
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
async fn duplicates_of_a_request_under_way_wait_and_get_its_answer() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(says(202, "once")));
    let gateway = to(&app).await;
    app.hold();
    let first = post(&gateway, "1");
    let others = async {
        app.until("the first request", |seen| !seen.is_empty()).await;
        let others = futures_util::future::join_all((0..10).map(|_| post(&gateway, "1")));
        let go = async {
            // All of them have been verified; that they wait is what the application sees of them: nothing.
            let verified = r#"forebay_verifications_total{source="s",outcome="verified",slot=""}"#;
            while gateway.metric(verified).await < 11.0 {
                tokio::task::yield_now().await;
            }
            app.go_on();
        };
        futures_util::future::join(others, go).await.0
    };
    let (first, others) = futures_util::future::join(first, others).await;
    assert_eq!((first.status, first.text().as_str(), first.header("forebay-duplicate")), (202, "once", None));
    for other in &others {
        assert_eq!((other.status, other.text().as_str(), id(other)), (202, "once", id(&first)));
        assert_eq!(other.header("forebay-duplicate"), Some("true"));
        assert_eq!(other.header("content-type"), Some("text/x-app"));
    }
    assert_eq!(app.seen().len(), 1);
    assert_eq!(gateway.metric(r#"forebay_duplicates_total{source="s",kind="same"}"#).await, 10.0);
}

#[tokio::test]
async fn more_than_64_that_wait_for_one_key_are_told_to_come_again() {
    let app = FakeApp::start().await;
    let gateway = to(&app).await;
    app.hold();
    let first = post(&gateway, "1");
    let rest = async {
        app.until("the first request", |seen| !seen.is_empty()).await;
        let rest = (0..80).map(|_| async {
            let answer = post(&gateway, "1").await;
            if answer.status == 503 {
                assert_eq!(answer.header("retry-after"), Some("1"));
                let turned_away = r#"forebay_refusals_total{source="s",reason="under_way"}"#;
                if gateway.metric(turned_away).await >= 16.0 {
                    app.go_on();
                }
            }
            answer.status
        });
        futures_util::future::join_all(rest).await
    };
    let (first, rest) = futures_util::future::join(first, rest).await;
    assert_eq!(first.status, 200);
    assert_eq!(rest.iter().filter(|status| **status == 200).count(), 64);
    assert_eq!(rest.iter().filter(|status| **status == 503).count(), 16);
    assert_eq!(app.seen().len(), 1);
}

#[tokio::test]
async fn a_duplicate_of_a_relayed_event_gets_the_applications_answer_again_also_after_a_restart() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(says(201, vec![b'x'; 16 << 10])));
    let gateway = to(&app).await;
    let first = post(&gateway, "1").await;
    gateway.event(&id(&first), "delivered").await;
    app.behave(|_| Some(says(201, vec![b'x'; (16 << 10) + 1])));
    let longer = post(&gateway, "2").await;
    gateway.event(&id(&longer), "delivered").await;
    app.behave(|_| panic!("a duplicate is nothing to the application"));

    let (code, dir) = gateway.terminate().await;
    assert_eq!(code, 0);
    let gateway = Gateway::start_in(dir).await;
    for _ in 0..2 {
        let again = post(&gateway, "1").await;
        assert_eq!((again.status, &again.body, id(&again)), (201, &first.body, id(&first)));
        assert_eq!(
            (again.header("content-type"), again.header("forebay-duplicate")),
            (Some("text/x-app"), Some("true"))
        );
    }
    let again = post(&gateway, "2").await;
    assert_eq!((again.status, id(&again), again.header("forebay-duplicate")), (200, id(&longer), Some("true")));
    assert_eq!(again.json()["id"], id(&longer), "too long to be kept: the source's own answer");
    assert_eq!(gateway.event(&id(&first), "delivered").await["duplicates"], 2);
}

#[tokio::test]
async fn deliveries_of_other_routes_are_durable_before_the_application_s_answer_is_relayed() {
    let (app, other) = (FakeApp::start().await, FakeApp::down());
    let routes = proxied(&app.url(), "deadline: 8s", "timeout: 60s").replace("to: [app]", "to: [app, other]");
    let gateway =
        Gateway::start(&format!("{routes}  other: {{ url: {}, retry: {{ initial: 1ms, max: 20ms }} }}\n", other.url()))
            .await;
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

/// Slack shows the body of the answer to a slash command in the channel, and waits for three seconds.
#[tokio::test]
async fn a_slash_command_gets_the_applications_answer_and_an_acknowledgement_when_it_hangs() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(says(200, r#"{"text":"72 degrees"}"#)));
    let config = format!(
        "sources:\n  slack: {{ provider: slack, secret: 8f742231b10e8888abcd99yyyzzz85a5, mode: proxy, to: [app] }}\n\
         destinations:\n  app: {{ url: {}, timeout: 60s }}\n",
        app.url()
    );
    let gateway = Gateway::start(&config).await;
    let command = |trigger: &str| {
        let body = format!("command=%2Fweather&text=94070&trigger_id={trigger}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().to_string();
        let signature = {
            use hmac::{Hmac, KeyInit, Mac};
            let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"8f742231b10e8888abcd99yyyzzz85a5").unwrap();
            mac.update(format!("v0:{now}:{body}").as_bytes());
            format!("v0={}", data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes()))
        };
        let (http, url) = (gateway.http.clone(), format!("{}/slack", gateway.ingress));
        async move {
            let headers = [
                ("content-type", "application/x-www-form-urlencoded"),
                ("x-slack-request-timestamp", now.as_str()),
                ("x-slack-signature", signature.as_str()),
            ];
            http.send(Method::POST, &url, &headers, body.as_bytes()).await
        }
    };
    let answer = command("1").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"text":"72 degrees"}"#));
    app.hold();
    let answer = command("2").await;
    assert_eq!((answer.status, answer.text().as_str(), answer.header("forebay-buffered")), (200, "", Some("true")));
    app.go_on();
    gateway.event(&id(&answer), "delivered").await;
    assert_eq!(app.seen().len(), 2);
}
