//! Room and retention: what goes, what stays, and in which order.

use super::*;

/// Fills a small journal with events of 16 KiB until it says it is full; returns those it kept.
async fn fill(store: &Store, destinations: &[&str]) -> Vec<EventId> {
    let mut kept = Vec::new();
    for _ in 0..1_000 {
        match store.journal.append(entry(&[7; 16 << 10], None, destinations), Sync::Durable).await {
            Ok(appended) => kept.push(fresh(appended).id),
            Err(AppendError::Full { .. }) => return kept,
            Err(other) => panic!("{other}"),
        }
    }
    panic!("never full");
}

#[tokio::test]
async fn full_means_refused_and_space_comes_back_as_deliveries_are_made() {
    let store = Store::sized(SMALL);
    let kept = fill(&store, &["app"]).await;
    assert!(matches!(store.journal.room(), Room::Full { .. }));
    assert!(kept.len() > 150, "{}", kept.len());
    let pending = store.pending("app").await;
    assert_eq!(pending.iter().map(|pending| pending.event.id).collect::<Vec<_>>(), kept, "nothing pending was let go");
    for delivery in &pending {
        store.settle(delivery.id, 1, Verdict::Delivered).await; // outcomes fit into what is held back for them
    }
    store.journal.trim(Retention::default()).await.unwrap();
    assert_eq!(store.journal.room(), Room::Open);
    store.append(entry(b"1", None, &["app"])).await;
    assert!(store.journal.stats().bytes <= SMALL);
}

/// An application that fails for days leaves a trail of attempts; the trail is let go of, what waits is not.
#[tokio::test]
async fn a_full_journal_does_not_grow_by_failing_attempts() {
    let store = Store::sized(SMALL);
    let kept = fill(&store, &["app"]).await;
    let pending = store.pending("app").await;
    for number in 1..=40 {
        for delivery in &pending {
            store.settle(delivery.id, number, Verdict::RetryAt(T0)).await;
        }
        store.journal.trim(Retention::default()).await.unwrap(); // as the app does every second
        let bytes = store.journal.stats().bytes;
        assert!(bytes <= SMALL, "{bytes} bytes after {number} failures of each");
    }
    assert!(matches!(store.journal.room(), Room::Full { .. }));
    for store in [&store.crashed(), &store] {
        let waits = store.pending("app").await;
        assert_eq!(
            waits.iter().map(|pending| pending.event.id).collect::<BTreeSet<_>>(),
            kept.iter().copied().collect()
        );
        assert!(waits.iter().all(|pending| pending.attempts == 40), "attempts are counted on over every move");
    }
}

#[tokio::test]
async fn history_goes_first_and_what_waits_stays_wherever_it_stands() {
    let store = Store::sized(SMALL);
    let straggler = fresh(store.append(entry(b"first of all", Some(9), &["app"])).await);
    for _ in 0..1_000 {
        store.append(entry(&[7; 16 << 10], None, &[])).await; // captured: history from the start
    }
    let stats = store.journal.stats();
    assert!(stats.bytes <= SMALL && stats.evicted > 500, "{stats:?}");
    for store in [&store.crashed(), &store] {
        let pending = store.pending("app").await;
        assert_eq!(pending.len(), 1);
        assert_eq!(pending[0].event.id, straggler.id);
        assert_ne!(pending[0].event.at, straggler.at, "its record was copied forward");
        let read = store.journal.event(pending[0].event).await.unwrap().unwrap();
        assert_eq!(read.event.body.as_ref(), b"first of all");
        assert!(store.journal.event(straggler).await.unwrap().is_some(), "whoever knows the old place finds it too");
        let again = store.append(entry(b"first of all", Some(9), &["app"])).await;
        assert!(matches!(again, Appended::Duplicate { original, .. } if original.id == straggler.id));
    }
}

#[tokio::test]
async fn a_claim_outlives_its_event() {
    let store = Store::sized(SMALL);
    let gone = fresh(store.append(entry(b"captured", Some(5), &[])).await);
    for _ in 0..1_000 {
        store.append(entry(&[7; 16 << 10], None, &[])).await;
    }
    assert!(store.journal.event(gone).await.unwrap().is_none());
    for store in [&store.crashed(), &store] {
        let again = store.append(entry(b"captured", Some(5), &[])).await;
        assert!(matches!(again, Appended::Duplicate { original, .. } if original.id == gone.id));
    }
}

#[tokio::test]
async fn retention_lets_go_of_what_is_settled_and_never_of_what_waits() {
    let store = Store::sized(SMALL);
    let mut events = Vec::new();
    for number in 0..3u8 {
        events.push(fresh(store.append(entry(&[number; 100], None, &["app"])).await));
    }
    let ids: Vec<_> = store.pending("app").await.iter().map(|pending| pending.id).collect();
    store.settle(ids[0], 1, Verdict::Delivered).await;
    store.settle(ids[1], 1, Verdict::Dead(DeadReason::GaveUp)).await;
    let keep = Retention { delivered: HOUR, dead: HOUR * 3 };
    let kept = |number: usize| store.journal.event(events[number]);

    store.clock.set(T0.plus(HOUR * 2));
    store.journal.trim(keep).await.unwrap();
    assert!(kept(0).await.unwrap().is_none(), "delivered, and past its hour");
    assert_eq!(store.journal.stats().lanes[0].dead, 1);
    store.clock.set(T0.plus(HOUR * 24 * 3650));
    store.journal.trim(keep).await.unwrap();
    store.journal.trim(keep).await.unwrap();
    assert_eq!(store.journal.stats().lanes[0].dead, 0);
    assert_eq!(store.pending("app").await.len(), 1);
    assert_eq!(store.crashed().pending("app").await[0].id, ids[2]);
}

/// The process dies after a straggler was copied forward and before its old segment was removed.
#[tokio::test]
async fn a_crash_between_copying_and_removing_changes_nothing() {
    let store = Store::sized(SMALL);
    let straggler = fresh(store.append(entry(b"waits", Some(1), &["app"])).await);
    let old = segment::path(segment::split(straggler.at).0);
    for _ in 0..20 {
        store.append(entry(&[7; 16 << 10], None, &[])).await;
    }
    let before = fs::read(store.dir.path().join(&old)).unwrap(); // closed by now, and as it will be removed
    for _ in 0..500 {
        store.append(entry(&[7; 16 << 10], None, &[])).await;
    }
    assert!(!store.dir.path().join(&old).exists(), "it was let go of");
    fs::write(store.dir.path().join(&old), before).unwrap();
    let store = store.crashed();
    assert_eq!(store.journal.stats().lanes[0].pending, 1, "one delivery, not two");
    let pending = store.pending("app").await;
    assert_eq!((pending.len(), pending[0].event.id), (1, straggler.id));
    assert!(!store.dir.path().join(&old).exists(), "the removal is made good");
}

#[tokio::test]
async fn a_replay_starts_the_age_of_a_delivery_anew() {
    let store = Store::new();
    let kept = fresh(store.append(entry(b"x", None, &["app"])).await);
    let id = store.pending("app").await[0].id;
    store.settle(id, 1, Verdict::Dead(DeadReason::TooOld)).await;
    store.clock.set(T0.plus(HOUR * 100));
    store.journal.rearm(kept, None, Rearm::Replay).await.unwrap();
    for store in [&store.crashed(), &store] {
        assert_eq!(store.pending("app").await[0].since, T0.plus(HOUR * 100));
    }
}

#[tokio::test]
async fn a_duplicate_finds_a_dead_delivery_also_after_its_event_has_moved() {
    let store = Store::sized(SMALL);
    let first = fresh(store.append(entry(b"x", Some(9), &["app"])).await);
    let id = store.pending("app").await[0].id;
    store.settle(id, 1, Verdict::Dead(DeadReason::GaveUp)).await;
    for _ in 0..500 {
        store.append(entry(&[7; 16 << 10], None, &[])).await;
    }
    let again = store.append(entry(b"x", Some(9), &["app"])).await;
    assert!(
        matches!(again, Appended::Duplicate { original, .. } if original.id == first.id && original.at != first.at)
    );
    assert_eq!(store.pending("app").await[0].id, id);
}

/// Outcomes that stand in a segment without events make no history old.
#[tokio::test]
async fn history_stays_over_restarts_as_long_as_it_is_to() {
    let mut store = Store::new();
    let kept = fresh(store.append(entry(b"x", None, &["app"])).await);
    store = store.crashed();
    let id = store.pending("app").await[0].id;
    store.settle(id, 1, Verdict::Delivered).await;
    for _ in 0..3 {
        store = store.crashed();
        store.journal.trim(Retention::default()).await.unwrap();
        assert!(store.journal.event(kept).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn dead_letters_end_with_their_retention_while_others_keep_dying() {
    let store = Store::sized(SMALL);
    let day = HOUR * 24;
    let keep = Retention { delivered: day, dead: day * 3 };
    for today in 0..30u32 {
        store.clock.set(T0.plus(day * today));
        for destinations in [&["app"][..], &[]] {
            let mut event = event(b"x");
            (event.id, event.received_at) = (EventId::new(store.clock.now()), store.clock.now());
            let to = |name: &&str| NewDelivery { destination: Name::new(name).unwrap(), path: None };
            let deliveries = destinations.iter().map(to).collect();
            let event = VerifiedEvent::assumed(event);
            store.append(Entry { event, deliveries, ..entry(b"", None, &[]) }).await;
        }
        for pending in store.pending("app").await {
            store.settle(pending.id, 1, Verdict::Dead(DeadReason::GaveUp)).await;
        }
        for _ in 0..4 {
            store.journal.trim(keep).await.unwrap();
        }
        let dead = store.journal.stats().lanes[0].dead;
        assert!((u64::from(today).min(3)..=8).contains(&dead), "{dead} dead letters on day {today}");
    }
}

#[tokio::test]
async fn damaged_claims_are_read_again_from_the_log() {
    let store = Store::new();
    for key in 0..100 {
        store.append(entry(b"x", Some(key), &["app"])).await;
    }
    store.journal.close().await;
    let dir = tempfile::tempdir().unwrap();
    copy(store.dir.path(), dir.path());
    let reopened = |dir: &Path| open(dir, &store.clock, 64 << 20);
    let seal = |dir: &Path| {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir));
        let recovered = open::recover(&disk, Meta::open(&*disk).unwrap().store, T0, &Workplace::default()).unwrap();
        let Recovered { mut claims, next_segment, .. } = recovered;
        claims.seal(segment::position(next_segment, segment::HEADER_BYTES), T0).unwrap();
    };
    seal(dir.path());
    let run = dir.path().join("claims/00000001-00000001.clm");
    let mut bytes = fs::read(&run).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&run, bytes).unwrap();
    for _ in 0..2 {
        let journal = reopened(dir.path()); // the second opening finds it mended
        for key in 0..100 {
            let again = journal.append(entry(b"x", Some(key), &["app"]), Sync::Durable).await.unwrap();
            assert!(matches!(again, Appended::Duplicate { .. }), "{key}");
        }
        journal.close().await;
        drop(journal);
    }
    assert!(!run.exists(), "its space is free again");
}

#[tokio::test]
async fn a_run_of_claims_that_is_missing_is_said_to_be_and_its_claims_are_read_again() {
    let store = Store::new();
    for round in 0..6 {
        let appends = (round * 300..(round + 1) * 300).map(|number| store.append(numbered(number)));
        futures_util::future::join_all(appends).await;
    }
    store.journal.close().await;
    let dir = tempfile::tempdir().unwrap();
    copy(store.dir.path(), dir.path());
    fs::remove_file(dir.path().join("claims/00000001-00000001.clm")).unwrap();
    for damaged in [1, 0] {
        let journal = open(dir.path(), &store.clock, 64 << 20);
        assert_eq!(journal.stats().damaged, damaged);
        let appends = (0..1_800).map(|number| journal.append(numbered(number), Sync::Durable));
        let again = futures_util::future::join_all(appends).await;
        assert!(again.iter().all(|outcome| matches!(outcome, Ok(Appended::Duplicate { .. }))));
        journal.close().await;
    }
}

#[tokio::test]
async fn a_segment_that_is_missing_is_said_to_be() {
    let store = Store::sized(SMALL);
    for _ in 0..40 {
        store.append(entry(&[7; 16 << 10], None, &["app"])).await;
    }
    store.journal.close().await;
    let dir = tempfile::tempdir().unwrap();
    copy(store.dir.path(), dir.path());
    assert_eq!(open(dir.path(), &store.clock, SMALL).stats().damaged, 0);
    let dir = tempfile::tempdir().unwrap();
    copy(store.dir.path(), dir.path());
    fs::remove_file(dir.path().join(segment::path(3))).unwrap();
    assert_eq!(open(dir.path(), &store.clock, SMALL).stats().damaged, 1);
    fs::write(dir.path().join("log/ffffffff.log"), "").unwrap();
    let clock: Arc<dyn Clock> = store.clock.clone();
    let opened = LogJournal::open(&settings(dir.path(), SMALL), clock, Metrics::new("test"));
    assert!(matches!(opened, Err(OpenError::Locked { .. } | OpenError::Foreign { .. })));
}

#[tokio::test]
async fn an_event_that_could_never_fit_is_refused_for_good() {
    let store = Store::sized(SMALL);
    let huge = vec![0; SMALL as usize / 4 + 1];
    let refused = store.journal.append(entry(&huge, None, &["app"]), Sync::Durable).await;
    assert!(matches!(refused, Err(AppendError::TooLarge { .. })));
    assert_eq!(store.journal.room(), Room::Open);
}
