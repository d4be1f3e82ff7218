//! Row B4: a source whose application is away gets no more of the journal than its share, and others do not notice.

use http::Method;
use serde_json::{Value, json};

use crate::support::gateway::PATIENCE;
use crate::support::{FakeApp, Gateway};

fn config(dir: &std::path::Path, hog: &FakeApp, quiet: &FakeApp) -> String {
    let settings = "retry: { initial: 1ms, max: 50ms }, breaker: { failures: 5, cooldown: 50ms }";
    format!(
        "ingress: {{ listen: 127.0.0.1:0 }}\nadmin: {{ listen: 127.0.0.1:0 }}\n\
         journal: {{ dir: {}, max_size: 16MiB }}\nlog: {{ format: json }}\n\
         sources:\n  hog: {{ verify: none, to: [away] }}\n  quiet: {{ verify: none, to: [there] }}\n\
         destinations:\n  away: {{ url: {}, {settings} }}\n  there: {{ url: {}, {settings} }}\n",
        dir.join("data").display(),
        hog.url(),
        quiet.url()
    )
}

async fn source(gateway: &Gateway, name: &str) -> Value {
    let sources = gateway.get("/api/v1/sources").await.json();
    sources["items"].as_array().unwrap().iter().find(|source| source["name"] == name).unwrap().clone()
}

#[tokio::test]
async fn one_source_that_floods_while_its_application_is_away_leaves_room_to_others_and_recovers() {
    let (away, there) = (FakeApp::down(), FakeApp::start().await);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("forebay.yaml"), config(dir.path(), &away, &there)).unwrap();
    let mut gateway = Gateway::start_in(dir).await;
    let post = async |gateway: &Gateway, source: &str, number: usize| {
        let mut body = vec![b'x'; 32 << 10];
        body[..8].copy_from_slice(&number.to_le_bytes());
        gateway.http.send(Method::POST, &format!("{}/{source}", gateway.ingress), &[], &body).await
    };
    let mut kept = std::collections::BTreeSet::new();
    let refused = loop {
        let answer = post(&gateway, "hog", kept.len()).await;
        match answer.status {
            200 => kept.insert(answer.header("forebay-event-id").unwrap().to_owned()),
            _ => break answer,
        };
        assert!(kept.len() < 512, "never refused");
    };
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    let bytes = kept.len() << 15;
    assert!((3 << 20..9 << 20).contains(&bytes), "{bytes} bytes are not about half of what there is");

    for round in 0..2 {
        // Seen where somebody looks; the gateway itself is ready.
        assert_eq!(gateway.get("/readyz").await.status, 200);
        let hog = source(&gateway, "hog").await;
        assert_eq!(hog["over_share"], json!(true), "{hog}");
        assert!(hog["unsettled_bytes"].as_u64().unwrap() >= bytes as u64);
        let unsettled = gateway.metric(r#"forebay_unsettled_bytes{source="hog"}"#).await;
        assert!(unsettled > gateway.metric("forebay_journal_share_bytes").await && unsettled >= bytes as f64);
        assert_eq!(post(&gateway, "hog", 999).await.status, 503);
        assert!(gateway.metric(r#"forebay_refusals_total{source="hog",reason="no_room"}"#).await >= 1.0);
        gateway.says("what waits of the source takes its share of the journal: its events are refused until some of it is settled; those of others are kept").await;

        // More than the journal could hold passes through it, each taken and delivered at once.
        let before = there.seen().len();
        for number in 0..512 {
            let answer = post(&gateway, "quiet", round * 512 + number).await;
            assert_eq!(answer.status, 200, "{number}: {}", answer.text());
        }
        there.until("what the other source sent", |seen| seen.len() >= before + 512).await;
        assert_eq!(source(&gateway, "quiet").await["over_share"], json!(false));
        assert_eq!(gateway.metric(r#"forebay_pending_deliveries{destination="away"}"#).await, kept.len() as f64);
        gateway = gateway.kill_and_restart().await; // what is read back is the same
    }

    away.up().await;
    let kept_all = |seen: &[crate::support::app::Seen]| seen.len() >= kept.len();
    away.until("all that was acknowledged", kept_all).await;
    assert!(away.event_ids().is_superset(&kept), "nothing that was acknowledged was let go");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while post(&gateway, "hog", 1_000).await.status != 200 {
        assert!(tokio::time::Instant::now() < deadline, "it never took events again");
    }
    while gateway.metric(r#"forebay_unsettled_bytes{source="hog"}"#).await > 0.0 {
        assert!(tokio::time::Instant::now() < deadline, "what was settled is still counted");
    }
    assert_eq!(source(&gateway, "hog").await["over_share"], json!(false));
}
