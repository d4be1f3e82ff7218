//! What hyper lets through and a gateway must not: requests that two programs could read in two ways.

use http::header::{EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};

/// Why a request is refused before anything is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// More header lines than are allowed.
    #[error("too many headers")]
    HeadersTooMany,
    /// A `Transfer-Encoding` other than one `chunked`.
    #[error("an odd Transfer-Encoding")]
    Framing,
    /// No `Host`, several, an odd one, or one that the target contradicts.
    #[error("no clear Host")]
    Host,
    /// `CONNECT`, `TRACE` or an `Upgrade`.
    #[error("a tunnel or upgrade")]
    Tunnel,
    /// An `Expect` other than `100-continue`.
    #[error("an odd Expect")]
    Expectation,
}

/// Refuses what is ambiguous in a request's head. `headers_max` holds for HTTP/2 here; hyper holds it for HTTP/1.
///
/// hyper has already refused broken lines and lengths, and dropped a `Content-Length` beside a
/// `Transfer-Encoding`; the request to the application is built anew, with one length.
pub(super) fn check<B>(request: &Request<B>, headers_max: usize) -> Result<(), Fault> {
    let headers = request.headers();
    if headers.len() > headers_max {
        return Err(Fault::HeadersTooMany);
    }
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) || headers.contains_key(UPGRADE) {
        return Err(Fault::Tunnel);
    }
    if !all(headers, &TRANSFER_ENCODING, |value| value.eq_ignore_ascii_case(b"chunked")) {
        return Err(Fault::Framing);
    }
    if !all(headers, &EXPECT, |value| value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Fault::Expectation);
    }
    if host_is_clear(request.version(), request.uri(), headers) { Ok(()) } else { Err(Fault::Host) }
}

/// Whether `name` is missing, or there once with a good value.
fn all(headers: &HeaderMap, name: &http::HeaderName, good: impl Fn(&[u8]) -> bool) -> bool {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => true,
        (Some(value), None) => good(value.as_bytes().trim_ascii()),
        (Some(_), Some(_)) => false,
    }
}

/// HTTP/1.1 needs exactly one `Host`, HTTP/2 an `:authority` or a `Host`; where there are two, they agree.
fn host_is_clear(version: Version, target: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    let authority = target.authority().map(http::uri::Authority::as_str);
    match (authority, host) {
        _ if more.is_some() => false,
        (None, None) => version < Version::HTTP_11,
        (Some(authority), None) => version >= Version::HTTP_2 && is_host(authority.as_bytes()),
        (None, Some(host)) => is_host(host.as_bytes()),
        (Some(authority), Some(host)) => is_host(host.as_bytes()) && agrees(authority, host),
    }
}

fn agrees(authority: &str, host: &HeaderValue) -> bool {
    authority.as_bytes().eq_ignore_ascii_case(host.as_bytes())
}

/// A name or address and perhaps a port: nothing empty, no user, no path, no list.
pub(super) fn is_host(host: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte);
    !host.is_empty() && !host.starts_with(b":") && host.iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_h1(target: &str, headers: &[(&str, &str)]) -> Result<(), Fault> {
        check_version(Version::HTTP_11, Method::POST, target, headers)
    }

    fn check_version(version: Version, method: Method, target: &str, headers: &[(&str, &str)]) -> Result<(), Fault> {
        let mut request = Request::builder().version(version).method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap(), 4)
    }

    #[test]
    fn an_ordinary_request_passes() {
        for host in ["a", "A.example:8080", "[::1]:80", "192.0.2.1"] {
            assert_eq!(check_h1("/x?y", &[("host", host)]), Ok(()), "{host}");
        }
        assert_eq!(check_h1("/", &[("host", "a"), ("transfer-encoding", "Chunked")]), Ok(()));
        assert_eq!(check_h1("/", &[("host", "a"), ("expect", "100-Continue")]), Ok(()));
    }

    #[test]
    fn a_host_must_be_there_once_and_be_one() {
        for headers in [
            &[][..],
            &[("host", "a"), ("host", "a")],
            &[("host", "")],
            &[("host", "a,b")],
            &[("host", "u@a")],
            &[("host", "a/b")],
            &[("host", ":80")],
            &[("host", "a b")],
        ] {
            assert_eq!(check_h1("/", headers), Err(Fault::Host), "{headers:?}");
        }
        assert_eq!(check_version(Version::HTTP_10, Method::POST, "/", &[]), Ok(()));
    }

    #[test]
    fn an_absolute_target_must_agree_with_the_host() {
        assert_eq!(check_h1("http://a.example/x", &[("host", "A.example")]), Ok(()));
        for host in ["b.example", "a.example:80", "a.example.evil"] {
            assert_eq!(check_h1("http://a.example/x", &[("host", host)]), Err(Fault::Host), "{host}");
        }
        assert_eq!(check_h1("http://a.example/x", &[]), Err(Fault::Host));
    }

    #[test]
    fn http2_needs_an_authority_or_a_host() {
        let check =
            |target: &str, headers: &[(&str, &str)]| check_version(Version::HTTP_2, Method::POST, target, headers);
        assert_eq!(check("https://a/x", &[]), Ok(()));
        assert_eq!(check("https://a/x", &[("host", "a")]), Ok(()));
        assert_eq!(check("/x", &[("host", "a")]), Ok(()));
        assert_eq!(check("https://a/x", &[("host", "b")]), Err(Fault::Host));
        assert_eq!(check("https://u@a/x", &[]), Err(Fault::Host));
        assert_eq!(check("/x", &[]), Err(Fault::Host));
    }

    #[test]
    fn framing_tunnels_expectations_and_counts_are_refused() {
        let with = |name, value| check_h1("/", &[("host", "a"), (name, value)]);
        for value in ["identity", "gzip, chunked", "identity, chunked", "", "chunked, chunked"] {
            assert_eq!(with("transfer-encoding", value), Err(Fault::Framing), "{value:?}");
        }
        let twice = [("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(check_h1("/", &twice), Err(Fault::Framing));
        assert_eq!(with("upgrade", "h2c"), Err(Fault::Tunnel));
        assert_eq!(with("expect", "200-ok"), Err(Fault::Expectation));
        for method in [Method::CONNECT, Method::TRACE] {
            let fault = check_version(Version::HTTP_11, method.clone(), "/", &[("host", "a")]);
            assert_eq!(fault, Err(Fault::Tunnel), "{method}");
        }
        let headers = [("host", "a"), ("b", ""), ("c", ""), ("d", ""), ("e", "")];
        assert_eq!(check_h1("/", &headers), Err(Fault::HeadersTooMany));
        assert_eq!(check_h1("/", &headers[..4]), Ok(()));
    }
}
