//! `forebay serve`: the gateway itself.

use std::path::PathBuf;
use std::process::ExitCode;

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
pub fn run(config: Config, warnings: &[Problem], origin: Origin) -> anyhow::Result<ExitCode> {
    let log = logs::init(&config.log)?;
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok(); // an error means it is installed
    for warning in warnings {
        tracing::warn!("{warning}");
    }
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
            Ok(match error {
                StartError::Journal(OpenError::Locked { .. }) => ExitCode::from(3),
                StartError::Journal(OpenError::NoKey(_)) => ExitCode::from(2), // it is the config that lacks it
                _ => ExitCode::FAILURE,
            })
        }
    }
}
