//! An event that is erased leaves nothing of what its sender wrote or was answered, and does not come back.

use std::path::Path;

use http::Method;

use crate::support::app::status;
use crate::support::gateway::{command, github_to};
use crate::support::http::Answer;
use crate::support::{FakeApp, Gateway, sign};

/// Files below `dir` that have `what`.
fn with(dir: &Path, what: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(with(&path, what));
        } else if std::fs::read(&path).unwrap().windows(what.len()).any(|window| window == what.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Posts as the provider would, the word of event `number` in every part that the sender writes.
async fn post(gateway: &Gateway, number: usize) -> Answer {
    let word = word(number);
    let body = format!(r#"{{"word":"{word}","padding":"{}"}}"#, "x".repeat(number * 7));
    let (id, kind, signature) = (format!("id-{word}"), format!("kind-{word}"), sign(body.as_bytes()));
    let headers = [
        ("x-github-delivery", id.as_str()),
        ("x-github-event", kind.as_str()),
        ("x-hub-signature-256", signature.as_str()),
        ("x-note", word.as_str()),
    ];
    let url = format!("{}/webhooks/github?note={word}", gateway.ingress);
    gateway.http.send(Method::POST, &url, &headers, body.as_bytes()).await
}

fn word(number: usize) -> String {
    format!("canary-{number:04}-canary")
}

async fn erase(gateway: &Gateway, id: &str) -> Answer {
    gateway.http.send(Method::DELETE, &format!("{}/api/v1/events/{id}", gateway.admin), &[], b"").await
}

/// The application answers with what it was sent: delivered, dead or to be tried again.
async fn echoing() -> FakeApp {
    let app = FakeApp::start().await;
    app.behave(|seen| {
        let number: usize = String::from_utf8_lossy(&seen.body).split('-').nth(1).unwrap().parse().unwrap();
        let mut answer = status([200, 410, 500][number % 3]);
        *answer.body_mut() = http_body_util::Full::new(format!("{} {}", word(number), "y".repeat(number)).into());
        Some(answer)
    });
    app
}

#[tokio::test]
async fn nothing_of_an_erased_event_is_left_in_the_journals_directory() {
    const EVENTS: usize = 60;
    let app = echoing().await;
    let config = github_to(&app.url()).replace("initial: 20ms, max: 100ms", "initial: 1h, max: 1h, give_up_on: [410]");
    let gateway = Gateway::start(&config).await;
    let mut ids = Vec::new();
    for number in 0..EVENTS {
        ids.push(post(&gateway, number).await.header("forebay-event-id").unwrap().to_owned());
    }
    app.until("all of them", |seen| seen.len() >= EVENTS).await;
    let dead = r#"forebay_dead_letters{destination="app"}"#;
    gateway.until_metric(dead, (EVENTS / 3) as f64).await;
    for (number, id) in ids.iter().enumerate() {
        let event = gateway.event(id, ["delivered", "dead", "pending"][number % 3]).await;
        assert_eq!(
            event["deliveries"][0]["attempts"][0]["answer"].as_str().map(|text| text.contains(&word(number))),
            Some(true)
        );
    }
    let data = gateway.config().parent().unwrap().join("data");
    let is_erased = |number: usize| !number.is_multiple_of(4);
    for (number, id) in ids.iter().enumerate().filter(|(number, _)| is_erased(*number)) {
        assert!(with(&data, &word(number)).len() >= 2, "in the log and in the index");
        let answer = erase(&gateway, id).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json(), serde_json::json!({ "id": id, "purged": usize::from(number % 3 != 0) }));
        assert_eq!(with(&data, &word(number)), Vec::<String>::new());
        assert_eq!(erase(&gateway, id).await.json(), serde_json::json!({ "id": id, "purged": 0 }), "again");
    }
    let erased = (0..EVENTS).filter(|number| is_erased(*number));
    let left = |remainder: usize| (0..EVENTS).filter(|number| !is_erased(*number) && number % 3 == remainder).count();
    let purged = erased.clone().filter(|number| number % 3 != 0).count();

    let delivered = app.seen().len();
    let mut gateway = gateway;
    for turn in 0..2 {
        for (number, id) in ids.iter().enumerate() {
            let event = gateway.get(&format!("/api/v1/events/{id}")).await.json();
            if !is_erased(number) {
                assert_eq!(event["status"], ["delivered", "dead", "pending"][number % 3]);
                assert!(!with(&data, &word(number)).is_empty());
                continue;
            }
            assert_eq!((&event["status"], &event["source"]), (&"erased".into(), &"github".into()), "{event:#}");
            assert_eq!(event["deliveries"][0]["status"], ["delivered", "purged", "purged"][number % 3]);
            assert!(!event.to_string().contains(&word(number)));
            assert_eq!(with(&data, &word(number)), Vec::<String>::new());
            assert_eq!(gateway.get(&format!("/api/v1/events/{id}/body")).await.status, 410);
            assert_eq!(gateway.post(&format!("/api/v1/events/{id}/replay"), "{}").await.status, 410);
        }
        assert_eq!(gateway.metric(dead).await, left(1) as f64);
        assert_eq!(gateway.metric(r#"forebay_pending_deliveries{destination="app"}"#).await, left(2) as f64);
        if turn == 0 {
            assert_eq!(gateway.metric("forebay_deliveries_purged_total").await, purged as f64);
            gateway = gateway.kill_and_restart().await;
        }
    }
    for number in erased.take(6) {
        let again = post(&gateway, number).await;
        assert_eq!((again.status, again.header("forebay-duplicate")), (200, Some("true")));
        assert_eq!(again.header("forebay-event-id"), Some(ids[number].as_str()));
        assert_eq!(with(&data, &word(number)), Vec::<String>::new());
    }
    assert_eq!(app.seen().len(), delivered, "nothing of them was delivered again");
    let unknown = erase(&gateway, "evt_019a2f6c1f0b7c64a3a1d4b1c7f0e9aa").await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn the_command_asks_before_it_erases() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&github_to(&app.url())).await;
    let id = post(&gateway, 1).await.header("forebay-event-id").unwrap().to_owned();
    gateway.event(&id, "delivered").await;
    let erase = |extra: &[&str]| {
        let mut command = command();
        command.args(["events", "erase", &id, "--admin", &gateway.admin]).args(extra);
        async move {
            let output = command.output().await.unwrap();
            let text = [output.stdout, output.stderr].concat();
            (output.status.code(), String::from_utf8(text).unwrap())
        }
    };
    let (code, text) = erase(&[]).await;
    assert_eq!(code, Some(2));
    assert!(text.contains("--yes"), "{text}");
    gateway.event(&id, "delivered").await;
    let (code, text) = erase(&["--yes"]).await;
    assert_eq!((code, text), (Some(0), format!("{id} is erased\n")));
    gateway.event(&id, "erased").await;
    let audited = |line: &String| line.contains(r#""what":"erase""#) && line.contains(&id);
    assert!(gateway.log().iter().any(audited));
}
