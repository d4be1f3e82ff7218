//! Journals of every released format (`tests/data/journals`): all that is in them is found again, recognised and delivered.

use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use http::Method;
use serde_json::Value;

use crate::support::http::Answer;
use crate::support::{FakeApp, Gateway, sign_with};

const SECRET: &str = "golden-secret-of-32-characters!!";
const SOURCES: [(&str, &str); 8] = [
    ("good", "to: [good]"),
    ("both", "to: [good, dead]"),
    ("dead", "to: [dead]"),
    ("signed", "to: [good]"),
    ("paused", "to: [paused]"),
    ("captured", "to: []"),
    ("proxy", "mode: proxy, to: [good]"),
    ("refused", "mode: proxy, to: [refused]"),
];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/journals").join(name)
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The config that the journal was made with.
fn config(dir: &Path, app: &FakeApp, key: &str) -> String {
    let source = |(name, more): &(&str, &str)| {
        let provider = if *name == "signed" { "acme-json" } else { "acme" };
        let dedupe = "dedupe: { window: 36500d }";
        format!("  {name}: {{ path: /{name}, provider: {provider}, secret: {SECRET}, {dedupe}, {more} }}\n")
    };
    let destination = |name: &str| format!("  {name}: {{ url: {}/{name}, retry: {{ max_age: 36500d }} }}\n", app.url());
    let preset = |name: &str, id: &str| {
        format!(
            "  {name}:\n    verify: {{ hmac: {{ hash: sha256, signature: {{ header: X-Sig, prefix: \"sha256=\", encoding: hex }} }} }}\n    \
             event: {{ id: \"{id}\", type: \"header:X-Type\" }}\n"
        )
    };
    format!(
        "ingress: {{ listen: 127.0.0.1:0 }}\nadmin: {{ listen: 127.0.0.1:0 }}\nlog: {{ format: json }}\n\
         journal: {{ dir: {}, max_size: 4MiB, retention: {{ delivered: 36500d, dead: 36500d }}{key} }}\n\
         providers:\n{}{}sources:\n{}destinations:\n{}",
        dir.join("data").display(),
        preset("acme", "header:X-Id"),
        preset("acme-json", "json:/id"),
        SOURCES.iter().map(source).collect::<String>(),
        ["good", "dead", "paused", "refused"].map(destination).concat(),
    )
}

/// Sends what the event `item` once was again.
async fn again(gateway: &Gateway, source: &str, id: &str, body: &[u8]) -> Answer {
    let signature = sign_with(SECRET, body);
    let headers = [("x-sig", signature.as_str()), ("x-id", id), ("content-type", "application/json")];
    gateway.http.send(Method::POST, &format!("{}/{source}", gateway.ingress), &headers, body).await
}

fn is_duplicate_of(answer: &Answer, id: &Value) {
    let said = (answer.header("forebay-event-id"), answer.header("forebay-duplicate"));
    assert_eq!(said, (id.as_str(), Some("true")), "{}", answer.text());
}

async fn is_whole(gateway: &Gateway, expected: &Value, status: impl Fn(&str) -> &'static str, sent: u64) {
    for item in expected["items"].as_array().unwrap() {
        let id = item["id"].as_str().unwrap();
        let (was, is) = (item["status"].as_str().unwrap(), status(item["status"].as_str().unwrap()));
        let found = gateway.event(id, is).await;
        for key in ["source", "type", "provider_event_id", "path", "query", "size_bytes", "received_at", "headers"] {
            assert_eq!(found[key], item[key], "{key} of {id}");
        }
        let resent = if item["source"] == "refused" { 0 } else { sent };
        assert_eq!(found["duplicates"], item["duplicates"].as_u64().unwrap() + resent, "{id}");
        if was == is {
            assert_eq!(found["deliveries"], item["deliveries"], "{id}");
        }
        let body = gateway.get(&format!("/api/v1/events/{id}/body")).await;
        assert_eq!(body.body, BASE64.decode(item["body_base64"].as_str().unwrap().as_bytes()).unwrap(), "{id}");
    }
}

async fn is_found_recognised_and_delivered(format: &str, key: &str) {
    let expected: Value =
        serde_json::from_str(&std::fs::read_to_string(data(format).join("expected.json")).unwrap()).unwrap();
    let items = expected["items"].as_array().unwrap();
    let of = |status: &str| items.iter().filter(|item| item["status"] == status).count();
    assert_eq!(["delivered", "dead", "pending", "captured", "refused_by_app"].map(of), [15, 6, 4, 4, 4], "{format}");

    let (app, dir) = (FakeApp::start().await, tempfile::tempdir().unwrap());
    copy(&data(format).join("journal"), &dir.path().join("data"));
    std::fs::copy(data("journal.key"), dir.path().join("journal.key")).unwrap();
    std::fs::write(dir.path().join("forebay.yaml"), config(dir.path(), &app, key)).unwrap();
    let gateway = Gateway::start_in(dir).await;
    let as_it_was = |status: &str| match status {
        "delivered" => "delivered",
        "dead" => "dead",
        "pending" => "pending",
        "captured" => "captured",
        _ => "refused_by_app",
    };
    is_whole(&gateway, &expected, as_it_was, 0).await;
    assert!(app.seen().is_empty(), "what was delivered is, and what is paused waits");

    for item in items.iter().filter(|item| item["source"] != "refused") {
        let body = BASE64.decode(item["body_base64"].as_str().unwrap().as_bytes()).unwrap();
        let (source, id) = (item["source"].as_str().unwrap(), item["provider_event_id"].as_str().unwrap());
        let answer = again(&gateway, source, id, &body).await;
        is_duplicate_of(&answer, &item["id"]);
        if source == "proxy" {
            assert_eq!(answer.text(), "answer of /good", "what the application said then");
        }
    }
    for (number, id) in expected["gone"].as_array().unwrap().iter().enumerate() {
        let answer = again(&gateway, "captured", &format!("captured-{number}"), &[0; 60_000]).await;
        is_duplicate_of(&answer, id);
    }

    assert!(gateway.post("/api/v1/destinations/paused/resume", "").await.status < 300);
    // A duplicate of a dead letter has it tried again.
    let delivered = |status: &str| if matches!(status, "pending" | "dead") { "delivered" } else { as_it_was(status) };
    is_whole(&gateway, &expected, delivered, 1).await;
    for item in items.iter().filter(|item| item["source"] == "paused") {
        let seen = app.seen();
        let got: Vec<_> = seen.iter().filter(|seen| item["id"] == seen.header("forebay-event-id")).collect();
        let body = BASE64.decode(item["body_base64"].as_str().unwrap().as_bytes()).unwrap();
        assert!(got.len() == 1 && got[0].body == body && got[0].header("x-of") == "golden", "{item}");
    }
    let (code, dir) = gateway.terminate().await;
    assert_eq!(code, 0);
    is_whole(&Gateway::start_in(dir).await, &expected, delivered, 1).await;
}

#[tokio::test]
async fn a_journal_of_format_2_is_found_whole_recognised_and_delivered() {
    is_found_recognised_and_delivered("format-2", "").await;
}

#[tokio::test]
async fn a_journal_of_format_2_is_so_by_a_gateway_that_seals_as_well() {
    is_found_recognised_and_delivered("format-2", ", encryption_key: { file: journal.key }").await;
}

#[tokio::test]
async fn a_journal_of_format_3_is_found_whole_recognised_and_delivered() {
    is_found_recognised_and_delivered("format-3", ", encryption_key: { file: journal.key }").await;
}

/// Everything in the directory stays as it is, to the byte, and the gateway says what it met.
#[tokio::test]
async fn a_journal_of_a_later_version_is_refused_and_left_as_it_is() {
    let (app, dir) = (FakeApp::start().await, tempfile::tempdir().unwrap());
    copy(&data("format-3").join("journal"), &dir.path().join("data"));
    let newest =
        std::fs::read_dir(dir.path().join("data/log")).unwrap().map(|file| file.unwrap().path()).max().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    bytes[8] = 4;
    let sum = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(newest, bytes).unwrap();
    std::fs::write(dir.path().join("forebay.yaml"), config(dir.path(), &app, "")).unwrap();
    let before = contents(dir.path());
    let mut command = crate::support::gateway::command();
    let ended = command.args(["serve", "-c"]).arg(dir.path().join("forebay.yaml")).output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("has format 4") && said.contains("run the version that wrote it"), "{said}");
    assert_eq!(contents(dir.path()), before);
}

/// Every file below `dir`, and what is in it.
pub fn contents(dir: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut all = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(contents(&path).into_iter().chain([(path, Vec::new())])),
            false => drop(all.insert(path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    all
}
