//! Erasing one event: nothing of it is left, everything else is as it was, wherever a crash comes.

use super::*;
use crate::journal::disk::dying::{DyingDisk, Life, Steps};
use crate::journal::{Erased, Relayed};

/// In the body, a header, the query, the path, a parameter, the type, the provider's id, an answer, an error, what was relayed.
const CANARY: &[u8] = b"canary";

fn telling(key: u8, destinations: &[&str]) -> Entry {
    let word = || Some(Box::from("canary-text"));
    let told = Relayed { status: 200, content_type: Some(HeaderValue::from_static("text/canary")), body: None };
    let mut all = entry(b"a canary in the body", Some(key), destinations);
    all.event = VerifiedEvent::assumed(Event {
        kind: word(),
        provider_event_id: word(),
        path: Box::from("/canary"),
        query: word(),
        params: vec![(Box::from("canary"), Box::from("canary"))],
        headers: vec![(HeaderName::from_static("x-canary"), HeaderValue::from_static("canary"))],
        client: Client { ip: "192.0.2.1".parse().unwrap(), tls: true, host: word() },
        ..event(b"a canary in the body")
    });
    all.deliveries.iter_mut().for_each(|delivery| delivery.path = Some(Box::from("/to/canary")));
    all.relayed = Some(Relayed { body: Some(Bytes::from_static(b"canary")), ..told });
    all
}

fn answered(number: u32) -> Attempt {
    Attempt { error: Some(Box::from("canary")), answer: Bytes::from_static(b"canary"), ..attempt(number) }
}

/// Whether any file below `dir` has `what`.
fn has(dir: &Path, what: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            return has(&entry.path(), what);
        }
        fs::read(entry.path()).unwrap().windows(what.len()).any(|window| window == what)
    })
}

/// An event with a delivered, a dead and a pending delivery, the last tried twice.
async fn settled_three_ways(journal: &LogJournal) -> Located {
    let kept = fresh(journal.append(telling(1, &["done", "gone", "app"]), Sync::Durable).await.unwrap());
    let lanes = journal.lanes().borrow().clone();
    let verdicts = [Verdict::Delivered, Verdict::Dead(DeadReason::GaveUp), Verdict::RetryAt(T0.plus(HOUR))];
    for ((index, name), verdict) in (0u8..).zip(["done", "gone", "app"]).zip(verdicts) {
        let delivery = DeliveryId { event: kept.id, index };
        let lane = lanes.iter().find(|lane| lane.destination.as_str() == name).unwrap();
        journal.pending(lane, Position::START, 10).await.unwrap(); // its owner takes it
        for number in 1..=u32::from(index).max(1) {
            journal.start(lane, delivery, number).await.unwrap();
            let verdict = if number == u32::from(index).max(1) { verdict } else { Verdict::RetryAt(T0) };
            let settled = Settled { delivery, attempt: Some(answered(number)), verdict };
            journal.settle(lane, settled).await.unwrap();
        }
    }
    kept
}

fn counts(journal: &LogJournal) -> Vec<(String, u64, u64)> {
    let lanes = journal.stats().lanes.into_iter();
    lanes.map(|lane| (lane.destination.to_string(), lane.pending, lane.dead)).collect()
}

#[tokio::test]
async fn nothing_is_left_of_an_erased_event_and_its_claim_stays() {
    let store = Store::new();
    let other = fresh(store.append(entry(b"another", Some(9), &["app"])).await);
    let kept = settled_three_ways(&store.journal).await;
    assert!(has(store.dir.path(), CANARY), "it would be found if it were there");
    let unsettled = store.journal.stats().sources[0].unsettled_bytes;

    assert_eq!(store.journal.erase(kept).await.unwrap(), Erased { purged: 2 });
    let erased = |store: &Store| {
        assert!(!has(store.dir.path(), CANARY));
        let lanes = [("app", 1, 0), ("done", 0, 0), ("gone", 0, 0)].map(|(name, p, d)| (name.to_owned(), p, d));
        let mut counted = counts(&store.journal);
        counted.sort();
        assert_eq!(counted, lanes);
        assert!(store.journal.stats().sources[0].unsettled_bytes < unsettled);
        assert_eq!(store.journal.stats().damaged, 0);
    };
    erased(&store);
    assert_eq!(store.journal.erase(kept).await.unwrap(), Erased { purged: 0 }, "again");
    let again = store.crashed();
    erased(&again);
    for store in [&store, &again] {
        assert!(matches!(store.journal.event(kept).await, Err(JournalError::Erased)));
        assert!(matches!(store.journal.rearm(kept, None, Rearm::Replay).await, Err(JournalError::Erased)));
        let duplicate = store.append(telling(1, &["done", "gone", "app"])).await;
        assert_eq!(duplicate, Appended::Duplicate { original: kept, conflict: false });
        erased(store);
        assert_eq!(&store.journal.event(other).await.unwrap().unwrap().event.body[..], b"another");
        let changes = store.journal.changes(Position::START, 1000).await.unwrap().changes;
        assert!(changes.iter().any(|change| matches!(change, Change::Erased { event, .. } if *event == kept.id)));
        assert!(!format!("{changes:?}").contains("canary"));
    }
    let unknown = Located { id: EventId::new(T0), at: Position(u64::MAX) };
    assert!(matches!(store.journal.erase(unknown).await, Err(JournalError::Unknown)));
}

#[tokio::test]
async fn how_an_attempt_under_way_ends_is_not_kept_once_its_event_is_erased() {
    let store = Store::new();
    let kept = fresh(store.append(telling(1, &["app"])).await);
    let (delivery, lane) = (DeliveryId { event: kept.id, index: 0 }, store.lane("app"));
    store.pending("app").await;
    store.journal.start(&lane, delivery, 1).await.unwrap();
    assert_eq!(store.journal.erase(kept).await.unwrap(), Erased { purged: 1 });
    let settled = Settled { delivery, attempt: Some(answered(1)), verdict: Verdict::RetryAt(T0) };
    assert!(matches!(store.journal.settle(&lane, settled.clone()).await, Err(JournalError::Unknown)));
    assert!(matches!(store.journal.report(settled).await, Err(JournalError::Unknown)));
    assert!(matches!(store.journal.start(&lane, delivery, 2).await, Err(JournalError::Unknown)));
    assert!(!has(store.dir.path(), CANARY));
    assert_eq!(store.crashed().pending("app").await.len(), 0);
}

/// An attempt's record stays where it was written when the event is copied forward: before its event's.
#[tokio::test]
async fn an_event_that_was_copied_forward_is_erased_with_what_stands_before_it() {
    let store = Store::sized(SMALL);
    let kept = fresh(store.append(telling(1, &["app"])).await);
    let fill = async || store.append(entry(&[7; 16 << 10], None, &[])).await;
    for _ in 0..30 {
        fill().await; // some segments
    }
    store.pending("app").await;
    let (lane, delivery) = (store.lane("app"), DeliveryId { event: kept.id, index: 0 });
    store.journal.start(&lane, delivery, 1).await.unwrap();
    let settled = Settled { delivery, attempt: Some(answered(1)), verdict: Verdict::RetryAt(T0.plus(HOUR)) };
    store.journal.settle(&lane, settled).await.unwrap();
    let first = store.dir.path().join(segment::path(1));
    for number in 0.. {
        assert!(number < 10_000);
        fill().await;
        if !first.exists() {
            break;
        }
    }
    let logs =
        fs::read_dir(store.dir.path().join("log")).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let telling = logs.filter(|log| log.windows(CANARY.len()).any(|window| window == CANARY));
    assert_eq!(telling.count(), 2, "the copy's segment, and the answer's");
    assert_eq!(store.journal.erase(kept).await.unwrap(), Erased { purged: 1 });
    assert!(!has(store.dir.path(), CANARY));
    assert!(!has(store.crashed_at(SMALL).dir.path(), CANARY));
}

#[tokio::test]
async fn one_is_erased_at_a_time() {
    let store = Store::new();
    let kept = fresh(store.append(telling(1, &["app"])).await);
    let turn = Arc::clone(&store.journal.shared.turn).try_acquire_owned().unwrap();
    assert!(matches!(store.journal.erase(kept).await, Err(JournalError::Busy)));
    drop(turn);
    store.journal.erase(kept).await.unwrap();
}

/// Wherever a crash comes, the event is whole after the next opening or nothing of it is left; nothing else is ever harmed.
#[tokio::test]
async fn a_crash_at_every_step_leaves_it_whole_or_erased() {
    for encryption in [Encryption::default(), crate::journal::seal::tests::keys(&[1])] {
        crashed_at_every_step(encryption).await;
    }
}

async fn crashed_at_every_step(encryption: Encryption) {
    let (mut whole, mut erased) = (0, 0);
    for steps in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let life = Life::of(i64::MAX, Steps::Changes);
        let disk = DyingDisk { real: RealDisk::new(dir.path()), life: Arc::clone(&life) };
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(T0));
        let settings = Settings { encryption: encryption.clone(), ..settings(dir.path(), 64 << 20) };
        let journal = LogJournal::open_on(Arc::new(disk), &settings, clock, Metrics::new("test"), None).unwrap();
        let other = fresh(journal.append(entry(b"another", Some(9), &["app"]), Sync::Durable).await.unwrap());
        let kept = settled_three_ways(&journal).await;
        journal.append(entry(b"a later one", Some(10), &["app"]), Sync::Durable).await.unwrap();
        let before = counts(&journal);

        life.left.store(steps, Ordering::SeqCst);
        let outcome = journal.erase(kept).await;
        let survived = life.left.swap(0, Ordering::SeqCst) >= 0; // whatever is still asked of it fails
        drop(journal);

        let crashed = tempfile::tempdir().unwrap();
        copy(dir.path(), crashed.path());
        let again = open_sealed(crashed.path(), &Arc::new(ManualClock::at(T0)), encryption.clone()).unwrap();
        assert_eq!(again.stats().damaged, 0, "after {steps} steps");
        assert!(again.event(other).await.unwrap().is_some());
        assert!(!crashed.path().join("erasing").exists(), "after {steps} steps");
        match again.event(kept).await {
            Ok(Some(_)) => {
                whole += 1;
                assert!(outcome.is_err(), "after {steps} steps");
                assert_eq!(counts(&again), before);
            }
            Err(JournalError::Erased) => {
                erased += 1;
                assert!(!has(crashed.path(), CANARY), "after {steps} steps");
                let pending: u64 = counts(&again).iter().map(|(_, pending, _)| pending).sum();
                assert_eq!(pending, 2, "after {steps} steps");
            }
            other => panic!("after {steps} steps: {other:?}"),
        }
        if outcome.is_ok() && survived {
            break;
        }
    }
    assert!(whole >= 2 && erased >= 8, "{whole} whole, {erased} erased");
}

/// The record that says so rots, and the whole log is read: the event's own says that it was erased, too.
#[tokio::test]
async fn an_erased_event_stays_erased_although_what_says_so_is_damaged() {
    let store = Store::new();
    let erased = fresh(store.append(telling(1, &["app"])).await);
    store.journal.erase(erased).await.unwrap();
    store.append(entry(b"later", Some(2), &["app"])).await;
    let file = store.dir.path().join(segment::path(1));
    let mut bytes = fs::read(&file).unwrap();
    let mut at = segment::HEADER_BYTES as usize;
    while bytes[at + 4] != 9 {
        let length = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap());
        at += segment::record_bytes(length as usize);
    }
    bytes[at + 30] ^= 1;
    fs::write(&file, bytes).unwrap();
    let store = store.crashed();
    assert_eq!((store.journal.stats().lanes[0].pending, store.journal.stats().damaged), (1, 1));
}
