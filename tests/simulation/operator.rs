//! What an operator, and the machine around the gateway, do while it runs.

use std::sync::{Arc, PoisonError};

use forebay::base::Name;
use forebay::journal::{Journal, Pause, Rearm};

use crate::clock::pass;
use crate::disk::Faults;
use crate::gateway::Gateway;
use crate::oracle::APPLICATIONS;
use crate::sim::{Routed, Sim};
use crate::world::Reach;

pub async fn run(sim: Arc<Sim>, gateway: Arc<Gateway>, mut random: fastrand::Rng) {
    loop {
        pass(random.u64(100..4_000)).await;
        if sim.disk.is_dead() {
            return;
        }
        match random.u8(..10) {
            0 => pause(&sim, &gateway, random.usize(..3)).await,
            1 => {
                reload(&sim, &gateway, [Routed::All, Routed::All, Routed::NoAudit, Routed::Few][random.usize(..4)])
                    .await
            }
            2 | 3 => replay(&sim, &gateway, &mut random).await,
            4 if sim.shape.jumps => {
                let hour = 3_600_000;
                let by = [hour, -hour, 240 * hour, -87_600 * hour, 30_000][random.usize(..5)];
                sim.world.note(format_args!("the clock is set by {by} ms"));
                sim.world.reach(Reach::ClockJump);
                sim.clock().jump(by);
                sim.oracle().clock_jumps(by);
            }
            5 => {
                let more = random.u64(..40_000);
                sim.world.note(format_args!("the disk has {more} bytes left"));
                sim.disk.leave(Some(more));
                pass(random.u64(100..5_000)).await;
                sim.disk.leave(None);
            }
            6..9 => {
                sim.disk.set_faults(sim.shape.faults);
                pass(random.u64(100..20_000)).await;
                sim.disk.set_faults(Faults::default());
            }
            _ => {
                let orphans = gateway.journal.stats().lanes.iter().any(|lane| lane.orphans() > 0);
                if orphans {
                    sim.world.reach(Reach::Orphaned);
                }
            }
        }
    }
}

async fn pause(sim: &Arc<Sim>, gateway: &Gateway, number: usize) {
    let (name, _) = APPLICATIONS[number];
    let name = Name::new(name).expect("a name");
    let Some(target) = gateway.targets.get(&name) else { return };
    let was_paused = sim.oracle().paused.remove(APPLICATIONS[number].0).is_some() || target.pause() == Pause::Paused;
    let to = if was_paused { Pause::Resumed } else { Pause::Paused };
    sim.world.note(format_args!("{name}: {to:?}"));
    target.set_pause(to);
    if gateway.journal.pause(&name, to).await.is_ok() && to == Pause::Paused && !sim.disk.is_dead() {
        sim.world.reach(Reach::Paused);
        let now = sim.now();
        sim.oracle().paused.insert(APPLICATIONS[number].0, now);
    }
}

/// Another config: what takes events is told first, as in the program.
pub async fn reload(sim: &Arc<Sim>, gateway: &Gateway, routed: Routed) {
    sim.world.note(format_args!("reload: {routed:?}"));
    sim.world.reach(Reach::Reload);
    sim.oracle().routes_since = u64::MAX;
    sim.set_routes(routed);
    gateway.route(sim, routed);
    let _ = gateway.journal.set_routes(routed.routes()).await; // they are followed all the same
    let now = sim.now();
    sim.oracle().routes_since = now;
}

async fn replay(sim: &Arc<Sim>, gateway: &Gateway, random: &mut fastrand::Rng) {
    let event = {
        let events = sim.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.is_empty() { None } else { Some(events[random.usize(..events.len())]) }
    };
    let Some(event) = event else { return };
    sim.oracle().replays(event.id);
    if let Ok(rearmed) = gateway.journal.rearm(event, None, Rearm::Replay).await
        && !rearmed.is_empty()
    {
        sim.world.reach(Reach::Replay);
        sim.world.note(format_args!("replay: {} deliveries of {}", rearmed.len(), event.id));
    }
}

/// All is well from now on.
pub async fn heal(sim: &Arc<Sim>, gateway: &Gateway) {
    sim.disk.set_faults(Faults::default());
    sim.disk.leave(None);
    sim.moods().healed = true;
    sim.oracle().paused.clear();
    for (name, _) in APPLICATIONS {
        let name = Name::new(name).expect("a name");
        if let Some(target) = gateway.targets.get(&name) {
            target.set_pause(Pause::Resumed);
        }
        if let Err(error) = gateway.journal.pause(&name, Pause::Resumed).await {
            sim.world.wrong(format_args!("{name} cannot be resumed on a good disk: {error}"));
        }
    }
    reload(sim, gateway, Routed::All).await;
}
