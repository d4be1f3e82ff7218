//! `journal`: where events are kept, and how much.

use std::io;
use std::path::{Path, PathBuf};

use super::encryption;
use crate::base::ByteSize;
use crate::config::reader::Map;
use crate::journal::{Retention, Settings};

pub fn settings(root: &Map<'_>) -> Settings {
    let default = Settings {
        dir: PathBuf::from("data"),
        max_size: Settings::MAX_SIZE,
        retention: Retention::default(),
        encryption: Default::default(),
    };
    let Some(map) = root.section("journal") else {
        if let Some(why) = unusable(&default.dir) {
            root.missing("journal", format!("`journal.dir` is `data` where nothing is said, and {why}"));
        }
        return default;
    };
    let dir = map.get("dir").and_then(|field| {
        field
            .parse("a directory", |text| if text.is_empty() { Err("no directory; write one") } else { Ok(text.into()) })
    });
    let retention = map.section("retention").map_or(default.retention, |map| Retention {
        delivered: map.duration("delivered").unwrap_or(default.retention.delivered),
        dead: map.duration("dead").unwrap_or(default.retention.dead),
    });
    let dir = dir.unwrap_or(default.dir);
    if let Some(why) = unusable(&dir) {
        match map.get("dir") {
            Some(field) => field.error(why),
            None => map.missing("dir", why),
        }
    }
    Settings {
        dir,
        max_size: max_size(&map).unwrap_or(default.max_size),
        retention,
        encryption: encryption::encryption(&map),
    }
}

fn max_size(map: &Map<'_>) -> Option<ByteSize> {
    let size = map.size("max_size")?;
    if let Some(field) = map.get("max_size").filter(|_| size < Settings::MAX_SIZE_LEAST) {
        field.error(format!("too small for a journal; write {} or more", Settings::MAX_SIZE_LEAST));
    }
    Some(size)
}

/// Why nothing can be kept in `dir`, as far as a look tells. One that is missing will be made.
fn unusable(dir: &Path) -> Option<&'static str> {
    match std::fs::metadata(dir) {
        Ok(found) if !found.is_dir() => Some("a file stands there; name a directory, or one that can be made"),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Some("a file stands on the way there; name a directory, or one that can be made")
        }
        _ => None,
    }
}
