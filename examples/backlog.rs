//! A backlog under measurement: what an outage of the application costs the gateway, and how it comes out of it.
//!
//! `backlog target/release/forebay --events 5000000` has the gateway take so many events while nobody listens where they go,
//! then kills it, lets the application come back for a moment, closes it, and lets the application come back for good. It
//! prints how fast events were taken while the backlog grew and what CPU each took, memory and disk, how long opening took
//! until `/readyz` and until the first delivery, and how fast the backlog drains. Of all that was taken, nothing may be missing.
//! Everything is below `--dir` (a temporary directory unless told), on ports that the system chooses.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BytesMut};
use clap::Parser;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Requests that a connection sends before it waits for the answers.
const TOGETHER: u64 = 16;
/// What the gateway may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the index may take to catch up with what was there before a kill.
const OF_THE_INDEX: Duration = Duration::from_secs(600);

/// Measures the gateway with a backlog.
#[derive(Parser)]
struct Args {
    /// The gateway.
    gateway: PathBuf,
    /// Events in the backlog.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Bytes of each body.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Connections that send.
    #[arg(long, default_value_t = 32)]
    connections: u64,
    /// How long draining is measured, in seconds.
    #[arg(long, default_value_t = 20)]
    drain: u64,
    /// Where the journal is made.
    #[arg(long)]
    dir: Option<PathBuf>,
}

struct Gateway {
    process: Child,
    admin: SocketAddr,
    began: Instant,
}

impl Gateway {
    fn start(args: &Args, dir: &Path, admin: SocketAddr) -> anyhow::Result<Self> {
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log"))?;
        let mut command = Command::new(&args.gateway);
        command.arg("serve").arg("-c").arg(dir.join("forebay.yaml")).stdout(log.try_clone()?).stderr(log);
        Ok(Self { process: command.spawn()?, admin, began: Instant::now() })
    }

    /// How long it takes until `/readyz` says yes.
    async fn ready(&mut self) -> anyhow::Result<Duration> {
        while self.began.elapsed() < PATIENCE {
            if self.get("/readyz").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(self.began.elapsed());
            }
            ensure!(self.process.try_wait()?.is_none(), "the gateway has ended; see its log");
            sleep(Duration::from_millis(2)).await;
        }
        bail!("the gateway is not ready after {PATIENCE:?}")
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// MiB that are resident now, and at most so far; CPU seconds so far.
    fn memory(&self) -> anyhow::Result<String> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let mib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).map_or(0, |kib| kib / 1024)
        };
        Ok(format!("{} MiB resident, {} at most, {:.2} s of CPU", mib("VmRSS"), mib("VmHWM"), self.cpu()?))
    }

    /// CPU seconds so far.
    fn cpu(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let of_a_second = |field: &str| field.parse::<f64>().unwrap_or(0.0) / 100.0;
        Ok(stat.split_whitespace().skip(13).take(2).map(of_a_second).sum())
    }

    /// Deliveries that wait.
    async fn pending(&self) -> anyhow::Result<u64> {
        let metrics = self.get("/metrics").await?;
        let value =
            metrics.lines().find_map(|line| line.strip_prefix(r#"forebay_pending_deliveries{destination="app"} "#));
        value.context("/metrics does not say what waits")?.trim().parse().context("what waits is no number")
    }

    /// Waits until the index has caught up, and says how long that took.
    async fn index(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while !self.get("/api/v1/events?limit=1").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            ensure!(began.elapsed() < OF_THE_INDEX, "the index does not answer");
            sleep(Duration::from_millis(20)).await;
        }
        println!("the list of events answers {} ms after that; {}", began.elapsed().as_millis(), self.memory()?);
        Ok(())
    }

    /// Ends it by `signal`; how long that takes.
    async fn end(mut self, signal: rustix::process::Signal) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal)?;
        while self.process.try_wait()?.is_none() {
            ensure!(began.elapsed() < PATIENCE, "the gateway does not end");
            sleep(Duration::from_millis(2)).await;
        }
        Ok(began.elapsed())
    }
}

/// The first whole HTTP message in `buffer`, head and body, is taken out. False if there is none yet.
fn take_message(buffer: &mut BytesMut) -> bool {
    let Some(head) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(buffer.get(..head).unwrap_or_default()).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let whole = head + 4 + length.unwrap_or(0);
    let is_there = buffer.len() >= whole;
    if is_there {
        buffer.advance(whole);
    }
    is_there
}

/// Sends the events of one connection, whose numbers begin at `first`.
async fn send(
    to: SocketAddr,
    (first, count): (u64, u64),
    filler: Arc<str>,
    taken: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    let (mut out, mut answers) = (String::new(), BytesMut::new());
    for begin in (first..first + count).step_by(TOGETHER as usize) {
        let together = TOGETHER.min(first + count - begin);
        out.clear();
        for number in begin..begin + together {
            let body = format!("{{\"number\":{number},\"filler\":\"{filler}\"}}");
            let length = body.len();
            out += &format!(
                "POST /acme HTTP/1.1\r\nhost: gateway\r\nx-id: {number}\r\ncontent-length: {length}\r\n\r\n{body}"
            );
        }
        stream.write_all(out.as_bytes()).await?;
        for _ in 0..together {
            while !answers.windows(4).any(|four| four == b"\r\n\r\n") {
                ensure!(stream.read_buf(&mut answers).await? > 0, "the gateway hung up");
            }
            ensure!(answers.starts_with(b"HTTP/1.1 200"), "refused: {}", String::from_utf8_lossy(&answers));
            while !take_message(&mut answers) {
                ensure!(stream.read_buf(&mut answers).await? > 0, "the gateway hung up");
            }
        }
        taken.fetch_add(together, Ordering::Relaxed);
    }
    Ok(())
}

/// The application: takes everything.
async fn application(listener: TcpListener, delivered: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let delivered = Arc::clone(&delivered);
        let serve = async move {
            let mut buffer = BytesMut::new();
            while stream.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
                while take_message(&mut buffer) {
                    delivered.fetch_add(1, Ordering::Relaxed);
                    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                        return;
                    }
                }
            }
        };
        connections.spawn(serve);
    }
}

fn disk_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(facts) if facts.is_dir() => disk_bytes(&entry.path()),
        Ok(facts) => facts.len(),
        Err(_) => 0, // gone since
    };
    entries.map(size).sum()
}

fn say_disk(data: &Path) {
    let mib = |name: &str| disk_bytes(&data.join(name)) >> 20;
    let checkpoint = std::fs::metadata(data.join("checkpoint")).map_or(0, |facts| facts.len() >> 10);
    println!(
        "disk: log {} MiB, index {}, claims {}, checkpoint {checkpoint} KiB",
        mib("log"),
        mib("index"),
        mib("claims")
    );
}

async fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}

async fn fill(args: &Args, public: SocketAddr, gateway: &Gateway) -> anyhow::Result<()> {
    let filler: Arc<str> = "x".repeat(args.bytes.saturating_sub(32)).into();
    let (taken, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let each = args.events.div_ceil(args.connections);
    let mut senders = JoinSet::new();
    for connection in 0..args.connections {
        let first = connection * each;
        let count = each.min(args.events.saturating_sub(first));
        senders.spawn(send(public, (first, count), Arc::clone(&filler), Arc::clone(&taken)));
    }
    let watch = async {
        let (mut last, mut at, mut cpu) = (0, Instant::now(), gateway.cpu()?);
        while !over.load(Ordering::Relaxed) {
            let now = taken.load(Ordering::Relaxed);
            if now - last >= args.events / 10 || now == args.events {
                let count = (now - last) as f64;
                println!(
                    "{now} events: {:.0} a second, {:.1} µs of CPU each; {}",
                    count / at.elapsed().as_secs_f64(),
                    (gateway.cpu()? - cpu) * 1e6 / count,
                    gateway.memory()?
                );
                (last, at, cpu) = (now, Instant::now(), gateway.cpu()?);
                if now == args.events {
                    break;
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok::<_, anyhow::Error>(())
    };
    let all = async {
        while let Some(sent) = senders.join_next().await {
            let sent = sent.context("a sender panicked").and_then(|sent| sent);
            if sent.is_err() {
                over.store(true, Ordering::Relaxed);
                return sent;
            }
        }
        Ok(())
    };
    let (all, watch) = tokio::join!(all, watch);
    all.and(watch)
}

/// Starts the gateway with the application there, and says how long it took until `/readyz` and until the first delivery.
async fn reopen(
    after: &str,
    (args, dir): (&Args, &Path),
    admin: SocketAddr,
    delivered: &AtomicU64,
) -> anyhow::Result<Gateway> {
    let before = delivered.load(Ordering::Relaxed);
    let mut gateway = Gateway::start(args, dir, admin)?;
    let ready = gateway.ready().await?;
    println!("after {after}: ready after {} ms; {}", ready.as_millis(), gateway.memory()?);
    while delivered.load(Ordering::Relaxed) == before {
        ensure!(gateway.began.elapsed() < PATIENCE, "nothing is delivered");
        sleep(Duration::from_millis(1)).await;
    }
    println!("first delivery after {} ms; {}", gateway.began.elapsed().as_millis(), gateway.memory()?);
    Ok(gateway)
}

/// What was taken waits or has arrived.
async fn check(args: &Args, gateway: &Gateway, delivered: &AtomicU64) -> anyhow::Result<()> {
    // Asked in this order, for what is answered in between is then counted twice, and never not at all.
    let pending = gateway.pending().await?;
    let delivered = delivered.load(Ordering::Relaxed);
    println!("{pending} wait, {delivered} have arrived");
    ensure!(pending + delivered >= args.events, "{} of {} are lost", args.events - pending - delivered, args.events);
    Ok(())
}

async fn measure(args: &Args, dir: &Path) -> anyhow::Result<()> {
    let (public, admin, app) = (free_address().await?, free_address().await?, free_address().await?);
    let data = dir.join("data");
    let config = format!(
        "ingress: {{ listen: {public} }}\nadmin: {{ listen: {admin} }}\n\
         journal: {{ dir: {}, max_size: 32GiB }}\nlog: {{ level: info }}\n\
         sources:\n  acme: {{ path: /acme, verify: none, dedupe: {{ key: header:X-Id, window: 72h }}, to: [app] }}\n\
         destinations:\n  app: {{ url: \"http://{app}\", concurrency: 64 }}\n",
        data.display()
    );
    std::fs::write(dir.join("forebay.yaml"), config)?;
    let mut gateway = Gateway::start(args, dir, admin)?;
    println!("new: ready after {} ms; {}", gateway.ready().await?.as_millis(), gateway.memory()?);
    let began = Instant::now();
    fill(args, public, &gateway).await?;
    println!("all taken: {:.0} a second", args.events as f64 / began.elapsed().as_secs_f64());
    gateway.index().await?;
    say_disk(&data);
    gateway.end(rustix::process::Signal::KILL).await?;

    let delivered = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    running.spawn(application(TcpListener::bind(app).await?, Arc::clone(&delivered)));
    let gateway = reopen("kill -9", (args, dir), admin, &delivered).await?;
    gateway.index().await?;
    running.shutdown().await;
    check(args, &gateway, &delivered).await?;
    println!("closed in {} ms", gateway.end(rustix::process::Signal::TERM).await?.as_millis());
    say_disk(&data);

    running.spawn(application(TcpListener::bind(app).await?, Arc::clone(&delivered)));
    let gateway = reopen("a close", (args, dir), admin, &delivered).await?;
    let (from, cpu, began) = (delivered.load(Ordering::Relaxed), gateway.cpu()?, Instant::now());
    while began.elapsed() < Duration::from_secs(args.drain) && delivered.load(Ordering::Relaxed) < args.events {
        sleep(Duration::from_millis(20)).await;
    }
    let count = (delivered.load(Ordering::Relaxed) - from) as f64;
    println!(
        "draining: {:.0} a second, {:.1} µs of CPU each; {}",
        count / began.elapsed().as_secs_f64(),
        (gateway.cpu()? - cpu) * 1e6 / count,
        gateway.memory()?
    );
    check(args, &gateway, &delivered).await?;
    println!("closed in {} ms", gateway.end(rustix::process::Signal::TERM).await?.as_millis());
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let temporary = tempfile::tempdir()?;
    let dir = args.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let measured = runtime.block_on(measure(&args, &dir));
    measured.with_context(|| format!("the gateway's log is {}", dir.join("log").display()))
}
