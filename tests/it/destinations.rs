//! Destinations that are looked at, paused and resumed.

use serde_json::{Value, json};

use crate::support::gateway::{command, github_to, head};
use crate::support::{FakeApp, Gateway};

async fn one(gateway: &Gateway) -> Value {
    gateway.get("/api/v1/destinations").await.json()["items"][0].clone()
}

#[tokio::test]
async fn a_paused_destination_is_left_alone_also_over_a_restart_until_it_is_resumed() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&github_to(&app.url())).await;
    let url = format!("{}/hooks/github", app.url());
    let wanted = json!({ "name": "app", "url": url, "paused": false, "breaker": "closed", "pending": 0, "orphaned": 0,
        "dead": 0, "oldest_pending": null });
    assert_eq!(one(&gateway).await, wanted);

    let paused = gateway.post("/api/v1/destinations/app/pause", "").await;
    assert_eq!((paused.status, &paused.json()["paused"]), (200, &json!(true)));
    assert_eq!(gateway.post("/api/v1/destinations/app/pause", "").await.status, 200, "it is so already");
    let kept = gateway.github("1", b"{}").await;
    assert_eq!(kept.status, 200);
    let id = kept.header("forebay-event-id").unwrap().to_owned();
    let gateway = gateway.kill_and_restart().await;
    let shown = one(&gateway).await;
    let received = gateway.get(&format!("/api/v1/events/{id}")).await.json()["received_at"].clone();
    assert_eq!([&shown["paused"], &shown["pending"], &shown["oldest_pending"]], [&json!(true), &json!(1), &received]);
    assert_eq!(gateway.event(&id, "pending").await["deliveries"][0]["attempts"], json!([]), "none is burnt");
    assert!(app.seen().is_empty());

    let run = async |arguments: &[&str]| {
        let ended =
            command().arg("destinations").args(arguments).args(["--admin", &gateway.admin]).output().await.unwrap();
        (
            ended.status.code().unwrap(),
            String::from_utf8(ended.stdout).unwrap() + &String::from_utf8_lossy(&ended.stderr),
        )
    };
    let (code, listed) = run(&["list"]).await;
    assert!(code == 0 && listed.contains("paused"), "{listed}");
    let (code, said) = run(&["resume", "app"]).await;
    assert!(code == 0 && said.contains("app is delivered to"), "{said}");
    gateway.event(&id, "delivered").await;
    let (code, said) = run(&["pause", "ap"]).await;
    assert!(code == 1 && said.contains("there is no such destination"), "{said}");
    let audited = |what: &str| {
        let log = gateway.log();
        log.iter().any(|line| line.contains("\"audit\"") && line.contains(what) && line.contains("app"))
    };
    assert!(audited("resume"), "{:#?}", gateway.log());
}

#[tokio::test]
async fn only_who_may_operate_pauses() {
    let tokens = "admin: { listen: 127.0.0.1:0, token: operate-token-0123, read_token: read-token-456789 }\n";
    let dir = tempfile::tempdir().unwrap();
    let head = head(dir.path()).replace("admin: { listen: 127.0.0.1:0 }\n", tokens);
    std::fs::write(dir.path().join("forebay.yaml"), head + &github_to("http://127.0.0.1:1")).unwrap();
    let gateway = Gateway::start_in(dir).await;
    for (method, path, expected) in [
        (http::Method::GET, "destinations", [401, 200, 200]),
        (http::Method::POST, "destinations/app/pause", [401, 403, 200]),
        (http::Method::POST, "destinations/app/resume", [401, 403, 200]),
        (http::Method::POST, "destinations/other/pause", [401, 403, 404]),
        (http::Method::GET, "destinations/app/pause", [405, 405, 405]),
    ] {
        for (token, expected) in ["wrong", "read-token-456789", "operate-token-0123"].into_iter().zip(expected) {
            let url = format!("{}/api/v1/{path}", gateway.admin);
            let bearer = format!("Bearer {token}");
            let answer = gateway.http.send(method.clone(), &url, &[("authorization", &bearer)], b"").await;
            assert_eq!(answer.status, expected, "{method} {path} with {token}");
        }
    }
}
