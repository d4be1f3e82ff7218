//! What a seed makes of a run: how large things are, how long they take, and what may go wrong.

use std::ops::Range;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use forebay::base::ByteSize;
use forebay::config::{self, Config};
use forebay::journal::Retention;

use crate::disk::Faults;

/// What is asked of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Faults until the end.
    Safety,
    /// Faults, and then none: everything must come to its end.
    Liveness,
}

/// The sources and destinations. The secrets are those of `mail`.
const CONFIG: &str = r#"
sources:
  shop: { provider: standard-webhooks, secret: whsec_c2ltdWxhdGlvbi1zZWNyZXQtb2Ytc2hvcA==, deadline: 8s, to: [app, audit] }
  code: { provider: github, secret: simulation-secret-of-code, deadline: 8s, to: [app] }
  live: { provider: standard-webhooks, secret: whsec_c2ltdWxhdGlvbi1zZWNyZXQtb2Ytc2hvcA==, mode: proxy, deadline: 8s, to: [desk] }
destinations:
  app:
    url: http://app/hook
    timeout: 5s
    concurrency: 4
    retry: { initial: 500ms, factor: 2, max: 20s, max_age: 10m, max_attempts: 12, retry_after_max: 1m }
    breaker: { failures: 5, cooldown: 3s }
  audit: { url: http://audit/hook, timeout: 5s, concurrency: 2, retry: { initial: 200ms, factor: 3, max: 10s, max_age: 2m, max_attempts: 4, retry_after_max: 1m }, breaker: { failures: 8, cooldown: 2s } }
  desk: { url: http://desk/hook, timeout: 5s, concurrency: 3, retry: { initial: 1s, factor: 2, max: 20s, max_age: 10m, retry_after_max: 1m }, breaker: { failures: 5, cooldown: 3s } }
"#;

/// The longest a delivery waits for its next attempt, and some.
pub const LONGEST_WAIT: u64 = 60_000;

pub static SETTINGS: LazyLock<Config> = LazyLock::new(|| {
    let read = config::parse_str("simulation.yaml", CONFIG, Path::new("."), &|_| None);
    read.map(|(config, _)| config).unwrap_or_else(|problems| panic!("{problems}"))
});

#[derive(Clone, Debug)]
pub struct Shape {
    pub lives: u32,
    pub life_millis: Range<u64>,
    pub mails: usize,
    /// The mails come in this time.
    pub span_millis: u64,
    pub body_bytes: Range<usize>,
    pub max_size: ByteSize,
    pub retention: Retention,
    pub window: Duration,
    pub claims_in_memory: usize,
    pub faults: Faults,
    pub rots: bool,
    pub jumps: bool,
}

impl Shape {
    pub fn of(seed: u64, random: &mut fastrand::Rng) -> Self {
        let bulky = seed % 8 == 3;
        let seconds = Duration::from_secs;
        let span_millis = random.u64(10_000..200_000);
        let lives = random.u32(2..7);
        let calm = random.u8(..4) == 0;
        let mut per_mille = |most: u32| if calm || random.bool() { 0 } else { random.u32(1..most) };
        let faults = Faults {
            sync: per_mille(200),
            write: per_mille(150),
            read: per_mille(60),
            names: per_mille(150),
            slow: per_mille(40),
        };
        Self {
            lives,
            life_millis: 1..2 * span_millis / u64::from(lives),
            mails: if bulky { random.usize(100..160) } else { random.usize(10..60) },
            span_millis,
            body_bytes: if bulky { 20_000..60_000 } else { 0..2_000 },
            max_size: ByteSize(if bulky { 4 << 20 } else { 64 << 20 }),
            retention: Retention {
                delivered: seconds([4, 60, 7 * 86_400][random.usize(..3)]),
                dead: seconds(30 * 86_400),
            },
            window: seconds([20, 120, 3600][random.usize(..3)]),
            claims_in_memory: [4, 16, 1 << 17][random.usize(..3)],
            faults,
            rots: seed % 8 == 5,
            jumps: random.u8(..3) == 0,
        }
    }
}
