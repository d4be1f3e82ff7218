//! kill -9 under load, again and again: nothing that was acknowledged is lost, nothing arrives changed.
//!
//! `FOREBAY_KILLS` says how often (`tests/kill9.sh`); a few times in the everyday run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use sha2::{Digest, Sha256};

use crate::support::app::status;
use crate::support::gateway::github_to;
use crate::support::{FakeApp, Gateway};

const SENDERS: u64 = 8;

/// What the senders know: the body of each webhook that was acknowledged as new, by its event's id.
type Acknowledged = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_over_kills_under_load() {
    let app = FakeApp::start().await;
    let turn = AtomicU64::new(0);
    app.behave(move |_| {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        Some(status(if turn.is_multiple_of(7) { 503 } else { 200 }))
    });
    killed_under_load("store", &app, &github_to(&app.url())).await;
}

/// The application answers most of it itself; what it refuses or hangs on is acknowledged and has to be delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_over_kills_under_load_in_proxy_mode() {
    let app = FakeApp::start().await;
    let turn = AtomicU64::new(0);
    app.behave(move |_| match turn.fetch_add(1, Ordering::Relaxed) {
        turn if turn.is_multiple_of(7) => Some(status(503)),
        turn if turn.is_multiple_of(101) => None,
        _ => Some(status(200)),
    });
    let config = github_to(&app.url())
        .replace("to: [app]", "mode: proxy, deadline: 200ms, to: [app]")
        .replace("url: ", "timeout: 500ms, url: ");
    killed_under_load("proxy", &app, &config).await;
}

async fn killed_under_load(mode: &str, app: &FakeApp, config: &str) {
    let kills: u64 = std::env::var("FOREBAY_KILLS").map_or(3, |text| text.parse().expect("FOREBAY_KILLS is a number"));
    let mut gateway = Gateway::start(config).await;
    let acknowledged: Acknowledged = Arc::default();
    let mut cut_off = 0;
    for round in 0..kills {
        let gateway_now = &gateway;
        let sending = (0..SENDERS).map(|sender| send_until_it_dies(gateway_now, round, sender, &acknowledged));
        let before = acknowledged.lock().unwrap().len();
        // Killed at another moment of the load each round: after so many acknowledgements, not after a time.
        let enough = before + 20 + usize::try_from(round * 37 % 400).unwrap();
        let killing = async {
            while acknowledged.lock().unwrap().len() < enough {
                tokio::task::yield_now().await;
            }
            gateway_now.signal("KILL").await;
        };
        let (ends, ()) = tokio::join!(join_all(sending), killing);
        cut_off += ends.into_iter().filter(|cut_off| *cut_off).count();
        gateway = gateway.kill_and_restart().await;
    }
    assert!(cut_off > 0, "no kill ever met a request under way: this run proves nothing");

    let acknowledged = acknowledged.lock().unwrap().clone();
    let wanted: BTreeSet<_> = acknowledged.keys().cloned().collect();
    let done = |seen: &[crate::support::Seen]| {
        let got: BTreeSet<_> = seen.iter().map(|seen| seen.header("forebay-event-id").to_owned()).collect();
        got.is_superset(&wanted)
    };
    if tokio::time::timeout(Duration::from_secs(120), app.until("everything", done)).await.is_err() {
        let got = app.event_ids();
        panic!("lost: {:?}", wanted.difference(&got).collect::<Vec<_>>());
    }
    check_what_arrived(app, &acknowledged);
    drop(gateway);
    println!("{kills} kills, {mode} mode, {} acknowledged, {} attempts seen, 0 lost", wanted.len(), app.seen().len());
}

/// Posts one webhook after the other. True if the gateway died with one of them under way.
async fn send_until_it_dies(gateway: &Gateway, round: u64, sender: u64, acknowledged: &Acknowledged) -> bool {
    for number in 0u64.. {
        let id = format!("{round}-{sender}-{number}");
        let body = Sha256::digest(id.as_bytes()).repeat(1 + usize::try_from(number % 64).unwrap());
        let Some(answer) = gateway.try_github(&id, &body).await else { return true };
        assert_eq!(answer.status, 200, "{}", answer.text());
        let event = answer.header("forebay-event-id").unwrap().to_owned();
        if answer.header("forebay-duplicate").is_none() {
            acknowledged.lock().unwrap().insert(event, body);
        }
    }
    false
}

/// Every body is the one that was sent, and no attempt's number comes twice or falls.
fn check_what_arrived(app: &FakeApp, acknowledged: &BTreeMap<String, Vec<u8>>) {
    let mut last: BTreeMap<String, u32> = BTreeMap::new();
    for seen in app.seen() {
        let id = seen.header("forebay-event-id").to_owned();
        if let Some(body) = acknowledged.get(&id) {
            assert_eq!(&seen.body[..], &body[..], "{id} arrived changed");
        }
        let number: u32 = seen.header("forebay-attempt").parse().unwrap();
        if let Some(before) = last.insert(id.clone(), number) {
            assert!(number > before, "{id}: attempt {number} after attempt {before}");
        }
    }
}
