//! What there is of the journal.

use std::collections::BTreeMap;

use super::seal::KeyId;
use crate::base::Name;

/// What there is of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes it takes, everything counted.
    pub bytes: u64,
    /// Bytes it may take.
    pub max_bytes: u64,
    /// Events let go of before their retention was over, since the start.
    pub evicted: u64,
    /// Stretches of the log that could not be read, since the start.
    pub damaged: u64,
    /// By destination.
    pub lanes: Vec<LaneStats>,
    /// By source, also those that are not in the config any more.
    pub sources: Vec<SourceStats>,
    /// What a source's unsettled events may take now before its next ones are refused; none where sources need not share.
    pub share_bytes: Option<u64>,
    /// The keys that open what is sealed, by their ids.
    pub keys: Vec<KeyUse>,
}

/// What one key is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// The key.
    pub key: KeyId,
    /// Segments of the log with something sealed with it.
    pub segments: u64,
    /// Bytes of these segments.
    pub bytes: u64,
}

impl KeyUse {
    /// By key, of segments that are each given with their key and size.
    #[must_use]
    pub fn sum(segments: impl IntoIterator<Item = (KeyId, u64)>) -> Vec<Self> {
        let mut by_key = BTreeMap::new();
        for (key, size) in segments {
            let Self { segments, bytes, .. } = by_key.entry(key).or_insert(Self { key, segments: 0, bytes: 0 });
            *segments += 1;
            *bytes += size;
        }
        by_key.into_values().collect()
    }
}

/// What there is of one source's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStats {
    /// The source.
    pub source: Name,
    /// What its events take, roughly, that have a delivery that is pending, orphaned or dead.
    pub unsettled_bytes: u64,
    /// Whether that is more than its share, so that its events are refused.
    pub over_share: bool,
}

/// What there is of one destination's deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneStats {
    /// The destination.
    pub destination: Name,
    /// Deliveries that wait for an attempt.
    pub pending: u64,
    /// Deliveries that wait for their route to be in the config again, by source; no source twice.
    pub orphaned: Vec<(Name, u64)>,
    /// Dead letters.
    pub dead: u64,
}

impl LaneStats {
    /// Deliveries that wait for their route to be in the config again, of whatever source.
    #[must_use]
    pub fn orphans(&self) -> u64 {
        self.orphaned.iter().map(|(_, count)| count).sum()
    }
}
