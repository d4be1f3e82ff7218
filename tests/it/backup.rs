//! A backup of a gateway under load, and what comes of it when it is restored.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::app::status;
use crate::support::gateway::{command, github_to, head};
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
    drop(dir);
    let (code, text) =
        forebay(&["backup", "--to"], &[&elsewhere.path().join("x.tar"), Path::new("--dir"), &data]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("journal.meta"), "{text}");
}
