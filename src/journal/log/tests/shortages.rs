//! P16, P18, P19: each operation of the disk fails in each way that may pass, and the journal goes on once it has; what
//! cannot pass ends it, and nothing that was acknowledged is lost by either.

use super::faults::on_failing_disk;
use super::*;

const DAY: Duration = Duration::from_secs(86_400);
const EIO: i32 = 5;

/// Everything that touches the disk. What fails is tried again by whoever asked.
async fn everything(journal: &LogJournal, clock: &ManualClock, kept: &mut Vec<Located>) {
    for number in 0..4 {
        if let Ok(appended) = journal.append(entry(&[number; 9000], None, &["app"]), Sync::Durable).await {
            kept.push(fresh(appended));
        }
    }
    clock.pass(DAY);
    for _ in 0..2 {
        let _ = journal.trim(Retention { delivered: DAY * 2, dead: DAY }).await; // a new segment, claims, a mark of the time
    }
    let _ = journal.pause(&Name::new("other").unwrap(), Pause::Paused).await;
    let _ = journal.set_routes(Routes::to([Name::new("app").unwrap()])).await;
}

fn pending(journal: &LogJournal) -> u64 {
    journal.stats().lanes.iter().map(|lane| lane.pending + lane.orphans()).sum()
}

#[tokio::test]
async fn what_may_pass_is_waited_out_without_a_restart() {
    let codes = [(28, "ENOSPC"), (122, "EDQUOT"), (30, "EROFS"), (24, "EMFILE")];
    for what in ["append", "create", "open", "rename", "remove", "sync_dir"] {
        for (code, name) in codes {
            let (dir, faults, clock, journal) = on_failing_disk(SMALL);
            let mut kept = Vec::new();
            everything(&journal, &clock, &mut kept).await;
            assert_eq!(kept.len(), 4);
            faults.refuse(what, code);
            for _ in 0..3 {
                everything(&journal, &clock, &mut kept).await;
            }
            assert!(!matches!(journal.room(), Room::Failed(_)), "{what} {name}: {:?}", journal.room());
            faults.refuse(what, 0);
            journal.trim(Retention::default()).await.unwrap();
            assert_eq!(journal.room(), Room::Open, "{what} {name}");
            let before = kept.len();
            everything(&journal, &clock, &mut kept).await;
            assert_eq!((kept.len() - before, pending(&journal)), (4, kept.len() as u64), "{what} {name}");
            journal.close().await;
            let reopened = open(dir.path(), &clock, SMALL);
            assert_eq!((pending(&reopened), reopened.stats().damaged), (kept.len() as u64, 0), "{what} {name}");
        }
    }
}

#[tokio::test]
async fn what_cannot_pass_ends_the_journal_and_costs_nothing_that_was_acknowledged() {
    for (what, code, also) in [
        ("append", EIO, None),
        ("append", EIO, Some("truncate")),
        ("append", 28, Some("truncate")),
        ("sync", EIO, None),
        ("sync", 28, None),
        ("sync", EIO, Some("truncate")),
    ] {
        let (dir, faults, clock, journal) = on_failing_disk(SMALL);
        let mut kept = Vec::new();
        everything(&journal, &clock, &mut kept).await;
        faults.refuse(what, code);
        also.into_iter().for_each(|also| faults.refuse(also, EIO));
        everything(&journal, &clock, &mut kept).await;
        assert!(matches!(journal.room(), Room::Failed(_)), "{what} {code} {also:?}");
        [what].into_iter().chain(also).for_each(|what| faults.refuse(what, 0));
        everything(&journal, &clock, &mut kept).await;
        assert_eq!(kept.len(), 4, "{what} {code} {also:?}: nothing is taken until it is opened again");
        journal.close().await;
        let reopened = open(dir.path(), &clock, SMALL);
        assert!(pending(&reopened) >= 4, "{what} {code} {also:?}");
        assert_eq!((reopened.stats().damaged, reopened.room()), (0, Room::Open), "{what} {code} {also:?}");
        for event in kept {
            assert!(reopened.event(event).await.unwrap().is_some());
        }
    }
}
