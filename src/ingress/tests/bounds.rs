//! Who has a place, and whose place is taken: connections that hold on and say nothing.

use super::*;

const GET: &[u8] = b"GET /hooks HTTP/1.1\r\nHost: a\r\n\r\n";

async fn is_answered(stream: &mut TcpStream) {
    stream.write_all(GET).await.unwrap();
    assert_eq!(status(&read_answer(stream).await), 200);
}

async fn is_closed(stream: &mut TcpStream) {
    let _ = in_time(stream.read_u8()).await.expect_err("closed or reset, nothing was said");
}

#[tokio::test]
async fn a_client_has_its_share_of_connections_and_the_next_is_closed_at_once() {
    let running = Running::exempting(&[], |settings| settings.limits.per_client = 2).await;
    let (mut first, mut second) = (running.connect().await, running.connect().await);
    is_answered(&mut first).await;
    is_answered(&mut second).await;
    for _ in 0..3 {
        is_closed(&mut running.connect().await).await;
    }
    assert_eq!(running.cut_off("per_client"), 3);
    is_answered(&mut first).await;
    drop(second);
    loop {
        let mut next = running.connect().await;
        if next.write_all(GET).await.is_ok() && in_time(next.read_u8()).await.is_ok() {
            break; // the second one's place is free once its end was noticed
        }
    }
}

#[tokio::test]
async fn loopback_and_trusted_proxies_have_no_share() {
    let loopback = Running::with(|settings| settings.limits.per_client = 1).await;
    let proxy = |settings: &mut Settings| {
        settings.limits.per_client = 1;
        settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    };
    let trusted = Running::exempting(&[], proxy).await;
    for running in [loopback, trusted] {
        let mut open = Vec::new();
        for _ in 0..5 {
            let mut stream = running.connect().await;
            is_answered(&mut stream).await;
            open.push(stream);
        }
        assert_eq!(running.cut_off("per_client"), 0);
    }
}

/// A table full of connections that say nothing, or half of something, keeps nobody out.
#[tokio::test]
async fn for_one_that_comes_the_one_silent_longest_goes() {
    let running = Running::with(|settings| settings.limits.connections = 4).await;
    let mut kept = running.connect().await;
    is_answered(&mut kept).await;
    let mut silent = running.connect().await;
    let mut half = running.connect().await;
    half.write_all(b"POST /hooks HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    let mut preface = running.connect().await;
    preface.write_all(b"PRI * HT").await.unwrap();
    while !running.metrics.render().contains("\nforebay_connections 4\n") {
        tokio::task::yield_now().await;
    }
    is_answered(&mut kept).await; // it has spoken since
    let mut open = Vec::new();
    for gone in [&mut silent, &mut half, &mut preface] {
        let mut genuine = running.connect().await;
        is_answered(&mut genuine).await;
        is_closed(gone).await;
        open.push(genuine);
    }
    is_answered(&mut kept).await;
    assert_eq!(running.cut_off("crowded"), 3);
}

/// A table full of bodies that never end keeps nobody out either, and what is complete does not go for them.
#[tokio::test]
async fn a_request_whose_body_is_held_back_goes_for_one_that_comes() {
    let mut running = Running::with(|settings| settings.limits.connections = 3).await;
    let mut waits = running.connect().await;
    waits.write_all(b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    running.heads.recv().await.unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = running.connect().await;
        stream.write_all(b"POST /hooks HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf").await.unwrap();
        running.heads.recv().await.unwrap();
        held.push(stream);
    }
    let mut genuine = Vec::new();
    for stream in &mut held {
        let mut next = running.connect().await;
        is_answered(&mut next).await;
        is_closed(stream).await;
        genuine.push(next);
    }
    running.go.notify_one();
    assert_eq!(status(&read_answer(&mut waits).await), 200);
    running.until_budget_is_whole().await;
}

#[tokio::test(start_paused = true)]
async fn what_ends_for_want_of_a_request_is_counted() {
    let running = Running::start().await;
    let mut open = [running.connect().await, running.connect().await, running.connect().await];
    open[0].write_all(b"POST /hooks HTTP/1.1\r\n").await.unwrap();
    is_answered(&mut open[1]).await;
    for stream in &mut open {
        is_closed(stream).await;
    }
    while running.cut_off("head") < 2 || running.cut_off("idle") < 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!((running.cut_off("head"), running.cut_off("idle")), (2, 1));
}

/// Whoever sends request after request and reads no answer is cut off, whatever the system's buffers hold.
#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_cut_off() {
    let running = Running::start().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut stream = socket.connect(running.address).await.unwrap();
    let body = "x".repeat(BODY_LIMIT);
    let request = format!("POST /hooks HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY_LIMIT}\r\n\r\n{body}");
    let mut heads = running.heads;
    running.tasks.spawn("drain", async move { while heads.recv().await.is_some() {} });
    // No time limit: the system's own timers do not follow the test's clock, and would be overtaken by it.
    while stream.write_all(request.as_bytes()).await.is_ok() {}
    let metric = "forebay_connections_cut_off_total{reason=\"unread\"} 1\n";
    assert!(running.metrics.render().contains(metric));
}
