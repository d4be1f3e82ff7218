//! On a disk that dies: what a crash leaves at each step, and how much of the log opening reads.

use super::*;
use crate::journal::disk::dying::{DyingDisk, Life, Steps};

fn open_watched(dir: &Path, clock: &Arc<ManualClock>, left: i64) -> (Result<LogJournal, OpenError>, Arc<Life>) {
    let life = Life::of(left, Steps::Changes);
    let disk = Arc::new(DyingDisk { real: RealDisk::new(dir), life: Arc::clone(&life) });
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    (LogJournal::open_on(disk, &settings(dir, SMALL), clock, Metrics::new("test"), None), life)
}

/// The disk dies at every single step: of opening, appending, writing checkpoints, closing.
#[tokio::test]
async fn a_crash_at_any_step_leaves_a_journal_that_opens_as_without_a_checkpoint() {
    let (begin, clock) = closed().await;
    let (mut died_at_a_checkpoint, mut steps) = (0, 0);
    for left in 0.. {
        let dir = tempfile::tempdir().unwrap();
        copy(begin.path(), dir.path());
        let (journal, life) = open_watched(dir.path(), &clock, left);
        let mut acknowledged = Vec::new();
        if let Ok(journal) = journal {
            for number in 20..50u8 {
                let kept = journal.append(entry(&[number; 24_000], Some(number), &["app"]), Sync::Durable).await;
                acknowledged.extend(kept.ok().map(fresh));
            }
            journal.close().await;
            crash(journal).await;
        }
        let begun = life.checkpoints.load(Ordering::SeqCst);
        died_at_a_checkpoint += u64::from(life.is_over() && begun > 0);
        let plain = copied((dir.path(), &clock), without);
        let other = copied((dir.path(), &clock), |_| ());
        let waits: Vec<_> = other.pending("app").await.iter().map(|pending| pending.event.id).collect();
        assert!(acknowledged.iter().all(|kept| waits.contains(&kept.id)), "dead after {left} steps");
        assert_eq!(seen(&other).await, seen(&plain).await, "dead after {left} steps");
        steps = left;
        if !life.is_over() {
            break;
        }
    }
    assert!(steps > 40 && died_at_a_checkpoint >= 5, "{steps} steps, {died_at_a_checkpoint} with a checkpoint begun");
}

/// With claims and without: what is read does not depend on how much there is.
#[tokio::test]
async fn after_a_close_nothing_of_the_log_is_read_and_after_a_crash_little() {
    for key in [None, Some(())] {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::at(T0)));
        let (journal, life) = open_watched(dir.path(), &clock, i64::MAX);
        let journal = journal.unwrap();
        for number in 0..200u8 {
            journal.append(entry(&[number; 10_000], key.map(|()| number), &["app"]), Sync::Durable).await.unwrap();
            while number % 40 == 39 && life.checkpoints.load(Ordering::SeqCst) < u64::from(number / 40) {
                journal.trim(Retention::default()).await.unwrap(); // as the app does every second
            }
        }
        crash(journal).await;
        let (journal, life) = open_watched(dir.path(), &clock, i64::MAX);
        let journal = journal.unwrap();
        let read = life.log_read.load(Ordering::SeqCst);
        assert!((10_000..1_300_000).contains(&read), "{read} of 2 MB");
        journal.append(entry(b"one more", None, &["app"]), Sync::Durable).await.unwrap();
        journal.close().await;
        crash(journal).await;
        let (journal, life) = open_watched(dir.path(), &clock, i64::MAX);
        let read = life.log_read.load(Ordering::SeqCst);
        assert!(read < 16_000, "{read}"); // headers, and the end that the checkpoint vouches for
        assert_eq!(journal.unwrap().stats().lanes[0].pending, 201);
    }
}
