//! What is told of two configs, and what is not.

use super::*;

fn config(text: &str) -> Config {
    match parse(text) {
        Ok((config, _)) => config,
        Err(problems) => panic!("{text}\n{problems}"),
    }
}

/// What is told where `new` takes the place of `old`, a line each.
#[track_caller]
fn check(old: &str, new: &str, wanted: &str) {
    let told: String = config(old).diff(&config(new)).iter().map(|change| format!("{change}\n")).collect();
    assert_eq!(told, wanted, "\n{old}\n{new}");
}

fn changed(from: &str, to: &str) -> String {
    assert!(WHOLE.contains(from));
    WHOLE.replace(from, to)
}

#[test]
fn what_comes_and_goes_and_changes_is_told_by_section_name_and_key() {
    let old = format!("{WHOLE}    timeout: 30s\n    retry: {{ max: 5m }}\ningress: {{ limits: {{ headers: 50 }} }}\n");
    let new = "shutdown_grace: 10s
ingress: { listen: 127.0.0.1:8081 }
providers:
  acme:
    verify: { hmac: { hash: sha512, signature: { header: X-Sig } } }
    event: { id: json:/id }
sources:
  hooks: { provider: acme, secret: \"${SECRET}\", host: x.example.com, rate_limit: 10/s, to: [app, { destination: db, path: /x }] }
  more: { verify: none, to: [] }
destinations:
  app: { url: http://127.0.0.1:3001/hooks, timeout: 10s, concurrency: 32 }
  db: { url: http://127.0.0.1:3000/ }
";
    check(
        &old,
        new,
        "\
~ ingress: limits.headers 50 -> 100
~ ingress: listen 127.0.0.1:8080 -> 127.0.0.1:8081
~ provider acme: verify.hmac.hash sha256 -> sha512
~ source hooks: host unset -> x.example.com
~ source hooks: rate_limit off -> 10/s
~ source hooks: to [app] -> [app, { destination: db, path: /x }]
+ source more
~ destination app: retry.max 5m -> 10m
~ destination app: timeout 30s -> 10s
~ destination app: url http://127.0.0.1:3000/hooks -> http://127.0.0.1:3001/hooks
+ destination db
~ shutdown_grace: 30s -> 10s
",
    );
    let gone = config(new).diff(&config(&old));
    assert!(gone.iter().any(|change| change.to_string() == "- source more"));
    let json = serde_json::to_value(&gone).unwrap();
    assert!(json.as_array().unwrap().contains(&serde_json::json!({
        "change": "changed", "section": "destination", "name": "app", "key": "timeout", "from": "10s", "to": "30s",
    })));
}

#[test]
fn the_same_in_other_words_is_no_change() {
    for (from, to) in [
        ("    to: [app]", "    to: [ app ] # as ever"),
        ("    to: [app]", "    rate_limit: off\n    allow_ips: ~\n    host:\n    mode: store\n    to: [app]"),
        ("    to: [app]", "    body_limit: 1024KiB\n    to: [app]"),
        ("/hooks\n", "/hooks\n    timeout: 30000ms\n    retry: { max: 600s, give_up_on: [410] }\n"),
        ("providers:", "ingress: { listen: [127.0.0.1:8080] }\nlog: { format: auto }\nproviders:"),
        ("${SECRET}", "a-secret-that-is-long-enough"),
    ] {
        check(WHOLE, &changed(from, to), "");
        check(&changed(from, to), WHOLE, "");
    }
}

#[test]
fn a_secret_is_told_to_have_changed_and_no_more() {
    let header = |value: &str| format!("{WHOLE}    headers: {{ set: {{ Authorization: \"{value}\" }} }}\n");
    let secret = |value: &str| changed("secret: ${SECRET}", value);
    for (old, new, wanted) in [
        (WHOLE.to_owned(), secret("secret: ${NEW_SECRET}"), "~ source hooks: secret changed\n"),
        (WHOLE.to_owned(), secret("secret: swordfish-swordfish"), "~ source hooks: secret changed\n"),
        (header("swordfish"), header("swordfish2"), "~ destination app: headers.set.Authorization changed\n"),
        (WHOLE.to_owned(), header("swordfish"), "~ destination app: headers.set.Authorization unset -> ***\n"),
        (
            format!("{WHOLE}admin: {{ token: swordfish-swordfish }}\n"),
            format!("{WHOLE}admin: {{ token: swordfish-swordfish-2 }}\n"),
            "~ admin: token changed\n",
        ),
        (
            secret("secret: { secret: [swordfish-swordfish, \"${SECRET}\"] }"),
            secret("secret: { secret: [\"${SECRET}\", swordfish-swordfish] }"),
            "~ source hooks: secret.secret changed\n",
        ),
        (
            secret("secrets: [\"${SECRET}\"]"),
            secret("secrets: [\"${SECRET}\", { value: swordfish-swordfish, not_after: 2099-01-01 }]"),
            "~ source hooks: secrets [***] -> [***, { value: ***, not_after: 2099-01-01 }]\n",
        ),
        (
            changed("http://127.0.0.1:3000/hooks", "http://127.0.0.1:3000/${PRIVATE}"),
            changed("http://127.0.0.1:3000/hooks", "http://127.0.0.1:3000/${PRIVATE}2"),
            "~ destination app: url changed\n",
        ),
    ] {
        check(&old, &new, wanted);
        assert!(!format!("{:?}", config(&new).diff(&config(&old))).contains("swordfish"));
    }
    assert!(!format!("{:?}", config(&header("swordfish"))).contains("swordfish"));
}

#[test]
fn a_file_that_says_something_else_is_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let pair = || {
        let signed = rcgen::generate_simple_self_signed(vec!["hooks.example.com".to_owned()]).unwrap();
        write("a.crt", &signed.cert.pem());
        write("a.key", &signed.signing_key.serialize_pem());
    };
    std::fs::create_dir(dir.path().join("presets")).unwrap();
    write("presets/own.yaml", "verify: { token: { header: X-Token } }\n");
    write("token", "a-token-that-is-long-enough\n");
    write("more.yaml", "sources: { a: { provider: own, secret: \"${SECRET}\", to: [app] } }\n");
    write(
        "forebay.yaml",
        "include: [more.yaml]\nproviders: { dir: presets }\nadmin: { token: { file: token } }\n\
         ingress: { tls: { cert: a.crt, key: a.key } }\ndestinations: { app: { url: http://127.0.0.1:3000/ } }\n",
    );
    pair();
    let read = || load(&dir.path().join("forebay.yaml"), &env).unwrap().0;
    let told = |old: &Config| read().diff(old).iter().map(|change| format!("{change}\n")).collect::<String>();
    let old = read();
    assert_eq!(told(&old), "");
    pair();
    write("token", "another-token-that-is-long-enough\n");
    write("presets/own.yaml", "verify: { token: { header: X-Other } }\n");
    assert_eq!(
        told(&old),
        "~ ingress: tls.cert changed\n~ ingress: tls.key changed\n~ admin: token changed\n~ provider: dir changed\n"
    );
    let old = read();
    write(
        "forebay.yaml",
        "include: [m*.yaml]\nproviders: { dir: presets }\nadmin: { token: { file: token } }\n\
         ingress: { tls: { cert: a.crt, key: a.key } }\ndestinations: { app: { url: http://127.0.0.1:3000/ } }\n",
    );
    assert_eq!(told(&old), "", "where a source stands makes no difference");
}

#[test]
fn of_a_url_the_query_is_not_shown() {
    let url = "http://127.0.0.1:3000/hooks";
    let with = |query: &str| changed(url, &format!("\"{url}{query}\""));
    check(&with("?key=hunter2"), &with("?key=hunter3"), "~ destination app: url changed\n");
    check(&with(""), &with("?key=hunter3"), &format!("~ destination app: url {url} -> {url}?***\n"));
}
