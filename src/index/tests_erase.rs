//! What is erased is in no file of the index, whatever its pages have been through.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::script::{Script, T0, event_at};
use super::{EventStatus, Index};
use crate::base::Tasks;
use crate::event::{Attempt, AttemptReason, DeliveryId, DeliveryStatus, Event, EventId};
use crate::journal::{Change, Journal as _, Settled, Verdict};

fn word(number: usize) -> String {
    format!("canary{number:06}")
}

/// The numbers of the events whose word is in a file of the index.
fn told(dir: &Path) -> Vec<usize> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let mut numbers: Vec<usize> = Vec::new();
    for bytes in files {
        let found = bytes.windows(12).filter(|window| window.starts_with(b"canary"));
        numbers.extend(found.filter_map(|window| std::str::from_utf8(&window[6..]).ok()?.parse::<usize>().ok()));
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn answered(journal: &Script, event: EventId, number: u32, answer: String) {
    let attempt = Attempt {
        number,
        reason: AttemptReason::Retry,
        started_at: T0,
        took: Duration::ZERO,
        status: Some(500),
        error: None,
        answer: Bytes::from(answer),
    };
    let delivery = DeliveryId { event, index: 0 };
    journal.push(Change::Settled(Settled { delivery, attempt: Some(attempt), verdict: Verdict::RetryAt(T0) }));
}

/// Rows are moved from page to page as others come between them, and SQLite leaves what it moved where it was.
#[tokio::test]
async fn nothing_of_an_erased_event_is_left_in_pages_that_its_rows_were_moved_from() {
    const EVENTS: usize = 1200;
    let mut random = fastrand::Rng::with_seed(7);
    let (dir, tasks, journal) = (tempfile::tempdir().unwrap(), Tasks::new(), Script::new());
    let index = Index::open(dir.path(), [1; 16], journal.clone(), Default::default(), &tasks);
    let mut ids = Vec::new();
    for number in 0..EVENTS {
        let text = word(number);
        let event = Event {
            kind: Some(text.as_str().into()),
            path: text.repeat(random.usize(1..4)).into(),
            ..event_at(i64::try_from(number).unwrap())
        };
        ids.push(journal.keep(&event, &["app"]));
        for _ in 0..2 {
            let other = random.usize(number.saturating_sub(50)..=number);
            answered(&journal, ids[other], random.u32(1..9), word(other).repeat(random.usize(1..60)));
        }
        if number % 100 == 0 {
            index.catch_up().await.unwrap();
        }
    }
    index.catch_up().await.unwrap();
    assert_eq!(told(dir.path()).len(), EVENTS);

    for (number, id) in ids.iter().enumerate().filter(|(number, _)| number % 3 != 0) {
        let located = index.locate(*id).await.unwrap().unwrap();
        journal.erase(located).await.unwrap();
        if number % 200 == 1 {
            index.catch_up().await.unwrap();
        }
    }
    index.catch_up().await.unwrap();
    let left: Vec<usize> = (0..EVENTS).filter(|number| number % 3 == 0).collect();
    let is_left = |dir: &Path| told(dir).into_iter().filter(|number| number % 3 != 0).collect::<Vec<_>>();
    assert_eq!(is_left(dir.path()), Vec::<usize>::new());
    assert_eq!(told(dir.path()), left);

    let erased = index.show(ids[1]).await.unwrap().unwrap();
    assert_eq!((erased.item.status, erased.item.kind, erased.item.path.as_str()), (EventStatus::Erased, None, ""));
    assert_eq!((erased.item.deliveries[0].status, erased.attempts[0].len()), (DeliveryStatus::Purged, 0));
    let kept = index.show(ids[3]).await.unwrap().unwrap();
    assert_eq!((kept.item.status, kept.item.kind), (EventStatus::Pending, Some(word(3))));
    let counts = index.counts().await.unwrap();
    assert_eq!(counts, [(EventStatus::Pending, 400), (EventStatus::Erased, 800)]);
    tasks.stop();
    tasks.ended().await;
    assert_eq!(is_left(dir.path()), Vec::<usize>::new());
}
