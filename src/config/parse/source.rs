//! `sources`: the public endpoints.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};
use ipnet::IpNet;

use crate::admit::largest_request;
use crate::base::{ByteSize, Name, format_duration};
use crate::config::presets::{self, Presets};
use crate::config::problems::{nearest, suggest};
use crate::config::reader::{Field, Map};
use crate::ingress::{self, Limits};
use crate::provider::{Check, KeyRule, Keyring, Preset, Respond};
use crate::source::{DedupeSettings, Mode, OnDead, Route, SourceSettings, Tolerance};

use super::paths::{Paths, host};
use super::{limits, secrets, values};

/// For how long a key is held where nobody knows how long its provider retries.
const WINDOW: Duration = Duration::from_secs(72 * 3600);
/// How long we take to answer where nobody knows how long the provider waits.
const DEADLINE: Duration = Duration::from_secs(8);
const BODY_LIMIT: ByteSize = ByteSize(1 << 20);
/// A delivery's place among those of its event is one byte.
const ROUTES_MAX: usize = 255;

/// What a source may refer to.
pub struct Known<'k> {
    /// The presets, built-in and the user's.
    pub presets: &'k Presets,
    /// The destinations' names.
    pub destinations: &'k [Name],
    /// The public side.
    pub ingress: &'k ingress::Settings,
    /// The public URL of sources without their own.
    pub public_url: Option<Box<str>>,
}

/// The sources that are sound, and every destination that any source names; none where a route is lost to a slip.
pub struct Sources {
    pub settings: Vec<SourceSettings>,
    pub used: Option<Vec<Name>>,
}

pub fn all(root: &Map<'_>, known: &Known<'_>) -> Sources {
    let mut paths = Paths::default();
    let named = super::named(root, "sources");
    let all_named = root.get("sources").is_none_or(|field| field.named().len() == named.len());
    let mut sources = Sources { settings: Vec::new(), used: all_named.then(Vec::new) };
    if named.is_empty() && all_named {
        let field = root.get("sources").unwrap_or_else(|| root.field().clone());
        field.warn_at_key("no sources, so no webhook is taken; write one under `sources`".to_owned());
    }
    for (name, field) in named {
        let Some(map) = field.map() else { continue };
        let routes = routes(&map, known.destinations);
        let named = routes.as_ref().map(|routes| routes.iter().map(|route| route.destination.clone()));
        sources.used = sources.used.zip(named).map(|(used, named)| used.into_iter().chain(named).collect());
        let Some(source) = source(name, &map, routes, known) else { continue };
        paths.add(&source, &map);
        check_against_ingress(&source, &map, known.ingress);
        limits::warn_of_hidden_clients(&source, &map, known.ingress);
        sources.settings.push(source);
    }
    sources
}

/// One source. Everything is looked at before anything missing ends it, so that all problems come out at once.
fn source(name: Name, map: &Map<'_>, routes: Option<Vec<Route>>, known: &Known<'_>) -> Option<SourceSettings> {
    let host = map.get("host").and_then(|field| field.parse("a host's name", host));
    let path = match map.get("path") {
        Some(field) => field.parse("a path like `/webhooks/acme`", values::url_path),
        None => Some(format!("/{name}")),
    };
    let mode = mode(map, routes.as_deref());
    let rate_limits = map.unless_off("rate_limit").map(|field| limits::rate_limits(&field)).unwrap_or_default();
    let body_limit = map.size("body_limit").unwrap_or(BODY_LIMIT);
    let deadline = map.duration("deadline");
    let methods = map.get("methods").and_then(|field| values::methods(&field));

    let identity = identity(&name, map, known.presets);
    let preset = identity.as_ref().map_or_else(|| Arc::new(Preset::none()), |(preset, _)| Arc::clone(preset));
    let allow_ips = map.unless_off("allow_ips").map(|field| allow_ips(&field, identity.as_ref().map(|_| &*preset)));
    let tolerance = tolerance(map, &preset);
    let public_url = public_url(map, &preset, known);
    let dedupe = dedupe(map, &preset, tolerance);
    let respond = respond(map, &preset);
    refuse_swallowed_events(map, methods.as_deref().unwrap_or_default(), &preset);
    limits::warn_of_lost_429(map, &rate_limits, &preset);
    Some(SourceSettings {
        methods: methods.unwrap_or_else(|| preset.methods.clone()),
        deadline: deadline.unwrap_or_else(|| preset.answer.within.map_or(DEADLINE, |within| within.mul_f64(0.8))),
        keyring: identity?.1,
        routes: routes?,
        path: path?,
        mode,
        name,
        host,
        preset,
        tolerance,
        public_url,
        body_limit,
        allow_ips: allow_ips.unwrap_or_default(),
        rate_limits,
        dedupe,
        respond,
    })
}

fn mode(map: &Map<'_>, routes: Option<&[Route]>) -> Mode {
    let mode = map.word("mode", &[("store", Mode::Store), ("proxy", Mode::Proxy)]).unwrap_or(Mode::Store);
    if let Some(field) = map.get("mode").filter(|_| mode == Mode::Proxy && routes.is_some_and(<[Route]>::is_empty)) {
        field.error("`to` names no destination, so nobody would answer; name one, or write `mode: store`");
    }
    mode
}

/// Who sends, and the secrets that prove it.
fn identity(name: &Name, map: &Map<'_>, presets: &Presets) -> Option<(Arc<Preset>, Keyring)> {
    match (map.get("provider"), map.get("verify")) {
        (Some(provider), None) => {
            let Some(preset) = preset(&provider, presets) else {
                secrets::read_all(map, name.as_str());
                return None;
            };
            let keyring = secrets::keyring(map, name.as_str(), &preset);
            Some((preset, keyring))
        }
        (None, Some(verify)) => {
            if verify.written() != Some("none") {
                verify.error("only `none` can stand here; to check signatures, name the `provider` instead");
                return None;
            }
            for field in ["secret", "secrets", "tolerance"].into_iter().filter_map(|key| map.get(key)) {
                field.error("`verify: none` checks nothing, so this means nothing; take one of them away");
            }
            verify.warn(format!("nothing is checked: anybody who finds `{name}` can send to it"));
            Some((Arc::new(Preset::none()), Keyring::default()))
        }
        (Some(_), Some(verify)) => {
            verify.error("`provider` and `verify` both stand here; keep `provider` to check signatures");
            None
        }
        (None, None) => {
            secrets::read_all(map, name.as_str());
            let cure = "name the `provider`, or write `verify: none`";
            map.missing("provider", format!("source `{name}` does not say who sends; {cure}"));
            None
        }
    }
}

/// The preset that `field` names. One that has problems of its own is no second problem here.
fn preset(field: &Field<'_>, presets: &Presets) -> Option<Arc<Preset>> {
    let text = field.text()?;
    let found = presets.find(&text.value);
    if found.is_none() && !presets.is_broken(&text.value) {
        field.error(unknown_provider(&text.value, text.outside, presets));
    }
    found
}

fn unknown_provider(name: &str, outside: bool, presets: &Presets) -> String {
    if outside {
        return "what stands here comes from outside and names no preset; see `forebay providers list`".to_owned();
    }
    let cure = match nearest(name, presets.names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "see `forebay providers list`, or write a preset under `providers`".to_owned(),
    };
    format!("there is no provider `{name}`; {cure}")
}

fn routes(map: &Map<'_>, destinations: &[Name]) -> Option<Vec<Route>> {
    let Some(field) = map.get("to") else {
        map.missing("to", "nothing says where its events go; write `to: [NAME]`, or `to: []` to capture only");
        return None;
    };
    if field.is_scalar() {
        field.error("one value stands here; write a list, `to: [NAME]`");
        return None;
    }
    let items = field.list("`to: [NAME]`");
    if items.len() > ROUTES_MAX {
        field.error(format!("{} destinations for one event; {ROUTES_MAX} are the most", items.len()));
    }
    let routes: Vec<Option<Route>> = items.iter().map(|item| route(item, destinations)).collect();
    for (index, (item, route)) in items.iter().zip(&routes).enumerate() {
        if route.is_some() && routes.iter().take(index).any(|earlier| earlier == route) {
            item.error("this destination and path are there already; leave one of them out");
        }
    }
    routes.into_iter().collect()
}

fn route(item: &Field<'_>, destinations: &[Name]) -> Option<Route> {
    if item.is_scalar() {
        return Some(Route { destination: destination(item, destinations)?, path: None });
    }
    let map = item.map()?;
    let path = map.get("path").map(|field| field.parse("a path like `/hooks`", route_path));
    match map.get("destination") {
        Some(field) => {
            let destination = destination(&field, destinations)?;
            Some(Route { destination, path: path.map_or(Some(None), |path| path.map(Some))? })
        }
        None => {
            map.missing("destination", "no destination; write its name");
            None
        }
    }
}

/// A path that goes on the wire as it stands: there is nothing to fill in yet.
fn route_path(text: &str) -> Result<String, String> {
    if text.contains(['{', '}']) {
        return Err("`{` and `}` are not available in this version yet; write the path itself".to_owned());
    }
    values::url_path(text)
}

fn destination(field: &Field<'_>, destinations: &[Name]) -> Option<Name> {
    field.parse("a destination's name", |text| match destinations.iter().find(|name| name.as_str() == text) {
        Some(name) => Ok(name.clone()),
        None => {
            let cure = suggest(text, destinations.iter().map(Name::as_str).collect::<Vec<_>>());
            Err(format!("there is no destination `{text}`; {cure}"))
        }
    })
}

/// `preset` is none where the source has none that is sound.
fn allow_ips(field: &Field<'_>, preset: Option<&Preset>) -> Vec<IpNet> {
    if field.written() == Some("provider") {
        let listed = preset.map(|preset| preset.ips.clone()).unwrap_or_default();
        if let Some(preset) = preset.filter(|preset| preset.ips.is_empty()) {
            field.error(format!("the preset `{}` lists no networks; write them here", preset.name));
        }
        return listed;
    }
    let items = field.one_or_list();
    if field.is_list() && items.is_empty() {
        field.error("an empty list lets nobody in; write networks, or `off`");
    }
    items.iter().filter_map(values::network).collect()
}

/// A handshake that is known by its method alone would take every event that comes with that method.
fn refuse_swallowed_events(map: &Map<'_>, methods: &[Method], preset: &Preset) {
    let Some(field) = map.get("methods") else { return };
    for handshake in preset.handshakes.iter().filter(|handshake| handshake.when.is_empty()) {
        if let Some(method) = handshake.method.as_ref().filter(|method| methods.contains(method)) {
            let name = &handshake.name;
            field.error(format!(
                "`{}` answers every {method} itself, as its handshake `{name}`; take {method} out",
                preset.name
            ));
        }
    }
}

/// The URL in front of the path, the source's own or the one of all; an error where the preset cannot do without.
fn public_url(map: &Map<'_>, preset: &Preset, known: &Known<'_>) -> Option<Box<str>> {
    let own =
        map.get("public_url").map(|field| field.parse("a URL like `https://hooks.example.com`", values::public_url));
    let is_missing = own.is_none() && known.public_url.is_none();
    if is_missing && preset.checks().any(Check::needs_url) {
        map.missing(
            "public_url",
            format!(
                "`{}` signs the URL that it sends to, and nothing says what that is; write \
                 `public_url: https://HOST` here or under `ingress`",
                preset.name
            ),
        );
    }
    own.unwrap_or_else(|| known.public_url.clone())
}

fn tolerance(map: &Map<'_>, preset: &Preset) -> Tolerance {
    let Some(field) = map.get("tolerance") else { return Tolerance::Preset };
    if tolerance_of(&preset.verify).is_none() && !matches!(preset.verify, Check::Nothing) {
        field.warn(format!("`{}` signs no time, so this means nothing; take it out", preset.name));
    }
    match field.written() {
        Some("off") => Tolerance::Off,
        Some("false") => {
            field.error("`false` may be a slip; write `off` if a signed request is to be good for ever");
            Tolerance::Preset
        }
        _ => values::duration(&field).map_or(Tolerance::Preset, Tolerance::Within),
    }
}

/// The longest tolerance that a check has of its own.
fn tolerance_of(check: &Check) -> Option<Duration> {
    match check {
        Check::Signed(signed) => signed.timestamp.as_ref().map(|timestamp| timestamp.tolerance),
        Check::Token(_) | Check::Basic(_) | Check::Nothing => None,
        Check::Any(checks) | Check::All(checks) => checks.iter().filter_map(tolerance_of).max(),
    }
}

fn dedupe(map: &Map<'_>, preset: &Preset, tolerance: Tolerance) -> DedupeSettings {
    let skew = match tolerance {
        Tolerance::Preset => tolerance_of(&preset.verify).unwrap_or_default(),
        Tolerance::Within(skew) => skew,
        Tolerance::Off => Duration::ZERO,
    };
    let replays = skew.saturating_mul(2);
    let default = DedupeSettings {
        key: presets::default_key(preset),
        window: preset.retries.horizon.unwrap_or(WINDOW).max(replays),
        on_dead: OnDead::Requeue,
    };
    let Some(field) = map.get("dedupe") else { return default };
    if field.is_off() {
        return DedupeSettings { key: KeyRule::Off, ..default };
    }
    let Some(map) = field.map() else { return default };
    let window = map.get("window").and_then(|field| {
        let window = values::duration(&field)?;
        let horizon = preset.retries.horizon.filter(|horizon| window < *horizon);
        if let Some(horizon) = horizon {
            let horizon = format_duration(horizon);
            field.warn(format!(
                "`{}` may send an event again for {horizon}, and later ones count as new; write {horizon} or more",
                preset.name
            ));
        }
        if window < replays {
            let replays = format_duration(replays);
            field.warn(format!(
                "shorter than twice the tolerance, so a copied request can pass again; write {replays} or more"
            ));
        }
        Some(window)
    });
    let words = [("requeue", OnDead::Requeue), ("drop", OnDead::Drop)];
    DedupeSettings {
        key: map.get("key").and_then(|field| values::proved_key_rule(&field, &preset.verify)).unwrap_or(default.key),
        window: window.unwrap_or(default.window),
        on_dead: map.word("on_dead", &words).unwrap_or(default.on_dead),
    }
}

fn respond(map: &Map<'_>, preset: &Preset) -> Respond {
    let default = preset.answer.respond.clone().unwrap_or_else(usual_answer);
    let Some(map) = map.section("respond") else { return default };
    values::respond(&map, default, &preset.answer, &provider_in_words(preset))
}

/// Who sends, for a message.
fn provider_in_words(preset: &Preset) -> String {
    if matches!(preset.verify, Check::Nothing) { "the sender".to_owned() } else { format!("`{}`", preset.name) }
}

/// 200 and the event's id, as JSON.
fn usual_answer() -> Respond {
    Respond { status: 200, body: None, content_type: HeaderValue::from_static("application/json") }
}

/// What fits neither the limits nor the paths of the public side.
fn check_against_ingress(source: &SourceSettings, map: &Map<'_>, ingress: &ingress::Settings) {
    let Limits { in_flight_bytes, header_bytes, headers, .. } = ingress.limits;
    if largest_request(source.body_limit, header_bytes, headers) > in_flight_bytes {
        let message =
            "with a head more than `ingress.limits.in_flight_bytes`, so such a body never gets in; raise that, too";
        match map.get("body_limit") {
            Some(field) => field.error(message),
            None => map.missing("body_limit", message),
        }
    }
    if ingress.health_path.as_deref() == Some(source.path.as_str()) {
        map.field().error("its path is `ingress.health_path`, too; give one of them another");
    }
}
