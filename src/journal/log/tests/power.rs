//! Power cuts, failed flushes and full disks, on a disk that forgets what was not flushed.

use super::*;
use crate::journal::disk::forgetful::Forgetful;

fn on(disk: &Forgetful, clock: &Arc<ManualClock>) -> LogJournal {
    let (disk, clock): (Arc<dyn Disk>, Arc<dyn Clock>) = (Arc::new(disk.clone()), Arc::clone(clock) as _);
    LogJournal::open_on(disk, &settings(Path::new("/nowhere"), SMALL), clock, Metrics::new("test"), None).unwrap()
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(T0))
}

async fn append(journal: &LogJournal, key: u8, sync: Sync) -> Result<Appended, AppendError> {
    journal.append(entry(&[key; 500], Some(key), &["app"]), sync).await
}

/// P10: names, contents and all, over as many segments and restarts as it takes.
#[tokio::test]
async fn what_was_acknowledged_survives_every_power_cut() {
    let (mut disk, clock) = (Forgetful::default(), clock());
    let mut kept = Vec::new();
    for round in 0..4u32 {
        let journal = on(&disk, &clock);
        for number in 0..40 {
            let mut entry = numbered(round * 100 + number);
            entry.deliveries = super::entry(b"", None, &["app"]).deliveries;
            entry.event = VerifiedEvent::assumed(event(&[7; 16 << 10]));
            if kept.len() < 100 {
                kept.push(fresh(journal.append(entry, Sync::Durable).await.unwrap()));
            }
        }
        disk = disk.after_power_cut();
    }
    let journal = on(&disk, &clock);
    assert_eq!((journal.stats().lanes[0].pending, journal.stats().damaged), (kept.len() as u64, 0));
    for event in kept {
        assert!(journal.event(event).await.unwrap().is_some());
    }
}

/// A process that dies leaves what it had not flushed in the page cache, perhaps after a flush of it failed. Once a duplicate of
/// that is acknowledged, it must stay.
#[tokio::test]
async fn what_is_read_back_is_durable_before_it_counts() {
    for failed in [false, true] {
        let (disk, clock) = (Forgetful::default(), clock());
        let journal = on(&disk, &clock);
        let original = fresh(append(&journal, 1, Sync::Durable).await.unwrap());
        let left = Forgetful::with(&disk.files());
        left.unflush(&segment::path(1), 64, failed);
        let journal = on(&left, &clock);
        assert!(matches!(append(&journal, 1, Sync::Durable).await.unwrap(), Appended::Duplicate { .. }));
        let journal = on(&left.after_power_cut(), &clock);
        assert!(matches!(journal.event(original).await, Ok(Some(_))), "{failed}");
    }
}

/// The same where there is no room to write it anew.
#[tokio::test]
async fn what_is_read_back_is_durable_although_the_disk_is_full() {
    let (disk, clock) = (Forgetful::default(), clock());
    let journal = on(&disk, &clock);
    let original = fresh(append(&journal, 1, Sync::Durable).await.unwrap());
    let left = Forgetful::with(&disk.files());
    left.unflush(&segment::path(1), 64, true);
    left.leave(200); // enough for the header of a segment
    drop(on(&left, &clock));
    let journal = on(&left.after_power_cut(), &clock);
    assert!(matches!(journal.event(original).await, Ok(Some(_))));
}

/// A crash may come before the name of a run of claims is durable. Whoever takes it for sealed has to make it so.
#[tokio::test]
async fn a_run_that_is_found_at_opening_is_durable_before_it_counts() {
    let (disk, clock) = (Forgetful::default(), clock());
    let journal = on(&disk, &clock);
    append(&journal, 1, Sync::Durable).await.unwrap();
    journal.close().await; // seals
    let left = Forgetful::with(&disk.files());
    left.unflush_names("claims");
    on(&left, &clock);
    assert!(left.after_power_cut().files().keys().any(|name| name.ends_with(".clm")));
}

/// P15: after a flush that failed nothing may rest on what it left behind, whoever reads it, however the process ends.
#[tokio::test]
async fn nothing_rests_on_what_a_failed_flush_left_behind() {
    let (disk, clock) = (Forgetful::default(), clock());
    let journal = on(&disk, &clock);
    append(&journal, 1, Sync::Durable).await.unwrap();
    let length = |disk: &Forgetful| disk.list("log").unwrap().iter().map(|(_, bytes)| *bytes).max();
    let before = length(&disk);
    disk.set_fails(true);
    assert!(matches!(append(&journal, 2, Sync::Durable).await, Err(AppendError::Failed(_))));
    assert_eq!(length(&disk), before, "what was not flushed is taken back");
    disk.set_fails(false);
    assert!(matches!(append(&journal, 3, Sync::Durable).await, Err(AppendError::Failed(_))));
    drop(journal);
    let journal = on(&disk, &clock);
    assert!(matches!(append(&journal, 2, Sync::Durable).await.unwrap(), Appended::Fresh(_)), "it was not acknowledged");
}

/// P18: somebody else fills the disk. What was taken is delivered, what cannot be is a dead letter, history makes room, and
/// intake resumes by itself.
#[tokio::test]
async fn delivery_goes_on_while_the_disk_is_full() {
    let (disk, clock) = (Forgetful::default(), clock());
    let journal = on(&disk, &clock);
    for key in 1..=20 {
        append(&journal, key, Sync::Durable).await.unwrap();
    }
    let lane = journal.lanes().borrow()[0].clone();
    let pending = journal.pending(&lane, Position::START, 100).await.unwrap().deliveries;
    disk.leave(10);
    assert!(matches!(
        journal.append(entry(&[1; 90_000], None, &["app"]), Sync::Durable).await,
        Err(AppendError::Full { .. })
    ));
    journal.trim(Retention::default()).await.unwrap(); // as the app does every second
    assert!(matches!(journal.room(), Room::Full { .. }));
    for (number, delivery) in (0..).zip(&pending) {
        journal.start(&lane, delivery.id, 1).await.unwrap();
        let verdict = if number % 2 == 0 { Verdict::Delivered } else { Verdict::Dead(DeadReason::GaveUp) };
        let settled = Settled { delivery: delivery.id, attempt: Some(attempt(1)), verdict };
        journal.settle(&lane, settled).await.unwrap();
    }
    assert_eq!((journal.stats().lanes[0].pending, journal.stats().lanes[0].dead), (0, 10));
    disk.empty();
    journal.trim(Retention::default()).await.unwrap();
    assert_eq!(journal.room(), Room::Open);
    append(&journal, 99, Sync::Durable).await.unwrap();
    assert!(disk.list(".").unwrap().iter().any(|(name, _)| name == "reserve"), "held again");
    let journal = on(&disk.after_power_cut(), &clock);
    assert_eq!((journal.stats().lanes[0].pending, journal.stats().lanes[0].dead), (1, 10));
}

/// A disk that is full to the last byte keeps no gateway from starting: what is held back is given up for its first segment.
#[tokio::test]
async fn a_full_disk_keeps_no_journal_from_being_opened() {
    let (disk, clock) = (Forgetful::default(), clock());
    let journal = on(&disk, &clock);
    append(&journal, 1, Sync::Durable).await.unwrap();
    journal.trim(Retention::default()).await.unwrap();
    assert!(disk.list(".").unwrap().iter().any(|(name, _)| name == "reserve"), "held");
    journal.close().await;
    disk.leave(10);
    let journal = on(&disk, &clock);
    assert_eq!(journal.stats().lanes[0].pending, 1);
}
