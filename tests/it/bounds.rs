//! What a sender can make the gateway hold, and how many of what: each bound met from outside, and a good request after it.

use futures_util::future::join_all;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::gateway::{PATIENCE, command, github_to, head};
use crate::support::raw::{connect, declare};
use crate::support::{FakeApp, Gateway, sign};

/// Opens `count` connections on which nothing is ever said.
async fn silent(gateway: &Gateway, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        open.push(connect(gateway).await);
    }
    open
}

async fn in_dir(rest: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("forebay.yaml"), format!("{}{rest}", head(dir.path()))).unwrap();
    dir
}

/// The gateway's command under `ulimit -n open_files`.
fn with_open_files(open_files: u32) -> Command {
    let mut limited = Command::new("sh");
    let program = command().as_std().get_program().to_owned();
    limited.args(["-c", &format!("ulimit -n {open_files} && exec \"$0\" \"$@\"")]).arg(program);
    for (name, value) in command().as_std().get_envs() {
        limited.env(name, value.unwrap());
    }
    limited.kill_on_drop(true);
    limited
}

/// Row D17, reserved descriptors: with few of them there are fewer connections, so that everything else goes on however
/// many come.
#[tokio::test]
async fn few_descriptors_make_few_connections_and_everything_else_goes_on() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start_by(with_open_files(80), in_dir(&github_to(&app.url())).await).await;
    let said =
        "open files are limited, so there are fewer connections than ingress.limits.connections; raise `ulimit -n`";
    gateway.says(said).await;
    assert_eq!(gateway.post("/api/v1/reload", "").await.status, 200, "a reload makes them no more");
    let _flood = silent(&gateway, 200).await;
    for n in 0..20 {
        assert_eq!(gateway.github(&n.to_string(), b"{}").await.status, 200);
    }
    app.until("all of them", |seen| seen.len() == 20).await;
    assert_eq!(gateway.get("/readyz").await.status, 200);
    assert!(gateway.metric("forebay_connections_cut_off_total{reason=\"crowded\"}").await >= 100.0);
    let short = gateway.log().iter().filter(|line| line.contains("no connection can be accepted")).count();
    assert_eq!(short, 0, "it never came to that");
}

/// Row D17, when there are none left all the same: accepting pauses, the silent make room, and it goes on by itself.
#[tokio::test]
async fn out_of_descriptors_it_waits_and_goes_on_once_there_are_some() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&github_to(&app.url())).await;
    assert_eq!(gateway.github("before", b"{}").await.status, 200);
    let pid = Pid::from_raw(i32::try_from(gateway.pid()).unwrap()).unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count() as u64;
    let maximum = getrlimit(Resource::Nofile).maximum;
    let before = prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(open + 3), maximum }).unwrap();
    let flood = silent(&gateway, 20).await;
    gateway.says("no connection can be accepted; trying again").await;
    assert_eq!(gateway.get("/healthz").await.status, 200, "the private side has its connection");
    prlimit(Some(pid), Resource::Nofile, before).unwrap();
    assert_eq!(gateway.github("after", b"{}").await.status, 200);
    app.until("both", |seen| seen.len() == 2).await;
    drop(flood);
    let pauses = gateway.log().iter().filter(|line| line.contains("no connection can be accepted")).count();
    assert!(pauses < 200, "{pauses} tries: it spins");
}

/// Rows D8 and D14: bodies that are declared and held fill no more than one source's share of the budget, the next is
/// told to come again before it has sent its body, and another source finds room.
#[tokio::test]
async fn bodies_that_are_held_leave_room_for_other_sources() {
    let sources = "sources:\n  hog: { verify: none, body_limit: 100KiB, to: [] }\n  \
                   other: { verify: none, body_limit: 100KiB, to: [] }\n";
    let gateway = Gateway::start_with("listen: 127.0.0.1:0, limits: { in_flight_bytes: 1MiB }", sources).await;
    let mut held = Vec::new();
    let refused = loop {
        let (stream, status) = declare(&gateway, "hog", (100 << 10) - 1).await;
        if status != 100 {
            break status;
        }
        held.push(stream);
    };
    assert_eq!((refused, held.len()), (503, 4), "a half of the budget, which five would be more than");
    let busy = gateway.metric("forebay_refusals_total{source=\"hog\",reason=\"busy\"}").await;
    assert_eq!(busy, 1.0);
    let (mut other, status) = declare(&gateway, "other", 100 << 10).await;
    assert_eq!(status, 100);
    other.write_all(&vec![b'x'; 100 << 10]).await.unwrap();
    let mut answer = String::new();
    let mut rest = [0; 64];
    while !answer.contains("HTTP/1.1 200") {
        let read = tokio::time::timeout(PATIENCE, other.read(&mut rest)).await.expect("an answer").unwrap();
        assert_ne!(read, 0, "{answer}");
        answer.push_str(std::str::from_utf8(&rest[..read]).unwrap());
    }
    drop(held);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while declare(&gateway, "hog", (100 << 10) - 1).await.1 != 100 {
        assert!(tokio::time::Instant::now() < deadline, "the budget never came back");
    }
}

/// Very many small bodies cost more than their bytes: heads and tasks are paid for, too.
#[tokio::test]
async fn small_bodies_are_charged_for_what_they_take() {
    let sources = "sources:\n  s: { verify: none, body_limit: 1KiB, to: [] }\n";
    let gateway = Gateway::start_with("listen: 127.0.0.1:0, limits: { in_flight_bytes: 128KiB }", sources).await;
    let answers = join_all((0..40).map(|_| declare(&gateway, "s", 1))).await;
    let admitted = answers.iter().filter(|(_, status)| *status == 100).count();
    assert!((28..=31).contains(&admitted), "{admitted} of 4 KiB and a head each fit into 128 KiB");
    assert!(answers.iter().all(|(_, status)| matches!(status, 100 | 503)));
}

/// Sends `body` twice, signed: the one is stored, the other is its duplicate, whatever stands in it.
async fn is_one_event(gateway: &Gateway, source: &str, what: &str, body: &[u8]) {
    let signature = sign(body);
    let headers = [("x-hub-signature-256", signature.as_str())];
    let url = format!("{}/{source}", gateway.ingress);
    let send = async || gateway.http.send(http::Method::POST, &url, &headers, body).await;
    let (first, second) = (send().await, send().await);
    assert_eq!((first.status, second.status), (200, 200), "{what}: {}", first.text());
    assert_eq!(first.header("forebay-duplicate"), None, "{what}");
    assert_eq!(second.header("forebay-duplicate"), Some("true"), "{what}");
    assert_eq!(first.header("forebay-event-id"), second.header("forebay-event-id"), "{what}");
}

/// Rows D10 and D11: what is hostile to whoever takes a body apart has no key in it, costs no stack, and is the same
/// event by its bytes.
#[tokio::test]
async fn hostile_bodies_have_no_key_and_are_told_apart_by_their_bytes() {
    let source = |key: &str| {
        format!(
            "{{ provider: github, secret: \"${{GITHUB_WEBHOOK_SECRET}}\", body_limit: 20MiB, dedupe: {{ key: \"{key}\" }}, to: [] }}"
        )
    };
    let sources = format!("sources:\n  json: {}\n  form: {}\n", source("json:/a/id"), source("form:id"));
    let gateway = Gateway::start(&sources).await;
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    let json = [
        ("deep arrays", deep("[", "]")),
        ("deep objects", deep("{\"a\":", "}")),
        ("a deep value at the key", format!("{{\"a\":{{\"id\":{}}}}}", deep("[", "]"))),
        ("arrays that are never closed", "[".repeat(1 << 20)),
        ("a number of a megabyte", format!("{{\"a\":{{\"id\":{}}}}}", "9".repeat(1 << 20))),
        ("a key of a megabyte", format!("{{\"a\":{{\"id\":\"{}\"}}}}", "k".repeat(1 << 20))),
        ("a key of 257 bytes", format!("{{\"a\":{{\"id\":\"{}\"}}}}", "k".repeat(257))),
        ("a name of a megabyte", format!("{{\"{}\":1}}", "n".repeat(1 << 20))),
        ("a name a hundred thousand times", format!("{{{}\"a\":7}}", "\"a\":{\"id\":1},".repeat(100_000))),
        ("half an escape", "{\"a\":{\"id\":\"\\ud800\"}}".to_owned()),
    ];
    for (what, body) in &json {
        is_one_event(&gateway, "json", what, body.as_bytes()).await;
    }
    let forms = [
        ("a million fields", "id=1&".repeat(1_000_000)),
        ("a million empty ones", "&".repeat(1_000_000)),
        ("a megabyte of escapes", format!("id={}", "%41".repeat(350_000))),
        ("many parts", "--b\r\nContent-Disposition: form-data; name=\"id\"\r\n\r\nx\r\n".repeat(20_000)),
    ];
    for (what, body) in &forms {
        is_one_event(&gateway, "form", what, body.as_bytes()).await;
    }
    // Two with one key are one event; so the hostile ones above had none.
    for (source, one, two) in
        [("json", r#"{"a":{"id":"k"},"n":1}"#, r#"{"a":{"id":"k"},"n":2}"#), ("form", "id=k&n=1", "id=k&n=2")]
    {
        let url = format!("{}/{source}", gateway.ingress);
        for (body, duplicate) in [(one, None), (two, Some("true"))] {
            let signature = sign(body.as_bytes());
            let headers = [("x-hub-signature-256", signature.as_str())];
            let answer = gateway.http.send(http::Method::POST, &url, &headers, body.as_bytes()).await;
            assert_eq!((answer.status, answer.header("forebay-duplicate")), (200, duplicate), "{source}");
        }
    }
}

/// Row D15: more signatures than any sender has are no reason to do more work.
#[tokio::test]
async fn very_many_signatures_are_refused_like_one() {
    let sources = "sources:\n  s: { provider: standard-webhooks, secret: \"whsec_MDEyMzQ1Njc4OWFiY2RlZg==\", tolerance: off, to: [] }\n";
    let gateway = Gateway::start(sources).await;
    let url = format!("{}/s", gateway.ingress);
    let signatures = |count: usize| vec!["v1,MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="; count].join(" ");
    for count in [10, 11, 500] {
        let signatures = signatures(count);
        let headers = [("webhook-id", "msg_1"), ("webhook-timestamp", "1"), ("webhook-signature", signatures.as_str())];
        assert_eq!(gateway.http.send(http::Method::POST, &url, &headers, b"{}").await.status, 401, "{count}");
    }
    let verified = r#"forebay_verifications_total{source="s",outcome="rejected",slot=""}"#;
    assert_eq!(gateway.metric(verified).await, 3.0);
}

/// Rows D12 and D16: paths that nobody has make no series of their own, each is counted, and of the lines about them
/// there are no more than a hundred a second.
#[tokio::test]
async fn a_flood_of_strangers_is_counted_as_one_and_logged_in_part() {
    const STRANGERS: usize = 2_000;
    let gateway = Gateway::start("sources:\n  s: { verify: none, to: [] }\n").await;
    let lines_before = gateway.get("/metrics").await.text().lines().count();
    let began = tokio::time::Instant::now();
    for batch in 0..STRANGERS / 50 {
        let url = |n: usize| format!("{}/nobody/{}", gateway.ingress, batch * 50 + n);
        let urls: Vec<String> = (0..50).map(url).collect();
        let answers = join_all(urls.iter().map(|url| gateway.http.get(url))).await;
        assert!(answers.iter().all(|answer| answer.status == 404));
    }
    let logged = gateway.log().iter().filter(|line| line.contains("request refused")).count() as u64;
    assert!(logged <= 101 + 100 * (began.elapsed().as_secs() + 1), "{logged}");
    let counted = gateway.metric("forebay_refusals_total{source=\"_unknown\",reason=\"no_route\"}").await;
    assert_eq!(counted, STRANGERS as f64);
    let text = gateway.get("/metrics").await.text();
    assert_eq!(text.lines().count(), lines_before, "no new series");
    assert!(!text.contains("nobody"));
}
