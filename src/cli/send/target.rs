//! Where to send: the config's source for a provider, and its address as seen from this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{anyhow, bail, ensure};
use http::{HeaderValue, Uri};

use super::Args;
use crate::config::{self, Config};
use crate::ingress::{Listen, ProxyProtocol};
use crate::provider::Preset;
use crate::source::SourceSettings;

/// The source to send to: the named one, or the only one for the provider.
pub(super) fn source<'c>(args: &Args, config: Option<&'c Config>) -> anyhow::Result<Option<&'c SourceSettings>> {
    let sources = config.map_or(&[][..], |config| &config.sources);
    let called = |preset: &Preset| {
        [&preset.name].into_iter().chain(&preset.aliases).any(|name| *name.as_str() == *args.provider)
    };
    if let Some(name) = &args.source {
        let named = sources.iter().find(|source| *source.name.as_str() == **name);
        let source = named.ok_or_else(|| anyhow!("the config has no source `{name}`; it has {}", names(sources)))?;
        let preset = &source.preset.name;
        ensure!(called(&source.preset), "source `{name}` is for `{preset}`, not for `{}`", args.provider);
        return Ok(Some(source));
    }
    let matching: Vec<_> = sources.iter().filter(|source| called(&source.preset)).collect();
    match matching.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        _ if args.to.is_some() && args.secret.is_some() => Ok(None),
        several => {
            let several = names(several.iter().copied());
            bail!("several sources are for `{}`: {several}; choose one with --source", args.provider)
        }
    }
}

fn names<'s>(sources: impl IntoIterator<Item = &'s SourceSettings>) -> String {
    let names: Vec<&str> = sources.into_iter().map(|source| source.name.as_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

pub(super) fn built_in(name: &str) -> anyhow::Result<Preset> {
    let presets = config::presets::built_in().map_err(|problems| anyhow!("{problems}"))?;
    let preset = config::presets::find(&presets, name).cloned();
    preset.ok_or_else(|| anyhow!("no provider is called `{name}`; `forebay providers list` names them"))
}

/// Where `source` can be reached from this machine: at the first listener that this command can speak to.
pub(super) fn address(config: &Config, source: &SourceSettings) -> anyhow::Result<Uri> {
    let path = &source.path;
    ensure!(!path.contains('{'), "the path `{path}` has parameters; write the whole address with --to");
    let speaks = |listen: &&Listen| listen.proxy_protocol == ProxyProtocol::Off;
    let addresses = config.ingress.listen.iter().filter(speaks);
    let mut addresses = addresses.filter_map(|listen| Some((listen, listen.address.tcp()?)));
    let (listen, address) = addresses.next().ok_or_else(|| {
        anyhow!("no listener is a plain address and port (they are unix:, fd:, or want a PROXY header); give --to")
    })?;
    ensure!(address.port() != 0, "the gateway listens on any free port; write its address with --to");
    Ok(format!("{}{path}", origin(listen, address)).parse()?)
}

fn origin(listen: &Listen, address: SocketAddr) -> String {
    let scheme = if listen.tls.is_none() { "http" } else { "https" };
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("{scheme}://{}", SocketAddr::new(ip, address.port()))
}

/// The name that the source is found under, where it is for one.
pub(super) fn host(source: &SourceSettings) -> Option<HeaderValue> {
    let host = source.host.as_deref()?;
    host.replace("*.", "sample.").parse().ok()
}
