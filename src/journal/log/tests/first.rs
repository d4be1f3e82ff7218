//! Events that the application was asked about before they were appended: proxy mode's side of the journal.

use super::faults::on_failing_disk;
use super::*;
use crate::journal::{FirstAttempt, Pause, Relayed, Reserved};

fn asked(key: u8, attempt: FirstAttempt) -> Entry {
    let told = Relayed { status: 201, content_type: None, body: Some(Bytes::from_static(b"made")) };
    Entry { attempt: Some(attempt), relayed: Some(told), ..entry(&[key], Some(key), &["app", "audit"]) }
}

fn over(verdict: Verdict) -> FirstAttempt {
    FirstAttempt::Over(attempt(1), verdict)
}

fn claim(key: u8, fingerprint: u64) -> Claim {
    Claim { fingerprint, ..entry(&[key], Some(key), &[]).claim.unwrap() }
}

#[tokio::test]
async fn an_attempt_made_before_counts_as_the_first_also_after_a_crash() {
    let store = Store::new();
    let later = T0.plus(Duration::from_secs(9));
    let outcomes = [
        over(Verdict::Delivered),
        over(Verdict::Refused),
        over(Verdict::Dead(DeadReason::GaveUp)),
        over(Verdict::RetryAt(later)),
        FirstAttempt::UnderWay(T0),
    ];
    let mut kept = Vec::new();
    for (key, outcome) in (1..).zip(outcomes) {
        kept.push(fresh(store.append(asked(key, outcome)).await));
    }
    for store in [&store.crashed(), &store] {
        let pending = store.pending("app").await;
        let waits: Vec<_> = pending.iter().map(|p| (p.id.event, p.attempts, p.not_before, p.reason)).collect();
        let expected =
            [(kept[3].id, 1, Some(later), AttemptReason::Retry), (kept[4].id, 1, None, AttemptReason::Retry)];
        assert_eq!(waits, expected);
        assert_eq!(store.pending("audit").await.len(), 5, "other routes are not concerned");
        let read = store.journal.event(kept[0]).await.unwrap().unwrap();
        assert_eq!(read.relayed.unwrap().body.as_deref(), Some(&b"made"[..]));
        let lane = store.journal.stats().lanes.into_iter().find(|lane| lane.destination.as_str() == "app").unwrap();
        assert_eq!((lane.pending, lane.dead), (2, 1));
    }
    let store = store.crashed();
    let app = Some(Name::new("app").unwrap());
    for event in [kept[0], kept[1]] {
        assert_eq!(store.journal.rearm(event, app.clone(), Rearm::Duplicate).await.unwrap(), [], "nothing is dead");
        assert_eq!(store.journal.rearm(event, app.clone(), Rearm::Replay).await.unwrap().len(), 1);
    }
    let replayed: Vec<_> = store.pending("app").await.iter().map(|p| (p.id.event, p.attempts)).collect();
    assert!(replayed.contains(&(kept[0].id, 1)) && replayed.contains(&(kept[1].id, 1)), "the next is number 2");
}

#[tokio::test]
async fn the_end_of_an_attempt_that_was_under_way_is_recorded_without_a_lane() {
    let store = Store::new();
    let later = T0.plus(Duration::from_secs(9));
    let ends = [Verdict::Delivered, Verdict::RetryAt(later), Verdict::Dead(DeadReason::TooOld)];
    let mut ids = Vec::new();
    for (key, verdict) in (1..).zip(ends) {
        let event = fresh(store.append(asked(key, FirstAttempt::UnderWay(T0))).await);
        let delivery = DeliveryId { event: event.id, index: 0 };
        ids.push(delivery);
        store.journal.report(Settled { delivery, attempt: Some(attempt(1)), verdict }).await.unwrap();
    }
    for store in [&store.crashed(), &store] {
        let pending = store.pending("app").await;
        let waits: Vec<_> = pending.iter().map(|p| (p.id, p.attempts, p.not_before)).collect();
        assert_eq!(waits, [(ids[1], 1, Some(later))]);
    }
    let nobodys = DeliveryId { event: EventId::from_bytes([9; 16]), index: 0 };
    let settled = Settled { delivery: nobodys, attempt: None, verdict: Verdict::Delivered };
    assert!(matches!(store.journal.report(settled).await, Err(JournalError::Unknown)));
}

#[tokio::test]
async fn a_key_is_free_until_an_event_holds_it_and_then_every_look_is_a_duplicate() {
    let store = Store::new();
    assert_eq!(store.journal.reserve(&claim(1, 1)).await.unwrap(), Reserved::Free);
    assert_eq!(store.journal.reserve(&claim(1, 1)).await.unwrap(), Reserved::Free, "nothing was claimed");
    let kept = fresh(store.append(asked(1, over(Verdict::Dead(DeadReason::GaveUp)))).await);
    for (fingerprint, conflict) in [(1, false), (2, true)] {
        let seen = store.journal.reserve(&claim(1, fingerprint)).await.unwrap();
        assert!(matches!(seen, Reserved::Seen { original, conflict: c } if original.id == kept.id && c == conflict));
    }
    let rearmed: Vec<_> = store.pending("app").await.iter().map(|p| (p.attempts, p.reason)).collect();
    assert_eq!(rearmed, [(1, AttemptReason::Rearm)], "as any duplicate does");
    let changes = store.journal.changes(Position::START, 100).await.unwrap().changes;
    let conflicts: Vec<_> = changes
        .iter()
        .filter_map(|change| if let Change::Duplicate { conflict, .. } = change { Some(*conflict) } else { None })
        .collect();
    assert_eq!(conflicts, [false, true]);
}

#[tokio::test]
async fn what_is_appended_behind_waits_for_no_flush_and_a_durable_duplicate_of_it_does() {
    let (_dir, faults, _clock, journal) = on_failing_disk(64 << 20);
    faults.hold_syncs();
    let kept = fresh(journal.append(asked(1, over(Verdict::Delivered)), Sync::Behind).await.unwrap());
    assert!(journal.event(kept).await.unwrap().is_some());
    let again = tokio::runtime::Handle::current().spawn({
        let journal = journal.clone();
        async move { journal.append(entry(&[1], Some(1), &["app"]), Sync::Durable).await.unwrap() }
    });
    let held = Arc::clone(&faults);
    tokio::task::spawn_blocking(move || held.until_one_is_held()).await.unwrap();
    tokio::task::yield_now().await;
    assert!(!again.is_finished());
    faults.release_syncs();
    let again = again.await.unwrap();
    assert!(matches!(again, Appended::Duplicate { original, .. } if original.id == kept.id));
}

#[tokio::test]
async fn an_answer_that_was_relayed_and_a_refusal_move_with_their_event() {
    let store = Store::sized(4 << 20);
    let kept = fresh(store.append(asked(1, over(Verdict::Refused))).await); // `audit` waits
    for _ in 0..1_000 {
        store.append(entry(&[7; 16 << 10], None, &[])).await;
    }
    for store in [&store.crashed(), &store] {
        let waits = store.pending("audit").await;
        assert_ne!(waits[0].event.at, kept.at, "its record was copied forward");
        let read = store.journal.event(waits[0].event).await.unwrap().unwrap();
        assert_eq!(read.relayed.map(|told| told.status), Some(201));
        assert!(store.pending("app").await.is_empty());
        let app = Some(Name::new("app").unwrap());
        assert_eq!(store.journal.rearm(waits[0].event, app, Rearm::Duplicate).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_pause_outlives_a_crash_and_so_does_its_end() {
    let store = Store::new();
    let [one, two] = ["one", "two"].map(|name| Name::new(name).unwrap());
    for name in [&one, &two, &two] {
        store.journal.pause(name, Pause::Paused).await.unwrap();
    }
    let store = store.crashed();
    assert_eq!(store.journal.paused(), [one.clone(), two.clone()].into());
    store.journal.pause(&one, Pause::Resumed).await.unwrap();
    assert_eq!(store.crashed().journal.paused(), [two].into());
}

/// Whoever waits for deliveries sees an event and what is known of its first attempt together, also where a segment ends.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_never_sees_an_event_without_its_first_attempt() {
    const EVENTS: usize = 1_500;
    let store = Store::sized(8 << 20);
    let later = T0.plus(Duration::from_secs(9));
    fresh(store.append(entry(b"0", None, &["app"])).await);
    let (journal, lane) = (store.journal.clone(), store.lane("app"));
    let owner = tokio::runtime::Handle::current().spawn(async move {
        let (mut after, mut seen) = (Position::START, Vec::new());
        while seen.len() <= EVENTS {
            let batch = journal.pending(&lane, after, 1_000).await.unwrap();
            after = batch.next;
            seen.extend(batch.deliveries.iter().map(|pending| (pending.attempts, pending.not_before)));
        }
        seen
    });
    let long = Attempt { answer: Bytes::from(vec![b'x'; 1024]), ..attempt(1) };
    for _ in 0..EVENTS {
        let attempt = Some(FirstAttempt::Over(long.clone(), Verdict::RetryAt(later)));
        fresh(store.append(Entry { attempt, ..entry(b"body", None, &["app"]) }).await);
    }
    let seen = owner.await.unwrap();
    assert_eq!(seen.first(), Some(&(0, None)), "the one that nobody was asked about");
    assert!(seen.iter().skip(1).all(|seen| *seen == (1, Some(later))));
}
