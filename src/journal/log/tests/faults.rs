//! A disk that fails, fills up, or hangs.

use std::sync::atomic::Ordering;

use super::*;
use crate::journal::disk::failing::{FailingDisk, Faults};

pub(super) fn on_failing_disk(max_size: u64) -> (TempDir, Arc<Faults>, Arc<ManualClock>, LogJournal) {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let disk = FailingDisk { faults: Arc::clone(&faults), real: RealDisk::new(dir.path()) };
    let clock = Arc::new(ManualClock::at(T0));
    let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
    let journal =
        LogJournal::open_on(Arc::new(disk), &settings(dir.path(), max_size), shared, Metrics::new("test"), None)
            .unwrap();
    (dir, faults, clock, journal)
}

#[tokio::test]
async fn nobody_hears_of_an_append_before_the_flush_is_over() {
    let (_dir, faults, _clock, journal) = on_failing_disk(64 << 20);
    faults.hold_syncs();
    let tasks = tokio::runtime::Handle::current();
    let appends = (0..2).map(|_| {
        let journal = journal.clone();
        tasks.spawn(async move { journal.append(entry(b"x", Some(1), &["app"]), Sync::Durable).await.unwrap() })
    });
    let appends: Vec<_> = appends.collect();
    let held = Arc::clone(&faults);
    tokio::task::spawn_blocking(move || held.until_one_is_held()).await.unwrap();
    tokio::task::yield_now().await;
    assert!(appends.iter().all(|append| !append.is_finished()), "neither the fresh one nor its duplicate");
    assert!(journal.lanes().borrow().is_empty(), "nor a lane's owner");
    faults.release_syncs();
    let outcomes = futures_util::future::join_all(appends).await;
    let fresh = outcomes.iter().filter(|outcome| matches!(outcome.as_ref().unwrap(), Appended::Fresh(_)));
    assert_eq!(fresh.count(), 1);
}

#[tokio::test]
async fn a_failed_flush_acknowledges_nothing_until_the_journal_is_reopened() {
    let (dir, faults, clock, journal) = on_failing_disk(64 << 20);
    let kept = fresh(journal.append(entry(b"1", Some(1), &["app"]), Sync::Durable).await.unwrap());
    faults.sync.store(true, Ordering::SeqCst);
    assert!(matches!(journal.append(entry(b"2", Some(2), &["app"]), Sync::Durable).await, Err(AppendError::Failed(_))));
    assert!(matches!(journal.room(), Room::Failed(_)));
    faults.sync.store(false, Ordering::SeqCst); // the disk claims to be well again; that proves nothing
    assert!(matches!(journal.append(entry(b"3", Some(3), &["app"]), Sync::Durable).await, Err(AppendError::Failed(_))));
    journal.trim(Retention::default()).await.unwrap_err();
    assert!(matches!(journal.room(), Room::Failed(_)));
    journal.close().await;

    let reopened = open(dir.path(), &clock, 64 << 20);
    assert_eq!(reopened.room(), Room::Open);
    assert!(reopened.event(kept).await.unwrap().is_some());
    assert!(matches!(
        reopened.append(entry(b"3", Some(3), &["app"]), Sync::Durable).await.unwrap(),
        Appended::Fresh(_)
    ));
}

#[tokio::test]
async fn a_full_disk_refuses_leaves_nothing_half_written_and_recovers_by_itself() {
    let (dir, faults, clock, journal) = on_failing_disk(64 << 20);
    journal.append(entry(b"1", Some(1), &["app"]), Sync::Durable).await.unwrap();
    faults.full_after.store(faults.written.load(Ordering::SeqCst) + 10, Ordering::SeqCst);
    assert!(matches!(
        journal.append(entry(b"2", Some(2), &["app"]), Sync::Durable).await,
        Err(AppendError::Full { .. })
    ));
    assert!(matches!(journal.room(), Room::Full { .. }));
    faults.full_after.store(0, Ordering::SeqCst);
    journal.trim(Retention::default()).await.unwrap(); // as the app does every second
    assert_eq!(journal.room(), Room::Open);
    let again = journal.append(entry(b"2", Some(2), &["app"]), Sync::Durable).await.unwrap();
    assert!(matches!(again, Appended::Fresh(_)), "the refused one claimed nothing");
    journal.close().await;

    let reopened = open(dir.path(), &clock, 64 << 20);
    assert_eq!((reopened.stats().damaged, reopened.stats().lanes[0].pending), (0, 2));
}

/// The disk fills up while what waits is copied forward: the old segment must stay.
#[tokio::test]
async fn a_copy_that_does_not_fit_costs_nothing() {
    let (dir, faults, clock, journal) = on_failing_disk(SMALL);
    let waits = fresh(journal.append(entry(&[1; 60 << 10], Some(9), &["app"]), Sync::Durable).await.unwrap());
    for _ in 0..9 {
        journal.append(entry(&[7; 16 << 10], None, &[]), Sync::Durable).await.unwrap();
    }
    clock.set(T0.plus(HOUR * 24 * 8)); // history is past its retention; there is room for small records only
    faults.full_after.store(faults.written.load(Ordering::SeqCst) + 4096, Ordering::SeqCst);
    assert!(matches!(journal.trim(Retention::default()).await, Err(JournalError::Full)));
    assert!(journal.event(waits).await.unwrap().is_some());
    faults.full_after.store(0, Ordering::SeqCst);
    journal.trim(Retention::default()).await.unwrap();
    assert_eq!(journal.stats().lanes[0].pending, 1);
    journal.close().await;
    let reopened = open(dir.path(), &clock, SMALL);
    let lane = reopened.lanes().borrow()[0].clone();
    let pending = reopened.pending(&lane, Position::START, 10).await.unwrap().deliveries;
    assert_eq!((pending.len(), pending[0].event.id), (1, waits.id));
    assert!(reopened.event(pending[0].event).await.unwrap().is_some());
}

#[tokio::test]
async fn a_segment_that_could_not_be_begun_is_not_in_the_way() {
    let (_dir, faults, clock, journal) = on_failing_disk(SMALL);
    journal.append(entry(&[1; 1000], Some(9), &["app"]), Sync::Durable).await.unwrap();
    clock.set(T0.plus(HOUR * 24)); // time for a new segment
    faults.full_after.store(faults.written.load(Ordering::SeqCst) + 10, Ordering::SeqCst);
    assert!(matches!(journal.trim(Retention::default()).await, Err(JournalError::Full)));
    faults.full_after.store(0, Ordering::SeqCst);
    journal.trim(Retention::default()).await.unwrap();
    assert_eq!(journal.room(), Room::Open);
}

/// The original fills its segment, so that noting the duplicate begins another one: in between, the original's
/// batch is written, and is not.
#[tokio::test]
async fn a_duplicate_of_what_could_not_be_written_is_not_acknowledged() {
    let (_dir, faults, _clock, journal) = on_failing_disk(SMALL);
    let full_segment = vec![1; (128 << 10) - 72];
    faults.hold_syncs();
    let runtime = tokio::runtime::Handle::current();
    let append = |body: Vec<u8>, key| {
        let journal = journal.clone();
        runtime.spawn(async move { journal.append(entry(&body, Some(key), &["app"]), Sync::Durable).await })
    };
    let first = append(b"holds the writer up".to_vec(), 1);
    let held = Arc::clone(&faults);
    tokio::task::spawn_blocking(move || held.until_one_is_held()).await.unwrap();
    let both = [append(full_segment.clone(), 2), append(full_segment, 2)]; // one batch, once the writer is free
    while journal.shared.writer.capacity() > QUEUE - 2 {
        tokio::task::yield_now().await;
    }
    faults.full_after.store(faults.written.load(Ordering::SeqCst) + 4096, Ordering::SeqCst);
    faults.release_syncs();
    first.await.unwrap().unwrap();
    for outcome in futures_util::future::join_all(both).await {
        let outcome = outcome.unwrap();
        assert!(matches!(outcome, Err(AppendError::Full { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_dead_letter_counts_once_it_is_durable_and_an_outcome_soon_after() {
    let (_dir, faults, _clock, journal) = on_failing_disk(64 << 20);
    for body in [b"1", b"2"] {
        journal.append(entry(body, None, &["app"]), Sync::Durable).await.unwrap();
    }
    let lane = journal.lanes().borrow()[0].clone();
    let ids: Vec<_> =
        journal.pending(&lane, Position::START, 10).await.unwrap().deliveries.iter().map(|p| p.id).collect();
    faults.hold_syncs();
    let outcome = |delivery, verdict| Settled { delivery, attempt: None, verdict };
    journal.settle(&lane, outcome(ids[0], Verdict::Delivered)).await.unwrap(); // written, and that is enough
    let held = Arc::clone(&faults);
    tokio::task::spawn_blocking(move || held.until_one_is_held()).await.unwrap(); // and flushed by itself
    assert_ne!(journal.shared.gauges.busy_since.load(Ordering::Relaxed), 0, "were it to hang, that would be seen");
    let (clone, lane) = (journal.clone(), lane.clone());
    let dead = outcome(ids[1], Verdict::Dead(DeadReason::GaveUp));
    let dies = tokio::runtime::Handle::current().spawn(async move { clone.settle(&lane, dead).await });
    tokio::task::yield_now().await;
    assert!(!dies.is_finished() && journal.stats().lanes[0].dead == 0);
    faults.release_syncs();
    dies.await.unwrap().unwrap();
    assert_eq!(journal.stats().lanes[0].dead, 1);
}

/// Small records make much of a segment its frame, which is worth going through, and comes back with each copy.
#[tokio::test]
async fn a_short_disk_with_nothing_to_let_go_of_is_given_up_on() {
    let (_dir, faults, _clock, journal) = on_failing_disk(64 << 20);
    journal.append(entry(b"waits", None, &["app"]), Sync::Durable).await.unwrap();
    faults.no_space.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        journal.trim(Retention::default()).await.unwrap();
        assert!(matches!(journal.room(), Room::Full { .. }));
    }
    assert_eq!((journal.stats().lanes[0].pending, journal.stats().evicted), (1, 0));
}

/// All there is stands in the segment that is written to, and none of it was to be delivered.
#[tokio::test]
async fn a_short_disk_lets_go_of_the_only_segment_too() {
    let (_dir, faults, _clock, journal) = on_failing_disk(64 << 20);
    journal.append(entry(&[7; 16 << 10], None, &[]), Sync::Durable).await.unwrap();
    faults.no_space.store(true, Ordering::SeqCst);
    journal.trim(Retention::default()).await.unwrap();
    assert_eq!(journal.stats().evicted, 1);
}

#[tokio::test]
async fn a_short_disk_lets_go_of_history_and_then_refuses() {
    let (_dir, faults, _clock, journal) = on_failing_disk(64 << 20);
    for _ in 0..200 {
        journal.append(entry(&[7; 16 << 10], None, &[]), Sync::Durable).await.unwrap();
    }
    faults.no_space.store(true, Ordering::SeqCst);
    journal.trim(Retention::default()).await.unwrap();
    assert!(journal.stats().evicted >= 100, "history went first: {:?}", journal.stats());
    assert!(matches!(journal.room(), Room::Full { .. }));
    faults.no_space.store(false, Ordering::SeqCst);
    journal.trim(Retention::default()).await.unwrap();
    assert_eq!(journal.room(), Room::Open);
}

/// Claims are sealed and merged behind all of this, many times.
#[tokio::test]
async fn many_claims_are_kept_apart_over_crashes_and_sealing() {
    let mut store = Store::new();
    for round in 0..6 {
        let appends = (round * 1_000..(round + 1) * 1_000).map(|number| store.append(numbered(number)));
        let outcomes = futures_util::future::join_all(appends).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Appended::Fresh(_))));
        store.journal.close().await; // a copy of a directory that changes is no crash
        store = store.crashed();
    }
    let files = fs::read_dir(store.dir.path().join("claims")).unwrap().count();
    assert!((1..20).contains(&files), "sealed, and merged: {files}");
    let again = futures_util::future::join_all((0..6_000).map(|number| store.append(numbered(number)))).await;
    assert!(again.iter().all(|outcome| matches!(outcome, Appended::Duplicate { conflict: false, .. })));
}

/// The disk fills up as identical requests are written: none of them is acknowledged, none holds the key, and once
/// there is space one of the senders' retries is the event.
#[tokio::test]
async fn if_the_first_of_several_fails_another_is_the_event() {
    let (_dir, faults, _clock, journal) = on_failing_disk(64 << 20);
    let appends = || (0..8).map(|_| journal.append(entry(b"x", Some(1), &["app"]), Sync::Durable));
    faults.full_after.store(faults.written.load(Ordering::SeqCst) + 10, Ordering::SeqCst);
    let outcomes = futures_util::future::join_all(appends()).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(AppendError::Full { .. }))), "{outcomes:?}");
    faults.full_after.store(0, Ordering::SeqCst);
    let outcomes = futures_util::future::join_all(appends()).await;
    let fresh = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Appended::Fresh(_)))).count();
    let duplicates = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Appended::Duplicate { .. }))).count();
    assert_eq!((fresh, duplicates, journal.stats().lanes[0].pending), (1, 7, 1));
}

/// A claim without its event would make a duplicate of the sender's next try, with nothing to deliver; a checkpoint would know of
/// deliveries that never were. So the log is flushed first: where claims are sealed because there are many, where they are because a
/// segment goes, and before each checkpoint.
#[tokio::test]
async fn no_claim_and_no_checkpoint_is_on_disk_before_its_events() {
    let (dir, faults, _clock, journal) = on_failing_disk(64 << 20);
    let behind = |entry| journal.append(entry, Sync::Behind);
    faults.hold_syncs();
    let appending = {
        let journal = journal.clone();
        let appends = async move {
            let all = (0..300).map(|number| journal.append(numbered(number), Sync::Behind));
            drop(futures_util::future::join_all(all).await);
        };
        tokio::runtime::Handle::current().spawn(appends)
    };
    let held = Arc::clone(&faults);
    tokio::task::spawn_blocking(move || held.until_one_is_held()).await.unwrap();
    let runs = || fs::read_dir(dir.path().join("claims")).unwrap().flatten().map(|file| file.file_name());
    assert!(runs().all(|name| name == "runs"), "the log's flush is what is held up");
    faults.release_syncs();
    appending.await.unwrap();
    behind(numbered(300)).await.unwrap();

    let (_dir, faults, _clock, journal) = on_failing_disk(SMALL);
    let behind = |entry| journal.append(entry, Sync::Behind);
    for number in 0..200 {
        let (claim, body) = (numbered(number).claim, [7; 32 << 10]);
        behind(Entry { claim, ..entry(&body, None, &[]) }).await.unwrap();
    }
    assert!(journal.stats().evicted > 0, "segments have gone");
    assert!(faults.derived.load(Ordering::SeqCst) > 5, "claims were sealed, and checkpoints written");
    assert_eq!(faults.ahead.load(Ordering::SeqCst), 0);
}

/// The flush of what was copied forward fails: a power cut may now take the copies and leave what was written after them.
#[tokio::test]
async fn nothing_says_that_a_segment_has_gone_before_its_copies_are_durable() {
    let append = async |journal: &LogJournal, body: &[u8], to: &[&str]| {
        journal.append(entry(body, None, to), Sync::Durable).await
    };
    let fill = async |journal: &LogJournal, most: usize| {
        append(journal, b"waits", &["app"]).await.unwrap();
        for number in 0..most {
            if journal.stats().evicted > 0 {
                return number;
            }
            append(journal, &[7; 16 << 10], &[]).await.unwrap();
        }
        most
    };
    let (_dir, _faults, _clock, journal) = on_failing_disk(SMALL);
    let count = fill(&journal, 1_000).await;
    let (dir, faults, _clock, journal) = on_failing_disk(SMALL);
    fill(&journal, count - 1).await;
    faults.sync.store(true, Ordering::SeqCst);
    faults.refuse("truncate", 5); // EIO: what was written stays
    assert!(matches!(append(&journal, &[7; 16 << 10], &[]).await, Err(AppendError::Failed(_))));

    let (disk, mut copies) = (RealDisk::new(dir.path()), 0);
    for (name, bytes) in disk.list(segment::DIR).unwrap() {
        let number = segment::number_of(&name).unwrap();
        let key = SegmentKey { store: journal.identity(), number };
        let file = disk.open(&segment::path(number)).unwrap();
        let mut scan = segment::Scan::new(file, key, 0, u32::try_from(bytes).unwrap(), 1 << 20);
        while let Some(found) = scan.next().unwrap() {
            let segment::Found::Record(raw) = found else { panic!("{found:?}") };
            match record::Record::decode(&raw, &Keyring::default()).unwrap() {
                record::Record::Event(event) => copies += u32::from(event.moved_from.is_some()),
                record::Record::Trimmed { segment } => panic!("segment {segment} is said to be gone"),
                _ => {}
            }
        }
    }
    assert_eq!(copies, 1, "it was copied, and the flush of that failed");
}
