//! Which runs are merged into one, and how.
//!
//! Runs are kept in tiers by size, [`FAN`] to one. Once there are that many of a tier side by side, they become one run of the
//! next. Neighbours only, so that of two claims on a key the one in the later run is the later one. A run that is large already
//! stays as it is until all of its claims have expired, and then goes whole: so a merge is short, and takes little space.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::run::{Cursor, Run};
use super::{Hash, Held, OPEN_MAX};
use crate::base::UnixMillis;

/// Runs of one tier that become one of the next.
const FAN: usize = 8;
/// Neighbours of any size that become one, so that small ones between large ones are not forgotten.
const NEIGHBOURS: usize = 2 * FAN;

/// Which of the runs with so many claims, oldest first, to merge into one of at most `most`.
pub fn choose(rows: &[u64], most: u64) -> Option<Range<usize>> {
    let top = rows.iter().map(|rows| tier(*rows)).max()?;
    (0..=top).find_map(|wanted| stretch(rows, wanted, most))
}

/// The tier of a run: 0 up to [`FAN`] seals' claims, then one more each time it is [`FAN`] times as large.
fn tier(rows: u64) -> u32 {
    (rows / OPEN_MAX as u64).max(1).ilog(FAN as u64)
}

/// The oldest neighbours of no more than tier `wanted` that are worth merging.
fn stretch(rows: &[u64], wanted: u32, most: u64) -> Option<Range<usize>> {
    let may = |rows: &u64| tier(*rows) <= wanted && rows.saturating_mul(2) <= most;
    let mut begin = 0;
    for stretch in rows.chunk_by(|left, right| may(left) == may(right)) {
        let alike = stretch.iter().filter(|rows| tier(**rows) == wanted).count();
        if stretch.first().is_some_and(may) && (alike >= FAN || stretch.len() >= NEIGHBOURS) {
            let mut sum = 0;
            let fits = stretch.iter().take_while(|rows| {
                sum += **rows;
                sum <= most
            });
            return Some(begin..begin + fits.count()); // two at least: each is at most half
        }
        begin += stretch.len();
    }
    None
}

/// The claims of several runs in the order of their hashes, without those that have expired.
pub struct Merged {
    /// The latest run first, each with its next claim.
    runs: Vec<(Cursor, Option<(Hash, Held)>)>,
    now: UnixMillis,
}

impl Merged {
    /// Of `runs`, oldest first; what has expired at `now` is left out.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn new(runs: &[Arc<Run>], now: UnixMillis) -> io::Result<Self> {
        let begun = |run: &Arc<Run>| {
            let mut cursor = Cursor::new(Arc::clone(run));
            let head = cursor.next()?;
            Ok((cursor, head))
        };
        Ok(Self { runs: runs.iter().rev().map(begun).collect::<io::Result<_>>()?, now })
    }

    fn step(&mut self) -> io::Result<Option<(Hash, Held)>> {
        loop {
            let heads = self.runs.iter().filter_map(|(_, head)| head.as_ref());
            let Some((hash, _)) = heads.min_by_key(|(hash, _)| *hash).copied() else { return Ok(None) };
            let mut latest = None;
            for (cursor, head) in &mut self.runs {
                if head.as_ref().is_some_and(|(other, _)| *other == hash) {
                    let row = std::mem::replace(head, cursor.next()?);
                    latest = latest.or(row);
                }
            }
            if let Some(row) = latest.filter(|(_, held)| held.until > self.now) {
                return Ok(Some(row));
            }
        }
    }
}

impl Iterator for Merged {
    type Item = io::Result<(Hash, Held)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAL: u64 = OPEN_MAX as u64;

    #[test]
    fn eight_of_a_size_become_one_and_neighbours_only() {
        assert_eq!(choose(&[], 1 << 30), None);
        assert_eq!(choose(&[SEAL; 7], 1 << 30), None);
        assert_eq!(choose(&[SEAL; 8], 1 << 30), Some(0..8));
        assert_eq!(choose(&[&[SEAL * 8][..], &[SEAL; 8]].concat(), 1 << 30), Some(1..9), "the smaller ones first");
        assert_eq!(choose(&[&[SEAL * 8; 8][..], &[SEAL; 3]].concat(), 1 << 30), Some(0..11));
        assert_eq!(choose(&[&[SEAL; 4][..], &[SEAL * 8], &[SEAL; 4]].concat(), 1 << 30), None, "not side by side");
        assert_eq!(
            choose(&[&[1; 7][..], &[SEAL * 8], &[1; 7], &[SEAL * 8]].concat(), 1 << 30),
            Some(0..16),
            "but not for ever"
        );
    }

    #[test]
    fn a_merge_is_no_larger_than_it_may_be() {
        assert_eq!(choose(&[SEAL; 8], SEAL * 5), Some(0..5));
        assert_eq!(choose(&[SEAL * 5, SEAL, SEAL, SEAL], SEAL * 5), None);
        assert_eq!(choose(&[SEAL; 8], SEAL), None);
    }

    /// However long it goes on, there are few runs, and each claim is written few times.
    #[test]
    fn runs_stay_few_and_claims_are_written_a_few_times() {
        let (mut runs, mut most_runs, mut written) = (Vec::new(), 0, 0);
        for _ in 0..400 {
            runs.push(SEAL);
            written += SEAL;
            while let Some(range) = choose(&runs, 80 * SEAL) {
                let sum: u64 = runs[range.clone()].iter().sum();
                assert!(range.len() > 1 && sum <= 80 * SEAL);
                written += sum;
                runs.splice(range, [sum]);
            }
            most_runs = most_runs.max(runs.len());
        }
        assert!(most_runs <= 6 + 2 * FAN, "{most_runs}");
        assert!(written <= 3 * 400 * SEAL, "{}", written / SEAL);
    }
}
