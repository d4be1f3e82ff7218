//! A deterministic simulation of the gateway: the real intake, journal and dispatch, on a disk, a network, clocks and
//! applications that are made up, and fail (docs/simulation.md).
//!
//! Whatever happens follows from the seed, so that a run that goes wrong can be looked at again and again:
//! `FOREBAY_SEED=7 cargo test --test simulation one_seed -- --nocapture` prints all that happens in it.

// A test that meets something it did not expect is to fail there and then.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
// The bans on `tokio::spawn` and the like are for the gateway.
#![allow(clippy::disallowed_methods)]

mod app;
mod audit;
mod clock;
mod disk;
mod gateway;
mod mail;
mod medium;
mod operator;
mod oracle;
mod post;
mod run;
mod shape;
mod sim;
mod world;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use run::{Outcome, run};
use shape::Mode;
use world::Reach;

/// From so many seeds on, everything must have been reached.
const ENOUGH: u64 = 200;

fn set(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs the seeds, on as many threads as there are cores.
fn batch(seeds: Range<u64>, mode: Mode) -> Vec<Outcome> {
    let (next, outcomes) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = run(seed, mode, false);
                    outcomes.lock().unwrap().push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap();
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}

fn replay(outcome: &Outcome) -> String {
    let mode = if outcome.mode == Mode::Liveness { " FOREBAY_LIVENESS=1" } else { "" };
    format!("FOREBAY_SEED={}{mode} cargo test --test simulation one_seed -- --nocapture", outcome.seed)
}

fn reached(outcomes: &[Outcome], what: Reach) -> u64 {
    outcomes.iter().map(|outcome| outcome.reached[what as usize]).sum()
}

/// Runs a batch, says what it came to, and fails if anything was wrong, or never reached.
fn check(mode: Mode) {
    let seeds = set("FOREBAY_SEEDS").unwrap_or(if mode == Mode::Safety { 200 } else { 60 });
    let first = set("FOREBAY_FIRST").unwrap_or(0);
    let began = Instant::now();
    let outcomes = batch(first..first + seeds, mode);
    let took = began.elapsed().as_secs_f64();
    let hours = outcomes.iter().map(|outcome| outcome.millis).sum::<u64>() / 3_600_000;
    println!(
        "{mode:?}: {seeds} seeds from {first} in {took:.1} s, {:.0} a second; {hours} virtual hours",
        seeds as f64 / took
    );
    for (what, words) in Reach::ALL {
        println!("  {:>10}  {words}", reached(&outcomes, *what));
    }
    let wrong: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| Some(format!("{}\n    {}", outcome.wrong.as_ref()?, replay(outcome))))
        .collect();
    assert!(wrong.is_empty(), "{} of {seeds} seeds went wrong:\n{}", wrong.len(), wrong.join("\n"));
    if seeds >= ENOUGH && mode == Mode::Safety {
        let never = Reach::ALL.iter().filter(|(what, _)| reached(&outcomes, *what) == 0);
        let never: Vec<_> = never.map(|(_, words)| *words).collect();
        assert!(never.is_empty(), "never reached: {never:?}");
    }
}

#[test]
fn no_fault_breaks_a_promise() {
    check(Mode::Safety);
}

#[test]
fn once_all_is_well_everything_comes_to_its_end() {
    check(Mode::Liveness);
}

#[test]
fn a_seed_always_makes_the_same_run() {
    for seed in 0..10 {
        for mode in [Mode::Safety, Mode::Liveness] {
            let (one, other) = (run(seed, mode, false), run(seed, mode, false));
            assert_eq!(one.hash, other.hash, "seed {seed}, {mode:?}");
        }
    }
}

/// For looking at a seed: prints all that happens in it.
#[test]
fn one_seed() {
    let Some(seed) = set("FOREBAY_SEED") else { return };
    let mode = if set("FOREBAY_LIVENESS").is_some() { Mode::Liveness } else { Mode::Safety };
    let outcome = run(seed, mode, true);
    assert_eq!(outcome.wrong, None);
}
