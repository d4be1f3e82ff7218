//! A backup of a gateway under load, and what comes of it when it is restored.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::app::status;
use crate::support::gateway::{PATIENCE, command, github_to, head};
use crate::support::{FakeApp, Gateway};

async fn forebay(args: &[&str], paths: &[&Path]) -> (Option<i32>, String) {
    let output = command().args(args).args(paths).output().await.unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// What is in a directory.
fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_backup_is_in_it_and_is_delivered_where_it_is_restored() {
    let app = FakeApp::start().await;
    app.behave(|_| Some(status(503)));
    let gateway = Gateway::start(&github_to(&app.url())).await;
    let mut before = Vec::new();
    for number in 0..200 {
        let body = format!("before {number} {}", "x".repeat(20_000));
        let answer = gateway.github(&format!("before-{number}"), body.as_bytes()).await;
        before.push(answer.header("forebay-event-id").unwrap().to_owned());
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("backup.tar");
    let over = AtomicBool::new(false);
    let load = async {
        let mut number = 0;
        while !over.load(Ordering::Relaxed) || number < 50 {
            let answer = gateway.github(&format!("during-{number}"), &vec![b'y'; 5_000]).await;
            assert_eq!(answer.status, 200, "intake goes on");
            number += 1;
        }
    };
    let back_up = async {
        let made = forebay(&["backup", "--admin", &gateway.admin, "--to"], &[&file]).await;
        over.store(true, Ordering::Relaxed);
        made
    };
    let ((), (code, text)) = tokio::join!(load, back_up);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("backup.tar: "), "{text}");
    assert_eq!(names(elsewhere.path()), std::slice::from_ref(&file), "no part of it is left");
    let audited = |line: &String| line.contains(r#""what":"backup""#) && line.contains("audit");
    assert!(gateway.log().iter().any(audited));
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let (code, text) = forebay(&["backup", "--admin", &gateway.admin, "--to"], &[&file]).await;
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("--force"), "{text}");
    let (code, text) = forebay(&["backup", "--force", "--admin", &gateway.admin, "--to"], &[&file]).await;
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = forebay(&["backup", "--force", "--json", "--admin", &gateway.admin, "--to"], &[&file]).await;
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, report["file"].as_str()), (Some(0), file.to_str()), "{text}");
    let old = gateway.kill().await;

    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("forebay.yaml");
    std::fs::write(&config, format!("{}{}", head(dir.path()), github_to(&app.url()))).unwrap();
    let (code, text) = forebay(&["-c", config.to_str().unwrap(), "restore"], &[&file]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(" events; ") && !text.contains("damaged"), "{text}");
    assert!(dir.path().join("data/journal.meta").is_file());
    let (code, text) = forebay(&["-c", config.to_str().unwrap(), "restore"], &[&file]).await;
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("is not empty"), "{text}");
    drop(old);

    app.behave(|_| Some(status(200)));
    let gateway = Gateway::start_in(dir).await;
    for id in &before {
        gateway.event(id, "delivered").await;
    }
    let again = gateway.github("before-7", format!("before 7 {}", "x".repeat(20_000)).as_bytes()).await;
    assert_eq!(again.header("forebay-duplicate"), Some("true"));
    assert_eq!(again.header("forebay-event-id"), Some(before[7].as_str()));
}

#[tokio::test]
async fn a_stopped_gateways_journal_is_backed_up_where_it_lies_and_a_broken_backup_leaves_nothing() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start(&github_to(&app.url())).await;
    let id = gateway.github("one", b"one").await.header("forebay-event-id").unwrap().to_owned();
    gateway.event(&id, "delivered").await;
    let data = gateway.config().parent().unwrap().join("data");
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("backup.tar");
    let (code, text) = forebay(&["backup", "--to"], &[&file, Path::new("--dir"), &data]).await;
    assert_eq!(code, Some(3), "{text}");
    assert_eq!(names(elsewhere.path()), Vec::<PathBuf>::new());
    let (code, dir) = gateway.terminate().await;
    assert_eq!(code, 0);
    let (code, text) = forebay(&["backup", "--to"], &[&file, Path::new("--dir"), &data]).await;
    assert_eq!(code, Some(0), "{text}");

    let whole = std::fs::read(&file).unwrap();
    let target = elsewhere.path().join("new/data");
    let mut changed = whole.clone();
    let middle = whole.windows(3).rposition(|window| window == b"one").unwrap();
    changed[middle] ^= 1;
    for (broken, says) in [
        (&whole[..whole.len() / 2], "cut off"),
        (&whole[..whole.len() - 3000], "cut off"),
        (&changed, "changed"),
        (b"x", "cut off"),
    ] {
        std::fs::write(&file, broken).unwrap();
        let (code, text) = forebay(&["restore"], &[&file, Path::new("--dir"), &target]).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(says), "{text}");
        assert_eq!(names(&elsewhere.path().join("new")), Vec::<PathBuf>::new());
    }
    std::fs::write(&file, &whole).unwrap();
    std::fs::create_dir(&target).unwrap(); // an empty one will do
    let (code, text) = forebay(&["restore"], &[&file, Path::new("--dir"), &target]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("1 events; 0 deliveries wait, 0 are dead"), "{text}");
    let names_in = |dir: &Path| Vec::from_iter(names(dir).iter().map(|path| path.file_name().unwrap().to_owned()));
    let restored = names_in(&target);

    // A mount point's root cannot be replaced, nor can what a link leads to: all is unpacked inside.
    let (disk, link) = (elsewhere.path().join("disk"), elsewhere.path().join("link"));
    std::fs::create_dir_all(disk.join("lost+found")).unwrap();
    std::os::unix::fs::symlink("disk", &link).unwrap();
    std::fs::write(&file, &changed).unwrap();
    let (code, text) = forebay(&["restore"], &[&file, Path::new("--dir"), &link]).await;
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(names_in(&disk), ["lost+found"], "nothing is left");
    std::fs::write(&file, &whole).unwrap();
    let (code, text) = forebay(&["restore", "--json"], &[&file, Path::new("--dir"), &link]).await;
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["events"], &report["damaged"]), (Some(0), &1.into(), &0.into()), "{text}");
    assert!(link.is_symlink());
    std::fs::remove_dir(disk.join("lost+found")).unwrap();
    assert_eq!(names_in(&disk), restored);
    assert!(!restored.contains(&".restoring".into()), "{restored:?}");
    std::fs::create_dir_all(elsewhere.path().join("killed/.restoring")).unwrap();
    let killed = elsewhere.path().join("killed");
    let (code, text) = forebay(&["restore"], &[&file, Path::new("--dir"), &killed]).await;
    assert!(code == Some(1) && text.contains("or was killed"), "{text}");
    drop(dir);
    let (code, text) =
        forebay(&["backup", "--to"], &[&elsewhere.path().join("x.tar"), Path::new("--dir"), &data]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("journal.meta"), "{text}");
}

#[tokio::test]
async fn a_backup_that_is_told_to_stop_leaves_nothing() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); // takes connections and never answers
    let elsewhere = tempfile::tempdir().unwrap();
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        let admin = format!("http://{}", mute.local_addr().unwrap());
        let mut backup = command();
        backup.args(["backup", "--admin", &admin, "--to"]).arg(elsewhere.path().join("backup.tar"));
        let backup = backup.stderr(std::process::Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let begun = async {
            while names(elsewhere.path()).is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, begun).await.unwrap();
        let pid = i32::try_from(backup.id().unwrap()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
        let ended = tokio::time::timeout(PATIENCE, backup.wait_with_output()).await.unwrap().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.code() == Some(1) && said.contains(name), "{said}");
        assert_eq!(names(elsewhere.path()), Vec::<PathBuf>::new());
    }
}
