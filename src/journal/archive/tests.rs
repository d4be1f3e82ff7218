//! An archive reads back as what it was made of; whatever else comes is refused.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::*;
use crate::base::UnixMillis;
use crate::journal::disk::RealDisk;

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

fn plan(files: &[(&str, &[u8])]) -> Plan {
    let item = |(name, bytes): &(&str, &[u8])| Item {
        name: (*name).to_owned(),
        bytes: bytes.len() as u64,
        content: Content::Bytes(Bytes::copy_from_slice(bytes)),
    };
    Plan { store: [7; 16], made_at: UnixMillis(1_700_000_000_000), items: files.iter().map(item).collect() }
}

fn written(plan: &Plan) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = Vec::new();
    let done = plan.write(&RealDisk::new(dir.path()), |_| {}, &mut |piece| {
        archive.extend_from_slice(&piece);
        Ok(())
    });
    drop(done); // an archive that was given up is one as well
    archive
}

struct Into(Files, String);

impl Write for Into {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().entry(self.1.clone()).or_default().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read_back(archive: &[u8]) -> Result<(Contents, BTreeMap<String, Vec<u8>>), ArchiveError> {
    let files = Files::default();
    let contents = read(&mut &*archive, |name| {
        files.lock().unwrap().insert(name.to_owned(), Vec::new());
        Ok(Into(Arc::clone(&files), name.to_owned()))
    })?;
    let files = files.lock().unwrap().clone();
    Ok((contents, files))
}

const FILES: [(&str, &[u8]); 4] = [
    ("journal.meta", b"meta"),
    ("claims/runs", b""),
    ("claims/00000001-00000001.clm", &[9; 512]),
    ("log/00000001.log", &[1; 700]),
];

#[test]
fn it_reads_back_as_what_it_was_made_of() {
    let plan = plan(&FILES);
    let archive = written(&plan);
    let (contents, files) = read_back(&archive).unwrap();
    assert_eq!(contents.store, "07".repeat(16));
    assert_eq!((contents.files, contents.bytes, contents.made.as_str()), (4, 1216, "2023-11-14T22:13:20.000Z"));
    let expected = FILES.map(|(name, bytes)| (name.to_owned(), bytes.to_owned()));
    assert_eq!(files, BTreeMap::from(expected));
    assert!(plan.bytes().abs_diff(archive.len() as u64) < 2048, "{} is near {}", plan.bytes(), archive.len());
}

#[test]
fn one_that_is_cut_off_anywhere_is_refused() {
    let archive = written(&plan(&FILES));
    for length in 0..archive.len() {
        let error = read_back(&archive[..length]).unwrap_err();
        assert!(matches!(error, ArchiveError::Cut(_)), "at {length}: {error}");
    }
}

#[test]
fn one_that_was_changed_anywhere_is_refused_or_says_the_same() {
    let archive = written(&plan(&FILES));
    let whole = read_back(&archive).unwrap();
    let mut refused = 0;
    for at in 0..archive.len() {
        let mut changed = archive.clone();
        changed[at] ^= 0x20;
        match read_back(&changed) {
            Ok(same) => assert_eq!(same, whole, "at {at}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > archive.len() - 100, "{refused} of {}", archive.len());
}

#[test]
fn only_names_that_a_journal_has_are_taken() {
    for name in [
        "../x",
        "/etc/passwd",
        "log/../journal.meta",
        "log/1.log",
        "log/0000001A.log",
        "log/00000001.log/x",
        "index/index.db",
        "lock",
        "",
        "claims/x.clm",
        "claims/00000002-00000001.clm",
        "journal.meta.new",
    ] {
        let error = read_back(&written(&plan(&[("journal.meta", b""), (name, b"x")]))).unwrap_err();
        assert!(matches!(error, ArchiveError::Foreign(_)), "{name}: {error}");
    }
    for name in
        ["paused", "routes", "journal.time", "erasing", "log/0000001a.log", "claims/00000001-00000001.clm.reread"]
    {
        read_back(&written(&plan(&[("journal.meta", b""), (name, b"x")]))).unwrap();
    }
    let twice = written(&plan(&[("journal.meta", b""), ("paused", b"x"), ("paused", b"y")]));
    assert!(matches!(read_back(&twice).unwrap_err(), ArchiveError::Altered(_)));
    let without = written(&plan(&[("paused", b"x")]));
    assert!(matches!(read_back(&without).unwrap_err(), ArchiveError::Foreign(_)));
    let mut link = written(&plan(&[("paused", b"")]));
    link[156] = b'2';
    assert!(matches!(read_back(&link).unwrap_err(), ArchiveError::Foreign(_)));
    for foreign in [&[1; 4096][..], &[0; 1024], b"\x1f\x8b and so on"] {
        assert!(read_back(foreign).is_err());
    }
}

#[test]
fn one_that_was_given_up_says_why() {
    let mut plan = plan(&[("journal.meta", b"meta")]);
    plan.items.push(Item { name: "log/00000001.log".to_owned(), bytes: 10, content: Content::Named });
    match read_back(&written(&plan)).unwrap_err() {
        ArchiveError::GaveUp(why) => assert!(why.contains("log/00000001.log had to make room"), "{why}"),
        other => panic!("{other}"),
    }
}
