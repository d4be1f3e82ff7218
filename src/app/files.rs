//! The files that a config was read from, and whether they have changed since.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files and directories with what could be seen of them, without reading them, before the config was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(HashMap<PathBuf, Option<Stamp>>);

/// What changes when a file is written, replaced or linked elsewhere; a directory's, when a name comes or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    /// Looks at `files`. Links are followed: what a link leads to is what is read.
    pub(super) fn now<'f>(files: impl IntoIterator<Item = &'f PathBuf>) -> Self {
        Self(files.into_iter().map(|path| (path.clone(), Stamp::of(path))).collect())
    }

    /// Looks again at the same files.
    pub(super) fn again(&self) -> Self {
        Self::now(self.0.keys())
    }

    /// Which they are.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.0.keys().cloned().collect()
    }

    /// What was seen of `files` alone. One that was not looked at counts as not there, so that another look tells.
    pub(super) fn only(&self, files: &[PathBuf]) -> Self {
        Self(files.iter().map(|path| (path.clone(), self.0.get(path).cloned().flatten())).collect())
    }
}

impl Stamp {
    /// None for what is not there or cannot be looked at.
    fn of(path: &Path) -> Option<Self> {
        let seen = std::fs::metadata(path).ok()?;
        Some(Self {
            device: seen.dev(),
            inode: seen.ino(),
            bytes: seen.len(),
            modified: (seen.mtime(), seen.mtime_nsec()),
            changed: (seen.ctime(), seen.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_replaced_linked_elsewhere_made_or_removed_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let files = [at("a"), at("link"), at("none"), at("d")];
        std::fs::write(at("a"), "one").unwrap();
        std::fs::write(at("b"), "two").unwrap();
        std::fs::create_dir(at("d")).unwrap();
        std::os::unix::fs::symlink(at("a"), at("link")).unwrap();
        let mut seen = Seen::now(&files);
        assert_eq!(seen, seen.again());
        let mut changes = |what: &str, change: &dyn Fn()| {
            change();
            let now = seen.again();
            assert_ne!(seen, now, "{what}");
            seen = now;
        };
        changes("written", &|| std::fs::write(at("a"), "longer").unwrap());
        changes("replaced", &|| std::fs::rename(at("b"), at("a")).unwrap());
        changes("linked elsewhere", &|| {
            std::fs::write(at("c"), "two").unwrap();
            std::os::unix::fs::symlink(at("c"), at("other")).unwrap();
            std::fs::rename(at("other"), at("link")).unwrap();
        });
        changes("made", &|| std::fs::write(at("none"), "").unwrap());
        changes("removed", &|| std::fs::remove_file(at("none")).unwrap());
        changes("in a directory", &|| std::fs::write(at("d").join("x"), "").unwrap());
    }

    #[test]
    fn a_file_that_was_not_looked_at_before_it_was_read_is_looked_at_again() {
        let dir = tempfile::tempdir().unwrap();
        let (known, new) = (dir.path().join("known"), dir.path().join("new"));
        std::fs::write(&known, "").unwrap();
        std::fs::write(&new, "").unwrap();
        let seen = Seen::now([&known]).only(&[known.clone(), new.clone()]);
        assert_ne!(seen, seen.again());
        assert_eq!(Seen::now([&known]).only(&[known]), Seen::now([&dir.path().join("known")]));
    }
}
