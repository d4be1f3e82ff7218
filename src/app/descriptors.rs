//! File descriptors: how many the process may have, and how many of them connections may take.

use crate::admin;
use crate::config::Config;

/// Sees to it that the connections leave enough file descriptors to everything else: the journal, the index, the admin
/// side, the applications. Out of descriptors, the gateway could neither keep nor deliver what it has taken.
///
/// The soft limit is raised first; where the hard one is too low for all connections there are fewer of them.
pub(super) fn fit(config: &mut Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let connections = config.ingress.limits.connections;
    let reserve = reserve(config);
    let wanted = (connections as u64).saturating_add(reserve);
    let now = getrlimit(Resource::Nofile);
    let Some(current) = now.current.filter(|current| *current < wanted) else { return };
    let mut limit = now.maximum.map_or(wanted, |hard| hard.min(wanted)).max(current);
    if limit > current
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: now.maximum })
    {
        tracing::warn!(%error, "the limit on open files could not be raised");
        limit = current;
    }
    if limit < wanted {
        let fewer = usize::try_from(limit - reserve.min(limit / 4 * 3)).unwrap_or(connections).max(1);
        tracing::warn!(
            open_files = limit,
            wanted,
            configured = connections,
            connections = fewer,
            "open files are limited, so there are fewer connections than ingress.limits.connections; raise `ulimit -n`"
        );
        config.ingress.limits.connections = fewer;
    }
}

/// Descriptors that are not for connections of the public side.
fn reserve(config: &Config) -> u64 {
    const OWN: u64 = 128; // listeners, runtimes, journal, index, signals, and a file read now and then
    let attempts = config.destinations.iter().map(|one| one.concurrency as u64).sum::<u64>();
    OWN + admin::CONNECTIONS as u64 + attempts
}
