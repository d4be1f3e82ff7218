//! How large the log may become, and what is held back of that.

use crate::base::ByteSize;

/// How much the log may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Everything together.
    pub max_bytes: u64,
    /// A segment is closed at this size.
    pub segment_bytes: u32,
}

impl Limits {
    /// Those of a journal that may take `max_size` of a disk with so many bytes: more than it has is no limit at all.
    pub fn of(max_size: ByteSize, disk_bytes: u64) -> Self {
        let max_bytes = max_size.0.min(disk_bytes);
        let segment_bytes = u32::try_from((max_bytes / 64).clamp(128 << 10, 32 << 20)).unwrap_or(32 << 20);
        Self { max_bytes, segment_bytes }
    }

    /// What unsettled events may take of it.
    pub fn capacity(self) -> u64 {
        self.max_bytes.saturating_sub(self.reserve())
    }

    /// What fresh events must leave free: room for copying a segment's stragglers, and for outcomes until there are
    /// enough of them that it is worth letting go of the oldest.
    pub fn reserve(self) -> u64 {
        u64::from(self.segment_bytes) + (256 << 10) + self.max_bytes / 16
    }
}
