use std::collections::BTreeSet;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::script::{Script, T0, event_at, name_of};
use super::*;
use crate::base::UnixMillis;
use crate::event::{DeadReason, DeliveryId, DeliveryStatus, Event};
use crate::journal::{Change, Rearm, Verdict};

const IDENTITY: [u8; 16] = [7; 16];

/// A directory, a scripted journal, and the index between them.
struct Bench {
    dir: TempDir,
    journal: Script,
    tasks: Tasks,
    index: Index,
}

impl Bench {
    fn new() -> Self {
        let (dir, journal, tasks) = (TempDir::new().unwrap(), Script::new(), Tasks::new());
        let index = Index::open(dir.path(), IDENTITY, journal.clone(), Default::default(), &tasks);
        Self { dir, journal, tasks, index }
    }

    /// Closes the index, lets `between` at its directory, and opens it again.
    async fn reopen(self, identity: [u8; 16], between: impl FnOnce(&Path)) -> Self {
        let Self { dir, journal, tasks, index } = self;
        drop(index);
        tasks.stop();
        tasks.ended().await;
        between(dir.path());
        let tasks = Tasks::new();
        let index = Index::open(dir.path(), identity, journal.clone(), Default::default(), &tasks);
        Self { dir, journal, tasks, index }
    }

    async fn list(&self, filter: Filter) -> Page {
        self.index.catch_up().await.unwrap();
        self.index.list(filter).await.unwrap()
    }

    async fn ids(&self, filter: Filter) -> Vec<EventId> {
        self.list(filter).await.items.iter().map(|item| item.located.id).collect()
    }

    async fn show(&self, id: EventId) -> Detail {
        self.index.catch_up().await.unwrap();
        self.index.show(id).await.unwrap().unwrap()
    }

    /// Everything that can be asked, to compare two states.
    async fn everything(&self) -> (Vec<Detail>, Vec<(EventStatus, u64)>) {
        let mut details = Vec::new();
        for id in self.ids(Filter { limit: LIMIT_MAX, ..Filter::default() }).await {
            details.push(self.index.show(id).await.unwrap().unwrap());
        }
        (details, self.index.counts().await.unwrap())
    }
}

fn all() -> Filter {
    Filter::default()
}

/// A bit of everything: delivered, dead, retried, replayed, duplicated, moved.
fn a_history(journal: &Script) {
    for n in 0..20 {
        let event = event_at(n);
        let id = journal.keep(&event, &["app", "audit"]);
        journal.push(Change::Started { delivery: DeliveryId { event: id, index: 0 }, number: 1, at: T0 });
        match n % 4 {
            0 => journal.deliver(id, 0),
            1 => journal.bury(id, 0),
            2 => journal.settle(id, 0, 1, Verdict::RetryAt(T0)),
            _ => journal.push(Change::Duplicate { original: id, conflict: n == 3, at: T0 }),
        }
        journal.deliver(id, 1);
        if n % 5 == 0 {
            let delivery = DeliveryId { event: id, index: 1 };
            journal.push(Change::Rearmed { delivery, why: Rearm::Replay, at: T0 });
        }
    }
}

#[tokio::test]
async fn an_event_is_listed_with_what_the_journal_says_of_it() {
    let bench = Bench::new();
    let event = Event { query: Some("a=1".into()), ..event_at(0) };
    bench.journal.keep(&event, &["app"]);

    let page = bench.list(all()).await;

    let item = &page.items[0];
    assert_eq!(item.located, Located { id: event.id, at: crate::journal::Position(0) });
    assert_eq!((item.source.as_str(), item.provider.as_str()), ("acme", "acme"));
    assert_eq!((item.kind.as_deref(), item.provider_event_id.as_deref()), (Some("order.paid"), Some("order_0")));
    assert_eq!((item.method.as_str(), item.path.as_str(), item.query.as_deref()), ("POST", "/acme", Some("a=1")));
    assert_eq!((item.received_at, item.size_bytes, item.status), (T0, 25, EventStatus::Pending));
    assert_eq!(item.deliveries[0].destination, "app");
    assert_eq!(page.next, None);
}

#[tokio::test]
async fn a_delivery_is_followed_from_its_first_attempt_to_its_last() {
    let bench = Bench::new();
    let id = bench.journal.keep(&event_at(0), &["app"]);
    let delivery = DeliveryId { event: id, index: 0 };
    let begin = |number| bench.journal.push(Change::Started { delivery, number, at: T0 });

    begin(1);
    let detail = bench.show(id).await;
    assert_eq!((detail.item.status, detail.item.deliveries[0].attempts), (EventStatus::Pending, 1));
    let attempt = &detail.attempts[0][0];
    assert_eq!((attempt.reason.as_str(), attempt.took, attempt.status), ("initial", None, None), "it runs");

    bench.journal.settle(id, 0, 1, Verdict::RetryAt(UnixMillis(T0.0 + 900)));
    let detail = bench.show(id).await;
    assert_eq!(detail.item.deliveries[0].next_attempt_at, Some(UnixMillis(T0.0 + 900)));
    let attempt = &detail.attempts[0][0];
    assert_eq!((attempt.took, attempt.status), (Some(Duration::from_millis(12)), Some(500)));
    assert_eq!(attempt.answer.as_deref(), Some(&b"answer"[..]));

    begin(2);
    assert_eq!(bench.show(id).await.item.deliveries[0].next_attempt_at, None, "it is under way");
    bench.journal.settle(id, 0, 2, Verdict::Dead(DeadReason::TooManyAttempts));
    let detail = bench.show(id).await;
    assert_eq!(detail.item.status, EventStatus::Dead);
    assert_eq!(detail.item.deliveries[0].dead_reason.as_deref(), Some("max_attempts"));

    bench.journal.push(Change::Rearmed { delivery, why: Rearm::Replay, at: T0 });
    let detail = bench.show(id).await;
    assert_eq!((detail.item.status, detail.item.deliveries[0].dead_reason.as_deref()), (EventStatus::Pending, None));

    begin(3);
    let detail = bench.show(id).await;
    let told: Vec<_> = detail.attempts[0].iter().map(|a| (a.number, a.reason.as_str())).collect();
    assert_eq!(told, [(1, "initial"), (2, "retry"), (3, "replay")]);

    bench.journal.settle(id, 0, 3, Verdict::Delivered);
    assert_eq!(bench.show(id).await.item.status, EventStatus::Delivered);
}

#[tokio::test]
async fn an_attempt_that_a_crash_cut_off_says_so_once_the_next_begins() {
    let bench = Bench::new();
    let id = bench.journal.keep(&event_at(0), &["app"]);
    let delivery = DeliveryId { event: id, index: 0 };
    for number in [1, 2] {
        bench.journal.push(Change::Started { delivery, number, at: T0 });
    }

    let attempts = bench.show(id).await.attempts.remove(0);

    assert!(attempts[0].error.as_deref().unwrap().starts_with("outcome unknown"));
    assert_eq!(attempts[1].error, None);
}

#[tokio::test]
async fn a_delivery_whose_outcome_a_power_cut_took_is_pending_again() {
    let bench = Bench::new();
    let id = bench.journal.keep(&event_at(0), &["app"]);
    bench.journal.bury(id, 0);
    assert_eq!(bench.show(id).await.item.status, EventStatus::Dead);
    bench.journal.push(Change::Started { delivery: DeliveryId { event: id, index: 0 }, number: 1, at: T0 });
    let detail = bench.show(id).await;
    assert_eq!((detail.item.status, detail.item.deliveries[0].dead_reason.as_deref()), (EventStatus::Pending, None));
}

#[tokio::test]
async fn a_delivery_that_fails_for_days_keeps_its_newest_attempts() {
    let bench = Bench::new();
    let id = bench.journal.keep(&event_at(0), &["app"]);
    for number in 1..=apply::ATTEMPTS_KEPT + 5 {
        bench.journal.settle(id, 0, number, Verdict::RetryAt(T0));
    }

    let detail = bench.show(id).await;

    assert_eq!(detail.item.deliveries[0].attempts, apply::ATTEMPTS_KEPT + 5);
    let numbers: Vec<_> = detail.attempts[0].iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, (6..=apply::ATTEMPTS_KEPT + 5).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_record_that_moves_keeps_its_attempts_and_survives_the_trim_of_its_old_place() {
    let bench = Bench::new();
    let (stays, goes) = (event_at(0), event_at(1));
    bench.journal.keep(&stays, &["app", "audit"]);
    bench.journal.keep(&goes, &["app"]);
    bench.journal.settle(stays.id, 0, 1, Verdict::RetryAt(T0));
    bench.journal.deliver(stays.id, 1);
    let before = crate::journal::Position(bench.journal.tail().0);
    bench
        .journal
        .record(&stays, vec![(name_of("app"), DeliveryStatus::Pending), (name_of("audit"), DeliveryStatus::Delivered)]);
    bench.journal.push(Change::Trimmed { from: crate::journal::Position::START, before });

    assert_eq!(bench.ids(all()).await, [stays.id]);
    let detail = bench.show(stays.id).await;
    assert_eq!(detail.item.located.at, before);
    assert_eq!(detail.attempts.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(detail.item.deliveries[0].next_attempt_at, Some(T0));
    assert_eq!(bench.index.locate(goes.id).await.unwrap(), None);
}

#[tokio::test]
async fn what_happens_to_a_trimmed_event_is_passed_over() {
    let bench = Bench::new();
    let event = event_at(0);
    bench.journal.keep(&event, &["app"]);
    bench.journal.trim_all();
    bench.journal.push(Change::Started { delivery: DeliveryId { event: event.id, index: 0 }, number: 1, at: T0 });
    bench.journal.deliver(event.id, 0);
    bench.journal.push(Change::Duplicate { original: event.id, conflict: true, at: T0 });
    let later = event_at(5);
    bench.journal.keep(&later, &[]);

    assert_eq!(bench.ids(all()).await, [later.id]);
    assert_eq!(bench.index.counts().await.unwrap(), [(EventStatus::Captured, 1)]);
}

#[tokio::test]
async fn a_trim_larger_than_one_step_takes_everything() {
    let bench = Bench::new();
    for n in 0..1_300 {
        bench.journal.keep(&event_at(n), &["app"]);
    }
    bench.journal.trim_all();
    assert_eq!(bench.list(all()).await.items, []);
}

#[tokio::test]
async fn a_deleted_index_comes_back_as_it_was() {
    let bench = Bench::new();
    a_history(&bench.journal);
    let before = bench.everything().await;
    let reopened = bench.reopen(IDENTITY, |dir| std::fs::remove_dir_all(dir).unwrap()).await;
    assert_eq!(before.0.len(), 20);
    assert_eq!(reopened.everything().await, before);
}

/// Duplicates are counted, so a change that is applied twice would show.
#[tokio::test]
async fn a_restart_goes_on_where_the_index_was() {
    let bench = Bench::new();
    a_history(&bench.journal);
    let before = bench.everything().await;
    let bench = bench.reopen(IDENTITY, |_| ()).await;
    assert_eq!(bench.everything().await, before);

    let more = event_at(100);
    bench.journal.keep(&more, &["app"]);
    assert_eq!(bench.ids(all()).await[0], more.id);
}

#[tokio::test]
async fn an_index_that_is_no_good_is_rebuilt() {
    fn overwrite(dir: &Path, at: u64, bytes: &[u8]) {
        let mut file = std::fs::OpenOptions::new().write(true).open(dir.join("index.db")).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(bytes).unwrap();
    }
    fn execute(dir: &Path, sql: &str) {
        Connection::open(dir.join("index.db")).unwrap().execute_batch(sql).unwrap();
    }
    type Wreck = (&'static str, fn(&Path));
    let wrecks: [Wreck; 7] = [
        ("not a database", |dir| overwrite(dir, 0, &[0xff; 4096])),
        ("empty", |dir| std::fs::write(dir.join("index.db"), b"").unwrap()),
        ("another version", |dir| execute(dir, "PRAGMA user_version = 99")),
        ("a table is missing", |dir| execute(dir, "DROP TABLE state")),
        ("unfinished", |dir| execute(dir, "DELETE FROM state")),
        ("ahead of the journal", |dir| execute(dir, "UPDATE state SET position = 1000000")),
        ("pages are garbage", |dir| {
            let length = std::fs::metadata(dir.join("index.db")).unwrap().len();
            for page in 3..length / 4096 {
                // past the header, the map of pages and the position
                overwrite(dir, page * 4096, &[0xff; 512]);
            }
        }),
    ];
    for (what, wreck) in wrecks {
        let bench = Bench::new();
        a_history(&bench.journal);
        let mut before = bench.everything().await;
        let bench = bench.reopen(IDENTITY, wreck).await;
        // Damage deep in the file shows when it is met; then at the latest the feeder starts anew.
        let more = event_at(100);
        bench.journal.keep(&more, &[]);
        let more = bench.show(more.id).await;
        before.0.insert(0, more);
        before.1.push((EventStatus::Captured, 1));
        assert_eq!(bench.everything().await, before, "{what}");
    }
}

/// No change comes that would make the feeder meet the damage: a query does.
#[tokio::test]
async fn damage_that_a_query_meets_is_mended_too() {
    let bench = Bench::new();
    a_history(&bench.journal);
    let before = bench.everything().await;
    let bench = bench
        .reopen(IDENTITY, |dir| {
            let length = std::fs::metadata(dir.join("index.db")).unwrap().len();
            let mut file = std::fs::OpenOptions::new().write(true).open(dir.join("index.db")).unwrap();
            for page in 3..length / 4096 {
                // past the header, the map of pages and the position
                file.seek(SeekFrom::Start(page * 4096)).unwrap();
                file.write_all(&[0xff; 512]).unwrap();
            }
        })
        .await;

    bench.index.catch_up().await.unwrap();
    assert!(matches!(bench.index.list(all()).await, Err(IndexError::Database(_))));
    bench.index.catch_up().await.unwrap();

    assert_eq!(bench.everything().await, before);
}

#[tokio::test]
async fn the_index_of_another_journal_is_rebuilt() {
    let bench = Bench::new();
    bench.journal.keep(&event_at(0), &["app"]);
    bench.list(all()).await;
    let bench = bench
        .reopen([8; 16], |dir| {
            let db = Connection::open(dir.join("index.db")).unwrap();
            db.execute("UPDATE events SET source = 'stale'", []).unwrap();
        })
        .await;
    assert_eq!(bench.list(all()).await.items[0].source, "acme");
}

#[tokio::test]
async fn nobody_else_can_read_the_files() {
    let bench = Bench::new();
    bench.journal.keep(&event_at(0), &["app"]);
    bench.list(all()).await;
    let mut seen = 0;
    for entry in std::fs::read_dir(bench.dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        seen += 1;
    }
    assert!(seen >= 2, "the database and its write-ahead log");
}

#[tokio::test]
async fn pages_give_each_event_once_while_new_ones_come() {
    let bench = Bench::new();
    let mut expected = BTreeSet::new();
    for n in 0..1_200 {
        expected.insert(bench.journal.keep(&event_at(n / 3), &["app"])); // three in the same millisecond
    }
    let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = bench.list(Filter { limit: 100, cursor, ..all() }).await;
        seen.extend(page.items.iter().map(|item| (item.received_at, item.located.id)));
        pages += 1;
        bench.journal.keep(&event_at(10_000 + pages), &["app"]);
        let Some(next) = page.next else { break };
        cursor = Some(next.to_string().parse().unwrap());
    }
    assert_eq!(pages, 12);
    assert!(seen.is_sorted_by(|newer, older| newer > older), "newest first, none twice");
    assert_eq!(seen.into_iter().map(|(_, id)| id).collect::<BTreeSet<_>>(), expected);
}

#[tokio::test]
async fn a_limit_is_kept_between_one_and_the_most() {
    let bench = Bench::new();
    for n in 0..600 {
        bench.journal.keep(&event_at(n), &[]);
    }
    for (limit, expected) in [(0, LIMIT_DEFAULT), (1, 1), (500, 500), (5_000, LIMIT_MAX)] {
        assert_eq!(bench.list(Filter { limit, ..all() }).await.items.len(), expected, "{limit}");
    }
}

#[tokio::test]
async fn a_full_last_page_has_no_next() {
    let bench = Bench::new();
    for n in 0..4 {
        bench.journal.keep(&event_at(n), &[]);
    }
    assert!(bench.list(Filter { limit: 3, ..all() }).await.next.is_some());
    assert!(bench.list(Filter { limit: 4, ..all() }).await.next.is_none());
}

#[tokio::test]
async fn each_filter_gives_what_it_names() {
    let bench = Bench::new();
    let one = Event { source: name_of("shop"), ..event_at(0) };
    let two = Event { kind: Some("100%_off\\".into()), ..event_at(1_000) };
    let three = Event { path: "/Other/path".into(), provider_event_id: None, kind: None, ..event_at(2_000) };
    bench.journal.keep(&one, &["app"]);
    bench.journal.keep(&two, &["app", "audit"]);
    bench.journal.keep(&three, &["audit"]);
    bench.journal.bury(two.id, 0);
    bench.journal.deliver(two.id, 1);
    bench.journal.deliver(three.id, 0);
    let (one, two, three) = (one.id, two.id, three.id);

    let at = |offset| Some(UnixMillis(T0.0 + offset));
    let q = |text: &str| Filter { q: Some(text.to_owned()), ..all() };
    let status = |status| Filter { status: Some(Standing::Event(status)), ..all() };
    let cases: Vec<(Filter, Vec<EventId>)> = vec![
        (all(), vec![three, two, one]),
        (Filter { source: Some(name_of("shop")), ..all() }, vec![one]),
        (Filter { source: Some(name_of("none")), ..all() }, vec![]),
        (Filter { destination: Some(name_of("app")), ..all() }, vec![two, one]),
        (Filter { destination: Some(name_of("audit")), ..all() }, vec![three, two]),
        (status(EventStatus::Pending), vec![one]),
        (status(EventStatus::Dead), vec![two]),
        (status(EventStatus::Delivered), vec![three]),
        (status(EventStatus::Captured), vec![]),
        (Filter { kind: Some("order.paid".into()), ..all() }, vec![one]),
        (Filter { kind: Some("order".into()), ..all() }, vec![]),
        (Filter { since: at(1_000), ..all() }, vec![three, two]),
        (Filter { until: at(1_000), ..all() }, vec![one]),
        (Filter { since: at(1_000), until: at(2_000), ..all() }, vec![two]),
        (q("order_0"), vec![one]),
        (q("ORDER.PA"), vec![one]),
        (q("/other"), vec![three]),
        (q("100%_"), vec![two]),
        (q("off\\"), vec![two]),
        (q("%"), vec![two]),
        (q("0_o"), vec![]), // `_` is itself, not any letter
        (q("' OR 1=1 --"), vec![]),
        (Filter { source: Some(name_of("acme")), destination: Some(name_of("audit")), ..q("path") }, vec![three]),
    ];
    for (filter, expected) in cases {
        assert_eq!(bench.ids(filter.clone()).await, expected, "{filter:?}");
    }
    assert_eq!(bench.ids(q(&two.to_string())).await, [two], "a whole id");
    let id = two.to_string();
    assert_eq!(bench.ids(q(&id[id.len() - 12..])).await, [two], "the end of an id");
}

#[tokio::test]
async fn dead_letters_are_those_of_the_destination_asked_for() {
    let bench = Bench::new();
    let id = bench.journal.keep(&event_at(0), &["app", "audit"]);
    bench.journal.keep(&event_at(1), &["app"]);
    bench.journal.bury(id, 0);
    bench.index.catch_up().await.unwrap();
    for (destination, expected) in [(None, 1), (Some("app"), 1), (Some("audit"), 0)] {
        let filter = Filter { destination: destination.map(name_of), ..all() };
        assert_eq!(bench.index.dead_letters(filter).await.unwrap().items.len(), expected, "{destination:?}");
    }
}

#[tokio::test]
async fn duplicates_and_conflicts_are_counted() {
    let bench = Bench::new();
    let id = bench.journal.keep(&event_at(0), &[]);
    for conflict in [false, true, false] {
        bench.journal.push(Change::Duplicate { original: id, conflict, at: T0 });
    }
    let item = bench.show(id).await.item;
    assert_eq!((item.duplicates, item.conflicts), (3, 1));
}

#[tokio::test]
async fn a_journal_that_fails_is_told_and_followed_again_once_it_works() {
    let bench = Bench::new();
    bench.journal.keep(&event_at(0), &[]);
    bench.list(all()).await;
    bench.journal.set_failing(true);
    bench.journal.keep(&event_at(1), &[]);

    assert!(matches!(bench.index.catch_up().await, Err(IndexError::Journal(JournalError::Failed(_)))));
    assert_eq!(bench.index.list(all()).await.unwrap().items.len(), 1, "what there is stays readable");

    bench.journal.set_failing(false);
    assert_eq!(bench.list(all()).await.items.len(), 2);
}

#[tokio::test]
async fn concurrent_callers_all_see_their_own_writes() {
    let bench = Bench::new();
    let calls = (0..200).map(|n| {
        let bench = &bench;
        async move {
            let id = bench.journal.keep(&event_at(n), &[]);
            bench.index.catch_up().await.unwrap();
            bench.index.locate(id).await.unwrap().is_some()
        }
    });
    assert!(futures_util::future::join_all(calls).await.into_iter().all(|seen| seen));
}

#[tokio::test]
async fn a_stopped_index_says_it_is_closed() {
    let bench = Bench::new();
    bench.tasks.stop();
    bench.tasks.ended().await;
    assert!(matches!(bench.index.catch_up().await, Err(IndexError::Closed)));
}

#[test]
fn a_cursor_reads_back_and_nothing_else_does() {
    for text in ["", "x", "AAAA", "evt_00", "A".repeat(31).as_str(), "A".repeat(33).as_str()] {
        assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text}");
    }
    let text = "A".repeat(32);
    assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
}
