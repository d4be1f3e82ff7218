//! Fields and mappings that know their path, and that collect what is wrong with them.
//!
//! A bad value is reported where it stands and then reads as if it were absent, so that parsing goes on and all
//! problems come out at once. Which keys a mapping has is said by the table in [`super::keys`], nowhere else.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use crate::base::Name;

use super::expand::{ExpandError, expand, has_variable};
use super::keys;
use super::problems::{Severity, suggest};
use super::reader::{Outside, Reader, read_bytes};
use super::tree::{Entry, Node, Place, Value};

/// Bytes of a file that `{ file: … }` names, at most.
const VALUE_FILE_BYTES_MAX: u64 = 64 << 10;

/// What YAML, one version or another, reads as a switch or as nothing.
const SWITCHES: &[&str] = &["true", "false", "on", "off", "yes", "no", "null"];

/// A value at its key.
#[derive(Clone)]
pub struct Field<'t> {
    node: &'t Node,
    place: Place,
    path: String,
    schema: String,
    reader: &'t Reader<'t>,
}

/// A text from the config, its variables filled in.
pub struct Text {
    /// The text.
    pub value: String,
    /// Whether it came from a variable or a file, and so must not be printed.
    pub outside: bool,
}

impl<'t> Field<'t> {
    /// The root of a tree, whose keys stand in the table under `schema`.
    pub fn root(reader: &'t Reader<'t>, node: &'t Node, schema: &str) -> Self {
        Self { node, place: node.place, path: String::new(), schema: schema.to_owned(), reader }
    }

    /// Where it stands: the value's place, or the key's where the value is nothing or begins on a later line.
    fn place(&self) -> Place {
        let apart = self.node.place.line != self.place.line;
        if apart || matches!(self.node.value, Value::Null) { self.place } else { self.node.place }
    }

    /// Reports an error here.
    pub fn error(&self, message: impl Into<String>) {
        self.add(Severity::Error, self.place(), message.into());
    }

    /// Reports a warning here.
    pub fn warn(&self, message: impl Into<String>) {
        self.add(Severity::Warning, self.place(), message.into());
    }

    /// Reports an error at the key.
    pub fn error_at_key(&self, message: impl Into<String>) {
        self.add(Severity::Error, self.place, message.into());
    }

    /// Reports a warning at the key.
    pub fn warn_at_key(&self, message: String) {
        self.add(Severity::Warning, self.place, message);
    }

    /// Reports an error at the key of one of its entries, without its name: that may be a secret that slipped.
    pub fn error_at_entry(&self, entry: &Entry, message: impl Into<String>) {
        self.add(Severity::Error, entry.place, message.into());
    }

    fn add(&self, severity: Severity, place: Place, message: String) {
        self.reader.add(severity, (self.node.file, place), &self.path, message);
    }

    /// Its file, line and column, for a message about something else.
    pub fn location(&self) -> String {
        let Place { line, column } = self.place();
        format!("{}:{line}:{column}", self.reader.name_of(self.node.file))
    }

    /// `path` as seen from the directory of the file that this stands in.
    pub fn beside(&self, path: &Path) -> PathBuf {
        self.reader.beside(self.node.file, path)
    }

    /// A file or directory that is named here, for a message: by its path where that stands in the config.
    pub fn file_in_words(&self, path: &Text) -> String {
        if path.outside {
            "what stands here".to_owned()
        } else {
            format!("`{}`", self.beside(Path::new(&path.value)).display())
        }
    }

    /// The file's reader.
    pub fn reader(&self) -> &'t Reader<'t> {
        self.reader
    }

    /// Whether `off`, `false` or nothing stands here.
    pub fn is_off(&self) -> bool {
        match &self.node.value {
            Value::Null => true,
            Value::Scalar(text) => matches!(text.as_str(), "off" | "false"),
            _ => false,
        }
    }

    /// Whether one value stands here: a scalar, or the `{ file: … }` that stands for one.
    pub fn is_scalar(&self) -> bool {
        matches!(self.node.value, Value::Scalar(_)) || self.value_file().is_some()
    }

    /// Whether what stands here comes from a variable or a file, and so must not be printed.
    pub fn is_from_outside(&self) -> bool {
        self.value_file().is_some() || self.written().is_some_and(has_variable)
    }

    /// A number, a switch or nothing, as it is written: what is a text only once it is quoted.
    pub fn literal(&self) -> Option<&'t str> {
        match &self.node.value {
            Value::Scalar(text) if self.node.plain => Some(text),
            Value::Null => Some("null"),
            _ => None,
        }
    }

    /// Whether a list stands here.
    pub fn is_list(&self) -> bool {
        matches!(self.node.value, Value::Seq(_))
    }

    /// Whether a mapping stands here that is more than a `{ file: … }`.
    pub fn is_mapping(&self) -> bool {
        matches!(self.node.value, Value::Map(_)) && self.value_file().is_none()
    }

    /// Whether a mapping with this key stands here.
    pub fn has(&self, key: &str) -> bool {
        matches!(&self.node.value, Value::Map(entries) if entries.iter().any(|entry| entry.key == key))
    }

    /// The value at `key` of a mapping that is not checked; none where it is absent or has no value.
    pub fn peek(&self, key: &str) -> Option<Field<'t>> {
        let Value::Map(entries) = &self.node.value else { return None };
        let entry = entries.iter().find(|entry| entry.key == key)?;
        if matches!(entry.value.value, Value::Null) { None } else { Some(self.child(entry, key)) }
    }

    /// The entries of a mapping and their fields, at the place in the table that each has; nothing is reported.
    pub fn members(&self) -> Vec<(&'t Entry, Field<'t>)> {
        let Value::Map(entries) = &self.node.value else { return Vec::new() };
        let schema = |entry: &Entry| {
            if keys::is_key(&join(&self.schema, &entry.key)) { entry.key.clone() } else { "*".to_owned() }
        };
        entries.iter().map(|entry| (entry, self.child(entry, &schema(entry)))).collect()
    }

    /// The items of a list; nothing is reported.
    pub fn items(&self) -> Vec<Field<'t>> {
        if self.is_list() { self.one_or_list() } else { Vec::new() }
    }

    /// Where in the table of keys it is.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// As [`Field::text`], where nothing is to be reported.
    pub fn quiet_text(&self) -> Option<Text> {
        if let Some(file) = self.value_file() {
            let path = file.quiet_text()?;
            let bytes = read_bytes(&self.beside(Path::new(&path.value)), VALUE_FILE_BYTES_MAX).ok()?;
            let hex = |error: FromUtf8Error| data_encoding::HEXLOWER.encode(error.as_bytes()); // a key as it is
            return Some(Text { value: String::from_utf8(bytes).unwrap_or_else(hex), outside: true });
        }
        let expanded = expand(self.written()?, self.reader.env()).ok()?;
        Some(Text { value: expanded.text, outside: expanded.outside })
    }

    /// The scalar as it is written, for a quick look; nothing is reported.
    pub fn written(&self) -> Option<&'t str> {
        match &self.node.value {
            Value::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list; a value that is not a list is reported as not `wanted`.
    pub fn list(&self, wanted: &str) -> Vec<Field<'t>> {
        match &self.node.value {
            Value::Seq(items) => items.iter().enumerate().map(|(index, node)| self.item(index, node)).collect(),
            _ => {
                self.error(format!("{} stands here; write a list: {wanted}", self.node.kind()));
                Vec::new()
            }
        }
    }

    /// The items of a list, or the one value itself.
    pub fn one_or_list(&self) -> Vec<Field<'t>> {
        match &self.node.value {
            Value::Seq(items) => items.iter().enumerate().map(|(index, node)| self.item(index, node)).collect(),
            _ => vec![self.clone()],
        }
    }

    fn item(&self, index: usize, node: &'t Node) -> Field<'t> {
        let path = format!("{}[{index}]", self.path);
        Field { node, place: node.place, path, schema: self.schema.clone(), reader: self.reader }
    }

    /// The mapping that stands here, its keys checked against the table; anything else is reported.
    pub fn map(&self) -> Option<Map<'t>> {
        self.map_at(&self.schema)
    }

    /// As [`Field::map`], with the keys of another place in the table.
    pub fn map_at(&self, schema: &str) -> Option<Map<'t>> {
        let map = Map { field: Field { schema: schema.to_owned(), ..self.clone() }, entries: self.entries()? };
        map.refuse_unknown_keys();
        Some(map)
    }

    /// The entries of a mapping whose keys are names that people choose.
    pub fn named(&self) -> Vec<(&'t Entry, Field<'t>)> {
        let entries = self.entries().unwrap_or_default();
        entries.iter().map(|entry| (entry, self.child(entry, "*"))).collect()
    }

    fn entries(&self) -> Option<&'t [Entry]> {
        match &self.node.value {
            Value::Map(entries) => Some(entries),
            Value::Null => Some(&[]),
            _ => {
                self.error(format!("{} stands here; write a mapping, `key: value`", self.node.kind()));
                None
            }
        }
    }

    fn child(&self, entry: &'t Entry, schema_key: &str) -> Field<'t> {
        Field {
            node: &entry.value,
            place: entry.place,
            path: join(&self.path, &entry.key),
            schema: join(&self.schema, schema_key),
            reader: self.reader,
        }
    }

    /// The key as a name, reported where it is none.
    pub fn name(&self, key: &str) -> Option<Name> {
        Name::new(key).map_err(|error| self.error_at_key(format!("not a name; {error}"))).ok()
    }

    /// The text here, its variables filled in or its file read; reported where there is none.
    pub fn text(&self) -> Option<Text> {
        self.text_or(ExpandError::to_string)
    }

    /// As [`Field::text`], for a secret: no default is proposed, and a switch that slipped in is refused.
    pub fn secret_text(&self) -> Option<Text> {
        if let Some(word) = self.written().filter(|text| SWITCHES.contains(&text.to_ascii_lowercase().as_str())) {
            self.error(format!("`{word}` is a switch and no secret; write `${{VAR}}` or `{{ file: … }}`"));
            return None;
        }
        if self.literal().is_some() && self.written().is_some() {
            self.error("a number stands here, which other programs write in another way; put the secret in quotes");
            return None;
        }
        self.text_or(ExpandError::of_secret)
    }

    fn text_or(&self, say: fn(&ExpandError) -> String) -> Option<Text> {
        if let Some(file) = self.value_file() {
            return file.text().and_then(|path| self.read_file(&path));
        }
        match &self.node.value {
            Value::Scalar(written) => match expand(written, self.reader.env()) {
                Ok(expanded) => Some(Text { value: expanded.text, outside: expanded.outside }),
                Err(ExpandError::Unset(_)) if self.reader.outside() == Outside::Spared => None,
                Err(error) => {
                    self.error(say(&error));
                    None
                }
            },
            Value::Null => {
                self.error("nothing stands here; write a value");
                None
            }
            Value::Seq(_) | Value::Map(_) => {
                self.error(format!("{} stands here; write one value", self.node.kind()));
                None
            }
        }
    }

    /// The text here as what `parse` makes of it. `wanted` is what it should be, in words, for a value that must
    /// not be quoted.
    pub fn parse<T, E: Display>(&self, wanted: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let text = self.text()?;
        match parse(&text.value) {
            Ok(value) => Some(value),
            Err(_) if text.outside => {
                self.error(format!("what stands here comes from outside and is not {wanted}; mend it there"));
                None
            }
            Err(error) => {
                self.error(error.to_string());
                None
            }
        }
    }

    /// The file that a `{ file: … }` here names, and the bytes in it, or why there are none; nothing where something else stands.
    pub fn file_bytes(&self) -> Option<Result<(PathBuf, Vec<u8>), String>> {
        let path = self.value_file()?.text()?;
        let found = self.beside(Path::new(&path.value));
        let bytes = self.reader.read_bytes(&found, VALUE_FILE_BYTES_MAX);
        Some(match bytes {
            Ok(bytes) => Ok((found, bytes)),
            Err(why) => Err(format!("{} cannot be used: {why}", self.file_in_words(&path))),
        })
    }

    fn value_file(&self) -> Option<Field<'t>> {
        match &self.node.value {
            Value::Map(entries) => match entries.as_slice() {
                [entry] if entry.key == "file" => Some(self.child(entry, "file")),
                _ => None,
            },
            _ => None,
        }
    }

    fn read_file(&self, path: &Text) -> Option<Text> {
        match self.reader.read(&self.beside(Path::new(&path.value)), VALUE_FILE_BYTES_MAX) {
            Ok(mut value) => {
                if value.ends_with('\n') {
                    value.pop();
                    if value.ends_with('\r') {
                        value.pop();
                    }
                }
                if value.is_empty() {
                    self.error(format!("{} is empty; put the value in it", self.file_in_words(path)));
                    return None;
                }
                Some(Text { value, outside: true })
            }
            Err(_) if self.reader.outside() == Outside::Spared => None,
            Err(why) => {
                let file = self.file_in_words(path);
                self.error(format!("{file} cannot be used: {why}; name a file that can be read"));
                None
            }
        }
    }
}

/// A mapping whose keys the table knows.
#[derive(Clone)]
pub struct Map<'t> {
    field: Field<'t>,
    entries: &'t [Entry],
}

impl<'t> Map<'t> {
    /// The value at `key`; none where the key is absent or has no value.
    pub fn get(&self, key: &str) -> Option<Field<'t>> {
        debug_assert!(keys::is_key(&join(&self.field.schema, key)), "{}.{key} is not in the table", self.field.schema);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        if matches!(entry.value.value, Value::Null) { None } else { Some(self.field.child(entry, key)) }
    }

    /// The mapping at `key`; none, and reported, where something else stands there.
    pub fn section(&self, key: &str) -> Option<Map<'t>> {
        self.get(key)?.map()
    }

    /// The value at `key`, unless it is switched off.
    pub fn unless_off(&self, key: &str) -> Option<Field<'t>> {
        self.get(key).filter(|field| !field.is_off())
    }

    /// The mapping itself as a field, for what is wrong with it as a whole.
    pub fn field(&self) -> &Field<'t> {
        &self.field
    }

    /// Reports that `key` is missing: `message` says what it would say, and how to write it.
    pub fn missing(&self, key: &str, message: impl Into<String>) {
        let place = match self.entries.iter().find(|entry| entry.key == key) {
            Some(entry) => entry.place,
            None => self.field.place,
        };
        let at = (self.field.node.file, place);
        self.field.reader.add(Severity::Error, at, &join(&self.field.path, key), message.into());
    }

    fn refuse_unknown_keys(&self) {
        let known: Vec<&str> = keys::children(&self.field.schema).map(|key| key.name()).collect();
        for entry in self.entries {
            if known.contains(&entry.key.as_str()) {
                continue;
            }
            let schema = join(&self.field.schema, &entry.key);
            let message = match keys::not_yet(&schema) {
                true => format!("`{}` is not available in this version yet; leave it out", entry.key),
                false => format!("unknown key; {}", suggest(&entry.key, known.iter().copied())),
            };
            self.field.child(entry, &entry.key).error_at_key(message);
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
