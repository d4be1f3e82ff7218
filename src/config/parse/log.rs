//! `log`.

use tracing_subscriber::EnvFilter;

use crate::config::reader::Map;
use crate::telemetry::{LogFormat, LogSettings};

pub fn settings(root: &Map<'_>) -> LogSettings {
    let default = LogSettings::default();
    let Some(map) = root.section("log") else { return default };
    let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    let level = map.get("level").and_then(|field| {
        field.parse("a level like `info`", |text| match EnvFilter::try_new(text) {
            Ok(_) if is_filter(text) => Ok(text.to_owned()),
            _ => Err(format!("`{text}` is not a level; write error, warn, info, debug or trace, or a filter like `info,forebay=debug`")),
        })
    });
    LogSettings {
        format: map.word("format", &formats).unwrap_or(default.format),
        level: level.unwrap_or(default.level),
    }
}

/// `EnvFilter` takes any word for a module's name, so that `inof` would silence everything.
fn is_filter(text: &str) -> bool {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    text.contains(['=', '[', ':'])
        || text.split(',').all(|word| levels.contains(&word.trim().to_ascii_lowercase().as_str()))
}
