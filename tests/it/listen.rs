//! `forebay listen`, as a developer uses it.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::support::gateway::{PATIENCE, command, github_to, head};
use crate::support::{FakeApp, Gateway, HELLO, HELLO_SIGNATURE, app, reserve};

/// A running `forebay listen`. Dropped, it is killed.
struct Listener {
    child: Child,
    out: watch::Receiver<Vec<String>>,
    err: watch::Receiver<Vec<String>>,
}

impl Listener {
    /// Starts it, and waits until it follows the gateway.
    async fn start(admin: &str, arguments: &[&str]) -> Self {
        let mut command = command();
        command.args(["listen", "--admin", admin]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        let mut listener = Self { child, out, err };
        listener.says("listening to").await;
        listener
    }

    /// Waits until it has said `words` to the person.
    async fn says(&mut self, words: &str) {
        until(&mut self.err, words, |lines| lines.iter().any(|line| line.contains(words))).await;
    }

    /// Waits until it has dealt with `count` events; its lines about them.
    async fn events(&mut self, count: usize) -> Vec<String> {
        until(&mut self.out, "events", |lines| lines.len() >= count).await
    }

    /// Ctrl-C; the exit code, and all it said.
    async fn interrupt(mut self) -> (i32, Vec<String>) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
        while self.err.changed().await.is_ok() {} // to its end
        (status.code().unwrap_or(-1), self.err.borrow().clone())
    }
}

fn lines(from: impl AsyncRead + Unpin + Send + 'static) -> watch::Receiver<Vec<String>> {
    let (sender, receiver) = watch::channel(Vec::new());
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            sender.send_modify(|lines: &mut Vec<String>| lines.push(line));
        }
    });
    receiver
}

async fn until(
    lines: &mut watch::Receiver<Vec<String>>,
    what: &str,
    enough: impl Fn(&[String]) -> bool,
) -> Vec<String> {
    let found = tokio::time::timeout(PATIENCE, lines.wait_for(|lines| enough(lines))).await;
    let found = found.ok().and_then(Result::ok).map(|lines| lines.clone());
    found.unwrap_or_else(|| panic!("it never said {what}: {:#?}", *lines.borrow()))
}

#[tokio::test]
async fn a_local_application_gets_the_exact_request_besides_the_real_one() {
    let (real, local) = (FakeApp::start().await, FakeApp::start().await);
    let gateway = Gateway::start(&github_to(&real.url())).await;
    let to = format!("{}/local?dev=1", local.url());
    let mut listener =
        Listener::start(&gateway.admin, &["github", "--forward-to", &to, "--header", "X-Env: dev"]).await;
    let id = gateway.github("72d3162e", HELLO).await.header("forebay-event-id").unwrap().to_owned();
    let seen = local.until("the event", |seen| !seen.is_empty()).await.remove(0);
    assert_eq!((seen.method.as_str(), seen.uri.to_string().as_str()), ("POST", "/local?dev=1"));
    assert_eq!(seen.body, HELLO);
    assert_eq!(seen.header("x-hub-signature-256"), HELLO_SIGNATURE, "its own check of the signature goes on holding");
    for (name, value) in [
        ("x-github-delivery", "72d3162e"),
        ("x-env", "dev"),
        ("forebay-event-id", id.as_str()),
        ("forebay-source", "github"),
        ("forebay-provider", "github"),
        ("forebay-event-type", "push"),
        ("idempotency-key", id.as_str()),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    assert_eq!(seen.header("forebay-received-at"), gateway.event(&id, "delivered").await["received_at"]);
    assert_eq!(seen.header("host"), to.trim_start_matches("http://").split('/').next().unwrap());

    let line = listener.events(1).await.remove(0);
    assert!(line.contains(&format!("{id} push → 200 ")) && line.ends_with(" ms"), "{line}");
    real.until("the event as well", |seen| seen.len() == 1).await;

    local.behave(|_| Some(app::status(500)));
    gateway.github("2", HELLO).await;
    assert!(listener.events(2).await[1].contains("→ 500 "));
    local.stop();
    gateway.github("3", HELLO).await;
    let line = listener.events(3).await.remove(2);
    assert!(line.contains("→ no answer from") && line.contains("is your application running?"), "{line}");
    let (code, said) = listener.interrupt().await;
    assert_eq!(code, 0);
    assert!(said.last().unwrap().ends_with("3 events: 1 answered 2xx, 1 answered otherwise, 1 without an answer"));
}

#[tokio::test]
async fn it_outlives_the_gateway_and_goes_on_without_gap_or_repeat() {
    let local = FakeApp::start().await;
    let dir = tempfile::tempdir().unwrap();
    let admin = reserve();
    let at = head(dir.path()).replace("admin: { listen: 127.0.0.1:0 }", &format!("admin: {{ listen: {admin} }}"));
    std::fs::write(dir.path().join("forebay.yaml"), at + &github_to(&FakeApp::down().url())).unwrap();
    let gateway = Gateway::start_in(dir).await;
    let forward = ["github", "--json", "--forward-to", &local.url()];
    let mut listener = Listener::start(&gateway.admin, &forward).await;

    // Killed before the first event, so there is nothing yet after which to go on; and again after some.
    let gateway = gateway.kill_and_restart().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(gateway.github(&n.to_string(), HELLO).await.header("forebay-event-id").unwrap().to_owned());
    }
    listener.events(5).await;
    let dir = gateway.kill().await;
    listener.says("trying again until it is back").await;
    let gateway = Gateway::start_in(dir).await;
    for n in 5..10 {
        ids.push(gateway.github(&n.to_string(), HELLO).await.header("forebay-event-id").unwrap().to_owned());
    }
    let lines = listener.events(10).await;
    let told: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.iter().map(|line| line["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    assert!(told.iter().all(|line| line["status"] == 200 && line["milliseconds"].is_u64()), "{lines:#?}");
    let seen: Vec<String> = local.seen().iter().map(|seen| seen.header("forebay-event-id").to_owned()).collect();
    assert_eq!(seen, ids, "each once, in order");
    assert!(listener.err.borrow().iter().any(|line| line.contains("the gateway is back")));
}

/// Passes connections on to `to`. While it cuts, it hangs up on whoever asks for an event.
async fn between(to: &str, cuts: watch::Receiver<bool>) -> String {
    let (listener, to) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), to.trim_start_matches("http://").to_owned());
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (mut server, cuts) = (TcpStream::connect(&to).await.unwrap(), cuts.clone());
            tokio::spawn(async move {
                let (mut asks, mut answers) = (vec![0; 64 << 10], vec![0; 64 << 10]);
                loop {
                    tokio::select! {
                        read = client.read(&mut asks) => {
                            let Ok(count @ 1..) = read else { return };
                            if asks[..count].starts_with(b"GET /api/v1/events/") && *cuts.borrow() {
                                return;
                            }
                            if server.write_all(&asks[..count]).await.is_err() {
                                return;
                            }
                        }
                        read = server.read(&mut answers) => {
                            let Ok(count @ 1..) = read else { return };
                            if client.write_all(&answers[..count]).await.is_err() {
                                return;
                            }
                        }
                    }
                }
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn an_event_that_could_not_be_fetched_is_no_gap() {
    let local = FakeApp::start().await;
    let gateway = Gateway::start(&github_to(&FakeApp::down().url())).await;
    let cuts = watch::Sender::new(false);
    let admin = between(&gateway.admin, cuts.subscribe()).await;
    let mut listener = Listener::start(&admin, &["github", "--forward-to", &local.url()]).await;
    let mut ids = Vec::new();
    let mut post =
        async |n: &str| ids.push(gateway.github(n, HELLO).await.header("forebay-event-id").unwrap().to_owned());
    post("1").await;
    listener.events(1).await;
    cuts.send_replace(true);
    post("2").await; // its coming is told, and it cannot be fetched
    listener.says("trying again until it is back").await;
    cuts.send_replace(false);
    post("3").await;
    listener.events(3).await;
    let seen: Vec<String> = local.seen().iter().map(|seen| seen.header("forebay-event-id").to_owned()).collect();
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn a_token_that_is_no_longer_taken_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let admin = reserve();
    let write = |dir: &Path, token: &str| {
        let admin = format!("admin: {{ listen: {admin}, token: {token} }}");
        let text = head(dir).replace("admin: { listen: 127.0.0.1:0 }", &admin) + &github_to("http://127.0.0.1:9");
        std::fs::write(dir.join("forebay.yaml"), text).unwrap();
    };
    write(dir.path(), "the-first-token-0123456789");
    let gateway = Gateway::start_in(dir).await;
    let arguments = ["github", "--forward-to", "localhost:9", "--token", "the-first-token-0123456789"];
    let mut listener = Listener::start(&gateway.admin, &arguments).await;
    let dir = gateway.kill().await;
    write(dir.path(), "the-second-token-0123456789");
    let _gateway = Gateway::start_in(dir).await;
    let status = tokio::time::timeout(PATIENCE, listener.child.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(1));
    listener.says("token").await;
}

#[tokio::test]
async fn an_event_under_way_when_it_is_interrupted_is_counted_as_such() {
    let local = FakeApp::start().await;
    local.hold();
    let gateway = Gateway::start(&github_to(&FakeApp::down().url())).await;
    let listener = Listener::start(&gateway.admin, &["github", "--forward-to", &local.url()]).await;
    gateway.github("1", HELLO).await;
    local.until("the event", |seen| !seen.is_empty()).await;
    let (code, said) = listener.interrupt().await;
    assert_eq!(code, 0);
    let summary = "1 event: 0 answered 2xx, 0 answered otherwise, 0 without an answer, 1 under way";
    assert!(said.last().unwrap().ends_with(summary), "{said:#?}");
}

#[tokio::test]
async fn events_that_were_there_before_come_when_they_are_asked_for() {
    let local = FakeApp::start().await;
    let gateway = Gateway::start(&github_to(&FakeApp::down().url())).await;
    gateway.github("1", HELLO).await;
    let to = local.url();
    let mut next = Listener::start(&gateway.admin, &["github", "--forward-to", &to]).await;
    let mut all = Listener::start(&gateway.admin, &["github", "--forward-to", &to, "--since", "1h"]).await;
    all.events(1).await;
    gateway.github("2", HELLO).await;
    assert_eq!((all.events(2).await.len(), next.events(1).await.len()), (2, 1));
}

#[tokio::test]
async fn a_secret_header_is_forwarded_as_stars_unless_it_is_given() {
    let local = FakeApp::start().await;
    let secret = "a-token-that-is-the-secret";
    let gateway = Gateway::start(&format!("sources:\n  lab: {{ provider: gitlab, secret: {secret}, to: [] }}\n")).await;
    let to = local.url();
    let mut without = Listener::start(&gateway.admin, &["lab", "--forward-to", &to]).await;
    let post = async || {
        let headers = [("x-gitlab-token", secret), ("x-gitlab-event", "Push Hook")];
        gateway.http.send(http::Method::POST, &format!("{}/lab", gateway.ingress), &headers, b"{}").await
    };
    assert_eq!(post().await.status, 200);
    without.says("forwarded as ***: x-gitlab-token").await;
    without.events(1).await;
    assert_eq!(local.seen()[0].header("x-gitlab-token"), "***");
    drop(without);
    let given = format!("X-Gitlab-Token: {secret}");
    let with = ["lab", "--since", "1h", "--forward-to", &to, "--header", &given];
    let mut with = Listener::start(&gateway.admin, &with).await;
    with.events(1).await;
    assert_eq!(local.seen()[1].header("x-gitlab-token"), secret);
}

#[tokio::test]
async fn what_cannot_be_listened_to_is_said_with_its_cure() {
    let gateway = Gateway::start(&github_to(&FakeApp::down().url())).await;
    let nobody = FakeApp::down();
    for (arguments, code, cure) in [
        (&["listen", "githb", "--forward-to", "localhost:1", "--admin", &gateway.admin][..], 2, "it has github"),
        (&["listen", "github", "--forward-to", "ftp://x", "--admin", &gateway.admin], 2, "write it like http://"),
        (&["listen", "github", "--forward-to", "http://me:hunter2@localhost:1/x"], 2, "--header 'Authorization: "),
        (&["listen", "github", "--forward-to", "me:hunter2@localhost:1"], 2, "--header 'Authorization: "),
        (&["listen", "github", "--forward-to", "ftp://me:hunter2@localhost:1"], 2, "write it like http://"),
        (&["listen", "github", "--forward-to", "localhost:1", "--since", "x", "--admin", &gateway.admin], 2, "like 1h"),
        (&["listen", "github", "--forward-to", "localhost:1", "--admin", &nobody.url()], 1, "is the gateway running?"),
    ] {
        let ended = command().args(arguments).output().await.unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(code), "{said}");
        assert!(said.contains(cure) && !said.contains("hunter2"), "{said}");
    }
}
