//! Texts that are no config at all: each gets a located problem, none a panic.

use proptest::prelude::*;

use super::*;

fn bomb() -> String {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    text
}

#[test]
fn a_text_that_is_not_a_config_is_a_problem_and_no_panic() {
    let deep: String = (0..10_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let texts = [
        "a:\n\tb: 1\n".to_owned(),
        "ingress:\n  limits:\n\t  headers: 3\n".to_owned(),
        "a: 'x\n".to_owned(),
        "a: \"\\q\"\n".to_owned(),
        "a: [1, 2\n".to_owned(),
        "a: {b: 1\nc: 2\n".to_owned(),
        "a: }\n".to_owned(),
        "a: b: c\n".to_owned(),
        "- a\nb: 1\n".to_owned(),
        "a: @x\n".to_owned(),
        "a: `x`\n".to_owned(),
        "a: %x\n".to_owned(),
        "a: *nope\n".to_owned(),
        "a: &a [*a]\n".to_owned(),
        "a: !custom x\n".to_owned(),
        "a: !!int x\n".to_owned(),
        "a: 1\n---\nb: 2\n".to_owned(),
        "a: 1\n...\nb: 2\n".to_owned(),
        "? [a, b]\n: c\n".to_owned(),
        "{{}}: x\n".to_owned(),
        "a: 1\nb: 2\na: 3\n".to_owned(),
        "sources: { a: {}, a: {} }\n".to_owned(),
        "<<: 3\n".to_owned(),
        "a: |1\n x\n\ty\n".to_owned(),
        "\u{0}\u{0}\u{0}".to_owned(),
        "a: \u{1}\n".to_owned(),
        "\u{feff}\u{feff}a: 1\n".to_owned(),
        "\u{202e}: x\n".to_owned(),
        "just a text".to_owned(),
        "- a\n- list\n".to_owned(),
        "a".repeat(100_000),
        "[".repeat(10_000),
        "{a: ".repeat(10_000),
        "- ".repeat(10_000),
        "? ".repeat(10_000),
        "a: ".repeat(10_000),
        "&a ".repeat(10_000),
        deep,
        bomb(),
        (0..100_000).map(|index| format!("k{index}: x\n")).collect(),
    ];
    for text in texts {
        let shown = text.get(..60.min(text.len())).unwrap_or_default();
        let Problems(problems) = parse(&text).map(|_| ()).expect_err(shown);
        assert!(
            !problems.is_empty() && problems.iter().all(|problem| problem.place.line > 0),
            "{shown:?}: {problems:?}"
        );
    }
}

#[test]
fn the_usual_slips_get_their_cure() {
    let check = |text: &str, wanted: &str| assert_eq!(said(text), format!("forebay.yaml:{wanted}\n"));
    check("a:\n\tb: 1\n", "2:2: YAML is indented by spaces; replace the tab");
    let twice = said("log: {}\nlog: { level: loud }\n");
    assert!(twice.contains("forebay.yaml:2:1: `log` is already set on line 1; keep one of them\n"), "{twice}");
    check(
        "admin: { token: ${X} }\n",
        "1:18: this is not YAML; inside `{…}` or `[…]`, quote what has braces in it: \"${VAR}\"",
    );
    check("log: {}\n---\nlog: {}\n", "2:1: a second document begins here; keep one in a file");
    let deep = format!("a: {}{}\n", "[".repeat(40), "]".repeat(40));
    for text in [bomb(), deep] {
        let said = said(&text);
        assert!(said.contains("make it smaller") && !said.contains("breach"), "{said}");
    }
    check("[log]\n", "1:1: a list stands here; write a mapping, `key: value`");
}

#[test]
fn a_tag_that_is_a_slipped_secret_is_not_printed() {
    for value in [
        "!hunter2",
        "!hunter2 x",
        "@hunter2",
        "%hunter2",
        "`hunter2",
        "*hunter2",
        "'hunter2",
        "\"hunter2",
        "hunter2: x: y",
    ] {
        let said = said(&format!("admin:\n  token: {value}\n"));
        assert!(said.starts_with("forebay.yaml:2:") && !said.contains("hunter2"), "{value}: {said}");
    }
}

#[test]
fn a_file_that_is_not_text_or_not_there_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("forebay.yaml");
    let said = |path: &Path| load(path, &env).unwrap_err().to_string();
    assert!(said(&path).ends_with("forebay.yaml: the config cannot be read: there is no such file"));
    std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    assert!(
        said(&path).ends_with("forebay.yaml:1:1: the config cannot be read: it is not UTF-8 text; save it as UTF-8")
    );
    std::fs::write(&path, b"log: {}\n# caf\xe9\n").unwrap();
    assert!(
        said(&path).ends_with("forebay.yaml:2:6: the config cannot be read: it is not UTF-8 text; save it as UTF-8")
    );
    assert!(said(dir.path()).ends_with("it is a directory"));
    std::fs::write(&path, "#".repeat(5 << 20)).unwrap();
    assert!(said(&path).ends_with("it is larger than 4MiB"));
}

/// A read of any of them would never end.
#[test]
fn a_pipe_or_a_device_is_no_file_of_a_config() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("forebay.yaml");
    let pipe = dir.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let pair = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    std::fs::write(dir.path().join("c.pem"), pair.cert.pem()).unwrap();
    std::fs::write(dir.path().join("k.pem"), pair.signing_key.serialize_pem()).unwrap();
    for odd in ["pipe", "/dev/zero"] {
        for text in [
            format!("admin: {{ token: {{ file: {odd} }} }}"),
            format!("include: {odd}"),
            format!("ingress: {{ tls: {{ cert: {odd}, key: k.pem }} }}"),
            format!("ingress: {{ tls: {{ cert: c.pem, key: {odd} }} }}"),
            format!("ingress: {{ tls: {{ cert: c.pem, key: k.pem, client_ca: {odd} }} }}"),
        ] {
            std::fs::write(&path, &text).unwrap();
            let said = load(&path, &env).unwrap_err().to_string();
            assert!(said.contains("it is a pipe or a device"), "{text}: {said}");
        }
    }
    std::fs::write(dir.path().join("big.pem"), "x".repeat(5 << 20)).unwrap();
    std::fs::write(&path, "ingress: { tls: { cert: big.pem, key: k.pem } }").unwrap();
    let said = load(&path, &env).unwrap_err().to_string();
    assert!(said.contains("it is larger than 4MiB"), "{said}");
    assert!(load(&pipe, &env).unwrap_err().to_string().contains("the file is empty"));
}

#[test]
fn an_empty_file_is_a_mistake_and_an_empty_mapping_a_config_of_defaults() {
    for text in ["", "# nothing\n", "---\n", "~\n"] {
        let wanted = "forebay.yaml:1:1: the file is empty; `forebay init` writes a first one, and `{}` stands for nothing but defaults\n";
        assert_eq!(said(text), wanted, "{text:?}");
    }
    for text in ["{}\n", "ingress:\nsources:\n"] {
        let (config, warnings) = parse(text).unwrap();
        assert_eq!(warnings.len(), 1, "that it takes no webhook: {warnings:?}");
        assert!(config.sources.is_empty() && config.destinations.is_empty());
    }
}

/// A sound config, a piece of it replaced by something else.
fn damaged() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[\\[\\]{}:,&*!|>'\"%@`#?~${} \t\n-]{0,6}",
        "\\PC{0,8}",
        Just("<<: *a".to_owned()),
        Just("${".to_owned()),
        Just("{ file: / }".to_owned()),
    ];
    (any::<prop::sample::Index>(), 0..40_usize, piece).prop_map(|(at, length, piece)| {
        let chars: Vec<char> = WHOLE.chars().collect();
        let start = at.index(chars.len());
        let end = (start + length).min(chars.len());
        chars[..start].iter().copied().chain(piece.chars()).chain(chars[end..].iter().copied()).collect()
    })
}

proptest! {
    #[test]
    fn a_damaged_config_is_parsed_or_refused_with_a_place(text in damaged()) {
        if let Err(Problems(problems)) = parse(&text) {
            prop_assert!(problems.iter().any(|problem| problem.severity == Severity::Error), "{text}");
            for problem in problems {
                prop_assert!(problem.place.line > 0, "{}: {problem}", text);
                prop_assert!(!render(&problem, Some(&text)).is_empty());
            }
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,60}(\n\\PC{0,20}){0,3}") {
        if let Err(Problems(problems)) = parse(&text) {
            prop_assert!(!problems.is_empty());
        }
    }
}
