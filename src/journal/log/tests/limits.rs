//! P57: counters and numbers near where they end, each begun ten before that.

use super::*;
use crate::journal::log::claims::Held;

/// An entry has room for so many attempts.
const ATTEMPTS_SAID: u32 = 0x7FFF;

async fn given_up(store: &Store, id: DeliveryId, number: u32) {
    store.settle(id, number, Verdict::Dead(DeadReason::GaveUp)).await;
}

#[tokio::test]
async fn attempts_beyond_what_an_entry_can_say_are_not_numbered_again() {
    let store = Store::sized(SMALL);
    let kept = fresh(store.append(entry(b"x", Some(1), &["app"])).await);
    let id = store.pending("app").await[0].id;
    let mut number = ATTEMPTS_SAID - 10;
    given_up(&store, id, number).await;
    // Replayed and given up, one attempt each time, in this process.
    while number < ATTEMPTS_SAID + 10 {
        store.journal.rearm(kept, None, Rearm::Replay).await.unwrap();
        let pending = store.pending("app").await;
        assert_eq!((pending[0].attempts, pending[0].attempts_before), (number, number));
        number += 1;
        given_up(&store, id, number).await;
    }
    let counts_on = async |store: &Store, kept: Located, last: u32| {
        store.journal.rearm(kept, None, Rearm::Replay).await.unwrap();
        assert_eq!(store.pending("app").await[0].attempts, last);
        given_up(store, id, last + 1).await;
    };
    counts_on(&store.crashed_at(SMALL), kept, number).await; // read back from the log

    store.journal.close().await; // and from a checkpoint
    assert!(store.dir.path().join("checkpoint").exists());
    let store = store.crashed_at(SMALL);
    counts_on(&store, kept, number).await;

    // Its event is copied forward, dead as it is.
    let first = store.dir.path().join(segment::path(1));
    for filled in 0.. {
        assert!(filled < 10_000);
        store.append(entry(&[7; 16 << 10], None, &[])).await;
        if !first.exists() {
            break;
        }
    }
    let moved = {
        let state = store.journal.state();
        let dead = |segment: &Segment| (segment.dead > 0).then(|| segment.tried_more.clone());
        state.segments.values().find_map(|segment| dead(segment)).unwrap()
    };
    assert_eq!(moved.into_values().collect::<Vec<_>>(), [number + 1]);
    let copy = store.crashed_at(SMALL);
    assert!(matches!(copy.append(entry(b"x", Some(1), &["app"])).await, Appended::Duplicate { .. }), "which rearms it");
    assert_eq!(copy.pending("app").await[0].attempts, number + 1);
}

/// A store whose next segment has this number.
fn store_at(number: u32) -> Store {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(T0));
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir.path()));
    let meta = Meta::open(&*disk).unwrap();
    let mut claims = open::recover(&disk, meta.store, T0, &Workplace::default()).unwrap().claims;
    let claim = StoredClaim { hash: [9; 16], until: T0.plus(HOUR), fingerprint: 0, rearms: false };
    claims.give(claim.hash, Held::new(&claim, EventId::new(T0), segment::position(number, 64), 0, 0));
    claims.seal(segment::position(number, segment::HEADER_BYTES), T0).unwrap();
    drop(claims);
    let journal = open(dir.path(), &clock, SMALL);
    Store { dir, clock, journal }
}

#[tokio::test]
async fn the_log_ends_with_words_where_the_numbers_of_segments_do_and_loses_nothing() {
    let (last, mut store) = (open::NUMBER_MAX - 1, store_at(open::NUMBER_MAX - 10));
    assert!(store.dir.path().join(segment::path(last - 9)).exists());
    let mut acknowledged = Vec::new();
    let ended = loop {
        let body = vec![u8::try_from(acknowledged.len() % 251).unwrap(); 16 << 10];
        match store.journal.append(entry(&body, None, &["app"]), Sync::Durable).await {
            Ok(appended) => acknowledged.push((fresh(appended), body)),
            Err(error) => break error,
        }
        if acknowledged.len() == 20 {
            store = store.crashed_at(SMALL); // near the end it opens as anywhere
        }
        assert!(acknowledged.len() < 10_000);
    };
    assert!(ended.to_string().contains("no more numbers"), "{ended}");
    assert!(matches!(store.journal.room(), Room::Failed(_)));
    for (kept, body) in &acknowledged {
        assert_eq!(store.journal.event(*kept).await.unwrap().unwrap().event.body, body);
    }
    assert!(store.dir.path().join(segment::path(last)).exists());
    assert!(!store.dir.path().join(segment::path(last + 1)).exists());
    // There is room for what waits to be delivered.
    let store = store.crashed_at(SMALL);
    let waits = store.pending("app").await;
    assert_eq!(waits.len(), acknowledged.len());
    store.settle(waits[0].id, 1, Verdict::Delivered).await;
    assert_eq!(store.crashed_at(SMALL).pending("app").await.len(), acknowledged.len() - 1);
}

/// A file that somebody put there under a number far ahead is no reason to go through all the numbers before it.
#[tokio::test]
async fn a_gap_in_the_numbers_is_counted_and_not_gone_through() {
    let store = Store::new();
    store.append(entry(b"x", None, &["app"])).await;
    store.journal.close().await;
    let log = store.dir.path().join(segment::DIR);
    fs::write(log.join("d0000000.log"), [0; 100]).unwrap();
    let again = store.crashed().journal;
    assert!(again.stats().damaged >= 0xD000_0000 - 2);
}
