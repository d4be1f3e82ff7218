//! A tree into [`Config`]: one file a section.

mod admin;
mod destination;
mod ingress;
mod journal;
mod limits;
mod log;
mod paths;
mod secrets;
mod source;
mod values;

use super::presets::Presets;
use super::reader::{Field, Map};
use super::{Config, GRACE};

pub(super) use values::{
    any_place, content_type, first_of, header_name, method, methods, network, place, proved_key_rule, respond, status,
    word,
};

/// The config that stands at `root`. Problems go to the root's reader; with an error among them it is of no use.
///
/// `presets` are those there are, built-in and the user's.
pub(super) fn config(root: &Map<'_>, presets: &Presets) -> Config {
    let destinations = destination::all(root);
    let ingress = ingress::settings(root);
    let public_url = ingress::public_url(root);
    let known = source::Known { presets, destinations: &destinations.names, ingress: &ingress, public_url };
    let sources = source::all(root, &known);
    if let Some(used) = &sources.used {
        destination::warn_of_unused(root, used);
    }
    let config = Config {
        admin: admin::settings(root),
        journal: journal::settings(root),
        log: log::settings(root),
        shutdown_grace: root.duration("shutdown_grace").unwrap_or(GRACE),
        ingress,
        sources: sources.settings,
        destinations: destinations.settings,
    };
    check_addresses(root, &config);
    config
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

/// The names of a mapping that people chose, each with its value.
fn named<'t>(root: &Map<'t>, key: &str) -> Vec<(crate::base::Name, Field<'t>)> {
    let entries = root.get(key).map(|field| field.named()).unwrap_or_default();
    entries.into_iter().filter_map(|(entry, field)| Some((field.name(&entry.key)?, field))).collect()
}
