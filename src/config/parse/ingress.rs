//! `ingress`: the public side.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use rustls_pki_types::pem;

use crate::base::ByteSize;
use crate::config::reader::{Field, Map, plain};
use crate::ingress::tls::{TlsError, certificates, private_key, server_config};
use crate::ingress::{Address, CertificateFiles, Inherited, Limits, Listen, ProxyProtocol, Settings, Tls};

use super::values;

/// A smaller buffer could not hold what the HTTP library reads at once.
const HEADER_BYTES_LEAST: ByteSize = ByteSize(8 << 10);

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

pub fn settings(root: &Map<'_>) -> Settings {
    let Some(map) = root.section("ingress") else {
        let listen = vec![Listen::plain(LISTEN)];
        return Settings::listening(listen);
    };
    let trusted_proxies = map.unless_off("trusted_proxies").map(|field| trusted_proxies(&field)).unwrap_or_default();
    let shared = map.unless_off("tls").and_then(|field| tls(&field));
    let listen = match map.get("listen") {
        None => vec![Listen { tls: shared, ..Listen::plain(LISTEN) }],
        Some(field) => listeners(&field, shared.as_ref(), &trusted_proxies),
    };
    let health_path =
        map.unless_off("health_path").and_then(|field| field.parse("a path like `/healthz`", values::url_path));
    let section = map.section("limits");
    let limits = section.as_ref().map_or_else(Limits::default, limits);
    let settings = Settings { listen, trusted_proxies, health_path, secret_paths: Vec::new(), limits };
    if let Some(section) = section {
        super::limits::warn_of_a_shared_budget(&section, &settings);
    }
    settings
}

fn trusted_proxies(field: &Field<'_>) -> Vec<IpNet> {
    let items = field.list("`[10.0.0.0/8]`");
    if field.is_list() && items.is_empty() {
        field.error("an empty list trusts nobody; write networks, or `off`");
    }
    let networks: Vec<(&Field<'_>, IpNet)> =
        items.iter().filter_map(|item| Some((item, values::network(item)?))).collect();
    for (item, _) in networks.iter().filter(|(_, network)| network.prefix_len() == 0) {
        item.warn("everybody is trusted, so every sender can say that it is somebody else; name the proxies alone");
    }
    networks.into_iter().map(|(_, network)| network).collect()
}

/// The public URL of sources without their own.
pub fn public_url(root: &Map<'_>) -> Option<Box<str>> {
    let field = root.get("ingress").filter(Field::is_mapping)?.map()?.get("public_url")?;
    field.parse("a URL like `https://hooks.example.com`", values::public_url)
}

fn listeners(field: &Field<'_>, shared: Option<&Tls>, trusted: &[IpNet]) -> Vec<Listen> {
    let mut listeners: Vec<Listen> = Vec::new();
    for item in field.one_or_list() {
        let Some(listen) = listener(&item, shared) else { continue };
        if listeners.iter().any(|other| clash(&other.address, &listen.address)) {
            item.error("this address is there already; leave one of them out");
        }
        warn_of_strangers(&item, &listen, trusted);
        listeners.push(listen);
    }
    if field.is_list() && listeners.is_empty() && field.one_or_list().is_empty() {
        field.error("an empty list takes no webhooks; write an address, like `127.0.0.1:8080`");
    }
    listeners
}

/// Whether two listeners would want the same socket. A name and a number may be of the same one, which shows at the start.
fn clash(one: &Address, other: &Address) -> bool {
    let all = Address::Inherited(Inherited::All);
    let inherited = |address: &Address| matches!(address, Address::Inherited(_));
    let any_port = one.tcp().is_some_and(|address| address.port() == 0);
    (one == other && !any_port) || (inherited(one) && inherited(other) && (*one == all || *other == all))
}

fn listener(item: &Field<'_>, shared: Option<&Tls>) -> Option<Listen> {
    if item.is_scalar() {
        return Some(Listen { tls: shared.cloned(), ..Listen::plain(values::listener_address(item)?) });
    }
    let map = item.map()?;
    let tls = match map.get("tls") {
        None => shared.cloned(),
        Some(field) if field.is_off() => None,
        Some(field) => tls(&field),
    };
    let proxy_protocol = match map.switch("proxy_protocol") {
        Some(true) => ProxyProtocol::Required,
        Some(false) | None => ProxyProtocol::Off,
    };
    match map.get("address") {
        Some(field) => Some(Listen { address: values::listener_address(&field)?, tls, proxy_protocol }),
        None => {
            map.missing("address", "no address; write one, like `address: 0.0.0.0:8443`");
            None
        }
    }
}

/// Whoever reaches a listener with `proxy_protocol` says who it is, unless proxies are named.
fn warn_of_strangers(item: &Field<'_>, listen: &Listen, trusted: &[IpNet]) {
    if listen.proxy_protocol == ProxyProtocol::Required && trusted.is_empty() && !listen.address.is_local() {
        item.warn(
            "everybody who reaches it can say in a PROXY header that it is somebody else; name the proxies in `ingress.trusted_proxies`",
        );
    }
}

fn tls(field: &Field<'_>) -> Option<Tls> {
    let items = field.one_or_list();
    let entries: Vec<_> = items.iter().filter_map(certificate).collect();
    if field.is_list() && items.is_empty() {
        field.error("an empty list has no certificate; write `{ cert, key }`, or `off`");
    }
    let client_ca = entries.first()?.1.clone();
    if entries.iter().any(|(_, other)| *other != client_ca) {
        field.error(
            "`client_ca` is for the listener, whatever name a client asks for; write the same in each of these, or in none",
        );
    }
    Some(Tls { certificates: entries.into_iter().map(|(files, _)| files).collect(), client_ca })
}

/// Looked into like a certificate.
fn client_ca(map: &Map<'_>, files: &CertificateFiles) -> Option<PathBuf> {
    let path = map.file("client_ca")?;
    let tls = Tls { certificates: vec![files.clone()], client_ca: Some(path.clone()) };
    let why = match server_config(&tls) {
        Err(TlsError::ClientCa { why, .. }) => Some(why),
        Err(TlsError::File { path: wrong, why }) if wrong == path => Some(why),
        _ => None, // said of `cert` and `key`
    };
    if let Some((why, at)) = why.zip(map.get("client_ca")) {
        at.error(format!(
            "no client can be known by this file: {why}; name a PEM file with the certificates of authorities"
        ));
    }
    Some(path)
}

/// One certificate; its files are looked into, so that `check` finds a missing one and not a sender.
fn certificate(field: &Field<'_>) -> Option<(CertificateFiles, Option<PathBuf>)> {
    let map = field.map()?;
    for key in ["cert", "key"] {
        if map.get(key).is_none() {
            map.missing(key, format!("no {key}; write the path of a PEM file"));
        }
    }
    let files = CertificateFiles { cert: map.file("cert")?, key: map.file("key")? };
    let chain = certificates(&files.cert);
    let no_chain = match chain {
        Ok(chain) if chain.is_empty() => Some("has no certificate in it".to_owned()),
        Ok(_) => None,
        Err(error) => Some(unusable(&error)),
    };
    let no_key = private_key(&files.key).err();
    let both_read = no_chain.is_none() && no_key.is_none();
    if let Some((why, at)) = no_chain.zip(map.get("cert")) {
        at.error(format!("the file {why}; name a PEM file with the chain, leaf first"));
    }
    if let Some((error, at)) = no_key.zip(map.get("key")) {
        at.error(format!("the file {}; name a PEM file with the private key", unusable(&error)));
    }
    let alone = Tls { certificates: vec![files.clone()], client_ca: None };
    if both_read && let Err(error) = server_config(&alone) {
        let why = if let TlsError::Pair { why, .. } = error { why } else { error.to_string() };
        field.error(format!("`cert` and `key` cannot be used together: {why}; name two that belong together"));
    }
    let client_ca = if both_read { client_ca(&map, &files) } else { map.file("client_ca") };
    Some((files, client_ca))
}

/// Why a PEM file cannot be used, without quoting any of it.
fn unusable(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("cannot be used: {}", plain(error)),
        pem::Error::NoItemsFound => "has nothing of this kind in it".to_owned(),
        _ => "is not PEM".to_owned(),
    }
}

fn limits(map: &Map<'_>) -> Limits {
    let default = Limits::default();
    let count = |key: &str| map.count(key).map(|count| count as usize);
    Limits {
        connections: count("connections").unwrap_or(default.connections),
        per_client: count("per_client").unwrap_or(default.per_client),
        header_bytes: header_bytes(map).unwrap_or(default.header_bytes),
        headers: count("headers").unwrap_or(default.headers),
        handshake_timeout: map.duration("handshake_timeout").unwrap_or(default.handshake_timeout),
        header_timeout: map.duration("header_timeout").unwrap_or(default.header_timeout),
        body_timeout: map.duration("body_timeout").unwrap_or(default.body_timeout),
        body_min_rate: map
            .get("body_min_rate")
            .and_then(|field| values::bytes_a_second(&field))
            .unwrap_or(default.body_min_rate),
        idle_timeout: map.duration("idle_timeout").unwrap_or(default.idle_timeout),
        write_timeout: map.duration("write_timeout").unwrap_or(default.write_timeout),
        in_flight_bytes: map.size("in_flight_bytes").unwrap_or(default.in_flight_bytes),
        unverified: map.unless_off("unverified").and_then(|field| super::limits::unverified(&field)),
    }
}

fn header_bytes(map: &Map<'_>) -> Option<ByteSize> {
    let size = map.size("header_bytes")?;
    if let Some(field) = map.get("header_bytes").filter(|_| size < HEADER_BYTES_LEAST) {
        field.error(format!("too small for a request's head; write {HEADER_BYTES_LEAST} or more"));
    }
    Some(size)
}
