//! The journal's directory, what it lies on, and who has it; and how many files may be open.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::{Check, flush};
use crate::base::UnixMillis;
use crate::journal::Settings;

/// The process that holds a journal; the number if it can be told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder(pub(super) Option<u32>);

/// Checks everything about the journal's directory. Gives who has it.
pub(super) fn checks(settings: &Settings, checks: &mut Vec<Check>) -> Option<Holder> {
    let dir = settings.dir.as_path();
    let (check, existing) = directory(dir);
    checks.push(check);
    let existing = existing?;
    checks.push(space(settings, &existing));
    checks.push(filesystem(&existing));
    let holder = holder(&dir.join("lock"));
    checks.push(match &holder {
        Ok(None) => Check::ok("journal lock", "nobody holds it: no gateway runs on this journal"),
        Ok(Some(Holder(pid))) => {
            let pid = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
            Check::ok("journal lock", format!("held by {pid}: the gateway is running"))
        }
        Err(error) => Check::fail(
            "journal lock",
            format!("cannot be looked at: {error}"),
            "give the file to the user that runs forebay",
        ),
    });
    checks.push(flush::check(&existing));
    checks.extend(damage(dir));
    holder.ok().flatten()
}

/// The directory, and the nearest part of its path that is there; none if it can never be made.
fn directory(dir: &Path) -> (Check, Option<PathBuf>) {
    const WHAT: &str = "journal.dir";
    let shown = dir.display();
    let us = rustix::process::geteuid().as_raw();
    match fs::metadata(dir) {
        Ok(facts) if !facts.is_dir() => {
            (Check::fail(WHAT, format!("{shown} is not a directory"), "name another one, or move it away"), None)
        }
        Ok(facts) if facts.uid() != us => {
            let detail = format!("{shown} belongs to another user (uid {}, this is {us})", facts.uid());
            (
                Check::fail(WHAT, detail, format!("chown -R {us} {shown}, or run this as that user")),
                Some(dir.to_owned()),
            )
        }
        Ok(facts) if facts.mode() & 0o077 != 0 => {
            let detail = format!("{shown} has mode {:04o}: others on this machine may look in", facts.mode() & 0o7777);
            (Check::warn(WHAT, detail, format!("chmod 700 {shown}")), Some(dir.to_owned()))
        }
        Ok(_) => (Check::ok(WHAT, format!("{shown} is there, and ours alone")), Some(dir.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => missing(dir),
        Err(error) => {
            let cure = "name a directory that the user who runs forebay can reach";
            (Check::fail(WHAT, format!("{shown}: {error}"), cure), None)
        }
    }
}

fn missing(dir: &Path) -> (Check, Option<PathBuf>) {
    let shown = dir.display();
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let above = absolute.ancestors().skip(1).find(|above| above.exists()).unwrap_or(Path::new("/"));
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    match rustix::fs::access(above, access) {
        Ok(()) if above.is_dir() => {
            (Check::ok("journal.dir", format!("{shown} is not there yet, and can be made")), Some(above.to_owned()))
        }
        _ => {
            let detail = format!("{shown} is not there, and cannot be made in {}", above.display());
            let cure = "make it, owned by the user that runs forebay, or name another one";
            (Check::fail("journal.dir", detail, cure), None)
        }
    }
}

/// Free files below which the journal will soon not be able to begin a segment.
const FILES_LEAST: u64 = 1000;

fn space(settings: &Settings, existing: &Path) -> Check {
    const WHAT: &str = "disk space";
    let facts = match rustix::fs::statvfs(existing) {
        Ok(facts) => facts,
        Err(error) => return Check::fail(WHAT, format!("cannot be told: {error}"), "look at the mount"),
    };
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    let used = used(&settings.dir);
    let wanted = settings.max_size.0.saturating_sub(used);
    let room = format!("{} free; the journal has {} and may take {} more", size(free), size(used), size(wanted));
    if facts.f_files > 0 && facts.f_favail < FILES_LEAST {
        let detail = format!("{room}; only {} more files can be made", facts.f_favail);
        return Check::fail(WHAT, detail, "remove files, or make the file system with more inodes");
    }
    if free == 0 {
        return Check::fail(WHAT, room, "free some: nothing can be kept");
    }
    if free < wanted {
        let cure = "lower journal.max_size, or get a larger disk: it would be full before the journal knows";
        return Check::warn(WHAT, room, cure);
    }
    Check::ok(WHAT, room)
}

/// Bytes of all files below `dir`.
fn used(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(facts) if facts.is_dir() => used(&entry.path()),
        Ok(facts) => facts.len(),
        Err(_) => 0, // gone since
    });
    bytes.sum()
}

fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{}.{} GiB", bytes >> 30, (bytes >> 20) % 1024 * 10 / 1024),
    }
}

/// File systems by their number (`linux/magic.h`), and what is wrong with a journal on them.
#[cfg(target_os = "linux")]
const UNSUITABLE: [(u64, &str, &str); 9] = [
    (0x0102_1994, "tmpfs", MEMORY),
    (0x8584_58f6, "ramfs", MEMORY),
    (0x6969, "NFS", NETWORK),
    (0xff53_4d42, "CIFS", NETWORK),
    (0xfe53_4d42, "SMB", NETWORK),
    (0x00c3_6400, "Ceph", NETWORK),
    (0x0102_1997, "9p", NETWORK),
    (0x6573_5546, "FUSE", NETWORK),
    (0x794c_7630, "overlayfs", "is thrown away with its container; mount a volume there"),
];
#[cfg(target_os = "linux")]
const MEMORY: &str = "is memory: what is acknowledged is gone after a restart of the machine; use a disk";
#[cfg(target_os = "linux")]
const NETWORK: &str = "may not keep its promises about locks and flushes over a network; use a local disk";

#[cfg(target_os = "linux")]
fn filesystem(existing: &Path) -> Check {
    const WHAT: &str = "file system";
    #[allow(clippy::cast_sign_loss, clippy::cast_lossless, clippy::unnecessary_cast)] // a number of 32 bits
    let kind = rustix::fs::statfs(existing).map(|facts| facts.f_type as u64 & 0xffff_ffff);
    match kind {
        Err(error) => Check::warn(WHAT, format!("its kind cannot be told: {error}"), ""),
        Ok(kind) => match UNSUITABLE.iter().find(|(number, ..)| *number == kind) {
            Some((_, name, why)) => {
                let (why, cure) = why.split_once("; ").unwrap_or((why, ""));
                Check::warn(WHAT, format!("{} is on {name}, which {why}", existing.display()), cure)
            }
            None => Check::ok(WHAT, format!("a local one (number {kind:#x})")),
        },
    }
}

#[cfg(not(target_os = "linux"))]
fn filesystem(_: &Path) -> Check {
    Check::ok("file system", "its kind is only told on Linux; the journal wants a local disk")
}

/// Who holds the lock. Asks for a shared one and lets go of it at once; the gateway's is exclusive.
fn holder(lock: &Path) -> io::Result<Option<Holder>> {
    let mut file = match File::open(lock) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        other => other?,
    };
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None), // closing the file lets go of it
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let pid = file.by_ref().take(32).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            Ok(Some(Holder(pid)))
        }
        Err(error) => Err(error.into()),
    }
}

/// What was found damaged and is set aside, if there is any.
fn damage(dir: &Path) -> Option<Check> {
    let corrupt = dir.join("corrupt");
    let count = fs::read_dir(&corrupt).ok()?.count();
    let detail = match count {
        0 => return None,
        1 => format!("one stretch of the log was found damaged; what stood there is in {}", corrupt.display()),
        _ => format!("{count} stretches of the log were found damaged; what stood there is in {}", corrupt.display()),
    };
    let cure = "look after the disk (`smartctl`, the kernel's log); `forebay dead-letters` has the deliveries that were lost \
                (reason `damaged`): have them sent again; then remove the files";
    Some(Check::warn("damage", detail, cure))
}

/// When the journal in `dir` was last written to.
pub(super) fn newest(dir: &Path) -> Option<UnixMillis> {
    let entries = fs::read_dir(dir.join("log")).ok()?;
    let times = entries.flatten().filter_map(|entry| entry.metadata().ok()?.modified().ok());
    let since = times.max()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(UnixMillis)
}

/// Files that a gateway has open besides its connections: the journal, the index, applications, the private side.
const FILES_BESIDES: u64 = 1024;

/// Whether as many files may be open as there may be connections. A gateway raises its soft limit by itself.
pub(super) fn open_files(connections: usize) -> Check {
    let wanted = connections as u64 + FILES_BESIDES;
    match rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum {
        Some(hard) if hard < wanted => {
            let detail = format!("{hard} may be open; ingress.limits.connections: {connections} needs {wanted}");
            Check::warn(
                "open files",
                detail,
                "raise the hard limit (`ulimit -Hn`, LimitNOFILE= of systemd), or lower it there",
            )
        }
        Some(hard) => Check::ok("open files", format!("{hard} may be open; {wanted} are needed at most")),
        None => Check::ok("open files", format!("as many as it likes; {wanted} are needed at most")),
    }
}
