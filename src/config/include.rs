//! `include`: further files whose sources, destinations and providers are taken into the config's tree.
//!
//! They are taken in as trees, each part knowing the file that it stands in: what reads the config afterwards sees one
//! tree, and complains of each place by its own file.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use super::keys;
use super::problems::{Severity, nearest};
use super::reader::{Field, Reader, Text, plain};
use super::tree::{Entry, FILE_BYTES_MAX, Node, Place, Value};

/// What may stand in an included file, and what one of each is called.
const SECTIONS: [(&str, &str); 3] = [("sources", "source"), ("destinations", "destination"), ("providers", "provider")];

/// Files that one config includes, at most.
const FILES_MAX: usize = 1_000;
/// Bytes of all of them together, at most.
const BYTES_MAX: u64 = 4 * FILE_BYTES_MAX;

/// The tree of the config at `path` with all that it includes; none, and a problem, where it has none itself.
pub fn open(reader: &Reader<'_>, path: &Path) -> Option<Node> {
    let node = reader.open(path)?;
    Some(merged(reader, node, fs::canonicalize(path).ok()))
}

/// As [`open`], for a tree that came from no file.
pub fn all(reader: &Reader<'_>, node: Node) -> Node {
    merged(reader, node, None)
}

/// `own` is the config's own path, which a pattern may match.
fn merged(reader: &Reader<'_>, mut node: Node, own: Option<PathBuf>) -> Node {
    let mut taken: HashSet<PathBuf> = own.into_iter().collect();
    let mut room_bytes = BYTES_MAX;
    let mut parts = Vec::new();
    let root = reader.root(&node, "");
    for item in root.peek("include").map(|field| field.one_or_list()).unwrap_or_default() {
        let Some(text) = item.text() else { continue };
        let mut paths = paths(&item, &text);
        paths.retain(|path| fs::canonicalize(path).map_or(true, |real| taken.insert(real))); // each file once
        if taken.len() > FILES_MAX {
            item.error(format!("more than {FILES_MAX} files are included; include fewer"));
            break;
        }
        parts.extend(paths.iter().filter_map(|path| part(&item, &text, path, &mut room_bytes)));
    }
    for part in parts {
        take_in(reader, &mut node, part);
    }
    node
}

/// The files that `text`, which stands at `item`, names, in order.
fn paths(item: &Field<'_>, text: &Text) -> Vec<PathBuf> {
    let path = Path::new(&text.value);
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        item.error("no file; write one like `conf.d/acme.yaml`, or `conf.d/*.yaml`");
        return Vec::new();
    };
    let above = path.parent().unwrap_or(Path::new(""));
    if is_pattern(&above.display().to_string()) {
        item.error("`*`, `?` and `[…]` can stand in the file's name only; write out the directories");
        return Vec::new();
    }
    if !is_pattern(name) {
        return vec![item.beside(path)];
    }
    match Pattern::new(name) {
        Ok(pattern) => matches(item, text, &item.beside(above), &pattern),
        Err(error) => {
            item.error(format!("not a pattern: {}; close `[` by `]`, and write `[[]` for the character", error.msg));
            Vec::new()
        }
    }
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// The files of `dir` whose names match, sorted.
fn matches(item: &Field<'_>, text: &Text, dir: &Path, pattern: &Pattern) -> Vec<PathBuf> {
    let here = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    item.reader().touch(here);
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    let listed = fs::read_dir(here);
    let mut names: Vec<String> = match listed {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| pattern.matches_with(name, options) && !dir.join(name).is_dir())
            .collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            let why = plain(&error);
            item.error(format!("{} cannot be looked for: {why}; name files in a directory", item.file_in_words(text)));
            return Vec::new();
        }
    };
    if names.is_empty() {
        item.warn(format!("no file is like {}; put one there, or take this out", item.file_in_words(text)));
    }
    names.sort();
    names.into_iter().map(|name| dir.join(name)).collect()
}

/// The tree of an included file; `room_bytes` is how much all of them may still have.
fn part(item: &Field<'_>, text: &Text, path: &Path, room_bytes: &mut u64) -> Option<Node> {
    let reader = item.reader();
    let shown = path.display().to_string();
    let written = match reader.read(path, FILE_BYTES_MAX.min(*room_bytes)) {
        Ok(text) => text,
        Err(why) => {
            let file = if text.outside { "what stands here".to_owned() } else { format!("`{shown}`") };
            item.error(format!("{file} cannot be used: {why}; name a file that can be read"));
            return None;
        }
    };
    *room_bytes = room_bytes.saturating_sub(written.len() as u64);
    let file = reader.file(&shown, path.parent().unwrap_or(Path::new("")));
    reader.tree(file, &written)
}

/// Puts what stands in `part` into the tree of the config, and reports what cannot stand there or is there already.
fn take_in(reader: &Reader<'_>, root: &mut Node, part: Node) {
    let at = (part.file, part.place);
    let entries = match part.value {
        Value::Map(entries) => entries,
        Value::Null => {
            let message = "an empty file; write `sources`, `destinations` or `providers` in it, or take it out";
            reader.add(Severity::Warning, (part.file, Place { line: 1, column: 1 }), "", message.to_owned());
            return;
        }
        Value::Scalar(_) | Value::Seq(_) => {
            let message = "no mapping stands here; write `sources:`, `destinations:` or `providers:`";
            reader.add(Severity::Error, at, "", message.to_owned());
            return;
        }
    };
    for entry in entries {
        match SECTIONS.iter().find(|(section, _)| *section == entry.key) {
            Some((_, one)) => add_section(reader, root, entry, one),
            None => {
                let message = misplaced(&entry.key, &reader.name_of(root.file));
                reader.add(Severity::Error, (part.file, entry.place), &entry.key, message);
            }
        }
    }
}

/// Why `key` cannot stand in an included file.
fn misplaced(key: &str, config: &str) -> String {
    if key == "include" {
        return format!("an included file includes no others; name them all in {config}");
    }
    if keys::is_key(key) || keys::not_yet(key) {
        return format!("cannot stand in an included file; move it to {config}");
    }
    match nearest(key, SECTIONS.iter().map(|(section, _)| *section)) {
        Some(near) => format!("unknown key; did you mean `{near}`?"),
        None => "unknown key; an included file has `sources`, `destinations` and `providers`".to_owned(),
    }
}

/// Puts the names of a section into the same section of the config; `one` is what each is called.
fn add_section(reader: &Reader<'_>, root: &mut Node, section: Entry, one: &str) {
    let named = match section.value.value {
        Value::Map(named) => named,
        Value::Null => return,
        Value::Scalar(_) | Value::Seq(_) => {
            let message = format!("{} stands here; write a mapping, `key: value`", section.value.kind());
            reader.add(Severity::Error, (section.value.file, section.value.place), &section.key, message);
            return;
        }
    };
    if matches!(root.value, Value::Null) {
        root.value = Value::Map(Vec::new());
    }
    let Value::Map(sections) = &mut root.value else { return };
    let empty = Node { value: Value::Map(Vec::new()), ..section.value };
    let known = match sections.iter_mut().position(|known| known.key == section.key) {
        Some(at) => sections.get_mut(at),
        None => {
            sections.push(Entry { key: section.key.clone(), place: section.place, value: empty.clone() });
            sections.last_mut()
        }
    };
    let Some(known) = known else { return };
    if matches!(known.value.value, Value::Null) {
        known.value = empty;
    }
    let Value::Map(all) = &mut known.value.value else { return };
    for entry in named {
        match all.iter().find(|other| other.key == entry.key) {
            Some(other) => {
                let (file, place) = (reader.name_of(other.value.file), other.place);
                let message = format!(
                    "there is another {one} `{}` at {file}:{}:{}; give one of them another name",
                    entry.key, place.line, place.column
                );
                let at = (entry.value.file, entry.place);
                reader.add(Severity::Error, at, &format!("{}.{}", section.key, entry.key), message);
            }
            None => all.push(entry),
        }
    }
}
