//! Deliveries whose route is gone: kept, counted, left alone, and taken up where they were once it is back.

use super::*;
use crate::journal::Routes;
use crate::journal::log::routes::ROUTES_MAX;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// The source of every event here, to these, of destinations `app` and `audit`.
fn routes(to: &[&str]) -> Routes {
    Routes::to([name("app"), name("audit")]).with(name("acme"), to.iter().map(|to| name(to)))
}

fn counts(store: &Store, destination: &str) -> (u64, u64, u64) {
    let lanes = store.journal.stats().lanes;
    let lane = lanes.iter().find(|lane| lane.destination.as_str() == destination).unwrap();
    (lane.pending, lane.orphans(), lane.dead)
}

/// A store with four events for `app`: never tried, to be tried again, dead, delivered; each goes to `audit` as well.
async fn store_with_four() -> (Store, Vec<DeliveryId>) {
    let store = Store::new();
    store.journal.set_routes(routes(&["app", "audit"])).await.unwrap();
    for body in [b"1", b"2", b"3", b"4"] {
        store.append(entry(body, None, &["app", "audit"])).await;
    }
    let ids: Vec<_> = store.pending("app").await.iter().map(|pending| pending.id).collect();
    store.settle(ids[1], 1, Verdict::RetryAt(T0.plus(HOUR))).await;
    store.settle(ids[2], 1, Verdict::Dead(DeadReason::GaveUp)).await;
    store.settle(ids[3], 1, Verdict::Delivered).await;
    (store, ids)
}

async fn given(store: &Store) -> Vec<(DeliveryId, u32, UnixMillis, Option<UnixMillis>)> {
    let pending = store.pending("app").await;
    pending.iter().map(|pending| (pending.id, pending.attempts, pending.since, pending.not_before)).collect()
}

#[tokio::test]
async fn what_waits_for_a_route_that_is_gone_is_kept_and_goes_on_where_it_was() {
    let gone = [routes(&["audit"]), Routes::to([name("app")]), Routes::to([name("audit")])];
    for without in gone {
        let (store, ids) = store_with_four().await;
        assert_eq!(counts(&store, "app"), (2, 0, 1));
        store.journal.set_routes(without.clone()).await.unwrap();
        for store in [&store.crashed(), &store.crashed().crashed(), &store] {
            store.journal.set_routes(without.clone()).await.unwrap();
            assert_eq!(counts(store, "app"), (0, 2, 1), "{without:?}");
            assert_eq!(store.pending("app").await.len(), 0);
            for (id, number) in [(ids[0], 1), (ids[1], 2)] {
                let started = store.journal.start(&store.lane("app"), id, number).await;
                assert!(matches!(started, Err(JournalError::Orphaned | JournalError::Unknown)), "{started:?}");
            }
        }
        let back = T0.plus(HOUR * 1000);
        store.clock.set(back);
        store.journal.set_routes(routes(&["app", "audit"])).await.unwrap();
        let expected = [(ids[0], 0, back, None), (ids[1], 1, back, Some(T0.plus(HOUR)))];
        assert_eq!(given(&store).await, expected, "its age begins anew, its attempts do not");
        let later = store.crashed();
        later.clock.set(back.plus(HOUR));
        later.journal.set_routes(routes(&["app", "audit"])).await.unwrap();
        assert_eq!(given(&later).await, expected, "a restart is no return");
        assert_eq!(counts(&later, "app"), (2, 0, 1));
    }
}

#[tokio::test]
async fn an_operator_may_have_an_orphan_delivered_and_a_duplicate_may_not() {
    let (store, ids) = store_with_four().await;
    store.append(entry(b"5", Some(5), &["app"])).await;
    let fifth = store.pending("app").await.last().unwrap().id;
    store.settle(fifth, 1, Verdict::Dead(DeadReason::GaveUp)).await;
    store.journal.set_routes(routes(&["audit"])).await.unwrap();
    let at = |id: DeliveryId| Located { id: id.event, at: Position::START };
    let found = store.journal.changes(Position::START, 100).await.unwrap().changes;
    let at = |id: DeliveryId| {
        let place = found.iter().find_map(|change| match change {
            Change::Event { at, event, .. } if event.id == id.event => Some(*at),
            _ => None,
        });
        Located { at: place.unwrap(), ..at(id) }
    };
    let app = Some(name("app"));
    assert!(matches!(store.append(entry(b"5", Some(5), &["app"])).await, Appended::Duplicate { .. }));
    assert_eq!(counts(&store, "app"), (0, 2, 2), "the duplicate's own source does not send there any more");
    for id in [ids[1], ids[2]] {
        assert_eq!(store.journal.rearm(at(id), app.clone(), Rearm::Replay).await.unwrap(), [id]);
    }
    for store in [&store.crashed(), &store] {
        store.journal.set_routes(routes(&["audit"])).await.unwrap();
        assert_eq!(counts(store, "app"), (2, 1, 1));
        let given: Vec<_> = given(store).await.iter().map(|given| (given.0, given.1)).collect();
        assert_eq!(given, [(ids[1], 1), (ids[2], 1)], "they were asked for, and nothing else was");
    }
    store.settle(ids[1], 2, Verdict::Delivered).await;
    assert_eq!(counts(&store, "app"), (1, 1, 1));
    // Without the destination nobody can deliver them, whoever asks.
    store.journal.set_routes(Routes::to([name("audit")])).await.unwrap();
    assert_eq!(counts(&store, "app"), (0, 2, 1));
    assert_eq!(store.journal.rearm(at(ids[0]), app, Rearm::Replay).await.unwrap(), []);
}

#[tokio::test]
async fn orphans_are_never_let_go_of_and_full_means_refused() {
    let store = Store::sized(SMALL);
    let mut kept = BTreeSet::new();
    let refused = loop {
        match store.journal.append(entry(&[7; 16 << 10], None, &["app"]), Sync::Durable).await {
            Ok(appended) => kept.insert(fresh(appended).id),
            Err(error) => break error,
        };
    };
    assert!(matches!(refused, AppendError::Full { .. }));
    store.journal.set_routes(routes(&[])).await.unwrap();
    store.clock.set(T0.plus(HOUR * 24 * 3650));
    for _ in 0..20 {
        store.journal.trim(Retention { delivered: HOUR, dead: HOUR }).await.unwrap();
    }
    assert!(matches!(store.journal.room(), Room::Full { .. }));
    assert_eq!(counts(&store, "app"), (0, kept.len() as u64, 0));
    for store in [&store.crashed(), &store] {
        store.journal.set_routes(routes(&["app"])).await.unwrap();
        let given: BTreeSet<_> = store.pending("app").await.iter().map(|pending| pending.event.id).collect();
        assert_eq!(given, kept);
    }
}

/// Orphans in front of it keep nobody waiting, however many there are, nor do they take memory.
#[tokio::test]
async fn a_backlog_of_orphans_is_not_held() {
    let store = Store::new();
    for number in 0..2_000u32 {
        store.append(entry(&number.to_le_bytes(), None, &["app"])).await;
    }
    assert_eq!(store.pending("app").await.len(), 2_000); // their owner holds them
    let without = Routes::to([name("app")]).with(name("other"), [name("app")]);
    store.journal.set_routes(without).await.unwrap();
    assert_eq!(store.journal.state().active.len(), 0);
    let other = VerifiedEvent::assumed(Event { source: name("other"), ..event(b"x") });
    let other = Entry { event: other, ..entry(b"", None, &["app"]) };
    let kept = fresh(store.append(other).await);
    let pending = store.pending("app").await;
    assert_eq!(pending.iter().map(|pending| pending.event).collect::<Vec<_>>(), [kept]);
    assert_eq!((counts(&store, "app"), store.journal.state().active.len()), ((1, 2_000, 0), 1));
    let back = Routes::to([name("app")]).with(name("other"), [name("app")]).with(name("acme"), [name("app")]);
    store.journal.set_routes(back).await.unwrap();
    let given: BTreeSet<_> = store.pending("app").await.iter().map(|pending| pending.id).collect();
    assert_eq!(given.len(), 2_001, "whoever reads again from the start is given all of them");
}

#[tokio::test]
async fn events_of_more_routes_than_can_be_told_apart_are_refused_and_those_of_known_ones_are_not() {
    let store = Store::new();
    let from = |source: &str, to: &[&str]| {
        let event = VerifiedEvent::assumed(Event { source: name(source), ..event(b"x") });
        Entry { event, ..entry(b"", None, to) }
    };
    let to: Vec<String> = (0..128).map(|number| format!("d{number}")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    for source in 0..ROUTES_MAX / to.len() {
        store.append(from(&format!("s{source}"), &to)).await;
    }
    let one_more = store.journal.append(from("s1", &["d1", "more"]), Sync::Durable).await;
    assert!(matches!(one_more, Err(AppendError::Full { .. })));
    store.append(from("s1", &["d1"])).await;
    assert_eq!(store.pending("d1").await.len(), 129);
}
