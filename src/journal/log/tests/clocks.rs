//! Windows and retention, whatever the wall clock is set to.

use super::*;

const DAY: Duration = Duration::from_secs(86_400);
const YEARS: Duration = Duration::from_secs(10 * 365 * 86_400);

impl Store {
    /// Closed, and opened again at what `clock` says.
    async fn reopened(self, clock: ManualClock) -> Self {
        self.journal.close().await;
        let dir = tempfile::tempdir().unwrap();
        copy(self.dir.path(), dir.path());
        let clock = Arc::new(clock);
        let journal = open(dir.path(), &clock, 64 << 20);
        Self { dir, clock, journal }
    }

    async fn is_duplicate(&self, key: u8) -> bool {
        matches!(self.append(entry(b"x", Some(key), &["app"])).await, Appended::Duplicate { .. })
    }

    /// Both edges of a window of which so much is left.
    async fn ends_after(&self, left: Duration, key: u8) {
        self.clock.pass(left.saturating_sub(Duration::from_millis(1)));
        assert!(self.is_duplicate(key).await, "the window is not over yet");
        self.clock.pass(Duration::from_millis(1));
        assert!(!self.is_duplicate(key).await, "the window is over");
    }
}

/// The clock of the same run of the machine, so much later, with the wall clock set to something.
fn stepped(later: Duration, wall: UnixMillis) -> ManualClock {
    let clock = ManualClock::at(T0.plus(later));
    clock.step(wall);
    clock
}

#[tokio::test]
async fn setting_the_clock_while_running_moves_no_window() {
    for wall in [T0.plus(DAY * 10), T0.minus(YEARS), T0.plus(HOUR), T0.minus(HOUR)] {
        let store = Store::new();
        store.append(entry(b"x", Some(1), &["app"])).await;
        store.clock.step(wall);
        store.ends_after(HOUR, 1).await;
    }
}

#[tokio::test]
async fn setting_the_clock_while_closed_moves_no_window_either() {
    for wall in [T0.plus(DAY * 10), T0.minus(YEARS)] {
        let store = Store::new();
        store.append(entry(b"x", Some(1), &["app"])).await;
        let store = store.reopened(stepped(HOUR / 4, wall)).await;
        let crashed = store.crashed(); // no mark of its own, and the clock as it is
        store.ends_after(HOUR - HOUR / 4, 1).await;
        assert!(crashed.is_duplicate(1).await);
    }
}

/// Where the machine was restarted, the wall clock is all there is: what is true then, and what is not.
#[tokio::test]
async fn after_a_restart_of_the_machine_the_wall_clock_says_how_long_it_took() {
    let half = HOUR / 2;
    for (wall, left) in [(T0.plus(half), half), (T0.minus(YEARS), HOUR)] {
        let store = Store::new();
        store.append(entry(b"x", Some(1), &["app"])).await;
        let store = store.reopened(ManualClock::rebooted(wall, 2)).await;
        store.ends_after(left, 1).await;
    }
    let store = Store::new();
    store.append(entry(b"x", Some(1), &["app"])).await;
    let store = store.reopened(ManualClock::rebooted(T0.plus(DAY * 10), 2)).await;
    assert!(!store.is_duplicate(1).await, "a clock that is ahead after a restart ends windows");
}

/// A machine without a clock of its own: it starts in the past, and is set right while it runs.
#[tokio::test]
async fn a_clock_that_was_set_right_does_not_count_again_after_a_restart() {
    let store = Store::new();
    store.append(entry(b"x", Some(1), &["app"])).await;
    store.clock.step(T0.plus(YEARS));
    let store = store.reopened(ManualClock::rebooted(T0.plus(YEARS + HOUR / 2), 2)).await;
    store.ends_after(HOUR / 2, 1).await;
}

/// While it runs it writes down what the clocks say, so that after a power cut, too, only what was set since then counts.
#[tokio::test]
async fn a_clock_that_was_set_right_does_not_count_again_after_a_power_cut_either() {
    let store = Store::new();
    store.append(entry(b"x", Some(1), &["app"])).await;
    store.clock.step(T0.plus(YEARS));
    store.clock.pass(HOUR / 4);
    store.journal.trim(Retention { delivered: YEARS, dead: YEARS }).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    copy(store.dir.path(), dir.path());
    let clock = Arc::new(ManualClock::rebooted(T0.plus(YEARS + HOUR / 2), 2));
    let journal = open(dir.path(), &clock, 64 << 20);
    Store { dir, clock, journal }.ends_after(HOUR / 2, 1).await;
}

#[tokio::test]
async fn setting_the_clock_ahead_lets_go_of_nothing_early() {
    let store = Store::sized(SMALL);
    let mut events = Vec::new();
    for number in 0..3u8 {
        events.push(fresh(store.append(entry(&[number; 100], None, &["app"])).await));
    }
    let ids: Vec<_> = store.pending("app").await.iter().map(|pending| pending.id).collect();
    store.clock.step(T0.minus(YEARS)); // what happens now is not old for that
    store.settle(ids[0], 1, Verdict::Delivered).await;
    store.settle(ids[1], 1, Verdict::Dead(DeadReason::GaveUp)).await;
    let keep = Retention { delivered: DAY, dead: DAY * 3 };
    let kept = |number: usize| store.journal.event(events[number]);
    let trim = async || {
        store.journal.trim(keep).await.unwrap(); // begins a new segment
        store.journal.trim(keep).await.unwrap();
    };

    store.clock.step(T0.plus(YEARS));
    store.clock.pass(HOUR * 23);
    trim().await;
    for number in 0..3 {
        assert!(kept(number).await.unwrap().is_some(), "{number}");
    }
    store.clock.pass(HOUR * 2);
    trim().await;
    assert!(kept(0).await.unwrap().is_none(), "delivered, and past its day");
    assert_eq!(store.journal.stats().lanes[0].dead, 1);
    store.clock.pass(DAY * 4);
    trim().await;
    assert_eq!((store.journal.stats().lanes[0].dead, store.pending("app").await.len()), (0, 1));
}

/// The wall clock's times go to the application and the lists; the journal's own go nowhere.
#[tokio::test]
async fn what_an_operator_reads_is_the_wall_clock() {
    let store = Store::new();
    let kept = fresh(store.append(entry(b"x", Some(1), &["app"])).await);
    let id = store.pending("app").await[0].id;
    store.settle(id, 1, Verdict::Dead(DeadReason::GaveUp)).await;
    store.clock.step(T0.plus(YEARS));
    store.journal.rearm(kept, None, Rearm::Replay).await.unwrap();
    assert_eq!(store.pending("app").await[0].since, T0.plus(YEARS), "`max_age` counts from here, by the wall clock");
    store.append(entry(b"x", Some(1), &["app"])).await;
    let changes = store.journal.changes(Position::START, 100).await.unwrap().changes;
    let told = changes.iter().find_map(|change| match change {
        Change::Duplicate { at, .. } => Some(*at),
        _ => None,
    });
    assert_eq!(told, Some(T0.plus(YEARS)));
}
