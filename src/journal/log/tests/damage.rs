//! Damage that is found by whoever reads: what it costs, who is told, and what is known of it afterwards.

use std::sync::atomic::Ordering;

use super::*;
use crate::journal::disk::failing::FailingDisk;

/// A backlog that no ring holds: whoever asks for it from the start reads the log.
const BACKLOG: u32 = 700;

impl Store {
    /// Flips a bit of the record at `at`, so many bytes after its start.
    fn flip(&self, at: Position, after: usize) {
        let (number, offset) = segment::split(at);
        let file = self.dir.path().join(segment::path(number));
        let mut bytes = fs::read(&file).unwrap();
        bytes[offset as usize + after] ^= 1;
        fs::write(&file, bytes).unwrap();
    }

    async fn backlog(destinations: &[&str]) -> (Self, Vec<Located>) {
        let store = Self::new();
        let mut events = Vec::new();
        for number in 0..BACKLOG {
            events.push(fresh(store.append(entry(&number.to_le_bytes(), None, destinations)).await));
        }
        (store, events)
    }

    /// What `destination` has pending, in the order in which its owner gets it who goes through everything once.
    async fn walked(&self, destination: &str) -> Vec<EventId> {
        let (lane, mut found, mut after) = (self.lane(destination), Vec::new(), Position::START);
        while after < self.journal.tail() {
            let lane = lane.clone(); // from the log, since a ring would wait for more at its end
            let batch = self.journal.read(move |reader| reader.pending(&lane, after, 100)).await.unwrap();
            after = batch.next;
            found.extend(batch.deliveries.iter().map(|pending| pending.event.id));
        }
        found
    }

    /// Pending and dead deliveries of `destination`.
    fn counts(&self, destination: &str) -> (u64, u64) {
        let lanes = self.journal.stats().lanes;
        let lane = lanes.iter().find(|lane| lane.destination.as_str() == destination);
        lane.map_or((0, 0), |lane| (lane.pending, lane.dead))
    }

    /// What the change stream tells of what is lost.
    async fn told_lost(&self) -> Vec<(Position, Position, Position)> {
        let (mut after, mut told) = (Position::START, Vec::new());
        while after < self.journal.tail() {
            let changes = self.journal.changes(after, 1_000).await.unwrap();
            after = changes.next;
            told.extend(changes.changes.into_iter().filter_map(|change| match change {
                Change::Lost { from, before, at } => Some((from, before, at)),
                _ => None,
            }));
        }
        told
    }

    fn aside(&self) -> Vec<Vec<u8>> {
        let files = fs::read_dir(self.dir.path().join("corrupt")).into_iter().flatten();
        files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
    }
}

/// P12: a record's payload, its header, and the marker that headers are found by.
#[tokio::test]
async fn a_lane_that_comes_upon_damage_goes_on_behind_it() {
    for after in [100, 9, 1] {
        let (store, events) = Store::backlog(&["app", "audit"]).await;
        store.flip(events[20].at, after);
        let got = store.walked("app").await;
        let others = events.iter().filter(|event| event.id != events[20].id).map(|event| event.id);
        assert_eq!(got, others.collect::<Vec<_>>(), "everything else, in its order");
        let rest = u64::from(BACKLOG) - 1;
        for store in [&store.crashed(), &store] {
            assert_eq!((store.counts("app"), store.counts("audit")), ((rest, 1), (rest, 1)));
            assert_eq!(store.journal.stats().damaged, 1, "told once");
            assert!(matches!(store.journal.event(events[20]).await, Err(JournalError::Damaged)));
            let replay = store.journal.rearm(events[20], None, Rearm::Replay).await;
            assert!(matches!(replay, Err(JournalError::Damaged)));
            assert_eq!(store.walked("audit").await.len() as u64, rest);
            let told = store.told_lost().await;
            assert!(
                matches!(told[..], [(from, before, at)] if from == events[20].at && before == events[21].at && at > before)
            );
            let at = Located { id: events[20].id, at: told[0].2 };
            assert!(matches!(store.journal.event(at).await, Err(JournalError::Damaged)), "where the index has it now");
        }
        assert_eq!(store.aside().len(), 1);
        let (_, offset) = segment::split(events[20].at);
        let (_, end) = segment::split(events[21].at);
        let log = fs::read(store.dir.path().join(segment::path(1))).unwrap();
        assert_eq!(store.aside()[0], log[offset as usize..end as usize]);
    }
}

/// Whoever asks for one event, and the index, come upon it as well.
#[tokio::test]
async fn every_reader_tells_of_damage() {
    let (store, events) = Store::backlog(&["app"]).await;
    store.flip(events[3].at, 60);
    assert!(matches!(store.journal.event(events[3]).await, Err(JournalError::Damaged)));
    assert_eq!((store.counts("app"), store.journal.stats().damaged), ((u64::from(BACKLOG) - 1, 1), 1));
    store.flip(events[5].at, 60);
    assert_eq!(store.told_lost().await.len(), 2);
    assert_eq!((store.counts("app"), store.journal.stats().damaged), ((u64::from(BACKLOG) - 2, 2), 2));
}

/// What was delivered is delivered, whatever becomes of its record; what was captured was never to be delivered.
#[tokio::test]
async fn damage_to_history_makes_no_dead_letters() {
    let store = Store::new();
    let mut events = Vec::new();
    for to in [&["app"][..], &[], &["app"]] {
        events.push(fresh(store.append(entry(b"x", None, to)).await));
    }
    let ids: Vec<_> = store.pending("app").await.iter().map(|pending| pending.id).collect();
    store.settle(ids[0], 1, Verdict::Delivered).await;
    store.flip(events[0].at, 50);
    store.flip(events[1].at, 50);
    for store in [&store.crashed(), &store] {
        store.told_lost().await;
        assert_eq!((store.counts("app"), store.journal.stats().damaged), ((1, 0), 2));
        let total: u64 = store.journal.stats().lanes.iter().map(|lane| lane.dead).sum();
        assert_eq!(total, 0);
    }
}

/// An attempt read its event before that was damaged: how it ends is recorded all the same.
#[tokio::test]
async fn an_attempt_under_way_at_a_lost_event_may_still_end_well() {
    for (verdict, dead) in [(Verdict::Delivered, 0), (Verdict::RetryAt(T0), 1)] {
        let (store, events) = Store::backlog(&["app"]).await;
        let lane = store.lane("app");
        let id = DeliveryId { event: events[20].id, index: 0 };
        assert_eq!(store.pending("app").await.len() as u32, BACKLOG);
        store.journal.start(&lane, id, 1).await.unwrap();
        store.flip(events[20].at, 100);
        store.journal.event(events[20]).await.unwrap_err();
        assert_eq!(store.counts("app").1, 1);
        let again = store.journal.start(&lane, id, 2).await;
        assert!(matches!(again, Err(JournalError::Unknown)), "no attempt begins");
        store.journal.settle(&lane, Settled { delivery: id, attempt: Some(attempt(1)), verdict }).await.unwrap();
        for store in [&store.crashed(), &store] {
            assert_eq!(store.counts("app"), (u64::from(BACKLOG) - 1, dead));
        }
    }
}

/// Nobody read the segment until it was to be let go of. The dead letter stays for as long as dead letters do.
#[tokio::test]
async fn damage_found_as_a_segment_goes_costs_no_count() {
    let store = Store::sized(SMALL);
    let lost = fresh(store.append(entry(b"first of all", Some(9), &["app"])).await);
    let kept = fresh(store.append(entry(b"second", Some(8), &["app"])).await);
    store.flip(lost.at, 100);
    let gone = store.dir.path().join(segment::path(1));
    for _ in 0..1_000 {
        store.append(entry(&[7; 16 << 10], None, &[])).await; // comes round several times
    }
    assert!(!gone.exists());
    for store in [&store.crashed_at(SMALL), &store] {
        assert_eq!(store.counts("app"), (1, 1));
        assert_eq!(store.pending("app").await[0].event.id, kept.id);
    }
    assert_eq!(store.journal.stats().damaged, 1);
    store.clock.pass(HOUR * 24 * 31);
    for _ in 0..200 {
        store.append(entry(&[7; 16 << 10], None, &[])).await;
        store.journal.trim(Retention::default()).await.unwrap();
    }
    assert_eq!(store.counts("app"), (1, 0));
    assert_eq!(store.crashed_at(SMALL).counts("app"), (1, 0));
}

/// Nothing but the log tells whose deliveries they were: they are counted, and for nobody.
#[tokio::test]
async fn deliveries_that_nobody_knows_any_more_are_counted() {
    let store = Store::new();
    let mut events = Vec::new();
    for number in 0..4u8 {
        events.push(fresh(store.append(entry(&[number; 100], None, &["app"])).await));
    }
    let ids: Vec<_> = store.pending("app").await.iter().map(|pending| pending.id).collect();
    store.settle(ids[2], 1, Verdict::Delivered).await;
    store.journal.start(&store.lane("app"), ids[3], 1).await.unwrap();
    store.journal.close().await;
    for event in &events[1..] {
        store.flip(event.at, 9); // its header: so nothing is known of it
    }
    let mut store = store;
    for _ in 0..3 {
        store = store.crashed();
        assert_eq!(store.counts("app"), (1, 0));
        assert_eq!(store.counts(lost::NOBODY), (0, 2), "one of the three was delivered, and that is known");
        assert_eq!((store.pending("app").await.len(), store.journal.stats().damaged), (1, 1), "one stretch");
    }
}

/// A torn write is no damage: not when the journal is opened, and not for whoever opens it after that.
#[tokio::test]
async fn a_torn_end_is_no_damage_however_often_the_journal_is_opened() {
    let store = Store::new();
    store.append(entry(b"kept", None, &["app"])).await;
    store.append(entry(b"torn", None, &["app"])).await;
    store.journal.close().await;
    let file = store.dir.path().join(segment::path(1));
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 20]).unwrap();
    fs::remove_file(store.dir.path().join("checkpoint")).unwrap(); // it would know that the log went further
    let mut store = store;
    for _ in 0..3 {
        store = store.crashed();
        store.append(entry(b"later", None, &[])).await;
        store.told_lost().await;
        assert_eq!((store.journal.stats().damaged, store.counts("app")), (0, (1, 0)));
        assert!(store.aside().is_empty());
    }
}

/// The last record of a crashed journal, damaged inside, is taken for a torn write: nothing waits for it for ever.
#[tokio::test]
async fn a_last_record_that_is_damaged_leaves_nothing_that_waits() {
    let store = Store::new();
    store.append(entry(b"kept", None, &["app"])).await;
    let last = fresh(store.append(entry(b"last", None, &["app"])).await);
    store.flip(last.at, 60);
    let mut store = store;
    for _ in 0..3 {
        store = store.crashed();
        store.append(entry(b"later", None, &[])).await;
        assert_eq!((store.counts("app"), store.counts(lost::NOBODY)), ((1, 0), (0, 0)));
    }
}

/// What cannot be read for a moment is not lost: neither to whoever opens the journal nor where a segment goes, however long the
/// moment is. If it is too long, it is tried again.
#[tokio::test]
async fn what_cannot_be_read_for_a_moment_is_not_lost() {
    for failures in (0..60).chain([1_000]) {
        let (dir, faults, clock, journal) = faults::on_failing_disk(64 << 20);
        for number in 0..20u8 {
            journal.append(entry(&[number; 500], Some(number), &["app"]), Sync::Durable).await.unwrap();
        }
        drop(journal);
        let reopen = || {
            let disk = FailingDisk { faults: Arc::clone(&faults), real: RealDisk::new(dir.path()) };
            let (clock, settings) = (Arc::clone(&clock) as _, settings(dir.path(), 64 << 20));
            LogJournal::open_on(Arc::new(disk), &settings, clock, Metrics::new("test"), None)
        };
        faults.reads_to_fail.store(failures, Ordering::SeqCst);
        let mut opened = reopen();
        while opened.is_err() {
            faults.reads_to_fail.store(0, Ordering::SeqCst);
            opened = reopen();
        }
        let journal = opened.unwrap();
        let count =
            |journal: &LogJournal| journal.stats().lanes.first().map_or((0, 0), |lane| (lane.pending, lane.dead));
        if failures == 1_000 {
            assert!(journal.stats().damaged > 0 || count(&journal) == (20, 0), "lost in silence");
            continue;
        }
        assert_eq!((journal.stats().lanes.len(), count(&journal)), (1, (20, 0)), "{failures} at opening");
        clock.step(T0.plus(Duration::from_secs(60)));
        faults.reads_to_fail.store(failures, Ordering::SeqCst);
        let brief = Retention { delivered: Duration::from_secs(1), dead: Duration::from_secs(1) };
        let _ = journal.trim(brief).await;
        faults.reads_to_fail.store(0, Ordering::SeqCst);
        let _ = journal.trim(brief).await;
        assert_eq!((journal.stats().lanes.len(), count(&journal)), (1, (20, 0)), "{failures} as it goes");
    }
}

/// What is set aside is bounded.
#[tokio::test]
async fn what_is_set_aside_is_bounded() {
    let store = Store::sized(SMALL);
    let mut events = Vec::new();
    for number in 0..6u8 {
        events.push(fresh(store.append(entry(&[number; 20 << 10], None, &["app"])).await));
    }
    for event in &events[..5] {
        store.flip(event.at, 100);
    }
    let store = store.crashed_at(SMALL);
    assert_eq!((store.journal.stats().damaged, store.counts("app")), (5, (1, 5)));
    let aside: usize = store.aside().iter().map(Vec::len).sum();
    assert!((1..=SMALL as usize / 64).contains(&aside), "{aside}");
}

/// P17: a bad sector costs what it held, whoever reads; a file that cannot be opened costs nothing.
#[tokio::test]
async fn a_page_that_cannot_be_read_is_damage_like_any_other() {
    let (_dir, faults, _clock, journal) = faults::on_failing_disk(64 << 20);
    let mut events = Vec::new();
    for number in 0..BACKLOG {
        events.push(fresh(journal.append(entry(&number.to_le_bytes(), None, &["app"]), Sync::Durable).await.unwrap()));
    }
    let lane = journal.lanes().borrow()[0].clone();
    let read = async || {
        let (mut found, mut after) = (Vec::new(), Position::START);
        while after < journal.tail() {
            let lane = lane.clone();
            let batch = journal.read(move |reader| reader.pending(&lane, after, 100)).await?;
            after = batch.next;
            found.extend(batch.deliveries.iter().map(|pending| pending.event.id));
        }
        Ok::<_, JournalError>(found)
    };
    faults.refuse("open", 24); // EMFILE
    assert!(matches!(read().await, Err(JournalError::Read(_))));
    faults.refuse("open", 0);
    assert_eq!(journal.stats().damaged, 0);
    faults.unreadable.lock().unwrap().insert((segment::path(1), 3));
    let got = read().await.unwrap();
    let on_page = |event: &&Located| {
        let begin = segment::split(event.at).1;
        let end = events.iter().map(|event| segment::split(event.at).1).find(|at| *at > begin).unwrap_or(u32::MAX);
        begin < 4 * 4096 && end > 3 * 4096
    };
    let lost = events.iter().filter(on_page).count();
    let others: Vec<_> = events.iter().filter(|event| !on_page(event)).map(|event| event.id).collect();
    assert!((5..40).contains(&lost), "{lost}");
    assert_eq!(got, others);
    assert_eq!(journal.stats().lanes[0].dead, lost as u64);
    assert!((1..=2).contains(&journal.stats().damaged), "the record that reaches into the page, and the rest of it");
    assert_eq!(journal.room(), Room::Open);
}
