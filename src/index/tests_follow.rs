use tempfile::TempDir;

use super::script::{Script, T0, event_at, name_of};
use super::*;
use crate::base::UnixMillis;
use crate::event::{DeliveryStatus, Event};

struct Bench {
    _dir: TempDir,
    journal: Script,
    _tasks: Tasks,
    index: Index,
}

impl Bench {
    fn new() -> Self {
        let (dir, journal, tasks) = (TempDir::new().unwrap(), Script::new(), Tasks::new());
        let index = Index::open(dir.path(), [7; 16], journal.clone(), Default::default(), &tasks);
        Self { _dir: dir, journal, _tasks: tasks, index }
    }

    async fn keep(&self, events: &[Event]) {
        for event in events {
            self.journal.keep(event, &["app"]);
        }
        self.index.catch_up().await.unwrap();
    }

    async fn mark(&self, start: Start) -> Mark {
        self.index.mark(start).await.unwrap().0
    }

    async fn from(&self, start: Start) -> Vec<EventId> {
        let batch = self.index.from_mark(self.mark(start).await, Filter::default()).await.unwrap();
        batch.items.iter().map(|item| item.located.id).collect()
    }
}

fn ids(events: &[Event]) -> Vec<EventId> {
    events.iter().map(|event| event.id).collect()
}

#[tokio::test]
async fn events_are_followed_in_the_order_in_which_they_were_kept_not_received() {
    let bench = Bench::new();
    assert_eq!(bench.index.mark(Start::Newest).await.unwrap().1, None, "there is nothing before the first");
    let events = [event_at(5), event_at(3), event_at(9), event_at(1)];
    bench.keep(&events).await;
    assert_eq!(bench.from(Start::After(events[0].id)).await, ids(&events[1..]));
    assert_eq!(bench.from(Start::After(events[3].id)).await, []);
    assert_eq!(bench.from(Start::Since(UnixMillis(T0.0))).await, ids(&events));
    assert_eq!(bench.from(Start::Since(UnixMillis(T0.0 + 9))).await, ids(&events[2..]));
    assert_eq!(bench.from(Start::Newest).await, []);
    assert_eq!(bench.index.mark(Start::Newest).await.unwrap().1, Some(events[3].id));
}

#[tokio::test]
async fn a_record_that_moves_moves_no_event_and_hides_none() {
    let bench = Bench::new();
    let events = [event_at(0), event_at(1), event_at(2)];
    bench.keep(&events).await;
    bench.journal.record(&events[0], vec![(name_of("app"), DeliveryStatus::Pending)]);
    bench.index.catch_up().await.unwrap();
    assert_eq!(bench.from(Start::After(events[0].id)).await, ids(&events[1..]));
    assert_eq!(bench.from(Start::Newest).await, []);
}

#[tokio::test]
async fn an_event_that_is_no_longer_kept_is_gone_on_after_by_its_time() {
    let bench = Bench::new();
    let gone = event_at(4);
    bench.keep(&[event_at(3), gone.clone()]).await;
    bench.journal.trim_all();
    let events = [event_at(4), event_at(5)];
    bench.keep(&events).await;
    assert_eq!(bench.from(Start::After(gone.id)).await, ids(&events));
}

#[tokio::test]
async fn a_mark_passes_over_what_does_not_match_and_never_goes_back() {
    let bench = Bench::new();
    let start = bench.mark(Start::Newest).await;
    bench.keep(&[event_at(0), event_at(1)]).await;
    let none = Filter { source: Some(name_of("other")), ..Filter::default() };
    let batch = bench.index.from_mark(start, none.clone()).await.unwrap();
    assert_eq!((batch.items.len(), batch.more), (0, false));
    assert_eq!(batch.next, bench.mark(Start::Newest).await);
    bench.journal.trim_all();
    bench.index.catch_up().await.unwrap();
    assert_eq!(bench.index.from_mark(batch.next, none).await.unwrap().next, batch.next, "although there is none left");

    let one = Filter { limit: 1, ..Filter::default() };
    let events = [event_at(2), event_at(3)];
    bench.keep(&events).await;
    let first = bench.index.from_mark(batch.next, one.clone()).await.unwrap();
    assert!(first.more);
    let second = bench.index.from_mark(first.next, one).await.unwrap();
    assert_eq!((first.items[0].located.id, second.items[0].located.id), (events[0].id, events[1].id));
}

#[tokio::test]
async fn a_follower_is_told_what_has_changed_and_reads_it_as_it_stands() {
    let bench = Bench::new();
    let events = [event_at(0), event_at(1)];
    bench.keep(&events).await;
    let mut follower = bench.index.follow().unwrap();
    let mark = bench.mark(Start::Newest).await;
    bench.journal.deliver(events[0].id, 0);
    let new = event_at(2);
    bench.keep(std::slice::from_ref(&new)).await;
    let changed = follower.changed().await.unwrap();
    assert_eq!(changed, [events[0].id, new.id]);
    let known = bench.index.before_mark(changed, mark, Filter::default()).await.unwrap();
    let known: Vec<_> = known.iter().map(|item| (item.located.id, item.status)).collect();
    assert_eq!(known, [(events[0].id, EventStatus::Delivered)]);
}
