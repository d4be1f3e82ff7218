//! Requests that providers sign (tests/data/providers) against the presets, read as a config names them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // in helpers, too: a failed one is a failed test

use std::fs;
use std::path::Path;

use bytes::Bytes;
use data_encoding::BASE64;
use forebay::base::UnixMillis;
use forebay::config;
use forebay::event::{Client, Head, Received};
use forebay::provider::{Options, Recipe, Request};
use forebay::source::SourceSettings;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

/// One line of a data file.
struct Vector {
    name: String,
    source: SourceSettings,
    recipe: Recipe,
    now: UnixMillis,
    method: Method,
    headers: HeaderMap,
    body: Vec<u8>,
    expect: String,
    /// Whether the signature header has more in it than is needed, so that a part of it may change.
    spare: bool,
}

fn vectors() -> Vec<Vector> {
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
    let source = source(&line["provider"], text("secret"));
    let headers = line["headers"].as_object().unwrap().iter().map(|(name, value)| {
        let value = HeaderValue::from_str(value.as_str().unwrap()).unwrap();
        (name.parse::<HeaderName>().unwrap(), value)
    });
    Vector {
        name: format!("{file}: {}", text("case")),
        recipe: recipe(&source),
        source,
        now: UnixMillis(line["now"].as_i64().unwrap_or(1_700_000_000) * 1000),
        method: text("method").parse().unwrap(),
        headers: headers.collect(),
        body: BASE64.decode(text("body_base64").as_bytes()).unwrap(),
        expect: text("expect").to_owned(),
        spare: line["spare"] == true,
    }
}

/// The source of a config (JSON is YAML) that names `provider`, a preset's name or an inline preset.
fn source(provider: &Value, secret: &str) -> SourceSettings {
    let (name, providers) = match provider {
        Value::String(name) => (name.as_str(), json!({})),
        inline => ("inline", json!({ "inline": inline })),
    };
    let config = json!({
        "providers": providers,
        "sources": { "hook": { "provider": name, "secret": secret, "to": [] } },
    });
    let env = |_: &str| None;
    let read = config::parse_str("vector", &config.to_string(), Path::new(""), &env);
    let (config, _) = read.unwrap_or_else(|problems| panic!("{problems}"));
    config.sources.into_iter().next().unwrap()
}

fn recipe(source: &SourceSettings) -> Recipe {
    let options = Options { tolerance: source.tolerance, dedupe: source.dedupe.key.clone() };
    Recipe::compile(&source.preset, &source.keyring, &options).unwrap()
}

impl Vector {
    /// `verified`, or the reason for the rejection.
    fn verdict(&self, headers: &HeaderMap, body: &[u8]) -> &'static str {
        let head = Head {
            method: self.method.clone(),
            path: self.source.path.as_str().into(),
            query: None,
            headers: headers.clone(),
            client: Client { ip: [192, 0, 2, 1].into(), tls: true, host: None },
            received_at: self.now,
        };
        let received = Received { head, params: Vec::new(), body: Bytes::copy_from_slice(body) };
        let name = &self.source.name;
        match self.recipe.verify(name, &self.source.preset.name, received, self.now) {
            Ok(_) => "verified",
            Err(rejection) => rejection.reason(),
        }
    }

    /// The headers that are part of the proof: those without which it does not hold.
    fn proof(&self) -> Vec<HeaderName> {
        let needed = |name: &&HeaderName| {
            let mut without = self.headers.clone();
            without.remove(*name);
            self.verdict(&without, &self.body) != "verified"
        };
        self.headers.keys().filter(needed).cloned().collect()
    }
}

#[test]
fn every_vector_has_its_verdict() {
    let vectors = vectors();
    assert!(vectors.len() >= 40, "{} vectors", vectors.len());
    for vector in vectors {
        assert_eq!(vector.verdict(&vector.headers, &vector.body), vector.expect, "{}", vector.name);
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
    for vector in vectors().iter().filter(|vector| vector.expect == "verified") {
        let token = vector.recipe_is_a_token();
        for place in 0..vector.body.len() {
            let mut body = vector.body.clone();
            body[place] ^= 0x01;
            let verdict = vector.verdict(&vector.headers, &body);
            // A token says nothing of the body; its preset says so, too.
            assert_eq!(verdict, if token { "verified" } else { "no_match" }, "{}: byte {place}", vector.name);
        }
        let longer = [vector.body.as_slice(), b"\n"].concat();
        assert_eq!(vector.verdict(&vector.headers, &longer) == "verified", token, "{}", vector.name);
    }
}

#[test]
fn no_byte_of_a_signature_or_its_time_can_change() {
    let mut tried = 0;
    for vector in vectors().iter().filter(|vector| vector.expect == "verified" && !vector.spare) {
        for name in vector.proof() {
            let value = vector.headers[&name].as_bytes();
            let flipped = (0..value.len()).flat_map(|place| [0x01, 0x10, 0x40].map(|flip| (place, flip)));
            let flipped = flipped.map(|(place, flip)| {
                let mut bytes = value.to_vec();
                bytes[place] ^= flip;
                bytes
            });
            let cut = (0..value.len()).map(|end| value[..end].to_vec());
            let longer = b"0aA=".iter().map(|byte| [value, &[*byte]].concat());
            for bytes in flipped.chain(cut).chain(longer) {
                let Ok(mutant) = HeaderValue::from_bytes(&bytes) else { continue };
                let mut headers = vector.headers.clone();
                headers.insert(name.clone(), mutant.clone());
                let verdict = vector.verdict(&headers, &vector.body);
                assert_ne!(verdict, "verified", "{}: {name}: {mutant:?}", vector.name);
                tried += 1;
            }
            let mut headers = vector.headers.clone();
            headers.append(name.clone(), vector.headers[&name].clone());
            assert_ne!(vector.verdict(&headers, &vector.body), "verified", "{}: {name} twice", vector.name);
        }
    }
    assert!(tried > 5_000, "{tried} changes were tried");
}

impl Vector {
    fn recipe_is_a_token(&self) -> bool {
        matches!(self.source.preset.verify, forebay::provider::Check::Token(_))
    }
}

#[test]
fn every_preset_verifies_its_own_signed_sample() {
    for preset in config::presets::built_in().unwrap() {
        let source = source(&json!(preset.name.as_str()), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let recipe = recipe(&source);
        let sample = preset.sample.as_ref().unwrap_or_else(|| panic!("{} has no sample", preset.name));
        let value = |text: &str| HeaderValue::from_str(&text.replace("{id}", "1")).unwrap();
        let headers = sample.headers.iter().map(|(name, text)| (name.clone(), value(text))).collect();
        let mut vector = Vector {
            name: format!("{}: sample", preset.name),
            source,
            recipe,
            now: UnixMillis(1_700_000_000_000),
            method: preset.methods[0].clone(),
            headers,
            body: sample.body.replace("{id}", "1").into_bytes(),
            expect: "verified".into(),
            spare: false,
        };
        let request = Request {
            method: &vector.method,
            path: &vector.source.path,
            query: None,
            headers: &vector.headers,
            body: &vector.body,
        };
        let made = vector.recipe.sign(&request, vector.now).unwrap();
        for (name, value) in made {
            vector.headers.insert(name, value);
        }
        assert_eq!(vector.verdict(&vector.headers, &vector.body), "verified", "{}", vector.name);
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
