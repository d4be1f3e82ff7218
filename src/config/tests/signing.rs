//! What a preset's checks and a source's secrets can get wrong beside each other.

use super::*;

/// What is said of a preset with `preset` in it, whose source has `source`.
fn said_of(preset: &str, source: &str) -> String {
    let text = format!(
        "providers: {{ acme: {{ {preset} }} }}\nsources: {{ hooks: {{ provider: acme, to: [], {source} }} }}\n"
    );
    said(&text)
}

const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
const SHARED: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
const ED25519: &str = "verify: { ed25519: { signature: { header: X-Sig } } }";

/// One check of each kind of key, either of which may be left out.
const EITHER: &str = "secrets: { secret: { optional: true }, public_key: { hint: there, optional: true } }, verify: { any: [ \
    { hmac: { hash: sha256, secret: secret, key: { strip: whsec_, encoding: base64 }, signature: { header: X-Sig } } }, \
    { ed25519: { secret: public_key, key: { strip: whpk_, encoding: base64 }, signature: { header: X-Ed } } } ] }";

/// reliability: V2, V10.
#[test]
fn a_key_of_another_kind_or_length_is_refused() {
    let secret = |text: &str| said_of(ED25519, &format!("secret: \"{text}\""));
    assert_eq!(secret(KEY), "");
    for (text, why) in [
        (&KEY[2..], "not an Ed25519 public key, which has 32 bytes"),
        (&KEY[1..], "not hex"),
        (&"0".repeat(64), "a key that no signer has"),
        (SHARED, "a shared secret (`whsec_…`), and the sender's public key belongs here"),
        ("whsk_6Xb", "a private key (`whsk_…`), which only the sender has"),
        ("", "the secret of source `hooks` is empty"),
    ] {
        let said = secret(text);
        assert!(said.contains(why), "{text}: {said}");
        assert!(text.is_empty() || !said.contains(text), "quoted: {said}");
    }
    let either = |text: &str| said_of(EITHER, text);
    assert_eq!(either(&format!("secret: {SHARED}")), "", "of several optional ones the first");
    assert_eq!(either(&format!("secret: {{ public_key: \"{PUBLIC}\" }}")), "");
    assert_eq!(either(&format!("secret: {{ secret: {SHARED}, public_key: \"{PUBLIC}\" }}")), "");
    assert!(either(&format!("secret: \"{PUBLIC}\"")).contains("a public key (`whpk_…`), and a shared secret"));
    assert!(either(&format!("secret: {{ public_key: {SHARED} }}")).contains("a shared secret (`whsec_…`)"));
}

#[test]
fn of_optional_secrets_one_is_needed_and_a_required_one_always() {
    let none = said_of(EITHER, "secret: {}");
    assert!(none.contains("no secret to check anything by; write one of `secret`, `public_key`"), "{none}");
    assert!(
        said_of(EITHER, "body_limit: 1KiB").contains("source `hooks` has no secret; write `secret: ${HOOKS_SECRET}`")
    );

    let one = "secrets: { other: { optional: true }, main: ~ }, verify: { any: [{ token: { header: A, secret: other } }, \
        { token: { header: B, secret: main } }] }";
    assert_eq!(said_of(one, "secret: a-secret-of-some-length"), "", "it is the only required one");
    assert_eq!(said_of(one, "secret: { main: a-secret-of-some-length }"), "");
    let missing = said_of(one, "secret: { other: a-secret-of-some-length }");
    assert!(missing.contains("source `hooks` has no `main`"), "{missing}");
}

#[test]
fn basic_authentication_takes_a_name_and_a_password() {
    let both = "secrets: { username: ~, password: ~ }, verify: { basic: { username: username, password: password } }";
    assert_eq!(said_of(both, "secret: { username: me, password: a-secret-of-some-length }"), "", "a name may be short");
    assert!(said_of(both, "secret: { username: me, password: short }").contains("shorter than 16 bytes"));
    let colon = said_of(both, "secret: { username: \"a:b\", password: a-secret-of-some-length }");
    assert!(colon.contains("a name with a colon in it"), "{colon}");
    assert!(said_of(both, "secret: a-secret-of-some-length").contains("`acme` needs 2 secrets"));
    assert_eq!(said_of("verify: { basic: {} }", "secret: a-secret-of-some-length"), "", "any name");
    let same = said_of("verify: { basic: { username: secret, password: secret } }", "secret: a-secret-of-some-length");
    assert!(same.contains("are the same secret"), "{same}");
}

#[test]
fn a_signed_url_needs_a_public_one() {
    let signs = "verify: { hmac: { hash: sha1, signature: { header: X-Sig }, content: \"{url}{body}\" } }";
    let secret = "secret: a-secret-of-some-length";
    let missing = said_of(signs, secret);
    assert!(missing.contains("sources.hooks.public_url: `acme` signs the URL that it sends to"), "{missing}");
    assert_eq!(said_of(signs, &format!("{secret}, public_url: \"https://hooks.example.com\"")), "");
    let bad = said_of(signs, &format!("{secret}, public_url: hooks.example.com"));
    assert_eq!(bad.lines().count(), 1, "{bad}");
    assert!(bad.contains("does not begin with `https://`"), "{bad}");

    let text = format!(
        "ingress: {{ public_url: \"https://all.example.com/in/\" }}\nproviders: {{ acme: {{ {signs} }} }}\nsources:\n  \
         one: {{ provider: acme, to: [], {secret} }}\n  \
         two: {{ provider: acme, to: [], {secret}, public_url: \"https://two.example.com\" }}\n"
    );
    let config = parse_str("forebay.yaml", &text, Path::new(""), &env).unwrap().0;
    let urls: Vec<_> = config.sources.iter().map(|source| source.public_url.as_deref()).collect();
    assert_eq!(urls, [Some("https://all.example.com/in"), Some("https://two.example.com")]);
}

#[test]
fn what_could_never_verify_or_proves_nothing_is_refused() {
    for (check, why) in [
        ("signature: { from: query:sig }, content: \"{query}{body}\"", "covers `query:sig`"),
        ("signature: { from: query:sig }, content: \"{url}\"", "covers `query:sig`"),
        ("signature: { from: form:sig }", "covers `form:sig`"),
        ("signature: { from: json:/sig }, content: \"{json:/id}{body}\"", "covers `json:/sig`"),
        ("signature: { header: X-Sig }, content: \"{header:x-sig}{body}\"", "covers `header:x-sig`"),
        ("signature: { header: X-Sig, from: query:sig }", "`from` and `header` both stand here"),
        ("signature: { encoding: hex }", "nothing says where it stands"),
        ("signature: { from: \"json:/a/*/b\" }", "is every item of an array"),
        ("signature: { header: X-Sig }, timestamp: { from: query:t }", "`content` does not sign this time"),
        ("signature: { header: X-Sig }, timestamp: { from: body }", "is not a place for a time"),
    ] {
        let said =
            said_of(&format!("verify: {{ hmac: {{ hash: sha256, {check} }} }}"), "secret: a-secret-of-some-length");
        assert!(said.contains(why), "{check}: {said}");
    }
    for check in [
        "signature: { from: query:sig }",
        "signature: { from: form:sig }, content: \"{form:a}{form:b}\"",
        "signature: { header: X-Sig }, timestamp: { from: json:/t, unit: ms }",
        "signature: { header: X-Sig }, content: \"{body}{query}\", timestamp: { from: query:t }",
    ] {
        let said =
            said_of(&format!("verify: {{ hmac: {{ hash: sha256, {check} }} }}"), "secret: a-secret-of-some-length");
        assert!(said.lines().all(|line| line.contains("does not sign the `{body}`")), "{check}: {said}");
    }
    let utf8 = said_of("verify: { ed25519: { key: utf8, signature: { header: X } } }", &format!("secret: {KEY}"));
    assert!(utf8.contains("is not one of the words here") || utf8.contains("a public key is bytes"), "{utf8}");
}
