use futures_util::FutureExt as _;

use super::*;

/// Opens a tail; nothing reads it yet.
async fn open(bench: &Bench, query: &str) -> Body {
    let request = Request::builder().uri(format!("/api/v1/tail{query}")).header("host", "127.0.0.1:9090");
    let response = router(Arc::clone(&bench.state)).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body()
}

/// Changes of `events` events, more than are kept for a follower, all of them in the index.
async fn flood(bench: &Bench, events: i64) {
    for n in 0..events {
        bench.journal.keep(&event_at(n), &[]);
    }
    bench.state.index.catch_up().await.unwrap();
}

#[tokio::test]
async fn a_reader_that_is_too_slow_for_the_changes_is_told_so_and_dropped() {
    let bench = Bench::new();
    let tail = open(&bench, "").await;
    flood(&bench, 8193).await;
    let said = String::from_utf8(tail.collect().await.unwrap().to_bytes().into()).unwrap();
    assert!(said.contains(": too slow: changes came faster than they were read"), "{}", &said[said.len() - 200..]);
}

#[tokio::test]
async fn a_slow_reader_loses_no_new_event() {
    let bench = Bench::new();
    let mut tail = open(&bench, "?changes=false").await;
    flood(&bench, 8193).await;
    let mut seen = 0;
    while seen < 8193 {
        let frame = tail.frame().await.unwrap().unwrap().into_data().unwrap();
        seen += std::str::from_utf8(&frame).unwrap().matches("event: event").count();
    }
    bench.tasks.stop(); // it ends with the index, and there was no more on it
    let rest = String::from_utf8(tail.collect().await.unwrap().to_bytes().into()).unwrap();
    assert!(rest.starts_with(": the gateway is shutting down") && !rest.contains("event: event"), "{rest}");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_tail_says_that_it_lives() {
    let bench = Bench::new();
    let mut tail = open(&bench, "").await;
    let mut said = String::new();
    while !said.contains(": still here\n\n: still here\n\n") {
        match tail.frame().now_or_never() {
            Some(frame) => said.push_str(std::str::from_utf8(&frame.unwrap().unwrap().into_data().unwrap()).unwrap()),
            None => tokio::time::advance(Duration::from_secs(1)).await,
        }
    }
    assert!(said.starts_with(": events as they come\nretry: 1000\n\n"), "{said}");
}
