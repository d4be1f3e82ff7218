//! A YAML document as a tree in which every key and value knows its place.
//!
//! The text of each scalar is kept as it was written, so that `secret: 0123` and `off` mean what they say:
//! what a scalar is, a duration or a switch, is decided by the key it stands at, not by how YAML reads it.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_yaml::{Location, Spanned};

/// Containers within containers, at most.
const DEPTH_MAX: usize = 32;
/// Values in one file, aliases expanded, at most.
const NODES_MAX: usize = 50_000;
/// Bytes of one file, at most.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// A place in a file: line and column, both from 1, the column in characters. 0 is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// Which of the files that are read together: the config itself is the first, 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileId(pub usize);

/// A value and where it begins.
#[derive(Clone, Debug)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// The file it stands in.
    pub file: FileId,
    /// Where it begins.
    pub place: Place,
    /// Whether YAML itself reads it as a number or a switch: it is a scalar without quotes.
    pub plain: bool,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Value {
    /// No value: `~`, `null` or nothing at all.
    Null,
    /// A text, a number or a switch: as written, quotes and escapes resolved.
    Scalar(String),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping, in the file's order.
    Map(Vec<Entry>),
}

/// A key and its value, which stand in the same file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub place: Place,
    /// The value.
    pub value: Node,
}

/// Why a text is not a tree. The message quotes no value of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where.
    pub place: Place,
    /// What is wrong, and the cure where one is known.
    pub message: String,
}

impl Node {
    /// What kind of value it is, in words: `a list`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "empty",
            Value::Scalar(_) => "a single value",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Reads `text`, which is that of `file`, as one YAML document.
///
/// Besides it come its [`SyntaxError`]s: one, and no tree, where the text is not YAML, is too deep, too long or an alias
/// bomb; else one for each key that is there twice or is not a plain word, which is then as if it were not there.
pub fn parse(file: FileId, text: &str) -> (Option<Node>, Vec<SyntaxError>) {
    let raw: Result<Raw, _> = serde_yaml::from_str_with_options(text, options());
    match raw {
        Ok(raw) => {
            let mut errors = Vec::new();
            (Some(raw.into_node((file, text), &mut errors)), errors)
        }
        Err(error) => (None, vec![describe(error.without_snippet(), text)]),
    }
}

fn options() -> serde_yaml::Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: 4 * NODES_MAX,
            max_documents: 1,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: NODES_MAX,
            max_merge_keys: 1_000,
        },
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: NODES_MAX },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        strict_booleans: true,
        ignore_binary_tag_for_string: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// The parser's own words, shortened to what does not quote values, and a cure for the usual slips.
fn describe(error: &serde_yaml::Error, text: &str) -> SyntaxError {
    let place = error.location().map(Place::from).unwrap_or_default();
    let line = text.lines().nth((place.line as usize).saturating_sub(1)).unwrap_or_default();
    let said = error.to_string();
    let message = match error {
        serde_yaml::Error::Budget { breach: serde_yaml::budget::BudgetBreach::Documents { .. }, .. }
        | serde_yaml::Error::MultipleDocuments { .. } => "a second document begins here; keep one in a file".to_owned(),
        serde_yaml::Error::Budget { .. }
        | serde_yaml::Error::AliasReplayLimitExceeded { .. }
        | serde_yaml::Error::AliasReplayCounterOverflow { .. }
        | serde_yaml::Error::AliasReplayStackDepthExceeded { .. }
        | serde_yaml::Error::AliasExpansionLimitExceeded { .. } => too_much(),
        _ if said.contains("budget breached") => too_much(), // some limits lose their variant on the way here
        serde_yaml::Error::UnsupportedTag { .. } => {
            "a value that begins with `!` is a YAML tag, and no tag is used here; quote the value".to_owned()
        }
        _ if said.contains("unexpected character") => {
            "a character that no YAML value begins with, or that is not text; quote the value".to_owned()
        }
        _ if said.contains("recursi") => "the value contains itself, or is nested too deeply; write it out".to_owned(),
        _ if line.trim_start_matches(' ').starts_with('\t') => "YAML is indented by spaces; replace the tab".to_owned(),
        _ if line.contains("${") && said.contains("flow") => {
            "this is not YAML; inside `{…}` or `[…]`, quote what has braces in it: \"${VAR}\"".to_owned()
        }
        _ => {
            let what = first_clause(&said);
            format!("this is not YAML: {what}; {}", cure(&what))
        }
    };
    SyntaxError { place, message }
}

/// What to do about what the parser says.
fn cure(said: &str) -> &'static str {
    let cures = [
        ("anchor", "quote a value that begins with `*`"),
        ("merge", "write `<<: *NAME`, and the mapping with `&NAME` above"),
        ("mapping values", "quote a value that has `: ` in it"),
        ("trailing content", "look for a quote that is missing above, or that is one too many"),
        ("quote", "close it, or look for one that is missing above"),
        ("bracket", "close it"),
        ("expected key", "bring the keys of one mapping to the same indentation"),
    ];
    let known = cures.iter().find(|(words, _)| said.contains(words));
    known.map_or("look for a quote, a bracket or an indentation that does not fit", |(_, cure)| cure)
}

fn too_much() -> String {
    let limits = format!("{DEPTH_MAX} levels, {NODES_MAX} values, aliases expanded");
    format!("the file is more than a config can be ({limits}); make it smaller, and mind aliases of aliases")
}

/// The parser's message up to its place, which we print ourselves.
fn first_clause(said: &str) -> String {
    let line = said.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let end = line.find(" at line ").unwrap_or(line.len());
    let start = line.strip_prefix("line ").and_then(|_| line.find(": ")).map_or(0, |at| at + 2);
    line.get(start..end).unwrap_or(line).trim().to_owned()
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Self { line: narrow(location.line()), column: narrow(location.column()) }
    }
}

/// A node as the parser gives it: plain numbers and switches have lost their spelling, which
/// [`Raw::into_node`] takes from the text again.
struct Raw {
    value: RawValue,
    at: Location,
}

enum RawValue {
    Null,
    /// A plain scalar that YAML reads as a number or a switch.
    Plain,
    Text(String),
    Seq(Vec<Raw>),
    Map(Vec<(Raw, Raw)>),
}

impl Raw {
    /// The node that it is in `file`, a file and its text.
    fn into_node(self, file: (FileId, &str), errors: &mut Vec<SyntaxError>) -> Node {
        let place = Place::from(self.at);
        let plain = matches!(self.value, RawValue::Plain);
        let value = match self.value {
            RawValue::Null => Value::Null,
            RawValue::Plain => Value::Scalar(spelling(file.1, self.at)),
            RawValue::Text(text) => Value::Scalar(text),
            RawValue::Seq(items) => Value::Seq(items.into_iter().map(|item| item.into_node(file, errors)).collect()),
            RawValue::Map(pairs) => Value::Map(entries(pairs, file, errors)),
        };
        Node { value, file: file.0, place, plain }
    }
}

fn entries(pairs: Vec<(Raw, Raw)>, file: (FileId, &str), errors: &mut Vec<SyntaxError>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::with_capacity(pairs.len());
    let mut lines = std::collections::HashMap::new();
    for (key, value) in pairs {
        let key = key.into_node(file, errors);
        let value = value.into_node(file, errors);
        let Value::Scalar(name) = key.value else {
            errors.push(SyntaxError {
                place: key.place,
                message: format!("a key is a word; this one is {}", key.kind()),
            });
            continue;
        };
        if let Some(first) = lines.insert(name.clone(), key.place.line) {
            let message = format!("`{name}` is already set on line {first}; keep one of them");
            errors.push(SyntaxError { place: key.place, message });
            continue;
        }
        entries.push(Entry { key: name, place: key.place, value });
    }
    entries
}

/// A plain scalar's spelling. A scalar of one line is its own slice of the text.
fn spelling(text: &str, at: Location) -> String {
    let start = at.span().byte_offset().and_then(|start| usize::try_from(start).ok());
    let length = at.span().byte_len().and_then(|length| usize::try_from(length).ok());
    let range: Option<Range<usize>> = start.zip(length).map(|(start, length)| start..start.saturating_add(length));
    range.and_then(|range| text.get(range)).unwrap_or_default().trim().to_owned()
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned: Spanned<RawValue> = Spanned::deserialize(deserializer)?;
        Ok(Self { value: spanned.value, at: spanned.defined })
    }
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<RawValue, E> {
        Ok(RawValue::Plain)
    }

    fn visit_i64<E>(self, _: i64) -> Result<RawValue, E> {
        Ok(RawValue::Plain)
    }

    fn visit_u64<E>(self, _: u64) -> Result<RawValue, E> {
        Ok(RawValue::Plain)
    }

    fn visit_i128<E>(self, _: i128) -> Result<RawValue, E> {
        Ok(RawValue::Plain)
    }

    fn visit_u128<E>(self, _: u128) -> Result<RawValue, E> {
        Ok(RawValue::Plain)
    }

    fn visit_f64<E>(self, _: f64) -> Result<RawValue, E> {
        Ok(RawValue::Plain)
    }

    fn visit_str<E>(self, text: &str) -> Result<RawValue, E> {
        Ok(RawValue::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<RawValue, E> {
        Ok(RawValue::Text(text))
    }

    fn visit_unit<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Null)
    }

    fn visit_none<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawValue, D::Error> {
        RawValue::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<RawValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(RawValue::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawValue, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = access.next_entry()? {
            pairs.push(pair);
        }
        Ok(RawValue::Map(pairs))
    }
}
