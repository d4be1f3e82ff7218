//! One event as a request to the application under development.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};

use super::super::client::{HttpClient, deepest, http_client};
use crate::admin::Event;
use crate::deliver;

/// For one request, from connecting to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How much of an answer is read.
const ANSWER_MAX: usize = 64 << 10;

/// What the application answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forwarded {
    pub(super) status: StatusCode,
    pub(super) took: Duration,
}

/// Reads `--forward-to`. An error quotes nothing of it: there may be a password in it.
pub(super) fn url(text: &str) -> Result<Uri, String> {
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let cure = "write it like http://localhost:3000/hooks";
    let url: Uri = full.parse().map_err(|_| format!("this is no address; {cure}"))?;
    match url.scheme_str() {
        Some("http" | "https") if url.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            Err("a user or a password in the URL is not sent; take it out, and give it as --header 'Authorization: …'"
                .to_owned())
        }
        Some("http" | "https") if url.authority().is_some() => Ok(url),
        _ => Err(format!("only http:// and https:// can be forwarded to; {cure}")),
    }
}

pub(super) struct Forwarder {
    http: HttpClient,
    to: Uri,
    /// Put in place of all of that name, last.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Forwarder {
    pub(super) fn new(to: Uri, headers: Vec<(HeaderName, HeaderValue)>) -> anyhow::Result<Self> {
        Ok(Self { http: http_client()?, to, headers })
    }

    /// Sends `event` with `body`; an error says what is wrong, for a person.
    pub(super) async fn forward(&self, event: &Event, body: Bytes) -> Result<Forwarded, String> {
        let request = self.request(event, body).map_err(|error| format!("cannot be forwarded: {error:#}"))?;
        let started = Instant::now();
        let answered = tokio::time::timeout(TIMEOUT, async {
            let answer = self.http.request(request).await.map_err(|error| {
                let hint = if error.is_connect() { "; is your application running?" } else { "" };
                format!("no answer from {}: {}{hint}", self.to, deepest(&error))
            })?;
            let status = answer.status();
            let (mut body, mut seen) = (answer.into_body(), 0);
            while seen < ANSWER_MAX {
                let Some(frame) = body.frame().await else { break };
                let frame = frame.map_err(|error| format!("answered {status}, but the answer broke off: {error}"))?;
                seen += frame.data_ref().map_or(0, Bytes::len);
            }
            Ok::<_, String>(status)
        });
        let status =
            answered.await.map_err(|_| format!("no answer from {} within {} s", self.to, TIMEOUT.as_secs()))??;
        Ok(Forwarded { status, took: started.elapsed() })
    }

    fn request(&self, event: &Event, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        let item = &event.item;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = item.method.parse().context("its method")?;
        *request.uri_mut() = deliver::target(&self.to, None, item.query.as_deref()).context("its query")?;
        let received = event.headers.iter().map(|(name, value)| {
            let value = HeaderValue::from_bytes(value.as_bytes());
            Ok((name.parse()?, value.with_context(|| format!("its header {name}"))?))
        });
        let received = received.collect::<anyhow::Result<Vec<_>>>()?;
        deliver::carry_over(&received, request.headers_mut());
        add_facts(event, request.headers_mut());
        for (name, _) in &self.headers {
            request.headers_mut().remove(name);
        }
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        Ok(request)
    }
}

/// What a delivery has, too, but for what only a delivery has: its id and its attempts.
fn add_facts(event: &Event, headers: &mut HeaderMap) {
    let item = &event.item;
    let facts = [
        ("forebay-event-id", Some(&item.id)),
        ("forebay-source", Some(&item.source)),
        ("forebay-provider", Some(&item.provider)),
        ("forebay-event-type", item.kind.as_ref()),
        ("forebay-received-at", Some(&item.received_at)),
        ("idempotency-key", Some(&item.id).filter(|_| !headers.contains_key("idempotency-key"))),
    ];
    for (name, value) in facts {
        // The event's type may be anything, and is left out if it cannot stand here.
        if let Some(Ok(value)) = value.map(|value| HeaderValue::try_from(value.as_str())) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}
