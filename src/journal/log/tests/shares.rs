//! What each source's waiting events take, and what that leaves to the others.

use std::collections::BTreeMap;

use super::*;
use crate::event::DeadReason;
use crate::journal::log::entry::Segment;
use crate::journal::log::record::Home;
use crate::journal::{FirstAttempt, Routes};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn routes(sources: &[&str]) -> Routes {
    let to = || ["app", "audit"].map(name);
    sources.iter().fold(Routes::to(to()), |routes, source| routes.with(name(source), to()))
}

fn from(source: &str, bytes: usize, to: &[&str]) -> Entry {
    let event = VerifiedEvent::assumed(Event { source: name(source), ..event(&vec![7; bytes]) });
    Entry { event, ..entry(b"", None, to) }
}

fn unsettled(store: &Store, source: &str) -> u64 {
    let stats = store.journal.stats().sources;
    stats.iter().find(|stats| stats.source.as_str() == source).map_or(0, |stats| stats.unsettled_bytes)
}

/// Appends until the journal will not have more of `source`. Gives how many it took, and why it took no more.
async fn flood(store: &Store, source: &str) -> (u64, AppendError) {
    for number in 0..10_000 {
        if let Err(error) = store.journal.append(from(source, 16 << 10, &["app"]), Sync::Durable).await {
            return (number, error);
        }
    }
    panic!("never full");
}

const SIZE: u64 = 16 << 20;

#[tokio::test]
async fn a_source_that_only_takes_gets_half_and_others_find_room_until_it_is_settled() {
    let store = Store::sized(SIZE);
    store.journal.set_routes(routes(&["hog", "other", "quiet"])).await.unwrap();
    let (hog, quiet) = (name("hog"), name("quiet"));
    let (kept, why) = flood(&store, "hog").await;
    assert!(matches!(why, AppendError::OverShare { .. }), "{why}");
    let half = SIZE * 9 / 20 / (16 << 10); // what is held back for outcomes is nobody's
    assert!(kept.abs_diff(half) < half / 10, "{kept} events are not about {half}");
    assert!(matches!(store.journal.room_for(&hog), Room::OverShare { .. }));
    assert_eq!((store.journal.room_for(&quiet), store.journal.room()), (Room::Open, Room::Open));
    // What does not wait is history from the start, also of this source, and so it is kept.
    store.append(from("hog", 16 << 10, &[])).await;
    let over = FirstAttempt::Over(attempt(1), Verdict::Delivered);
    store.append(Entry { attempt: Some(over.clone()), ..from("hog", 16 << 10, &["app"]) }).await;
    let refused = Entry { attempt: Some(over), ..from("hog", 16 << 10, &["app", "audit"]) };
    assert!(matches!(store.journal.append(refused, Sync::Durable).await, Err(AppendError::OverShare { .. })));

    // Three times as much as the journal holds passes through, and each is taken.
    let mut last = None;
    for _ in 0..3 * SIZE / (16 << 10) {
        last = Some(fresh(store.append(from("quiet", 16 << 10, &["audit"])).await).id);
        let waits = store.pending("audit").await;
        for pending in waits {
            let lane = store.lane("audit");
            store.journal.start(&lane, pending.id, 1).await.unwrap();
            let settled = Settled { delivery: pending.id, attempt: None, verdict: Verdict::Delivered };
            store.journal.settle(&lane, settled).await.unwrap();
        }
    }
    assert!(last.is_some() && unsettled(&store, "quiet") == 0);
    assert_eq!(store.pending("app").await.len() as u64, kept, "nothing that waits was let go of");

    let (other, _) = flood(&store, "other").await;
    assert!(other.abs_diff(kept / 2) < kept / 10, "{other} of {kept}");

    let before = unsettled(&store, "hog");
    let waits = store.pending("app").await;
    for pending in waits.iter().filter(|pending| pending.event.at < waits[kept as usize / 2].event.at) {
        store.settle(pending.id, 1, Verdict::Delivered).await;
    }
    assert!(unsettled(&store, "hog") < before * 6 / 10);
    assert_eq!(store.journal.room_for(&hog), Room::Open, "it resumes by itself");
    store.append(from("hog", 16 << 10, &["app"])).await;
}

#[tokio::test]
async fn a_source_that_is_alone_may_have_the_whole_journal() {
    let store = Store::sized(SIZE);
    store.journal.set_routes(routes(&["hog"])).await.unwrap();
    let (kept, why) = flood(&store, "hog").await;
    assert!(matches!(why, AppendError::Full { .. }), "{why}");
    assert!(kept > SIZE * 8 / 10 / (16 << 10), "{kept}");
    // Another one comes: it has what is left, and the first has to wait.
    store.journal.set_routes(routes(&["hog", "other"])).await.unwrap();
    assert!(store.journal.shared.shares.is_over(&name("hog")));
    assert!(!store.journal.shared.shares.is_over(&name("other")));
}

/// What the state says of each source, counted anew from its entries.
fn counted_anew(store: &Store) -> BTreeMap<Name, u64> {
    let state = store.journal.state();
    let mut found: BTreeMap<Name, u64> = BTreeMap::new();
    for (number, segment) in &state.segments {
        let segment: &Segment = segment;
        let mut next = 0;
        while next < segment.entries.len() {
            let (entries, bytes) = segment.classes.event(next);
            next = entries.end;
            let home = Home { segment: *number, entry: u32::try_from(entries.start).unwrap() };
            if segment.entries[entries].iter().any(|entry| entry.standing().is_unsettled()) {
                *found.entry(state.source(home).unwrap().clone()).or_default() += bytes;
            }
        }
    }
    found
}

/// An event as the model has it: whose, how large, and whether each of its deliveries keeps it from being history.
struct Modelled {
    source: &'static str,
    bytes: u64,
    open: Vec<bool>,
}

/// What is counted is what the events that wait take, whatever has become of them: given up, tried again, sent again,
/// copied forward, let go of, read back after a crash.
#[tokio::test]
async fn what_is_counted_for_a_source_is_what_its_waiting_events_take() {
    for seed in 0..2 {
        run(seed).await;
    }
}

async fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let sources = ["one", "two", "three"];
    let mut store = Store::sized(SMALL);
    store.journal.set_routes(routes(&sources)).await.unwrap();
    let mut model: BTreeMap<EventId, Modelled> = BTreeMap::new();
    let mut attempts: BTreeMap<DeliveryId, u32> = BTreeMap::new();
    for step in 0..900 {
        if step % 150 == 149 {
            let crashed = store.crashed_at(SMALL);
            crashed.journal.set_routes(routes(&sources)).await.unwrap();
            store = crashed;
        }
        match random.u8(..10) {
            0..=4 => {
                let source = sources[random.usize(..3)];
                let bytes = if random.bool() { random.usize(..400) } else { random.usize(..60_000) };
                let to = &["app", "audit", "app"][..random.usize(..4)];
                if let Ok(appended) = store.journal.append(from(source, bytes, to), Sync::Durable).await {
                    let open = vec![true; to.len()];
                    model.insert(fresh(appended).id, Modelled { source, bytes: bytes as u64, open });
                }
            }
            5..=7 => {
                for destination in ["app", "audit", "app"] {
                    let waits = store.pending(destination).await;
                    let Some(pending) = random.choice(&waits) else { continue };
                    let (lane, id) = (store.lane(destination), pending.id);
                    let number = attempts.entry(id).and_modify(|number| *number += 1).or_insert(1);
                    store.journal.start(&lane, id, *number).await.unwrap();
                    let verdict = match random.u8(..8) {
                        0 => Verdict::RetryAt(T0),
                        1 => Verdict::Dead(DeadReason::GaveUp),
                        _ => Verdict::Delivered,
                    };
                    let settled = Settled { delivery: id, attempt: Some(attempt(*number)), verdict };
                    store.journal.settle(&lane, settled).await.unwrap();
                    model.get_mut(&id.event).unwrap().open[usize::from(id.index)] = verdict != Verdict::Delivered;
                }
            }
            8 => {
                let Some(id) = random.choice(model.keys().copied().collect::<Vec<_>>()) else { continue };
                let Some(at) = place(&store, id).await else { continue };
                if let Ok(rearmed) = store.journal.rearm(at, None, Rearm::Replay).await {
                    let open = &mut model.get_mut(&id).unwrap().open;
                    rearmed.iter().for_each(|delivery| open[usize::from(delivery.index)] = true);
                }
            }
            _ => store.journal.trim(Retention::default()).await.unwrap(),
        }
        if step % 20 != 0 {
            continue;
        }
        let anew = counted_anew(&store);
        for source in sources {
            let events: Vec<&Modelled> =
                model.values().filter(|event| event.source == source && event.open.contains(&true)).collect();
            let counted = unsettled(&store, source);
            assert_eq!(counted, anew.get(source).copied().unwrap_or(0), "seed {seed}, step {step}");
            let least: u64 = events.iter().map(|event| event.bytes).sum();
            let most: u64 = events.iter().map(|event| (event.bytes + 700) * 107 / 100).sum();
            assert!((least..=most).contains(&counted), "seed {seed}, step {step}: {counted} of {least} to {most}");
        }
    }
    let oldest = store.journal.state().segments.keys().next().copied();
    assert!(oldest > Some(10), "next to nothing was ever copied forward: {oldest:?}");
}

/// Where `id` is now, by the change stream.
async fn place(store: &Store, id: EventId) -> Option<Located> {
    let (mut after, mut found) = (Position::START, None);
    while after < store.journal.tail() {
        let changes = store.journal.changes(after, 1_000).await.unwrap();
        after = changes.next;
        for change in changes.changes {
            match change {
                Change::Event { at, event, .. } if event.id == id => found = Some(Located { id, at }),
                Change::Trimmed { before, .. } => found = found.filter(|found: &Located| found.at >= before),
                _ => {}
            }
        }
    }
    found
}

#[tokio::test]
async fn dead_letters_past_their_retention_no_longer_count() {
    let store = Store::sized(SMALL);
    store.append(from("one", 1_000, &["app"])).await;
    let id = store.pending("app").await[0].id;
    store.settle(id, 1, Verdict::Dead(DeadReason::GaveUp)).await;
    assert!(unsettled(&store, "one") > 1_000, "it is kept, and can be replayed");
    store.clock.set(T0.plus(HOUR * 24));
    for _ in 0..2 {
        store.journal.trim(Retention { delivered: HOUR, dead: HOUR * 3 }).await.unwrap();
    }
    assert_eq!((store.journal.stats().lanes[0].dead, unsettled(&store, "one")), (0, 0));
    assert_eq!(unsettled(&store.crashed(), "one"), 0);
}
