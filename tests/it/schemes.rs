//! Signatures, tokens and passwords wherever they may stand, as `forebay send` makes them and the gateway takes them.

use crate::support::Gateway;
use crate::support::gateway::command;

/// RFC 8032, section 7.1, test 1.
const PRIVATE: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

/// One preset for each carrier, and a source for each, behind `/in` of the public URL.
fn config() -> String {
    let signed = |from: &str, content: &str, time: &str| {
        format!(
            "verify: {{ hmac: {{ hash: sha256, signature: {{ from: \"{from}\" }}, content: \"{content}\", \
             timestamp: {{ from: \"{time}\" }} }} }}"
        )
    };
    let presets = [
        ("by-query", signed("query:sig", "{query:t}{body}", "query:t"), "{}", SECRET),
        ("by-form", signed("form:sig", "{form:t}{form:command}", "form:t"), "command=%2Fgo+now", SECRET),
        ("by-json", signed("header:X-Sig", "{body}", "json:/at"), r#"{"at":0}"#, SECRET),
        ("by-url", signed("header:X-Sig", "{url}{body}", "query:t"), "{}", SECRET),
        ("by-param", signed("header:X-Sig", "{param:tenant}{header:X-Time}{body}", "header:X-Time"), "{}", SECRET),
        (
            "by-key",
            "verify: { ed25519: { signature: { header: X-Sig }, content: \"{header:X-Time}{body}\", \
             timestamp: { from: \"header:X-Time\" } } }"
                .to_owned(),
            "{}",
            PUBLIC,
        ),
        ("by-token", "verify: { token: { from: \"json:/items/*/state\" } }".to_owned(), r#"{"items":[{},{}]}"#, SECRET),
        (
            "by-basic",
            "secrets: { username: ~, password: ~ }, verify: { basic: { username: username, password: password } }"
                .to_owned(),
            "{}",
            "{ username: acme, password: a-password-of-some-length }",
        ),
    ];
    let (mut providers, mut sources) = (String::new(), String::new());
    for (name, verify, body, secret) in presets {
        let form = if name == "by-form" { "application/x-www-form-urlencoded" } else { "application/json" };
        providers.push_str(&format!(
            "  {name}: {{ {verify}, redact: [\"query:sig\"], sample: {{ headers: {{ Content-Type: {form} }}, body: '{body}' }} }}\n"
        ));
        let path = if name == "by-param" { "/hooks/{tenant}".to_owned() } else { format!("/{name}") };
        let url = "public_url: \"https://hooks.example.com/in\"";
        sources.push_str(&format!(
            "  {name}: {{ provider: {name}, path: \"{path}\", secret: {secret}, {url}, to: [] }}\n"
        ));
    }
    format!("providers:\n{providers}sources:\n{sources}")
}

const SECRET: &str = "a-shared-secret-of-some-length";

/// Sends as the preset `name`; what it said, and whether that was accepted.
async fn send(gateway: &Gateway, name: &str, more: &[&str]) -> (bool, String) {
    let path = if name == "by-param" { "hooks/eu" } else { name };
    let to = format!("{}/{path}", gateway.ingress);
    let config = gateway.config();
    let arguments = ["send", name, "-c", config.to_str().unwrap(), "--to", &to];
    let output = command().args(arguments).args(more).output().await.unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (output.status.success(), said)
}

/// reliability: V1, V23, V24, V26, V30.
#[tokio::test]
async fn what_send_makes_the_gateway_takes_wherever_it_stands() {
    let gateway = Gateway::start(&config()).await;
    for name in ["by-query", "by-form", "by-json", "by-url", "by-param", "by-token", "by-basic"] {
        let (accepted, said) = send(&gateway, name, &[]).await;
        assert!(accepted && said.contains("evt_"), "{name}: {said}");
        let other = if name == "by-basic" { "acme:another-password" } else { "another-secret-of-some-length" };
        let (accepted, said) = send(&gateway, name, &["--secret", other]).await;
        assert!(!accepted && said.contains("401"), "{name}: {said}");
    }
    let (accepted, said) = send(&gateway, "by-key", &["--signing-key", PRIVATE]).await;
    assert!(accepted && said.contains("evt_"), "{said}");

    let listed = gateway.get("/api/v1/events?source=by-query").await.json();
    let query = listed["items"][0]["query"].as_str().unwrap();
    assert!(query.starts_with("t=") && query.ends_with("&sig=***"), "{query}");
}

#[tokio::test]
async fn a_private_key_is_asked_for_and_its_public_half_is_said() {
    let gateway = Gateway::start(&config()).await;
    let (_, said) = send(&gateway, "by-key", &[]).await;
    assert!(said.contains("a private key that only it has") && said.contains("--signing-key"), "{said}");
    let (_, said) = send(&gateway, "by-key", &["--signing-key", "abc"]).await;
    assert!(said.contains("--signing-key is not an Ed25519 private key") && !said.contains("abc"), "{said}");

    let other = "07".repeat(32);
    let (_, said) = send(&gateway, "by-key", &["--signing-key", &other]).await;
    assert!(said.contains("is not the one to the source's public key") && !said.contains(&other), "{said}");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("signing.key");
    std::fs::write(&file, format!("{PRIVATE}\n")).unwrap();
    let (accepted, said) = send(&gateway, "by-key", &["--signing-key", &format!("@{}", file.display())]).await;
    assert!(accepted, "{said}");
}

/// reliability: V23. Whatever a request says of its host, the configured URL is the signed one.
#[tokio::test]
async fn headers_do_not_change_the_signed_url() {
    let gateway = Gateway::start(&config()).await;
    let spoofed = ["--header", "X-Forwarded-Host: evil.example", "--header", "X-Forwarded-Proto: http"];
    let (accepted, said) = send(&gateway, "by-url", &spoofed).await;
    assert!(accepted, "{said}");

    let missing = config().replace(", public_url: \"https://hooks.example.com/in\"", "");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("forebay.yaml");
    std::fs::write(&file, missing).unwrap();
    let checked = command().arg("check").arg(&file).output().await.unwrap();
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(2));
    assert!(said.contains("sources.by-url.public_url: `by-url` signs the URL that it sends to"), "{said}");
    assert_eq!(said.matches("public_url: ").count(), 2, "only where it is signed: {said}");
}
