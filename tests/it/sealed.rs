//! Encryption at rest, of the built binary: what is on the disk, and how keys come and go.

use std::path::Path;

use http::Method;
use serde_json::Value;

use crate::journals::contents;
use crate::support::app::status;
use crate::support::gateway::{command, head};
use crate::support::{FakeApp, Gateway};

const CANARIES: [&str; 6] = ["canaryPath", "canaryQuery", "canaryHeader", "canaryBody", "canaryAnswer", "canaryType"];

/// A source anybody may send to, with its type in a header, and one in proxy mode.
fn config(dir: &Path, app: &FakeApp, keys: &str) -> String {
    let head = head(dir).replace("max_size: 256MiB", &format!("max_size: 256MiB{keys}"));
    let preset = "verify: { token: { header: X-Token } }, event: { id: \"header:X-Id\", type: \"header:X-Type\" }";
    format!(
        "{head}providers:\n  own: {{ {preset} }}\nsources:\n  \
         store: {{ path: \"/store/{{key}}\", provider: own, secret: a-token-of-16-bytes, to: [app] }}\n  \
         proxy: {{ path: \"/proxy/{{key}}\", provider: own, secret: a-token-of-16-bytes, mode: proxy, to: [app] }}\n\
         destinations:\n  app: {{ url: {}, retry: {{ initial: 1ms, max: 1ms, max_attempts: 2 }} }}\n",
        app.url()
    )
}

fn key(dir: &Path, name: &str) {
    let key: [u8; 32] = std::array::from_fn(|at| name.as_bytes()[0].wrapping_mul(31).wrapping_add(at as u8 * 7));
    std::fs::write(dir.join(name), data_encoding::BASE64.encode(&key)).unwrap();
    std::fs::set_permissions(dir.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

async fn post(gateway: &Gateway, source: &str, id: &str) -> String {
    let headers = [
        ("x-token", "a-token-of-16-bytes"),
        ("x-id", id),
        ("x-type", "canaryType"),
        ("x-canaryheader", "canaryHeader"),
    ];
    let url = format!("{}/{source}/canaryPath?q=canaryQuery", gateway.ingress);
    let answer = gateway.http.send(Method::POST, &url, &headers, format!("canaryBody {id}").as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("forebay-event-id").unwrap().to_owned()
}

/// Files below `dir` with a canary in them, and which.
fn leaks(dir: &Path) -> Vec<String> {
    let mut leaks = Vec::new();
    for (path, bytes) in contents(dir) {
        for canary in CANARIES {
            if bytes.windows(canary.len()).any(|window| window.eq_ignore_ascii_case(canary.as_bytes())) {
                leaks.push(format!("{canary} in {}", path.display()));
            }
        }
    }
    leaks
}

async fn start(keys: &str) -> (FakeApp, Gateway) {
    let (app, dir) = (FakeApp::start().await, tempfile::tempdir().unwrap());
    app.behave(|seen| {
        let mut answer = status(if seen.header("x-id").starts_with("bad") { 500 } else { 200 });
        *answer.body_mut() = "canaryAnswer".into();
        Some(answer)
    });
    for name in ["first", "second"] {
        key(dir.path(), name);
    }
    std::fs::write(dir.path().join("forebay.yaml"), config(dir.path(), &app, keys)).unwrap();
    (app, Gateway::start_in(dir).await)
}

fn data(gateway: &Gateway) -> std::path::PathBuf {
    gateway.config().parent().unwrap().join("data")
}

/// Events that were delivered, gave up and were answered by the application; then everything that shows them.
async fn everything(gateway: &Gateway) -> Vec<String> {
    let ids =
        [post(gateway, "store", "1").await, post(gateway, "store", "bad").await, post(gateway, "proxy", "2").await];
    for (id, status) in ids.iter().zip(["delivered", "dead", "delivered"]) {
        gateway.event(id, status).await;
    }
    ids.to_vec()
}

async fn shows(gateway: &Gateway, ids: &[String]) {
    for id in ids {
        let event = gateway.get(&format!("/api/v1/events/{id}")).await.text();
        for canary in CANARIES.iter().filter(|canary| !canary.contains("Body")) {
            assert!(event.contains(canary), "{canary} is not shown of {id}: {event}");
        }
        assert!(gateway.get(&format!("/api/v1/events/{id}/body")).await.text().starts_with("canaryBody"));
    }
    let count = async |filter: &str| {
        let page = gateway.get(&format!("/api/v1/events?{filter}")).await.json();
        page["items"].as_array().unwrap().len()
    };
    assert_eq!(count("type=canaryType").await, ids.len());
    assert_eq!((count("type=other").await, count("q=anaryTYP").await), (0, ids.len()));
    assert_eq!((count("q=canaryPath").await, count("q=nowhere").await), (ids.len(), 0));
}

#[tokio::test]
async fn what_senders_and_the_application_wrote_is_in_no_file_and_still_shown_and_searched() {
    let (_app, gateway) = start(", encryption_key: { file: first }").await;
    let ids = everything(&gateway).await;
    shows(&gateway, &ids).await;
    assert_eq!(leaks(&data(&gateway)), [""; 0], "while it runs");
    let (code, dir) = gateway.terminate().await;
    assert_eq!((code, leaks(&dir.path().join("data"))), (0, vec![]), "and after");
    let gateway = Gateway::start_in(dir).await;
    shows(&gateway, &ids).await;

    let (_app, gateway) = start("").await;
    everything(&gateway).await;
    let found = leaks(&data(&gateway));
    let seen = CANARIES.iter().filter(|canary| found.iter().any(|leak| leak.starts_with(*canary))).count();
    assert_eq!(seen, CANARIES.len(), "without a key all of it is there, so the test can see it");
}

#[tokio::test]
async fn a_journal_that_was_clear_is_sealed_from_then_on_and_its_index_at_once() {
    let (app, gateway) = start("").await;
    let mut ids = everything(&gateway).await;
    let text = config(gateway.config().parent().unwrap(), &app, ", encryption_key: { file: first }");
    std::fs::write(gateway.config(), text).unwrap();
    gateway.signal("HUP").await;
    gateway.until_metric("forebay_config_reloads_total{outcome=\"applied\"}", 1.0).await;
    gateway.says("the index is rebuilt from the journal").await;
    ids.push(post(&gateway, "store", "3").await);
    gateway.event(&ids[3], "delivered").await;
    shows(&gateway, &ids).await;
    let found = leaks(&data(&gateway));
    assert!(!found.is_empty() && found.iter().all(|leak| leak.ends_with("log/00000001.log")), "{found:#?}");
}

#[tokio::test]
async fn a_key_is_rotated_by_a_reload_and_an_old_one_may_go_once_doctor_says_so() {
    let (app, gateway) = start(", encryption_key: { file: first }").await;
    let mut ids = everything(&gateway).await;
    let reload = async |keys: &str| {
        std::fs::write(gateway.config(), config(gateway.config().parent().unwrap(), &app, keys)).unwrap();
        gateway.post("/api/v1/reload", "").await
    };
    let refused = reload(", encryption_key: { file: second }").await;
    let problem = refused.json()["problems"][0].clone();
    assert_eq!((refused.status, problem["path"].as_str()), (422, Some("journal.encryption_key")), "{problem}");
    let said = problem["message"].as_str().unwrap();
    assert!(said.contains("1 segment,") && said.contains("behind the one that seals"), "{said}");
    let needed = said.split("sealed with: ").nth(1).unwrap()[..16].to_owned();

    assert_eq!(reload(", encryption_key: [{ file: second }, { file: first }]").await.status, 200);
    ids.push(post(&gateway, "store", "4").await);
    gateway.event(&ids[3], "delivered").await;
    shows(&gateway, &ids).await;
    let keys = async || {
        let ended = command().args(["doctor", "--json", "-c"]).arg(gateway.config()).output().await.unwrap();
        let report: Value = serde_json::from_slice(&ended.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap().clone();
        let line = checks.into_iter().find(|check| check["what"] == "journal keys").unwrap();
        line["detail"].as_str().unwrap().to_owned()
    };
    let said = keys().await;
    assert!(said.contains("seals") && said.contains(&format!("{needed} (1 segment,")), "{said}");
    assert_eq!(leaks(&data(&gateway)), [""; 0]);

    let (code, dir) = gateway.terminate().await;
    assert_eq!(code, 0);
    let config_file = dir.path().join("forebay.yaml");
    std::fs::write(&config_file, config(dir.path(), &app, ", encryption_key: { file: second }")).unwrap();
    let before = contents(dir.path());
    let ended = command().args(["serve", "-c"]).arg(&config_file).output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains(&needed) && said.contains("1 segment,") && said.contains("{ file: old.key }"), "{said}");
    assert_eq!(contents(dir.path()), before, "nothing was touched");

    std::fs::write(
        &config_file,
        config(dir.path(), &app, ", encryption_key: [off, { file: first }, { file: second }]"),
    )
    .unwrap();
    let gateway = Gateway::start_in(dir).await;
    shows(&gateway, &ids).await;
}
