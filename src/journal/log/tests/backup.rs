//! Backups of a journal that goes on.

use std::fs::File;
use std::io::Write as _;

use super::*;
use crate::journal::archive::{self, ArchiveError};
use crate::journal::{Backup, Erased};

async fn collect(mut backup: Backup) -> Vec<u8> {
    let mut archive = Vec::new();
    while let Some(piece) = backup.pieces.recv().await {
        archive.extend_from_slice(&piece);
    }
    archive
}

fn unpack(archive: &[u8], dir: &Path) -> Result<archive::Contents, ArchiveError> {
    ["log", "claims"].iter().for_each(|part| fs::create_dir(dir.join(part)).unwrap());
    archive::read(&mut &*archive, |name| File::create_new(dir.join(name)))
}

/// The journal as a backup of it would be opened.
fn restored(archive: &[u8], clock: &ManualClock, max_size: u64) -> Store {
    let dir = tempfile::tempdir().unwrap();
    unpack(archive, dir.path()).unwrap();
    let clock = Arc::new(clock.copied());
    let journal = open(dir.path(), &clock, max_size);
    Store { dir, clock, journal }
}

/// However many claims are sealed and merged, deliveries settled and events appended while it is made, it has what there was when it
/// began, and nothing of what came later.
#[tokio::test]
async fn a_backup_is_the_journal_at_one_moment() {
    let store = Store::new();
    let mut kept = Vec::new();
    for number in 0..3000 {
        kept.push(fresh(store.append(numbered(number)).await));
    }
    let waits = fresh(store.append(entry(&[1; 1 << 20], Some(201), &["app"])).await);
    let done = fresh(store.append(entry(&[2; 1 << 20], Some(202), &["app"])).await);
    store.pending("app").await;
    store.settle(DeliveryId { event: done.id, index: 0 }, 1, Verdict::Delivered).await;
    store.journal.pause(&Name::new("app").unwrap(), Pause::Paused).await.unwrap();

    let backup = store.journal.backup().await.unwrap();
    assert!(matches!(store.journal.backup().await, Err(JournalError::Busy)));
    assert!(matches!(store.journal.erase(waits).await, Err(JournalError::Busy)));
    store.settle(DeliveryId { event: waits.id, index: 0 }, 1, Verdict::Delivered).await;
    for number in 3000..6000 {
        store.append(numbered(number)).await;
        if number % 500 == 0 {
            store.clock.pass(HOUR / 100);
            store.journal.trim(Retention::default()).await.unwrap();
        }
    }
    let expected = backup.bytes;
    let archive = collect(backup).await;
    assert!(expected.abs_diff(archive.len() as u64) * 10 < expected, "{expected} for {}", archive.len());

    let again = restored(&archive, &store.clock, 64 << 20);
    assert_eq!(again.journal.stats().damaged, 0);
    assert_eq!(again.journal.identity(), store.journal.identity());
    assert!(again.journal.paused().contains(&Name::new("app").unwrap()));
    let pending = again.pending("app").await;
    assert_eq!(pending.iter().map(|pending| pending.event.id).collect::<Vec<_>>(), [waits.id]);
    for (number, kept) in (0..).zip(&kept) {
        match again.append(numbered(number)).await {
            Appended::Duplicate { original, .. } => assert_eq!(original.id, kept.id),
            other => panic!("{number} is claimed: {other:?}"),
        }
    }
    for number in 3000..3010 {
        fresh(again.append(numbered(number)).await); // it came later
    }
    assert_eq!(store.journal.erase(waits).await.unwrap(), Erased { purged: 0 }, "its turn again");
}

fn segments(store: &Store) -> usize {
    fs::read_dir(store.dir.path().join("log")).unwrap().count()
}

/// A journal of some segments, and a backup that has no more than begun.
async fn begun(max_size: u64, events: usize) -> (Store, Backup) {
    let store = Store::sized(max_size);
    for _ in 0..events {
        store.append(entry(&[7; 60 << 10], None, &[])).await;
    }
    let backup = store.journal.backup().await.unwrap();
    (store, backup)
}

#[tokio::test]
async fn what_is_not_read_yet_is_not_let_go_of_by_age_until_the_backup_ends() {
    let (store, backup) = begun(16 << 20, 120).await;
    let before = segments(&store);
    store.clock.set(T0.plus(Retention::default().delivered * 2));
    let trim = async || {
        for _ in 0..before {
            store.journal.trim(Retention::default()).await.unwrap();
        }
    };
    trim().await;
    let (most, held) = (7 << 20, segments(&store)); // of 7 MiB it has read at most what is ahead of its reader
    assert!(held as u64 * (256 << 10) > most - (3 << 20), "{held} of {before} segments are held");
    let archive = collect(backup).await;
    assert_eq!(unpack(&archive, tempfile::tempdir().unwrap().path()).unwrap().files, before + 3);
    trim().await;
    assert!(segments(&store) <= 2, "{} segments stay", segments(&store));
}

#[tokio::test]
async fn a_client_that_goes_away_holds_nothing() {
    let (store, backup) = begun(16 << 20, 120).await;
    drop(backup);
    store.clock.set(T0.plus(Retention::default().delivered * 2));
    while segments(&store) > 2 {
        store.journal.trim(Retention::default()).await.unwrap(); // its thread ends with its next piece
    }
    while matches!(store.journal.backup().await, Err(JournalError::Busy)) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn where_events_need_the_space_they_get_it_and_the_backup_says_so() {
    let (store, mut backup) = begun(8 << 20, 90).await;
    let first = backup.pieces.recv().await.unwrap();
    for _ in 0..200 {
        store.append(entry(&[8; 60 << 10], None, &[])).await;
    }
    let mut archive = first.to_vec();
    archive.write_all(&collect(backup).await).unwrap();
    match unpack(&archive, tempfile::tempdir().unwrap().path()).unwrap_err() {
        ArchiveError::GaveUp(why) => assert!(why.contains("had to make room for events"), "{why}"),
        other => panic!("{other}"),
    }
    collect(store.journal.backup().await.unwrap()).await;
}
