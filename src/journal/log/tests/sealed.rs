//! What senders and applications wrote, at rest: in no file once there is a key, and there again with it.

use super::*;
use crate::journal::seal::KeyId;
use crate::journal::seal::tests::keys;

/// Nothing else in these tests has this in it.
const CANARY: &[u8] = b"canary-7f3a";

/// An event with the canary wherever a sender can put it.
fn telling(key: u8, destinations: &[&str]) -> Entry {
    let canary = std::str::from_utf8(CANARY).unwrap();
    let mut event = event(CANARY);
    event.kind = Some(canary.into());
    event.provider_event_id = Some(canary.into());
    event.path = format!("/in/{canary}").into();
    event.query = Some(format!("token={canary}").into());
    event.params = vec![("key".into(), canary.into())];
    event.headers = vec![(HeaderName::from_static("x-canary-7f3a"), HeaderValue::from_static("canary-7f3a"))];
    event.client.host = Some(canary.into());
    let relayed = Relayed {
        status: 200,
        content_type: Some(HeaderValue::from_static("canary-7f3a")),
        body: Some(Bytes::from_static(CANARY)),
    };
    let (event, relayed) = (VerifiedEvent::assumed(event), Some(relayed));
    Entry { event, relayed, ..entry(b"", Some(key), destinations) }
}

fn told(number: u32) -> Attempt {
    Attempt { error: Some("canary-7f3a".into()), answer: Bytes::from_static(CANARY), ..attempt(number) }
}

/// Files below `dir` with the canary in them.
fn leaks(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(leaks(&path));
        } else if fs::read(&path).unwrap().windows(CANARY.len()).any(|window| window == CANARY) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn sealed_store(encryption: Encryption) -> Store {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::at(T0)));
    let journal = open_sealed(dir.path(), &clock, encryption).unwrap();
    Store { dir, clock, journal }
}

impl Store {
    /// Closed, and opened with other keys.
    async fn opened_with(self, encryption: Encryption) -> Result<Self, OpenError> {
        let Self { dir, clock, journal } = self;
        journal.close().await;
        drop(journal);
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path()); // its threads may still hold the lock of the one before
        let journal = open_sealed(copied.path(), &clock, encryption)?;
        Ok(Self { dir: copied, clock, journal })
    }

    async fn settle_telling(&self, number: u32, verdict: Verdict) {
        let lane = self.lane("app");
        let delivery = self.pending("app").await[0].id;
        self.journal.start(&lane, delivery, number).await.unwrap();
        let attempt = Some(told(number));
        self.journal.settle(&lane, Settled { delivery, attempt, verdict }).await.unwrap();
    }

    /// Everything the change stream tells of attempts' answers.
    async fn answers(&self) -> Vec<(Option<Box<str>>, Bytes)> {
        let changes = self.journal.changes(Position::START, usize::MAX).await.unwrap().changes;
        let answer = |change| match change {
            Change::Settled(Settled { attempt: Some(attempt), .. }) => Some((attempt.error, attempt.answer)),
            _ => None,
        };
        changes.into_iter().filter_map(answer).collect()
    }

    fn keys_in_use(&self) -> Vec<KeyId> {
        self.journal.stats().keys.iter().map(|of| of.key).collect()
    }
}

fn id(byte: u8) -> KeyId {
    keys(&[byte]).keys[0].id()
}

fn off(byte: u8) -> Encryption {
    Encryption { seals: false, ..keys(&[byte]) }
}

fn same(kept: &Kept, sent: &Entry) {
    let (event, _) = telling(0, &[]).event.into_parts();
    let read = &kept.event;
    assert_eq!((&read.body, &read.headers, &read.query), (&event.body, &event.headers, &event.query));
    assert_eq!((&read.kind, &read.provider_event_id, &read.path), (&event.kind, &event.provider_event_id, &event.path));
    assert_eq!((&read.params, &read.client, &read.proof), (&event.params, &event.client, &event.proof));
    assert_eq!(kept.relayed, sent.relayed);
}

#[tokio::test]
async fn what_was_written_from_outside_is_in_no_file_and_all_there_after_a_crash() {
    let store = sealed_store(keys(&[1]));
    let kept = fresh(store.append(telling(1, &["app"])).await);
    store.settle_telling(1, Verdict::RetryAt(T0)).await;
    store.journal.trim(Retention::default()).await.unwrap();
    assert_eq!(leaks(store.dir.path()), [""; 0], "while it is open");
    let store = store.opened_with(keys(&[1])).await.unwrap();
    assert_eq!(leaks(store.dir.path()), [""; 0], "and closed");
    let read = store.journal.event(kept).await.unwrap().unwrap();
    same(&read, &telling(1, &[]));
    assert_eq!(store.answers().await, [(Some("canary-7f3a".into()), Bytes::from_static(CANARY))]);
    assert!(matches!(store.append(telling(1, &["app"])).await, Appended::Duplicate { conflict: false, .. }));
    assert_eq!((store.pending("app").await.len(), store.keys_in_use()), (1, vec![id(1)]));

    let clear = Store::new();
    clear.append(telling(1, &["app"])).await;
    assert_eq!(leaks(clear.dir.path()).len(), 1, "without a key it is in the log: the test can see it");
}

#[tokio::test]
async fn a_key_that_is_needed_is_asked_for_by_name_and_nothing_is_touched() {
    let store = sealed_store(keys(&[1]));
    store.append(telling(1, &["app"])).await;
    store.journal.close().await;
    let dir = tempfile::tempdir().unwrap();
    copy(store.dir.path(), dir.path());
    fs::remove_file(dir.path().join("lock")).unwrap();
    let before = formats::contents(dir.path());
    for encryption in [Encryption::default(), keys(&[2]), keys(&[2, 3])] {
        let refused = open_sealed(dir.path(), &store.clock, encryption).err().unwrap();
        assert!(matches!(&refused, OpenError::NoKey(needed) if needed[0].key == id(1) && needed[0].segments == 1));
        let said = refused.to_string();
        assert!(said.contains(&id(1).to_string()) && said.contains("1 segment,"), "{said}");
        assert_eq!(formats::contents(dir.path()), before);
    }
    for encryption in [keys(&[2, 1]), off(1)] {
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        let journal = open_sealed(copied.path(), &store.clock, encryption).unwrap();
        assert_eq!(journal.stats().lanes[0].pending, 1);
    }
}

#[tokio::test]
async fn turned_on_for_a_journal_that_is_clear_it_seals_what_is_new_and_off_again_it_opens_what_is_old() {
    let store = Store::new();
    let first = fresh(store.append(telling(1, &["app"])).await);
    let store = store.opened_with(keys(&[1])).await.unwrap();
    let second = fresh(store.append(telling(2, &["app"])).await);
    assert_eq!(leaks(store.dir.path()).len(), 1, "that of before");
    let store = store.opened_with(off(1)).await.unwrap();
    let third = fresh(store.append(telling(3, &["app"])).await);
    assert_eq!(leaks(store.dir.path()).len(), 2);
    for kept in [first, second, third] {
        same(&store.journal.event(kept).await.unwrap().unwrap(), &telling(1, &[]));
    }
    assert_eq!(store.pending("app").await.len(), 3);
}

#[tokio::test]
async fn another_key_seals_while_the_journal_is_open_and_the_old_one_is_needed_until_its_segments_are_gone() {
    let store = sealed_store(keys(&[1]));
    let waits = fresh(store.append(telling(1, &["app"])).await);
    assert_eq!(store.journal.locked_to(&keys(&[2]))[0].key, id(1), "what is sealed with it cannot be read without");
    assert_eq!(store.journal.locked_to(&keys(&[2, 1])), []);
    store.journal.set_encryption(&keys(&[2, 1])).await.unwrap();
    store.append(telling(2, &["app"])).await;
    assert_eq!(store.keys_in_use().into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([id(1), id(2)]));
    same(&store.journal.event(waits).await.unwrap().unwrap(), &telling(1, &[]));

    // What still waits is copied forward once the rest is past retention, and sealed anew.
    store.clock.set(T0.plus(HOUR * 24 * 8));
    for _ in 0..2 {
        store.append(entry(b"history", None, &[])).await;
        store.journal.trim(Retention::default()).await.unwrap();
    }
    assert_eq!(store.keys_in_use(), [id(2)]);
    assert_eq!(leaks(store.dir.path()), [""; 0]);
    let store = store.opened_with(keys(&[2])).await.unwrap();
    assert_eq!(store.pending("app").await.len(), 2);
    same(&store.journal.event(waits).await.unwrap().unwrap(), &telling(1, &[]));
}

#[tokio::test]
async fn a_key_that_never_sealed_anything_is_not_asked_for() {
    let store = sealed_store(keys(&[1]));
    assert_eq!(store.journal.locked_to(&keys(&[2])), []);
    store.journal.set_encryption(&keys(&[2])).await.unwrap(); // nothing stands in the segment yet
    let kept = fresh(store.append(telling(1, &["app"])).await);
    assert_eq!(store.keys_in_use(), [id(2)]);
    let mut store = store.opened_with(keys(&[2])).await.unwrap();
    for _ in 0..2 {
        assert_eq!(store.journal.stats().damaged, 0, "no segment is missed");
        same(&store.journal.event(kept).await.unwrap().unwrap(), &telling(1, &[]));
        store = store.opened_with(keys(&[2])).await.unwrap();
    }
    let store = sealed_store(keys(&[1])).opened_with(keys(&[2])).await.unwrap();
    assert_eq!(store.keys_in_use(), []);
}

/// Events are sealed before they wait for the writer, and the key may change while they wait.
#[tokio::test]
async fn events_that_wait_while_the_key_changes_are_sealed_with_the_new_one() {
    for (before, after) in [(keys(&[1]), keys(&[2])), (off(1), keys(&[1])), (keys(&[1]), off(2)), (off(1), off(2))] {
        let store = sealed_store(before);
        let old = store.journal.keys().load_full();
        store.journal.set_encryption(&after).await.unwrap();
        let new = store.journal.shared.keys.swap(old); // whoever sealed just before does not know yet
        let kept = fresh(store.append(telling(1, &["app"])).await);
        store.journal.shared.keys.store(new);
        assert_eq!(leaks(store.dir.path()).is_empty(), after.seals);
        let store = store.opened_with(after).await.unwrap();
        same(&store.journal.event(kept).await.unwrap().unwrap(), &telling(1, &[]));
    }
}

/// Whoever may write to the disk can make checksums hold; then it is damage, and not another event.
#[tokio::test]
async fn a_sealed_record_that_was_changed_on_purpose_is_not_taken() {
    let store = sealed_store(keys(&[1]));
    let kept = fresh(store.append(telling(1, &["app"])).await);
    store.journal.close().await;
    let dir = tempfile::tempdir().unwrap();
    copy(store.dir.path(), dir.path());
    let (number, offset) = segment::split(kept.at);
    let disk = RealDisk::new(dir.path());
    let key = SegmentKey { store: store.journal.identity(), number };
    let file = disk.open(&segment::path(number)).unwrap();
    let raw = segment::read_one(file, key, offset, u32::MAX).unwrap().unwrap();
    let mut payload = raw.payload.to_vec();
    *payload.last_mut().unwrap() ^= 1;
    let mut forged = Vec::new();
    segment::frame(&mut forged, key, offset, raw.kind, raw.entry, &parts::Payload { form: raw.form, bytes: payload });
    let path = dir.path().join(segment::path(number));
    let mut bytes = fs::read(&path).unwrap();
    bytes[offset as usize..raw.end as usize].copy_from_slice(&forged);
    fs::write(&path, bytes).unwrap();
    let journal = open_sealed(dir.path(), &store.clock, keys(&[1])).unwrap();
    assert_eq!((journal.stats().damaged, journal.stats().lanes[0].pending), (0, 1), "its checksums hold");
    assert!(matches!(journal.event(kept).await, Err(JournalError::Damaged)));
}

/// What sealing costs, in figures; a few in the everyday run, for the answers alone.
/// `FOREBAY_SEALS=200000 cargo test --release --lib what_sealing_costs -- --nocapture`
#[test]
fn what_sealing_costs() {
    let rounds: u32 = std::env::var("FOREBAY_SEALS").map_or(3, |text| text.parse().expect("FOREBAY_SEALS is a number"));
    let record = || {
        let mut event = event(&[b'x'; 2048]);
        event.headers = (0..12)
            .map(|_| {
                (
                    HeaderName::from_static("x-some-header"),
                    HeaderValue::from_static("a value of some length, as they are"),
                )
            })
            .collect();
        EventRecord { moved_from: None, claim: None, deliveries: Vec::new(), relayed: None, event, erased: false }
    };
    let record = record();
    let ring = Keyring::new(&keys(&[1]), [7; 16]);
    let each = |began: Instant| began.elapsed().as_secs_f64() * 1e6 / f64::from(rounds);
    for (what, sealer) in [("clear", None), ("sealed", ring.sealing())] {
        let began = Instant::now();
        let mut bytes = 0;
        for _ in 0..rounds {
            bytes += stored::encode_event(&record, sealer.map(|sealer| &**sealer)).unwrap().bytes.len();
        }
        let wrote = each(began);
        let parts::Payload { form, bytes: payload } = stored::encode_event(&record, sealer.map(|it| &**it)).unwrap();
        let raw =
            segment::RawRecord { offset: 0, end: 0, kind: record::KIND_EVENT, form, entry: 0, payload: payload.into() };
        let began = Instant::now();
        for _ in 0..rounds {
            assert!(record::Record::decode(&raw, &ring).is_ok());
        }
        println!("{what}: {wrote:.2} µs to write, {:.2} µs to read, {} bytes", each(began), bytes / rounds as usize);
    }
}
