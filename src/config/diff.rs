//! What one config says other than another: by section, name and key, and never a secret's value.
//!
//! What is compared is what was written, key by key as the table of keys has it, variables and files filled in; so a
//! setting that is new tomorrow is compared without a line here. A key that is absent counts as its default.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::hash::BuildHasher;
use std::path::Path;
use std::sync::OnceLock;

use serde::Serialize;

use super::Config;
use super::keys::{self, Given, Key, Kind, Shape};
use super::reader::{Field, Reader};
use crate::base::{ByteSize, Rate, open_regular, parse_duration};

/// What stands where something is secret, or came from outside.
const STARS: &str = "***";
/// Characters of a value that are shown, at most.
const SHOWN_MAX: usize = 80;
/// Bytes of a certificate or key file that are compared, at most.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Sections of names that people choose, and what one of each is called.
const NAMED: [(&str, &str); 3] = [("providers", "provider"), ("sources", "source"), ("destinations", "destination")];
/// The sections in the order in which changes are told.
const ORDER: [&str; 8] = ["ingress", "admin", "journal", "provider", "source", "destination", "log", "shutdown_grace"];

/// Something that one config says and another says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What happened to it.
    pub change: What,
    /// `source`, `destination` or `provider`; or the name of another section, e.g. `ingress`.
    pub section: String,
    /// Which source, destination or provider.
    pub name: Option<String>,
    /// Which key in it, e.g. `retry.max`; none is the whole.
    pub key: Option<String>,
    /// What it was, as far as it may be shown: `***` is secret, nothing is a key that was not set.
    pub from: Option<String>,
    /// What it is now, in the same way.
    pub to: Option<String>,
}

/// What happened to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Changed,
}

impl fmt::Display for Change {
    /// `+ source acme`, `- source old`, `~ destination app: timeout 30s -> 10s`, `~ source acme: secret changed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.change {
            What::Added => '+',
            What::Removed => '-',
            What::Changed => '~',
        };
        write!(f, "{sign} {}", self.section)?;
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        if self.change != What::Changed {
            return Ok(());
        }
        f.write_str(":")?;
        if let Some(key) = &self.key {
            write!(f, " {key}")?;
        }
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "unset".to_owned());
        if self.from == self.to {
            return f.write_str(" changed");
        }
        write!(f, " {} -> {}", value(&self.from), value(&self.to))
    }
}

impl Config {
    /// What `new` says otherwise: sources, destinations and providers that come and go, and every key that is another.
    #[must_use]
    pub fn diff(&self, new: &Config) -> Vec<Change> {
        let mut changes = Vec::new();
        let (before, after) = (&self.written.0, &new.written.0);
        let parts: BTreeSet<&Part> = before.keys().chain(after.keys()).collect();
        for part in parts {
            let whole = |change| Change {
                change,
                section: part.section.clone(),
                name: part.name.clone(),
                key: None,
                from: None,
                to: None,
            };
            let none = BTreeMap::new();
            match (before.get(part), after.get(part)) {
                (Some(_), None) if part.name.is_some() => changes.push(whole(What::Removed)),
                (None, Some(_)) if part.name.is_some() => changes.push(whole(What::Added)),
                (before, after) => {
                    changes.extend(changed(part, before.unwrap_or(&none), after.unwrap_or(&none)));
                }
            }
        }
        let place = |change: &Change| ORDER.iter().position(|section| *section == change.section);
        changes.sort_by_key(place);
        changes
    }
}

/// The keys that differ.
fn changed(part: &Part, before: &Settings, after: &Settings) -> Vec<Change> {
    let mut changes = Vec::new();
    let all: BTreeMap<&String, &Setting> = before.iter().chain(after).collect();
    for (key, either) in all {
        let default = either.default.as_ref();
        let (from, to) =
            (before.get(key).map(Setting::value).or(default), after.get(key).map(Setting::value).or(default));
        if from.map(|value| value.print) == to.map(|value| value.print) {
            continue;
        }
        let shown = |value: Option<&Value>| value.map(|value| value.shown.clone());
        changes.push(Change {
            change: What::Changed,
            section: part.section.clone(),
            name: part.name.clone(),
            key: Some(key.clone()).filter(|key| !key.is_empty()),
            from: shown(from),
            to: shown(to),
        });
    }
    changes
}

/// Everything that a config says, by part and key. It prints as nothing, and holds no secret.
#[derive(Clone, Default)]
pub(super) struct Written(BTreeMap<Part, Settings>);

/// By key, e.g. `retry.max`; the empty key is the part itself.
type Settings = BTreeMap<String, Setting>;

/// A section, or one of a section of names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    section: String,
    name: Option<String>,
}

#[derive(Clone)]
struct Setting {
    value: Value,
    /// What is taken where it is absent, if that is a value.
    default: Option<Value>,
}

impl Setting {
    fn value(&self) -> &Value {
        &self.value
    }
}

#[derive(Clone)]
struct Value {
    /// For people.
    shown: String,
    /// Equal for equal values: a hash with a key that no other process has.
    print: u64,
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Written")
    }
}

impl Written {
    /// What stands at `root`, the root of a config that is in order.
    pub fn at(root: &Field<'_>) -> Self {
        let mut written = Self::default();
        for (entry, section) in root.members() {
            let part =
                |section: &str, name: Option<&str>| Part { section: section.to_owned(), name: name.map(str::to_owned) };
            match NAMED.iter().find(|(named, _)| *named == entry.key) {
                _ if entry.key == "include" => {} // what it brought stands in the tree
                Some((_, one)) => {
                    for (entry, field) in section.members() {
                        match field.schema().ends_with(".*") {
                            true => written.take_in(part(one, Some(&entry.key)), "", &field),
                            false => written.take_in(part(one, None), &entry.key, &field), // `providers.dir`
                        }
                    }
                }
                None => written.take_in(part(&entry.key, None), "", &section),
            }
        }
        written
    }

    fn take_in(&mut self, part: Part, key: &str, field: &Field<'_>) {
        flatten(key, field, self.0.entry(part).or_default());
    }
}

/// Puts every value below `field` into `settings`. What has no value is as if it were absent.
fn flatten(key: &str, field: &Field<'_>, settings: &mut Settings) {
    if field.is_mapping() {
        for (entry, member) in field.members() {
            let key = if key.is_empty() { entry.key.clone() } else { format!("{key}.{}", entry.key) };
            flatten(&key, &member, settings);
        }
    } else if let Some(read) = read(field) {
        settings.insert(key.to_owned(), Setting { value: read.value(), default: default(field.schema()) });
    }
}

/// The default of the key at `schema`, as if it were written.
fn default(schema: &str) -> Option<Value> {
    let key = keys::find(schema)?;
    match key.given {
        Given::Default(text) => {
            let reader = Reader::new(&|_| None);
            let node = reader.tree(reader.file("", Path::new("")), text)?;
            read(&reader.root(&node, key.path)).map(|read| read.value())
        }
        _ if key.off => Some(Read { canonical: "off".to_owned(), shown: "off".to_owned() }.value()),
        _ => None,
    }
}

/// A value: in one spelling, to compare, and for people.
struct Read {
    canonical: String,
    shown: String,
}

impl Read {
    fn value(self) -> Value {
        static KEY: OnceLock<RandomState> = OnceLock::new();
        let print = KEY.get_or_init(RandomState::new).hash_one(&self.canonical);
        let shown = match self.shown.char_indices().nth(SHOWN_MAX) {
            Some((at, _)) => format!("{}…", self.shown.get(..at).unwrap_or_default()),
            None => self.shown,
        };
        Value { shown, print }
    }
}

/// What stands at `field`; none where that is nothing, and nothing is not off.
fn read(field: &Field<'_>) -> Option<Read> {
    let key = nearest(field.schema());
    if field.is_off() && key.is_some_and(|key| key.off) {
        return Some(Read { canonical: "off".to_owned(), shown: "off".to_owned() });
    }
    if field.is_list() {
        let items: Vec<Read> = field.items().iter().filter_map(read).collect();
        return Some(match <[Read; 1]>::try_from(items) {
            Ok([one]) if key.is_some_and(|key| key.shape == Shape::OneOrList) => one,
            Ok([one]) => joined("[", &[one], "]"),
            Err(items) => joined("[", &items, "]"),
        });
    }
    if field.is_mapping() {
        let member = |(name, read): (&str, Read)| Read {
            canonical: format!("{name}: {}", read.canonical),
            shown: format!("{name}: {}", read.shown),
        };
        let members = field.members();
        let members = members.iter().filter_map(|(entry, field)| Some(member((&entry.key, read(field)?))));
        return Some(joined("{ ", &members.collect::<Vec<_>>(), " }"));
    }
    let text = field.quiet_text()?;
    let is_private = text.outside || is_secret(field.schema());
    let canonical = match key.map(|key| key.kind) {
        Some(Kind::FileName) => format!("{} {}", text.value, content(&field.beside(Path::new(&text.value)))),
        Some(kind) => canonical(kind, &text.value),
        None => text.value.clone(),
    };
    let shown = match key.map(|key| key.kind) {
        _ if is_private => STARS.to_owned(),
        Some(Kind::Url) => without_query(&text.value),
        _ => text.value,
    };
    Some(Read { canonical, shown })
}

/// A query may be a credential: it is not shown of any URL.
fn without_query(url: &str) -> String {
    match url.split_once('?') {
        Some((before, _)) => format!("{before}?{STARS}"),
        None => url.to_owned(),
    }
}

fn joined(open: &str, items: &[Read], close: &str) -> Read {
    let join =
        |part: fn(&Read) -> &str| format!("{open}{}{close}", items.iter().map(part).collect::<Vec<_>>().join(", "));
    Read { canonical: join(|read| &read.canonical), shown: join(|read| &read.shown) }
}

/// The key at `schema`, or the one that it is below of.
fn nearest(schema: &str) -> Option<&'static Key> {
    keys::find(schema).or_else(|| nearest(schema.rsplit_once('.')?.0))
}

/// Whether what stands there is not for people: secrets, and headers, which may well be credentials.
fn is_secret(schema: &str) -> bool {
    let date = schema.ends_with(".not_after");
    let below = |above: &str| schema == above || schema.strip_prefix(above).is_some_and(|rest| rest.starts_with('.'));
    let kinds = keys::KEYS.iter().any(|key| key.kind == Kind::Secret && below(key.path));
    !date && (kinds || below("destinations.*.headers.set"))
}

/// The one spelling of a value that can be spelled in several ways.
fn canonical(kind: Kind, text: &str) -> String {
    let one = match kind {
        Kind::Duration => parse_duration(text).map(|time| format!("{}ms", time.as_millis())).ok(),
        Kind::Size => ByteSize::parse(text).map(|size| format!("{}B", size.0)).ok(),
        Kind::RateOfBytes => {
            text.strip_suffix("/s").and_then(|size| ByteSize::parse(size).ok()).map(|size| format!("{}B/s", size.0))
        }
        Kind::Rate => Rate::parse(text).map(|rate| rate.to_string()).ok(),
        Kind::Switch => match text {
            "on" => Some("true".to_owned()),
            "off" => Some("false".to_owned()),
            _ => None,
        },
        _ => None,
    };
    one.unwrap_or_else(|| text.to_owned())
}

/// What is in a file, or in the presets of a directory, as far as it makes a difference.
fn content(path: &Path) -> String {
    use std::io::Read as _;
    let of_file = |path: &Path| {
        let mut bytes = Vec::new();
        let file = open_regular(path).ok()?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(format!("{}={}", path.display(), String::from_utf8_lossy(&bytes)))
    };
    let Ok(entries) = fs::read_dir(path) else { return of_file(path).unwrap_or_default() };
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files.iter().filter_map(|path| of_file(path)).collect()
}
