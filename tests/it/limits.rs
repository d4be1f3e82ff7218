//! Rate limits, and whom they count: counts, never times. A rate of one an hour stands still while a test runs.

use futures_util::future::join_all;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::gateway::{PATIENCE, head};
use crate::support::http::Answer;
use crate::support::{FakeApp, Gateway, sign};

/// Whose words on the client are believed in these tests: the sender of them all.
const BEHIND_PROXY: &str = "trusted_proxies: [127.0.0.1, 10.0.0.0/8]";

/// Starts with `ingress` beside where it listens.
async fn start(ingress: &str, rest: &str) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    let top =
        head(dir.path()).replace("listen: 127.0.0.1:0 }\nadmin", &format!("listen: 127.0.0.1:0, {ingress} }}\nadmin"));
    assert!(top.contains(ingress));
    std::fs::write(dir.path().join("forebay.yaml"), format!("{top}{rest}")).unwrap();
    Gateway::start_in(dir).await
}

async fn post(gateway: &Gateway, source: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    gateway.http.send(Method::POST, &format!("{}/{source}", gateway.ingress), headers, body.as_bytes()).await
}

/// A genuine one, as GitHub signs.
async fn genuine(gateway: &Gateway, source: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let signature = sign(body.as_bytes());
    let headers = [headers, &[("x-hub-signature-256", &signature), ("x-github-delivery", body)]].concat();
    post(gateway, source, &headers, body).await
}

async fn forged(gateway: &Gateway, source: &str, headers: &[(&str, &str)]) -> Answer {
    let signature = format!("sha256={}", "0".repeat(64));
    post(gateway, source, &[headers, &[("x-hub-signature-256", &signature)]].concat(), "forged").await
}

fn github(more: &str) -> String {
    format!("{{ provider: github, secret: \"${{GITHUB_WEBHOOK_SECRET}}\", {more}, to: [] }}")
}

async fn limited(gateway: &Gateway, source: &str, per: &str) -> f64 {
    gateway.metric(&format!("forebay_rate_limited_total{{source=\"{source}\",per=\"{per}\"}}")).await
}

/// One answer is 429 with what the draft wants to be there: `q` the burst, `w` the time in which it comes back.
fn assert_is_429(answer: &Answer, per: &str, burst: u32) {
    assert_eq!(answer.status, 429, "{}", answer.text());
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");
    assert_eq!(answer.header("ratelimit-policy").unwrap(), format!("\"{per}\";q={burst};w={}", 3600 * burst));
    assert_eq!(answer.header("ratelimit").unwrap(), format!("\"{per}\";r=0;t={wait}"));
    assert_eq!(answer.json()["error"], "too many requests");
}

#[tokio::test]
async fn of_three_bursts_at_once_exactly_one_is_admitted() {
    let limit = |per: &str| format!("rate_limit: {{ rate: 1/h, burst: 7, per: \"{per}\" }}");
    let sources = format!(
        "sources:\n  a: {}\n  b: {}\n  c: {}\n",
        github(&limit("source")),
        github(&limit("client_ip")),
        github(&limit("header:X-Tenant"))
    );
    let gateway = start(BEHIND_PROXY, &sources).await;
    for (source, per, counted, other) in [
        ("a", "source", ("x-tenant", "one"), None),
        ("b", "client_ip", ("x-forwarded-for", "192.0.2.1"), Some(("x-forwarded-for", "192.0.2.2"))),
        ("c", "header", ("x-tenant", "one"), Some(("x-tenant", "two"))),
    ] {
        let bodies: Vec<String> = (0..21).map(|n| format!("{source}{n}")).collect();
        let headers = [counted];
        let answers = join_all(bodies.iter().map(|body| genuine(&gateway, source, &headers, body))).await;
        let (admitted, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
        assert_eq!((admitted.len(), refused.len()), (7, 14), "{source}");
        refused.iter().for_each(|answer| assert_is_429(answer, per, 7));
        assert_eq!(limited(&gateway, source, per).await, 14.0);
        if let Some(other) = other {
            assert_eq!(genuine(&gateway, source, &[other], "other").await.status, 200, "{source}: another has its own");
        }
    }
    // Those without the header are counted together.
    let without: Vec<String> = (0..8).map(|n| format!("without {n}")).collect();
    let answers = join_all(without.iter().map(|body| genuine(&gateway, "c", &[], body))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 7);
}

/// R1 and R3, live: over any stretch no more than burst + rate × time are admitted, and whoever comes again is.
#[tokio::test]
async fn a_spent_limit_comes_back_one_at_a_time() {
    const RATE: f64 = 5.0;
    let sources = format!("sources:\n  a: {}\n", github("rate_limit: { rate: 5/s, burst: 2, per: source }"));
    let gateway = start(BEHIND_PROXY, &sources).await;
    let began = tokio::time::Instant::now();
    let (mut admitted, mut refused) = (0u32, 0u32);
    for number in 0.. {
        match genuine(&gateway, "a", &[], &number.to_string()).await.status {
            200 => admitted += 1,
            429 => refused += 1,
            other => panic!("{other}"),
        }
        assert!(f64::from(admitted) <= 2.0 + RATE * began.elapsed().as_secs_f64(), "{admitted} are too many");
        if admitted >= 6 && refused > 0 {
            return;
        }
    }
}

#[tokio::test]
async fn a_quota_that_refuses_leaves_the_others_unspent() {
    let limits = "rate_limit: [{ rate: 1/h, burst: 4 }, { rate: 1/h, burst: 1, per: \"header:X-Tenant\" }]";
    let gateway = Gateway::start(&format!("sources:\n  s: {}\n", github(limits))).await;
    let send =
        async |tenant: &str, n: u32| genuine(&gateway, "s", &[("x-tenant", tenant)], &format!("{tenant}{n}")).await;
    assert_eq!(send("a", 0).await.status, 200);
    for n in 1..10 {
        assert_is_429(&send("a", n).await, "header", 1);
    }
    for tenant in ["b", "c", "d"] {
        assert_eq!(send(tenant, 0).await.status, 200, "{tenant}: the source's quota is what it was");
    }
    assert_is_429(&send("e", 0).await, "source", 4);
    assert_eq!((limited(&gateway, "s", "header").await, limited(&gateway, "s", "source").await), (9.0, 1.0));
}

#[tokio::test]
async fn forgeries_spend_nobodys_quota() {
    let limits = "rate_limit: [{ rate: 1/h, burst: 2 }, { rate: 1/h, burst: 2, per: \"header:X-Tenant\" }]";
    let gateway = Gateway::start(&format!("sources:\n  s: {}\n", github(limits))).await;
    for _ in 0..20 {
        assert_eq!(forged(&gateway, "s", &[("x-tenant", "one")]).await.status, 401);
    }
    for body in ["1", "2"] {
        assert_eq!(genuine(&gateway, "s", &[("x-tenant", "one")], body).await.status, 200);
    }
    assert_eq!(genuine(&gateway, "s", &[("x-tenant", "one")], "3").await.status, 429);
    assert_eq!(forged(&gateway, "s", &[]).await.status, 401, "and a forger learns nothing of it");
}

#[tokio::test]
async fn a_forger_is_stopped_at_the_door_and_nobody_else_is() {
    let sources =
        format!("sources:\n  s: {0}\n  t: {0}\n  open: {{ verify: none, to: [] }}\n", github("methods: [POST]"));
    let budget = "limits: { unverified: { rate: 1/h, burst: 3 } }";
    let gateway = start(&format!("{BEHIND_PROXY}, {budget}"), &sources).await;
    let (bad, good) = ([("x-forwarded-for", "2001:db8::bad:1")], [("x-forwarded-for", "192.0.2.1")]);
    for n in 0..10 {
        assert_eq!(genuine(&gateway, "s", &bad, &format!("b{n}")).await.status, 200, "what is genuine spends nothing");
    }
    assert_eq!(forged(&gateway, "s", &bad).await.status, 401);
    assert_eq!(forged(&gateway, "t", &bad).await.status, 401, "one budget for all sources");
    assert_eq!(forged(&gateway, "s", &bad).await.status, 401);
    for (source, from) in [("s", "2001:db8::bad:1"), ("t", "2001:db8::2"), ("open", "2001:db8::3")] {
        let answer = genuine(&gateway, source, &[("x-forwarded-for", from)], "late").await;
        assert_is_429(&answer, "unverified", 3);
        assert_eq!(limited(&gateway, source, "unverified").await, 1.0);
    }
    assert_eq!(genuine(&gateway, "s", &good, "g").await.status, 200);
    assert_eq!(genuine(&gateway, "s", &[("x-forwarded-for", "2001:db8:0:1::1")], "n").await.status, 200, "another /64");

    // It does not take the body first.
    let mut stream = TcpStream::connect(gateway.ingress.trim_start_matches("http://")).await.unwrap();
    let head = "POST /s HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 2001:db8::9\r\ncontent-length: 1000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 429");

    // The proxy itself, and this machine, are clients like any other.
    for _ in 0..3 {
        assert_eq!(forged(&gateway, "s", &[]).await.status, 401);
    }
    assert_eq!(forged(&gateway, "s", &[]).await.status, 429);
}

#[tokio::test]
async fn heads_sent_ahead_of_their_bodies_win_a_forger_nothing() {
    let budget = "limits: { unverified: { rate: 1/h, burst: 5 } }";
    let gateway =
        start(&format!("{BEHIND_PROXY}, {budget}"), &format!("sources:\n  s: {}\n", github("methods: [POST]"))).await;
    let statuses = async |client: &str, signature: &str| {
        let head = format!(
            "POST /s HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {client}\r\nx-hub-signature-256: {signature}\r\n\
             expect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\n"
        );
        let mut streams = Vec::new();
        for _ in 0..60 {
            let mut stream = TcpStream::connect(gateway.ingress.trim_start_matches("http://")).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut go_on = [0; 25]; // it is admitted: the body is waited for
            tokio::time::timeout(PATIENCE, stream.read_exact(&mut go_on)).await.unwrap().unwrap();
            assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
            streams.push(stream);
        }
        let answer = async |mut stream: TcpStream| {
            stream.write_all(b"{}").await.unwrap();
            let mut answer = String::new();
            tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            answer.get(9..12).unwrap().to_owned()
        };
        let statuses = join_all(streams.into_iter().map(answer)).await;
        ["200", "401", "429"].map(|wanted| statuses.iter().filter(|status| *status == wanted).count())
    };
    assert_eq!(statuses("192.0.2.1", &format!("sha256={}", "0".repeat(64))).await, [0, 5, 55]);
    assert_eq!(limited(&gateway, "s", "unverified").await, 55.0);
    assert_eq!(statuses("192.0.2.2", &sign(b"{}")).await, [60, 0, 0], "what is genuine may come all at once");
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_client_is_whom_it_speaks_for() {
    let app = FakeApp::start().await;
    let rest = format!(
        "sources:\n  s: {{ verify: none, allow_ips: [192.0.2.0/24, 2001:db8::/32], to: [app] }}\n  \
         own: {{ verify: none, path: /s, host: own.test, to: [] }}\n\
         destinations:\n  app: {{ url: {}/in }}\n",
        app.url()
    );
    let gateway = start(BEHIND_PROXY, &rest).await;
    let mut delivered = 0;
    for (headers, seen) in [
        (vec![("x-forwarded-for", "192.0.2.1")], Some(("192.0.2.1", "http"))),
        (vec![("x-forwarded-for", "192.0.2.2, 203.0.113.9")], None),
        (
            vec![("x-forwarded-for", "203.0.113.9, 192.0.2.3:80"), ("x-forwarded-for", "10.0.0.3")],
            Some(("192.0.2.3", "http")),
        ),
        (vec![("forwarded", "for=\"[2001:db8::7]:1\";proto=https;host=hooks.test")], Some(("2001:db8::7", "https"))),
        (vec![("forwarded", "for=192.0.2.1"), ("x-forwarded-for", "203.0.113.9")], None),
        (vec![("forwarded", "for=unknown")], None),
        (vec![], None),
    ] {
        let answer = post(&gateway, "s", &headers, "{}").await;
        assert_eq!(answer.status, if seen.is_some() { 200 } else { 403 }, "{headers:?}");
        let Some((ip, proto)) = seen else { continue };
        delivered += 1;
        let got = app.until("it", |seen| seen.len() == delivered).await.pop().unwrap();
        assert_eq!((got.header("x-forwarded-for"), got.header("x-forwarded-proto")), (ip, proto), "{headers:?}");
        assert!(!got.headers.contains_key("forwarded"));
        let host = if proto == "https" { "hooks.test" } else { gateway.ingress.trim_start_matches("http://") };
        assert_eq!(got.header("x-forwarded-host"), host);
    }
    // What the proxy says of the host is for the application: the source is found by the request's own.
    let told = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-host", "own.test")];
    assert_eq!(post(&gateway, "s", &told, "{}").await.status, 403, "still the first source, which does not allow it");
    let own = [("host", "own.test"), ("x-forwarded-for", "203.0.113.9"), ("x-forwarded-host", "else.test")];
    assert_eq!(post(&gateway, "s", &own, "{}").await.status, 200);
    let logged = gateway.log().iter().any(|line| line.contains("request refused") && line.contains("203.0.113.9"));
    assert!(logged, "a refusal is logged with the client's address");
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let app = FakeApp::start().await;
    let rest = format!(
        "sources:\n  s: {{ verify: none, allow_ips: [192.0.2.0/24], to: [] }}\n  t: {{ verify: none, to: [app] }}\n  \
         u: {{ verify: none, rate_limit: {{ rate: 1/h, burst: 1, per: client_ip }}, to: [] }}\n\
         destinations:\n  app: {{ url: {} }}\n",
        app.url()
    );
    let gateway = start("trusted_proxies: [192.0.2.0/24]", &rest).await;
    let claims = [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.test"),
        ("forwarded", "for=192.0.2.1;proto=https;host=evil.test"),
    ];
    assert_eq!(post(&gateway, "s", &claims, "{}").await.status, 403);
    assert_eq!(post(&gateway, "t", &claims, "{}").await.status, 200);
    let seen = app.until("it", |seen| !seen.is_empty()).await.pop().unwrap();
    assert_eq!((seen.header("x-forwarded-for"), seen.header("x-forwarded-proto")), ("127.0.0.1", "http"));
    assert!(!seen.headers.values().any(|value| value.to_str().unwrap().contains("evil")), "{:?}", seen.headers);
    assert_eq!(post(&gateway, "u", &[("x-forwarded-for", "1.1.1.1")], "1").await.status, 200);
    assert_eq!(
        post(&gateway, "u", &[("x-forwarded-for", "1.1.1.2")], "2").await.status,
        429,
        "a new name is no new client"
    );
}
