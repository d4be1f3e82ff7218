//! The gateway that is killed: a process of its own on a scratch journal.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;

use super::super::super::client::{AdminArgs, AdminClient};
use super::sender;

/// How long a gateway may take to be ready.
const START_MAX: Duration = Duration::from_secs(60);

/// What the scratch directory's name begins with; the process's number follows.
const SCRATCH: &str = ".forebay-crash-";

/// A directory that is gone when this is.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it in `dir`, with the config of a gateway in front of an application at `app`.
    pub(super) fn new(dir: &Path, app: SocketAddr) -> anyhow::Result<Self> {
        let dir = std::path::absolute(dir).context("no such directory; name another one with --dir")?;
        clear(&dir);
        enough(&dir)?;
        let path = dir.join(format!("{SCRATCH}{}", std::process::id()));
        fs::create_dir(&path).with_context(|| {
            format!("cannot make {}; --dir names a directory that is there and can be written to", path.display())
        })?;
        let scratch = Self(path);
        let (data, secret) = (scratch.0.join("data"), sender::secret());
        let source =
            |name: &str| format!("  {name}: {{ provider: standard-webhooks, secret: {secret}, to: [{name}] }}\n");
        let destination = |name: &str| {
            let retry = "retry: { initial: 20ms, max: 100ms }, breaker: { failures: 5, cooldown: 50ms }";
            format!("  {name}: {{ url: \"http://{app}/{name}\", {retry} }}\n")
        };
        let config = format!(
            "ingress: {{ listen: 127.0.0.1:0 }}\nadmin: {{ listen: 127.0.0.1:0 }}\n\
             journal: {{ dir: {}, max_size: 1GiB }}\nlog: {{ format: json }}\n\
             sources:\n{}{}destinations:\n{}{}",
            serde_json::to_string(&data.display().to_string())?,
            source("ready"),
            source("waiting"),
            destination("ready"),
            destination("waiting"),
        );
        fs::write(scratch.config(), config).with_context(|| format!("cannot write {}", scratch.config().display()))?;
        Ok(scratch)
    }

    fn config(&self) -> PathBuf {
        self.0.join("forebay.yaml")
    }

    fn log(&self) -> PathBuf {
        self.0.join("log")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // the next run tries again
    }
}

/// What a gateway needs to have room to be under load: segments, the index, and what it keeps free of the disk.
const SPACE: u64 = 64 << 20;

fn enough(dir: &Path) -> anyhow::Result<()> {
    let Ok(facts) = rustix::fs::statvfs(dir) else { return Ok(()) }; // making something in it says what is wrong
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    if free < SPACE {
        let (free, space) = (free >> 20, SPACE >> 20);
        bail!("{}: the disk is too small: {free} MiB are free, {space} are needed; --dir names another", dir.display());
    }
    Ok(())
}

/// Removes what runs that were killed have left.
fn clear(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(SCRATCH).and_then(|pid| pid.parse().ok()) else { continue };
        let lives =
            rustix::process::Pid::from_raw(pid).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok());
        if !lives {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A running gateway. Dropped, it is killed (kill -9).
pub(super) struct Gateway {
    child: Child,
    pub(super) ingress: String,
    admin: Option<AdminClient>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill(); // an error means that it has ended
        let _ = self.child.wait();
    }
}

impl Gateway {
    /// Starts `program` and waits until it is ready.
    pub(super) async fn start(program: &Path, scratch: &Scratch) -> anyhow::Result<Self> {
        let log = File::create(scratch.log()).with_context(|| format!("cannot write {}", scratch.log().display()))?;
        let mut command = Command::new(program);
        command.args(["serve", "--no-watch", "-c"]).arg(scratch.config());
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let mut gateway = Self { child, ingress: String::new(), admin: None };
        let began = Instant::now();
        loop {
            let said = fs::read_to_string(scratch.log()).unwrap_or_default();
            if let Some((ingress, admin)) = said.lines().find_map(ready) {
                gateway.ingress = format!("http://{ingress}");
                gateway.admin = Some(AdminArgs::at(&admin).client(None)?);
                return Ok(gateway);
            }
            let last =
                || said.lines().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
            if let Some(status) = gateway.child.try_wait().context("the gateway cannot be looked at")? {
                bail!("the gateway did not start ({status}): {}", last());
            }
            if began.elapsed() > START_MAX {
                bail!("the gateway was not ready after {} s: {}", START_MAX.as_secs(), last());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The ids of the events that have a dead delivery, as far as the index knows by now.
    pub(super) async fn dead_letters(&self) -> anyhow::Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            items: Vec<Item>,
            next: Option<String>,
        }
        #[derive(Deserialize)]
        struct Item {
            id: String,
        }
        let admin = self.admin.as_ref().context("the gateway has no private side")?;
        let (mut ids, mut next) = (Vec::new(), None);
        loop {
            let mut query = vec![("status", "dead".to_owned()), ("limit", "500".to_owned())];
            query.extend(next.map(|cursor| ("cursor", cursor)));
            let reply = admin.get("/api/v1/events", &query).await?;
            let page: Page = reply.parse()?;
            ids.extend(page.items.into_iter().map(|item| item.id));
            next = page.next;
            if next.is_none() {
                return Ok(ids);
            }
        }
    }
}

/// The addresses of the public and the private side, if `line` of the log tells them.
fn ready(line: &str) -> Option<(String, String)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    let text = |name: &str| Some(fields.get(name)?.as_str()?.to_owned());
    if text("message")? == "ready" { Some((text("ingress")?, text("admin")?)) } else { None }
}
