//! Every built-in preset, over the wire: what a provider signs is kept, what is one byte off is not, and each
//! handshake gets its exact answer. The requests are those of tests/data/.

use std::collections::BTreeMap;
use std::path::Path;

use data_encoding::BASE64;
use http::Method;
use serde_json::{Map, Value, json};

use crate::support::http::Answer;
use crate::support::{FakeApp, Gateway};

/// One line of a data file, as the source `name` with a host of its own gets it.
#[derive(Clone)]
struct Line {
    name: String,
    provider: String,
    case: String,
    config: Value,
    method: Method,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    said: Value,
}

/// The lines of `tests/data/KIND` whose provider is built in.
fn lines(kind: &str) -> Vec<Line> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(kind);
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    let texts = files.iter().map(|path| std::fs::read_to_string(path).unwrap());
    let all: Vec<Value> = texts
        .flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>())
        .collect();
    let built_in = all.into_iter().filter(|said| said["provider"].is_string());
    built_in.enumerate().map(|(number, said)| line(number, said)).collect()
}

fn line(number: usize, said: Value) -> Line {
    let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
    let name = format!("line-{number}");
    let path = said["path"].as_str().unwrap_or("/hook").to_owned();
    let mut config = Map::new();
    config.insert("provider".into(), said["provider"].clone());
    config.insert("host".into(), format!("{name}.test").into());
    config.insert("path".into(), path.clone().into());
    let secret = if said["secrets"].is_null() { &said["secret"] } else { &said["secrets"] };
    config.insert("secret".into(), secret.clone());
    if let Some(url) = said["public_url"].as_str() {
        config.insert("public_url".into(), url.into());
    }
    let headers = said["headers"].as_object().unwrap().iter();
    let mut headers: Vec<_> = headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
    headers.push(("host".into(), format!("{name}.test")));
    Line {
        provider: text("provider"),
        case: text("case"),
        config: config.into(),
        method: text("method").parse().unwrap(),
        target: said["query"].as_str().map_or(path.clone(), |query| format!("{path}?{query}")),
        headers,
        body: BASE64.decode(text("body_base64").as_bytes()).unwrap(),
        name,
        said,
    }
}

impl Line {
    fn label(&self) -> String {
        format!("{}: {}", self.provider, self.case)
    }

    async fn send(&self, gateway: &Gateway) -> Answer {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let url = format!("{}{}", gateway.ingress, self.target);
        gateway.http.send(self.method.clone(), &url, &headers, &self.body).await
    }

    /// The same request with one byte changed of what proves it: of the secret, where the request carries it as it is, or of
    /// the body.
    fn one_byte_off(&self) -> Self {
        let mut line = self.clone();
        let secret = self.said["secret"].as_str().unwrap_or("no such text");
        let last = if secret.ends_with('0') { "1" } else { "0" };
        let other = format!("{}{last}", &secret[..secret.len() - 1]);
        let body = String::from_utf8_lossy(&self.body).into_owned();
        if let Some((_, value)) = line.headers.iter_mut().find(|(_, value)| value.contains(secret)) {
            *value = value.replace(secret, &other);
        } else if line.target.contains(secret) {
            line.target = line.target.replace(secret, &other);
        } else if body.contains(secret) {
            line.body = body.replacen(secret, &other, 1).into_bytes();
        } else if let Some(first) = line.body.first_mut() {
            *first ^= 1;
        } else {
            line.body.push(b'\n');
        }
        line
    }
}

/// A gateway with a source for each of `lines`. The requests are of other days: no time is too old here.
async fn gateway(lines: &[Line], to: &Value, rest: &str) -> Gateway {
    let timed = timed();
    let source = |line: &Line| {
        let mut config = line.config.clone();
        config["to"] = to.clone();
        if timed.contains(&line.provider) {
            config["tolerance"] = "off".into();
        }
        (line.name.clone(), config)
    };
    let sources: BTreeMap<_, _> = lines.iter().map(source).collect();
    Gateway::start(&format!("sources: {}\n{rest}", json!(sources))).await
}

/// The presets that sign a time.
fn timed() -> Vec<String> {
    let presets = forebay::config::presets::built_in().unwrap();
    let timed = presets.into_iter().filter(|preset| format!("{:?}", preset.verify).contains("timestamp: Some"));
    timed.map(|preset| preset.name.as_str().to_owned()).collect()
}

#[tokio::test]
async fn what_a_provider_signs_is_kept_and_what_is_one_byte_off_is_not() {
    let mut genuine = lines("providers");
    genuine.retain(|line| line.said["expect"] == "verified");
    let gateway = gateway(&genuine, &json!([]), "").await;
    for line in &genuine {
        assert_eq!(line.one_byte_off().send(&gateway).await.status, 401, "{}", line.label());
    }
    assert_eq!(gateway.get("/api/v1/events").await.json()["items"], json!([]), "nothing unverified is kept");
    for line in &genuine {
        let answer = line.send(&gateway).await;
        assert!((200..300).contains(&answer.status), "{}: {} {}", line.label(), answer.status, answer.text());
        let id = answer.header("forebay-event-id").unwrap_or_else(|| panic!("{}: not kept", line.label()));
        let event = gateway.event(id, "captured").await;
        assert_eq!(
            (&event["source"], &event["provider"]),
            (&json!(line.name), &json!(line.provider)),
            "{}",
            line.label()
        );
    }
}

/// What is sent again, perhaps signed anew, is one event; and what is the same bytes need not be.
#[tokio::test]
async fn what_a_provider_sends_again_is_a_duplicate() {
    let lines = lines("providers");
    let gateway = gateway(&lines, &json!([]), "").await;
    let mut original: Option<(&Line, Answer)> = None;
    let mut compared = 0;
    for line in lines.iter().filter(|line| line.said["expect"] == "verified") {
        let Some(again) = line.said["again"].as_bool() else {
            original = Some((line, line.send(&gateway).await));
            continue;
        };
        let (first, first_answer) = original.as_ref().unwrap();
        let label = format!("{} after {}", line.label(), first.label());
        assert_eq!(line.provider, first.provider, "{label}");
        let mut line = line.clone();
        line.headers.retain(|(name, _)| name != "host");
        line.headers.push(("host".into(), format!("{}.test", first.name)));
        let answer = line.send(&gateway).await;
        assert_eq!(answer.status, first_answer.status, "{label}");
        assert_eq!(answer.header("forebay-duplicate") == Some("true"), again, "{label}");
        let same = answer.header("forebay-event-id") == first_answer.header("forebay-event-id");
        assert_eq!(same, again, "{label}");
        compared += 1;
    }
    assert!(compared >= 15, "{compared} were compared");
}

#[tokio::test]
async fn what_a_provider_would_not_sign_is_refused() {
    let mut refused = lines("providers");
    refused.retain(|line| {
        let expect = line.said["expect"].as_str().unwrap_or_default();
        expect != "verified" && !expect.ends_with("_timestamp") // no time is too old here
    });
    let gateway = gateway(&refused, &json!([]), "").await;
    for line in &refused {
        assert_eq!(line.send(&gateway).await.status, 401, "{}", line.label());
    }
    assert_eq!(gateway.get("/api/v1/events").await.json()["items"], json!([]));
}

#[tokio::test]
async fn each_handshake_gets_its_exact_answer_while_the_application_is_down() {
    let lines = lines("handshakes");
    let app = FakeApp::down();
    let gateway =
        gateway(&lines, &json!(["app"]), &format!("destinations: {{ app: {{ url: {} }} }}\n", app.url())).await;
    for line in &lines {
        let answer = line.send(&gateway).await;
        let label = line.label();
        let wanted = &line.said["answer"];
        assert_eq!(json!(answer.status), wanted["status"], "{label}: {}", answer.text());
        for (name, value) in wanted["headers"].as_object().into_iter().flatten() {
            let got = answer.header(name).unwrap_or_else(|| panic!("{label}: no {name}"));
            let type_alone = got.split(';').next().unwrap_or_default();
            assert_eq!(json!(if name == "content-type" { type_alone } else { got }), *value, "{label}: {name}");
        }
        match &wanted["body"] {
            Value::Null => {}
            Value::String(text) => assert_eq!(answer.text(), *text, "{label}"),
            json => assert_eq!(answer.json(), *json, "{label}"),
        }
        assert_eq!(answer.header("forebay-event-id"), None, "{label}");
    }
    assert_eq!(gateway.get("/api/v1/events").await.json()["items"], json!([]), "no handshake is kept");
    assert!(app.seen().is_empty());
}

/// A pong is the same bytes as the documentation's, since some senders compare.
#[tokio::test]
async fn a_pong_is_as_documented_to_the_byte() {
    let mut lines = lines("handshakes");
    lines.retain(|line| line.label() == "discord: ping");
    let gateway = gateway(&lines, &json!([]), "").await;
    assert_eq!(lines[0].send(&gateway).await.text(), r#"{"type":1}"#);
}
