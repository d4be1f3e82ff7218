//! Full means 503, never loss.

use http::Method;

use crate::support::{FakeApp, Gateway};

/// One source: one of several has a share of the journal, and only that.
fn config(dir: &std::path::Path, source: &str, app: &FakeApp) -> String {
    format!(
        "ingress: {{ listen: 127.0.0.1:0 }}\nadmin: {{ listen: 127.0.0.1:0 }}\n\
         journal: {{ dir: {}, max_size: 8MiB }}\nlog: {{ format: json }}\n\
         sources:\n  {source}\n\
         destinations:\n  app: {{ url: {}, retry: {{ initial: 1ms, max: 50ms }}, breaker: {{ failures: 5, cooldown: 50ms }} }}\n",
        dir.join("data").display(),
        app.url()
    )
}

#[tokio::test]
async fn history_goes_first_then_503_and_intake_resumes_by_itself() {
    let app = FakeApp::down();
    let dir = tempfile::tempdir().unwrap();
    let captured = config(dir.path(), "bin: { verify: none, to: [] }", &app);
    std::fs::write(dir.path().join("forebay.yaml"), captured).unwrap();
    let gateway = Gateway::start_in(dir).await;
    let post = async |gateway: &Gateway, source: &str, number: u32| {
        let mut body = vec![b'x'; 32 << 10];
        body[..4].copy_from_slice(&number.to_le_bytes());
        gateway.http.send(Method::POST, &format!("{}/{source}", gateway.ingress), &[], &body).await
    };
    // Twice what fits, of which nothing is needed any more: all of it is taken.
    for number in 0..512 {
        assert_eq!(post(&gateway, "bin", number).await.status, 200, "history gives way");
    }
    assert!(gateway.metric("forebay_history_evicted_total").await > 50.0);

    let dir = gateway.kill().await;
    let routed = config(dir.path(), "s: { verify: none, to: [app] }", &app);
    std::fs::write(dir.path().join("forebay.yaml"), routed).unwrap();
    let gateway = Gateway::start_in(dir).await;

    // Now what waits for the application: taken as long as there is room, then refused before the body is read.
    let mut kept = std::collections::BTreeSet::new();
    let refused = loop {
        let answer = post(&gateway, "s", u32::try_from(kept.len()).unwrap()).await;
        match answer.status {
            200 => kept.insert(answer.header("forebay-event-id").unwrap().to_owned()),
            _ => break answer,
        };
        assert!(kept.len() < 400, "never full");
    };
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert!(kept.len() > 80, "only {} fitted", kept.len());
    assert_eq!(gateway.get("/readyz").await.status, 503);
    assert_eq!(gateway.get("/healthz").await.status, 200);

    // The application comes back: delivery goes on although the journal is full, and makes room.
    app.up().await;
    app.until("all that was acknowledged", |seen| seen.len() >= kept.len()).await;
    assert!(app.event_ids().is_superset(&kept), "nothing that was acknowledged was let go");
    let deadline = tokio::time::Instant::now() + crate::support::gateway::PATIENCE;
    while post(&gateway, "s", 999_999).await.status != 200 {
        assert!(tokio::time::Instant::now() < deadline, "intake never resumed");
    }
    assert_eq!(gateway.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_second_gateway_on_the_same_journal_exits_3() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&crate::support::gateway::github_to(&app.url())).await;
    let second = crate::support::gateway::command().args(["serve", "-c"]).arg(gateway.config()).output().await.unwrap();
    assert_eq!(second.status.code(), Some(3));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("in use by another forebay") && said.contains(&gateway.pid().to_string()), "{said}");

    // Started with the very same config, its addresses are taken as well: that is not what it is told.
    let config = std::fs::read_to_string(gateway.config()).unwrap();
    let address = gateway.ingress.rsplit('/').next().unwrap();
    let same = gateway.config().with_file_name("same.yaml");
    std::fs::write(&same, config.replacen("127.0.0.1:0", address, 1)).unwrap();
    let third = crate::support::gateway::command().args(["serve", "-c"]).arg(&same).output().await.unwrap();
    assert_eq!(third.status.code(), Some(3), "{}", String::from_utf8_lossy(&third.stderr));
    assert_eq!(gateway.github("1", b"{}").await.status, 200, "the first is not disturbed");
}
