use std::net::Ipv4Addr;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use http_body_util::{BodyExt, Full};

use super::*;
use crate::admit::{BYTES_OF_A_REQUEST, Budget};
use crate::base::{ByteSize, ManualClock, Name, UnixMillis};
use crate::deliver::{Destination, Target, Targets, Way};
use crate::event::Client;
use crate::journal::disk::RealDisk;
use crate::journal::disk::failing::{FailingDisk, Faults};
use crate::journal::log::LogJournal;
use crate::journal::{Pause, Retention, Settings};
use crate::provider::{KeyRule, Keyring, Preset, Respond};
use crate::source::{Bodies, DedupeSettings, Mode, OnDead, Route, SourceSettings, Tolerance};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn settings() -> SourceSettings {
    SourceSettings {
        name: Name::new("s").unwrap(),
        path: "/s".to_owned(),
        host: None,
        methods: vec![Method::POST],
        preset: Arc::new(Preset::none()),
        keyring: Keyring::default(),
        public_url: None,
        tolerance: Tolerance::Preset,
        mode: Mode::Store,
        deadline: Duration::from_secs(8),
        body_limit: ByteSize(1 << 20),
        allow_ips: Vec::new(),
        rate_limits: Vec::new(),
        dedupe: DedupeSettings { key: KeyRule::Signed, window: Duration::from_secs(3600), on_dead: OnDead::Requeue },
        respond: Respond { status: 200, body: None, content_type: HeaderValue::from_static("application/json") },
        routes: Vec::new(),
    }
}

fn inbound() -> Inbound {
    let client = Client { ip: Ipv4Addr::LOCALHOST.into(), tls: false, host: None };
    let head = Head {
        method: Method::POST,
        path: "/s".into(),
        query: None,
        headers: HeaderMap::new(),
        client,
        received_at: NOW,
    };
    Inbound { host: None, head, body: Full::new(Bytes::from_static(b"{}")).map_err(|never| match never {}).boxed() }
}

/// An intake on a disk that can be told to hang, with one source `s`.
struct Bench {
    _dir: tempfile::TempDir,
    faults: Arc<Faults>,
    clock: Arc<ManualClock>,
    budget: Budget,
    intake: Arc<Intake<LogJournal>>,
}

impl Bench {
    fn new(settings: SourceSettings, targets: Targets) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let faults = Arc::new(Faults::default());
        let disk = FailingDisk { faults: Arc::clone(&faults), real: RealDisk::new(dir.path()) };
        let kept = Settings {
            dir: dir.path().to_owned(),
            max_size: ByteSize(64 << 20),
            retention: Retention::default(),
            encryption: Default::default(),
        };
        let manual = Arc::new(ManualClock::at(NOW));
        let clock: Arc<dyn Clock> = Arc::clone(&manual) as _;
        let metrics = Metrics::new("test");
        let journal = LogJournal::open_on(Arc::new(disk), &kept, Arc::clone(&clock), metrics.clone(), None).unwrap();
        let budget = Budget::new(ByteSize(1 << 20));
        let bodies = Bodies { timeout: Duration::from_secs(30), min_rate: None, budget: budget.clone() };
        let source = Arc::new(Source::new(settings, &bodies, &metrics).unwrap().leading_to(&targets));
        let router = ArcSwap::from_pointee(Router::new([(None, "/s".to_owned(), source)]).unwrap());
        let (tasks, underway) = (Tasks::new(), Underway::default());
        let intake = Intake { router, journal, clock, metrics, tasks, underway };
        Self { _dir: dir, faults, clock: manual, budget, intake: Arc::new(intake) }
    }
}

/// The flush hangs: the sender is told to come again at the deadline, its body stays in the budget until the append is
/// over, and once the disk answers its second try is a duplicate.
#[tokio::test(start_paused = true)]
async fn at_the_deadline_the_sender_is_told_to_come_again() {
    let Bench { _dir, faults, clock: _, budget, intake } = Bench::new(settings(), Targets::default());
    faults.hold_syncs();
    let began = Instant::now();
    assert!(matches!(intake.receive(inbound()).await, Err(Refusal::Late { .. })));
    assert_eq!(began.elapsed(), Duration::from_secs(8));
    assert!(budget.used() > ByteSize(BYTES_OF_A_REQUEST + 2), "{:?}", budget.used());
    faults.release_syncs();
    tokio::time::resume();
    let again = intake.receive(inbound()).await.unwrap();
    assert!(matches!(again, Receipt::Stored { again: Again::Yes, .. }), "{again:?}");
    assert_eq!(budget.used(), ByteSize(0));
}

/// A key is held for as long as the source's `dedupe.window` says, and no longer.
#[tokio::test]
async fn a_source_holds_its_keys_for_its_own_window() {
    for window in [Duration::from_secs(600), Duration::from_secs(86_400)] {
        let dedupe = DedupeSettings { window, ..settings().dedupe };
        let bench = Bench::new(SourceSettings { dedupe, ..settings() }, Targets::default());
        let again = async || match bench.intake.receive(inbound()).await {
            Ok(Receipt::Stored { again, .. }) => again,
            other => panic!("{other:?}"),
        };
        assert_eq!(again().await, Again::No);
        bench.clock.pass(window - Duration::from_millis(1));
        assert_eq!(again().await, Again::Yes);
        bench.clock.pass(Duration::from_millis(1));
        assert_eq!(again().await, Again::No);
    }
}

/// The flush hangs. What the application said is relayed all the same, unless another route waits: its delivery is a
/// promise that needs the flush.
#[tokio::test]
async fn only_another_routes_delivery_holds_up_the_applications_answer() {
    let app = Name::new("app").unwrap();
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let destination = Destination { concurrency: 4, ..Destination::at(&url) };
    let application = tokio::runtime::Handle::current().spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"{}") {
                stream.read_buf(&mut request).await.unwrap();
            }
            stream.write_all(b"HTTP/1.1 201 Made\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
        }
    });
    let route = |name: &str| Route { destination: Name::new(name).unwrap(), path: None };
    for (routes, waits) in [(vec![route("app")], false), (vec![route("app"), route("audit")], true)] {
        let metrics = Metrics::new("test").destination(&app);
        let target = Arc::new(Target::new(Way::new(destination.clone()).unwrap(), metrics, Pause::Resumed));
        let settings = SourceSettings { mode: Mode::Proxy, routes, ..settings() };
        let bench = Bench::new(settings, Targets::from_iter([target]));
        bench.faults.hold_syncs();
        let intake = Arc::clone(&bench.intake);
        let answer = tokio::runtime::Handle::current().spawn(async move { intake.receive(inbound()).await });
        if waits {
            let faults = Arc::clone(&bench.faults);
            tokio::task::spawn_blocking(move || faults.until_one_is_held()).await.unwrap();
            assert!(!answer.is_finished());
            bench.faults.release_syncs();
        }
        let answer = answer.await.unwrap().unwrap();
        assert!(matches!(answer, Receipt::Relayed { status: 201, again: Again::No, .. }), "{answer:?}");
        bench.faults.release_syncs();
    }
    application.abort();
}
