//! The listeners that are no address: socket files and inherited sockets; and the two kinds of proof in front of HTTP.

use std::path::Path;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::support::gateway::{PATIENCE, by_shell, command, github_to, head};
use crate::support::{FakeApp, Gateway, HELLO, HELLO_SIGNATURE};

/// A config in a directory of its own, whose `ingress` is `ingress`.
fn config(ingress: &str, app: &FakeApp) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let ingress = ingress.replace("DIR", &dir.path().display().to_string());
    let text = head(dir.path()).replacen("listen: 127.0.0.1:0", &ingress, 1) + &github_to(&app.url());
    std::fs::write(dir.path().join("forebay.yaml"), text).unwrap();
    dir
}

/// Posts a webhook with `first` in front of it, and gives what came back.
async fn post(mut stream: impl AsyncRead + AsyncWrite + Unpin, first: &str) -> String {
    let head = format!(
        "POST /webhooks/github HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Hub-Signature-256: {HELLO_SIGNATURE}\r\nContent-Length: {}\r\n\r\n",
        HELLO.len()
    );
    let _ = stream.write_all(&[first.as_bytes(), head.as_bytes(), HELLO].concat()).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer));
    let _ = read.await.expect("it closes"); // or resets
    String::from_utf8_lossy(&answer).into_owned()
}

/// What a start that fails says.
async fn complaint(mut command: tokio::process::Command, dir: &Path) -> String {
    let output = command.args(["serve", "-c"]).arg(dir.join("forebay.yaml")).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_socket_file_serves_survives_a_kill_and_goes_at_the_end() {
    let app = FakeApp::start().await;
    let dir = config("listen: \"unix:DIR/s\"", &app);
    let path = dir.path().join("s");
    let gateway = Gateway::start_in(dir).await;
    assert_eq!(gateway.ingress, format!("http://unix:{}", path.display()));
    assert!(post(UnixStream::connect(&path).await.unwrap(), "").await.starts_with("HTTP/1.1 200"));
    let seen = app.until("the webhook", |seen| seen.len() == 1).await;
    assert_eq!(seen[0].header("x-forwarded-for"), "127.0.0.1");

    let other = config(&format!("listen: \"unix:{}\"", path.display()), &app);
    let said = complaint(command(), other.path()).await;
    assert!(said.contains("a program listens on it already: stop it, or choose another path"), "{said}");

    let dir = gateway.kill().await;
    assert!(path.exists(), "nobody could remove it");
    let gateway = Gateway::start_in(dir).await;
    assert!(post(UnixStream::connect(&path).await.unwrap(), "").await.starts_with("HTTP/1.1 200"));
    let (code, _dir) = gateway.terminate().await;
    assert_eq!((code, path.exists()), (0, false));
}

#[tokio::test]
async fn inherited_sockets_are_found_by_name_number_and_all() {
    let app = FakeApp::start().await;
    for which in ["fd:", "fd:web", "fd:3"] {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let dir = config(&format!("listen: \"{which}\""), &app);
        let gateway = Gateway::start_with_socket(socket, dir).await;
        assert_eq!(gateway.ingress, format!("http://{address}"), "the log says where it is");
        assert!(post(TcpStream::connect(address).await.unwrap(), "").await.starts_with("HTTP/1.1 200"), "{which}");
    }
    let dir = config("listen: \"fd:web\"", &app);
    let path = dir.path().join("s");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let gateway = Gateway::start_with_socket(socket, dir).await;
    assert!(post(UnixStream::connect(&path).await.unwrap(), "").await.starts_with("HTTP/1.1 200"));
    let (code, _dir) = gateway.terminate().await;
    assert!(code == 0 && path.exists(), "what is not ours stays");
}

#[tokio::test]
async fn sockets_that_were_not_handed_over_are_an_error_that_says_so() {
    let app = FakeApp::down();
    for (which, script, says) in [
        ("fd:", "exec \"$@\"", "fd:: no socket was handed over (LISTEN_FDS is not set)"),
        ("fd:", "export LISTEN_FDS=1; exec \"$@\"", "LISTEN_PID is not"),
        ("fd:", "export LISTEN_FDS=1 LISTEN_PID=1; exec \"$@\"", "the sockets are for process 1 (LISTEN_PID)"),
        ("fd:", "export LISTEN_FDS=x LISTEN_PID=$$; exec \"$@\"", "LISTEN_FDS is `x`"),
        (
            "fd:",
            "exec 3</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"",
            "descriptor 3 (unknown) cannot be used",
        ),
        ("fd:tls", "exec 3</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"", "there are 3 (unknown)"),
    ] {
        let dir = config(&format!("listen: \"{which}\""), &app);
        let said = complaint(by_shell(script), dir.path()).await;
        assert!(said.contains(says), "{script}: {said}");
    }
}

#[tokio::test]
async fn a_proxy_header_says_who_sends_where_one_is_wanted() {
    let app = FakeApp::start().await;
    let gateway = Gateway::start_in(config("listen: { address: 127.0.0.1:0, proxy_protocol: true }", &app)).await;
    let connect = || TcpStream::connect(gateway.ingress.trim_start_matches("http://").to_owned());
    assert_eq!(post(connect().await.unwrap(), "").await, "");
    let answer = post(connect().await.unwrap(), "PROXY TCP4 203.0.113.7 192.0.2.1 35646 443\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = app.until("the webhook", |seen| seen.len() == 1).await;
    assert_eq!(seen[0].header("x-forwarded-for"), "203.0.113.7");
    let refused = "forebay_refusals_total{source=\"_unknown\",reason=\"proxy_header\"}";
    assert_eq!(gateway.metric(refused).await as u64, 1);
}

/// The application never answers, so the first SIGTERM waits for the attempt; the second does not.
#[tokio::test]
async fn a_second_sigterm_ends_it_at_once() {
    let app = FakeApp::start().await;
    app.hold();
    let gateway = Gateway::start(&github_to(&app.url())).await;
    assert_eq!(gateway.github("1", b"{}").await.status, 200);
    app.until("the attempt", |seen| !seen.is_empty()).await;
    gateway.signal("TERM").await;
    gateway.says("shutting down").await;
    assert_eq!(gateway.get("/readyz").await.status, 503);
    gateway.signal("TERM").await;
    gateway.says("stopped before everything under way was finished; what was acknowledged is kept").await;
    assert_eq!(gateway.ended().await.0, 0);
}
