//! P11 to P14: a small store of every kind of record, damaged at every byte and cut at every length (tests/damage.sh; every day only
//! some of them), and each of its files damaged, taken away, emptied, exchanged and put back as it was.

use std::collections::BTreeMap;

use super::*;
use crate::journal::Relayed;
use crate::journal::disk::forgetful::Forgetful;
use crate::journal::seal::tests::keys;

const DAY: Duration = Duration::from_secs(86_400);

/// Of so many bytes one is tried.
fn step() -> usize {
    if std::env::var_os("FOREBAY_DAMAGE").is_some() { 1 } else { 149 }
}

type Files = BTreeMap<String, Vec<u8>>;

/// A store at rest, and what it holds.
struct Sample {
    files: Files,
    /// Its files as they were before, at some moments.
    older: Vec<Files>,
    bodies: BTreeMap<EventId, Bytes>,
    pending: BTreeSet<EventId>,
    /// Deliveries that are pending or dead.
    unsettled: u64,
}

/// What a store has when it is opened.
struct Seen {
    pending: BTreeSet<EventId>,
    unsettled: u64,
    damaged: u64,
}

/// Half of the sample is sealed.
fn sealing() -> Settings {
    Settings { encryption: keys(&[1]), ..settings(Path::new("/nowhere"), SMALL) }
}

fn opened(files: &Files) -> Result<LogJournal, OpenError> {
    let (disk, clock): (Arc<dyn Disk>, Arc<dyn Clock>) =
        (Arc::new(Forgetful::with(files)), Arc::new(ManualClock::at(T0.plus(DAY * 9))));
    LogJournal::open_on(disk, &sealing(), clock, Metrics::new("test"), None)
}

/// Reads everything, and holds it against what was kept: no wrong byte is ever given.
async fn look(journal: &LogJournal, sample: &Sample) -> Seen {
    let (mut pending, lanes) = (BTreeSet::new(), journal.lanes());
    let lanes: Vec<_> = lanes.borrow().iter().cloned().collect();
    for lane in lanes {
        let mut after = Position::START;
        while after < journal.tail() {
            let lane = lane.clone();
            let batch = journal.read(move |reader| reader.pending(&lane, after, 100)).await.unwrap();
            after = batch.next;
            for delivery in batch.deliveries {
                let kept = journal.event(delivery.event).await.unwrap().unwrap();
                assert_eq!(Some(&kept.event.body), sample.bodies.get(&delivery.id.event));
                pending.insert(delivery.id.event);
            }
        }
    }
    let mut after = Position::START;
    while after < journal.tail() {
        after = journal.changes(after, 100).await.unwrap().next;
    }
    let stats = journal.stats();
    let unsettled = stats.lanes.iter().map(|lane| lane.pending + lane.orphans() + lane.dead).sum();
    Seen { pending, unsettled, damaged: stats.damaged }
}

async fn sample() -> Sample {
    let disk = Forgetful::default();
    let clock = Arc::new(ManualClock::at(T0));
    let open = |settings: Settings| {
        let (disk, clock): (Arc<dyn Disk>, Arc<dyn Clock>) = (Arc::new(disk.clone()), Arc::clone(&clock) as _);
        LogJournal::open_on(disk, &settings, clock, Metrics::new("test"), None).unwrap()
    };
    let clear = settings(Path::new("/nowhere"), SMALL);
    let (mut journal, mut bodies, mut older) = (open(clear), BTreeMap::new(), Vec::new());
    for round in 0..2u8 {
        let first = round * 60;
        for number in first..first + 45 {
            let body = vec![number; 200];
            let mut entry = entry(&body, Some(number), if number % 5 == 4 { &["app", "audit"] } else { &["app"] });
            let mut event = event(&body);
            event.received_at = clock.now();
            event.id = EventId::new(clock.now());
            if number % 7 == 0 {
                entry.relayed =
                    Some(Relayed { status: 200, content_type: None, body: Some(Bytes::from_static(b"told")) });
            }
            if number % 11 == 0 {
                entry.claim.as_mut().unwrap().same_body = Some(DedupeKey([200; 32]));
            }
            bodies.insert(event.id, Bytes::from(body));
            entry.event = VerifiedEvent::assumed(event);
            journal.append(entry, Sync::Durable).await.unwrap();
        }
        older.push(disk.files());
        let lane = journal.lanes().borrow()[0].clone();
        let mut after = Position::START;
        while after < journal.tail() {
            let own = lane.clone();
            let batch = journal.read(move |reader| reader.pending(&own, after, 100)).await.unwrap();
            after = batch.next;
            for (place, pending) in batch.deliveries.iter().enumerate() {
                let number = pending.attempts + 1;
                let verdict = match place % 6 {
                    0 | 1 => Verdict::Delivered,
                    2 => Verdict::RetryAt(clock.now()),
                    3 => Verdict::Dead(DeadReason::GaveUp),
                    _ => continue,
                };
                journal.start(&lane, pending.id, number).await.unwrap();
                let settled = Settled { delivery: pending.id, attempt: Some(attempt(number)), verdict };
                journal.settle(&lane, settled).await.unwrap();
            }
        }
        for number in (first..first + 20).filter(|number| number % 11 != 0) {
            journal.append(entry(&[number; 200], Some(number), &["app"]), Sync::Durable).await.unwrap(); // duplicates
        }
        if round == 0 {
            journal.close().await;
            older.push(disk.files());
            clock.pass(DAY * 8);
            journal = open(sealing());
            for _ in 0..2 {
                journal.trim(Retention::default()).await.unwrap(); // what waits is moved, the rest goes
            }
        }
    }
    journal.close().await;
    let mut sample = Sample { files: disk.files(), older, bodies, pending: BTreeSet::new(), unsettled: 0 };
    let Seen { pending, unsettled, damaged } = look(&opened(&sample.files).unwrap(), &sample).await;
    assert!(pending.len() > 40 && unsettled > pending.len() as u64 && damaged == 0);
    (sample.pending, sample.unsettled) = (pending, unsettled);
    sample
}

/// A record: its file, where it is there, its kind, and the event it is about.
type Whole = (String, std::ops::Range<usize>, u8, Option<EventId>);

/// The records of the store's segments.
fn records(files: &Files) -> Vec<Whole> {
    let disk = Forgetful::with(files);
    let store = Meta::open(&disk).unwrap().store;
    let ring = Keyring::new(&keys(&[1]), store);
    let mut all = Vec::new();
    for (name, bytes) in files.iter().filter(|(name, _)| name.starts_with("log/")) {
        let number = segment::number_of(name.strip_prefix("log/").unwrap()).unwrap();
        let end = u32::try_from(bytes.len()).unwrap();
        let file = disk.open(name).unwrap();
        let mut scan = segment::Scan::new(file, SegmentKey { store, number }, 0, end, 4096);
        while let Some(found) = scan.next().unwrap() {
            let segment::Found::Record(raw) = found else { panic!("damaged already") };
            let event = match record::Record::decode(&raw, &ring).unwrap() {
                record::Record::Event(record) => Some(record.event.id),
                record::Record::Started { delivery, .. } | record::Record::Rearmed { delivery, .. } => {
                    Some(delivery.event)
                }
                record::Record::Settled { settled, .. } => Some(settled.delivery.event),
                _ => None,
            };
            all.push((name.clone(), raw.offset as usize..raw.end as usize, raw.kind, event));
        }
    }
    all
}

#[tokio::test]
async fn every_flipped_byte_costs_what_it_touches() {
    let sample = sample().await;
    let records = records(&sample.files);
    let kinds: BTreeSet<u8> = records.iter().map(|(_, _, kind, _)| *kind).collect();
    assert!(kinds.is_superset(&[1, 2, 3, 4, 5, 6, 7].into()), "{kinds:?}");
    let last = records.last().unwrap().clone();
    for (name, bytes) in sample.files.iter().filter(|(name, _)| name.starts_with("log/")) {
        for at in (0..bytes.len()).step_by(step()) {
            let mut files = sample.files.clone();
            files.get_mut(name).unwrap()[at] ^= 0x10;
            let journal = opened(&files).unwrap_or_else(|error| panic!("{name} {at}: {error}"));
            let seen = look(&journal, &sample).await;
            let hit = records.iter().find(|(file, range, ..)| file == name && range.contains(&at));
            let touched = hit.and_then(|(.., event)| *event);
            let lost: Vec<_> = sample.pending.difference(&seen.pending).collect();
            assert!(lost.iter().all(|event| Some(**event) == touched), "{name} {at}: {lost:?} for {hit:?}");
            let more: Vec<_> = seen.pending.difference(&sample.pending).collect();
            assert!(more.iter().all(|event| Some(**event) == touched), "{name} {at}: {more:?} for {hit:?}");
            let torn = hit.is_some_and(|(file, range, ..)| (file, range) == (&last.0, &last.1));
            // How many deliveries a segment's last event had is known only as long as its record says so.
            let ends = |record: &&Whole| record.0 == *name && record.2 == 1;
            let unknown = torn || hit.is_some_and(|hit| records.iter().rfind(ends).is_some_and(|last| last.1 == hit.1));
            let least = sample.unsettled - if unknown { 2 } else { 0 };
            assert!(
                (least..=sample.unsettled + 2).contains(&seen.unsettled),
                "{name} {at}: {} for {hit:?}",
                seen.unsettled
            );
            assert!(seen.damaged > 0 || torn || at < 64 || lost.is_empty(), "{name} {at}: silent for {hit:?}");
        }
    }
}

#[tokio::test]
async fn every_truncation_keeps_what_is_whole_before_it() {
    let sample = sample().await;
    let records = records(&sample.files);
    let (name, bytes) = sample.files.iter().rfind(|(name, _)| name.starts_with("log/")).unwrap();
    for length in (0..bytes.len()).step_by(step()) {
        let mut files = sample.files.clone();
        files.get_mut(name).unwrap().truncate(length);
        // The checkpoint and the claims know that the log went further: what is cut off is missed.
        let journal = opened(&files).unwrap_or_else(|error| panic!("{length}: {error}"));
        assert!(look(&journal, &sample).await.damaged > 0, "cut at {length} in silence");
        // Without them it looks as a crash leaves it.
        files.retain(|name, _| name != "checkpoint" && !name.starts_with("claims/"));
        let journal = opened(&files).unwrap_or_else(|error| panic!("{length}: {error}"));
        let seen = look(&journal, &sample).await;
        let whole = |(file, range, ..): &&Whole| file != name || range.end <= length;
        let kept: BTreeSet<EventId> =
            records.iter().filter(whole).filter(|record| record.2 == 1).filter_map(|record| record.3).collect();
        let missing: Vec<_> =
            sample.pending.iter().filter(|event| kept.contains(event) && !seen.pending.contains(event)).collect();
        // A record that makes a dead one pending again may be what was cut off.
        let rearmed = records.iter().filter(|record| !whole(record) && record.2 == 4).filter_map(|record| record.3);
        let rearmed: BTreeSet<_> = rearmed.collect();
        assert!(missing.iter().all(|event| rearmed.contains(event)), "cut at {length}: {missing:?}");
        // What says that a segment was let go of may be cut off as well: then that one is missing.
        let explains = length >= 64 && records.iter().all(|record| record.2 != 6 || whole(&record));
        // The list of runs of claims is missed, and nothing else.
        assert!(seen.damaged <= 1 || !explains, "cut at {length}: a torn end is no damage");
    }
}

/// Never fewer than there were without a word: refused, said to be damaged, or all there.
#[tokio::test]
async fn no_file_is_missed_in_silence() {
    let (sample, other) = (sample().await, sample().await);
    for (name, bytes) in &sample.files {
        let mut changed: Vec<(String, Files)> = Vec::new();
        let mut with = |what: &str, content: Option<Vec<u8>>| {
            let mut files = sample.files.clone();
            match content {
                Some(content) => drop(files.insert(name.clone(), content)),
                None => drop(files.remove(name)),
            }
            changed.push((format!("{name} {what}"), files));
        };
        with("missing", None);
        with("empty", Some(Vec::new()));
        with("zeros", Some(vec![0; bytes.len()]));
        with("half", Some(bytes[..bytes.len() / 2].to_vec()));
        let older = sample.older.iter().filter_map(|files| files.get(name)).filter(|old| *old != bytes);
        older.for_each(|old| with("as it was before", Some(old.clone())));
        other.files.get(name).into_iter().for_each(|foreign| with("of another store", Some(foreign.clone())));
        if !name.starts_with("log/") {
            for at in (0..bytes.len()).step_by(step().min(bytes.len().div_ceil(16).max(1))) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 0x10;
                with(&format!("flipped at {at}"), Some(flipped));
            }
        }
        for (what, files) in changed {
            match opened(&files) {
                Err(error) => assert!(!error.to_string().is_empty(), "{what}"),
                Ok(journal) => {
                    let seen = look(&journal, &sample).await;
                    let all_there = seen.pending.is_superset(&sample.pending);
                    let newest = sample.files.keys().rfind(|name| name.starts_with("log/")).unwrap();
                    let torn = what.starts_with(newest.as_str()); // cut short it looks like a crash: see the truncations
                    assert!(all_there || seen.damaged > 0 || torn, "{what}: lost in silence");
                }
            }
        }
    }
}
