//! kill -9 under load, again and again: nothing that was acknowledged is lost, nothing arrives changed, duplicates are
//! still known, dead letters stay.
//!
//! `FOREBAY_KILLS` says how often (`tests/kill9.sh`); a few times in the everyday run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::support::app::status;
use crate::support::gateway::{PATIENCE, github_to};
use crate::support::{FakeApp, Gateway, Seen};

const SENDERS: u64 = 8;

/// From so many kills on, what a run has to have met is asserted in shares as well.
const MANY: u64 = 50;

/// What the senders know.
#[derive(Default)]
struct Ledger {
    /// The body of each webhook that was acknowledged as new, by its event's id.
    acknowledged: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Told of each acknowledgement.
    more: Notify,
    duplicates: AtomicU64,
    /// Requests that were answered 503: not acknowledged.
    refused: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_over_kills_under_load() {
    let app = FakeApp::start().await;
    killed_under_load("store", &app, &github_to(&app.url()), |key, attempt| match key {
        key if key.is_multiple_of(16) => Some(410), // a dead letter
        key if key.is_multiple_of(7) && attempt < 3 => Some(503),
        _ => Some(200),
    })
    .await;
}

/// The application answers most of it itself; what it refuses or hangs on is acknowledged and has to be delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_over_kills_under_load_in_proxy_mode() {
    let app = FakeApp::start().await;
    let config = github_to(&app.url())
        .replace("to: [app]", "mode: proxy, deadline: 200ms, to: [app]")
        .replace("url: ", "timeout: 500ms, url: ");
    killed_under_load("proxy", &app, &config, |key, attempt| match key {
        key if key.is_multiple_of(7) && attempt < 2 => Some(503),
        key if key.is_multiple_of(14) => Some(410), // acknowledged before, so a dead letter
        key if key.is_multiple_of(101) && attempt < 2 => None,
        _ => Some(200),
    })
    .await;
}

/// `behaviour` says what the application answers to a webhook, told by a number and how often it was tried.
async fn killed_under_load(mode: &str, app: &FakeApp, config: &str, behaviour: fn(u64, u32) -> Option<u16>) {
    let answer_to = move |seen: &Seen| behaviour(number_of(seen.header("x-github-delivery")), attempt(seen));
    app.behave(move |seen| answer_to(seen).map(status));
    let kills: u64 = std::env::var("FOREBAY_KILLS").map_or(3, |text| text.parse().expect("FOREBAY_KILLS is a number"));
    let mut gateway = Gateway::start(config).await;
    let ledger = Arc::new(Ledger::default());
    let (mut cut_off, mut in_a_commit) = (0, 0);
    for round in 0..kills {
        let gateway_now = &gateway;
        let sending = (0..SENDERS).map(|sender| send_until_it_dies(gateway_now, round, sender, &ledger));
        let before = ledger.acknowledged.lock().unwrap().len();
        // Killed at another moment of the load each round: after so many acknowledgements, not after a time.
        let enough = before + 20 + usize::try_from(round * 37 % 400).unwrap();
        let killing = async {
            while ledger.acknowledged.lock().unwrap().len() < enough {
                ledger.more.notified().await;
            }
            // Every other time wherever it is; else looked for in a commit. How it stood is seen while it is stopped.
            let mut tries = if round.is_multiple_of(2) { 1 } else { 1000 };
            loop {
                gateway_now.signal_now(Signal::STOP);
                let inside = gateway_now.is_in_a_commit();
                tries -= 1;
                if inside || tries == 0 {
                    gateway_now.signal_now(Signal::KILL);
                    return inside;
                }
                gateway_now.signal_now(Signal::CONT);
                tokio::task::yield_now().await;
            }
        };
        let (ends, inside) = tokio::join!(join_all(sending), killing);
        cut_off += u64::from(ends.into_iter().any(|cut_off| cut_off));
        in_a_commit += u64::from(inside);
        gateway = gateway.kill_and_restart().await;
    }
    assert!(cut_off > 0, "no kill ever met a request under way: this run proves nothing");

    let acknowledged = ledger.acknowledged.lock().unwrap().clone();
    let (seen, dead) = settled(app, &gateway, &acknowledged, answer_to).await;
    check_what_arrived(&seen, &acknowledged);
    let (duplicates, refused) = (ledger.duplicates.load(Ordering::Relaxed), ledger.refused.load(Ordering::Relaxed));
    assert!(refused * 5 <= acknowledged.len() as u64, "{refused} refused, {} acknowledged", acknowledged.len());
    if kills >= MANY {
        assert!(in_a_commit * 5 >= kills, "only {in_a_commit} of {kills} kills met a commit");
        assert!(duplicates >= kills && dead as u64 >= kills / 10, "{duplicates} duplicates, {dead} dead letters");
    }
    println!(
        "{kills} kills, {mode} mode, {cut_off} with a request under way, {in_a_commit} inside a commit, {} acknowledged, \
         {refused} refused, {duplicates} duplicates known, {dead} dead letters, {} attempts seen, 0 lost",
        acknowledged.len(),
        seen.len()
    );
}

/// Posts one webhook after the other, now and then one that was acknowledged before. True if the gateway died with one of
/// them under way.
async fn send_until_it_dies(gateway: &Gateway, round: u64, sender: u64, ledger: &Ledger) -> bool {
    let mut known: Option<(String, String)> = None;
    for number in 0u64.. {
        let key = format!("{round}-{sender}-{number}");
        let body = body(&key, number);
        let Some(answer) = gateway.try_github(&key, &body).await else { return true };
        // Nothing was acknowledged: in proxy mode the application may refuse, and a busy disk may miss the short deadline.
        if answer.status != 200 {
            assert!(matches!(answer.status, 410 | 503), "{}: {}", answer.status, answer.text());
            ledger.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let event = answer.header("forebay-event-id").unwrap().to_owned();
        assert!(answer.header("forebay-duplicate").is_none(), "{key} was never sent before");
        ledger.acknowledged.lock().unwrap().insert(event.clone(), body);
        ledger.more.notify_one();
        if number % 8 == 3 {
            let (key, event) = known.get_or_insert((key, event));
            let number = key.rsplit('-').next().unwrap().parse().unwrap();
            let Some(again) = gateway.try_github(key, &self::body(key, number)).await else { return true };
            if again.status == 503 {
                ledger.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            assert_eq!((again.status, again.header("forebay-event-id")), (200, Some(event.as_str())), "{key} again");
            assert_eq!(again.header("forebay-duplicate"), Some("true"), "{key} again");
            ledger.duplicates.fetch_add(1, Ordering::Relaxed);
        }
    }
    false
}

/// What is sent under `key`: up to 2 KiB.
fn body(key: &str, number: u64) -> Vec<u8> {
    Sha256::digest(key.as_bytes()).repeat(1 + usize::try_from(number % 64).unwrap())
}

fn number_of(key: &str) -> u64 {
    u64::from_le_bytes(Sha256::digest(key.as_bytes())[..8].try_into().unwrap())
}

fn attempt(seen: &Seen) -> u32 {
    seen.header("forebay-attempt").parse().expect("every attempt has its number")
}

/// Waits until all of `acknowledged` is delivered, that is answered 200 by the application, or a dead letter. Gives what the
/// application saw, and how many dead letters there are.
async fn settled(
    app: &FakeApp,
    gateway: &Gateway,
    acknowledged: &BTreeMap<String, Vec<u8>>,
    answer_to: impl Fn(&Seen) -> Option<u16>,
) -> (Vec<Seen>, usize) {
    let deadline = tokio::time::Instant::now() + 2 * PATIENCE;
    loop {
        let dead = dead_letters(gateway).await;
        let seen = app.seen();
        let delivered: BTreeSet<_> = seen
            .iter()
            .filter(|seen| answer_to(seen) == Some(200))
            .map(|seen| seen.header("forebay-event-id"))
            .collect();
        let open = |id: &&String| !delivered.contains(id.as_str()) && !dead.contains(*id);
        let lost: Vec<_> = acknowledged.keys().filter(open).collect();
        if lost.is_empty() {
            return (seen, dead.len());
        }
        assert!(tokio::time::Instant::now() < deadline, "lost: {lost:?}");
    }
}

async fn dead_letters(gateway: &Gateway) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut page = "/api/v1/events?status=dead&limit=500".to_owned();
    loop {
        let answer = gateway.get(&page).await;
        if answer.status == 503 {
            continue; // the index still reads what was there before the last kill
        }
        let answer = answer.json();
        ids.extend(
            answer["items"].as_array().unwrap().iter().filter_map(|item| item["id"].as_str().map(str::to_owned)),
        );
        match &answer["next"] {
            Value::String(next) => page = format!("/api/v1/events?status=dead&limit=500&cursor={next}"),
            _ => return ids,
        }
    }
}

/// Every body is the one that was sent, and no attempt's number comes twice or falls.
fn check_what_arrived(seen: &[Seen], acknowledged: &BTreeMap<String, Vec<u8>>) {
    let mut last: BTreeMap<&str, u32> = BTreeMap::new();
    for seen in seen {
        let id = seen.header("forebay-event-id");
        let key = seen.header("x-github-delivery");
        let sent = body(key, key.rsplit('-').next().unwrap().parse().unwrap());
        assert_eq!(&seen.body[..], &sent[..], "{id} arrived changed");
        assert!(acknowledged.get(id).is_none_or(|body| *body == sent), "{id} is another webhook than was acknowledged");
        let number = attempt(seen);
        if let Some(before) = last.insert(id, number) {
            assert!(number > before, "{id}: attempt {number} after attempt {before}");
        }
    }
}
