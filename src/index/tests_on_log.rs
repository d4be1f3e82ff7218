//! The index over the journal on disk: what is listed is what is kept, whatever was moved or let go of.

use std::collections::BTreeMap;
use std::sync::Arc;

use tempfile::TempDir;

use super::script::{T0, event_at, name_of};
use super::*;
use crate::base::{ByteSize, Clock, ManualClock, UnixMillis};
use crate::event::{Attempt, AttemptReason, DeadReason, DedupeKey, DeliveryStatus, Event};
use crate::journal::log::{self, LogJournal};
use crate::journal::{
    Appended, Claim, Entry, NewDelivery, Position, Rearm, Retention, Settings, Settled, Sync, Verdict,
};
use crate::provider::VerifiedEvent;
use crate::telemetry::Metrics;

const HOUR: Duration = Duration::from_secs(3600);

struct Bench {
    dir: TempDir,
    clock: Arc<ManualClock>,
    journal: LogJournal,
    tasks: Tasks,
    index: Index,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::at(T0));
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let settings = Settings {
            dir: dir.path().to_owned(),
            max_size: ByteSize(4 << 20),
            retention: Retention::default(),
            encryption: Default::default(),
        };
        let journal = LogJournal::open(&settings, shared, Metrics::new("test")).unwrap();
        let (tasks, index) = open(&dir, &journal);
        Self { dir, clock, journal, tasks, index }
    }

    /// An event with a body of 16 KiB.
    async fn keep(&self, n: i64, key: Option<u8>, destinations: &[&str]) -> Appended {
        let event = Event { body: vec![b'x'; 16 << 10].into(), ..event_at(n) };
        let claim = key.map(|key| Claim {
            key: DedupeKey([key; 32]),
            fingerprint: u64::from_ne_bytes(n.to_ne_bytes()),
            same_body: None,
            window: HOUR,
            rearms: true,
        });
        let to = |name: &&str| NewDelivery { destination: name_of(name), path: None };
        let deliveries = destinations.iter().map(to).collect();
        self.journal
            .append(
                Entry {
                    event: VerifiedEvent::assumed(event),
                    claim,
                    deliveries,
                    attempt: None,
                    relayed: None,
                    lease: None,
                },
                Sync::Durable,
            )
            .await
            .unwrap()
    }

    async fn kept(&self, n: i64, destinations: &[&str]) -> EventId {
        match self.keep(n, None, destinations).await {
            Appended::Fresh(located) => located.id,
            Appended::SameBody { .. } | Appended::Duplicate { .. } => panic!("not the first of its kind"),
        }
    }

    /// One attempt of the event's delivery to `destination`.
    async fn attempt(&self, event: EventId, destination: &str, number: u32, verdict: Verdict) {
        let lanes = self.journal.lanes();
        let lane = lanes.borrow().iter().find(|lane| lane.destination.as_str() == destination).cloned().unwrap();
        let mut after = Position::START;
        let delivery = loop {
            let batch = self.journal.pending(&lane, after, 100).await.unwrap();
            if let Some(pending) = batch.deliveries.iter().find(|pending| pending.id.event == event) {
                break pending.id;
            }
            after = batch.next;
        };
        self.journal.start(&lane, delivery, number).await.unwrap();
        let attempt = Attempt {
            number,
            reason: AttemptReason::Initial,
            started_at: T0,
            took: Duration::from_millis(5),
            status: Some(200),
            error: None,
            answer: bytes::Bytes::from(vec![b'n'; 1024]),
        };
        self.journal.settle(&lane, Settled { delivery, attempt: Some(attempt), verdict }).await.unwrap();
    }

    async fn everything(&self) -> BTreeMap<EventId, Detail> {
        self.index.catch_up().await.unwrap();
        let (mut details, mut filter) = (BTreeMap::new(), Filter { limit: 100, ..Filter::default() });
        loop {
            let page = self.index.list(filter.clone()).await.unwrap();
            for item in page.items {
                let id = item.located.id;
                details.insert(id, self.index.show(id).await.unwrap().unwrap());
            }
            filter.cursor = page.next;
            if filter.cursor.is_none() {
                return details;
            }
        }
    }

    /// Throws the index away and builds it anew.
    async fn rebuilt(self) -> Self {
        let Self { dir, clock, journal, tasks, index } = self;
        drop(index);
        tasks.stop();
        tasks.ended().await;
        std::fs::remove_dir_all(log::index_dir(dir.path())).unwrap();
        let (tasks, index) = open(&dir, &journal);
        Self { dir, clock, journal, tasks, index }
    }

    /// Whether the journal has every event that is listed, where the list says, and `id` among them.
    async fn lists_what_is_kept(&self, id: EventId) {
        let details = self.everything().await;
        assert!(details.contains_key(&id));
        for (id, detail) in details {
            let kept = self.journal.event(detail.item.located).await.unwrap();
            assert_eq!(kept.map(|kept| kept.event.id), Some(id));
        }
    }
}

fn open(dir: &TempDir, journal: &LogJournal) -> (Tasks, Index) {
    let tasks = Tasks::new();
    let index = Index::open(&log::index_dir(dir.path()), journal.identity(), journal.clone(), journal.keys(), &tasks);
    (tasks, index)
}

#[tokio::test]
async fn outcomes_duplicates_and_replays_are_listed_also_by_a_rebuilt_index() {
    let bench = Bench::new();
    let Appended::Fresh(first) = bench.keep(0, Some(1), &["app", "audit"]).await else { panic!("a duplicate") };
    bench.keep(1, Some(1), &["app"]).await;
    let captured = bench.kept(2, &[]).await;
    let dead = bench.kept(3, &["app"]).await;
    bench.attempt(first.id, "app", 1, Verdict::Delivered).await;
    bench.attempt(dead, "app", 1, Verdict::RetryAt(T0)).await;
    bench.attempt(dead, "app", 2, Verdict::Dead(DeadReason::TooOld)).await;

    let seen = bench.everything().await;
    let status = |id: EventId| seen[&id].item.status;
    assert_eq!(
        (status(first.id), status(captured), status(dead)),
        (EventStatus::Pending, EventStatus::Captured, EventStatus::Dead)
    );
    assert_eq!((seen[&first.id].item.duplicates, seen[&first.id].item.conflicts), (1, 1));
    assert_eq!(seen[&first.id].item.located, first);
    assert_eq!(seen[&dead].attempts[0].len(), 2);
    let deliveries: Vec<_> = seen[&first.id].item.deliveries.iter().map(|delivery| delivery.status).collect();
    assert_eq!(deliveries, [DeliveryStatus::Delivered, DeliveryStatus::Pending]);

    let located = bench.index.locate(dead).await.unwrap().unwrap();
    assert_eq!(bench.journal.rearm(located, None, Rearm::Replay).await.unwrap().len(), 1);
    let before = bench.everything().await;
    assert_eq!(before[&dead].item.status, EventStatus::Pending);

    let bench = bench.rebuilt().await;
    assert_eq!(bench.everything().await, before);
}

/// A small journal is filled several times over: history is let go of, what waits is copied forward.
#[tokio::test]
async fn what_is_listed_is_what_is_kept_after_history_was_let_go_of() {
    let bench = Bench::new();
    let waiting = bench.kept(0, &["app", "audit"]).await;
    bench.attempt(waiting, "app", 1, Verdict::RetryAt(UnixMillis(T0.0 + 1))).await;
    bench.attempt(waiting, "audit", 1, Verdict::Delivered).await;
    bench.index.catch_up().await.unwrap();
    for n in 1..800 {
        bench.kept(n, &[]).await;
    }

    bench.lists_what_is_kept(waiting).await;
    let detail = bench.everything().await.remove(&waiting).unwrap();
    assert_ne!(detail.item.located.at, Position::START);
    let standing: Vec<_> = detail.item.deliveries.iter().map(|delivery| (delivery.status, delivery.attempts)).collect();
    assert_eq!(standing, [(DeliveryStatus::Pending, 1), (DeliveryStatus::Delivered, 1)]);
    assert_eq!(detail.attempts.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1], "they outlive the move");
    assert!(bench.everything().await.len() < 400, "history is gone");

    let listed: Vec<_> = bench.everything().await.into_keys().collect();
    let bench = bench.rebuilt().await;
    bench.lists_what_is_kept(waiting).await;
    assert_eq!(bench.everything().await.into_keys().collect::<Vec<_>>(), listed);
}

#[tokio::test]
async fn what_is_past_retention_is_no_longer_listed() {
    let bench = Bench::new();
    let waiting = bench.kept(0, &["app"]).await;
    let delivered = bench.kept(1, &["app"]).await;
    bench.attempt(delivered, "app", 1, Verdict::Delivered).await;
    bench.clock.set(T0.plus(HOUR * 2));
    bench.journal.trim(Retention { delivered: HOUR, dead: HOUR }).await.unwrap();
    assert_eq!(bench.everything().await.into_keys().collect::<Vec<_>>(), [waiting]);
}

/// What is deleted makes the file smaller: it counts towards the journal's size.
#[tokio::test]
async fn the_file_shrinks_when_history_goes() {
    let bench = Bench::new();
    for n in 0..60 {
        let event = bench.kept(n, &["app"]).await;
        for number in 1..=apply::ATTEMPTS_KEPT {
            bench.attempt(event, "app", number, Verdict::RetryAt(T0)).await;
        }
        bench.attempt(event, "app", apply::ATTEMPTS_KEPT + 1, Verdict::Delivered).await;
    }
    bench.index.catch_up().await.unwrap();
    let pages = || {
        let db =
            store::open_reader(&log::index_dir(bench.dir.path()), &Cells::new(&Default::default(), [0; 16])).unwrap();
        db.pragma_query_value(None, "page_count", |row| row.get::<_, u64>(0)).unwrap()
    };
    let full = pages();
    for n in 1_000..1_400 {
        bench.kept(n, &[]).await;
    }
    bench.index.catch_up().await.unwrap();
    assert!(pages() < full, "{full} pages before, {} after", pages());
}

/// What the log lost is a dead letter here, too, for as long as it is one there, and its body is told to be damaged.
#[tokio::test]
async fn what_is_lost_is_listed_as_dead() {
    let bench = Bench::new();
    let lost = bench.kept(1, &["app"]).await;
    let waits = bench.kept(2, &["app"]).await;
    bench.index.catch_up().await.unwrap();
    let at = bench.index.locate(lost).await.unwrap().unwrap();
    let file = bench.dir.path().join("log/00000001.log");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[(at.at.0 & 0xFFFF_FFFF) as usize + 5000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(matches!(bench.journal.event(at).await, Err(JournalError::Damaged)));
    for n in 3..600 {
        bench.keep(n, None, &[]).await; // the segment goes
    }
    bench.index.catch_up().await.unwrap();
    assert!(!file.exists());
    let dead = bench.index.dead_letters(Filter::default()).await.unwrap().items;
    assert_eq!(dead.iter().map(|item| item.located.id).collect::<Vec<_>>(), [lost]);
    let detail = bench.index.show(lost).await.unwrap().unwrap();
    assert_eq!(detail.item.deliveries[0].status, DeliveryStatus::Dead);
    let now = bench.index.locate(lost).await.unwrap().unwrap();
    assert!(matches!(bench.journal.event(now).await, Err(JournalError::Damaged)));
    assert_eq!(bench.index.show(waits).await.unwrap().unwrap().item.deliveries[0].status, DeliveryStatus::Pending);
    assert_eq!((bench.journal.stats().lanes[0].pending, bench.journal.stats().lanes[0].dead), (1, 1));
}
