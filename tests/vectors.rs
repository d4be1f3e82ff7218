//! Requests that providers sign (tests/data/providers) against the presets, read as a config names them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // in helpers, too: a failed one is a failed test

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use data_encoding::BASE64;
use forebay::base::UnixMillis;
use forebay::config;
use forebay::event::{Client, Head, Received};
use forebay::provider::{Check, Draft, Place, Preset, Recipe, Scheme, SigningKey};
use forebay::source::SourceSettings;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

/// One line of a data file.
struct Vector {
    name: String,
    source: SourceSettings,
    recipe: Recipe,
    now: UnixMillis,
    request: Draft,
    expect: String,
    /// The secret that a token check compares, if the line has one secret.
    token: Option<String>,
    /// Whether what proves the request has more in it than is needed, so that a part of it may change.
    spare: bool,
}

/// Every line, read once for all tests.
fn vectors() -> &'static [Vector] {
    static VECTORS: LazyLock<Vec<Vector>> = LazyLock::new(read);
    &VECTORS
}

fn read() -> Vec<Vector> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/providers");
    let mut vectors = Vec::new();
    for entry in fs::read_dir(&dir).expect("the data is in the repository") {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let text = fs::read_to_string(&path).unwrap();
            let file = path.file_stem().unwrap().to_str().unwrap();
            vectors.extend(text.lines().map(|line| vector(file, &serde_json::from_str(line).unwrap())));
        }
    }
    vectors
}

fn vector(file: &str, line: &Value) -> Vector {
    let text = |key: &str| line[key].as_str().unwrap_or_else(|| panic!("{file}: no {key}"));
    let secret = if line["secrets"].is_null() { &line["secret"] } else { &line["secrets"] };
    let source = source(&line["provider"], secret, line["public_url"].as_str());
    let headers = line["headers"].as_object().unwrap().iter().map(|(name, value)| {
        let value = HeaderValue::from_str(value.as_str().unwrap()).unwrap();
        (name.parse::<HeaderName>().unwrap(), value)
    });
    Vector {
        name: format!("{file}: {}", text("case")),
        recipe: recipe(&source),
        now: UnixMillis(line["now"].as_i64().unwrap_or(1_700_000_000) * 1000),
        request: Draft {
            method: text("method").parse().unwrap(),
            path: line["path"].as_str().unwrap_or(&source.path).to_owned(),
            query: line["query"].as_str().map(str::to_owned),
            params: Vec::new(),
            headers: headers.collect(),
            body: BASE64.decode(text("body_base64").as_bytes()).unwrap(),
        },
        source,
        expect: text("expect").to_owned(),
        token: secret.as_str().map(str::to_owned),
        spare: line["spare"] == true,
    }
}

/// The source of a config (JSON is YAML) that names `provider`, a preset's name or an inline preset.
fn source(provider: &Value, secret: &Value, public_url: Option<&str>) -> SourceSettings {
    let (name, providers) = match provider {
        Value::String(name) => (name.as_str(), json!({})),
        inline => ("inline", json!({ "inline": inline })),
    };
    let public_url = public_url.unwrap_or("https://hooks.example.com");
    let config = json!({
        "providers": providers,
        "sources": { "hook": { "provider": name, "secret": secret, "public_url": public_url, "to": [] } },
    });
    let env = |_: &str| None;
    let read = config::parse_str("vector", &config.to_string(), Path::new(""), &env);
    let (config, _) = read.unwrap_or_else(|problems| panic!("{problems}"));
    config.sources.into_iter().next().unwrap()
}

fn recipe(source: &SourceSettings) -> Recipe {
    Recipe::compile(&source.preset, &source.keyring, &source.options()).unwrap()
}

impl Vector {
    /// `verified`, or the reason for the rejection.
    fn verdict(&self, request: &Draft) -> &'static str {
        let head = Head {
            method: request.method.clone(),
            path: request.path.as_str().into(),
            query: request.query.as_deref().map(Into::into),
            headers: request.headers.clone(),
            client: Client { ip: [192, 0, 2, 1].into(), tls: true, host: None },
            received_at: self.now,
        };
        let received = Received { head, params: Vec::new(), body: Bytes::copy_from_slice(&request.body) };
        let name = &self.source.name;
        match self.recipe.verify(name, &self.source.preset.name, received, self.now) {
            Ok(_) => "verified",
            Err(rejection) => rejection.reason(),
        }
    }

    fn with_headers(&self, headers: HeaderMap) -> Draft {
        Draft { headers, ..self.request.clone() }
    }

    fn with_body(&self, body: Vec<u8>) -> Draft {
        Draft { body, ..self.request.clone() }
    }

    fn with_query(&self, query: &str) -> Draft {
        Draft { query: Some(query.to_owned()), ..self.request.clone() }
    }

    /// The headers that are part of the proof: those without which it does not hold.
    fn proof(&self) -> Vec<HeaderName> {
        let needed = |name: &&HeaderName| {
            let mut without = self.request.headers.clone();
            without.remove(*name);
            self.verdict(&self.with_headers(without)) != "verified"
        };
        self.request.headers.keys().filter(needed).cloned().collect()
    }

    /// Whether a signature covers the body; a token says nothing of it, and its preset says so, too.
    fn is_signed(&self) -> bool {
        self.source.preset.verify.leaves().iter().any(|check| matches!(check, Check::Signed(_)))
    }

    /// Whether the token stands in the body.
    fn has_its_token_in_the_body(&self) -> bool {
        let in_body = |check: &&Check| matches!(check, Check::Token(token) if matches!(token.from, Place::Json(_)));
        self.source.preset.verify.leaves().iter().any(in_body)
    }
}

#[test]
fn every_vector_has_its_verdict() {
    let vectors = vectors();
    assert!(vectors.len() >= 120, "{} vectors", vectors.len());
    for vector in vectors {
        assert_eq!(vector.verdict(&vector.request), vector.expect, "{}", vector.name);
    }
}

#[test]
fn every_built_in_preset_has_a_vector_that_verifies() {
    let vectors = vectors();
    for preset in config::presets::built_in().unwrap() {
        let shown =
            vectors.iter().any(|vector| vector.source.preset.name == preset.name && vector.expect == "verified");
        assert!(shown, "{} has none", preset.name);
    }
}

#[test]
fn no_byte_of_a_signed_body_can_change() {
    let verified = |vector: &&Vector| vector.expect == "verified" && !vector.has_its_token_in_the_body();
    for vector in vectors().iter().filter(verified) {
        let signed = vector.is_signed();
        for place in 0..vector.request.body.len() {
            let mut body = vector.request.body.clone();
            body[place] ^= 0x01;
            let verdict = vector.verdict(&vector.with_body(body));
            // The time may be in the body; then it is looked at first.
            let refused = verdict == "no_match" || verdict.ends_with("_timestamp");
            assert!(if signed { refused } else { verdict == "verified" }, "{}: byte {place}: {verdict}", vector.name);
        }
        let longer = [vector.request.body.as_slice(), b"\n"].concat();
        assert_eq!(vector.verdict(&vector.with_body(longer)) != "verified", signed, "{}", vector.name);
    }
}

/// Every way to change `value` that is tried: bits of each byte, the end cut off, something added.
fn mutants(value: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let flipped = (0..value.len()).flat_map(|place| [0x01, 0x10, 0x40].map(|flip| (place, flip)));
    let flipped = flipped.map(move |(place, flip)| {
        let mut bytes = value.to_vec();
        bytes[place] ^= flip;
        bytes
    });
    let cut = (0..value.len()).map(move |end| value[..end].to_vec());
    let longer = b"0aA=".iter().map(move |byte| [value, &[*byte]].concat());
    flipped.chain(cut).chain(longer)
}

#[test]
fn no_byte_of_a_signature_or_its_time_can_change() {
    let mut tried = 0;
    for vector in vectors().iter().filter(|vector| vector.expect == "verified" && !vector.spare) {
        for name in vector.proof() {
            for bytes in mutants(vector.request.headers[&name].as_bytes()) {
                let Ok(mutant) = HeaderValue::from_bytes(&bytes) else { continue };
                let mut headers = vector.request.headers.clone();
                headers.insert(name.clone(), mutant.clone());
                let verdict = vector.verdict(&vector.with_headers(headers));
                assert_ne!(verdict, "verified", "{}: {name}: {mutant:?}", vector.name);
                tried += 1;
            }
            let mut headers = vector.request.headers.clone();
            headers.append(name.clone(), vector.request.headers[&name].clone());
            let verdict = vector.verdict(&vector.with_headers(headers));
            assert_ne!(verdict, "verified", "{}: {name} twice", vector.name);
        }
    }
    assert!(tried > 15_000, "{tried} changes were tried");
}

#[test]
fn no_byte_of_a_signed_query_or_of_a_token_in_it_can_change() {
    let mut tried = 0;
    for vector in vectors().iter().filter(|vector| vector.expect == "verified" && !vector.spare) {
        let Some(query) = &vector.request.query else { continue };
        for bytes in mutants(query.as_bytes()) {
            let Ok(mutant) = String::from_utf8(bytes) else { continue };
            assert_ne!(vector.verdict(&vector.with_query(&mutant)), "verified", "{}: {mutant}", vector.name);
            tried += 1;
        }
        let twice = format!("{query}&{query}");
        assert_ne!(vector.verdict(&vector.with_query(&twice)), "verified", "{}: twice", vector.name);
    }
    assert!(tried > 100, "{tried} changes were tried");
}

#[test]
fn no_byte_of_a_token_in_the_body_can_change() {
    let mut tried = 0;
    for vector in vectors().iter().filter(|vector| vector.expect == "verified" && vector.has_its_token_in_the_body()) {
        let token = vector.token.as_deref().unwrap();
        let text = String::from_utf8(vector.request.body.clone()).unwrap();
        for (start, _) in text.match_indices(token) {
            for bytes in mutants(token.as_bytes()) {
                let body = [&text.as_bytes()[..start], &bytes, &text.as_bytes()[start + token.len()..]].concat();
                let verdict = vector.verdict(&vector.with_body(body));
                assert_ne!(verdict, "verified", "{}: {:?}", vector.name, String::from_utf8_lossy(&bytes));
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "{tried} changes were tried");
}

/// A value for each of the preset's secrets: for a public key that of `private`.
fn secrets(preset: &Preset, private: &SigningKey) -> Value {
    let leaves = preset.verify.leaves();
    let value = |slot: &str| {
        let public = leaves.iter().find_map(|check| match check {
            Check::Signed(check) if check.secret == slot && check.scheme == Scheme::Ed25519 => Some(&check.key),
            _ => None,
        });
        public.map_or("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(), |key| private.public_text(key))
    };
    preset
        .secrets
        .iter()
        .map(|slot| (slot.name.clone(), value(&slot.name).into()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn every_preset_verifies_its_own_signed_sample() {
    let private = SigningKey::parse(&"9d".repeat(32)).unwrap();
    for preset in config::presets::built_in().unwrap() {
        let source =
            source(&json!(preset.name.as_str()), &secrets(&preset, &private), Some("https://hooks.example.com/in"));
        let sample = preset.sample.as_ref().unwrap_or_else(|| panic!("{} has no sample", preset.name));
        let value = |text: &str| HeaderValue::from_str(&text.replace("{id}", "1")).unwrap();
        let mut vector = Vector {
            name: format!("{}: sample", preset.name),
            recipe: recipe(&source),
            now: UnixMillis(1_700_000_000_000),
            request: Draft {
                method: preset.methods[0].clone(),
                path: source.path.clone(),
                query: None,
                params: Vec::new(),
                headers: sample.headers.iter().map(|(name, text)| (name.clone(), value(text))).collect(),
                body: sample.body.replace("{id}", "1").into_bytes(),
            },
            source,
            expect: "verified".into(),
            token: None,
            spare: false,
        };
        assert_ne!(vector.verdict(&vector.request), "verified", "{}", vector.name);
        let mut signed = vector.request.clone();
        vector
            .recipe
            .sign(&mut signed, vector.now, Some(&private))
            .unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        vector.request = signed;
        assert_eq!(vector.verdict(&vector.request), "verified", "{}", vector.name);
    }
}

#[test]
fn the_example_of_the_language_is_a_preset() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/presets.md")).unwrap();
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let indented: String = example.lines().map(|line| format!("    {line}\n")).collect();
    let config = format!(
        "providers:\n  acme:\n{indented}sources:\n  hook: {{ provider: acme-legacy, secret: whsec_YWJjZGVmZ2hpamtsbW5vcA==, to: [] }}\n"
    );
    let read = config::parse_str("docs/presets.md", &config, Path::new(""), &|_: &str| None);
    let (config, warnings) = read.unwrap_or_else(|problems| panic!("{problems}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    recipe(&config.sources[0]);
}

/// docs/providers.md has a row for every built-in preset, with its facts as the files have them.
#[test]
fn the_page_of_providers_is_true() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers.md")).unwrap();
    let presets = config::presets::built_in().unwrap();
    for preset in &presets {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}`", preset.name)));
        let row = row.unwrap_or_else(|| panic!("{} has no row", preset.name));
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [names, _, secrets, handshakes, _, deadline, window] = cells[..] else { panic!("{row}") };
        let quoted = |cell: &str, name: &str| cell.contains(&format!("`{name}`"));
        assert!(preset.aliases.iter().all(|alias| quoted(names, alias.as_str())), "{row}");
        assert!(preset.secrets.iter().all(|slot| quoted(secrets, &slot.name)), "{row}");
        assert!(preset.handshakes.iter().all(|handshake| quoted(handshakes, handshake.name.as_str())), "{row}");
        assert_eq!(preset.handshakes.is_empty(), handshakes == "–", "{row}");

        let private = SigningKey::parse(&"9d".repeat(32)).unwrap();
        let source =
            source(&json!(preset.name.as_str()), &self::secrets(preset, &private), Some("https://hooks.example.com"));
        assert_eq!(deadline, format!("{:?}", source.deadline), "{row}");
        let hours = source.dedupe.window.as_secs() / 60;
        let is_off = format!("{:?}", source.dedupe.key) == "Off";
        let expected = match (is_off, hours % 60) {
            (true, _) => "–".to_owned(),
            (false, 0) => format!("{}h", hours / 60),
            (false, _) => format!("{hours}m"),
        };
        assert_eq!(window, expected, "{row}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, presets.len(), "a row of a preset that is none");

    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let env = |name: &str| {
        let value = match name {
            "DISCORD_PUBLIC_KEY" => "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "SVIX_PUBLIC_KEY" => "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
            _ => "whsec_YWJjZGVmZ2hpamtsbW5vcA==",
        };
        Some(value.to_owned())
    };
    let read = config::parse_str("docs/providers.md", example, Path::new(""), &env);
    let (config, _) = read.unwrap_or_else(|problems| panic!("{problems}"));
    for preset in &presets {
        let used = config.sources.iter().any(|source| source.preset.name == preset.name);
        assert!(used, "the page has no source of {}", preset.name);
    }
}
