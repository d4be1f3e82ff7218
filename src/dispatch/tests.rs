use super::*;
use crate::base::{ByteSize, ManualClock};
use crate::deliver::{Destination, Way};
use crate::event::EventId;
use crate::journal::log::LogJournal;
use crate::journal::{Located, Pause, Retention, Routes, Settings};
use crate::telemetry::Metrics;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn owner(dir: &std::path::Path) -> Owner<LogJournal> {
    let name = Name::new("app").unwrap();
    let destination = Destination { concurrency: 4, ..Destination::at("http://127.0.0.1:9/") };
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW));
    let settings = Settings {
        dir: dir.to_owned(),
        max_size: ByteSize(64 << 20),
        retention: Retention::default(),
        encryption: Default::default(),
    };
    let metrics = Metrics::new("test");
    let journal = LogJournal::open(&settings, Arc::clone(&clock), metrics.clone()).unwrap();
    let way = Way::new(destination).unwrap();
    let target = Arc::new(Target::new(way, metrics.destination(&name), Pause::Resumed));
    Owner {
        way: target.way(),
        ways: target.ways(),
        routing: journal.routing(),
        sources: BTreeSet::new(),
        changes: 0,
        journal,
        lane: Lane { destination: name.clone(), slot: 0, epoch: 1 },
        line: None,
        turn: None,
        target,
        clock,
        stopping: CancellationToken::new(),
        tasks: Tasks::new(),
        held: HashMap::new(),
        ready: VecDeque::new(),
        waiting: BinaryHeap::new(),
        under_way: FuturesUnordered::new(),
        fetching: None,
        cursor: Position::START,
        not_before: None,
    }
}

fn waiting(number: u64, not_before: Option<UnixMillis>) -> Pending {
    let event = EventId::from_bytes(u128::from(number).to_be_bytes());
    Pending {
        id: DeliveryId { event, index: 0 },
        event: Located { id: event, at: Position(number) },
        entry: 0,
        attempts: 1,
        attempts_before: 0,
        since: NOW,
        not_before,
        reason: AttemptReason::Retry,
    }
}

#[tokio::test]
async fn an_owner_holds_a_bounded_number_and_leaves_the_rest_in_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let mut owner = owner(dir.path());
    let later = Some(NOW.plus(Duration::from_secs(60)));
    for number in 0..HELD_MAX as u64 - 1 {
        owner.hold(waiting(number, later));
        owner.hold(waiting(number, later)); // the journal may give one twice
    }
    owner.fetch();
    assert!(owner.fetching.take().is_some(), "there is room for one more");
    owner.hold(waiting(u64::MAX, later));
    owner.fetch();
    assert!(owner.fetching.is_none(), "and then there is none");
    assert_eq!((owner.held.len(), owner.waiting.len()), (HELD_MAX, HELD_MAX));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_makes_nobody_wait_longer_than_the_longest_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut owner = owner(dir.path());
    owner.hold(waiting(1, Some(NOW.plus(Duration::from_secs(10 * 365 * 86_400)))));
    let retry = owner.target.way().destination.retry.clone();
    tokio::time::advance(retry.max.max(retry.retry_after_max)).await;
    owner.wake();
    assert_eq!(owner.ready.len(), 1);
}

/// P22: whatever the wall clock is set to meanwhile, a retry comes when it was due by the time that passes.
#[tokio::test(start_paused = true)]
async fn setting_the_clock_while_running_moves_no_retry() {
    let (minute, day) = (Duration::from_secs(60), Duration::from_secs(86_400));
    let hour = minute * 60;
    for wall in [NOW.plus(hour), NOW.minus(hour), NOW.minus(day * 3650), NOW.plus(day * 10)] {
        let dir = tempfile::tempdir().unwrap();
        let (mut owner, clock) = (owner(dir.path()), Arc::new(ManualClock::at(NOW)));
        owner.clock = Arc::clone(&clock) as _;
        owner.hold(waiting(1, Some(NOW.plus(minute))));
        clock.step(wall);
        tokio::time::advance(minute - Duration::from_secs(1)).await;
        owner.wake();
        assert_eq!((owner.ready.len(), owner.waiting.len()), (0, 1), "not early");
        tokio::time::advance(Duration::from_secs(1)).await;
        owner.wake();
        assert_eq!((owner.ready.len(), owner.waiting.len()), (1, 0), "not late");
    }
}

/// P22: where the clock was set while nothing ran, a retry that was due is not starved.
#[tokio::test(start_paused = true)]
async fn setting_the_clock_while_closed_starves_no_retry() {
    let hour = Duration::from_secs(3600);
    for (wall, longest) in [(NOW.plus(hour), Duration::ZERO), (NOW.minus(hour), hour + Duration::from_secs(60))] {
        let dir = tempfile::tempdir().unwrap();
        let mut owner = owner(dir.path());
        owner.clock = Arc::new(ManualClock::at(wall));
        owner.hold(waiting(1, Some(NOW.plus(Duration::from_secs(60)))));
        let policy = owner.target.way().destination.retry.clone();
        tokio::time::advance(longest.min(policy.max.max(policy.retry_after_max))).await;
        owner.wake();
        assert_eq!(owner.ready.len(), 1);
    }
}

/// P24: after ten minutes in which nothing ran everything is due at once; it goes out no more at a time than ever.
#[tokio::test(start_paused = true)]
async fn after_a_gap_what_is_due_goes_out_within_the_concurrency() {
    let dir = tempfile::tempdir().unwrap();
    let mut owner = owner(dir.path());
    for number in 0..100 {
        owner.hold(waiting(number, Some(NOW.plus(Duration::from_secs(1 + number)))));
    }
    tokio::time::advance(Duration::from_secs(600)).await;
    owner.wake();
    assert_eq!((owner.ready.len(), owner.waiting.len()), (100, 0));
    owner.launch();
    assert_eq!((owner.under_way.len(), owner.ready.len()), (4, 96));
    owner.wake();
    owner.launch();
    assert_eq!((owner.under_way.len(), owner.ready.len()), (4, 96), "one catch-up");
}

/// A duplicate or an operator rearms a delivery in the moment in which its last attempt is recorded.
#[tokio::test]
async fn a_delivery_that_is_rearmed_before_its_owner_knows_that_it_ended_is_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut owner = owner(dir.path());
    let first = waiting(1, None); // one attempt was made before
    owner.hold(first.clone());
    let under_way = owner.ready.pop_front().unwrap();
    owner.hold(waiting(1, None)); // read again from the log: the same cycle
    owner.hold(Pending { attempts: 2, attempts_before: 2, reason: AttemptReason::Replay, ..first });
    owner.ended(Ended { pending: under_way, result: Ok(Verdict::Dead(DeadReason::TooManyAttempts)) });
    assert_eq!(owner.ready.pop_front().map(|pending| pending.reason), Some(AttemptReason::Replay));

    owner.hold(waiting(2, None));
    let under_way = owner.ready.pop_front().unwrap();
    owner.hold(waiting(2, None));
    owner.ended(Ended { pending: under_way, result: Ok(Verdict::Delivered) });
    assert!(owner.ready.is_empty(), "the same cycle is not gone through twice");
}

#[tokio::test]
async fn an_event_that_cannot_be_read_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut owner = owner(dir.path());
    owner.hold(waiting(1, None));
    owner.hold(waiting(2, None));
    let under_way = owner.ready.pop_front().unwrap();
    let error = JournalError::Read("input/output error".into());
    assert_eq!(owner.ended(Ended { pending: under_way, result: Err(error) }), Standing::Ours);
    assert_eq!((owner.ready.len(), owner.waiting.len(), owner.not_before), (1, 1, None));
}

#[tokio::test]
async fn when_its_routes_change_an_owner_gives_back_what_is_not_under_way_and_reads_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut owner = owner(dir.path());
    let routes = |source: &str| {
        let app = Name::new("app").unwrap();
        Routes::to([app.clone()]).with(Name::new(source).unwrap(), [app])
    };
    owner.hold(waiting(1, None)); // under way
    owner.ready.clear();
    owner.hold(waiting(2, None));
    owner.hold(waiting(3, Some(NOW.plus(Duration::from_secs(60)))));
    owner.cursor = Position(9);
    owner.journal.set_routes(routes("shop")).await.unwrap();
    owner.rerouted();
    assert_eq!((owner.held.len(), owner.ready.len(), owner.waiting.len()), (1, 0, 0));
    assert_eq!((owner.cursor, owner.sources.len()), (Position::START, 1));

    owner.cursor = Position(9);
    owner.journal.set_routes(routes("shop").with(Name::new("other").unwrap(), [])).await.unwrap();
    owner.rerouted();
    assert_eq!(owner.cursor, Position(9), "what leads elsewhere is no concern of this one");

    for source in ["other", "shop"] {
        owner.journal.set_routes(routes(source)).await.unwrap();
    }
    owner.rerouted();
    assert_eq!(owner.cursor, Position::START, "something may have been read while its route was gone");

    // It was given again while it was under way: its route had gone, and is back.
    owner.hold(waiting(1, None));
    owner.ended(Ended { pending: waiting(1, None), result: Err(JournalError::Orphaned) });
    assert_eq!((owner.held.len(), owner.ready.len()), (1, 1));
}

/// What waits for an application that has moved, or whose waits became shorter, does not wait as it was told before.
#[tokio::test(start_paused = true)]
async fn what_waits_goes_by_the_new_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut owner = owner(dir.path());
    let minutes = |count: u64| Duration::from_secs(60 * count);
    owner.hold(waiting(1, Some(NOW.plus(minutes(1)))));
    owner.hold(waiting(2, Some(NOW.plus(minutes(50)))));
    let began = Instant::now();
    let mut waits = |url: &str, longest: Duration| {
        let retry = deliver::RetryPolicy { max: longest, retry_after_max: longest, ..Default::default() };
        owner.target.go(Way::new(Destination { retry, ..Destination::at(url) }).unwrap());
        owner.another_way();
        let mut waits: Vec<_> = owner.waiting.iter().map(|Reverse(waiting)| waiting.until - began).collect();
        waits.sort();
        waits
    };
    assert_eq!(waits("http://127.0.0.1:9/", minutes(60)), [minutes(1), minutes(50)]);
    assert_eq!(waits("http://127.0.0.1:9/", minutes(5)), [minutes(1), minutes(5)]);
    assert_eq!(waits("http://127.0.0.1:10/", minutes(60)), [minutes(0); 2]);
}

/// P33: the attempt is counted before it runs, the owner lives, and the fifth that panics is the last.
#[tokio::test]
async fn an_event_that_makes_attempts_panic_becomes_a_dead_letter() {
    let dir = tempfile::tempdir().unwrap();
    let owner = owner(dir.path());
    let mut event = crate::index::script::event_at(1);
    event.kind = Some("panics".into());
    let app = Name::new("app").unwrap();
    let entry = crate::journal::Entry {
        event: crate::provider::VerifiedEvent::assumed(event),
        claim: None,
        deliveries: vec![crate::journal::NewDelivery { destination: app, path: None }],
        attempt: None,
        relayed: None,
        lease: None,
    };
    owner.journal.append(entry, crate::journal::Sync::Durable).await.unwrap();
    let lane = owner.journal.lanes().borrow()[0].clone();
    let mut pending = owner.journal.pending(&lane, Position::START, 1).await.unwrap().deliveries.remove(0);
    for number in 1..=5 {
        let Asked::Granted(turn) = owner.target.ask(Patience::Any) else { panic!("no turn") };
        let (target, clock) = (Arc::clone(&owner.target), Arc::clone(&owner.clock));
        let ended = deliver(owner.journal.clone(), lane.clone(), target, clock, pending, turn).await;
        pending = ended.pending;
        assert_eq!(pending.attempts, number);
        let dead = matches!(ended.result.unwrap(), Verdict::Dead(DeadReason::TooManyAttempts));
        assert_eq!(dead, number == 5);
    }
    assert_eq!((owner.journal.stats().lanes[0].pending, owner.journal.stats().lanes[0].dead), (0, 1));
}
