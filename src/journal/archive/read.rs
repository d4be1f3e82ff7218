//! Reading an archive: nothing in it is believed before the manifest has been compared with all of it.

use std::io::{self, Read, Write};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::{BLOCK, FIRST_LINE, GAVE_UP, MANIFEST, TEXT_MAX, hex, is_ours, padding};

const PIECE: usize = 256 << 10;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is no tar archive, or not one of ours.
    #[error("it is not a backup of a forebay journal: {0}")]
    Foreign(String),
    /// It ends too early.
    #[error("it is cut off: it ends in {0}")]
    Cut(String),
    /// What it has is not what its manifest says.
    #[error("it was changed: {0}")]
    Altered(String),
    /// Its gateway could not make a whole one.
    #[error("the gateway gave this backup up: {0}")]
    GaveUp(String),
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// What is in it cannot be written.
    #[error("{name} cannot be written")]
    Write {
        /// Which.
        name: String,
        /// Why not.
        #[source]
        error: io::Error,
    },
}

/// What a whole archive has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The journal's id, in hexadecimal.
    pub store: String,
    /// When its files were like this.
    pub made: String,
    /// How many there are.
    pub files: usize,
    /// Their bytes, together.
    pub bytes: u64,
}

/// Reads an archive to its end and compares it with its manifest. Each file goes to what `place` gives for its name, one after the
/// other; what is written there is dropped before the next.
///
/// # Errors
/// [`ArchiveError`]: whatever was written is not to be used then.
pub fn read<W: Write>(
    from: &mut dyn Read,
    mut place: impl FnMut(&str) -> io::Result<W>,
) -> Result<Contents, ArchiveError> {
    let (mut lines, mut names, mut bytes) = (String::new(), Vec::<String>::new(), 0);
    loop {
        let last = names.last().map_or("its beginning", String::as_str);
        let (name, length) = match header(from, last)? {
            Some(entry) => entry,
            None => return Err(ArchiveError::Cut(format!("{last}: the manifest is missing"))),
        };
        if name == GAVE_UP {
            let why = text(from, &name, length)?;
            return Err(ArchiveError::GaveUp(why.trim().to_owned()));
        }
        if name == MANIFEST {
            let manifest = text(from, &name, length)?;
            end(from)?;
            let (store, made) = compare(&manifest, &lines)?;
            if !names.iter().any(|name| name == "journal.meta") {
                return Err(ArchiveError::Foreign("it has no journal.meta".to_owned()));
            }
            return Ok(Contents { store, made, files: names.len(), bytes });
        }
        if !is_ours(&name) {
            return Err(ArchiveError::Foreign(format!("no journal has a file called {name:?}")));
        }
        if names.contains(&name) {
            return Err(ArchiveError::Altered(format!("it has {name} twice")));
        }
        let unwritten = |error| ArchiveError::Write { name: name.clone(), error };
        let mut to = place(&name).map_err(unwritten)?;
        let mut digest = Sha256::new();
        pieces(from, &name, length, &mut |piece| {
            digest.update(piece);
            to.write_all(piece).map_err(unwritten)
        })?;
        to.flush().map_err(unwritten)?;
        lines.push_str(&format!("{}  {name}\n", hex(digest)));
        bytes += length;
        names.push(name);
    }
}

/// The name and length of the next file; none at the end.
fn header(from: &mut dyn Read, after: &str) -> Result<Option<(String, u64)>, ArchiveError> {
    let mut block = [0; BLOCK];
    match fill(from, &mut block)? {
        0 | BLOCK => {}
        _ => return Err(ArchiveError::Cut(after.to_owned())),
    }
    if block == [0; BLOCK] {
        return Ok(None);
    }
    let part = |at: usize, length: usize| {
        let field = block.get(at..at + length).unwrap_or_default();
        let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
        std::str::from_utf8(text).ok()
    };
    let foreign = || ArchiveError::Foreign("it is no tar archive, or one of another kind".to_owned());
    let number = |at, length| part(at, length).and_then(|text| u64::from_str_radix(text.trim(), 8).ok());
    let sum = block.iter().enumerate().map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte }));
    let regular = matches!(block.get(156), Some(b'0' | 0)) && block.get(345) == Some(&0);
    let good = part(257, 6) == Some("ustar") && number(148, 8) == Some(sum.sum()) && regular;
    let entry = part(0, 100).zip(number(124, 12)).filter(|_| good).ok_or_else(foreign)?;
    Ok(Some((entry.0.to_owned(), entry.1)))
}

/// A short file that is text.
fn text(from: &mut dyn Read, name: &str, length: u64) -> Result<String, ArchiveError> {
    if length > TEXT_MAX {
        return Err(ArchiveError::Altered(format!("{name} is too long")));
    }
    let mut bytes = Vec::new();
    pieces(from, name, length, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    String::from_utf8(bytes).map_err(|_| ArchiveError::Altered(format!("{name} is no text")))
}

/// The bytes of a file, and what fills its last block.
fn pieces(
    from: &mut dyn Read,
    name: &str,
    length: u64,
    each: &mut dyn FnMut(&[u8]) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let mut buffer = vec![0; PIECE];
    let mut left = length;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let piece = buffer.get_mut(..want).unwrap_or_default();
        if fill(from, piece)? < want {
            return Err(ArchiveError::Cut(name.to_owned()));
        }
        each(piece)?;
        left -= want as u64;
    }
    let mut rest = vec![0; padding(length)];
    if fill(from, &mut rest)? < rest.len() {
        return Err(ArchiveError::Cut(name.to_owned()));
    }
    if rest.iter().any(|byte| *byte != 0) {
        return Err(ArchiveError::Altered(format!("there is something behind {name}")));
    }
    Ok(())
}

/// Two blocks of zeros, and nothing but zeros after them.
fn end(from: &mut dyn Read) -> Result<(), ArchiveError> {
    let mut buffer = vec![0; 2 * BLOCK];
    if fill(from, &mut buffer)? < buffer.len() {
        return Err(ArchiveError::Cut(MANIFEST.to_owned()));
    }
    loop {
        if buffer.iter().any(|byte| *byte != 0) {
            return Err(ArchiveError::Altered("there is something behind its end".to_owned()));
        }
        let count = fill(from, &mut buffer)?;
        buffer.truncate(count);
        if count == 0 {
            return Ok(());
        }
    }
}

/// As many bytes as there are, up to the buffer's length.
fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ArchiveError::Read(error)),
        }
    }
    Ok(filled)
}

/// Whether the manifest says of the files what they are: `lines` are those it must have. Gives the journal's id, and when it was made.
fn compare(manifest: &str, lines: &str) -> Result<(String, String), ArchiveError> {
    let foreign = || ArchiveError::Foreign("its manifest is of another kind, or of a later version".to_owned());
    let rest = manifest.strip_prefix(FIRST_LINE).and_then(|rest| rest.strip_prefix('\n')).ok_or_else(foreign)?;
    let (store, rest) = rest.strip_prefix("# store ").and_then(|rest| rest.split_once('\n')).ok_or_else(foreign)?;
    let (made, rest) = rest.strip_prefix("# made ").and_then(|rest| rest.split_once('\n')).ok_or_else(foreign)?;
    if HEXLOWER.decode(store.as_bytes()).ok().is_none_or(|id| id.len() != 16) {
        return Err(foreign());
    }
    let (said, sum) = manifest.rsplit_once("# end ").ok_or_else(foreign)?;
    if sum.trim_end() != hex(Sha256::new_with_prefix(said.as_bytes())) {
        return Err(ArchiveError::Altered("the manifest's own checksum is another".to_owned()));
    }
    let (files, _) = rest.rsplit_once("# end ").ok_or_else(foreign)?;
    if files == lines {
        return Ok((store.to_owned(), made.to_owned()));
    }
    let differs = |(said, found): &(&str, &str)| said != found;
    let what = match files.lines().zip(lines.lines()).find(differs) {
        Some((said, _)) => said.split_once("  ").map_or("a file", |(_, name)| name),
        None => "a file",
    };
    Err(ArchiveError::Altered(format!("{what} is not what the manifest says, or is missing, or one too many")))
}
