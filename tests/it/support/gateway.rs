//! The built binary, started on free ports with a config of its own.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::http::{Answer, Http};
use super::{SECRET, sign};

/// How long anything is waited for; only a broken gateway takes that long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running gateway. Dropped, it is killed.
pub struct Gateway {
    child: Child,
    dir: TempDir,
    log: watch::Receiver<Vec<String>>,
    pub ingress: String,
    pub admin: String,
    pub http: Http,
}

/// The top of a config on free ports, with the journal in `dir`.
pub fn head(dir: &Path) -> String {
    format!(
        "ingress: {{ listen: 127.0.0.1:0 }}\nadmin: {{ listen: 127.0.0.1:0 }}\n\
         journal: {{ dir: {}, max_size: 256MiB }}\nlog: {{ format: json, level: debug }}\n",
        dir.join("data").display()
    )
}

/// One source, verified as GitHub's, to one application.
pub fn github_to(app: &str) -> String {
    format!(
        "sources:\n  github: {{ path: /webhooks/github, provider: github, secret: \"${{GITHUB_WEBHOOK_SECRET}}\", to: [app] }}\n\
         destinations:\n  app: {{ url: {app}/hooks/github, retry: {{ initial: 20ms, max: 100ms }}, breaker: {{ failures: 5, cooldown: 50ms }} }}\n"
    )
}

pub fn command() -> Command {
    surroundings(Command::new(PROGRAM))
}

/// The same, started by a shell script that ends in `exec "$@"`.
pub fn by_shell(script: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script, "sh", PROGRAM]);
    surroundings(shell)
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_forebay");

fn surroundings(mut command: Command) -> Command {
    command.env_clear().env("GITHUB_WEBHOOK_SECRET", SECRET).env("NO_COLOR", "1");
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// `write`, `fsync`, `fdatasync`, by their numbers.
#[cfg(target_arch = "x86_64")]
const CALLS_OF_A_COMMIT: [u32; 3] = [1, 74, 75];
#[cfg(not(target_arch = "x86_64"))]
const CALLS_OF_A_COMMIT: [u32; 3] = [64, 82, 83];

impl Gateway {
    /// Starts with [`head`] and `rest` as the config.
    pub async fn start(rest: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("forebay.yaml");
        std::fs::write(&config, format!("{}{rest}", head(dir.path()))).unwrap();
        Self::start_in(dir).await
    }

    /// Starts with [`head`], `ingress` in place of its own, and `rest` as the config.
    pub async fn start_with(ingress: &str, rest: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let top = head(dir.path()).replacen("listen: 127.0.0.1:0", ingress, 1);
        std::fs::write(dir.path().join("forebay.yaml"), format!("{top}{rest}")).unwrap();
        Self::start_in(dir).await
    }

    pub async fn start_in(dir: TempDir) -> Self {
        Self::start_by(command(), dir).await
    }

    /// As a service manager does that opened `socket` itself: it is descriptor 3, called `web`.
    pub async fn start_with_socket(socket: impl Into<OwnedFd>, dir: TempDir) -> Self {
        let hand_over = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec \"$@\"";
        let mut command = by_shell(hand_over);
        command.stdin(socket.into());
        Self::start_by(command, dir).await
    }

    /// Starts by `command`, which is given the arguments.
    pub async fn start_by(mut command: Command, dir: TempDir) -> Self {
        let mut child =
            command.args(["serve", "-c"]).arg(dir.path().join("forebay.yaml")).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, mut log) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                sender.send_modify(|lines: &mut Vec<String>| lines.push(line));
            }
        });
        let ready = |lines: &Vec<String>| lines.iter().any(|line| message(line) == "ready");
        let found = tokio::time::timeout(PATIENCE, log.wait_for(ready)).await.map(|found| found.map(|l| l.clone()));
        let Ok(Ok(lines)) = found else { panic!("the gateway did not start: {:#?}", *log.borrow()) };
        let line = lines.iter().find(|line| message(line) == "ready").unwrap();
        let address = |name: &str| format!("http://{}", field_of(line, name));
        let (ingress, admin) = (address("ingress"), address("admin"));
        Self { child, dir, log, ingress, admin, http: Http::new() }
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("forebay.yaml")
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Bytes of memory that it has now.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        resident.expect("VmRSS in kB").parse::<u64>().unwrap() * 1024
    }

    pub fn log(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    /// All that it logs, once it has ended.
    pub fn log_to_end(&self) -> impl Future<Output = Vec<String>> + use<> {
        let mut log = self.log.clone();
        async move {
            while log.changed().await.is_ok() {}
            log.borrow().clone()
        }
    }

    /// Waits until it has logged `what`.
    pub async fn says(&self, what: &str) {
        let mut log = self.log.clone();
        let said = log.wait_for(|lines| lines.iter().any(|line| message(line) == what));
        let said = tokio::time::timeout(PATIENCE, said).await.is_ok_and(|said| said.is_ok());
        assert!(said, "it never said {what:?}");
    }

    /// Sends `signal` at once: no other program is started for it.
    pub fn signal_now(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw).expect("a process's number");
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Whether the journal's writing thread is in a write or a flush, or has not yet been told how that went. Meant for a
    /// process that has been stopped: it looks at where the kernel has the thread.
    pub fn is_in_a_commit(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("/proc is there").flatten();
        let is_writer = |task: &std::fs::DirEntry| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "journal-write")
        };
        let writer = tasks.into_iter().find(is_writer).expect("the journal has its thread");
        let call = std::fs::read_to_string(writer.path().join("syscall")).expect("its call can be seen");
        let number = call.split(' ').next().and_then(|number| number.parse::<u32>().ok());
        number.is_some_and(|number| CALLS_OF_A_COMMIT.contains(&number))
    }

    /// kill -9: no drain, nothing flushed.
    pub async fn kill(mut self) -> TempDir {
        self.child.kill().await.unwrap();
        self.dir
    }

    pub async fn kill_and_restart(self) -> Self {
        Self::start_in(self.kill().await).await
    }

    /// SIGTERM; the exit code.
    pub async fn terminate(self) -> (i32, TempDir) {
        self.signal("TERM").await;
        self.ended().await
    }

    /// Waits until it has ended by itself; the exit code.
    pub async fn ended(mut self) -> (i32, TempDir) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
        (status.code().unwrap_or(-1), self.dir)
    }

    pub async fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().await.unwrap();
        assert!(sent.success());
    }

    /// Posts `body` as GitHub would, with the delivery id `id`.
    pub async fn github(&self, id: &str, body: &[u8]) -> Answer {
        self.try_github(id, body).await.expect("an answer")
    }

    pub async fn try_github(&self, id: &str, body: &[u8]) -> Option<Answer> {
        let signature = sign(body);
        let headers =
            [("x-github-delivery", id), ("x-github-event", "push"), ("x-hub-signature-256", signature.as_str())];
        let url = format!("{}/webhooks/github", self.ingress);
        self.http.try_send(Method::POST, &url, &headers, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.http.get(&format!("{}{path}", self.admin)).await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        let headers = [("content-type", "application/json")];
        self.http.send(Method::POST, &format!("{}{path}", self.admin), &headers, body.as_bytes()).await
    }

    /// Waits until the event `id` has `status`, asking the API; gives it as the API shows it.
    pub async fn event(&self, id: &str, status: &str) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let event = self.get(&format!("/api/v1/events/{id}")).await.json();
            if event["status"] == status {
                return event;
            }
            assert!(tokio::time::Instant::now() < deadline, "never {status}: {event:#}");
            tokio::task::yield_now().await;
        }
    }

    /// Waits until the metric `name` is `value` or more.
    pub async fn until_metric(&self, name: &str, value: f64) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.metric(name).await < value {
            assert!(tokio::time::Instant::now() < deadline, "{name} was never {value}");
            tokio::task::yield_now().await;
        }
    }

    /// The value of a metric, e.g. `forebay_requests_total{source="github",outcome="stored"}`; 0 if it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or(0.0)
    }
}

fn message(line: &str) -> String {
    match serde_json::from_str::<Value>(line) {
        Ok(line) => field(&line, "message"),
        Err(_) if line.contains(": ready version=") => "ready".to_owned(), // `log.format: text`
        Err(_) => String::new(),
    }
}

/// The field `name` of a log line of either format.
fn field_of(line: &str, name: &str) -> String {
    match serde_json::from_str(line) {
        Ok(line) => field(&line, name),
        Err(_) => {
            let value = line.split_once(&format!(" {name}=")).map_or("", |(_, rest)| rest);
            value.split(' ').next().unwrap_or_default().trim_matches('"').to_owned()
        }
    }
}

fn field(line: &Value, name: &str) -> String {
    let value = line.get(name).or_else(|| line.get("fields").and_then(|fields| fields.get(name)));
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}
