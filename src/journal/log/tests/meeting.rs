//! Where parts of the journal meet: a sealed journal with a lost, an erased, a dead and a pending event is the same after a crash,
//! opened from a checkpoint, without it, and restored from a backup.

use super::*;
use crate::journal::archive;
use crate::journal::seal::tests::keys;
use crate::journal::{Erased, JournalError};

struct Sample {
    lost: Located,
    erased: Located,
    dead: Located,
    waits: Located,
    done: Located,
    /// Some of the erased event's record, as it was sealed.
    remains: Vec<u8>,
}

/// The last bytes of the payload of the record at `at`.
fn end_of_record(dir: &Path, at: Position) -> Vec<u8> {
    let (number, offset) = segment::split(at);
    let bytes = fs::read(dir.join(segment::path(number))).unwrap();
    let record = &bytes[offset as usize..];
    let length = u32::from_le_bytes(record[8..12].try_into().unwrap()) as usize;
    record[24 + length - 48..24 + length].to_vec()
}

fn is_anywhere(dir: &Path, what: &[u8]) -> bool {
    formats::contents(dir).values().any(|bytes| bytes.windows(what.len()).any(|window| window == what))
}

async fn sample(store: &Store) -> Sample {
    let mut kept = Vec::new();
    for key in 0..5u8 {
        let mut entry = entry(&[key; 300], Some(key), &["app"]);
        entry.claim.as_mut().unwrap().rearms = false;
        kept.push(fresh(store.append(entry).await));
    }
    let [lost, erased, dead, waits, done] = kept.try_into().unwrap();
    store.pending("app").await;
    store.settle(DeliveryId { event: dead.id, index: 0 }, 1, Verdict::Dead(DeadReason::GaveUp)).await;
    store.settle(DeliveryId { event: done.id, index: 0 }, 1, Verdict::Delivered).await;
    let remains = end_of_record(store.dir.path(), erased.at);
    assert!(is_anywhere(store.dir.path(), &remains), "it would be found");

    let (number, offset) = segment::split(lost.at);
    let file = store.dir.path().join(segment::path(number));
    let mut bytes = fs::read(&file).unwrap();
    bytes[offset as usize + 200] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert!(matches!(store.journal.event(lost).await, Err(JournalError::Damaged)));
    assert_eq!(store.journal.erase(erased).await.unwrap(), Erased { purged: 1 });
    Sample { lost, erased, dead, waits, done, remains }
}

async fn is_as_it_was(store: &Store, sample: &Sample, how: &str) {
    let journal = &store.journal;
    assert!(matches!(journal.event(sample.lost).await, Err(JournalError::Damaged)), "{how}");
    assert!(matches!(journal.event(sample.erased).await, Err(JournalError::Erased)), "{how}");
    for (key, kept) in [(2u8, sample.dead), (3, sample.waits), (4, sample.done)] {
        assert_eq!(journal.event(kept).await.unwrap().unwrap().event.body, vec![key; 300], "{how}");
    }
    let stats = journal.stats();
    assert_eq!((stats.lanes[0].pending, stats.lanes[0].dead, stats.damaged), (1, 2, 1), "{how}");
    let waits: Vec<_> = store.pending("app").await.iter().map(|pending| pending.event.id).collect();
    assert_eq!(waits, [sample.waits.id], "{how}");
    assert!(!is_anywhere(store.dir.path(), &sample.remains), "{how}");
    for key in 0..5 {
        let claim = Claim { rearms: false, ..entry(&[key; 300], Some(key), &[]).claim.unwrap() };
        let reserved = journal.reserve(&claim).await.unwrap();
        let free = key == 0; // lost before it was delivered: its sender may send it again
        assert!(matches!(reserved, Reserved::Free) == free, "{how} {key}: {reserved:?}");
        assert!(free || matches!(reserved, Reserved::Seen { conflict: false, .. }), "{how} {key}");
    }
}

#[tokio::test]
async fn lost_erased_and_sealed_events_stay_so_however_the_journal_is_opened() {
    for encryption in [Encryption::default(), keys(&[1])] {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::at(T0)));
        let journal = open_sealed(dir.path(), &clock, encryption.clone()).unwrap();
        let store = Store { dir, clock, journal };
        let sample = sample(&store).await;
        is_as_it_was(&store, &sample, "as it is").await;

        let again = |from: &Path, change: &dyn Fn(&Path)| {
            let dir = tempfile::tempdir().unwrap();
            copy(from, dir.path());
            change(dir.path());
            let journal = open_sealed(dir.path(), &store.clock, encryption.clone()).unwrap();
            Store { dir, clock: Arc::clone(&store.clock), journal }
        };
        is_as_it_was(&again(store.dir.path(), &|_| ()), &sample, "after a crash").await;

        let mut backup = store.journal.backup().await.unwrap();
        let mut archive = Vec::new();
        while let Some(piece) = backup.pieces.recv().await {
            archive.extend_from_slice(&piece);
        }
        let restored = tempfile::tempdir().unwrap();
        ["log", "claims"].iter().for_each(|part| fs::create_dir(restored.path().join(part)).unwrap());
        archive::read(&mut &*archive, |name| fs::File::create_new(restored.path().join(name))).unwrap();
        is_as_it_was(&again(restored.path(), &|_| ()), &sample, "restored").await;

        store.journal.close().await;
        assert!(store.dir.path().join("checkpoint").exists());
        is_as_it_was(&again(store.dir.path(), &|_| ()), &sample, "from a checkpoint").await;
        let without = |dir: &Path| fs::remove_file(dir.join("checkpoint")).unwrap();
        is_as_it_was(&again(store.dir.path(), &without), &sample, "without the checkpoint").await;
    }
}
