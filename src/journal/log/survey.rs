//! A look at a journal's directory before anything in it is touched: whether this version knows all that is there, and
//! which keys it is sealed with.
//!
//! It reads the first bytes of each file, and the last ones of runs of claims. What is damaged is passed over: opening deals with
//! that. A file that comes from a later version is refused, and so nothing was changed by a version that must not.

use std::io;
use std::path::Path;

use super::claims;
use super::meta::Meta;
use super::open::OpenError;
use super::segment::{self, FORMAT, HEADER_BYTES, Header, SegmentKey};
use crate::base::ByteSize;
use crate::journal::disk::{Disk, RealDisk};
use crate::journal::seal::Encryption;
use crate::journal::{KeyUse, Settings};

/// Files whose first bytes say what they are, those bytes, and the version that this program reads: the next byte, a digit.
const FILES: [(&str, &[u8], u8); 4] = [
    ("journal.meta", b"FBMETA", b'1'),
    ("journal.time", b"FBTIME", b'1'),
    ("checkpoint", b"FBCKPT", b'1'),
    ("claims/runs", b"FBRUNS", b'1'),
];

/// Which keys the journal in `dir` is sealed with. Changes nothing; the journal may be open.
///
/// # Errors
/// [`OpenError`] if it comes from a later version, or cannot be read.
pub fn key_use(dir: &Path) -> Result<Vec<KeyUse>, OpenError> {
    look(&RealDisk::new(dir))
}

/// Whether the journal on `disk` can be opened with these settings, as far as a look tells.
///
/// # Errors
/// [`OpenError`] if it cannot.
pub fn check(disk: &dyn Disk, settings: &Settings) -> Result<(), OpenError> {
    lacks(look(disk)?, &settings.encryption)
}

/// # Errors
/// [`OpenError::NoKey`] if `encryption` has not all the keys that are in use.
pub fn lacks(mut used: Vec<KeyUse>, encryption: &Encryption) -> Result<(), OpenError> {
    used.retain(|of| !encryption.has(of.key));
    if used.is_empty() { Ok(()) } else { Err(OpenError::NoKey(used)) }
}

/// What is said of keys that are used and not there.
pub fn no_key(uses: &[KeyUse]) -> String {
    let uses: Vec<_> = uses.iter().map(ToString::to_string).collect();
    format!(
        "journal.encryption_key lacks a key that the journal is sealed with: {}; write it behind the one that seals, \
         `encryption_key: [{{ file: new.key }}, {{ file: old.key }}]`, until `forebay doctor` says that it may go",
        uses.join(", ")
    )
}

fn look(disk: &dyn Disk) -> Result<Vec<KeyUse>, OpenError> {
    for (path, magic, version) in FILES {
        let first = bytes(disk, path, 0, magic.len() + 1)?;
        if let Some((found, said)) = first.split_last()
            && said == magic
            && found.is_ascii_digit()
            && *found > version
        {
            return Err(later(path, *found, version));
        }
    }
    for (name, length) in list(disk, claims::DIR)? {
        let path = format!("{}/{name}", claims::DIR);
        let (magic, version) = claims::RUN_MAGIC.split_at(claims::RUN_MAGIC.len() - 1);
        let known = version.first().copied().unwrap_or(b'0');
        let Some(at) = length.checked_sub(claims::RUN_FOOTER).filter(|_| name.ends_with(".clm")) else { continue };
        let last = bytes(disk, &path, at, claims::RUN_MAGIC.len())?;
        if let Some((found, said)) = last.split_last()
            && said == magic
            && found.is_ascii_digit()
            && *found > known
        {
            return Err(later(&path, *found, known));
        }
    }
    let store = Meta::peek(disk)?.map_or([0; 16], |meta| meta.store);
    let mut sealed = Vec::new();
    for (name, length) in list(disk, segment::DIR)? {
        let Some(number) = segment::number_of(&name) else { continue };
        let path = segment::path(number);
        let Some(file) = there(disk.open(&path)).map_err(cannot(&path))? else { continue };
        match segment::read_header(&*file, SegmentKey { store, number }).map_err(cannot(&path))? {
            Header::OtherFormat(found) => return Err(OpenError::Format { file: path, found, newest: FORMAT }),
            Header::Good { sealed_by: Some(key), .. } if length > u64::from(HEADER_BYTES) => sealed.push((key, length)),
            Header::Good { .. } | Header::Foreign | Header::Torn => {}
        }
    }
    Ok(KeyUse::sum(sealed))
}

fn later(path: &str, found: u8, newest: u8) -> OpenError {
    let number = |digit: u8| u32::from(digit.saturating_sub(b'0'));
    OpenError::Format { file: path.to_owned(), found: number(found), newest: number(newest) }
}

fn list(disk: &dyn Disk, dir: &str) -> Result<Vec<(String, u64)>, OpenError> {
    disk.list(dir).map_err(cannot(dir))
}

/// The `count` bytes at `at` of a file; fewer where it ends before, none where it is not there.
fn bytes(disk: &dyn Disk, path: &str, at: u64, count: usize) -> Result<Vec<u8>, OpenError> {
    let Some(file) = there(disk.open(path)).map_err(cannot(path))? else { return Ok(Vec::new()) };
    let mut bytes = vec![0; count];
    let got = file.read_at(&mut bytes, at).map_err(cannot(path))?;
    bytes.truncate(got);
    Ok(if got < count { Vec::new() } else { bytes })
}

fn there<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn cannot(path: &str) -> impl FnOnce(io::Error) -> OpenError {
    let what = format!("cannot look at {path}");
    move |error| OpenError::Io { what, error }
}

impl std::fmt::Display for KeyUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, segments, bytes } = self;
        let size = ByteSize(bytes.next_multiple_of(1024));
        write!(f, "{key} ({segments} {}, {size})", if *segments == 1 { "segment" } else { "segments" })
    }
}
