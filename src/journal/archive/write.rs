//! Writing an archive, a piece at a time.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::{BLOCK, FIRST_LINE, GAVE_UP, MANIFEST, hex, padding};
use crate::base::UnixMillis;
use crate::journal::disk::{Disk, DiskFile};

/// What is read of a file at a time, and handed on.
const PIECE: usize = 256 << 10;

/// What is to be in an archive.
pub struct Plan {
    /// The journal's id.
    pub store: [u8; 16],
    /// When its files were like this.
    pub made_at: UnixMillis,
    /// Its files.
    pub items: Vec<Item>,
}

/// One file of an archive.
pub struct Item {
    /// Its name, relative to the journal's directory.
    pub name: String,
    /// As many bytes of it as are to be taken, from the first on.
    pub bytes: u64,
    /// Where they are.
    pub content: Content,
}

/// Where the bytes of a file are.
pub enum Content {
    /// Here.
    Bytes(Bytes),
    /// In a file that is open: it may be gone from its directory meanwhile.
    File(Arc<dyn DiskFile>),
    /// In the file of that name, which is opened when its turn comes.
    Named,
}

impl Plan {
    /// About how long the archive will be.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let file = |item: &Item| item.bytes + padding(item.bytes) as u64 + BLOCK as u64 + 100;
        self.items.iter().map(file).sum::<u64>() + 4 * BLOCK as u64
    }

    /// Writes the archive to `out`. `opened` is told of each file once it is open. Where a file cannot be read, the archive says why
    /// and ends there.
    ///
    /// # Errors
    /// Those of `out`, and why the archive is not whole.
    pub fn write(
        &self,
        disk: &dyn Disk,
        mut opened: impl FnMut(&str),
        out: &mut dyn FnMut(Bytes) -> io::Result<()>,
    ) -> io::Result<()> {
        let store = HEXLOWER.encode(&self.store);
        let mut manifest = format!("{FIRST_LINE}\n# store {store}\n# made {}\n", self.made_at);
        for item in &self.items {
            let file = match &item.content {
                Content::Named => disk.open(&item.name).map(Some),
                Content::File(file) => Ok(Some(Arc::clone(file))),
                Content::Bytes(_) => Ok(None),
            };
            let digest = match file {
                Ok(file) => {
                    opened(&item.name);
                    self.file(item, file.as_deref(), out)
                }
                Err(error) => Err(Failed::Reading(self.gave_up(item, &error, out)?)),
            };
            match digest {
                Ok(digest) => drop(writeln!(manifest, "{digest}  {}", item.name)), // a String takes it
                Err(Failed::Writing(error) | Failed::Reading(error)) => return Err(error),
            }
        }
        let sum = hex(Sha256::new_with_prefix(manifest.as_bytes()));
        let _ = writeln!(manifest, "# end {sum}"); // a String takes it
        self.text(MANIFEST, manifest, out)
    }

    /// One file. An error in the middle of it cannot be told in the archive: it is cut off there.
    fn file(
        &self,
        item: &Item,
        file: Option<&dyn DiskFile>,
        out: &mut dyn FnMut(Bytes) -> io::Result<()>,
    ) -> Result<String, Failed> {
        out(self.header(&item.name, item.bytes)).map_err(Failed::Writing)?;
        let mut digest = Sha256::new();
        let mut give = |piece: Bytes| {
            digest.update(&piece);
            out(piece).map_err(Failed::Writing)
        };
        match (&item.content, file) {
            (Content::Bytes(bytes), _) => give(bytes.clone())?,
            (_, None) => {}
            (_, Some(file)) => {
                let mut at = 0;
                while at < item.bytes {
                    let count = usize::try_from(item.bytes - at).unwrap_or(PIECE).min(PIECE);
                    let mut piece = vec![0; count];
                    let got = file.read_at(&mut piece, at).map_err(Failed::Reading)?;
                    if got < count {
                        let short = format!("{} is shorter than it was", item.name);
                        return Err(Failed::Reading(io::Error::new(io::ErrorKind::UnexpectedEof, short)));
                    }
                    give(piece.into())?;
                    at += count as u64;
                }
            }
        }
        let padding = padding(item.bytes);
        if padding > 0 {
            out(Bytes::from(vec![0; padding])).map_err(Failed::Writing)?;
        }
        Ok(hex(digest))
    }

    fn gave_up(
        &self,
        item: &Item,
        error: &io::Error,
        out: &mut dyn FnMut(Bytes) -> io::Result<()>,
    ) -> io::Result<io::Error> {
        let name = &item.name;
        let why = match error.kind() {
            io::ErrorKind::NotFound => format!(
                "{name} had to make room for events before it was read; intake goes first. Free some space or raise journal.max_size, and begin anew"
            ),
            _ => format!("{name} cannot be read: {error}"),
        };
        self.text(GAVE_UP, format!("{why}\n"), out)?;
        Ok(io::Error::new(error.kind(), why))
    }

    /// The last file, and the archive's end.
    fn text(&self, name: &str, text: String, out: &mut dyn FnMut(Bytes) -> io::Result<()>) -> io::Result<()> {
        let length = text.len() as u64;
        out(self.header(name, length))?;
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len() + padding(length) + 2 * BLOCK, 0);
        out(bytes.into())
    }

    /// A ustar header (POSIX.1-1988): a regular file, mode 0600.
    fn header(&self, name: &str, bytes: u64) -> Bytes {
        let seconds = self.made_at.0 / 1000;
        let fields = [
            (0, name.to_owned()),
            (100, "0000600\0".to_owned()),
            (108, "0000000\0".to_owned()),
            (116, "0000000\0".to_owned()),
            (124, format!("{bytes:011o}\0")),
            (136, format!("{seconds:011o}\0")),
            (148, " ".repeat(8)), // the checksum counts as spaces
            (156, "0".to_owned()),
            (257, "ustar\u{0}00".to_owned()),
        ];
        let mut header = vec![0; BLOCK];
        let mut put = |at: usize, text: &str| {
            header.iter_mut().skip(at).zip(text.bytes()).for_each(|(to, from)| *to = from);
        };
        for (at, text) in &fields {
            put(*at, text);
        }
        let sum: u32 = fields.iter().flat_map(|(_, text)| text.bytes()).map(u32::from).sum();
        put(148, &format!("{sum:06o}\0 "));
        header.into()
    }
}

enum Failed {
    Reading(io::Error),
    Writing(io::Error),
}
