//! Formats of before and of later: the first are opened without being rewritten, the others are not touched.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::journal::disk::dying::{DyingDisk, Life, Steps};

/// Every file below `dir`, and what is in it.
pub fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.insert(path.clone(), Vec::new());
            all.extend(contents(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

/// Puts `format` in the header of every segment below `dir`, as a program of that format would have.
fn as_format(dir: &Path, format: u32) {
    for file in fs::read_dir(dir.join(segment::DIR)).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes[8..12].copy_from_slice(&format.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&sum.to_le_bytes());
        fs::write(&path, bytes).unwrap();
    }
}

/// A journal with a little of everything, closed.
async fn some() -> Store {
    let store = Store::sized(SMALL);
    for key in 0..20 {
        store.append(entry(&[key; 9000], Some(key), &["app"])).await;
    }
    let id = store.pending("app").await[0].id;
    store.settle(id, 1, Verdict::Delivered).await;
    let dead = store.pending("app").await[0].id;
    store.settle(dead, 1, Verdict::Dead(DeadReason::GaveUp)).await;
    store.journal.pause(&Name::new("app").unwrap(), Pause::Paused).await.unwrap();
    store.journal.close().await;
    let dir = tempfile::tempdir().unwrap();
    copy(store.dir.path(), dir.path());
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir.path()));
    let recovered = open::recover(&disk, store.journal.identity(), T0, &Workplace::default()).unwrap();
    let Recovered { mut claims, next_segment, .. } = recovered;
    claims.seal(segment::position(next_segment, segment::HEADER_BYTES), T0).unwrap();
    fs::remove_file(dir.path().join("lock")).unwrap();
    Store { dir, ..store }
}

async fn is_whole(journal: &LogJournal) {
    let stats = journal.stats();
    assert_eq!((stats.damaged, stats.lanes[0].pending, stats.lanes[0].dead), (0, 18, 1));
    assert_eq!(journal.paused().len(), 1);
    for key in 0..20 {
        let claim = entry(&[key; 9000], Some(key), &["app"]).claim.unwrap();
        let Reserved::Seen { original, conflict: false } =
            journal.reserve(&Claim { rearms: false, ..claim }).await.unwrap()
        else {
            panic!("{key} is not known")
        };
        let body = journal.event(original).await.unwrap().unwrap().event.body;
        assert_eq!(body, vec![key; 9000]);
    }
}

#[tokio::test]
async fn a_journal_of_a_later_version_is_refused_and_not_touched() {
    let store = some().await;
    let dir = store.dir.path();
    let sound = contents(dir);
    let clock: Arc<dyn Clock> = store.clock.clone();
    let refused = |what: &str, path: &str| {
        let before = contents(dir);
        let opened = LogJournal::open(&settings(dir, SMALL), Arc::clone(&clock), Metrics::new("test"));
        let Err(error @ OpenError::Format { .. }) = opened else { panic!("{what} is opened: {:?}", opened.err()) };
        assert!(error.to_string().contains(path) && error.to_string().contains("nothing was changed"), "{error}");
        assert_eq!(contents(dir), before, "{what}");
        before.keys().filter(|path| path.is_file()).for_each(|path| fs::write(path, &sound[path]).unwrap());
    };
    as_format(dir, 4);
    refused("a log", "log/00000001.log");
    let newest = dir.join("log/00000002.log");
    assert!(newest.exists());
    let mut bytes = fs::read(&newest).unwrap();
    bytes[8] = 9;
    let sum = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&sum.to_le_bytes());
    fs::write(&newest, bytes).unwrap();
    refused("one segment of many", "log/00000002.log");
    for (file, magic) in [("journal.meta", "FBMETA2"), ("claims/runs", "FBRUNS2")] {
        let mut bytes = fs::read(dir.join(file)).unwrap();
        bytes[..7].copy_from_slice(magic.as_bytes());
        fs::write(dir.join(file), bytes).unwrap();
        refused(file, file);
    }
    let run = dir.join("claims/00000001-00000001.clm");
    let mut bytes = fs::read(&run).unwrap();
    let at = bytes.len() - 64;
    bytes[at..at + 8].copy_from_slice(b"FBCLAIM4");
    fs::write(&run, bytes).unwrap();
    refused("a run of claims", "claims/00000001-00000001.clm");
    is_whole(&open(dir, &store.clock, SMALL)).await;
}

#[tokio::test]
async fn a_journal_of_format_2_is_opened_as_it_is_and_goes_on_in_format_3() {
    let store = some().await;
    as_format(store.dir.path(), 2);
    let before = contents(store.dir.path());
    let journal = open(store.dir.path(), &store.clock, SMALL);
    is_whole(&journal).await;
    fresh(journal.append(entry(b"new", Some(99), &["app"]), Sync::Durable).await.unwrap());
    journal.close().await;
    let after = contents(store.dir.path());
    let segments =
        before.iter().filter(|(path, bytes)| path.extension().is_some_and(|is| is == "log") && !bytes.is_empty());
    let mut old = 0;
    for (path, bytes) in segments {
        assert_eq!(&after[path], bytes, "{} was rewritten", path.display());
        old += 1;
    }
    let written = |format: u32| {
        let of = |(path, bytes): &(&PathBuf, &Vec<u8>)| {
            path.extension().is_some_and(|is| is == "log") && bytes[8..12] == format.to_le_bytes()
        };
        after.iter().filter(of).count()
    };
    assert_eq!((written(2), written(3)), (old, 1));
}

#[tokio::test]
async fn a_process_that_is_killed_at_any_operation_of_its_first_opening_of_format_2_loses_nothing() {
    let store = some().await;
    as_format(store.dir.path(), 2);
    let encryptions = [Encryption::default(), crate::journal::seal::tests::keys(&[1])];
    for encryption in encryptions {
        let mut dies_at = 0;
        loop {
            let dir = tempfile::tempdir().unwrap();
            copy(store.dir.path(), dir.path());
            let life = Life::of(dies_at, Steps::Everything);
            let disk = DyingDisk { real: RealDisk::new(dir.path()), life: Arc::clone(&life) };
            let clock: Arc<dyn Clock> = store.clock.clone();
            let settings = Settings { encryption: encryption.clone(), ..settings(dir.path(), SMALL) };
            let opened = LogJournal::open_on(Arc::new(disk), &settings, clock, Metrics::new("test"), None);
            let outlived = opened.is_ok() && !life.is_over();
            if let Ok(journal) = opened {
                let _ = journal.append(entry(b"unsaid", Some(77), &[]), Sync::Durable).await; // it may have died since
                journal.close().await;
            }
            let copied = tempfile::tempdir().unwrap();
            copy(dir.path(), copied.path());
            let again = LogJournal::open(
                &Settings { dir: copied.path().to_owned(), ..settings },
                store.clock.clone(),
                Metrics::new("test"),
            );
            is_whole(&again.unwrap()).await;
            dies_at += 1;
            if outlived {
                break;
            }
        }
        assert!(dies_at > 30, "it was killed at {dies_at} operations only");
    }
}
