//! Several files are one config, and each is complained of by its own name.

use super::*;

const DESTINATION: &str = "destinations: { app: { url: http://127.0.0.1:3000/ } }\n";
const PROVIDER: &str = "providers: { own: { verify: { token: { header: X-Token } } } }\n";

fn source(name: &str) -> String {
    format!("sources:\n  {name}: {{ provider: own, secret: \"${{SECRET}}\", to: [app] }}\n")
}

/// A directory with these files, the first of them `forebay.yaml`.
fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

/// The names of the sources and what is said, places from the directory on.
fn read_in(dir: &Path) -> (Vec<String>, String) {
    let reading = read(&dir.join("forebay.yaml"), &env);
    let (names, problems) = match reading.outcome {
        Ok((config, warnings)) => (config.sources.iter().map(|source| source.name.to_string()).collect(), warnings),
        Err(Problems(problems)) => (Vec::new(), problems),
    };
    let said: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
    (names, said.replace(&format!("{}/", dir.display()), ""))
}

#[track_caller]
fn check(files: &[(&str, &str)], names: &[&str], said: &str) {
    let dir = dir(files);
    assert_eq!(read_in(dir.path()), (names.iter().map(|name| (*name).to_owned()).collect(), said.to_owned()));
}

#[test]
fn included_files_are_part_of_the_config() {
    let main = format!("include: [conf.d/*.yaml, more/s.yaml]\n{}{PROVIDER}", source("one"));
    let own = "providers: { acme: { verify: { token: { header: X-Token } } } }\n\
               sources: { acme: { provider: acme, secret: { file: key }, to: [app] } }\n";
    let files = [
        ("forebay.yaml", main.as_str()),
        ("conf.d/b.yaml", &source("three")),
        ("conf.d/a.yaml", &source("two")),
        ("conf.d/.hidden.yaml", "nonsense: ["),
        ("conf.d/notes.txt", "nonsense: ["),
        ("conf.d/z.yaml", DESTINATION),
        ("conf.d/dir.yaml/x", ""),
        ("more/s.yaml", own),
        ("more/key", "a-secret-that-is-long-enough\n"),
    ];
    check(&files, &["one", "two", "three", "acme"], "");
}

#[test]
fn what_an_included_file_gets_wrong_is_said_in_its_own_name() {
    let main = format!("include: conf.d/*.yaml\n{}{DESTINATION}{PROVIDER}", source("one"));
    let included = "\
admin: { listen: 127.0.0.1:1 }
sources:
  one: { verify: none, to: [] }
  two: { provider: onw, path: two, secret: { file: nowhere }, to: [ap] }
soruces: {}
colour: red
include: [x.yaml]
alerts: {}
";
    check(
        &[("forebay.yaml", main.as_str()), ("conf.d/a.yaml", included), ("conf.d/b.yaml", "- x\n"), ("conf.d/c.yaml", "a: [\n")],
        &[],
        "\
conf.d/c.yaml:1:4: this is not YAML: unclosed bracket '['; close it
conf.d/a.yaml:1:1: admin: cannot stand in an included file; move it to forebay.yaml
conf.d/a.yaml:3:3: sources.one: there is another source `one` at forebay.yaml:3:3; give one of them another name
conf.d/a.yaml:4:20: sources.two.provider: there is no provider `onw`; did you mean `own`?
conf.d/a.yaml:4:31: sources.two.path: `two` does not begin with `/`; write `/two`
conf.d/a.yaml:4:44: sources.two.secret: `conf.d/nowhere` cannot be used: there is no such file; name a file that can be read
conf.d/a.yaml:4:68: sources.two.to[0]: there is no destination `ap`; did you mean `app`?
conf.d/a.yaml:5:1: soruces: unknown key; did you mean `sources`?
conf.d/a.yaml:6:1: colour: unknown key; an included file has `sources`, `destinations` and `providers`
conf.d/a.yaml:7:1: include: an included file includes no others; name them all in forebay.yaml
conf.d/a.yaml:8:1: alerts: cannot stand in an included file; move it to forebay.yaml
conf.d/b.yaml:1:1: no mapping stands here; write `sources:`, `destinations:` or `providers:`
",
    );
}

#[test]
fn what_cannot_be_included_is_said_where_it_is_named() {
    let main = format!(
        "include: [none.yaml, \"no*.yaml\", nodir/*.yaml, \"*/a.yaml\", \"a[.yaml\", .., .]\n{}{DESTINATION}{PROVIDER}",
        source("one")
    );
    check(
        &[("forebay.yaml", main.as_str())],
        &[],
        "\
forebay.yaml:1:11: include[0]: `none.yaml` cannot be used: there is no such file; name a file that can be read
forebay.yaml:1:22: warning: include[1]: no file is like `no*.yaml`; put one there, or take this out
forebay.yaml:1:34: warning: include[2]: no file is like `nodir/*.yaml`; put one there, or take this out
forebay.yaml:1:48: include[3]: `*`, `?` and `[…]` can stand in the file's name only; write out the directories
forebay.yaml:1:60: include[4]: not a pattern: invalid range pattern; close `[` by `]`, and write `[[]` for the character
forebay.yaml:1:71: include[5]: no file; write one like `conf.d/acme.yaml`, or `conf.d/*.yaml`
forebay.yaml:1:75: include[6]: no file; write one like `conf.d/acme.yaml`, or `conf.d/*.yaml`
",
    );
    let main = format!("include: [\"*.yaml\", forebay.yaml]\n{}{DESTINATION}{PROVIDER}", source("one"));
    check(
        &[("forebay.yaml", main.as_str()), ("a.yaml", "# nothing yet\n")],
        &["one"],
        "a.yaml:1:1: warning: an empty file; write `sources`, `destinations` or `providers` in it, or take it out\n",
    );
}

#[test]
fn two_files_that_take_the_same_requests_are_both_said() {
    let main = format!("include: [b.yaml]\nsources: {{ one: {{ path: /a, verify: none, to: [] }} }}\n{DESTINATION}");
    let (_, said) = read_in(
        dir(&[
            ("forebay.yaml", main.as_str()),
            ("b.yaml", "sources: { two: { path: /a, verify: none, to: [app] } }\n"),
        ])
        .path(),
    );
    let wanted = "b.yaml:1:25: sources.two.path: takes the same requests as source `one` (forebay.yaml:2:25); give one";
    assert!(said.contains(wanted), "{said}");
}

#[test]
fn every_file_that_was_read_is_known_also_where_the_config_is_refused() {
    let signed = rcgen::generate_simple_self_signed(vec!["hooks.example.com".to_owned()]).unwrap();
    let main = format!(
        "include: [conf.d/*.yaml, gone.yaml]\ningress: {{ tls: {{ cert: tls/a.crt, key: tls/a.key }} }}\n\
         providers: {{ dir: presets }}\nadmin: {{ token: {{ file: token }} }}\n{DESTINATION}"
    );
    let dir = dir(&[
        ("forebay.yaml", main.as_str()),
        ("conf.d/a.yaml", "sources: { a: { provider: acme, secret: { file: ../key }, to: [app] } }\n"),
        ("tls/a.crt", &signed.cert.pem()),
        ("tls/a.key", &signed.signing_key.serialize_pem()),
        ("presets/acme.yaml", "verify: { token: { header: X-Token } }\n"),
        ("key", "a-secret-that-is-long-enough\n"),
        ("token", "a-token-that-is-long-enough\n"),
        ("gone.yaml", "sources: {}\n"),
    ]);
    let files = [
        "conf.d",
        "conf.d/../key",
        "conf.d/a.yaml",
        "forebay.yaml",
        "gone.yaml",
        "presets",
        "presets/acme.yaml",
        "tls/a.crt",
        "tls/a.key",
        "token",
    ];
    let known = || {
        let reading = read(&dir.path().join("forebay.yaml"), &env);
        let files: Vec<String> = reading.files.iter().map(|file| file.display().to_string()).collect();
        let below = format!("{}/", dir.path().display());
        (reading.outcome.is_ok(), files.iter().map(|file| file.replace(&below, "")).collect::<Vec<_>>())
    };
    assert_eq!(known(), (true, files.map(str::to_owned).to_vec()));
    for file in ["gone.yaml", "tls/a.key", "token", "key"] {
        let text = std::fs::read(dir.path().join(file)).unwrap();
        std::fs::remove_file(dir.path().join(file)).unwrap();
        assert_eq!(known(), (false, files.map(str::to_owned).to_vec()), "without {file}");
        std::fs::write(dir.path().join(file), text).unwrap();
    }
    std::fs::write(dir.path().join("forebay.yaml"), "include: [\n").unwrap();
    assert_eq!(known(), (false, vec!["forebay.yaml".to_owned()]));
}

#[test]
fn the_configs_own_presets_are_found_in_included_files() {
    let own = "providers: { acme: { verify: { token: { header: X-Token } } } }\n";
    let dir = dir(&[("forebay.yaml", "include: [a.yaml]\n"), ("a.yaml", own)]);
    let presets = presets::own(&dir.path().join("forebay.yaml"), &env).unwrap();
    assert_eq!(presets.iter().map(|preset| preset.name.as_str()).collect::<Vec<_>>(), ["acme"]);
}

#[test]
fn there_is_an_end_to_what_is_included() {
    let dir = dir(&[("forebay.yaml", "include: [conf.d/*]\n")]);
    std::fs::create_dir(dir.path().join("conf.d")).unwrap();
    for index in 0..1_001 {
        std::fs::write(dir.path().join(format!("conf.d/{index}.yaml")), "sources: {}\n").unwrap();
    }
    let (_, said) = read_in(dir.path());
    assert!(said.contains("forebay.yaml:1:11: include[0]: more than 1000 files are included; include fewer"), "{said}");
    for index in 0..1_001 {
        std::fs::remove_file(dir.path().join(format!("conf.d/{index}.yaml"))).unwrap();
    }
    for index in 0..5 {
        std::fs::write(dir.path().join(format!("conf.d/{index}.yaml")), "#".repeat((4 << 20) - 1)).unwrap();
    }
    let (_, said) = read_in(dir.path());
    assert!(said.contains("`conf.d/4.yaml` cannot be used: it is larger than"), "{said}");
}
