//! The index of a journal that is sealed: as useful as a clear one, and no clear text in its files.

use tempfile::TempDir;

use super::script::{Script, event_at};
use super::*;
use crate::event::{Attempt, AttemptReason, DeliveryId, Event};
use crate::journal::seal::tests::keys;
use crate::journal::{Change, Settled, Verdict};

const IDENTITY: [u8; 16] = [7; 16];
const CANARY: &str = "canary-93b1";

fn ring(bytes: &[u8]) -> Keyring {
    Keyring::new(&keys(bytes), IDENTITY)
}

fn leaks(dir: &TempDir) -> bool {
    let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.into_iter().any(|bytes| bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()))
}

/// Two events with the canary in all that they and the application say.
fn told(journal: &Script) -> [EventId; 2] {
    [1, 2].map(|n| {
        let text: Option<Box<str>> = Some(CANARY.into());
        let (kind, provider_event_id, query) = (text.clone(), text.clone(), text.clone());
        let event = Event { kind, provider_event_id, query, path: format!("/{CANARY}/{n}").into(), ..event_at(n) };
        let id = journal.keep(&event, &["app"]);
        let attempt = Attempt {
            number: 1,
            reason: AttemptReason::Initial,
            started_at: event.received_at,
            took: Duration::from_millis(1),
            status: None,
            error: text,
            answer: CANARY.into(),
        };
        let delivery = DeliveryId { event: id, index: 0 };
        journal.push(Change::Settled(Settled { delivery, attempt: Some(attempt), verdict: Verdict::Delivered }));
        id
    })
}

async fn is_all_there(index: &Index, ids: [EventId; 2]) {
    index.catch_up().await.unwrap();
    for (n, id) in (1..).zip(ids) {
        let Detail { item, attempts } = index.show(id).await.unwrap().unwrap();
        assert_eq!(item.path, format!("/{CANARY}/{n}"));
        for text in [&item.kind, &item.provider_event_id, &item.query, &attempts[0][0].error] {
            assert_eq!(text.as_deref(), Some(CANARY));
        }
        assert_eq!(attempts[0][0].answer.as_deref(), Some(CANARY.as_bytes()));
    }
    let found = async |filter: Filter| index.list(filter).await.unwrap().items.len();
    let q = |q: &str| Filter { q: Some(q.to_owned()), ..Filter::default() };
    assert_eq!((found(q("CANARY-93")).await, found(q("93b1/2")).await, found(q("other")).await), (2, 1, 0));
    assert_eq!(found(Filter { kind: Some(CANARY.into()), ..Filter::default() }).await, 2);
}

#[tokio::test]
async fn a_sealed_index_answers_as_a_clear_one_and_is_built_anew_for_another_key() {
    let (dir, journal, tasks) = (TempDir::new().unwrap(), Script::new(), Tasks::new());
    let ids = told(&journal);
    let now = Arc::new(ArcSwap::from_pointee(Keyring::default()));
    let index = Index::open(dir.path(), IDENTITY, journal.clone(), Arc::clone(&now), &tasks);
    is_all_there(&index, ids).await;
    assert!(leaks(&dir), "clear: the test can see it");
    for sealed in [ring(&[1]), ring(&[2, 1])] {
        now.store(Arc::new(sealed));
        is_all_there(&index, ids).await;
        assert!(!leaks(&dir));
    }
    drop(index);
    tasks.stop();
    tasks.ended().await;
    assert!(!leaks(&dir));
    for (keys, clear) in [(ring(&[2]), false), (Keyring::default(), true), (ring(&[3]), false)] {
        let tasks = Tasks::new();
        let keys = Arc::new(ArcSwap::from_pointee(keys));
        let index = Index::open(dir.path(), IDENTITY, journal.clone(), keys, &tasks);
        is_all_there(&index, ids).await;
        assert_eq!(leaks(&dir), clear);
        drop(index);
        tasks.stop();
        tasks.ended().await;
    }
}

/// A cell belongs to its event: put in another's place it is damage, and mended as damage is.
#[tokio::test]
async fn a_cell_in_a_place_that_is_not_its_own_has_the_index_built_anew() {
    let (dir, journal, tasks) = (TempDir::new().unwrap(), Script::new(), Tasks::new());
    let ids = told(&journal);
    let keys = Arc::new(ArcSwap::from_pointee(ring(&[1])));
    let index = Index::open(dir.path(), IDENTITY, journal.clone(), keys, &tasks);
    is_all_there(&index, ids).await;
    let db = Connection::open(dir.path().join("index.db")).unwrap();
    let swapped = "UPDATE events SET path = (SELECT path FROM events WHERE id = ?1) WHERE id = ?2";
    assert_eq!(db.execute(swapped, [ids[0].as_bytes(), ids[1].as_bytes()]).unwrap(), 1);
    drop(db);
    assert!(matches!(index.show(ids[1]).await, Err(IndexError::Database(_))));
    is_all_there(&index, ids).await;
}
