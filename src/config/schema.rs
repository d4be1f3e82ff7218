//! The table of keys, as a JSON Schema and as a page of defaults.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::keys::{self, Given, Kind, Shape};

/// Which document a schema is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// A config.
    Config,
    /// A preset in a file of its own.
    Preset,
}

/// The JSON Schema (draft 2020-12) of a document. Editors complete and check keys by it.
///
/// It is a little narrower than the parser, which also takes a number where it is written in quotes.
#[must_use]
pub fn json_schema(document: Document) -> Value {
    let (path, title) = match document {
        Document::Config => ("", "Forebay's config"),
        Document::Preset => ("providers.*", "A provider's preset for Forebay"),
    };
    let mut schema = mapping(path);
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!(title));
    schema.insert("$defs".to_owned(), definitions());
    Value::Object(schema)
}

/// The mapping of the keys below `path`.
fn mapping(path: &str) -> Map<String, Value> {
    let properties: Map<String, Value> =
        keys::children(path).map(|key| (key.name().to_owned(), property(key))).collect();
    let is_required = |key: &&keys::Key| matches!(key.given, Given::Required(_));
    let mut required: Vec<&str> = keys::children(path).filter(is_required).map(keys::Key::name).collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("additionalProperties".to_owned(), names_below(path));
    if required.contains(&"header") && keys::is_key(&format!("{path}.from")) {
        required.retain(|name| *name != "header"); // either says where it is
        schema.insert("anyOf".to_owned(), json!([{ "required": ["header"] }, { "required": ["from"] }]));
    }
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    if path == "sources.*" {
        schema.insert("oneOf".to_owned(), json!([{ "required": ["provider"] }, { "required": ["verify"] }]));
        schema.insert("not".to_owned(), json!({ "required": ["secret", "secrets"] }));
    }
    if ["providers", "sources", "destinations"].contains(&path) {
        schema.insert("propertyNames".to_owned(), json!({ "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$" }));
    }
    schema
}

/// Lists that are mistakes where they are empty.
const NOT_EMPTY: [&str; 4] = ["ingress.listen", "sources.*.methods", "sources.*.allow_ips", "sources.*.secrets"];

/// The statuses that may stand at a key.
fn statuses(path: &str) -> (u16, u16) {
    match path.rsplit('.').next() {
        Some("give_up_on" | "ends_on") => (300, 599),
        _ => (200, 299),
    }
}

/// What stands at names that people choose: nothing, unless the table has a `*` here.
fn names_below(path: &str) -> Value {
    match keys::find(&format!("{path}.*")) {
        Some(key) if key.path == "providers.*" => json!({ "$ref": "#/$defs/preset" }),
        Some(key) => property(key),
        None => json!(false),
    }
}

fn property(key: &keys::Key) -> Value {
    let mut forms = Vec::new();
    if !matches!(key.kind, Kind::Section | Kind::Names) {
        forms.push(leaf(key));
    }
    if key.path == "providers.*.verify" {
        forms.push(json!({ "$ref": "#/$defs/verify" }));
    } else if key.kind == Kind::Names || keys::children(key.path).next().is_some() {
        forms.push(Value::Object(mapping(key.path)));
    }
    let one = any_of(forms);
    let least = usize::from(NOT_EMPTY.contains(&key.path));
    let list = json!({ "type": "array", "items": one, "minItems": least });
    let mut forms = match key.shape {
        Shape::One => vec![one],
        Shape::OneOrList => vec![one, list],
        Shape::List => vec![list],
    };
    if key.path == "sources.*.secrets" {
        forms.push(json!({ "$ref": "#/$defs/slots" }));
    }
    if key.off {
        forms.push(json!({ "enum": ["off", false, null] }));
    }
    let mut schema = any_of(forms);
    if let Some(object) = schema.as_object_mut() {
        object.insert("description".to_owned(), json!(description(key)));
        match key.given {
            Given::Default(text) => object.insert("default".to_owned(), yaml(text)),
            _ => object.insert("examples".to_owned(), json!([yaml(key.example())])),
        };
    }
    schema
}

fn description(key: &keys::Key) -> String {
    match key.given {
        Given::Derived(how, _) => format!("{} Default: {how}.", key.doc),
        _ => key.doc.to_owned(),
    }
}

fn any_of(mut forms: Vec<Value>) -> Value {
    match forms.len() {
        1 => forms.remove(0),
        _ => json!({ "anyOf": forms }),
    }
}

fn leaf(key: &keys::Key) -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/$defs/{name}") });
    match key.kind {
        Kind::Section | Kind::Names => json!({ "type": "object" }),
        Kind::Texts => {
            json!({ "type": "object", "additionalProperties": { "anyOf": [reference("text"), { "type": "null" }] } })
        }
        Kind::Json => json!({}),
        Kind::Same(path) => reference(path.rsplit('.').next().unwrap_or(path)),
        Kind::Secret if key.path.starts_with("sources.") => {
            json!({ "anyOf": [reference("secret_text"), reference("slots")] })
        }
        Kind::Secret => reference("secret_text"),
        Kind::Method => reference("method"),
        Kind::Text if ["path", "health_path"].contains(&key.name()) => reference("path"),
        Kind::Text | Kind::Name | Kind::FileName | Kind::Header | Kind::Network | Kind::Moment => reference("text"),
        Kind::Address => reference("address"),
        Kind::Listener => reference("listener"),
        Kind::Url => reference("url"),
        Kind::Duration => reference("duration"),
        Kind::Size => reference("size"),
        Kind::RateOfBytes => reference("rate_of_bytes"),
        Kind::Rate => reference("rate"),
        Kind::Status => {
            let (least, most) = statuses(key.path);
            json!({ "anyOf": [{ "type": "integer", "minimum": least, "maximum": most }, reference("variable")] })
        }
        Kind::Count(minimum) => json!({ "anyOf": [{ "type": "integer", "minimum": minimum }, reference("variable")] }),
        Kind::Number => json!({ "anyOf": [{ "type": "number", "minimum": 1 }, reference("variable")] }),
        Kind::Switch => json!({ "anyOf": [{ "type": "boolean" }, reference("variable")] }),
        Kind::OneOf(words) => json!({ "anyOf": [{ "enum": words }, reference("variable")] }),
    }
}

fn definitions() -> Value {
    let text = |pattern: &str, example: &str| json!({ "anyOf": [{ "type": "string", "pattern": pattern }, { "$ref": "#/$defs/variable" }], "examples": [example] });
    let mut verify = mapping("providers.*.verify");
    verify.insert("minProperties".to_owned(), json!(1));
    verify.insert("maxProperties".to_owned(), json!(1));
    let secret = json!({ "$ref": "#/$defs/secret" });
    let switches = ["true", "false", "on", "off", "yes", "no", "null"];
    json!({
        "file": {
            "type": "object", "properties": { "file": { "type": "string" } }, "required": ["file"],
            "additionalProperties": false, "description": "The content of a file, without its last line break.",
        },
        "variable": {
            "anyOf": [{ "type": "string", "pattern": "\\$\\{" }, { "$ref": "#/$defs/file" }],
            "description": "${VAR}, ${VAR:-default} or { file: PATH }: from the environment or a file.",
        },
        "text": { "anyOf": [{ "type": ["string", "number", "boolean"] }, { "$ref": "#/$defs/file" }] },
        "secret_text": {
            "anyOf": [{ "type": "string", "minLength": 1, "not": { "enum": switches } }, { "$ref": "#/$defs/file" }],
            "description": "A secret: ${VAR}, { file: PATH }, or its text in quotes.",
        },
        "method": text("^[A-Z][A-Z-]*$", "POST"),
        "path": text("^/[^\\s?#\"<>\\\\\\u0080-\\uffff]*$", "/webhooks/{tenant}"),
        "duration": text("^[0-9]+(ms|s|m|h|d)$", "30s"),
        "size": text("^[0-9]+(B|KiB|MiB|GiB|TiB)$", "1MiB"),
        "rate_of_bytes": text("^[0-9]+(B|KiB|MiB|GiB|TiB)/s$", "1KiB/s"),
        "rate": text("^[0-9]+/[smh]$", "50/s"),
        "address": text("^.+:[0-9]+$", "127.0.0.1:8080"),
        "listener": text("^(.+:[0-9]+|unix:/.*|fd:.*)$", "127.0.0.1:8080"),
        "url": text("^https?://", "http://127.0.0.1:3000/hooks"),
        "secret": { "anyOf": [{ "$ref": "#/$defs/secret_text" }, Value::Object(mapping("sources.*.secrets"))] },
        "slots": {
            "type": "object", "description": "The provider's secrets by name.",
            "additionalProperties": { "anyOf": [secret.clone(), { "type": "array", "items": secret }] },
        },
        "verify": Value::Object(verify),
        "preset": Value::Object(mapping("providers.*")),
    })
}

/// A text of the table as a JSON value.
fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap_or_else(|_| json!(text))
}

/// Every key with its default and what it is, as YAML. Keys without a default are `~`, which means absent.
#[must_use]
pub fn defaults() -> String {
    let mut page = String::from(
        "# Every key of a Forebay config with its default. `~` is no value: the comment says what is taken then.\n\
         # NAME is a name that you choose. docs/configuration.md says more.\n",
    );
    write_keys(&mut page, "", 0);
    page
}

fn write_keys(page: &mut String, path: &str, depth: usize) {
    for key in keys::children(path).chain(keys::find(&format!("{path}.*"))) {
        let name = if key.name() == "*" { "NAME" } else { key.name() };
        let has_children = key.kind == Kind::Names || keys::children(key.path).next().is_some();
        let is_mapping = has_children && matches!(key.kind, Kind::Section | Kind::Names) && key.shape == Shape::One;
        let indent = "  ".repeat(depth);
        let (value, note) = match key.given {
            Given::Default(text) => (format!(" {text}"), String::new()),
            _ if is_mapping => (String::new(), String::new()),
            Given::Derived(how, _) => (" ~".to_owned(), format!(" Default: {how}.")),
            Given::Optional(example) => (" ~".to_owned(), format!(" Optional, like {example}")),
            Given::Required(example) => (" ~".to_owned(), format!(" Required, like {example}")),
        };
        let line = format!("{indent}{name}:{value} # {}{note}", key.doc);
        page.push_str(line.trim_end());
        page.push('\n');
        if is_mapping {
            write_keys(page, key.path, depth + 1);
        } else if has_children {
            write_members(page, key.path, depth + 1);
        }
    }
}

/// The keys of a mapping that may stand where a default of another form stands: as comments.
fn write_members(page: &mut String, path: &str, depth: usize) {
    for key in keys::children(path).chain(keys::find(&format!("{path}.*"))) {
        let name = if key.name() == "*" { "NAME" } else { key.name() };
        let indent = "  ".repeat(depth);
        let note = match key.given {
            Given::Default(text) => format!("default {text}"),
            Given::Derived(how, _) => format!("default: {how}"),
            Given::Optional(example) => format!("optional, like {example}"),
            Given::Required(example) => format!("required, like {example}"),
        };
        writeln!(page, "{indent}#   {name}: {} ({note})", key.doc).expect("writing to a String does not fail");
        write_members(page, key.path, depth + 1);
    }
}
