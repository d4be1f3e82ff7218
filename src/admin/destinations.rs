//! The destinations: how they stand, and whether they are delivered to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Of};
use axum::response::{IntoResponse, Response};

use super::State;
use super::access::{MayOperate, MayRead, Who};
use super::events::{Parameters, no_parameters};
use super::problem::Problem;
use super::view::{Destination, Destinations};
use crate::base::Name;
use crate::deliver::{Target, Targets};
use crate::journal::{Journal, LaneStats, Pause, Position};

/// For a look at the oldest delivery of a destination; the journal knows it, and need not search.
const OLDEST_TIMEOUT: Duration = Duration::from_secs(1);

type Called = Result<Path<String>, PathRejection>;

/// All of them, and those that the config no longer has while something is kept for them.
pub(super) async fn list<J: Journal>(
    _: MayRead,
    Of(state): Of<Arc<State<J>>>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    no_parameters(parameters)?;
    let mut lanes = lanes(&state.journal);
    let mut items = Vec::new();
    let targets = Arc::clone(&state.present.load().targets);
    for target in targets.iter() {
        items.push(shown(&state.journal, target, &lanes).await);
        lanes.remove(&target.name);
    }
    let mut gone: Vec<Destination> = lanes.into_values().filter_map(gone).collect();
    gone.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    items.append(&mut gone);
    Ok(Json(Destinations { items }).into_response())
}

/// Leaves a destination alone, until it is resumed; what comes for it meanwhile is kept.
pub(super) async fn pause<J: Journal>(
    MayOperate(who): MayOperate,
    Of(state): Of<Arc<State<J>>>,
    name: Called,
) -> Result<Response, Problem> {
    set(&state, who, name, Pause::Paused).await
}

/// Lets a destination go on.
pub(super) async fn resume<J: Journal>(
    MayOperate(who): MayOperate,
    Of(state): Of<Arc<State<J>>>,
    name: Called,
) -> Result<Response, Problem> {
    set(&state, who, name, Pause::Resumed).await
}

/// 200 once it is durable. What is so already is said again.
async fn set<J: Journal>(state: &State<J>, who: Who, name: Called, pause: Pause) -> Result<Response, Problem> {
    let targets = Arc::clone(&state.present.load().targets);
    let target = called(&targets, name)?;
    let name = &target.name;
    {
        let _one = state.pausing.lock().await;
        if target.pause() != pause {
            state.journal.pause(name, pause).await?;
            target.set_pause(pause);
        }
    }
    let what = match pause {
        Pause::Paused => "pause",
        Pause::Resumed => "resume",
    };
    tracing::info!(target: "audit", who = who.as_str(), what, destination = %name, "operation");
    Ok(Json(shown(&state.journal, target, &lanes(&state.journal)).await).into_response())
}

fn called(targets: &Targets, name: Called) -> Result<&Arc<Target>, Problem> {
    let name = name.ok().and_then(|Path(name)| Name::new(&name).ok());
    name.and_then(|name| targets.get(&name))
        .ok_or(Problem::NotFound("there is no such destination; GET /api/v1/destinations lists them"))
}

fn lanes<J: Journal>(journal: &J) -> HashMap<Name, LaneStats> {
    journal.stats().lanes.into_iter().map(|lane| (lane.destination.clone(), lane)).collect()
}

async fn shown<J: Journal>(journal: &J, target: &Target, lanes: &HashMap<Name, LaneStats>) -> Destination {
    let name = &target.name;
    let (pending, orphaned, dead) = lanes.get(name).map_or((0, 0, 0), |lane| (lane.pending, lane.orphans(), lane.dead));
    Destination {
        name: name.to_string(),
        url: Some(target.way().destination.shown_url()),
        paused: target.pause() == Pause::Paused,
        breaker: Some(target.breaker().as_str().to_owned()),
        pending,
        orphaned,
        dead,
        oldest_pending: if pending == 0 { None } else { oldest(journal, name).await },
    }
}

/// A destination that is not in the config, if something is kept for it.
fn gone(lane: LaneStats) -> Option<Destination> {
    let (orphaned, dead) = (lane.orphans(), lane.dead);
    (orphaned > 0 || dead > 0).then(|| Destination {
        name: lane.destination.to_string(),
        url: None,
        paused: false,
        breaker: None,
        pending: lane.pending,
        orphaned,
        dead,
        oldest_pending: None,
    })
}

/// Since when the delivery that has waited longest waits.
async fn oldest<J: Journal>(journal: &J, destination: &Name) -> Option<String> {
    let lanes = Arc::clone(&journal.lanes().borrow());
    let mut oldest = None;
    for lane in lanes.iter().filter(|lane| lane.destination == *destination) {
        // A lane that has nothing waits, and has nothing to say.
        let first = tokio::time::timeout(OLDEST_TIMEOUT, journal.pending(lane, Position::START, 1)).await;
        let since = first.ok().and_then(Result::ok).and_then(|batch| batch.deliveries.first().map(|first| first.since));
        oldest = [oldest, since].into_iter().flatten().min();
    }
    oldest.map(|since| since.to_string())
}
