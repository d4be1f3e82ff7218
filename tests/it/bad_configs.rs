//! Every kind of bad config is refused: where, why and what to do, and no secret of it is printed (rows M9 and M10).

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::gateway;

const SECRET: &str = "a-secret-that-is-long-enough";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bad-configs")
}

/// Runs `forebay check` in `dir`.
async fn check(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = gateway::command();
    command.env("BAD_CONFIG_SECRET", SECRET).env("BAD_CONFIG_EMPTY", "");
    command.arg("check").args(arguments).current_dir(dir).output().await.unwrap()
}

/// Everything that a command printed, once it has been looked through for what may not be in it.
fn said(output: &Output, of: &str) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for never in ["bad-config-canary", "YmFkLWNvbmZpZy", SECRET, "panicked"] {
        assert!(!said.contains(never), "{of}: {never} in\n{said}");
    }
    said
}

#[tokio::test]
async fn every_kind_of_bad_config_is_said_with_its_place_and_cure() {
    let mut files: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 50, "{} files", files.len());
    let mut wrong = Vec::new();
    for file in &files {
        let text = String::from_utf8_lossy(&std::fs::read(folder().join(file)).unwrap()).into_owned();
        let expected = text.lines().next().and_then(|line| line.strip_prefix("# expect: "));
        let expected = format!("{file}:{}", expected.unwrap_or_else(|| panic!("{file} does not say what is expected")));
        assert!(expected.contains("; ") || expected.contains(" write "), "{file}: no cure is expected");
        let checked = check(&folder(), &[file]).await;
        let lines = said(&checked, file);
        if checked.status.code() != Some(2) || !lines.lines().any(|line| line == expected) {
            wrong.push(format!("{expected}\n  but {:?}:\n{lines}", checked.status.code()));
        }
        let json = check(&folder(), &[file, "--json"]).await;
        let report: serde_json::Value = serde_json::from_str(&said(&json, file)).unwrap();
        assert_eq!((report["usable"].as_bool(), json.status.code()), (Some(false), Some(2)), "{file}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_is_no_file_of_text_is_said() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("dir.yaml")).unwrap();
    std::fs::write(dir.path().join("huge.yaml"), "#".repeat((4 << 20) + 1)).unwrap();
    for (file, why) in [
        ("dir.yaml", "it is a directory"),
        ("huge.yaml", "it is larger than 4MiB"),
        ("missing.yaml", "there is no such file"),
    ] {
        let checked = check(dir.path(), &[file]).await;
        let wanted = format!("{file}: the config cannot be read: {why}\n");
        assert!(said(&checked, file).contains(&wanted) && checked.status.code() == Some(2), "{wanted}");
    }
}

#[tokio::test]
async fn a_warning_is_no_error_unless_asked_to_be() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yaml"), "sources: { a: { verify: none, to: [] } }\n").unwrap();
    for (arguments, code) in
        [(&["a.yaml"][..], 0), (&["a.yaml", "--strict"], 2), (&["a.yaml", "--json", "--strict"], 2)]
    {
        let checked = check(dir.path(), arguments).await;
        assert_eq!(checked.status.code(), Some(code), "{arguments:?}");
        assert!(said(&checked, "a.yaml").contains("nothing is checked"));
    }
}
