//! Proxy mode: the application answers while it can, and nothing is lost when it cannot.

mod duplicates;
mod kept;
mod late;
mod routes;
mod turns;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;

use crate::support::gateway::PATIENCE;
use crate::support::http::Answer;
use crate::support::{FakeApp, Gateway, Seen};

/// Retries so soon that no test waits for one, and so late that no test meets one.
const SOON: &str = "retry: { initial: 1ms, max: 20ms }";
const LATER: &str = "retry: { initial: 1h, jitter: off }";
/// A breaker that never gets in the way.
const NO_BREAKER: &str = "breaker: { failures: 1000000, cooldown: 1ms }";

/// A source whose key is the body's `id`, with these settings, answered by one application with those.
fn proxied(app: &str, source: &str, destination: &str) -> String {
    format!(
        "sources:\n  s: {{ verify: none, mode: proxy, dedupe: {{ key: json:/id }}, {source}, to: [app] }}\n\
         destinations:\n  app: {{ url: {app}, {SOON}, {destination} }}\n"
    )
}

async fn to(app: &FakeApp) -> Gateway {
    Gateway::start(&proxied(&app.url(), "deadline: 8s", "timeout: 60s")).await
}

async fn post(gateway: &Gateway, id: &str) -> Answer {
    post_to(gateway, "/s?a=1", &format!(r#"{{"id":"{id}"}}"#)).await
}

async fn post_to(gateway: &Gateway, path: &str, body: &str) -> Answer {
    let url = format!("{}{path}", gateway.ingress);
    let answer = gateway.http.send(Method::POST, &url, &[("x-one", "1")], body.as_bytes());
    tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time")
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
