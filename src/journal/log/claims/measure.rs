//! What claims cost, in figures: docs/dedupe.md has those of 50 million. A few in the everyday run, for the answers alone.
//!
//! ```sh
//! FOREBAY_CLAIMS=50000000 cargo test --release --lib claims::measure -- --nocapture
//! ```
//!
//! Takes about 4 GiB in the temporary directory (`TMPDIR`) for 50 million.

use std::path::Path;

use super::*;
use crate::journal::disk::RealDisk;

/// Claims between two visits of [`Claims::tend`]: a batch of the writer.
const BATCH: u64 = 64;
const LOOK_UPS_MAX: u64 = 1_000_000;

fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

fn hash(number: u64) -> Hash {
    let mut hash = [0; 16];
    hash[..8].copy_from_slice(&mixed(2 * number + 1).to_be_bytes());
    hash[8..].copy_from_slice(&mixed(2 * number + 2).to_be_bytes());
    hash
}

fn held(number: u64) -> Held {
    Held {
        event: EventId::from_bytes(hash(number)),
        at: Position(number),
        until: UnixMillis(i64::MAX),
        fingerprint: number,
        first_entry: 0,
        entries: 1,
        rearms: true,
    }
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn bytes_in(dir: &Path) -> u64 {
    RealDisk::new(dir).list(DIR).unwrap().iter().map(|(_, bytes)| bytes).sum()
}

#[test]
fn every_claim_is_found_and_no_other_whatever_their_number() {
    let count: u64 =
        std::env::var("FOREBAY_CLAIMS").map_or(10_000, |text| text.parse().expect("FOREBAY_CLAIMS is a number"));
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir.path()));
    let now = UnixMillis(1);
    let before = resident_mib();
    let mut claims = Claims::open(Arc::clone(&disk), [7; 16], now).unwrap().claims;
    claims.seal_at = OPEN_MAX.min(usize::try_from(count / 20 + 1).unwrap());
    claims.merge_at_most((10 << 30) / 16); // as with the default `max_size`
    let began = Instant::now();
    let (mut longest, mut waits) = (Duration::ZERO, [0u64; 3]);
    let (mut most_resident, mut most_bytes, mut most_runs) = (0, 0, 0);
    let (mut seal, mut longest_seal) = (None, Duration::ZERO);
    let (mut merge, mut longest_merge, mut merges) = (None, Duration::ZERO, 0);
    for first in (0..count).step_by(BATCH as usize) {
        let batch = Instant::now();
        for number in first..(first + BATCH).min(count) {
            assert!(claims.find(&hash(number), now).unwrap().holder.is_none());
            claims.give(hash(number), held(number));
        }
        if claims.tend(now).is_some() {
            longest_seal = longest_seal.max(seal.take().map_or(Duration::ZERO, |began: Instant| began.elapsed()));
        }
        if claims.is_overfull() {
            claims.seal(Position(first), now).unwrap();
        } else if claims.is_full() {
            claims.begin_seal(Position(first), now);
            seal.get_or_insert_with(Instant::now);
        }
        let took = batch.elapsed();
        longest = longest.max(took);
        for (count, limit) in waits.iter_mut().zip([5, 20, 100]) {
            *count += u64::from(took > Duration::from_millis(limit));
        }
        match (&claims.merging, merge) {
            (Some(_), None) => (merge, merges) = (Some(Instant::now()), merges + 1),
            (None, Some(began)) => {
                longest_merge = longest_merge.max(began.elapsed());
                merge = None;
            }
            _ => {}
        }
        if first % (1 << 18) < BATCH {
            most_resident = most_resident.max(resident_mib());
            most_bytes = most_bytes.max(bytes_in(dir.path()));
            most_runs = most_runs.max(claims.runs.len());
        }
    }
    let took = began.elapsed();
    println!("{count} claims, each looked up first: {:.0}/s", count as f64 / took.as_secs_f64());
    println!("longest wait of the writer for {BATCH}: {longest:?}; over 5, 20, 100 ms: {waits:?} of {}", count / BATCH);
    println!("longest seal {longest_seal:?}; {merges} merges, longest {longest_merge:?}");
    println!(
        "most at a time: {} MiB resident, {most_bytes} bytes, {most_runs} runs",
        most_resident.saturating_sub(before)
    );

    claims.seal(Position(count), now).unwrap();
    while claims.merging.is_some() || claims.merge_at.is_some() {
        claims.tend(now);
        std::thread::yield_now();
    }
    println!("at rest: {} runs, {} bytes", claims.runs.len(), bytes_in(dir.path()));
    drop(claims);
    let began = Instant::now();
    let claims = Claims::open(disk, [7; 16], now).unwrap().claims;
    println!("opened in {:?}; {} MiB resident", began.elapsed(), resident_mib().saturating_sub(before));
    let look_ups = LOOK_UPS_MAX.min(count);
    for (what, first) in [("that nobody holds", count), ("that somebody holds", 0)] {
        for warm in [false, true] {
            let began = Instant::now();
            for number in 0..look_ups {
                let number = first + mixed(number + u64::from(warm)) % count;
                assert_eq!(claims.find(&hash(number), now).unwrap().holder.is_some(), first == 0);
            }
            let rate = look_ups as f64 / began.elapsed().as_secs_f64();
            println!("look-ups of keys {what}: {rate:.0}/s; {} MiB resident", resident_mib().saturating_sub(before));
        }
    }
}
