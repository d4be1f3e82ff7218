//! Without its index a gateway takes and delivers events, says so, and has the index again once it may.

use crate::support::FakeApp;
use crate::support::gateway::{self, Gateway};

#[tokio::test]
async fn an_index_that_cannot_be_opened_keeps_nothing_from_being_delivered() {
    let app = FakeApp::start().await;
    let dir = tempfile::tempdir().unwrap();
    let config = gateway::head(dir.path()) + &gateway::github_to(&app.url());
    std::fs::write(dir.path().join("forebay.yaml"), config).unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let in_the_way = dir.path().join("data/index");
    std::fs::write(&in_the_way, b"no directory").unwrap();
    let gateway = Gateway::start_in(dir).await;
    let ready = gateway.get("/readyz").await;
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("the index at"), "{}", ready.text());

    let kept = gateway.github("1", b"{}").await;
    assert_eq!(kept.status, 200);
    app.until("the event", |seen| seen.len() == 1).await;
    let id = kept.header("forebay-event-id").unwrap().to_owned();
    let shown = gateway.get(&format!("/api/v1/events/{id}")).await;
    assert_eq!(shown.status, 503, "it is kept: {}", shown.text());
    assert!(gateway.log().iter().any(|line| line.contains("the index cannot be opened")));

    std::fs::remove_file(&in_the_way).unwrap();
    gateway.says("the index follows the journal again").await;
    gateway.event(&id, "delivered").await;
    let ready = gateway.get("/readyz").await;
    assert!(!ready.text().contains("index"), "{}", ready.text());
}
