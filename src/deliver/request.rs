//! What an application gets: the original request, built anew, and the Forebay headers (docs/delivery.md).

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::Full;

use super::{Destination, HeaderEdits};
use crate::event::{AttemptReason, DeliveryId, Event, Headers};

/// One attempt, before it is a request.
#[derive(Clone, Copy, Debug)]
pub struct Outbound<'a> {
    /// The event.
    pub event: &'a Event,
    /// The delivery.
    pub delivery: DeliveryId,
    /// The route's path, if it has one.
    pub path: Option<&'a str>,
    /// The attempt's number.
    pub number: u32,
    /// Why it is made.
    pub reason: AttemptReason,
}

/// Why an event cannot be made into a request.
#[derive(Debug, thiserror::Error)]
#[error("the route's path and the event's query do not make a URL: {0}")]
pub struct TargetError(#[from] http::Error);

/// What belongs to one connection (RFC 9110, section 7.6.1), and what a message is framed by.
const CONNECTION_BOUND: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    CONTENT_LENGTH,
];

/// What else an application is not sent as it came: it is set anew, or means nothing further on.
const NOT_FORWARDED: [HeaderName; 6] = [
    EXPECT,
    HOST,
    FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
];

/// Of an application's answer, the headers that go on to the sender: all but those of the connection and ours.
#[must_use]
pub fn relayed(answer: &HeaderMap) -> HeaderMap {
    let named = named_by_connection(answer.iter());
    let goes_on = |name: &HeaderName| {
        let ours = name.as_str().starts_with("forebay-") || name.as_str().starts_with("forebay_");
        !CONNECTION_BOUND.contains(name) && !named.contains(name) && !ours
    };
    let headers = answer.iter().filter(|(name, _)| goes_on(name));
    headers.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The headers that `Connection` says are the connection's as well.
fn named_by_connection<'h>(headers: impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)>) -> Vec<HeaderName> {
    headers
        .filter(|(name, _)| *name == CONNECTION)
        .filter_map(|(_, value)| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect()
}

/// Builds the request of one attempt. The body is the event's, byte for byte.
///
/// # Errors
/// [`TargetError`] if the route's path cannot stand in a URL.
pub fn request(destination: &Destination, outbound: Outbound<'_>) -> Result<Request<Full<Bytes>>, TargetError> {
    let event = outbound.event;
    let mut request = Request::new(Full::new(event.body.clone()));
    *request.method_mut() = event.method.clone();
    *request.uri_mut() = target(&destination.url, outbound.path, event.query.as_deref())?;
    let headers = request.headers_mut();
    carry_over(&event.headers, headers);
    add_facts(outbound, headers);
    edit(&destination.headers, headers);
    Ok(request)
}

/// The destination's URL, its path replaced by the route's, with the inbound query added.
///
/// # Errors
/// If path and query cannot stand in a URL.
pub fn target(url: &Uri, path: Option<&str>, query: Option<&str>) -> Result<Uri, http::Error> {
    let own = url.path_and_query();
    let path = path.unwrap_or_else(|| own.map_or("/", PathAndQuery::path));
    let both = match (own.and_then(PathAndQuery::query), query.filter(|query| !query.is_empty())) {
        (None, None) => path.to_owned(),
        (Some(one), None) | (None, Some(one)) => format!("{path}?{one}"),
        (Some(own), Some(inbound)) => format!("{path}?{own}&{inbound}"),
    };
    let mut parts = url.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(both)?);
    Ok(Uri::from_parts(parts)?)
}

/// Whether `path` can stand in a URL as a route's path.
///
/// # Errors
/// [`TargetError`] if it cannot.
pub fn check_path(path: &str) -> Result<(), TargetError> {
    PathAndQuery::try_from(path).map_err(http::Error::from)?;
    Ok(())
}

/// Adds the headers of a request that was received to one that is sent on: all but the connection's own.
pub fn carry_over(received: &Headers, headers: &mut HeaderMap) {
    let named = named_by_connection(received.iter().map(|(name, value)| (name, value)));
    for (name, value) in received {
        if !is_replaced(name) && !named.contains(name) {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// Whether `name` belongs to the connection or is set anew. `_` counts as `-`: to applications behind CGI or WSGI
/// `X_Forwarded_For` and `X-Forwarded-For` are one and the same.
fn is_replaced(name: &HeaderName) -> bool {
    if name.as_str().contains('_') {
        let twin = name.as_str().replace('_', "-");
        return CONNECTION_BOUND.iter().chain(&NOT_FORWARDED).any(|other| *other == *twin);
    }
    CONNECTION_BOUND.contains(name) || NOT_FORWARDED.contains(name)
}

fn add_facts(outbound: Outbound<'_>, headers: &mut HeaderMap) {
    let Outbound { event, delivery, number, reason, .. } = outbound;
    let mut set = |name: &'static str, value: String| {
        // Names, ids, numbers and times are ASCII; the event's type may be anything, and is left out if it cannot stand here.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("forebay-event-id", event.id.to_string());
    set("forebay-delivery-id", delivery.to_string());
    set("forebay-source", event.source.to_string());
    set("forebay-provider", event.provider.to_string());
    if let Some(kind) = &event.kind {
        set("forebay-event-type", kind.to_string());
    }
    set("forebay-attempt", number.to_string());
    set("forebay-attempt-reason", reason.as_str().to_owned());
    set("forebay-received-at", event.received_at.to_string());
    set("x-forwarded-for", event.client.ip.to_string());
    set("x-forwarded-proto", if event.client.tls { "https" } else { "http" }.to_owned());
    if let Some(host) = &event.client.host {
        set("x-forwarded-host", host.to_string());
    }
    let idempotency = HeaderName::from_static("idempotency-key");
    if !headers.contains_key(&idempotency)
        && let Ok(value) = HeaderValue::try_from(event.id.to_string())
    {
        headers.insert(idempotency, value);
    }
    let traceparent = HeaderName::from_static("traceparent");
    if !headers.contains_key(&traceparent)
        && let Ok(value) = HeaderValue::try_from(trace_context(event))
    {
        headers.insert(traceparent, value);
    }
}

/// A trace of the event's own (W3C Trace Context): its id is the event's, so that all attempts belong together.
fn trace_context(event: &Event) -> String {
    let trace = u128::from_be_bytes(*event.id.as_bytes());
    format!("00-{trace:032x}-{:016x}-01", fastrand::u64(1..))
}

fn edit(edits: &HeaderEdits, headers: &mut HeaderMap) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        headers.insert(name.clone(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::Method;
    use http_body_util::BodyExt;

    use super::*;
    use crate::base::{Name, UnixMillis};
    use crate::event::{Client, EventId, Proof};

    fn event(headers: &[(&'static str, &'static str)]) -> Event {
        let name = Name::new("acme").unwrap();
        Event {
            id: EventId::from_bytes([0xab; 16]),
            source: name.clone(),
            provider: name,
            kind: Some("push".into()),
            provider_event_id: None,
            method: Method::PUT,
            path: "/inbound/path".into(),
            query: Some("b=2&b=3".into()),
            params: Vec::new(),
            headers: headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect(),
            body: Bytes::from_static(b"\x00exact\r\n"),
            received_at: UnixMillis(1_700_000_000_042),
            client: Client { ip: Ipv4Addr::new(192, 0, 2, 1).into(), tls: true, host: Some("hooks.test".into()) },
            proof: Proof { scheme: "hmac".into(), slot: "".into() },
        }
    }

    fn destination(url: &'static str, headers: HeaderEdits) -> Destination {
        Destination { concurrency: 1, headers, ..Destination::at(url) }
    }

    fn built(url: &'static str, path: Option<&str>, event: &Event, edits: HeaderEdits) -> Request<Full<Bytes>> {
        let delivery = DeliveryId { event: event.id, index: 0 };
        let outbound = Outbound { event, delivery, path, number: 2, reason: AttemptReason::Retry };
        request(&destination(url, edits), outbound).unwrap()
    }

    #[test]
    fn the_path_is_the_destinations_or_the_routes_and_the_query_is_added() {
        let event = event(&[]);
        let url = |url, path| built(url, path, &event, HeaderEdits::default()).uri().to_string();
        assert_eq!(url("http://app:3000/hooks", None), "http://app:3000/hooks?b=2&b=3");
        assert_eq!(url("http://app:3000", None), "http://app:3000/?b=2&b=3");
        assert_eq!(url("http://app/hooks?a=1", Some("/other")), "http://app/other?a=1&b=2&b=3");
    }

    #[tokio::test]
    async fn method_body_and_headers_arrive_as_they_came_but_for_the_connections_own() {
        let event = event(&[
            ("x-one", "1"),
            ("x-many", "a"),
            ("connection", "keep-alive, X-Bound"),
            ("x-bound", "to the connection"),
            ("x-many", "b"),
            ("expect", "100-continue"),
            ("host", "hooks.test"),
            ("content-length", "9"),
            ("transfer-encoding", "chunked"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x_forwarded_for", "203.0.113.9"),
            ("content_length", "1"),
            ("authorization", "Basic abc"),
        ]);
        let request = built("http://app/", None, &event, HeaderEdits::default());
        assert_eq!(request.method(), Method::PUT);
        let headers = request.headers();
        assert_eq!(headers.get_all("x-many").iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((headers["x-one"].as_bytes(), headers["authorization"].as_bytes()), (&b"1"[..], &b"Basic abc"[..]));
        for gone in ["connection", "x-bound", "expect", "host", "content-length", "transfer-encoding"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        for twin in ["x_forwarded_for", "content_length"] {
            assert!(!headers.contains_key(twin), "{twin}");
        }
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), &b"\x00exact\r\n"[..]);
    }

    #[test]
    fn the_facts_of_the_event_stand_in_the_headers() {
        let event = event(&[]);
        let request = built("http://app/", None, &event, HeaderEdits::default());
        let id = "evt_abababababababababababababababab";
        for (name, value) in [
            ("forebay-event-id", id),
            ("forebay-delivery-id", "dlv_abababababababababababababababab-0"),
            ("forebay-source", "acme"),
            ("forebay-provider", "acme"),
            ("forebay-event-type", "push"),
            ("forebay-attempt", "2"),
            ("forebay-attempt-reason", "retry"),
            ("forebay-received-at", "2023-11-14T22:13:20.042Z"),
            ("idempotency-key", id),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "hooks.test"),
        ] {
            assert_eq!(request.headers()[name], value, "{name}");
        }
        let trace = request.headers()["traceparent"].to_str().unwrap();
        assert!(trace.starts_with("00-abababababababababababababababab-"), "{trace}");
    }

    #[test]
    fn the_senders_own_idempotency_key_and_trace_stay_and_edits_come_last() {
        let event = event(&[("idempotency-key", "mine"), ("traceparent", "00-1-2-01"), ("cookie", "a=b")]);
        let edits = HeaderEdits {
            set: vec![(HeaderName::from_static("x-env"), HeaderValue::from_static("prod"))],
            remove: vec![HeaderName::from_static("cookie")],
        };
        let request = built("http://app/", None, &event, edits);
        let headers = request.headers();
        assert_eq!(
            (&headers["idempotency-key"], &headers["traceparent"]),
            (&"mine".parse().unwrap(), &"00-1-2-01".parse().unwrap())
        );
        assert_eq!(headers["x-env"], "prod");
        assert!(!headers.contains_key("cookie"));
    }
}
