//! `forebay serve`: the gateway itself.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::admin;
use crate::app::{self, Ended, Origin, StartError};
use crate::base::Chain;
use crate::config::{Config, Problem};
use crate::journal::log::OpenError;
use crate::telemetry::logs;

/// Runs the gateway until SIGTERM or SIGINT.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The config file, instead of `--config`
    pub(super) file: Option<PathBuf>,
    /// Read the config again only on SIGHUP and `forebay reload`, not when its files change
    #[arg(long)]
    pub(super) no_watch: bool,
}

/// Runs the command with a config that has been read; `warnings` are what reading it brought up.
///
/// # Errors
/// Why it could not start.
pub fn run(mut config: Config, warnings: &[Problem], origin: Origin) -> anyhow::Result<ExitCode> {
    let log = logs::init(&config.log)?;
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok(); // an error means it is installed
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    fit_into_descriptors(&mut config);
    let (sources, destinations) = (config.sources.len(), config.destinations.len());
    let ended = app::run(config, origin, log, |addresses| {
        let public: Vec<_> = addresses.ingress.iter().map(ToString::to_string).collect();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            ingress = public.join(","),
            admin = %addresses.admin,
            sources,
            destinations,
            "ready"
        );
    });
    match ended {
        Ok(Ended::Drained) => {
            tracing::info!("stopped; everything under way was finished");
            Ok(ExitCode::SUCCESS)
        }
        Ok(Ended::CutShort) => {
            tracing::warn!("stopped before everything under way was finished; what was acknowledged is kept");
            Ok(ExitCode::SUCCESS)
        }
        Ok(Ended::Failed) => {
            tracing::error!("stopped because a part of the gateway failed; what was acknowledged is kept");
            Ok(ExitCode::FAILURE)
        }
        Err(error) => {
            eprintln!("forebay: {}", Chain(&error));
            let locked = matches!(error, StartError::Journal(OpenError::Locked { .. }));
            Ok(if locked { ExitCode::from(3) } else { ExitCode::FAILURE })
        }
    }
}

/// Sees to it that the connections leave enough file descriptors to everything else: the journal, the index, the admin
/// side, the applications. Out of descriptors, the gateway could neither keep nor deliver what it has taken.
///
/// The soft limit is raised first; where the hard one is too low for all connections there are fewer of them.
fn fit_into_descriptors(config: &mut Config) {
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
