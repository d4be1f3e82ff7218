//! What the HTTP/2 library leaves open in a request's head.

use http::header::{CONTENT_LENGTH, EXPECT, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, Method, Request, Uri};

use super::Fault;
use super::head::{TARGET_MAX, is_host};

/// Refuses what is ambiguous in a request that came by HTTP/2.
///
/// The library has refused names in capitals, characters that no name or value may have, headers of a connection,
/// pseudo-headers that are unknown, missing, late or there twice, and lengths that differ from the data. It drops a `#`
/// in a target and what is behind it.
pub(in crate::ingress) fn check<B>(request: &Request<B>, headers_max: usize) -> Result<(), Fault> {
    let headers = request.headers();
    if headers.len() > headers_max {
        return Err(Fault::HeadersTooMany);
    }
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) || headers.contains_key(UPGRADE) {
        return Err(Fault::Tunnel);
    }
    target(request.uri(), request.method())?;
    // Spaces around a value are no part of it in HTTP/1, and so not for the application (RFC 9113, section 8.2.1).
    if !headers.values().all(|value| value.as_bytes().is_ascii() && !has_space_around(value.as_bytes())) {
        return Err(Fault::Field);
    }
    if !at_most_one(headers, &CONTENT_LENGTH, |value| value.iter().all(u8::is_ascii_digit)) {
        return Err(Fault::Framing);
    }
    if !at_most_one(headers, &EXPECT, |value| value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Fault::Expectation);
    }
    if host_is_clear(request.uri(), headers) { Ok(()) } else { Err(Fault::Host) }
}

fn target(target: &Uri, method: &Method) -> Result<(), Fault> {
    let text = target.path_and_query().map_or("/", |path| path.as_str());
    let is_path = text.starts_with('/') || (text == "*" && *method == Method::OPTIONS);
    if text.len() > TARGET_MAX {
        return Err(Fault::TargetTooLong);
    }
    if is_path && text.is_ascii() && !text.contains('\\') { Ok(()) } else { Err(Fault::Target) }
}

fn has_space_around(value: &[u8]) -> bool {
    matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t'])
}

/// Whether `name` is missing, or there once with a good value.
fn at_most_one(headers: &HeaderMap, name: &HeaderName, good: impl Fn(&[u8]) -> bool) -> bool {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => true,
        (Some(value), None) => good(value.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

/// There is an `:authority` or a `Host`; where there are both, they agree.
fn host_is_clear(target: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter().map(|host| host.as_bytes());
    let authority = target.authority().map(|authority| authority.as_str().as_bytes());
    match (authority, hosts.next(), hosts.next()) {
        (None, None, _) | (_, _, Some(_)) => false,
        (Some(host), None, None) | (None, Some(host), None) => is_host(host),
        (Some(authority), Some(host), None) => is_host(host) && authority.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: Method, target: &str, headers: &[(&str, &[u8])], expected: Result<(), Fault>) {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        assert_eq!(super::check(&request.body(()).unwrap(), 4), expected, "{target} {headers:?}");
    }

    #[test]
    fn an_authority_or_a_host_is_needed_and_both_agree() {
        let check = |target: &str, headers: &[(&str, &[u8])], expected| check(Method::POST, target, headers, expected);
        for (target, headers) in
            [("https://a/x", &[][..]), ("https://a/x", &[("host", &b"A"[..])]), ("/x", &[("host", b"a")])]
        {
            check(target, headers, Ok(()));
        }
        check("https://a/x", &[("host", b"b")], Err(Fault::Host));
        check("https://u@a/x", &[], Err(Fault::Host));
        check("/x", &[], Err(Fault::Host));
        check("/x", &[("host", b"a"), ("host", b"a")], Err(Fault::Host));
    }

    #[test]
    fn targets_tunnels_expectations_lengths_and_counts_are_checked() {
        let with = |name, value: &[u8], expected| check(Method::POST, "https://a/", &[(name, value)], expected);
        with("upgrade", b"h2c", Err(Fault::Tunnel));
        with("expect", b"100-Continue", Ok(()));
        with("expect", b"200-ok", Err(Fault::Expectation));
        with("content-length", b"+1", Err(Fault::Framing));
        with("x-name", "ü".as_bytes(), Err(Fault::Field));
        with("x-name", b"a \tb", Ok(()));
        for around in [&b" a"[..], b"a ", b"\ta", b"a\t", b" "] {
            with("x-name", around, Err(Fault::Field));
        }
        check(Method::CONNECT, "https://a/", &[], Err(Fault::Tunnel));
        check(Method::TRACE, "https://a/", &[], Err(Fault::Tunnel));
        check(Method::POST, "https://a/b\\c", &[], Err(Fault::Target));
        check(Method::POST, "https://a/ü", &[], Err(Fault::Target));
        let long = format!("https://a/{}", "a".repeat(TARGET_MAX));
        check(Method::POST, &long, &[], Err(Fault::TargetTooLong));
        check(Method::POST, &long[..long.len() - 1], &[], Ok(()));
        let many: [(&str, &[u8]); 5] = [("a", b""), ("b", b""), ("c", b""), ("d", b""), ("e", b"")];
        check(Method::POST, "https://a/", &many, Err(Fault::HeadersTooMany));
        check(Method::POST, "https://a/", &many[..4], Ok(()));
    }
}
