//! A run: lives of the gateway, one after the other, and what a crash leaves between them.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use forebay::journal::{Journal, Located, Room};

use crate::audit::{View, counts};
use crate::clock::pass;
use crate::disk::{Crash, Faults};
use crate::gateway::Gateway;
use crate::shape::{LONGEST_WAIT, Mode, Shape};
use crate::sim::Sim;
use crate::world::Reach;
use crate::{operator, post};

const CHECKPOINT: &str = "checkpoint";

/// What a seed came to.
pub struct Outcome {
    pub seed: u64,
    pub mode: Mode,
    /// Of all that happened, in order.
    pub hash: u64,
    pub reached: Vec<u64>,
    pub wrong: Option<String>,
    pub millis: u64,
}

/// How a life is to end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// After so long, between two steps.
    After(u64),
    /// In the so manieth call of the disk while the journal is opened.
    InOpening(u64),
    /// In the so manieth after that.
    InCall(u64),
    /// When so many more were acknowledged.
    AtAck(u32),
    /// When a delivery has just been given up.
    AtDead,
    /// It is asked to, after so long.
    Asked(u64),
    /// All is well, and it has come to rest.
    Rest,
}

/// What was waiting and dead when a life ended between two steps, with nothing wrong.
type Left = Option<(u64, u64)>;

pub fn run(seed: u64, mode: Mode, print: bool) -> Outcome {
    let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(2) + u64::from(mode == Mode::Liveness));
    let shape = Shape::of(seed, &mut random);
    let sim = Sim::new(seed, shape, random.fork(), print);
    let mut left: Left = None;
    for life in 0..sim.shape.lives {
        if sim.world.is_wrong() {
            break;
        }
        let millis = random.u64(sim.shape.life_millis.clone());
        let end = match random.u8(..10) {
            0..3 => End::After(millis),
            3 => End::InOpening(random.u64(1..60)),
            4..7 => End::InCall(random.u64(1..150)),
            7 => End::AtAck(random.u32(1..20)),
            8 => {
                if random.bool() {
                    End::AtAck(random.u32(1..20))
                } else {
                    End::AtDead
                }
            }
            _ => End::Asked(millis),
        };
        let how = match (end, random.u8(..3)) {
            (End::AtAck(_) | End::AtDead, _) | (_, 2) => Crash::PowerCutAtWorst,
            (_, 0) => Crash::Kill,
            _ => Crash::PowerCut,
        };
        sim.world.note(format_args!("life {life}: {end:?}, {how:?}"));
        left = live(&sim, end, how, left, random.fork());
        if sim.shape.rots && random.u8(..4) > 0 && sim.disk.rot() {
            sim.oracle().rotten += 1;
        }
        if fastrand::Rng::with_seed(seed ^ u64::from(life) << 32).u8(..8) == 0 {
            sim.disk.flip(CHECKPOINT); // it decides nothing, so this costs nothing
        }
    }
    if !sim.world.is_wrong() {
        let end = if mode == Mode::Liveness { End::Rest } else { End::Asked(1) };
        live(&sim, end, Crash::Kill, left, random.fork());
    }
    let (hash, reached, wrong) = sim.world.end();
    Outcome { seed, mode, hash, reached, wrong, millis: sim.now() }
}

fn live(sim: &Arc<Sim>, end: End, how: Crash, before: Left, mut random: fastrand::Rng) -> Left {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without sockets needs nothing");
    let calls = if let End::InOpening(calls) = end { Some(calls) } else { None };
    sim.world.take_disk_failed();
    let left = runtime.block_on(async {
        sim.clock().begin();
        sim.oracle().life_begins();
        sim.oracle().cut_in = if let End::AtAck(left) = end { Some(left) } else { None };
        let left = lived(sim, end, calls, before, random.fork()).await;
        sim.disk.end();
        let now = sim.now();
        sim.clock().end();
        let failed = sim.world.disk_has_failed();
        sim.oracle().life_ends(now, how, failed);
        left.filter(|_| !failed)
    });
    drop(runtime);
    sim.disk.crash(how);
    sim.disk.set_faults(Faults::default());
    sim.disk.leave(None);
    sim.world.reach(if how == Crash::Kill { Reach::Killed } else { Reach::PowerCut });
    sim.clock().away(Duration::from_millis(random.u64(..20_000)));
    if how != Crash::Kill {
        sim.clock().reboot();
    }
    let now = sim.now();
    sim.post().life_ended(now);
    // A power cut forgets what was delivered within the last moment, and no more.
    left.map(|(pending, dead)| if how == Crash::Kill { (pending, dead) } else { (u64::MAX, dead) })
}

async fn lived(sim: &Arc<Sim>, end: End, calls: Option<u64>, before: Left, mut random: fastrand::Rng) -> Left {
    let (view, died) = sim.disk.begin(calls);
    let calm = matches!(end, End::Rest | End::Asked(_));
    if !calm && random.u8(..4) == 0 {
        sim.disk.set_faults(sim.shape.faults);
    }
    let had_checkpoint = sim.disk.has(CHECKPOINT);
    let opened = Gateway::open(sim, view);
    sim.disk.set_faults(Faults::default());
    if had_checkpoint && opened.is_ok() {
        // One that is of no use is removed.
        sim.world.reach(if sim.disk.has(CHECKPOINT) { Reach::FromCheckpoint } else { Reach::PassedOver });
    }
    let gateway = match opened {
        Ok(gateway) => Arc::new(gateway),
        Err(_) if sim.disk.is_dead() => {
            sim.world.reach(Reach::CrashInOpening);
            return before;
        }
        Err(error) if sim.world.disk_has_failed() => {
            sim.world.note(format_args!("opening fails: {error}"));
            sim.world.reach(Reach::OpenFailed);
            return before;
        }
        Err(error) => {
            sim.world.wrong(format_args!("the journal cannot be opened: {error}"));
            return None;
        }
    };
    if !audit(sim, &gateway, before).await {
        return None;
    }
    if let Some(life) = sim.oracle().lives.last_mut() {
        life.opened = true;
    }
    if let End::InCall(calls) = end {
        sim.disk.end_in(calls);
    }
    gateway.run(sim).await;
    let working = async {
        tokio::join!(post::run(Arc::clone(sim), Arc::clone(&gateway.intake)), async {
            if !calm {
                operator::run(Arc::clone(sim), Arc::clone(&gateway), random.fork()).await;
            }
            std::future::pending::<()>().await;
        },)
    };
    let ends = async {
        match end {
            End::After(millis) | End::Asked(millis) => pass(millis).await,
            End::InOpening(_) | End::InCall(_) | End::AtAck(_) => pass(sim.shape.span_millis).await,
            End::AtDead => tokio::select! {
                biased;
                () = given_up(sim, &gateway) => {}
                () = pass(sim.shape.span_millis) => {}
            },
            End::Rest => rest(sim, &gateway).await,
        }
        if !sim.disk.is_dead() {
            sim.world.reach(Reach::CrashBetween);
        }
    };
    let left = tokio::select! {
        biased;
        () = died.notified() => None,
        () = sim.cut.notified() => None,
        () = gateway.tasks.failed() => {
            sim.world.wrong(format_args!("a task has panicked, or a lane was lost"));
            None
        }
        () = failed(sim, &gateway) => None,
        () = ends => (!sim.disk.is_dead()).then(|| counts(&gateway.journal)),
        _ = working => None,
    };
    if gateway.journal.stats().evicted > 0 {
        sim.world.reach(Reach::Evicted);
    }
    if matches!(end, End::Asked(_)) && !sim.disk.is_dead() {
        gateway.journal.close().await;
        sim.world.reach(Reach::Closed);
        return None;
    }
    left
}

/// Waits until a delivery counts as dead.
async fn given_up(sim: &Sim, gateway: &Gateway) {
    loop {
        sim.gone.notified().await;
        let before = counts(&gateway.journal).1;
        for _ in 0..5 {
            if counts(&gateway.journal).1 > before {
                return;
            }
            pass(1).await;
        }
    }
}

/// Waits until the journal takes nothing any more, and the operator has seen that.
async fn failed(sim: &Sim, gateway: &Gateway) {
    while !matches!(gateway.journal.room(), Room::Failed(_)) {
        pass(500).await;
    }
    if !sim.world.disk_has_failed() {
        sim.world.wrong(format_args!("the journal has failed, and the disk has not"));
    }
    pass(2_000).await;
}

/// Holds what is kept against what must be. False if the life ended over it.
async fn audit(sim: &Arc<Sim>, gateway: &Gateway, before: Left) -> bool {
    let view = match View::read(&gateway.journal).await {
        Ok(view) => view,
        Err(_) if sim.disk.is_dead() => return false,
        Err(error) => {
            sim.world.wrong(format_args!("what was kept cannot be read: {error}"));
            return false;
        }
    };
    let now = counts(&gateway.journal);
    sim.world.note(format_args!("opened: {} events, {now:?} deliveries pending and dead", view.events.len()));
    for (reach, count) in [(Reach::CopiedForward, view.moved), (Reach::Trimmed, view.trimmed), (Reach::Lost, view.lost)]
    {
        if count > 0 {
            sim.world.reach(reach);
        }
    }
    let mut oracle = sim.oracle();
    if let Some((pending, dead)) = before.filter(|_| oracle.rotten == 0) {
        let pending_is_as_before = pending == u64::MAX || pending == now.0;
        if !pending_is_as_before || dead != now.1 {
            sim.world
                .wrong(format_args!("D5, D8: {pending} pending and {dead} dead before the crash, {now:?} after it"));
        }
    }
    for name in oracle.paused.keys() {
        if !gateway.paused().contains_key(*name) {
            sim.world.wrong(format_args!("{name} was paused, and is not any more"));
        }
    }
    oracle.audits(sim, &view, now);
    drop(oracle);
    *sim.events.lock().unwrap_or_else(PoisonError::into_inner) =
        view.events.iter().map(|(id, kept)| Located { id: *id, at: kept.at }).collect();
    true
}

/// Waits until there is nothing left to do, within what that may take.
async fn rest(sim: &Arc<Sim>, gateway: &Gateway) {
    operator::heal(sim, gateway).await;
    let until = sim.now() + 2 * sim.shape.span_millis + 10 * LONGEST_WAIT;
    while sim.post().waiting() > 0 || counts(&gateway.journal).0 > 0 {
        if sim.now() > until {
            let (waiting, pending) = (sim.post().waiting(), counts(&gateway.journal).0);
            let room = gateway.journal.room();
            sim.world.wrong(format_args!(
                "liveness: all is well, and {waiting} requests and {pending} deliveries still wait ({room:?})"
            ));
            return;
        }
        pass(500).await;
    }
    match View::read(&gateway.journal).await {
        Ok(view) => {
            let mut oracle = sim.oracle();
            oracle.audits(sim, &view, counts(&gateway.journal));
            oracle.settles(sim, &view);
        }
        Err(error) => sim.world.wrong(format_args!("what was kept cannot be read: {error}")),
    }
}
