//! What a sender is told: the contract's table of answers, and how an answer is written.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body::Body;
use http_body_util::{Either, Full};

use super::strict::Fault;
use crate::admit::Denied;
use crate::base::UnixMillis;
use crate::event::EventId;
use crate::intake::{Again, Buffered, Receipt, Refusal};
use crate::journal::AppendError;
use crate::limit::OverLimit;
use crate::provider::HandshakeAnswer;
use crate::telemetry::Word as _;

static EVENT_ID: HeaderName = HeaderName::from_static("forebay-event-id");
static DUPLICATE: HeaderName = HeaderName::from_static("forebay-duplicate");
static BUFFERED: HeaderName = HeaderName::from_static("forebay-buffered");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// RateLimit header fields, draft-ietf-httpapi-ratelimit-headers-10: the policy is named after what the limit counts
/// together, `q` is its burst and `w` the seconds in which all of it comes back, `t` the seconds until one does.
static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What passes by itself in moments: bodies in flight, a deadline.
const SOON: Duration = Duration::from_secs(1);
/// What somebody has to mend: a failed journal.
const LATER: Duration = Duration::from_secs(30);

/// What a sender is told when it went well.
pub(super) fn receipt(receipt: Receipt) -> Response<Full<Bytes>> {
    match receipt {
        Receipt::Stored { id, again, buffered, status, body, content_type } => {
            let mut response = about(id, again, status, body);
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, content_type);
            if buffered == Buffered::Yes {
                headers.insert(BUFFERED.clone(), HeaderValue::from_static("true"));
            }
            response
        }
        Receipt::Relayed { id, again, status, headers, body } => {
            let mut response = about(id, again, status, body);
            for (name, value) in &headers {
                response.headers_mut().append(name.clone(), value.clone());
            }
            response
        }
        Receipt::Handshake(answer) => handshake(answer),
    }
}

/// An answer about the event `id`.
fn about(id: EventId, again: Again, status: u16, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        headers.insert(EVENT_ID.clone(), id);
    }
    if again == Again::Yes {
        headers.insert(DUPLICATE.clone(), HeaderValue::from_static("true"));
    }
    response
}

/// The answer to a handshake. Parts of it may be the sender's own words: no browser is to take them for a page, and no
/// cache is to keep them for anybody else.
fn handshake(answer: HandshakeAnswer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body.clone()));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.extend(answer.headers);
    if !answer.body.is_empty() {
        headers.insert(CONTENT_TYPE, answer.content_type);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What a sender is told when it was turned away. No `_` arm: a new refusal has to choose.
pub(super) fn refusal(refusal: &Refusal) -> Answer {
    match refusal {
        Refusal::NoRoute => Answer::new(StatusCode::NOT_FOUND, "not found").body_unread(),
        Refusal::Method { allowed } => {
            Answer::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed").allow(allowed).body_unread()
        }
        Refusal::Denied(denied) => self::denied(denied).body_unread(),
        Refusal::Unverified(_) => Answer::new(StatusCode::UNAUTHORIZED, "signature verification failed"),
        Refusal::OverQuota(over) => too_many(over),
        Refusal::NotKept(AppendError::Full { retry_after } | AppendError::OverShare { retry_after }) => {
            unavailable(*retry_after)
        }
        Refusal::NotKept(AppendError::TooLarge { .. }) => too_large(),
        Refusal::NotKept(AppendError::Failed(_)) => unavailable(LATER),
        Refusal::NotKept(AppendError::Closed) | Refusal::UnderWay => unavailable(SOON),
        Refusal::Late { .. } => unavailable(SOON).body_unread(), // perhaps
    }
}

fn denied(denied: &Denied) -> Answer {
    match denied {
        Denied::NoRoom { retry_after } => unavailable(*retry_after),
        Denied::Client => Answer::new(StatusCode::FORBIDDEN, "forbidden"),
        Denied::TooFast(over) => too_many(over),
        Denied::Busy => unavailable(SOON),
        Denied::TooLarge { .. } => too_large(),
        Denied::TooSlow => Answer::new(StatusCode::REQUEST_TIMEOUT, "body too slow"),
        Denied::Broken => Answer::new(StatusCode::BAD_REQUEST, "body incomplete"),
        Denied::Malformed => Answer::new(StatusCode::BAD_REQUEST, "malformed request"),
        Denied::Encoded => Answer::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content encoding not supported"),
    }
}

/// What a sender of ambiguous or broken HTTP is told.
pub(super) fn fault(fault: Fault) -> Answer {
    let (status, error) = told_of(fault);
    Answer::new(status, error).body_unread()
}

fn told_of(fault: Fault) -> (StatusCode, &'static str) {
    match fault {
        Fault::HeadTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers too large"),
        Fault::HeadersTooMany => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many headers"),
        Fault::TargetTooLong => (StatusCode::URI_TOO_LONG, "target too long"),
        Fault::Tunnel => (StatusCode::BAD_REQUEST, "tunnels and upgrades are not supported"),
        Fault::Expectation => (StatusCode::EXPECTATION_FAILED, "expectation failed"),
        Fault::Line
        | Fault::RequestLine
        | Fault::Version
        | Fault::Target
        | Fault::Field
        | Fault::Framing
        | Fault::Host
        | Fault::Chunk => (StatusCode::BAD_REQUEST, "malformed request"),
    }
}

/// The answer to an HTTP/1 head that has a fault, as it is written: the last one on its connection.
pub(super) fn last_words(fault: Fault, id: RequestId, now: UnixMillis) -> Vec<u8> {
    let (status, error) = told_of(fault);
    let id = id.to_string();
    let body = error_body(error, &id);
    let date = http_date(now);
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nx-request-id: {id}\r\nconnection: close\r\n\
         content-length: {}\r\n{date}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A `Date` header; none for a time that no calendar has.
fn http_date(now: UnixMillis) -> String {
    let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
    let date = jiff::Timestamp::from_millisecond(now.0).ok();
    let date = date.and_then(|date| printer.timestamp_to_rfc9110_string(&date).ok());
    date.map_or_else(String::new, |date| format!("date: {date}\r\n"))
}

fn error_body(error: &str, id: &str) -> String {
    serde_json::json!({ "error": error, "request_id": id }).to_string()
}

/// What a load balancer's probe is told.
pub(super) fn healthy() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from("ok"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// What is told who does anything else to the health path.
pub(super) fn no_probe() -> Answer {
    let answer = Answer::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
    answer.allow(&[Method::GET, Method::HEAD]).body_unread()
}

/// What a sender is told after a panic in its request.
pub(super) fn panicked() -> Response<Full<Bytes>> {
    Answer::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error").into_response()
}

fn too_large() -> Answer {
    Answer::new(StatusCode::PAYLOAD_TOO_LARGE, "body too large")
}

fn unavailable(retry_after: Duration) -> Answer {
    Answer::new(StatusCode::SERVICE_UNAVAILABLE, "try again later").after(retry_after)
}

fn too_many(over: &OverLimit) -> Answer {
    let (per, wait, window) = (over.per.as_str(), whole_seconds(over.retry_after), whole_seconds(over.window));
    Answer::new(StatusCode::TOO_MANY_REQUESTS, "too many requests")
        .after(over.retry_after)
        .with(&RATE_LIMIT_POLICY, format!("\"{per}\";q={};w={window}", over.quota))
        .with(&RATE_LIMIT, format!("\"{per}\";r=0;t={wait}"))
}

/// An error answer: `{"error":"…","request_id":"…"}`.
pub(super) struct Answer {
    response: Response<Full<Bytes>>,
    /// Whether it was decided before the body was read to its end.
    pub(super) body_unread: bool,
}

/// The `error` of an answer, until [`finish`] writes it.
#[derive(Clone, Copy)]
struct ErrorText(&'static str);

impl Answer {
    fn new(status: StatusCode, error: &'static str) -> Self {
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        response.extensions_mut().insert(ErrorText(error));
        Self { response, body_unread: false }
    }

    fn with(mut self, name: &HeaderName, value: String) -> Self {
        if let Ok(value) = HeaderValue::try_from(value) {
            self.response.headers_mut().insert(name.clone(), value);
        }
        self
    }

    fn after(self, wait: Duration) -> Self {
        self.with(&RETRY_AFTER, whole_seconds(wait).to_string())
    }

    fn allow(self, methods: &[Method]) -> Self {
        let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
        self.with(&ALLOW, methods.join(", "))
    }

    fn body_unread(mut self) -> Self {
        self.body_unread = true;
        self
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        self.response
    }
}

/// `wait` as `Retry-After` can say it: rounded up, at least a second.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() != 0)).max(1)
}

/// The id of one request, in its answer and its log lines. Random; nobody can choose it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestId(uuid::Uuid);

impl RequestId {
    pub(super) fn new() -> Self {
        Self(uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid())
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.simple())
    }
}

/// Puts the request's id into its answer, and writes the body of an error.
pub(super) fn finish<B: Body<Data = Bytes>>(response: Response<B>, id: RequestId) -> Response<Either<Full<Bytes>, B>> {
    let (mut parts, body) = response.into_parts();
    let mut buffer = uuid::Uuid::encode_buffer();
    let id: &str = id.0.simple().encode_lower(&mut buffer);
    if let Ok(value) = HeaderValue::from_str(id) {
        parts.headers.entry(&REQUEST_ID).or_insert(value); // an application's own, in an answer that is relayed, stays
    }
    let Some(ErrorText(error)) = parts.extensions.remove() else {
        return Response::from_parts(parts, Either::Right(body));
    };
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Response::from_parts(parts, Either::Left(Full::from(error_body(error, id))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventId;
    use crate::telemetry::LimitedPer;

    fn check(turned_away: Refusal, status: u16, headers: &[(&str, &str)]) {
        let text = format!("{turned_away:?}");
        let response = refusal(&turned_away).into_response();
        assert_eq!(response.status(), status, "{text}");
        for (name, value) in headers {
            assert_eq!(
                response.headers().get(*name).map(HeaderValue::as_bytes),
                Some(value.as_bytes()),
                "{text} {name}"
            );
        }
        assert_eq!(response.headers().len(), headers.len(), "{text}: {:?}", response.headers());
    }

    #[test]
    fn each_refusal_has_the_status_and_headers_of_the_contract() {
        let ms = Duration::from_millis;
        let over = OverLimit { per: LimitedPer::ClientIp, retry_after: ms(6001), quota: 20, window: ms(120) };
        let limited = [
            ("retry-after", "7"),
            ("ratelimit-policy", "\"client_ip\";q=20;w=1"),
            ("ratelimit", "\"client_ip\";r=0;t=7"),
        ];
        let half = Duration::from_millis(1500);
        check(Refusal::NoRoute, 404, &[]);
        check(Refusal::Method { allowed: vec![Method::POST, Method::PUT] }, 405, &[("allow", "POST, PUT")]);
        check(Denied::Client.into(), 403, &[]);
        check(Denied::TooFast(over).into(), 429, &limited);
        check(over.into(), 429, &limited);
        check(Denied::NoRoom { retry_after: half }.into(), 503, &[("retry-after", "2")]);
        check(Denied::Busy.into(), 503, &[("retry-after", "1")]);
        check(Denied::TooLarge { limit_bytes: 1 }.into(), 413, &[]);
        check(Denied::TooSlow.into(), 408, &[]);
        check(Denied::Broken.into(), 400, &[]);
        check(Denied::Malformed.into(), 400, &[]);
        check(Denied::Encoded.into(), 415, &[]);
        check(AppendError::Full { retry_after: Duration::ZERO }.into(), 503, &[("retry-after", "1")]);
        check(AppendError::Failed("disk".into()).into(), 503, &[("retry-after", "30")]);
        check(AppendError::TooLarge { bytes: 1 }.into(), 413, &[]);
        check(AppendError::Closed.into(), 503, &[("retry-after", "1")]);
        check(Refusal::Late { deadline: half }, 503, &[("retry-after", "1")]);
    }

    #[test]
    fn a_stored_event_and_its_duplicate_differ_in_one_header() {
        let id = EventId::new(UnixMillis(1));
        let told = |again| {
            let content_type = HeaderValue::from_static("text/plain");
            let (buffered, body) = (Buffered::No, Bytes::from_static(b"ok"));
            receipt(Receipt::Stored { id, again, buffered, status: 202, body, content_type })
        };
        let (first, again) = (told(Again::No), told(Again::Yes));
        for response in [&first, &again] {
            assert_eq!(response.status(), 202);
            assert_eq!(response.headers()["forebay-event-id"], id.to_string().as_str());
            assert_eq!(response.headers()["content-type"], "text/plain");
        }
        assert!(first.headers().get("forebay-duplicate").is_none());
        assert_eq!(again.headers()["forebay-duplicate"], "true");
    }
}
