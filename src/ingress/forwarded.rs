//! Who sent a request that came through proxies: `X-Forwarded-*`, and `Forwarded` (RFC 7239).
//!
//! Only what a trusted proxy added is believed. Each proxy adds an element at the right, so the list is read from
//! there: the first address that is not a trusted proxy's is the client's, and what stands left of it the client may
//! have written itself. Where both kinds of header are there, `X-Forwarded-*` count and `Forwarded` does not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use super::strict::is_host;
use crate::event::Client;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// More proxies than anybody has in a row; the walk ends there.
const HOPS_MAX: usize = 100;
/// The longest name that DNS has, and a port.
const HOST_BYTES_MAX: usize = 253 + 6;

/// The client of a request, from what its own connection and its headers say. `trusted` are the proxies' networks.
///
/// An element that is malformed, `unknown` or obfuscated ends the walk at the last address before it, which is a
/// trusted proxy's.
pub(super) fn client(own: Client, headers: &HeaderMap, trusted: &[IpNet]) -> Client {
    let trusts = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    if !trusts(own.ip) {
        return own;
    }
    let forwarded = !headers.contains_key(&X_FORWARDED_FOR) && headers.contains_key(FORWARDED);
    let said = if forwarded { by_forwarded(own.ip, headers, trusts) } else { by_x_forwarded(own.ip, headers, trusts) };
    Client { ip: said.ip, tls: said.tls.unwrap_or(own.tls), host: said.host.or(own.host) }
}

/// What trusted proxies say of a request.
struct Said {
    ip: IpAddr,
    tls: Option<bool>,
    host: Option<Box<str>>,
}

/// A list in `X-Forwarded-Proto` or `-Host` is read at the client's place in `X-Forwarded-For`, from the right; a
/// shorter one at its left end: most proxies write one value and leave it.
fn by_x_forwarded(peer: IpAddr, headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) -> Said {
    let list = |name: &HeaderName| {
        headers.get_all(name).iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
    };
    let mut ip = peer;
    let mut place = 0;
    for (index, element) in list(&X_FORWARDED_FOR).take(HOPS_MAX).enumerate() {
        let Some(found) = text(element).and_then(address) else { break };
        (ip, place) = (found, index);
        if !trusts(ip) {
            break;
        }
    }
    let at_place = |name: &HeaderName| list(name).take(place + 1).last().and_then(text);
    Said { ip, tls: at_place(&X_FORWARDED_PROTO).and_then(is_tls), host: at_place(&X_FORWARDED_HOST).and_then(host) }
}

/// The proto and the host are those of the element that names the client.
fn by_forwarded(peer: IpAddr, headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) -> Said {
    let mut said = Said { ip: peer, tls: None, host: None };
    let lines = headers.get_all(FORWARDED).iter().rev();
    let elements = lines.flat_map(|line| Elements(Some(line.as_bytes())));
    for (index, element) in elements.take(HOPS_MAX).enumerate() {
        let Some(pairs) = text(element).and_then(pairs) else { break };
        let found = pairs.node.as_deref().and_then(address);
        if found.is_some() || index == 0 {
            said.tls = pairs.proto.as_deref().and_then(is_tls);
            said.host = pairs.host.as_deref().and_then(host);
        }
        let Some(found) = found else { break };
        said.ip = found;
        if !trusts(found) {
            break;
        }
    }
    said
}

/// The elements of a `Forwarded` line from the right, split at commas outside quoted strings. What stands left of a good
/// element cannot change how it is read: an open quote there is the client's trick, and ends in an element of its own.
struct Elements<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.0.take()?;
        let mut quoted = false;
        for (at, byte) in line.iter().enumerate().rev() {
            let (left, right) = line.split_at(at);
            match byte {
                b'"' if quoted && is_escaped(left) => {}
                b'"' => quoted = !quoted,
                b',' if !quoted => {
                    self.0 = Some(left);
                    return right.get(1..);
                }
                _ => {}
            }
        }
        Some(line)
    }
}

/// Whether what follows `left` is escaped: an odd number of backslashes stands before it.
fn is_escaped(left: &[u8]) -> bool {
    left.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The parameters of an element that count here, unquoted (RFC 7239, section 4).
#[derive(Debug, Default, PartialEq, Eq)]
struct Pairs {
    node: Option<String>,
    proto: Option<String>,
    host: Option<String>,
}

/// None if the element is not one, or says a thing twice.
fn pairs(element: &str) -> Option<Pairs> {
    let mut pairs = Pairs::default();
    let mut others = Vec::new();
    let mut rest = element;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        if rest.is_empty() {
            return Some(pairs);
        }
        let (name, after) = rest.split_once('=')?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        let (value, after) = value(after)?;
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(';') {
            return None;
        }
        let name = name.to_ascii_lowercase();
        let slot = match name.as_str() {
            "for" => &mut pairs.node,
            "proto" => &mut pairs.proto,
            "host" => &mut pairs.host,
            _ if others.contains(&name) || others.len() >= OTHERS_MAX => return None,
            _ => {
                others.push(name);
                continue;
            }
        };
        if slot.replace(value).is_some() {
            return None;
        }
    }
}

/// `by` and a few extensions.
const OTHERS_MAX: usize = 8;

/// A value and what follows it. A value that is not quoted may hold the `:` and brackets that it should not.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ' ', '\t', '"']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return if value.is_empty() { None } else { Some((value.to_owned(), rest)) };
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    loop {
        match chars.next()? {
            (at, '"') => return Some((value, quoted.get(at + 1..)?)),
            (_, '\\') => value.push(chars.next()?.1),
            (_, char) => value.push(char),
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The element as a text, if it is one, without the white space around it.
fn text(element: &[u8]) -> Option<&str> {
    std::str::from_utf8(element).ok().map(|text| text.trim_matches([' ', '\t']))
}

/// The address of a node (RFC 7239, section 6), perhaps with a port, an IPv6 address with or without brackets. None for
/// `unknown`, for a name that hides the address, and for anything else.
fn address(node: &str) -> Option<IpAddr> {
    if let Ok(ip) = node.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    let (ip, after) = match node.strip_prefix('[') {
        Some(rest) => {
            let (ip, after) = rest.split_once(']')?;
            (IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?), after)
        }
        None => {
            let (ip, after) = node.split_at(node.find(':')?);
            (IpAddr::V4(ip.parse::<Ipv4Addr>().ok()?), after)
        }
    };
    (after.is_empty() || after.strip_prefix(':').is_some_and(is_port)).then(|| ip.to_canonical())
}

/// Digits, or a name that hides them.
fn is_port(port: &str) -> bool {
    let is_hidden =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit())
        || port.strip_prefix('_').is_some_and(is_hidden)
}

fn is_tls(proto: &str) -> Option<bool> {
    match proto {
        _ if proto.eq_ignore_ascii_case("https") => Some(true),
        _ if proto.eq_ignore_ascii_case("http") => Some(false),
        _ => None,
    }
}

fn host(text: &str) -> Option<Box<str>> {
    (text.len() <= HOST_BYTES_MAX && is_host(text.as_bytes())).then(|| Box::from(text))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use http::HeaderValue;

    use super::*;

    fn own() -> Client {
        Client { ip: [10, 0, 0, 1].into(), tls: false, host: Some("own".into()) }
    }

    fn of(headers: &[(&str, &str)]) -> Client {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            map.append(name.parse::<HeaderName>().unwrap(), value);
        }
        client(own(), &map, &trusted)
    }

    fn x(lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        of(&lines).ip.to_string()
    }

    fn rfc(lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
        of(&lines).ip.to_string()
    }

    #[test]
    fn the_first_address_from_the_right_that_is_no_proxys_is_the_clients() {
        assert_eq!(x(&["203.0.113.9"]), "203.0.113.9");
        assert_eq!(
            x(&["198.51.100.1, 203.0.113.9"]),
            "203.0.113.9",
            "what is left of it may be the client's own words"
        );
        assert_eq!(x(&["198.51.100.1, 203.0.113.9, 10.9.9.9 ,2001:db8::1"]), "203.0.113.9");
        assert_eq!(x(&["198.51.100.1", "203.0.113.9,10.9.9.9", "10.1.1.1"]), "203.0.113.9", "lines are one list");
        assert_eq!(x(&["10.7.7.7, 10.9.9.9"]), "10.7.7.7", "a client inside");
        assert_eq!(x(&[]), "10.0.0.1");
    }

    #[test]
    fn nobody_else_is_believed() {
        let headers: HeaderMap = [
            (X_FORWARDED_FOR.clone(), HeaderValue::from_static("203.0.113.9")),
            (X_FORWARDED_PROTO.clone(), HeaderValue::from_static("https")),
            (X_FORWARDED_HOST.clone(), HeaderValue::from_static("evil")),
            (FORWARDED, HeaderValue::from_static("for=203.0.113.9;proto=https;host=evil")),
        ]
        .into_iter()
        .collect();
        let trusted = ["192.0.2.0/24".parse().unwrap()];
        assert_eq!(client(own(), &headers, &trusted), own());
        assert_eq!(client(own(), &headers, &[]), own());
    }

    #[test]
    fn an_address_may_be_written_in_every_way_that_proxies_write_it() {
        for (written, ip) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("2001:db9::1", "2001:db9::1"),
            ("[2001:db9::1]", "2001:db9::1"),
            ("[2001:db9::1]:443", "2001:db9::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("[::ffff:192.0.2.1]:1", "192.0.2.1"),
            ("\t192.0.2.1 ", "192.0.2.1"),
        ] {
            assert_eq!(x(&[written]), ip, "{written}");
        }
        for quoted in ["192.0.2.1", "192.0.2.1:80", "192.0.2.1:_x-y.z", "\\1\\92.0.2.1"] {
            assert_eq!(rfc(&[&format!("for=\"{quoted}\"")]), "192.0.2.1", "{quoted}");
        }
        assert_eq!(rfc(&["For=\"[2001:db9:cafe::17]:4711\""]), "2001:db9:cafe::17");
        assert_eq!(rfc(&["proto=http; FOR=192.0.2.1 ;by=203.0.113.43"]), "192.0.2.1");
    }

    /// The rightmost one is refused, so the proxy itself is the client; then one behind a good one.
    #[test]
    fn what_is_no_address_ends_the_walk_at_the_last_good_one() {
        for bad in [
            "",
            "unknown",
            "_hidden",
            "-",
            "192.0.2",
            "192.0.2.1:",
            "192.0.2.1:x",
            "192.0.2.1:123456",
            "[192.0.2.1]",
            "[2001:db9::1",
            "2001:db9::1]:1",
            "[2001:db9::1]1",
            "fe80::1%eth0",
            "192.0.2.1 192.0.2.2",
            "01.2.3.4",
            "\"192.0.2.1\"",
            "192.0.2.1;",
            "\u{e9}",
            "localhost",
        ] {
            assert_eq!(x(&[bad]), "10.0.0.1", "{bad:?}");
            assert_eq!(x(&[&format!("192.0.2.1, {bad}, 10.2.2.2")]), "10.2.2.2", "{bad:?}");
            assert_eq!(x(&["192.0.2.1", bad, "10.2.2.2"]), "10.2.2.2", "{bad:?}");
        }
        for bad in [
            "",
            "for",
            "for=",
            "for=unknown",
            "for=_hidden",
            "for=\"192.0.2.1",
            "for=192.0.2.1\"",
            "for =192.0.2.1",
            "=192.0.2.1",
            "for=192.0.2.1;for=192.0.2.1",
            "for=192.0.2.1;by=a;by=b",
            "for=192.0.2.1 proto=http",
            "proto=https",
            "for=\"192.0.2.1\"x",
            "for=\"192.0.2.1\\",
            "for=\"\u{e9}\"",
            "f(r=192.0.2.1",
        ] {
            assert_eq!(rfc(&[bad]), "10.0.0.1", "{bad:?}");
            assert_eq!(rfc(&[&format!("for=192.0.2.1, {bad}, for=10.2.2.2")]), "10.2.2.2", "{bad:?}");
        }
    }

    #[test]
    fn a_clients_open_quote_does_not_swallow_what_a_proxy_added() {
        for trick in ["for=\"", "for=\"192.0.2.1, for=192.0.2.2", "\"\"\"", "for=\"\\", "x=\\\""] {
            assert_eq!(rfc(&[&format!("{trick}, for=203.0.113.9")]), "203.0.113.9", "{trick}");
            assert_eq!(rfc(&[&format!("{trick}, for=\"203.0.113.9:1\";ext=\"a,\\\",b\"")]), "203.0.113.9", "{trick}");
        }
    }

    #[test]
    fn the_scheme_and_the_host_are_those_that_the_client_met() {
        let met = |headers: &[(&str, &str)]| {
            let client = of(headers);
            (client.tls, client.host.unwrap_or_default().to_string())
        };
        let own = || (false, "own".to_owned());
        let hooks = || (true, "hooks.test".to_owned());
        assert_eq!(met(&[("x-forwarded-proto", "HTTPS"), ("x-forwarded-host", "hooks.test")]), hooks());
        assert_eq!(met(&[("forwarded", "for=192.0.2.1;proto=https;host=hooks.test")]), hooks());
        assert_eq!(met(&[("forwarded", "for=_hidden;proto=https;host=hooks.test")]), hooks());
        // Two proxies: the place is the client's, or the left end of a shorter list.
        let two = ("x-forwarded-for", "6.6.6.6, 192.0.2.1, 10.2.2.2");
        assert_eq!(
            met(&[two, ("x-forwarded-proto", "http, https, http"), ("x-forwarded-host", "no, hooks.test, no")]),
            hooks()
        );
        assert_eq!(met(&[two, ("x-forwarded-proto", "https"), ("x-forwarded-host", "hooks.test")]), hooks());
        let forwarded = "for=6.6.6.6;host=no, for=192.0.2.1;proto=https;host=hooks.test, for=10.2.2.2;proto=http";
        assert_eq!(met(&[("forwarded", forwarded)]), hooks());
        // What is no scheme and no host is as if it were not there.
        let long = "a".repeat(HOST_BYTES_MAX + 1);
        for (proto, host) in [("wss", "a/b"), ("", ""), ("https:", "u@h"), ("x", "a b"), ("on", &long)] {
            assert_eq!(met(&[("x-forwarded-proto", proto), ("x-forwarded-host", host)]), own());
        }
    }

    #[test]
    fn of_both_headers_the_common_one_counts() {
        let both = [("forwarded", "for=192.0.2.7;proto=https;host=rfc"), ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(of(&both), Client { ip: [192, 0, 2, 1].into(), ..own() });
    }

    #[test]
    fn a_hundred_hops_are_walked_and_no_more() {
        let hops = |count: usize| {
            let mut list = "192.0.2.1".to_owned();
            (0..count).for_each(|_| list.push_str(",10.3.3.3"));
            x(&[&list])
        };
        assert_eq!(hops(HOPS_MAX - 1), "192.0.2.1");
        assert_eq!(hops(HOPS_MAX), "10.3.3.3");
        assert_eq!(hops(3_000), "10.3.3.3");
    }

    proptest::proptest! {
        /// Whatever a client writes before it: what the proxy added is read the same.
        #[test]
        fn nothing_on_the_left_changes_what_a_proxy_added(left in "[ -~\t]{0,60}", port in 1u16..) {
            let mut line = left.clone();
            write!(line, ", 203.0.113.9").unwrap();
            proptest::prop_assert_eq!(x(&[&line]), "203.0.113.9");
            let line = format!("{left},for=\"203.0.113.9:{port}\";proto=https");
            proptest::prop_assert_eq!(rfc(&[&line]), "203.0.113.9");
            proptest::prop_assert_eq!(rfc(&[&left, "for=203.0.113.9"]), "203.0.113.9");
            let _ = (x(&[&left]), rfc(&[&left]));
        }
    }
}
