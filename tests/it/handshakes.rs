//! A provider's checks of the endpoint: answered by the gateway itself, whatever becomes of the application.

use http::Method;
use serde_json::json;

use crate::support::http::Answer;
use crate::support::{FakeApp, Gateway, sign};

/// Providers as their documentation describes them, as far as their handshakes go. Events are signed alike here.
const PROVIDERS: &str = r#"
providers:
  meta:
    secrets: { app_secret: ~, verify_token: { optional: true } }
    verify: { hmac: { hash: sha256, secret: app_secret, signature: &signature { header: X-Sig, prefix: "sha256=" } } }
    handshakes:
      - name: subscribe
        signed: false
        method: GET
        when: { equals: { "query:hub.mode": subscribe }, present: ["query:hub.challenge"] }
        check: { token: { from: "query:hub.verify_token", secret: verify_token } }
        respond: { body: "{query:hub.challenge}" }
  trello:
    verify: { hmac: { hash: sha256, signature: *signature } }
    handshakes: [{ name: probe, signed: false, method: HEAD }]
  cloudevents:
    verify: { hmac: { hash: sha256, signature: *signature } }
    handshakes:
      - name: validate
        signed: false
        method: OPTIONS
        when: { present: ["header:WebHook-Request-Origin"] }
        respond:
          headers: { WebHook-Allowed-Origin: "{header:WebHook-Request-Origin}", WebHook-Allowed-Rate: "*", Allow: POST }
  slack:
    verify: { hmac: { hash: sha256, signature: *signature } }
    handshakes:
      - name: url_verification
        when: { equals: { "json:/type": url_verification } }
        respond: { body: "{json:/challenge}" }
  zoom:
    verify: { hmac: { hash: sha256, signature: *signature } }
    handshakes:
      - name: url_validation
        when: { equals: { "json:/event": endpoint.url_validation } }
        compute: { answer: { hmac: { hash: sha256, content: "{json:/payload/plainToken}", encoding: hex } } }
        respond: { json: { plainToken: "{json:/payload/plainToken}", encryptedToken: "{compute:answer}" } }
  discord:
    verify: { hmac: { hash: sha256, signature: *signature } }
    handshakes:
      - name: ping
        when: { equals: { "json:/type": "1" } }
        respond: { json: { type: 1 } }
  x:
    verify: { hmac: { hash: sha256, signature: { header: X-Sig, prefix: "sha256=", encoding: base64 } } }
    handshakes:
      - name: crc
        signed: false
        method: GET
        when: { present: ["query:crc_token"] }
        check: { hmac: { hash: sha256, signature: { header: X-Sig, prefix: "sha256=", encoding: base64 }, content: "{query}" } }
        compute: { answer: { hmac: { hash: sha256, content: "{query:crc_token}", encoding: base64 } } }
        respond: { json: { response_token: "sha256={compute:answer}" } }
  open:
    verify: { hmac: { hash: sha256, signature: *signature } }
    handshakes:
      - name: crc
        signed: false
        method: GET
        when: { present: ["query:crc_token"] }
        compute: { answer: { hmac: { hash: sha256, content: "{query:crc_token}" } } }
        respond: { json: { response_token: "sha256={compute:answer}" } }
"#;

const TOKEN: &str = "a-verify-token-of-some-length";
const NEW: &str = "the-secret-after-this-one";

/// A gateway with a source for each of [`PROVIDERS`], and an application that is down.
async fn gateway() -> (FakeApp, Gateway) {
    let app = FakeApp::down();
    let secret = "${GITHUB_WEBHOOK_SECRET}";
    let mut config = format!(
        "{PROVIDERS}destinations:\n  app: {{ url: {} }}\nsources:\n  meta: {{ provider: meta, secret: {{ app_secret: \"{secret}\", verify_token: {TOKEN} }}, to: [app] }}\n",
        app.url()
    );
    for name in ["trello", "cloudevents", "zoom", "discord", "x", "open"] {
        config.push_str(&format!("  {name}: {{ provider: {name}, secret: \"{secret}\", to: [app] }}\n"));
    }
    config.push_str(&format!("  unset: {{ provider: meta, secret: \"{secret}\", to: [app] }}\n"));
    config.push_str(&format!("  proxied: {{ provider: discord, secret: \"{secret}\", mode: proxy, to: [app] }}\n"));
    config.push_str(&format!("  rotating: {{ provider: zoom, secrets: [{NEW}, \"{secret}\"], to: [app] }}\n"));
    config.push_str(&format!(
        "  slack: {{ provider: slack, secret: \"{secret}\", rate_limit: {{ rate: 1/h, burst: 1 }}, to: [app] }}\n\
         \x20 elsewhere: {{ provider: trello, secret: \"{secret}\", allow_ips: [192.0.2.0/24], to: [app] }}\n"
    ));
    (app, Gateway::start(&config).await)
}

async fn ask(gateway: &Gateway, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    gateway.http.send(method, &format!("{}{path}", gateway.ingress), headers, b"").await
}

async fn get(gateway: &Gateway, path: &str) -> Answer {
    ask(gateway, Method::GET, path, &[]).await
}

async fn post(gateway: &Gateway, path: &str, body: &str, signature: &str) -> Answer {
    let url = format!("{}{path}", gateway.ingress);
    gateway.http.send(Method::POST, &url, &[("x-sig", signature)], body.as_bytes()).await
}

/// The answer is this, in the way that no browser takes for a page and no cache keeps.
fn answered(answer: &Answer, content_type: Option<&str>, body: &str) {
    assert_eq!((answer.status, answer.text().as_str()), (200, body));
    assert_eq!(answer.header("content-type"), content_type);
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!((answer.header("forebay-event-id"), answer.header("forebay-duplicate")), (None, None));
}

/// Nothing was kept, claimed or forwarded; `handshakes` of `source` were answered, and `refused` refused.
async fn left_no_trace(app: &FakeApp, gateway: &Gateway, source: &str, handshakes: f64, refused: f64) {
    assert_eq!(gateway.get("/api/v1/events").await.json()["items"], json!([]));
    assert!(app.seen().is_empty());
    let count = async |outcome: &str| {
        gateway.metric(&format!(r#"forebay_requests_total{{source="{source}",outcome="{outcome}"}}"#)).await
    };
    assert_eq!((count("handshake").await, count("refused").await), (handshakes, refused), "{source}");
    assert_eq!((count("stored").await, count("duplicate").await), (0.0, 0.0), "{source}");
}

#[tokio::test]
async fn a_subscription_is_confirmed_to_who_knows_the_verify_token() {
    let (app, gateway) = gateway().await;
    let ask = async |token: &str, challenge: &str| {
        get(&gateway, &format!("/meta?hub.mode=subscribe&hub.challenge={challenge}{token}")).await
    };
    let good = format!("&hub.verify_token={TOKEN}");
    answered(&ask(&good, "1158201444").await, Some("text/plain"), "1158201444");
    answered(&ask(&good, "a%20b%2Bc").await, Some("text/plain"), "a b+c");

    for wrong in ["", "&hub.verify_token=", "&hub.verify_token=other", &format!("{good}x"), &format!("{good}{good}")] {
        let answer = ask(wrong, "1158201444").await;
        assert_eq!((answer.status, &answer.json()["error"]), (401, &json!("signature verification failed")), "{wrong}");
        assert!(!answer.text().contains("1158201444"));
    }
    left_no_trace(&app, &gateway, "meta", 2.0, 5.0).await;
    let unset = format!("/unset?hub.mode=subscribe&hub.challenge=1{good}");
    assert_eq!(
        get(&gateway, &unset).await.status,
        405,
        "without a token nobody is asked for one, so nobody is answered"
    );
    let log = gateway.log().join("\n");
    assert!(log.contains("handshake answered") && log.contains("subscribe"), "{log}");
    assert!(!log.contains(TOKEN) && !log.contains("1158201444"), "neither the token nor the challenge is logged");
}

#[tokio::test]
async fn a_request_with_a_handshakes_method_that_is_none_is_405() {
    let (app, gateway) = gateway().await;
    for path in ["/meta", "/meta?hub.mode=unsubscribe&hub.challenge=1", "/meta?hub.mode=subscribe", "/x?a=1"] {
        let answer = get(&gateway, path).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{path}");
    }
    let options = ask(&gateway, Method::OPTIONS, "/cloudevents", &[]).await;
    assert_eq!((options.status, options.header("allow")), (405, Some("POST")));
    for method in [Method::GET, Method::HEAD, Method::PUT] {
        assert_eq!(ask(&gateway, method, "/slack", &[]).await.status, 405);
    }
    left_no_trace(&app, &gateway, "meta", 0.0, 3.0).await;
}

#[tokio::test]
async fn a_head_gets_200_and_an_options_gets_its_origin_back() {
    let (app, gateway) = gateway().await;
    answered(&ask(&gateway, Method::HEAD, "/trello", &[]).await, None, "");
    assert_eq!(ask(&gateway, Method::GET, "/trello", &[]).await.status, 405);
    assert_eq!(ask(&gateway, Method::HEAD, "/elsewhere", &[]).await.status, 403, "allow_ips comes first");

    let origin = |value: &'static str| [("webhook-request-origin", value)];
    let answer = ask(&gateway, Method::OPTIONS, "/cloudevents", &origin("eventgrid.azure.net")).await;
    answered(&answer, None, "");
    assert_eq!(answer.header("webhook-allowed-origin"), Some("eventgrid.azure.net"));
    assert_eq!((answer.header("webhook-allowed-rate"), answer.header("allow")), (Some("*"), Some("POST")));
    let status = async |odd| ask(&gateway, Method::OPTIONS, "/cloudevents", &origin(odd)).await.status;
    assert_eq!(status("tab\there").await, 405);
    assert_eq!(status("\u{e9}t\u{e9}").await, 400, "no header has bytes beyond ASCII");
    left_no_trace(&app, &gateway, "cloudevents", 1.0, 1.0).await;
}

#[tokio::test]
async fn a_signed_challenge_is_echoed_only_to_who_signed_it() {
    let (app, gateway) = gateway().await;
    let body = r#"{"type":"url_verification","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#;
    let challenge = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P";
    for wrong in ["", "sha256=00", sign(b"another body").as_str()] {
        let answer = post(&gateway, "/slack", body, wrong).await;
        assert_eq!(answer.status, 401);
        assert!(!answer.text().contains(challenge), "nothing is answered to who did not sign");
    }
    // As often as it comes: it claims no key and spends no quota, which is one an hour here.
    for _ in 0..3 {
        answered(&post(&gateway, "/slack", body, &sign(body.as_bytes())).await, Some("text/plain"), challenge);
    }
    left_no_trace(&app, &gateway, "slack", 3.0, 3.0).await;
    let event = r#"{"type":"event_callback","challenge":"x"}"#;
    assert_eq!(post(&gateway, "/slack", event, &sign(event.as_bytes())).await.status, 200, "the quota is untouched");
    let other = r#"{"type":"event_callback","challenge":"y"}"#;
    assert_eq!(post(&gateway, "/slack", other, &sign(other.as_bytes())).await.status, 429);
}

#[tokio::test]
async fn a_signed_ping_gets_the_fixed_answer_byte_for_byte() {
    let (app, gateway) = gateway().await;
    for body in [r#"{"type":1}"#, r#"{ "application_id": "1", "type": 1 }"#] {
        assert_eq!(post(&gateway, "/discord", body, &sign(b"x")).await.status, 401);
        answered(
            &post(&gateway, "/discord", body, &sign(body.as_bytes())).await,
            Some("application/json"),
            r#"{"type":1}"#,
        );
    }
    left_no_trace(&app, &gateway, "discord", 2.0, 2.0).await;
    let ping = r#"{"type":1}"#;
    answered(&post(&gateway, "/proxied", ping, &sign(ping.as_bytes())).await, Some("application/json"), ping);
    left_no_trace(&app, &gateway, "proxied", 1.0, 0.0).await;
    for event in [r#"{"type":2}"#, r#"{"type":1.0}"#, r#"{"type":[1]}"#, r#"{"data":{"type":1}}"#] {
        let answer = post(&gateway, "/discord", event, &sign(event.as_bytes())).await;
        assert!(answer.status == 200 && answer.header("forebay-event-id").is_some(), "an event, and no ping: {event}");
    }
}

/// The hex is that of Python's `hmac.new(secret, b"qgg8vlvZRS6UYooatFL8Aw", "sha256")`.
#[tokio::test]
async fn a_computed_answer_shows_that_the_secret_is_known() {
    let (app, gateway) = gateway().await;
    let body = r#"{"payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event":"endpoint.url_validation"}"#;
    assert_eq!(post(&gateway, "/zoom", body, &sign(b"")).await.status, 401);
    let answer = post(&gateway, "/zoom", body, &sign(body.as_bytes())).await;
    let expected = r#"{"plainToken":"qgg8vlvZRS6UYooatFL8Aw","encryptedToken":"34695fa238d44562f131448d95b5f5df2e52e07c8793d7f2dc630f6159e5cd5e"}"#;
    answered(&answer, Some("application/json"), expected);
    left_no_trace(&app, &gateway, "zoom", 1.0, 1.0).await;

    // While the secret rotates: with the one that the provider signed with, although another comes first.
    let answer = post(&gateway, "/rotating", body, &sign(body.as_bytes())).await;
    answered(&answer, Some("application/json"), expected);
}

fn base64_mac(content: &str) -> String {
    let hex = sign(content.as_bytes());
    let mac = data_encoding::HEXLOWER.decode(hex.trim_start_matches("sha256=").as_bytes()).unwrap();
    format!("sha256={}", data_encoding::BASE64.encode(&mac))
}

/// Where the provider signs its challenge, too, over the query, nobody else gets an answer.
#[tokio::test]
async fn a_challenge_that_is_signed_itself_is_answered_to_who_signed_it() {
    let (app, gateway) = gateway().await;
    let crc = async |query: &str, signature: &str| {
        let headers: &[(&str, &str)] = if signature.is_empty() { &[] } else { &[("x-sig", signature)] };
        ask(&gateway, Method::GET, &format!("/x?{query}"), headers).await
    };
    let query = "crc_token=dG9rZW4%3D&nonce=bm9uY2U";
    let expected = json!({ "response_token": base64_mac("dG9rZW4=") }).to_string();
    answered(&crc(query, &base64_mac(query)).await, Some("application/json"), &expected);
    let other = "crc_token=dG9rZW4&nonce=bm9uY2U";
    for (query, signature) in [(query, ""), (query, &base64_mac("")), (other, &base64_mac(query)), (other, "")] {
        let answer = crc(query, signature).await;
        assert_eq!(answer.status, 401);
        assert!(!answer.text().contains("response_token"));
    }
    left_no_trace(&app, &gateway, "x", 1.0, 4.0).await;
}

/// Where the provider signs nothing of its challenge, everybody gets an answer, made with the key that signs events. So only
/// a token is answered, and such an answer is no event's signature.
#[tokio::test]
async fn an_answer_to_anybody_signs_no_event() {
    let (app, gateway) = gateway().await;
    let crc = async |token: &str| get(&gateway, &format!("/open?crc_token={token}")).await;
    for (asked, token) in
        [("890e4665-4dfe-4ab1-b689-ed553bceeed0", None), ("a%2Bb/c%3D%3D", Some("a+b/c==")), ("1", None)]
    {
        let token = token.unwrap_or(asked);
        let signature = sign(token.as_bytes());
        let expected = json!({ "response_token": signature }).to_string();
        answered(&crc(asked).await, Some("application/json"), &expected);
        assert_eq!(post(&gateway, "/open", token, &signature).await.status, 401, "the answer, as an event: {token}");
    }
    for odd in ["%7B%22a%22:1%7D", "[1]", "a%3D1", "%22a%22", "%3Cxml/%3E", "a+b", "%3D", "a%0A", "", &"a".repeat(1025)]
    {
        assert_eq!(crc(odd).await.status, 405, "{odd}");
    }
    left_no_trace(&app, &gateway, "open", 3.0, 13.0).await;
    for event in ["{}", "a=1", " 1", "", &"a".repeat(1025)] {
        assert_eq!(post(&gateway, "/open", event, &sign(event.as_bytes())).await.status, 200, "{event}");
    }
}

/// Whoever knows the verify token may still not make a page, a second header or a large answer of it.
#[tokio::test]
async fn what_is_echoed_is_short_plain_text() {
    let (app, gateway) = gateway().await;
    let ask = async |challenge: &str| {
        let query = format!("hub.mode=subscribe&hub.verify_token={TOKEN}&hub.challenge={challenge}");
        get(&gateway, &format!("/meta?{query}")).await
    };
    let page = "<script>alert(1)</script>";
    answered(&ask("%3Cscript%3Ealert(1)%3C/script%3E").await, Some("text/plain"), page);
    let longest = "a".repeat(1024);
    answered(&ask(&longest).await, Some("text/plain"), &longest);
    for odd in ["%0d%0aSet-Cookie:a", "a%00", "%1b[2J", "%C2%85", "%7F", "%09", &format!("{longest}a"), ""] {
        assert_eq!(ask(odd).await.status, 405, "{odd}");
    }
    left_no_trace(&app, &gateway, "meta", 2.0, 8.0).await;

    // In JSON it is escaped.
    let body = r#"{"event":"endpoint.url_validation","payload":{"plainToken":"\",\"admin\":\"\\é"}}"#;
    let answer = post(&gateway, "/zoom", body, &sign(body.as_bytes())).await;
    assert_eq!(answer.json()["plainToken"], "\",\"admin\":\"\\é");
    assert_eq!(answer.json().as_object().unwrap().len(), 2);
}
