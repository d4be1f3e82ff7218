//! P39: a part of the journal that panics is started again, or the journal does not look alive.

use super::faults::on_failing_disk;
use super::*;
use crate::journal::disk::failing::PANIC;

#[tokio::test]
async fn a_writer_that_panics_does_not_look_alive() {
    let (_dir, faults, _clock, journal) = on_failing_disk(64 << 20);
    journal.append(entry(b"1", None, &["app"]), Sync::Durable).await.unwrap();
    faults.refuse("append", PANIC);
    assert!(matches!(journal.append(entry(b"2", None, &["app"]), Sync::Durable).await, Err(AppendError::Closed)));
    let lane = journal.lanes().borrow()[0].clone();
    let id = journal.pending(&lane, Position::START, 9).await.unwrap().deliveries[0].id;
    assert!(matches!(journal.start(&lane, id, 1).await, Err(JournalError::Closed)), "which ends the program");
    while !matches!(journal.room(), Room::Failed(_)) {
        tokio::task::yield_now().await; // the thread unwinds
    }
}

#[tokio::test]
async fn a_reader_that_panics_does_not_look_alive() {
    let (_dir, faults, _clock, journal) = on_failing_disk(64 << 20);
    let kept = fresh(journal.append(entry(b"1", None, &["app"]), Sync::Durable).await.unwrap());
    faults.refuse("read", PANIC);
    assert!(matches!(journal.event(kept).await, Err(JournalError::Closed)), "which ends the program");
    while !matches!(journal.room(), Room::Failed(_)) {
        tokio::task::yield_now().await; // the thread unwinds
    }
}

#[tokio::test]
async fn claims_that_panic_are_sealed_later() {
    let (_dir, faults, _clock, journal) = on_failing_disk(64 << 20);
    faults.refuse("create claims", PANIC);
    let appends = |from: u32| (from..from + 300).map(|number| journal.append(numbered(number), Sync::Durable));
    for outcome in futures_util::future::join_all(appends(0)).await {
        outcome.unwrap();
    }
    faults.refuse("create claims", 0);
    for outcome in futures_util::future::join_all(appends(300)).await {
        outcome.unwrap();
    }
    let again = futures_util::future::join_all(appends(0)).await;
    assert!(again.iter().all(|outcome| matches!(outcome, Ok(Appended::Duplicate { .. }))));
    assert_eq!(journal.room(), Room::Open);
}
