//! Socket files: made so that nobody connects before the mode is set, and removed at the end.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, SockAddr, Socket, Type};

/// Who may connect: the gateway's user and group. To connect is to write.
const MODE: u32 = 0o660;

/// A socket file that we made. A drop removes it, unless it is no longer ours.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Identity,
    removed: AtomicBool,
}

/// Device, number and time by which a file is known again: a number alone is soon another file's.
type Identity = (u64, u64, i64, i64);

/// Why a socket file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Something answers on it.
    #[error("a program listens on it already: stop it, or choose another path")]
    InUse,
    /// Something else has the name.
    #[error("there is a file of this name that is no socket: move it away, or choose another path")]
    NoSocket,
    /// What the system says.
    #[error("{error}; {cure}")]
    System {
        /// Its words.
        error: io::Error,
        /// What to do.
        cure: &'static str,
    },
}

/// Makes the file and listens on it. A file that a killed gateway left is replaced.
pub(super) fn listen(path: &Path, backlog: i32) -> Result<(UnixListener, SocketFile), FileError> {
    clear(path)?;
    let made = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile { path: path.to_owned(), identity: identity(path)?, removed: AtomicBool::new(false) };
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        socket.set_nonblocking(true)?;
        socket.listen(backlog)?; // before this line nobody can connect, whatever the mode was
        Ok((socket.into(), file))
    };
    made().map_err(system)
}

/// Removes what is at `path` if it is a socket that nobody listens on.
fn clear(path: &Path) -> Result<(), FileError> {
    match state(path)? {
        Found::Nothing => Ok(()),
        Found::Stale => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(system(error)),
            _ => Ok(()),
        },
        Found::InUse => Err(FileError::InUse),
        Found::NoSocket => Err(FileError::NoSocket),
    }
}

/// What is at the path of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A socket that nobody listens on.
    Stale,
    /// A socket that somebody listens on.
    InUse,
    /// Some other file.
    NoSocket,
}

/// Looks at `path`, and knocks if it is a socket.
///
/// # Errors
/// [`FileError::System`] if that cannot be told.
pub fn state(path: &Path) -> Result<Found, FileError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(system(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Ok(Found::NoSocket),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Ok(Found::InUse),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Ok(Found::Stale),
            io::ErrorKind::NotFound => Ok(Found::Nothing),
            io::ErrorKind::WouldBlock => Ok(Found::InUse), // its queue is full
            _ => Err(system(error)),
        },
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}

fn system(error: io::Error) -> FileError {
    let cure = match error.kind() {
        io::ErrorKind::NotFound => "make its directory first (systemd: RuntimeDirectory=)",
        io::ErrorKind::PermissionDenied => "let the gateway's user write in its directory",
        io::ErrorKind::AddrInUse => "another program has just made it: choose another path",
        _ => "choose another path",
    };
    FileError::System { error, cure }
}

impl SocketFile {
    /// Removes the file, so that nobody can connect any more; those that wait to be accepted still are. Only the
    /// first call does anything: the next file of this name is somebody else's.
    pub(super) fn remove(&self) {
        if !self.removed.swap(true, Ordering::AcqRel)
            && identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket file stays behind; the next start replaces it");
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> String {
        listen(path, 1).unwrap_err().to_string()
    }

    #[test]
    fn the_file_is_for_user_and_group_and_goes_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (socket, file) = listen(&path, 1).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(refused(&path).contains("a program listens on it already"));
        assert_eq!(state(&path).unwrap(), Found::InUse);
        drop((socket, file));
        assert!(!path.exists());
    }

    #[test]
    fn a_file_left_behind_is_replaced_and_no_other_file_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap()); // std leaves the file, as a kill does
        assert_eq!(state(&path).unwrap(), Found::Stale);
        let (_socket, file) = listen(&path, 1).unwrap();
        UnixStream::connect(&path).unwrap();

        let other = dir.path().join("notes");
        fs::write(&other, "mine").unwrap();
        assert!(refused(&other).contains("no socket"));
        assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(refused(&link).contains("no socket"), "a link is not followed");
        assert!(refused(&dir.path().join("none/s")).contains("make its directory first"));

        fs::remove_file(&path).unwrap();
        fs::write(&path, "somebody else's by now").unwrap();
        drop(file);
        assert!(path.exists(), "what is not ours stays");
    }
}
