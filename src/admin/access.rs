//! Who may do what.
//!
//! With tokens: the bearer of `token` reads and operates, the bearer of `read_token` reads. Without any:
//! everybody who reaches the address, which `config` then keeps on loopback. A browser on the same machine reaches
//! it too, on behalf of any site it shows; so without tokens the request must name the host by address or as
//! `localhost` (a site that rebinds its own name to 127.0.0.1 cannot), and must not come from another site's page.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Uri, header};

use super::problem::Problem;
use super::{Settings, State};
use crate::base::Secret;
use crate::journal::Journal;

/// The tokens.
#[derive(Clone, Debug)]
pub struct Access {
    token: Option<Secret>,
    read_token: Option<Secret>,
    open_metrics: bool,
}

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Read,
    Operate,
}

/// By what right a request does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// There are no tokens.
    Anyone,
    /// It bears the read token.
    Reader,
    /// It bears the token.
    Operator,
}

impl Who {
    /// The word in the audit log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Anyone => "open",
            Self::Reader => "read_token",
            Self::Operator => "token",
        }
    }
}

impl Access {
    /// The tokens of `settings`.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            token: settings.token.clone(),
            read_token: settings.read_token.clone(),
            open_metrics: settings.open_metrics,
        }
    }

    fn is_open(&self) -> bool {
        self.token.is_none() && self.read_token.is_none()
    }

    fn permit(&self, need: Need, uri: &Uri, headers: &HeaderMap) -> Result<Who, Problem> {
        if self.is_open() {
            own_host(uri, headers)?;
            if need == Need::Operate {
                own_site(headers)?;
            }
            return Ok(Who::Anyone);
        }
        match (self.bearer(headers), need) {
            (None, _) => Err(Problem::Unauthorized),
            (Some(Who::Reader), Need::Operate) => Err(Problem::ReadOnly),
            (Some(who), _) => Ok(who),
        }
    }

    /// Whose token the request bears. Both are compared every time, so that the time tells nothing.
    fn bearer(&self, headers: &HeaderMap) -> Option<Who> {
        let given = bearer_token(headers)?;
        let holds = |secret: &Option<Secret>| secret.as_ref().is_some_and(|s| !s.is_empty() & s.matches(given));
        match (holds(&self.token), holds(&self.read_token)) {
            (true, _) => Some(Who::Operator),
            (false, true) => Some(Who::Reader),
            (false, false) => None,
        }
    }
}

/// The token of the only `Authorization` header, if its scheme is Bearer (RFC 6750).
fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?.as_bytes(), values.next()) else { return None };
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Refuses a request for a host that is a name other than `localhost`.
fn own_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let host = authority(uri, headers).ok_or(Problem::ForeignHost)?;
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    if name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok() {
        Ok(())
    } else {
        Err(Problem::ForeignHost)
    }
}

fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    match uri.authority() {
        Some(authority) => Some(authority.clone()), // absolute-form: it stands above Host (RFC 9112, 3.2.2)
        None => headers.get(header::HOST)?.to_str().ok()?.parse().ok(),
    }
}

/// Refuses what a browser sends on behalf of another site's page. Other clients send neither header.
fn own_site(headers: &HeaderMap) -> Result<(), Problem> {
    let own_fetch = |value: &[u8]| value == b"same-origin" || value == b"none";
    if headers.get("sec-fetch-site").is_some_and(|value| !own_fetch(value.as_bytes())) {
        return Err(Problem::ForeignSite);
    }
    let host = headers.get(header::HOST).map(|host| host.as_bytes());
    match headers.get(header::ORIGIN).map(|origin| origin.as_bytes()) {
        None => Ok(()),
        Some(origin) if origin.strip_prefix(b"http://") == host && host.is_some() => Ok(()),
        Some(_) => Err(Problem::ForeignSite),
    }
}

/// In a handler's signature: the request may read.
pub(super) struct MayRead;

/// In a handler's signature: the request may operate, by this right.
pub(super) struct MayOperate(pub(super) Who);

/// In a handler's signature: the request may see the metrics.
pub(super) struct MayScrape;

/// In a handler's signature: whether the request may be told reasons. Never refuses.
pub(super) struct Trusted(pub(super) bool);

impl<J: Journal> FromRequestParts<Arc<State<J>>> for MayRead {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State<J>>) -> Result<Self, Problem> {
        state.present.load().access.permit(Need::Read, &parts.uri, &parts.headers).map(|_| Self)
    }
}

impl<J: Journal> FromRequestParts<Arc<State<J>>> for MayOperate {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State<J>>) -> Result<Self, Problem> {
        state.present.load().access.permit(Need::Operate, &parts.uri, &parts.headers).map(Self)
    }
}

impl<J: Journal> FromRequestParts<Arc<State<J>>> for MayScrape {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State<J>>) -> Result<Self, Problem> {
        if state.present.load().access.open_metrics {
            return Ok(Self);
        }
        state.present.load().access.permit(Need::Read, &parts.uri, &parts.headers).map(|_| Self)
    }
}

impl<J: Journal> FromRequestParts<Arc<State<J>>> for Trusted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State<J>>) -> Result<Self, Problem> {
        Ok(Self(state.present.load().access.permit(Need::Read, &parts.uri, &parts.headers).is_ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn access(token: Option<&str>, read_token: Option<&str>) -> Access {
        Access { token: token.map(Secret::new), read_token: read_token.map(Secret::new), open_metrics: false }
    }

    fn permit(access: &Access, need: Need, headers: &[(&'static str, &str)]) -> Result<Who, Problem> {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        access.permit(need, &Uri::from_static("/"), &headers.iter().map(pair).collect())
    }

    #[test]
    fn a_token_opens_what_it_is_for() {
        let both = access(Some("operate-token"), Some("read-token"));
        let cases = [
            ("Bearer operate-token", Ok(Who::Operator), Ok(Who::Operator)),
            ("bearer  operate-token ", Ok(Who::Operator), Ok(Who::Operator)),
            ("Bearer read-token", Ok(Who::Reader), Err(Problem::ReadOnly)),
            ("Bearer operate-toke", Err(Problem::Unauthorized), Err(Problem::Unauthorized)),
            ("Bearer operate-tokens", Err(Problem::Unauthorized), Err(Problem::Unauthorized)),
            ("Bearer", Err(Problem::Unauthorized), Err(Problem::Unauthorized)),
            ("Bearer ", Err(Problem::Unauthorized), Err(Problem::Unauthorized)),
            ("Basic operate-token", Err(Problem::Unauthorized), Err(Problem::Unauthorized)),
        ];
        for (authorization, read, operate) in cases {
            let headers = [("authorization", authorization), ("host", "forebay.example")];
            assert_eq!(permit(&both, Need::Read, &headers), read, "{authorization}");
            assert_eq!(permit(&both, Need::Operate, &headers), operate, "{authorization}");
        }
        assert_eq!(permit(&both, Need::Read, &[]), Err(Problem::Unauthorized));
        let twice = [("authorization", "Bearer wrong"), ("authorization", "Bearer operate-token")];
        assert_eq!(permit(&both, Need::Read, &twice), Err(Problem::Unauthorized));
    }

    #[test]
    fn a_missing_token_is_never_matched() {
        let reading = access(None, Some("read-token"));
        assert_eq!(permit(&reading, Need::Read, &[("host", "localhost")]), Err(Problem::Unauthorized));
        assert_eq!(permit(&reading, Need::Operate, &[("authorization", "Bearer ")]), Err(Problem::Unauthorized));
        let empty = access(Some(""), None);
        assert_eq!(permit(&empty, Need::Read, &[("authorization", "Bearer ")]), Err(Problem::Unauthorized));
    }

    #[test]
    fn without_tokens_a_name_that_may_be_rebound_is_refused() {
        let open = access(None, None);
        for host in ["127.0.0.1:9090", "127.0.0.1", "[::1]:9090", "localhost:9090", "LocalHost"] {
            assert_eq!(permit(&open, Need::Read, &[("host", host)]), Ok(Who::Anyone), "{host}");
        }
        for host in ["evil.example", "evil.example:9090", "localhost.evil.example", "127.0.0.1.evil.example", "", "@"] {
            assert_eq!(permit(&open, Need::Read, &[("host", host)]), Err(Problem::ForeignHost), "{host}");
        }
        assert_eq!(permit(&open, Need::Read, &[]), Err(Problem::ForeignHost));
    }

    #[test]
    fn without_tokens_another_sites_page_may_not_operate() {
        let open = access(None, None);
        let with = |name, value| permit(&open, Need::Operate, &[("host", "127.0.0.1:9090"), (name, value)]);
        for (name, value) in [
            ("accept", "*/*"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "none"),
            ("origin", "http://127.0.0.1:9090"),
        ] {
            assert_eq!(with(name, value), Ok(Who::Anyone), "{name}: {value}");
        }
        for (name, value) in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "http://127.0.0.1:3000"),
            ("origin", "https://evil.example"),
            ("origin", "null"),
        ] {
            assert_eq!(with(name, value), Err(Problem::ForeignSite), "{name}: {value}");
        }
    }
}
