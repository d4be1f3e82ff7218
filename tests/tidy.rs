//! Holds the rules of the house that a machine can hold: it reads `src/`, `tests/`, `deny.toml` and `Cargo.lock`.
//!
//! Every rule is a function from a text to its findings, so that `mod self_tests` can show each of them failing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test may panic

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

// ---- The direction of dependencies ----

/// How the modules of one layer stand to each other.
#[derive(Clone, Copy, PartialEq)]
enum Peers {
    /// A module may name those before it.
    InOrder,
    /// None names another.
    Apart,
}
use Peers::{Apart, InOrder};

/// The modules of `src/`, lowest layer first. A module names itself, lower layers, and in its own what [`Peers`] says.
const LAYERS: [(Peers, &[&str]); 9] = [
    (InOrder, &["base", "telemetry"]),
    (InOrder, &["event"]),
    (InOrder, &["router", "limit", "admit", "provider", "journal", "deliver", "index"]),
    (InOrder, &["source"]),
    (Apart, &["intake", "dispatch"]),
    (Apart, &["ingress", "admin"]),
    (InOrder, &["config"]),
    (InOrder, &["app"]),
    (InOrder, &["cli", "main"]),
];

/// What only these modules name: a crate that one module wraps, and HTTP's status codes, which no stage and no story knows.
const HOMES: [(&str, &[&str]); 6] = [
    ("listenfd", &["ingress"]),
    ("governor", &["limit"]),
    ("serde_yaml", &["config"]),
    ("rusqlite", &["index"]),
    ("anyhow", &["cli", "main"]),
    ("StatusCode", &["deliver", "ingress", "admin", "cli"]),
];

fn place(module: &str) -> Option<(usize, usize)> {
    LAYERS.iter().enumerate().find_map(|(layer, (_, names))| {
        let at = names.iter().position(|name| *name == module)?;
        Some((layer, at))
    })
}

fn may_name(from: &str, to: &str) -> bool {
    let (Some(here), Some(there)) = (place(from), place(to)) else { return false };
    let before = there.1 < here.1 && LAYERS[here.0].0 == InOrder;
    from == to || there.0 < here.0 || (there.0 == here.0 && before)
}

/// Where `text`, the file `file` below `src/`, names a module or a word that its own module must not.
fn wrong_uses(file: &str, text: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let module = path.split('/').next().unwrap_or_default();
    let depth = if matches!(path, "lib" | "main") { 0 } else { path.split('/').count() };
    if module != "lib" && place(module).is_none() {
        return vec![format!("{file}: `{module}` is in no layer of tests/tidy.rs")];
    }
    let tokens = tokens(text);
    let uses = from_the_root(&tokens, depth).into_iter().filter(|used| module != "lib" && !may_name(module, used.text));
    let mut findings: Vec<String> =
        uses.map(|used| format!("{file}:{}: `{module}` names `{}`", used.line, used.text)).collect();
    for (word, homes) in HOMES.iter().filter(|(_, homes)| !homes.contains(&module)) {
        let strays = tokens.iter().filter(|token| token.text == *word);
        findings.extend(strays.map(|token| format!("{file}:{}: `{word}` belongs to {homes:?}", token.line)));
    }
    findings
}

/// The modules named by `crate::…`, `forebay::…` and those `super::…` that reach the root. `depth` is the file's module's.
fn from_the_root<'t>(tokens: &[Token<'t>], depth: usize) -> Vec<Token<'t>> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut found = Vec::new();
    let mut braces = Vec::new(); // true where an inline module opened it
    let mut at = 0;
    while at < tokens.len() {
        match text(at) {
            "{" => braces.push(at >= 2 && text(at - 2) == "mod"),
            "}" => drop(braces.pop()),
            "crate" | "forebay" if text(at + 1) == "::" => found.extend(first_names(tokens, at + 2)),
            "super" => {
                let mut climbed = 1;
                while text(at + 1) == "::" && text(at + 2) == "super" {
                    climbed += 1;
                    at += 2;
                }
                let inline = braces.iter().filter(|is_module| **is_module).count();
                if climbed == depth + inline && text(at + 1) == "::" {
                    found.extend(first_names(tokens, at + 2));
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The first name of each path that begins at `at`: `a` of `a::b`; `a` and `c` of `{a::{b}, c}`.
fn first_names<'t>(tokens: &[Token<'t>], at: usize) -> Vec<Token<'t>> {
    let rest = tokens.get(at..).unwrap_or_default();
    if rest.first().is_none_or(|first| first.text != "{") {
        return rest.first().copied().into_iter().collect();
    }
    let mut names = Vec::new();
    let mut open = 0;
    let mut previous = "";
    for token in rest {
        match token.text {
            "{" => open += 1,
            "}" => open -= 1,
            "," => {}
            _ if open == 1 && matches!(previous, "{" | ",") => names.push(*token),
            _ => {}
        }
        if open == 0 {
            break;
        }
        previous = token.text;
    }
    names
}

#[test]
fn modules_name_only_those_below_them() {
    refuse(each("src", wrong_uses), "a module names only lower layers (see LAYERS and HOMES)");
}

// ---- Providers are data ----

/// Names of presets that Rust may say, since they name something else as well.
const GENERIC: [(&str, &str); 2] = [
    ("standard-webhooks", "the name of a specification, which deliveries are signed by"),
    ("x", "a letter, as in `X-Forwarded-For`; its other names are looked for"),
];

/// The name and other names of every preset, in lower case with `-` between words.
fn provider_names() -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Names {
        title: String,
        #[serde(default)]
        aliases: Vec<String>,
    }
    let mut all = Vec::new();
    for (file, text) in files("config/providers", "yaml") {
        let names: Names = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let title = names.title.split(" (").next().unwrap_or_default().to_owned();
        all.extend([file.trim_end_matches(".yaml").to_owned(), title].into_iter().chain(names.aliases));
    }
    let kebab = |name: &String| name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let mut all: Vec<String> = all.iter().map(kebab).collect();
    all.sort();
    all.dedup();
    all.retain(|name| GENERIC.iter().all(|(generic, _)| generic != name));
    all
}

fn named_providers(file: &str, text: &str, names: &[String]) -> Vec<String> {
    let mut findings = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let named = names.iter().filter(|name| says(content, name));
        findings.extend(named.map(|name| format!("{file}:{line}: names the provider `{name}`")));
    }
    findings
}

/// Whether `line` has `name` as a word: also in camel case, and however the name's own words are joined.
fn says(line: &str, name: &str) -> bool {
    let line = line.as_bytes();
    (0..line.len()).any(|start| {
        let Some(end) = match_at(line, start, name) else { return false };
        let begins = start == 0 || is_seam(line[start - 1], line[start]);
        let ends = end == line.len() || is_seam(line[end - 1], line[end]);
        begins && ends
    })
}

fn match_at(line: &[u8], start: usize, name: &str) -> Option<usize> {
    let mut at = start;
    for wanted in name.bytes() {
        match line.get(at) {
            Some(b'-' | b'_' | b' ') if wanted == b'-' => at += 1,
            _ if wanted == b'-' => {}
            Some(byte) if byte.eq_ignore_ascii_case(&wanted) => at += 1,
            _ => return None,
        }
    }
    Some(at)
}

fn is_seam(left: u8, right: u8) -> bool {
    let inside = left.is_ascii_alphanumeric() && right.is_ascii_alphanumeric();
    !inside || (!left.is_ascii_uppercase() && right.is_ascii_uppercase())
}

#[test]
fn no_provider_is_named_in_rust() {
    let names = provider_names();
    assert!(names.contains(&"github".to_owned()), "the presets are not where they were: {names:?}");
    refuse(each("src", |file, text| named_providers(file, text, &names)), "a provider is a file in config/providers/");
}

// ---- Files stay readable ----

/// A file has fewer lines than this (400 is the aim), and a module's `tests.rs` than that.
const LINES_MAX: usize = 500;
const LINES_OF_TESTS_MAX: usize = 600;

fn too_long(file: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let max = if file.ends_with("tests.rs") { LINES_OF_TESTS_MAX } else { LINES_MAX };
    if lines >= max { vec![format!("{file}: {lines} lines, and {max} is the limit")] } else { Vec::new() }
}

#[test]
fn files_stay_short() {
    refuse(each("src", too_long), "a file has fewer than 500 lines: split it along a real seam");
}

// ---- Tests run, and wait for what they observe ----

/// Files below `tests/` that may sleep, and why that is no guess about how long something takes.
const SLEEPERS: [(&str, &str); 1] = [("simulation/clock.rs", "it lets virtual time pass, which the runtime makes up")];

fn skips(file: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let tokens = tokens(text);
    for (at, token) in tokens.iter().enumerate() {
        let opens = token.text == "#" && tokens.get(at + 1).is_some_and(|next| next.text == "[");
        let attribute = tokens.iter().skip(at).take_while(|inner| inner.text != "]");
        if opens && attribute.into_iter().any(|inner| inner.text == "ignore") {
            findings.push(format!("{file}:{}: a test is ignored", token.line));
        }
    }
    let example = (1..).zip(text.lines()).filter(|(_, line)| line.contains("```ignore"));
    findings.extend(example.map(|(line, _)| format!("{file}:{line}: an example is ignored")));
    findings
}

fn sleeps(file: &str, text: &str) -> Vec<String> {
    let is_sleep = |token: &Token<'_>| matches!(token.text, "sleep" | "sleep_until" | "sleep_ms" | "park_timeout");
    let found = tokens(text).into_iter().filter(is_sleep);
    found.map(|token| format!("{file}:{}: `{}`; wait for what you can observe", token.line, token.text)).collect()
}

#[test]
fn no_test_is_skipped_and_none_waits_by_sleeping() {
    let mut findings = each("src", skips);
    findings.extend(each("tests", |file, text| if file == "tidy.rs" { Vec::new() } else { skips(file, text) }));
    let may_sleep = |file: &str| SLEEPERS.iter().any(|(name, _)| *name == file);
    findings.extend(each("tests", |file, text| if may_sleep(file) { Vec::new() } else { sleeps(file, text) }));
    refuse(findings, "every test runs, and is deterministic");
}

// ---- Dependencies that are not to come back ----

/// Crates that stand in `Cargo.lock` through one other crate's optional dependency, and are never built.
const LOCKED_NOT_BUILT: [(&str, &str); 1] = [("ring", "rustls-webpki")];

/// The names that `deny.toml` bans: each on a line of its own, `{ crate = "name", … }`.
fn banned(deny: &str) -> Vec<&str> {
    deny.lines().filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next()).collect()
}

fn avoided(lock: &str, banned: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for package in lock.split("[[package]]").skip(1) {
        let mut quoted = package.lines().filter_map(|line| line.split('"').nth(1));
        let name = quoted.next().unwrap_or_default();
        for needed in package.lines().filter(|line| line.starts_with(" \"")) {
            let needed = needed.trim_matches([' ', '"', ',']).split(' ').next().unwrap_or_default();
            if banned.contains(&needed) && !LOCKED_NOT_BUILT.contains(&(needed, name)) {
                findings.push(format!("Cargo.lock: `{name}` needs `{needed}`"));
            }
        }
    }
    findings
}

#[test]
fn no_dependency_is_one_to_avoid() {
    let (deny, lock) = (read("deny.toml"), read("Cargo.lock"));
    let banned = banned(&deny);
    for known in ["ring", "openssl-sys", "rsa", "serde_yml", "libyml"] {
        assert!(banned.contains(&known), "deny.toml does not ban `{known}`, or is written in another way");
    }
    refuse(avoided(&lock, &banned), "deny.toml says why");
}

// ---- What the rules are made of ----

/// A word or a sign of Rust code.
#[derive(Clone, Copy, Debug)]
struct Token<'t> {
    text: &'t str,
    line: usize,
}

/// The code of `text` as words and signs (`::` is one sign), without comments, strings and characters.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while !rest.is_empty() {
        let skipped = comment(rest).or_else(|| string(rest)).or_else(|| character(rest));
        let taken = match skipped {
            Some(length) => length,
            None => {
                let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                let sign = if rest.starts_with("::") { 2 } else { rest.chars().next().map_or(1, char::len_utf8) };
                let length = if word > 0 { word } else { sign };
                if !rest[..length].trim().is_empty() {
                    tokens.push(Token { text: &rest[..length], line });
                }
                length
            }
        };
        line += rest[..taken].matches('\n').count();
        rest = &rest[taken..];
    }
    tokens
}

fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    let (mut open, mut at) = (0, 0);
    while rest.starts_with("/*") && at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (open, at) = (open + 1, at + 2),
            [b'*', b'/', ..] => (open, at) = (open - 1, at + 2),
            _ => at += 1,
        }
        if open == 0 {
            break;
        }
    }
    (at > 0).then_some(at)
}

fn string(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        rest.strip_prefix(prefix).is_some_and(|rest| {
            rest.starts_with('"')
                || (prefix.ends_with('r') && rest.trim_start_matches('#').starts_with('"') && rest.starts_with('#'))
        })
    })?;
    let body = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let close = format!("\"{}", "#".repeat(hashes));
        let end = body[hashes + 1..].find(&close).map_or(body.len(), |at| hashes + 1 + at + close.len());
        return Some(prefix.len() + end);
    }
    Some(prefix.len() + quoted(body, b'"'))
}

fn character(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix("b").filter(|body| body.starts_with('\'')).unwrap_or(rest);
    let mut inside = body.strip_prefix('\'')?.chars();
    let first = inside.next();
    let is_character = first == Some('\\') || inside.next() == Some('\'');
    Some(if is_character { rest.len() - body.len() + quoted(body, b'\'') } else { 1 }) // otherwise a lifetime
}

/// The length of what stands between two `quote`s, with them.
fn quoted(body: &str, quote: u8) -> usize {
    let mut escaped = false;
    let end = body.bytes().skip(1).position(|byte| {
        let closes = byte == quote && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    end.map_or(body.len(), |end| end + 2)
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below `dir` with its path from there, sorted, and its text.
fn files(dir: &str, extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![String::new()];
    while let Some(below) = open.pop() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir).join(&below);
        for entry in fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
            let entry = entry.unwrap();
            let name = format!("{below}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                open.push(format!("{name}/"));
            } else if name.ends_with(&format!(".{extension}")) {
                found.push((name.clone(), read(&format!("{dir}/{name}"))));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{dir} has no .{extension} file");
    found
}

fn each(dir: &str, rule: impl Fn(&str, &str) -> Vec<String>) -> Vec<String> {
    files(dir, "rs").iter().flat_map(|(file, text)| rule(file, text)).collect()
}

#[track_caller]
fn refuse(findings: Vec<String>, rule: &str) {
    let mut text = String::new();
    for finding in &findings {
        let _ = write!(text, "\n  {finding}");
    }
    assert!(findings.is_empty(), "{rule}:{text}");
}

/// Every rule, broken.
mod self_tests {
    use super::*;

    #[track_caller]
    fn check(findings: Vec<String>, expected: &[&str]) {
        assert_eq!(findings, expected);
    }

    #[test]
    fn a_stage_that_names_a_later_one_is_found() {
        check(wrong_uses("provider/hmac.rs", "use crate::event::Event;\nuse crate::limit;"), &[]);
        let journal = ["provider/hmac.rs:2: `provider` names `journal`"];
        check(wrong_uses("provider/hmac.rs", "\nuse crate::journal::Room;"), &journal);
        check(wrong_uses("provider/hmac.rs", "\nuse crate::{base::{Name, Secret}, journal};"), &journal);
        check(wrong_uses("provider/hmac.rs", "\nfn f(room: &crate::journal::Room) {}"), &journal);
        check(wrong_uses("provider/hmac.rs", "\nuse super::super::journal;"), &journal);
        check(
            wrong_uses("provider/mod.rs", "\nuse super::journal;"),
            &["provider/mod.rs:2: `provider` names `journal`"],
        );
        check(wrong_uses("provider/hmac.rs", "use super::journal;"), &[]); // a module of its own
    }

    #[test]
    fn a_test_that_names_a_later_module_is_found() {
        let test = |path: &str| format!("fn f() {{ if x {{ }} }}\n#[cfg(test)] mod tests {{\n    use {path};\n}}");
        check(wrong_uses("router.rs", &test("super::*")), &[]);
        check(wrong_uses("router.rs", &test("super::super::app::run")), &["router.rs:3: `router` names `app`"]);
        check(wrong_uses("router.rs", &test("crate::config::Config")), &["router.rs:3: `router` names `config`"]);
    }

    #[test]
    fn peers_that_stand_apart_are_held_apart() {
        check(wrong_uses("intake.rs", "use crate::dispatch;"), &["intake.rs:1: `intake` names `dispatch`"]);
        check(wrong_uses("dispatch.rs", "use crate::intake;"), &["dispatch.rs:1: `dispatch` names `intake`"]);
        check(wrong_uses("admin/api.rs", "use crate::ingress;"), &["admin/api.rs:1: `admin` names `ingress`"]);
        check(wrong_uses("cli/mod.rs", "use crate::app;"), &[]);
        check(wrong_uses("main.rs", "fn main() { forebay::cli::main() }"), &[]);
    }

    #[test]
    fn what_is_no_module_or_in_no_layer_is_found() {
        check(wrong_uses("app.rs", "use crate::*;"), &["app.rs:1: `app` names `*`"]);
        check(wrong_uses("util.rs", ""), &["util.rs: `util` is in no layer of tests/tidy.rs"]);
    }

    #[test]
    fn comments_strings_and_characters_are_no_code() {
        let text = "// crate::app\n/* crate::app /* nested */ crate::app */ \"crate::app \\\" crate::app\"\n\
                    r#\"crate::app \" crate::app\"# b'\\'' '\"' 'x' b\"crate::app\" &'a str";
        check(wrong_uses("base/mod.rs", text), &[]);
        check(wrong_uses("base/mod.rs", &format!("{text} crate::app")), &["base/mod.rs:3: `base` names `app`"]);
    }

    #[test]
    fn a_wrapped_crate_stays_at_home() {
        check(wrong_uses("index/mod.rs", "use rusqlite::Row;"), &[]);
        check(wrong_uses("admin/mod.rs", "use rusqlite::Row;"), &["admin/mod.rs:1: `rusqlite` belongs to [\"index\"]"]);
    }

    #[test]
    fn a_provider_s_name_is_found_however_it_is_written() {
        for line in ["// as GitHub does", "fn github_secret()", "struct GithubHook", "\"X-GitHub-Event\"", "MyGitHub"] {
            assert!(says(line, "github"), "{line}");
        }
        for line in ["use acme_pay;", "AcmePay", "\"acme-pay\"", "Acme Pay's"] {
            assert!(says(line, "acme-pay"), "{line}");
        }
        for (line, name) in [("otherwise", "wise"), ("slackness", "slack"), ("a wiser way", "wise"), ("WISER", "wise")]
        {
            assert!(!says(line, name), "{line}");
        }
        check(named_providers("a.rs", "\n// Slack", &["slack".into()]), &["a.rs:2: names the provider `slack`"]);
    }

    #[test]
    fn a_long_file_is_found() {
        check(too_long("app.rs", &"\n".repeat(499)), &[]);
        check(too_long("app.rs", &"\n".repeat(500)), &["app.rs: 500 lines, and 500 is the limit"]);
        check(too_long("app/tests.rs", &"\n".repeat(599)), &[]);
        check(too_long("app/tests.rs", &"\n".repeat(600)), &["app/tests.rs: 600 lines, and 600 is the limit"]);
    }

    #[test]
    fn a_skipped_test_and_a_sleep_are_found() {
        check(skips("a.rs", "\n#[test]\n#[ignore]\nfn f() {}"), &["a.rs:3: a test is ignored"]);
        check(skips("a.rs", "#[cfg_attr(unix, ignore = \"slow\")]"), &["a.rs:1: a test is ignored"]);
        check(skips("a.rs", "/// ```ignore"), &["a.rs:1: an example is ignored"]);
        check(skips("a.rs", "#[test] fn ignore() { ignore(x[0]); }"), &[]);
        check(sleeps("a.rs", "tokio::time::sleep(d).await;"), &["a.rs:1: `sleep`; wait for what you can observe"]);
        check(sleeps("a.rs", "// sleep\nlet asleep = 1;"), &[]);
    }

    #[test]
    fn a_crate_to_avoid_is_found() {
        let deny = "[bans]\ndeny = [\n    { crate = \"rsa\", reason = \"RUSTSEC\" },\n    { crate = \"ring\" },\n]\n";
        assert_eq!(banned(deny), ["rsa", "ring"]);
        let lock = |name: &str, needed: &str| {
            format!("version = 4\n\n[[package]]\nname = \"{name}\"\ndependencies = [\n \"libc\",\n \"{needed}\",\n]\n")
        };
        check(avoided(&lock("acme", "rsa"), &banned(deny)), &["Cargo.lock: `acme` needs `rsa`"]);
        check(avoided(&lock("acme", "rsa 0.9.6"), &banned(deny)), &["Cargo.lock: `acme` needs `rsa`"]);
        check(avoided(&lock("acme", "ring"), &banned(deny)), &["Cargo.lock: `acme` needs `ring`"]);
        check(avoided(&lock("rustls-webpki", "ring"), &banned(deny)), &[]);
        check(avoided(&lock("acme", "rsa-like"), &banned(deny)), &[]);
    }
}
