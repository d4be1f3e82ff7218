//! Row P42: deliveries whose route was taken out of the config are kept, seen, counted, and made once it is back.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use crate::support::gateway::{command, head};
use crate::support::{FakeApp, Gateway};

/// Two sources, two applications; `shop` sends to both.
fn config(shop: &str, with_app: bool, app: &FakeApp, other: &FakeApp) -> String {
    let settings = "retry: { initial: 1ms, max: 5ms }, breaker: { failures: 1000 }";
    let app = if with_app { format!("  app: {{ url: {}, {settings} }}\n", app.url()) } else { String::new() };
    format!(
        "sources:\n{shop}  quiet: {{ verify: none, to: [other] }}\ndestinations:\n{app}  other: {{ url: {}, {settings} }}\n",
        other.url()
    )
}

const WHOLE: &str = "  shop: { verify: none, to: [app, other] }\n";

/// Kills the gateway and starts it with another config.
async fn restart(gateway: Gateway, config: &str) -> Gateway {
    let dir = gateway.kill().await;
    std::fs::write(dir.path().join("forebay.yaml"), format!("{}{config}", head(dir.path()))).unwrap();
    Gateway::start_in(dir).await
}

async fn post(gateway: &Gateway, source: &str, body: &[u8]) -> String {
    let answer = gateway.http.send(Method::POST, &format!("{}/{source}", gateway.ingress), &[], body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("forebay-event-id").unwrap().to_owned()
}

async fn ids(gateway: &Gateway, query: &str) -> BTreeSet<String> {
    let page = gateway.get(&format!("/api/v1/events?{query}")).await.json();
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

/// Pending, orphaned and dead deliveries to `app`: by the metrics, by the destinations' list, and by that of the events.
async fn counts(gateway: &Gateway) -> [u64; 3] {
    let metric = async |name: &str| gateway.metric(&format!("forebay_{name}{{destination=\"app\"}}")).await as u64;
    let by_metrics =
        [metric("pending_deliveries").await, metric("orphaned_deliveries").await, metric("dead_letters").await];
    let destinations = gateway.get("/api/v1/destinations").await.json();
    let app = destinations["items"].as_array().unwrap().iter().find(|item| item["name"] == "app");
    let by_destinations =
        ["pending", "orphaned", "dead"].map(|count| app.map_or(0, |app| app[count].as_u64().unwrap()));
    let page = gateway.get("/api/v1/events?limit=500").await.json();
    let deliveries = page["items"].as_array().unwrap().iter().flat_map(|item| item["deliveries"].as_array().unwrap());
    let to_app: Vec<&Value> = deliveries.filter(|delivery| delivery["destination"] == "app").collect();
    let by_events = ["pending", "orphaned", "dead"]
        .map(|status| to_app.iter().filter(|delivery| delivery["status"] == status).count() as u64);
    assert_eq!((by_metrics, by_destinations), (by_destinations, by_events));
    by_events
}

#[tokio::test]
async fn a_route_that_is_taken_out_keeps_what_waits_for_it_and_delivers_it_once_it_is_back() {
    let without: [(&str, bool); 3] = [
        ("  shop: { verify: none, to: [other] }\n", true), // the source no longer sends there
        ("", true),                                        // the source is gone
        ("  shop: { verify: none, to: [other] }\n", false), // the destination is gone
    ];
    for (number, (shop, with_app)) in without.into_iter().enumerate() {
        let (app, other) = (FakeApp::down(), FakeApp::start().await);
        let whole = config(WHOLE, true, &app, &other);
        let less = config(shop, with_app, &app, &other);
        let gateway = Gateway::start(&whole).await;
        let mut sent = BTreeSet::new();
        for body in 0..20u8 {
            sent.insert(post(&gateway, "shop", &[body]).await);
        }
        let some = sent.first().unwrap().clone();
        let made = async |gateway: &Gateway| {
            let event = gateway.get(&format!("/api/v1/events/{some}")).await.json();
            event["deliveries"][0]["attempts"].as_array().map_or(0, Vec::len)
        };
        while made(&gateway).await < 2 {} // in vain: nobody is there
        assert_eq!(counts(&gateway).await, [20, 0, 0]);

        let mut gateway = restart(gateway, &less).await;
        app.up().await;
        for _ in 0..2 {
            assert_eq!(counts(&gateway).await, [0, 20, 0], "case {number}");
            assert_eq!(ids(&gateway, "status=orphaned").await, sent);
            assert_eq!(ids(&gateway, "status=pending").await, sent, "an event with an orphan is pending");
            let event = gateway.get(&format!("/api/v1/events/{some}")).await.json();
            assert_eq!((&event["status"], &event["deliveries"][0]["status"]), (&json!("pending"), &json!("orphaned")));
            let explained = event["explain"].as_array().unwrap().iter().any(|line| line["step"] == "orphan");
            assert!(explained, "{event:#}");
            gateway
                .says("the config has no route for deliveries that are kept: they are orphaned until it is back")
                .await;
            // Others are not held up.
            let live = post(&gateway, "quiet", &[number as u8, 1]).await;
            gateway.event(&live, "delivered").await;
            assert!(app.seen().is_empty(), "nothing is delivered");
            gateway = restart(gateway, &less).await;
        }
        let shown =
            command().args(["events", "list", "--status", "orphaned", "--admin", &gateway.admin]).output().await;
        let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
        assert!(shown.matches("app: orphaned").count() == 20, "{shown}");
        let listed = command().args(["destinations", "list", "--admin", &gateway.admin]).output().await.unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert_eq!(listed.contains("not in the config"), !with_app, "{listed}");

        let last = attempts(&gateway, &some).await;
        let gateway = restart(gateway, &whole).await;
        for id in &sent {
            gateway.event(id, "delivered").await;
        }
        assert_eq!(app.event_ids(), sent);
        let of_some = |seen: &&crate::support::app::Seen| seen.header("forebay-event-id") == some;
        let first = app.seen().iter().find(of_some).cloned().unwrap();
        assert!(first.header("forebay-attempt").parse::<u64>().unwrap() > last, "attempts are counted on");
        assert_eq!(first.header("forebay-delivery-id"), format!("{}-0", some.replace("evt_", "dlv_")));
        assert_eq!(counts(&gateway).await, [0, 0, 0]);
        assert!(ids(&gateway, "status=orphaned").await.is_empty());
    }
}

/// The number of the last attempt at the first delivery of `id`.
async fn attempts(gateway: &Gateway, id: &str) -> u64 {
    let event = gateway.get(&format!("/api/v1/events/{id}")).await.json();
    event["deliveries"][0]["attempts"].as_array().unwrap().last().unwrap()["number"].as_u64().unwrap()
}

#[tokio::test]
async fn an_orphan_is_replayed_where_its_destination_is_there_and_nowhere_else() {
    let (app, other) = (FakeApp::down(), FakeApp::start().await);
    let gateway = Gateway::start(&config("  shop: { verify: none, to: [app] }\n", true, &app, &other)).await;
    let (one, two) = (post(&gateway, "shop", b"1").await, post(&gateway, "shop", b"2").await);
    let gateway = restart(gateway, &config("", false, &app, &other)).await;
    let refused = gateway.post(&format!("/api/v1/events/{one}/replay"), r#"{"destination":"app"}"#).await;
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains("its destination is not in the config"), "{}", refused.text());

    app.up().await;
    let gateway = restart(gateway, &config("", true, &app, &other)).await;
    let taken = gateway.post(&format!("/api/v1/events/{one}/replay"), r#"{"destination":"app"}"#).await;
    assert_eq!(taken.status, 202, "{}", taken.text());
    gateway.event(&one, "delivered").await;
    assert_eq!(app.seen().last().unwrap().header("forebay-attempt-reason"), "replay");
    assert_eq!((counts(&gateway).await, app.event_ids()), ([0, 1, 0], [one].into()));
    gateway.event(&two, "pending").await;
}
