use std::sync::Arc;

use clap::Parser;
use tempfile::TempDir;

use super::*;
use crate::admin::{Attempt, Delivery, Event, Explained, Item, Items, Replayed};
use crate::base::{ManualClock, Secret, Tasks};
use crate::index::Index;
use crate::index::script::{Script, T0, event_at};

#[derive(clap::Parser)]
struct Events {
    #[command(flatten)]
    args: Args,
}

fn item<A>(attempts: A) -> Item<A> {
    Item {
        id: "evt_1".into(),
        source: "shop".into(),
        provider: "acme".into(),
        kind: Some("order.paid".into()),
        provider_event_id: None,
        method: "POST".into(),
        path: "/shop".into(),
        query: Some("a=1".into()),
        received_at: "2026-01-31T12:00:00.000Z".into(),
        size_bytes: 25,
        status: "pending".into(),
        duplicates: 2,
        deliveries: vec![Delivery {
            id: "dlv_1-0".into(),
            destination: "app".into(),
            status: "pending".into(),
            attempts,
            next_attempt_at: Some("2026-01-31T12:00:09.000Z".into()),
        }],
    }
}

#[test]
fn arguments_become_the_apis_parameters() {
    let line = "events list --source shop --destination app --status dead --type push --since 1h --until 1m --q x \
        --limit 7 --cursor abc";
    let Command::List(list) = Events::try_parse_from(line.split_whitespace()).unwrap().args.command else {
        panic!("not a list")
    };
    let query = list.filter.query(list.status.as_ref());
    let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        query,
        [
            "source=shop",
            "destination=app",
            "status=dead",
            "type=push",
            "since=1h",
            "until=1m",
            "q=x",
            "cursor=abc",
            "limit=7"
        ]
    );
}

#[test]
fn what_cannot_be_an_argument_is_refused_before_the_gateway_is_asked() {
    for line in ["events list --limit 501", "events list --limit 0", "events show evt_x", "events replay", "events"] {
        assert!(Events::try_parse_from(line.split_whitespace()).is_err(), "{line}");
    }
    let id = "evt_0190a000000070008000000000000000";
    let good = [format!("events show {id} --json"), format!("events replay {id} --destination app --admin http://x")];
    for line in good {
        assert!(Events::try_parse_from(line.split_whitespace()).is_ok(), "{line}");
    }
}

#[test]
fn a_page_is_a_table_that_says_how_to_go_on() {
    let page = Items { items: vec![item(3)], next: Some("CURSOR".into()) };
    let text = render::list(&page);
    let lines: Vec<&str> = text.lines().collect();
    let columns = |line: &str| line.split("  ").filter(|cell| !cell.is_empty()).map(|c| c.trim().to_owned()).collect();
    let header: Vec<String> = columns(lines[0]);
    assert_eq!(header, ["RECEIVED", "ID", "SOURCE", "TYPE", "STATUS", "DUPLICATES", "DELIVERIES"]);
    let row: Vec<String> = columns(lines[1]);
    assert_eq!(
        row,
        ["2026-01-31T12:00:00.000Z", "evt_1", "shop", "order.paid", "pending", "2", "app: pending (3 attempts)"]
    );
    assert_eq!(lines[3], "there is more: --cursor CURSOR");
    assert_eq!(render::list(&Items { items: vec![], next: None }), "no events match\n");
}

#[test]
fn an_event_shows_its_deliveries_attempts_headers_and_decisions() {
    let attempt = Attempt {
        number: 1,
        reason: "initial".into(),
        started_at: "2026-01-31T12:00:01.000Z".into(),
        duration_ms: Some(12),
        status: None,
        error: Some("connection refused".into()),
        answer: None,
    };
    let running = Attempt { number: 2, reason: "retry".into(), duration_ms: None, error: None, ..attempt.clone() };
    let shown = Event {
        item: item(vec![attempt, running]),
        headers: vec![("x-token".into(), "***".into())],
        explain: vec![Explained { at: "T".into(), step: "verify".into(), rule: "hmac".into(), result: "holds".into() }],
    };
    let text = render::event(&shown);
    for part in [
        "POST /shop?a=1",
        "dlv_1-0 to app: pending, next attempt at 2026-01-31T12:00:09.000Z",
        "12 ms",
        "connection refused",
        "under way",
        "x-token: ***",
        "verify",
        "holds",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
}

#[test]
fn a_sender_cannot_write_on_the_terminal() {
    let nasty = "\u{1b}[2J\u{9b}31m\r\n\u{7}\u{202e}<b>";
    let mut page = Items { items: vec![item(1)], next: Some(nasty.into()) };
    page.items[0].kind = Some(nasty.into());
    page.items[0].deliveries[0].destination = nasty.into();
    let mut shown = Event { item: item(vec![]), headers: vec![(nasty.into(), nasty.into())], explain: vec![] };
    shown.item.path = nasty.into();
    let replayed = Replayed { id: nasty.into(), deliveries: vec![nasty.into()] };
    let texts = [render::list(&page), render::event(&shown), render::replayed(&replayed)];
    for text in texts {
        let harmful = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(harmful), "{text:?}");
    }
    let json = render::json(&serde_json::to_string(&page).unwrap());
    assert!(!json.trim_end().contains(|c: char| c.is_control()), "{json:?}");
    assert_eq!(serde_json::from_str::<Items>(&json).unwrap(), page, "it says the same");
}

/// A gateway's private side over a scripted journal; its tasks end with the runtime.
struct Gateway {
    journal: Script,
    address: String,
    _dir: TempDir,
}

impl Gateway {
    async fn start() -> Self {
        let (dir, journal, tasks) = (TempDir::new().unwrap(), Script::new(), Tasks::new());
        let listen = ([127, 0, 0, 1], 0).into();
        let settings = admin::Settings {
            listen,
            token: Some(Secret::new("operate-token")),
            read_token: Some(Secret::new("read-token")),
            open_metrics: false,
        };
        let state = admin::State {
            present: Arc::new(arc_swap::ArcSwap::from_pointee(admin::Present {
                access: admin::Access::new(&settings),
                sources: Vec::new(),
                targets: Arc::default(),
            })),
            journal: journal.clone(),
            index: Index::open(dir.path(), [1; 16], journal.clone(), Default::default(), &tasks),
            clock: Arc::new(ManualClock::at(T0)),
            metrics: Arc::new(String::new),
            redactions: Arc::new(|_, _| None),
            reload: Arc::new(|_| Box::pin(async { Err(admin::ReloadError::Ending) })),
            pausing: tokio::sync::Mutex::default(),
            tails: admin::TailPlaces::default(),
            draining: Arc::default(),
        };
        let server = admin::Server::bind(listen).await.unwrap();
        let address = format!("http://{}", server.address());
        tasks.spawn("admin", server.run(Arc::new(state), tasks.clone(), tasks.stopping()));
        Self { journal, address, _dir: dir }
    }

    async fn run(&self, line: &str) -> String {
        let line = format!("events --admin {} {line}", self.address);
        let args = Events::try_parse_from(line.split_whitespace()).unwrap().args;
        format!("{:?}", run(args, None).await.unwrap())
    }

    fn client(&self, token: &str) -> AdminClient {
        let line = format!("events --admin {} --token {token} list", self.address);
        Events::try_parse_from(line.split_whitespace()).unwrap().args.admin.client(None).unwrap()
    }
}

#[tokio::test]
async fn the_exit_code_says_done_failed_or_asked_wrongly() {
    let gateway = Gateway::start().await;
    let id = gateway.journal.keep(&event_at(0), &["app"]);
    let (done, failed, wrong) = (ExitCode::SUCCESS, ExitCode::from(1), ExitCode::from(2));
    for (line, expected) in [
        ("--token operate-token list".to_owned(), done),
        (format!("--token operate-token show {id}"), done),
        (format!("--token operate-token replay {id}"), failed), // nothing is settled
        ("--token read-token list --json --q order".to_owned(), done),
        (format!("--token read-token replay {id}"), failed),
        ("--token wrong list".to_owned(), failed),
        ("--token operate-token list --status lost".to_owned(), wrong),
        ("--token operate-token list --source a/b".to_owned(), wrong),
    ] {
        assert_eq!(gateway.run(&line).await, format!("{expected:?}"), "{line}");
    }
}

#[tokio::test]
async fn a_replay_goes_to_the_destination_named() {
    let gateway = Gateway::start().await;
    let id = gateway.journal.keep(&event_at(0), &["app", "audit"]);
    gateway.journal.deliver(id, 0);
    gateway.journal.deliver(id, 1);
    let args = ReplayArgs { id, destination: Some("audit".into()), json: false };
    let text = replay(&gateway.client("operate-token"), &args).await.unwrap();
    assert_eq!(text, format!("dlv_{}-1 is pending again\n", id.to_string().replace("evt_", "")));
}

#[tokio::test]
async fn a_search_with_special_characters_reaches_the_gateway_whole() {
    let gateway = Gateway::start().await;
    gateway.journal.keep(&crate::event::Event { kind: Some("a&b=c d%".into()), ..event_at(0) }, &[]);
    let client = gateway.client("read-token");
    let reply = client.get("/api/v1/events", &[("q", "&b=c d%".to_owned())]).await.unwrap();
    assert_eq!(reply.parse::<Items>().unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_missing_token_names_the_variable_to_set() {
    let gateway = Gateway::start().await;
    let error = gateway.client("wrong").get("/api/v1/events", &[]).await.unwrap_err();
    let refused = error.downcast_ref::<Refused>().unwrap();
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.message.contains("FOREBAY_ADMIN_TOKEN"), "{refused}");
    assert!(!refused.message.contains("wrong"), "{refused}");
}
