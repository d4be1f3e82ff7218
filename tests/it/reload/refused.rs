//! Reloads that are refused.

use super::open_to;
use crate::support::gateway::command;
use crate::support::{FakeApp, Gateway};

/// Whatever is wrong with the new one, the old one runs on, and somebody hears why.
#[tokio::test]
async fn a_rejected_reload_changes_nothing_and_says_where_and_what() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&open_to(&app.url())).await;
    let good = std::fs::read_to_string(gateway.config()).unwrap();
    let broken = good.replace("retry:", "retyr:").replace("to: [app]", "to: [ap]");
    gateway.write_whole(&broken);
    let refused = gateway.post("/api/v1/reload", "").await;
    assert_eq!(refused.status, 422);
    let problems = refused.json()["problems"].clone();
    let problem = |path: &str| problems.as_array().unwrap().iter().find(|one| one["path"] == path).cloned();
    let retry = problem("destinations.app.retyr").unwrap_or_else(|| panic!("{problems:#}"));
    assert_eq!(retry["file"], gateway.config().display().to_string());
    assert!(retry["line"].as_u64() > Some(1) && retry["message"].as_str().unwrap().contains("`retry`"), "{retry}");
    assert!(problem("sources.open.to[0]").is_some(), "all at once: {problems:#}");

    let ended = command().args(["reload", "--admin", &gateway.admin]).output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains("forebay.yaml:") && said.contains("`retry`") && said.contains("stays in force"), "{said}");
    gateway.signal("HUP").await;
    gateway.until_metric("forebay_config_reloads_total{outcome=\"rejected\"}", 3.0).await;
    let level = |part: &str| gateway.log().iter().find(|line| line.contains(part)).map(|line| line.contains("ERROR"));
    assert_eq!(level("destinations.app.retyr"), Some(true), "{:#?}", gateway.log());
    let refusals = gateway.log().iter().filter(|line| line.contains("stays in force")).cloned().collect::<Vec<_>>();
    assert!(refusals.iter().all(|line| line.contains("\"problems\":2")), "warnings are none: {refusals:#?}");
    assert_eq!(gateway.unsigned("/open", b"still there").await, 200);
    assert_eq!(gateway.get("/readyz").await.status, 200);
    app.until("it", |seen| seen.iter().any(|seen| seen.body == "still there")).await;

    gateway.write_whole(&good);
    assert_eq!(gateway.post("/api/v1/reload", "").await.status, 200, "and a mended one is taken");
}

/// What only a restart can change refuses the whole reload, by name.
#[tokio::test]
async fn what_cannot_change_at_run_time_is_refused_by_name() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&open_to(&app.url())).await;
    let good = std::fs::read_to_string(gateway.config()).unwrap();
    for (from, to, key) in [
        ("/data", "/elsewhere", "journal.dir"),
        ("format: json", "format: text", "log.format"),
        ("admin: { listen: 127.0.0.1:0 }", "admin: { listen: 127.0.0.2:0 }", "admin.listen"),
    ] {
        gateway.write_whole(&good.replace(from, to));
        let refused = gateway.post("/api/v1/reload", "").await;
        assert_eq!(refused.status, 422, "{key}");
        let problem = &refused.json()["problems"][0];
        assert_eq!(problem["path"], key);
        assert!(problem["message"].as_str().unwrap().contains("restart"), "{problem}");

        let compared = command().args(["diff", "--admin", &gateway.admin]).output().await.unwrap();
        let said = String::from_utf8_lossy(&compared.stdout);
        assert!(said.contains(&format!("\n{key}: cannot change")), "{said}");
        assert!(said.ends_with("`forebay reload` refuses this\n"), "{said}");
    }
}

/// Every kind of bad config there is a file of: the old one runs on, and no secret is said.
#[tokio::test]
async fn no_kind_of_bad_config_disturbs_a_running_gateway() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&open_to(&app.url())).await;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bad-configs");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect();
    assert!(files.len() >= 50, "{}", files.len());
    for file in &files {
        std::fs::copy(file, gateway.config()).unwrap();
        let refused = gateway.post("/api/v1/reload", "").await;
        assert_eq!(refused.status, 422, "{}: {}", file.display(), refused.text());
        let problems = refused.json()["problems"].clone();
        let is_error = |problem: &serde_json::Value| problem["severity"] == "error" && problem["message"] != "";
        assert!(problems.as_array().unwrap().iter().any(is_error), "{}: {problems:#}", file.display());
        assert!(!refused.text().contains("bad-config-canary"), "{}: {}", file.display(), refused.text());
        assert_eq!(gateway.unsigned("/open", file.to_string_lossy().as_bytes()).await, 200, "{}", file.display());
    }
    app.until("all", |_| app.event_ids().len() == files.len()).await;
    assert_eq!(gateway.metric("forebay_config_reloads_total{outcome=\"applied\"}").await, 0.0);
    assert!(!gateway.log().iter().any(|line| line.contains("bad-config-canary")));
}

/// One edit changes much, and the last that can fail does: a listener's address is taken. Nothing of it is in force.
#[tokio::test]
async fn a_reload_whose_last_step_fails_is_refused_whole() {
    let (app, elsewhere) = (FakeApp::start().await, FakeApp::start().await);
    let gateway = Gateway::start(&open_to(&app.url())).await;
    let good = std::fs::read_to_string(gateway.config()).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("{{ listen: [127.0.0.1:0, \"{}\"], health_path: /healthz }}", taken.local_addr().unwrap());
    let much = good
        .replacen("{ listen: 127.0.0.1:0 }", &listen, 1)
        .replace("admin: { listen: 127.0.0.1:0 }", "admin: { listen: 127.0.0.1:0, token: a-token-0123456789 }")
        .replace("level: debug", "level: error")
        .replace(&app.url(), &elsewhere.url())
        .replace("open: { verify: none,", "other: { verify: none, dedupe: off,");
    assert!(much.contains("token") && much.contains("other:") && much.contains("level: error"), "{much}");
    gateway.write_whole(&much);
    let refused = gateway.post("/api/v1/reload", "").await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert_eq!(refused.json()["problems"][0]["path"], "ingress.listen", "{}", refused.text());

    assert_eq!((gateway.unsigned("/open", b"as before").await, gateway.unsigned("/other", b"x").await), (200, 404));
    app.until("it", |seen| seen.iter().any(|seen| seen.body == "as before")).await;
    assert!(elsewhere.seen().is_empty());
    let probe = gateway.http.get(&format!("{}/healthz", gateway.ingress)).await;
    assert_eq!(probe.status, 404, "the rules of the public side are those of before");
    assert_eq!(gateway.get("/api/v1/sources").await.status, 200, "and so is who may ask");
    gateway.says("request refused").await; // the log's level, too: it is below `error`
    gateway.write_whole(&good);
    let compared = gateway.get("/api/v1/diff").await.json();
    assert_eq!(compared["changes"], serde_json::json!([]), "{compared:#}");
}
