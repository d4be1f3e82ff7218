//! `forebay send`: a webhook as a provider would send it.

mod sign;
mod target;

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use uuid::Uuid;

use super::Usage;
use crate::base::{Clock, SystemClock};
use crate::config::{self, Config, Env, Problems};
use crate::provider::{Draft, KeyRule, Options, Preset, Recipe, SigningKey, Tolerance};
use crate::router::Params;

/// For one request, from connecting to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The most that is read of a body to send, and of an answer.
const BODY_MAX: u64 = 64 << 20;
const ANSWER_MAX: usize = 64 << 10;

/// Signs a provider's sample, or a given body, as that provider would, and posts it.
///
/// Where it goes and with which secret comes from the config's source for this provider.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The provider to send as; `forebay providers list` names them
    provider: String,
    /// The config's source to send to, where several are for this provider
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Where to send, instead of to the source
    #[arg(long, value_name = "URL")]
    to: Option<Uri>,
    /// The secret to sign with, instead of the source's first; NAME:PASSWORD for basic authentication; others on this
    /// machine may see it
    #[arg(long, value_name = "SECRET")]
    secret: Option<String>,
    /// The private key to sign with, where the source has the public one: 32 bytes in hex or base64, or @FILE
    #[arg(long, value_name = "KEY")]
    signing_key: Option<String>,
    /// What to send instead of the sample, byte for byte; `-` is standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// A header to add or to replace; one that the signature makes is replaced after signing
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The event's type, e.g. `push`, instead of the sample's
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// How many to send, one after the other, each with an id of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Print one JSON object a webhook
    #[arg(long)]
    json: bool,
}

impl Args {
    /// What the config at `path` says, as far as it is needed: a given secret takes the place of all in the config,
    /// and where the address is given, too, the config need not even be in order.
    ///
    /// # Errors
    /// The config's problems.
    pub(super) fn load(&self, path: &Path, env: &Env<'_>) -> Result<Option<Config>, Problems> {
        let brings_its_own = self.secret.is_some() || self.signing_key.is_some();
        match (brings_its_own, &self.to) {
            (false, _) => config::load(path, env).map(|(config, _)| Some(config)),
            (true, None) => config::load_what_is_there(path, env).map(Some),
            (true, Some(_)) => Ok(config::load_what_is_there(path, env).ok()),
        }
    }
}

pub(super) fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `Name: value`")?;
    let name = name.trim().parse().map_err(|_| format!("`{}` is not a header's name", name.trim()))?;
    let value = value.trim().parse().map_err(|_| format!("the value of `{name}` cannot stand in a header"))?;
    Ok((name, value))
}

/// Runs the command; `config` is the config file's, if there is one.
///
/// # Errors
/// What keeps it from sending, with what to do about it. An answer other than 2xx is no error but exit code 1.
pub async fn run(args: Args, config: Option<Config>) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(&args, config.as_ref()).map_err(Usage)?;
    let client = client()?;
    let mut refused = 0u32;
    for _ in 0..args.count {
        let started = Instant::now();
        let answer = plan.send(&client).await?;
        print(&answer, started.elapsed(), args.json)?;
        refused += u32::from(!answer.status.is_success());
    }
    if refused > 0 && !args.json {
        eprintln!("{refused} of {} not accepted; the gateway's log has the reason", args.count);
    }
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is sent, where, and signed how.
struct Plan {
    preset: Preset,
    recipe: Recipe,
    private: Option<SigningKey>,
    to: Uri,
    /// The path that the gateway sees, and what its parameters match.
    path: String,
    params: Params,
    host: Option<HeaderValue>,
    body: Option<Bytes>,
    headers: Vec<(HeaderName, HeaderValue)>,
    kind: Option<String>,
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Plan {
    fn new(args: &Args, config: Option<&Config>) -> anyhow::Result<Self> {
        let source = target::source(args, config)?;
        let preset = match source {
            Some(source) => Preset::clone(&source.preset),
            None => target::built_in(&args.provider)?,
        };
        let (to, host) = match (&args.to, source, config) {
            (Some(to), _, _) => (to.clone(), None),
            (None, Some(source), Some(config)) => (target::address(config, source)?, target::host(source)),
            _ => bail!("no source of the config is for `{}`; say where to send with --to", args.provider),
        };
        ensure!(to.authority().is_some(), "`{to}` is no address; write one like `http://127.0.0.1:8080/webhooks/acme`");
        let private = sign::signing_key(args)?;
        let keyring = sign::keyring(args, &preset, source, private.as_ref())?;
        let public_url = source.and_then(|source| source.public_url.clone()).unwrap_or_else(|| sign::origin(&to));
        let path = sign::path(&to, &public_url).to_owned();
        let params = sign::params(source, &path);
        let options = Options { tolerance: Tolerance::Preset, dedupe: KeyRule::Off, public_url: Some(public_url) };
        let recipe = Recipe::compile(&preset, &keyring, &options)?;
        let body = args.body.as_deref().map(read).transpose()?;
        let (headers, kind) = (args.headers.clone(), args.kind.clone());
        Ok(Self { preset, recipe, private, to, path, params, host, body, headers, kind })
    }

    async fn send(&self, client: &HttpsClient) -> anyhow::Result<Answer> {
        let request = self.request(&Uuid::new_v4().to_string()).map_err(Usage)?;
        let answer = tokio::time::timeout(TIMEOUT, async {
            let response = client.request(request).await.map_err(|error| unreachable(&self.to, &error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_MAX).collect().await;
            let body = body.map_err(|error| anyhow!("the answer broke off or is over 64 KiB: {error}"))?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        });
        answer.await.map_err(|_| anyhow!("no answer from {} within {} s", self.to, TIMEOUT.as_secs()))?
    }

    /// One signed request; `id` is what `{id}` stands for in the sample.
    fn request(&self, id: &str) -> anyhow::Result<http::Request<Full<Bytes>>> {
        let (headers, body) = self.unsigned(id)?;
        let mut draft = Draft {
            method: self.preset.methods.first().cloned().unwrap_or(Method::POST),
            path: self.path.clone(),
            query: self.to.query().map(str::to_owned),
            params: self.params.clone(),
            headers,
            body: body.into(),
        };
        if let Some(kind) = &self.kind {
            self.put_kind(kind, &mut draft)?;
        }
        let own = |draft: &mut Draft| {
            for (name, value) in &self.headers {
                draft.headers.insert(name.clone(), value.clone());
            }
        };
        own(&mut draft);
        self.recipe.sign(&mut draft, SystemClock.now(), self.private.as_ref()).map_err(sign::unsigned)?;
        own(&mut draft);

        let mut request = http::Request::new(Full::new(draft.body.into()));
        *request.method_mut() = draft.method;
        *request.uri_mut() = with_query(&self.to, draft.query.as_deref())?;
        *request.headers_mut() = draft.headers;
        Ok(request)
    }

    /// The sample's headers and body, or the given body under them.
    fn unsigned(&self, id: &str) -> anyhow::Result<(HeaderMap, Bytes)> {
        let sample = self.preset.sample.as_ref();
        let mut headers = HeaderMap::new();
        for (name, text) in sample.map_or(&[][..], |sample| &sample.headers) {
            let value = text.replace("{id}", id).parse();
            headers.insert(name.clone(), value.with_context(|| format!("the sample's header `{name}`"))?);
        }
        headers.extend(self.host.iter().map(|host| (HOST, host.clone())));
        let body = match (&self.body, sample) {
            (Some(body), _) => body.clone(),
            (None, Some(sample)) => sample.body.replace("{id}", id).into(),
            (None, None) => bail!("`{}` has no sample; give a body with --body", self.preset.name),
        };
        if !headers.contains_key(CONTENT_TYPE) && serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok((headers, body))
    }

    /// Puts `kind` where the provider puts an event's type.
    fn put_kind(&self, kind: &str, draft: &mut Draft) -> anyhow::Result<()> {
        let places = self.preset.event.kind.as_ref().map_or(&[][..], |choice| &choice.0);
        let Some(place) = places.first() else { bail!("`{}` has no event types; leave --type out", self.preset.name) };
        draft.put(place, kind.as_bytes()).map_err(|error| anyhow!("--type: {error}; or leave it out"))
    }
}

/// `to` with `query` in the stead of its own.
fn with_query(to: &Uri, query: Option<&str>) -> anyhow::Result<Uri> {
    let mut parts = to.clone().into_parts();
    let target = query.map_or_else(|| to.path().to_owned(), |query| format!("{}?{query}", to.path()));
    parts.path_and_query = Some(target.parse()?);
    Ok(Uri::from_parts(parts)?)
}

fn read(path: &Path) -> anyhow::Result<Bytes> {
    let mut body = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(BODY_MAX + 1).read_to_end(&mut body)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(BODY_MAX + 1).read_to_end(&mut body))
    };
    let len = read.with_context(|| format!("the body {} cannot be read", path.display()))?;
    ensure!(len as u64 <= BODY_MAX, "the body {} is larger than 64 MiB", path.display());
    Ok(body.into())
}

type HttpsClient =
    Client<hyper_rustls::HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>, Full<Bytes>>;

fn client() -> anyhow::Result<HttpsClient> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::aws_lc_rs::default_provider())?
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// Says why nothing could be sent, down to the cause.
fn unreachable(to: &Uri, error: &hyper_util::client::legacy::Error) -> anyhow::Error {
    let mut text = format!("cannot send to {to}");
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    let mut refused = false;
    while let Some(error) = cause {
        refused |=
            error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if error.source().is_none() {
            let _ = write!(text, ": {error}");
        }
        cause = error.source();
    }
    if refused { anyhow!("{text}; is the gateway running? `forebay serve` starts it") } else { anyhow!(text) }
}

fn print(answer: &Answer, took: Duration, json: bool) -> io::Result<()> {
    let body = String::from_utf8_lossy(&answer.body);
    let text = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
    let mut out = io::stdout().lock();
    if json {
        let line = json!({
            "status": answer.status.as_u16(),
            "event_id": text("forebay-event-id"),
            "duplicate": text("forebay-duplicate") == Some("true"),
            "duration_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "body": body,
        });
        return writeln!(out, "{line}");
    }
    let said = match body.trim_end() {
        "" => text("forebay-event-id").unwrap_or_default(),
        body => body,
    };
    let duplicate = if text("forebay-duplicate") == Some("true") { " (duplicate)" } else { "" };
    writeln!(out, "{}{duplicate} {} ms {}", answer.status, took.as_millis(), said)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt as _;
    use http_body_util::Empty;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use serde_json::Value;

    use super::*;
    use crate::base::Name;
    use crate::config;
    use crate::event::{Client as Sender, Head, Received};

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        let words = ["send"].into_iter().chain(line.split_whitespace());
        <Cli as clap::Parser>::try_parse_from(words).unwrap().args
    }

    fn config(listen: &str) -> Config {
        let text = format!(
            r#"
ingress: {{ listen: "{listen}" }}
providers:
  acme:
    aliases: [acme-corp]
    verify:
      hmac:
        hash: sha256
        signature: {{ header: Acme-Signature, encoding: hex }}
        content: "{{header:Acme-Id}}.{{header:Acme-Time}}.{{body}}"
        timestamp: {{ from: "header:Acme-Time", unit: s, tolerance: 5m }}
    event: {{ id: "header:Acme-Id", type: "json:/type" }}
    sample: {{ headers: {{ Acme-Id: "m_{{id}}" }}, body: '{{"type":"ping","id":"{{id}}"}}' }}
  other: {{ verify: {{ token: {{ header: Other-Token }} }}, event: {{ type: "header:Other-Type" }} }}
sources:
  shop: {{ provider: acme, path: /hooks/shop, secret: a-secret-of-the-shop, to: [] }}
  one: {{ provider: other, path: "/one/{{part}}", secret: a-secret-of-the-other, to: [] }}
  two: {{ provider: other, host: "*.example.com", secret: a-secret-of-the-other, to: [] }}
"#
        );
        let env = |_: &str| None;
        config::parse_str("test.yaml", &text, Path::new(""), &env).unwrap_or_else(|problems| panic!("{problems}")).0
    }

    fn body(request: http::Request<Full<Bytes>>) -> Bytes {
        request.into_body().collect().now_or_never().unwrap().unwrap().to_bytes()
    }

    fn error(line: &str) -> String {
        Plan::new(&args(line), Some(&config("0.0.0.0:8080"))).err().map_or_else(String::new, |error| error.to_string())
    }

    /// Takes `count` requests and answers each with `status`.
    async fn serve(listener: TcpListener, status: StatusCode, count: usize) -> Vec<http::Request<Bytes>> {
        let taken = Mutex::new(Vec::new());
        while taken.lock().unwrap().len() < count {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| async {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                taken.lock().unwrap().push(http::Request::from_parts(head, body));
                let mut response = http::Response::new(Empty::<Bytes>::new());
                *response.status_mut() = status;
                response.headers_mut().insert("connection", HeaderValue::from_static("close"));
                Ok::<_, hyper::Error>(response)
            });
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.unwrap();
        }
        taken.into_inner().unwrap()
    }

    #[tokio::test]
    async fn what_is_sent_verifies_and_each_has_its_own_id() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = config(&listener.local_addr().unwrap().to_string());
        let run = run(args("acme-corp --count 2"), Some(config.clone()));
        let (code, taken) = tokio::join!(run, serve(listener, StatusCode::OK, 2));
        assert_eq!(format!("{:?}", code.unwrap()), format!("{:?}", ExitCode::SUCCESS));

        let source = &config.sources[0];
        let recipe = Recipe::compile(&source.preset, &source.keyring, &source.options()).unwrap();
        let ids: Vec<_> = taken
            .into_iter()
            .map(|request| {
                assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/hooks/shop"));
                let now = SystemClock.now();
                let head = Head {
                    method: Method::POST,
                    path: request.uri().path().into(),
                    query: None,
                    headers: request.headers().clone(),
                    client: Sender { ip: [127, 0, 0, 1].into(), tls: false, host: None },
                    received_at: now,
                };
                let received = Received { head, params: Vec::new(), body: request.into_body() };
                let name = Name::new("shop").unwrap();
                let event = recipe.verify(&name, &name, received, now).unwrap().into_parts().0;
                assert_eq!(event.kind.as_deref(), Some("ping"));
                event.provider_event_id.unwrap()
            })
            .collect();
        assert_ne!(ids[0], ids[1]);
    }

    #[tokio::test]
    async fn an_answer_other_than_2xx_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let run = run(args(&format!("acme --secret other-secret --to http://{to}/")), Some(config("127.0.0.1:1")));
        let (code, _) = tokio::join!(run, serve(listener, StatusCode::UNAUTHORIZED, 1));
        assert_eq!(format!("{:?}", code.unwrap()), format!("{:?}", ExitCode::FAILURE));
    }

    #[tokio::test]
    async fn a_gateway_that_is_not_there_is_asked_after() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = run(args("acme"), Some(config(&address.to_string()))).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot send to http://{address}/hooks/shop: ")), "{error}");
        assert!(error.contains("is the gateway running?"), "{error}");
    }

    #[test]
    fn the_address_comes_from_the_config() {
        let to = |line: &str, listen: &str| Plan::new(&args(line), Some(&config(listen))).unwrap();
        assert_eq!(to("acme", "0.0.0.0:8080").to, "http://127.0.0.1:8080/hooks/shop");
        assert_eq!(to("acme", "[::]:8080").to, "http://[::1]:8080/hooks/shop");
        for elsewhere in ["unix:/run/x", "fd:"] {
            let error = Plan::new(&args("acme"), Some(&config(elsewhere))).err().unwrap().to_string();
            assert!(error.contains("give --to"), "{error}");
        }
        let plan = to("other --source two", "192.0.2.1:80");
        assert_eq!(
            (plan.to.to_string().as_str(), plan.host.unwrap()),
            ("http://192.0.2.1:80/two", "sample.example.com".parse().unwrap())
        );
    }

    #[test]
    fn what_is_missing_or_ambiguous_is_said_with_its_cure() {
        assert_eq!(error("other"), "several sources are for `other`: one, two; choose one with --source");
        assert_eq!(error("acme --source two"), "source `two` is for `other`, not for `acme`");
        assert_eq!(error("acme --source x"), "the config has no source `x`; it has shop, one, two");
        assert!(error("other --source one").starts_with("the path `/one/{part}` has parameters"));
        assert!(error("nobody --to http://127.0.0.1/ --secret x").starts_with("no provider is called `nobody`"));
        assert!(error("acme --to /x").contains("is no address"));
    }

    #[test]
    fn a_given_type_header_and_body_take_the_place_of_the_samples() {
        let plan = |line: &str| Plan::new(&args(line), Some(&config("0.0.0.0:8080"))).unwrap();
        let mut one = plan("acme --type order.paid");
        assert_eq!(one.unsigned("7").unwrap().1, r#"{"type":"ping","id":"7"}"#);
        let body = body(one.request("7").unwrap());
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), json!({ "type": "order.paid", "id": "7" }));

        one.headers = vec![header("Acme-Time: 1").unwrap(), header("X-Env: test").unwrap()];
        one.body = Some(Bytes::from_static(b"{}"));
        one.kind = None;
        let request = one.request("7").unwrap();
        assert_eq!(request.headers()["acme-time"], "1");
        assert_eq!(request.headers()["acme-id"], "m_7");
        assert_eq!(request.headers()["content-type"], "application/json");
        assert!(header("no colon").is_err() && header("a b: c").is_err() && header("a: \u{7f}").is_err());
    }
}
