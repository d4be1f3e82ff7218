//! The commands, as a person or a script uses them.

use std::process::Output;

use serde_json::Value;

use crate::support::gateway::{command, github_to};
use crate::support::{FakeApp, Gateway, SECRET};

async fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().await.unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_config_with_ten_mistakes_gets_ten_located_messages() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.yaml");
    let config = "\
ingress:
  listn: 127.0.0.1:8080
admin:
  listen: 0.0.0.0:9090
journal:
  max_size: 10
sources:
  github:
    provider: githb
    secret: 0123456789abcdef
    to: [ap]
  stripe:
    path: stripe
    provider: stripe
    secret: ${NOT_SET_ANYWHERE}
    tolerance: soon
    to: [app]
  open:
    to: []
destinations:
  app:
    url: localhost:3000
    concurrency: many
    retry: { initial: 1s, maximum: 5m }
";
    std::fs::write(&file, config).unwrap();
    let checked = run(&["check", file.to_str().unwrap()]).await;
    assert_eq!(checked.status.code(), Some(2));
    let said = out(&checked);
    for (place, words) in [
        ("2:3", &["ingress.listn", "listen"][..]),
        ("4:11", &["admin.listen", "token"]),
        ("6:13", &["journal.max_size", "`10`", "MiB"]),
        ("9:15", &["sources.github.provider", "github"]),
        ("11:10", &["sources.github.to", "app"]),
        ("13:11", &["sources.stripe.path", "/"]),
        ("15:13", &["sources.stripe.secret", "NOT_SET_ANYWHERE"]),
        ("16:16", &["sources.stripe.tolerance", "soon"]),
        ("18:3", &["sources.open", "verify: none"]),
        ("22:10", &["destinations.app.url", "http://"]),
        ("23:18", &["destinations.app.concurrency", "many"]),
        ("24:27", &["destinations.app.retry.maximum", "max"]),
    ] {
        let line = said.lines().find(|line| line.contains(&format!("wrong.yaml:{place}:")));
        let line = line.unwrap_or_else(|| panic!("nothing at {place} in\n{said}"));
        assert!(words.iter().all(|word| line.contains(word)), "{place}: {line}");
    }
    assert!(!said.contains("0123456789abcdef"));
    let json: Value = serde_json::from_slice(&run(&["check", file.to_str().unwrap(), "--json"]).await.stdout).unwrap();
    assert!(json["problems"].as_array().unwrap().len() >= 12);

    let served = run(&["serve", "-c", file.to_str().unwrap()]).await;
    assert_eq!(served.status.code(), Some(2));
    assert!(err(&served).contains("wrong.yaml:2:3:"), "serve says the same");
}

#[tokio::test]
async fn a_first_config_can_be_written_and_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new/forebay.yaml");
    let path = file.to_str().unwrap();
    assert!(run(&["init", path]).await.status.success());
    assert!(run(&["check", path]).await.status.success());
    let again = run(&["init", path]).await;
    assert_eq!(again.status.code(), Some(2));
    assert!(err(&again).contains("left alone"));
}

#[tokio::test]
async fn the_schema_and_the_presets_are_shown() {
    let schema: Value = serde_json::from_slice(&run(&["schema"]).await.stdout).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    assert!(out(&run(&["schema", "--defaults"]).await).contains("in_flight_bytes: 64MiB"));
    let listed = out(&run(&["providers", "list"]).await);
    for name in ["github", "gitlab", "stripe", "slack", "shopify", "standard-webhooks"] {
        assert!(listed.contains(name), "{name}");
        assert!(run(&["providers", "show", name]).await.status.success());
    }
    let unknown = run(&["providers", "show", "githb"]).await;
    assert_eq!(unknown.status.code(), Some(2));
    assert!((out(&unknown) + &err(&unknown)).contains("github"), "the nearest is named");
}

#[tokio::test]
async fn the_configs_own_presets_are_shown_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("forebay.yaml");
    let path = file.to_str().unwrap();
    let own = "{ verify: { token: { header: X-Token } } }";
    let source = "sources: { a: { provider: acme, secret: \"${NOT_SET_ANYWHERE}\", to: [] } }";
    std::fs::write(&file, format!("providers: {{ acme: {own}, slack: {own} }}\n{source}\n")).unwrap();
    let listed = out(&run(&["providers", "list", "-c", path]).await);
    assert!(listed.contains("acme") && listed.contains("github"), "{listed}");
    assert_eq!(
        listed.lines().filter(|line| line.trim_start().starts_with("slack ")).count(),
        1,
        "replaced, not doubled: {listed}"
    );
    let shown = out(&run(&["providers", "show", "slack", "-c", path]).await);
    assert!(shown.contains("of your own") && shown.contains("Scheme: token"), "{shown}");
    std::fs::write(&file, "providers: [\n").unwrap();
    let listed = run(&["providers", "list", "-c", path]).await;
    assert!(out(&listed).contains("github") && err(&listed).contains("only built-in"), "{}", err(&listed));
}

#[tokio::test]
async fn every_presets_sample_can_be_sent_and_is_verified() {
    let app = FakeApp::start().await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"; // suits those that decode it and those that do not
    let names = ["github", "gitlab", "gitlab-signing-token", "stripe", "slack", "shopify", "standard-webhooks"];
    let sources: String =
        names.iter().map(|name| format!("  {name}: {{ provider: {name}, secret: {secret}, to: [app] }}\n")).collect();
    let gateway = Gateway::start(&format!("sources:\n{sources}destinations:\n  app: {{ url: {} }}\n", app.url())).await;
    for name in names {
        let to = format!("{}/{name}", gateway.ingress);
        let sent = run(&["send", name, "--to", &to, "--secret", secret]).await;
        assert!(sent.status.success(), "{name}: {}{}", out(&sent), err(&sent));
        assert!(out(&sent).contains("evt_"), "{name}, also where the answer has no body: {}", out(&sent));
        let forged = run(&["send", name, "--to", &to, "--secret", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]).await;
        assert_eq!(forged.status.code(), Some(1), "{name}");
        assert!((out(&forged) + &err(&forged)).contains("401"), "{name}");
    }
    app.until("one of each", |seen| seen.len() == names.len()).await;
}

#[tokio::test]
async fn a_given_secret_takes_the_place_of_the_configs() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&github_to(&app.url())).await;
    let config = gateway.config().display().to_string();
    let to = format!("{}/webhooks/github", gateway.ingress);
    // Another terminal, where the source's variable is not set: with the address of the running gateway in the config.
    let dir = tempfile::tempdir().unwrap();
    let listening = dir.path().join("forebay.yaml");
    let address = gateway.ingress.trim_start_matches("http://");
    std::fs::write(&listening, format!("ingress: {{ listen: {address} }}\n{}", github_to(&app.url()))).unwrap();
    let broken = dir.path().join("broken.yaml");
    std::fs::write(&broken, "sources: [\n").unwrap();
    let send = async |config: &str, more: &[&str]| {
        command().env_remove("GITHUB_WEBHOOK_SECRET").args(["send", "github", "-c", config]).args(more).output().await
    };
    let listening = listening.to_str().unwrap();
    let without = send(listening, &[]).await.unwrap();
    assert_eq!(without.status.code(), Some(2));
    let said = err(&without);
    assert!(
        said.contains("export GITHUB_WEBHOOK_SECRET=") && !said.contains(":-") && !said.contains("started"),
        "{said}"
    );
    for (config, more) in [
        (listening, &["--secret", SECRET][..]),
        (&config, &["--secret", SECRET, "--to", &to]),
        (broken.to_str().unwrap(), &["--secret", SECRET, "--to", &to]),
    ] {
        let sent = send(config, more).await.unwrap();
        assert!(sent.status.success(), "{more:?}: {}{}", out(&sent), err(&sent));
    }
    app.until("each of them", |seen| seen.len() == 3).await;
}

#[tokio::test]
async fn what_cannot_be_sent_as_asked_is_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("forebay.yaml");
    let sources = "{ one: { provider: github, secret: 0123456789abcdef, to: [] }, \
                   two: { provider: github, secret: 0123456789abcdef, to: [] } }";
    std::fs::write(&file, format!("sources: {sources}\n")).unwrap();
    let file = file.to_str().unwrap();
    for (arguments, said) in [
        (&["send", "githb", "-c", file, "--to", "http://127.0.0.1:1/", "--secret", "x"][..], "no provider is called"),
        (&["send", "github", "-c", file], "choose one with --source"),
        (&["send", "github", "-c", file, "--source", "three"], "no source `three`"),
        (&["send", "github", "-c", file, "--source", "one", "--body", "/nowhere"], "cannot be read"),
    ] {
        let sent = run(arguments).await;
        assert_eq!(sent.status.code(), Some(2), "{arguments:?}");
        assert!(err(&sent).contains(said), "{}", err(&sent));
    }
}

#[tokio::test]
async fn a_missing_config_is_hinted_at_where_one_is_needed() {
    let (hint, started) = ("`forebay init /nowhere/x.yaml`", "nothing was started");
    for (command, wanted) in [("serve", [true, true]), ("check", [true, false]), ("send github", [false, false])] {
        let words: Vec<_> = command.split(' ').chain(["-c", "/nowhere/x.yaml"]).collect();
        let ended = run(&words).await;
        assert_eq!(ended.status.code(), Some(2), "{command}");
        assert_eq!([hint, started].map(|words| err(&ended).contains(words)), wanted, "{command}: {}", err(&ended));
    }
}

#[tokio::test]
async fn events_are_listed_shown_and_replayed() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&github_to(&app.url())).await;
    let id = gateway.github("1", b"{\"a\":1}").await.header("forebay-event-id").unwrap().to_owned();
    gateway.event(&id, "delivered").await;
    let ask = async |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend_from_slice(&["--admin", &gateway.admin]);
        run(&all).await
    };
    let listed = out(&ask(&["events", "list"]).await);
    assert!(listed.contains(&id) && listed.contains("delivered"), "{listed}");
    let json: Value = serde_json::from_slice(&ask(&["events", "list", "--json"]).await.stdout).unwrap();
    assert!(json.to_string().contains(&id));
    let shown = out(&ask(&["events", "show", &id]).await);
    assert!(shown.contains("x-github-delivery") && shown.contains("200"), "{shown}");
    let replayed = ask(&["events", "replay", &id]).await;
    assert!(replayed.status.success(), "{}", err(&replayed));
    app.until("the replay", |seen| seen.len() == 2).await;
    assert_eq!(app.seen()[1].header("forebay-attempt-reason"), "replay");
    let unknown = ask(&["events", "show", "evt_00000000000000000000000000000000"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(out(&ask(&["events", "show", &id]).await).find(SECRET).is_none());
}

#[tokio::test]
async fn a_command_that_finds_no_gateway_says_so() {
    let nobody = FakeApp::down();
    let asked = run(&["events", "list", "--admin", &nobody.url()]).await;
    assert_eq!(asked.status.code(), Some(1));
    assert!(err(&asked).contains("is the gateway running?"), "{}", err(&asked));
}
