//! The table of keys against the parser: what it shows is what is taken.

use serde_json::{Value, json};

use super::*;
use crate::config::keys::{self, Given, KEYS, Key, Kind, Shape, children};
use crate::config::schema::{Document, defaults, json_schema};

/// What cannot stand beside a key.
const INSTEAD_OF: &[(&str, &[&str])] = &[
    ("providers.*.verify.ed25519", &["hmac"]),
    ("providers.*.verify.token", &["hmac"]),
    ("providers.*.verify.basic", &["hmac"]),
    ("providers.*.verify.hmac.signature.from", &["header"]),
    ("providers.*.verify.ed25519.signature.from", &["header"]),
    ("providers.*.verify.token.from", &["header"]),
    ("providers.*.verify.any", &["hmac"]),
    ("providers.*.verify.all", &["hmac"]),
    ("sources.*.verify", &["provider", "secret"]),
    ("sources.*.secrets", &["secret"]),
    ("ingress.listen.tls", &[]),
];

/// Keys that need another one, they and those below them.
const NEEDS: &[(&str, &str, &str)] = &[
    ("admin.read_token", "admin.token", "${SECRET}"),
    ("providers.*.verify.basic.username", "providers.*.secrets", "{ username: { optional: true }, secret: ~ }"),
    ("providers.*.verify.basic.username", "providers.*.verify.basic.password", "secret"),
    ("providers.*.verify.hmac.timestamp", "providers.*.verify.hmac.content", "\"{header:X-Time}{body}\""),
    ("providers.*.verify.ed25519.timestamp", "providers.*.verify.ed25519.content", "\"{header:X-Time}{body}\""),
    ("providers.*.handshakes.method", "providers.*.handshakes.signed", "false"),
    ("providers.*.handshakes.check", "providers.*.handshakes.signed", "false"),
];

/// What the item of a list has before anything else is put into it.
const BEGINS: &[(&str, &str)] = &[("providers.*.handshakes", "{ name: ping, when: { present: [\"json:/ping\"] } }")];

fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

/// `path` with names for its stars, those of [`WHOLE`].
fn named(path: &str) -> Vec<String> {
    let name = match path.split('.').next() {
        Some("providers") => "acme",
        Some("sources") => "hooks",
        _ => "app",
    };
    path.split('.').map(|part| part.replace('*', name)).collect()
}

/// An example of `key` that stands for itself: names are those of [`WHOLE`], variables those of [`env`].
fn example(key: &Key) -> Value {
    let text = match key.path {
        "providers" | "sources" | "destinations" | "providers.*" | "sources.*" | "destinations.*" => {
            return Value::Null;
        }
        "sources.*.provider" => "acme".to_owned(),
        "providers.*.verify.token" | "providers.*.verify.any" | "providers.*.verify.all" => key.example().to_owned(),
        _ => key.example().replace("FOREBAY_ADMIN_TOKEN", "SECRET").replace("FOREBAY_READ_TOKEN", "SECRET"),
    };
    yaml(&text)
}

/// Puts `value` at `path`, making the mappings on the way, with what they require.
fn put(root: &mut Value, path: &str, value: Value) {
    let mut at = root;
    let mut schema = String::new();
    let parts: Vec<&str> = path.split('.').collect();
    for (index, (part, name)) in parts.iter().zip(named(path)).enumerate() {
        let above = schema.clone();
        schema = if above.is_empty() { (*part).to_owned() } else { format!("{above}.{part}") };
        if !at.is_object() {
            *at = json!({});
        }
        let map = at.as_object_mut().unwrap();
        for sibling in children(&above).filter(|key| matches!(key.given, Given::Required(_)) && key.path != schema) {
            map.entry(sibling.name()).or_insert_with(|| example(sibling));
        }
        for (instead, gone) in INSTEAD_OF {
            if *instead == schema {
                gone.iter().for_each(|key| drop(map.remove(*key)));
            }
        }
        let last = index + 1 == parts.len();
        let shape = keys::find(&schema).map_or(Shape::One, |key| key.shape);
        let slot = map.entry(name).or_insert(Value::Null);
        if last {
            *slot = value;
            return;
        }
        if shape == Shape::One {
            at = slot;
        } else {
            if !slot.is_array() || slot.as_array().unwrap().is_empty() {
                let begun = BEGINS.iter().find(|(list, _)| *list == schema);
                *slot = json!([begun.map_or(json!({}), |(_, item)| yaml(item))]);
            }
            at = slot.get_mut(0).unwrap();
        }
    }
}

/// A directory with the files that examples name.
fn files() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let signed = rcgen::generate_simple_self_signed(vec!["hooks.example.com".to_owned()]).unwrap();
    std::fs::create_dir(dir.path().join("tls")).unwrap();
    std::fs::create_dir(dir.path().join("providers")).unwrap();
    std::fs::write(dir.path().join("tls/hooks.crt"), signed.cert.pem()).unwrap();
    std::fs::write(dir.path().join("tls/clients.pem"), signed.cert.pem()).unwrap();
    std::fs::write(dir.path().join("journal.key"), "nzwKcdLoS1VmoMHvJ7iUPRBSf+bDi5oE1eHyo7TF1uc=").unwrap();
    std::fs::set_permissions(dir.path().join("journal.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    std::fs::write(dir.path().join("tls/hooks.key"), signed.signing_key.serialize_pem()).unwrap();
    dir
}

fn base() -> Value {
    let mut base = yaml(WHOLE);
    for name in ["provider", "to"] {
        assert!(base["sources"]["hooks"][name] != Value::Null);
    }
    base["sources"]["hooks"]["secret"] = json!("${SECRET}");
    base
}

/// With what `key` needs.
fn base_of(key: &Key) -> Value {
    let mut base = base();
    if key.path.starts_with("providers.*.verify.ed25519") {
        base["sources"]["hooks"]["secret"] = json!("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    }
    for (_, needed, value) in NEEDS.iter().filter(|(needing, _, _)| key.path.starts_with(needing)) {
        put(&mut base, needed, yaml(value));
    }
    base
}

/// What is made of `value`: its settings as text, or the errors.
fn made(value: &Value, dir: &Path) -> Result<String, Problems> {
    parse_str("forebay.yaml", &value.to_string(), dir, &env).map(|(config, _)| format!("{config:?}"))
}

#[test]
fn every_key_is_accepted() {
    let dir = files();
    for key in KEYS.iter().filter(|key| !example(key).is_null() || matches!(key.given, Given::Default(_))) {
        let mut config = base_of(key);
        put(&mut config, key.path, example(key));
        if let Err(problems) = made(&config, dir.path()) {
            panic!("{}: {config:#}\n{problems}", key.path);
        }
    }
}

#[test]
fn the_defaults_that_are_shown_are_those_that_are_taken() {
    let dir = files();
    for key in KEYS {
        let Given::Default(text) = key.given else { continue };
        let mut without = base_of(key);
        put(&mut without, key.path, Value::Null);
        let mut with = base_of(key);
        put(&mut with, key.path, yaml(text));
        assert_eq!(made(&with, dir.path()).unwrap(), made(&without, dir.path()).unwrap(), "{}: {text}", key.path);
    }
}

#[test]
fn a_default_that_is_changed_is_seen() {
    let dir = files();
    let plain = made(&base(), dir.path()).unwrap();
    for (path, other) in [("ingress.limits.headers", "99"), ("destinations.*.retry.factor", "3"), ("log.level", "warn")]
    {
        let mut changed = base();
        put(&mut changed, path, yaml(other));
        assert_ne!(made(&changed, dir.path()).unwrap(), plain, "{path}");
    }
}

/// A setting that is new is compared by [`Config::diff`] without a line of its own.
#[test]
fn every_key_that_is_written_is_a_difference_unless_it_is_the_default() {
    let dir = files();
    let read = |value: &Value| match parse_str("forebay.yaml", &value.to_string(), dir.path(), &env) {
        Ok((config, _)) => config,
        Err(problems) => panic!("{value:#}\n{problems}"),
    };
    let mut different = 0;
    for key in KEYS.iter().filter(|key| !matches!(key.kind, Kind::Section | Kind::Names)) {
        let (mut with, without) = (base_of(key), base_of(key));
        put(&mut with, key.path, example(key));
        let is_same = with == without || matches!(key.given, Given::Default(_)) || example(key) == json!({});
        let told = read(&without).diff(&read(&with));
        assert!(is_same || key.path == "include" || !told.is_empty(), "{}: {with:#}", key.path);
        different += usize::from(!is_same);
    }
    assert!(different > 50, "{different} keys are looked at");
}

#[test]
fn the_page_of_defaults_is_yaml_that_has_every_key() {
    let page: Value = serde_yaml::from_str(&defaults()).unwrap();
    for key in KEYS {
        let inside_other = KEYS.iter().any(|other| {
            other.shape != Shape::One && key.path.starts_with(&format!("{}.", other.path))
                || !matches!(other.kind, Kind::Section | Kind::Names)
                    && key.path.starts_with(&format!("{}.", other.path))
        });
        if inside_other {
            let name = if key.name() == "*" { "NAME" } else { key.name() };
            assert!(defaults().contains(&format!("#   {name}: {}", key.doc)), "{}", key.path);
            continue;
        }
        let mut at = &page;
        for part in key.path.split('.') {
            at = at.get(if part == "*" { "NAME" } else { part }).unwrap_or_else(|| panic!("{} is missing", key.path));
        }
        if let Given::Default(text) = key.given {
            assert_eq!(*at, yaml(text), "{}", key.path);
        }
    }
}

#[test]
fn the_schema_has_every_key_and_allows_no_other() {
    let schema = json_schema(Document::Config);
    let limits = &schema["properties"]["ingress"]["properties"]["limits"];
    assert_eq!(limits["additionalProperties"], json!(false));
    assert_eq!(limits["properties"]["headers"]["default"], json!(100));
    assert_eq!(schema["properties"]["sources"]["additionalProperties"]["required"], json!(["to"]));
    assert_eq!(json_schema(Document::Preset)["required"], json!(["verify"]));
    let text = schema.to_string();
    for key in KEYS.iter().filter(|key| key.name() != "*") {
        assert!(text.contains(&json!(key.doc).to_string().trim_matches('"').to_owned()), "{}", key.path);
    }
}

#[test]
fn the_documentation_has_every_key_with_its_default() {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md")).unwrap();
    let of_presets = |key: &&Key| key.path.starts_with("providers.*");
    let of_section = |key: &&Key| key.path.ends_with('*') || (key.kind == Kind::Section && key.shape == Shape::One);
    for key in KEYS.iter().filter(|key| !of_presets(key) && !of_section(key) && key.kind != Kind::Names) {
        let default = match key.given {
            Given::Default(text) => format!("`{text}`"),
            Given::Derived(how, _) => how.to_owned(),
            Given::Optional(_) => "–".to_owned(),
            Given::Required(_) => "required".to_owned(),
        };
        let row = format!("| `{}` | {default} | {}", key.path.replace('*', "NAME"), key.doc);
        assert!(docs.contains(&row), "missing or stale: {row}");
    }
}
