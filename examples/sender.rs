//! A genuine sender under measurement: signed webhooks at a steady rate, or as fast as some workers can.
//!
//! `sender URL --rate 200 --seconds 10` sends 200 a second, each when it is due, whatever became of the one before;
//! `sender URL --workers 8 --seconds 10` keeps eight under way. The secret is `FOREBAY_SENDER_SECRET`, and what is
//! signed is the body, HMAC-SHA256, in `X-Hub-Signature-256`. Every second one opens a connection of its own, as most
//! providers do. The last line is what came of it, as JSON; a run in which one was not answered 2xx exits with 1.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// What a provider would wait for an answer, about.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends signed webhooks and measures.
#[derive(Parser)]
struct Args {
    /// Where to.
    url: String,
    /// So many a second; without it as many as the workers can.
    #[arg(long)]
    rate: Option<u32>,
    /// How many are under way at a time, without a rate.
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// For how long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Bytes of each body.
    #[arg(long, default_value_t = 512)]
    bytes: usize,
}

#[derive(Clone)]
struct Sender {
    url: Arc<str>,
    secret: Arc<[u8]>,
    bytes: usize,
    pooled: Client<HttpConnector, Full<Bytes>>,
    lone: Client<HttpConnector, Full<Bytes>>,
    run: Arc<str>,
    results: Arc<Mutex<Results>>,
}

#[derive(Default)]
struct Results {
    took_us: Vec<u64>,
    failures: Vec<String>,
}

impl Sender {
    async fn send(self, number: u64) {
        let began = Instant::now();
        let answer = match timeout(PATIENCE, self.post(number)).await {
            Ok(answer) => answer,
            Err(_) => Err(anyhow::anyhow!("no answer in {PATIENCE:?}")),
        };
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let Ok(mut results) = self.results.lock() else { return };
        match answer {
            Ok(()) => results.took_us.push(took),
            Err(error) => results.failures.push(format!("{error:#}")),
        }
    }

    async fn post(&self, number: u64) -> anyhow::Result<()> {
        let mut body = format!("{{\"run\":\"{}\",\"number\":{number},\"filler\":\"", self.run);
        body.extend(std::iter::repeat_n('x', self.bytes.saturating_sub(body.len() + 2)));
        body.push_str("\"}");
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&self.secret)?;
        mac.update(body.as_bytes());
        let signature = data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes());
        let request = Request::post(&*self.url)
            .header("x-github-delivery", format!("{}-{number}", self.run))
            .header("x-github-event", "push")
            .header("x-hub-signature-256", format!("sha256={signature}"))
            .body(Full::new(Bytes::from(body)))?;
        let client = if number.is_multiple_of(2) { &self.lone } else { &self.pooled };
        let answer = client.request(request).await?;
        let status = answer.status();
        answer.into_body().collect().await?;
        anyhow::ensure!(status.is_success(), "{status}");
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let secret = std::env::var("FOREBAY_SENDER_SECRET").context("FOREBAY_SENDER_SECRET is not set")?;
    let mut lone = Client::builder(TokioExecutor::new());
    lone.pool_max_idle_per_host(0);
    let sender = Sender {
        url: args.url.into(),
        secret: secret.into_bytes().into(),
        bytes: args.bytes,
        pooled: Client::builder(TokioExecutor::new()).build_http(),
        lone: lone.build_http(),
        run: uuid::Uuid::now_v7().to_string().into(),
        results: Arc::default(),
    };
    let began = Instant::now();
    let until = Duration::from_secs(args.seconds);
    let mut under_way = JoinSet::new();
    match args.rate {
        Some(rate) => {
            let mut due = interval(Duration::from_secs(1) / rate.max(1));
            due.set_missed_tick_behavior(MissedTickBehavior::Burst); // late is late, but none is left out
            for number in 0..u64::from(rate) * args.seconds {
                due.tick().await;
                under_way.spawn(sender.clone().send(number));
            }
        }
        None => {
            for worker in 0..args.workers as u64 {
                let (sender, workers) = (sender.clone(), args.workers as u64);
                under_way.spawn(async move {
                    let mut number = worker;
                    while began.elapsed() < until {
                        sender.clone().send(number).await;
                        number += workers;
                    }
                });
            }
        }
    }
    while under_way.join_next().await.is_some() {}
    let seconds = began.elapsed().as_secs_f64();
    let mut results = std::mem::take(&mut *sender.results.lock().map_err(|_| anyhow::anyhow!("a task panicked"))?);
    results.took_us.sort_unstable();
    let at = |share: f64| {
        let place = (results.took_us.len() as f64 * share) as usize;
        results.took_us.get(place.min(results.took_us.len().saturating_sub(1))).map(|us| *us as f64 / 1000.0)
    };
    let ok = results.took_us.len();
    let line = serde_json::json!({
        "sent": ok + results.failures.len(), "ok": ok, "a_second": ok as f64 / seconds,
        "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0), "failures": results.failures.iter().take(5).collect::<Vec<_>>(),
    });
    println!("{line}");
    Ok(if results.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
