//! One request: from hyper's types to the story's, and its answer back.

use std::any::Any;
use std::convert::Infallible;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, COOKIE, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use ipnet::IpNet;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;

use super::respond::{self, Answer, RequestId};
use super::strict::{self, Fault};
use super::watch::{Arriving, UnderWay, Watch};
use super::{Edge, Handler, forwarded};
use crate::base::Chain;
use crate::event::{Client, Head};
use crate::intake::Inbound;
use crate::telemetry::{Reason, RequestOutcome};

/// The requests of one connection.
#[derive(Clone)]
pub(super) struct Caller<H> {
    pub(super) edge: Arc<Edge>,
    pub(super) handler: H,
    pub(super) watch: Arc<Watch>,
    pub(super) peer: SocketAddr,
    pub(super) tls: bool,
}

/// How a connection answers, with what would be the same without webhooks around it: the request's id, a trace
/// and a guard against panics.
///
/// The id is our own and stands in the answer and the logs alone. `tower-http`'s layer would take a sender's, or
/// put ours among the headers, which go to the application as they were received.
pub(super) fn answers<H: Handler>(
    caller: Caller<H>,
) -> impl Service<Request<Incoming>, Response = Response<impl SendBody>, Error = Infallible, Future: Send> + Clone + Send
{
    let stack = ServiceBuilder::new()
        .layer(
            TraceLayer::new_for_http().make_span_with(span).on_request(()).on_body_chunk(()).on_eos(()).on_failure(()), // to us a 503 is an answer; the refusal's own line says why
        )
        .layer(CatchPanicLayer::custom(panicked))
        .service_fn(move |request| {
            let caller = caller.clone();
            async move { Ok::<_, Infallible>(caller.answer(request).await) }
        });
    service_fn(move |mut request: Request<Incoming>| {
        let (stack, id) = (stack.clone(), RequestId::new());
        request.extensions_mut().insert(id);
        async move { Ok(respond::finish(stack.oneshot(request).await?, id)) }
    })
}

/// A body that hyper can send.
pub(super) trait SendBody:
    Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static
{
}

impl<B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static> SendBody for B {}

/// For whoever debugs: which request it is, without its target and headers, where secrets may be.
fn span(request: &Request<Incoming>) -> tracing::Span {
    let id = request.extensions().get::<RequestId>().map(tracing::field::display);
    tracing::debug_span!("request", id, method = %request.method())
}

/// A panic is our fault: the sender learns no more than that, and its connection goes on.
fn panicked(_payload: Box<dyn Any + Send>) -> Response<Full<Bytes>> {
    tracing::error!("a request panicked");
    respond::panicked()
}

impl<H: Handler> Caller<H> {
    async fn answer(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let mut asked = Asked::of(&request, self.peer.ip().to_canonical());
        let rules = self.edge.rules();
        if asked.version == Version::HTTP_2
            && let Err(fault) = strict::check_http2(&request, rules.limits.headers)
        {
            self.count_malformed();
            self.log(Reason::Malformed, &fault, &asked);
            return self.turn_away(respond::fault(fault), &asked);
        }
        if rules.health_path.as_deref() == Some(request.uri().path()) {
            return match asked.method {
                Method::GET | Method::HEAD => self.unread(respond::healthy(), &asked),
                _ => self.turn_away(respond::no_probe(), &asked),
            };
        }
        let handler = self.handler.clone();
        let inbound = self.inbound(request, &rules.trusted_proxies);
        drop(rules);
        asked.client = inbound.head.client.ip;
        match handler.oneshot(inbound).await {
            Ok(receipt) => respond::receipt(receipt),
            Err(refusal) => {
                self.log(refusal.reason(), &refusal, &asked);
                self.turn_away(respond::refusal(&refusal), &asked)
            }
        }
    }

    /// Refuses what came instead of an HTTP/1 request; gives the answer as it is to be written, after which the
    /// connection is to be closed: whoever sends ambiguous framing may mean more than one request by it.
    pub(super) fn refuse(&self, fault: Fault) -> Vec<u8> {
        let id = RequestId::new();
        self.count_malformed();
        if self.edge.refusal_log.admits(Reason::Malformed) {
            tracing::info!(
                reason = crate::telemetry::Word::as_str(Reason::Malformed),
                error = %fault,
                request_id = %id,
                client = %self.peer.ip().to_canonical(),
                "request refused"
            );
        }
        respond::last_words(fault, id, self.edge.clock.now())
    }

    fn count_malformed(&self) {
        let unknown = self.edge.metrics.unknown_source();
        unknown.answered(RequestOutcome::Refused, Duration::ZERO);
        unknown.refused(Reason::Malformed);
    }

    fn inbound(&self, request: Request<Incoming>, trusted_proxies: &[IpNet]) -> Inbound {
        let (mut parts, body) = request.into_parts();
        let request = parts.extensions.remove::<Weak<UnderWay>>().unwrap_or_default();
        if parts.version == Version::HTTP_2 {
            join_cookies(&mut parts.headers);
        }
        let body = Arriving::new(body, request);
        let named = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host: Option<Box<str>> = parts.uri.authority().map(Authority::as_str).or(named).map(Box::from);
        let own = Client { ip: self.peer.ip().to_canonical(), tls: self.tls, host: host.clone() };
        let client = forwarded::client(own, &parts.headers, trusted_proxies);
        let head = Head {
            method: parts.method,
            path: Box::from(parts.uri.path()),
            query: parts.uri.query().map(Box::from),
            headers: parts.headers,
            client,
            received_at: self.edge.clock.now(),
        };
        Inbound { host, head, body: body.boxed() }
    }

    fn turn_away(&self, answer: Answer, asked: &Asked) -> Response<Full<Bytes>> {
        let unread = answer.body_unread;
        let response = answer.into_response();
        if unread { self.unread(response, asked) } else { response }
    }

    /// What is unread of a body must not be taken for the next request, so such a connection ends.
    fn unread(&self, mut response: Response<Full<Bytes>>, asked: &Asked) -> Response<Full<Bytes>> {
        if asked.with_body && asked.version < Version::HTTP_2 {
            self.watch.left_unread();
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// A path as the log may have it.
    fn shown<'p>(&self, path: &'p str) -> &'p str {
        if self.edge.rules().secret_paths.iter().any(|table| table.find(None, path).is_some()) { "***" } else { path }
    }

    fn log(&self, reason: Reason, error: &dyn Error, asked: &Asked) {
        if !self.edge.refusal_log.admits(reason) {
            return;
        }
        tracing::info!(
            reason = crate::telemetry::Word::as_str(reason),
            error = %Chain(error),
            request_id = asked.id.map(tracing::field::display),
            client = %asked.client,
            method = %asked.method,
            path = ?self.shown(asked.target.path()), // escaped: it is the sender's
            "request refused"
        );
    }
}

/// HTTP/2 may send a `Cookie` in crumbs, and the application gets it over HTTP/1 (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, whole);
    }
}

/// What is still to be known of a request once it is handed on.
struct Asked {
    id: Option<RequestId>,
    /// The peer, until it is known whom it speaks for.
    client: IpAddr,
    method: Method,
    target: Uri,
    version: Version,
    with_body: bool,
}

impl Asked {
    fn of(request: &Request<Incoming>, client: IpAddr) -> Self {
        Self {
            id: request.extensions().get().copied(),
            client,
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            with_body: !request.body().is_end_stream(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_of_a_cookie_are_joined_and_nothing_else_is() {
        let headers = |all: &[(&'static str, &'static str)]| {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (http::HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            all.iter().map(pair).collect::<HeaderMap>()
        };
        let mut crumbs = headers(&[("cookie", "a=1"), ("x", "1"), ("cookie", "b=2; c=3"), ("x", "2")]);
        join_cookies(&mut crumbs);
        assert_eq!(crumbs.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
        assert_eq!(crumbs.get_all("x").iter().count(), 2);
        let mut one = headers(&[("cookie", "a=1")]);
        join_cookies(&mut one);
        assert_eq!(one["cookie"], "a=1");
    }
}
