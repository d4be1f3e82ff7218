//! Files that somebody names: opened so that none can hold up who reads it, whatever it turns out to be.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Opens the regular file at `path`.
///
/// # Errors
/// As the operating system says, and for everything that is no regular file: a pipe without a writer is never opened, and
/// a device never ends.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = open_at_once(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a pipe or a device"));
    }
    Ok(file)
}

/// Opens what is at `path`, a pipe too; one that nobody writes to is at its end.
///
/// # Errors
/// As the operating system says.
pub fn open_at_once(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_a_regular_file_is_one_and_a_pipe_keeps_nobody_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let (file, pipe) = (dir.path().join("file"), dir.path().join("pipe"));
        std::fs::write(&file, "text").unwrap();
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(io::read_to_string(open_regular(&file).unwrap()).unwrap(), "text");
        assert_eq!(open_regular(dir.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        for other in [&pipe, Path::new("/dev/zero")] {
            assert_eq!(open_regular(other).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{}", other.display());
        }
        assert_eq!(open_at_once(&pipe).unwrap().read(&mut [0]).unwrap(), 0);
    }
}
