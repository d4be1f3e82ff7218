use std::net::Ipv4Addr;

use http::HeaderMap;
use http_body_util::{BodyExt, Full};

use super::*;
use crate::admit::Budget;
use crate::base::{ByteSize, ManualClock, Name, UnixMillis};
use crate::event::Client;
use crate::journal::disk::RealDisk;
use crate::journal::disk::failing::{FailingDisk, Faults};
use crate::journal::log::LogJournal;
use crate::journal::{Retention, Settings};
use crate::provider::{KeyRule, Keyring, Preset, Respond};
use crate::source::{Bodies, DedupeSettings, Mode, OnDead, SourceSettings, Tolerance};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn settings() -> SourceSettings {
    SourceSettings {
        name: Name::new("s").unwrap(),
        path: "/s".to_owned(),
        host: None,
        methods: vec![Method::POST],
        preset: Arc::new(Preset::none()),
        keyring: Keyring::default(),
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
    Inbound { head, body: Full::new(Bytes::from_static(b"{}")).map_err(|never| match never {}).boxed() }
}

/// The flush hangs: the sender is told to come again at the deadline, its body stays in the budget until the append is
/// over, and once the disk answers its second try is a duplicate.
#[tokio::test(start_paused = true)]
async fn at_the_deadline_the_sender_is_told_to_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let disk = FailingDisk { faults: Arc::clone(&faults), real: RealDisk::new(dir.path()) };
    let kept = Settings { dir: dir.path().to_owned(), max_size: ByteSize(64 << 20), retention: Retention::default() };
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW));
    let metrics = Metrics::new("test");
    let journal = LogJournal::open_on(Arc::new(disk), &kept, Arc::clone(&clock), metrics.clone(), None).unwrap();
    let budget = Budget::new(ByteSize(1 << 20));
    let bodies = Bodies { timeout: Duration::from_secs(30), min_rate: None, budget: budget.clone() };
    let source = Arc::new(Source::new(settings(), &bodies, &metrics).unwrap());
    let router = Router::new([(None, "/s".to_owned(), source)]).unwrap();
    let (targets, tasks, underway) = (Arc::default(), Tasks::new(), Underway::default());
    let intake = Arc::new(Intake { router, journal, clock, metrics, targets, tasks, underway });

    faults.hold_syncs();
    let began = Instant::now();
    assert!(matches!(intake.receive(inbound()).await, Err(Refusal::Late { .. })));
    assert_eq!(began.elapsed(), Duration::from_secs(8));
    assert_eq!(budget.used(), ByteSize(2));
    faults.release_syncs();
    tokio::time::resume();
    let again = intake.receive(inbound()).await.unwrap();
    assert!(matches!(again, Receipt::Stored { again: Again::Yes, .. }), "{again:?}");
    assert_eq!(budget.used(), ByteSize(0));
}
