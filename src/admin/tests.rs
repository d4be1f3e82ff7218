mod tail;

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

use super::*;
use crate::base::{ManualClock, Secret, Tasks, UnixMillis};
use crate::event::{DeadReason, Event as Kept, EventId};
use crate::index::script::{Script, T0, event_at, name_of};
use crate::journal::{Change, Room, Verdict};

/// The routes over a scripted journal, without a socket.
struct Bench {
    journal: Script,
    state: Arc<State<Script>>,
    tasks: Tasks,
    _dir: TempDir,
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(None, None)
    }

    fn with(token: Option<&str>, read_token: Option<&str>) -> Self {
        Self::build(token, read_token, false, |_, _| Some(Vec::new()))
    }

    fn build(
        token: Option<&str>,
        read_token: Option<&str>,
        open_metrics: bool,
        redactions: impl Fn(&Name, &Name) -> Option<Vec<Place>> + Send + Sync + 'static,
    ) -> Self {
        let (dir, journal, tasks) = (TempDir::new().unwrap(), Script::new(), Tasks::new());
        let settings = Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            token: token.map(Secret::new),
            read_token: read_token.map(Secret::new),
            open_metrics,
        };
        let state = State {
            present: Arc::new(ArcSwap::from_pointee(Present {
                access: Access::new(&settings),
                sources: Vec::new(),
                targets: Arc::default(),
            })),
            journal: journal.clone(),
            index: Index::open(dir.path(), [1; 16], journal.clone(), Default::default(), &tasks),
            clock: Arc::new(ManualClock::at(T0)),
            metrics: Arc::new(|| "# EOF\n".to_owned()),
            redactions: Arc::new(redactions),
            reload: Arc::new(|_| Box::pin(async { Err(ReloadError::Ending) })),
            pausing: tokio::sync::Mutex::default(),
            tails: TailPlaces::default(),
            draining: Arc::default(),
        };
        Self { journal, state: Arc::new(state), tasks, _dir: dir }
    }

    async fn ask(&self, method: Method, path: &str, token: Option<&str>, body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:9090");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = router(Arc::clone(&self.state)).oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None, "").await
    }

    async fn replay(&self, id: EventId, body: &str) -> Answer {
        self.ask(Method::POST, &format!("/api/v1/events/{id}/replay"), None, body.to_owned()).await
    }
}

#[tokio::test]
async fn every_route_asks_for_the_token_it_needs() {
    let bench = Bench::with(Some("operate-token"), Some("read-token"));
    let id = bench.journal.keep(&event_at(0), &["app"]);
    bench.journal.bury(id, 0);
    let event = format!("/api/v1/events/{id}");
    let (body, replay) = (format!("{event}/body"), format!("{event}/replay"));
    // without a token, a wrong one, the read token, the token
    let cases: [(Method, &str, [u16; 4]); 11] = [
        (Method::GET, "/healthz", [200, 200, 200, 200]),
        (Method::GET, "/readyz", [200, 200, 200, 200]),
        (Method::GET, "/metrics", [401, 401, 200, 200]),
        (Method::GET, "/api/v1/events", [401, 401, 200, 200]),
        (Method::GET, &event, [401, 401, 200, 200]),
        (Method::GET, &body, [401, 401, 200, 200]),
        (Method::GET, "/api/v1/dead-letters", [401, 401, 200, 200]),
        (Method::GET, "/api/v1/sources", [401, 401, 200, 200]),
        (Method::GET, "/api/v1/backup", [401, 401, 403, 409]), // this journal says that it is busy
        (Method::POST, &replay, [401, 401, 403, 202]),
        (Method::DELETE, &event, [401, 401, 403, 200]),
    ];
    for (method, path, expected) in cases {
        let tokens = [None, Some("wrong"), Some("read-token"), Some("operate-token")];
        for (token, expected) in tokens.into_iter().zip(expected) {
            let answer = bench.ask(method.clone(), path, token, "").await;
            assert_eq!(answer.status, expected, "{method} {path} with {token:?}");
            let asks = answer.header("www-authenticate").is_some();
            assert_eq!(asks, expected == 401, "{method} {path} with {token:?}");
        }
    }
}

#[tokio::test]
async fn a_refused_replay_changes_nothing() {
    let bench = Bench::with(Some("operate-token"), Some("read-token"));
    let id = bench.journal.keep(&event_at(0), &["app"]);
    bench.journal.bury(id, 0);
    let before = bench.journal.tail();
    let path = format!("/api/v1/events/{id}/replay");
    for token in [None, Some("wrong"), Some("read-token")] {
        bench.ask(Method::POST, &path, token, "").await;
    }
    assert_eq!(bench.journal.tail(), before);
}

#[tokio::test]
async fn metrics_may_be_open_although_there_is_a_token() {
    let bench = Bench::build(Some("operate-token"), None, true, |_, _| None);
    let answer = bench.get("/metrics").await;
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"# EOF\n"[..]));
    assert_eq!(answer.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert_eq!(bench.get("/api/v1/events").await.status, 401);
}

#[tokio::test]
async fn without_tokens_a_rebound_name_or_another_sites_page_gets_nothing() {
    let bench = Bench::new();
    let id = bench.journal.keep(&event_at(0), &["app"]);
    bench.journal.bury(id, 0);
    let request = |method: &str, path: &str, host: &str, extra: (&'static str, &str)| {
        let request = Request::builder().method(method).uri(path).header("host", host).header(extra.0, extra.1);
        request.body(Body::empty()).unwrap()
    };
    let replay = format!("/api/v1/events/{id}/replay");
    let rebound = bench.send(request("GET", "/api/v1/events", "evil.example:9090", ("accept", "*/*"))).await;
    assert_eq!(rebound.status, StatusCode::MISDIRECTED_REQUEST);
    for extra in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let forged = bench.send(request("POST", &replay, "127.0.0.1:9090", extra)).await;
        assert_eq!(forged.status, StatusCode::FORBIDDEN, "{extra:?}");
    }
    let own = bench.send(request("POST", &replay, "localhost:9090", ("origin", "http://localhost:9090"))).await;
    assert_eq!(own.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn readiness_says_what_is_wrong_to_those_who_may_know() {
    let bench = Bench::with(Some("operate-token"), Some("read-token"));
    assert_eq!(bench.get("/readyz").await.json(), json!({ "status": "ready" }));

    bench.journal.set_room(Room::Failed("an fsync failed".into()));
    let stranger = bench.get("/readyz").await;
    assert_eq!((stranger.status, stranger.json()), (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "unready" })));
    let reader = bench.ask(Method::GET, "/readyz", Some("read-token"), "").await;
    assert_eq!(reader.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reader.json()["reasons"]["journal"].as_str().unwrap().contains("an fsync failed"));

    let full = |refused| Room::Full { retry_after: Duration::from_secs(30), refused };
    bench.journal.set_room(full(None));
    let reader = bench.ask(Method::GET, "/readyz", Some("read-token"), "").await;
    assert!(reader.json()["reasons"]["journal"].as_str().unwrap().starts_with("full"));
    bench.journal.set_room(full(Some("Read-only file system (os error 30)".into())));
    let reader = bench.ask(Method::GET, "/readyz", Some("read-token"), "").await;
    let said = reader.json()["reasons"]["journal"].as_str().unwrap().to_owned();
    assert!(said.contains("Read-only file system") && !said.contains("full"), "{said}");

    bench.journal.set_room(Room::Open);
    bench.state.draining.store(true, Ordering::Relaxed);
    let reader = bench.ask(Method::GET, "/readyz", Some("read-token"), "").await;
    assert_eq!(reader.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reader.json()["reasons"], json!({ "gateway": "shutting down" }));
    assert_eq!(bench.get("/healthz").await.json(), json!({ "status": "ok" }), "it still lives");
}

#[tokio::test]
async fn a_list_has_the_contracts_shape() {
    let bench = Bench::new();
    let event = Kept { query: Some("a=1".into()), ..event_at(1_042) };
    let id = bench.journal.keep(&event, &["app"]);
    bench.journal.settle(id, 0, 1, Verdict::RetryAt(UnixMillis(T0.0 + 5_000)));
    bench.journal.push(Change::Duplicate { original: id, conflict: false, at: T0 });

    let answer = bench.get("/api/v1/events").await;

    let uuid = id.to_string().replace("evt_", "");
    let expected = json!({
        "items": [{
            "id": format!("evt_{uuid}"), "source": "acme", "provider": "acme", "type": "order.paid",
            "provider_event_id": "order_1042", "method": "POST", "path": "/acme", "query": "a=1",
            "received_at": "2023-11-14T22:13:21.042Z", "size_bytes": 25, "status": "pending", "duplicates": 1,
            "deliveries": [{
                "id": format!("dlv_{uuid}-0"), "destination": "app", "status": "pending", "attempts": 1,
                "next_attempt_at": "2023-11-14T22:13:25.000Z",
            }],
        }],
        "next": null,
    });
    assert_eq!(answer.json(), expected);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("forebay-index"), None);
}

#[tokio::test]
async fn pages_are_walked_by_the_cursor_they_give() {
    let bench = Bench::new();
    for n in 0..25 {
        bench.journal.keep(&event_at(n), &[]);
    }
    let (mut path, mut sizes) = ("/api/v1/events?limit=10".to_owned(), Vec::new());
    loop {
        let page = bench.get(&path).await.json();
        sizes.push(page["items"].as_array().unwrap().len());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/events?limit=10&cursor={next}");
    }
    assert_eq!(sizes, [10, 10, 5]);
}

#[tokio::test]
async fn filters_reach_the_index() {
    let bench = Bench::new();
    let old = bench.journal.keep(&event_at(-7_200_000), &["app"]);
    let new = bench.journal.keep(&Kept { source: name_of("shop"), ..event_at(-1_000) }, &["audit"]);
    bench.journal.bury(old, 0);
    for (query, expected) in [
        ("source=shop", vec![new]),
        ("destination=app", vec![old]),
        ("status=dead", vec![old]),
        ("type=order.paid", vec![new, old]),
        ("since=1h", vec![new]),
        ("until=1h", vec![old]),
        ("q=order_-1000", vec![new]),
        ("q=%2Facme&limit=1", vec![new]),
    ] {
        let page = bench.get(&format!("/api/v1/events?{query}")).await.json();
        let ids: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect();
        assert_eq!(ids, expected.iter().map(|id| json!(id.to_string())).collect::<Vec<_>>(), "{query}");
    }
    let dead = bench.get("/api/v1/dead-letters").await.json();
    assert_eq!(dead["items"].as_array().unwrap().len(), 1);
    assert_eq!(dead["items"][0]["id"], json!(old.to_string()));
}

#[tokio::test]
async fn bad_parameters_are_named() {
    let bench = Bench::new();
    let id = bench.journal.keep(&event_at(0), &[]);
    for (path, named) in [
        ("/api/v1/events?soruce=x".to_owned(), "soruce"),
        ("/api/v1/events?limit=501".to_owned(), "limit"),
        ("/api/v1/events?since=10".to_owned(), "since"),
        ("/api/v1/events?limit=1&limit=2".to_owned(), "limit"),
        ("/api/v1/dead-letters?status=dead".to_owned(), "status"),
        (format!("/api/v1/events/{id}?verbose=1"), "verbose"),
        ("/api/v1/events/evt_nonsense".to_owned(), "evt_"),
    ] {
        let answer = bench.get(&path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        assert!(answer.error().contains(named), "{path}: {}", answer.error());
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_in_json() {
    let bench = Bench::new();
    let unknown = EventId::new(T0);
    for (method, path, status) in [
        (Method::GET, "/", 404),
        (Method::GET, "/api/v1/nothing", 404),
        (Method::POST, "/api/v1/events", 405),
        (Method::DELETE, "/healthz", 405),
        (Method::GET, &format!("/api/v1/events/{unknown}/replay"), 405),
        (Method::GET, "/api/v1/events/%ff", 400),
        (Method::GET, "/api/v1/events/%ff/body", 400),
        (Method::POST, "/api/v1/events/%ff/replay", 400),
        (Method::GET, &format!("/api/v1/events/{unknown}"), 404),
        (Method::GET, &format!("/api/v1/events/{unknown}/body"), 404),
        (Method::POST, &format!("/api/v1/events/{unknown}/replay"), 404),
    ] {
        let answer = bench.ask(method.clone(), path, None, "").await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(!answer.error().is_empty(), "{method} {path}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{method} {path}");
    }
}

#[tokio::test]
async fn one_event_shows_its_headers_attempts_and_way() {
    let bench = Bench::new();
    let id = bench.journal.keep(&event_at(0), &["app"]);
    bench.journal.settle(id, 0, 1, Verdict::Dead(DeadReason::GaveUp));

    let shown = bench.get(&format!("/api/v1/events/{id}")).await.json();

    assert_eq!(shown["status"], "dead");
    assert_eq!(shown["headers"][0], json!(["content-type", "application/json"]));
    let attempt = json!({
        "number": 1, "reason": "initial", "started_at": "2023-11-14T22:13:21.000Z", "duration_ms": 12,
        "status": 500, "error": null, "answer": "answer",
    });
    assert_eq!(shown["deliveries"][0]["attempts"], json!([attempt]));
    let steps: Vec<_> = shown["explain"].as_array().unwrap().iter().map(|line| line["step"].clone()).collect();
    assert_eq!(steps, ["receive", "verify", "identify", "dedupe", "route", "give up"]);
    assert_eq!(
        shown["explain"][1],
        json!({ "at": "2023-11-14T22:13:20.000Z", "step": "verify", "rule": "hmac", "result": "holds with secret[0]" })
    );
    assert_eq!(shown["explain"][5]["result"], "give_up_on");
}

#[tokio::test]
async fn secrets_of_the_provider_are_stars_in_every_answer() {
    let places = vec![Place::Header(HeaderName::from_static("x-acme-token")), Place::Json("/token".to_owned())];
    let bench = Bench::build(None, None, false, move |source, provider| {
        (source.as_str() == "acme" && provider.as_str() == "acme").then(|| places.clone())
    });
    let id = bench.journal.keep(&event_at(0), &["app"]);

    let shown = bench.get(&format!("/api/v1/events/{id}")).await;
    let body = bench.get(&format!("/api/v1/events/{id}/body")).await;

    assert_eq!(shown.json()["headers"][1], json!(["x-acme-token", "***"]));
    assert_eq!(body.json(), json!({ "n": 1, "token": "***" }));
    assert_eq!(body.header("forebay-redacted"), Some("true"));
    for answer in [shown, body] {
        assert!(!String::from_utf8_lossy(&answer.body).contains("hunter2"));
    }
}

#[tokio::test]
async fn what_may_be_secret_is_not_shown_when_nobody_knows() {
    let bench = Bench::build(None, None, false, |_, _| None);
    let id = bench.journal.keep(&event_at(0), &["app"]);
    let shown = bench.get(&format!("/api/v1/events/{id}")).await.json();
    assert_eq!(shown["headers"][0], json!(["content-type", "***"]));
    let body = bench.get(&format!("/api/v1/events/{id}/body")).await;
    assert_eq!(body.status, StatusCode::FORBIDDEN);
    assert!(body.error().contains("no longer") || body.error().contains("any more"), "{}", body.error());
}

#[tokio::test]
async fn a_body_comes_byte_for_byte_as_a_file() {
    let bench = Bench::new();
    let bytes = Bytes::from_static(b"\x00\xff<script>alert(1)</script>\r\n");
    let id = bench.journal.keep(&Kept { body: bytes.clone(), ..event_at(0) }, &[]);

    let answer = bench.get(&format!("/api/v1/events/{id}/body")).await;

    assert_eq!(answer.body, bytes);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("content-disposition"), Some(format!("attachment; filename=\"{id}.bin\"").as_str()));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("forebay-redacted"), None);
}

#[tokio::test]
async fn markup_and_escape_codes_of_a_sender_stay_text() {
    let bench = Bench::new();
    let nasty = "<script>\u{1b}[2J\u{202e}\"";
    let event = Kept {
        kind: Some(nasty.into()),
        headers: vec![(HeaderName::from_static("x"), HeaderValue::from_bytes(b"<b>\xff").unwrap())],
        ..event_at(0)
    };
    let id = bench.journal.keep(&event, &[]);
    let answer = bench.get(&format!("/api/v1/events/{id}")).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json()["type"], nasty);
    assert_eq!(answer.json()["headers"][0][1], "<b>\u{fffd}");
    assert!(!answer.body.contains(&0x1b), "JSON escapes it");
}

#[tokio::test]
async fn a_replay_makes_what_is_settled_pending_again() {
    let bench = Bench::new();
    let id = bench.journal.keep(&event_at(0), &["app", "audit"]);
    bench.journal.bury(id, 0);
    bench.journal.deliver(id, 1);

    let answer = bench.replay(id, r#"{"destination":"app"}"#).await;
    let uuid = id.to_string().replace("evt_", "");
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.json(), json!({ "id": id.to_string(), "deliveries": [format!("dlv_{uuid}-0")] }));
    let shown = bench.get(&format!("/api/v1/events/{id}")).await.json();
    assert_eq!(shown["deliveries"][0]["status"], "pending");
    assert_eq!(shown["deliveries"][1]["status"], "delivered");

    let rest = bench.replay(id, "").await;
    assert_eq!(rest.json()["deliveries"], json!([format!("dlv_{uuid}-1")]));
}

#[tokio::test]
async fn a_replay_of_nothing_says_why() {
    let bench = Bench::new();
    let captured = bench.journal.keep(&event_at(0), &[]);
    let pending = bench.journal.keep(&event_at(1), &["app"]);
    for (id, body, status, why) in [
        (captured, "{}", 409, "no deliveries"),
        (pending, "{}", 409, "pending"),
        (pending, r#"{"destination":"audit"}"#, 409, "it goes to app"),
        (pending, r#"{"destination":"a b"}"#, 400, "destination"),
        (pending, r#"{"destinations":"app"}"#, 400, "destinations"),
        (pending, "app", 400, "the body is"),
    ] {
        let answer = bench.replay(id, body).await;
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.error().contains(why), "{body}: {}", answer.error());
    }
    let large = "x".repeat(BODY_BYTES + 1);
    assert_eq!(bench.replay(pending, &large).await.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn an_index_that_cannot_follow_is_marked_and_still_answers() {
    let bench = Bench::new();
    bench.journal.keep(&event_at(0), &[]);
    bench.get("/api/v1/events").await;
    bench.journal.set_failing(true);
    bench.journal.keep(&event_at(1), &[]);
    let answer = bench.get("/api/v1/events").await;
    assert_eq!(answer.header("forebay-index"), Some("behind"));
    assert_eq!(answer.json()["items"].as_array().unwrap().len(), 1);
}

/// Every operation leaves a line in the audit log; reading and refused operations leave none.
#[tokio::test]
async fn operations_are_audited() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().json().with_env_filter("audit=info").with_writer(move || writer.clone());
    let _log = tracing::subscriber::set_default(log.finish());

    let bench = Bench::with(Some("operate-token"), Some("read-token"));
    let id = bench.journal.keep(&event_at(0), &["app"]);
    bench.journal.bury(id, 0);
    let path = format!("/api/v1/events/{id}/replay");
    bench.ask(Method::POST, &path, Some("read-token"), "").await;
    bench.ask(Method::GET, "/api/v1/events", Some("operate-token"), "").await;
    bench.ask(Method::POST, &path, Some("operate-token"), "").await;
    let event = format!("/api/v1/events/{id}");
    bench.ask(Method::DELETE, &event, Some("read-token"), "").await;
    bench.ask(Method::DELETE, &event, Some("operate-token"), "").await;

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let audited: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(audited.len(), 2, "{text}");
    for (line, what) in audited.iter().zip(["replay", "erase"]) {
        let fields = &line["fields"];
        assert_eq!(
            (&fields["who"], &fields["what"], &fields["id"]),
            (&json!("token"), &json!(what), &json!(id.to_string()))
        );
    }
    assert!(!text.contains("operate-token"));
}

#[tokio::test]
async fn a_server_answers_over_a_socket_and_stops_when_told() {
    let bench = Bench::new();
    let server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = server.address();
    let stopping = bench.tasks.stopping();
    bench.tasks.spawn("admin", server.run(Arc::clone(&bench.state), bench.tasks.clone(), stopping));

    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = vec![0; 15];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(first, b"HTTP/1.1 200 OK");

    bench.tasks.stop();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap(); // the idle connection is closed
    bench.tasks.ended().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn silent_connections_do_not_shut_the_operator_out() {
    let bench = Bench::new();
    let server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = server.address();
    let stopping = bench.tasks.stopping();
    bench.tasks.spawn("admin", server.run(Arc::clone(&bench.state), bench.tasks.clone(), stopping));

    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = vec![0; 15];
    let answered = tokio::time::timeout(Duration::from_secs(3), stream.read_exact(&mut first)).await; // < the head's 5 s
    answered.expect("an answer while they are open").unwrap();
    assert_eq!(first, b"HTTP/1.1 200 OK");
    assert_eq!(silent[0].read(&mut [0]).await.unwrap(), 0, "the one that waited longest had to go");
    bench.tasks.stop();
    bench.tasks.ended().await;
}
