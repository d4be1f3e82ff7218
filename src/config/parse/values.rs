//! The small values: units, addresses, headers, places.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method};
use ipnet::{IpNet, Ipv4Net};

use crate::base::{ByteSize, Rate, parse_duration};
use crate::config::problems::suggest;
use crate::config::reader::{Field, Map};
use crate::ingress::{Address, Inherited};
use crate::provider::{AnswerFacts, Check, FirstOf, KeyRule, Place, Respond};

impl Map<'_> {
    /// The duration at `key`, longer than nothing.
    pub fn duration(&self, key: &str) -> Option<Duration> {
        duration(&self.get(key)?)
    }

    /// The size at `key`, more than nothing.
    pub fn size(&self, key: &str) -> Option<ByteSize> {
        let parse = |text: &str| match ByteSize::parse(text) {
            Ok(ByteSize(0)) => Err("0 is no size here; write one above it".to_owned()),
            parsed => parsed.map_err(|error| error.to_string()),
        };
        self.get(key)?.parse("a size like `1MiB`", parse)
    }

    /// The whole number at `key`, at least 1.
    pub fn count(&self, key: &str) -> Option<u32> {
        count(&self.get(key)?)
    }

    /// The switch at `key`.
    pub fn switch(&self, key: &str) -> Option<bool> {
        self.get(key)?.parse("`true` or `false`", |text| match text {
            "true" | "on" => Ok(true),
            "false" | "off" => Ok(false),
            _ => Err(format!("`{text}` is not a switch; write `true` or `false`")),
        })
    }

    /// The word at `key`, as what `words` says it stands for.
    pub fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        word(&self.get(key)?, words)
    }

    /// The text at `key`; never for secrets.
    pub fn string(&self, key: &str) -> Option<String> {
        self.get(key)?.text().map(|text| text.value)
    }

    /// The file at `key`, as seen from the config's directory.
    pub fn file(&self, key: &str) -> Option<PathBuf> {
        let field = self.get(key)?;
        let text = field
            .parse("a path", |text| if text.is_empty() { Err("no path; write one") } else { Ok(text.to_owned()) })?;
        let path = field.beside(std::path::Path::new(&text));
        field.reader().touch(&path);
        Some(path)
    }
}

/// A duration, longer than nothing.
pub fn duration(field: &Field<'_>) -> Option<Duration> {
    field.parse("a duration like `30s`", |text| match parse_duration(text) {
        Ok(Duration::ZERO) => Err(format!("`{text}` is no time at all; write a longer one")),
        parsed => parsed.map_err(|error| error.to_string()),
    })
}

/// A rate, `50/s`.
pub fn rate(field: &Field<'_>) -> Option<Rate> {
    field.parse("a rate like `50/s`", Rate::parse)
}

/// `1KiB/s` as bytes a second; none for `0B/s`.
pub fn bytes_a_second(field: &Field<'_>) -> Option<Option<ByteSize>> {
    let bytes = field.parse("a rate like `1KiB/s`", |text| {
        let Some(size) = text.strip_suffix("/s") else {
            return Err(format!("`{text}` is not a rate of bytes; write a size and `/s`, like `1KiB/s`"));
        };
        ByteSize::parse(size).map_err(|error| error.to_string())
    })?;
    Some(Some(bytes).filter(|bytes| bytes.0 > 0))
}

/// A whole number, at least 1.
pub fn count(field: &Field<'_>) -> Option<u32> {
    field.parse("a whole number from 1 up", |text| match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("`{text}` is not a whole number from 1 to {}; write one", u32::MAX)),
    })
}

/// One of some words.
pub fn word<T: Copy>(field: &Field<'_>, words: &[(&str, T)]) -> Option<T> {
    let known = || words.iter().map(|(word, _)| *word);
    let wanted = known().collect::<Vec<_>>().join(" or ");
    field.parse(&wanted, |text| match words.iter().find(|(word, _)| *word == text) {
        Some((_, meaning)) => Ok(*meaning),
        None => Err(format!("`{text}` is not one of the words here; {}", suggest(text, known().collect::<Vec<_>>()))),
    })
}

/// An address with a port.
pub fn address(field: &Field<'_>) -> Option<SocketAddr> {
    field.parse("an address like `127.0.0.1:8080`", |text| {
        if text.starts_with("unix:") || text.starts_with("fd:") {
            return Err(format!("`{text}` is only for the public side; write an address and a port"));
        }
        socket_address(text)
    })
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let cure = match text.rsplit_once(':') {
        Some(("", port)) => {
            format!("write `0.0.0.0:{port}` for every address, `127.0.0.1:{port}` for this machine")
        }
        Some(("localhost", port)) => format!("write `127.0.0.1:{port}`"),
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => format!("write `127.0.0.1:{text}`"),
        _ => "write an IP address and a port, like `127.0.0.1:8080` or `[::1]:8080`".to_owned(),
    };
    SocketAddr::from_str(text).map_err(|_| format!("`{text}` is not an address; {cure}"))
}

/// Where a listener of the public side is: an address with a port, `unix:/path`, or `fd:` with a name, a number or nothing.
pub fn listener_address(field: &Field<'_>) -> Option<Address> {
    field.parse("an address like `127.0.0.1:8080`", |text| {
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(path);
        }
        let Some(name) = text.strip_prefix("fd:") else { return socket_address(text).map(Address::Tcp) };
        Ok(Address::Inherited(match name {
            "" => Inherited::All,
            _ if name.bytes().all(|byte| byte.is_ascii_digit()) => match name.parse() {
                Ok(number) if number >= 3 => Inherited::Number(number),
                _ => return Err(format!("`{text}` is never handed over; the first descriptor that is has number 3")),
            },
            _ if name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') => {
                Inherited::Named(name.to_owned())
            }
            _ => return Err(format!("`{text}` holds no name; write one like `fd:web`, or `fd:` for all")),
        }))
    })
}

/// The longest path that a socket can have: `sun_path` of `sockaddr_un`, without its last byte.
const SOCKET_PATH_MAX: usize = 107;

fn socket_path(path: &str) -> Result<Address, String> {
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(format!("`{path}` is no absolute path of a file; write one like `unix:/run/forebay/hooks.sock`"));
    }
    if path.len() > SOCKET_PATH_MAX {
        return Err(format!(
            "`{path}` is longer than a socket's path can be, {SOCKET_PATH_MAX} bytes; write a shorter one"
        ));
    }
    if path.contains('\0') {
        return Err("a path has no NUL in it; leave it out".to_owned());
    }
    Ok(Address::Unix(PathBuf::from(path)))
}

/// A network, or one address. One of IPv4 mapped into IPv6 is the IPv4 one: that is how clients are looked at.
pub fn network(field: &Field<'_>) -> Option<IpNet> {
    field.parse("a network like `10.0.0.0/8`", |text| {
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let network = network.ok_or_else(|| {
            format!("`{text}` is not an address or a network; write one like `10.1.2.3` or `10.0.0.0/8`")
        })?;
        let IpAddr::V4(address) = network.addr().to_canonical() else { return Ok(network.trunc()) };
        let bits =
            if network.addr().is_ipv4() { Some(network.prefix_len()) } else { network.prefix_len().checked_sub(96) };
        let mapped = bits.and_then(|bits| Ipv4Net::new(address, bits).ok());
        mapped.map(|network| network.trunc().into()).ok_or_else(|| {
            format!(
                "`{text}` is more than all IPv4 addresses mapped into IPv6; write the IPv4 network, like `{address}/24`"
            )
        })
    })
}

/// A header's name.
pub fn header_name(field: &Field<'_>) -> Option<HeaderName> {
    field.parse("a header's name", parse_header_name)
}

fn parse_header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_str(text).map_err(|_| format!("`{text}` is not a header's name; write one like `X-Request-Id`"))
}

/// A header's value. It is never quoted: it may well be a credential.
pub fn header_value(field: &Field<'_>) -> Option<HeaderValue> {
    let value = field.parse("a header's value", |text| {
        HeaderValue::from_str(text).map_err(|_| "not a header's value; leave out line breaks and control characters")
    });
    value.map(|mut value| {
        value.set_sensitive(true);
        value
    })
}

/// A content type.
pub fn content_type(field: &Field<'_>) -> Option<HeaderValue> {
    field.parse("a content type", |text| match HeaderValue::from_str(text) {
        Ok(value) if text.contains('/') => Ok(value),
        _ => Err(format!("`{text}` is not a content type; write one like `text/plain`")),
    })
}

/// HTTP methods, at least one.
pub fn methods(field: &Field<'_>) -> Option<Vec<Method>> {
    let items = field.list("`[POST]`");
    if field.is_list() && items.is_empty() {
        field.error("no method is taken; write `[POST]`");
    }
    let mut methods = Vec::new();
    for item in items {
        methods.extend(method(&item));
    }
    methods.dedup();
    Some(methods).filter(|methods| !methods.is_empty())
}

/// A HTTP method.
pub fn method(field: &Field<'_>) -> Option<Method> {
    field.parse("a method", |text| match Method::from_str(text) {
        Ok(method) if text.bytes().all(|byte| byte.is_ascii_uppercase()) => Ok(method),
        _ => Err(format!("`{text}` is not a method; write it in capitals, like `POST`")),
    })
}

/// A status, in `range`.
pub fn status(field: &Field<'_>, range: std::ops::RangeInclusive<u16>) -> Option<u16> {
    let (low, high) = (*range.start(), *range.end());
    field.parse(&format!("a status from {low} to {high}"), |text| match text.parse() {
        Ok(status) if range.contains(&status) => Ok(status),
        _ => Err(format!("`{text}` is not a status from {low} to {high}; write one of these")),
    })
}

/// An answer to the sender of a stored event; what it does not say is as in `default`. `facts` say what its status
/// means to `provider`.
pub fn respond(map: &Map<'_>, default: Respond, facts: &AnswerFacts, provider: &str) -> Respond {
    let body = map.get("body").and_then(|field| field.text());
    let content_type = map.get("content_type").and_then(|field| content_type(&field));
    Respond {
        status: map.get("status").and_then(|field| acknowledging(&field, facts, provider)).unwrap_or(default.status),
        content_type: match (&body, content_type) {
            (_, Some(content_type)) => content_type,
            (Some(_), None) => HeaderValue::from_static("text/plain; charset=utf-8"),
            (None, None) => default.content_type,
        },
        body: body.map(|text| text.value).or(default.body),
    }
}

/// A status that says that the event was taken, which it was.
fn acknowledging(field: &Field<'_>, facts: &AnswerFacts, provider: &str) -> Option<u16> {
    let status = status(field, 100..=599)?;
    let cure = match facts.success.as_slice() {
        [] => "write a status from 200 to 299".to_owned(),
        some => format!("write {}", some.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")),
    };
    if facts.ends_on.contains(&status) {
        field.error(format!("{status} has {provider} end the subscription, although the event is kept; {cure}"));
    } else if !facts.is_success(status) {
        field.error(format!("{status} is no success to {provider}, so what is kept would count as failed; {cure}"));
    } else {
        return Some(status);
    }
    None
}

/// A public URL: `scheme://host[:port][/prefix]`, whose `/` at the end, if there is one, is taken off: a path, which begins
/// with one, goes behind it. It is otherwise left as it is written, since a provider signs what it was given.
pub fn public_url(text: &str) -> Result<Box<str>, String> {
    let form = "write `scheme://host[:port][/prefix]`, like `https://hooks.example.com`";
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else { return Err(format!("`{text}` does not begin with `https://` or `http://`; {form}")) };
    if text.contains(['?', '#', '@']) {
        return Err(format!("`{text}` has a query, a fragment or a user in it; {form}"));
    }
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let port_is_one = match Authority::from_str(host) {
        Ok(authority) => {
            let port = host.strip_prefix(authority.host()).unwrap_or_default();
            !authority.host().is_empty() && (port.is_empty() || authority.port_u16().is_some())
        }
        Err(_) => false,
    };
    if !port_is_one {
        return Err(format!("`{host}` is not a host, or a host and a port; {form}"));
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.ends_with('/') || path.contains("//") {
        return Err(format!("`{text}` has two slashes in a row; {form}"));
    }
    if !path.is_empty() {
        url_path(path)?;
    }
    Ok(text.strip_suffix('/').unwrap_or(text).into())
}

/// A path of a URL: what goes on the wire, so no spaces, no query.
pub fn url_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("`{text}` does not begin with `/`; write `/{text}`"));
    }
    if let Some(bad) =
        text.chars().find(|char| !char.is_ascii_graphic() || matches!(char, '?' | '#' | '"' | '<' | '>' | '\\'))
    {
        return Err(format!("`{text}` has {bad:?} in it, which no path has; percent-encode it or leave it out"));
    }
    let is_hex = |escape: &str| escape.get(..2).is_some_and(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if !text.split('%').skip(1).all(is_hex) {
        return Err(format!("`{text}` has a `%` without two hex digits behind it; write `%25` for the character"));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(format!(
            "`{text}` has a `.` or `..` between slashes, which senders take out of a URL; write the path without"
        ));
    }
    Ok(text.to_owned())
}

/// A place: `header:X`, `json:/a/b`, `query:x`, `form:x` or `param:x`.
pub fn place(text: &str) -> Result<Place, String> {
    match any_place(text)? {
        Place::Json(pointer) if pointer.split('/').any(|step| step == "*") => Err(format!(
            "`*` in `{pointer}` is every item of an array, which can stand for a token or be redacted, and is no one \
             value; write the number of the item"
        )),
        place => Ok(place),
    }
}

/// A place that may be several: a `*` in a JSON pointer is every item of an array.
pub fn any_place(text: &str) -> Result<Place, String> {
    let text = text.trim();
    let Some((kind, name)) = text.split_once(':') else { return Err(no_place(text)) };
    let named = |place: fn(String) -> Place| match name {
        "" => Err(format!("`{text}` names nothing; write a name behind the colon")),
        name => Ok(place(name.to_owned())),
    };
    match kind {
        "header" => parse_header_name(name).map(Place::Header),
        "query" => named(Place::Query),
        "form" => named(Place::Form),
        "param" => named(Place::Param),
        "json" => pointer(name).map(Place::Json),
        _ => Err(no_place(text)),
    }
}

fn no_place(text: &str) -> String {
    format!(
        "`{text}` is not a place; write `header:NAME`, `json:/path/to/it`, `query:NAME`, `form:NAME` or `param:NAME`"
    )
}

fn pointer(text: &str) -> Result<String, String> {
    let escapes_end = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    if text.starts_with('/') && escapes_end {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not a JSON pointer; begin with `/`, and write `~0` for `~`, `~1` for `/` in a key"))
    }
}

/// Places, the first that has something counts: `header:A | json:/id`.
pub fn first_of(field: &Field<'_>) -> Option<FirstOf> {
    field.parse("a place like `json:/id`", first_of_text)
}

fn first_of_text(text: &str) -> Result<FirstOf, String> {
    text.split('|').map(place).collect::<Result<_, _>>().map(FirstOf)
}

/// What makes two requests one event: places, `signed`, `body` or `off`.
pub fn key_rule(field: &Field<'_>) -> Option<KeyRule> {
    if field.is_off() {
        return Some(KeyRule::Off);
    }
    if !field.is_list() {
        return field.parse("a place, `signed`, `body` or `off`", |text| match text {
            "signed" => Ok(KeyRule::Signed),
            "body" => Ok(KeyRule::Body),
            _ => first_of_text(text).map(|first| KeyRule::Parts(vec![first])),
        });
    }
    let parts: Vec<FirstOf> = field.list("`[json:/id, json:/time]`").iter().filter_map(first_of).collect();
    if parts.is_empty() {
        field.error("an empty list makes no key; write places, `signed`, `body` or `off`");
        return None;
    }
    Some(KeyRule::Parts(parts))
}

/// As [`key_rule`], where `check` is what must hold.
pub fn proved_key_rule(field: &Field<'_>, check: &Check) -> Option<KeyRule> {
    let rule = key_rule(field)?;
    if rule == KeyRule::Body && !check.proves_body() {
        field.error("a check does not sign the `{body}`, so anybody could make a key; write `signed`, or a place");
        return None;
    }
    Some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_scheme_host_port_and_prefix() {
        for (text, expected) in [
            ("https://hooks.example.com", "https://hooks.example.com"),
            ("https://hooks.example.com/", "https://hooks.example.com"),
            ("http://Hooks.Example.com:8080", "http://Hooks.Example.com:8080"),
            ("https://hooks.example.com:443/a/b/", "https://hooks.example.com:443/a/b"),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
            ("http://192.0.2.1", "http://192.0.2.1"),
        ] {
            assert_eq!(public_url(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "hooks.example.com",
            "ftp://hooks.example.com",
            "HTTPS://hooks.example.com",
            "https://",
            "https:///a",
            "https://:443",
            "https://host:",
            "https://host:x",
            "https://host:70000",
            "https://me@host",
            "https://host?x=1",
            "https://host/a?x",
            "https://host/#a",
            "https://host//",
            "https://host//a",
            "https://host/a b",
            "https://ho st",
        ] {
            assert!(public_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_place_is_a_kind_and_a_name() {
        for text in ["header:x-id", "json:/a/b", "query:a b", "form:x", "param:tenant"] {
            assert_eq!(place(text).unwrap().to_string(), text);
        }
        assert_eq!(any_place("json:/a/*/b").unwrap().to_string(), "json:/a/*/b");
        for text in ["", "x", "header:", "header:a b", "json:a", "json:", "query:", "form:", "param:", "body:x"] {
            assert!(place(text).is_err() && any_place(text).is_err(), "{text}");
        }
        assert!(place("json:/a/*/b").unwrap_err().contains("every item"));
    }
}
