//! P39: a gateway a part of which panics is unready at once and ends as failed, whether or not anything comes in meanwhile.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::base::ByteSize;
use crate::config;

async fn started(dir: &Path) -> Gateway {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default(); // another test may have
    let text = format!(
        "ingress: {{ listen: 127.0.0.1:0 }}\nadmin: {{ listen: 127.0.0.1:0 }}\njournal: {{ dir: {}, max_size: {} }}\n\
         sources: {{ s: {{ verify: none, to: [app] }} }}\ndestinations: {{ app: {{ url: \"http://127.0.0.1:9/\" }} }}\n",
        dir.display(),
        ByteSize(64 << 20)
    );
    let read = move || config::parse_str("forebay.yaml", &text, Path::new("."), &|_| None).unwrap().0;
    let load: Load = Arc::new(|| unreachable!("nobody asks"));
    let log = logs::Level::of_nothing();
    Gateway::start(read(), Origin { files: Vec::new(), load, watch: Watch::Off }, log).await.unwrap()
}

/// The first line of what `/readyz` says; none once nobody listens any more.
async fn readiness(admin: SocketAddr) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(admin).await.ok()?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").await.ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await.ok()?;
    said.lines().next().map(str::to_owned)
}

async fn ends_as_failed(harm: impl AsyncFnOnce(&Gateway)) {
    let dir = tempfile::tempdir().unwrap();
    let gateway = started(&dir.path().join("data")).await;
    let admin = gateway.addresses.admin;
    assert!(readiness(admin).await.unwrap().contains("200"));
    harm(&gateway).await;
    let (draining, until) = (Arc::clone(&gateway.draining), Instant::now() + Duration::from_secs(5));
    let watching = async {
        while readiness(admin).await.is_some_and(|said| said.contains("200")) {
            assert!(Instant::now() < until, "it looks alive for longer than 5 s");
        }
    };
    let (ended, ()) = tokio::join!(gateway.until_stopped(), watching);
    assert_eq!(ended, Ended::Failed);
    assert!(draining.load(Ordering::Acquire));
}

#[tokio::test]
async fn a_task_that_panics_ends_the_gateway() {
    ends_as_failed(async |gateway| gateway.work.spawn("lane", async { panic!("on purpose") })).await;
    ends_as_failed(async |gateway| gateway.edge.spawn("connection", async { panic!("on purpose") })).await;
    ends_as_failed(async |gateway| gateway.admin.spawn("admin", async { panic!("on purpose") })).await;
}

/// Nothing is delivered and nothing comes in: nobody meets the loss by chance.
#[tokio::test]
async fn a_journal_whose_reader_panics_ends_an_idle_gateway() {
    ends_as_failed(async |gateway| gateway.journal.panic_reader().await).await;
}

#[tokio::test]
async fn a_journal_whose_writer_panics_ends_an_idle_gateway() {
    ends_as_failed(async |gateway| gateway.journal.panic_writer().await).await;
}

#[tokio::test]
async fn a_worker_that_panics_ends_the_gateway() {
    let harm = async |gateway: &Gateway| {
        let body = gateway.work.guard("worker", || panic!("on purpose"));
        std::thread::spawn(body).join().unwrap();
    };
    ends_as_failed(harm).await;
}
