//! What the journal promises, tried on real files. A crash is a copy of the directory taken while it is open.

mod backup;
mod checkpoints;
mod clocks;
mod damage;
mod erase;
mod every_byte;
mod faults;
mod first;
mod formats;
mod limits;
mod meeting;
mod orphans;
mod panics;
mod power;
mod sealed;
mod shares;
mod shortages;
mod space;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use tempfile::TempDir;

use super::*;
use crate::base::{ByteSize, ManualClock, UnixMillis};
use crate::event::{Attempt, AttemptReason, Client, DeadReason, DedupeKey, Event, EventId, Proof};
use crate::journal::seal::Encryption;
use crate::journal::{Change, NewDelivery, Pending, Relayed, Verdict};
use crate::provider::VerifiedEvent;

const T0: UnixMillis = UnixMillis(1_700_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

struct Store {
    dir: TempDir,
    clock: Arc<ManualClock>,
    journal: LogJournal,
}

fn settings(dir: &Path, max_size: u64) -> Settings {
    Settings {
        dir: dir.to_owned(),
        max_size: ByteSize(max_size),
        retention: Retention::default(),
        encryption: Default::default(),
    }
}

/// As [`open`], with these keys.
fn open_sealed(dir: &Path, clock: &Arc<ManualClock>, encryption: Encryption) -> Result<LogJournal, OpenError> {
    let settings = Settings { encryption, ..settings(dir, 64 << 20) };
    LogJournal::open(&settings, Arc::clone(clock) as _, Metrics::new("test"))
}

fn open(dir: &Path, clock: &Arc<ManualClock>, max_size: u64) -> LogJournal {
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    LogJournal::open(&settings(dir, max_size), clock, Metrics::new("test")).unwrap()
}

impl Store {
    fn new() -> Self {
        Self::sized(64 << 20)
    }

    fn sized(max_size: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(T0));
        let journal = open(dir.path(), &clock, max_size);
        Self { dir, clock, journal }
    }

    /// What a crash now would leave, opened again.
    fn crashed(&self) -> Self {
        self.crashed_at(64 << 20)
    }

    fn crashed_at(&self, max_size: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy(self.dir.path(), dir.path());
        let clock = Arc::new(self.clock.copied());
        let journal = open(dir.path(), &clock, max_size);
        Self { dir, clock, journal }
    }

    async fn append(&self, entry: Entry) -> Appended {
        self.journal.append(entry, Sync::Durable).await.unwrap()
    }

    fn lane(&self, destination: &str) -> Lane {
        let lanes = self.journal.lanes();
        let lane = lanes.borrow().iter().find(|lane| lane.destination.as_str() == destination).cloned();
        lane.unwrap()
    }

    /// Everything `destination` has pending, read as its owner would from the start.
    async fn pending(&self, destination: &str) -> Vec<Pending> {
        let Some(stats) = self.journal.stats().lanes.into_iter().find(|lane| lane.destination.as_str() == destination)
        else {
            return Vec::new();
        };
        let (lane, mut found, mut after) = (self.lane(destination), Vec::<Pending>::new(), Position::START);
        while (found.len() as u64) < stats.pending {
            let batch = self.journal.pending(&lane, after, 100).await.unwrap();
            after = batch.next;
            for pending in batch.deliveries {
                if !found.iter().any(|seen| seen.id == pending.id) {
                    found.push(pending);
                }
            }
        }
        found
    }

    async fn settle(&self, delivery: DeliveryId, number: u32, verdict: Verdict) {
        let lane = self.lane("app");
        self.journal.start(&lane, delivery, number).await.unwrap();
        let attempt = Some(attempt(number));
        self.journal.settle(&lane, Settled { delivery, attempt, verdict }).await.unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            match fs::copy(entry.path(), target) {
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && entry.path().extension() == Some("new".as_ref()) => {}
                copied => drop(copied.unwrap()), // a checkpoint may just be getting its name
            }
        }
    }
}

/// One of many entries with a claim of its own.
fn numbered(number: u32) -> Entry {
    let mut entry = entry(b"x", Some(0), &[]);
    let key = entry.claim.as_mut().map(|claim| &mut claim.key.0);
    key.unwrap()[..4].copy_from_slice(&number.to_le_bytes());
    entry
}

fn attempt(number: u32) -> Attempt {
    Attempt {
        number,
        reason: AttemptReason::Initial,
        started_at: T0,
        took: Duration::from_millis(5),
        status: Some(500),
        error: None,
        answer: Bytes::from_static(b"no"),
    }
}

fn event(body: &[u8]) -> Event {
    Event {
        id: EventId::new(T0),
        source: Name::new("acme").unwrap(),
        provider: Name::new("acme").unwrap(),
        kind: Some("push".into()),
        provider_event_id: Some("abc".into()),
        method: Method::POST,
        path: "/acme".into(),
        query: Some("a=1".into()),
        params: vec![("team".into(), "core".into())],
        headers: vec![(HeaderName::from_static("x-a"), HeaderValue::from_bytes(b"\xff1").unwrap())],
        body: Bytes::copy_from_slice(body),
        received_at: T0,
        client: Client { ip: [127, 0, 0, 1].into(), tls: false, host: Some("h".into()) },
        proof: Proof { scheme: "hmac".into(), slot: "secret[0]".into() },
    }
}

fn entry(body: &[u8], key: Option<u8>, destinations: &[&str]) -> Entry {
    let claim = key.map(|key| Claim {
        key: DedupeKey([key; 32]),
        fingerprint: body.len() as u64,
        same_body: None,
        window: HOUR,
        rearms: true,
    });
    let to = |name: &&str| NewDelivery { destination: Name::new(name).unwrap(), path: Some("/p".into()) };
    let deliveries = destinations.iter().map(to).collect();
    let event = VerifiedEvent::assumed(event(body));
    Entry { event, claim, deliveries, attempt: None, relayed: None, lease: None }
}

fn fresh(appended: Appended) -> Located {
    match appended {
        Appended::Fresh(located) => located,
        Appended::SameBody { .. } | Appended::Duplicate { .. } => panic!("not the first of its kind"),
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash_byte_for_byte() {
    let store = Store::new();
    let kept = fresh(store.append(entry(b"exact \x00 bytes", Some(1), &["app", "audit"])).await);
    let store = store.crashed();
    let pending = store.pending("app").await;
    assert_eq!(pending.len(), 1);
    assert_eq!((pending[0].event.id, pending[0].attempts), (kept.id, 0));
    assert_eq!(store.pending("audit").await.len(), 1);
    let read = store.journal.event(pending[0].event).await.unwrap().unwrap();
    let sent = event(b"exact \x00 bytes");
    let routes: Vec<_> =
        read.deliveries.iter().map(|route| (route.destination.as_str(), route.path.as_deref())).collect();
    assert_eq!(routes, [("app", Some("/p")), ("audit", Some("/p"))]);
    let read = read.event;
    assert_eq!((read.body, read.headers, read.query, read.params), (sent.body, sent.headers, sent.query, sent.params));
}

#[tokio::test]
async fn of_identical_appends_at_once_one_is_fresh() {
    let store = Store::new();
    let appends = (0..64).map(|_| store.append(entry(b"x", Some(7), &["app"])));
    let outcomes = futures_util::future::join_all(appends).await;
    let winners: Vec<_> = outcomes.iter().filter(|outcome| matches!(outcome, Appended::Fresh(_))).collect();
    assert_eq!(winners.len(), 1);
    let id = fresh(*winners[0]).id;
    let agree = |outcome: &Appended| match outcome {
        Appended::Fresh(located) | Appended::Duplicate { original: located, .. } => located.id == id,
        Appended::SameBody { .. } => false,
    };
    assert!(outcomes.iter().all(agree));
    assert_eq!(store.pending("app").await.len(), 1);
}

#[tokio::test]
async fn a_claim_holds_over_a_restart_until_its_window_is_over() {
    let store = Store::new();
    let first = fresh(store.append(entry(b"x", Some(7), &["app"])).await);
    let store = store.crashed();
    match store.append(entry(b"longer", Some(7), &["app"])).await {
        Appended::Duplicate { original, conflict } => assert_eq!((original.id, conflict), (first.id, true)),
        other => panic!("taken twice: {other:?}"),
    }
    store.clock.set(T0.plus(HOUR).minus(Duration::from_millis(1)));
    assert!(matches!(store.append(entry(b"x", Some(7), &["app"])).await, Appended::Duplicate { conflict: false, .. }));
    store.clock.set(T0.plus(HOUR));
    assert!(matches!(store.append(entry(b"x", Some(7), &["app"])).await, Appended::Fresh(_)));
}

#[tokio::test]
async fn outcomes_survive_a_crash() {
    let store = Store::new();
    for body in [b"1", b"2", b"3", b"4"] {
        store.append(entry(body, None, &["app"])).await;
    }
    let ids: Vec<_> = store.pending("app").await.iter().map(|pending| pending.id).collect();
    let later = T0.plus(Duration::from_secs(9));
    store.settle(ids[0], 1, Verdict::Delivered).await;
    store.settle(ids[1], 1, Verdict::RetryAt(later)).await;
    store.settle(ids[2], 1, Verdict::Dead(DeadReason::GaveUp)).await;
    store.journal.start(&store.lane("app"), ids[3], 1).await.unwrap();

    let store = store.crashed();
    let pending = store.pending("app").await;
    let waits: Vec<_> = pending.iter().map(|p| (p.id, p.attempts, p.not_before, p.reason)).collect();
    assert_eq!(
        waits,
        [
            (ids[1], 1, Some(later), AttemptReason::Retry),
            (ids[3], 1, None, AttemptReason::Retry), // its attempt is of unknown outcome: the next is number 2
        ]
    );
    assert_eq!(pending[0].since, T0);
    let lane = store.journal.stats().lanes.remove(0);
    assert_eq!((lane.pending, lane.dead), (2, 1));
}

#[tokio::test]
async fn a_duplicate_rearms_only_dead_deliveries_and_attempts_count_on() {
    let store = Store::new();
    let original = fresh(store.append(entry(b"x", Some(1), &["app", "audit"])).await);
    let id = store.pending("app").await[0].id;
    store.settle(id, 1, Verdict::Dead(DeadReason::TooManyAttempts)).await;
    assert!(store.pending("app").await.is_empty());
    assert!(matches!(store.append(entry(b"x", Some(1), &["app"])).await, Appended::Duplicate { .. }));
    for store in [&store.crashed(), &store] {
        let pending = store.pending("app").await;
        assert_eq!(pending.len(), 1);
        assert_eq!((pending[0].id, pending[0].attempts, pending[0].attempts_before), (id, 1, 1));
        assert_eq!(pending[0].reason, AttemptReason::Rearm);
        assert_eq!(pending[0].event.id, original.id);
    }
    store.settle(id, 2, Verdict::Delivered).await;
    assert!(matches!(store.append(entry(b"x", Some(1), &["app"])).await, Appended::Duplicate { .. }));
    assert!(store.pending("app").await.is_empty(), "a delivered one stays delivered");
    assert_eq!(store.journal.rearm(original, None, Rearm::Replay).await.unwrap(), [id], "an operator may replay it");
    let again = store.pending("app").await;
    assert_eq!((again[0].attempts, again[0].reason), (2, AttemptReason::Replay));
}

#[tokio::test]
async fn a_backlog_beyond_the_ring_comes_in_order_and_whole() {
    let store = Store::new();
    let mut sent = Vec::new();
    for number in 0..3_000u32 {
        let to: &[&str] = if number.is_multiple_of(3) { &["app", "audit"] } else { &["app"] };
        sent.push(fresh(store.append(entry(&number.to_le_bytes(), None, to)).await).id);
    }
    let got: Vec<_> = store.pending("app").await.iter().map(|pending| pending.event.id).collect();
    assert_eq!(got, sent);
    assert_eq!(store.pending("audit").await.len(), 1_000);
    assert_eq!(store.crashed().pending("app").await.len(), 3_000);
}

#[tokio::test]
async fn an_owner_that_waits_is_woken_by_the_next_append() {
    let store = Store::new();
    store.append(entry(b"1", None, &["app"])).await;
    let lane = store.lane("app");
    let first = store.journal.pending(&lane, Position::START, 10).await.unwrap();
    let (second, _) = tokio::join!(store.journal.pending(&lane, first.next, 10), async {
        tokio::task::yield_now().await;
        store.append(entry(b"2", None, &["app"])).await
    });
    assert_eq!(second.unwrap().deliveries.len(), 1);
}

#[tokio::test]
async fn a_stale_owner_is_fenced() {
    let store = Store::new();
    store.append(entry(b"1", None, &["app"])).await;
    let id = store.pending("app").await[0].id;
    let stale = Lane { epoch: 0, ..store.lane("app") };
    assert!(matches!(store.journal.start(&stale, id, 1).await, Err(JournalError::Fenced)));
    let settled = Settled { delivery: id, attempt: None, verdict: Verdict::Delivered };
    assert!(matches!(store.journal.settle(&stale, settled).await, Err(JournalError::Fenced)));
    assert_eq!(store.pending("app").await.len(), 1);
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let store = Store::new();
    let clock: Arc<dyn Clock> = store.clock.clone();
    match LogJournal::open(&settings(store.dir.path(), 64 << 20), clock, Metrics::new("test")) {
        Err(OpenError::Locked { holder, .. }) => assert_eq!(holder, Some(std::process::id())),
        other => panic!("{:?}", other.err()),
    }
}

const SMALL: u64 = 4 << 20;

#[tokio::test]
async fn the_change_stream_tells_everything_from_any_position() {
    let store = Store::new();
    let kept = fresh(store.append(entry(b"x", Some(1), &["app"])).await);
    store.append(entry(b"x", Some(1), &["app"])).await;
    let id = store.pending("app").await[0].id;
    store.settle(id, 1, Verdict::Delivered).await;
    let store = store.crashed();
    let (mut after, mut seen) = (Position::START, Vec::new());
    while after < store.journal.tail() {
        let changes = store.journal.changes(after, 1).await.unwrap();
        assert!(changes.next > after && changes.changes.len() <= 1);
        after = changes.next;
        seen.extend(changes.changes);
    }
    assert!(
        matches!(&seen[0], Change::Event { at, event, body_bytes: 1, .. } if *at == kept.at && event.id == kept.id)
    );
    assert!(matches!(seen[1], Change::Duplicate { original, conflict: false, .. } if original == kept.id));
    assert!(matches!(seen[2], Change::Started { delivery, number: 1, .. } if delivery == id));
    assert!(matches!(&seen[3], Change::Settled(settled) if settled.verdict == Verdict::Delivered));
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(store.journal.changes(after, 10).await.unwrap().changes.is_empty());
}

#[tokio::test]
async fn a_reader_of_changes_that_lags_hears_of_what_is_gone() {
    let store = Store::sized(SMALL);
    let gone = fresh(store.append(entry(b"captured", None, &[])).await);
    for _ in 0..2_000 {
        store.append(entry(&[7; 16 << 10], None, &[])).await; // the record that told of it is gone as well
    }
    let (mut after, mut told) = (Position(gone.at.0 + 1), None);
    while after < store.journal.tail() {
        let changes = store.journal.changes(after, 1_000).await.unwrap();
        after = changes.next;
        told = changes.changes.into_iter().rev().find_map(|change| match change {
            Change::Trimmed { from: Position::START, before } => Some(before),
            _ => None,
        });
    }
    assert!(told.is_some_and(|before| before > gone.at && before < after));
}

#[tokio::test]
async fn damage_in_the_middle_costs_the_record_it_hits() {
    let store = Store::new();
    let mut events = Vec::new();
    for number in 0..5u8 {
        events.push(fresh(store.append(entry(&[number; 200], None, &["app"])).await));
    }
    store.journal.close().await;
    let dir = tempfile::tempdir().unwrap();
    copy(store.dir.path(), dir.path());
    let (number, offset) = segment::split(events[2].at);
    let file = dir.path().join(segment::path(number));
    let mut bytes = fs::read(&file).unwrap();
    bytes[offset as usize + 100] ^= 1;
    fs::write(&file, bytes).unwrap();

    let journal = open(dir.path(), &store.clock, 64 << 20);
    let store = Store { dir, clock: Arc::clone(&store.clock), journal };
    assert_eq!(store.journal.stats().damaged, 1);
    let got: BTreeSet<_> = store.pending("app").await.iter().map(|pending| pending.event.id).collect();
    let expected: BTreeSet<_> = [0, 1, 3, 4].map(|number: usize| events[number].id).into();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn segments_without_their_identity_are_not_taken_for_an_empty_journal() {
    let store = Store::new();
    store.append(entry(b"x", None, &["app"])).await;
    store.journal.close().await;
    let dir = tempfile::tempdir().unwrap();
    copy(store.dir.path(), dir.path());
    fs::remove_file(dir.path().join("journal.meta")).unwrap();
    let clock: Arc<dyn Clock> = store.clock.clone();
    let opened = LogJournal::open(&settings(dir.path(), 64 << 20), clock, Metrics::new("test"));
    assert!(matches!(opened, Err(OpenError::NoMeta)));
}
