//! Which destinations are paused: a file `paused` beside the log, one name a line, replaced whole.

use std::collections::BTreeSet;
use std::io;

use crate::base::Name;
use crate::journal::disk::{self, Disk};

const FILE: &str = "paused";
/// The file as it could ever be: [`super::routes::ROUTES_MAX`] of the longest names.
const BYTES_MAX: usize = 2 << 20;

/// The destinations that were paused when the journal was last open. A line that is no name is passed over.
///
/// # Errors
/// As the operating system says.
pub fn read(disk: &dyn Disk) -> io::Result<BTreeSet<Name>> {
    let file = match disk.open(FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; BYTES_MAX];
    let length = disk::read_around(&*file, &mut bytes, 0)?;
    bytes.truncate(length);
    let text = String::from_utf8_lossy(&bytes);
    let name = |line: &str| {
        let name = Name::new(line).ok();
        if name.is_none() {
            tracing::warn!(file = FILE, "a line is no destination's name and is passed over");
        }
        name
    };
    Ok(text.lines().filter_map(name).collect())
}

/// Writes them, durably.
///
/// # Errors
/// As the operating system says; the file is then as it was.
pub fn write(disk: &dyn Disk, paused: &BTreeSet<Name>) -> io::Result<()> {
    let text: String = paused.iter().map(|name| format!("{name}\n")).collect();
    disk::replace(disk, ".", FILE, text.as_bytes())
}
