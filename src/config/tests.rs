//! What a reader of docs/configuration.md may rely on.

mod diff;
mod encryption;
mod handshakes;
mod include;
mod keys;
mod limits;
mod lints;
mod malformed;
mod mistakes;
mod signing;

use super::*;

fn env(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some("a-secret-that-is-long-enough".to_owned()),
        "OLD_SECRET" | "NEW_SECRET" | "ACME_WEBHOOK_SECRET" => Some("another-one-that-is-long-enough".to_owned()),
        "SHORT" => Some("hunter2".to_owned()),
        "EMPTY" => Some(String::new()),
        "BLANK" => Some(" \n".to_owned()),
        "LINE" => Some("a-secret-that-is-long-enough\n".to_owned()),
        "PORT" => Some("7070".to_owned()),
        "PRIVATE" => Some("swordfish".to_owned()),
        "PRIVATE_PATH" => Some("/swordfish{".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<(Config, Vec<Problem>), Problems> {
    parse_str("forebay.yaml", text, Path::new("/nowhere"), &env)
}

/// Everything that is said of `text`, errors and warnings, a line each.
fn said(text: &str) -> String {
    let problems = match parse(text) {
        Ok((_, warnings)) => warnings,
        Err(Problems(problems)) => problems,
    };
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

fn good(text: &str) -> Config {
    match parse(text) {
        Ok((config, warnings)) if warnings.is_empty() => config,
        _ => panic!("not clean:\n{text}\n{}", said(text)),
    }
}

/// A preset, a source and a destination that are in order, to be changed by a test.
const WHOLE: &str = r#"providers:
  acme:
    verify: { hmac: { hash: sha256, signature: { header: X-Sig, encoding: hex } } }
    event: { id: json:/id }
sources:
  hooks:
    provider: acme
    secret: ${SECRET}
    to: [app]
destinations:
  app:
    url: http://127.0.0.1:3000/hooks
"#;

#[test]
fn a_config_without_options_has_the_documented_defaults() {
    let config = good(WHOLE);
    assert_eq!(config.ingress.listen[0].address.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9090");
    assert_eq!(config.journal.dir, Path::new("data"));
    let source = &config.sources[0];
    assert_eq!(source.path, "/hooks");
    assert_eq!(source.methods, ["POST"]);
    assert_eq!(source.deadline, Duration::from_secs(8));
    assert_eq!(source.dedupe.window, Duration::from_secs(72 * 3600));
    assert_eq!(source.keyring.0[0].1[0].secret.expose(), b"a-secret-that-is-long-enough");
    assert_eq!(config.destinations[0].url, "http://127.0.0.1:3000/hooks");
    assert_eq!(config.shutdown_grace, Duration::from_secs(30));
}

#[test]
fn a_source_takes_its_defaults_from_its_preset() {
    let text = WHOLE.replace(
        "    event: { id: json:/id }",
        "    methods: [PUT]
    answer: { within: 3s, respond: { status: 202, body: ok } }
    retries: { horizon: 96h }
    event: { id: json:/id, dedupe: signed }",
    );
    let source = &good(&text).sources[0];
    assert_eq!(source.methods, ["PUT"]);
    assert_eq!(source.deadline, Duration::from_millis(2400));
    assert_eq!((source.respond.status, source.respond.body.as_deref()), (202, Some("ok")));
    assert_eq!(source.dedupe.window, Duration::from_secs(96 * 3600));
    assert_eq!(source.dedupe.key, crate::provider::KeyRule::Signed);
}

#[test]
fn the_window_covers_twice_the_tolerance() {
    let signed =
        "signature: { header: X-Sig }, content: \"{header:X-Time}.{body}\", timestamp: { from: \"header:X-Time\" }";
    let text = WHOLE.replace("signature: { header: X-Sig, encoding: hex }", signed);
    let text = text.replace("    to: [app]", "    tolerance: 60h\n    to: [app]");
    assert_eq!(good(&text).sources[0].dedupe.window, Duration::from_secs(120 * 3600));
}

#[test]
fn secrets_rotate_and_go_to_their_slots() {
    let text = WHOLE.replace(
        "    secret: ${SECRET}",
        "    secrets: [\"${NEW_SECRET}\", { value: \"${OLD_SECRET}\", not_after: 2027-01-01 }]",
    );
    let keyring = good(&text).sources[0].keyring.clone();
    let [(slot, keys)] = keyring.0.as_slice() else { panic!("{keyring:?}") };
    assert_eq!((slot.as_str(), keys.len(), keys[0].not_after), ("secret", 2, None));
    assert_eq!(keys[1].not_after.unwrap().to_string(), "2027-01-01T23:59:59.999Z");

    let two = "secrets: { one: ~, two: ~ }
    verify: { all: [{ token: { header: X-One, secret: one } }, { token: { header: X-Two, secret: two } }] }";
    let verify = "verify: { hmac: { hash: sha256, signature: { header: X-Sig, encoding: hex } } }";
    let text = WHOLE.replace(verify, two);
    let text = text
        .replace("secret: ${SECRET}", "secret: { two: \"${SECRET}\", one: [\"${NEW_SECRET}\", \"${OLD_SECRET}\"] }");
    let keyring = good(&text).sources[0].keyring.clone();
    let sizes: Vec<_> = keyring.0.iter().map(|(slot, keys)| (slot.as_str(), keys.len())).collect();
    assert_eq!(sizes, [("two", 1), ("one", 2)]);
}

#[test]
fn off_false_nothing_and_absence_are_the_same() {
    let plain = format!("{:?}", good(WHOLE));
    for word in ["off", "false", "~", ""] {
        let mut text =
            WHOLE.replace("    to: [app]", &format!("    rate_limit: {word}\n    allow_ips: {word}\n    to: [app]"));
        text.push_str(&format!("    rate_limit: {word}\n    retry: {{ max_attempts: {word} }}\n"));
        text.push_str(&format!(
            "ingress: {{ health_path: {word}, tls: {word} }}\nadmin: {{ token: {word}, read_token: {word} }}\n"
        ));
        assert_eq!(format!("{:?}", good(&text)), plain, "{word}");
    }
}

#[test]
fn variables_stand_for_any_text_and_only_for_text() {
    let text = format!("ingress:\n  listen: 127.0.0.1:${{PORT}}\nshutdown_grace: ${{GRACE:-5s}}\n{WHOLE}");
    let config = good(&text);
    assert_eq!(config.ingress.listen[0].address.tcp().unwrap().port(), 7070);
    assert_eq!(config.shutdown_grace, Duration::from_secs(5));
}

#[test]
fn a_file_stands_for_a_text_without_its_last_line_break() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key"), "a-secret-that-is-long-enough\r\n").unwrap();
    std::fs::write(dir.path().join("empty"), "\n").unwrap();
    let parse = |file: &str| {
        let text = WHOLE.replace("${SECRET}", &format!("{{ file: {file} }}"));
        parse_str("forebay.yaml", &text, dir.path(), &env)
    };
    let (config, warnings) = parse("key").unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.sources[0].keyring.0[0].1[0].secret.expose(), b"a-secret-that-is-long-enough");
    for (file, why) in [("empty", "is empty"), ("missing", "there is no such file"), (".", "it is a directory")] {
        let said = parse(file).unwrap_err().to_string();
        assert!(said.starts_with("forebay.yaml:8:13: sources.hooks.secret: `/") && said.contains(why), "{said}");
    }
}

#[test]
fn certificates_are_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    let signed = rcgen::generate_simple_self_signed(vec!["hooks.example.com".to_owned()]).unwrap();
    std::fs::write(dir.path().join("chain"), signed.cert.pem()).unwrap();
    std::fs::write(dir.path().join("key"), signed.signing_key.serialize_pem()).unwrap();
    let said = |cert: &str, key: &str| {
        let text = format!("ingress: {{ tls: {{ cert: {cert}, key: {key} }} }}\n{WHOLE}");
        match parse_str("forebay.yaml", &text, dir.path(), &env) {
            Ok((config, _)) => format!(
                "{:?}",
                config.ingress.listen[0].tls.as_ref().unwrap().certificates[0].cert.strip_prefix(dir.path()).unwrap()
            ),
            Err(problems) => problems.to_string(),
        }
    };
    assert_eq!(said("chain", "key"), "\"chain\"");
    assert_eq!(
        said("key", "none"),
        "forebay.yaml:1:25: ingress.tls.cert: the file has no certificate in it; name a PEM file with the chain, leaf first\n\
         forebay.yaml:1:35: ingress.tls.key: the file cannot be used: there is no such file; name a PEM file with the private key"
    );
    assert!(
        said("chain", "chain")
            .ends_with("the file has nothing of this kind in it; name a PEM file with the private key")
    );
}

#[test]
fn whose_certificates_clients_must_show_is_looked_into_and_is_one_thing_for_a_listener() {
    let dir = tempfile::tempdir().unwrap();
    let signed = rcgen::generate_simple_self_signed(vec!["hooks.example.com".to_owned()]).unwrap();
    std::fs::write(dir.path().join("chain"), signed.cert.pem()).unwrap();
    std::fs::write(dir.path().join("key"), signed.signing_key.serialize_pem()).unwrap();
    let said = |tls: &str| {
        let text = format!("ingress: {{ tls: {tls} }}\n{WHOLE}");
        match parse_str("forebay.yaml", &text, dir.path(), &env) {
            Ok((config, _)) => format!("{:?}", config.ingress.listen[0].tls.as_ref().unwrap().client_ca.is_some()),
            Err(problems) => problems.to_string(),
        }
    };
    assert_eq!(said("{ cert: chain, key: key, client_ca: chain }"), "true");
    assert_eq!(said("{ cert: chain, key: key }"), "false");
    for (ca, why) in [("key", "there is no `BEGIN CERTIFICATE` in it"), ("none", "cannot be read")] {
        let said = said(&format!("{{ cert: chain, key: key, client_ca: {ca} }}"));
        assert!(
            said.starts_with(&format!(
                "forebay.yaml:1:53: ingress.tls.client_ca: no client can be known by this file: {why}"
            )),
            "{said}"
        );
    }
    let uneven = said("[{ cert: chain, key: key, client_ca: chain }, { cert: chain, key: key }]");
    assert!(uneven.contains("ingress.tls: `client_ca` is for the listener"), "{uneven}");
}

#[test]
fn a_certificate_and_a_key_that_do_not_belong_together_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = [0; 2].map(|_| rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap());
    std::fs::write(dir.path().join("c.pem"), one.cert.pem()).unwrap();
    std::fs::write(dir.path().join("one.pem"), one.signing_key.serialize_pem()).unwrap();
    std::fs::write(dir.path().join("two.pem"), two.signing_key.serialize_pem()).unwrap();
    let said = |key: &str| {
        let text = format!("{WHOLE}ingress: {{ tls: {{ cert: c.pem, key: {key} }} }}\n");
        parse_str("forebay.yaml", &text, dir.path(), &env).map(|_| ()).map_err(|problems| problems.to_string())
    };
    assert_eq!(said("one.pem"), Ok(()));
    let wanted = "forebay.yaml:13:17: ingress.tls: `cert` and `key` cannot be used together: the key is not the \
                  certificate's; name two that belong together";
    assert_eq!(said("two.pem"), Err(wanted.to_owned()));
}

#[test]
fn a_command_with_its_own_secret_needs_none_of_the_configs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("forebay.yaml");
    let admin = "admin: { listen: 0.0.0.0:9090, token: \"${NONE}\" }\n";
    let headers = "    headers: { set: { Authorization: \"${NONE}\" } }\n";
    let secret = |secret: &str| {
        std::fs::write(&path, format!("{}{headers}{admin}", WHOLE.replace("${SECRET}", secret))).unwrap();
        load_what_is_there(&path, &env).map_err(|problems| problems.to_string())
    };
    for absent in ["${NONE}", "{ file: nowhere }"] {
        let config = secret(absent).unwrap();
        assert_eq!(config.sources[0].path, "/hooks");
        assert!(config.sources[0].keyring.0.iter().all(|(_, keys)| keys.is_empty()), "nothing stands for the secret");
        assert!(load(&path, &env).is_err(), "serve needs it");
    }
    assert!(secret("${EMPTY}").unwrap_err().contains("is empty"), "what is wrong is still said");
}

#[test]
fn presets_come_from_a_directory_too() {
    let dir = tempfile::tempdir().unwrap();
    let presets = dir.path().join("presets");
    std::fs::create_dir(&presets).unwrap();
    std::fs::write(presets.join("acme.yaml"), "verify: { token: { header: X-Token } }\n").unwrap();
    std::fs::write(presets.join("notes.txt"), "not a preset").unwrap();
    let text = "providers: { dir: presets }\nsources: { hooks: { provider: acme, secret: \"${SECRET}\", to: [] } }\n";
    let (config, warnings) = parse_str("forebay.yaml", text, dir.path(), &env).unwrap();
    assert_eq!((config.sources[0].preset.name.as_str(), warnings.len()), ("acme", 0));

    std::fs::write(presets.join("acme.yaml"), "verify: { token: { haeder: X-Token } }\n").unwrap();
    let said = parse_str("forebay.yaml", text, dir.path(), &env).unwrap_err().to_string();
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("acme.yaml:1:20: verify.token.haeder: unknown key; did you mean `header`?"), "{said}");
}

#[test]
fn nothing_that_came_from_outside_is_printed() {
    let lines = ["listen", "health_path", "tls"].map(|key| format!("ingress: {{ {key}: \"${{PRIVATE}}\" }}\n"));
    let mut texts: Vec<String> = lines.into_iter().map(|line| format!("{line}{WHOLE}")).collect();
    for key in
        ["path", "host", "provider", "tolerance", "mode", "body_limit", "rate_limit", "dedupe", "respond", "secrets"]
    {
        texts.push(WHOLE.replace("    to: [app]", &format!("    {key}: ${{PRIVATE}}\n    to: [app]")));
    }
    for item in ["${PRIVATE}", "{ destination: \"${PRIVATE}\" }", "{ file: \"${PRIVATE}\" }x"] {
        texts.push(WHOLE.replace("to: [app]", &format!("to: [\"{item}\"]")));
    }
    for key in ["url", "timeout", "concurrency", "retry", "headers", "breaker"] {
        texts.push(WHOLE.replace("    url: http://127.0.0.1:3000/hooks", &format!("    {key}: ${{PRIVATE}}")));
    }
    for path in ["${PRIVATE_PATH}", "/${PRIVATE}/{*x}/y", "/${PRIVATE}/{x}-{y}"] {
        texts.push(WHOLE.replace("    to: [app]", &format!("    path: {path}\n    to: [app]")));
    }
    texts.push(WHOLE.replace("secret: ${SECRET}", "secret: { file: \"${PRIVATE_PATH}\" }"));
    texts.push(WHOLE.replace("providers:", "providers:\n  dir: ${PRIVATE_PATH}"));
    texts.push(format!("ingress: {{ tls: {{ cert: \"${{PRIVATE}}\", key: \"${{PRIVATE}}\" }} }}\n{WHOLE}"));
    for text in texts {
        let said = said(&text);
        assert!(!said.contains("swordfish"), "{said}");
    }
    assert!(!format!("{:?}", parse(&WHOLE.replace("${SECRET}", "swordfish"))).contains("swordfish"));
}

#[test]
fn the_example_is_clean_and_what_it_comments_out_is_accepted() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/forebay.yaml"));
    let long = |_: &str| Some("a-secret-that-is-long-enough".to_owned());
    match load(path, &long) {
        Ok((_, warnings)) => assert_eq!(warnings, []),
        Err(problems) => panic!("{problems}"),
    }
    let text = std::fs::read_to_string(path).unwrap();
    let keep_out = ["tls:", "encryption_key:", "secrets:", "dir: providers"];
    let everything: String = text
        .lines()
        .map(|line| match line.split_once("# ") {
            Some((indent, rest))
                if indent.trim().is_empty() && !keep_out.iter().any(|key| rest.trim_start().starts_with(key)) =>
            {
                let is_key = rest.trim_start().split([':', ' ']).next().is_some_and(|word| {
                    rest.contains(':') && !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                });
                if is_key { format!("{indent}{rest}\n") } else { "\n".to_owned() }
            }
            _ => format!("{line}\n"),
        })
        .collect();
    if let Err(problems) = parse_str("forebay.yaml", &everything, Path::new("/nowhere"), &long) {
        panic!("{everything}\n{problems}");
    }
}
