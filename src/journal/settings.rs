//! Where the journal is, and how much it may keep.

use std::path::PathBuf;
use std::time::Duration;

use super::seal::Encryption;
use crate::base::ByteSize;

/// The journal on disk.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its directory; made where it is missing.
    pub dir: PathBuf,
    /// Everything in it together, at most.
    pub max_size: ByteSize,
    /// How long what is settled stays.
    pub retention: Retention,
    /// What seals, and what opens.
    pub encryption: Encryption,
}

/// How long what is settled stays, at most: less where space is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Delivered, unrouted and captured events, from when they were received.
    pub delivered: Duration,
    /// Dead letters, from when they died.
    pub dead: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { delivered: Duration::from_secs(7 * 86_400), dead: Duration::from_secs(30 * 86_400) }
    }
}

impl Settings {
    /// How large the journal may grow where nothing is said.
    pub const MAX_SIZE: ByteSize = ByteSize(10 << 30);
    /// The smallest limit that works: a handful of segments of the smallest size.
    pub const MAX_SIZE_LEAST: ByteSize = ByteSize(4 << 20);
}
