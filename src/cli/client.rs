//! A client of the admin API, for the commands that ask a running gateway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use crate::admin;
use crate::base::Secret;
use crate::event::EventId;

/// For one request, from connecting to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An answer, at most: 500 events with long paths stay below.
const ANSWER_BYTES: usize = 64 << 20;

/// Where the gateway's private side is, and what opens it.
#[derive(Clone, Debug, clap::Args)]
pub struct AdminArgs {
    /// Address of the gateway's private side, e.g. `http://127.0.0.1:9090`; the config's `admin.listen` where it is not given
    #[arg(long = "admin", value_name = "URL", env = "FOREBAY_ADMIN", global = true)]
    url: Option<String>,
    /// Its token; the config's `admin.token` where it is not given. Better in the environment: others on this machine
    /// can see a command line
    #[arg(long, value_name = "TOKEN", env = "FOREBAY_ADMIN_TOKEN", hide_env_values = true, value_parser = secret,
          global = true)]
    token: Option<Secret>,
}

fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

/// The gateway said no.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// With which status.
    pub status: StatusCode,
    /// Why, and what to do.
    pub message: String,
    /// Everything that is wrong with its config, where that is why.
    pub problems: Vec<admin::ConfigProblem>,
}

/// A client of one gateway's admin API.
pub struct AdminClient {
    /// Without a slash at its end.
    base: String,
    authorization: Option<HeaderValue>,
    http: HttpClient,
}

/// An answer that went well.
#[derive(Debug)]
pub struct Reply {
    /// Its body: JSON.
    pub body: Bytes,
    /// Whether it may miss the newest changes.
    pub behind: bool,
    /// Whether something secret was taken out of it.
    pub redacted: bool,
    /// 2xx.
    pub status: StatusCode,
}

impl AdminArgs {
    /// Those for a gateway without a token, whose private side is at `url`.
    #[must_use]
    pub fn at(url: &str) -> Self {
        Self { url: Some(url.to_owned()), token: None }
    }

    /// Whether they say where the gateway is, so that the config need not.
    #[must_use]
    pub fn names_the_gateway(&self) -> bool {
        self.url.as_deref().is_some_and(|url| !url.is_empty())
    }

    /// A client for these arguments, completed by the config's settings, if there is a config.
    ///
    /// # Errors
    /// If no address is known, or what is given is none.
    pub fn client(&self, settings: Option<&admin::Settings>) -> anyhow::Result<AdminClient> {
        let base = match (self.url.as_deref().filter(|url| !url.is_empty()), settings) {
            (Some(url), _) => given(url)?,
            (None, Some(settings)) => listening(settings.listen)?,
            (None, None) => bail!("where is the gateway? give --admin URL, set FOREBAY_ADMIN, or name its --config"),
        };
        let given = self.token.as_ref().filter(|token| !token.is_empty());
        let configured = settings.and_then(|settings| settings.token.as_ref().or(settings.read_token.as_ref()));
        let authorization = given.or(configured).map(bearer).transpose()?;
        Ok(AdminClient { base, authorization, http: http_client()? })
    }
}

pub(super) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that speaks http and https.
pub(super) fn http_client() -> anyhow::Result<HttpClient> {
    let tls = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::aws_lc_rs::default_provider())
        .context("TLS cannot be set up")?;
    Ok(Client::builder(TokioExecutor::new()).build(tls.https_or_http().enable_http1().build()))
}

fn bearer(token: &Secret) -> anyhow::Result<HeaderValue> {
    let value = HeaderValue::from_bytes(&[b"Bearer ", token.expose()].concat());
    let mut value = value.context("the token has characters that cannot stand in a header")?;
    value.set_sensitive(true);
    Ok(value)
}

fn given(url: &str) -> anyhow::Result<String> {
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: Uri =
        full.parse().with_context(|| format!("`{url}` is no address; write it like http://127.0.0.1:9090"))?;
    ensure!(
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && uri.query().is_none(),
        "`{url}` is no address; write it like http://127.0.0.1:9090"
    );
    Ok(full.trim_end_matches('/').to_owned())
}

/// The address at which something that listens on `address` is reached from this machine.
fn listening(address: SocketAddr) -> anyhow::Result<String> {
    ensure!(address.port() != 0, "the config's admin.listen has no fixed port; write the address with --admin");
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(format!("http://{}", SocketAddr::new(ip, address.port())))
}

fn with_query(path: &str, query: &[(&str, String)]) -> String {
    if query.is_empty() {
        return path.to_owned();
    }
    let pairs = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{path}?{pairs}")
}

impl AdminClient {
    /// Gets `path`, which begins with a slash; `query` is encoded here.
    ///
    /// # Errors
    /// [`Refused`] if the gateway answers anything but 2xx; another error if it does not answer.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Reply> {
        self.ask(Method::GET, &with_query(path, query), Bytes::new()).await
    }

    /// Posts `body` to `path`.
    ///
    /// # Errors
    /// As [`AdminClient::get`].
    pub async fn post(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<Reply> {
        self.ask(Method::POST, path, body.to_string().into()).await
    }

    /// Deletes `path`.
    ///
    /// # Errors
    /// As [`AdminClient::get`].
    pub async fn delete(&self, path: &str) -> anyhow::Result<Reply> {
        self.ask(Method::DELETE, path, Bytes::new()).await
    }

    /// Opens the stream of server-sent events at `path`, going on after the event `after`.
    ///
    /// # Errors
    /// As [`AdminClient::get`]; the stream itself has no time-out.
    pub async fn follow(
        &self,
        path: &str,
        query: &[(&str, String)],
        after: Option<EventId>,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = self.request(Method::GET, &with_query(path, query), Bytes::new())?;
        if let Some(id) = after {
            let id = HeaderValue::try_from(id.to_string()).context("the id cannot stand in a header")?;
            request.headers_mut().insert("last-event-id", id);
        }
        self.in_time(async {
            let answer = self.send(request).await?;
            if answer.status().is_success() {
                Ok(answer)
            } else {
                Err(self.whole(answer).await.err().context("refused")?)
            }
        })
        .await
    }

    async fn ask(&self, method: Method, target: &str, body: Bytes) -> anyhow::Result<Reply> {
        let request = self.request(method, target, body)?;
        self.in_time(async { self.whole(self.send(request).await?).await }).await
    }

    fn request(&self, method: Method, target: &str, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method).uri(format!("{}{target}", self.base));
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        request.body(Full::new(body)).context("the request cannot be written")
    }

    async fn in_time<T>(&self, exchange: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("{} did not answer within {} s", self.base, TIMEOUT.as_secs()),
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
        self.http.request(request).await.map_err(|error| {
            let hint = if error.is_connect() { "; is the gateway running?" } else { "" };
            anyhow::anyhow!("cannot ask {}: {}{hint}", self.base, deepest(&error))
        })
    }

    /// Reads an answer to its end.
    async fn whole(&self, answer: Response<Incoming>) -> anyhow::Result<Reply> {
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer of {} broke off: {error}", self.base))?.to_bytes();
        if head.status.is_success() {
            let behind = head.headers.get("forebay-index").is_some_and(|value| value == "behind");
            let redacted = head.headers.contains_key("forebay-redacted");
            return Ok(Reply { body, behind, redacted, status: head.status });
        }
        Err(self.refused(head.status, &body).into())
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Refused {
        #[derive(Deserialize)]
        struct Said {
            error: String,
            #[serde(default)]
            problems: Vec<admin::ConfigProblem>,
        }
        let said = serde_json::from_slice::<Said>(body);
        let (said, problems) = match said {
            Ok(Said { error, problems }) => (Ok(error), problems),
            Err(error) => (Err(error), Vec::new()),
        };
        let message = match (status, said) {
            (StatusCode::UNAUTHORIZED, _) => {
                let token = if self.authorization.is_some() { "does not take this token" } else { "wants a token" };
                format!(
                    "{} {token}; set FOREBAY_ADMIN_TOKEN to the config's admin.token, or to the one of before while that is not reloaded",
                    self.base
                )
            }
            (_, Ok(error)) => error,
            (_, Err(_)) => format!("{} answered {status}; is it the gateway's admin address?", self.base),
        };
        Refused { status, message, problems }
    }
}

impl Reply {
    /// The body as what it is.
    ///
    /// # Errors
    /// If it is something else: another program, or another version.
    pub fn parse<'b, T: Deserialize<'b>>(&'b self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body).context("the answer is not what a gateway of this version gives")
    }
}

/// The cause of causes: "connection refused" rather than "client error (Connect)".
pub(super) fn deepest(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: Option<&str>, token: Option<&str>) -> AdminArgs {
        AdminArgs { url: url.map(str::to_owned), token: token.map(Secret::new) }
    }

    fn settings(listen: &str, token: Option<&str>) -> admin::Settings {
        admin::Settings {
            listen: listen.parse().unwrap(),
            token: token.map(Secret::new),
            read_token: Some(Secret::new("reading")),
            open_metrics: false,
        }
    }

    #[test]
    fn the_address_is_the_given_one_or_the_configs() {
        let base = |url, listen| args(url, None).client(Some(&settings(listen, None))).unwrap().base;
        assert_eq!(base(None, "127.0.0.1:9090"), "http://127.0.0.1:9090");
        assert_eq!(base(None, "0.0.0.0:9090"), "http://127.0.0.1:9090");
        assert_eq!(base(None, "[::]:9090"), "http://[::1]:9090");
        assert_eq!(base(Some(""), "192.0.2.1:1"), "http://192.0.2.1:1");
        assert_eq!(base(Some("https://forebay.example/admin/"), "127.0.0.1:9090"), "https://forebay.example/admin");
        assert_eq!(base(Some("127.0.0.1:1"), "127.0.0.1:9090"), "http://127.0.0.1:1");
        for url in ["ftp://x", "http://", "a b", "http://x/?y"] {
            let error = args(Some(url), None).client(None).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("is no address"), "{url}: {error}");
        }
        assert!(args(None, None).client(None).err().unwrap().to_string().contains("--admin URL"));
        assert!(args(None, None).client(Some(&settings("127.0.0.1:0", None))).is_err());
    }

    #[test]
    fn the_token_is_the_given_one_or_the_configs() {
        let token = |given, configured| {
            let client = args(None, given).client(Some(&settings("127.0.0.1:1", configured))).unwrap();
            client.authorization.map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(token(Some("given"), Some("configured")).as_deref(), Some("Bearer given"));
        assert_eq!(token(None, Some("configured")).as_deref(), Some("Bearer configured"));
        assert_eq!(token(Some(""), Some("configured")).as_deref(), Some("Bearer configured"), "an empty variable");
        assert_eq!(token(None, None).as_deref(), Some("Bearer reading"));
        let broken = args(Some("127.0.0.1:1"), Some("a\nb")).client(None).err().unwrap();
        assert!(!format!("{broken:#}").contains("a\nb"));
    }

    #[tokio::test]
    async fn a_gateway_that_is_not_there_is_asked_after() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let client = args(Some(&address), None).client(None).unwrap();
        let error = client.get("/api/v1/events", &[]).await.unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("is the gateway running?"), "{error}");
    }
}
