//! Rate limits, and whether the clients that they count can be told apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderName;

use super::values;
use crate::config::problems::suggest;
use crate::config::reader::{Field, Map};
use crate::ingress;
use crate::provider::Preset;
use crate::source::{Per, RateLimit, SourceSettings};

/// A source's: one, or a list.
pub fn rate_limits(field: &Field<'_>) -> Vec<RateLimit> {
    field.one_or_list().iter().filter_map(rate_limit).collect()
}

fn rate_limit(item: &Field<'_>) -> Option<RateLimit> {
    if item.is_scalar() {
        return short(item, Per::Source);
    }
    let map = item.map()?;
    let per = map.get("per").map_or(Some(Per::Source), |field| per(&field));
    long(&map, per)
}

/// The budget for what fails verification.
pub fn unverified(field: &Field<'_>) -> Option<RateLimit> {
    if field.is_scalar() { short(field, Per::Unverified) } else { long(&field.map()?, Some(Per::Unverified)) }
}

/// `100/s`.
fn short(field: &Field<'_>, per: Per) -> Option<RateLimit> {
    let rate = values::rate(field)?;
    Some(RateLimit { rate, burst: rate.count, per })
}

/// A mapping of `rate` and perhaps `burst`.
fn long(map: &Map<'_>, per: Option<Per>) -> Option<RateLimit> {
    let burst = map.count("burst");
    let Some(field) = map.get("rate") else {
        map.missing("rate", "no rate; write one, like `rate: 100/s`");
        return None;
    };
    let rate = values::rate(&field)?;
    let (burst, most) = (burst.unwrap_or(rate.count), RateLimit::burst_max(rate));
    if let Some(field) = map.get("burst").filter(|_| burst > most) {
        field.error(format!(
            "a burst of {burst} takes more than a year to come back at {rate}; write {most} at most, or a faster rate"
        ));
        return None;
    }
    Some(RateLimit { rate, burst, per: per? })
}

fn per(field: &Field<'_>) -> Option<Per> {
    field.parse("`source`, `client_ip` or `header:NAME`", |text| match text {
        "source" => Ok(Per::Source),
        "client_ip" => Ok(Per::ClientIp),
        _ => match text.strip_prefix("header:") {
            Some(name) => header(name).map(Per::Header),
            None => {
                let cure = suggest(text, ["source", "client_ip", "header:NAME"]);
                Err(format!("`{text}` is not one of the words here; {cure}"))
            }
        },
    })
}

fn header(name: &str) -> Result<HeaderName, String> {
    let header: HeaderName =
        name.parse().map_err(|_| format!("`{name}` is not a header's name; write one like `header:X-Tenant`"))?;
    if ["forebay-", "forebay_"].iter().any(|ours| header.as_str().starts_with(ours)) {
        return Err(format!("`{name}` is taken out of every request; name a header that senders set"));
    }
    Ok(header)
}

/// A limit on a source whose provider drops what is answered 429 loses webhooks.
pub fn warn_of_lost_429(map: &Map<'_>, limits: &[RateLimit], preset: &Preset) {
    if limits.is_empty() || preset.retries.after_429 {
        return;
    }
    if let Some(field) = map.get("rate_limit") {
        field.warn(format!(
            "`{}` does not send again after a 429, so what is over the limit is lost; limit the destination instead",
            preset.name
        ));
    }
}

/// Behind a proxy that is not trusted all clients have the proxy's address. That is sure to be so where every listener
/// is on loopback, which nobody else reaches.
pub fn are_hidden(ingress: &ingress::Settings) -> bool {
    ingress.trusted_proxies.is_empty()
        && !ingress.listen.is_empty()
        && ingress
            .listen
            .iter()
            .all(|listen| listen.address.is_local() && listen.proxy_protocol == ingress::ProxyProtocol::Off)
}

const HIDDEN: &str =
    "only this machine reaches `ingress.listen`, so senders come through a proxy and all have its address";
const CURE: &str = "name the proxy in `ingress.trusted_proxies`";

/// What a source asks of a client's address while all have the same one.
pub fn warn_of_hidden_clients(source: &SourceSettings, map: &Map<'_>, ingress: &ingress::Settings) {
    if !are_hidden(ingress) {
        return;
    }
    let allows = |ip: IpAddr| source.allow_ips.iter().any(|net| net.contains(&ip));
    let lets_the_proxy_in = allows(Ipv4Addr::LOCALHOST.into()) || allows(Ipv6Addr::LOCALHOST.into());
    if let Some(field) = map.get("allow_ips").filter(|_| !source.allow_ips.is_empty() && !lets_the_proxy_in) {
        field.warn(format!("{HIDDEN}, which is not on this list; {CURE}"));
    }
    let per_client = source.rate_limits.iter().any(|limit| limit.per == Per::ClientIp);
    if let Some(field) = map.get("rate_limit").filter(|_| per_client) {
        field.warn(format!("{HIDDEN}, and `per: client_ip` counts them together; {CURE}"));
    }
}

/// As [`warn_of_hidden_clients`], for the budget that all sources share: one forger would spend it for everybody.
pub fn warn_of_a_shared_budget(map: &Map<'_>, ingress: &ingress::Settings) {
    let field = map.get("unverified").filter(|_| ingress.limits.unverified.is_some() && are_hidden(ingress));
    if let Some(field) = field {
        field.warn(format!("{HIDDEN}, and a forger would spend this for everybody; {CURE}"));
    }
}
