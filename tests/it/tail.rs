//! What happens, as it happens.

use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::support::gateway::{PATIENCE, github_to};
use crate::support::{FakeApp, Gateway, app};

/// An open tail, and what it has said so far.
struct Tail {
    body: Incoming,
    said: String,
}

impl Tail {
    async fn open(gateway: &Gateway, query: &str, headers: &[(&str, &str)]) -> Self {
        let (head, body) = gateway.http.open(&format!("{}/api/v1/tail{query}", gateway.admin), headers).await;
        assert_eq!(head.status, StatusCode::OK);
        assert_eq!(head.headers["content-type"], "text/event-stream");
        let mut tail = Self { body, said: String::new() };
        tail.until(|said| said.contains("\n\n")).await; // it begins: what comes from now on is on it
        tail
    }

    /// Reads on until `enough` has been said; false is the end of the stream.
    async fn until(&mut self, enough: impl Fn(&str) -> bool) -> bool {
        while !enough(&self.said) {
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
            let Some(frame) = frame.unwrap_or_else(|_| panic!("nothing more than {}", self.said)) else { return false };
            self.said.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        }
        true
    }

    /// The events so far: the id that the message has, and its item.
    fn events(&self) -> Vec<(String, Value)> {
        let messages = self.said.split("\n\n").filter(|message| message.contains("event: event"));
        let field = |message: &str, name: &str| {
            let line = message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_else(|| panic!("no {name} in {message}")).to_owned()
        };
        messages.map(|m| (field(m, "id"), serde_json::from_str(&field(m, "data")).unwrap())).collect()
    }

    /// Waits for an event of which `wanted` holds.
    async fn event(&mut self, wanted: impl Fn(&Value) -> bool) {
        loop {
            if self.events().iter().any(|(_, item)| wanted(item)) {
                return;
            }
            let messages = self.said.matches("\n\n").count();
            assert!(self.until(|said| said.matches("\n\n").count() > messages).await, "it ended: {}", self.said);
        }
    }
}

fn id_of(answer: &crate::support::http::Answer) -> String {
    answer.header("forebay-event-id").unwrap().to_owned()
}

#[tokio::test]
async fn new_events_and_what_becomes_of_them_are_seen_as_they_happen() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(app::status(500)));
    let gateway = Gateway::start(&github_to(&app.url())).await;
    let mut tail = Tail::open(&gateway, "", &[]).await;
    let id = id_of(&gateway.github("1", b"{}").await);
    tail.event(|item| item["id"] == *id && item["status"] == "pending").await;
    app.behave(|_| Some(app::status(200)));
    tail.event(|item| item["id"] == *id && item["status"] == "delivered").await;
    for (name, item) in tail.events() {
        assert_eq!(item["id"], *name);
    }
    let listed = gateway.get("/api/v1/events").await.json()["items"][0].clone();
    assert_eq!(tail.events().pop().unwrap().1, listed, "the item of the list");
}

/// A token in the query and one in the path: both prove who sent it, so nobody who only looks may have them.
#[tokio::test]
async fn what_is_secret_in_a_request_is_secret_in_a_list_and_in_a_tail() {
    const TOKEN: &str = "a-token-of-sixteen-bytes";
    let config = "providers:\n  \
        in-query: { verify: { token: { from: \"query:access\" } } }\n  \
        in-path: { verify: { token: { from: \"param:key\" } } }\n\
        sources:\n  \
        q: { provider: in-query, secret: a-token-of-sixteen-bytes, to: [] }\n  \
        p: { path: \"/p/{key}\", provider: in-path, secret: a-token-of-sixteen-bytes, to: [] }\n";
    let gateway = Gateway::start(config).await;
    let mut tail = Tail::open(&gateway, "", &[]).await;
    for target in [format!("q?a=1&access={TOKEN}"), format!("p/{TOKEN}")] {
        let url = format!("{}/{target}", gateway.ingress);
        let answer = gateway.http.send(http::Method::POST, &url, &[], target.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let id = id_of(&answer);
        tail.event(|item| item["id"] == *id).await;
    }
    let list = gateway.get("/api/v1/events").await;
    assert_eq!(list.json()["items"][1]["query"], "a=1&access=***");
    assert_eq!(list.json()["items"][0]["path"], "***");
    assert!(!list.text().contains(TOKEN), "{}", list.text());
    assert!(!tail.said.contains(TOKEN), "{}", tail.said);
}

#[tokio::test]
async fn a_tail_gives_only_what_its_filters_ask_for() {
    let app = FakeApp::start().await;
    let own = "  other: { provider: github, secret: \"${GITHUB_WEBHOOK_SECRET}\", path: /other, to: [] }\n";
    let config = github_to(&app.url()).replace("sources:\n", &format!("sources:\n{own}"));
    let gateway = Gateway::start(&config).await;
    let queries = [
        "?source=github",
        "?source=other",
        "?destination=app&changes=false",
        "?status=captured",
        "?type=push&source=other",
        "?type=issues",
    ];
    let mut tails = Vec::new();
    for query in queries {
        tails.push(Tail::open(&gateway, query, &[]).await);
    }
    let github = id_of(&gateway.github("1", b"{}").await);
    let signature = crate::support::sign(b"{}");
    let post = async |kind: &str, delivery: &str| {
        let headers =
            [("x-github-delivery", delivery), ("x-github-event", kind), ("x-hub-signature-256", signature.as_str())];
        id_of(&gateway.http.send(http::Method::POST, &format!("{}/other", gateway.ingress), &headers, b"{}").await)
    };
    let other = post("push", "2").await;
    gateway.event(&github, "delivered").await;
    let last = post("issues", "3").await;
    let wanted = [vec![&github], vec![&other, &last], vec![&github], vec![&other, &last], vec![&other], vec![&last]];
    for ((mut tail, wanted), query) in tails.into_iter().zip(wanted).zip(queries) {
        for id in &wanted {
            tail.event(|item| item["id"] == ***id).await;
        }
        let mut seen: Vec<String> = tail.events().into_iter().map(|(id, _)| id).collect();
        seen.dedup();
        assert_eq!(seen.iter().collect::<Vec<_>>(), wanted, "{query}");
    }
}

#[tokio::test]
async fn a_tail_goes_on_after_the_event_it_is_told_also_in_another_process() {
    let gateway = Gateway::start(&github_to(&FakeApp::down().url())).await;
    let mut ids = Vec::new();
    for n in 0..250 {
        ids.push(id_of(&gateway.github(&n.to_string(), b"{}").await)); // more than are read at a time
    }
    let mut tail = Tail::open(&gateway, "?changes=false", &[("last-event-id", &ids[3])]).await;
    tail.event(|item| item["id"] == *ids[249]).await;
    let seen = |tail: &Tail| tail.events().into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(seen(&tail), ids[4..]);

    let gateway = gateway.kill_and_restart().await;
    ids.push(id_of(&gateway.github("250", b"{}").await));
    let mut tail = Tail::open(&gateway, "?changes=false", &[("last-event-id", &ids[247])]).await;
    tail.event(|item| item["id"] == *ids[250]).await;
    assert_eq!(seen(&tail), ids[248..]);

    let mut tail = Tail::open(&gateway, "?changes=false&since=1h", &[]).await;
    tail.event(|item| item["id"] == *ids[250]).await;
    assert_eq!(seen(&tail), ids, "from a time on");
}

#[tokio::test]
async fn who_has_seen_nothing_yet_can_go_on_as_well() {
    let gateway = Gateway::start(&github_to(&FakeApp::down().url())).await;
    let before = id_of(&gateway.github("1", b"{}").await);
    let tail = Tail::open(&gateway, "?changes=false", &[]).await;
    assert!(tail.said.contains(&format!("id: {before}\n")), "where it begins: {}", tail.said);
    assert_eq!(tail.events(), []);
    drop(tail);
    let missed = id_of(&gateway.github("2", b"{}").await);
    let mut tail = Tail::open(&gateway, "?changes=false", &[("last-event-id", &before)]).await;
    tail.event(|item| item["id"] == *missed).await;
    assert_eq!(tail.events().len(), 1);
}

#[tokio::test]
async fn a_tail_needs_a_token_that_may_read() {
    let tokens = "admin: { listen: 127.0.0.1:0, token: operate-token-0123, read_token: read-token-456789 }\n";
    let dir = tempfile::tempdir().unwrap();
    let head = crate::support::gateway::head(dir.path()).replace("admin: { listen: 127.0.0.1:0 }\n", tokens);
    std::fs::write(dir.path().join("forebay.yaml"), head + &github_to("http://127.0.0.1:1")).unwrap();
    let gateway = Gateway::start_in(dir).await;
    for path in ["tail", "sources"] {
        let url = format!("{}/api/v1/{path}", gateway.admin);
        for (authorization, status) in
            [("", 401), ("Bearer wrong", 401), ("Bearer read-token-456789", 200), ("Bearer operate-token-0123", 200)]
        {
            let (head, _) = gateway.http.open(&url, &[("authorization", authorization)]).await;
            assert_eq!(head.status, status, "{path} with {authorization}");
        }
    }
    let read = [("authorization", "Bearer read-token-456789")];
    let sources = gateway.http.send(http::Method::GET, &format!("{}/api/v1/sources", gateway.admin), &read, b"").await;
    let wanted = serde_json::json!({ "items": [{ "name": "github", "host": null, "path": "/webhooks/github",
        "provider": "github", "mode": "store", "destinations": ["app"], "unsettled_bytes": 0, "over_share": false }] });
    assert_eq!(sources.json(), wanted);
}

#[tokio::test]
async fn tails_are_bounded_and_give_their_places_back() {
    let gateway = Gateway::start(&github_to(&FakeApp::down().url())).await;
    let mut tails = Vec::new();
    for _ in 0..16 {
        tails.push(Tail::open(&gateway, "", &[]).await);
    }
    let one_more = gateway.get("/api/v1/tail").await;
    assert_eq!((one_more.status, one_more.header("retry-after")), (503, Some("5")));
    assert!(one_more.text().contains("16 tails are open"), "{}", one_more.text());
    tails.pop();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (head, _body) = gateway.http.open(&format!("{}/api/v1/tail", gateway.admin), &[]).await;
        if head.status == 200 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the place never came free");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_a_tail_cannot_do_is_said_with_its_cure() {
    let gateway = Gateway::start(&github_to(&FakeApp::down().url())).await;
    for (query, header, cure) in [
        ("?limit=1", "", "the parameters are source, destination, status, type, since and changes"),
        ("?changes=maybe", "", "write true or false"),
        ("?changes=true&changes=true", "", "once"),
        ("?status=lost", "", "they are dead, pending"),
        ("", "7", "`Last-Event-ID` is not an event's id"),
    ] {
        let url = format!("{}/api/v1/tail{query}", gateway.admin);
        let answer = gateway.http.send(http::Method::GET, &url, &[("last-event-id", header)], b"").await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().contains(cure), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_gateway_that_stops_says_so_on_its_tails_and_does_not_wait_for_them() {
    let gateway = Gateway::start(&github_to(&FakeApp::down().url())).await;
    let mut tail = Tail::open(&gateway, "", &[]).await;
    let (ended, ()) = tokio::join!(gateway.terminate(), async {
        assert!(!tail.until(|_| false).await);
        assert!(tail.said.contains("shutting down; connect again"), "{}", tail.said);
    });
    assert_eq!(ended.0, 0);
}
