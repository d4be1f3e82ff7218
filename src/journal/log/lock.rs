//! The lock on a journal's directory: one process at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::open::{OpenError, failed};

/// The lock on a journal's directory, held while it lives.
pub struct Lock(#[allow(dead_code)] File); // the lock is the open file

impl Lock {
    /// Whether another process has the journal in `dir`. Touches nothing.
    ///
    /// # Errors
    /// [`OpenError::Locked`].
    pub fn peek(dir: &Path) -> Result<(), OpenError> {
        let path = dir.join("lock");
        let Ok(mut file) = File::open(&path) else { return Ok(()) };
        // Closing the file lets go of what was asked for.
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared) {
            Err(rustix::io::Errno::WOULDBLOCK) => Err(locked(&mut file, path)),
            _ => Ok(()),
        }
    }

    /// Makes the directory if need be (mode 0700) and locks it.
    ///
    /// # Errors
    /// [`OpenError::Locked`], [`OpenError::NotOurs`] or [`OpenError::Io`].
    pub fn take(dir: &Path) -> Result<Self, OpenError> {
        let name = dir.display().to_string();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(format!("cannot make {name}")))?;
        let facts = fs::metadata(dir).map_err(failed(format!("cannot look at {name}")))?;
        if facts.uid() != rustix::process::geteuid().as_raw() {
            return Err(OpenError::NotOurs { path: dir.to_owned(), owner: facts.uid() });
        }
        let path = dir.join("lock");
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = options.map_err(failed(format!("cannot open {}", path.display())))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(locked(&mut file, path)),
            Err(error) => return Err(failed(format!("cannot lock {}", path.display()))(error.into())),
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(failed(format!("cannot write {}", path.display())))?;
        Ok(Self(file))
    }
}

fn locked(file: &mut File, path: PathBuf) -> OpenError {
    let mut text = String::new();
    let holder = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
    OpenError::Locked { path, holder }
}
