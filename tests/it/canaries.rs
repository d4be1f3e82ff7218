//! Secrets stay where they belong (rows M8, S3 and T28: no secret, no MAC and no body in anything that we print).
//!
//! A canary is a word that stands in one place and is looked for in everything that comes out: logs at `trace` in both
//! formats, answers, metrics, the admin side, what the commands print, also about configs that are broken.

use std::process::Stdio;
use std::sync::Mutex;

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::support::http::{Answer, Http};
use crate::support::{FakeApp, Gateway, app, gateway, mac, reserve};

/// Canaries, and everything that may not have one in it.
struct Watch {
    /// Where commands run.
    home: tempfile::TempDir,
    canaries: Mutex<Vec<(String, String)>>,
    /// Those that belong to an event: whoever may read events is shown them.
    of_events: Mutex<Vec<String>>,
    heard: Mutex<Vec<(String, String)>>,
}

impl Watch {
    fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
            canaries: Mutex::default(),
            of_events: Mutex::default(),
            heard: Mutex::default(),
        }
    }

    /// A new canary, called `name`.
    fn canary(&self, name: &str) -> String {
        let mut canaries = self.canaries.lock().unwrap();
        let canary = format!("canary{:02}x{}", canaries.len(), data_encoding::HEXLOWER.encode(name.as_bytes()));
        canaries.push((name.to_owned(), canary.clone()));
        canary
    }

    /// Makes a canary of `value`, which was computed from others.
    fn is_canary(&self, name: &str, value: &str) {
        self.canaries.lock().unwrap().push((name.to_owned(), value.to_owned()));
    }

    /// Lets `value` be seen by whoever reads events.
    fn may_be_read(&self, value: &str) {
        self.of_events.lock().unwrap().push(value.to_owned());
    }

    fn hear(&self, from: &str, text: &str) {
        self.heard.lock().unwrap().push((from.to_owned(), text.to_owned()));
    }

    fn answer(&self, from: &str, answer: &Answer) {
        self.hear(from, &format!("{:?}\n{}", answer.headers, answer.text()));
    }

    /// Fails with every place where a canary was heard.
    fn silent(&self) {
        let (canaries, heard) = (self.canaries.lock().unwrap(), self.heard.lock().unwrap());
        assert!(canaries.len() >= 30, "{} canaries", canaries.len());
        let of_events = self.of_events.lock().unwrap();
        let mut leaks = Vec::new();
        for (name, canary) in &*canaries {
            let forms =
                [canary.clone(), data_encoding::BASE64.encode(canary.as_bytes()), format!("{:?}", canary.as_bytes())];
            let shows_events = |from: &str| from.starts_with("/api/v1/events/") || from == "`forebay events`";
            let is_of_an_event = of_events.contains(canary);
            for (from, text) in heard.iter().filter(|(from, _)| !(is_of_an_event && shows_events(from))) {
                if let Some(form) = forms.iter().find(|form| text.contains(form.as_str())) {
                    let line = text.lines().find(|line| line.contains(form.as_str())).unwrap_or(text);
                    leaks.push(format!("{name} in {from}: {line}"));
                }
            }
        }
        assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    }
}

type Headers = Vec<(&'static str, String)>;

fn now_s() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// What the gateway of this test is given in secret.
struct Secrets {
    variable: String,
    new: String,
    old: String,
    file: String,
    fallback: String,
    named: String,
    verify: String,
    token: String,
    user: String,
    password: String,
    in_path: String,
    in_query: String,
    in_body: String,
    admin: String,
    read: String,
    set_variable: String,
    set_written: String,
    set_file: String,
    url: String,
}

impl Secrets {
    fn new(watch: &Watch) -> Self {
        let canary = |name: &str| watch.canary(name);
        Self {
            variable: canary("secret: ${VAR}"),
            new: canary("the first of secrets"),
            old: canary("an old secret with not_after"),
            file: canary("secret: { file }"),
            fallback: canary("${VAR:-default}"),
            named: canary("a named secret"),
            verify: canary("a verify token"),
            token: canary("a token's secret"),
            user: canary("a user's name"),
            password: canary("a password"),
            in_path: canary("a token in the path"),
            in_query: canary("a token in the query"),
            in_body: canary("a token in the body"),
            admin: canary("admin.token"),
            read: canary("admin.read_token"),
            set_variable: canary("headers.set from a variable"),
            set_written: canary("headers.set as written"),
            set_file: canary("headers.set from a file"),
            url: canary("a destination's url from a variable"),
        }
    }

    fn variables(&self, app: &str) -> Vec<(&'static str, String)> {
        vec![
            ("CANARY_SECRET", self.variable.clone()),
            ("CANARY_ADMIN", self.admin.clone()),
            ("CANARY_SET", format!("Bearer {}", self.set_variable)),
            ("CANARY_URL", format!("{app}/hooks/{}", self.url)),
        ]
    }

    fn config(&self, dir: &std::path::Path, format: &str, down: &str) -> String {
        std::fs::write(dir.join("secret"), format!("{}\n", self.file)).unwrap();
        std::fs::write(dir.join("read"), format!("{}\n", self.read)).unwrap();
        std::fs::write(dir.join("set"), format!("{}\n", self.set_file)).unwrap();
        format!(
            r#"ingress: {{ listen: 127.0.0.1:0 }}
admin: {{ listen: 127.0.0.1:0, token: "${{CANARY_ADMIN}}", read_token: {{ file: read }} }}
journal: {{ dir: {data}, max_size: 256MiB }}
log: {{ format: {format}, level: trace }}
providers:
  own-basic: {{ secrets: {{ name: ~, word: ~ }}, verify: {{ basic: {{ username: name, password: word }} }} }}
  own-path: {{ verify: {{ token: {{ from: "param:key" }} }} }}
  own-query: {{ verify: {{ token: {{ from: "query:access" }} }} }}
  own-body: {{ verify: {{ token: {{ from: "json:/token" }} }} }}
  own-bearer: {{ verify: {{ token: {{ header: Authorization, prefix: "Bearer " }} }} }}
sources:
  github: {{ provider: github, secret: "${{CANARY_SECRET}}", body_limit: 1KiB, to: [app] }}
  stripe: {{ provider: stripe, secrets: [{new}, {{ value: {old}, not_after: 2099-01-01 }}], to: [app] }}
  slack: {{ provider: slack, secret: {{ file: secret }}, to: [app] }}
  shopify: {{ provider: shopify, secret: "${{NOT_SET:-{fallback}}}", to: [app] }}
  facebook: {{ provider: facebook, methods: [POST], secret: {{ app_secret: {named}, verify_token: [{verify}] }}, to: [app] }}
  gitlab: {{ provider: gitlab, secret: {token}, to: [down] }}
  basic: {{ provider: own-basic, secret: {{ name: {user}, word: {password} }}, to: [app] }}
  path: {{ provider: own-path, path: "/in/{{key}}", secret: {in_path}, to: [app] }}
  query: {{ provider: own-query, secret: {in_query}, to: [app] }}
  body: {{ provider: own-body, secret: {in_body}, to: [app] }}
  proxy: {{ provider: own-bearer, secret: {token}, mode: proxy, to: [app] }}
destinations:
  app:
    url: ${{CANARY_URL}}
    headers: {{ set: {{ Authorization: "${{CANARY_SET}}", X-Api-Key: {set_written}, X-Other-Key: {{ file: set }} }} }}
    retry: {{ initial: 20ms, max: 50ms, max_attempts: 2 }}
    breaker: {{ failures: 50, cooldown: 50ms }}
  down: {{ url: "{down}", retry: {{ initial: 1ms, max: 2ms, max_attempts: 2 }} }}
"#,
            data = dir.join("data").display(),
            new = self.new,
            old = self.old,
            fallback = self.fallback,
            named = self.named,
            verify = self.verify,
            token = self.token,
            user = self.user,
            password = self.password,
            in_path = self.in_path,
            in_query = self.in_query,
            in_body = self.in_body,
            set_written = self.set_written,
        )
    }
}

/// Adds variables.
fn with(mut command: Command, variables: &[(&'static str, String)]) -> Command {
    for (name, value) in variables {
        command.env(name, value);
    }
    command
}

/// Runs a command to its end, and hears what it prints.
async fn run(watch: &Watch, variables: &[(&'static str, String)], arguments: &[&str]) -> Option<i32> {
    let mut command = with(gateway::command(), variables);
    let output = command.args(arguments).current_dir(watch.home.path()).output();
    let output = tokio::time::timeout(gateway::PATIENCE, output).await.expect("it ends").unwrap();
    let from = format!("`forebay {}`", arguments.first().unwrap());
    watch.hear(&from, &String::from_utf8_lossy(&output.stdout));
    watch.hear(&from, &String::from_utf8_lossy(&output.stderr));
    output.status.code()
}

/// Bytes as they are, and what is answered until the connection closes.
async fn raw(gateway: &Gateway, bytes: &[u8]) -> String {
    let address = gateway.ingress.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(gateway::PATIENCE, stream.read_to_end(&mut answer)).await.expect("it closes");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Good requests of every source; gives the ids of their events.
async fn good(watch: &Watch, gateway: &Gateway, http: &Http, secrets: &Secrets, round: &str) -> Vec<String> {
    let content = watch.canary("the body of an event");
    let text = format!(r#"{{"id":"evt_{round}","event_id":"Ev{round}","type":"x","text":"{content}"}}"#);
    let body = text.as_bytes();
    let time = now_s().to_string();
    let with_token = format!(r#"{{"token":"{}","id":"{round}"}}"#, secrets.in_body);
    let signature = |name: &str, value: String| {
        let mac = value.rsplit('=').next().unwrap();
        watch.is_canary(name, mac);
        watch.may_be_read(mac); // an application under development checks it, behind `forebay listen`
        value
    };
    let stripe = |secret: &str| format!("t={time},v1={}", mac(secret, format!("{time}.{text}").as_bytes()));
    let basic = data_encoding::BASE64.encode(format!("{}:{}", secrets.user, secrets.password).as_bytes());
    watch.is_canary("basic authentication", &basic);
    let shopify = {
        let hex = mac(&secrets.fallback, body);
        data_encoding::BASE64.encode(&data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap())
    };
    let requests: Vec<(&str, Headers, &[u8])> = vec![
        (
            "/github",
            vec![
                ("x-hub-signature-256", signature("a signature", format!("sha256={}", mac(&secrets.variable, body)))),
                ("x-github-delivery", format!("gh-{round}")),
                ("x-github-event", "push".to_owned()),
                ("authorization", format!("Bearer {}", watch.canary("an event's Authorization"))),
                ("cookie", format!("session={}", watch.canary("an event's Cookie"))),
            ],
            body,
        ),
        ("/stripe", vec![("stripe-signature", signature("a signature in a list", stripe(&secrets.new)))], body),
        ("/stripe", vec![("stripe-signature", stripe(&secrets.old))], body),
        (
            "/slack",
            vec![
                ("x-slack-request-timestamp", time.clone()),
                (
                    "x-slack-signature",
                    signature(
                        "a signature with a time",
                        format!("v0={}", mac(&secrets.file, format!("v0:{time}:{text}").as_bytes())),
                    ),
                ),
            ],
            body,
        ),
        ("/shopify", vec![("x-shopify-hmac-sha256", shopify)], body),
        ("/facebook", vec![("x-hub-signature-256", format!("sha256={}", mac(&secrets.named, body)))], body),
        ("/gitlab", vec![("x-gitlab-token", secrets.token.clone())], body),
        ("/basic", vec![("authorization", format!("Basic {basic}"))], body),
        ("/body", vec![], with_token.as_bytes()),
        ("/proxy", vec![("authorization", format!("Bearer {}", secrets.token))], body),
    ];
    let mut ids = Vec::new();
    let in_path = format!("/in/{}", secrets.in_path);
    let in_query = format!("/query?a=1&access={}", secrets.in_query);
    let others = [(in_path.as_str(), vec![], body), (in_query.as_str(), vec![], body)];
    for (target, headers, body) in requests.into_iter().chain(others) {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = http.send(Method::POST, &format!("{}{target}", gateway.ingress), &headers, body).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        watch.answer("the answer to a good request", &answer);
        ids.extend(answer.header("forebay-event-id").map(str::to_owned));
    }
    ids
}

/// Requests that are refused, one after the other.
async fn refused(watch: &Watch, gateway: &Gateway, http: &Http, secrets: &Secrets) {
    let canary = |name: &str| watch.canary(name);
    let forged = canary("the body of a forgery");
    let stale = canary("the body of a stale request");
    let old = format!("t=1000000000,v1={}", mac(&secrets.new, format!("1000000000.{stale}").as_bytes()));
    let wrong_mac = mac(&canary("a wrong secret"), forged.as_bytes());
    watch.is_canary("a forged signature", &wrong_mac);
    let wrong_basic =
        data_encoding::BASE64.encode(format!("{}:{}", secrets.user, canary("a wrong password")).as_bytes());
    watch.is_canary("wrong basic authentication", &wrong_basic);
    let large = canary("a body that is too large").repeat(100);
    let cases: Vec<(Method, String, Headers, String, u16)> = vec![
        (Method::POST, "/github".to_owned(), vec![("x-hub-signature-256", format!("sha256={wrong_mac}"))], forged, 401),
        (
            Method::POST,
            "/github".to_owned(),
            vec![("x-hub-signature-256", canary("no signature at all"))],
            String::new(),
            401,
        ),
        (Method::POST, "/github".to_owned(), vec![], canary("an unsigned body"), 401),
        (Method::POST, "/github".to_owned(), vec![], large, 413),
        (Method::POST, "/stripe".to_owned(), vec![("stripe-signature", old)], stale, 401),
        (Method::POST, "/gitlab".to_owned(), vec![("x-gitlab-token", canary("a wrong token"))], "{}".to_owned(), 401),
        (
            Method::POST,
            "/basic".to_owned(),
            vec![("authorization", format!("Basic {wrong_basic}"))],
            "{}".to_owned(),
            401,
        ),
        (Method::POST, format!("/query?access={}", canary("a wrong token in the query")), vec![], "{}".to_owned(), 401),
        (Method::POST, format!("/in/{}", canary("a wrong token in the path")), vec![], "{}".to_owned(), 401),
        (
            Method::POST,
            "/body".to_owned(),
            vec![],
            format!(r#"{{"token":"{}"}}"#, canary("a wrong token in the body")),
            401,
        ),
        (Method::POST, "/no".to_owned(), vec![], canary("a body for nobody"), 404),
        (
            Method::POST,
            format!("/in/{}", secrets.in_path),
            vec![("content-encoding", "odd".to_owned())],
            "{}".to_owned(),
            415,
        ),
        (
            Method::POST,
            format!("/query?access={}", secrets.in_query),
            vec![("content-encoding", "odd".to_owned())],
            "{}".to_owned(),
            415,
        ),
        (Method::PUT, "/github".to_owned(), vec![], canary("a body with a wrong method"), 405),
        (
            Method::POST,
            "/github".to_owned(),
            vec![("content-encoding", canary("an odd encoding"))],
            "{}".to_owned(),
            415,
        ),
        (
            Method::GET,
            format!("/facebook?hub.mode=subscribe&hub.challenge=c&hub.verify_token={}", canary("a wrong verify token")),
            vec![],
            String::new(),
            401,
        ),
    ];
    for (method, target, headers, body, status) in cases {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let url = format!("{}{target}", gateway.ingress);
        if let Some(answer) = http.try_send(method, &url, &headers, body.as_bytes()).await {
            let public = target.split(['?', '/']).nth(1).unwrap_or_default();
            assert_eq!(answer.status, status, "{public}: {}", answer.text());
            watch.answer("the answer to a refused request", &answer);
        }
    }
    let subscribe = format!("/facebook?hub.mode=subscribe&hub.challenge=c&hub.verify_token={}", secrets.verify);
    let answer = http.get(&format!("{}{subscribe}", gateway.ingress)).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "c"));
    watch.answer("the answer to a handshake", &answer);

    for bytes in [
        format!("POST /github HTTP/1.1\r\nhost: a\r\nx-odd: {}\u{1}\r\n\r\n", canary("a malformed header")),
        format!("POST /{} HTTP/1.7\r\n\r\n", canary("a malformed request line")),
        format!("POST /github HTTP/1.1\r\nhost: a\r\nhost: {}\r\n\r\n", canary("a second Host")),
        format!("POST /github HTTP/1.1\r\nhost: a\r\nexpect: {}\r\n\r\n", canary("an odd Expect")),
        format!("POST /github HTTP/1.1\r\nhost: a\r\nx-long: {}\r\n\r\n", canary("a long header").repeat(2_000)),
        format!(
            "POST /github HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{}\r\n",
            canary("a malformed chunk")
        ),
    ] {
        watch.hear("the answer to a malformed request", &raw(gateway, bytes.as_bytes()).await);
    }
}

/// Everything that the private side says to nobody and to a reader.
async fn private_side(watch: &Watch, gateway: &Gateway, secrets: &Secrets, ids: &[String]) {
    let operate = format!("Bearer {}", secrets.admin);
    let read = format!("Bearer {}", secrets.read);
    let wrong = format!("Bearer {}", watch.canary("a wrong admin token"));
    let asked = watch.canary("a token in the admin side's query");
    let mut paths: Vec<String> = [
        "/healthz",
        "/readyz",
        "/metrics",
        "/api/v1/sources",
        "/api/v1/destinations",
        "/api/v1/events",
        "/api/v1/dead-letters",
        "/api/v1/events?limit=900",
        "/nowhere",
    ]
    .map(str::to_owned)
    .to_vec();
    paths.push(format!("/api/v1/events?token={asked}"));
    paths.extend(ids.iter().map(|id| format!("/api/v1/events/{id}")));
    for path in &paths {
        for authorization in ["", &wrong, &read, &operate] {
            let url = format!("{}{path}", gateway.admin);
            let answer = gateway.http.send(Method::GET, &url, &[("authorization", authorization)], b"").await;
            let from = if path.contains(&asked) { "/api/v1/events?token=…" } else { path };
            watch.answer(from, &answer);
        }
    }
    let url = format!("{}/api/v1/events/{}/replay", gateway.admin, ids.first().unwrap());
    let answer = gateway.http.send(Method::POST, &url, &[("authorization", &operate)], b"{}").await;
    watch.answer("a replay", &answer);
}

/// Configs that are broken around a secret.
fn broken(watch: &Watch, good: &str) -> Vec<String> {
    let canary = |name: &str| watch.canary(name);
    let source = |secret: &str| format!("sources:\n  a:\n    provider: github\n    to: []\n    secret: {secret}\n");
    let destination = |rest: &str| format!("sources: {{}}\ndestinations:\n  app:\n    {rest}\n");
    let in_preset = |rest: &str| format!("providers:\n  a:\n    verify: {{ token: {{ header: X }} }}\n    {rest}\n");
    vec![
        format!("{good}\nnonsense"),
        source(&format!("!{} x", canary("a secret that is a tag"))),
        source(&format!("*{}", canary("a secret that is an alias"))),
        source(&format!("\"{}", canary("a secret without its end quote"))),
        source(&format!("{}: x", canary("a secret with a colon"))),
        source(&format!("[{}]", canary("a secret in a list"))),
        source(&format!("{{ {}: x }}", canary("a secret that is a key"))),
        source(&format!("${{{}", canary("an open variable"))),
        source(&format!("{{ value: {}, not_after: soon }}", canary("a secret with a bad end"))),
        source("1234567890123456789"),
        source("short7char"),
        source(&format!("{}\n    secret: x", canary("a secret that is there twice"))),
        source(&format!("whsk_{}", canary("a private key as a secret"))),
        format!("sources:\n  a: {{ provider: github, to: [], secrte: {} }}\n", canary("a secret at a slip of a key")),
        format!(
            "sources:\n  a: {{ provider: discord, to: [], secret: {} }}\n",
            canary("a secret of the wrong encoding")
        ),
        format!("sources:\n  a: {{ verify: none, to: [], secret: {} }}\n", canary("a secret that nobody asks")),
        format!("admin: {{ token: \"{} x\" }}\n", canary("a token with a space")),
        format!("admin: {{ token: {}\n", canary("a token without its brace")),
        format!("admin:\n\ttoken: {}\n", canary("a token behind a tab")),
        format!("admin:\n  token: {}\n  token: x\n", canary("a token that is there twice")),
        format!("admin: {{ read_token: {} }}\n", canary("a read token alone")),
        format!("admin: {{ listen: {} }}\n", "0.0.0.0:1, token: ''"),
        destination(&format!("url: http://user:{}@127.0.0.1/", canary("a password in a URL"))),
        destination(&format!(
            "url: 'http://127.0.0.1/'\n    headers: {{ set: {{ X-Key: \"{}\\n\" }} }}",
            canary("a header's bad value")
        )),
        destination(&format!(
            "url: 'http://127.0.0.1/'\n    headers: {{ set: {{ X-Key: [{}] }} }}",
            canary("a header's value in a list")
        )),
        destination(&format!(
            "url: 'http://127.0.0.1/'\n    headers: {{ sett: {{ X-Key: {} }} }}",
            canary("a header below a slip")
        )),
        in_preset(&format!("secrets: {{ secret: ~ }}\n    secert: {}", canary("a secret in a preset"))),
    ]
}

async fn commands(
    watch: &Watch,
    dir: &std::path::Path,
    variables: &[(&'static str, String)],
    gateway: &Gateway,
    ids: &[String],
) {
    let config = dir.join("forebay.yaml");
    let config = config.to_str().unwrap();
    assert_eq!(run(watch, variables, &["check", config]).await, Some(0));
    assert_eq!(run(watch, variables, &["check", config, "--json"]).await, Some(0));
    run(watch, variables, &["check", config, "--connect"]).await;
    run(watch, variables, &["doctor", "-c", config]).await;
    run(watch, &[], &["check", config]).await;
    for arguments in [
        &["schema"][..],
        &["schema", "--defaults"],
        &["providers", "list"],
        &["providers", "show", "own-basic"],
        &["providers", "show", "own-query", "--json"],
        &["providers", "show", "facebook"],
        &["events", "list"],
        &["events", "list", "--json"],
        &["dead-letters", "list"],
        &["destinations", "list"],
    ] {
        let mut arguments = arguments.to_vec();
        arguments.extend(["-c", config]);
        if matches!(arguments[0], "events" | "dead-letters" | "destinations") {
            arguments.extend(["--admin", &gateway.admin]);
        }
        assert_eq!(run(watch, variables, &arguments).await, Some(0), "{arguments:?}");
    }
    for id in ids {
        for json in [&[][..], &["--json"]] {
            let mut arguments = vec!["events", "show", id.as_str(), "-c", config, "--admin", &gateway.admin];
            arguments.extend(json);
            assert_eq!(run(watch, variables, &arguments).await, Some(0));
        }
    }
    let to = format!("{}/github", gateway.ingress);
    run(watch, variables, &["send", "github", "-c", config, "--to", &to]).await;
    let given = watch.canary("send --secret");
    run(watch, variables, &["send", "github", "--to", &to, "--secret", &given]).await;
    run(watch, variables, &["send", "stripe", "--to", &to, "--secret", &given, "--json"]).await;
    let token = watch.canary("--token");
    run(watch, variables, &["events", "list", "--admin", &gateway.admin, "--token", &token]).await;
}

async fn nothing_is_heard(format: &str) {
    let watch = Watch::new();
    let app = FakeApp::start().await;
    let secrets = Secrets::new(&watch);
    let variables = secrets.variables(&app.url());
    let dir = tempfile::tempdir().unwrap();
    let config = secrets.config(dir.path(), format, &format!("http://{}/", reserve()));
    std::fs::write(dir.path().join("forebay.yaml"), &config).unwrap();
    let mut command = with(gateway::command(), &variables);
    command.stdout(Stdio::from(std::fs::File::create(dir.path().join("stdout")).unwrap()));
    let gateway = Gateway::start_by(command, dir).await;
    let dir = gateway.config().parent().unwrap().to_owned();

    let mut ids = good(&watch, &gateway, &gateway.http, &secrets, "1").await;
    let bodies = watch.canary("what the application answers");
    let cookie = watch.canary("a cookie of the application");
    watch.may_be_read(&bodies);
    app.behave(move |_| {
        let mut response = app::status(500);
        response.headers_mut().insert("set-cookie", cookie.parse().unwrap());
        *response.body_mut() = bodies.clone().into();
        Some(response)
    });
    ids.extend(good(&watch, &gateway, &Http::http2(), &secrets, "2").await);
    for http in [&gateway.http, &Http::http2()] {
        refused(&watch, &gateway, http, &secrets).await;
    }
    for id in &ids {
        let url = format!("{}/api/v1/events/{id}", gateway.admin);
        let authorization = format!("Bearer {}", secrets.read);
        let deadline = tokio::time::Instant::now() + gateway::PATIENCE;
        while gateway.http.send(Method::GET, &url, &[("authorization", &authorization)], b"").await.json()["status"]
            == "pending"
        {
            assert!(tokio::time::Instant::now() < deadline, "{id} is never settled");
            tokio::task::yield_now().await;
        }
    }
    private_side(&watch, &gateway, &secrets, &ids).await;
    commands(&watch, &dir, &variables, &gateway, &ids).await;

    for text in broken(&watch, &config) {
        let file = dir.join("broken.yaml");
        std::fs::write(&file, &text).unwrap();
        let file = file.to_str().unwrap();
        run(&watch, &variables, &["doctor", "-c", file]).await;
        run(&watch, &variables, &["check", file, "--json"]).await;
        if run(&watch, &variables, &["check", file]).await == Some(2) {
            run(&watch, &variables, &["serve", "-c", file]).await;
        }
        std::fs::write(gateway.config(), &text).unwrap();
        gateway.signal("HUP").await; // whatever it makes of it
    }
    std::fs::write(gateway.config(), &config).unwrap();
    let (log, stdout) = (gateway.log(), std::fs::read_to_string(dir.join("stdout")).unwrap());
    assert!(log.len() > 100, "it says a lot at `trace`");
    let (code, kept) = gateway.terminate().await;
    assert_eq!(code, 0);
    watch.hear("the log", &log.join("\n"));
    watch.hear("the standard output", &stdout);
    drop(kept);
    watch.silent();
}

#[tokio::test]
async fn no_secret_is_in_anything_that_is_said_in_text() {
    nothing_is_heard("text").await;
}

#[tokio::test]
async fn no_secret_is_in_anything_that_is_said_in_json() {
    nothing_is_heard("json").await;
}
