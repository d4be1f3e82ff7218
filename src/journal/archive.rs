//! A backup as one file: a tar archive (ustar) of the journal's files, with a manifest last.
//!
//! `manifest` is text that `sha256sum --check` takes: a line for each file, and between them what begins with `#`:
//!
//! ```text
//! # forebay backup 1
//! # store <32 hex digits>
//! # made <RFC 3339>
//! <SHA-256>  <name>          for each file, in the order of the archive
//! # end <SHA-256 of all lines before>
//! ```
//!
//! So an archive that was cut off or changed is told from a whole one. One that its gateway gave up has `gave-up` in place of
//! the manifest, which says why.

mod read;
mod write;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

pub use read::{ArchiveError, Contents, read};
pub use write::{Content, Item, Plan};

use super::log;

/// The last file of a whole archive.
const MANIFEST: &str = "manifest";
/// The last file of one that is not.
const GAVE_UP: &str = "gave-up";
const FIRST_LINE: &str = "# forebay backup 1";
/// Everything in a tar archive is in blocks of this.
const BLOCK: usize = 512;
/// `gave-up` and the manifest, at most: enough for 100,000 files.
const TEXT_MAX: u64 = 16 << 20;

/// Whether a journal has files of this name, and a backup them.
fn is_ours(name: &str) -> bool {
    match name.split_once('/') {
        None => matches!(name, "journal.meta" | "journal.time" | "paused" | "routes" | "erasing"),
        Some((dir, file)) => log::is_file_of(dir, file),
    }
}

fn hex(digest: Sha256) -> String {
    HEXLOWER.encode(&digest.finalize())
}

fn padding(bytes: u64) -> usize {
    let over = usize::try_from(bytes % BLOCK as u64).unwrap_or(0);
    if over == 0 { 0 } else { BLOCK - over }
}

#[cfg(test)]
mod tests;
