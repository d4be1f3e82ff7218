//! A tree into [`Config`]: one file a section.

mod admin;
mod destination;
mod encryption;
mod ingress;
mod journal;
mod limits;
mod log;
mod paths;
mod secrets;
mod source;
mod values;

use std::net::{IpAddr, Ipv4Addr};

use super::presets::Presets;
use super::reader::{Field, Map};
use super::{Config, GRACE};
use crate::deliver::Destination;
use crate::ingress::Listen;
use crate::provider::Place;
use crate::source::SourceSettings;

pub(super) use values::{
    any_place, content_type, first_of, header_name, method, methods, network, place, proved_key_rule, respond, status,
    word,
};

/// The config that stands at `root`. Problems go to the root's reader; with an error among them it is of no use.
///
/// `presets` are those there are, built-in and the user's.
pub(super) fn config(root: &Map<'_>, presets: &Presets) -> Config {
    let destinations = destination::all(root);
    let mut ingress = ingress::settings(root);
    let public_url = ingress::public_url(root);
    let known = source::Known { presets, destinations: &destinations.names, ingress: &ingress, public_url };
    let sources = source::all(root, &known);
    if let Some(used) = &sources.used {
        destination::warn_of_unused(root, used);
    }
    ingress.secret_paths = secret_paths(&sources.settings);
    let config = Config {
        admin: admin::settings(root),
        journal: journal::settings(root),
        log: log::settings(root),
        shutdown_grace: root.duration("shutdown_grace").unwrap_or(GRACE),
        written: super::diff::Written::default(),
        ingress,
        sources: sources.settings,
        destinations: destinations.settings,
    };
    check_addresses(root, &config);
    encryption::check_apart(root, &config);
    warn_of_loops(root, &config);
    config
}

/// The paths that have a secret in them.
fn secret_paths(sources: &[SourceSettings]) -> Vec<String> {
    let is_secret =
        |source: &&SourceSettings| source.preset.secret_places().iter().any(|place| matches!(place, Place::Param(_)));
    sources.iter().filter(is_secret).map(|source| source.path.clone()).collect()
}

/// The private side alone, for a command that only asks a running gateway: it needs no source's secret.
pub(super) fn admin_alone(root: &Map<'_>) -> crate::admin::Settings {
    admin::settings(root)
}

/// The two sides cannot share an address.
fn check_addresses(root: &Map<'_>, config: &Config) {
    let admin = config.admin.listen;
    if admin.port() != 0 && config.ingress.listen.iter().any(|listen| listen.address.tcp() == Some(admin)) {
        let field = root.section("admin").and_then(|map| map.get("listen"));
        let message = "the public side's address, too; give the private side its own";
        match field {
            Some(field) => field.error(message),
            None => root.missing("admin", message),
        }
    }
}

/// A destination that is the gateway's own public side.
fn warn_of_loops(root: &Map<'_>, config: &Config) {
    let is_own = |destination: &Destination| {
        let url = &destination.url;
        let host = url.host().map(|host| host.trim_matches(['[', ']'])).unwrap_or_default();
        let ip = if host == "localhost" { Some(Ipv4Addr::LOCALHOST.into()) } else { host.parse::<IpAddr>().ok() };
        let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
        let listens = |ip: IpAddr, own: IpAddr| own == ip || (own.is_unspecified() && ip.is_loopback());
        let own = |listen: &Listen| {
            let own = listen.address.tcp().filter(|own| own.port() == port);
            own.zip(ip).is_some_and(|(own, ip)| listens(ip, own.ip()))
        };
        config.ingress.listen.iter().any(own)
    };
    for (name, field) in named(root, "destinations") {
        let url = field.peek("url").filter(|_| config.destination(&name).is_some_and(is_own));
        if let Some(url) = url {
            url.warn("this is `ingress.listen`, so the gateway would send to itself; write where the application is");
        }
    }
}

/// The names of a mapping that people chose, each with its value.
fn named<'t>(root: &Map<'t>, key: &str) -> Vec<(crate::base::Name, Field<'t>)> {
    let entries = root.get(key).map(|field| field.named()).unwrap_or_default();
    entries.into_iter().filter_map(|(entry, field)| Some((field.name(&entry.key)?, field))).collect()
}
