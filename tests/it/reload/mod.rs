//! The config, read again while the gateway runs.

mod along;
mod ingress;
mod refused;

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::gateway::{PATIENCE, command, github_to, head};
use crate::support::{FakeApp, Gateway, SECRET, sign, sign_with};

impl Gateway {
    /// Writes [`head`] and `rest` as its config, whole at once.
    fn rewrite(&self, rest: &str) {
        let dir = self.config().parent().unwrap().to_owned();
        self.write_whole(&format!("{}{rest}", head(&dir)));
    }

    fn write_whole(&self, text: &str) {
        let new = self.config().with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.config()).unwrap();
    }

    /// Puts [`head`] and `rest` in force, by the API.
    async fn reload(&self, rest: &str) -> Value {
        self.rewrite(rest);
        let answer = self.post("/api/v1/reload", "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// A post to `path` that nobody signed.
    async fn unsigned(&self, path: &str, body: &[u8]) -> u16 {
        self.http.send(Method::POST, &format!("{}{path}", self.ingress), &[], body).await.status
    }
}

fn open_to(app: &str) -> String {
    format!(
        "sources:\n  open: {{ verify: none, to: [app] }}\ndestinations:\n  app: {{ url: {app}, retry: {{ initial: 20ms, max: 100ms }}, breaker: {{ failures: 1000, cooldown: 20ms }} }}\n"
    )
}

/// Every way to say it: SIGHUP, the API, the command, and the file itself.
#[tokio::test]
async fn a_source_appears_by_signal_api_command_and_by_itself() {
    let app = FakeApp::start().await;
    let config = |sources: &[&str]| {
        let sources: String = sources.iter().map(|name| format!("  {name}: {{ verify: none, to: [app] }}\n")).collect();
        format!("sources:\n{sources}destinations:\n  app: {{ url: {} }}\n", app.url())
    };
    let gateway = Gateway::start(&config(&["a"])).await;
    assert_eq!(gateway.unsigned("/b", b"1").await, 404);

    gateway.rewrite(&config(&["a", "b"]));
    let run = async |what: &str| {
        let ended = command().args([what, "--admin", &gateway.admin]).output().await.unwrap();
        (ended.status.code().unwrap(), String::from_utf8(ended.stdout).unwrap())
    };
    let (code, said) = run("diff").await;
    assert!(code == 0 && said.contains("+ source b") && said.contains("`forebay reload`"), "{said}");
    let (code, said) = run("reload").await;
    assert!(code == 0 && said.contains("+ source b") && said.contains("reloaded; "), "{said}");
    assert_eq!(gateway.unsigned("/b", b"2").await, 200);
    let (code, said) = run("diff").await;
    assert!(code == 0 && said.ends_with("the gateway goes by what the file says\n"), "{said}");

    let reloaded = gateway.reload(&config(&["a", "c"])).await;
    assert_eq!(reloaded["applied"], true);
    let what: Vec<_> = reloaded["changes"].as_array().unwrap().iter().map(|change| &change["change"]).collect();
    assert!(what.contains(&&json!("added")) && what.contains(&&json!("removed")), "{reloaded:#}");
    assert_eq!((gateway.unsigned("/b", b"3").await, gateway.unsigned("/c", b"4").await), (404, 200));

    gateway.rewrite(&config(&["a", "d"]));
    gateway.signal("HUP").await;
    gateway.until_status("/d", 200).await;

    gateway.rewrite(&config(&["a", "e"])); // and nobody says a word
    gateway.until_status("/e", 200).await;
    assert_eq!(gateway.unsigned("/d", b"5").await, 404);
}

impl Gateway {
    async fn until_status(&self, path: &str, wanted: u16) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let status = self.unsigned(path, b"x").await;
            if status == wanted {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{path} is still {status}");
            tokio::task::yield_now().await;
        }
    }
}

/// A connection on which one request follows the other.
struct KeepAlive(TcpStream);

impl KeepAlive {
    async fn open(gateway: &Gateway) -> Self {
        Self(TcpStream::connect(gateway.ingress.strip_prefix("http://").unwrap()).await.unwrap())
    }

    async fn begin(&mut self, path: &str, headers: &str, body: &str) {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{headers}\r\n");
        self.0.write_all(head.as_bytes()).await.unwrap();
    }

    /// Waits until it has found its source, and its body is waited for.
    async fn go_on(&mut self) {
        let mut go_on = [0; 25];
        self.0.read_exact(&mut go_on).await.unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    async fn finish(&mut self, body: &str) -> u16 {
        self.0.write_all(body.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
            assert_ne!(self.0.read_buf(&mut answer).await.unwrap(), 0, "the connection was closed");
        }
        let head = String::from_utf8(answer.clone()).unwrap().to_ascii_lowercase();
        let (head, rest) = head.split_once("\r\n\r\n").unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut left = vec![0; length.parse::<usize>().unwrap() - rest.len()];
        self.0.read_exact(&mut left).await.unwrap();
        head[9..12].parse().unwrap()
    }

    async fn github(&mut self, id: &str, body: &str, signature: &str) -> u16 {
        let headers = format!("X-GitHub-Delivery: {id}\r\nX-Hub-Signature-256: {signature}\r\n");
        self.begin("/webhooks/github", &headers, body).await;
        self.finish(body).await
    }
}

/// The secret's file alone is written anew; the config's text stays as it was.
#[tokio::test]
async fn a_secret_rotates_on_an_open_connection() {
    let app = FakeApp::start().await;
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let config = github_to(&app.url()).replace("\"${GITHUB_WEBHOOK_SECRET}\"", "{ file: secret }");
    std::fs::write(dir.path().join("forebay.yaml"), head(dir.path()) + &config).unwrap();
    let gateway = Gateway::start_in(dir).await;

    let mut connection = KeepAlive::open(&gateway).await;
    let new = "another secret, long enough";
    assert_eq!(connection.github("1", "{}", &sign(b"{}")).await, 200);
    assert_eq!(connection.github("2", "{}", &sign_with(new, b"{}")).await, 401);
    std::fs::write(&secret, new).unwrap();
    let reloaded = gateway.post("/api/v1/reload", "").await.json();
    assert!(!reloaded.to_string().contains(new), "{reloaded}");
    let change = &reloaded["changes"][0];
    assert_eq!((&change["text"], &change["to"]), (&json!("~ source github: secret changed"), &json!("***")));
    assert_eq!(connection.github("3", "{}", &sign_with(new, b"{}")).await, 200, "at once, and on the same connection");
    assert_eq!(connection.github("4", "{}", &sign(b"{}")).await, 401, "the old one is gone");
    std::fs::write(&secret, SECRET).unwrap(); // nobody says a word
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut number = 5;
    while connection.github(&number.to_string(), "{}", &sign(b"{}")).await != 200 {
        assert!(tokio::time::Instant::now() < deadline, "the file was never read again");
        number += 1;
    }
}

#[tokio::test]
async fn a_request_under_way_finishes_by_the_config_it_began_with() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&open_to(&app.url())).await;
    let mut connection = KeepAlive::open(&gateway).await;
    connection.begin("/open", "Expect: 100-continue\r\n", "0123456789").await;
    connection.go_on().await;
    gateway.reload(&open_to(&app.url()).replace("open:", "other:")).await;
    assert_eq!(gateway.unsigned("/open", b"x").await, 404);
    assert_eq!(connection.finish("0123456789").await, 200);
    let orphaned = "forebay_orphaned_deliveries{destination=\"app\"}";
    gateway.until_metric(orphaned, 1.0).await; // its route is gone, too
    gateway.reload(&open_to(&app.url())).await;
    app.until("it", |seen| seen.iter().any(|seen| seen.body == "0123456789")).await;
    assert_eq!(gateway.metric(orphaned).await, 0.0);
}

#[tokio::test]
async fn what_waits_goes_to_the_new_address_at_once() {
    let (gone, app) = (FakeApp::down(), FakeApp::start().await);
    let gateway = Gateway::start(&open_to(&gone.url())).await;
    for number in 0..20 {
        assert_eq!(gateway.unsigned("/open", format!("{number}").as_bytes()).await, 200);
    }
    gateway.until_metric("forebay_deliveries_total{destination=\"app\",outcome=\"retry\"}", 5.0).await;
    gateway.reload(&open_to(&app.url())).await;
    app.until("all", |_| app.event_ids().len() == 20).await;
    assert!(gone.seen().is_empty());
}

/// Nothing of what waits for it is lost, or delivered by another way, while a destination is not in the config.
#[tokio::test]
async fn a_destination_that_leaves_and_comes_back_gets_what_waited() {
    let (first, second) = (FakeApp::down(), FakeApp::start().await);
    let both = |to: &str| {
        format!(
            "sources:\n  open: {{ verify: none, to: [{to}] }}\ndestinations:\n  \
             app: {{ url: {}, concurrency: 1, retry: {{ initial: 20ms, max: 100ms }}, breaker: {{ failures: 1000, cooldown: 20ms }} }}\n  other: {{ url: {} }}\n",
            first.url(),
            second.url()
        )
    };
    let gateway = Gateway::start(&both("app")).await;
    for number in 0..10 {
        assert_eq!(gateway.unsigned("/open", format!("{number}").as_bytes()).await, 200);
    }
    gateway.until_metric("forebay_deliveries_total{destination=\"app\",outcome=\"retry\"}", 5.0).await;
    let without: String =
        both("other").lines().filter(|line| !line.contains(" app:")).map(|line| format!("{line}\n")).collect();
    gateway.reload(&without).await;
    first.up().await;
    assert_eq!(gateway.unsigned("/open", b"to the other").await, 200);
    second.until("its own", |seen| seen.len() == 1).await;
    let delivered = gateway.metric("forebay_deliveries_total{destination=\"app\",outcome=\"delivered\"}").await;
    assert!(delivered <= 1.0, "{delivered}: more than the attempt that may have been under way");
    gateway.reload(&both("app")).await;
    first.until("all", |_| first.event_ids().len() == 10).await;
    assert_eq!(second.seen().len(), 1);
}

/// A route that leaves the config while its destination stays.
#[tokio::test]
async fn what_waits_for_a_route_that_is_gone_is_orphaned_until_it_is_back() {
    let app = FakeApp::down();
    let gateway = Gateway::start(&open_to(&app.url())).await;
    for number in 0..10 {
        assert_eq!(gateway.unsigned("/open", format!("{number}").as_bytes()).await, 200);
    }
    gateway.until_metric("forebay_deliveries_total{destination=\"app\",outcome=\"retry\"}", 5.0).await;
    gateway.reload(&open_to(&app.url()).replace("to: [app]", "to: []")).await;
    let orphaned = "forebay_orphaned_deliveries{destination=\"app\"}";
    gateway.until_metric(orphaned, 10.0).await;
    let listed = gateway.get("/api/v1/events?status=orphaned").await.json();
    let items = listed["items"].as_array().unwrap();
    assert_eq!(items.len(), 10);
    assert!(items.iter().all(|item| item["deliveries"][0]["status"] == "orphaned" && item["status"] == "pending"));
    let warned = |line: &String| line.contains("orphaned until it is back") && line.contains("\"deliveries\":10");
    assert!(gateway.log().iter().any(warned), "{:#?}", gateway.log());
    app.up().await;
    assert_eq!(gateway.unsigned("/open", b"captured").await, 200);
    gateway.reload(&open_to(&app.url())).await;
    app.until("all", |_| app.event_ids().len() == 10).await;
    assert_eq!(gateway.metric(orphaned).await, 0.0);
}

/// The same when the gateway was started without it.
#[tokio::test]
async fn a_destination_that_was_not_there_at_the_start_is_taken_up_when_it_comes() {
    let (app, other) = (FakeApp::down(), FakeApp::start().await);
    let gateway = Gateway::start(&open_to(&app.url())).await;
    for number in 0..5 {
        assert_eq!(gateway.unsigned("/open", format!("{number}").as_bytes()).await, 200);
    }
    let dir = gateway.kill().await;
    let without = open_to(&other.url()).replace("app", "other");
    std::fs::write(dir.path().join("forebay.yaml"), head(dir.path()) + &without).unwrap();
    let gateway = Gateway::start_in(dir).await;
    app.up().await;
    gateway.reload(&open_to(&app.url())).await;
    app.until("all", |_| app.event_ids().len() == 5).await;
    assert!(other.seen().is_empty());
}

/// A quota that was spent stays spent over a reload that does not change it.
#[tokio::test]
async fn a_reload_does_not_give_quotas_back() {
    let app = FakeApp::start().await;
    let config = |limit: &str, timeout: &str| {
        format!(
            "sources:\n  open: {{ verify: none, rate_limit: {limit}, to: [app] }}\ndestinations:\n  app: {{ url: {}, timeout: {timeout} }}\n",
            app.url()
        )
    };
    let gateway = Gateway::start(&config("1/h", "30s")).await;
    assert_eq!((gateway.unsigned("/open", b"1").await, gateway.unsigned("/open", b"2").await), (200, 429));
    gateway.reload(&config("1/h", "20s")).await;
    assert_eq!(gateway.unsigned("/open", b"3").await, 429);
    gateway.reload(&config("2/h", "20s")).await;
    assert_eq!(gateway.unsigned("/open", b"4").await, 200, "another limit begins anew");
}

/// The private side's tokens change with the config.
#[tokio::test]
async fn admin_tokens_rotate() {
    let app = FakeApp::start().await;
    let with = |dir: &std::path::Path, token: &str| {
        let tokens = format!("admin: {{ listen: 127.0.0.1:0, token: {token} }}\n");
        head(dir).replace("admin: { listen: 127.0.0.1:0 }\n", &tokens) + &open_to(&app.url())
    };
    let dir = tempfile::tempdir().unwrap();
    let config = with(dir.path(), "first-token-0123456789");
    std::fs::write(dir.path().join("forebay.yaml"), config).unwrap();
    let gateway = Gateway::start_in(dir).await;
    let status = async |method: Method, path: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        let url = format!("{}{path}", gateway.admin);
        gateway.http.send(method, &url, &[("authorization", &bearer)], b"").await.status
    };
    assert_eq!(status(Method::GET, "/api/v1/sources", "first-token-0123456789").await, 200);
    gateway.write_whole(&with(gateway.config().parent().unwrap(), "second-token-0123456789"));
    assert_eq!(status(Method::POST, "/api/v1/reload", "second-token-0123456789").await, 401, "not in force yet");
    assert_eq!(status(Method::POST, "/api/v1/reload", "first-token-0123456789").await, 200);
    assert_eq!(status(Method::GET, "/api/v1/sources", "first-token-0123456789").await, 401);
    assert_eq!(status(Method::GET, "/api/v1/sources", "second-token-0123456789").await, 200);
}

/// Reloads under load, a bad one between the good ones: no request hears of them, and every event arrives.
///
/// `FOREBAY_RELOADS` says how many, a second apart and at 200 requests a second (`tests/reloads.sh`); some, as fast as they
/// go, in the everyday run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_reloads_disturbs_nobody() {
    const SENDERS: u32 = 4;
    let paced: Option<usize> = std::env::var("FOREBAY_RELOADS").ok().map(|text| text.parse().unwrap());
    let app = FakeApp::start().await;
    let config = |timeout: usize| open_to(&app.url()).replace("retry:", &format!("timeout: {timeout}s, retry:"));
    let gateway = Gateway::start(&config(1)).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (stop, http, url) = (stop.clone(), gateway.http.clone(), format!("{}/open", gateway.ingress));
            tokio::spawn(async move {
                let mut turns = tokio::time::interval(Duration::from_secs(1) * SENDERS / 200);
                let mut ids = BTreeSet::new();
                while !stop.is_cancelled() {
                    if paced.is_some() {
                        turns.tick().await;
                    }
                    let body = format!("{sender} {}", ids.len());
                    let answer = http.send(Method::POST, &url, &[], body.as_bytes()).await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    ids.insert(answer.header("forebay-event-id").unwrap().to_owned());
                }
                ids
            })
        })
        .collect();
    let reloads = paced.unwrap_or(25);
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    for reload in 0..reloads {
        gateway.reload(&config(2 + reload % 20)).await;
        gateway.rewrite(&config(1).replace("retry:", "retyr:"));
        assert_eq!(gateway.post("/api/v1/reload", "").await.status, 422);
        if paced.is_some() {
            seconds.tick().await;
        }
    }
    stop.cancel();
    let mut sent = BTreeSet::new();
    for sender in senders {
        sent.extend(sender.await.unwrap());
    }
    assert!(sent.len() > reloads, "the senders were idle");
    app.until("every event", |_| app.event_ids().len() >= sent.len()).await;
    assert_eq!(app.event_ids(), sent);
    for (outcome, least) in [("applied", reloads), ("rejected", reloads)] {
        let counted = gateway.metric(&format!("forebay_config_reloads_total{{outcome=\"{outcome}\"}}")).await;
        assert!(counted >= least as f64, "{outcome}: {counted}");
    }
    println!("{reloads} reloads and as many refused, {} requests, all answered 200 and delivered", sent.len());
}

/// A log level changes at once, too.
#[tokio::test]
async fn the_log_level_changes() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&open_to(&app.url())).await;
    let text = std::fs::read_to_string(gateway.config()).unwrap();
    gateway.write_whole(&text.replace("level: debug", "level: warn"));
    assert_eq!(gateway.post("/api/v1/reload", "").await.status, 200);
    let heard = gateway.log().len();
    assert_eq!(gateway.unsigned("/nowhere", b"x").await, 404);
    gateway.write_whole(&text);
    assert_eq!(gateway.post("/api/v1/reload", "").await.status, 200);
    assert_eq!(gateway.unsigned("/nowhere-else", b"x").await, 404);
    gateway.says("request refused").await;
    assert!(!gateway.log()[heard..].iter().any(|line| line.contains("/nowhere\"")), "{:#?}", gateway.log());
}

/// A journal that is full of what waits has room again once it may be larger; intake goes on by itself.
#[tokio::test]
async fn a_full_journal_grows() {
    let app = FakeApp::down();
    let rest = open_to(&app.url()).replace("verify: none,", "verify: none, dedupe: off,");
    let gateway = Gateway::start(&rest).await;
    let text = std::fs::read_to_string(gateway.config()).unwrap();
    let sized = |size: &str| text.replace("max_size: 256MiB", &format!("max_size: {size}"));
    gateway.write_whole(&sized("4MiB"));
    assert_eq!(gateway.post("/api/v1/reload", "").await.status, 200);
    let body = vec![b'x'; 64 << 10];
    let mut kept = 0;
    while gateway.unsigned("/open", &body).await == 200 {
        kept += 1;
        assert!(kept < 100, "4 MiB hold no hundred bodies of 64 KiB");
    }
    assert_eq!(gateway.unsigned("/open", &body).await, 503);
    gateway.write_whole(&sized("64MiB"));
    assert_eq!(gateway.post("/api/v1/reload", "").await.status, 200);
    for _ in 0..kept {
        assert_eq!(gateway.unsigned("/open", &body).await, 200);
    }
    app.up().await;
    app.until("all", |_| app.event_ids().len() == 2 * kept).await;
}
