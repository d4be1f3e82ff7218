//! `forebay doctor` and `check --connect`: what is right and wrong with a machine.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tokio::process::Command;

use crate::support::gateway::{PATIENCE, command, github_to, head};
use crate::support::{FakeApp, Gateway, reserve};

/// Runs `doctor --json` on `config`; the exit code, and the report.
async fn doctor(config: &Path, more: &[&str]) -> (i32, Value) {
    report(command().args(["doctor", "--json", "-c"]).arg(config).args(more).output().await.unwrap())
}

fn report(output: Output) -> (i32, Value) {
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code().unwrap(), json)
}

/// The line about `what`: its verdict, and what it says, the cure included.
fn line(report: &Value, what: &str) -> (String, String) {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["what"].as_str().unwrap().starts_with(what));
    let found = found.unwrap_or_else(|| panic!("nothing about {what} in {report:#}"));
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    (text("verdict"), format!("{}; {}", text("detail"), text("cure")))
}

fn write(dir: &Path, text: &str) -> std::path::PathBuf {
    let file = dir.join("forebay.yaml");
    std::fs::write(&file, text).unwrap();
    file
}

fn left_behind(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains("doctor")).collect()
}

#[tokio::test]
async fn a_machine_that_can_run_it_gets_a_clean_bill_before_and_while_it_runs() {
    let app = FakeApp::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (ingress, admin) = (reserve(), reserve());
    let addresses = head(dir.path())
        .replace("ingress: { listen: 127.0.0.1:0 }", &format!("ingress: {{ listen: {ingress} }}"))
        .replace("admin: { listen: 127.0.0.1:0 }", &format!("admin: {{ listen: {admin} }}"));
    let config = write(dir.path(), &(addresses + &github_to(&app.url())));
    let (code, before) = doctor(&config, &["--connect"]).await;
    assert_eq!(code, 0, "{before:#}");
    for (what, words) in [
        ("config", "1 sources, 1 destinations"),
        ("secrets", "1 are there"),
        ("journal.dir", "is not there yet, and can be made"),
        ("disk space", "free; the journal has 0 KiB and may take 256 MiB more"),
        ("journal lock", "nobody holds it"),
        ("disk flush", "flushes: p50"),
        ("open files", "may be open"),
        ("ingress.listen", "free"),
        ("admin.listen", "free"),
        ("destinations.app", "connected in"),
        ("clock", "it shows 2"),
    ] {
        let (verdict, said) = line(&before, what);
        assert!(verdict != "fail" && said.contains(words), "{what}: {verdict}, {said}");
    }
    assert!(!dir.path().join("data").exists() && left_behind(dir.path()).is_empty(), "it changes nothing");

    let gateway = Gateway::start_in(dir).await;
    assert_eq!(gateway.github("1", b"{}").await.status, 200);
    let (code, running) = doctor(&gateway.config(), &[]).await;
    assert_eq!(code, 0, "{running:#}");
    assert!(line(&running, "journal lock").1.contains(&format!("held by process {}", gateway.pid())));
    assert!(line(&running, "journal.dir").1.contains("is there, and ours alone"));
    for what in ["ingress.listen", "admin.listen"] {
        assert!(line(&running, what).1.contains("in use, and a gateway runs on this journal"), "{running:#}");
    }
    assert_eq!(line(&running, "clock of the running gateway").0, "ok");
    assert!(line(&running, "clock").1.contains("after the journal was last written to"));
    assert!(left_behind(&gateway.config().with_file_name("data")).is_empty());
    assert_eq!(gateway.get("/readyz").await.status, 200, "it did not disturb the gateway");

    let table = command().args(["doctor", "-c"]).arg(gateway.config()).output().await.unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.starts_with("VERDICT") && table.contains("journal lock"), "{table}");
}

#[tokio::test]
async fn what_is_wrong_is_a_failure_with_its_cure() {
    let dir = tempfile::tempdir().unwrap();
    // Root may write everywhere, so for root it is somebody else's; nobody else can give theirs away.
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let (what, cure) = match std::os::unix::fs::chown(&data, Some(65534), None) {
        Ok(()) => ("journal.dir", "belongs to another user (uid 65534"),
        Err(_) => ("disk flush", "let the user who runs forebay write there"),
    };
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o500)).unwrap();
    let taken = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let [ingress, admin] = [0, 1].map(|which: usize| taken[which].local_addr().unwrap());
    let text = head(dir.path())
        .replace("ingress: { listen: 127.0.0.1:0 }", &format!("ingress: {{ listen: {ingress} }}"))
        .replace("admin: { listen: 127.0.0.1:0 }", &format!("admin: {{ listen: {admin} }}"));
    let nobody = FakeApp::down();
    let config = write(dir.path(), &(text + &github_to(&nobody.url())));
    let (code, report) = doctor(&config, &["--connect"]).await;
    assert_eq!((code, report["verdict"].as_str()), (1, Some("fail")));
    for (what, cure) in [
        (what, cure),
        ("ingress.listen", "another program has it"),
        ("admin.listen", "another program has it"),
        ("destinations.app", "start the application"),
    ] {
        let (verdict, said) = line(&report, what);
        assert!(verdict == "fail" && said.contains(cure), "{what}: {verdict}, {said}");
    }
}

#[tokio::test]
async fn a_gateway_on_another_journal_is_not_this_ones() {
    let gateway = Gateway::start("sources: {}\n").await;
    let dir = tempfile::tempdir().unwrap();
    let text = head(dir.path()).replacen("127.0.0.1:0", gateway.ingress.trim_start_matches("http://"), 1).replacen(
        "127.0.0.1:0",
        gateway.admin.trim_start_matches("http://"),
        1,
    );
    let (code, report) = doctor(&write(dir.path(), &(text + "sources: {}\n")), &[]).await;
    assert_eq!(code, 1, "{report:#}");
    assert!(line(&report, "journal lock").1.contains("nobody holds it"));
    for what in ["ingress.listen", "admin.listen"] {
        let (verdict, said) = line(&report, what);
        assert!(verdict == "fail" && said.contains("a gateway runs here on another journal: stop it"), "{said}");
    }
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["what"] != "clock of the running gateway"), "{report:#}");
}

#[tokio::test]
async fn what_only_might_go_wrong_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(data.join(".forebay-doctor-1"), "left by one that was killed").unwrap();
    let sources = "sources:\n  github: { provider: github, secret: short, to: [] }\n";
    let config = write(dir.path(), &(head(dir.path()).replace("256MiB", "100TiB") + sources));
    let (code, report) = doctor(&config, &[]).await;
    assert_eq!((code, report["verdict"].as_str()), (0, Some("warn")), "{report:#}");
    for (what, cure) in [
        ("journal.dir", "has mode 0755: others on this machine may look in; chmod 700"),
        ("disk space", "lower journal.max_size"),
        ("secrets", "shorter than 16 bytes: sources.github.secret"),
    ] {
        let (verdict, said) = line(&report, what);
        assert!(verdict == "warn" && said.contains(cure), "{what}: {verdict}, {said}");
    }
    assert!(left_behind(&data).is_empty(), "what a killed one left goes, too");
    let future = std::time::UNIX_EPOCH + std::time::Duration::from_secs(4_102_444_800);
    std::fs::create_dir(data.join("log")).unwrap();
    std::fs::File::create(data.join("log/00000001.log")).unwrap().set_modified(future).unwrap();
    let (code, report) = doctor(&config, &[]).await;
    let (verdict, said) = line(&report, "clock");
    assert!(code == 1 && verdict == "fail" && said.contains("it was set back"), "{said}");
}

#[tokio::test]
async fn a_config_that_cannot_be_used_is_neither() {
    let dir = tempfile::tempdir().unwrap();
    let config = write(dir.path(), "ingress: { listn: x }\n");
    for arguments in [&["doctor"][..], &["check", "--connect"]] {
        let ended = command().args(arguments).arg("-c").arg(&config).output().await.unwrap();
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
    }
    for (config, said) in [(config, "did you mean `listen`?"), (dir.path().join("none.yaml"), "`forebay init ")] {
        let (code, report) = doctor(&config, &[]).await;
        assert_eq!((code, report["verdict"].as_str()), (2, Some("fail")));
        let (verdict, line) = line(&report, "config");
        assert!(verdict == "fail" && line.contains(said), "{line}");
    }
}

#[tokio::test]
async fn check_connects_where_it_is_told_to() {
    let (app, nobody) = (FakeApp::start().await, FakeApp::down());
    let dir = tempfile::tempdir().unwrap();
    for (url, code, verdict) in [(app.url(), 0, "ok"), (nobody.url(), 1, "fail")] {
        let config = write(dir.path(), &(head(dir.path()) + &github_to(&url)));
        let checked = command().args(["check", "--connect", "--json", "-c"]).arg(&config).output().await.unwrap();
        let (given, report) = report(checked);
        assert_eq!((given, report["connections"][0]["verdict"].as_str()), (code, Some(verdict)), "{report:#}");
        let without = command().args(["check", "-c"]).arg(&config).output().await.unwrap();
        assert_eq!(without.status.code(), Some(0));
    }
    assert!(app.seen().iter().all(|seen| seen.method == "OPTIONS"), "it is asked for the time at most");
}

/// On a full file system of its own, in namespaces of its own, where the machine lets us have those.
#[tokio::test]
async fn a_full_disk_is_a_failure_and_nothing_is_left_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let config = write(dir.path(), &(head(dir.path()) + "sources: {}\n"));
    let script = "mount -t tmpfs -o size=64k,mode=700 tmpfs \"$1\" || exit 77\n\
        head -c 65536 /dev/zero > \"$1/filler\"\n\"$2\" doctor --json -c \"$3\"; code=$?; ls -A \"$1\" >&2; exit $code";
    let unshare = |as_user: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(as_user).args(["--mount", "sh", "-c", script, "sh"]).arg(&data);
        command.arg(env!("CARGO_BIN_EXE_forebay")).arg(&config);
        command
    };
    for as_user in [&[][..], &["--user", "--map-root-user"]] {
        let Ok(ended) = unshare(as_user).output().await else { continue };
        if !matches!(ended.status.code(), Some(0 | 1)) || ended.stdout.is_empty() {
            continue; // no mounts for us
        }
        let files = String::from_utf8_lossy(&ended.stderr).into_owned();
        let (code, report) = report(ended);
        assert_eq!(code, 1, "{report:#}");
        assert_eq!(line(&report, "disk flush").0, "fail", "{report:#}");
        assert!(line(&report, "file system").1.contains("tmpfs"), "{report:#}");
        assert!(files.ends_with("filler\n") && !files.contains("doctor"), "{files}");
        return;
    }
    eprintln!("NOT TESTED: this machine lets nobody mount a tmpfs, so there was no full disk");
}

/// The summary of `doctor --crash`, and its exit code.
async fn crash(dir: &Path, more: &[&str]) -> (i32, Value) {
    let mut command = command();
    command.args(["doctor", "--crash", "3", "--json", "--dir"]).arg(dir).args(more).current_dir(dir);
    report(command.output().await.unwrap())
}

#[tokio::test]
async fn nothing_is_lost_in_the_kills_that_doctor_makes_and_no_config_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let (code, report) = crash(dir.path(), &[]).await;
    assert_eq!((code, report["verdict"].as_str()), (0, Some("ok")), "{report:#}");
    assert_eq!((report["kills"].as_u64(), report["lost"].as_u64()), (Some(3), Some(0)), "{report:#}");
    assert!(report["acknowledged"].as_u64().unwrap() > 0, "{report:#}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing behind");
}

#[tokio::test]
async fn doctor_that_is_told_to_stop_takes_its_gateway_with_it() {
    let dir = tempfile::tempdir().unwrap();
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::HUP, "SIGHUP"), (Signal::INT, "SIGINT")] {
        let mut doctor = command();
        doctor.args(["doctor", "--crash", "100000", "--dir"]).arg(dir.path()).current_dir(dir.path());
        let doctor = doctor.stderr(std::process::Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let id = doctor.id().unwrap();
        let lock = dir.path().join(format!(".forebay-crash-{id}/data/lock"));
        let gateway = async {
            loop {
                let holder = std::fs::read_to_string(&lock).unwrap_or_default();
                if let Some(pid) = holder.strip_suffix('\n').and_then(|pid| Pid::from_raw(pid.parse().ok()?)) {
                    return pid;
                }
                tokio::task::yield_now().await;
            }
        };
        let gateway = tokio::time::timeout(PATIENCE, gateway).await.unwrap();
        kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
        let ended = tokio::time::timeout(PATIENCE, doctor.wait_with_output()).await.unwrap().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.code() == Some(1) && said.contains(name), "{said}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing behind");
        assert!(test_kill_process(gateway).is_err(), "no gateway runs on");
    }
}

#[tokio::test]
async fn doctor_tells_of_what_was_found_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let config = write(dir.path(), &(head(dir.path()) + &github_to("http://127.0.0.1:9")));
    let corrupt = dir.path().join("data/corrupt");
    std::fs::create_dir_all(&corrupt).unwrap();
    let (_, report) = doctor(&config, &[]).await;
    assert!(!report["checks"].as_array().unwrap().iter().any(|check| check["what"] == "damage"), "{report:#}");
    for number in 0..2 {
        std::fs::write(corrupt.join(format!("0000000{number}-00000000-00000010.bin")), "x").unwrap();
    }
    let (_, report) = doctor(&config, &[]).await;
    let (verdict, said) = line(&report, "damage");
    assert!(verdict == "warn" && said.starts_with("2 stretches") && said.contains("dead-letters"), "{said}");
}

/// A gateway that forgets what it has kept: before each start its log is taken away.
#[tokio::test]
async fn doctor_notices_a_gateway_that_loses_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let liar = dir.path().join("liar");
    let script = format!(
        "#!/bin/sh\nfor last; do :; done\nrm -rf \"${{last%/*}}\"/data/log\nexec '{}' \"$@\"\n",
        env!("CARGO_BIN_EXE_forebay")
    );
    std::fs::write(&liar, script).unwrap();
    std::fs::set_permissions(&liar, std::fs::Permissions::from_mode(0o700)).unwrap();
    let (code, report) = crash(dir.path(), &["--gateway", liar.to_str().unwrap()]).await;
    assert_eq!((code, report["verdict"].as_str()), (1, Some("fail")), "{report:#}");
    assert!(report["lost"].as_u64().unwrap() > 0, "{report:#}");
}

#[tokio::test]
async fn doctor_says_what_keeps_it_from_trying() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, said) in [
        (&["--dir", "/nowhere/at/all"][..], "--dir names a directory that is there"),
        (&["--dir", ".", "--gateway", "/bin/false"], "the gateway did not start"),
    ] {
        let mut command = command();
        let ended = command.args(["doctor", "--crash", "1"]).args(arguments).current_dir(dir.path()).output();
        let ended = ended.await.unwrap();
        let error = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.code() == Some(1) && error.contains(said), "{error}");
    }
}
