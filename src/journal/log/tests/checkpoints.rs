//! A journal that is opened from its checkpoint is the same, in every way that can be seen, as one that read its whole log.

mod dying;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::journal::log::checkpoint;
use crate::journal::log::entry::Entry as Standings;

const SMALL: u64 = 4 << 20;
const FILE: &str = "checkpoint";
const KEYS: u8 = 12;

/// Everything that can be seen of a journal, the sizes of its files aside.
async fn seen(store: &Store) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    {
        let state = store.journal.state();
        let name = |route| {
            let route = state.routes.get(route).unwrap();
            format!("{}>{}", route.source, route.destination)
        };
        for (number, segment) in &state.segments {
            let entry = |(at, entry): (u32, &Standings)| {
                format!("{:?} {} {}", entry.standing(), name(entry.route()), segment.attempts(at))
            };
            let entries: Vec<_> = (0u32..).zip(&segment.entries).map(entry).collect();
            let waits: BTreeMap<_, _> = segment.pending_by_route.iter().map(|(route, n)| (name(*route), *n)).collect();
            let facts = (segment.end, segment.events, segment.event_bytes, segment.pending, segment.dead);
            let times = (segment.made_at, segment.newest, segment.newest_dead);
            let classes = segment.classes.as_bytes();
            seen.insert(format!("segment {number}"), format!("{facts:?} {times:?} {entries:?} {waits:?} {classes:?}"));
        }
        for number in 0..state.routes.names().count() {
            let route = state.routes.get(u16::try_from(number).unwrap()).unwrap();
            let counts = (route.pending, route.dead, route.unsettled.load(Ordering::Relaxed));
            let since = (route.there_since, route.orphans_until);
            seen.insert(format!("route {}>{}", route.source, route.destination), format!("{counts:?} {since:?}"));
        }
        for (id, active) in state.active.iter().filter(|(id, active)| !active.progress.is_fresh(**id)) {
            seen.insert(format!("under way {id}"), format!("{active:?}"));
        }
        seen.insert("tail".into(), format!("{:?}", state.tail));
    }
    let mut stats = store.journal.stats();
    stats.lanes.sort_by(|one, other| one.destination.cmp(&other.destination));
    stats.lanes.iter_mut().for_each(|lane| lane.orphaned.sort());
    (stats.bytes, stats.share_bytes) = (0, None);
    seen.insert("stats".into(), format!("{stats:?}"));
    for lane in stats.lanes {
        let waits: Vec<_> = store.pending(lane.destination.as_str()).await;
        for pending in &waits {
            let kept = store.journal.event(pending.event).await.unwrap();
            seen.insert(
                format!("delivery {}", pending.id),
                format!("{pending:?} {:?}", kept.map(|kept| kept.event.body.len())),
            );
        }
    }
    let mut after = Position::START;
    loop {
        let changes = store.journal.changes(after, 100).await.unwrap();
        if changes.changes.is_empty() && changes.next == after {
            break;
        }
        for (number, change) in changes.changes.iter().enumerate() {
            seen.insert(format!("change {after:?} {number}"), format!("{change:?}"));
        }
        after = changes.next;
    }
    for key in 0..KEYS {
        let claim = entry(b"", Some(key), &[]).claim.unwrap();
        seen.insert(format!("claim {key}"), format!("{:?}", store.journal.reserve(&claim).await.unwrap()));
    }
    seen
}

/// The store's directory as it is now, opened as a copy of it: with what `change` does to it before that.
fn copied(store: (&Path, &ManualClock), change: impl FnOnce(&Path)) -> Store {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(store.1.copied()));
    copy(store.0, dir.path());
    change(dir.path());
    let journal = open(dir.path(), &clock, SMALL);
    Store { dir, clock, journal }
}

/// Ends a journal as a crash does, but for what is written in the background: that is waited for.
async fn crash(journal: LogJournal) {
    let gauges = Arc::clone(&journal.shared.gauges);
    drop(journal);
    while Arc::strong_count(&gauges) > 1 {
        tokio::task::yield_now().await;
    }
}

fn without(dir: &Path) {
    let _ = fs::remove_file(dir.join(FILE)); // there may be none
}

fn routes(mask: u8) -> Routes {
    let name = |name: &str| Name::new(name).unwrap();
    let pairs = ["app", "audit", "late"].into_iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0);
    let to: Vec<_> = pairs.map(|(_, to)| name(to)).collect();
    Routes::to(["app", "audit", "late"].map(name)).with(name("acme"), to.clone()).with(name("beta"), to)
}

#[derive(Clone, Debug)]
enum Step {
    Append { beta: bool, to: u8, key: Option<u8>, bytes: usize },
    Attempt { to: usize, which: usize, verdict: Option<Verdict> },
    Replay { which: usize },
    Routes { mask: u8 },
    Trim { hours: u32 },
    Crash,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        Just(None),
        Just(Some(Verdict::Delivered)),
        Just(Some(Verdict::RetryAt(T0.plus(HOUR)))),
        Just(Some(Verdict::Dead(DeadReason::GaveUp))),
        Just(Some(Verdict::Refused)),
    ];
    let append = (any::<bool>(), 0u8..8, proptest::option::of(0..KEYS), 10usize..40_000);
    prop_oneof![
        12 => append.prop_map(|(beta, to, key, bytes)| Step::Append { beta, to, key, bytes }),
        8 => (0usize..3, any::<usize>(), verdict).prop_map(|(to, which, verdict)| Step::Attempt { to, which, verdict }),
        2 => any::<usize>().prop_map(|which| Step::Replay { which }),
        1 => (0u8..8).prop_map(|mask| Step::Routes { mask }),
        1 => (0u32..400).prop_map(|hours| Step::Trim { hours }),
        1 => Just(Step::Crash),
        1 => Just(Step::Close),
    ]
}

/// A store that goes through a history.
struct History {
    dir: TempDir,
    clock: Arc<ManualClock>,
    journal: Option<LogJournal>,
    kept: Vec<Located>,
    routes: u8,
    /// Checkpoints that there were.
    old: Vec<Vec<u8>>,
}

impl History {
    fn new() -> Self {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::at(T0)));
        let journal = Some(open(dir.path(), &clock, SMALL));
        Self { dir, clock, journal, kept: Vec::new(), routes: 7, old: Vec::new() }
    }

    fn journal(&self) -> &LogJournal {
        self.journal.as_ref().unwrap()
    }

    async fn go(&mut self, step: Step) {
        match step {
            Step::Append { beta, to, key, bytes } => {
                let to: Vec<_> =
                    ["app", "audit", "late"].into_iter().enumerate().filter(|(bit, _)| to & (1 << bit) != 0).collect();
                let to: Vec<_> = to.into_iter().map(|(_, to)| to).collect();
                let mut entry = entry(&vec![7; bytes], key, &to);
                if beta {
                    let mut event = event(&vec![8; bytes]);
                    event.source = Name::new("beta").unwrap();
                    entry.event = VerifiedEvent::assumed(event);
                }
                match self.journal().append(entry, Sync::Durable).await {
                    Ok(Appended::Fresh(kept)) => self.kept.push(kept),
                    Ok(_) | Err(AppendError::Full { .. } | AppendError::OverShare { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Attempt { to, which, verdict } => self.attempt(to, which, verdict).await,
            Step::Replay { which } => {
                if let Some(at) = self.kept.get(which % self.kept.len().max(1)) {
                    drop(self.journal().rearm(*at, None, Rearm::Replay).await); // it may be gone
                }
            }
            Step::Routes { mask } => {
                self.routes = mask;
                self.journal().set_routes(routes(mask)).await.unwrap();
            }
            Step::Trim { hours } => {
                self.clock.pass(HOUR * hours);
                self.journal().trim(Retention::default()).await.unwrap();
            }
            Step::Crash => self.reopen(false).await,
            Step::Close => self.reopen(true).await,
        }
    }

    async fn attempt(&self, to: usize, which: usize, verdict: Option<Verdict>) {
        let lane = self.journal().lanes().borrow().get(to).cloned();
        let Some(lane) = lane else { return };
        let waits =
            self.journal().stats().lanes.iter().any(|stats| stats.destination == lane.destination && stats.pending > 0);
        if !waits {
            return;
        }
        let (mut found, mut after) = (Vec::new(), Position::START);
        while found.is_empty() {
            let batch = self.journal().pending(&lane, after, 20).await.unwrap();
            (found, after) = (batch.deliveries, batch.next);
        }
        let pending = &found[which % found.len()];
        let number = pending.attempts + 1;
        self.journal().start(&lane, pending.id, number).await.unwrap();
        if let Some(verdict) = verdict {
            let settled = Settled { delivery: pending.id, attempt: Some(attempt(number)), verdict };
            self.journal().settle(&lane, settled).await.unwrap();
        }
    }

    /// Ends the journal one way or the other, compares, and opens it again.
    async fn reopen(&mut self, cleanly: bool) {
        let journal = self.journal.take().unwrap();
        if cleanly {
            journal.close().await;
        }
        crash(journal).await;
        self.compare().await;
        self.old.extend(fs::read(self.dir.path().join(FILE)).ok());
        let journal = open(self.dir.path(), &self.clock, SMALL);
        journal.set_routes(routes(self.routes)).await.unwrap();
        self.journal = Some(journal);
    }

    async fn compare(&self) {
        let here = (self.dir.path(), &*self.clock);
        let plain = copied(here, without);
        plain.journal.set_routes(routes(self.routes)).await.unwrap();
        let plain = seen(&plain).await;
        let past = self.old.iter().rev().take(2).map(Some);
        for old in std::iter::once(None).chain(past) {
            let other = copied(here, |dir| old.into_iter().for_each(|old| fs::write(dir.join(FILE), old).unwrap()));
            other.journal.set_routes(routes(self.routes)).await.unwrap();
            let other = seen(&other).await;
            for (what, plain) in &plain {
                assert_eq!(other.get(what), Some(plain), "{what}; an old one: {}", old.is_some());
            }
            assert_eq!(plain.len(), other.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 12 } else { 200 }))]

    #[test]
    fn opening_from_a_checkpoint_is_like_reading_everything(steps in proptest::collection::vec(step(), 20..160)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut history = History::new();
            for step in steps {
                history.go(step).await;
            }
            history.reopen(false).await;
            history.reopen(true).await;
        });
    }
}

/// A closed journal with a little of everything.
async fn closed() -> (TempDir, Arc<ManualClock>) {
    let store = Store::sized(SMALL);
    for number in 0..8 {
        store.append(entry(&[number; 100], Some(number), &["app", "audit"])).await;
    }
    let ids: Vec<_> = store.pending("app").await.iter().map(|pending| pending.id).collect();
    store.settle(ids[0], 1, Verdict::Delivered).await;
    store.settle(ids[1], 1, Verdict::RetryAt(T0.plus(HOUR))).await;
    store.settle(ids[2], 1, Verdict::Dead(DeadReason::GaveUp)).await;
    store.journal.close().await;
    let Store { dir, clock, journal } = store;
    crash(journal).await;
    (dir, clock)
}

fn loads(dir: &Path) -> Result<bool, checkpoint::Unfit> {
    let disk = RealDisk::new(dir);
    let meta = Meta::open(&disk).unwrap();
    let mut files: Vec<_> =
        disk.list("log").unwrap().iter().map(|(name, bytes)| (segment::number_of(name).unwrap(), *bytes)).collect();
    files.sort_unstable();
    let fresh = || State::new(1, routes::Known::default());
    checkpoint::load(&disk, meta.store, &files, fresh).map(|loaded| loaded.is_some())
}

#[tokio::test]
async fn a_checkpoint_with_any_byte_flipped_or_cut_anywhere_is_passed_over() {
    let (dir, clock) = closed().await;
    assert!(loads(dir.path()).unwrap());
    let file = dir.path().join(FILE);
    let whole = fs::read(&file).unwrap();
    let plain = seen(&copied((dir.path(), &clock), without)).await;
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        for bytes in [&flipped[..], &whole[..at]] {
            fs::write(&file, bytes).unwrap();
            assert!(loads(dir.path()).is_err(), "at {at}, {} bytes", bytes.len());
            if at % 61 == 0 {
                assert_eq!(seen(&copied((dir.path(), &clock), |_| ())).await, plain);
            }
        }
    }
    fs::write(&file, [&whole[..], b"x"].concat()).unwrap();
    assert!(loads(dir.path()).is_err());
}

/// What a crash tore stays at the end of its segment: checkpoints after that are believed all the same.
#[tokio::test]
async fn a_checkpoint_that_knows_of_a_torn_write_is_believed() {
    let (dir, clock) = closed().await;
    fs::remove_file(dir.path().join(FILE)).unwrap();
    let log = dir.path().join(segment::path(1));
    let bytes = fs::read(&log).unwrap();
    fs::write(&log, &bytes[..bytes.len() - 20]).unwrap();
    let settings = settings(dir.path(), SMALL);
    let journal = LogJournal::open(&settings, clock, Metrics::new("test")).unwrap();
    journal.close().await;
    crash(journal).await;
    assert!(loads(dir.path()).unwrap());
    let bytes = fs::read(&log).unwrap();
    fs::write(&log, &bytes[..bytes.len() - 8]).unwrap();
    assert!(matches!(loads(dir.path()), Err(checkpoint::Unfit::Elsewhere(_))));
}

#[tokio::test]
async fn a_checkpoint_that_the_log_does_not_bear_out_is_passed_over() {
    let (dir, clock) = closed().await;
    let segment = dir.path().join(segment::path(1));
    let whole = fs::read(&segment).unwrap();
    let plain = seen(&copied((dir.path(), &clock), without)).await;

    fs::write(&segment, &whole[..whole.len() - 8]).unwrap(); // its end is gone
    assert!(matches!(loads(dir.path()), Err(checkpoint::Unfit::Elsewhere(_))));
    let mut other = whole.clone();
    *other.last_mut().unwrap() ^= 1; // another record stands there
    fs::write(&segment, &other).unwrap();
    assert!(matches!(loads(dir.path()), Err(checkpoint::Unfit::Elsewhere(_))));
    fs::write(&segment, &whole).unwrap();
    assert!(loads(dir.path()).unwrap());

    let elsewhere = closed().await; // another store's
    fs::copy(elsewhere.0.path().join(FILE), dir.path().join(FILE)).unwrap();
    assert!(matches!(loads(dir.path()), Err(checkpoint::Unfit::Foreign)));
    assert_eq!(seen(&copied((dir.path(), &clock), |_| ())).await, plain);
}

#[tokio::test]
async fn a_segment_that_is_missing_is_noticed_although_it_is_not_read() {
    let store = Store::sized(SMALL);
    for number in 0..60u8 {
        store.append(entry(&[number; 10_000], Some(number), &["app"])).await;
    }
    store.journal.close().await;
    let Store { dir, clock, journal } = store;
    crash(journal).await;
    for number in 2..=4 {
        let lost = copied((dir.path(), &clock), |dir| fs::remove_file(dir.join(segment::path(number))).unwrap());
        let stats = lost.journal.stats();
        assert_eq!(stats.damaged, 1);
        assert!((40..55).contains(&stats.lanes[0].pending), "{stats:?}");
        assert_eq!(lost.pending("app").await.len() as u64, stats.lanes[0].pending);
    }
}

/// Places are few, and what there was once is in every checkpoint: see `ROUTES_MAX`.
#[tokio::test]
async fn a_route_without_deliveries_is_forgotten() {
    let store = Store::sized(SMALL);
    store.append(entry(b"goes", None, &["late"])).await;
    let (lane, delivery) = (store.lane("late"), store.pending("late").await[0].id);
    store.journal.start(&lane, delivery, 1).await.unwrap();
    let settled = Settled { delivery, attempt: Some(attempt(1)), verdict: Verdict::Delivered };
    store.journal.settle(&lane, settled).await.unwrap();
    store.clock.pass(HOUR * 24 * 30);
    store.journal.trim(Retention::default()).await.unwrap();
    store.append(entry(b"stays", None, &["app"])).await;
    store.journal.close().await;
    let Store { dir, clock, journal } = store;
    crash(journal).await;
    assert!(loads(dir.path()).unwrap());
    let (plain, other) = (copied((dir.path(), &clock), without), copied((dir.path(), &clock), |_| ()));
    let lanes: Vec<_> = other.journal.stats().lanes.iter().map(|lane| lane.destination.to_string()).collect();
    assert_eq!(lanes, ["app"]);
    assert_eq!(seen(&other).await, seen(&plain).await);
}

/// The claims' directory is an older one than the checkpoint: what is in none of its runs is read from the log again.
#[tokio::test]
async fn claims_that_went_back_in_time_are_read_again() {
    let (dir, clock) = closed().await;
    let old = tempfile::tempdir().unwrap();
    copy(&dir.path().join("claims"), old.path());
    let journal = open(dir.path(), &clock, SMALL);
    journal.append(entry(b"later", Some(100), &["app"]), Sync::Durable).await.unwrap();
    journal.close().await;
    crash(journal).await;
    fs::remove_dir_all(dir.path().join("claims")).unwrap();
    fs::create_dir(dir.path().join("claims")).unwrap();
    copy(old.path(), &dir.path().join("claims"));
    let store = copied((dir.path(), &clock), |_| ());
    assert!(loads(dir.path()).unwrap());
    // Nothing but claims is taken from what is read a second time.
    assert_eq!(seen(&store).await, seen(&copied((dir.path(), &clock), without)).await);
    let again = store.append(entry(b"later", Some(100), &["app"])).await;
    assert!(matches!(again, Appended::Duplicate { .. }), "{again:?}");
}
