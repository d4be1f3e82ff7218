//! Claims by themselves, on real files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use super::*;
use crate::journal::disk::RealDisk;
use crate::journal::disk::failing::{FailingDisk, Faults};

const STORE: [u8; 16] = [1; 16];
/// Claims end at this time unless a test says otherwise.
const END: UnixMillis = UnixMillis(100);
const NOW: UnixMillis = UnixMillis(1);

struct Bench {
    dir: tempfile::TempDir,
    faults: Arc<Faults>,
    claims: Claims,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let faults = Arc::new(Faults::default());
        let claims = open(&dir, &faults).0;
        Self { dir, faults, claims }
    }

    /// Closed and opened again; up to where claims are sealed.
    fn reopened(mut self) -> (Self, Position) {
        self.claims.close();
        let (claims, through) = open(&self.dir, &self.faults);
        (Self { claims, ..self }, through)
    }

    fn give(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.claims.give(hash(number), held(number, END));
        }
    }

    /// Seals, as position `through`, and merges whatever is worth it.
    fn seal(&mut self, through: u64) {
        self.claims.seal(Position(through), NOW).unwrap();
        self.work(NOW);
    }

    /// Until there is nothing left to be done in the background.
    fn work(&mut self, now: UnixMillis) {
        loop {
            self.claims.tend(now);
            match &self.claims.merging {
                None => return,
                Some(merging) => {
                    while !merging.job.is_finished() {
                        std::thread::yield_now();
                    }
                }
            }
        }
    }

    fn holder(&self, number: u64, now: UnixMillis) -> Option<Held> {
        self.claims.find(&hash(number), now).unwrap().holder
    }

    fn files(&self) -> Vec<String> {
        let files = RealDisk::new(self.dir.path()).list(DIR).unwrap();
        let mut names: Vec<_> = files.into_iter().map(|(name, _)| name).filter(|name| name != "runs").collect();
        names.sort();
        names
    }

    /// Changes a byte of a file, so many bytes from its start.
    fn damage(&self, name: &str, at: usize) {
        let file = self.dir.path().join(DIR).join(name);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
}

fn open(dir: &tempfile::TempDir, faults: &Arc<Faults>) -> (Claims, Position) {
    let disk = FailingDisk { faults: Arc::clone(faults), real: RealDisk::new(dir.path()) };
    let opened = Claims::open(Arc::new(disk), STORE, NOW).unwrap();
    (opened.claims, opened.through)
}

fn hash(number: u64) -> Hash {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    bytes[8..].copy_from_slice(&number.wrapping_mul(0xC2B2_AE3D_27D4_EB4F).to_le_bytes());
    bytes
}

fn held(number: u64, until: UnixMillis) -> Held {
    Held {
        event: EventId::from_bytes(hash(number + 1_000_000)),
        at: Position(number),
        until,
        fingerprint: number,
        first_entry: 7,
        entries: 2,
        rearms: true,
    }
}

#[test]
fn sealed_claims_are_found_again_after_reopening_until_they_expire() {
    // None, one, a block and one more, a group and one more, several groups.
    for count in [0, 1, 64, 65, 2_560, 2_561, 9_000] {
        let mut bench = Bench::new();
        bench.give(0..count);
        bench.seal(77);
        let (bench, through) = bench.reopened();
        assert_eq!(through, if count == 0 { Position::START } else { Position(77) });
        for number in 0..count {
            assert_eq!(bench.holder(number, UnixMillis(99)), Some(held(number, END)), "{number} of {count}");
            assert_eq!(bench.holder(number, END), None, "the window is over");
        }
        let strangers = (count..count + 5_000).filter(|number| bench.holder(*number, NOW).is_some());
        assert_eq!(strangers.count(), 0);
    }
}

#[test]
fn a_newer_claim_on_a_key_counts_and_expired_runs_go() {
    let mut bench = Bench::new();
    bench.claims.give(hash(1), held(1, UnixMillis(10)));
    bench.claims.seal(Position(1), UnixMillis(0)).unwrap();
    bench.claims.give(hash(1), held(2, UnixMillis(50)));
    bench.claims.seal(Position(2), UnixMillis(20)).unwrap();
    assert_eq!(bench.holder(1, UnixMillis(20)), Some(held(2, UnixMillis(50))));
    bench.work(UnixMillis(20));
    assert_eq!(bench.files(), ["00000002-00000002.clm"]);
    let (mut bench, _) = bench.reopened();
    bench.work(UnixMillis(60));
    assert_eq!(bench.files().len(), 1, "the newest says how far sealing came");
}

/// Claims in memory, on their way to the disk, in one run and in several: the same answers, whatever was merged.
#[test]
fn merging_changes_no_answer_and_leaves_out_what_has_expired() {
    let mut bench = Bench::new();
    let mut model = BTreeMap::new();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..40u64 {
        for _ in 0..500 {
            // A key is claimed anew once the claim before has ended, so a later one ends later.
            let (number, until) = (random.u64(0..6_000), UnixMillis(60 + i64::try_from(2 * round).unwrap()));
            bench.claims.give(hash(number), held(round, until));
            model.insert(number, held(round, until));
        }
        bench.seal(round);
        assert!(bench.claims.runs.len() < 8, "they are merged");
    }
    bench.give(6_000..6_010); // not sealed
    let (mut bench, through) = bench.reopened();
    assert_eq!(through, Position(39));
    for now in [NOW, UnixMillis(60), UnixMillis(100)] {
        for (number, wanted) in &model {
            assert_eq!(bench.holder(*number, now), Some(*wanted).filter(|held| held.until > now), "{number}");
        }
    }
    let before = bench.claims.bytes();
    for round in 40..48 {
        bench.give(7_000 + round..7_001 + round);
        bench.claims.seal(Position(round), UnixMillis(134)).unwrap();
        bench.work(UnixMillis(134));
    }
    assert!(bench.claims.bytes() < before / 2, "what had expired is gone");
    for (number, wanted) in &model {
        assert_eq!(bench.holder(*number, UnixMillis(134)), Some(*wanted).filter(|held| held.until > UnixMillis(134)));
    }
}

#[test]
fn claims_are_found_while_they_are_being_sealed() {
    let mut bench = Bench::new();
    bench.give(0..100);
    bench.faults.hold_syncs();
    bench.claims.begin_seal(Position(5), NOW);
    bench.faults.until_one_is_held();
    assert_eq!(bench.claims.tend(NOW), None, "not on disk yet");
    bench.give(100..200);
    assert!((0..200).all(|number| bench.holder(number, NOW).is_some()));
    bench.claims.give(hash(3), held(3, UnixMillis(500)));
    assert_eq!(bench.holder(3, UnixMillis(200)), Some(held(3, UnixMillis(500))), "the newer one counts");
    bench.faults.release_syncs();
    let through = loop {
        if let Some(through) = bench.claims.tend(NOW) {
            break through;
        }
        std::thread::yield_now();
    };
    assert_eq!(through, Position(5));
    assert!((0..200).all(|number| bench.holder(number, NOW).is_some()));
    let (bench, through) = bench.reopened();
    assert_eq!(through, Position(5));
    assert_eq!((0..200).filter(|number| bench.holder(*number, NOW).is_some()).count(), 100, "the log has the others");
}

#[test]
fn what_cannot_be_sealed_stays_and_is_sealed_later() {
    for fault in [28, 5] {
        let mut bench = Bench::new();
        bench.give(0..100);
        match fault {
            28 => bench.faults.full_after.store(bench.faults.written.load(SeqCst) + 100, SeqCst),
            _ => bench.faults.sync.store(true, SeqCst),
        }
        assert_eq!(bench.claims.seal(Position(5), NOW).unwrap_err().raw_os_error(), Some(fault));
        assert!(bench.files().is_empty());
        bench.claims.begin_seal(Position(5), NOW);
        while !bench.claims.sealing.as_ref().unwrap().job.as_ref().unwrap().is_finished() {
            std::thread::yield_now();
        }
        assert_eq!(bench.claims.tend(NOW), None);
        assert!(!bench.claims.is_full(), "in a while, not at once");
        bench.give(100..200);
        assert!((0..200).all(|number| bench.holder(number, NOW).is_some()));
        bench.faults.full_after.store(0, SeqCst);
        bench.faults.sync.store(false, SeqCst);
        bench.claims.seal(Position(6), NOW).unwrap();
        let (bench, through) = bench.reopened();
        assert_eq!(through, Position(6));
        assert!((0..200).all(|number| bench.holder(number, NOW).is_some()));
    }
}

#[test]
fn a_merge_that_fails_loses_nothing_and_is_tried_again() {
    for fault in [28, 5] {
        let mut bench = Bench::new();
        for round in 0..8 {
            bench.give(round * 100..round * 100 + 100);
            bench.claims.seal(Position(round), NOW).unwrap();
        }
        let before = bench.files();
        match fault {
            28 => bench.faults.full_after.store(bench.faults.written.load(SeqCst) + 10_000, SeqCst),
            _ => bench.faults.sync.store(true, SeqCst),
        }
        bench.work(NOW);
        assert_eq!(bench.files(), before, "what was written of it is gone");
        assert!(bench.claims.merge_at.is_some_and(|at| at > Instant::now()), "later, not at once");
        assert!((0..800).all(|number| bench.holder(number, NOW).is_some()));
        bench.faults.full_after.store(0, SeqCst);
        bench.faults.sync.store(false, SeqCst);
        bench.claims.merge_at = Some(Instant::now());
        bench.work(NOW);
        assert_eq!(bench.files(), ["00000001-00000008.clm"]);
        assert!((0..800).all(|number| bench.holder(number, NOW).is_some()));
    }
}

/// The process dies at each step of a merge: before the new run has its name, after that, and half way through
/// removing what it was made of.
#[test]
fn a_crash_in_a_merge_changes_nothing() {
    let mut bench = Bench::new();
    for round in 0..8 {
        bench.give(round * 100..round * 100 + 100);
        bench.claims.seal(Position(round + 1), NOW).unwrap();
    }
    let path = |name: &str| bench.dir.path().join(DIR).join(name);
    let parts: Vec<_> = bench.files().iter().map(|name| (name.clone(), std::fs::read(path(name)).unwrap())).collect();
    let (mut bench, _) = bench.reopened();
    bench.work(NOW);
    let merged = std::fs::read(bench.dir.path().join(DIR).join("00000001-00000008.clm")).unwrap();
    drop(bench);
    for step in ["half written", "named", "half removed"] {
        let bench = Bench::new();
        let path = |name: &str| bench.dir.path().join(DIR).join(name);
        let kept = if step == "half removed" { 4 } else { 8 };
        parts.iter().take(kept).for_each(|(name, bytes)| std::fs::write(path(name), bytes).unwrap());
        match step {
            "half written" => std::fs::write(path("00000001-00000008.clm.new"), &merged[..merged.len() / 2]).unwrap(),
            _ => std::fs::write(path("00000001-00000008.clm"), &merged).unwrap(),
        }
        let (mut bench, through) = bench.reopened();
        assert_eq!(through, Position(8), "{step}");
        assert!((0..800).all(|number| bench.holder(number, NOW).is_some()), "{step}");
        bench.work(NOW);
        assert_eq!(bench.files(), ["00000001-00000008.clm"], "{step}");
        bench.give(900..901);
        bench.seal(9);
        assert_eq!(bench.reopened().1, Position(9), "{step}");
    }
}

#[test]
fn a_run_whose_end_is_damaged_is_left_out_and_the_log_read_again() {
    let mut bench = Bench::new();
    bench.give(0..100);
    bench.seal(5);
    let length = bench.claims.bytes();
    for at in [length - 1, length - 45, length - 50, length - 70] {
        bench.damage("00000001-00000001.clm", usize::try_from(at).unwrap());
        let (reopened, through) = bench.reopened();
        assert_eq!((reopened.holder(1, NOW), through), (None, Position::START));
        bench = reopened;
        bench.damage("00000001-00000001.clm", usize::try_from(at).unwrap()); // mended
    }
    bench.damage("00000001-00000001.clm", usize::try_from(length - 1).unwrap());
    let (mut bench, _) = bench.reopened();
    bench.give(0..50); // read again
    bench.claims.mend(Position(6), NOW).unwrap();
    assert_eq!(bench.files(), ["00000002-00000002.clm"]);
    let (bench, through) = bench.reopened();
    assert!(through == Position(6) && bench.holder(49, NOW).is_some());
}

/// Of runs of 100 claims each, sealed as positions 1 to 4: what opening comes to after `change`, and how many are found then. The
/// next one finds all of them, once the log has been read again.
fn after(change: impl FnOnce(&Path)) -> (Position, u64, usize) {
    let mut bench = Bench::new();
    for round in 0..4 {
        bench.give(round * 100..round * 100 + 100);
        bench.claims.seal(Position(round + 1), NOW).unwrap();
    }
    bench.claims.close();
    change(&bench.dir.path().join(DIR));
    let (through, missing) = (opened(&bench).through, opened(&bench).missing); // as often as it is interrupted
    let mut again = opened(&bench).claims;
    let found =
        |claims: &Claims| (0..400).filter(|number| claims.find(&hash(*number), NOW).unwrap().holder.is_some()).count();
    let kept = found(&again);
    (0..400).for_each(|number| again.give(hash(number), held(number, END)));
    again.mend(Position(9), NOW).unwrap();
    drop(again);
    let settled = opened(&bench);
    assert_eq!(settled.missing, 0);
    assert_ne!(settled.through, Position::START);
    assert_eq!(found(&settled.claims), 400);
    (through, missing, kept)
}

fn opened(bench: &Bench) -> Opened {
    Claims::open(Arc::new(RealDisk::new(bench.dir.path())), STORE, NOW).unwrap()
}

#[test]
fn a_run_that_is_missing_is_noticed_and_the_log_read_again() {
    let run = |number: u32| format!("{number:08x}-{number:08x}.clm");
    assert_eq!(after(|_| ()), (Position(4), 0, 400));
    for gone in 1..=4 {
        assert_eq!(
            after(|dir| std::fs::remove_file(dir.join(run(gone))).unwrap()),
            (Position::START, 1, 300),
            "{gone}"
        );
    }
    assert_eq!(after(|dir| (1..=4).for_each(|gone| std::fs::remove_file(dir.join(run(gone))).unwrap())).1, 4);
    assert_eq!(after(|dir| std::fs::remove_file(dir.join("runs")).unwrap()), (Position::START, 1, 400));
    for damage in [&b""[..], b"FBRUNS1\0"] {
        assert_eq!(after(|dir| std::fs::write(dir.join("runs"), damage).unwrap()), (Position::START, 1, 400));
    }
}

#[test]
fn a_run_that_is_gone_because_it_expired_or_was_merged_is_not_missing() {
    let mut bench = Bench::new();
    bench.claims.give(hash(1), held(1, UnixMillis(10)));
    bench.claims.seal(Position(1), NOW).unwrap();
    for round in 2..12 {
        bench.give(round..round + 1);
        bench.seal(round);
    }
    bench.claims.close();
    assert_eq!((opened(&bench).missing, opened(&bench).through), (0, Position(11)));
    let mut bench = Bench::new();
    bench.claims.give(hash(1), held(1, UnixMillis(10)));
    bench.claims.seal(Position(1), NOW).unwrap();
    bench.give(2..3);
    bench.claims.seal(Position(2), NOW).unwrap();
    bench.work(UnixMillis(10));
    assert_eq!(bench.files(), ["00000002-00000002.clm"]);
    let at = |now| Claims::open(Arc::new(RealDisk::new(bench.dir.path())), STORE, now).unwrap().missing;
    assert_eq!((at(UnixMillis(9)), at(UnixMillis(10))), (1, 0), "only what it had is missed");
}

/// A name says nothing that the file itself does not say.
#[test]
fn a_run_under_another_name_removes_nothing() {
    let (_, missing, kept) = after(|dir| {
        let other = dir.join("00000001-00000004.clm");
        std::fs::copy(dir.join("00000001-00000001.clm"), &other).unwrap();
    });
    assert_eq!((missing, kept), (0, 400));
    for name in ["ffffffff-ffffffff.clm", "00000001-ffffffff.clm", "f0000000-f0000000.clm"] {
        assert_eq!(after(|dir| std::fs::write(dir.join(name), b"x").unwrap()), (Position::START, 0, 400), "{name}");
    }
}

#[test]
fn damage_inside_a_run_costs_the_claims_it_hits() {
    for (place, most) in [(100, 64), (2_560 * 64 + 100, 2_560)] {
        let mut bench = Bench::new();
        bench.give(0..6_000);
        bench.seal(5);
        bench.damage("00000001-00000001.clm", place);
        let (mut bench, through) = bench.reopened();
        assert_eq!(through, Position(5));
        let lost = |bench: &Bench| (0..6_000).filter(|number| bench.holder(*number, NOW).is_none()).count();
        assert_eq!(lost(&bench), most);
        for round in 0..7 {
            bench.give(10_000 + round..10_001 + round);
            bench.seal(6 + round);
        }
        assert_eq!(bench.files(), ["00000001-00000001.clm.reread", "00000001-00000008.clm"]);
        assert_eq!(lost(&bench), most, "the others are merged");
        let (mut bench, through) = bench.reopened();
        assert_eq!(through, Position::START, "what the log still has of them is read again");
        bench.give(0..6_000);
        bench.claims.mend(Position(20), NOW).unwrap();
        let (bench, through) = bench.reopened();
        assert_eq!((through, lost(&bench)), (Position(20), 0));
    }
}

/// Once the log has been read again, the run is whole: the next opening reads no more of the log than any other.
#[test]
fn damage_inside_a_run_has_the_log_read_again_once() {
    let mut bench = Bench::new();
    bench.give(0..6_000);
    bench.seal(5);
    bench.damage("00000001-00000001.clm", 100);
    let held = |bench: &Bench| (0..6_000).filter(|number| bench.holder(*number, NOW).is_some()).count();
    assert_eq!(held(&bench), 6_000 - 64);
    bench.work(NOW);
    let (mut bench, through) = bench.reopened();
    assert_eq!(through, Position::START);
    bench.give(0..100); // what the log still has
    bench.claims.mend(Position(6), NOW).unwrap();
    let kept = held(&bench);
    bench.work(NOW);
    assert_eq!(bench.files(), ["00000001-00000001.clm", "00000002-00000002.clm"]);
    let (mut bench, through) = bench.reopened();
    assert_eq!((through, held(&bench)), (Position(6), kept));
    bench.work(NOW);
    assert_eq!(bench.reopened().1, Position(6), "looking its keys up finds no damage");
}

/// Claims with the same first half: found wherever they stand, also where a block or a group ends between them.
#[test]
fn what_is_alike_is_found() {
    let alike = |number: u64, other: u8| {
        let mut bytes = hash(number);
        bytes[8..].fill(other);
        bytes
    };
    let mut bench = Bench::new();
    for number in 0..3_000 {
        bench.claims.give(alike(number, 100), held(number, END));
    }
    for sealed in [false, true] {
        if sealed {
            bench.seal(1);
        }
        for number in 0..3_000 {
            for other in [0, 99, 101, 255] {
                let found = bench.claims.find(&alike(number, other), NOW).unwrap();
                assert_eq!(found, Found { holder: None, alike: Some(held(number, END).event) }, "{number} {other}");
            }
            assert_eq!(bench.claims.find(&alike(number, 99), END).unwrap(), Found::default());
            assert_eq!(bench.claims.find(&hash(number + 3_000), NOW).unwrap(), Found::default());
        }
    }
    for other in 0..200u8 {
        bench.claims.give(alike(77_777, other), held(1, END)); // more of them than a block holds
    }
    bench.seal(2);
    for other in 0..200u8 {
        assert!(bench.claims.find(&alike(77_777, other), NOW).unwrap().holder.is_some());
    }
    assert!(bench.claims.find(&alike(77_777, 230), NOW).unwrap().alike.is_some());
}
